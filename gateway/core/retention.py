"""How long the ledger keeps frames. Pure.

Until a historian has sealed them, a frame row goes once it is older than both snapshots and the configured days, or,
earliest first, while the ledger fills more than half its cap. At the cap no further backlog is acknowledged, and a
little above it no live frame either. The write-ahead log is told of with the rest of what lies on the disk, but decides
neither: its size is the most it ever held, and no frame that goes makes it smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
DISK_SHARE: Final = 0.25
LIVE_MARGIN: Final = 1.05


@dataclass(frozen=True, slots=True)
class Retention:
    """What to do now. `prune_before` is (log position, received_ms): frame rows older than both may go."""

    prune_before: tuple[int, int] | None
    half_full: bool  # with the write-ahead log: an alarm
    full: bool  # no further backlog is acknowledged
    over_full: bool  # nor are live frames: they are evaluated and not kept


def cap_bytes(configured_bytes: int, disk_bytes: int) -> int:
    """Return the ledger's cap: what was configured, but at most a quarter of the disk."""
    return min(configured_bytes, int(disk_bytes * DISK_SHARE))


def decide(used_bytes: int, wal_bytes: int, cap: int, oldest_snapshot_pos: int, now_ms: int, frames_days: float) -> Retention:
    """Decide what may go. Without a snapshot nothing may: replay would need it.

    Args:
        used_bytes: what the ledger's pages in use weigh.
        wal_bytes: what its write-ahead log takes on the disk.
        oldest_snapshot_pos: log position of the older of the two snapshots; 0 if there are not two.
    """
    half = cap // 2
    prune_before = None
    if oldest_snapshot_pos > 0:
        before_ms = now_ms + 1 if used_bytes > half else now_ms - int(frames_days * DAY_MS)
        prune_before = (oldest_snapshot_pos, before_ms)
    return Retention(prune_before, used_bytes + wal_bytes > half, used_bytes >= cap, used_bytes >= cap * LIVE_MARGIN)
