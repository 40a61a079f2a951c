"""What the historian's process says of itself, and what becomes an alarm of it. Pure: text and facts in, conditions out.

Serve writes `status.json` in the historian's folder; it may be absent, old, or rubbish, and none of that may hurt core.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from alerting import Fact
from gateway.historian.segments.folder import Problem

STATUS_BYTES_MAX: Final = 256 * 1024
DAMAGED_MAX: Final = 100
STORES_MAX: Final = 16
TEXT_CHARS_MAX: Final = 200
DAMAGED_NAMED_MAX: Final = 8
SEALS_MISSED: Final = 3
BEHIND_MARGIN_MS: Final = 60_000
STATUS_OLD_MS: Final = 180_000
STORE_LAG_MS: Final = 300_000  # a store that is this far behind is told of
DAYS_LEFT_MIN: Final = 30.0
WITHHELD_DAYS_MIN: Final = 7  # fewer are a day that has just begun, or a plant at rest
STORE_PREFIX: Final = "CORE.STORE-"
_STATES: Final = ("live", "catching up", "away", "refused")
_STORE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One time-series store that is fed beside our own."""

    id: str
    state: str
    lag_rows: int
    lag_ms: int
    quarantined: int
    detail: str
    detail_zh: str


@dataclass(frozen=True, slots=True)
class Status:
    """`status.json`.

    Attributes:
        projected_days: how many days the disk will hold at the present rate; None: not known yet.
        trouble: why serve could not do its last piece of work, empty if it could.
        withheld_days: how many days the clock calls too old that are kept and no missing days explain. withheld_why: `clock`
            for want of newer days, `pace` because one goes a day.
    """

    at_ms: int
    damaged: tuple[Problem, ...] = ()
    held_bytes: int = 0
    limit_bytes: int = 0
    days_held: float | None = None
    projected_days: float | None = None
    stores: tuple[StoreStatus, ...] = ()
    trouble: str = ""
    withheld_days: int = 0
    withheld_why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What core knows of the historian at `now_ms`.

    Attributes:
        started_ms: since when core runs; what waited before that is not held against the historian.
        sealed_pos: everything up to here is sealed, as core has verified.
        waiting_ms: when the oldest row that is not sealed was received; None if all is.
        problems: what core found wrong itself.
        status: None if there is none. status_wrong: why it cannot be read, else empty.
    """

    now_ms: int
    started_ms: int
    seal_s: float
    sealed_pos: int
    waiting_ms: int | None
    problems: tuple[Problem, ...]
    status: Status | None
    status_wrong: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """A system condition to report."""

    key: str
    standing: bool
    facts: dict[str, Fact]


def conditions(seen: Seen, standing: Sequence[str]) -> list[Told]:
    """Return what begins, goes on or ends; what nobody knows is left as it is.

    Args:
        standing: keys of the conditions that stand now.
    """
    told = [_behind(seen)]
    if seen.problems or seen.status is not None:
        told.append(_damaged([*seen.problems, *(seen.status.damaged if seen.status else ())]))
    if seen.status is not None:
        told += [_space(seen.status), _withheld(seen.status)]
        told += [one for store in seen.status.stores for one in _store(store)]
        ids = {store.id for store in seen.status.stores}
        gone = [key for key in standing if key.startswith(STORE_PREFIX) and _id_of(key) not in ids]
        told += [Told(key, False, {}) for key in gone]
    return told


def _id_of(key: str) -> str:
    return key.removeprefix(STORE_PREFIX).rpartition(".")[0]


def _behind(seen: Seen) -> Told:
    key = "CORE.HISTORIAN.BEHIND"
    if seen.waiting_ms is None:
        return Told(key, False, {})
    waited_ms = seen.now_ms - max(seen.waiting_ms, seen.started_ms)
    reason = ""
    if waited_ms > SEALS_MISSED * seen.seal_s * 1000 + BEHIND_MARGIN_MS:
        trouble = "" if seen.status is None else seen.status.trouble
        reason = f"frames wait to be sealed: {trouble}" if trouble else "frames wait to be sealed"
        if seen.problems:  # serve may have sealed all of it: what core has not checked waits all the same
            reason = f"core's check of what is sealed stops at {seen.problems[-1].file}: {seen.problems[-1].why}"
    if seen.status is not None or seen.status_wrong:
        at_ms = seen.started_ms if seen.status is None else seen.status.at_ms
        if seen.now_ms - max(at_ms, seen.started_ms) > STATUS_OLD_MS:
            reason = seen.status_wrong or f"status.json was written at {_utc(at_ms)}: is serve running?"
    if not reason:
        return Told(key, False, {})
    facts: dict[str, Fact] = {
        "reason": reason[:TEXT_CHARS_MAX], "sealed_pos": seen.sealed_pos, "oldest_waiting": _utc(seen.waiting_ms),
    }  # fmt: skip
    return Told(key, True, facts)


def _damaged(problems: Sequence[Problem]) -> Told:
    key = "CORE.HISTORIAN.DAMAGED"
    if not problems:
        return Told(key, False, {})
    distinct = list(dict.fromkeys(problems))
    named = "; ".join(_where(problem) for problem in distinct[:DAMAGED_NAMED_MAX])
    return Told(key, True, {"count": len(distinct), "what": named})


def _where(problem: Problem) -> str:
    """One damaged file: which samples that concerns, to the millisecond, and why."""
    parts = [problem.file[:TEXT_CHARS_MAX]]
    if problem.from_ms or problem.to_ms:
        parts.append(f"{_utc(problem.from_ms)} to {_utc(problem.to_ms)}")
    if problem.tags is not None:
        parts.append(f"tags {problem.tags[0]} to {problem.tags[1]}")
    return f"{', '.join(parts)}: {problem.why[:TEXT_CHARS_MAX]}"


def _space(status: Status) -> Told:
    short = status.projected_days is not None and status.projected_days < DAYS_LEFT_MIN
    facts: dict[str, Fact] = {
        "projected_days": status.projected_days, "days_held": status.days_held, "bytes": status.held_bytes,
        "limit_bytes": status.limit_bytes,
    }  # fmt: skip
    return Told("CORE.HISTORIAN.SPACE", short, facts if short else {})


def _withheld(status: Status) -> Told:
    many = status.withheld_days >= WITHHELD_DAYS_MIN
    facts: dict[str, Fact] = {"days": status.withheld_days, "why": status.withheld_why}
    return Told("CORE.HISTORIAN.WITHHELD", many, facts if many else {})


def _store(store: StoreStatus) -> list[Told]:
    facts: dict[str, Fact] = {
        "lag_rows": store.lag_rows, "lag_s": store.lag_ms // 1000, "state": store.state, "detail": store.detail,
        "detail_zh": store.detail_zh,
    }  # fmt: skip
    stands = {
        "BEHIND": store.lag_ms > STORE_LAG_MS, "REFUSED": store.state == "refused", "QUARANTINE": store.quarantined > 0,
    }  # fmt: skip
    facts_of = {"QUARANTINE": {"quarantined": store.quarantined, **facts}}
    return [
        Told(f"{STORE_PREFIX}{store.id}.{word}", stood, facts_of.get(word, facts) if stood else {})
        for word, stood in stands.items()
    ]


def _utc(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


# -- reading --


def parse_status(text: str) -> Status:
    """Return what `status.json` says; entries that this version does not know are passed over.

    Raises:
        ValueError: it is not what serve writes; the message says where.
    """
    try:
        loaded = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("too deep") from None
    facts = _object(loaded, "status")
    space, withheld = (_object(facts.get(name) or {}, name) for name in ("space", "withheld"))
    return Status(
        _whole(facts, "at_ms"),
        tuple(_problem(one) for one in _list(facts.get("damaged", []), DAMAGED_MAX, "damaged")),
        _whole(space, "bytes", 0), _whole(space, "limit_bytes", 0), _days(space, "days_held"), _days(space, "projected_days"),
        tuple(_store_status(one) for one in _list(facts.get("stores", []), STORES_MAX, "stores")), _text(facts, "trouble"),
        _whole(withheld, "days", 0), _text(withheld, "why"),
    )  # fmt: skip


def _problem(loaded: Any) -> Problem:
    facts = _object(loaded, "damaged")
    tags = facts.get("tags")
    if tags is not None:
        first, last = _list(tags, 2, "tags") if isinstance(tags, list) and len(tags) == 2 else _bad("tags")
        tags = (_text({"tag": first}, "tag"), _text({"tag": last}, "tag"))
    return Problem(
        _text(facts, "file"), _text(facts, "day"), _whole(facts, "from_ms", 0), _whole(facts, "to_ms", 0), _text(facts, "why"),
        tags,
    )  # fmt: skip


def _store_status(loaded: Any) -> StoreStatus:
    facts = _object(loaded, "stores")
    store_id, state = _text(facts, "id"), _text(facts, "state")
    if not _STORE_ID.fullmatch(store_id):
        _bad("id")
    if state not in _STATES:
        _bad("state")
    return StoreStatus(
        store_id, state, _whole(facts, "lag_rows", 0), _whole(facts, "lag_ms", 0), _whole(facts, "quarantined", 0),
        _text(facts, "detail"), _text(facts, "detail_zh"),
    )  # fmt: skip


def _object(loaded: Any, name: str) -> dict[str, Any]:
    return loaded if isinstance(loaded, dict) else _bad(name)


def _list(loaded: Any, limit: int, name: str) -> list[Any]:
    return loaded if isinstance(loaded, list) and len(loaded) <= limit else _bad(name)


def _whole(facts: dict[str, Any], key: str, default: int | None = None) -> int:
    value = facts.get(key, default)
    return value if type(value) is int and abs(value) < 1 << 63 else _bad(key)


def _days(facts: dict[str, Any], key: str) -> float | None:
    value = facts.get(key)
    if value is None:
        return None
    return float(value) if type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value) else _bad(key)


def _text(facts: dict[str, Any], key: str) -> str:
    value = facts.get(key, "")
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else _bad(key)


def _bad(name: str) -> Any:
    raise ValueError(f"{name} is not what serve writes")


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")
