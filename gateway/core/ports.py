"""The outside of core: clocks, random numbers, ids, blocking work, disk and receivers, each to be replaced in a test."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, ParamSpec, Protocol, TypeVar

from alerting.delivery import Post
from config import ReceiverConfig
from gateway.core.ledger import Ledger
from gateway.core.snapshots import Snapshot, write_snapshot
from gateway.core.writer import BALLAST_BYTES, Ballast, LedgerWriter, OnCommitted, OnTrouble, Writer

P = ParamSpec("P")
T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs what may wait for the disk beside the event loop, and returns what it returns."""

    def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Run `work`."""


class WriterOf(Protocol):
    """Makes the writer of a ledger, not yet started."""

    def __call__(
        self, ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, ballast: Ballast | None
    ) -> LedgerWriter:
        """Make it."""


def wall_clock_ms() -> int:
    """UTC epoch ms."""
    return time.time_ns() // 1_000_000


def _new_id() -> str:
    return uuid.uuid4().hex


def _disk_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).total


@dataclass(frozen=True, slots=True)
class Ports:
    """What a core is given of the outside; the defaults are the real thing.

    Attributes:
        wall_ms: the box's clock, UTC epoch milliseconds.
        monotonic: seconds.
        random: for ids of frames without marks and for jitter.
        new_id: for a ledger's name.
        run_blocking: runs blocking work beside the loop.
        open_ledger: opens the one writing connection.
        writer: makes what commits to it.
        write_snapshot: see `snapshots.write_snapshot`.
        disk_bytes: size of the disk that holds a folder.
        ballast_bytes: room kept for the journal of a full disk.
        post_of: how a receiver is reached; None for HTTP.
        beside: watch the loop from a thread and serve operators on a socket.
    """

    wall_ms: Callable[[], int] = wall_clock_ms
    monotonic: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=SystemRandom)
    new_id: Callable[[], str] = _new_id
    run_blocking: RunBlocking = asyncio.to_thread
    open_ledger: Callable[[Path, str], Ledger] = Ledger
    writer: WriterOf = Writer
    write_snapshot: Callable[[Path, Snapshot], Path] = write_snapshot
    disk_bytes: Callable[[Path], int] = _disk_bytes
    ballast_bytes: int = BALLAST_BYTES
    post_of: Callable[[ReceiverConfig], Post] | None = None
    beside: bool = True
