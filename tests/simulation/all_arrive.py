"""P3, every alarm provably arrives: ids that stay, numbers without gaps, no excursion untold, nothing told without a cause."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simulators.world import Event, FaultBegan, FaultKind, Noticed, PartEnded, Refused, Taken
from tests.simulation.facts import Plant, Reading, Site, Violation
from tests.simulation.rules import Excursion, Place, excursions, over

TOLERANCE_MS = 5_000
"""How far a delay that ran on engine time may end from where source time would end it."""
SHOWN_MAX = 10
EVENTS = (".LOSS", ".QUARANTINE", ".TAKEOVER", ".AWAY", ".STALLED")
"""System conditions that are told as raised and returned at once."""

FrameKey = tuple[str, int, int]  # node, stream, sequence
Frames = Mapping[FrameKey, Mapping[str, tuple[float, int, int]]]  # tag -> value, code, source_ms


class Step(NamedTuple):
    """A journal row."""

    id: str
    alarm: str
    revision: int
    kind: str
    tag: str
    limit: str
    category: str
    grade: int


@dataclass(slots=True)
class Told:
    """One alarm as one receiver knows it."""

    newest: Noticed
    mark: int
    raised: bool = False
    raised_mark: int | None = None  # where in the record it was first told as raised
    returned_mark: int | None = None  # and as returned
    journaled: bool = False
    revisions: set[int] = field(default_factory=set)


class AllArrive:
    """Keeps what every receiver was told."""

    def __init__(self, site: Site, plant: Plant) -> None:
        self._site, self._plant = site, plant
        self.told: dict[tuple[str, str], Told] = {}  # (receiver, alarm)
        self._steps: dict[str, tuple[int, tuple[str, str, int, str, bool]]] = {}
        self._ids: dict[tuple[str, str, int], str] = {}
        self._numbers: dict[str, tuple[int, tuple[str, str, int]]] = {}
        self._lanes: dict[tuple[str, str, str], dict[int, tuple[str, int]]] = defaultdict(dict)
        self._kept: set[tuple[str, str]] = set()  # (receiver, transition), with a sequence
        self._from_memory: dict[tuple[str, str], int] = {}
        self._core_died = False
        self._twins: set[str] = set()
        self._stopped_s: dict[str, float] = {}

    def see(self, mark: int, event: Event) -> Iterator[Violation]:
        """Take one event in; yield what it breaks."""
        if isinstance(event, Noticed):
            yield from self._same_id(mark, event)
            if event.sequence is not None:
                yield from self._same_number(mark, event, event.sequence)
            if event.kind == "raised":
                yield from self._cause(mark, event)
            if event.kept:
                self._keep(mark, event)
        elif isinstance(event, Refused) and "timestamp" not in event.reason.lower():
            yield Violation("P3", event.at_s, f"{event.receiver} could not believe a notice: {event.reason}", (mark,))
        elif isinstance(event, PartEnded):
            self._core_died |= event.part == "core" and event.cause != "stopped"
            if event.cause == "stopped":
                self._stopped_s[event.part] = event.at_s
        elif isinstance(event, FaultBegan) and event.fault.kind is FaultKind.TWINS:
            self._twins.add(event.fault.part)

    def _same_id(self, mark: int, event: Noticed) -> Iterator[Violation]:
        """What is found again as late, after the core that had told it from memory was killed, has a new revision."""
        step = (event.receiver, event.transition, event.revision, event.kind, event.late)
        before, known = self._steps.setdefault(event.notice, (mark, step))
        if known != step:
            yield Violation("P3", event.at_s, f"notice {event.notice} told {known}, then {step}", (before, mark))
        identity = self._ids.setdefault((event.receiver, event.transition, event.revision), event.notice)
        if identity != event.notice:
            what = f"transition {event.transition} came to {event.receiver} as notice {identity} and as {event.notice}"
            yield Violation("P3", event.at_s, what, (mark,))

    def _same_number(self, mark: int, event: Noticed, sequence: int) -> Iterator[Violation]:
        place = (event.ledger, event.lane, sequence)
        before, known = self._numbers.setdefault(event.notice, (mark, place))
        if known != place and known[0] == event.ledger:
            yield Violation("P3", event.at_s, f"notice {event.notice} stood at {known}, then at {place}", (before, mark))
        lane = self._lanes[event.receiver, event.ledger, event.lane]
        notice, before = lane.setdefault(sequence, (event.notice, mark))
        if notice != event.notice:
            what = f"{event.receiver}, {event.lane}: number {sequence} named {notice} and {event.notice}"
            yield Violation("P3", event.at_s, what, (before, mark))

    def _cause(self, mark: int, event: Noticed) -> Iterator[Violation]:
        alarm = event.alarm
        row = self._site.limits.get((alarm["tag"], alarm["limit"]))
        if row is None or alarm["category"] != "process":
            return
        def beyond(reading: Reading) -> bool:
            return over(row, reading.value)

        shown = self._plant.shown(alarm["tag"], event.at_ms, alarm["value"], beyond)
        if not shown and not (row.on_delay_s and any(map(beyond, self._plant.readings[alarm["tag"]]))):
            what = f"{_name(event)} was raised at {event.at_ms} with {alarm['value']}, which no instrument showed"
            yield Violation("P3", event.at_s, what, (mark,))

    def _keep(self, mark: int, event: Noticed) -> None:
        told = self.told.setdefault((event.receiver, event.alarm["id"]), Told(event, mark))
        if event.revision >= told.newest.revision:
            told.newest, told.mark = event, mark
        if event.kind == "raised" and not told.raised:
            told.raised, told.raised_mark = True, mark
        elif event.kind == "returned" and told.returned_mark is None:
            told.returned_mark = mark
        told.revisions.add(event.revision)
        key = (event.receiver, event.transition)
        if event.sequence is None:
            self._from_memory.setdefault(key, mark)
        else:
            told.journaled = True
            self._kept.add(key)

    # -- the end --

    def end(
        self, at_s: float, taken: Iterable[tuple[int, Taken]], held: Frames, current: set[FrameKey], journal: Sequence[Step]
    ) -> Iterator[Violation]:
        """Hold what was told against the plant and the journal.

        Args:
            taken: every frame on an edge's disk, in each node's order, with its mark.
            held: what the ledger holds, by tag.
            current: frames that came in their turn; all others are history.
        """
        frames = [(mark, event) for mark, event in taken]
        marks = {_place(event): mark for mark, event in frames}
        for excursion in excursions(self._site.config, [(_place(event), event.samples) for _, event in frames]):
            if excursion.begun.stream != excursion.start.stream:
                continue  # a delay that spans two streams counts core's own time, of which nobody here knows
            if excursion.start.node in self._twins and tuple(excursion.start) not in current:
                continue  # of two boxes' streams no one history can be made
            for receiver in self._site.wanting(excursion.grade, "process"):
                if not self._heard(receiver, excursion, marks[excursion.start]):
                    what = (
                        f"{receiver} never heard that {excursion.tag} was beyond {excursion.limit} from {excursion.start_ms}"
                        f" ({excursion.start})"
                    )
                    yield Violation("P3", at_s, what, (marks[excursion.start],))
        yield from self._late_as_present(at_s, held, current)
        yield from self._told_once(at_s)
        yield from self._gaps(at_s)
        yield from self._endings(at_s)
        yield from self._journal(at_s, journal)

    def _heard(self, receiver: str, excursion: Excursion, mark: int) -> bool:
        """Its own alarm was told, present or late; or one that stood at the time, which a hole had not let return.

        Where two boxes send in turns, an alarm of this excursion may begin with the other's sample. Stood at the time
        means in the order of things, whatever the stamps say.
        """
        at = self._plant.time(excursion.tag, excursion.start_ms)
        at = mark if at is None else at
        over = None if excursion.end_ms is None else self._plant.time(excursion.tag, excursion.end_ms)
        latest = at if excursion.start.node not in self._twins else mark if over is None else over
        for told in self._alarms(receiver, excursion.tag, excursion.limit):
            alarm = told.newest.alarm
            start_ms, returned_ms = alarm["start_ms"], alarm["returned_ms"]
            if told.raised and _same_start(excursion, start_ms):
                return True
            if self._forgotten(told):
                continue  # whatever came after, nobody knew any more that it stood
            begun = self._plant.time(excursion.tag, start_ms)
            ended = None if returned_ms is None else self._plant.time(excursion.tag, returned_ms)
            if returned_ms == start_ms:  # by a clock set back it ended before it began: only the telling dates the end
                ended = told.returned_mark
            # Told before is stood before, too, whatever a stepped clock had stamped it with.
            stood_before = min(mark for mark in (begun, told.raised_mark, math.inf) if mark is not None) <= latest
            stood_after = returned_ms is None or (ended is not None and ended >= at)
            held = excursion.start.node in self._twins  # there not even a late alarm may return
            if told.raised and (held or not alarm["late"]) and stood_before and stood_after:
                return True
        return False

    def _alarms(self, receiver: str, tag: str, limit: str) -> list[Told]:
        return [
            told
            for (owner, _), told in self.told.items()
            if owner == receiver and told.newest.alarm["tag"] == tag and told.newest.alarm["limit"] == limit
        ]

    def _late_as_present(self, at_s: float, held: Frames, current: set[FrameKey]) -> Iterator[Violation]:
        """What came with the backlog is history, and must say so."""
        holding: dict[tuple[str, int], list[FrameKey]] = defaultdict(list)
        for key, samples in held.items():
            for tag, (_, _, source_ms) in samples.items():
                holding[tag, source_ms].append(key)
        for told in self.told.values():
            alarm = told.newest.alarm
            row = self._site.limits.get((alarm["tag"], alarm["limit"]))
            if alarm["late"] or row is None or row.on_delay_s or not told.journaled:
                continue
            keys = holding.get((alarm["tag"], alarm["start_ms"]), [])
            if keys and current.isdisjoint(keys):
                what = f"{_name(told.newest)} was told as present, but its sample came with the backlog"
                yield Violation("P3", at_s, what, (told.mark,))

    def _told_once(self, at_s: float) -> Iterator[Violation]:
        """One reading over a limit is one alarm, though it may come in its turn, with the backlog, and in the next birth.

        But for the present one that a birth raises when history has told of that reading before.
        """
        first: dict[tuple[str, str, str, int, bool], tuple[str, int]] = {}
        for (receiver, identity), told in self.told.items():
            alarm = told.newest.alarm
            if alarm["category"] != "process" or self._forgotten(told):
                continue
            if self._site.node_of.get(alarm["tag"], "") in self._twins:
                continue
            reading = receiver, alarm["tag"], alarm["limit"], alarm["start_ms"], alarm["late"]
            known, mark = first.setdefault(reading, (identity, told.mark))
            if known != identity:
                what = f"{receiver} was told of {_name(told.newest)}, which is alarm {known[:8]} once more"
                yield Violation("P3", at_s, what, (mark, told.mark))

    def _gaps(self, at_s: float) -> Iterator[Violation]:
        for lane, numbers in self._lanes.items():
            absent = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
            if absent:
                behind = tuple(numbers[number + 1][1] for number in absent if number + 1 in numbers)
                what = f"{lane[0]}, {lane[2]} of ledger {lane[1]}: numbers {absent[:SHOWN_MAX]} never came"
                yield Violation("P3", at_s, what, behind[:SHOWN_MAX])

    def _endings(self, at_s: float) -> Iterator[Violation]:
        """Everything is calm at the end, so the newest that every receiver knows of every alarm must say so."""
        held = self._held_nodes()
        for (receiver, _), told in self.told.items():
            alarm = told.newest.alarm
            node = self._site.node_of.get(alarm["tag"], "")
            if alarm["category"] == "system" and not alarm["tag"].endswith(EVENTS):
                continue
            if node in held:
                continue
            if told.newest.at_s >= self._stopped_s.get(node, math.inf):
                continue  # an edge that was stopped in order is silent, and that is told
            if alarm["returned_ms"] is None and alarm["state"] != "CLOSED" and not self._forgotten(told):
                what = f"{receiver} still believes that {_name(told.newest)} stands, in revision {told.newest.revision}"
                yield Violation("P3", at_s, what, (told.mark,))

    def _held_nodes(self) -> set[str]:
        """Nodes of which two boxes were seen, and nobody has said which is right: their levels may not fall."""
        return {
            told.newest.alarm["tag"].split(".")[1]
            for told in self.told.values()
            if told.newest.alarm["tag"].endswith(".IDENTITY") and told.newest.alarm["state"] != "CLOSED"
        }

    def _forgotten(self, told: Told) -> bool:
        """Told from memory while the disk refused, by a core that died before the disk took it."""
        return self._core_died and not told.journaled

    def _journal(self, at_s: float, journal: Sequence[Step]) -> Iterator[Violation]:
        known = {step.id for step in journal}
        for step in journal:
            for receiver in self._site.wanting(step.grade, step.category):
                if (receiver, step.id) not in self._kept:
                    what = f"{step.tag} {step.limit} {step.kind}, revision {step.revision}, never reached {receiver}"
                    yield Violation("P3", at_s, what)
        for receiver, transition in sorted(self._kept):
            if transition not in known:
                yield Violation("P3", at_s, f"{receiver} got transition {transition}, which the journal has not")
        for (receiver, transition), mark in self._from_memory.items():
            if transition not in known and not self._core_died:
                what = f"{receiver} was told of {transition} from memory, and it never came into the journal"
                yield Violation("P3", at_s, what, (mark,))


def _place(event: Taken) -> Place:
    return Place(event.node, event.stream, event.sequence)


def _same_start(excursion: Excursion, start_ms: int) -> bool:
    if excursion.start_ms == start_ms:
        return True
    delayed = excursion.begun_ms != excursion.start_ms
    return delayed and excursion.begun_ms <= start_ms <= excursion.start_ms + TOLERANCE_MS


def _name(event: Noticed) -> str:
    alarm: Mapping[str, object] = event.alarm
    return f"{alarm['tag']} {alarm['limit']} ({str(alarm['id'])[:8]})"
