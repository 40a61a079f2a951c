"""What must hold whatever happens in whatever order: no fault, silence or tick ever clears an alarm."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from alerting import AlarmEngine, State, Transition, TransitionKind
from tests.alerting.plant import COMM, GOOD, RANGE, Limit, Sent, Tag, batch, table

NAMES = ["T1.A", "T2.B"]


def tags(setpoint: float, deadband: float) -> list[Tag]:
    """Return the two tags with this H."""
    return [
        Tag("T1.A", (Limit("L", 2, 0.5), Limit("H", setpoint, deadband), Limit("HH", 20, off_ms=1000)), fault_ms=1000,
            stale_ms=5000),
        Tag("T2.B", (Limit("H", setpoint, deadband, on_ms=2000),), stale_ms=5000),
    ]


LOWERING = {TransitionKind.RETURNED, TransitionKind.CLOSED}
WORSE = st.sampled_from([COMM, RANGE])


class AlarmPromises(RuleBasedStateMachine):
    """An engine, what it said, and which alarms stand by what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.setpoint, self.deadband = 10.0, 1.0
        self.limits = table(*tags(self.setpoint, self.deadband))
        self.engine = AlarmEngine(self.limits, 0)
        self.now_ms, self.source_ms, self.stream, self.sequence = 0, 1_000_000, 1, 0
        self.standing: dict[str, Transition] = {}
        self.ids: set[str] = set()
        self.revisions = 0

    @initialize()
    def both_tags_are_known(self) -> None:
        self.send(0, 5.0, GOOD)
        self.send(1, 5.0, GOOD)

    def send(self, tag: int, value: float, code: int) -> list[Transition]:
        self.sequence += 1
        self.source_ms += 500
        value = math.nan if code == COMM else value
        sent = Sent(tag, value, code, self.source_ms, self.stream, self.sequence)
        return self.take(self.engine.samples(self.now_ms, batch([sent])))

    def take(self, transitions: list[Transition]) -> list[Transition]:
        for made in transitions:
            assert made.id not in self.ids
            self.ids.add(made.id)
            if made.kind is TransitionKind.RAISED:
                self.standing[made.alarm_id] = made
            elif made.kind is TransitionKind.RETURNED:
                del self.standing[made.alarm_id]
        return transitions

    @rule(tag=st.integers(0, 1), value=st.floats(-50, 50), code=WORSE)
    def a_sample_that_is_not_good_lowers_nothing(self, tag: int, value: float, code: int) -> None:
        assert not [made for made in self.send(tag, value, code) if made.kind in LOWERING]

    @rule(ms=st.integers(0, 10_000))
    def a_tick_lowers_nothing(self, ms: int) -> None:
        self.now_ms += ms
        assert not [made for made in self.take(self.engine.tick(self.now_ms)) if made.kind in LOWERING]

    @rule(tag=st.integers(0, 1))
    def a_death_lowers_nothing(self, tag: int) -> None:
        assert not [made for made in self.take(self.engine.stale(self.now_ms, [tag])) if made.kind in LOWERING]

    @rule(ms=st.integers(0, 100_000))
    def downtime_lowers_nothing(self, ms: int) -> None:
        self.now_ms += ms
        self.engine.downtime(ms)

    @rule(jump_ms=st.sampled_from([3_600_000, -3_600_000, -1_600_000_000]))
    def a_clock_step_lowers_nothing(self, jump_ms: int) -> None:
        self.source_ms += jump_ms
        self.stream, self.sequence = self.stream + 1, 0

    @rule()
    def a_restart_lowers_nothing(self) -> None:
        dump = self.engine.dump()
        self.engine = AlarmEngine.restore(self.limits, self.engine.dump())
        assert self.engine.dump() == dump

    @rule(setpoint=st.sampled_from([8.0, 10.0, 15.0]), deadband=st.sampled_from([0.5, 1.0, 5.0]))
    def a_new_configuration_lowers_nothing(self, setpoint: float, deadband: float) -> None:
        self.setpoint, self.deadband = setpoint, deadband
        self.limits = table(*tags(setpoint, deadband))
        self.engine = AlarmEngine.restore(self.limits, self.engine.dump())
        self.revisions += 1
        told = self.take(self.engine.review(self.now_ms, f"revision {self.revisions}"))
        assert {made.kind for made in told} <= {TransitionKind.RAISED}
        assert self.engine.review(self.now_ms, "again") == []

    @rule(tag=st.integers(0, 1), value=st.floats(20, 50))
    def a_good_sample_over_h_stands_as_soon_as_its_delay_is_over(self, tag: int, value: float) -> None:
        self.send(tag, value, GOOD)
        self.now_ms += 2000
        self.take(self.engine.tick(self.now_ms))
        assert any(made.alarm.tag == NAMES[tag] and made.alarm.limit == "H" for made in self.standing.values())

    @rule(tag=st.integers(0, 1), share=st.floats(0.01, 1))
    def a_good_sample_inside_the_deadband_changes_no_level(self, tag: int, share: float) -> None:
        before = {made.alarm_id for made in self.standing.values() if made.alarm.limit == "H"}
        self.send(tag, self.setpoint - share * self.deadband, GOOD)
        assert before == {made.alarm_id for made in self.standing.values() if made.alarm.limit == "H"}

    @rule(tag=st.integers(0, 1))
    def a_good_normal_sample_returns_what_has_no_delay(self, tag: int) -> None:
        """But for what a changed limit has left behind: that waits for a person."""
        self.send(tag, 2.9 if self.setpoint - self.deadband <= 5 else 5.0, GOOD)
        left = {made.alarm.limit for made in self.standing.values()
                if made.alarm.tag == NAMES[tag] and made.alarm_id not in self.engine.book.detached}
        assert left <= {"HH"}

    @invariant()
    def what_was_said_is_what_stands(self) -> None:
        active = {alarm.id for alarm in self.engine.alarms() if alarm.state.active}
        assert active == set(self.standing)

    @invariant()
    def nothing_is_closed_by_itself(self) -> None:
        assert all(alarm.state is not State.CLOSED for alarm in self.engine.alarms())


TestAlarmPromises = pytest.mark.fault("F27")(AlarmPromises.TestCase)
TestAlarmPromises.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
