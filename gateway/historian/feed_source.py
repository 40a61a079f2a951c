"""Where feeding reads: the ledger's newest rows, and segments for what has left the ledger.

A log position is never used twice, and rows leave the ledger only once they are sealed. So a position that is missing there
lies in a segment, or was never committed: the ledger is asked first, then the folder, and nothing can slip between them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import apsw
import numpy as np

from config import SiteConfig
from gateway.core.reader import LedgerReader
from gateway.historian.feed import FAR, Hole, limits
from gateway.historian.samples import Samples
from gateway.historian.segments.folder import SegmentFolder, Snapshot
from gateway.historian.segments.manifest import Manifest
from gateway.historian.segments.names import samples_path
from gateway.historian.store import AlarmEvent

if TYPE_CHECKING:
    import duckdb

    from gateway.historian.segments.seal import LogRow

PIECE_BYTES_MAX: Final = 4 * 1024 * 1024
PIECE_LOG_ROWS: Final = 2_000
EVENTS_MAX: Final = 500
READ_S_MAX: Final = 5.0
MEMORY: Final = "32MB"
TRIES: Final = 3
WHY_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger now. `oldest_ms`: when the oldest row with samples behind the position asked for came, None without one."""

    ledger: str
    ancestry: tuple[tuple[str, int], ...]
    pos: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of log positions up to `upto`, and of the segment behind it (`stem`) up to `row`.

    `unread`: what of these our own segments hold and could not be read, `why` names the file.
    """

    samples: Samples
    upto: int
    stem: str = ""
    row: int = 0
    unread: Hole | None = None
    why: str = ""


class FeedSource(Protocol):
    """What a feed reads from."""

    def head(self, after: int) -> Head | None:
        """Return where the ledger stands; None: there is none yet."""
        ...

    def upto(self, after: int, before_ms: int) -> int:
        """Return the highest log position, above `after`, of what came before a time; 0 without one."""
        ...

    def live(self, first: int, last: int, rows_max: int) -> Piece:
        """Return samples from position `first` on, about `rows_max`."""
        ...

    def hole(self, hole: Hole, rows_max: int) -> Piece:
        """Return the next samples of a hole."""
        ...

    def sealed(self) -> dict[str, int]:
        """Return the last position that segments hold of each ledger."""
        ...

    def transitions(self, after: int) -> tuple[list[AlarmEvent], int]:
        """Return the journal behind a row, and the last row read."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


Reading = Callable[[float], AbstractContextManager[Any]]


class SourceBusyError(Exception):
    """The ledger or a segment cannot be read just now: try again."""


class _UnreadError(Exception):
    """A file could not be read time and again; says which and why."""


class LogSource:
    """Reads a ledger and the historian's folder beside it. For one thread."""

    def __init__(self, ledger: Path, historian: Path, site: SiteConfig, reading: Reading | None = None) -> None:
        """`reading` is entered around every read of the ledger, with the moment to give up (monotonic seconds)."""
        from gateway.historian.segments.seal import Places

        self._path, self._folder = ledger, historian
        self._places = Places(site)
        self._segments = SegmentFolder(historian)
        self._reading = reading or (lambda _: nullcontext())
        self._reader: LedgerReader | None = None
        self._file: tuple[int, int] | None = None
        self._names: dict[int, str] = {}
        self._head: Head | None = None
        self._db: duckdb.DuckDBPyConnection | None = None
        self._failed: tuple[Path | None, int] = (None, 0)  # a file that could not be read, and how often in a row

    def head(self, after: int) -> Head | None:
        """Return where the ledger stands."""
        reader = self._open()
        if reader is None:
            return None
        with self._read():
            oldest = reader.rows(
                "SELECT received_ms FROM log WHERE pos > ? AND kind IN ('F', 'B', 'H') ORDER BY pos LIMIT 1", (after,)
            )
            self._head = Head(reader.meta("ledger_id"), reader.ancestry(), reader.last_pos(), oldest[0][0] if oldest else None)
        return self._head

    def upto(self, after: int, before_ms: int) -> int:
        """Return the highest log position of what came before a time; read from the newest row back."""
        reader = self._open()
        if reader is None:
            return 0
        with self._read():
            found = reader.rows(
                "SELECT pos FROM log WHERE pos > ? AND received_ms < ? ORDER BY pos DESC LIMIT 1", (after, before_ms)
            )
        return int(found[0][0]) if found else 0

    def live(self, first: int, last: int, rows_max: int) -> Piece:
        """Return the newest samples."""
        head = self._head
        assert head is not None, "the head is read first"
        return self.hole(Hole(head.ledger, first, last, 0), rows_max)

    def hole(self, hole: Hole, rows_max: int) -> Piece:
        """Return the next samples of a hole, whoever holds them."""
        head = self._head
        assert head is not None, "the head is read first"
        following: int | None = None
        if not hole.stem and hole.first <= shared(head, hole.ledger):
            piece, following = self._of_ledger(hole, min(hole.last, shared(head, hole.ledger)), rows_max)
            if piece is not None:
                return piece
        taken = self._segments.snapshot()
        owners = lineage(head, hole.ledger, hole.first)
        for owner, limit in owners:
            manifest = _holding(taken, owner, hole.first)
            if manifest is not None:
                try:
                    return self._of_segment(taken, manifest, hole, min(manifest.stem.last, hole.last, limit), rows_max)
                except FileNotFoundError:  # packed meanwhile: found under its new name next time
                    return Piece(Samples.empty(), hole.first - 1)
        if hole.stem:  # packed away: the ledger may still have it
            return Piece(Samples.empty(), hole.first - 1)
        ends = [hole.last]
        for owner, limit in owners:
            ends += [each.stem.first - 1 for each in taken.chain(owner) if each.stem.first > hole.first]
            ends += [limit] if limit < FAR else []
        if following is not None:
            ends.append(following - 1)
        for owner, _ in owners:
            for stem, why in taken.unreadable:
                if stem.owner == owner and stem.kind != "load" and stem.first <= hole.first <= stem.last:
                    upto = min(stem.last, *ends)
                    unread = replace(hole, last=upto)
                    return Piece(Samples.empty(), upto, unread=unread, why=f"{stem.manifest_name}: {why}")
        return Piece(Samples.empty(), min(ends))

    def sealed(self) -> dict[str, int]:
        """Return the last position sealed of each ledger, by manifests that cannot be read, too."""
        taken, found = self._segments.snapshot(), dict[str, int]()
        for stem in (*(manifest.stem for manifest in taken.manifests), *(stem for stem, _ in taken.unreadable)):
            if stem.kind != "load":
                found[stem.owner] = max(stem.last, found.get(stem.owner, 0))
        return found

    def transitions(self, after: int) -> tuple[list[AlarmEvent], int]:
        """Return some of the journal behind a row."""
        reader = self._open()
        if reader is None:
            return [], after
        with self._read():
            rows = reader.rows(
                "SELECT row, id, alarm_id, kind, at_ms, late, body FROM transition WHERE row > ? ORDER BY row LIMIT ?",
                (after, EVENTS_MAX),
            )
        events = []
        for _, step, alarm_id, kind, at_ms, late, body in rows:
            alarm = json.loads(body)["alarm"]
            events.append(
                AlarmEvent(step, alarm_id, str(alarm["tag"]), kind, str(alarm["limit"]), int(alarm["grade"]), at_ms, bool(late))
            )
        return events, rows[-1][0] if rows else after

    def close(self) -> None:
        """Close the ledger and the database in memory."""
        if self._reader is not None:
            self._reader.close()
        if self._db is not None:
            self._db.close()
        self._reader = self._db = None

    # -- ledger --

    def _open(self) -> LedgerReader | None:
        """Return a reader of the file that is there now; another one is opened anew."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        file = (found.st_dev, found.st_ino)
        if self._reader is None or file != self._file:
            if self._reader is not None:
                self._reader.close()
            try:
                self._reader, self._file, self._names = LedgerReader.open(self._path), file, {}
            except apsw.Error as error:
                self._reader = None
                raise SourceBusyError(f"{self._path}: {error}") from None
        return self._reader

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Read the ledger inside. Raises SourceBusyError."""
        try:
            with self._reading(time.monotonic() + READ_S_MAX):
                yield
        except (apsw.Error, OSError) as error:
            raise SourceBusyError(f"{self._path}: {error}") from None

    def _of_ledger(self, hole: Hole, last: int, rows_max: int) -> tuple[Piece | None, int | None]:
        """Return the rows that follow without a gap; or, where the first is missing, the next position that is there."""
        from gateway.historian.segments.seal import LogRow, samples_of

        reader = self._open()
        if reader is None:
            return None, None
        rows: list[LogRow] = []
        samples = size = 0
        expected, following = hole.first, None
        with self._read():
            for pos, kind, received_ms, node, stream, first, count, body, late_upto, fresh, refused in reader.rows(
                "SELECT pos, kind, received_ms, node, stream, first, samples, CASE WHEN kind IN ('F', 'B', 'H') THEN body"
                " ELSE x'' END, late_upto, fresh, refused FROM log WHERE pos >= ? AND pos <= ? ORDER BY pos LIMIT ?",
                (hole.first, last, PIECE_LOG_ROWS),
            ):
                if pos != expected:
                    following = pos
                    break
                rows.append(LogRow(pos, kind, received_ms, node, stream, first, body, late_upto, fresh, refused))
                expected, samples, size = pos + 1, samples + count, size + len(body)
                if samples >= rows_max or size >= PIECE_BYTES_MAX:
                    break
            if rows:
                names = self._tag_names(reader)
        if not rows:
            return None, following
        return Piece(samples_of(rows, names, self._places), rows[-1].pos), None

    def _tag_names(self, reader: LedgerReader) -> dict[int, str]:
        newest = reader.rows("SELECT coalesce(max(id), 0) FROM tag")[0][0]
        if newest != max(self._names, default=0):
            self._names = reader.tag_names()
        return self._names

    # -- segments --

    def _of_segment(self, taken: Snapshot, manifest: Manifest, hole: Hole, upto: int, rows_max: int) -> Piece:
        """Return rows of a manifest's files in their order; behind the last one all of it up to a position is sent."""
        at = hole.row if hole.stem == str(manifest.stem) else 0
        begin = 0  # of a file, among the rows of all
        for file in manifest.files:
            end = begin + file.rows
            if at < end and taken.kept.covers(manifest.stem, file.leaves):
                at = end  # removed on purpose
            if at < end:
                path, stem = samples_path(self._folder, manifest.stem, file.day), str(manifest.stem)
                try:
                    samples = self._rows(path, at - begin, at - begin + rows_max)
                except _UnreadError as error:
                    unread = replace(hole, last=upto, stem=stem, row=at)
                    return Piece(Samples.empty(), hole.first - 1, stem, end, unread, str(error))
                return Piece(samples, hole.first - 1, stem, min(end, at + rows_max))
            begin = end
        return Piece(Samples.empty(), upto)

    def _rows(self, path: Path, begin: int, end: int) -> Samples:
        """Read rows of a file.

        Raises:
            FileNotFoundError: packed away. SourceBusyError: it could not be read. _UnreadError: nor could it be before.
        """
        import duckdb

        try:
            found = self._file_rows(path, begin, end)
        except FileNotFoundError:
            raise
        except (duckdb.Error, OSError) as error:
            told = f"{path.parent.name}/{path.name}: {str(error).partition(chr(10))[0][:WHY_CHARS_MAX]}"
            tries = self._failed[1] + 1 if self._failed[0] == path else 1
            self._failed = (path, tries) if tries < TRIES else (None, 0)
            if tries < TRIES:
                raise SourceBusyError(told) from None
            raise _UnreadError(told) from None
        self._failed = (None, 0)
        return found

    def _file_rows(self, path: Path, begin: int, end: int) -> Samples:
        if not path.exists():
            raise FileNotFoundError(path)
        if self._db is None:
            from gateway.historian.segments.spill import open_database

            self._db = open_database(self._folder, MEMORY)
        found = self._db.execute(
            "SELECT tag, source_ms, value, code, raw, late, stream, sequence FROM read_parquet($path, file_row_number = true)"
            " WHERE file_row_number >= $begin AND file_row_number < $end",
            {"path": str(path), "begin": begin, "end": end},
        ).fetchnumpy()
        tags = np.asarray(found["tag"], object)
        starts = np.flatnonzero(np.append(True, tags[1:] != tags[:-1])) if len(tags) else np.empty(0, np.int64)
        tag = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(tags))))
        names = [str(tags[at]) for at in starts.tolist()]
        nan = {name: np.ma.filled(np.ma.asarray(found[name], np.float64), np.nan) for name in ("value", "raw")}
        return Samples(
            tuple(names), tag.astype(np.int32), np.asarray(found["source_ms"], np.int64), nan["value"],
            np.asarray(found["code"], np.uint8), nan["raw"], np.asarray(found["late"], np.bool_),
            np.asarray(found["stream"], np.int64), np.asarray(found["sequence"], np.int64),
        )  # fmt: skip


def shared(head: Head, ledger: str) -> int:
    """Return up to which position the rows of the ledger that is here are those of another: FAR of itself, 0 of a strange one."""
    return limits(head.ledger, head.ancestry).get(ledger, 0)


def lineage(head: Head, ledger: str, pos: int) -> list[tuple[str, int]]:
    """Return whose segments may hold a ledger's position, and up to where those are its own; itself first."""
    names = [head.ledger, *(name for name, _ in head.ancestry)]
    if ledger not in names:
        return [(ledger, FAR)]
    found, limit = [(ledger, FAR)], FAR
    for name, upto in head.ancestry[names.index(ledger) :]:
        limit = min(limit, upto)
        if pos <= limit:
            found.append((name, limit))
    return found


def _holding(taken: Snapshot, owner: str, pos: int) -> Manifest | None:
    return next((each for each in taken.chain(owner) if each.stem.first <= pos <= each.stem.last), None)
