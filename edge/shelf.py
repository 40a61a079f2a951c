"""The spool's files and the book of what they hold: one shelf that two threads stand at.

The event loop changes the book, under the lock, at any moment. The disk thread alone changes files; what it needs of
the book it copies under the lock, and it reads and writes by the copy. Nothing is decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from edge.blocks import join_frames
from edge.disk import Disk
from edge.entries import Chain, Entry, Piece, Stretch
from edge.held import Holdings
from edge.points import PointTable
from edge.spool_file import BadRecordError, JournalFrames, checked_body, unpack_frames

JOURNAL_SUFFIX: Final = ".journal"
BLOCKS_SUFFIX: Final = ".blocks"
PART_SUFFIX: Final = ".part"
NO_ROOM: Final = "spool full, oldest given up"
DAMAGED: Final = "damaged on the edge's disk"
GONE: Final = "gone from the edge's disk"


@dataclass(frozen=True, slots=True)
class Cut:
    """What recovery took off a file: everything from the first bad record on."""

    name: str
    offset: int
    bytes_cut: int
    reason: str


@dataclass(slots=True, eq=False)
class SpoolFile:
    """One file; `size` is what of it is known to be on the disk, `synced_s` when that was last written."""

    number: int
    suffix: str
    table: PointTable | None
    size: int = 0
    synced_s: float = float("-inf")
    checkpointed: bool = False
    """Whether it begins with a checkpoint: with one, no earlier file's checkpoint counts any more."""

    @property
    def name(self) -> str:
        """The file's name in the folder; names sort by number."""
        return f"{self.number:012d}{self.suffix}"


class Shelf:
    """See the module.

    Args:
        disk: the folder.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.lock = threading.Lock()
        """Held for whatever touches `holdings` or `unstated`, never across a call to the disk."""
        self.holdings = Holdings()
        self.unstated: list[tuple[Chain, Entry]] = []
        """Dropped ranges that no record on the disk states yet."""
        self.files: dict[int, SpoolFile] = {}
        self.doomed: set[int] = set()
        """Files given up, that go as soon as the disk says so."""
        self.next_number = 1
        self._finished_before: dict[int, int] = {}

    @property
    def size_bytes(self) -> int:
        """What the files take, without those about to go."""
        return sum(file.size for number, file in list(self.files.items()) if number not in self.doomed)

    # ---- giving up -----------------------------------------------------------------------------------------

    def state_dropped(self, chain: Chain, first: int, last: int, reason: str) -> None:
        """Note that a stream's frames `first` to `last` are gone, instead of what the book has of them."""
        with self.lock:
            self._give_up(chain, first, last, reason)

    def doom(self, file: SpoolFile, reason: str) -> None:
        """Give up all that a file holds."""
        with self.lock:
            self.doomed.add(file.number)
            for held, entry in list(self.holdings.entries_of(file.number)):
                self._give_up(held.chain, entry.first, entry.last, entry.dropped or reason)

    def _give_up(self, chain: Chain, first: int, last: int, reason: str) -> None:
        """Replace what is held of a range by the fact that it is gone; the next group states it. Under the lock."""
        gone = self.holdings.give_up(chain, first, last, reason)
        if gone is not None:
            self.unstated.append((chain, gone))

    # ---- removing ------------------------------------------------------------------------------------------

    def free(self) -> list[int]:
        """Return the files that may go once a checkpoint of this moment is on the disk. Under the lock."""
        for stream in self.holdings.finished:
            self._finished_before.setdefault(stream, self.next_number)
        return sorted(self.doomed.union(number for number in self.files if number not in self.holdings.in_use))

    def sweep(self, free: Collection[int], in_hand: Collection[int]) -> None:
        """Remove files whose frames are all acknowledged or stated as dropped, but none that is worked on."""
        removed = False
        for number in free:
            file = self.files.get(number)
            if file is None or number in in_hand:
                continue
            if self.remove(file.name):
                removed = True
                del self.files[number]
                self.doomed.discard(number)
        if removed:
            self._settle_removals()

    def _settle_removals(self) -> None:
        """Make removals last; only then may what the removed files held be left out of checkpoints."""
        try:
            self.disk.sync_folder()
        except OSError:  # with the next removal then; a file that comes back is acknowledged in each checkpoint
            return
        oldest = min(self.files, default=self.next_number)
        with self.lock:
            for stream, before in list(self._finished_before.items()):
                if oldest >= before:
                    self.holdings.finished.pop(stream, None)
                    del self._finished_before[stream]

    def remove(self, name: str) -> bool:
        """Remove a file; False when the disk does not let it go now."""
        try:
            self.disk.unlink(name)
        except OSError:  # it stays, and is tried again with the next acknowledgement
            return False
        return True

    # ---- reading --------------------------------------------------------------------------------------------

    def gather(self, stretch: Stretch) -> tuple[PointTable, JournalFrames, int]:
        """Read the journal records that lead a stretch, up to one of other points or one that is damaged.

        Returns:
            Their points, their frames from the stretch's first number on, and the number they end with.

        Raises:
            BadRecordError: the very first record is damaged.
            OSError: the disk does not give back what it holds.
        """
        parts: list[JournalFrames] = []
        last = 0
        table = self.files[stretch.pieces[0].file].table
        for piece in stretch.pieces:
            assert piece.record is not None
            if self.files[piece.file].table is not table:
                break
            try:
                parts.append(unpack_frames(piece.record, self.body(piece)))
            except BadRecordError:
                if not parts:
                    raise
                break
            last = piece.last
        assert table is not None, "a journal begins with its points"
        return table, join_frames(parts, stretch.first - 1), last

    def body(self, piece: Piece) -> bytes:
        """Return the checked body of the record a piece lies in.

        Raises:
            BadRecordError: it is damaged.
            OSError: the disk does not give back what it holds.
        """
        assert piece.record is not None
        record = piece.record
        return checked_body(record, self.disk.read(self.files[piece.file].name, record.body_offset, record.body_length))
