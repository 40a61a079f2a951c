"""Hypothesis looks for an order of events that loses a notice, breaks an order or a bound."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from alerting.delivery import LANES, Notice, OutboxRow, number
from alerting.delivery.lanes import IN_FLIGHT_MAX, Entry, ReceiverLanes
from alerting.delivery.schedule import REFUSALS_MAX, Outcome, Verdict
from tests.alerting.delivery.senders import notice

ENTRIES_MAX = 24
ALARMS = {"a": "red", "b": "red", "c": "orange", "d": "yellow", "e": "blue", "f": "blue"}


class DeliveryPromises(RuleBasedStateMachine):
    """A core that commits, hangs and restarts, and a receiver that answers as it likes."""

    @initialize(regulator=st.booleans())
    def start(self, regulator: bool) -> None:
        self.regulator = regulator
        self.now_ms = 0
        self.lanes = self.fresh_lanes()
        self.numbers: dict[tuple[str, str], int] = {}
        self.ledger: dict[str, OutboxRow] = {}  # every row ever committed
        self.pending: dict[str, OutboxRow] = {}  # not committed as accepted
        self.hanging: list[Notice] = []  # planned, their commit hangs
        self.revision: dict[str, int] = defaultdict(int)
        self.flying: list[Entry] = []
        self.accepted: set[tuple[str, int]] = set()
        self.results: list[tuple[OutboxRow, bool]] = []
        self.refusals: dict[str, int] = defaultdict(int)

    def fresh_lanes(self) -> ReceiverLanes:
        return ReceiverLanes(regulator=self.regulator, entries_max=ENTRIES_MAX)

    # the core

    @rule(alarms=st.lists(st.sampled_from(sorted(ALARMS)), min_size=1, max_size=8))
    def a_commit(self, alarms: list[str]) -> None:
        self.commit([*self.hanging, *self.planned(alarms)])
        self.hanging = []

    @rule(alarms=st.lists(st.sampled_from(sorted(ALARMS)), min_size=1, max_size=4))
    def a_commit_that_hangs(self, alarms: list[str]) -> None:
        notices = self.planned(alarms)
        self.hanging += notices
        for found in notices:
            self.lanes.offer_unjournaled(found, self.now_ms)

    @rule()
    def results_are_committed(self) -> None:
        for found, accepted in self.results:
            if accepted:
                self.pending.pop(found.id, None)
        self.results = []

    @rule()
    def a_restart(self) -> None:
        """Results not committed are gone, and so is what hung."""
        self.lanes, self.flying, self.results = self.fresh_lanes(), [], []
        self.refusals.clear()
        self.offer(self.pending.values())

    @rule()
    def the_core_fills_up_lanes_that_have_room(self) -> None:
        for lane in LANES:
            missing = self.lanes.shortfall(lane)
            if missing is not None:
                waiting = (r for r in self.pending.values() if r.lane == lane and r.sequence >= missing.sequence)
                self.offer(waiting)

    # the receiver

    @rule(lane=st.sampled_from(LANES))
    def some_are_sent(self, lane: str) -> None:
        for entry in self.lanes.take(lane, self.now_ms):
            assert entry.due_ms <= self.now_ms
            self.check_order(entry)
            self.flying.append(entry)

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 100), outcome=st.sampled_from(Outcome), jitter=st.floats(-1, 1))
    def an_answer(self, pick: int, outcome: Outcome, jitter: float) -> None:
        self.answer(self.flying.pop(pick % len(self.flying)), outcome, jitter)

    @rule(alive=st.booleans())
    def a_heartbeat(self, alive: bool) -> None:
        self.lanes.beat(alive, self.now_ms)

    @rule(ms=st.sampled_from([1, 900, 5_000, 31_000, 90_000]))
    def time_goes_by(self, ms: int) -> None:
        self.now_ms += ms
        self.lanes.check_down(self.now_ms)

    # what must hold

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "lanes"):
            return
        for lane in LANES:
            mine = [entry for entry in self.flying if entry.notice.lane == lane]
            assert self.lanes.in_flight(lane) == len(mine) <= IN_FLIGHT_MAX
        assert self.lanes.due_count >= 0
        assert self.lanes.refused_count >= 0

    @invariant()
    def whatever_may_be_sent_has_a_wake_time(self) -> None:
        if not hasattr(self, "lanes"):
            return
        wakes = [wake for lane in LANES if (wake := self.lanes.wake_ms(lane, self.now_ms)) is not None]
        if self.lanes.due_count and not self.flying:
            assert wakes, "something is due and nothing would ever send it"

    def teardown(self) -> None:
        """The receiver heals: everything committed arrives, nothing is left, numbers have no gap."""
        if not hasattr(self, "lanes"):
            return
        self.commit(self.hanging)
        for entry in self.flying:
            self.answer(entry, Outcome.ACCEPTED, 0.0)
        self.flying = []
        self.lanes.beat(True, self.now_ms)
        for _ in range(400):
            self.results_are_committed()
            if not self.pending:
                break
            self.the_core_fills_up_lanes_that_have_room()
            self.now_ms += 100_000_000
            for lane in LANES:
                for entry in self.lanes.take(lane, self.now_ms):
                    self.check_order(entry)
                    self.answer(entry, Outcome.ACCEPTED, 0.0)
        assert not self.pending, "a notice was lost"
        assert self.lanes.due_count == self.lanes.refused_count == 0
        assert not self.lanes.down
        for lane in LANES:
            sent = sorted(sequence for name, sequence in self.accepted if name == lane)
            assert sent == list(range(1, len(sent) + 1)), "the receiver sees a gap"

    def planned(self, alarms: list[str]) -> list[Notice]:
        notices = []
        for alarm in alarms:
            self.revision[alarm] += 1
            notices.append(notice(alarm, self.revision[alarm], lane=ALARMS[alarm]))
        return notices

    def commit(self, notices: list[Notice]) -> None:
        rows, self.numbers = number(notices, "L1", self.numbers)
        for found in rows:
            self.ledger[found.id] = self.pending[found.id] = found
        self.offer(rows)

    def offer(self, rows: object) -> None:
        for found in list(rows):  # type: ignore[call-overload]
            self.lanes.offer(found, self.now_ms, self.now_ms)

    def answer(self, entry: Entry, outcome: Outcome, jitter: float) -> None:
        settled = self.lanes.settle(entry, Verdict(outcome, "", 200), self.now_ms, jitter)
        assert settled.accepted is (outcome is Outcome.ACCEPTED)
        assert not (settled.parked and self.regulator)
        if outcome is Outcome.REFUSED:
            self.refusals[entry.key] += 1
        found = entry.notice
        if isinstance(found, OutboxRow):
            self.results.append((found, settled.accepted))
            if settled.accepted:
                self.accepted.add((found.lane, found.sequence))

    def check_order(self, entry: Entry) -> None:
        """No earlier revision of this alarm is on the wire or waits here, unless it was refused for good."""
        for other in self.flying:
            if other.notice.alarm_id == entry.notice.alarm_id and other is not entry:
                assert self.refusals[other.key] >= REFUSALS_MAX or self.refusals[entry.key] >= REFUSALS_MAX
        if not isinstance(entry.notice, OutboxRow):
            return
        for row in self.pending.values():
            earlier = row.alarm_id == entry.notice.alarm_id and row.revision < entry.notice.revision
            if earlier and (row.lane, row.sequence) not in self.accepted:
                assert self.refusals[row.id] >= REFUSALS_MAX, "a later revision overtook an earlier one"


TestDeliveryPromises = DeliveryPromises.TestCase
TestDeliveryPromises.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
