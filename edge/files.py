"""Small files of the edge's data folder: replaced as a whole, so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge.errors import EdgeError
from wire import JsonRefusedError, parse_json_object

LOCK_NAME: Final = "edge.lock"
PRIVATE_MODE: Final = 0o600
SMALL_FILE_BYTES_MAX: Final = 1024 * 1024


class DataFolderInUseError(EdgeError):
    """Another edge process holds the data folder; two would send under one name."""

    def __init__(self, folder: Path, pid: str) -> None:
        self.folder, self.pid = folder, pid
        super().__init__(
            f"{folder}: in use by the edge process {pid}; stop it first, or give this one a data folder of its own"
        )


class DataFolderError(EdgeError):
    """The data folder cannot be used. The edge does not start: it could promise nothing of what it takes."""

    def __init__(self, folder: Path, error: OSError) -> None:
        self.folder, self.errno = folder, error.errno
        where = f" at {error.filename}" if error.filename not in (None, str(folder)) else ""
        in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
        self.cause = cause = "it, or a folder above it, is a file" if in_the_way else error.strerror or str(error)
        super().__init__(
            f"{folder}: cannot be used as a data folder ({cause}{where}); it must be a folder this "
            "user may write to, on a disk with room: make it one, or name another with --data"
        )


@contextlib.contextmanager
def data_folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        DataFolderInUseError: another process holds it.
        DataFolderError: it is no folder, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    except OSError as error:
        raise DataFolderError(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "of unknown pid"
            raise DataFolderInUseError(folder, pid) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, the pid is for people
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def replace_json(path: Path, members: Mapping[str, Any], *, durable: bool) -> None:
    """Put a JSON object in the place of the file.

    Args:
        durable: return only when it would survive a power cut.

    Raises:
        OSError: the disk refused.
    """
    aside = path.with_name(path.name + ".new")
    content = json.dumps(members, ensure_ascii=False).encode()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        os.write(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.replace(path)
    if durable:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def read_number(path: Path, member: str, otherwise: int) -> int:
    """Return a whole number from a JSON object in a file; `otherwise` when file or number is not there."""
    try:
        with path.open("rb") as file:
            number = parse_json_object(file.read(SMALL_FILE_BYTES_MAX + 1), SMALL_FILE_BYTES_MAX).get(member)
    except (OSError, JsonRefusedError):
        return otherwise
    return number if type(number) is int else otherwise
