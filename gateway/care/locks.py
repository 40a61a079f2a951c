"""Who works on a data folder. The kernel lets go of every lock when its process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from gateway.care.errors import InUseError

CARE_LOCK_NAME: Final = "care.lock"
OWNERS: Final = (("core/core.lock", "core"), ("serve/serve.lock", "serve"), ("historian/historian.lock", "the historian's owner"))


@contextmanager
def cared_for(data: Path, *, alone: bool) -> Iterator[None]:
    """Hold the lock of the care commands: backups may run side by side, restore and upgrade only alone.

    Raises:
        InUseError: another of these commands is at work.
    """
    with (data / CARE_LOCK_NAME).open("a+", encoding="utf-8") as lock:
        _take(lock, data, "another backup, restore or upgrade", alone=alone)
        yield


@contextmanager
def nothing_runs(data: Path) -> Iterator[None]:
    """Hold the locks of core, serve and the historian, so that none of them starts meanwhile.

    Raises:
        InUseError: one of them runs.
    """
    with ExitStack() as held:
        for name, owner in OWNERS:
            path = data / name
            if path.parent.is_dir():
                lock = held.enter_context(path.open("a+", encoding="utf-8"))
                _take(lock, data, _said(lock) or owner, alone=True)
        yield


def _take(lock: IO[str], data: Path, owner: str, *, alone: bool) -> None:
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(data, owner) from None


def _said(lock: IO[str]) -> str:
    lock.seek(0)
    told = lock.read(200).strip()
    return told if told.isprintable() and os.path.basename(lock.name) == "core.lock" else ""  # noqa: PTH119 - a name
