"""Judges a run of the world by what the plant did, what the edges took and what the receivers saw.

Three promises, each in a module of its own: nothing is lost, no false calm, every alarm arrives. Everything is asked
again at every event, with what was known by then; what only the end can show is asked at the end, of the ledger too.
Nothing here calls the code that decides on alarms: `rules` says them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulators.world import Event, PartEnded, Read, Record, Settled, Taken
from tests.simulation.all_arrive import AllArrive, Step
from tests.simulation.facts import Plant, Site, Violation
from tests.simulation.no_false_calm import NoFalseCalm
from tests.simulation.nothing_lost import FrameKey, Loss, NothingLost, Value

EXPECTED_ENDS = ("killed", "stopped")


@dataclass(slots=True)
class Books:
    """What the ledger holds at the end, as plain values.

    Attributes:
        frames: samples by tag.
        current: frames of the live stream that came in their turn, as the log tells.
        problems: what reading it showed: a broken hash chain, a frame that is stored as two.
    """

    frames: Mapping[FrameKey, Mapping[str, Value]] = field(default_factory=dict)
    current: set[FrameKey] = field(default_factory=set)
    losses: Sequence[Loss] = ()
    journal: Sequence[Step] = ()
    problems: Sequence[Violation] = ()


class Oracle:
    """Sees a run event by event."""

    def __init__(self, record: Record) -> None:
        self._site = Site(record.site)
        self._plant = Plant(self._site)
        self._lost = NothingLost(self._site)
        self._calm = NoFalseCalm(self._site, self._plant)
        self._arrive = AllArrive(self._site, self._plant)

    def see(self, mark: int, event: Event) -> list[Violation]:
        """Take one event in and return what it breaks."""
        if isinstance(event, Read | Taken):
            self._plant.see(mark, event)
        found = [*self._lost.see(mark, event), *self._calm.see(mark, event), *self._arrive.see(mark, event)]
        if isinstance(event, PartEnded) and event.cause not in EXPECTED_ENDS:
            found.append(Violation("RUN", event.at_s, f"{event.part} ended by itself: {event.cause}", (mark,)))
        if isinstance(event, Settled) and not event.in_time:
            found.append(Violation("P3", event.at_s, f"not everything has arrived: {event.waiting}", (mark,)))
        return found

    def end(self, at_s: float, books: Books) -> list[Violation]:
        """Return what only the end shows."""
        taken = self._lost.taken()
        return [
            *books.problems,
            *self._lost.end(at_s, books.frames, books.losses, self._plant),
            *self._calm.end(),
            *self._arrive.end(at_s, taken, books.frames, books.current, books.journal),
        ]


def check(record: Record, books: Books) -> list[Violation]:
    """Return everything that is wrong with a run that has ended, in order of time."""
    oracle = Oracle(record)
    found = [violation for mark, event in enumerate(record.events) for violation in oracle.see(mark, event)]
    return found + oracle.end(record.events[-1].at_s if record.events else 0.0, books)
