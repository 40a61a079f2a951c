"""Gets lines stored, and finds those that a store will not take: by what it says, else by halving, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.historian.influx.answers import Away, Decision, Partial, Refused, Stored, TooLarge
from gateway.historian.store import StoreAwayError, StoreRefusedError

REQUESTS_MAX: Final = 256
"""Requests that finding bad lines of one batch may cost; what is not told apart by then is given up together."""
BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one request: InfluxDB 1.x takes 25 MB, 3 Core 10 MB unpacked (`max-http-request-size`), VictoriaMetrics lines of any number."""

Post = Callable[[bytes], Decision]


def store_lines(post: Post, lines: Sequence[str], store: str = "", young: Sequence[bool] = ()) -> dict[int, str]:
    """Send lines until all are stored, but those named in the answer with the store's reason.

    Args:
        store: its id, for the advice. young: which lines are of the last hour, which no store may drop as too old.

    Raises:
        StoreAwayError, StoreRefusedError: nothing is known to be stored; send the same again.
    """
    refused: dict[int, str] = {}
    waiting = [list(range(len(lines)))]
    asked = 0
    while waiting:
        rows = waiting.pop()
        if not rows:
            continue
        encoded = [lines[row].encode() for row in rows]
        body = b"\n".join(encoded)
        if len(body) > BYTES_MAX and len(rows) > 1:
            waiting += _halves(rows)
            continue
        decision = post(body)
        if isinstance(decision, Stored):
            of_now = sum(young[row] for row in rows) if young else 0
            if (decision.dropped or 0) > len(rows) - of_now:
                raise _drops_the_present(store, decision.dropped or 0, len(rows))
            continue
        if isinstance(decision, Away):
            raise StoreAwayError(decision.reason, decision.reason_zh, decision.retry_after_s)
        if isinstance(decision, Refused):
            raise StoreRefusedError(decision.reason, decision.reason_zh)
        if isinstance(decision, TooLarge):
            if len(rows) == 1:
                raise _takes_nothing(store, len(body))
            waiting += _halves(rows)
            continue
        if decision.schema and decision.dropped == len(rows) == len(lines):
            raise StoreRefusedError(
                f"storage.stores.{store}: the database takes none of our lines ({decision.reason}); give database another name, or "
                "remove what another program wrote under our measurement's name",
                f"storage.stores.{store}：数据库不接受我们的任何一行（{decision.reason}）；请换一个 database，"
                "或删除其他程序以同名 measurement 写入的数据",
            )
        reason = decision.reason
        asked += 1
        named = _named(decision, rows, lines)
        if named and asked <= REQUESTS_MAX:
            refused |= dict.fromkeys(named, reason)
            rest = [row for row in rows if row not in refused]
            # Where it wrote the others (1.x) this costs one request that changes nothing.
            waiting.append(rest)
        elif len(rows) == 1:
            refused[rows[0]] = reason
        elif asked >= REQUESTS_MAX:
            refused |= dict.fromkeys(rows, f"one of {len(rows)} lines of which the store says: {reason}")
        else:
            waiting += _halves(rows)
    return refused


def _drops_the_present(store: str, dropped: int, rows: int) -> StoreRefusedError:
    return StoreRefusedError(
        f"storage.stores.{store}: it drops {dropped} of {rows} samples as older than it keeps, and some of these are of the last hour;"
        " set its clock or ours right, or how long it keeps with `hazardgate store setup`",
        f"storage.stores.{store}：{rows} 个采样中有 {dropped} 个被当作超过保留期而丢弃，其中有最近一小时内的；请校准该库或本机的时钟，"
        "或用 `hazardgate store setup` 设置保留时间",
    )


def _takes_nothing(store: str, size: int) -> StoreRefusedError:
    return StoreRefusedError(
        f"storage.stores.{store}: one line of {size} bytes is too large for it (413); raise what the store, or a proxy before it, takes"
        " in a request (nginx: client_max_body_size)",
        f"storage.stores.{store}：一行 {size} 字节也被视为过大（413）；请调大该库或其前置代理的请求上限（nginx：client_max_body_size）",
    )


def _halves(rows: list[int]) -> list[list[int]]:
    middle = len(rows) // 2
    return [rows[middle:], rows[:middle]]


def _named(decision: Partial, rows: list[int], lines: Sequence[str]) -> list[int]:
    """Return which rows the store means, if it says so in a way that can be believed."""
    if decision.numbers:
        return [rows[number - 1] for number in decision.numbers if number <= len(rows)]
    quoted = set(decision.lines)
    return [row for row in rows if lines[row] in quoted]
