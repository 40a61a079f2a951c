"""Whose turn it is to ask a unit that does not answer, as a pure decision.

A question to a silent unit blocks its bus for a whole timeout. Together such questions may take only a share
of the bus's time, so that the units that answer keep their rate. All times are monotonic seconds.
"""

from __future__ import annotations

from typing import Final

PROBE_SHARE: Final = 0.1
"""Most of a bus's time that questions to silent units may take."""
PATIENCE_S: Final = 2.0
"""Somebody ahead in the queue who has not asked for so long is passed over this time."""
WAIT_S_MIN: Final = 60.0
"""Who has waited so long, and twice as long as all who wait would need, gets a turn whatever the share."""


class ProbeTurns:
    """The queue of one bus. Those who wait ask again at each of their polls."""

    def __init__(self) -> None:
        self._open_from = float("-inf")
        self._asked: dict[str, tuple[float, float]] = {}
        """Who waits: first asked, last asked; in the order of first asking."""

    def take(self, name: str, now: float, cost_s: float) -> bool:
        """Return whether `name` may probe now; if so, the bus is taken to be lost for `cost_s`."""
        first_asked, _ = self._asked.get(name, (now, now))
        self._asked[name] = (first_asked, now)
        wait_s_max = max(WAIT_S_MIN, 2 * len(self._asked) * cost_s / PROBE_SHARE)
        if now - first_asked < wait_s_max and (now < self._open_from or self._somebody_ahead(name, now)):
            return False
        del self._asked[name]
        self._open_from = now + cost_s / PROBE_SHARE
        return True

    def answered(self, now: float) -> None:
        """The probe cost nothing: the unit is back."""
        self._open_from = now

    def _somebody_ahead(self, name: str, now: float) -> bool:
        for other, (_, last_asked) in self._asked.items():
            if other == name:
                return False
            if now - last_asked <= PATIENCE_S:
                return True
        return False
