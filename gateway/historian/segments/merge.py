"""Several files of one day become one, in bounded memory: tags after tags, in pieces that fit.

What was read is compared with what was written by reading it back, row for row by checksum, before anything counts.
Rows that are the same in every column but `late` are one sample and are kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples
from gateway.historian.segments.durable import aside, step
from gateway.historian.segments.files import copy_files, for_tags, write_rollups, write_samples
from gateway.historian.segments.manifest import combined
from gateway.historian.segments.names import TEMPORARY
from gateway.historian.segments.seal import sorted_samples
from gateway.historian.windows import ROLLUP_MS, rolled_up

PIECE_ROWS: Final = 1_000_000
_READ: Final = (
    "SELECT enum_code(tag::merged_tags) AS tag, source_ms, value, code, raw, late, stream, sequence"
    " FROM read_parquet($paths, hive_partitioning = false) WHERE tag BETWEEN $first AND $last AND source_ms BETWEEN $from_ms AND $to_ms"
)
_MS_MIN: Final = -(1 << 63)
_MS_MAX: Final = (1 << 63) - 1


class MergeError(Exception):
    """What was read back is not what was to be written: a fault of disk or program. Nothing of it counts."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Two files written aside, and what is in them."""

    samples: Path
    rollups: Path
    rows: int
    digest: int
    dropped_rows: int
    dropped_digest: int
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tags from `first` to `last`, source times from `from_ms` to `to_ms`, all included."""

    first: str
    last: str
    from_ms: int = _MS_MIN
    to_ms: int = _MS_MAX


def merge(
    db: duckdb.DuckDBPyConnection, folder: Path, sources: Sequence[Path], targets: tuple[Path, Path],
    stopped: Callable[[], bool] = lambda: False, piece_rows: int = PIECE_ROWS,
) -> Merged | None:  # fmt: skip
    """Merge sample files into one, and make its rollups, both aside of `targets`; None if it was stopped.

    Raises:
        MergeError, OSError, duckdb.Error: nothing counts; the sources are untouched.
    """
    paths = [str(path) for path in sources]
    counts = db.execute(
        "SELECT tag, count(*) FROM read_parquet($paths, hive_partitioning = false) GROUP BY tag ORDER BY tag", {"paths": paths}
    ).fetchall()
    _name_tags(db, [tag for tag, _ in counts])
    made: tuple[list[Path], list[Path]] = ([], [])
    rows = digest = dropped_rows = dropped_digest = 0
    low, high = _MS_MAX, _MS_MIN
    names = tuple(tag for tag, _ in counts)
    try:
        for piece in _pieces(db, paths, counts, piece_rows):
            if stopped():
                return None
            found = _read(db, paths, piece, names)
            samples, doubles = once(sorted_samples(found))
            if len(samples) + len(doubles) != len(found) or combined([samples.digest(), doubles.digest()]) != found.digest():
                raise MergeError(f"{targets[0].name}: sorting changed the samples of {piece.first}; a fault of this program")
            if not len(samples):
                raise MergeError(f"{targets[0].name}: {piece.first} was there and is not any more; check the disk")
            for parts in made:
                parts.append(aside(folder / TEMPORARY / f"part-{targets[0].name}"))
            write_samples(db, made[0][-1], samples)
            write_rollups(db, made[1][-1], rolled_up(samples))
            rows, digest = rows + len(samples), combined([digest, samples.digest()])
            dropped_rows, dropped_digest = dropped_rows + len(doubles), combined([dropped_digest, doubles.digest()])
            low, high = min(low, int(samples.source_ms.min())), max(high, int(samples.source_ms.max()))
        written = aside(targets[0]), aside(targets[1])
        copy_files(db, made[0], written[0], for_tags(sorted(count for _, count in counts)[len(counts) // 2]))
        copy_files(db, made[1], written[1])
    finally:
        with step("remove parts"):
            for path in (*made[0], *made[1]):
                path.unlink(missing_ok=True)
    kept = read_back(db, written[0], names, _pieces(db, [str(written[0])], counts, piece_rows))
    if kept != (rows, digest):
        raise MergeError(f"{targets[0].name}: read back {kept[0]} rows and another checksum than the {rows} written; check the disk")
    return Merged(*written, rows, digest, dropped_rows, dropped_digest, (low, high))


def once(samples: Samples) -> tuple[Samples, Samples]:
    """Split sorted samples into each once, and the copies."""
    same = np.zeros(len(samples), np.bool_)
    same[1:] = True
    for column in (samples.tag, samples.source_ms, samples.stream, samples.sequence, samples.code):
        same[1:] &= column[1:] == column[:-1]
    for value in (samples.value, samples.raw):
        same[1:] &= (value[1:] == value[:-1]) | (np.isnan(value[1:]) & np.isnan(value[:-1]))
    return (samples.take(~same), samples.take(same)) if same.any() else (samples, samples.take(slice(0, 0)))


def read_back(
    db: duckdb.DuckDBPyConnection, path: Path, names: tuple[str, ...], pieces: Iterator[_Piece]
) -> tuple[int, int]:
    """Return the rows of a file and their digest."""
    rows = digest = 0
    for piece in pieces:
        found = _read(db, [str(path)], piece, names)
        rows, digest = rows + len(found), combined([digest, found.digest()])
    total = db.execute("SELECT sum(num_rows) FROM parquet_file_metadata($path)", {"path": str(path)}).fetchall()
    return (rows, digest) if int(total[0][0] or 0) == rows else (-1, 0)


def _name_tags(db: duckdb.DuckDBPyConnection, tags: Sequence[str]) -> None:
    db.execute("DROP TYPE IF EXISTS merged_tags").fetchall()
    db.execute("CREATE TYPE merged_tags AS ENUM (SELECT unnest($tags::VARCHAR[]))", {"tags": list(tags)}).fetchall()


def _pieces(
    db: duckdb.DuckDBPyConnection, paths: Sequence[str], counts: Sequence[tuple[str, int]], piece_rows: int
) -> Iterator[_Piece]:
    """Yield pieces in order of tag and time, each of about so many rows at most."""
    first, last, rows = "", "", 0
    for tag, count in counts:
        if rows and rows + count > piece_rows:
            yield _Piece(first, last)
            rows = 0
        if count > piece_rows:
            yield from _stretches(db, paths, tag, count, piece_rows)
            continue
        first, last, rows = first if rows else tag, tag, rows + count
    if rows:
        yield _Piece(first, last)


def _stretches(
    db: duckdb.DuckDBPyConnection, paths: Sequence[str], tag: str, count: int, piece_rows: int
) -> Iterator[_Piece]:
    """Cut one tag's many samples by time, at the edges of rollups' windows."""
    windows = db.execute(
        "SELECT source_ms // $width AS w, count(*) FROM read_parquet($paths, hive_partitioning = false)"
        " WHERE tag = $tag GROUP BY w ORDER BY w",
        {"width": ROLLUP_MS, "paths": list(paths), "tag": tag},
    ).fetchnumpy()
    begins, sizes = windows["w"].astype(np.int64), windows["count_star()"].astype(np.int64)
    lo, rows = _MS_MIN, 0
    for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
        if rows and rows + size > piece_rows:
            yield _Piece(tag, tag, lo, begin * ROLLUP_MS - 1)
            lo, rows = begin * ROLLUP_MS, 0
        rows += size
    yield _Piece(tag, tag, lo)


def _read(db: duckdb.DuckDBPyConnection, paths: Sequence[str], piece: _Piece, names: tuple[str, ...]) -> Samples:
    found = db.execute(_READ, {
        "paths": list(paths), "first": piece.first, "last": piece.last, "from_ms": piece.from_ms, "to_ms": piece.to_ms,
    }).fetchnumpy()  # fmt: skip
    return samples_from(names, found["tag"], found)


def samples_from(names: tuple[str, ...], tag: NDArray[Any], found: dict[str, Any]) -> Samples:
    """Return what DuckDB fetched as samples; NULL becomes NaN."""
    value, raw = (np.ma.filled(np.ma.asarray(found[name]).astype(np.float64), np.nan) for name in ("value", "raw"))
    return Samples(
        names, tag.astype(np.int32), found["source_ms"].astype(np.int64), value, found["code"].astype(np.uint8), raw,
        found["late"].astype(np.bool_), found["stream"].astype(np.int64), found["sequence"].astype(np.int64),
    )  # fmt: skip
