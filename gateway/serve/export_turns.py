"""At most two exports at a time, of two callers, and of these one that reads: the histories that people wait for come between.

A caller who reads slowly holds a place for as long as an export may take: so nobody holds both.
"""

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
        self._running: set[str] = set()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Hold one of the places; `caller` is the id of a token. Raises RefusedError when all, or its own, are taken."""
        if len(self._running) >= AT_ONCE or caller in self._running:
            raise busy(RETRY_AFTER_S)
        self._running.add(caller)
        try:
            yield
        finally:
            self._running.discard(caller)
