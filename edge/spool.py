"""The edge's own store of frames until the gateway has committed them: taken means synced here, acked means forgotten.

Frames are appended in memory and synced in groups. `sync`, `tend`, `next_block` and `close` block on the disk and
belong in one thread; the rest is quick and may be called from another. A file that once failed to sync is never
synced again: what it did not take goes into a new one. `recovery.open_spool` makes a spool from what a folder holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from edge.blocks import BlockCutter, WireBlock
from edge.disk import AppendFile
from edge.entries import Chain, Entry
from edge.held import Counters, rows_of
from edge.numbering import NumberedFrame
from edge.points import PointTable
from edge.rewriting import REWRITE_AFTER_S, Rewriter
from edge.shelf import DAMAGED, GONE, JOURNAL_SUFFIX, NO_ROOM, Cut, Shelf, SpoolFile
from edge.spool_file import BadRecordError, Kind, pack_checkpoint, pack_frames, pack_record, pack_schema, unpack_header
from wire import StreamSpan

JOURNAL_BYTES_MAX: Final = 4 * 1024 * 1024
ACK_SYNC_AFTER_S: Final = 1.0
PENDING_SAMPLES_MAX: Final = 500_000
"""Appended but not synced, about 16 MB. Beyond it the disk counts as failed: it does not keep up."""
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 30.0
FINISHED_MAX: Final = 64
"""Streams a checkpoint may name only because their file is still open; beyond it a new file begins."""
FOLDER_LOOKED_AT_EVERY_S: Final = 2.0
GATHER_BYTES_MAX: Final = 1024 * 1024
"""Journal bytes read for one backlog block that is not rewritten yet."""


class Spool:
    """See the module.

    Args:
        shelf: what an earlier run left; from here on only the spool touches it.
        node: Sparkplug edge node id.
        table: the points of this run.
        max_bytes: what the files may take; beyond it the oldest is given up, with a record in each stream.
        cuts: what recovery took off the files.
    """

    def __init__(self, shelf: Shelf, node: str, table: PointTable, max_bytes: int, cuts: Sequence[Cut] = ()) -> None:
        self.shelf, self.cuts = shelf, tuple(cuts)
        self._node, self._table, self._max_bytes = node, table, max_bytes
        self._cutter = BlockCutter(node)
        self._rewriter = Rewriter(shelf, self._cutter)
        self._pending: list[NumberedFrame] = []
        self._pending_samples = 0
        self._acks_since_s: float | None = None
        self._writer: SpoolFile | None = None
        self._append: AppendFile | None = None
        self._fault = ""
        self._retry_at_s, self._retry_s = 0.0, RETRY_S_MIN
        self._looked_s = float("-inf")

    # ---- quick: memory only -------------------------------------------------------------------------------

    @property
    def fault(self) -> str:
        """Why frames cannot be taken at present; empty when they can."""
        return self._fault

    @property
    def size_bytes(self) -> int:
        """What the files take, without those about to go."""
        return self.shelf.size_bytes

    def append(self, frame: NumberedFrame) -> None:
        """Take a frame into the next sync. It counts as taken once that has succeeded."""
        with self.shelf.lock:
            self.shelf.holdings.number(frame.stream, frame.sequence, frame.predecessor, frame.predecessor_last)
            self._pending.append(frame)
            self._pending_samples += len(frame)
            if self._pending_samples > PENDING_SAMPLES_MAX and not self._fault:
                self._fault = f"{self._pending_samples} samples wait for the disk"

    def waits(self, stream: int, sequence: int) -> bool:
        """Whether this frame was appended and is not on the disk yet."""
        with self.shelf.lock:
            return any(frame.stream == stream and frame.sequence == sequence for frame in self._pending)

    def acked(self, stream: int, upto: int, now_s: float) -> bool:
        """Forget a stream's frames up to `upto`; False when that was known."""
        with self.shelf.lock:
            if not self.shelf.holdings.acked(stream, upto):
                return False
            if self._acks_since_s is None:
                self._acks_since_s = now_s
            return True

    def seal(self, stream: int) -> None:
        """Note that no frame of the stream will be appended any more; it becomes backlog."""
        with self.shelf.lock:
            self.shelf.holdings.seal(stream)

    def spans(self) -> list[StreamSpan]:
        """Return what is unacknowledged, oldest stream first."""
        with self.shelf.lock:
            return self.shelf.holdings.spans()

    def newest(self) -> tuple[int, int]:
        """Return id and last number of the newest stream ever appended to; (0, 0) in a new spool."""
        with self.shelf.lock:
            return self.shelf.holdings.newest[:2]

    def counters(self) -> Counters:
        """Return what went through the spool."""
        with self.shelf.lock:
            return self.shelf.holdings.counters()

    # ---- slow: the disk, one thread -------------------------------------------------------------------------

    def sync(self, now_s: float, *, finally_: bool = False) -> bool:
        """Put everything appended on the disk: one write, one sync.

        Args:
            now_s: monotonic seconds.
            finally_: write down new acknowledgements now instead of within a second, and do not wait for a retry.

        Returns:
            True when nothing waits any more; False while the disk refuses (see `fault`).
        """
        look = not (self._fault or finally_) and now_s - self._looked_s >= FOLDER_LOOKED_AT_EVERY_S
        if look and not self._whole(now_s):
            return False
        with self.shelf.lock:
            frames = list(self._pending)
            acks_due = self._acks_since_s is not None and (
                finally_ or bool(frames) or now_s - self._acks_since_s >= ACK_SYNC_AFTER_S
            )
            if not (frames or acks_due or self.shelf.unstated or self._fault):
                return True
            if self._fault and now_s < self._retry_at_s and not finally_:
                return False
        if self._fault:
            with contextlib.suppress(OSError):  # the write says it
                self._give_up_gone()
        if not self._write_group(frames, now_s):
            return False
        self._make_room(now_s)
        return True

    def tend(self, now_s: float) -> bool:
        """Do one bounded piece of housekeeping (close a full journal, rewrite a block); True if more may be due."""
        if self._fault:
            self._rewriter.abandon()
            return False
        self._rotate(now_s)
        if not self._rewriter.number:
            file = self._rewriter.due(now_s, self._writer)
            if file is None:
                return False
            # A rewritten journal takes its checkpoints with it: a later file must have one first.
            later = [other for number, other in self.shelf.files.items() if number > file.number]
            if not any(other.checkpointed for other in later) and not self._write_group((), now_s):
                return False
            self._rewriter.begin(file)
        return self._rewriter.step()

    def next_block(self, after: Mapping[int, int]) -> WireBlock | None:
        """Return the oldest synced, unacknowledged stretch of a sealed stream as a block; None if there is none.

        Args:
            after: for streams with blocks under way, the highest number these speak for.

        Raises:
            OSError: the disk does not give back what it holds; to be tried again.
        """
        while True:
            with self.shelf.lock:
                stretch = self.shelf.holdings.backlog(after, GATHER_BYTES_MAX)
            if stretch is None:
                return None
            chain, head = stretch.chain, stretch.pieces[0]
            if head.dropped:
                return self._cutter.dropped(chain, stretch.first, head.last, head.dropped)
            try:
                if head.record is not None and head.record.kind is Kind.BLOCK:
                    body = self.shelf.body(head)
                    return WireBlock(chain.stream, head.record.first, head.record.last, body, head.samples)
                table, frames, last = self.shelf.gather(stretch)
                return next(self._cutter.cut(chain, table, frames, stretch.first, last))
            except BadRecordError:
                if self._rewriter.number == head.file:
                    self._rewriter.abandon()  # it may hold what it read before the damage
                self.shelf.state_dropped(chain, head.first, head.last, DAMAGED)

    def close(self, now_s: float) -> bool:
        """Sync frames and acknowledgements and close; return what `sync` says."""
        done = self.sync(now_s, finally_=True)
        self._rewriter.abandon()
        if self._append is not None:
            self._append.close()
        self._append = self._writer = None
        return done

    # ---- writing --------------------------------------------------------------------------------------------

    def _write_group(self, frames: Sequence[NumberedFrame], now_s: float) -> bool:
        """Write one group and take it into the book; on failure fence the file and return False."""
        shelf = self.shelf
        with shelf.lock:
            acks_since_s, self._acks_since_s = self._acks_since_s, None
            stated = list(shelf.unstated)
            free = shelf.free()
            checkpoint = pack_checkpoint(shelf.holdings.checkpoint())
            records = [_pack_dropped(chain, entry) for chain, entry in stated]
        groups = [list(group) for _, group in groupby(frames, key=_stream_of)]
        if records or acks_since_s is not None or self._writer is None:
            records.append(checkpoint)
        else:
            free = []  # what the files on the disk do not yet say must not decide what may go
        heads = len(records)
        records += [pack_frames(group) for group in groups]
        try:
            writer, offsets = self._put(records, now_s)
        except OSError as error:
            with shelf.lock:
                if acks_since_s is not None:  # else one may have come during the write
                    self._acks_since_s = acks_since_s
            self._fence(str(error), now_s, touch=not isinstance(error, FileNotFoundError))
            return False
        with shelf.lock:
            del self._pending[: len(frames)]
            self._pending_samples -= sum(len(frame) for frame in frames)
            for group, packed, offset in zip(groups, records[heads:], offsets[heads:], strict=True):
                self._add(writer, group, packed, offset, now_s)
            for chain, entry in stated:
                shelf.holdings.place(entry, chain.stream, writer.number)
            del shelf.unstated[: len(stated)]
            self._fault, self._retry_s = "", RETRY_S_MIN
        shelf.sweep(free, (writer.number, self._rewriter.number))
        return True

    def _put(self, records: Sequence[bytes], now_s: float) -> tuple[SpoolFile, list[int]]:
        """Append records to the open journal, or to a new one, and sync; return the file and the offsets."""
        opened = self._append is None or self._writer is None
        if opened:
            writer = SpoolFile(self.shelf.next_number, JOURNAL_SUFFIX, self._table)
            self.shelf.next_number += 1
            self._append, self._writer = self.shelf.disk.create(writer.name), writer
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
            self.shelf.disk.sync_folder()
            writer.checkpointed = True
            self.shelf.files[writer.number] = writer
            offsets = offsets[1:]
        writer.size, writer.synced_s = at, now_s
        return writer, offsets

    def _add(self, writer: SpoolFile, group: Sequence[NumberedFrame], packed: bytes, offset: int, now_s: float) -> None:
        record = unpack_header(packed, offset, writer.name)
        head = group[0]
        entry = Entry(writer.number, record.first, record.last, record.samples, now_s, record, rows_of(group))
        self.shelf.holdings.add(entry, head.stream, head.predecessor, head.predecessor_last)

    def _whole(self, now_s: float) -> bool:
        """Look whether the folder still has what the book says; if not, that is a fault, as no frame is safe there."""
        self._looked_s = now_s
        try:
            gone = self._give_up_gone()
        except OSError as error:
            reason = str(error)
        else:
            if not gone:
                return True
            reason = f"{len(gone)} files are gone from its folder, the oldest was {gone[0].name}"
        self._fence(reason, now_s, touch=False)
        return False

    def _give_up_gone(self) -> list[SpoolFile]:
        """Give up what files held that are no longer in the folder; return these, oldest first.

        Raises:
            OSError: the folder cannot be read; it may come back as it was, so nothing is given up.
        """
        shelf = self.shelf
        names = set(shelf.disk.names())
        gone = [
            file
            for number, file in sorted(shelf.files.items())
            if file.name not in names and number not in shelf.doomed
        ]
        for file in gone:
            shelf.doom(file, GONE)
        return gone

    def _fence(self, reason: str, now_s: float, *, touch: bool) -> None:
        """Leave the file that failed alone for good; try again later, in another.

        Args:
            touch: the file under its name is our own, and may be put right.
        """
        self._rewriter.abandon()
        if self._append is not None:
            self._append.close()
        if touch and self._writer is not None:
            if self._writer.number not in self.shelf.files:  # nothing in it was ever promised
                self.shelf.remove(self._writer.name)
            else:
                with contextlib.suppress(OSError):  # or else recovery meets the same frames twice, and takes them once
                    self.shelf.disk.truncate(self._writer.name, self._writer.size)
        self._append = self._writer = None
        self._fault, self._retry_at_s = reason, now_s + self._retry_s
        self._retry_s = min(RETRY_S_MAX, self._retry_s * 2)

    def _make_room(self, now_s: float) -> None:
        """Give up the oldest files until the rest fits; each range becomes a record in its stream."""
        shelf = self.shelf
        while shelf.size_bytes > self._max_bytes:
            victims = [
                file for file in shelf.files.values() if file is not self._writer and file.number not in shelf.doomed
            ]
            if not victims:
                return
            victim = min(victims, key=_number_of)
            if self._rewriter.number == victim.number:
                self._rewriter.abandon()
            shelf.doom(victim, NO_ROOM)
            if not self._write_group((), now_s):
                return

    def _rotate(self, now_s: float) -> None:
        """Close the journal when it is full, or holds something unacknowledged for a minute."""
        writer = self._writer
        if writer is None or self._append is None:
            return
        full = writer.size >= min(JOURNAL_BYTES_MAX, self._max_bytes // 8)
        with self.shelf.lock:
            full |= len(self.shelf.holdings.finished) > FINISHED_MAX
            waiting = next(
                (entry.at_s for _, entry in self.shelf.holdings.entries_of(writer.number) if entry.record), now_s
            )
        if full or now_s - waiting >= REWRITE_AFTER_S:
            self._append.close()
            self._append = self._writer = None


def _pack_dropped(chain: Chain, entry: Entry) -> bytes:
    return pack_record(
        Kind.DROPPED,
        entry.dropped.encode(),
        stream=chain.stream,
        first=entry.first,
        last=entry.last,
        predecessor=chain.predecessor,
        predecessor_last=chain.predecessor_last,
    )


def _number_of(file: SpoolFile) -> int:
    return file.number


def _stream_of(frame: NumberedFrame) -> int:
    return frame.stream
