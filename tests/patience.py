"""Time limits that only a wrong product breaks, whatever else the machine is busy with.

A test that waits for something to come waits long: `GUARD_S` keeps it from hanging, and says nothing of how fast the
product has to be. Where it does have to be fast, `FairClock` counts the seconds that the machine had for us, and `cpu_s`
the processor's time alone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

GUARD_S: Final = 60.0
_REST_S: Final = 0.02
_TRIES: Final = 5


class FairClock:
    """Seconds in which whoever wanted to run could.

    A thread rests for 20 ms again and again. By as much as it oversleeps the machine stood still, or others had the
    processors, and the product could not have gone on either. The product must be another process: one that holds this
    one's interpreter would stop the clock, too; where it is not, bound `time.process_time()` beside it.
    """

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fair-clock", daemon=True)

    def _run(self) -> None:
        before_s = time.monotonic()
        while not self._ended.wait(_REST_S):
            now_s = time.monotonic()
            self._spent_s += min(now_s - before_s, 1.5 * _REST_S)
            before_s = now_s

    def __call__(self) -> float:
        """Return the fair seconds since the start."""
        return self._spent_s


@contextmanager
def fair_clock() -> Iterator[FairClock]:
    """A clock that runs until the end of the block."""
    clock = FairClock()
    clock._thread.start()
    try:
        yield clock
    finally:
        clock._ended.set()
        clock._thread.join()


def killed_if_it_hangs() -> None:
    """For a child of a fork that is to be killed in its work: let the kernel do it if the child waits without end.

    A lock that another thread of the parent held at the fork is never given back in the child. Its death counts as one at
    the step before, as good as any other.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(2 * GUARD_S))


def cpu_s(work: Callable[[], object]) -> float:
    """Return the least processor time of this thread, in seconds, that some tries of the same work took."""
    took_s = []
    for _ in range(_TRIES):
        began_s = time.thread_time()
        work()
        took_s.append(time.thread_time() - began_s)
    return min(took_s)
