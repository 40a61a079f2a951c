"""The writer: the only place that waits for the disk, in a thread of its own.

Batches are handed over and never copied; everything that waits goes into one transaction (group commit). A commit
that fails is tried again with the same batches until it succeeds: nothing that was handed over is given up.
Ballast, a file kept only to be deleted, makes room when the disk is full.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import apsw

from gateway.core.ledger import Batch, Committed, Ledger

log = logging.getLogger(__name__)

OnCommitted = Callable[[list[Batch], Committed, float], None]
OnTrouble = Callable[[str], None]

RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
GROUP_BATCHES_MAX: Final = 256
BALLAST_BYTES: Final = 16 * 1024 * 1024
BALLAST_AGAIN_S: Final = 60.0


class Ballast:
    """Bytes that can be given back to a full disk, so that the journal of the fault itself still fits."""

    def __init__(self, path: Path, size_bytes: int = BALLAST_BYTES) -> None:
        self._path, self._size_bytes = path, size_bytes

    def fill(self) -> None:
        """Lay the ballast if there is room for it; without room, there is none to keep."""
        if self._path.exists():
            return
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
        except OSError:
            self._path.unlink(missing_ok=True)

    @property
    def laid(self) -> bool:
        """The ballast stands on the disk."""
        return self._path.exists()

    def drop(self) -> bool:
        """Free the ballast; False if there was none."""
        if not self._path.exists():
            return False
        self._path.unlink()
        return True


class LedgerWriter(Protocol):
    """What core needs of whatever writes its batches: `Writer`, or its twin `TaskWriter` in virtual time."""

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if a bug did."""

    def start(self) -> None:
        """Begin to write."""

    def submit(self, batch: Batch) -> None:
        """Hand a batch over. Never blocks: the caller bounds what waits."""

    def close(self, timeout_s: float) -> bool:
        """Write what waits and end; False if that took longer."""

    @property
    def alive(self) -> bool:
        """It still writes. It ends only by `close` or by a bug."""


class GroupCommit:
    """Commits groups of batches; who calls it does the waiting between two tries."""

    def __init__(
        self,
        ledger: Ledger,
        on_committed: OnCommitted,
        on_trouble: OnTrouble,
        ballast: Ballast | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the ledger to two callbacks, both called by `attempt`.

        Args:
            on_committed: the batches of one transaction, what it settled, and how long it took in seconds.
            on_trouble: why a commit failed; the same batches are tried again.
        """
        self._ledger, self._on_committed, self._on_trouble = ledger, on_committed, on_trouble
        self._ballast, self._monotonic = ballast, monotonic
        self._freed_s: float | None = None
        self._wait_s = RETRY_FIRST_S
        self.error: apsw.Error | None = None
        """Why the last try failed."""

    def begin(self) -> None:
        """Make ready before the first group."""
        if self._ballast is not None:
            self._ballast.fill()

    def attempt(self, group: list[Batch]) -> float | None:
        """Try once to commit: None when it is done, else the seconds to wait before the same group is tried again."""
        started = self._monotonic()
        try:
            committed = self._ledger.commit(group)
        except (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.ReadOnlyError, apsw.CantOpenError) as error:
            self.error = error
            if isinstance(error, apsw.FullError) and self._ballast is not None and self._ballast.drop():
                self._freed_s = self._monotonic()
                self._on_trouble("disk full: ballast freed")
                return 0.0
            self._on_trouble(f"{type(error).__name__}: {error}")
            wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, RETRY_MAX_S)
            return wait_s
        self._on_committed(group, committed, self._monotonic() - started)
        self._wait_s = RETRY_FIRST_S
        self._lay_ballast_again()
        return None

    def at_rest(self) -> None:
        """Nothing waits: do what the disk must do now and then, so that no commit has to wait for it."""
        if self._ledger.fold_due:
            self._ledger.fold()

    def _lay_ballast_again(self) -> None:
        """Some time after it was freed; the room may be there by then."""
        if self._ballast is None or self._freed_s is None or self._monotonic() - self._freed_s < BALLAST_AGAIN_S:
            return
        self._ballast.fill()
        self._freed_s = None if self._ballast.laid else self._monotonic()


class Writer:
    """Owns the ledger's writing connection in a thread named `ledger-writer`."""

    def __init__(
        self, ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, ballast: Ballast | None = None
    ) -> None:
        """Join the ledger to two callbacks, both called in the writer's thread; see `GroupCommit`."""
        self._commits = GroupCommit(ledger, on_committed, on_trouble, ballast)
        self._waiting: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Hand a batch over. Never blocks: the caller bounds what waits."""
        self._waiting.put(batch)

    def close(self, timeout_s: float) -> bool:
        """Write what waits and end the thread; False if it did not end in time."""
        self._waiting.put(None)
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """The thread runs. It ends only by `close` or by a bug."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._commits.begin()
            closing = False
            while not closing:
                first = self._waiting.get()
                if first is None:
                    return
                group = [first]
                while len(group) < GROUP_BATCHES_MAX:
                    try:
                        following = self._waiting.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        closing = True
                        break
                    group.append(following)
                self._commit(group)
                if self._waiting.empty():
                    self._commits.at_rest()
        except BaseException as error:  # a bug must be seen by core's watchdog, not die with the thread
            self.failure = error
            log.critical("ledger writer died: %r", error)
            raise

    def _commit(self, group: list[Batch]) -> None:
        while (wait_s := self._commits.attempt(group)) is not None:
            if wait_s and self._stop.wait(wait_s) and wait_s >= RETRY_MAX_S:
                assert self._commits.error is not None
                raise self._commits.error
