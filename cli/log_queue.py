"""Log lines go through a bounded queue to a thread of their own, so that nobody ever waits for stderr.

A terminal that was stopped, a full pipe that nobody reads, a journal on a slow disk: each blocks who writes to it.
What finds no room is dropped and counted, and the count stands where the lines would have stood.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import time
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final

LINES_QUEUED_MAX: Final = 4_096
FLUSH_S_MAX: Final = 1.0
FLUSH_POLL_S: Final = 0.005
ROOM_AWAITED_S: Final = 0.5


class FileDescriptorHandler(logging.Handler):
    """Writes lines to a file descriptor, past Python's own buffers.

    A thread that is blocked inside such a buffer would make the interpreter abort when it ends.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def createLock(self) -> None:
        """Have no lock: one thread writes, and whoever ends the process must not wait for it."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. Waits as long as it takes: call it from a thread that nobody waits for."""
        rest = memoryview((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the descriptor non-blocking, for all who share it
                select.select([], [self._descriptor], [], ROOM_AWAITED_S)
            except OSError:  # the reader is gone for good, and there is no other place to say so
                return


class LogQueue(QueueHandler):
    """The handler that everybody logs to: formats the record, and never waits. Owns the thread that writes."""

    def __init__(self, formatter: logging.Formatter, out: logging.Handler, lines_max: int = LINES_QUEUED_MAX) -> None:
        """`formatter` makes the whole line; `out` writes it."""
        self._lines: queue.Queue[Any] = queue.Queue(lines_max)
        super().__init__(self._lines)
        self.setFormatter(formatter)
        self._out = out
        self._dropped = 0
        self._stuck = False
        self._listener = QueueListener(self._lines, out)
        self._listener.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it as dropped. Called under the handler's lock."""
        try:
            if self._dropped:
                self._lines.put_nowait(self._gap())
                self._dropped = 0
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def _gap(self) -> logging.LogRecord:
        text = f"{self._dropped} lines of this log were dropped here: nobody took them from stderr"
        told: logging.LogRecord = self.prepare(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))
        return told

    def flush(self) -> None:
        """Wait until everything is written, or `FLUSH_S_MAX` is over; after that in vain, wait no more."""
        until_s = time.monotonic() + (0.0 if self._stuck else FLUSH_S_MAX)
        while self._lines.unfinished_tasks and time.monotonic() < until_s:
            time.sleep(FLUSH_POLL_S)
        self._stuck = self._lines.unfinished_tasks > 0

    def close(self) -> None:
        """Write what can be written soon, and let the thread go; one that is blocked is left behind."""
        self.flush()
        with contextlib.suppress(queue.Full):
            if self._dropped:
                self._lines.put_nowait(self._gap())
                self._dropped = 0
            self._lines.put_nowait(None)
        self.flush()
        super().close()
