"""The files themselves: how small they are, what any tool reads in them, and that core need not load a database to look."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.durable import hook_steps
from gateway.historian.segments.evidence import spans_of
from gateway.historian.segments.files import DAYS_MAX, by_day, connect, leaves
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.load import part_of, write_part
from gateway.historian.segments.log import AlarmSpan
from gateway.historian.segments.names import DAY_MAX, Stem
from gateway.historian.segments.seal import seal, sorted_samples
from tests.historian.reference import Row, samples_of
from tests.historian.segments.journal import T0_MS, rows_in


@pytest.fixture
def db(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    made = connect(tmp_path)
    yield made
    made.close()


def plant(tags: int, *, counts: bool) -> Samples:
    """A day at 1 Hz: 12-bit counts scaled, or float32, both slow and with noise."""
    dice = np.random.default_rng(4)
    n = 86_400
    walk = 2000 + 300 * np.sin(np.arange(n) / 86_400 * 2 * np.pi)[None, :] + np.cumsum(dice.normal(0, 0.05, (tags, n)), axis=1)
    if counts:
        value = np.clip(np.round(walk + dice.normal(0, 0.8, (tags, n))), 0, 4095) * (25 / 4095)
    else:
        value = (walk / 40 + dice.normal(0, 0.05, (tags, n))).astype(np.float32).astype(np.float64)
    rows = tags * n
    return Samples(
        tuple(f"T{at:03d}.PRESSURE" for at in range(tags)), np.repeat(np.arange(tags, dtype=np.int32), n),
        np.tile(T0_MS + np.arange(n) * 1000, tags) + np.repeat(dice.integers(0, 900, tags), n), value.ravel(),
        np.full(rows, 192, np.uint8),
        np.full(rows, np.nan), np.zeros(rows, np.bool_), np.full(rows, 1 << 60, np.int64), np.tile(np.arange(n, dtype=np.int64), tags),
    )  # fmt: skip


@pytest.mark.parametrize(("counts", "bytes_max"), [(True, 2.5), (False, 3.3)])
def test_a_day_takes_no_more_bytes_a_sample_than_was_promised(
    tmp_path: Path, db: duckdb.DuckDBPyConnection, counts: bool, bytes_max: float
) -> None:
    samples = plant(12, counts=counts)
    made = seal(db, tmp_path, Stem("led", 1, 1, "seal"), "", samples, T0_MS)
    assert made.bytes / len(samples) <= bytes_max
    assert made.digest == samples.digest()


def test_numbers_and_times_that_go_by_steps_cost_next_to_nothing(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    samples = plant(12, counts=True)
    made = seal(db, tmp_path, Stem("led", 1, 1, "seal"), "", samples, T0_MS)
    path = str(tmp_path / "samples" / made.files[0].day / made.stem.data_name)
    sizes = dict(db.execute(
        "SELECT path_in_schema, sum(total_compressed_size) FROM parquet_metadata($1) GROUP BY 1", [path]
    ).fetchall())  # fmt: skip
    assert sum(size for name, size in sizes.items() if name != "value") < 0.05 * len(samples)


def test_days_are_cut_at_midnight_utc() -> None:
    at = [T0_MS - 1, T0_MS, T0_MS + DAY_MS - 1, T0_MS + DAY_MS]
    parts = by_day(sorted_samples(samples_of([Row("T1.X", when, 1.0) for when in at])))
    assert [(day, part.source_ms.tolist()) for day, part in parts] == [
        ("2025-06-15", at[:1]), ("2025-06-16", at[1:3]), ("2025-06-17", at[3:]),
    ]  # fmt: skip


def test_more_days_than_files_share_the_last() -> None:
    rows = [Row("T1.X", at * DAY_MS, 1.0) for at in range(DAYS_MAX + 10)] + [Row("T1.X", 3 * DAY_MS + 5, 1.0)]
    parts = by_day(sorted_samples(samples_of(rows)))
    assert len(parts) == DAYS_MAX + 1
    assert {day for day, _ in parts} >= {"1970-01-04", DAY_MAX}
    assert sum(len(part) for _, part in parts) == len(rows)


@pytest.mark.parametrize(
    ("day", "expected"),
    [("2025-06-16", "2025-06-16"), ("2025-06-17", "2025-06-17"), ("2025-05-22", "2025-05-22"), ("2025-05-21", "2025-06-16"),
     ("1970-01-01", "2025-06-16"), ("2099-01-01", "2025-06-16"), (DAY_MAX, "2025-06-16")],
)  # fmt: skip
def test_a_file_far_from_when_it_was_received_leaves_with_that_day(day: str, expected: str) -> None:
    assert leaves(day, T0_MS + 5) == expected


def test_a_part_of_a_load_is_written_once(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    first = write_part(db, tmp_path, "old", 0, samples_of([Row("T1.X", T0_MS, 1.0)]), T0_MS)
    steps: list[str] = []
    hook_steps(steps.append)
    try:
        again = write_part(db, tmp_path, "old", 0, samples_of([Row("T1.X", T0_MS, 2.0)]), T0_MS)
    finally:
        hook_steps(None)
    assert (again, steps) == (first, [])
    second = write_part(db, tmp_path, "old", 1, samples_of([Row("T1.X", T0_MS, float("nan"))]), T0_MS)
    assert second.prev == first.hash
    assert part_of(tmp_path, "old", 2) is None
    live = list(SegmentFolder(tmp_path).snapshot().files())
    assert [(row[2], row[3]) for row in sorted(rows_in(each.samples(tmp_path) for each in live), key=str)] == [(1.0, 192), (None, 6)]
    with pytest.raises(ValueError, match="cannot name"):
        write_part(db, tmp_path, "../old", 0, Samples.empty(), T0_MS)


def test_spans_of_alarms_that_touch_are_one() -> None:
    alarms = [AlarmSpan("A", 100, 200), AlarmSpan("A", 215, 220), AlarmSpan("A", 300, None), AlarmSpan("B", 1, 2)]
    assert spans_of(alarms, 10) == {"A": [(90, 230), (290, (1 << 62) + 10)], "B": [(-9, 12)]}


def test_who_only_looks_loads_no_database() -> None:
    code = "import sys, gateway.historian.segments.folder; assert 'duckdb' not in sys.modules, 'duckdb was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_no_step_loads_anything_from_outside(db: duckdb.DuckDBPyConnection) -> None:
    names = ("autoinstall_known_extensions", "autoload_known_extensions", "threads")
    found = dict(db.execute("SELECT name, value FROM duckdb_settings() WHERE name IN ($1, $2, $3)", list(names)).fetchall())
    assert found == {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "threads": "1"}
