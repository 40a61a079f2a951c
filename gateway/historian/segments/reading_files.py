"""Which files of the segment folder a question needs, and which of them cannot be read.

A question is asked of one snapshot of the folder. A file that cannot be read is left out and named with its stretch of
time; the rest is answered. A file that was packed away meanwhile is `MovedError`: take a new snapshot and ask again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.board import Board
from gateway.historian.segments.folder import LiveFile, Problem, SegmentFolder, Snapshot
from gateway.historian.segments.leftover import unnamed_parts, why_unnamed
from gateway.historian.segments.missing import Missing, within
from gateway.historian.segments.names import SAMPLES, STATUS_NAME, day_ms, day_of, samples_path
from gateway.historian.segments.query import ParquetReader, Spans, UnreadableError

TRIES: Final = 4

T = TypeVar("T")
Part = Literal["samples", "rollups"]


class MovedError(Exception):
    """A file was packed or removed since the snapshot: take a new one."""


class FilesReader:
    """Knows the files of one historian folder. Any thread may ask."""

    def __init__(self, folder: Path, parquet: ParquetReader, board: Board | None = None) -> None:
        """`board`: the keeper's, who is told at once what cannot be read."""
        self.folder, self._board = folder, board or Board()
        self._parquet = parquet
        self._lock = threading.Lock()
        self._segments = SegmentFolder(folder)
        self._told: tuple[tuple[int, int], list[dict[str, Any]]] = ((0, 0), [])

    def taken(self) -> Snapshot:
        """Return the folder as it is now; one that is not there is empty.

        Raises:
            OSError: it cannot be listed.
        """
        with self._lock:
            return self._segments.snapshot()

    def of_one_snapshot(self, ask: Callable[[Snapshot], T]) -> T:
        """Ask of a snapshot, anew while files move.

        Raises:
            MovedError: they did not come to rest.
        """
        for _ in range(TRIES - 1):
            try:
                return ask(self.taken())
            except MovedError:
                continue
        return ask(self.taken())

    def weight(self, taken: Snapshot, from_ms: int, to_ms: int) -> int:
        """Return how many rows the files hold that a question about [from_ms, to_ms) has to open."""
        return sum(file.file.rows for file in self._files(taken, [(0, from_ms, to_ms)]))

    def _files(self, taken: Snapshot, spans: Spans) -> list[LiveFile]:
        """Return the files that may hold samples of these spans, the one sealed first first."""
        ranges = sorted({(lo, hi) for _, lo, hi in spans if lo < hi})
        lows, highs = (np.array([each[at] for each in ranges], np.int64) for at in (0, 1))
        reached = np.maximum.accumulate(highs) if len(highs) else highs
        found = []
        for live in taken.files():
            # Of the ranges that begin before the file ends, the one that reaches furthest.
            at = int(np.searchsorted(lows, live.file.to_ms, "right")) - 1
            if at >= 0 and live.file.rows and int(reached[at]) > live.file.from_ms:
                found.append(live)
        return sorted(found, key=lambda live: (live.sealed_ms, live.stem))

    def _paths(self, files: Sequence[LiveFile], part: str) -> list[Path]:
        return [file.samples(self.folder) if part == SAMPLES else file.rollup(self.folder) for file in files]

    def _sound(
        self, files: Sequence[LiveFile], part: Part, names: Sequence[str] | None, missing: list[Missing]
    ) -> list[LiveFile]:
        """Leave out the files that status.json calls damaged for these tags (None: any tag)."""
        told = self._damaged()
        if not told:
            return list(files)
        sound = []
        for live in files:
            path = str((live.samples(self.folder) if part == "samples" else live.rollup(self.folder)).relative_to(self.folder))
            why = next((each["why"] for each in told if each["file"] == path and _concerns(each.get("tags"), names)), None)
            if why is None:
                sound.append(live)
            else:
                missing.append(Missing(live.file.from_ms, live.file.to_ms + 1, path, str(why)))
        return sound

    def _damaged(self) -> list[dict[str, Any]]:
        try:
            found = (self.folder / STATUS_NAME).stat()
            mark = (found.st_ino, found.st_mtime_ns)
            with self._lock:
                if self._told[0] == mark:
                    return self._told[1]
            loaded = json.loads((self.folder / STATUS_NAME).read_text(encoding="utf-8"))
            damaged = [each for each in loaded["damaged"] if isinstance(each["file"], str) and isinstance(each["why"], str)]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return []  # who has not written it says nothing
        with self._lock:
            self._told = (mark, damaged)
        return damaged

    def _unreadable(self, live: LiveFile, part: Part, error: UnreadableError, missing: list[Missing]) -> None:
        """Note a file that cannot be read.

        Raises:
            MovedError: nobody says any more that it should be there.
        """
        path = live.samples(self.folder) if part == "samples" else live.rollup(self.folder)
        if not path.exists() and not any(
            live.stem == each.stem and live.file.day == each.file.day for each in self.taken().files()
        ):
            raise MovedError(path.name)
        why = str(error) if path.exists() else "a manifest names it, and it is not there"
        name = str(path.relative_to(self.folder))
        missing.append(Missing(live.file.from_ms, live.file.to_ms + 1, name, why))
        self._board.found(Problem(name, live.file.day, live.file.from_ms, live.file.to_ms, why))

    def _manifests_missing(self, taken: Snapshot, from_ms: int, to_ms: int) -> list[Missing]:
        """Return the days of which a manifest that cannot be read, or that a load has lost, has files."""
        if from_ms >= to_ms:
            return []
        lost = [(stem, day, why_unnamed(stem)) for stem, day in unnamed_parts(self.folder, taken, day_of(from_ms), day_of(to_ms - 1))]
        for path in sorted((self.folder / SAMPLES).glob("*/*.parquet")) if taken.unreadable else ():
            lost += [
                (stem, path.parent.name, why) for stem, why in taken.unreadable
                if path == samples_path(self.folder, stem, path.parent.name)
            ]  # fmt: skip
        found = [Missing(day_ms(day), day_ms(day) + DAY_MS, stem.manifest_name, why) for stem, day, why in lost]
        return within(found, from_ms, to_ms)


def _concerns(tags: Any, names: Sequence[str] | None) -> bool:
    """Whether a stretch of tags, both ends included, holds one of the names; what cannot be read concerns all."""
    if not (isinstance(tags, list | tuple) and len(tags) == 2 and all(isinstance(tag, str) for tag in tags)) or not names:
        return True
    return any(tags[0] <= name <= tags[1] for name in names)
