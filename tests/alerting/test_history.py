"""Frames that came late: dated records, known steps not repeated, the present untouched."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerting import (
    LATE_REVISION_FIRST,
    Act,
    ActKind,
    ActRefusedError,
    AlarmEngine,
    CorruptDumpError,
    HistoryFork,
    State,
    Transition,
)
from alerting.delivery import notice_id
from alerting.dump import pack, unpack
from tests.alerting.plant import COMM, GOOD, RANGE, Limit, Sent, Tag, batch, table, words

H10 = Tag("T1.PRESSURE", (Limit("H", 10),))
NOW_MS = 1_000_000
TEN_MINUTES_MS = 600_000


def frames(*values: float, first: int = 1, tag: int = 0) -> list[Sent]:
    """One good sample a frame and a second, numbered from `first`."""
    return [Sent(tag, value, GOOD, number * 1000, 7, number) for number, value in enumerate(values, first)]


class Node:
    """An engine that got some frames live, and a fork taken before the first one past the hole."""

    def __init__(self, before: list[Sent], after: list[Sent], *tags: Tag) -> None:
        self.engine = AlarmEngine(table(*(tags or (H10,))), NOW_MS)
        self.live = self.samples(before)
        self.fork = self.engine.fork(range(len(tags or (H10,))))
        self.after = after
        self.live += self.samples(after)

    def samples(self, sent: list[Sent]) -> list[Transition]:
        """Evaluate frames as current."""
        return self.engine.samples(NOW_MS, batch(sent))

    def fill(self, hole: list[Sent]) -> list[Transition]:
        """The hole's frames arrive: run them and then, again, what came after."""
        return self.fork.samples(batch(hole + self.after))


def levels(engine: AlarmEngine) -> set[tuple[str, str]]:
    """Return what stands now by current rows: (tag, limit)."""
    return {(alarm.tag, alarm.limit) for alarm in engine.alarms() if alarm.state.active and not alarm.late}


@pytest.mark.fault("F25")
class TestHoleFilledLater:
    def test_an_excursion_inside_the_hole_is_a_dated_record(self) -> None:
        node = Node(frames(5, 5), frames(5, 5, first=6))
        assert node.live == []
        raised, returned = node.fill(frames(5, 12, 5, first=3))
        assert words([raised, returned]) == ["H raised", "H returned"]
        assert (raised.at_ms, returned.at_ms, returned.alarm.start_ms) == (4000, 5000, 4000)
        assert raised.late
        assert returned.late
        assert returned.alarm.late
        assert returned.alarm.linked is None
        assert levels(node.engine) == set()

    def test_one_that_still_stands_is_linked_to_the_live_alarm(self) -> None:
        node = Node(frames(5, 5), frames(12, 12, first=6))
        (live,) = node.live
        (raised,) = node.fill(frames(5, 12, 12, first=3))
        assert (raised.at_ms, live.at_ms) == (4000, 6000)
        assert raised.alarm.linked == live.alarm_id
        assert levels(node.engine) == {("T1.PRESSURE", "H")}

    def test_and_returns_together_with_it(self) -> None:
        node = Node(frames(5, 5), frames(12, first=6))
        (raised,) = node.fill(frames(12, 12, first=3))
        node.fork.finish()
        returned, with_it = node.samples(frames(5, first=7))
        assert (returned.alarm_id, with_it.alarm_id) == (node.live[0].alarm_id, raised.alarm_id)
        assert (returned.late, with_it.late, with_it.at_ms) == (False, True, 7000)
        assert {alarm.state for alarm in node.engine.alarms()} == {State.RETURNED_UNACKED}

    def test_a_run_that_reaches_that_return_later_tells_it_no_second_time(self) -> None:
        node = Node(frames(5, 5), frames(12, first=6))
        (raised,) = node.fill(frames(12, 12, first=3))
        assert [made.alarm_id for made in node.samples(frames(5, first=7))][1:] == [raised.alarm_id]
        assert node.fork.samples(batch(frames(5, first=7))) == []

    def test_one_that_ended_in_the_hole_loses_its_link(self) -> None:
        node = Node(frames(5), frames(12, first=6))
        raised, returned = node.fill(frames(12, 5, first=2))
        assert raised.alarm.linked == node.live[0].alarm_id
        assert (returned.alarm.linked, returned.revision) == (None, LATE_REVISION_FIRST + 1)
        told = node.samples(frames(5, first=7))
        assert [made.alarm_id for made in told] == [node.live[0].alarm_id]

    def test_one_that_the_next_hole_lets_end_hides_no_second_excursion_there(self) -> None:
        """The present saw neither; by it the alarm stood until long after."""
        node = Node(frames(5), frames(12, first=3))
        (first,) = node.fill(frames(12, first=2))
        with_live = node.samples(frames(5, first=9))
        assert [made.alarm_id for made in with_live] == [node.live[0].alarm_id, first.alarm_id]
        node.after = frames(5, first=9)
        assert [(word, made.at_ms) for made in node.fill(frames(5, 5, 14, 5, 5, first=4)) for word in words([made])] == [
            ("H raised", 6000), ("H returned", 7000)]  # fmt: skip

    def test_an_alarm_that_began_later_on_a_clock_set_back_hides_no_beginning(self) -> None:
        node = Node(frames(5), [Sent(0, 12.0, GOOD, 500, 8, 1)])
        (raised,) = node.fill(frames(12, first=2))
        assert (raised.at_ms, raised.alarm.linked) == (2000, node.live[0].alarm_id)

    def test_a_sample_that_the_next_birth_told_again_raises_no_second_alarm(self) -> None:
        node = Node(frames(5), [Sent(0, 12.0, GOOD, 2000, 8, 1)])
        assert node.fill(frames(12, first=2)) == []

    def test_an_alarm_of_frames_that_nobody_numbered_is_known_by_its_time(self) -> None:
        node = Node(frames(5), [Sent(0, 12.0, GOOD, 1500, -8, 1)])
        node.after = []
        assert node.fill(frames(12, first=2)) == []

    def test_an_alarm_that_such_a_frame_ended_hides_nothing_whatever_its_stamp(self) -> None:
        node = Node(frames(5), [Sent(0, 12.0, GOOD, 1500, -8, 1), Sent(0, 5.0, GOOD, 99_000, -8, 2)])
        node.after = []
        assert words(node.fill(frames(5, 12, 5, first=3))) == ["H raised", "H returned"]

    def test_an_alarm_that_a_timer_raised_is_known_by_its_time(self) -> None:
        """Its last frame is of a stream that had ended before the run began."""
        node = Node([], [], Tag("T1.PRESSURE", (Limit("H", 10, on_ms=3000),)))
        node.samples([Sent(0, 12.0, GOOD, 1000, 6, 1)])
        fork = node.engine.fork([0])
        assert words(node.engine.tick(NOW_MS + 3000)) == ["H raised"]
        assert fork.samples(batch(frames(12, first=2) + frames(12, first=8))) == []

    def test_an_earlier_alarm_with_the_same_stamp_hides_nothing(self) -> None:
        """A clock set back passes the same times twice."""
        node = Node(frames(5), frames(12, 5, first=2))
        assert node.fork.samples(batch(node.after)) == []
        node.fork.samples(batch([Sent(0, 5.0, GOOD, 1500, 3, 1)]))
        assert words(node.fork.samples(batch([Sent(0, 12.0, GOOD, 2000, 3, 2), Sent(0, 5.0, GOOD, 2500, 3, 3)]))) == [
            "H raised", "H returned"]  # fmt: skip

    def test_steps_seen_live_are_not_repeated(self) -> None:
        after = frames(12, 5, 12, 5, first=6)
        node = Node(frames(5, 5), after)
        assert words(node.live) == ["H raised", "H returned"] * 2
        assert node.fill(frames(5, 5, 5, first=3)) == []

    def test_what_stood_before_the_hole_is_not_rewritten(self) -> None:
        node = Node(frames(5, 12), frames(12, first=6))
        before = node.engine.alarms()
        (raised,) = node.fill(frames(5, 12, first=3))
        assert (raised.at_ms, raised.alarm.linked) == (4000, before[0].id)
        assert node.engine.alarms()[0] == before[0]

    def test_an_alarm_a_tick_raised_is_the_same_excursion(self) -> None:
        slow = Tag("T1.PRESSURE", (Limit("H", 10, on_ms=3000),))
        node = Node(frames(5), [], slow)
        after = frames(12, first=6)
        node.live = node.samples(after) + node.engine.tick(NOW_MS + 3000)
        assert words(node.live) == ["H raised"]
        node.after = [*after, Sent(0, 12.0, GOOD, 20_000, 7, 7)]
        assert node.engine.samples(NOW_MS + 14_000, batch(node.after[1:])) == []
        assert node.fill(frames(5, first=2)) == []

    def test_a_bad_spell_in_the_hole_is_a_late_fault(self) -> None:
        node = Node(frames(5), frames(5, first=6))
        told = node.fill([Sent(0, math.nan, COMM, 3000, 7, 3)])
        assert words(told) == ["FAULT raised", "FAULT returned"]
        assert all(made.late for made in told)

    def test_samples_of_other_tags_are_passed_over(self) -> None:
        node = Node(frames(5), [], H10, Tag("T2.TEMP", (Limit("H", 10),)))
        fork = node.engine.fork([1])
        told = fork.samples(batch([*frames(12, first=2), *frames(12, first=2, tag=1)]))
        assert [made.alarm.tag for made in told] == ["T2.TEMP"]

    def test_a_second_run_over_the_same_hole_finds_nothing_new(self) -> None:
        node = Node(frames(5), [])
        again = node.engine.fork([0])
        node.after = []
        hole = frames(12, 5, 12, first=2)
        assert words(node.fill(hole)) == ["H raised", "H returned", "H raised"]
        assert again.samples(batch(hole)) == []


class TestFoundAgainAfterAKill:
    """What was told from memory and never committed comes back with the backlog: it is news, and it is the truth."""

    @staticmethod
    def told_twice() -> tuple[list[Transition], list[Transition]]:
        """Return all steps of one alarm in the life that was lost, and those of the run over the same frames."""
        lost = AlarmEngine(table(H10), NOW_MS)
        told = lost.samples(NOW_MS, batch(frames(5, 12)))
        told += lost.act(NOW_MS, Act(ActKind.ACKNOWLEDGE, told[0].alarm_id, "wang", NOW_MS))
        told += lost.samples(NOW_MS, batch(frames(5, first=3)))
        told += lost.act(NOW_MS, Act(ActKind.CLOSE, told[0].alarm_id, "wang", NOW_MS, "leak", "sealed"))
        again = Node([], [])
        return told, again.fork.samples(batch(frames(5, 12, 5)))

    def test_it_is_the_same_alarm_above_every_revision_told(self) -> None:
        told, late = self.told_twice()
        assert [made.id for made in late] == [told[0].id, told[2].id]
        assert [made.revision for made in told + late] == [1, 2, 3, 4, 5, 6]

    def test_its_notices_are_no_repetitions(self) -> None:
        told, late = self.told_twice()
        assert len({notice_id(made.id, made.revision, "CITY") for made in told + late}) == 6


class TestHowLongARunWaits:
    def apart(self) -> Node:
        """A raise in the hole, then a value inside the deadband: the present has seen nothing."""
        node = Node(frames(5), frames(9.5, first=6))
        assert words(node.fill(frames(12, first=2))) == ["H raised"]
        return node

    def inside(self, node: Node, at_ms: int, *, caught_up: bool) -> None:
        node.fork.samples(batch([Sent(0, 9.5, GOOD, at_ms, 7, at_ms)]), caught_up=caught_up)

    def test_while_it_stands_apart_and_not_for_ever(self) -> None:
        node = self.apart()
        self.inside(node, 6000 + TEN_MINUTES_MS, caught_up=True)
        assert node.fork.waits(7)
        self.inside(node, 6001 + TEN_MINUTES_MS, caught_up=True)
        assert not node.fork.waits(7)

    def test_only_what_comes_after_it_has_caught_up_counts(self) -> None:
        node = self.apart()
        self.inside(node, 6001 + TEN_MINUTES_MS, caught_up=False)
        assert node.fork.waits(7)

    def test_nor_the_time_of_another_clock(self) -> None:
        node = self.apart()
        node.fork.samples(batch([Sent(0, 9.5, GOOD, 9 * TEN_MINUTES_MS, 8, 1)]))
        assert node.fork.waits(8)

    def test_for_the_end_of_a_late_fault(self) -> None:
        node = Node(frames(5), frames(5, first=6))
        assert words(node.fork.samples(batch([Sent(0, math.nan, COMM, 3000, 7, 3)]))) == ["FAULT raised"]
        assert node.fork.waits(7)
        assert words(node.fork.samples(batch(node.after))) == ["FAULT returned"]
        assert not node.fork.waits(7)

    def test_what_it_leaves_returns_with_the_current_alarm(self) -> None:
        node = Node(frames(5), [])
        (raised,) = node.fill(frames(12, first=2))
        (live,) = node.samples(frames(12, first=3))
        node.fork.finish()
        returned = node.samples(frames(5, first=4))
        assert [made.alarm_id for made in returned] == [live.alarm_id, raised.alarm_id]

    def test_the_order_of_streams_is_the_order_they_were_run_in(self) -> None:
        node = Node([Sent(0, 5.0, GOOD, 1000, 9, 1)], [Sent(0, 12.0, GOOD, 3000, 2, 1)])
        (raised,) = node.fork.samples(batch([Sent(0, 12.0, GOOD, 2500, 9, 2)]))
        assert raised.alarm.linked == node.live[0].alarm_id
        assert node.fork.samples(batch([Sent(0, 12.0, GOOD, 3000, 2, 1)])) == []

    def test_dumps_from_before_the_order_was_known_are_read(self) -> None:
        node = Node(frames(5), frames(12, first=6))
        kind, (header, columns) = "fork", unpack("fork", node.fork.dump())
        header["current"] = [[row, [[item[0], item[1], None, False] for item in items]] for row, items in header["current"]]
        for name in ("streams", "apart_ms", "newest"):
            del header[name]
        fork = HistoryFork.restore(node.engine, pack(kind, header, columns))
        (raised,) = fork.samples(batch(frames(12, first=2)))
        assert raised.alarm.linked == node.live[0].alarm_id
        assert fork.samples(batch(frames(12, first=6))) == []


class TestLateAlarms:
    def test_people_act_on_them_as_on_any_other(self) -> None:
        node = Node(frames(5), frames(5, first=6))
        raised, _ = node.fill(frames(12, first=2))
        (acked,) = node.engine.act(NOW_MS, Act(ActKind.ACKNOWLEDGE, raised.alarm_id, "wang", 9))
        (closed,) = node.engine.act(NOW_MS, Act(ActKind.CLOSE, raised.alarm_id, "wang", 9, "pump", "stopped"))
        assert (acked.late, closed.late, closed.alarm.state) == (True, True, State.CLOSED)

    def test_one_left_standing_can_be_closed_only_after_the_run(self) -> None:
        """Inside the deadband live saw nothing, so no sample of the present will ever return it."""
        node = Node(frames(5), frames(9.5, first=6))
        (raised,) = node.fill(frames(12, first=2))
        assert (raised.alarm.linked, levels(node.engine)) == (None, set())
        act = Act(ActKind.CLOSE, raised.alarm_id, "wang", 9, "pump", "stopped")
        with pytest.raises(ActRefusedError, match="still stands"):
            node.engine.act(NOW_MS, act)
        node.fork.finish()
        (closed,) = node.engine.act(NOW_MS, act)
        assert closed.alarm.state is State.CLOSED

    def test_a_closed_one_is_not_returned_by_the_run(self) -> None:
        node = Node(frames(5), [])
        node.fill(frames(12, first=2))
        node.fork.finish()
        assert node.fork.samples(batch(frames(12, 12, first=3))) == []


class TestStored:
    def test_a_restored_run_goes_on_as_if_nothing_had_been(self) -> None:
        hole = frames(12, 5, 12, 12, first=3)
        whole = Node(frames(5, 5), frames(12, first=8))
        expected = whole.fill(hole)
        for stop in range(len(hole)):
            node = Node(frames(5, 5), frames(12, first=8))
            told = node.fork.samples(batch(hole[:stop])) if stop else []
            engine_dump, fork_dump = node.engine.dump(), node.fork.dump()
            engine = AlarmEngine.restore(node.engine.limits, engine_dump)
            fork = HistoryFork.restore(engine, fork_dump)
            assert (engine.dump(), fork.dump()) == (engine_dump, fork_dump)
            assert told + fork.samples(batch(hole[stop:] + node.after)) == expected
            assert engine.dump() == whole.engine.dump()

    def test_a_restored_run_still_holds_its_alarm(self) -> None:
        node = Node(frames(5), [])
        (raised,) = node.fill(frames(12, first=2))
        engine = AlarmEngine.restore(node.engine.limits, node.engine.dump())
        fork = HistoryFork.restore(engine, node.fork.dump())
        with pytest.raises(ActRefusedError, match="still stands"):
            engine.act(NOW_MS, Act(ActKind.CLOSE, raised.alarm_id, "wang", 9, "pump", "stopped"))
        assert words(fork.samples(batch(frames(5, first=3)))) == ["H returned"]

    def test_a_late_alarm_whose_limit_is_gone_can_be_closed_like_the_live_one(self) -> None:
        node = Node(frames(5), frames(12, first=6))
        (raised,) = node.fill(frames(12, first=2))
        engine = AlarmEngine.restore(table(Tag("T2.TEMP")), node.engine.dump())
        for alarm_id in (node.live[0].alarm_id, raised.alarm_id):
            (closed,) = engine.act(NOW_MS, Act(ActKind.CLOSE, alarm_id, "wang", 9, "removed", "limit gone"))
            assert closed.alarm.state is State.CLOSED

    def test_without_its_run_a_late_alarm_waits_for_a_person(self) -> None:
        node = Node(frames(5), [])
        (raised,) = node.fill(frames(12, first=2))
        engine = AlarmEngine.restore(node.engine.limits, node.engine.dump())
        (closed,) = engine.act(NOW_MS, Act(ActKind.CLOSE, raised.alarm_id, "wang", 9, "pump", "stopped"))
        assert closed.alarm.state is State.CLOSED

    def test_under_another_configuration_it_finds_its_tags_by_name(self) -> None:
        node = Node(frames(5), [])
        (raised,) = node.fill(frames(12, first=2))
        engine = AlarmEngine.restore(table(Tag("T0.NEW", (Limit("L", 1),)), H10), node.engine.dump())
        fork = HistoryFork.restore(engine, node.fork.dump())
        (returned,) = fork.samples(batch(frames(5, first=3, tag=1)))
        assert (returned.kind, returned.alarm_id) == ("returned", raised.alarm_id)

    def test_without_any_of_its_tags_it_has_ended(self) -> None:
        node = Node(frames(5), [])
        engine = AlarmEngine.restore(table(Tag("T2.TEMP")), node.engine.dump())
        with pytest.raises(CorruptDumpError, match="no tag of this fork"):
            HistoryFork.restore(engine, node.fork.dump())
        with pytest.raises(CorruptDumpError):
            HistoryFork.restore(node.engine, node.fork.dump()[:-1])

    @pytest.mark.fault("F48")
    def test_a_changed_limit_does_not_return_what_the_run_has_found(self) -> None:
        node = Node(frames(5), [])
        (raised,) = node.fill(frames(12, first=2))
        engine = AlarmEngine.restore(table(Tag("T1.PRESSURE", (Limit("H", 15),))), node.engine.dump())
        fork = HistoryFork.restore(engine, node.fork.dump())
        assert fork.samples(batch(frames(12, 5, first=3))) == []
        assert raised.alarm in engine.alarms()
        assert words(fork.samples(batch(frames(16, 5, first=5)))) == ["H raised", "H returned"]
        fork.finish()
        (closed,) = engine.act(NOW_MS, Act(ActKind.CLOSE, raised.alarm_id, "wang", 9, "limit changed", "none"))
        assert closed.alarm.state is State.CLOSED

    @pytest.mark.fault("F48")
    def test_an_alarm_that_was_closed_is_not_found_again_under_another_limit(self) -> None:
        node = Node(frames(5), frames(12, 5, first=6))
        act = Act(ActKind.CLOSE, node.live[0].alarm_id, "wang", 9, "pump", "stopped")
        node.engine.act(NOW_MS, act)
        engine = AlarmEngine.restore(table(Tag("T1.PRESSURE", (Limit("H", 11),))), node.engine.dump())
        fork = HistoryFork.restore(engine, node.fork.dump())
        assert fork.samples(batch(frames(5, first=2) + node.after)) == []
        assert engine.alarms() == []

    @pytest.mark.fault("F48")
    def test_what_stood_by_the_old_limit_hides_no_excursion_over_the_new_one(self) -> None:
        node = Node(frames(5), frames(12, first=6))
        engine = AlarmEngine.restore(table(Tag("T1.PRESSURE", (Limit("H", 15),))), node.engine.dump())
        fork = HistoryFork.restore(engine, node.fork.dump())
        assert words(fork.samples(batch(frames(16, 5, first=7)))) == ["H raised", "H returned"]


TWO = [Tag("T1.A", (Limit("H", 10), Limit("HH", 20))), Tag("T2.B", (Limit("L", 2, off_ms=1500),), fault_ms=1500)]
VALUES = st.sampled_from([(0.0, GOOD), (5.0, GOOD), (9.5, GOOD), (12.0, GOOD), (25.0, GOOD), (-50.0, RANGE),
                          (math.nan, COMM)])


@pytest.mark.fault("F25")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), VALUES), min_size=3, max_size=30), st.data())
def test_live_and_late_together_tell_every_step_of_the_whole_stream_once(
        story: list[tuple[int, tuple[float, int]]], data: st.DataObject) -> None:
    """Against an engine that got every frame in order: no raise missing, none twice, the present untouched."""
    sent = [Sent(tag, value, code, at * 1000, 7, at) for at, (tag, (value, code)) in enumerate(story, 1)]
    start = data.draw(st.integers(0, len(sent) - 1))
    end = data.draw(st.integers(start + 1, len(sent)))
    before, hole, after = sent[:start], sent[start:end], sent[end:]

    node = Node(before, after, *TWO)
    current, tags = levels(node.engine), node.engine.tag_states()
    late = node.fill(hole)
    whole = AlarmEngine(table(*TWO), NOW_MS)
    told = whole.samples(NOW_MS, batch(sent))

    assert levels(node.engine) == current
    assert node.engine.tag_states().value.tolist() == pytest.approx(tags.value.tolist(), nan_ok=True)
    ids = [made.id for made in node.live + late]
    assert len(set(ids)) == len(ids)
    assert all(made.late for made in late)
    inside = {made.id for made in told if start < made.at_ms // 1000 <= end and made.kind == "raised"}
    assert inside <= set(ids), "a raise inside the hole was not found"
    # Past the hole the run is inside the same excursions as the whole engine: what it tells is true.
    assert {made.id for made in late if made.kind == "raised"} <= {made.id for made in told}
    assert {made.id for made in late} <= {made.id for made in told}


@pytest.mark.fault("F25")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([5.0, 9.5, 12.0, 25.0])), min_size=4, max_size=30), st.data())
def test_one_run_over_hole_after_hole_finds_every_raise_that_was_in_one(
        story: list[tuple[bool, float]], data: st.DataObject) -> None:
    """The run catches up in the middle and goes on, as it does while a delay runs or no session is open."""
    sent = [Sent(0, value, GOOD, at * 1000, 7, at) for at, (_, value) in enumerate(story, 1)]
    cut = data.draw(st.integers(1, len(sent)))
    node = Node([], [], TWO[0])
    told = []
    for part in (sent[:cut], sent[cut:]):
        told += node.samples([one for one in part if story[one.sequence - 1][0]])
        told += node.fork.samples(batch(part)) if part else []
    raised = {made.id for made in told if made.kind == "raised"}
    whole = AlarmEngine(table(TWO[0]), NOW_MS).samples(NOW_MS, batch(sent))
    hidden = [made for made in whole if made.kind == "raised" and not story[made.at_ms // 1000 - 1][0]]
    assert {made.id for made in hidden} <= raised
    assert len({made.id for made in told}) == len(told)


@pytest.mark.fault("F25")
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([5.0, 9.5, 12.0, 25.0])), min_size=4, max_size=30),
       st.lists(st.integers(1, 30), max_size=4, unique=True))
def test_run_after_run_finds_every_raise_that_was_in_a_hole(story: list[tuple[bool, float]], cuts: list[int]) -> None:
    """A run that has caught up ends unless it waits; the next one begins with the present, and that is enough."""
    sent = [Sent(0, value, GOOD, at * 1000, 7, at) for at, (_, value) in enumerate(story, 1)]
    node = Node([], [], TWO[0])
    told: list[Transition] = []
    for low, high in pairwise([0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]):
        part = sent[low:high]
        told += node.samples([one for one in part if story[one.sequence - 1][0]])
        told += node.fork.samples(batch(part))
        if not node.fork.waits(7):
            node.fork.finish()
            node.fork = node.engine.fork([0])
    whole = AlarmEngine(table(TWO[0]), NOW_MS).samples(NOW_MS, batch(sent))
    hidden = [made for made in whole if made.kind == "raised" and not story[made.at_ms // 1000 - 1][0]]
    assert {made.id for made in hidden} <= {made.id for made in told if made.kind == "raised"}
    assert len({made.id for made in told}) == len(told)
    assert not node.engine.book.detached, "something that stands is left for a person to end"
