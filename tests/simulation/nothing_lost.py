"""P1, nothing taken is lost: what an edge has synced is in the ledger, and is forgotten only once it is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from simulators.world import Committed, Event, FaultBegan, FaultKind, Forgot, Sample, Taken
from tests.simulation.facts import Plant, Reading, Site, Violation
from tests.simulation.rules import GOOD, conditioned

RIGHT_BOX = 0
SHOWN_MAX = 5

FrameKey = tuple[str, int, int]  # node, stream, sequence
Value = tuple[float, int, int]  # value, code, source_ms


class Loss(NamedTuple):
    """A loss that the gateway declared: frames `first` to `last`; `last` 0 when no frame is named."""

    node: str
    stream: int
    first: int
    last: int
    cause: str


class NothingLost:
    """Follows every frame from an edge's disk to the ledger."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._taken: dict[FrameKey, tuple[int, Taken]] = {}
        self._waiting: dict[tuple[str, int, int], dict[int, int]] = defaultdict(dict)
        self._committed: dict[tuple[str, int], set[int]] = defaultdict(set)
        self._rows: list[tuple[int, Committed]] = []
        self._twins: set[str] = set()

    def see(self, mark: int, event: Event) -> Iterator[Violation]:
        """Take one event in; yield what it breaks."""
        if isinstance(event, Taken):
            yield from self._take(mark, event)
        elif isinstance(event, Committed):
            self._committed[event.node, event.stream].update(range(event.first, event.last + 1))
            self._rows.append((mark, event))
        elif isinstance(event, Forgot):
            waiting = self._waiting[event.node, event.box, event.stream]
            told = {number: waiting.pop(number) for number in sorted(waiting) if number <= event.upto}
            absent = sorted(set(told) - self._committed[event.node, event.stream])
            if absent:
                what = f"{event.node} forgot frames {absent[:SHOWN_MAX]} of stream {event.stream}, which no ledger holds"
                yield Violation("P1", event.at_s, what, (mark, *(told[number] for number in absent[:SHOWN_MAX])))
        elif isinstance(event, FaultBegan) and event.fault.kind is FaultKind.TWINS:
            self._twins.add(event.fault.part)

    def _take(self, mark: int, event: Taken) -> Iterator[Violation]:
        key = (event.node, event.stream, event.sequence)
        known = self._taken.get(key)
        if known is not None and repr(known[1].samples) != repr(event.samples):
            what = f"{event.node} used number {event.sequence} of stream {event.stream} twice"
            yield Violation("P1", event.at_s, what, (known[0], mark))
        if event.box == RIGHT_BOX:  # what stood on another box's disk only may go with that box
            self._taken.setdefault(key, (mark, event))
        self._waiting[event.node, event.box, event.stream].setdefault(event.sequence, mark)

    def taken(self) -> list[tuple[int, Taken]]:
        """Return every frame the right boxes took, in each node's order, with its mark."""
        return list(self._taken.values())

    def end(
        self, at_s: float, frames: Mapping[FrameKey, Mapping[str, Value]], losses: Sequence[Loss], plant: Plant
    ) -> Iterator[Violation]:
        """Hold the ledger against what was taken.

        Args:
            frames: what the ledger holds, by tag.
            losses: what it declared lost.
        """
        for key, (mark, event) in self._taken.items():
            held = frames.get(key)
            if held is None:
                yield Violation("P1", at_s, f"frame {key} was taken and is not in the ledger", (mark,))
                continue
            for sample in event.samples:
                expected = self._value(sample)
                if repr(held.get(sample.tag)) != repr(expected):
                    what = f"frame {key}: {sample.tag} was taken as {expected} and is {held.get(sample.tag)} in the ledger"
                    yield Violation("P1", at_s, what, (mark,))
        for mark, row in self._rows:
            if row.kind in "FB" and (row.node, row.stream, row.last) not in frames:
                yield Violation("P1", at_s, f"{row} was in the ledger and is no longer", (mark,))
        yield from self._false_losses(at_s, losses)
        yield from self._inventions(at_s, frames, plant)

    def _value(self, sample: Sample) -> Value:
        return (*conditioned(self._site.tags[sample.tag], sample.value, sample.code), sample.source_ms)

    def _false_losses(self, at_s: float, losses: Sequence[Loss]) -> Iterator[Violation]:
        """None of the faults destroys a synced disk: only where two boxes shared an id may a taken frame be declared lost."""
        for loss in losses:
            numbers = range(loss.first, loss.last + 1)
            marks = tuple(
                self._taken[loss.node, loss.stream, number][0]
                for number in numbers
                if (loss.node, loss.stream, number) in self._taken
            )
            if marks and loss.node not in self._twins:
                yield Violation("P1", at_s, f"{loss} was declared lost, but the edge has it", marks[:SHOWN_MAX])

    def _inventions(
        self, at_s: float, frames: Mapping[FrameKey, Mapping[str, Value]], plant: Plant
    ) -> Iterator[Violation]:
        """A GOOD value in the ledger was read as GOOD."""

        def good(reading: Reading) -> bool:
            return reading.code == GOOD and math.isclose(reading.value, value, rel_tol=1e-9)

        for key, samples in frames.items():
            for tag, (value, code, source_ms) in samples.items():
                if code == GOOD and not plant.shown(tag, source_ms, value, good):
                    what = f"frame {key} holds {tag} = {value} GOOD at {source_ms}, which no instrument showed"
                    yield Violation("P2", at_s, what)
