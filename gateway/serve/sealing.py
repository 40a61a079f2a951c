"""Serve's part in the historian: a thread that owns the segment folder, beside everything else and behind it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from config import SiteConfig
from gateway.historian.segments.board import Board
from gateway.serve.view_errors import OutOfTimeError

log = logging.getLogger(__name__)

NICE: Final = 10
BUSY_S: Final = 5.0
STOP_S_MAX: Final = 3.0  # a crash loses nothing either


class Sealing:
    """Seals, packs and removes in a thread named `historian-owner`, until it is closed. DuckDB is loaded there."""

    def __init__(
        self, site: SiteConfig, ledger: Path, folder: Path, wall_ms: Callable[[], int],
        reading: Callable[[float], AbstractContextManager[None]], stores: Callable[[], list[dict[str, Any]]] = list,
        board: Board | None = None,
    ) -> None:  # fmt: skip
        """Nothing runs yet.

        Args:
            ledger: core's file, which need not be there yet. folder: the historian's.
            reading: entered around every read of the ledger, with the moment to give up in seconds of `time.monotonic`.
            stores: how the stores stand that are fed beside. board: shared with readers of this process.
        """
        self._site, self._ledger, self._folder, self._wall_ms = site, ledger, folder, wall_ms
        self._reading, self._stores = timely(reading), stores
        self._board = board or Board()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="historian-owner", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> bool:
        """End soon, leaving what is not sealed to the next start; False if it did not end in time. Blocks for a moment."""
        self._stop.set()
        self._thread.join(STOP_S_MAX)
        return not self._thread.is_alive()

    def _run(self) -> None:
        from gateway.historian.segments.lock import FolderBusyError
        from gateway.historian.segments.log import LedgerLog
        from gateway.historian.segments.owner import Owner
        from gateway.historian.segments.seal import Places

        with contextlib.suppress(OSError, AttributeError):  # a courtesy to the rest of serve, not a need
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.is_set():
            owner = Owner(
                self._folder, LedgerLog(self._ledger, self._site.site, self._reading), Places(self._site),
                self._site.storage.historian, self._wall_ms, self._stores, self._stop.is_set, board=self._board,
            )  # fmt: skip
            try:
                owner.begin()
                while not self._stop.is_set():
                    self._stop.wait(owner.round())
            except FolderBusyError as error:
                log.warning("historian: %s", error)
                self._stop.wait(BUSY_S)
            except Exception:  # serve goes on without it; core raises the alarm when nothing is sealed
                log.exception("historian: sealing failed; it begins anew in %g s", BUSY_S)
                self._stop.wait(BUSY_S)
            finally:
                owner.close()
                self._board.tell(None)


def timely(reading: Callable[[float], AbstractContextManager[None]]) -> Callable[[float], AbstractContextManager[None]]:
    """Let a read that got no turn fail as reads of files do."""

    @contextlib.contextmanager
    def turn(until: float) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(reading(until))
            except OutOfTimeError as error:
                raise TimeoutError(str(error)) from None
            yield

    return turn
