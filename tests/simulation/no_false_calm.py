"""P2, no false calm: a receiver is told that a level fell only where the plant showed a GOOD value beyond the deadband."""

from __future__ import annotations

from collections.abc import Iterator

from simulators.world import Acted, Event, FaultBegan, FaultKind, Noticed
from tests.simulation.facts import Plant, Reading, Site, Violation
from tests.simulation.rules import GOOD, clear

ACTS = {"acknowledged": "acknowledge", "closed": "close"}


class NoFalseCalm:
    """Asks of every alarm that is told as lower than it was: what lowered it?"""

    def __init__(self, site: Site, plant: Plant) -> None:
        self._site, self._plant = site, plant
        self._twins: set[str] = set()
        self._acts: set[tuple[str, str]] = set()
        self._done: dict[tuple[str, str], tuple[int, Noticed]] = {}
        self._judged: set[tuple[str, int | None]] = set()

    def see(self, mark: int, event: Event) -> Iterator[Violation]:
        """Take one event in; yield what it breaks."""
        if isinstance(event, FaultBegan) and event.fault.kind is FaultKind.TWINS:
            self._twins.add(event.fault.part)
        elif isinstance(event, Acted):
            self._acts.add((event.kind, event.alarm))
        elif isinstance(event, Noticed):
            act = ACTS.get(event.kind)
            if act is not None:
                self._done.setdefault((act, event.alarm["id"]), (mark, event))
            key = (event.alarm["id"], event.alarm["returned_ms"])
            if event.alarm["returned_ms"] is not None and key not in self._judged:
                self._judged.add(key)
                yield from self._returned(mark, event)

    def end(self) -> Iterator[Violation]:
        """Return what nobody did. Only now: an act is told from memory before it is answered where the disk stalls."""
        for act, (mark, event) in self._done.items():
            if act not in self._acts:
                yield Violation("P2", event.at_s, f"{_name(event)} was {event.kind}, and nobody did that", (mark,))

    def _returned(self, mark: int, event: Noticed) -> Iterator[Violation]:
        alarm = event.alarm
        tag, returned_ms = alarm["tag"], alarm["returned_ms"]
        if alarm["category"] == "system":
            return
        row = self._site.limits.get((tag, alarm["limit"]))

        def lowers(reading: Reading) -> bool:
            return reading.code == GOOD and (row is None or clear(row, reading.value))

        raised = self._plant.position(tag, alarm["start_ms"])
        twins = self._site.node_of.get(tag) in self._twins  # of whose readings there is no one order
        after = -1 if raised is None or twins else raised - 1  # a timer's raise may bear the stamp of the reading that ends it
        if not self._plant.shown(tag, returned_ms, alarm["value"], lowers, after):
            what = f"{_name(event)} returned at {returned_ms} with {alarm['value']}, without a GOOD reading that is clear"
            yield Violation("P2", event.at_s, what, (mark,))


def _name(event: Noticed) -> str:
    return f"{event.alarm['tag']} {event.alarm['limit']} ({event.alarm['id'][:8]})"
