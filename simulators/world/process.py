"""One life of a part: all tasks it has, and a fence between it and everything that outlives it.

A killed process does nothing more: its tasks are cancelled wherever they stand, and whatever their cleaning up still
tries on a disk or a line meets `Killed`, as if the machine had never come to it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Final

BURIED_TURNS_MAX: Final = 200

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Killed(BaseException):
    """The process is dead. Not an Exception: no code of a part may survive it."""


class Process:
    """See the module.

    Attributes:
        part, box, run: which part lives, in which box, for the how many-th time.
        dead: nothing it does has any effect.
    """

    def __init__(self, part: str, run: int, box: int = 0) -> None:
        self.part, self.run, self.box = part, run, box
        self.dead = False
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def check(self) -> None:
        """Raise `Killed` when the process is dead."""
        if self.dead:
            raise Killed(self.part)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process; what it starts belongs to the process too."""
        context = contextvars.copy_context()
        context.run(_current.set, self)
        return asyncio.get_running_loop().create_task(work, name=name, context=context)

    def own(self, task: asyncio.Task[Any]) -> None:
        """Take a task in until it is done."""
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def die(self) -> None:
        """End everything at once, wherever it stands."""
        self.dead = True
        for task in list(self._tasks):
            task.cancel()

    async def buried(self) -> None:
        """Return once no task is left; takes no time.

        Raises:
            RuntimeError: a task outlives its own cancellation again and again.
        """
        for _ in range(BURIED_TURNS_MAX):
            if not self._tasks:
                return
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0)
        raise RuntimeError(f"{self.part} would not die: {[task.get_name() for task in self._tasks]}")

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if self.dead and not task.cancelled():
            task.exception()  # nobody is left to ask


def own_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From here on every task of the loop belongs to the process that starts it."""

    def make(
        loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, context=context)
        process = _current.get() if context is None else context.get(_current)
        if process is not None:
            process.own(task)
        return task

    loop.set_task_factory(make)  # type: ignore[arg-type]
