"""The edge's own store of frames until the gateway has committed them: taken means synced here, acked means forgotten.

Frames are appended in memory and synced in groups. `sync`, `tend`, `next_block` and `close` block on the disk and
belong in one thread; the rest is quick and may be called from another. A file that once failed to sync is never
synced again: what it did not take goes into a new one. `recovery.open_spool` makes a spool from what a folder holds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from edge.blocks import BlockCutter, WireBlock, join_frames
from edge.disk import AppendFile, Disk
from edge.held import Chain, Counters, Entry, Holdings, Piece, Stretch, rows_of
from edge.numbering import NumberedFrame
from edge.points import PointTable
from edge.spool_file import (
    BadRecordError,
    Checkpoint,
    JournalFrames,
    Kind,
    checked_body,
    pack_checkpoint,
    pack_frames,
    pack_record,
    pack_schema,
    unpack_frames,
    unpack_header,
)
from wire import StreamSpan

JOURNAL_BYTES_MAX: Final = 4 * 1024 * 1024
REWRITE_AFTER_S: Final = 60.0
ACK_SYNC_AFTER_S: Final = 1.0
PENDING_SAMPLES_MAX: Final = 500_000
"""Appended but not synced, about 16 MB. Beyond it the disk counts as failed: it does not keep up."""
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 30.0
FINISHED_MAX: Final = 64
"""Streams a checkpoint may name only because their file is still open; beyond it a new file begins."""
GATHER_BYTES_MAX: Final = 1024 * 1024
"""Journal bytes read for one backlog block that is not rewritten yet."""
JOURNAL_SUFFIX: Final = ".journal"
BLOCKS_SUFFIX: Final = ".blocks"
PART_SUFFIX: Final = ".part"
NO_ROOM: Final = "spool full, oldest given up"
DAMAGED: Final = "damaged on the edge's disk"


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


class Spool:
    """See the module.

    Args:
        disk: the folder.
        node: Sparkplug edge node id.
        table: the points of this run.
        max_bytes: what the files may take; beyond it the oldest is given up, with a record in each stream.
    """

    def __init__(self, disk: Disk, node: str, table: PointTable, max_bytes: int) -> None:
        self._disk, self._node, self._table, self._max_bytes = disk, node, table, max_bytes
        self._cutter = BlockCutter(node)
        self._lock = threading.Lock()
        self.holdings = Holdings()
        self.files: dict[int, SpoolFile] = {}
        self.cuts: tuple[Cut, ...] = ()
        self.next_number = 1
        self._pending: list[NumberedFrame] = []
        self._pending_samples = 0
        self._acks_since_s: float | None = None
        self._unstated: list[tuple[Chain, Entry]] = []
        self._doomed: set[int] = set()
        self._finished_before: dict[int, int] = {}
        self._writer: SpoolFile | None = None
        self._append: AppendFile | None = None
        self._rewriting: Iterator[None] | None = None
        self._rewritten: int = 0
        self._fault = ""
        self._retry_at_s, self._retry_s = 0.0, RETRY_S_MIN

    # ---- quick: memory only -------------------------------------------------------------------------------

    @property
    def fault(self) -> str:
        """Why frames cannot be taken at present; empty when they can."""
        return self._fault

    @property
    def size_bytes(self) -> int:
        """What the files take, without those about to go."""
        return sum(file.size for number, file in list(self.files.items()) if number not in self._doomed)

    def append(self, frame: NumberedFrame) -> None:
        """Take a frame into the next sync. It counts as taken once that has succeeded."""
        with self._lock:
            self.holdings.number(frame.stream, frame.sequence, frame.predecessor, frame.predecessor_last)
            self._pending.append(frame)
            self._pending_samples += len(frame)
            if self._pending_samples > PENDING_SAMPLES_MAX and not self._fault:
                self._fault = f"{self._pending_samples} samples wait for the disk"

    def waits(self, stream: int, sequence: int) -> bool:
        """Whether this frame was appended and is not on the disk yet."""
        with self._lock:
            return any(frame.stream == stream and frame.sequence == sequence for frame in self._pending)

    def acked(self, stream: int, upto: int, now_s: float) -> bool:
        """Forget a stream's frames up to `upto`; False when that was known."""
        with self._lock:
            if not self.holdings.acked(stream, upto):
                return False
            if self._acks_since_s is None:
                self._acks_since_s = now_s
            return True

    def seal(self, stream: int) -> None:
        """Note that no frame of the stream will be appended any more; it becomes backlog."""
        with self._lock:
            self.holdings.seal(stream)

    def spans(self) -> list[StreamSpan]:
        """Return what is unacknowledged, oldest stream first."""
        with self._lock:
            return self.holdings.spans()

    def newest(self) -> tuple[int, int]:
        """Return id and last number of the newest stream ever appended to; (0, 0) in a new spool."""
        with self._lock:
            return self.holdings.newest[:2]

    def counters(self) -> Counters:
        """Return what went through the spool."""
        with self._lock:
            return self.holdings.counters()

    # ---- slow: the disk, one thread -------------------------------------------------------------------------

    def sync(self, now_s: float, *, finally_: bool = False) -> bool:
        """Put everything appended on the disk: one write, one sync.

        Args:
            now_s: monotonic seconds.
            finally_: write down new acknowledgements now instead of within a second, and do not wait for a retry.

        Returns:
            True when nothing waits any more; False while the disk refuses (see `fault`).
        """
        with self._lock:
            frames = list(self._pending)
            acks_due = self._acks_since_s is not None and (
                finally_ or bool(frames) or now_s - self._acks_since_s >= ACK_SYNC_AFTER_S
            )
            if not (frames or acks_due or self._unstated or self._fault):
                return True
            if self._fault and now_s < self._retry_at_s and not finally_:
                return False
        if not self._write_group(frames, now_s):
            return False
        self._make_room(now_s)
        return True

    def tend(self, now_s: float) -> bool:
        """Do one bounded piece of housekeeping (close a full journal, rewrite a block); True if more may be due."""
        if self._fault:
            self._abandon_rewriting()
            return False
        self._rotate(now_s)
        if self._rewriting is None:
            file = self._due_for_rewriting(now_s)
            if file is None:
                return False
            # A rewritten journal takes its checkpoints with it: a later file must have one first.
            later = [other for number, other in self.files.items() if number > file.number]
            if not any(other.checkpointed for other in later) and not self._write_group((), now_s):
                return False
            self._rewriting, self._rewritten = self._rewrite(file), file.number
        try:
            next(self._rewriting)
        except StopIteration:
            self._rewriting = None
        except OSError:  # the journal still holds everything; the next turn begins again
            self._rewriting = None
            return False
        return True

    def next_block(self, after: Mapping[int, int]) -> WireBlock | None:
        """Return the oldest synced, unacknowledged stretch of a sealed stream as a block; None if there is none.

        Args:
            after: for streams with blocks under way, the highest number these speak for.

        Raises:
            OSError: the disk does not give back what it holds; to be tried again.
        """
        while True:
            with self._lock:
                stretch = self.holdings.backlog(after, GATHER_BYTES_MAX)
            if stretch is None:
                return None
            chain, head = stretch.chain, stretch.pieces[0]
            if head.dropped:
                return self._cutter.dropped(chain, stretch.first, head.last, head.dropped)
            try:
                if head.record is not None and head.record.kind is Kind.BLOCK:
                    return WireBlock(chain.stream, head.record.first, head.record.last, self._body(head), head.samples)
                table, frames, last = self._gather(stretch)
                return next(self._cutter.cut(chain, table, frames, stretch.first, last))
            except BadRecordError:
                self._give_up_damaged(chain, head)

    def close(self, now_s: float) -> bool:
        """Sync frames and acknowledgements and close; return what `sync` says."""
        done = self.sync(now_s, finally_=True)
        self._abandon_rewriting()
        if self._append is not None:
            self._append.close()
        self._append = self._writer = None
        return done

    # ---- writing --------------------------------------------------------------------------------------------

    def _write_group(self, frames: Sequence[NumberedFrame], now_s: float) -> bool:
        """Write one group and take it into the book; on failure fence the file and return False."""
        with self._lock:
            acks_since_s, self._acks_since_s = self._acks_since_s, None
            stated = list(self._unstated)
            free = sorted(self._doomed.union(number for number in self.files if number not in self.holdings.in_use))
            checkpoint = self._checkpoint()
            for stream in self.holdings.finished:
                self._finished_before.setdefault(stream, self.next_number)
            records = [
                pack_record(
                    Kind.DROPPED,
                    entry.dropped.encode(),
                    stream=chain.stream,
                    first=entry.first,
                    last=entry.last,
                    predecessor=chain.predecessor,
                    predecessor_last=chain.predecessor_last,
                )
                for chain, entry in stated
            ]
        groups = [list(group) for _, group in groupby(frames, key=_stream_of)]
        if records or acks_since_s is not None or self._writer is None:
            records.append(pack_checkpoint(checkpoint))
        else:
            free = []  # what the files on the disk do not yet say must not decide what may go
        heads = len(records)
        records += [pack_frames(group) for group in groups]
        try:
            writer, offsets = self._put(records, now_s)
        except OSError as error:
            with self._lock:
                if acks_since_s is not None:  # else one may have come during the write
                    self._acks_since_s = acks_since_s
            self._fence(str(error), now_s)
            return False
        with self._lock:
            del self._pending[: len(frames)]
            self._pending_samples -= sum(len(frame) for frame in frames)
            for group, packed, offset in zip(groups, records[heads:], offsets[heads:], strict=True):
                self._add(writer, group, packed, offset, now_s)
            for chain, entry in stated:
                self.holdings.place(entry, chain.stream, writer.number)
            del self._unstated[: len(stated)]
            self._fault, self._retry_s = "", RETRY_S_MIN
        self._sweep(free)
        return True

    def _put(self, records: Sequence[bytes], now_s: float) -> tuple[SpoolFile, list[int]]:
        """Append records to the open journal, or to a new one, and sync; return the file and the offsets."""
        opened = self._append is None or self._writer is None
        if opened:
            writer = SpoolFile(self.next_number, JOURNAL_SUFFIX, self._table)
            self.next_number += 1
            self._append, self._writer = self._disk.create(writer.name), writer
            records = [pack_schema(self._node, self._table), *records]
        assert self._writer is not None
        assert self._append is not None
        writer, offsets, at = self._writer, [], self._writer.size
        for record in records:
            offsets.append(at)
            at += len(record)
        self._append.write(b"".join(records))
        self._append.sync()
        if opened:
            self._disk.sync_folder()
            writer.checkpointed = True
            self.files[writer.number] = writer
            offsets = offsets[1:]
        writer.size, writer.synced_s = at, now_s
        return writer, offsets

    def _add(self, writer: SpoolFile, group: Sequence[NumberedFrame], packed: bytes, offset: int, now_s: float) -> None:
        record = unpack_header(packed, offset, writer.name)
        head = group[0]
        entry = Entry(writer.number, record.first, record.last, record.samples, now_s, record, rows_of(group))
        self.holdings.add(entry, head.stream, head.predecessor, head.predecessor_last)

    def _fence(self, reason: str, now_s: float) -> None:
        """Leave the file that failed alone for good; try again later, in another."""
        self._abandon_rewriting()
        if self._append is not None:
            self._append.close()
        if self._writer is not None and self._writer.number not in self.files:  # nothing in it was ever promised
            self._remove(self._writer.name)
        elif self._writer is not None:
            with contextlib.suppress(OSError):  # or else recovery meets the same frames twice, and takes them once
                self._disk.truncate(self._writer.name, self._writer.size)
        self._append = self._writer = None
        self._fault, self._retry_at_s = reason, now_s + self._retry_s
        self._retry_s = min(RETRY_S_MAX, self._retry_s * 2)

    def _checkpoint(self) -> Checkpoint:
        held, counters = self.holdings, self.holdings.counters()
        acked = [(stream.stream, stream.acked) for stream in held.streams.values() if stream.acked]
        acked += held.finished.items()
        return Checkpoint(
            tuple(acked),
            held.newest,
            counters.samples_acked,
            counters.frames_acked,
            counters.samples_dropped,
            counters.frames_dropped,
        )

    def _sweep(self, free: Sequence[int]) -> None:
        """Remove files whose frames are all acknowledged or stated as dropped."""
        removed = False
        for number in free:
            file = self.files.get(number)
            if file is None or file is self._writer or (self._rewriting is not None and self._rewritten == number):
                continue
            if self._remove(file.name):
                removed = True
                del self.files[number]
                self._doomed.discard(number)
        if removed:
            self._settle_removals()

    def _settle_removals(self) -> None:
        """Make removals last; only then may what the removed files held be left out of checkpoints."""
        try:
            self._disk.sync_folder()
        except OSError:  # with the next removal then; a file that comes back is acknowledged in each checkpoint
            return
        oldest = min(self.files, default=self.next_number)
        with self._lock:
            for stream, before in list(self._finished_before.items()):
                if oldest >= before:
                    self.holdings.finished.pop(stream, None)
                    del self._finished_before[stream]

    def _remove(self, name: str) -> bool:
        try:
            self._disk.unlink(name)
        except OSError:  # it stays, and is tried again with the next acknowledgement
            return False
        return True

    def _make_room(self, now_s: float) -> None:
        """Give up the oldest files until the rest fits; each range becomes a record in its stream."""
        while self.size_bytes > self._max_bytes:
            victims = [
                file
                for number, file in sorted(self.files.items())
                if file is not self._writer and number not in self._doomed
            ]
            if not victims:
                return
            victim = victims[0]
            if self._rewriting is not None and self._rewritten == victim.number:
                self._abandon_rewriting()
            with self._lock:
                self._doomed.add(victim.number)
                for held, entry in list(self.holdings.entries_of(victim.number)):
                    self._give_up(held.chain, entry.first, entry.last, entry.dropped or NO_ROOM)
            if not self._write_group((), now_s):
                return

    def state_dropped(self, chain: Chain, first: int, last: int, reason: str) -> None:
        """Note that a stream's frames `first` to `last` are gone, instead of what the book has of them."""
        with self._lock:
            self._give_up(chain, first, last, reason)

    def _give_up(self, chain: Chain, first: int, last: int, reason: str) -> None:
        """Replace what is held of a range by the fact that it is gone; the next group states it. Under the lock."""
        gone = self.holdings.give_up(chain, first, last, reason)
        if gone is not None:
            self._unstated.append((chain, gone))

    def _give_up_damaged(self, chain: Chain, piece: Piece) -> None:
        if self._rewriting is not None and self._rewritten == piece.file:
            self._abandon_rewriting()  # it may hold what it read before the damage
        self.state_dropped(chain, piece.first, piece.last, DAMAGED)

    # ---- rewriting ------------------------------------------------------------------------------------------

    def _rotate(self, now_s: float) -> None:
        """Close the journal when it is full, or holds something unacknowledged for a minute."""
        writer = self._writer
        if writer is None or self._append is None:
            return
        full = writer.size >= min(JOURNAL_BYTES_MAX, self._max_bytes // 8)
        with self._lock:
            full |= len(self.holdings.finished) > FINISHED_MAX
            waiting = next((entry.at_s for _, entry in self.holdings.entries_of(writer.number) if entry.record), now_s)
        if full or now_s - waiting >= REWRITE_AFTER_S:
            self._append.close()
            self._append = self._writer = None

    def _due_for_rewriting(self, now_s: float) -> SpoolFile | None:
        with self._lock:
            for number, file in sorted(self.files.items()):
                if (
                    file.suffix == JOURNAL_SUFFIX
                    and file is not self._writer
                    and number not in self._doomed
                    and now_s - file.synced_s >= REWRITE_AFTER_S
                    and any(entry.record for _, entry in self.holdings.entries_of(number))
                ):
                    return file
        return None

    def _rewrite(self, file: SpoolFile) -> Iterator[None]:
        """Write a journal's unacknowledged frames as blocks under the same number, a block a step; then replace it."""
        with self._lock:
            work = self.holdings.journalled(file.number)
        target = SpoolFile(file.number, BLOCKS_SUFFIX, None)
        part = target.name + PART_SUFFIX
        made: dict[int, list[Entry]] = {}
        append = self._disk.create(part)
        done = False
        try:
            while work:
                stretch = work.pop(0)
                chain = stretch.chain
                try:
                    table, frames, last = self._gather(stretch)
                except BadRecordError:
                    self.state_dropped(chain, stretch.first, stretch.pieces[0].last, DAMAGED)
                    return
                rest = stretch.above(last)
                if rest is not None:
                    work.insert(0, rest)
                for block in self._cutter.cut(chain, table, frames, stretch.first, last):
                    packed = pack_record(
                        Kind.BLOCK,
                        block.payload,
                        stream=chain.stream,
                        first=block.first,
                        last=block.last,
                        predecessor=chain.predecessor,
                        predecessor_last=chain.predecessor_last,
                        samples=block.samples,
                    )
                    record = unpack_header(packed, target.size, target.name)
                    made.setdefault(chain.stream, []).append(
                        Entry(file.number, block.first, block.last, block.samples, file.synced_s, record)
                    )
                    append.write(packed)
                    target.size += len(packed)
                    yield
            append.sync()
            append.close()
            self._disk.rename(part, target.name)
            self._disk.sync_folder()
            done = True
        finally:
            append.close()
            if not done:
                self._remove(part)
        with self._lock:
            for stream, entries in made.items():
                self.holdings.replace(file.number, stream, entries)
            target.synced_s = file.synced_s
            self.files[file.number] = target
        self._remove(file.name)

    def _abandon_rewriting(self) -> None:
        if self._rewriting is not None:
            self._rewriting.close()  # type: ignore[attr-defined]
            self._rewriting = None

    # ---- reading --------------------------------------------------------------------------------------------

    def _gather(self, stretch: Stretch) -> tuple[PointTable, JournalFrames, int]:
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
                parts.append(unpack_frames(piece.record, self._body(piece)))
            except BadRecordError:
                if not parts:
                    raise
                break
            last = piece.last
        assert table is not None, "a journal begins with its points"
        return table, join_frames(parts, stretch.first - 1), last

    def _body(self, piece: Piece) -> bytes:
        assert piece.record is not None
        record = piece.record
        return checked_body(
            record, self._disk.read(self.files[piece.file].name, record.body_offset, record.body_length)
        )


def _stream_of(frame: NumberedFrame) -> int:
    return frame.stream
