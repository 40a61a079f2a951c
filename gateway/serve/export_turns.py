"""At most two exports at a time, and of these one that reads: the histories that people wait for come between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.serve.problems import busy

AT_ONCE: Final = 2
RETRY_AFTER_S: Final = 30


class ExportTurns:
    """For one event loop."""

    def __init__(self) -> None:
        self.reading = asyncio.Semaphore(1)
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one of the places. Raises RefusedError when all are taken."""
        if self._running >= AT_ONCE:
            raise busy(RETRY_AFTER_S)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
