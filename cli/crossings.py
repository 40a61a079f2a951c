"""How many alarms the plant's own log demands: pure, from what its instruments showed to whoever read them.

Deliberately not the evaluator's rules a second time: it counts only what cannot be otherwise. A crossing between two
polls was never shown and demands nothing; one inside the deadband is the same crossing; one that lasted about as long
as the on-delay may or may not have been an alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from config import LimitRow, SiteConfig

HOLD_MARGIN_MS: Final = 1_000.0  # between the plant's clock for a read and the edge's, and until a tick matures a delay
Limit = tuple[str, str]
"""A tag's id and one of its limits."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One change across a limit that a reader was shown; `at_ms` is UTC epoch ms. See `simulators.Change`."""

    at_ms: float
    over: bool
    holds: bool
    value: float


@dataclass(frozen=True, slots=True)
class Demand:
    """How many alarms there must be at least, and may be at most (None: cannot be told)."""

    least: int
    most: int | None


def demands(
    site: SiteConfig, changes: Iterable[Mapping[str, Any]], reads: Iterable[Mapping[str, Any]], until_ms: float
) -> dict[Limit, Demand]:
    """Return what the log demands of each limit of the site.

    Args:
        changes, reads: the plant's `register-changes.jsonl` and `register-reads.jsonl`.
        until_ms: UTC epoch ms; what was read later may still be on its way to an alarm.
    """
    read_ms = {line["number"]: line["read_ms"] for line in reads}
    shown: dict[Limit, list[Shown]] = {}
    over: dict[Limit, int] = {}
    for change in changes:
        limit = (str(change["tag"]), str(change["limit"]))
        over[limit] = over.get(limit, 0) + bool(change["over"])
        at_ms = read_ms.get(change["number"])
        seen = shown.setdefault(limit, [])
        if at_ms is not None and at_ms < until_ms:
            seen.append(Shown(at_ms, bool(change["over"]), bool(change["holds"]), float(change["value"])))
    found = {}
    for tag in site.tags:
        span = tag.span()
        for row in tag.limit_rows():
            limit = (tag.id, str(row.kind.value))
            exact = not row.on_delay_s and not row.off_delay_s
            least = least_alarms(shown.get(limit, ()), row, (span.low, span.high), until_ms)
            found[limit] = Demand(least, over.get(limit, 0) if exact else None)
    return found


def least_alarms(seen: Sequence[Shown], row: LimitRow, good: tuple[float, float], until_ms: float) -> int:
    """Return how often this limit must have been raised.

    Args:
        seen: what readers were shown, in order.
        row: the limit.
        good: the tag's range; a value outside is not GOOD, and only GOOD lowers an alarm.
        until_ms: up to when a hold counts that has not ended.
    """
    hold_ms = row.on_delay_s * 1000 + HOLD_MARGIN_MS if row.on_delay_s else 0.0
    count, standing, since_ms = 0, False, None
    for at_ms, change in [*((change.at_ms, change) for change in seen), (until_ms, None)]:
        if since_ms is not None and not standing and at_ms - since_ms >= hold_ms:
            count, standing = count + 1, True
        if change is None:
            break
        if change.holds:
            since_ms = at_ms if since_ms is None else since_ms
            continue
        since_ms = None
        # Whether an off-delay ran its full time cannot be seen here: then only the first alarm is demanded.
        if not change.over and not row.off_delay_s and good[0] <= change.value <= good[1]:
            standing = False
    return count
