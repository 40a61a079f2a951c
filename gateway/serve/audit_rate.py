"""How many lines one token gets in the audit for what it may not do: a flood of tries must not push the rest out of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

LINES_A_MINUTE: Final = 20
WINDOW_S: Final = 60.0


class Tried(NamedTuple):
    """A kind of event, and the token it came from."""

    event: str
    token_id: str
    name: str


class AuditRate:
    """Counts the lines of a minute; there are not more counts than valid tokens times kinds of events."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._began_s = monotonic()
        self._counts: Counter[Tried] = Counter()

    def take(self, tried: Tried) -> bool:
        """Count one; returns whether it gets a line of its own."""
        with self._lock:
            self._counts[tried] += 1
            return self._counts[tried] <= LINES_A_MINUTE

    def held_back(self, *, ending: bool = False) -> dict[Tried, int]:
        """Where the minute is over, or all ends: begin a new one, and return how many got no line in the last."""
        with self._lock:
            now_s = self._monotonic()
            if not ending and now_s - self._began_s < WINDOW_S:
                return {}
            counts, self._counts, self._began_s = self._counts, Counter(), now_s
        return {tried: count - LINES_A_MINUTE for tried, count in counts.items() if count > LINES_A_MINUTE}
