"""Every change that care makes to a disk goes through here, one named step at a time, and gives way to core.

`step` is called before each change with what comes next: the tests end the process there, at every one of them.
Nothing counts as written before it is synced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

CHUNK_BYTES: Final = 4 * 1024 * 1024
ASIDE: Final = ".tmp"  # ends the name of a file that is not yet complete
SHARE: Final = 0.5  # of the time at most that care works; core has the disk for the rest
RATE_BYTES_PER_S: Final = 64 * 1024 * 1024
PAUSE_S_MAX: Final = 5.0


class Pace:
    """Works at most a share of the time and at most so many bytes a second, so that core's commits find the disk free."""

    def __init__(
        self, rate_bytes_per_s: float = RATE_BYTES_PER_S, share: float = SHARE,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """A rate of 0 does not pause at all: for a data folder on which nothing runs."""
        self._rate, self._share, self._monotonic, self._sleep = rate_bytes_per_s, share, monotonic, sleep
        self._began = monotonic()

    def gave(self, moved_bytes: int) -> None:
        """So much was done since the last call: pause as long as that asks for."""
        if self._rate <= 0:
            return
        worked = self._monotonic() - self._began
        pause = max(worked * (1 / self._share - 1), moved_bytes / self._rate - worked)
        if pause > 0:
            self._sleep(min(pause, PAUSE_S_MAX))
        self._began = self._monotonic()


class Disk:
    """The changes. All paths are the caller's, already checked."""

    def __init__(self, pace: Pace | None = None, step: Callable[[str], None] = lambda _: None) -> None:
        self.pace = pace or Pace(0)
        self.step = step

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, for its owner only."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)

    def write(self, path: Path, body: bytes) -> None:
        """Write a small file aside, sync it, rename it into its place."""
        aside = path.with_name(path.name + ASIDE)
        self.step(f"write {path.name}")
        aside.unlink(missing_ok=True)
        with _new(aside) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        self.rename(aside, path)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, and sync the folders it concerns."""
        self.step(f"rename {source.name} to {target.name}")
        source.rename(target)
        self.step(f"sync {target.name}")
        sync_folder(target.parent)
        if source.parent != target.parent:
            sync_folder(source.parent)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        self.step(f"remove {path.name}")
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder with all that is in it."""
        if path.exists():
            self.step(f"remove folder {path.name}")
            shutil.rmtree(path)
            sync_folder(path.parent)

    def link(self, source: Path, target: Path) -> bool:
        """Give a file that never changes a second name; False where the disk cannot (another disk, no links)."""
        self.step(f"link {target.name}")
        target.unlink(missing_ok=True)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES):
                return False
            raise
        sync_folder(target.parent)
        return True

    def copy(self, source: BinaryIO, target: Path) -> tuple[int, str]:
        """Copy an open file; returns its size and SHA-256. Written aside, synced, renamed."""
        aside = target.with_name(target.name + ASIDE)
        self.step(f"copy {target.name}")
        aside.unlink(missing_ok=True)
        digest, size = hashlib.sha256(), 0
        with _new(aside) as file:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                file.flush()
                os.fdatasync(file.fileno())  # a heap of unwritten pages would hold up the next commit of core
                size += len(chunk)
                self.pace.gave(len(chunk))
            os.fsync(file.fileno())
        self.rename(aside, target)
        return size, digest.hexdigest()

    def hash_of(self, source: BinaryIO) -> tuple[int, str]:
        """Read an open file; returns its size and SHA-256."""
        digest, size = hashlib.sha256(), 0
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            self.pace.gave(len(chunk))
        return size, digest.hexdigest()


def size_told(size: int) -> str:
    """Return a size as people read it, never 0.0 of too large a unit."""
    return f"{max(0, size) / 1e9:.1f} GB" if size >= 1e9 else f"{max(0, size) / 1e6:.1f} MB"


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading; a link is no regular file.

    Raises:
        OSError: it is not there, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _new(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb")


def sync_folder(path: Path) -> None:
    """Let a name survive the loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
