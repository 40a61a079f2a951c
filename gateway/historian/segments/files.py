"""Samples and rollups as Parquet files, through DuckDB: any tool reads them.

A day's samples lie sorted by tag, then source time, so that one tag's day is one or two row groups. Of equal steps
(times, numbers of frames) next to nothing is stored: DELTA_BINARY_PACKED; values are a dictionary where an instrument
counts in steps, else BYTE_STREAM_SPLIT. NaN is never written: a value that is not there is NULL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.durable import aside, make_folder, publish, step, sync_file
from gateway.historian.segments.folder import file_sha256
from gateway.historian.segments.manifest import DayFile
from gateway.historian.segments.names import DAY_MAX, TEMPORARY, Stem, day_of, rollup_path, samples_path
from gateway.historian.windows import ROLLUP_COLUMNS, Rollups, rolled_up

MEMORY: Final = "256MB"
ROW_GROUP: Final = 122_880  # rows of rollups
TAGS_A_GROUP: Final = 3  # fewer cost bytes, more cost every question about one tag
GROUP_MIN, GROUP_MAX, GROUP_STEP = 16_384, 262_144, 2_048  # rows
SMALL_ROW_GROUP: Final = 32_768  # of seals, which are merged tag by tag
SMALL_ROWS: Final = 4_000_000
LATE_DAYS: Final = 25  # a day further back than this from when it was received goes with that day; under the 30 that room may ask for
DAYS_MAX: Final = 64  # files of one seal; days beyond the fullest ones share a last file

_FORMAT: Final = "FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd, ROW_GROUP_SIZE "
_SAMPLES_SQL: Final = (
    "SELECT list_extract($names, tag + 1) AS tag, source_ms, CASE WHEN isnan(value) THEN NULL ELSE value END AS value, code,"
    " CASE WHEN isnan(raw) THEN NULL ELSE raw END AS raw, late, stream, sequence FROM rows"
)
_ROLLUP_FLOATS: Final = ("first", "last", "min", "max")
_ROLLUP_SMALL: Final = ("good", "uncertain", "bad", "late")


def connect(folder: Path, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that works on the historian's folder: one thread, bounded, nothing loaded from outside."""
    temporary = folder / TEMPORARY
    temporary.mkdir(parents=True, exist_ok=True)
    db = duckdb.connect(":memory:", config={
        "threads": 1, "memory_limit": memory, "temp_directory": str(temporary), "max_temp_directory_size": "8GB",
        "autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "enable_external_file_cache": "false",
        "preserve_insertion_order": "true",
    })  # fmt: skip
    db.execute("SET enable_progress_bar = false").fetchall()  # it would go to our standard output
    return db


def by_day(samples: Samples) -> list[tuple[str, Samples]]:
    """Split sorted samples by the file they belong to: their UTC day.

    The fullest `DAYS_MAX` days have a file each; stamps of any more (a device whose clock is lost) share one under the
    last day there is, so that no frame can make files without end. Readers go by a file's times, not by its day.
    """
    day, place, counts = np.unique(samples.source_ms // DAY_MS, return_inverse=True, return_counts=True)
    own = np.sort(np.argsort(-counts, kind="stable")[:DAYS_MAX])
    parts: dict[str, list[int]] = {}
    for at in range(len(day)):
        parts.setdefault(day_of(int(day[at]) * DAY_MS) if len(day) <= DAYS_MAX or at in own else DAY_MAX, []).append(at)
    if len(parts) == 1:
        return [(next(iter(parts)), samples)]
    return [(name, samples.take(np.flatnonzero(np.isin(place, at)))) for name, at in parts.items()]


def leaves(day: str, received_ms: int) -> str:
    """Return the day that retention removes a file with; see `DayFile`."""
    near = day_of(received_ms - LATE_DAYS * DAY_MS) <= day <= day_of(received_ms + DAY_MS)
    return day if near else day_of(received_ms)


def write_day(
    db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, day: str, samples: Samples, received_ms: int
) -> DayFile:
    """Write a day's two files, sorted samples in; both have their names when this returns.

    Raises:
        OSError, duckdb.Error: the disk would not; nothing of it counts, and what was written is left aside.
    """
    written, rollups = _written(db, folder, stem, day, samples)
    span = int(samples.source_ms.min()), int(samples.source_ms.max())
    return finish_day(
        folder, stem, day, (written, rollups), len(samples), samples.digest(), span, leaves(day, received_ms)
    )


def write_again(db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, file: DayFile, samples: Samples) -> bool:
    """Write a day's two files anew, which gives them their names only if they are byte for byte what they were."""
    if (len(samples), samples.digest()) != (file.rows, file.digest):
        return False
    written = _written(db, folder, stem, file.day, samples)
    if tuple(map(file_sha256, written)) != (file.sha256, file.rollup_sha256):
        return False
    for path, target in zip(written, (samples_path(folder, stem, file.day), rollup_path(folder, stem, file.day)), strict=True):
        sync_file(path)
        publish(path, target)
    return True


def _written(db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, day: str, samples: Samples) -> tuple[Path, Path]:
    written = aside(_ready(samples_path(folder, stem, day))), aside(_ready(rollup_path(folder, stem, day)))
    write_samples(db, written[0], samples)
    write_rollups(db, written[1], rolled_up(samples))
    return written


def finish_day(
    folder: Path, stem: Stem, day: str, written: tuple[Path, Path], rows: int, digest: int, span: tuple[int, int], leaves_with: str
) -> DayFile:
    """Sync two files that were written aside, take their checksums and give them their names."""
    for path in written:
        sync_file(path)
    (size, sha256), (rollup_size, rollup_sha256) = ((path.stat().st_size, file_sha256(path)) for path in written)
    publish(written[0], samples_path(folder, stem, day))
    publish(written[1], rollup_path(folder, stem, day))
    return DayFile(day, rows, digest, size, sha256, rollup_size, rollup_sha256, *span, leaves_with)


def write_samples(db: duckdb.DuckDBPyConnection, path: Path, samples: Samples) -> None:
    """Write sorted samples."""
    columns = {name: getattr(samples, name) for name in ("tag", "source_ms", "value", "code", "raw", "late", "stream", "sequence")}
    large = len(samples) > SMALL_ROWS
    layout = for_tags(len(samples) // max(1, int(np.count_nonzero(np.bincount(samples.tag))))) if large else str(SMALL_ROW_GROUP)
    _copy(db, path, _SAMPLES_SQL, columns, samples.names, layout)


def write_rollups(db: duckdb.DuckDBPyConnection, path: Path, rollups: Rollups) -> None:
    """Write rollups: NULL for a value that is not there, counts as UINTEGER."""
    picked = []
    for name in ROLLUP_COLUMNS[1:]:
        if name in _ROLLUP_FLOATS:
            picked.append(f'CASE WHEN isnan("{name}") THEN NULL ELSE "{name}" END AS "{name}"')
        else:
            picked.append(f'"{name}"::UINTEGER AS "{name}"' if name in _ROLLUP_SMALL else f'"{name}"')
    sql = f"SELECT list_extract($names, tag + 1) AS tag, {', '.join(picked)} FROM rows"  # noqa: S608 - our own column names
    _copy(db, path, sql, {name: getattr(rollups, name) for name in ROLLUP_COLUMNS}, rollups.names, str(ROW_GROUP))


def for_tags(rows_a_tag: int) -> str:
    """Return how samples that stay are cut and coded, when a tag has so many of them.

    A column is a dictionary where a row group has fewer different values than a tag has samples: an instrument's counts
    do, times and numbers of frames do not, and these are smaller as steps. Figures: `make bench ID=B10`.
    """
    group = min(GROUP_MAX, max(GROUP_MIN, -(-TAGS_A_GROUP * rows_a_tag // GROUP_STEP) * GROUP_STEP))
    return f"{group}, DICTIONARY_SIZE_LIMIT {max(GROUP_STEP, rows_a_tag * 9 // 10)}, COMPRESSION_LEVEL 9"


def copy_files(db: duckdb.DuckDBPyConnection, parts: Sequence[Path], path: Path, layout: str = str(ROW_GROUP)) -> None:
    """Put Parquet files end to end into one, in the order given; `layout` is of `for_tags`."""
    with step(f"write {path.name}"):
        db.execute(
            f"COPY (SELECT * FROM read_parquet($parts, hive_partitioning = false)) TO $path ({_FORMAT}{layout})",  # noqa: S608 - our own constants
            {"parts": [str(part) for part in parts], "path": str(path)},
        ).fetchall()


def _copy(
    db: duckdb.DuckDBPyConnection, path: Path, sql: str, columns: Mapping[str, NDArray[Any]], names: Sequence[str], layout: str
) -> None:
    db.register("rows", dict(columns))
    try:
        with step(f"write {path.name}"):
            db.execute(f"COPY ({sql}) TO $path ({_FORMAT}{layout})", {"names": list(names), "path": str(path)}).fetchall()
    finally:
        db.unregister("rows")


def _ready(path: Path) -> Path:
    make_folder(path.parent)
    return path
