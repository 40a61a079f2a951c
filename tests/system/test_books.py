"""What core says of its own silences is right only where its log shows one."""

from __future__ import annotations

import pytest

from tests.system.books import AWAY, STALLED, rightly_told
from tests.system.oracle import Entry, Step

T_MS = 1_795_000_000_000
RESTARTED = {"restarted": True, "seconds": 7.0}


def log_of(*rows: tuple[float, str], told: tuple[str, float, dict[str, object]]) -> list[Entry]:
    """Rows of (second, kind), and the condition (key, second, facts) in its place."""
    key, told_s, facts = told
    entries = [Entry(0, kind, 0, T_MS + round(at_s * 1000), "", "", (), {}) for at_s, kind in rows]
    condition = Entry(0, "S", 0, T_MS + round(told_s * 1000), "", "", (), {"key": key, "facts": facts})
    return sorted([*entries, condition], key=lambda entry: entry.at_ms)


def noted_at(second: float) -> dict[str, object]:
    return {**RESTARTED, "at_ms": T_MS + round(second * 1000)}


@pytest.mark.parametrize(
    ("rows", "told", "right"),
    [
        pytest.param([(0, "F"), (4, "F")], (STALLED, 4, {}), True, id="a stall"),
        pytest.param([(0, "F"), (4, "F"), (6, "F"), (8, "F")], (STALLED, 8, {}), True, id="a stall told 4 s later"),
        pytest.param([(0, "F"), (4, "F"), *((n, "F") for n in range(5, 30))], (STALLED, 29, {}), False, id="long after a stall"),
        pytest.param([(0, "F"), (2, "F")], (STALLED, 2, {}), False, id="no stall"),
        pytest.param([(0, "F"), (12, "W")], (STALLED, 12, {}), False, id="a downtime is no stall"),
        pytest.param([(0, "F"), (12, "W"), (16, "F")], (STALLED, 16, {}), True, id="a stall after a start"),
        pytest.param([(0, "F"), (12, "W")], (STALLED, 12, noted_at(7.5)), True, id="a stall that ended the core before"),
        pytest.param([(0, "F"), (12, "W")], (STALLED, 12, noted_at(3)), False, id="one longer than the silence"),
        pytest.param([(0, "F"), (12, "W")], (STALLED, 12, RESTARTED), False, id="one of an unknown time"),
        pytest.param([(0, "F"), (8, "F")], (STALLED, 8, noted_at(7.5)), False, id="one without a start"),
        pytest.param([(0, "F"), (12, "W")], (AWAY, 12, {}), True, id="a downtime"),
        pytest.param([(0, "F"), (9, "W")], (AWAY, 9, {}), False, id="one too short to tell"),
        pytest.param([(0, "F"), (12, "F")], (AWAY, 12, {}), False, id="a stall is no downtime"),
        pytest.param([(0, "F"), (12, "W"), *((n, "F") for n in range(13, 30))], (AWAY, 29, {}), False, id="long after a downtime"),
    ],
)
def test_a_silence_is_rightly_told_where_the_log_has_it(
    rows: list[tuple[float, str]], told: tuple[str, float, dict[str, object]], right: bool
) -> None:
    step = Step(told[0], "SYSTEM", "raised", T_MS + round(told[1] * 1000))
    assert rightly_told(log_of(*rows, told=told), [step]) == ({told[0]} if right else set())


def test_one_wrong_alarm_is_not_excused_by_a_right_one() -> None:
    rows = [(0, "F"), (4, "F"), *((float(n), "F") for n in range(5, 30))]
    log = log_of(*rows, told=(STALLED, 4, {})) + log_of(told=(STALLED, 29, {}))
    right, wrong = (Step(STALLED, "SYSTEM", "raised", T_MS + 1000 * second) for second in (4, 29))
    assert rightly_told(log, [right]) == {STALLED}
    assert rightly_told(log, [right, wrong]) == set()
