"""Now and then all reads of this process stop for a moment, so that core's write-ahead log does not grow without end.

SQLite begins its write-ahead log anew only when no reader stands in the old one. Reads that follow each other without a
gap, each short enough, would keep it growing until the disk is full, and core with it. So when the log has grown, no
new read begins until those under way have ended and core has had time for a commit or two.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.serve.view_errors import OutOfTimeError

LOG_BYTES: Final = 72 * 1024 * 1024  # beyond what core keeps of it when it begins anew
EVERY_S: Final = 10.0
REST_S: Final = 1.0  # core folds once in so many commits, and begins anew at the next
CLOSED_S_MAX: Final = 4.5
LOOK_S: Final = 0.05


class Turnstile:
    """Every read passes it. Whoever reads what is new calls `look`, a few times a second."""

    def __init__(
        self, log: Path, monotonic: Callable[[], float] = time.monotonic, *, log_bytes: int = LOG_BYTES,
        every_s: float = EVERY_S,
    ) -> None:  # fmt: skip
        """`log` is the ledger's write-ahead log."""
        self._log, self._monotonic, self._log_bytes, self._every_s = log, monotonic, log_bytes, every_s
        self._changed = threading.Condition()
        self._inside = 0
        self._closed_s: float | None = None
        self._again_s = -math.inf
        self._empty_s = 0.0  # when nobody was inside last

    @contextmanager
    def reading(self, give_up_at: float) -> Iterator[None]:
        """Read inside. `give_up_at` is in seconds of `time.monotonic`.

        Raises:
            OutOfTimeError: it was closed for too long.
        """
        with self._changed:
            while not self._open():
                if time.monotonic() >= give_up_at:
                    raise OutOfTimeError
                self._changed.wait(LOOK_S)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._empty_s = self._monotonic()

    def look(self) -> bool:
        """Close it if the log is large, once in a while; returns whether one may read."""
        size, now_s = self._size(), self._monotonic()
        with self._changed:
            if self._closed_s is None and size >= self._log_bytes and now_s >= self._again_s:
                self._closed_s = self._empty_s = now_s
                self._again_s = now_s + self._every_s
            return self._open()

    def _open(self) -> bool:
        """Return whether it is open; open it when there was rest enough, or none can be had."""
        if self._closed_s is not None:
            now_s = self._monotonic()
            rested = not self._inside and now_s - self._empty_s >= REST_S
            if rested or now_s - self._closed_s > CLOSED_S_MAX:
                self._closed_s = None
                self._changed.notify_all()
        return self._closed_s is None

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
