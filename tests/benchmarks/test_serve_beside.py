"""The verdicts on B2 beside a busy serve, and on memory over time, from made-up measurements."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.b2_alarm_latency import Measured
from benchmarks.b2_with_serve import PAIRS, STREAMS, Pair, judge
from tests.soak_memory import flat


def pair(without_ms: float = 3.0, with_ms: float = 3.1, **counts: int) -> Pair:
    """A pair without a fault; `counts` stand in for the load's own, `_` for a space."""
    load: dict[str, Any] = {"query 200": 480, "query 503": 20, "stream 200": STREAMS, "stream events": 900, "query bytes": 10**6}
    load.update({name.replace("_", " "): count for name, count in counts.items()})
    return Pair(
        Measured(ours=[without_ms] * 20), Measured(ours=[with_ms] * 20),
        {"seconds": 10.0, "counts": load, "query_ms": {"p50": 8.0}}, 1.5,
    )  # fmt: skip


def missed(pairs: list[Pair], gaps: int = 0) -> set[str]:
    return {name for name, held in judge(pairs, 20, gaps).held.items() if not held}


def test_a_load_that_reaches_no_alarm_holds() -> None:
    found = judge([pair()] * PAIRS, 20, 0)
    assert found.holds
    assert found.ratios == {"with_to_without_p50": 1.033}
    assert found.figures["queries_per_s"] == 50.0
    assert found.figures["answered_share"] == 0.96


@pytest.mark.parametrize(
    ("pairs", "gaps", "what"),
    [
        pytest.param([pair(with_ms=3.4)] * 5, 0, {"with_to_without_p50"}, id="every pair slower by a seventh"),
        pytest.param([pair(with_ms=9.0)] * 2 + [pair()] * 3, 0, set(), id="two bad pairs of five are the machine's"),
        pytest.param([pair(without_ms=60.0, with_ms=61.0)] * 5, 0, {"p99_ms"}, id="over 60 ms"),
        pytest.param([pair()] * 5, 1, {"steps_without_webhook"}, id="a gap in the sequence"),
        pytest.param([pair(query_500=1)] * 5, 0, {"load"}, id="a query that failed"),
        pytest.param([pair(query_200=200)] * 5, 0, {"load"}, id="a load that was none"),
        pytest.param([pair(stream_200=19)] * 5, 0, {"load"}, id="a stream that did not open"),
    ],
)
def test_each_part_of_the_goal_is_judged_by_itself(pairs: list[Pair], gaps: int, what: set[str]) -> None:
    assert missed(pairs, gaps) == what


@pytest.mark.parametrize(
    ("samples", "holds"),
    [
        pytest.param([100.0] * 50, True, id="level"),
        pytest.param([60.0] * 5 + [100.0] * 45, True, id="the start does not count"),
        pytest.param([100.0 + (at % 7) for at in range(50)], True, id="noise"),
        pytest.param([100.0 + 0.2 * at for at in range(50)], False, id="a leak of 10 % over the run"),
        pytest.param([500.0 + 0.2 * at for at in range(50)], True, id="2 % of a large process"),
    ],
)
def test_flat_is_told_from_a_leak(samples: list[float], holds: bool) -> None:
    assert flat(samples) is holds
