"""Rollups made anew from samples that are whole: what is kept of windows follows from them, and needs no ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb
import numpy as np

from gateway.historian.segments.durable import aside, make_folder, publish, sync_file
from gateway.historian.segments.files import write_rollups
from gateway.historian.segments.folder import LiveFile, file_sha256
from gateway.historian.segments.merge import merge, samples_from
from gateway.historian.segments.names import TEMPORARY
from gateway.historian.windows import rolled_up

ROWS_AT_ONCE: Final = 2_000_000  # more than a seal or a part of a load has


def rollup_anew(db: duckdb.DuckDBPyConnection, folder: Path, live: LiveFile) -> bool:
    """Make a damaged rollup anew, if its samples are whole and it comes out byte for byte as it was; returns whether it did.

    Raises:
        MergeError, OSError, duckdb.Error: it did not work out; nothing has changed.
    """
    samples, rollup = live.samples(folder), live.rollup(folder)
    if _is(rollup, live.file.rollup_bytes, live.file.rollup_sha256) or not _is(samples, live.file.bytes, live.file.sha256):
        return False
    make_folder(rollup.parent)
    tries = (_as_sealed, _as_packed) if live.file.rows <= ROWS_AT_ONCE else (_as_packed,)
    return any(_published(tried(db, folder, samples, rollup), rollup, live.file.rollup_sha256) for tried in tries)


def _as_sealed(db: duckdb.DuckDBPyConnection, _folder: Path, samples: Path, rollup: Path) -> Path:
    """Write the rollup of samples at once, as a seal or a part of a load does."""
    found = db.execute(
        "SELECT tag, source_ms, value, code, raw, late, stream, sequence FROM read_parquet($path, hive_partitioning = false)",
        {"path": str(samples)},
    ).fetchnumpy()
    names, tag = np.unique(np.asarray(found["tag"], object).astype(str), return_inverse=True)
    written = aside(rollup)
    write_rollups(db, written, rolled_up(samples_from(tuple(names.tolist()), tag, found)))
    return written


def _as_packed(db: duckdb.DuckDBPyConnection, folder: Path, samples: Path, rollup: Path) -> Path:
    """Write it piece by piece, as a pack does; the samples that come with it are there already."""
    merged = merge(db, folder, [samples], (folder / TEMPORARY / f"part-{samples.name}", rollup))
    if merged is None:
        raise RuntimeError("nobody stops it")
    merged.samples.unlink()
    return merged.rollups


def _published(written: Path, rollup: Path, sha256: str) -> bool:
    if file_sha256(written) != sha256:
        written.unlink()
        return False
    sync_file(written)
    publish(written, rollup)
    return True


def _is(path: Path, size: int, sha256: str) -> bool:
    try:
        return path.stat().st_size == size and file_sha256(path) == sha256
    except FileNotFoundError:
        return False
