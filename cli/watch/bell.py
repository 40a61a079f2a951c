"""When the bell rings. Pure: the time is passed in.

Every new unacknowledged alarm rings at once. Red and orange ring on every 3 s, yellow every 15 s, until each is
acknowledged; blue and what a late run found ring once. A person may silence it for 60 s, never longer and never for
what is new: a new alarm is heard all the same, and a new red or orange one ends the silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

REPEAT_S: Final[Mapping[int, float]] = MappingProxyType({4: 3.0, 3: 3.0, 2: 15.0})
GRAVE: Final = 3
LOST_REPEAT_S: Final = 3.0
SILENCE_S: Final = 60.0


class Sounding(Protocol):
    """What the bell needs to know of an alarm."""

    @property
    def id(self) -> str: ...
    @property
    def grade(self) -> int: ...
    @property
    def acked(self) -> bool: ...
    @property
    def late(self) -> bool: ...


class Bell:
    """Decides; somebody else makes the sound."""

    def __init__(self) -> None:
        self._heard: dict[str, int] = {}
        self._rang_s: float | None = None
        self._silent_until_s = float("-inf")

    def silence(self, now_s: float) -> None:
        """Say nothing of what is known now for 60 s."""
        self._silent_until_s = now_s + SILENCE_S

    def silent_s(self, now_s: float) -> float:
        """How long the silence will last yet; 0 where there is none."""
        return max(0.0, self._silent_until_s - now_s)

    def due(self, alarms: Iterable[Sounding], now_s: float) -> bool:
        """Whether to ring now, the picture being current and holding these open alarms."""
        unacked = {alarm.id: alarm for alarm in alarms if not alarm.acked}
        new = [alarm for id_, alarm in unacked.items() if self._heard.get(id_, 0) < alarm.grade]
        self._heard = {id_: alarm.grade for id_, alarm in unacked.items()}
        if any(alarm.grade >= GRAVE and not alarm.late for alarm in new):
            self._silent_until_s = now_s
        repeats = [REPEAT_S[alarm.grade] for alarm in unacked.values() if alarm.grade in REPEAT_S and not alarm.late]
        return self._ring(bool(new), min(repeats, default=None), now_s)

    def due_lost(self, now_s: float, *, first: bool) -> bool:
        """Whether to ring now, nothing being known; `first` when contact has just been lost."""
        if first:
            self._silent_until_s = now_s
        return self._ring(first, LOST_REPEAT_S, now_s)

    def _ring(self, new: bool, repeat_s: float | None, now_s: float) -> bool:
        again = repeat_s is not None and (self._rang_s is None or now_s - self._rang_s >= repeat_s)
        if not new and (not again or now_s < self._silent_until_s):
            return False
        self._rang_s = now_s
        return True
