"""The lock of a segment folder: one process at a time seals, packs and removes there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from gateway.historian.segments.durable import make_folder
from gateway.historian.segments.names import LOCK_NAME


class FolderBusyError(Exception):
    """Another process seals here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another process seals here (it holds {LOCK_NAME}); stop it, or wait until it ends")
        self.message_zh = f"{folder}：另一进程正在此封存（持有 {LOCK_NAME}）；请停止它或等待其结束"


def open_lock(folder: Path) -> IO[str]:
    """Take the folder's lock, held for as long as the file stays open; the kernel lets go when the process dies.

    Raises:
        FolderBusyError: another process has it.
    """
    make_folder(folder)
    lock = (folder / LOCK_NAME).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise FolderBusyError(folder) from None
    return lock


def stands(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        found, mine = path.stat(), os.fstat(file.fileno())
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
