"""The way to the ledger file for a bystander: it may not be there yet, go away, come back as another, or be busy.

Whatever is wrong is a `LedgerAwayError` that names a state; the next try may be right. Reads are short: nothing
stays open between calls but the connection itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.core.reader import connect
from gateway.core.schema import SCHEMA_VERSION
from gateway.serve.turnstile import Turnstile
from gateway.serve.view_errors import LedgerAwayError, OutOfTimeError

BUSY_MS_MAX: Final = 500
STEPS_BETWEEN_LOOKS: Final = 20_000  # virtual machine steps of SQLite: a millisecond or two

Rows = list[tuple[Any, ...]]


class LedgerFile:
    """One read-only connection that follows the file at its path. Used by one thread at a time."""

    def __init__(self, path: Path, site: str, turnstile: Turnstile) -> None:
        self.path = path
        self._site, self._turnstile = site, turnstile
        self._inside = False  # of `at_once`
        self._db: apsw.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._give_up_at = 0.0

    def open(self) -> bool:
        """Make sure that the file at the path is the one we read; return whether it was opened anew.

        Raises:
            LedgerAwayError: there is none that we could read.
        """
        try:
            stat = self.path.stat()
        except OSError as error:
            self.close()
            raise LedgerAwayError("missing", f"{self.path}: {error.strerror}") from None
        if self._db is not None and self._file == (stat.st_dev, stat.st_ino):
            return False
        self.close()
        try:
            self._db = self._connect()
            self._check()
        except apsw.Error as error:
            self.close()
            raise LedgerAwayError(*_named(self.path, error)) from None
        except LedgerAwayError:
            self.close()
            raise
        self._file = (stat.st_dev, stat.st_ino)
        return True

    def _connect(self) -> apsw.Connection:
        db = connect(self.path, read_only=True)
        db.set_busy_timeout(BUSY_MS_MAX)
        db.set_progress_handler(lambda: time.monotonic() > self._give_up_at, STEPS_BETWEEN_LOOKS)
        self._give_up_at = time.monotonic() + 5.0
        return db

    def _check(self) -> None:
        """Refuse what is no ledger of this site in a schema we know."""
        if not self._query("SELECT 1 FROM sqlite_master WHERE name = 'meta'"):
            if not self._query("SELECT 1 FROM sqlite_master LIMIT 1"):
                raise LedgerAwayError("missing", f"{self.path}: empty, core has not made its tables yet")
            raise LedgerAwayError("foreign", f"{self.path}: a database of another program")
        version, site = self._meta("schema_version"), self._meta("site")
        if version != str(SCHEMA_VERSION):
            detail = f"schema version {version}, this program reads {SCHEMA_VERSION}"
            raise LedgerAwayError("other_schema", detail, found=version, wanted=str(SCHEMA_VERSION))
        if site != self._site:
            raise LedgerAwayError("other_site", f"belongs to site {site}, not {self._site}", found=site, wanted=self._site)

    def _meta(self, key: str) -> str:
        rows = self._query("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else ""

    def ledger_id(self) -> str:
        """Return the ledger's id; empty until core has named it."""
        return str((self.rows("SELECT value FROM meta WHERE key = 'ledger_id'") or [("",)])[0][0])

    def give_up_after(self, seconds: float) -> None:
        """Let every read from now on end after so long, counted from here."""
        self._give_up_at = time.monotonic() + seconds

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> Rows:
        """Run one bounded query (the caller writes the LIMIT).

        Raises:
            LedgerAwayError: it could not be read.
            OutOfTimeError: the time given is over.
        """
        try:
            return self._query(sql, parameters)
        except apsw.InterruptError:
            raise OutOfTimeError from None
        except apsw.BusyError as error:
            raise LedgerAwayError(*_named(self.path, error)) from None
        except apsw.Error as error:
            self.close()  # a file that was written over, or a disk that failed: the next try opens it anew
            raise LedgerAwayError(*_named(self.path, error)) from None

    def _query(self, sql: str, parameters: tuple[Any, ...] = ()) -> Rows:
        assert self._db is not None, "opened first"
        if self._inside:
            return list(self._db.execute(sql, parameters))
        with self._turnstile.reading(self._give_up_at):
            return list(self._db.execute(sql, parameters))

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the reads inside see one state of the ledger; keep it to milliseconds."""
        with self._turnstile.reading(self._give_up_at):
            self._inside = True
            try:
                self.rows("BEGIN")
                yield
            finally:
                self._inside = False
                if self._db is not None and self._db.in_transaction:
                    with contextlib.suppress(apsw.Error):
                        self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db, self._file = None, None


def log_of(ledger: Path) -> Path:
    """Return the path of a ledger's write-ahead log."""
    return ledger.with_name(ledger.name + "-wal")


def _named(path: Path, error: apsw.Error) -> tuple[str, str]:
    if isinstance(error, apsw.NotADBError):
        return "foreign", f"{path}: not an SQLite file"
    return "unreadable", f"{path}: {error}"


class LedgerPool:
    """At most `size` connections for questions from any thread; one more waits its turn, for so long as it was given."""

    def __init__(self, make: Callable[[], LedgerFile], size: int) -> None:
        self._make = make
        self._turns = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[LedgerFile] = []

    @contextlib.contextmanager
    def lend(self, seconds: float) -> Iterator[LedgerFile]:
        """Lend an open connection whose reads end after `seconds`.

        Raises:
            LedgerAwayError: there is no ledger to read.
            OutOfTimeError: none came free in time.
        """
        began = time.monotonic()
        if not self._turns.acquire(timeout=max(0.0, seconds)):
            raise OutOfTimeError
        try:
            with self._lock:
                file = self._idle.pop() if self._idle else self._make()
            try:
                file.open()
                file.give_up_after(seconds - (time.monotonic() - began))
                yield file
            finally:
                with self._lock:
                    self._idle.append(file)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Let go of the idle connections."""
        with self._lock:
            for file in self._idle:
                file.close()
            self._idle.clear()
