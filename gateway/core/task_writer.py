"""The writer without a thread: the twin of `Writer` for loops in virtual time.

It commits by the same `GroupCommit`, one group after the other. What a disk takes is time that passes in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.core.ledger import Batch, Ledger
from gateway.core.writer import GROUP_BATCHES_MAX, Ballast, GroupCommit, OnCommitted, OnTrouble


class TaskWriter:
    """Owns the ledger's writing connection in a task named `ledger-writer`."""

    def __init__(
        self,
        ledger: Ledger,
        on_committed: OnCommitted,
        on_trouble: OnTrouble,
        ballast: Ballast | None = None,
        *,
        monotonic: Callable[[], float],
        commit_s: Callable[[], float],
    ) -> None:
        """`commit_s` says how long the disk takes for the next commit, in seconds; the rest is as with `Writer`."""
        self._commits = GroupCommit(ledger, on_committed, on_trouble, ballast, monotonic)
        self._commit_s = commit_s
        self._waiting: deque[Batch] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._idle = True

    @property
    def failure(self) -> BaseException | None:
        """What ended the task, if a bug did."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ledger-writer")

    def submit(self, batch: Batch) -> None:
        """Hand a batch over."""
        self._waiting.append(batch)
        self._news.set()

    def close(self, timeout_s: float) -> bool:
        """Write what waits, once and now, and end; False if that did not succeed."""
        assert self._task is not None
        if not self._idle or self._task.done():
            self._task.cancel()
            return False
        self._task.cancel()
        while self._waiting:
            group = self._next_group()
            if self._commits.attempt(group) is not None:
                return False
        return True

    @property
    def alive(self) -> bool:
        """The task runs. It ends only by `close` or by a bug."""
        return self._task is not None and not self._task.done()

    def _next_group(self) -> list[Batch]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_BATCHES_MAX))]

    async def _run(self) -> None:
        self._commits.begin()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                self._idle = False
                await asyncio.sleep(self._commit_s())
                group = self._next_group()
                while (wait_s := self._commits.attempt(group)) is not None:
                    await asyncio.sleep(wait_s)
                self._idle = True
