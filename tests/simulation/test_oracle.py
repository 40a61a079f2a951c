"""The oracle on hand-made histories: for each rule one that must pass, and one that must be found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from simulators.world import (
    Acted,
    Committed,
    Fault,
    FaultBegan,
    FaultKind,
    Healed,
    Noticed,
    PartEnded,
    PartStarted,
    Refused,
    Sample,
    Settled,
)
from tests.simulation.histories import COMM, LEVEL, RANGE, SLOW, STREAM, History, tank_site
from tests.simulation.nothing_lost import Loss
from tests.simulation.oracle import Books, check
from tests.simulation.rules import GOOD, Place, excursions


@pytest.fixture
def history() -> History:
    """A calm tank."""
    made = History()
    made.shows(20.0)
    return made


def twins(at_s: float = 0.0) -> FaultBegan:
    return FaultBegan(at_s, Fault(0, FaultKind.TWINS, at_s, 5.0, "E1"))


# -- the whole -------------------------------------------------------------------------------------------------


def test_a_history_in_which_all_is_well_passes(history: History) -> None:
    history.excursion(60.0, 55.0, 20.0)
    history.shows(20.0, COMM)
    history.shows(30.0)
    assert history.violations() == []


def test_a_world_that_does_not_settle_broke_its_promise(history: History) -> None:
    history.settle(in_time=False)
    found = history.violations()
    assert [violation.rule for violation in found] == ["P3"]
    assert "2 notices are due" in found[0].what


@pytest.mark.parametrize(("cause", "broken"), [("killed", []), ("stopped", []), ("KeyError: 7", ["RUN"])])
def test_a_part_ends_only_when_it_is_told_to(history: History, cause: str, broken: list[str]) -> None:
    history.add(PartStarted(1.0, "core", 1))
    history.add(PartEnded(2.0, "core", 1, cause))
    assert history.broken() == broken


# -- P1 --------------------------------------------------------------------------------------------------------


def test_an_edge_forgets_only_what_the_ledger_holds_by_then(history: History) -> None:
    taken = history.take(history.read(21.0))
    history.forget(taken)
    history.commit(taken)
    found = history.violations()
    assert [violation.rule for violation in found] == ["P1"]
    assert found[0].at_s == 2.0
    assert [type(history.record.events[mark]).__name__ for mark in found[0].marks] == ["Forgot", "Taken"]


def test_a_number_up_to_which_all_is_forgotten_covers_every_frame_below(history: History) -> None:
    first, second = history.take(history.read(21.0)), history.take(history.read(22.0))
    history.commit(second)
    history.forget(second)
    history.commit(first)
    assert history.broken() == ["P1"]


def test_what_was_taken_is_in_the_ledger_at_the_end(history: History) -> None:
    history.take(history.read(21.0))
    assert history.broken() == ["P1"]


@pytest.mark.parametrize("other", [(22.0, GOOD), (21.0, RANGE), (math.nan, COMM)])
def test_a_sample_has_its_value_and_quality_in_the_ledger(history: History, other: tuple[float, int]) -> None:
    sample = history.shows(21.0)
    history.frames["E1", STREAM, 2][LEVEL] = (*other, sample.source_ms)
    assert "P1" in history.broken()


def test_beyond_the_range_the_ledger_holds_what_the_gateway_must_make_of_it(history: History) -> None:
    history.raised("h", history.read(120.0))
    taken = history.take(history.read(120.0))
    history.commit(taken)
    history.frames["E1", STREAM, 2][LEVEL] = (100.0, RANGE, taken.samples[0].source_ms)
    assert not [violation for violation in history.violations() if violation.rule == "P1"]


def test_no_number_is_used_twice(history: History) -> None:
    history.shows(21.0)
    history.sequence -= 1
    history.take(history.read(22.0))
    assert "P1" in history.broken()


def test_what_the_ledger_once_held_it_keeps(history: History) -> None:
    history.add(Committed(1.0, 9, "F", "E1", STREAM, 9, 9))
    assert history.broken() == ["P1"]


def test_only_where_two_boxes_share_an_id_may_a_taken_frame_be_declared_lost(history: History) -> None:
    history.shows(21.0)
    history.losses.append(Loss("E1", STREAM, 2, 2, "no longer held by the edge"))
    assert history.broken() == ["P1"]
    history.record.events.insert(0, twins())
    assert check(history.record, Books(history.frames, history.live, history.losses, [], [])) == []


def test_a_loss_of_what_never_was_taken_is_true(history: History) -> None:
    history.losses.append(Loss("E1", STREAM, 7, 8, "no longer held by the edge"))
    assert history.broken() == []


def test_what_only_a_twin_had_may_go_with_it_but_it_too_forgets_nothing_too_soon(history: History) -> None:
    taken = history.take(history.read(21.0), box=1, stream=78)
    assert history.broken() == []
    history.forget(taken)
    assert history.broken() == ["P1"]


# -- P2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(20.0, COMM, id="a BAD reading"),
        pytest.param(20.0, RANGE, id="an UNCERTAIN reading"),
        pytest.param(46.0, GOOD, id="a reading inside the deadband"),
        pytest.param(60.0, GOOD, id="a reading over the setpoint"),
    ],
)
def test_nothing_lowers_a_level_but_a_good_reading_beyond_the_deadband(history: History, value: float, code: int) -> None:
    alarm = history.raised("a", history.shows(60.0))
    history.returned(alarm, history.shows(value, code))
    found = [violation for violation in history.violations() if violation.rule == "P2"]
    assert len(found) == 1
    assert "T1.LEVEL H" in found[0].what


def test_a_reading_from_before_the_excursion_lowers_nothing(history: History) -> None:
    before = history.shows(20.0)
    alarm = history.raised("a", history.shows(60.0))
    history.returned(alarm, before)
    assert history.broken() == ["P2"]


def test_beyond_the_range_is_not_clear_of_the_other_side(history: History) -> None:
    alarm = history.raised("a", history.shows(5.0), limit="L", grade=1)
    reading = history.read(120.0)
    taken = history.take(reading)
    history.commit(taken)
    history.frames["E1", STREAM, 3][LEVEL] = (100.0, RANGE, reading.source_ms)
    history.returned(alarm, reading)
    assert "P2" in history.broken()


def test_a_fault_is_over_with_a_good_reading_only(history: History) -> None:
    fault = history.raised("f", history.shows(20.0, COMM), limit="FAULT", category="fault", value=None)
    history.returned(fault, history.shows(20.0, COMM))
    assert history.broken() == ["P2"]


def test_a_copy_whose_stamp_a_clock_step_moved_is_known_by_its_value(history: History) -> None:
    alarm = history.raised("a", history.shows(60.0))
    end = history.shows(20.5)
    history.returned(alarm, end._replace(source_ms=end.source_ms + 90_000))
    assert history.broken() == []


@pytest.mark.parametrize(("kind", "act"), [("acknowledged", "acknowledge"), ("closed", "close")])
def test_an_alarm_is_acknowledged_and_closed_by_people(history: History, kind: str, act: str) -> None:
    history.excursion(60.0, 20.0)
    alarm = next(event.alarm for event in reversed(history.record.events) if isinstance(event, Noticed))
    told = history.tell(kind, dict(alarm), history.now_ms, revision=3)
    assert history.broken() == ["P2"]
    history.record.events.insert(history.record.events.index(told), Acted(5.0, "li", act, "a", None))
    assert history.broken() == []


def test_a_good_value_that_no_instrument_showed_is_false_calm(history: History) -> None:
    history.frames["E1", STREAM, 9] = {LEVEL: (20.0, GOOD, history.now_ms - 500)}
    assert history.broken() == []  # its value was shown, under another stamp
    history.frames["E1", STREAM, 10] = {LEVEL: (33.0, GOOD, history.now_ms)}
    assert history.broken() == ["P2"]


# -- P3 --------------------------------------------------------------------------------------------------------


def test_every_excursion_is_told_to_everyone_who_wants_it(history: History) -> None:
    history.shows(60.0)
    history.shows(20.0)
    found = history.violations()
    assert [violation.rule for violation in found] == ["P3"]
    assert found[0].what.startswith("CITY never heard that T1.LEVEL was beyond H")


def test_a_receiver_that_wants_a_grade_is_told_though_another_knows(history: History) -> None:
    start = history.shows(90.0)
    end = history.shows(20.0)
    for limit, grade in (("H", 2), ("HH", 4)):
        history.returned(history.raised(limit, start, limit=limit, grade=grade), end)
    found = history.violations()
    assert {violation.rule for violation in found} == {"P3"}
    assert any(violation.what.startswith("PARK never heard") for violation in found)
    assert any("never reached PARK" in violation.what for violation in found)


def test_what_was_answered_but_not_kept_did_not_arrive(history: History) -> None:
    alarm = history.alarm("a", history.shows(60.0))
    history.tell("raised", alarm, alarm["start_ms"], kept=False, status=500)
    history.returned(alarm, history.shows(20.0))
    assert history.broken() == ["P3"]
    number = history.numbers["CITY", "yellow"] - 1
    history.tell("raised", alarm, alarm["start_ms"], sequence=number - 0, notice="a-1-CITY")
    assert history.broken() == []


def test_an_excursion_inside_an_alarm_that_a_hole_did_not_let_return_is_told(history: History) -> None:
    alarm = history.raised("a", history.shows(60.0))
    history.shows(20.0, live=False)  # came with the backlog
    history.shows(70.0)
    history.returned(alarm, history.shows(20.0))
    assert history.broken() == []


def test_a_notice_keeps_its_id_on_every_attempt(history: History) -> None:
    alarm = history.alarm("a", history.shows(60.0))
    first = history.tell("raised", alarm, alarm["start_ms"], status=500)
    history.add(replace(first, status=200))
    history.returned(alarm, history.shows(20.0))
    assert history.broken() == []
    history.add(replace(first, notice="other"))
    assert history.broken() == ["P3"]


@pytest.mark.parametrize("otherwise", [{"revision": 5}, {"late": True}], ids=str)
def test_an_id_never_tells_two_things(history: History, otherwise: dict[str, Any]) -> None:
    history.excursion(60.0, 20.0)
    told = next(history.record.of(Noticed))
    history.add(replace(told, **otherwise))
    assert history.broken() == ["P3"]


def test_a_number_never_names_two_notices(history: History) -> None:
    history.excursion(60.0, 20.0)
    history.numbers["CITY", "yellow"] = 1
    history.excursion(60.0, 20.0, name="b")
    assert history.broken() == ["P3"]


def test_a_lane_has_no_gaps(history: History) -> None:
    history.numbers["CITY", "yellow"] = 3
    history.excursion(60.0, 20.0)
    found = history.violations()
    assert [violation.what for violation in found] == ["CITY, yellow of ledger L: numbers [1, 2, 3] never came"]


def test_a_restored_ledger_counts_from_one_under_its_new_id(history: History) -> None:
    alarm = history.raised("a", history.shows(60.0))
    end = history.shows(20.0)
    after = {**alarm, "returned_ms": end.source_ms, "value": 20.0}
    history.tell("returned", after, end.source_ms, ledger="M", sequence=1)
    assert history.broken() == []


def test_a_raise_has_a_cause_that_an_instrument_showed(history: History) -> None:
    start = history.shows(60.0)
    history.returned(history.raised("a", start), history.shows(20.0))
    wrong = history.raised("b", Sample(LEVEL, 75.0, GOOD, start.source_ms + 10))
    history.returned(wrong, history.shows(20.0))
    found = history.violations()
    assert [violation.rule for violation in found] == ["P3"]
    assert "which no instrument showed" in found[0].what


def test_when_all_is_calm_every_receiver_knows_it(history: History) -> None:
    history.raised("a", history.shows(60.0))
    history.shows(20.0)
    found = history.violations()
    assert [violation.rule for violation in found] == ["P3"]
    assert "CITY still believes that T1.LEVEL H" in found[0].what


def test_where_two_boxes_share_an_id_levels_stand_until_a_person_says_which_is_right(history: History) -> None:
    history.raised("a", history.shows(60.0))
    history.shows(20.0)
    start = Sample("EDGE.E1.IDENTITY", 0.0, GOOD, history.now_ms)
    history.raised("i", start, limit="SYSTEM", category="system", value=None)
    assert history.broken() == []


@pytest.mark.parametrize(("late", "broken"), [(True, []), (False, ["P3"])])
def test_what_came_with_the_backlog_alone_is_told_as_late(history: History, late: bool, broken: list[str]) -> None:
    alarm = history.raised("a", history.shows(60.0, live=False), late=late)
    history.returned(alarm, history.shows(20.0, live=False))
    assert history.broken() == broken


def test_what_is_in_the_journal_reaches_its_receivers_and_nothing_else_does(history: History) -> None:
    history.excursion(60.0, 20.0)
    row = history.journal.pop()
    found = history.violations()
    assert [violation.what for violation in found] == ["CITY got transition a-2, which the journal has not"]
    history.journal += [row, row._replace(id="a-3", revision=3, kind="closed")]
    assert history.broken() == ["P3"]


def test_what_was_told_from_memory_comes_into_the_journal_unless_core_died_first(history: History) -> None:
    fault = history.alarm("f", Sample(LEVEL, 20.0, COMM, history.now_ms), limit="FAULT", category="fault", value=None)
    history.tell("raised", fault, fault["start_ms"], sequence=None)
    assert history.broken() == ["P3"]
    history.add(PartEnded(9.0, "core", 1, "killed"))
    assert history.broken() == []


def test_what_was_told_from_memory_and_then_again_with_a_number_is_one_notice(history: History) -> None:
    alarm = history.alarm("a", history.shows(60.0))
    first = history.tell("raised", alarm, alarm["start_ms"], sequence=None)
    history.numbers.clear()
    history.tell("raised", alarm, alarm["start_ms"], notice=first.notice)
    history.returned(alarm, history.shows(20.0))
    assert history.broken() == []


@pytest.mark.parametrize(("reason", "broken"), [("Message timestamp too old", []), ("No matching signature", ["P3"])])
def test_only_a_stepped_clock_excuses_a_notice_that_cannot_be_believed(
    history: History, reason: str, broken: list[str]
) -> None:
    history.add(Refused(1.0, "CITY", 401, reason))
    assert history.broken() == broken


# -- the plain rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "readings", "spans"),
    [
        pytest.param(LEVEL, [(50.0, GOOD), (44.9, GOOD)], [(0, 1)], id="on the setpoint is over it"),
        pytest.param(LEVEL, [(49.9, GOOD), (20.0, GOOD)], [], id="below the setpoint is not"),
        pytest.param(LEVEL, [(60.0, GOOD), (45.0, GOOD), (44.0, GOOD)], [(0, 2)], id="clear only beyond the deadband"),
        pytest.param(LEVEL, [(60.0, GOOD), (20.0, COMM), (20.0, GOOD)], [(0, 2)], id="BAD lowers nothing"),
        pytest.param(LEVEL, [(60.0, RANGE), (20.0, RANGE), (20.0, GOOD)], [(0, 2)], id="UNCERTAIN raises, never lowers"),
        pytest.param(LEVEL, [(60.0, GOOD), (20.0, GOOD), (60.0, GOOD)], [(0, 1), (2, None)], id="each raise is its own"),
        pytest.param(SLOW, [(60.0, GOOD), (60.0, GOOD), (20.0, GOOD)], [], id="too short for the on-delay"),
        pytest.param(SLOW, [(60.0, GOOD)] * 3 + [(20.0, GOOD)] * 3, [(2, 5)], id="both delays run on source time"),
        pytest.param(SLOW, [(60.0, GOOD), (20.0, COMM), (60.0, GOOD)], [(2, None)], id="BAD does not stop an on-delay"),
        pytest.param(SLOW, [(60.0, GOOD)] * 3 + [(20.0, GOOD), (20.0, COMM), (20.0, GOOD), (20.0, GOOD)], [(2, None)],
                     id="an off-delay needs GOOD without a break"),
    ],
)  # fmt: skip
def test_levels(tag: str, readings: list[tuple[float, int]], spans: list[tuple[int, int | None]]) -> None:
    frames = [
        (Place("E1", STREAM, number + 1), (Sample(tag, math.nan if code < 64 else value, code, number * 1000),))
        for number, (value, code) in enumerate(readings)
    ]
    found = [one for one in excursions(tank_site(), frames) if one.limit == "H"]
    assert [(one.start_ms // 1000, None if one.end_ms is None else one.end_ms // 1000) for one in found] == spans


def test_an_empty_record_breaks_nothing() -> None:
    history = History()
    assert check(history.record, Books()) == []
    history.add(Healed(1.0))
    history.add(Settled(2.0, True, ""))
    assert check(history.record, Books()) == []
