"""What may go from the ledger, what is told of its size, and from where on nothing is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.reader import LedgerReader
from gateway.core.retention import DAY_MS, decide
from tests.gateway.bench import LEDGER_NAME, Bench

NOW_MS, CAP, SNAPSHOT_POS = 100 * DAY_MS, 1_000, 7
DAYS = NOW_MS - 30 * DAY_MS


@pytest.mark.parametrize(("used", "wal", "before_ms", "half_full", "full", "over_full"), [
    pytest.param(500, 0, DAYS, False, False, False, id="half"),
    pytest.param(501, 0, NOW_MS + 1, True, False, False, id="over half: earliest first"),
    pytest.param(400, 101, DAYS, True, False, False, id="over half with the write-ahead log: told, nothing more"),
    pytest.param(400, 5_000, DAYS, True, False, False, id="a write-ahead log of any size refuses nothing"),
    pytest.param(1_000, 0, NOW_MS + 1, True, True, False, id="at the cap"),
    pytest.param(1_050, 0, NOW_MS + 1, True, True, True, id="over the cap"),
])  # fmt: skip
def test_the_write_ahead_log_counts_towards_the_alarm_and_not_towards_refusing(
    used: int, wal: int, before_ms: int, half_full: bool, full: bool, over_full: bool
) -> None:
    decision = decide(used, wal, CAP, SNAPSHOT_POS, NOW_MS, 30)
    assert decision.prune_before == (SNAPSHOT_POS, before_ms)
    assert (decision.half_full, decision.full, decision.over_full) == (half_full, full, over_full)


def test_without_two_snapshots_nothing_may_go() -> None:
    assert decide(5_000, 0, CAP, 0, NOW_MS, 30).prune_before is None


def test_a_reader_tells_the_size_of_the_write_ahead_log_beside_its_ledger(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "core")
    bench.loop.cycle()
    bench.writer.commit(bench.loop)
    beside = LedgerReader.open(bench.folder / LEDGER_NAME)
    assert beside.wal_bytes() == (bench.folder / f"{LEDGER_NAME}-wal").stat().st_size > 0
    beside.close()
    bench.close()
    closed = LedgerReader.open(bench.folder / LEDGER_NAME)
    (bench.folder / f"{LEDGER_NAME}-wal").unlink(missing_ok=True)
    assert closed.wal_bytes() == 0
    closed.close()
