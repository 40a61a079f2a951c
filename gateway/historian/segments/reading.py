"""Samples and rollups out of the segment folder: which files a question needs, what of them is missing, each sample once.

A question is asked of one snapshot of the folder. A file that cannot be read is left out and named with its stretch of
time; the rest is answered. A file that was packed away meanwhile is `MovedError`: take a new snapshot and ask again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.historian.limits import too_many
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.segments.board import Board
from gateway.historian.segments.evidence import evidence_days, evidence_path
from gateway.historian.segments.folder import LiveFile, Problem, SegmentFolder, Snapshot
from gateway.historian.segments.names import EVIDENCE, ROLLUPS, SAMPLES, STATUS_NAME, day_ms, samples_path
from gateway.historian.segments.query import SUMMABLE, ParquetReader, Spans, UnreadableError, by_halves
from gateway.historian.store import ROWS_MAX
from gateway.historian.windows import ROLLUP_COLUMNS, ROLLUP_MS, Rollups, in_time, interleaved, joined, rolled_up

TRIES: Final = 4
ROLLUP_ROWS_MAX: Final = 1_000_000
MISSING_MAX: Final = 100
TIME_MS_MAX: Final = 1 << 62  # beyond every time
SPANS_S: Final = 5.0  # for when evidence is, read once

T = TypeVar("T")
Part = Literal["samples", "rollups"]


@dataclass(frozen=True, slots=True)
class Missing:
    """Samples of [from_ms, to_ms) that are stored and cannot be read: neither a gap nor calm.

    `whole`: the file's stretch, where this is cut to what was asked for.
    """

    from_ms: int
    to_ms: int
    file: str
    why: str
    whole: tuple[int, int] | None = None


class MovedError(Exception):
    """A file was packed or removed since the snapshot: take a new one."""


class SegmentReader:
    """Reads one historian folder. Any thread may ask."""

    def __init__(self, folder: Path, parquet: ParquetReader, board: Board | None = None) -> None:
        """`board`: the keeper's, who is told at once what cannot be read."""
        self.folder, self._board = folder, board or Board()
        self._parquet = parquet
        self._lock = threading.Lock()
        self._segments = SegmentFolder(folder)
        self._aside: tuple[int, dict[str, tuple[int, int]]] = (0, {})
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

    # -- samples --

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
        found = _same_names(names, [each for each, _ in parts])
        if len(found) > rows_max:
            raise too_many(rows_max)
        order = _in_moments(found)
        found = found if order is None else found.take(order)
        # A copy has the time of what it copies, so they stand together now.
        if len(files) > 1 and ((np.diff(found.source_ms) == 0) & (np.diff(found.tag) == 0)).any():
            rank = np.concatenate([each for _, each in parts])
            loaded = np.array([file.stem.kind == "load" for file in files])
            found = found.take(_each_once(found, rank if order is None else rank[order], loaded))
        if evidence and (aside := self._evidence(taken, lo_ms, hi_ms)):
            parts = by_halves(
                aside, lambda some: ask([evidence_path(self.folder, day) for day in some]),
                lambda day, error: missing.append(Missing(day_ms(day), day_ms(day) + DAY_MS, f"{EVIDENCE}/{day}.parquet", str(error))),
            )
            found = _same_names(names, [found, *(each for each, _ in parts)])
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
            days, lambda some: list(zip(some, self._parquet.spans(
                [evidence_path(self.folder, day) for day in some], time.monotonic() + SPANS_S
            ), strict=True)),
            lambda day, _: unread.append(day),
        )  # fmt: skip
        spans = {day: span for part in told for day, span in part} | {day: (day_ms(day), day_ms(day) + DAY_MS - 1) for day in unread}
        with self._lock:
            self._aside = (0 if unread else mark, spans)
        return spans

    # -- rollups --

    def rollups(
        self, taken: Snapshot, names: tuple[str, ...], from_ms: int, to_ms: int, give_up_at: float,
        more: Samples | None = None, columns: Collection[str] = ROLLUP_COLUMNS, width_ms: int = ROLLUP_MS,
    ) -> tuple[Rollups, list[Missing]]:  # fmt: skip
        """Return rows of 5 min of [from_ms, to_ms), exact at both ends; no two of a tag `interleaved`.

        With a longer width (5 min times a whole number, from such a `from_ms` on) there may be rows of such windows instead,
        where nothing asked for is lost by it: the database puts them together, and far fewer are carried here.

        Windows that lie whole in the range come from what is kept of them; the ends, and windows that several files
        hold mixed with each other, from their samples.

        Args:
            more: samples of these names that are not in any file yet; they count as if they were.
            columns: `windows.columns_for`; the others are left out.
        """
        if not SUMMABLE.issuperset(columns):
            width_ms = ROLLUP_MS
        lo_ms, hi_ms = -(-from_ms // ROLLUP_MS) * ROLLUP_MS, to_ms // ROLLUP_MS * ROLLUP_MS
        ends = [(from_ms, lo_ms), (hi_ms, to_ms)] if lo_ms < hi_ms else [(from_ms, to_ms)]
        parts: list[Rollups] = []
        missing: list[Missing] = []
        if lo_ms < hi_ms:
            parts, missing = self._kept(taken, names, lo_ms, hi_ms, columns, width_ms, give_up_at)
        spans = [(at, lo, hi) for lo, hi in ends if lo < hi for at in range(len(names))]
        if spans:
            found, lost = self.samples_of(taken, names, spans, ROWS_MAX, give_up_at)
            parts.append(rolled_up(found))
            missing += lost
        own = _named(more, names, from_ms, to_ms) if more is not None else Samples.empty(names)
        parts.append(rolled_up(own))
        rows = joined(parts)
        order = in_time(rows)
        rows = rows if order is None else rows.take(order)
        mixed = interleaved(rows)
        if mixed.any() and width_ms > ROLLUP_MS:
            rows = self._finer(taken, rows, mixed, own, (from_ms, to_ms), columns, width_ms, give_up_at, missing)
        elif mixed.any():
            rows = self._unmixed(taken, rows, mixed, own, (from_ms, to_ms), give_up_at, missing)
        return rows, missing

    def _finer(
        self, taken: Snapshot, rows: Rollups, mixed: NDArray[np.bool_], more: Samples, within: tuple[int, int],
        columns: Collection[str], width_ms: int, give_up_at: float, missing: list[Missing],
    ) -> Rollups:  # fmt: skip
        """Replace long windows that several pieces hold mixed by their rows of 5 min."""
        origin = within[0]
        held = np.unique(_window_key(rows.take(mixed), width_ms, origin))
        parts = [rows.take(~np.isin(_window_key(rows, width_ms, origin), held))]
        place, tag = np.divmod(held, len(rows.names))
        lo_ms, hi_ms = origin + int(place.min()) * width_ms, min(within[1], origin + (int(place.max()) + 1) * width_ms)
        wanted, group = np.unique(tag).tolist(), max(1, ROLLUP_ROWS_MAX // max(1, (hi_ms - lo_ms) // ROLLUP_MS))
        for at in range(0, len(wanted), group):
            some = wanted[at : at + group]
            found, lost = self.rollups(taken, tuple(rows.names[each] for each in some), lo_ms, hi_ms, give_up_at, more, columns)
            missing += [each for each in lost if not any(
                each.file == told.file and told.from_ms <= each.from_ms and each.to_ms <= told.to_ms for told in missing
            )]  # fmt: skip
            found = replace(found, names=rows.names, tag=np.array(some, np.int32)[found.tag])
            parts.append(found.take(np.isin(_window_key(found, width_ms, origin), held)))
        return joined(parts)

    def _kept(
        self, taken: Snapshot, names: tuple[str, ...], lo_ms: int, hi_ms: int, columns: Collection[str], width_ms: int,
        give_up_at: float,
    ) -> tuple[list[Rollups], list[Missing]]:  # fmt: skip
        missing = self._manifests_missing(taken, lo_ms, hi_ms)
        broken: list[LiveFile] = []
        lost: list[Missing] = []
        files = self._files(taken, [(0, lo_ms, hi_ms)])
        sound = self._sound(files, "rollups", names, lost)
        broken += [file for file in files if not any(file is each for each in sound)]

        def unreadable(file: LiveFile, error: UnreadableError) -> None:
            self._unreadable(file, "rollups", error, lost)
            broken.append(file)

        def ask(some: Sequence[LiveFile]) -> Rollups:
            paths = self._paths(some, ROLLUPS)
            if width_ms > ROLLUP_MS:
                return self._parquet.summed_rollups(paths, names, lo_ms, hi_ms, width_ms, ROLLUP_ROWS_MAX, give_up_at, columns)
            return self._parquet.rollups(paths, names, lo_ms, hi_ms, ROLLUP_ROWS_MAX, give_up_at, columns)

        parts = by_halves(sound, ask, unreadable)
        for file in broken:  # its samples say the same, only slower
            one = replace(taken, manifests=tuple(m for m in taken.manifests if m.stem == file.stem), unreadable=())
            span = max(lo_ms, file.file.from_ms), min(hi_ms, file.file.to_ms + 1)
            found, gone = self.samples_of(one, names, [(at, *span) for at in range(len(names))], ROWS_MAX, give_up_at, evidence=False)
            parts.append(rolled_up(found))
            missing += gone
        if self._evidence(taken, lo_ms, hi_ms):
            only = replace(taken, manifests=(), unreadable=())
            found, gone = self.samples_of(only, names, [(at, lo_ms, hi_ms) for at in range(len(names))], ROWS_MAX, give_up_at)
            parts.append(rolled_up(found))
            missing += gone
        return parts, within(missing, lo_ms, hi_ms)

    def _unmixed(
        self, taken: Snapshot, rows: Rollups, mixed: NDArray[np.bool_], more: Samples, within: tuple[int, int],
        give_up_at: float, missing: list[Missing],
    ) -> Rollups:  # fmt: skip
        """Replace windows that several pieces hold mixed by what their samples say together."""
        windows = sorted(set(zip(rows.tag[mixed].tolist(), rows.start_ms[mixed].tolist(), strict=True)))
        again = np.isin(_window_key(rows), _window_key(rows.take(mixed)))
        if int(rows.samples[again].sum()) > ROWS_MAX:
            raise too_many(ROWS_MAX)
        found, lost = self.samples_in_windows(taken, rows.names, windows, within, ROWS_MAX, give_up_at)
        missing += [each for each in lost if each not in missing]
        inside = np.isin(more.source_ms // ROLLUP_MS * len(rows.names) + more.tag, _window_key(rows.take(again)))
        both = together([Samples.empty(rows.names), found, more.take(inside)])
        return joined([rows.take(~again), rolled_up(both)])

    # -- the newest, days --

    def newest(self, taken: Snapshot, names: tuple[str, ...], give_up_at: float) -> tuple[Samples, list[Missing]]:
        """Return the newest sample of each tag that has one; looks further and further back for those not found yet."""
        missing: list[Missing] = []
        files = sorted(taken.files(), key=lambda file: file.file.to_ms, reverse=True)
        files = self._sound(files, "rollups", (), missing)
        found: dict[int, int] = {}
        at, step = 0, 8
        while at < len(files) and len(found) < len(names):
            some = files[at : at + step]
            wanted = tuple(name for number, name in enumerate(names) if number not in found)
            numbers = [number for number in range(len(names)) if number not in found]
            for told in by_halves(
                some, lambda these, wanted=wanted: self._parquet.newest(self._paths(these, ROLLUPS), wanted, give_up_at),  # type: ignore[misc]
                lambda file, error: self._unreadable(file, "rollups", error, missing),
            ):  # fmt: skip
                for number, to_ms in told.items():
                    found[numbers[number]] = max(to_ms, found.get(numbers[number], to_ms))
            at, step = at + len(some), step * 4
        # What lies in files not looked at may still be newer where files overlap in time.
        late = [file for file in files[at:] if found and file.file.to_ms > min(found.values())]
        for told in by_halves(
            late, lambda these: self._parquet.newest(self._paths(these, ROLLUPS), names, give_up_at),
            lambda file, error: self._unreadable(file, "rollups", error, missing),
        ):  # fmt: skip
            for number, to_ms in told.items():
                found[number] = max(to_ms, found.get(number, to_ms))
        spans = [(number, to_ms, to_ms + 1) for number, to_ms in found.items()]
        samples, lost = self.samples_of(taken, names, spans, ROWS_MAX, give_up_at)
        return samples, missing + lost

    def days(self, taken: Snapshot, give_up_at: float) -> list[int]:
        """Return the beginnings of the UTC days that hold samples, also of those that cannot be read."""
        found = {each.from_ms for each in self._manifests_missing(taken, -TIME_MS_MAX, TIME_MS_MAX)}
        for live in taken.files():
            lo, hi = live.file.from_ms // DAY_MS, live.file.to_ms // DAY_MS
            if lo == hi:
                found.add(lo * DAY_MS)
            else:  # stamps of lost clocks share one file
                try:
                    found.update(day * DAY_MS for day in self._parquet.days(self._paths([live], SAMPLES), give_up_at))
                except UnreadableError:
                    found.update((lo * DAY_MS, hi * DAY_MS))
        return sorted(found)

    def tags_of(
        self, taken: Snapshot, from_ms: int, to_ms: int, give_up_at: float
    ) -> tuple[list[tuple[str, int]], list[Missing]]:
        """Return the tags whose samples lie in files of [from_ms, to_ms), by id, and about how many rows each has."""
        missing = self._manifests_missing(taken, from_ms, to_ms)
        files = self._sound(self._files(taken, [(0, from_ms, to_ms)]), "samples", None, missing)
        rows: dict[str, int] = {}
        for told in by_halves(
            files, lambda these: self._parquet.tags(self._paths(these, SAMPLES), give_up_at),
            lambda file, error: self._unreadable(file, "samples", error, missing),
        ):  # fmt: skip
            for tag, count in told:
                rows[tag] = rows.get(tag, 0) + count
        return sorted(rows.items()), missing

    def weight(self, taken: Snapshot, from_ms: int, to_ms: int) -> int:
        """Return how many rows the files hold that a question about [from_ms, to_ms) has to open."""
        return sum(file.file.rows for file in self._files(taken, [(0, from_ms, to_ms)]))

    # -- files --

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
        """Return the days of which a manifest that cannot be read has files."""
        if not taken.unreadable or from_ms >= to_ms:
            return []
        found = []
        for path in sorted((self.folder / SAMPLES).glob("*/*.parquet")):
            for stem, why in taken.unreadable:
                if path == samples_path(self.folder, stem, path.parent.name):
                    begin = day_ms(path.parent.name)
                    found.append(Missing(begin, begin + DAY_MS, stem.manifest_name, why))
        return within(found, from_ms, to_ms)


def in_moments(samples: Samples) -> Samples:
    """Put them in order of tag number, then time; of one moment what was late first, then by stream and number."""
    order = _in_moments(samples)
    return samples if order is None else samples.take(order)


def together(parts: Sequence[Samples]) -> Samples:
    """Join parts in that order; where a live sample stands at the moment of imported ones, it alone counts."""
    samples = in_moments(concatenated(parts) if len(parts) > 1 else parts[0])
    imported = (samples.stream == 0) & (samples.sequence == 0)  # a live one has a stream, or a log position for number
    if not imported.any() or imported.all():
        return samples
    starts = np.flatnonzero(np.append(True, (np.diff(samples.source_ms) != 0) | (np.diff(samples.tag) != 0)))
    live = np.logical_or.reduceat(~imported, starts)
    kept = ~(imported & np.repeat(live, np.diff(np.append(starts, len(samples)))))
    return samples if kept.all() else samples.take(kept)


def _in_moments(samples: Samples) -> NDArray[np.int64] | None:
    """Return that order; None where they stand in it, no two at one moment."""
    step, same = np.diff(samples.source_ms), np.diff(samples.tag)
    if not ((same < 0) | ((same == 0) & (step <= 0))).any():
        return None
    return np.lexsort((samples.sequence, samples.stream, ~samples.late, samples.source_ms, samples.tag))


def _each_once(samples: Samples, rank: NDArray[np.int64], loaded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows to keep: of a frame that several files hold the copy sealed first, of a loaded moment the newest.

    Args:
        rank: of each row its file's, the one sealed first is 0. loaded: of each file, whether it was loaded.
    """
    if not len(samples):
        return np.empty(0, np.int64)
    from_load = (samples.stream == 0) & (samples.sequence == 0) & loaded[rank]
    # A frame may hold several samples of one tag: all rows of the file that counts stay.
    keys: list[NDArray[Any]] = [np.where(from_load, samples.source_ms, samples.sequence), samples.stream, from_load, samples.tag]
    # What a foreign node had stored is numbered by log position, which a restored ledger gives anew: its content tells it apart.
    foreign = (samples.stream == 0) & ~from_load
    if foreign.any():
        keys[:0] = [np.where(foreign, of, 0) for of in (samples.code, samples.value.view(np.int64), samples.source_ms)]
    wanted = np.where(from_load, -rank, rank)
    order = np.lexsort((wanted, *keys))
    columns = [key[order] for key in keys]
    new = np.append(True, np.logical_or.reduce([column[1:] != column[:-1] for column in columns]))
    first = wanted[order][new][np.cumsum(new) - 1]
    kept: NDArray[np.int64] = np.sort(order[wanted[order] == first])
    return kept


def _same_names(names: tuple[str, ...], parts: Sequence[Samples]) -> Samples:
    """Join parts that count in the same names, without changing how they count."""
    return concatenated([Samples.empty(names), *parts])


def _named(samples: Samples, names: tuple[str, ...], from_ms: int, to_ms: int) -> Samples:
    """Return the samples of [from_ms, to_ms) and of these names, counting in them, in order."""
    place = np.array([names.index(name) if name in names else -1 for name in samples.names], np.int32)
    tag = place[samples.tag] if len(place) else samples.tag
    wanted = (tag >= 0) & (samples.source_ms >= from_ms) & (samples.source_ms < to_ms)
    return in_moments(replace(samples, names=names, tag=tag).take(wanted))


def _window_key(rows: Rollups, width_ms: int = ROLLUP_MS, origin_ms: int = 0) -> NDArray[np.int64]:
    """Return one number for each tag and window."""
    return (rows.start_ms - origin_ms) // width_ms * len(rows.names) + rows.tag


def _concerns(tags: Any, names: Sequence[str] | None) -> bool:
    """Whether a stretch of tags, both ends included, holds one of the names; what cannot be read concerns all."""
    if not (isinstance(tags, list | tuple) and len(tags) == 2 and all(isinstance(tag, str) for tag in tags)) or not names:
        return True
    return any(tags[0] <= name <= tags[1] for name in names)


def within(missing: Sequence[Missing], from_ms: int, to_ms: int) -> list[Missing]:
    """Return what is missing of a range, cut to it, each stretch once."""
    cut = [
        replace(
            each, from_ms=max(each.from_ms, from_ms), to_ms=min(each.to_ms, to_ms), whole=each.whole or (each.from_ms, each.to_ms)
        )
        for each in missing if each.from_ms < to_ms and each.to_ms > from_ms
    ]  # fmt: skip
    return list(dict.fromkeys(cut))[:MISSING_MAX]

