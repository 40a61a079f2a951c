"""Nothing is acknowledged that did not arrive, and nothing is lost without a word: an edge and a ledger, older copies
of either put back, births and frames that get lost, two boxes, against a reference model that only knows sets."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core import books
from gateway.core.books import BirthFindings, NodeBook, Verdict
from wire import StreamSpan, streams

# The real limits, 256 and 64, would never be reached.
LISTED_MAX = 5
INTERVALS_MAX = 4


class AckPromise(RuleBasedStateMachine):
    """Ids ascend here, so that of two streams the one with the higher id began later."""

    intervals_max = INTERVALS_MAX

    def __init__(self) -> None:
        super().__init__()
        self.limits = (
            mock.patch.object(books, "UNFINISHED_LISTED_MAX", LISTED_MAX),
            mock.patch.object(streams, "INTERVALS_MAX", self.intervals_max),
        )
        for limit in self.limits:
            limit.start()
        self.next = 100
        # The edge's disk.
        self.live = 0
        self.predecessor: dict[int, tuple[int, int]] = {}
        self.last: dict[int, int] = {}
        self.held: dict[int, set[int]] = {}  # what the edge still has
        self.dropped: set[tuple[int, int]] = set()  # what it had no room for
        # The ledger.
        self.book = NodeBook()
        self.arrived: dict[int, set[int]] = {}
        self.lost: dict[int, set[int]] = {}
        self.endless: list[
            tuple[int, int, int]
        ] = []  # from this stream and number up to that stream all is called lost
        self.flagged = False  # said to be restored, until a birth has told by how much
        # What happened.
        self.ever: set[tuple[int, int]] = set()  # frames that arrived and of which the edge or the ledger still knows
        self.gateway_restores = self.edge_restores = 0
        self.begin(heard=True)
        self.keep_a_ledger()
        self.keep_a_disk()

    def teardown(self) -> None:
        for limit in self.limits:
            limit.stop()

    @initialize(gateway=st.booleans(), edge=st.booleans())
    def choose_faults(self, gateway: bool, edge: bool) -> None:
        """Which older copies may be put back at all: without any, nothing may be called lost."""
        self.gateway_may_fail, self.edge_may_fail = gateway, edge

    # -- births --

    @rule(heard=st.booleans())
    def begin(self, heard: bool) -> None:
        """A stream begins; its birth may be lost, or be overtaken by its frames."""
        if self.live and self.last[self.live] == 0:
            return
        before = (self.live, self.last.get(self.live, 0))
        self.next += 1
        self.live = self.next
        self.predecessor[self.live], self.last[self.live], self.held[self.live] = before, 0, set()
        if heard:
            self.birth()

    @rule()
    def birth(self) -> None:
        """It lists the oldest unfinished streams, as many as it may, and the live one."""
        unfinished = [
            StreamSpan(stream, min(held), self.last[stream], *self.predecessor[stream])
            for stream, held in self.held.items()
            if held
        ]
        listed = unfinished[:LISTED_MAX]
        if all(each.stream != self.live for each in listed):
            listed.append(StreamSpan(self.live, 1, self.last[self.live], *self.predecessor[self.live]))
        self.note(self.book.born(self.live, listed, restored=self.flagged))
        self.flagged = self.flagged and self.book.unproven != 0
        if len(listed) < LISTED_MAX:
            self.nothing_is_lost_without_a_word()

    def note(self, findings: BirthFindings) -> None:
        for loss in findings.losses:
            there = self.arrived.get(loss.stream, set()) | self.held.get(loss.stream, set())
            if loss.cause.startswith("gateway restored: all from here"):
                assert loss.last == 0
                assert loss.first > max(there, default=0), loss
                self.endless.append((loss.stream, loss.first, self.live))
            elif not loss.cause.startswith("edge restored"):  # which names what we hold and the edge forgot
                named = set(range(loss.first, loss.last + 1))
                assert not named & there, loss
                self.lost.setdefault(loss.stream, set()).update(named)
        assert self.gateway_restores or self.edge_restores or not findings.losses, findings
        assert self.edge_restores or not findings.restored_disk, findings
        assert self.edge_restores > 1 or not findings.two_boxes, findings

    def nothing_is_lost_without_a_word(self) -> None:
        for stream, number in self.ever:
            known = self.arrived.get(stream, set()) | self.lost.get(stream, set()) | self.held.get(stream, set())
            covered = any((first, at) <= (stream, number) < (until, 0) for first, at, until in self.endless)
            state = self.book.streams.get(stream)
            waits = stream == self.live or (state is not None and not state.told and not state.finished)
            assert number in known or covered or waits, f"{stream}:{number} is lost without a word"

    # -- frames --

    @rule(arrives=st.booleans(), count=st.integers(1, 5))
    def scan(self, arrives: bool, count: int) -> None:
        for _ in range(count):
            self.last[self.live] += 1
            self.held[self.live].add(self.last[self.live])
            if arrives:
                self.frame(self.live, self.last[self.live])

    @rule(count=st.integers(20, 60))
    def long_scan(self, count: int) -> None:
        """More than a second, which no power cut takes off the disk."""
        self.scan(True, count)

    @rule(times=st.integers(1, 2 * INTERVALS_MAX))
    def lone_frames(self, times: int) -> None:
        """With a hole before each: intervals run out."""
        for _ in range(times):
            self.scan(False, 1)
            self.scan(True, 1)

    def frame(self, stream: int, number: int) -> None:
        before = number in self.book.streams[stream].received if stream in self.book.streams else False
        verdict = self.book.arrive(stream, number)
        if verdict is not Verdict.DUPLICATE:  # else it is there, or there is no room for it and it comes again
            self.came(stream, {number})
        if before:
            assert verdict is Verdict.DUPLICATE
        self.book.time(stream, number, 1_000_000 + stream * 10_000 + number * 50)

    def came(self, stream: int, numbers: set[int]) -> None:
        self.arrived.setdefault(stream, set()).update(numbers)
        self.ever |= {(stream, number) for number in numbers}

    @rule(at=st.integers(0, 10**6), size=st.integers(1, 30), drop=st.booleans())
    def block(self, at: int, size: int, drop: bool) -> None:
        """Backlog, of which the edge may have had to drop some."""
        sealed = [(stream, number) for stream, held in self.held.items() for number in held if stream != self.live]
        if not sealed:
            return
        stream, first = sorted(sealed)[at % len(sealed)]
        last = min(first + size, self.last[stream])
        dropped = [(first, first, "full")] if drop else []
        found = self.book.arrive_block(stream, first, last, dropped)
        if found is not None:
            fresh = {number for lo, hi in found[0] for number in range(lo, hi + 1)}
            self.came(stream, fresh - ({first} if drop else set()))
            self.dropped |= {(stream, first)} if drop else set()
            for loss in found[1]:
                self.lost.setdefault(stream, set()).update(range(loss.first, loss.last + 1))

    @rule()
    def acknowledge(self) -> None:
        """An edge forgets on our word alone: only what arrived, or what it dropped itself."""
        for stream, held in self.held.items():
            state = self.book.streams.get(stream)
            if state is not None:
                forgotten = {number for number in held if number <= state.acknowledged}
                never_came = forgotten - self.arrived.get(stream, set())
                assert self.gateway_restores or all((stream, number) in self.dropped for number in never_came), never_came
                held -= forgotten

    @rule(times=st.integers(1, 3), heard=st.booleans())
    def reconnects(self, times: int, heard: bool) -> None:
        """Streams that live, are acknowledged and forgotten; but of none that no birth has told of."""
        for _ in range(times):
            self.scan(True, 2)
            self.begin(heard)
            self.acknowledge()

    @rule(times=st.integers(1, LISTED_MAX))
    def flaps(self, times: int) -> None:
        """Streams that nobody hears: the list fills."""
        for _ in range(times):
            self.scan(False, 2)
            self.begin(heard=False)

    # -- older copies --

    @rule()
    def keep_a_ledger(self) -> None:
        self.kept_ledger: tuple[Any, ...] = (
            self.book.to_facts(), _copied(self.arrived), _copied(self.lost), list(self.endless), self.flagged
        )  # fmt: skip

    @precondition(lambda self: self.gateway_may_fail)
    @rule(flagged=st.booleans())
    def gateway_restored(self, flagged: bool) -> None:
        """An older ledger; what it no longer knows has to be named. A whole folder that is put back goes unsaid."""
        facts, arrived, lost, endless, was_flagged = self.kept_ledger
        self.book, self.endless = NodeBook.from_facts(facts), list(endless)
        self.arrived, self.lost = _copied(arrived), _copied(lost)
        self.flagged = flagged or was_flagged
        self.gateway_restores += 1
        self.forget_what_nobody_knows()
        self.begin(heard=True)

    @rule()
    def keep_a_disk(self) -> None:
        self.kept_disk: tuple[Any, ...] = (self.live, dict(self.predecessor), dict(self.last), _copied(self.held))

    @precondition(lambda self: self.edge_may_fail)
    @rule()
    def edge_restored(self) -> None:
        """An older disk: another stream than the one we know follows what it holds."""
        live, predecessor, last, held = self.kept_disk
        self.live, self.predecessor, self.last, self.held = live, dict(predecessor), dict(last), _copied(held)
        if not last[live]:  # of a stream without a frame there is no trace on the disk
            self.live = predecessor[live][0]
            del self.predecessor[live], self.last[live], self.held[live]
        self.edge_restores += 1
        self.forget_what_nobody_knows()
        self.begin(heard=True)

    def forget_what_nobody_knows(self) -> None:
        """With copies of both put back, there may be frames of which nothing is left anywhere."""
        self.ever = {
            (stream, number)
            for stream, number in self.ever
            if number <= self.last.get(stream, 0) or number in self.arrived.get(stream, set())
        }

    # -- promises --

    @invariant()
    def only_what_arrived_or_was_called_lost_is_acknowledged(self) -> None:
        for stream, state in self.book.streams.items():
            known = self.arrived.get(stream, set()) | self.lost.get(stream, set())
            counted = set(range(1, state.received.upto + 1))
            counted |= {number for lo, hi in state.received.intervals for number in range(lo, hi + 1)}
            assert counted <= known, (stream, sorted(counted - known)[:5])


class TwoBoxes(AckPromise):
    """Under one id, in turn: what the births of one leave out the other may still hold."""

    intervals_max = 60  # where they run out, frames that came are forgotten, and stored twice

    @initialize()
    def choose_faults(self) -> None:
        self.gateway_may_fail = self.edge_may_fail = False
        self.parked: tuple[Any, ...] = (0, {}, {}, {})

    @rule()
    def other_box(self) -> None:
        parked, self.parked = self.parked, (self.live, self.predecessor, self.last, self.held)
        self.live, self.predecessor, self.last, self.held = parked
        self.edge_restores += 2  # it looks like that
        self.begin(heard=True)


def _copied(sets: dict[int, set[int]]) -> dict[int, set[int]]:
    return {stream: set(numbers) for stream, numbers in sets.items()}


TestAckPromise = AckPromise.TestCase
TestAckPromise.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestTwoBoxes = TwoBoxes.TestCase
TestTwoBoxes.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
