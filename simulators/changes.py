"""Which register changes move a tag across one of its limits, and when such a change was first read out.

The start point of every latency figure. Judged by what a reader decodes, with the limit's own deadband, so
that noise on a setpoint is one change and not fifty. Where a limit has an on-delay, falling back below the setpoint
ends the delay though the deadband is not left: there that is a change, too. `ChangeWatch` is pure; stamps are passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.field import LimitSpec
from simulators.registers import Place

UNREAD_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Change:
    """A register change across a limit; `over` is false when it went back past the deadband.

    `holds`: at or past the setpoint itself. `over` without it, inside the deadband, occurs with an on-delay only.
    `at_ms` is UTC epoch ms, taken when readers could first see it. `threshold` is what a reader compares with, in
    the tag's unit: the setpoint, or when it went back the setpoint less the deadband.
    """

    number: int
    tag: str
    limit: str
    over: bool
    holds: bool
    value: float
    at_ms: float
    on_delay_s: float
    high_side: bool
    threshold: float

    def shown_by(self, value: float) -> bool:
        """Whether a reader of `value` sees this change: at or past the setpoint, below it, or clear of the deadband."""
        if self.holds:
            return value >= self.threshold if self.high_side else value <= self.threshold
        return value < self.threshold if self.high_side else value > self.threshold

    def to_json(self) -> dict[str, Any]:
        """The line of `register-changes.jsonl`."""
        return {name: getattr(self, name) for name in self.__slots__}


class ChangeWatch:
    """Follows every limit of every point."""

    def __init__(self, limits: Sequence[LimitSpec], point: Sequence[int]) -> None:
        """`point[i]` is the position, in the decoded values, of the point that limit i watches."""
        self._limits = tuple(limits)
        self._point = np.array(point, np.int64)
        # mirrored so that "over" is "at or above" on both sides
        self._sign = np.array([1.0 if limit.high_side else -1.0 for limit in limits])
        self._setpoint = self._sign * np.array([limit.setpoint for limit in limits], np.float64)
        self._clear = self._setpoint - np.array([limit.deadband for limit in limits], np.float64)
        self._delayed = np.array([limit.on_delay_s > 0 for limit in limits], bool)
        self._over = np.zeros(len(limits), bool)
        self._holds = np.zeros(len(limits), bool)
        self._number = 0

    def take(self, decoded: NDArray[np.float64], at_ms: float) -> list[tuple[Change, int]]:
        """Compare one step's decoded values (float64[n_points]); return the changes and their points.

        NaN changes nothing. A value that starts over its limit is a change, too.
        """
        shown = self._sign * decoded[self._point]
        over = np.where(self._over, ~(shown < self._clear), shown >= self._setpoint)
        holds = np.where(np.isnan(shown), self._holds, shown >= self._setpoint)
        holds = np.where(self._delayed, holds, over)
        moved = np.flatnonzero((over != self._over) | (holds != self._holds))
        self._over, self._holds = over, holds
        changes = []
        for i in moved.tolist():
            self._number += 1
            limit, point, is_over = self._limits[i], int(self._point[i]), bool(over[i])
            threshold = float(self._sign[i] * (self._setpoint[i] if is_over else self._clear[i]))
            change = Change(
                number=self._number,
                tag=limit.tag,
                limit=limit.kind,
                over=is_over,
                holds=bool(holds[i]),
                value=float(decoded[point]),
                at_ms=at_ms,
                on_delay_s=limit.on_delay_s,
                high_side=limit.high_side,
                threshold=threshold,
            )
            changes.append((change, point))
        return changes


@dataclass(frozen=True, slots=True)
class _Unread:
    place: Place
    point: int
    change: Change


class UnreadChanges:
    """Changes that no answer has carried yet."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int, str], list[_Unread]] = {}
        self._count = 0

    def add(self, place: Place, point: int, change: Change) -> Change | None:
        """Wait for a read of `place`; beyond 100 000 unread changes new ones are not followed.

        Returns the earlier change of the same limit when that was still unread: nobody will ever see it now.
        """
        waiting = self._waiting.setdefault((place.server, place.unit, place.table), [])
        missed = None
        for i, unread in enumerate(waiting):
            if (unread.change.tag, unread.change.limit) == (change.tag, change.limit):
                missed = waiting.pop(i).change
                self._count -= 1
                break
        if self._count < UNREAD_MAX:
            self._count += 1
            waiting.append(_Unread(place, point, change))
        return missed

    def served(
        self, server: str, unit: int, table: str, address: int, count: int, decoded: NDArray[np.float64]
    ) -> list[Change]:
        """Take out and return the changes that this answered read carried.

        A value that has fallen back inside the deadband by now does not carry its change: the reader cannot
        see that the limit was crossed, and the change stays unread.
        """
        if not self._count:
            return []
        waiting = self._waiting.get((server, unit, table))
        if not waiting:
            return []
        read = [
            unread
            for unread in waiting
            if unread.place.overlaps(address, count) and unread.change.shown_by(float(decoded[unread.point]))
        ]
        for unread in read:
            waiting.remove(unread)
        self._count -= len(read)
        return [unread.change for unread in read]
