"""The disk of an edge's box, in memory: it fills up, fails to sync, and forgets what was not synced when power goes."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from simulators.world.faults import FaultKind
from simulators.world.process import Process


@dataclass(slots=True)
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: int = 0


class MemoryDisk:
    """One folder that outlives the processes which open it.

    Attributes:
        full: every write is refused.
        sync_fails: every sync is refused; what was written may be on the disk or not.
        applied: counts how often either was met.
        on_synced: told a file's name and the bytes that a sync has just made durable.
    """

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._unnamed: dict[str, bytes] = {}
        self.full = False
        self.sync_fails = False
        self.applied: Counter[FaultKind] = Counter()
        self.on_synced: Callable[[str, bytes], None] = lambda name, content: None

    def opened_by(self, process: Process) -> OpenDisk:
        """Return the folder as one process has it."""
        return OpenDisk(self, process)

    def copy(self) -> MemoryDisk:
        """Return a copy of what is synced, for another box."""
        other = MemoryDisk()
        other.files = {name: _File(file.content[: file.synced], file.synced) for name, file in self._durable.items()}
        other._durable = dict(other.files)
        return other

    def lose_power(self, random: Random) -> None:
        """Forget what was not synced, or keep some of it: cut anywhere, names with or without it."""
        names = self.files if random.random() < 0.5 else self._durable
        self.files, self._unnamed = {}, {}
        for name, file in names.items():
            kept = file.synced + round((len(file.content) - file.synced) * random.choice((0.0, 1.0, random.random())))
            self.files[name] = _File(file.content[:kept], kept)
        self._durable = dict(self.files)

    def room(self) -> None:
        """Raise OSError when there is none."""
        if self.full:
            self.applied[FaultKind.DISK_FULL] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self, name: str, file: _File) -> None:
        """Make a file's content durable."""
        if self.sync_fails:
            self.applied[FaultKind.SYNC_FAILS] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fresh = bytes(file.content[file.synced :])
        file.synced = len(file.content)
        self._unnamed[name] = self._unnamed.get(name, b"") + fresh
        self._tell()

    def sync_names(self) -> None:
        """Make creations, renames and removals durable."""
        if self.sync_fails:
            self.applied[FaultKind.SYNC_FAILS] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._durable = dict(self.files)
        self._tell()

    def _tell(self) -> None:
        """Tell what is durable; what is synced in a file whose name is not may be gone with the name."""
        for name in [name for name in self._unnamed if name in self._durable]:
            if fresh := self._unnamed.pop(name):
                self.on_synced(name, fresh)


class OpenDisk:
    """`edge.Disk` for one process: nothing gets through once that is dead."""

    def __init__(self, disk: MemoryDisk, process: Process) -> None:
        self._disk, self._process = disk, process

    def names(self) -> list[str]:
        """Return the file names, sorted."""
        self._process.check()
        return sorted(self._disk.files)

    def create(self, name: str) -> OpenFile:
        """Create an empty file; it must not exist."""
        self._process.check()
        self._disk.room()
        if name in self._disk.files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        self._disk.files[name] = _File()
        return OpenFile(self._disk, self._process, name, self._disk.files[name])

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return part of a file."""
        content = self._file(name).content
        return bytes(content[offset : None if length is None else offset + length])

    def size(self, name: str) -> int:
        """Return a file's length."""
        return len(self._file(name).content)

    def truncate(self, name: str, size: int) -> None:
        """Cut a file and sync it."""
        file = self._file(name)
        del file.content[size:]
        file.synced = min(file.synced, size)
        self._disk.sync(name, file)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        self._disk.files[new] = self._file(old)
        del self._disk.files[old]

    def unlink(self, name: str) -> None:
        """Remove a file."""
        self._process.check()
        self._disk.files.pop(name, None)

    def sync_folder(self) -> None:
        """Make creations, renames and removals durable."""
        self._process.check()
        self._disk.sync_names()
        self._process.check()

    def _file(self, name: str) -> _File:
        self._process.check()
        if name not in self._disk.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._disk.files[name]


class OpenFile:
    """`edge.AppendFile` on a `MemoryDisk`. A file that failed to sync may not be written again."""

    def __init__(self, disk: MemoryDisk, process: Process, name: str, file: _File) -> None:
        self._disk, self._process, self._name, self._file = disk, process, name, file
        self._fenced = False

    def write(self, content: bytes) -> None:
        """Append."""
        self._process.check()
        if self._fenced:
            raise RuntimeError(f"{self._name} is written again after it failed")
        try:
            self._disk.room()
        except OSError:
            self._fenced = True
            self._file.content += content[: len(content) // 2]  # a short write comes before the refusal
            raise
        self._file.content += content

    def sync(self) -> None:
        """Sync."""
        self._process.check()
        if self._fenced:
            raise RuntimeError(f"{self._name} is synced again after it failed")
        try:
            self._disk.sync(self._name, self._file)
        except OSError:
            self._fenced = True
            raise
        self._process.check()  # killed at the moment the disk had it

    def close(self) -> None:
        """Close."""
