"""Evidence: before a day goes, the samples around every alarm of that day are put aside, to be kept for longer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import duckdb
import numpy as np

from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.durable import aside, make_folder, publish, sync_file
from gateway.historian.segments.files import copy_files, write_samples
from gateway.historian.segments.folder import UNREADABLE, LiveFile, check_file
from gateway.historian.segments.log import AlarmSpan
from gateway.historian.segments.merge import PIECE_ROWS, once, samples_from
from gateway.historian.segments.names import EVIDENCE, TEMPORARY, is_day
from gateway.historian.segments.seal import sorted_samples


def evidence_path(folder: Path, day: str) -> Path:
    """Where the evidence of the files that left with a day is."""
    if not is_day(day):
        raise ValueError(f"{day[:40]!r} is not a day written as YYYY-MM-DD")
    return folder / EVIDENCE / f"{day}.parquet"


def evidence_days(folder: Path) -> list[str]:
    """Return the days that evidence is kept of, oldest first."""
    try:
        names = [path.name for path in (folder / EVIDENCE).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet") and is_day(name[:-8]))


def spans_of(alarms: Iterable[AlarmSpan], margin_ms: int, now_ms: int) -> dict[str, list[tuple[int, int]]]:
    """Return by tag the stretches that are evidence, [from, to], joined where they touch; alarms come in order of starts."""
    found: dict[str, list[tuple[int, int]]] = {}
    for alarm in alarms:
        lo, hi = alarm.from_ms - margin_ms, (now_ms if alarm.to_ms is None else alarm.to_ms) + margin_ms
        mine = found.setdefault(alarm.tag, [])
        if mine and lo <= mine[-1][1]:
            mine[-1] = (mine[-1][0], max(mine[-1][1], hi))
        else:
            mine.append((lo, hi))
    return found


def set_aside(
    db: duckdb.DuckDBPyConnection, folder: Path, day: str, lives: Sequence[LiveFile], spans: dict[str, list[tuple[int, int]]],
    told: Collection[str] = (),
) -> int:  # fmt: skip
    """Copy what is evidence out of the files that leave with a day; returns the rows. Doing it again makes the same.

    A file whose bytes have changed is left out: nothing better will come of waiting. One that the disk does not give is
    waited for, until it is among those `told` as damaged.

    Raises:
        OSError, duckdb.Error: it is not known to be written; the day must not go.
    """
    target = evidence_path(folder, day)
    make_folder(target.parent)
    kept = _tags_of(db, target) if target.exists() else []
    parts: list[Path] = []
    gathered: list[Samples] = []
    rows = 0
    try:
        for tag in sorted({*kept, *spans}):
            found = [_rows_of(db, target, tag, None)] if tag in kept else []
            for live in lives:
                near = [(lo, hi) for lo, hi in spans.get(tag, ()) if lo <= live.file.to_ms and hi >= live.file.from_ms]
                if near:
                    try:
                        found.append(_rows_of(db, live.samples(folder), tag, near))
                    except duckdb.Error:
                        if not _changed(folder, live, told):
                            raise
            gathered.append(once(sorted_samples(concatenated(found)))[0])
            rows += len(gathered[-1])
            if sum(map(len, gathered)) >= PIECE_ROWS:
                parts.append(_part(db, folder, target, gathered))
                gathered = []
        if rows:
            parts.append(_part(db, folder, target, gathered))
            written = aside(target)
            copy_files(db, parts, written)
            sync_file(written)
            publish(written, target)
    finally:
        for path in parts:
            path.unlink(missing_ok=True)
    return rows


def _changed(folder: Path, live: LiveFile, told: Collection[str]) -> bool:
    """Whether a file is not what was written, or was found so before and still cannot be read."""
    try:
        problem = check_file(folder, live)
    except FileNotFoundError:
        return str(live.samples(folder).relative_to(folder)) in told
    return problem is not None and (not problem.why.startswith(UNREADABLE) or problem.file in told)


def _part(db: duckdb.DuckDBPyConnection, folder: Path, target: Path, gathered: Sequence[Samples]) -> Path:
    path = aside(folder / TEMPORARY / f"part-{target.name}")
    write_samples(db, path, sorted_samples(concatenated(gathered)))
    return path


def _tags_of(db: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    sql = "SELECT DISTINCT tag FROM read_parquet($path, hive_partitioning = false)"
    return [tag for (tag,) in db.execute(sql, {"path": str(path)}).fetchall()]


def _rows_of(
    db: duckdb.DuckDBPyConnection, path: Path, tag: str, near: Sequence[tuple[int, int]] | None
) -> Samples:
    """Return a tag's samples in some stretches, or all of them."""
    bounds = near if near is not None else [(-(1 << 63), (1 << 63) - 1)]
    found = db.execute(
        "SELECT source_ms, value, code, raw, late, stream, sequence FROM read_parquet($path, hive_partitioning = false)"
        " WHERE tag = $tag AND source_ms BETWEEN $lo AND $hi",
        {"path": str(path), "tag": tag, "lo": min(lo for lo, _ in bounds), "hi": max(hi for _, hi in bounds)},
    ).fetchnumpy()
    samples = samples_from((tag,), np.zeros(len(found["source_ms"]), np.int32), found)
    inside = np.zeros(len(samples), np.bool_)
    for lo, hi in bounds:
        inside |= (samples.source_ms >= lo) & (samples.source_ms <= hi)
    return samples.take(inside)
