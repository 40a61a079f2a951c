"""The life of an alarm: the table, acts of people, conditions of the chain, what stays in memory."""

from __future__ import annotations

import itertools
import json
from typing import ClassVar

import pytest

from alerting import (
    LATE_REVISION_FIRST,
    NEXT,
    Act,
    ActKind,
    ActRefusedError,
    AlarmEngine,
    AlarmState,
    CorruptDumpError,
    Event,
    State,
    SystemCondition,
    Transition,
    UnknownAlarmError,
    next_state,
)
from tests.alerting.plant import COMM, GOOD, Bench, Limit, Sent, Tag, batch, bench, table, words

H10 = Tag("T1.PRESSURE", (Limit("H", 10),))


def acknowledge(site: Bench, alarm_id: str, actor: str = "wang") -> Transition:
    """Acknowledge one alarm a second later."""
    site.now_ms += 1000
    (made,) = site.engine.act(site.now_ms, Act(ActKind.ACKNOWLEDGE, alarm_id, actor, site.now_ms))
    return made


def close(site: Bench, alarm_id: str, reason: str | None = "valve stuck", measure: str | None = "valve freed") -> Transition:
    """Close one alarm a second later."""
    site.now_ms += 1000
    (made,) = site.engine.act(site.now_ms, Act(ActKind.CLOSE, alarm_id, "li", site.now_ms, reason, measure))
    return made


class TestTable:
    STEPS: ClassVar = {
        (None, Event.RAISED): State.ACTIVE_UNACKED,
        (State.ACTIVE_UNACKED, Event.ACKNOWLEDGED): State.ACTIVE_ACKED,
        (State.ACTIVE_UNACKED, Event.RETURNED): State.RETURNED_UNACKED,
        (State.ACTIVE_UNACKED, Event.WRITTEN_OFF): State.CLOSED,
        (State.ACTIVE_ACKED, Event.RETURNED): State.RETURNED_ACKED,
        (State.ACTIVE_ACKED, Event.WRITTEN_OFF): State.CLOSED,
        (State.RETURNED_UNACKED, Event.ACKNOWLEDGED): State.RETURNED_ACKED,
        (State.RETURNED_UNACKED, Event.CLOSED): State.CLOSED,
        (State.RETURNED_ACKED, Event.CLOSED): State.CLOSED,
    }

    def test_every_step_and_no_other(self) -> None:
        for state, event in itertools.product([None, *State], Event):
            assert next_state(state, event) == self.STEPS.get((state, event))

    def test_nothing_leads_back_to_active_or_out_of_closed(self) -> None:
        for event, steps in NEXT.items():
            assert State.CLOSED not in steps
            for before, after in steps.items():
                assert before is None or before.active or not after.active, event

    def test_no_life_has_as_many_steps_as_the_first_late_revision(self) -> None:
        def longest(state: State | None) -> int:
            return max((1 + longest(after) for (before, _), after in self.STEPS.items() if before is state), default=0)

        assert longest(None) == LATE_REVISION_FIRST - 1


class TestActs:
    def test_three_times_of_a_life(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        acked = acknowledge(site, raised.alarm_id)
        (returned,) = site.send(5)
        closed = close(site, raised.alarm_id)
        assert [made.revision for made in (raised, acked, returned, closed)] == [1, 2, 3, 4]
        end = closed.alarm
        assert (end.start_ms, end.returned_ms, end.end_ms) == (raised.at_ms, returned.at_ms, site.now_ms)
        assert (end.acked_by, end.closed_by, end.reason, end.measure) == ("wang", "li", "valve stuck", "valve freed")
        assert (end.state, closed.actor) == (State.CLOSED, "li")
        assert site.engine.alarms() == []

    @pytest.mark.fault("F67")
    def test_the_second_acknowledge_is_told_who_was_first(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        acknowledge(site, raised.alarm_id, "wang")
        before = site.engine.dump()
        with pytest.raises(ActRefusedError, match="already acknowledged by wang"):
            acknowledge(site, raised.alarm_id, "zhao")
        assert site.engine.dump() == before

    def test_a_standing_alarm_cannot_be_closed(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        with pytest.raises(ActRefusedError, match=r"T1\.PRESSURE H still stands"):
            close(site, raised.alarm_id)
        assert site.engine.alarms()[0].state is State.ACTIVE_UNACKED

    @pytest.mark.parametrize(("reason", "measure", "missing"), [
        (None, "done", "reason"), ("why", None, "measure"), ("  ", "done", "reason"), ("why", "", "measure")])
    def test_closing_needs_reason_and_measure(self, reason: str | None, measure: str | None, missing: str) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        site.send(5)
        with pytest.raises(ActRefusedError, match=f"needs {missing}"):
            close(site, raised.alarm_id, reason, measure)

    def test_nobody_acts_without_a_name_or_with_a_novel(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        with pytest.raises(ActRefusedError, match="needs actor"):
            acknowledge(site, raised.alarm_id, " ")
        site.send(5)
        with pytest.raises(ActRefusedError, match="longer than 2000"):
            close(site, raised.alarm_id, "x" * 2001)

    def test_a_mistyped_id_is_answered_with_the_nearest(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        typed = raised.alarm_id[:-1] + ("0" if raised.alarm_id[-1] != "0" else "1")
        with pytest.raises(UnknownAlarmError, match=f"did you mean {raised.alarm_id}") as caught:
            acknowledge(site, typed)
        assert caught.value.nearest == raised.alarm_id
        with pytest.raises(UnknownAlarmError, match="see the list"):
            acknowledge(site, "nothing like it")

    def test_two_acts_in_one_millisecond_have_ids_of_their_own(self) -> None:
        site = bench(H10)
        ids = [site.send(value)[0].alarm_id for value in (12, 5, 12)][::2]
        now_ms = site.now_ms
        made = [site.engine.act(now_ms, Act(ActKind.ACKNOWLEDGE, each, "wang", now_ms))[0].id for each in ids]
        assert len({*ids, *made}) == 4


class TestSystemConditions:
    OFFLINE = SystemCondition("EDGE.E1.OFFLINE", True, {"node": "E1"})

    def test_it_raises_once_and_returns_once(self) -> None:
        engine = bench(H10).engine
        now_ms = 1_000_000
        (raised,) = engine.condition(now_ms, 5, self.OFFLINE)
        assert engine.condition(now_ms, 6, self.OFFLINE) == []
        assert engine.alarms() == [raised.alarm]
        over = SystemCondition("EDGE.E1.OFFLINE", False, {"silence_ms": 9})
        (returned,) = engine.condition(now_ms, 7, over)
        assert engine.condition(now_ms, 8, over) == []
        assert (raised.alarm.category, raised.alarm.key, raised.alarm.grade) == ("system", "EDGE.E1.OFFLINE", 3)
        assert (returned.alarm.start_ms, returned.alarm.returned_ms) == (5, 7)
        assert returned.alarm.facts == {"node": "E1", "silence_ms": 9}

    def test_an_event_starts_and_returns_at_once_every_time(self) -> None:
        engine = bench(H10).engine
        told = SystemCondition("STREAM.E1.LOSS", None, {"first": 3, "last": 9}, grade=4)
        made = engine.condition(1_000_000, 5, told) + engine.condition(1_000_000, 5, told)
        assert words(made) == ["SYSTEM raised", "SYSTEM returned"] * 2
        assert len({step.id for step in made}) == 4
        assert {step.alarm.grade for step in made} == {4}

    def test_it_lives_like_any_other_alarm(self) -> None:
        site = bench(H10)
        (raised,) = site.engine.condition(site.now_ms, 5, self.OFFLINE)
        with pytest.raises(ActRefusedError, match="still stands"):
            close(site, raised.alarm_id)
        acknowledge(site, raised.alarm_id)
        site.engine.condition(site.now_ms, 9, SystemCondition("EDGE.E1.OFFLINE", False))
        assert close(site, raised.alarm_id).alarm.state is State.CLOSED


class TestMemory:
    def flood(self, records_max: int) -> Bench:
        """Five alarms that have returned and wait for somebody."""
        site = Bench(AlarmEngine(table(H10), 1_000_000, records_max=records_max))
        for value in (12, 5) * 5:
            site.send(value)
        return site

    def test_only_the_newest_records_stay(self) -> None:
        small, large = self.flood(2), self.flood(100)
        assert small.told == large.told
        assert [alarm.id for alarm in small.engine.alarms()] == [alarm.id for alarm in large.engine.alarms()][-2:]

    def test_what_left_memory_can_be_adopted_and_acted_upon(self) -> None:
        site = self.flood(2)
        old = site.told[1].alarm
        with pytest.raises(UnknownAlarmError):
            acknowledge(site, old.id)
        site.engine.adopt(old)
        assert acknowledge(site, old.id).alarm.state is State.RETURNED_ACKED
        assert close(site, old.id).revision == old.revision + 2

    def test_a_standing_alarm_never_leaves(self) -> None:
        site = bench(H10, Tag("T2.TEMP", (Limit("H", 10),)))
        site.engine.book.records_max = 1
        (standing,) = site.send(12, tag=1)
        for value in (12, 5) * 5:
            site.send(value)
        assert standing.alarm in site.engine.alarms()
        assert words(site.send(5, tag=1)) == ["H returned"]

    def test_a_closed_one_is_not_adopted(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        site.send(5)
        closed = close(site, raised.alarm_id)
        with pytest.raises(ActRefusedError, match="closed by li"):
            site.engine.adopt(closed.alarm)

    def test_a_frame_that_comes_twice_takes_no_alarms_place(self) -> None:
        """The gateway counts frames; if that failed, the open alarm must still not be overwritten."""
        site = bench(H10)
        frames = [[Sent(0, 12.0, GOOD, 1, 1, 1)], [Sent(0, 5.0, GOOD, 2, 1, 2)], [Sent(0, 12.0, GOOD, 1, 1, 1)]]
        told = [made for frame in frames for made in site.engine.samples(site.now_ms, batch(frame))]
        assert len({made.id for made in told}) == 3
        assert len(site.engine.alarms()) == 2


class TestStored:
    def test_alarms_and_transitions_survive_json(self) -> None:
        site = bench(H10)
        site.send(12)
        site.send(0, COMM)
        acknowledge(site, site.told[0].alarm_id)
        told = [*site.told, *site.engine.condition(site.now_ms, 5, TestSystemConditions.OFFLINE)]
        for made in told:
            assert Transition.from_json(json.loads(json.dumps(made.to_json()))) == made
            assert AlarmState.from_json(json.loads(json.dumps(made.alarm.to_json()))) == made.alarm

    def test_a_restored_engine_is_the_same_to_the_byte(self) -> None:
        site = bench(H10, Tag("T2.TEMP", (Limit("H", 10, on_ms=5000, off_ms=5000),)))
        for value in (12, 5, 12):
            site.send(value)
            site.send(value, tag=1)
        site.engine.condition(site.now_ms, 5, TestSystemConditions.OFFLINE)
        dump = site.engine.dump()
        again = AlarmEngine.restore(site.engine.limits, dump)
        assert again.dump() == dump
        assert again.dump() == site.engine.dump()
        assert again.alarms() == site.engine.alarms()

    def test_a_damaged_dump_is_refused(self) -> None:
        site = bench(H10)
        site.send(12)
        dump = site.engine.dump()
        for broken in (b"", dump[:-1], dump + b"x", dump[:40], b"x" + dump, dump.replace(b"tag.value", b"tag.valve")):
            with pytest.raises(CorruptDumpError):
                AlarmEngine.restore(site.engine.limits, broken)
        with pytest.raises(CorruptDumpError, match="SITE1"):
            AlarmEngine.restore(table(H10, site="SITE2"), dump)

    def test_another_configuration_finds_its_tags_and_limits_by_name(self) -> None:
        site = bench(Tag("T0.GONE", (Limit("H", 10),)), H10)
        (gone,), (stays,) = site.send(12), site.send(12, tag=1)
        now = table(H10, Tag("T2.NEW", (Limit("H", 10),)))
        site.engine = AlarmEngine.restore(now, site.engine.dump())
        assert [alarm.id for alarm in site.engine.alarms()] == [gone.alarm_id, stays.alarm_id]
        assert site.engine.tag_states().value.tolist()[0] == 12.0
        (returned,) = site.send(5)
        assert returned.alarm_id == stays.alarm_id
        written_off = close(site, gone.alarm_id)
        assert (written_off.kind, written_off.alarm.returned_ms) == ("closed", None)
