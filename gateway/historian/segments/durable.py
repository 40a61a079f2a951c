"""Files that are there wholly or not at all: written aside, synced, renamed, the folder synced.

Every operation that a crash can fall between is a step with a name; tests stop the process at each of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from gateway.historian.segments.names import ASIDE

_hook: Callable[[str], None] | None = None
_numbers = count(1)
_durable: set[Path] = set()  # folders whose names this process has synced


def hook_steps(hook: Callable[[str], None] | None) -> None:
    """Let `hook` see every step's name, before and after it is done; None ends that. For tests."""
    global _hook
    _hook = hook


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Name an operation on the disk."""
    if _hook is not None:
        _hook(f"before {name}")
    yield
    if _hook is not None:
        _hook(f"after {name}")


def aside(path: Path) -> Path:
    """Return a name beside `path` that nobody has used in this process: what failed once is not written over."""
    return path.with_name(f"{path.name}.{os.getpid()}-{next(_numbers)}{ASIDE}")


def make_folder(path: Path) -> None:
    """Make a folder, and its name durable: also that of one which is there, as whoever made it may not have come to that."""
    if path in _durable and path.is_dir():
        return
    if not path.is_dir():
        make_folder(path.parent)
    with step(f"make folder {path.name}"):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)
    _durable.add(path)


def sync_file(path: Path) -> None:
    """Let what a file holds reach the disk.

    Raises:
        OSError: it did not; the file is not to be trusted, even if a second try were to succeed.
    """
    with step(f"sync {path.name}"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Let a folder's names reach the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(written: Path, path: Path) -> None:
    """Give a file that was written aside and synced its name."""
    with step(f"rename {path.name}"):
        written.rename(path)
    with step(f"sync folder of {path.name}"):
        sync_folder(path.parent)


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that it is there wholly or not at all.

    Raises:
        OSError: it is not known to be there; what was written stays aside, so that the next try gets other blocks.
    """
    written = aside(path)
    with step(f"write {path.name}"):
        written.write_text(text, encoding="utf-8")
    sync_file(written)
    publish(written, path)


def remove(path: Path) -> int:
    """Remove a file that may be gone already; return the bytes it had."""
    with step(f"remove {path.name}"):
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
    return size
