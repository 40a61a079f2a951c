"""Samples out of the segment folder, each once, and out of the evidence of days that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.limits import too_many
from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.board import Board
from gateway.historian.segments.evidence import evidence_days, evidence_path
from gateway.historian.segments.folder import LiveFile, Snapshot
from gateway.historian.segments.missing import Missing, within
from gateway.historian.segments.moments import each_once, order_in_moments, same_names, together
from gateway.historian.segments.names import EVIDENCE, SAMPLES, day_ms
from gateway.historian.segments.query import ParquetReader, Spans, UnreadableError, by_halves
from gateway.historian.segments.reading_files import FilesReader
from gateway.historian.windows import ROLLUP_MS

SPANS_S: Final = 5.0  # for when evidence is, read once


class SamplesReader(FilesReader):
    """Reads the samples of one historian folder. Any thread may ask."""

    def __init__(self, folder: Path, parquet: ParquetReader, board: Board | None = None) -> None:
        """See `FilesReader`."""
        super().__init__(folder, parquet, board)
        self._aside: tuple[int, dict[str, tuple[int, int]]] = (0, {})

    def samples(
        self, taken: Snapshot, tag: str, from_ms: int, to_ms: int, rows_max: int, give_up_at: float
    ) -> tuple[Samples, list[Missing]]:
        """Return one tag's samples of [from_ms, to_ms), each once, in order: of one moment what was late stands first.

        Raises:
            MovedError, QueryTooLargeError, QueryTimeError.
        """
        def ask(paths: Sequence[Path]) -> tuple[Samples, NDArray[np.int64]]:
            return self._parquet.samples(paths, tag, from_ms, to_ms, rows_max, give_up_at)

        return self._samples(taken, (tag,), [(0, from_ms, to_ms)], rows_max, ask)

    def samples_of(
        self, taken: Snapshot, names: tuple[str, ...], spans: Spans, rows_max: int, give_up_at: float, *, evidence: bool = True
    ) -> tuple[Samples, list[Missing]]:
        """Return the samples of many tags, each of its own spans, which do not overlap; in order of `names`, then time."""
        def ask(paths: Sequence[Path]) -> tuple[Samples, NDArray[np.int64]]:
            return self._parquet.samples_of(paths, names, spans, rows_max, give_up_at)

        return self._samples(taken, names, spans, rows_max, ask, evidence=evidence)

    def samples_in_windows(
        self, taken: Snapshot, names: tuple[str, ...], windows: Sequence[tuple[int, int]], within: tuple[int, int],
        rows_max: int, give_up_at: float,
    ) -> tuple[Samples, list[Missing]]:  # fmt: skip
        """Return the samples of many windows of 5 min, (index in `names`, beginning) each, cut to [from, to)."""
        spans = [(tag, max(start, within[0]), min(start + ROLLUP_MS, within[1])) for tag, start in windows]

        def ask(paths: Sequence[Path]) -> tuple[Samples, NDArray[np.int64]]:
            return self._parquet.samples_in_windows(paths, names, windows, ROLLUP_MS, within, rows_max, give_up_at)

        return self._samples(taken, names, spans, rows_max, ask)

    def _samples(
        self, taken: Snapshot, names: tuple[str, ...], spans: Spans, rows_max: int,
        ask: Callable[[Sequence[Path]], tuple[Samples, NDArray[np.int64]]], *, evidence: bool = True,
    ) -> tuple[Samples, list[Missing]]:  # fmt: skip
        if not any(lo < hi for _, lo, hi in spans):
            return Samples.empty(names), []
        lo_ms, hi_ms = min(lo for _, lo, _ in spans), max(hi for _, _, hi in spans)
        missing = self._manifests_missing(taken, lo_ms, hi_ms)
        files = self._sound(self._files(taken, spans), "samples", names, missing)
        place = {id(file): at for at, file in enumerate(files)}

        def ranked(some: Sequence[LiveFile]) -> tuple[Samples, NDArray[np.int64]]:
            found, index = ask(self._paths(some, SAMPLES))
            return found, np.array([place[id(file)] for file in some], np.int64)[index]

        parts = by_halves(files, ranked, lambda file, error: self._unreadable(file, "samples", error, missing))
        found = same_names(names, [each for each, _ in parts])
        if len(found) > rows_max:
            raise too_many(rows_max)
        order = order_in_moments(found)
        found = found if order is None else found.take(order)
        # A copy has the time of what it copies, so they stand together now.
        if len(files) > 1 and ((np.diff(found.source_ms) == 0) & (np.diff(found.tag) == 0)).any():
            rank = np.concatenate([each for _, each in parts])
            loaded = np.array([file.stem.kind == "load" for file in files])
            found = found.take(each_once(found, rank if order is None else rank[order], loaded))
        if evidence and (aside := self._evidence(taken, lo_ms, hi_ms)):
            parts = by_halves(
                aside, lambda some: ask(self._evidence_paths(some)),
                lambda day, error: missing.append(self._evidence_missing(day, error)),
            )
            found = same_names(names, [found, *(each for each, _ in parts)])
        return together([found]), within(missing, lo_ms, hi_ms)

    def _evidence(self, taken: Snapshot, from_ms: int, to_ms: int) -> list[str]:
        """Return the days that are gone but for samples around alarms, and have such samples in [from, to)."""
        if not taken.kept_from:
            return []
        return [day for day, (lo, hi) in self._evidence_spans().items() if lo < to_ms and hi >= from_ms and day < taken.kept_from]

    def _evidence_spans(self) -> dict[str, tuple[int, int]]:
        """Return by the day it left with, of when evidence is: what came late is older than its day, a lost clock's is not."""
        try:
            mark = (self.folder / EVIDENCE).stat().st_mtime_ns
        except OSError:
            return {}
        with self._lock:
            if self._aside[0] == mark:
                return self._aside[1]
        unread: list[str] = []
        days = evidence_days(self.folder)
        told = by_halves(
            days, lambda some: list(zip(
                some, self._parquet.spans(self._evidence_paths(some), time.monotonic() + SPANS_S), strict=True
            )),
            lambda day, _: unread.append(day),
        )  # fmt: skip
        spans = {day: span for part in told for day, span in part} | {day: (day_ms(day), day_ms(day) + DAY_MS - 1) for day in unread}
        with self._lock:
            self._aside = (0 if unread else mark, spans)
        return spans

    def _evidence_paths(self, days: Sequence[str]) -> list[Path]:
        return [evidence_path(self.folder, day) for day in days]

    def _evidence_missing(self, day: str, error: UnreadableError) -> Missing:
        """Of when its samples were is known what was read of it before; else it is the day it left with."""
        with self._lock:
            lo, hi = self._aside[1].get(day, (day_ms(day), day_ms(day) + DAY_MS - 1))
        return Missing(lo, hi + 1, f"{EVIDENCE}/{day}.parquet", str(error))
