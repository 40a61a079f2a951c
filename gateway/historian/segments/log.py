"""Reads the ledger for whoever seals: rows after a position, tag names, alarms. Short reads, one after the other."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.core.reader import connect
from gateway.core.schema import SCHEMA_VERSION
from gateway.historian.segments.folder import Ancestor
from gateway.historian.segments.seal import LogRow

READ_ROWS: Final = 5_000
READ_BYTES: Final = 16 * 1024 * 1024
READ_S_MAX: Final = 4.0
BUSY_MS: Final = 500
Reading = Callable[[float], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Due:
    """Rows of the log in short: where each is, how many samples it holds, when it came."""

    pos: int
    samples: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class AlarmSpan:
    """When a tag's alarm stood, both ends included; `to_ms` None: it still does."""

    tag: str
    from_ms: int
    to_ms: int | None


class LedgerGoneError(Exception):
    """There is no ledger to read now; try again."""


class LedgerLog:
    """One read-only connection that follows the file at its path. For one thread."""

    def __init__(self, path: Path, site: str, reading: Reading = lambda _until: contextlib.nullcontext()) -> None:
        """`reading` is entered around every read, with the moment to give up in seconds of `time.monotonic`."""
        self._path, self._site, self._reading = path, site, reading
        self._db: apsw.Connection | None = None
        self._file: tuple[int, int] | None = None

    def identity(self) -> tuple[str, tuple[Ancestor, ...]]:
        """Return the ledger's id and where it was restored from, nearest first.

        Raises:
            LedgerGoneError: there is none yet, or not one of this site in the schema we know.
        """
        meta = dict(self._rows("SELECT key, value FROM meta LIMIT 1000"))
        if meta.get("schema_version") != str(SCHEMA_VERSION) or meta.get("site") != self._site or not meta.get("ledger_id"):
            raise LedgerGoneError(f"{self._path}: not yet a ledger of {self._site} in schema {SCHEMA_VERSION}")
        ancestry = json.loads(meta.get("ancestry") or "[]")
        return str(meta["ledger_id"]), tuple(Ancestor(str(ledger_id), int(pos)) for ledger_id, pos in ancestry)

    def rows_of(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one bounded query (the caller writes the LIMIT)."""
        return self._rows(sql, parameters)

    def due_after(self, pos: int) -> list[Due]:
        """Return the rows after a position in short, at most `READ_ROWS`."""
        sql = "SELECT pos, iif(kind IN ('F', 'B', 'H'), samples, 0), received_ms FROM log WHERE pos > ? ORDER BY pos LIMIT ?"
        return [Due(*row) for row in self._rows(sql, (pos, READ_ROWS))]

    def last_pos(self) -> int:
        """Return the highest position there is; the newest rows never leave."""
        return int(self._rows("SELECT coalesce(max(pos), 0) FROM log")[0][0])

    def held(self, first: int, last: int) -> int | None:
        """Return when the newest row of [first, last] was received; None if not all of these rows are there any more."""
        rows, newest = self._rows("SELECT count(*), max(received_ms) FROM log WHERE pos BETWEEN ? AND ?", (first, last))[0]
        return int(newest) if rows == last - first + 1 else None

    def rows(self, first: int, last: int) -> list[LogRow]:
        """Return the rows with samples of [first, last], read in pieces of so many bytes."""
        found: list[LogRow] = []
        while True:
            after = found[-1].pos if found else first - 1
            part, more = self._read(
                "SELECT pos, kind, received_ms, node, stream, first, body, late_upto, fresh, refused FROM log"
                " WHERE pos > ? AND pos <= ? AND kind IN ('F', 'B', 'H') ORDER BY pos LIMIT ?",
                (after, last, READ_ROWS), lambda row: len(row[6]) + len(row[8] or "") + len(row[9] or ""),
            )  # fmt: skip
            found += [LogRow(*row) for row in part]
            if not more and len(part) < READ_ROWS:
                return found

    def tag_names(self) -> dict[int, str]:
        """Return the tag table."""
        return dict(self._rows("SELECT id, name FROM tag"))

    def alarms(self, from_ms: int, to_ms: int) -> Iterator[AlarmSpan]:
        """Yield alarms of tags that stood at some time of [from_ms, to_ms), in order of their starts, however many."""
        after = (-(1 << 63), "")
        while True:
            rows = self._rows(
                "SELECT start_ms, id, subject, coalesce(json_extract(body, '$.returned_ms'), json_extract(body, '$.end_ms')) AS until"
                " FROM alarm WHERE (start_ms, id) > (?, ?) AND start_ms < ? AND (until IS NULL OR until >= ?)"
                " ORDER BY start_ms, id LIMIT ?",
                (*after, to_ms, from_ms, READ_ROWS),
            )
            for start, _, tag, until in rows:
                yield AlarmSpan(str(tag), int(start), None if until is None else int(until))
            if len(rows) < READ_ROWS:
                return
            after = rows[-1][:2]

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
        self._db = self._file = None

    def _rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._read(sql, parameters, lambda _row: 0)[0]

    def _read(
        self, sql: str, parameters: tuple[Any, ...], weight: Callable[[tuple[Any, ...]], int]
    ) -> tuple[list[tuple[Any, ...]], bool]:
        """Return rows until they weigh `READ_BYTES`, at least one; and whether there may be more for that."""
        until, taken, rows = time.monotonic() + READ_S_MAX, 0, []
        try:
            with self._reading(until), contextlib.closing(self._connected(until).cursor()) as cursor:
                for row in cursor.execute(sql, parameters):
                    rows.append(row)
                    taken += weight(row)
                    if taken >= READ_BYTES:
                        return rows, True
                return rows, False
        except (apsw.Error, OSError) as error:
            self.close()
            raise LedgerGoneError(f"{self._path}: {error}") from None

    def _connected(self, until: float) -> apsw.Connection:
        found = self._path.stat()
        if self._db is None or self._file != (found.st_dev, found.st_ino):
            self.close()
            self._db = connect(self._path, read_only=True)
            self._db.set_busy_timeout(BUSY_MS)
            self._file = (found.st_dev, found.st_ino)
        self._db.set_progress_handler(lambda: time.monotonic() > until, 20_000)
        return self._db
