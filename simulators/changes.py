"""Which register changes move a tag across one of its limits, and when such a change was first read out.

The start point of every latency figure. Judged by what a reader decodes, with the limit's own deadband, so
that noise on a setpoint is one change and not fifty. `ChangeWatch` is pure; stamps are passed in.
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
    """A register change across a limit; `over` is false when it went back.

    `at_ms` is UTC epoch ms, taken when readers could first see it.
    """

    number: int
    tag: str
    limit: str
    over: bool
    value: float
    at_ms: float
    on_delay_s: float

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
        self._over = np.zeros(len(limits), bool)
        self._number = 0

    def take(self, decoded: NDArray[np.float64], at_ms: float) -> list[tuple[Change, int]]:
        """Compare one step's decoded values (float64[n_points]); return the changes and their points.

        NaN changes nothing. A value that starts over its limit is a change, too.
        """
        shown = self._sign * decoded[self._point]
        over = np.where(self._over, ~(shown < self._clear), shown >= self._setpoint)
        moved = np.flatnonzero(over != self._over)
        self._over = over
        changes = []
        for i in moved.tolist():
            self._number += 1
            limit, point = self._limits[i], int(self._point[i])
            changes.append(
                (
                    Change(
                        self._number,
                        limit.tag,
                        limit.kind,
                        bool(over[i]),
                        float(decoded[point]),
                        at_ms,
                        limit.on_delay_s,
                    ),
                    point,
                )
            )
        return changes


class UnreadChanges:
    """Changes whose registers nobody has read yet."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int, str], list[tuple[Place, Change]]] = {}
        self._count = 0

    def add(self, place: Place, change: Change) -> None:
        """Wait for a read of `place`; beyond 100 000 unread changes new ones are not followed."""
        if self._count < UNREAD_MAX:
            self._count += 1
            self._waiting.setdefault((place.server, place.unit, place.table), []).append((place, change))

    def served(self, server: str, unit: int, table: str, address: int, count: int) -> list[Change]:
        """Take out and return the changes that this answered read carried."""
        if not self._count:
            return []
        waiting = self._waiting.get((server, unit, table))
        if not waiting:
            return []
        read = [change for place, change in waiting if place.overlaps(address, count)]
        if read:
            waiting[:] = [pair for pair in waiting if not pair[0].overlaps(address, count)]
            self._count -= len(read)
        return read
