"""Reading the ledger: for recovery, for history forks, for the views beside core.

A reader never writes, and holds no transaction open between calls, so the WAL can be folded in behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import apsw.bestpractice

from alerting import AlarmState
from alerting.delivery import Notice, OutboxRow
from gateway.core.entries import PASSING_KINDS, SAMPLE_KINDS, Entry, EntryKind, unpack_columns
from gateway.core.retention import KeptRow

BUSY_TIMEOUT_MS: Final = 5_000
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024  # what a reader that stayed too long made of it goes back to the disk
READ_ROWS_MAX: Final = 10_000
_LOG_COLUMNS: Final = (
    "pos, kind, engine_ms, received_ms, node, device, stream, first, last, samples, body, late_upto, fresh, refused"
)


def connect(path: Path, *, read_only: bool) -> apsw.Connection:
    """Open a connection with the settings the ledger's promises need; no memory map (its errors kill a process)."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.execute("PRAGMA mmap_size = 0")
    if read_only:
        db.execute("PRAGMA query_only = 1")
    else:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        db.execute("PRAGMA wal_autocheckpoint = 16000")  # where the ledger's own rule does not hold, as for a script
    return db


def _entry(row: tuple[Any, ...]) -> Entry:
    pos, kind, engine_ms, received_ms, node, device, stream, first, last, samples, body, late_upto, fresh, refused = row
    ranges = None if fresh is None else tuple((int(lo), int(hi)) for lo, hi in json.loads(fresh))
    names = None if refused is None else tuple(map(str, json.loads(refused)))
    return Entry(
        pos, EntryKind(kind), engine_ms, received_ms, body, node, device, stream, first, last, samples, late_upto, ranges, names
    )


def numbered(
    notice: Notice, ledger_id: str, sequence: int, attempts: int = 0, next_ms: int | None = None, *, parked: bool = False
) -> OutboxRow:
    """Make the outbox row of a notice."""
    return OutboxRow(
        notice.id, notice.transition_id, notice.alarm_id, notice.revision, notice.receiver, notice.lane,
        notice.created_ms, notice.body, ledger_id, sequence, attempts, next_ms, parked,
    )  # fmt: skip


class LedgerReader:
    """Queries over a connection somebody else owns, or over a read-only one of its own (`open`)."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path) -> LedgerReader:
        """Open the ledger read-only beside a running core."""
        return cls(connect(path, read_only=True))

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one bounded query; the caller writes the LIMIT."""
        return list(self._db.execute(sql, parameters))

    def meta(self, key: str) -> str:
        """Return a value of the meta table, or an empty string."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def restore_pending(self) -> bool:
        """Whether its id was renewed by a restore and no core has begun on it since: that one has to tell the log so."""
        pos = self.meta("ancestor_pos")
        began = bool(pos) and self._db.execute(
            "SELECT 1 FROM log WHERE kind = ? AND pos > ? LIMIT 1", (str(EntryKind.START), int(pos))
        ).fetchone() is not None
        return bool(pos) and not began

    def ancestry(self) -> tuple[tuple[str, int], ...]:
        """Return the ledgers this one was restored from, nearest first: id, and the newest log position taken over."""
        return tuple((str(ledger_id), int(pos)) for ledger_id, pos in json.loads(self.meta("ancestry") or "[]"))

    def last_pos(self) -> int:
        """Return the newest log position, 0 in an empty log."""
        return int(self._one("SELECT coalesce(max(pos), 0) FROM log"))

    def entries_after(self, pos: int) -> Iterator[Entry]:
        """Yield the log after `pos` in order, in bounded reads."""
        while True:
            rows = self.rows(f"SELECT {_LOG_COLUMNS} FROM log WHERE pos > ? ORDER BY pos LIMIT {READ_ROWS_MAX}", (pos,))  # noqa: S608 - our own constants
            if not rows:
                return
            for row in rows:
                yield _entry(row)
            pos = rows[-1][0]

    def last_state_record(self) -> Entry | None:
        """Return the newest full state record, if there is one."""
        row = self._db.execute(
            f"SELECT {_LOG_COLUMNS} FROM log WHERE kind = ? ORDER BY pos DESC LIMIT 1", (str(EntryKind.STATE),)  # noqa: S608 - our own constants
        ).fetchone()
        return _entry(row) if row else None

    def first_frames_from(self, pos: int, *, stored: bool = False) -> KeptRow | None:
        """Return the first row at `pos` or after it that leaves the ledger once sealed; `stored`: of those, with samples."""
        kinds = tuple(str(kind) for kind in PASSING_KINDS if not stored or kind in SAMPLE_KINDS)
        marks = ",".join("?" * len(kinds))
        sql = f"SELECT pos, node, stream, last, received_ms FROM log WHERE pos >= ? AND kind IN ({marks}) ORDER BY pos LIMIT 1"  # noqa: S608 - question marks
        row = self._db.execute(sql, (pos, *kinds)).fetchone()
        return None if row is None else KeptRow(*row)

    def frames_between(self, first: int, before: int) -> Iterator[KeptRow]:
        """Yield the FRAME and BLOCK rows of positions first..before-1 in order, in bounded reads."""
        while True:
            rows = self.rows(
                "SELECT pos, node, stream, last, received_ms FROM log WHERE pos >= ? AND pos < ? AND kind IN ('F', 'B')"
                " ORDER BY pos LIMIT ?",
                (first, before, READ_ROWS_MAX),
            )
            if not rows:
                return
            yield from (KeptRow(*row) for row in rows)
            first = rows[-1][0] + 1

    def live_frames_from(self, node: str, stream: int, number: int, pos_max: int, rows_max: int) -> list[Entry]:
        """Return FRAME rows of a stream from `number` on, in order, logged up to `pos_max`."""
        rows = self._db.execute(
            f"SELECT {_LOG_COLUMNS} FROM log WHERE kind = 'F' AND node = ? AND stream = ? AND first >= ? AND pos <= ?"  # noqa: S608 - our own constants
            " ORDER BY first LIMIT ?",
            (node, stream, number, pos_max, rows_max),
        )
        return [_entry(row) for row in rows]

    def block_with(self, node: str, stream: int, number: int, pos_max: int) -> Entry | None:
        """Return a BLOCK row that speaks for a frame number, logged up to `pos_max`."""
        row = self._db.execute(
            f"SELECT {_LOG_COLUMNS} FROM log WHERE kind = 'B' AND node = ? AND stream = ? AND last >= ? AND first <= ?"  # noqa: S608 - our own constants
            " AND pos <= ? ORDER BY last LIMIT 1",
            (node, stream, number, number, pos_max),
        ).fetchone()
        return None if row is None else _entry(row)

    def next_block(self, node: str, stream: int, number: int, pos_max: int) -> int | None:
        """Return the first frame number after `number` that a BLOCK row speaks for, logged up to `pos_max`."""
        row = self._db.execute(
            "SELECT first, last FROM log WHERE kind = 'B' AND node = ? AND stream = ? AND last > ? AND pos <= ?"
            " ORDER BY last LIMIT 1",
            (node, stream, number, pos_max),
        ).fetchone()
        return None if row is None else max(int(row[0]), number + 1)

    def tag_names(self) -> dict[int, str]:
        """Return the tag table."""
        return dict(self._db.execute("SELECT id, name FROM tag"))

    def due_outbox(self) -> list[OutboxRow]:
        """Return what is not accepted yet, in the order it was committed."""
        return [
            numbered(Notice(*notice), ledger_id, sequence, attempts, next_ms, parked=state == "parked")
            for *notice, ledger_id, sequence, state, attempts, next_ms in self._db.execute(
                "SELECT notice_id, transition_id, alarm_id, revision, receiver, lane, created_ms, body,"
                " ledger_id, sequence, state, attempts, next_ms FROM outbox WHERE state <> 'accepted' ORDER BY row"
            )
        ]

    def open_alarms(self, rows_max: int = READ_ROWS_MAX) -> list[AlarmState]:
        """Return alarms that are not closed, oldest first."""
        return [
            AlarmState.from_json(json.loads(body))
            for (body,) in self._db.execute(
                "SELECT body FROM alarm WHERE state <> 'CLOSED' ORDER BY start_ms LIMIT ?", (rows_max,)
            )
        ]

    def alarms_of(self, transition_ids: Iterable[str]) -> list[AlarmState]:
        """Return the latest state of the alarms that these transitions belong to."""
        found: dict[str, AlarmState] = {}
        for transition_id in transition_ids:
            row = self._db.execute("SELECT alarm_id FROM transition WHERE id = ?", (transition_id,)).fetchone()
            alarm = None if row is None else self.alarm(row[0])
            if alarm is not None:
                found[alarm.id] = alarm
        return list(found.values())

    def alarm(self, alarm_id: str) -> AlarmState | None:
        """Return one alarm's latest state."""
        row = self._db.execute("SELECT body FROM alarm WHERE id = ?", (alarm_id,)).fetchone()
        return AlarmState.from_json(json.loads(row[0])) if row else None

    def transition_ids_after(self, pos: int) -> set[str]:
        """Return the ids of journalled transitions caused by log entries after `pos`.

        The journal is in the order of the log, and read from its end: core's start waits for this, however long it is.
        """
        found: set[str] = set()
        rows = self._db.execute("SELECT id, pos FROM transition ORDER BY row DESC")
        for transition_id, caused_at in rows:
            if caused_at <= pos:
                break
            found.add(transition_id)
        rows.close()
        return found

    def _one(self, sql: str) -> Any:
        row = self._db.execute(sql).fetchone()
        assert row is not None, "an aggregate or a pragma always answers"
        return row[0]

    def size_bytes(self) -> int:
        """Return the bytes in use: free pages will be used again before the file grows."""
        pages, free, size = (
            self._one(f"PRAGMA {name}") for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def wal_bytes(self) -> int:
        """Return what the write-ahead log beside the file takes: the most it held since it was last cut, not what is in it."""
        try:
            return Path(self._db.filename_wal).stat().st_size
        except FileNotFoundError:
            return 0


class FrameValues:
    """The latest value of every tag as the ledger has it, read forward from row to row."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader
        self._pos = 0
        self._names: dict[int, str] = {}
        self._latest: dict[str, tuple[float, int, int]] = {}

    def latest(self, rows_max: int) -> dict[str, tuple[float, int, int]]:
        """Read up to `rows_max` newest live frames not seen yet; return tag id to (value, code, source_ms)."""
        rows = self._reader.rows(
            "SELECT pos, body FROM log WHERE pos > ? AND kind = 'F' ORDER BY pos DESC LIMIT ?", (self._pos, rows_max)
        )
        if rows:
            self._names = self._reader.tag_names()
            self._pos = rows[0][0]
        for _, body in reversed(rows):
            columns = unpack_columns(body)
            for number, value, code, source_ms in zip(
                columns.tag.tolist(), columns.value.tolist(), columns.code.tolist(), columns.source_ms.tolist(), strict=True
            ):
                self._latest[self._names[number]] = (value, code, source_ms)
        return self._latest
