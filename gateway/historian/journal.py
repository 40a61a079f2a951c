"""The ledger's journal, read from beside a running core by whoever has no turnstile: a copy, a command.

Transitions lie by row, not by time, and a scan of all of them for every day would stand in core's way for its whole length.
So rows and times are read once, in short reads with a rest after each in which core can begin its write-ahead log
anew; what they say of a range is then fetched by row. 16 bytes a transition stay in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import numpy as np
from numpy.typing import NDArray

from gateway.core.reader import connect
from gateway.historian.events import EVENTS_MAX
from gateway.historian.limits import too_many
from gateway.historian.store import AlarmEvent, StoreAwayError

SLICE_ROWS: Final = 5_000
FETCH_ROWS: Final = 500
READ_S_MAX: Final = 2.0
REST_S_MIN: Final = 0.002
_BUSY_MS: Final = 2_000
_STEPS: Final = 20_000  # of SQLite's machine between two looks at the clock

T = TypeVar("T")
Rows = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""Runs one short read: SQL and its values in, rows out."""

_FETCH: Final = (
    "SELECT id, alarm_id, json_extract(body, '$.alarm.tag') AS tag, kind, json_extract(body, '$.alarm.limit'),"
    " json_extract(body, '$.alarm.grade'), at_ms, late FROM transition WHERE row IN (SELECT value FROM json_each(?))"
    " AND (?2 IS NULL OR tag = ?2) ORDER BY at_ms, row"
)


class Journal:
    """The journal of the ledger at a path. Any thread may ask; questions follow one another."""

    def __init__(self, path: Path, rest: Callable[[float], None] = time.sleep) -> None:
        """`rest` is called after every read, with the seconds to rest: as long as the read took."""
        self._path, self._rest = path, rest
        self._lock = threading.Lock()
        self._row: NDArray[np.int64] = np.empty(0, np.int64)
        self._at_ms: NDArray[np.int64] = np.empty(0, np.int64)
        self._last = ""  # id of the last row known

    def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = EVENTS_MAX) -> list[AlarmEvent]:
        """Return the transitions of [from_ms, to_ms), oldest first; none where there is no ledger.

        Raises:
            QueryTooLargeError: there are more than `rows_max`. StoreAwayError: the ledger cannot be read now.
        """

        def ask(db: apsw.Connection) -> list[AlarmEvent]:
            self._learn(db)
            return self._of(db, from_ms, to_ms, tag, rows_max)

        return self._asked(ask, [])

    def ask(self, question: Callable[[Rows], T], unasked: T) -> T:
        """Return what a question of a few short reads says of the ledger; `unasked` where there is none.

        Raises:
            StoreAwayError: the ledger cannot be read now.
        """
        return self._asked(lambda db: question(lambda sql, values: self._read(db, sql, values)), unasked)

    def _asked(self, question: Callable[[apsw.Connection], T], unasked: T) -> T:
        with self._lock:
            try:
                if not self._path.exists():
                    return unasked
                with closing(connect(self._path, read_only=True)) as db:
                    db.set_busy_timeout(_BUSY_MS)
                    return question(db)
            except (apsw.Error, OSError) as error:
                raise StoreAwayError(
                    f"{self._path}: {error or type(error).__name__}; see that the disk is there and has room, then try again",
                    f"{self._path}：{error or type(error).__name__}；请检查磁盘是否可用、空间是否足够，然后重试",
                ) from error

    def _learn(self, db: apsw.Connection) -> None:
        """Bring rows and times up to now."""
        last = int(self._row[-1]) if len(self._row) else 0
        if last and self._read(db, "SELECT id FROM transition WHERE row = ?", (last,)) != [(self._last,)]:
            self._row = self._at_ms = np.empty(0, np.int64)  # another ledger, or one that let go of its beginnings
            last = 0
        parts = [np.stack([self._row, self._at_ms], axis=1)]
        found = [(0, 0, "")] * SLICE_ROWS
        while len(found) == SLICE_ROWS:
            found = self._read(db, "SELECT row, at_ms, id FROM transition WHERE row > ? ORDER BY row LIMIT ?", (last, SLICE_ROWS))
            if found:
                last, _, self._last = found[-1]
                parts.append(np.array([each[:2] for each in found], np.int64))
        if len(parts) > 1:
            self._row, self._at_ms = np.concatenate(parts).T.copy()

    def _of(self, db: apsw.Connection, from_ms: int, to_ms: int, tag: str | None, rows_max: int) -> list[AlarmEvent]:
        inside = np.flatnonzero((self._at_ms >= from_ms) & (self._at_ms < to_ms))
        if tag is None and len(inside) > rows_max:
            raise too_many(rows_max)
        rows = self._row[inside[np.argsort(self._at_ms[inside], kind="stable")]].tolist()
        events: list[AlarmEvent] = []
        for at in range(0, len(rows), FETCH_ROWS):
            found = self._read(db, _FETCH, (str(rows[at : at + FETCH_ROWS]), tag))
            events += [
                AlarmEvent(str(id_), str(alarm_id), str(of), str(kind), str(limit), int(grade), int(at_ms), bool(late))
                for id_, alarm_id, of, kind, limit, grade, at_ms, late in found
            ]
            if len(events) > rows_max:
                raise too_many(rows_max)
        return events

    def _read(self, db: apsw.Connection, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """Run one bounded read, then rest as long as it took: nobody else bounds what a command does beside core."""
        began_s = time.monotonic()
        db.set_progress_handler(lambda: time.monotonic() - began_s > READ_S_MAX, _STEPS)
        found = list(db.execute(sql, values))
        self._rest(max(REST_S_MIN, time.monotonic() - began_s))
        return found
