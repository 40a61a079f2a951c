"""What the C library keeps of freed memory. Glibc alone has these calls; elsewhere nothing is done.

Events and answers are tens of kilobytes, made in one thread and freed in another: kept in each thread's heap, the holes
between them made the process grow by a megabyte a minute, with nothing of ours held.
"""

from __future__ import annotations

import ctypes
from typing import Final

M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 8 * 1024
ARENAS_MAX: Final = 2


def give_large_back() -> None:
    """Have large pieces returned to the system as they are freed, and few heaps for the rest (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, ARENAS_MAX)


def give_holes_back() -> None:
    """Return the free pages inside the heaps (malloc_trim(3)); takes milliseconds, without Python's lock."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
