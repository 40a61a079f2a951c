"""B2's verdict beside a store that is away and catches up, from made-up measurements, and the history it catches up with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.b2_alarm_latency import Measured
from benchmarks.b2_with_outage import ROWS_PER_S, Pair, judge
from benchmarks.b2_with_serve import PAIRS
from benchmarks.harness import BenchmarkError
from benchmarks.stored_history import DAY_MS, FRAME_TAGS, write_history
from gateway.core.entries import unpack_columns
from gateway.core.reader import LedgerReader


def pair(
    without_ms: float = 3.0, away_ms: float = 3.0, behind_ms: float = 3.2, sent_per_s: float = ROWS_PER_S, behind: bool = True
) -> Pair:
    return Pair(
        Measured(ours=[without_ms] * 20), Measured(ours=[away_ms] * 9 + [behind_ms]), Measured(ours=[behind_ms] * 10),
        sent_per_s, behind, 30.0, 20.0,
    )  # fmt: skip


def missed(pairs: list[Pair], gaps: int = 0) -> set[str]:
    return {name for name, held in judge(pairs, 20, gaps).held.items() if not held}


def test_an_outage_that_reaches_no_alarm_holds() -> None:
    found = judge([pair()] * PAIRS, 20, 0)
    assert found.holds
    assert found.ratios == {"with_to_without_p50": 1.067}
    assert found.figures["sent_rows_per_s"] == [ROWS_PER_S] * PAIRS
    assert "store catching up" in found.text()


@pytest.mark.parametrize(
    ("pairs", "gaps", "what"),
    [
        pytest.param([pair(behind_ms=3.4)] * 5, 0, {"with_to_without_p50"}, id="every pair slower by a seventh"),
        pytest.param([pair(behind_ms=9.0)] * 2 + [pair()] * 3, 0, set(), id="two bad pairs of five are the machine's"),
        pytest.param([pair(60.0, 60.0, 61.0)] * 5, 0, {"p99_ms"}, id="over 60 ms"),
        pytest.param([pair()] * 5, 1, {"steps_without_webhook"}, id="a gap in the sequence"),
        pytest.param([pair()] * 4 + [pair(sent_per_s=0.7 * ROWS_PER_S)], 0, {"catching_up"}, id="a store that was hardly fed"),
        pytest.param([pair()] * 4 + [pair(behind=False)], 0, {"catching_up"}, id="a store that had caught up before the end"),
    ],
)
def test_each_part_of_the_goal_is_judged_by_itself(pairs: list[Pair], gaps: int, what: set[str]) -> None:
    assert missed(pairs, gaps) == what


def test_a_lost_step_is_a_miss_whichever_half_it_was_in() -> None:
    for half in ("without", "away", "behind"):
        pairs = [pair() for _ in range(PAIRS)]
        getattr(pairs[2], half).lost.append("S000001.PRESSURE raised no webhook within 15 s")
        assert missed(pairs) == {"steps_without_webhook"}


def test_a_half_without_a_webhook_is_no_measurement() -> None:
    empty = pair()
    empty.behind.ours.clear()
    with pytest.raises(BenchmarkError, match="half"):
        judge([empty], 20, 0)


def test_a_ledger_begins_with_a_day_of_history_that_nobody_evaluates(tmp_path: Path) -> None:
    tags = [f"S{number:06}.PRESSURE" for number in range(3 * FRAME_TAGS)]
    until_ms = 1_790_000_000_000
    written = write_history(tmp_path / "core" / "ledger.sqlite3", "SYNTHETIC", tags, 1_000, until_ms)
    reader = LedgerReader.open(tmp_path / "core" / "ledger.sqlite3")
    try:
        rows = reader.rows("SELECT pos, kind, samples, received_ms, body FROM log ORDER BY pos")
    finally:
        reader.close()
    assert written == sum(row[2] for row in rows) >= 1_000
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert {row[1] for row in rows} == {"H"}
    times = np.concatenate([unpack_columns(row[4]).source_ms for row in rows])
    assert until_ms - DAY_MS <= times.min() < times.max() < until_ms
