"""What the historian keeps: days go by age, and the oldest early when room runs out. Pure.

Below `SPACE_DAYS_MIN` days nothing goes for want of room: then the projection tells people, long before the disk is full.
One day at a time, so that a clock that jumps ahead does not empty the store before somebody sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.names import DAY_MAX, day_ms, day_of

SPACE_DAYS_MIN: Final = 30
RATE_DAYS: Final = 7
DISK_SHARE: Final = 0.5
FREE_MIN: Final = 256 * 1024 * 1024  # of the disk, whatever the limits say


@dataclass(frozen=True, slots=True)
class Held:
    """What the folder holds.

    Attributes:
        days: bytes by the day that files leave with.
        other_bytes: evidence and manifests.
        newest_ms: when the newest sealed row was received; 0 if nothing is sealed.
    """

    days: Mapping[str, int]
    other_bytes: int
    newest_ms: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.days.values()) + self.other_bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What to do now.

    Attributes:
        remove: the day to remove next, empty if none. why: `age` or `space`.
        projected_days: how many days the room holds at the present rate; None while nobody can say.
    """

    remove: str
    why: Literal["age", "space"]
    limit_bytes: int
    days_held: int
    projected_days: float | None


def limit_bytes(configured: int, held_bytes: int, disk_bytes: int, free_bytes: int) -> int:
    """Return how many bytes the historian may take: as configured, at most half of the disk, and what is free of it."""
    return max(0, min(configured, int(disk_bytes * DISK_SHARE), held_bytes + free_bytes - FREE_MIN))


def decide(held: Held, now_ms: int, keep_days: float, limit: int) -> Kept:
    """Decide what goes next.

    Args:
        now_ms: the clock. Days are counted from when the newest row was received, if that is earlier: a store that
            nothing reaches any more keeps what it has.
        limit: of `limit_bytes`.
    """
    reference_ms = min(now_ms, held.newest_ms + DAY_MS)
    days = sorted(day for day, size in held.days.items() if size > 0)
    oldest = days[0] if days else ""
    projected = _projected(held, reference_ms, limit)
    days_held = _distance(oldest, day_of(reference_ms)) + 1 if oldest else 0
    if oldest and oldest < day_of(reference_ms - int(keep_days * DAY_MS)):
        return Kept(oldest, "age", limit, days_held, projected)
    if oldest and held.bytes > limit and oldest < day_of(reference_ms - SPACE_DAYS_MIN * DAY_MS):
        return Kept(oldest, "space", limit, days_held, projected)
    return Kept("", "age", limit, days_held, projected)


def day_after(day: str) -> str:
    """Return the day after."""
    return day if day == DAY_MAX else day_of(day_ms(day) + DAY_MS)


def evidence_leaves(days: list[str], now_ms: int, newest_ms: int, evidence_days: float) -> list[str]:
    """Return the days whose evidence has been kept long enough, the oldest one only."""
    oldest_kept = day_of(min(now_ms, newest_ms + DAY_MS) - int(evidence_days * DAY_MS))
    return [day for day in sorted(days) if day < oldest_kept][:1]


def _projected(held: Held, reference_ms: int, limit: int) -> float | None:
    """Divide the room by what whole days of last week took; a whole day is needed to say anything."""
    today = day_of(reference_ms)
    week_ago = day_of(reference_ms - RATE_DAYS * DAY_MS)
    recent = [size for day, size in held.days.items() if week_ago <= day < today and size > 0]
    if len(recent) < 2:  # the first is rarely whole
        return None
    rate = (sum(recent) - min(recent)) / (len(recent) - 1)
    return round(max(0, limit - held.other_bytes) / rate, 1)


def _distance(day: str, later: str) -> int:
    return max(0, (day_ms(later) - day_ms(day)) // DAY_MS)
