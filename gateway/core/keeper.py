"""Looks at the ledger once a minute: how full it is, what the historian has sealed, and which rows may go.

One object, used from one thread at a time; it reads, and never writes. The rows that it names are removed by the writer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from config import StorageConfig
from gateway.core.reader import LedgerReader
from gateway.core.retention import (
    Pending,
    Removable,
    Room,
    aged_before_ms,
    cap_bytes,
    first_needed,
    removable_before,
    room,
)
from gateway.core.sealed import Sealed, SealedSegments
from gateway.core.snapshots import oldest_kept

LOOKED_ROWS_MAX: Final = 200_000  # in one look, while history is pending; without it no row is looked at


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `removable` is None while nothing may go; `sealed` is None without a historian."""

    used_bytes: int
    wal_bytes: int
    cap_bytes: int
    room: Room
    removable: Removable | None
    sealed: Sealed | None


class LedgerKeeper:
    """Decides what the ledger keeps, from the ledger, the snapshots and the historian's folder."""

    def __init__(
        self, reader: LedgerReader, folder: Path, storage: StorageConfig, segments: SealedSegments | None
    ) -> None:
        """Look at the ledger of `reader` and the snapshots in `folder`; without `segments` nothing may ever go."""
        self._reader, self._folder, self._storage, self._segments = reader, folder, storage, segments
        self._first = 0  # no row of frames stands below

    def look(
        self, disk_bytes: int, now_ms: int, pending_at: Mapping[int, Pending], standing: Sequence[str] = ()
    ) -> Look:
        """Look once. Waits for the disk.

        Args:
            disk_bytes: size of the disk that holds the ledger.
            pending_at: position of each snapshot of this run to what history needed then.
            standing: keys of the system conditions that stand.
        """
        used, wal = self._reader.size_bytes(), self._reader.wal_bytes()
        cap = cap_bytes(self._storage.ledger_max_bytes, disk_bytes)
        found = room(used, wal, cap)
        first = self._reader.first_frames_from(self._first)
        if first is not None:
            self._first = first.pos
        if self._segments is None:
            return Look(used, wal, cap, found, None, None)
        sealed = self._segments.look(self._reader, self._first - 1, now_ms, standing)
        removable = None if first is None else self._removable(sealed.cursor, found, now_ms, pending_at)
        return Look(used, wal, cap, found, removable, sealed)

    def _removable(
        self, sealed_pos: int, found: Room, now_ms: int, pending_at: Mapping[int, Pending]
    ) -> Removable | None:
        snapshot_pos = oldest_kept(self._folder)
        before = removable_before(sealed_pos, snapshot_pos)
        pending = {} if found.crowded else pending_at.get(snapshot_pos)
        if pending is None:  # taken by a core before this one: two snapshots on it is known
            return None
        if pending and self._first < before:
            rows = self._reader.frames_between(self._first, before)
            looked = list(islice(rows, LOOKED_ROWS_MAX))
            needed = first_needed(looked, pending, aged_before_ms(now_ms, self._storage.frames_days))
            if needed is not None:
                before = needed
            elif len(looked) == LOOKED_ROWS_MAX:
                before = looked[-1].pos + 1
        return Removable(self._first, before) if self._first < before else None
