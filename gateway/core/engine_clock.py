"""`engine_ms`: the engine's own time. Persisted, never decreasing, blind to steps of the wall clock.

It runs on the monotonic clock; after a restart it goes on from the last committed value plus the time core was
down by the wall clock, if that is believable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DOWNTIME_MS_MAX: Final = 7 * 24 * 3_600_000  # a longer gap says more about the clock than about core


@dataclass(frozen=True, slots=True)
class Downtime:
    """How long core was down, in ms. `believed` is False when the wall clock made no sense; then ms is 0."""

    ms: int
    believed: bool


def downtime(last_wall_ms: int, wall_ms: int) -> Downtime:
    """Return the time between the last commit and this start by the wall clock, 0 if not within 0 and 7 days."""
    gap = wall_ms - last_wall_ms
    if last_wall_ms == 0:
        return Downtime(0, believed=True)
    if 0 <= gap <= DOWNTIME_MS_MAX:
        return Downtime(gap, believed=True)
    return Downtime(0, believed=False)


class EngineClock:
    """Gives engine time; `start_ms` is the value it begins with."""

    def __init__(self, start_ms: int, monotonic: Callable[[], float]) -> None:
        self._start_ms, self._monotonic = start_ms, monotonic
        self._began = monotonic()
        self._last = start_ms

    def now(self) -> int:
        """Return engine time in ms, never less than the call before."""
        self._last = max(self._last, self._start_ms + int((self._monotonic() - self._began) * 1000))
        return self._last
