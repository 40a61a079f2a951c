"""Looks for damage: missing or cut files at every look, and every byte of a file now and then, all files in turn.

Where a file's bytes have changed, its row groups are read one by one: those that cannot be read are named by their tags
and times. If all can, nobody knows which value is wrong, and the whole file is named.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb

from gateway.historian.segments.folder import LiveFile, Problem, Snapshot, check_file
from gateway.historian.segments.spill import open_database

log = logging.getLogger(__name__)

EVERY_MS: Final = 600_000  # one file in so long; 400 days of one gateway are through in a week or two
AGAIN_MS: Final = 60_000  # those found damaged: somebody may have restored them
AGAIN_MAX: Final = 8
NEW_MAX: Final = 64  # files just sealed, at one look
PROBLEMS_MAX: Final = 100


class Scrub:
    """Remembers where it stands and what it found. For one thread."""

    def __init__(self, folder: Path, located: Callable[[Path, LiveFile, Problem], Problem] | None = None) -> None:
        self._folder, self._located = folder, located or locate
        self._found: dict[str, Problem] = {}
        self._sizes: dict[str, Problem] = {}  # found anew at every look: a disk that was away is back at once
        self._seen: set[str] = set()
        self._checked: set[str] = set()
        self._after: tuple[str, str] = ("", "")
        self._next_ms = self._again_ms = 0

    def problems(self) -> list[Problem]:
        """Return what is damaged, as far as was looked."""
        return list({**self._found, **self._sizes}.values())[:PROBLEMS_MAX]

    def told(self) -> set[str]:
        """Return the files that are damaged: all of them, also where they are too many to be told."""
        return {*self._found, *self._sizes}

    def add(self, problem: Problem) -> None:
        """Note what others found."""
        self._found.setdefault(problem.file, problem)

    def damaged(self, taken: Snapshot) -> list[LiveFile]:
        """Return the files that are damaged, or whose rollups are."""
        owners = {self._owner_of(name) for name in (*self._found, *self._sizes)}
        return [live for live in taken.files() if self._name(live) in owners]

    def mended(self, live: LiveFile) -> None:
        """Look at a file again that was made anew."""
        for path in (live.samples(self._folder), live.rollup(self._folder)):
            for known in (self._found, self._sizes):
                known.pop(str(path.relative_to(self._folder)), None)
        self._check(live)

    def has_seen(self, file: str) -> bool:
        """Whether a file was looked at after it had been found damaged."""
        return file in self._seen

    def look(self, taken: Snapshot, now_ms: int) -> None:
        """Look at the sizes of all files, and at every byte of the next one if it is time."""
        lives = {self._name(live): live for live in taken.files()}
        self._found = {name: problem for name, problem in self._found.items() if self._owner_of(name) in lives}
        self._sizes = {}
        for live in lives.values():
            for path, size in ((live.samples(self._folder), live.file.bytes), (live.rollup(self._folder), live.file.rollup_bytes)):
                why = _size_wrong(path, size)
                if why:
                    file = str(path.relative_to(self._folder))
                    self._sizes[file] = Problem(file, live.file.day, live.file.from_ms, live.file.to_ms, why)
        if abs(now_ms - self._again_ms) >= AGAIN_MS and self._found:
            self._again_ms = now_ms
            for name in list(self._found)[:AGAIN_MAX]:
                self._found.pop(name)
                self._seen.add(name)
                self._check(lives[self._owner_of(name)])
        away = {self._owner_of(name) for name in self._sizes}
        new = [name for name, live in lives.items() if live.stem.kind == "seal" and name not in self._checked | away]
        for name in new[:NEW_MAX]:  # as long as the ledger can still make them again
            self._check(lives[name])
        self._checked = {name for name in self._checked if name in lives} | set(new[:NEW_MAX])
        if abs(now_ms - self._next_ms) >= EVERY_MS and lives:
            self._next_ms = now_ms
            keys = sorted((live.file.day, name) for name, live in lives.items())
            if not self._after[0]:  # where the process before ended nobody knows: so each begins somewhere else
                self._after = keys[now_ms // EVERY_MS % len(keys) - 1]
            self._after = next((key for key in keys if key > self._after), keys[0])
            self._check(lives[self._after[1]])

    def _check(self, live: LiveFile) -> None:
        """Read every byte of a day's two files."""
        try:
            problem = check_file(self._folder, live)
        except FileNotFoundError as error:
            name = str(Path(str(error.filename)).relative_to(self._folder))
            problem = Problem(name, live.file.day, live.file.from_ms, live.file.to_ms, "a manifest names it, and it is not there")
        if problem is not None:
            self._found[problem.file] = self._located(self._folder, live, problem)
            self._seen.add(problem.file)

    def _name(self, live: LiveFile) -> str:
        return str(live.samples(self._folder).relative_to(self._folder))

    @staticmethod
    def _owner_of(name: str) -> str:
        """Return the name of the samples that belong to a file: its own, or that of rollups' samples."""
        return "samples/" + name.split("/", 1)[1] if "/" in name else name


def locate(folder: Path, live: LiveFile, problem: Problem) -> Problem:
    """Return the problem with the tags and times of the row groups that cannot be read, if not all can."""
    path = folder / problem.file
    if path != live.samples(folder):
        return problem
    try:
        with contextlib.closing(open_database(folder)) as db:
            bad = _unreadable_groups(db, path)
    except Exception as error:  # not even its end, which says where the groups are, and rubbish there raises anything
        log.info("historian: where %s is damaged cannot be told (%s)", problem.file, type(error).__name__)
        return problem
    if not bad:
        return problem
    times = [time for _, _, low, high in bad for time in (low, high)]
    tags = (min(first for first, _, _, _ in bad), max(last for _, last, _, _ in bad))
    return Problem(problem.file, problem.day, min(times), max(times), problem.why, tags)


def _unreadable_groups(db: duckdb.DuckDBPyConnection, path: Path) -> list[tuple[str, str, int, int]]:
    """Return first and last tag, first and last time of every row group that does not decode."""
    rows: list[tuple[Any, ...]] = db.execute(
        "SELECT row_group_id, path_in_schema, stats_min_value, stats_max_value, row_group_num_rows FROM parquet_metadata($path)"
        " WHERE path_in_schema IN ('tag', 'source_ms') ORDER BY row_group_id, path_in_schema",
        {"path": str(path)},
    ).fetchall()
    bad, begin = [], 0
    for (_, _, low, high, count), (_, _, first, last, _) in zip(rows[::2], rows[1::2], strict=True):
        try:
            db.execute(
                "SELECT sum(hash(tag, source_ms, value, code, raw, late, stream, sequence) % 1024)"
                " FROM read_parquet($path, hive_partitioning = false, file_row_number = true)"
                " WHERE file_row_number >= $begin AND file_row_number < $end",
                {"path": str(path), "begin": begin, "end": begin + count},
            ).fetchall()
        except duckdb.Error:
            bad.append((str(first), str(last), int(low), int(high)))
        begin += count
    return bad


def _size_wrong(path: Path, size: int) -> str:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "a manifest names it, and it is not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if found == size else f"{found} bytes, {size} were written"
