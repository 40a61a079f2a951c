"""How far something is: a bar on a terminal, else a plain line now and then. On stderr, as everything that is no result."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S: Final = 10.0


class Shown:
    """One thing under way; `tell` may be called as often as one likes."""

    def __init__(self, bar: Progress | None, task: TaskID | None) -> None:
        self._bar, self._task = bar, task
        self._told_s = time.monotonic()

    def tell(self, done: float, text: str) -> None:
        """Show that so much (0 to 1) is done, and `text`."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=text)
        elif time.monotonic() - self._told_s >= LINE_EVERY_S:
            self._told_s = time.monotonic()
            print(f"{done:4.0%}  {text}", file=sys.stderr, flush=True)


@contextmanager
def showing() -> Iterator[Shown]:
    """Show progress for as long as the block."""
    if not sys.stderr.isatty():
        yield Shown(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Shown(bar, bar.add_task("", total=1.0))
