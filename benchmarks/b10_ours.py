"""B10's own side: what our segments weigh, by kind of data, and our embedded store asked as serve asks it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from benchmarks.b10_plant import DEVICES, is_counts
from gateway.historian.segments.names import MANIFESTS, ROLLUPS, SAMPLES
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import ROWS_MAX

DEADLINE_S: Final = 60.0
FIRST_FLOAT: Final = f"D{next(n for n in range(DEVICES) if not is_counts(n)):02}"
_GROUPS: Final = (
    "SELECT any_value(row_group_num_rows), sum(total_compressed_size), min(stats_min_value) FILTER (path_in_schema = 'tag'),"
    " max(stats_max_value) FILTER (path_in_schema = 'tag') FROM parquet_metadata($path) GROUP BY row_group_id ORDER BY row_group_id"
)


@dataclass(frozen=True, slots=True)
class Size:
    """What the samples of one kind weigh, in bytes: their files', their rollups' and their share of the manifests'."""

    rows: int
    samples: float
    rollups: float
    manifests: float

    @property
    def a_sample(self) -> float:
        """Bytes a sample, all in."""
        return (self.samples + self.rollups + self.manifests) / self.rows


def sizes(folder: Path) -> dict[str, Size]:
    """Weigh a historian's folder by kind of data: `counts` and `float32`.

    Row groups belong to the kind of their tags; one that holds both, and a file's own head and foot, are shared by rows.
    """
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "512MB"}) as db:
        samples, rollups = (_by_kind(db, sorted((folder / part).glob("*/*.parquet"))) for part in (SAMPLES, ROLLUPS))
    manifests = sum(path.stat().st_size for path in (folder / MANIFESTS).glob("*.json"))
    rows = {kind: found[0] for kind, found in samples.items()}
    return {
        kind: Size(rows[kind], samples[kind][1], rollups[kind][1], manifests * rows[kind] / sum(rows.values())) for kind in rows
    }


def _by_kind(db: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> dict[str, tuple[int, float]]:
    rows, weight = {"counts": 0, "float32": 0}, {"counts": 0.0, "float32": 0.0}
    for path in paths:
        groups = db.execute(_GROUPS, {"path": str(path)}).fetchall()
        ((all_rows, counted),) = db.execute(
            "SELECT count(*), count(*) FILTER (tag < $float) FROM read_parquet($path)", {"float": FIRST_FLOAT, "path": str(path)}
        ).fetchall()
        pure = sum(group[0] for group in groups if group[3] < FIRST_FLOAT)
        around = path.stat().st_size - sum(group[1] for group in groups)
        for group_rows, group_bytes, low, high in groups:
            share = 1.0 if high < FIRST_FLOAT else 0.0 if low >= FIRST_FLOAT else (counted - pure) / group_rows
            weight["counts"] += share * group_bytes
            weight["float32"] += (1.0 - share) * group_bytes
        rows["counts"] += counted
        rows["float32"] += all_rows - counted
        weight["counts"] += around * counted / all_rows
        weight["float32"] += around * (all_rows - counted) / all_rows
    return {kind: (rows[kind], weight[kind]) for kind in rows}

DASHBOARD: Final = ("last", "min", "max", "mean")  # beside counts: what the API's dashboard route tells unless asked for more


class Ours:
    """The embedded store."""

    name = "ours"
    durability = "every file synced before it counts"

    def __init__(self, folder: Path) -> None:
        """Open it."""
        self._store = EmbeddedHistorian(folder)

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """Return how many windows came; many tags are one question."""
        if len(tags) == 1:
            return len(self._store.windows(tags[0], from_ms, to_ms, width_ms, DEADLINE_S))
        found, missing = self._store.windows_of(tags, from_ms, to_ms, width_ms, DEADLINE_S, DASHBOARD)
        assert not missing, missing
        return sum(map(len, found.values()))

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """Return how many samples came; many tags are one question."""
        if len(tags) == 1:
            return len(self._store.range(tags[0], from_ms, to_ms, deadline_s=DEADLINE_S))
        spans, give_up_at = [(at, from_ms, to_ms) for at in range(len(tags))], time.monotonic() + DEADLINE_S
        segments = self._store.segments
        found, missing = segments.of_one_snapshot(
            lambda taken: segments.samples_of(taken, tuple(tags), spans, ROWS_MAX, give_up_at)
        )
        assert not missing, missing
        return len(found)

    def close(self) -> None:
        """Let go of it."""
        self._store.close()


def forget_pages(folder: Path) -> None:
    """Have the kernel forget what it holds of the files below, as after a restart of the machine."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
