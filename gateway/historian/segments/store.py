"""The store that always runs: the folder of segments behind the port of all historians.

What core sealed and what was loaded stand side by side. `write` commits a part of a load, at once and durably. Events are
the ledger's journal where there is one; a folder without a ledger keeps those it was given in files of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final, TypeVar

import duckdb
import numpy as np

from gateway.historian.events import EVENTS_MAX
from gateway.historian.journal import Journal, Rows
from gateway.historian.limits import DAY_PIECE_ROWS, check_latest, check_range, check_width, out_of_time, too_many
from gateway.historian.memory import in_pieces, one_a_moment
from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.durable import make_folder, write_durably
from gateway.historian.segments.folder import Snapshot
from gateway.historian.segments.gone import ancestry_of, gone, pruned_pos
from gateway.historian.segments.load import write_part
from gateway.historian.segments.manifest import ManifestError
from gateway.historian.segments.missing import Missing, of_hole, refuse_missing, within
from gateway.historian.segments.moments import together
from gateway.historian.segments.names import TEMPORARY
from gateway.historian.segments.query import STORE, SUMMABLE, ParquetReader
from gateway.historian.segments.reading import SegmentReader
from gateway.historian.segments.reading_files import MovedError
from gateway.historian.segments.spill import open_database
from gateway.historian.store import (
    DEADLINE_S_MAX,
    ROWS_MAX,
    AlarmEvent,
    SegmentDamagedError,
    StoreAwayError,
    Windows,
    Written,
    rejected_of,
)
from gateway.historian.windows import ROLLUP_MS, columns_for, combined, no_windows, rolled_up

EVENTS: Final = "events"
DAY_ROWS_MAX: Final = 20_000_000
WRITE_ROWS: Final = 4_000_000
TIME_MS_MAX: Final = 1 << 53  # what a manifest can name
_GROUP_ROWS: Final = 1_000_000

T = TypeVar("T")


class EmbeddedHistorian:
    """A historian folder. Any thread may ask; writes follow one another."""

    def __init__(
        self, folder: Path, ledger: Path | None = None, *, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        parquet: ParquetReader | None = None, zone: tzinfo = UTC,
    ) -> None:  # fmt: skip
        """`ledger` is the file whose journal holds the events; `zone` is for the times in messages."""
        self.folder = folder
        self._zone = zone
        self._wall_ms = wall_ms
        self._journal = None if ledger is None else Journal(ledger)
        self._own = ParquetReader(folder / TEMPORARY) if parquet is None else None
        self._parquet = parquet or self._own or ParquetReader()
        self.segments = SegmentReader(folder, self._parquet)
        self._writing = threading.Lock()
        self._load = f"w{time.time_ns():x}x{os.getpid():x}"[:32]
        self._part = 0
        self._writer: duckdb.DuckDBPyConnection | None = None

    @property
    def name(self) -> str:
        """As people know it."""
        return STORE

    def close(self) -> None:
        """Let go of the databases."""
        if self._own is not None:
            self._own.close()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
            self._writer = None

    # -- writing --

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        """Commit samples as parts of a load; of one tag and millisecond the newest write counts. Times beyond 2**53 are refused.

        Raises:
            StoreAwayError: the disk would not; nothing is known to be stored beyond parts committed before.
        """
        given = len(samples)
        odd = np.abs(samples.source_ms.astype(np.float64)) > TIME_MS_MAX
        if odd.any():
            rejected = tuple(rejected_of(samples, row, "a time that no calendar has") for row in np.flatnonzero(odd).tolist())
            return Written(self.write(samples.take(~odd), deadline_s).rows, rejected)
        with self._writing:
            try:
                for piece in in_pieces(one_a_moment(samples), WRITE_ROWS):
                    if self._writer is None:
                        make_folder(self.folder)
                        self._writer = open_database(self.folder)
                    write_part(self._writer, self.folder, self._load, self._part, piece, self._wall_ms())
                    self._part += 1
            except (OSError, duckdb.Error, ManifestError) as error:
                raise _away(self.folder, error) from error
        return Written(given)

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        """Keep transitions beside the segments; those of the ledger's journal are there already.

        Raises:
            StoreAwayError: the disk would not.
        """
        if not events:
            return
        text = json.dumps(sorted((asdict(event) for event in events), key=lambda each: str(each["id"])), ensure_ascii=False)
        path = self.folder / EVENTS / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        try:
            make_folder(path.parent)
            if not path.exists():
                write_durably(path, text)
        except OSError as error:
            raise _away(self.folder, error) from error

    # -- reading --

    def latest(self, tags: Sequence[str], deadline_s: float = DEADLINE_S_MAX) -> Samples:
        """Return the newest sample of each tag, in the order asked."""
        check_latest(tags)
        names, give_up_at = tuple(dict.fromkeys(tags)), time.monotonic() + deadline_s
        found = self._whole(lambda taken: self.segments.newest(taken, names, give_up_at)) if names else Samples.empty()
        return _one_of_moment(found)

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return one tag's samples, one a millisecond: of several the one that was not late, of the newest stream.

        Raises:
            SegmentDamagedError: some are stored and cannot be read; `readable` returns the others.
        """
        found, missing = self.readable(tag, from_ms, to_ms, rows_max, deadline_s)
        refuse_missing(missing, self._zone)
        return found

    def readable(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> tuple[Samples, Sequence[Missing]]:
        """Return what `range` does, but for what cannot be read, and these stretches."""
        check_range(from_ms, to_ms)
        give_up_at = time.monotonic() + deadline_s
        found, missing = self._at_rest(lambda taken: self.segments.samples(taken, tag, from_ms, to_ms, rows_max, give_up_at))
        return _one_of_moment(found), [*missing, *within(self.holes(), from_ms, to_ms)]

    def windows(self, tag: str, from_ms: int, to_ms: int, width_ms: int, deadline_s: float = DEADLINE_S_MAX) -> Windows:
        """Return one tag's windows; they count every stored sample, also several of one moment.

        Raises:
            SegmentDamagedError: some samples are stored and cannot be read; `windows_of` returns what the others say.
        """
        found, missing = self.windows_of([tag], from_ms, to_ms, width_ms, deadline_s)
        refuse_missing([*missing, *within(self.holes(), from_ms, to_ms)], self._zone)
        return found[tag]

    def windows_of(
        self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int, deadline_s: float = DEADLINE_S_MAX,
        columns: Collection[str] | None = None,
    ) -> tuple[dict[str, Windows], list[Missing]]:  # fmt: skip
        """Return the windows of many tags, and what could not be read.

        Counts and starts are always told; of the other columns those named (None: all), and nothing in the others.

        Windows of a multiple of 5 min from a multiple of 5 min come from rollups, but for their last; others from samples.
        """
        check_width(from_ms, to_ms, width_ms)
        give_up_at = time.monotonic() + deadline_s
        return self._at_rest(lambda taken: windows_in(
            self.segments, taken, tags, from_ms, to_ms, width_ms, give_up_at, columns=columns
        ))  # fmt: skip

    def events(
        self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = EVENTS_MAX
    ) -> Sequence[AlarmEvent]:
        """Return transitions, oldest first."""
        found = {event.id: event for event in self._own_events() if from_ms <= event.at_ms < to_ms and tag in (None, event.tag)}
        if self._journal is not None:
            found.update((event.id, event) for event in self._journal.events(from_ms, to_ms, tag, rows_max))
        if len(found) > rows_max:
            raise too_many(rows_max)
        return sorted(found.values(), key=lambda event: (event.at_ms, event.id))

    def days(self, deadline_s: float = 60.0) -> Sequence[int]:
        """Return the beginnings of the days held."""
        give_up_at = time.monotonic() + deadline_s
        return self._at_rest(lambda taken: self.segments.days(taken, give_up_at))

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        """Yield a day's samples, whole tags by id, one row a tag and millisecond.

        Raises:
            SegmentDamagedError: after all that can be read: some cannot, and a copy of these would not be one of the day.
        """
        give_up_at, to_ms = time.monotonic() + deadline_s, day_ms + DAY_MS
        tags, missing = self._at_rest(lambda taken: self.segments.tags_of(taken, day_ms, to_ms, give_up_at))
        group: list[str] = []
        rows = 0
        for at, (tag, count) in enumerate(tags):
            group.append(tag)
            rows += count
            if rows + (tags[at + 1][1] if at + 1 < len(tags) else 0) >= DAY_PIECE_ROWS or at + 1 == len(tags):
                names = tuple(group)
                spans = [(number, day_ms, to_ms) for number in range(len(names))]
                found, lost = self._at_rest(lambda taken, names=names, spans=spans: self.segments.samples_of(  # type: ignore[misc]
                    taken, names, spans, DAY_ROWS_MAX, give_up_at
                ))  # fmt: skip
                missing += lost
                if len(found):
                    yield _one_of_moment(found)
                group, rows = [], 0
        refuse_missing(list(dict.fromkeys([*missing, *within(self.holes(), day_ms, to_ms)])), self._zone)

    def holes(self) -> Sequence[Missing]:
        """Return what has left the ledger and is in no manifest; none where there is no ledger to say so.

        Raises:
            StoreAwayError: folder or ledger cannot be read now.
        """
        if self._journal is None:
            return ()

        def ask(rows: Rows) -> Sequence[Missing]:
            pruned = pruned_pos(rows)  # first: what leaves later is in the segments taken
            owner = rows("SELECT value FROM meta WHERE key = 'ledger_id'", ())
            taken = self._at_rest(lambda taken: taken)
            return tuple(map(of_hole, gone(taken, str(owner[0][0]), ancestry_of(rows), rows, pruned))) if owner else ()

        return self._journal.ask(ask, ())

    # -- helpers --

    def _at_rest(self, ask: Callable[[Snapshot], T]) -> T:
        try:
            return self.segments.of_one_snapshot(ask)
        except MovedError as error:
            raise _away(self.folder, error) from error
        except OSError as error:
            raise _away(self.folder, error) from error

    def _whole(self, ask: Callable[[Snapshot], tuple[T, list[Missing]]]) -> T:
        found, missing = self._at_rest(ask)
        refuse_missing(missing, self._zone)
        return found

    def _own_events(self) -> Iterator[AlarmEvent]:
        for path in sorted((self.folder / EVENTS).glob("*.json")):
            try:
                yield from (AlarmEvent(**each) for each in json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise SegmentDamagedError(
                    f"{path.name}: alarm events that cannot be read ({error}); remove it or restore it from a backup",
                    f"{path.name}：报警事件无法读取（{error}）；请删除或从备份恢复",
                ) from error


def windows_in(
    segments: SegmentReader, taken: Snapshot, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int,
    give_up_at: float, more: Samples | None = None, columns: Collection[str] | None = None,
) -> tuple[dict[str, Windows], list[Missing]]:  # fmt: skip
    """Return the windows of many tags, every tag with at least none, and what could not be read.

    Args:
        more: samples that are not in any file yet; they count as if they were.

    Raises:
        MovedError, QueryTooLargeError, QueryTimeError.
    """
    names, missing = tuple(dict.fromkeys(tags)), list[Missing]()
    found: dict[str, Windows] = {}
    from_rollups = not (from_ms % ROLLUP_MS or width_ms % ROLLUP_MS)
    needed = columns_for(columns)
    piece_ms = max(ROLLUP_MS, width_ms // 2) if SUMMABLE.issuperset(needed) else ROLLUP_MS  # files cut windows in two
    group = max(1, _GROUP_ROWS // max(1, (to_ms - from_ms) // piece_ms)) if from_rollups else len(names)
    for at in range(0, len(names), max(1, group)):
        some = names[at : at + group]
        if time.monotonic() > give_up_at:
            raise out_of_time(STORE, 0)
        if from_rollups:
            rows, lost = segments.rollups(taken, some, from_ms, to_ms, give_up_at, more, needed, width_ms)
        else:
            if len(some) == 1:
                samples, lost = segments.samples(taken, some[0], from_ms, to_ms, ROWS_MAX, give_up_at)
            else:
                spans = [(number, from_ms, to_ms) for number in range(len(some))]
                samples, lost = segments.samples_of(taken, some, spans, ROWS_MAX, give_up_at)
            if more is not None:
                samples = together([samples, _only(more, some, from_ms, to_ms)])
            rows = rolled_up(samples, width_ms, from_ms)
        found.update(combined(rows, width_ms, from_ms))
        missing += [each for each in lost if each not in missing]
    return {name: found.get(name) or no_windows(width_ms) for name in names}, missing


def _only(samples: Samples, names: Sequence[str], from_ms: int, to_ms: int) -> Samples:
    known = np.array([name in names for name in samples.names], np.bool_)
    inside = (samples.source_ms >= from_ms) & (samples.source_ms < to_ms)
    return samples.take(inside & known[samples.tag] if len(known) else inside)


def _one_of_moment(samples: Samples) -> Samples:
    """Of samples in order return one a tag and millisecond: the last."""
    if not len(samples):
        return samples
    last = np.append((np.diff(samples.tag) != 0) | (np.diff(samples.source_ms) != 0), True)
    return samples if last.all() else samples.take(last)


def _away(where: Path, error: Exception) -> StoreAwayError:
    return StoreAwayError(
        f"{where}: {error or type(error).__name__}; see that the disk is there and has room, then try again",
        f"{where}：{error or type(error).__name__}；请检查磁盘是否可用、空间是否足够，然后重试",
    )
