"""The spool's whole view of a disk: one folder of append-only files.

A port, so that tests can stand in a disk that fails to sync, writes short, fills up or loses power between any two
writes. Names are plain file names without folders.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, Protocol

SPOOL_FILE_MODE: Final = 0o600
SPOOL_FOLDER_MODE: Final = 0o700


class AppendFile(Protocol):
    """A file open for appending."""

    def write(self, content: bytes) -> None:
        """Append all of `content`; OSError when the disk refuses any of it."""

    def sync(self) -> None:
        """Return once everything written is on the disk; OSError when that cannot be promised.

        FileNotFoundError: the file is no longer under its name; nobody would find again what is written to it.
        """

    def close(self) -> None:
        """Close; never raises."""


class Disk(Protocol):
    """One folder. Every method may raise OSError."""

    def names(self) -> list[str]:
        """Return the file names, sorted."""

    def create(self, name: str) -> AppendFile:
        """Create an empty file; it must not exist."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or up to the end; short when the file ends before."""

    def size(self, name: str) -> int:
        """Return the file's length in bytes."""

    def truncate(self, name: str, size: int) -> None:
        """Cut the file to `size` bytes and sync it."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what has it."""

    def unlink(self, name: str) -> None:
        """Remove a file."""

    def sync_folder(self) -> None:
        """Return once creations, renames and removals are on the disk."""


class _OsAppendFile:
    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._path, self._descriptor = path, os.open(path, flags, SPOOL_FILE_MODE)

    def write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        os.fdatasync(self._descriptor)
        here, there = os.fstat(self._descriptor), self._path.stat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(errno.ENOENT, "removed, and another file stands in its place", str(self._path))

    def close(self) -> None:
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.close(descriptor)
        except OSError:  # what was synced is safe, and what was not is written again elsewhere
            return


class OsDisk:
    """A real folder; made, with its parents, when it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=SPOOL_FOLDER_MODE, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def create(self, name: str) -> AppendFile:
        return _OsAppendFile(self.folder / name)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with (self.folder / name).open("rb", buffering=0) as file:
            if length is None:
                length = max(0, os.fstat(file.fileno()).st_size - offset)
            parts: list[bytes] = []
            while length > 0:
                part = os.pread(file.fileno(), length, offset)
                if not part:
                    break
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def truncate(self, name: str, size: int) -> None:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        (self.folder / old).replace(self.folder / new)

    def unlink(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
