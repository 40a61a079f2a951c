"""The watchdog thread: sees that the loop turns, feeds systemd only when it does, writes the heartbeat file.

It runs beside the loop so that a stalled loop, or a disk that stalls the heartbeat file, cannot hide itself.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from wire import notify_systemd

log = logging.getLogger(__name__)

PERIOD_S: Final = 0.5
STALL_SAID_S: Final = 3.0
STALL_FATAL_S: Final = 7.0  # the supervisor starts core anew, which replays to the same state
FROZEN_S: Final = 2.0
STALL_EXIT_CODE: Final = 70
ROOM_BYTES: Final = 16_384
TROUBLE_SAID_S: Final = 60.0


class Watchdog:
    """Owns the thread `core-watchdog`."""

    def __init__(
        self,
        cycles: Callable[[], int],
        heartbeat: Callable[[], dict[str, Any]],
        path: Path,
        on_stall: Callable[[float], None],
        fatal: Callable[[], None] | None = None,
        gone: Callable[[], str] = lambda: "",
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Join the watch to what it watches and to whom it tells.

        `on_stall` is called from the thread, when a stall is found and again before the end, with its length so far
        in seconds; `on_turn` when the loop turns again after one.

        `gone` says why core must not go on (its ledger is no longer where it was), or nothing.
        """
        self._gone = gone
        self._cycles, self._heartbeat, self._path = cycles, heartbeat, path
        self._on_stall, self._on_turn = on_stall, on_turn
        self._fatal = fatal or _end_at_once
        self._turn, self._silent_at = 0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="core-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()
        notify_systemd("READY=1")

    def close(self) -> None:
        """End the thread after one last heartbeat."""
        self._stop.set()
        self._thread.join(2.0)
        self._write()

    def _run(self) -> None:
        seen, since, said = self._cycles(), time.monotonic(), False
        while True:
            rested = time.monotonic()
            if self._stop.wait(PERIOD_S):
                return
            cycles, now = self._cycles(), time.monotonic()
            if now - rested >= FROZEN_S:  # the whole process stood still, this thread too: the loop gets its chance first
                since = now
            gone = self._gone()
            if gone:
                log.critical("%s; core ends before it acknowledges anything more", gone)
                self._fatal()
            elif cycles != seen:
                if said:
                    log.warning("core's loop turns again")
                    self._on_turn()
                seen, since, said = cycles, now, False
                notify_systemd("WATCHDOG=1")
            elif now - since >= STALL_FATAL_S:
                log.critical("core's loop has not turned for %.1f s; ending so that it is started anew", now - since)
                self._on_stall(now - since)
                self._fatal()
            elif now - since >= STALL_SAID_S and not said:
                said = True
                log.error("core's loop has not turned for %.1f s", now - since)
                self._on_stall(now - since)
            self._write()

    def _write(self) -> None:
        try:
            self._turn = write_beat(self._path, self._turn, json.dumps(self._heartbeat(), ensure_ascii=False).encode())
            self._silent_at = 0.0
        except OSError as error:
            now = time.monotonic()
            if not self._silent_at or now - self._silent_at >= TROUBLE_SAID_S:
                self._silent_at = now
                log.warning("heartbeat file: %s; said again in %g s while it lasts", error, TROUBLE_SAID_S)
        except RuntimeError as error:  # numbers that the loop changed while they were being read; the next try is soon
            log.warning("heartbeat: %s", error)


def write_beat(path: Path, turn: int, text: bytes) -> int:
    """Put a heartbeat in place as a whole, on a full disk too; returns the `turn` to give next time.

    Two files beside `path` take turns and keep the room they once had. `path` is a link to the one written last, so that
    nobody reads the one that is being written. Spaces fill it up.

    Raises:
        OSError: the disk would not.
    """
    spare, link = path.with_suffix(f".{turn}"), path.with_suffix(".tmp")
    handle = os.open(spare, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        kept = os.fstat(handle)
        if path.exists() and os.path.samestat(kept, path.stat()):  # the one in place: another core's turn ended here
            return write_beat(path, 1 - turn, text)
        size = max(kept.st_size, -(-len(text) // ROOM_BYTES) * ROOM_BYTES)
        at, whole = 0, text.ljust(size)
        while at < size:
            at += os.pwrite(handle, whole[at:], at)
    finally:
        os.close(handle)
    link.unlink(missing_ok=True)
    os.link(spare, link)
    link.replace(path)
    return 1 - turn


def _end_at_once() -> None:
    """End the process whatever its threads do; what is logged goes out first, as far as stderr takes it."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(STALL_EXIT_CODE)
