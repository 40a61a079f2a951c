"""What an answer to a write means: stored, partly stored, away, too large, or refused until a person acts. Pure.

Sources: influxdb (OSS), coordinator/points_writer.go (1.x), http/write_handler.go (2.x: 422 of a partial write) and
influxdb3_server/src/http.rs (3 Core: `ErrorMessage`, `PartialLpWrite`, and `RequestSizeExceeded`, which `write_lp` answers with 500);
"Troubleshoot issues writing data" of 2.x (docs-v2: points outside the retention policy) and of 3 Core; observed on InfluxDB 1.6.7
and VictoriaMetrics 1.79.5. A store says 204 when it has stored: any other 2xx comes from somebody else, a proxy's page for instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

RETRY_AFTER_S_MAX: Final = 300.0
DETAIL_CHARS: Final = 300
_ABOUT_LINES: Final = re.compile(r"partial write|unable to parse|field type conflict|line protocol|parsing failed", re.IGNORECASE)
_QUOTED: Final = re.compile(r"unable to parse '(.*?)': ")
_TOO_OLD: Final = re.compile(r"points (beyond|outside) retention policy")
_TOO_LARGE: Final = re.compile(r"max request size \(\d+ bytes\) exceeded")
_OTHER_TYPE: Final = re.compile(r"field type conflict|limit exceeded|invalid column type|expected type|would exceed")
_DROPPED: Final = re.compile(r"dropped=(\d{1,9})\b")


@dataclass(frozen=True, slots=True)
class Stored:
    """All of it is stored, but what is older than what the store keeps by its own rule: so many lines, as far as it says."""

    dropped: int | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """Some lines were not taken. The others may be stored or not: sending them again does no harm.

    Attributes:
        reason: in the store's words. lines: those it quoted. numbers: those it counted, from 1.
        dropped: how many were not stored, as far as it says. schema: for a reason that lies in the database, not in a line.
    """

    reason: str
    lines: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    dropped: int | None = None
    schema: bool = False


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Less may be taken."""


@dataclass(frozen=True, slots=True)
class Away:
    """Nothing is wrong with what was sent: try again, not before `retry_after_s` if it said so."""

    reason: str
    reason_zh: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A person must change something first."""

    reason: str
    reason_zh: str


Decision = Stored | Partial | TooLarge | Away | Refused


def judged(store: str, status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Decision:
    """Return what the answer to a write means.

    Args:
        store: its id, for the advice. headers: names in lower case. now_s: UTC epoch seconds, for dates in Retry-After.
    """
    said = told(body)
    if status == 204:
        return Stored()
    if status in (400, 422) and _ABOUT_LINES.search(said):
        return _partial(said, body)
    if status == 413 or (status == 500 and _TOO_LARGE.search(said)):
        return TooLarge()
    if is_away(status, said):
        return away(store, status, said, retry_after_s(headers.get("retry-after"), now_s))
    return refusal(store, status, said)


def is_away(status: int, said: str) -> bool:
    """Whether a repetition of the same may help. 1.x says 500 of a retention policy that it has not."""
    return status in (408, 429) or (status >= 500 and not (status == 500 and "not found" in said))


def away(store: str, status: int, said: str, wait_s: float | None = None) -> Away:
    """Return what a store says that cannot answer now, with what may help it."""
    busy = (" and asks us to slow down", "，要求放慢") if status in (429, 503) and wait_s is not None else ("", "")
    if "no space left" in said:  # 1.6 goes on saying so when there is space again
        step, step_zh = "free some space on its disk, then restart it", "请清理该库所在磁盘，然后重启该库"
    elif "read-only mode" in said:
        step, step_zh = "free some space on its disk", "请清理该库所在磁盘"
    else:
        step, step_zh = "see its log if that stays", "若持续如此，请查看该库日志"
    said = short(said)
    return Away(
        f"storage.stores.{store}: answers {status}{busy[0]} ({said}); {step}",
        f"storage.stores.{store}：返回 {status}{busy[1]}（{said}）；{step_zh}", wait_s,
    )  # fmt: skip


def refusal(store: str, status: int, said: str) -> Refused:
    """Return what a person must change, naming the key in the configuration."""
    key, said = f"storage.stores.{store}", short(said)
    denied = status == 401 and "is unauthorized" in said  # 2.x of a token that it knows
    if status == 401 and not denied:
        return Refused(
            f"{key}: the store does not know us ({said}); check username, secret_file or secret_env",
            f"{key}：时序库不认可我们的身份（{said}）；请检查 username、secret_file 或 secret_env",
        )
    if status == 403 or denied:
        return Refused(
            f"{key}: we may not do that ({said}); let this user or token read and write {key}.database, or check username and "
            "secret_file",
            f"{key}：权限不足（{said}）；请授予该用户或令牌读写 {key}.database 的权限，或检查 username 与 secret_file",
        )
    if "not found" in said and "page not found" not in said and status in (200, 404, 500):
        return Refused(
            f"{key}: {said}; check database, org and retention_policy, or make them with `hazardgate store setup`",
            f"{key}：{said}；请检查 database、org 与 retention_policy，或运行 `hazardgate store setup` 创建",
        )
    if status in (404, 405):
        return Refused(
            f"{key}: nothing at this address takes our writes ({status}); check kind (1.x has /write, 3 /api/v3/write_lp, the others "
            "/api/v2/write) "
            "and url",
            f"{key}：该地址不接受写入（{status}）；请检查 kind（1.x 用 /write，3 用 /api/v3/write_lp，其他用 /api/v2/write）与 url",
        )
    if 300 <= status < 400:
        return Refused(
            f"{key}: answers with a redirect ({status}), which is not followed; put the final address into url",
            f"{key}：返回重定向（{status}），不予跟随；请在 url 中写最终地址",
        )
    if 200 <= status < 300:
        return Refused(
            f"{key}: answers {status} where a store answers 204; something else stands at this address: check url",
            f"{key}：返回 {status}，而时序库应返回 204；该地址可能是别的服务，请检查 url",
        )
    return Refused(
        f"{key}: refuses the request ({status}: {said}); check kind, url, org and database",
        f"{key}：拒绝请求（{status}：{said}）；请检查 kind、url、org 与 database",
    )


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return how long the store asks us to wait, by seconds or by date, at most five minutes; None if it says nothing usable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        wait = float(text[:9])
    else:
        try:
            wait = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0.0), RETRY_AFTER_S_MAX)


def told(body: bytes) -> str:
    """Return an error body in one bounded line without control characters: `error` or `message` of JSON, else its text."""
    text = body.decode("utf-8", "replace")
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        loaded = None
    if isinstance(loaded, dict):
        text = str(loaded.get("error") or loaded.get("message") or loaded)
    return "".join(char if char.isprintable() else " " for char in text[:4_096]).strip() or "no reason given"


def short(text: str) -> str:
    """Return a text cut to what a message may quote."""
    return text if len(text) <= DETAIL_CHARS else text[:DETAIL_CHARS] + "…"


def _partial(said: str, body: bytes) -> Decision:
    dropped = _DROPPED.search(said)
    if _TOO_OLD.search(said) and "unable to parse" not in said:
        return Stored(int(dropped[1]) if dropped else None)  # it would be deleted by the store's own rule
    whole = body.decode("utf-8", "replace")
    lines: tuple[str, ...] = tuple(_QUOTED.findall(_error_text(whole)))
    listed = () if lines else _listed(whole)
    if listed:
        numbers = tuple(number for number, _ in listed)
        schema = all(_OTHER_TYPE.search(why) for _, why in listed)
        return Partial(short(listed[0][1] or said), (), numbers, len(listed), schema)
    count = int(dropped[1]) if dropped and not lines else None
    return Partial(short(said), lines, (), count, schema=bool(_OTHER_TYPE.search(said)))


def _error_text(body: str) -> str:
    try:
        loaded: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return str(loaded.get("error") or loaded.get("message") or "") if isinstance(loaded, dict) else body


def _listed(body: str) -> tuple[tuple[int, str], ...]:
    """Return the lines of 3 Core's `data` as (number from 1, why): a list, or the first alone where it took none."""
    try:
        loaded: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    data = loaded.get("data") if isinstance(loaded, dict) else None
    each = data if isinstance(data, list) else [data]
    found = [(one.get("line_number"), one.get("error_message")) for one in each if isinstance(one, dict)]
    return tuple((number, _plain(why)) for number, why in found if type(number) is int and number > 0)


def _plain(why: object) -> str:
    return "".join(char if char.isprintable() else " " for char in str(why or "")[:4_096]).strip()
