"""What the historian keeps: days go by age, and the oldest early when room runs out. Pure.

No clock alone takes a day. One goes by age when the clock says that it is old, and as many newer days are held as are to
be kept, besides the newest, which a clock that jumped may have made; and after what was due at the start at most one day
for each that really passes (`Pace`). So a plant that stood still keeps its days for longer, and a clock that is wrong
takes none, or a day for a day. What the clock would take and does not get is told as withheld, unless days that are missing
among those held explain it. A gap of a week or more just before the newest days does not: a wrong clock makes such a one.

Below `SPACE_DAYS_MIN` days nothing goes for want of room: then the projection tells people, long before the disk is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.names import DAY_MAX, day_ms, day_of

SPACE_DAYS_MIN: Final = 30
RATE_DAYS: Final = 7
DISK_SHARE: Final = 0.5
FREE_MIN: Final = 256 * 1024 * 1024  # of the disk, whatever the limits say
NEAR: Final = 30  # of the newest days held; a wrong clock is told for as long
GAP: Final = 7  # days; a plant may rest for fewer
SURE: Final = 8  # the eighth newest day was not made by a clock that was wrong for a moment
DAY_S: Final = 86_400.0
PACE_MAX: Final = 2.0  # days saved up while none was due


@dataclass(frozen=True, slots=True)
class Held:
    """What the folder holds.

    Attributes:
        days: bytes by the day that files leave with.
        other_bytes: evidence and manifests.
    """

    days: Mapping[str, int]
    other_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.days.values()) + self.other_bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What to do now.

    Attributes:
        remove: files that leave with this day or before go next, empty if none. why: `age` or `space`.
        due: how many days may go by age now, or may not for the pace only.
        withheld: how many more days the clock calls old, and no days that are missing explain it.
        projected_days: how many days the room holds at the present rate; None while nobody can say.
    """

    remove: str
    why: Literal["age", "space"]
    limit_bytes: int
    days_held: int
    projected_days: float | None
    due: int
    withheld: int


class Pace:
    """How many days may go by age: those that were due when the process began, and one for each that passed since."""

    def __init__(self) -> None:
        self._left: float | None = None
        self._at_s = 0.0

    def allows(self, due: int, monotonic_s: float) -> bool:
        """Whether a day may go now; the first question says what was due at the start."""
        if self._left is None:
            self._left = max(1.0, due)
        else:
            self._left = min(self._left + (monotonic_s - self._at_s) / DAY_S, max(self._left, PACE_MAX))
        self._at_s = monotonic_s
        return self._left >= 1.0

    def took(self) -> None:
        """One went."""
        if self._left is not None:
            self._left -= 1.0


def limit_bytes(configured: int, held_bytes: int, disk_bytes: int, free_bytes: int) -> int:
    """Return how many bytes the historian may take: as configured, at most half of the disk, and what is free of it."""
    return max(0, min(configured, int(disk_bytes * DISK_SHARE), held_bytes + free_bytes - FREE_MIN))


def decide(held: Held, now_ms: int, keep_days: float, limit: int, kept_from: str = "") -> Kept:
    """Decide what goes next, leaving the pace aside.

    Args:
        limit: of `limit_bytes`. kept_from: what came late of days before this one goes at once, and only together.
    """
    days = sorted(day for day, size in held.days.items() if size > 0)
    projected = _projected(held, days, limit)
    cut = day_of(now_ms - int(keep_days * DAY_MS))
    due = [day for day in days[: max(0, len(days) - 1 - int(keep_days))] if day < cut]  # enough newer ones besides the newest
    old = [day for day in days if day < cut]
    together = [day for day in days if day <= days[0] or day < kept_from]
    remove: str = together[-1] if together else ""
    why: Literal["age", "space"] = "age"
    if remove and remove not in due:
        why = "space"
        if held.bytes <= limit or len(days) - len(together) <= SPACE_DAYS_MIN:
            remove, why = "", "age"
    withheld = max(0, len(old) - len(due) - _missing(days, cut))
    return Kept(remove, why, limit, len(days), projected, len(due), withheld)


def _missing(days: Sequence[str], cut: str) -> int:
    """Return how many days from `cut` on are missing among those held, as far as a wrong clock cannot have made the gap."""
    near = days[-NEAR] if len(days) >= NEAR else ""
    found = 0
    for older, newer in pairwise(days):
        gap = (day_ms(newer) - day_ms(older)) // DAY_MS - 1
        if newer > cut and (newer < near or gap < GAP):
            found += min(gap, (day_ms(newer) - day_ms(cut)) // DAY_MS)
    return found


def received(days: Sequence[str], received_ms: int, newest_source_ms: int) -> int:
    """Return when rows were received, as far as the days that are held know better than the clock that said so.

    Args:
        days: that files leave with, oldest first. newest_source_ms: of the rows' samples.
    """
    if len(days) < 2:
        return received_ms
    second_ms = day_ms(days[-2])
    if received_ms < day_ms(days[max(0, len(days) - SURE)]):
        return second_ms  # the clock is behind by days that there were
    return max(received_ms, min(newest_source_ms, second_ms))


def day_after(day: str) -> str:
    """Return the day after."""
    return day if day == DAY_MAX else day_of(day_ms(day) + DAY_MS)


def evidence_leaves(evidence: Sequence[str], now_ms: int, days: Sequence[str], evidence_days: float) -> list[str]:
    """Return the days whose evidence has been kept long enough, oldest first.

    Args:
        days: that files leave with, oldest first: without a week of them nothing goes.
    """
    if len(days) < SURE:
        return []
    sure_ms = day_ms(days[-SURE]) + SURE * DAY_MS
    oldest_kept = day_of(min(now_ms, sure_ms) - int(evidence_days * DAY_MS))
    return [day for day in sorted(evidence) if day < oldest_kept]


def _projected(held: Held, days: Sequence[str], limit: int) -> float | None:
    """Divide the room by what the last whole days took; a whole day is needed to say anything."""
    recent = [held.days[day] for day in days[-1 - RATE_DAYS : -1]]
    if len(recent) < 2:  # the first is rarely whole
        return None
    rate = (sum(recent) - min(recent)) / (len(recent) - 1)
    return round(max(0, limit - held.other_bytes) / rate, 1)
