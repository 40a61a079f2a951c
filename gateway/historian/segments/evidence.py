"""Evidence: before a day goes, the samples around every alarm of that day are put aside, to be kept for longer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import duckdb
import numpy as np

from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.durable import aside, make_folder, publish, sync_file
from gateway.historian.segments.files import copy_files, write_samples
from gateway.historian.segments.folder import LiveFile, Problem, file_sha256
from gateway.historian.segments.log import AlarmSpan
from gateway.historian.segments.lost import put_evidence_away
from gateway.historian.segments.merge import PIECE_ROWS, once, samples_from
from gateway.historian.segments.names import EVIDENCE, TEMPORARY, is_day
from gateway.historian.segments.seal import sorted_samples

TIME_MS_MAX: Final = 1 << 62  # beyond every time


class NotGivenError(OSError):
    """The disk does not give files now, and nobody has looked at them again yet; `problems` tells of each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{problems[0].file} {problems[0].why}")


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


def spans_of(alarms: Iterable[AlarmSpan], margin_ms: int) -> dict[str, list[tuple[int, int]]]:
    """Return by tag the stretches that are evidence, [from, to], joined where they touch; alarms come in order of starts.

    One that still stands has no end: not the moment of asking, by a clock that may be behind.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for alarm in alarms:
        lo, hi = alarm.from_ms - margin_ms, (TIME_MS_MAX if alarm.to_ms is None else alarm.to_ms) + margin_ms
        mine = found.setdefault(alarm.tag, [])
        if mine and lo <= mine[-1][1]:
            mine[-1] = (mine[-1][0], max(mine[-1][1], hi))
        else:
            mine.append((lo, hi))
    return found


def set_aside(
    db: duckdb.DuckDBPyConnection, folder: Path, day: str, lives: Sequence[LiveFile], spans: dict[str, list[tuple[int, int]]],
    told: Collection[str] = (),
) -> list[LiveFile]:  # fmt: skip
    """Copy what is evidence out of the files that leave with a day. Doing it again makes the same.

    A file whose bytes have changed is left out, though parts of it may be readable: nobody knows which values are right, and
    evidence has none that may be wrong. One that the disk does not give is waited for, until it is among those `told` as
    damaged. Returns the files that were to give evidence and were left out.

    Raises:
        NotGivenError: tell of its files, so that they are not waited for for ever.
        OSError, duckdb.Error: it is not known to be written; the day must not go.
    """
    target = evidence_path(folder, day)
    make_folder(target.parent)
    kept = _kept(db, folder, target) if target.exists() else []
    asked = [live for live in lives if any(_near(each, live) for each in spans.values())]
    sound: list[LiveFile] = []
    waited: list[Problem] = []
    for live in asked:
        try:
            if not _damaged(folder, live, told):
                sound.append(live)
        except OSError as error:
            file = live.file
            name = str(live.samples(folder).relative_to(folder))
            waited.append(Problem(name, file.day, file.from_ms, file.to_ms, f"cannot be read ({error.strerror})"))
    if waited:
        raise NotGivenError(waited)
    parts: list[Path] = []
    gathered: list[Samples] = []
    rows = 0
    try:
        for tag in sorted({*kept, *spans}):
            found = [_rows_of(db, target, tag, None)] if tag in kept else []
            found += [
                _rows_of(db, live.samples(folder), tag, near) for live in sound if (near := _near(spans.get(tag, ()), live))
            ]
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
    return [live for live in asked if live not in sound]


def _near(spans: Sequence[tuple[int, int]], live: LiveFile) -> list[tuple[int, int]]:
    return [(lo, hi) for lo, hi in spans if lo <= live.file.to_ms and hi >= live.file.from_ms]


def _damaged(folder: Path, live: LiveFile, told: Collection[str]) -> bool:
    """Whether a file is not what was written, or was found so before and still cannot be read.

    Raises:
        OSError: it cannot be read now.
    """
    path = live.samples(folder)
    try:
        return path.stat().st_size != live.file.bytes or file_sha256(path) != live.file.sha256
    except OSError:
        if str(path.relative_to(folder)) in told:
            return True
        raise


def _part(db: duckdb.DuckDBPyConnection, folder: Path, target: Path, gathered: Sequence[Samples]) -> Path:
    path = aside(folder / TEMPORARY / f"part-{target.name}")
    write_samples(db, path, sorted_samples(concatenated(gathered)))
    return path


def _kept(db: duckdb.DuckDBPyConnection, folder: Path, path: Path) -> list[str]:
    """Return the tags of what is there already; if that cannot be read it is put away, so that it holds up no day.

    Raises:
        OSError, duckdb.Error: it cannot be read now.
    """
    sql = (
        "SELECT tag, sum(hash(source_ms, value, code, raw, late, stream, sequence) % 1024)"
        " FROM read_parquet($path, hive_partitioning = false) GROUP BY tag"
    )
    try:
        return [tag for tag, _ in db.execute(sql, {"path": str(path)}).fetchall()]
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, UnicodeDecodeError):
        file_sha256(path)  # whether the disk gives its bytes
        put_evidence_away(folder, path)
        return []


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
