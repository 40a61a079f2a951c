"""The timeline of a failing seed: marked lines, bounded length, nothing left out in silence, the command to see it again."""

from __future__ import annotations

import re

from simulators.world import Fault, FaultBegan, FaultEnded, FaultKind
from tests.simulation.histories import COMM, History
from tests.simulation.timeline import LINES_MAX, VIOLATIONS_MAX, replay_command, timeline


def failing() -> History:
    history = History()
    fault = Fault(3, FaultKind.LOSS, 1.0, 2.5, "E1", 0.25)
    history.add(FaultBegan(1.0, fault))
    history.shows(20.0)
    alarm = history.raised("a", history.shows(60.0))
    history.returned(alarm, history.shows(20.0, COMM))
    history.add(FaultEnded(3.5, fault))
    return history


def test_it_names_the_seed_the_violation_and_the_command() -> None:
    history = failing()
    text = timeline(history.record, history.violations())
    assert text.startswith("seed 1: 1 violations\n  P2 at 3.000 s: T1.LEVEL H (a) returned")
    assert text.endswith("again: HAZARDGATE_SEEDS=1 make test ARGS=tests/simulation")


def test_it_marks_the_offending_line_and_shows_what_stood_around_it() -> None:
    history = failing()
    lines = timeline(history.record, history.violations()).splitlines()
    (marked,) = [line for line in lines if line.startswith(" P2>")]
    assert "CITY        T1.LEVEL H returned" in marked
    assert any("read D1: T1.LEVEL=BAD/1@" in line for line in lines)
    assert any("FAULT       #3 begins: loss E1 +0.25 for 2.5 s" in line for line in lines)
    assert any("settled: in time" in line for line in lines)


def test_it_is_bounded_and_tells_how_much_it_leaves_out() -> None:
    history = History()
    for number in range(400):
        taken = history.take(history.read(float(number % 40) + 11))
        if number % 3:
            history.commit(taken)
        history.forget(taken)
    violations = history.violations()
    lines = timeline(history.record, violations).splitlines()
    assert len(violations) > VIOLATIONS_MAX
    assert f"  … and {len(violations) - VIOLATIONS_MAX} more" in lines
    events = [line for line in lines if re.match(r"...[> ] +\d+\.\d{3}  ", line)]
    assert len(events) <= LINES_MAX + 2
    left_out = sum(int(found[1]) for line in lines if (found := re.fullmatch(r" +… (\d+) more", line)) and "and" not in line)
    assert left_out + len(events) == len(history.record.events)


def test_the_command_names_the_variable_that_the_tests_read() -> None:
    assert replay_command(17) == "HAZARDGATE_SEEDS=17 make test ARGS=tests/simulation"
