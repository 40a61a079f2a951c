"""A disk in memory that can fail to sync, write short, fill up, and lose its power between any two writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field


class PowerCut(Exception):
    """The machine is off. Not an OSError: no code may survive it."""


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    durable: int = 0


class MemoryDisk:
    """The `Disk` port. `steps` counts what reaches the disk; `power_off_at` cuts the power before that step.

    What a power cut leaves of a file is its synced part and as much of the rest as `torn` (0.0 to 1.0) says,
    cut at any byte. Creations, renames and removals are lost or kept, as `folder_survives` says, unless
    the folder was synced after them.
    """

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.durable_names: dict[str, _File] = {}
        self.steps = 0
        self.power_off_at: int | None = None
        self.fail_syncs = 0
        self.fail_writes_after: int | None = None
        self.error = errno.EIO
        self.fail_reads = 0
        self.on_step: Callable[[], None] | None = None

    # the port

    def names(self) -> list[str]:
        return sorted(self.files)

    def create(self, name: str) -> MemoryAppendFile:
        self._step()
        if name in self.files:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.files[name] = _File()
        return MemoryAppendFile(self, self.files[name])

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self.fail_reads > 0:
            self.fail_reads -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        content = self._file(name).content
        return bytes(content[offset : None if length is None else offset + length])

    def size(self, name: str) -> int:
        return len(self._file(name).content)

    def truncate(self, name: str, size: int) -> None:
        self._step()
        file = self._file(name)
        del file.content[size:]
        file.durable = size

    def rename(self, old: str, new: str) -> None:
        self._step()
        self.files[new] = self._file(old)
        del self.files[old]

    def unlink(self, name: str) -> None:
        self._step()
        self.files.pop(name, None)

    def sync_folder(self) -> None:
        self._step()
        self.durable_names = dict(self.files)

    # faults

    def _file(self, name: str) -> _File:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.files[name]

    def _step(self) -> None:
        if self.power_off_at is not None and self.steps >= self.power_off_at:
            raise PowerCut
        self.steps += 1
        if self.on_step is not None:
            self.on_step()

    def after_power_cut(self, torn: float = 0.0, *, folder_survives: bool = True) -> MemoryDisk:
        """Return the disk as the next start finds it."""
        found = MemoryDisk()
        names = self.files if folder_survives else self.durable_names
        for name, file in names.items():
            kept = file.durable + round((len(file.content) - file.durable) * torn)
            found.files[name] = _File(bytearray(file.content[:kept]), kept)
        found.durable_names = dict(found.files)
        return found


class MemoryAppendFile:
    """A file of `MemoryDisk` open for appending."""

    def __init__(self, disk: MemoryDisk, file: _File) -> None:
        self._disk, self._file = disk, file
        self._fenced = False

    def write(self, content: bytes) -> None:
        self._disk._step()
        assert not self._fenced, "a file that failed to sync was written again"
        room = self._disk.fail_writes_after
        if room is not None:
            self._disk.fail_writes_after = max(0, room - len(content))
            if len(content) > room:
                self._file.content += content[:room]
                self._fenced = True
                raise OSError(self._disk.error, os.strerror(self._disk.error))
        self._file.content += content

    def sync(self) -> None:
        self._disk._step()
        assert not self._fenced, "a file that failed to sync was synced again"
        if self._disk.fail_syncs > 0:
            self._disk.fail_syncs -= 1
            self._fenced = True
            raise OSError(self._disk.error, os.strerror(self._disk.error))
        self._file.durable = len(self._file.content)

    def close(self) -> None:
        return
