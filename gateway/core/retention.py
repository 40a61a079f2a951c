"""How long the ledger keeps frames. Pure.

A row goes once it is sealed in the historian, older than both snapshots, and not needed by a run over history that may
still come to it. Such a run loses its claim to rows older than the configured days, and to all of them while the
ledger fills more than half its cap. What is not sealed never goes: at the cap no further backlog is acknowledged, and
a little above it no live frame either. The write-ahead log is told of with the rest of what lies on the disk, but decides
neither: its size is the most it ever held, and no frame that goes makes it smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

DAY_MS: Final = 86_400_000
DISK_SHARE: Final = 0.25
LIVE_MARGIN: Final = 1.05

Pending = Mapping[str, Mapping[int, int]]
"""What runs over history may still need: node to stream to the frame number above which its frames are needed."""


@dataclass(frozen=True, slots=True)
class Room:
    """How full the ledger is."""

    crowded: bool  # over half the cap: history gives up its claims
    half_full: bool  # so with the write-ahead log: an alarm
    full: bool  # no further backlog is acknowledged
    over_full: bool  # nor are live frames: they are evaluated and not kept


@dataclass(frozen=True, slots=True)
class Removable:
    """Rows of frames at log positions first..before-1 may go."""

    first: int
    before: int


class KeptRow(NamedTuple):
    """What decides whether history needs a row of frames. `last` is its highest frame number."""

    pos: int
    node: str
    stream: int
    last: int
    received_ms: int


def cap_bytes(configured_bytes: int, disk_bytes: int) -> int:
    """Return the ledger's cap: what was configured, but at most a quarter of the disk."""
    return min(configured_bytes, int(disk_bytes * DISK_SHARE))


def room(used_bytes: int, wal_bytes: int, cap: int) -> Room:
    """Tell how full the ledger is.

    Args:
        used_bytes: what the ledger's pages in use weigh.
        wal_bytes: what its write-ahead log takes on the disk.
    """
    half = cap // 2
    return Room(used_bytes > half, used_bytes + wal_bytes > half, used_bytes >= cap, used_bytes >= cap * LIVE_MARGIN)


def removable_before(sealed_pos: int, oldest_snapshot_pos: int) -> int:
    """Return the log position before which no row is needed by the historian or by replay.

    Args:
        sealed_pos: the historian holds all up to here, as core has verified.
        oldest_snapshot_pos: log position of the older of the two snapshots; 0 if there are not two.
    """
    return min(sealed_pos + 1, oldest_snapshot_pos)


def aged_before_ms(now_ms: int, frames_days: float) -> int:
    """Return the time before which a received row is too old for history to claim it."""
    return now_ms - int(frames_days * DAY_MS)


def first_needed(rows: Iterable[KeptRow], pending: Pending, aged_ms: int) -> int | None:
    """Return the position of the first row, in the order given, that a run over history may still come to.

    Args:
        pending: as it was at the older snapshot: replay from there runs the same history again.
        aged_ms: rows received before this are needed no more.
    """
    for row in rows:
        if row.received_ms >= aged_ms:
            above = pending.get(row.node, {}).get(row.stream)
            if above is not None and row.last > above:
                return row.pos
    return None
