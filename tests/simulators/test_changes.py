"""A change is a crossing of a limit as a reader sees it; noise on the setpoint is one change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from simulators.changes import Change, ChangeWatch, UnreadChanges
from simulators.field import LimitSpec
from simulators.registers import Place

HIGH = LimitSpec("A.B", "H", high_side=True, setpoint=10.0, deadband=1.0, on_delay_s=0.0)
LOW = LimitSpec("A.B", "L", high_side=False, setpoint=10.0, deadband=1.0, on_delay_s=0.0)


def crossings(limit: LimitSpec, values: list[float]) -> list[tuple[int, bool]]:
    watch = ChangeWatch([limit], [0])
    return [(i, change.over) for i, value in enumerate(values) for change, _ in watch.take(np.array([value]), float(i))]


@pytest.mark.parametrize(
    ("limit", "values", "expected"),
    [
        pytest.param(HIGH, [9.9, 10.0], [(1, True)], id="on the setpoint is over it"),
        pytest.param(HIGH, [10.0, 9.5, 10.0, 9.0, 8.9], [(0, True), (4, False)], id="the deadband swallows noise"),
        pytest.param(LOW, [10.1, 10.0, 11.0, 11.1], [(1, True), (3, False)], id="the low side mirrors it"),
        pytest.param(HIGH, [10.0, math.nan, 10.0, 8.0], [(0, True), (3, False)], id="NaN changes nothing"),
        pytest.param(HIGH, [math.nan, math.nan], [], id="NaN alone is no change"),
        pytest.param(HIGH, [math.inf, 0.0], [(0, True), (1, False)], id="infinity is over"),
    ],
)
def test_crossings(limit: LimitSpec, values: list[float], expected: list[tuple[int, bool]]) -> None:
    assert crossings(limit, values) == expected


def test_with_an_on_delay_a_dip_below_the_setpoint_is_a_change_too() -> None:
    watch = ChangeWatch([replace(HIGH, on_delay_s=5.0)], [0])
    told = []
    for value in (10.0, 9.5, 9.4, math.nan, 10.1, 8.0, 9.5):
        told += [(c.over, c.holds, c.threshold) for c, _ in watch.take(np.array([value]), 0.0)]
    assert told == [(True, True, 10.0), (True, False, 10.0), (True, True, 10.0), (False, False, 9.0)]


def test_a_dip_is_seen_by_whoever_reads_a_value_below_the_setpoint() -> None:
    watch = ChangeWatch([replace(LOW, on_delay_s=5.0)], [0])
    watch.take(np.array([9.0]), 0.0)
    ((dip, _),) = watch.take(np.array([10.5]), 0.0)
    assert [dip.shown_by(value) for value in (9.0, 10.0, 10.1, 12.0)] == [False, False, True, True]


PLACE = Place("S", 1, "holding", 10, 2)


def change(number: int, over: bool) -> Change:
    return Change(
        number,
        "A.B",
        "H",
        over=over,
        holds=over,
        value=0.0,
        at_ms=0.0,
        on_delay_s=0.0,
        high_side=True,
        threshold=10.0 if over else 9.0,
    )


def test_a_change_is_read_once_by_the_first_read_that_touches_it() -> None:
    unread, shown = UnreadChanges(), np.array([10.5])
    raised = change(1, over=True)
    unread.add(PLACE, 0, raised)
    assert unread.served("S", 1, "holding", 0, 10, shown) == []
    assert unread.served("S", 2, "holding", 10, 2, shown) == []
    assert unread.served("S", 1, "holding", 11, 5, shown) == [raised]
    assert unread.served("S", 1, "holding", 10, 2, shown) == []


def test_a_read_that_finds_the_value_back_in_the_deadband_does_not_carry_the_change() -> None:
    unread = UnreadChanges()
    raised, cleared = change(1, over=True), change(2, over=False)
    assert unread.add(PLACE, 0, raised) is None
    assert unread.served("S", 1, "holding", 10, 2, np.array([9.5])) == []
    assert unread.add(PLACE, 0, cleared) is raised
    assert unread.served("S", 1, "holding", 10, 2, np.array([8.9])) == [cleared]


def test_the_threshold_is_what_the_reader_compares_with() -> None:
    ((first, _),) = ChangeWatch([LOW], [0]).take(np.array([9.0]), 0.0)
    assert (first.threshold, first.shown_by(10.0), first.shown_by(10.1)) == (10.0, True, False)
