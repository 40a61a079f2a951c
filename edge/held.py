"""The book of what the spool holds: which frames of which stream lie in which file, and what is acknowledged.

Pure. Files are numbers, records are places in them; nothing is read or written here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.entries import NO_FILE, Chain, Entry, Stretch, stretches
from edge.numbering import NumberedFrame
from edge.spool_file import Checkpoint
from wire import StreamSpan

ENTRIES_LOOKED_AT_MAX: Final = 4096
"""Entries of one stream that one look for backlog may pass; what is under way never takes that many."""


@dataclass(slots=True, eq=False)
class HeldStream:
    """One stream: everything up to `acked` may be forgotten, `entries` hold what was synced above it."""

    stream: int
    predecessor: int
    predecessor_last: int
    acked: int = 0
    last: int = 0
    """Highest number used, synced or not."""
    synced: int = 0
    """Highest number on the disk."""
    sealed: bool = False
    entries: deque[Entry] = field(default_factory=deque)

    @property
    def chain(self) -> Chain:
        """Its id, and the stream before it."""
        return Chain(self.stream, self.predecessor, self.predecessor_last)

    @property
    def finished(self) -> bool:
        """Nothing is left to send and nothing will come."""
        return self.sealed and self.acked >= self.last and self.synced >= self.last


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through the spool since its folder was made. Taken means synced."""

    samples_taken: int
    samples_acked: int
    samples_dropped: int
    frames_taken: int
    frames_acked: int
    frames_dropped: int


class Holdings:
    """All streams the spool holds something of, oldest first."""

    def __init__(self) -> None:
        self.streams: dict[int, HeldStream] = {}
        self.in_use: Counter[int] = Counter()
        """Entries per file; a file without one may go."""
        self.finished: dict[int, int] = {}
        """Streams not held any more, with what was acknowledged, until no file can bring them back."""
        self.newest: tuple[int, int, int, int] = (0, 0, 0, 0)
        """Id, last, predecessor and predecessor's last of the newest stream ever held."""
        self.samples_unacked = self.samples_acked = self.samples_dropped = 0
        self.frames_unacked = self.frames_acked = self.frames_dropped = 0

    def counters(self) -> Counters:
        """Return the figures; taken = acked + dropped + held, always."""
        return Counters(
            self.samples_acked + self.samples_dropped + self.samples_unacked,
            self.samples_acked,
            self.samples_dropped,
            self.frames_acked + self.frames_dropped + self.frames_unacked,
            self.frames_acked,
            self.frames_dropped,
        )

    def checkpoint(self) -> Checkpoint:
        """Return what must survive a restart: all that is acknowledged, the newest stream, the figures."""
        counters = self.counters()
        acked = [(held.stream, held.acked) for held in self.streams.values() if held.acked]
        return Checkpoint(
            (*acked, *self.finished.items()),
            self.newest,
            counters.samples_acked,
            counters.frames_acked,
            counters.samples_dropped,
            counters.frames_dropped,
        )

    def number(self, stream: int, sequence: int, predecessor: int, predecessor_last: int) -> None:
        """Note that a number was used, before it is synced."""
        held = self._stream(stream, predecessor, predecessor_last)
        held.last = max(held.last, sequence)
        self.newest = (stream, held.last, predecessor, predecessor_last)

    def add(self, entry: Entry, stream: int, predecessor: int, predecessor_last: int) -> bool:
        """Take in synced frames; False when all of them were held already."""
        held = self._stream(stream, predecessor, predecessor_last)
        if entry.last <= held.synced:
            return False
        first = max(entry.first, held.synced + 1)
        if first > entry.first:
            entry.samples, entry.first = entry.samples_of(first, entry.last), first
        held.synced = entry.last
        held.last = max(held.last, entry.last)
        self.samples_unacked += entry.samples
        self.frames_unacked += entry.last - entry.first + 1
        self.in_use[entry.file] += 1
        held.entries.append(entry)
        self._acknowledge(held, held.acked)
        self._tidy(held)
        return True

    def restore_ack(self, stream: int, upto: int) -> None:
        """Take an acknowledgement from a checkpoint, also for a stream whose frames come later in the files."""
        held = self._stream(stream, 0, 0)
        self._acknowledge(held, upto)

    def place(self, entry: Entry, stream: int, file: int) -> None:
        """Note which file states a dropped range, unless it was acknowledged or joined meanwhile."""
        held = self.streams.get(stream)
        if held is not None and entry in held.entries:
            self._unuse(entry)
            entry.file = file
            self.in_use[file] += 1

    def give_up(self, chain: Chain, first: int, last: int, reason: str) -> Entry | None:
        """Let go of a range that was held; return the dropped range, or None if all of it was acknowledged meanwhile."""
        held = self.streams.get(chain.stream)
        if held is None or last <= held.acked:
            return None
        gone = Entry(NO_FILE, max(first, held.acked + 1), last, 0, float("-inf"), dropped=reason)
        self.drop(gone, chain.stream, chain.predecessor, chain.predecessor_last)
        return gone

    def drop(self, entry: Entry, stream: int, predecessor: int, predecessor_last: int) -> None:
        """Put a dropped range in its place among a stream's entries, instead of what they held of it."""
        held = self._stream(stream, predecessor, predecessor_last)
        held.synced, held.last = max(held.synced, entry.last), max(held.last, entry.last)
        kept: list[Entry] = []
        for old in held.entries:
            touching = entry.first - 1 <= old.last and old.first <= entry.last + 1
            if touching and old.dropped == entry.dropped:  # one record for the whole range is enough
                entry.first, entry.last = min(entry.first, old.first), max(entry.last, old.last)
                self._unuse(old)
            elif old.last < entry.first or entry.last < old.first:
                kept.append(old)
            else:
                self._give_up(old)
        self.in_use[entry.file] += 1
        held.entries = deque(sorted([*kept, entry], key=_by_first))
        self._acknowledge(held, held.acked)
        self._tidy(held)

    def acked(self, stream: int, upto: int) -> bool:
        """Forget the frames of a stream up to `upto`; False when that was known, or the stream is not held."""
        held = self.streams.get(stream)
        if held is None:
            return False
        upto = min(upto, held.last)  # a number never used cannot be acknowledged
        if upto <= held.acked:
            return False
        self._acknowledge(held, upto)
        self._tidy(held)
        return True

    def seal(self, stream: int) -> None:
        """Note that no frame will be added to the stream."""
        held = self.streams.get(stream)
        if held is not None:
            held.sealed = True
            self._tidy(held)

    def settle(self) -> list[tuple[HeldStream, int, int]]:
        """After recovery: seal every stream and return the holes in what is held (stream, first, last)."""
        holes = []
        for held in list(self.streams.values()):
            held.sealed = True
            upto = held.acked
            for entry in held.entries:
                if entry.first > upto + 1:
                    holes.append((held, upto + 1, entry.first - 1))
                upto = max(upto, entry.last)
            self._tidy(held)
        return holes

    def spans(self) -> list[StreamSpan]:
        """Return what is unacknowledged, oldest stream first."""
        return [
            StreamSpan(held.stream, held.acked + 1, held.last, held.predecessor, held.predecessor_last)
            for held in self.streams.values()
            if held.acked < held.last
        ]

    def entries_of(self, file: int) -> Iterator[tuple[HeldStream, Entry]]:
        """Yield what a file still holds, oldest stream first."""
        for held in self.streams.values():
            for entry in held.entries:
                if entry.file == file:
                    yield held, entry

    def backlog(self, after: Mapping[int, int], bytes_max: int) -> Stretch | None:
        """Return the next stretch to send, of the oldest sealed stream that has any.

        Args:
            after: for streams with frames under way, the highest of their numbers.
            bytes_max: no further journal record is taken in once those before it reach this.
        """
        for held in self.streams.values():
            if not held.sealed:
                continue
            above = max(held.acked, after.get(held.stream, 0))
            waiting = (entry for entry in islice(held.entries, ENTRIES_LOOKED_AT_MAX) if entry.last > above)
            stretch = next(stretches(held.chain, waiting, above, bytes_max), None)
            if stretch is not None:
                return stretch
        return None

    def journalled(self, file: int) -> list[Stretch]:
        """Return what a journal file still holds, without ranges that were given up."""
        return [
            stretch
            for held in self.streams.values()
            for stretch in stretches(held.chain, (entry for entry in held.entries if entry.file == file), held.acked)
            if not stretch.pieces[0].dropped
        ]

    def replace(self, file: int, stream: int, entries: list[Entry]) -> None:
        """Put blocks in the place of the journal entries of `file` they were made from (same numbers)."""
        held = self.streams.get(stream)
        if held is None:
            return
        old = [entry for entry in held.entries if entry.file == file and not entry.dropped]
        kept = [entry for entry in entries if entry.last > held.acked]
        for entry in kept:
            entry.first = max(entry.first, held.acked + 1)
            entry.samples = sum(
                piece.samples_of(max(piece.first, entry.first), min(piece.last, entry.last))
                for piece in old
                if piece.first <= entry.last and entry.first <= piece.last
            )
        rest = [entry for entry in held.entries if entry not in old]
        for entry in old:
            self._unuse(entry)
        self.in_use.update({file: len(kept)} if kept else {})
        held.entries = deque(sorted([*rest, *kept], key=_by_first))

    def _stream(self, stream: int, predecessor: int, predecessor_last: int) -> HeldStream:
        held = self.streams.get(stream)
        if held is None:
            held = self.streams[stream] = HeldStream(stream, predecessor, predecessor_last)
            held.acked = self.finished.pop(stream, 0)
        if held.predecessor == 0:  # known by an acknowledgement alone until now
            held.predecessor, held.predecessor_last = predecessor, predecessor_last
        return held

    def _acknowledge(self, held: HeldStream, upto: int) -> None:
        held.acked = max(held.acked, upto)
        while held.entries and held.entries[0].first <= held.acked:
            if not self._forget(held, held.entries[0]):
                break

    def _forget(self, held: HeldStream, entry: Entry) -> bool:
        """Let go of what is acknowledged of the oldest entry; False when some of it must stay."""
        upto = min(held.acked, entry.last)
        if upto < entry.first:
            return False
        whole = upto == entry.last
        if not entry.dropped:
            samples = entry.samples if whole else entry.samples_of(entry.first, upto)
            if whole or entry.rows is not None:
                frames = upto - entry.first + 1
                self.samples_acked += samples
                self.samples_unacked -= samples
                self.frames_acked += frames
                self.frames_unacked -= frames
                entry.samples -= samples
                entry.first = upto + 1
        elif not whole:
            entry.first = upto + 1
        if whole:
            held.entries.remove(entry)
            self._unuse(entry)
        return whole

    def _give_up(self, entry: Entry) -> None:
        self._unuse(entry)
        if not entry.dropped:
            frames = entry.last - entry.first + 1
            self.samples_unacked -= entry.samples
            self.samples_dropped += entry.samples
            self.frames_unacked -= frames
            self.frames_dropped += frames

    def _unuse(self, entry: Entry) -> None:
        self.in_use[entry.file] -= 1
        if self.in_use[entry.file] <= 0:
            del self.in_use[entry.file]

    def _tidy(self, held: HeldStream) -> None:
        if held.finished and self.streams.get(held.stream) is held:
            del self.streams[held.stream]
            if held.acked:
                self.finished[held.stream] = held.acked


def rows_of(frames: Sequence[NumberedFrame]) -> NDArray[np.uint32]:
    """Return how many samples each frame has."""
    return np.array([len(frame) for frame in frames], np.uint32)


def _by_first(entry: Entry) -> int:
    return entry.first
