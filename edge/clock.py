"""The edge's idea of UTC: the box's clock, corrected where that is known to be wrong.

A box with a dead clock battery and no time server starts in 1970. Such a clock never starts earlier than
the last time this edge saved; it counts as not synced, and takes UTC from the gateway's acknowledgements. A
step of the wall clock against the monotonic one is reported, so that the stream can be sealed. Evaluation
never depends on any of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STEP_MS: Final = 1000
"""A move of the wall clock against the monotonic one counts as a step beyond this."""
EARLIEST_MS: Final = 1_767_225_600_000
"""2026-01-01: no clock of this program's time shows less."""


class EdgeClock:
    """See the module.

    Args:
        wall_ms: the box's clock, UTC epoch milliseconds; may jump.
        monotonic: seconds that never jump.
        saved_ms: the last time this edge saved; 0 if none.
    """

    def __init__(self, wall_ms: Callable[[], int], monotonic: Callable[[], float], saved_ms: int = 0) -> None:
        self._wall_ms, self._monotonic = wall_ms, monotonic
        self._floor_ms = max(saved_ms, EARLIEST_MS)
        wall = wall_ms()
        self.offset_ms = max(0, self._floor_ms - wall)
        """What is added to the box's clock, in milliseconds."""
        self.synced = self.offset_ms == 0
        self._seen_wall_ms, self._seen_s = wall, monotonic()
        self._seen_ms = wall + self.offset_ms

    def now_ms(self) -> int:
        """Return the corrected time, UTC epoch milliseconds."""
        return self._wall_ms() + self.offset_ms

    def step(self) -> int:
        """Look for a step since the last call; return it in milliseconds, 0 if there was none.

        A step of the box's clock to a believable time ends a correction; one to another wrong time is undone.
        """
        wall, at_s = self._wall_ms(), self._monotonic()
        elapsed_ms = round((at_s - self._seen_s) * 1000)
        wall_step = wall - self._seen_wall_ms - elapsed_ms
        if self.offset_ms and abs(wall_step) > STEP_MS:
            if wall >= self._floor_ms:
                self.offset_ms, self.synced = 0, True
            else:
                self.offset_ms -= wall_step
        now = wall + self.offset_ms
        step = now - self._seen_ms - elapsed_ms
        self._seen_wall_ms, self._seen_ms, self._seen_s = wall, now, at_s
        return step if abs(step) > STEP_MS else 0

    def host_time(self, utc_ms: int) -> None:
        """Take UTC from the gateway, unless the clock is synced already; `step` then reports what changed."""
        if self.synced:
            return
        difference = utc_ms - self.now_ms()
        if abs(difference) > STEP_MS:
            self.offset_ms += difference
        self.synced = True
