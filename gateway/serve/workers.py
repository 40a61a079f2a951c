"""Threads for what blocks, with a bounded queue: the event loop never waits for the disk, and load is shed early.

The threads are daemons: a query that hangs in the disk does not hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.serve.problems import busy

T = TypeVar("T")
Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Workers:
    """A few threads and a queue that refuses when it is full."""

    def __init__(self, name: str, threads: int, waiting_max: int) -> None:
        self.name, self._waiting_max = name, waiting_max
        self._waiting: queue.Queue[Job | None] = queue.Queue(waiting_max)
        self._threads = [
            threading.Thread(target=self._run, name=f"serve-{name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take nothing more; what runs is left to itself."""
        while True:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[0].call_soon_threadsafe(job[1].cancel)
        for _ in self._threads:
            self._waiting.put_nowait(None)

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return self._waiting.qsize()

    async def run(self, work: Callable[[], T]) -> T:
        """Run it in a thread and return what it returns; skipped when nobody waits for it any more.

        Raises:
            RefusedError: too many wait already.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        try:
            self._waiting.put_nowait((loop, answer, work))
        except queue.Full:
            raise busy() from None
        return await answer

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            loop, answer, work = job
            if answer.cancelled():
                continue
            outcome: Any = None
            failure: BaseException | None = None
            try:
                outcome = work()
            except Exception as error:  # the route that waits for it raises it
                failure = error
            try:
                loop.call_soon_threadsafe(_settle, answer, outcome, failure)
            except RuntimeError:  # the loop is closed: the process ends
                return


def _settle(answer: asyncio.Future[Any], outcome: Any, failure: BaseException | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(outcome)
    else:
        answer.set_exception(failure)
