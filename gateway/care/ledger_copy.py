"""Copies a ledger that core is writing, row by row, in reads of some milliseconds; the last one makes it consistent.

SQLite's own ways do not fit beside a writer that never rests: the backup API begins anew after every commit of another
process, and `VACUUM INTO` reads in one transaction, which keeps the write-ahead log from being folded in for as long as
it takes (docs/decisions/0016). But most of a ledger never changes once it is written, and what changes is told of by
rows that do not: an alarm changes with a row of the journal, a notice with an attempt. So:

1. `transition` and `attempt` are copied up to their ends, then `alarm`, `outbox`, `loss` and `log`, in pieces.
2. Rounds: what those have more by now, and every alarm and notice that new rows speak of.
3. When a round finds little, the next one reads the tables that change anywhere (they are small) in the same
   transaction. What is committed then is the copy.

Frame rows that retention removed meanwhile are missing or still there; both are behind both snapshots and sealed.
The copy is a database of its own with its progress in it: killed at any moment, it goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.care.disk import Pace
from gateway.care.errors import CareError, NothingToBackUpError, SourceChangedError
from gateway.care.listing import LedgerFacts
from gateway.core.reader import connect

Row = tuple[Any, ...]

READ_S_MAX: Final = 5.0
"""The longest a read may keep the write-ahead log: the rule for every reader of the ledger."""
PIECE_BYTES: Final = 4 * 1024 * 1024
PIECE_ROWS: Final = 20_000
PIECE_S: Final = 0.25
LITTLE_ROWS: Final = 2_000
ROUNDS_MAX: Final = 10_000
STEPS_BETWEEN_LOOKS: Final = 10_000
ROW_BYTES: Final = 64

# Tables whose rows never change, by their key, in the order they are copied in.
GROWING: Final = {"transition": "row", "attempt": "row", "loss": "row", "log": "pos"}
# Tables whose rows change only with a row of another one: table, key, the other one, and its column that names the row.
FOLLOWING: Final = {"alarm": ("id", "transition", "alarm_id", "id"), "outbox": ("row", "attempt", "notice_id", "notice_id")}
ORDER: Final[tuple[str, ...]] = ("transition", "attempt", "alarm", "outbox", "loss", "log")
PROGRESS: Final = "care_progress"


@dataclass(frozen=True, slots=True)
class Copied:
    """What the copy holds."""

    facts: LedgerFacts
    longest_read_s: float
    rounds: int
    rows: int


@dataclass(slots=True)
class _Table:
    name: str
    key: str
    columns: tuple[str, ...]
    upto: Any  # the last key copied
    through: bool  # its end was reached once
    at: int  # place of the key in the columns

    def select(self, where: str) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {where}"  # noqa: S608 - names of the schema

    def insert(self) -> str:
        marks = ",".join("?" * len(self.columns))
        return f"INSERT OR REPLACE INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"  # noqa: S608 - as above


@dataclass(slots=True)
class _Found:
    """Rows read in one transaction, to be written when it is over."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    upto: dict[str, Any] = field(default_factory=dict)  # the last key up to which a table was read without a hole
    whole: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))


class LedgerCopy:
    """One copy in the making. For one thread."""

    def __init__(
        self, source: Path, target: Path, pace: Pace, step: Callable[[str], None] = lambda _: None,
        told: Callable[[int], None] = lambda _: None, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Open both; `target` may hold an unfinished copy of the same ledger, which goes on.

        Raises:
            NothingToBackUpError: there is no ledger at `source`.
        """
        self._pace, self._step, self._told, self._monotonic = pace, step, told, monotonic
        self._target = target
        self._longest_s, self._give_up_at, self._rows = 0.0, 0.0, 0
        if not source.is_file():
            raise NothingToBackUpError(source.parent.parent)
        self._from = connect(source, read_only=True)
        self._to: apsw.Connection | None = None
        self._from.set_progress_handler(lambda: self._monotonic() > self._give_up_at, STEPS_BETWEEN_LOOKS)
        try:
            self._schema, self._id = self._look()
            self._to = self._open()
            self._tables = {name: self._table(name) for name in ORDER if name in self._schema}
        except BaseException:  # Ctrl-C too must not leave a reader in the ledger's log
            self.close()
            raise

    @property
    def ledger_id(self) -> str:
        """The id of the ledger that is copied."""
        return self._id

    def close(self) -> None:
        """Close both."""
        self._from.close()
        if self._to is not None:
            self._to.close()

    def run(self, before: Callable[[], None] = lambda: None, still: Callable[[], bool] = lambda: True) -> Copied:
        """Copy until it is whole; `finish` then makes a plain ledger of it.

        Args:
            before: called before each read that may be the last. still: called in the transaction of one that would be:
                False reads once more.

        Raises:
            SourceChangedError: the ledger was replaced or upgraded meanwhile, or it never comes to rest.
        """
        for name in ORDER:
            if name in self._tables:
                self._copy_whole(self._tables[name])
        for rounds in range(1, ROUNDS_MAX + 1):
            found = _Found()
            before()
            with self._reading():
                self._same()
                full = self._more(found)
                last = not full and found.count <= LITTLE_ROWS and self._changing(found) and still()
                facts = self._facts() if last else None
            self._write(found)
            if facts is not None:
                return Copied(facts, self._longest_s, rounds, self._rows)
        raise SourceChangedError(
            self._target, "the ledger grows faster than it can be copied", "账本增长得比备份快"
        )

    # -- reading: nothing is written while a transaction is open --

    @contextmanager
    def _reading(self) -> Iterator[None]:
        began = self._monotonic()
        self._give_up_at = began + READ_S_MAX
        self._from.execute("BEGIN")
        try:
            yield
        except apsw.InterruptError:
            raise SourceChangedError(
                self._target, f"a read of the ledger took more than {READ_S_MAX:g} s and was ended",
                f"读账本超过 {READ_S_MAX:g} 秒，已中止",
            ) from None
        finally:
            self._give_up_at = self._monotonic() + READ_S_MAX
            self._from.execute("ROLLBACK")
            self._longest_s = max(self._longest_s, self._monotonic() - began)

    def _look(self) -> tuple[dict[str, str], str]:
        """Return the schema's statements by name, tables first, and the ledger's id."""
        with self._reading():
            rows = self._from.execute(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' AND name <> ?"
                " ORDER BY type <> 'table', name", (PROGRESS,),
            ).fetchall()  # fmt: skip
            schema = {str(name): str(sql) for name, sql in rows}
            if "meta" not in schema or "log" not in schema:
                raise CareError(
                    f"{self._target}: the ledger has no tables of ours; name the data folder of a core that has run",
                    f"{self._target}：账本中没有本程序的表；请指定核心运行过的数据目录",
                )
            return schema, self._meta("ledger_id")

    def _meta(self, key: str) -> str:
        row = self._from.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def _same(self) -> None:
        rows = self._from.execute("SELECT name, sql FROM sqlite_master").fetchall()
        now = {str(name): str(sql) for name, sql in rows}
        if self._meta("ledger_id") != self._id or any(now.get(name) != sql for name, sql in self._schema.items()):
            raise SourceChangedError(
                self._target, "the ledger was restored or upgraded while it was copied", "备份期间账本被恢复或升级"
            )

    def _piece(self, table: _Table, found: _Found) -> bool:
        """Read on in a table; returns whether there may be more."""
        rows = found.rows.setdefault(table.name, [])
        size, until = 0, self._monotonic() + PIECE_S
        cursor = self._from.execute(
            table.select(f"{table.key} > ? ORDER BY {table.key} LIMIT {PIECE_ROWS}"), (table.upto,)
        )
        for row in cursor:
            rows.append(row)
            size += ROW_BYTES + sum(len(value) for value in row if isinstance(value, bytes | str))
            if size >= PIECE_BYTES or self._monotonic() >= until:
                cursor.close()
                break
        else:
            found.upto[table.name] = rows[-1][table.at] if rows else table.upto
            return len(rows) >= PIECE_ROWS
        found.upto[table.name] = rows[-1][table.at]
        return True

    def _more(self, found: _Found) -> bool:
        """Read what is new; returns whether there may be more."""
        full = False
        for table in self._tables.values():
            if table.name == "alarm":
                continue  # a new one comes with a row of the journal
            full = self._piece(table, found) or full
        for name, (_, teller, column, own) in FOLLOWING.items():
            if name in self._tables and teller in self._tables:
                table, place = self._tables[name], self._tables[teller].columns.index(column)
                changed = {row[place] for row in found.rows[teller]}
                found.rows.setdefault(name, [])
                for one in changed:
                    found.rows[name] += self._from.execute(table.select(f"{own} = ?"), (one,)).fetchall()
        return full

    def _changing(self, found: _Found) -> bool:
        """Read whole what may change anywhere."""
        for name, sql in self._schema.items():
            if name not in self._tables and sql.upper().startswith("CREATE TABLE"):
                found.whole[name] = self._from.execute(f"SELECT {', '.join(self._columns(name))} FROM {name}").fetchall()  # noqa: S608 - names of the schema
        return True

    def _facts(self) -> LedgerFacts:
        pos: Any = self._from.execute("SELECT coalesce(max(pos), 0) FROM log").fetchall()[0][0]
        row: Any = self._from.execute("SELECT row, hash FROM transition ORDER BY row DESC LIMIT 1").fetchone() or (0, "")
        return LedgerFacts(self._id, self._meta("site"), int(self._meta("schema_version")), int(pos), int(row[0]), str(row[1]))

    def _columns(self, name: str) -> tuple[str, ...]:
        return tuple(str(row[1]) for row in self._from.execute(f"PRAGMA table_info({name})"))

    def _table(self, name: str) -> _Table:
        key = GROWING.get(name) or FOLLOWING[name][0]
        columns = self._columns(name)
        assert self._to is not None
        row = self._to.execute(f"SELECT value FROM {PROGRESS} WHERE key = ?", (name,)).fetchone()  # noqa: S608 - our own name
        upto, through = json.loads(row[0]) if row else ("" if name == "alarm" else -1, False)
        return _Table(name, key, columns, upto, through, columns.index(key))

    # -- writing --

    def _open(self) -> apsw.Connection:
        """Go on with the copy that is there, if it is one of this ledger in this schema; else begin anew."""
        fingerprint = hashlib.sha256(json.dumps([self._id, self._schema]).encode()).hexdigest()
        if self._target.exists():
            try:
                db = self._connect()
                (known,) = db.execute(f"SELECT value FROM {PROGRESS} WHERE key = 'of'").fetchall()[0]  # noqa: S608 - our own name
                if known == fingerprint:
                    return db
                db.close()
            except (apsw.Error, IndexError):  # not finished even in its making
                pass
            self._target.unlink()
            self._target.with_name(self._target.name + "-journal").unlink(missing_ok=True)
        self._step("make the copy of the ledger")
        db = self._connect(new=True)
        with db:
            for sql in self._schema.values():
                db.execute(sql)
            db.execute(f"CREATE TABLE {PROGRESS} (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            db.execute(f"INSERT INTO {PROGRESS} VALUES ('of', ?)", (fingerprint,))  # noqa: S608 - our own name
        return db

    def _connect(self, *, new: bool = False) -> apsw.Connection:
        db = apsw.Connection(str(self._target))
        if new:
            size: Any = self._from.execute("PRAGMA page_size").fetchall()[0][0]
            db.execute(f"PRAGMA page_size = {int(size)}")
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -32768")
        return db

    def _copy_whole(self, table: _Table) -> None:
        """Copy a table up to its end, once: from then on only rounds go on with it, which look at what follows its rows."""
        while not table.through:
            found = _Found()
            with self._reading():
                table.through = not self._piece(table, found)
            self._write(found)

    def _write(self, found: _Found) -> None:
        assert self._to is not None
        size = sum(ROW_BYTES + sum(len(v) for v in row if isinstance(v, bytes | str)) for rows in found.rows.values() for row in rows)
        self._step("write a piece of the ledger")
        with self._to as db:
            for name, rows in found.rows.items():
                table = self._tables[name]
                db.executemany(table.insert(), rows)
                table.upto = found.upto.get(name, table.upto)
                progress = json.dumps([table.upto, table.through])
                db.execute(f"INSERT OR REPLACE INTO {PROGRESS} VALUES (?, ?)", (name, progress))  # noqa: S608 - our own name
            for name, rows in found.whole.items():
                db.execute(f"DELETE FROM {name}")  # noqa: S608 - names of the schema
                if rows:
                    db.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(rows[0]))})", rows)  # noqa: S608 - as above
        self._rows += found.count
        self._told(size)
        self._pace.gave(size)

    def finish(self) -> None:
        """Make a plain ledger of the copy, and close it."""
        assert self._to is not None
        self._step("finish the copy of the ledger")
        with self._to as db:
            db.execute(f"DROP TABLE {PROGRESS}")
        self._to.close()
        self._to = None
