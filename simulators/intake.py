"""What the municipal platform has got: ids, sequences, order. Pure; rebuilt from its own JSON lines.

It shares no code with the sender: a fault in how notices are numbered or signed cannot hide on both sides.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

EVENTS_KEPT_MAX = 200_000
LaneKey = tuple[str, str, str]  # receiver, ledger, lane


@dataclass(slots=True)
class LaneIntake:
    """Sequence numbers seen in one lane of one ledger."""

    upto: int = 0
    above: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)

    def take(self, sequence: int) -> bool:
        """Note a number; False when it was there before."""
        if sequence <= self.upto or sequence in self.above:
            return False
        self.above.add(sequence)
        self._close_up()
        return True

    def release(self, sequence: int) -> None:
        """The sender says that this number will not come here (moved, replaced or parked)."""
        if sequence > self.upto:
            self.released.add(sequence)
            self._close_up()

    def _close_up(self) -> None:
        while self.upto + 1 in self.above or self.upto + 1 in self.released:
            self.upto += 1
            self.above.discard(self.upto)
            self.released.discard(self.upto)

    @property
    def highest(self) -> int:
        """The highest number seen."""
        return max(self.above, default=self.upto)

    @property
    def missing_count(self) -> int:
        """How many numbers below the highest have not come."""
        highest = self.highest
        accounted = self.above | {sequence for sequence in self.released if sequence < highest}
        return highest - self.upto - len(accounted)

    def missing(self) -> list[int]:
        """Numbers below the highest that have not come, at most the first 100."""
        holes: list[int] = []
        for sequence in range(self.upto + 1, self.highest):
            if sequence not in self.above and sequence not in self.released:
                holes.append(sequence)
                if len(holes) == 100:
                    break
        return holes


@dataclass(frozen=True, slots=True)
class Received:
    """One verified request, as `GET /received` lists it."""

    id: str
    receiver: str
    type: str
    lane: str | None
    sequence: int | None
    ledger: str | None
    alarm: str | None
    tag: str | None
    limit: str | None
    state: str | None
    revision: int | None
    transition: str | None
    grade: Any
    late: bool
    unjournaled: bool
    received_ms: float
    duplicate: bool
    verified: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form; inverse of `from_json`."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Received:
        """Read what `to_json` wrote."""
        return cls(**{name: record[name] for name in cls.__slots__})


class Intake:
    """All that was received. `take` answers whether a message is a duplicate."""

    def __init__(self) -> None:
        self.events: deque[Received] = deque(maxlen=EVENTS_KEPT_MAX)
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.lanes: dict[LaneKey, LaneIntake] = {}
        self.last_heartbeat_ms: dict[str, float] = {}
        self._ids: set[tuple[str, str]] = set()
        self._owner: dict[tuple[LaneKey, int], str] = {}
        self._revision: dict[tuple[str, str], int] = {}

    def knows(self, receiver: str, notice: str) -> bool:
        """Whether this id came before for this receiver."""
        return (receiver, notice) in self._ids

    def take(self, event: Received, released: list[int]) -> None:
        """Book one verified message (its `duplicate` flag set by the caller from `knows`)."""
        self.events.append(event)
        self.counts["verified"] += 1
        if event.type == "heartbeat":
            self.counts["heartbeats"] += 1
            self.last_heartbeat_ms[event.receiver] = event.received_ms
        elif event.duplicate:
            self.counts["duplicates"] += 1
        else:
            self.counts["unique"] += 1
            self._check_order(event)
        self._ids.add((event.receiver, event.id))
        self._take_sequence(event, released)

    def reject(self, reason: str) -> None:
        """Count a message that was refused."""
        self.rejected[reason] += 1

    def _check_order(self, event: Received) -> None:
        if event.alarm is None or event.revision is None:
            return
        key = (event.receiver, event.alarm)
        if event.revision < self._revision.get(key, 0):
            self.counts["out_of_order"] += 1
        self._revision[key] = max(event.revision, self._revision.get(key, 0))

    def _take_sequence(self, event: Received, released: list[int]) -> None:
        if event.ledger is None or event.lane is None:
            return
        key = (event.receiver, event.ledger, event.lane)
        lane = self.lanes.setdefault(key, LaneIntake())
        for sequence in released:
            lane.release(sequence)
        if event.sequence is None or event.type == "heartbeat":
            return
        # one number must never name two notices
        if self._owner.setdefault((key, event.sequence), event.id) != event.id:
            self.counts["sequence_conflicts"] += 1
        lane.take(event.sequence)

    def summary(self) -> dict[str, Any]:
        """Counts: verified, unique, duplicates, rejected, gaps (missing numbers), heartbeats, per lane."""
        lanes = [
            {
                "receiver": receiver,
                "ledger": ledger,
                "lane": lane,
                "upto": seen.upto,
                "highest": seen.highest,
                "missing": seen.missing(),
            }
            for (receiver, ledger, lane), seen in sorted(self.lanes.items())
        ]
        return {
            "verified": self.counts["verified"],
            "unique": self.counts["unique"],
            "duplicates": self.counts["duplicates"],
            "rejected": sum(self.rejected.values()),
            "rejected_by_reason": dict(self.rejected),
            "gaps": sum(lane.missing_count for lane in self.lanes.values()),
            "heartbeats": self.counts["heartbeats"],
            "out_of_order": self.counts["out_of_order"],
            "sequence_conflicts": self.counts["sequence_conflicts"],
            "lanes": lanes,
            "last_heartbeat_ms": self.last_heartbeat_ms,
        }
