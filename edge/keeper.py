"""Runs the spool's disk work in a thread of its own: a sync at most every 100 ms, housekeeping in between.

The first frame after a pause is synced at once. The event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from edge.blocks import WireBlock
from edge.spool import Spool

SYNC_EVERY_S: Final = 0.1
IDLE_S: Final = 1.0

T = TypeVar("T")
InThread = Callable[[Callable[[], T]], Awaitable[T]]

log = logging.getLogger(__name__)


class DiskThread:
    """One thread for everything that may block on the disk, in the order it was asked for."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="spool")

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, computed in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Give the thread up once it has done what it was asked."""
        self._executor.shutdown(wait=False)


class InlineDisk(DiskThread):
    """The twin without a thread, for loops in virtual time."""

    def __init__(self) -> None:
        return

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work here and now, letting others run as a thread would."""
        await asyncio.sleep(0)
        return work()

    def close(self) -> None:
        return


class SpoolKeeper:
    """Syncs and tends one spool.

    Args:
        spool: see `Spool`; from here on only this object calls what blocks.
        disk: where that runs.
        monotonic: seconds.
        changed: told whenever the spool's fault has come or gone.
        synced: told after every sync.
    """

    def __init__(
        self,
        spool: Spool,
        disk: DiskThread,
        monotonic: Callable[[], float],
        changed: Callable[[bool], None],
        synced: Callable[[], None],
    ) -> None:
        self._spool, self._disk, self._monotonic = spool, disk, monotonic
        self._changed, self._synced = changed, synced
        self._wake = asyncio.Event()
        self._faulty = False
        self.unreadable = 0
        """Backlog blocks the disk did not give back when asked, since the start."""

    def wake(self) -> None:
        """A frame was appended."""
        self._wake.set()

    async def run(self) -> None:
        """Sync and tend until cancelled."""
        while True:
            began_s = self._monotonic()
            self._wake.clear()
            await self.sync()
            more = await self._tend()
            rest_s = max(0.0, SYNC_EVERY_S - (self._monotonic() - began_s))
            await asyncio.sleep(rest_s)
            if not more and not self._wake.is_set():
                await _wait(self._wake, IDLE_S)

    async def sync(self, *, finally_: bool = False) -> bool:
        """Sync now; True when everything appended so far is on the disk."""
        done = await self._disk.run(lambda: self._spool.sync(self._monotonic(), finally_=finally_))
        self.report()
        self._synced()
        return done

    async def close(self) -> bool:
        """Sync for the last time and close the spool."""
        done = await self._disk.run(lambda: self._spool.close(self._monotonic()))
        self._faulty = bool(self._spool.fault)
        return done

    async def next_block(self, after: dict[int, int]) -> WireBlock | None:
        """Return the next backlog block, see `Spool.next_block`; None also when the disk does not give it."""
        try:
            return await self._disk.run(lambda: self._spool.next_block(after))
        except OSError as error:
            if self.unreadable == 0:
                log.error("spool: backlog cannot be read (%s); trying again", error)
            self.unreadable += 1
            return None

    def report(self) -> None:
        """Pass a fault on when it has come or gone."""
        fault = self._spool.fault
        if bool(fault) == self._faulty:
            return
        self._faulty = bool(fault)
        if fault:
            log.error(
                "spool: %s; live frames go on without receipt, nothing can be kept; "
                "free or replace the disk, trying again",
                fault,
            )
        else:
            log.warning("spool: works again; frames are kept from now on")
        self._changed(self._faulty)

    async def _tend(self) -> bool:
        """Keep house for the rest of a sync period; True if there is more to do."""
        until_s = self._monotonic() + SYNC_EVERY_S / 2
        while await self._disk.run(lambda: self._spool.tend(self._monotonic())):
            if self._wake.is_set() and self._monotonic() >= until_s:
                return True
        return False


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
