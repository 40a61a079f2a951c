"""Where spooled frames lie: the book's entries, and the copies of them that the disk is read by.

Acknowledgements move entries while the disk thread reads, so it reads by copies taken under the lock. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.spool_file import Kind, Record

NO_FILE: Final = 0
"""A dropped range that no record states yet: found at recovery, and found again until it is acknowledged."""


@dataclass(slots=True, eq=False)
class Entry:
    """The frames `first` to `last` of one stream, in one record, or given up for `dropped`, the reason."""

    file: int
    first: int
    last: int
    samples: int
    """Not yet acknowledged."""
    at_s: float
    """Monotonic seconds when it was synced; minus infinity for what an earlier run left."""
    record: Record | None = None
    rows: NDArray[np.uint32] | None = None
    """Samples of each frame from `record.first` on, where the frames are still apart."""
    dropped: str = ""

    def samples_of(self, first: int, last: int) -> int:
        """Return how many samples the frames `first` to `last` have; all or none where the frames are not apart."""
        if self.rows is None or self.record is None:
            return self.samples if (first, last) == (self.first, self.last) else 0
        base = self.record.first
        return int(self.rows[first - base : last - base + 1].sum())


@dataclass(frozen=True, slots=True)
class Chain:
    """A stream's id, and the stream before it."""

    stream: int
    predecessor: int
    predecessor_last: int


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What one entry held at one moment: the disk is read by this copy while acknowledgements move the entry."""

    file: int
    first: int
    last: int
    samples: int
    record: Record | None
    dropped: str


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Consecutive frames of one stream from `first` on, as they were held at one moment.

    `pieces`, at least one, are either journal records, or one block, or one dropped range.
    """

    chain: Chain
    first: int
    pieces: tuple[Piece, ...]

    @property
    def last(self) -> int:
        """The highest number, included."""
        return self.pieces[-1].last

    def above(self, number: int) -> Stretch | None:
        """Return what lies in the pieces that follow the one that ends with `number`; None if nothing does."""
        rest = tuple(piece for piece in self.pieces if piece.first > number)
        return Stretch(self.chain, rest[0].first, rest) if rest else None


def stretches(chain: Chain, entries: Iterable[Entry], above: int, bytes_max: int | None = None) -> Iterator[Stretch]:
    """Yield copies of a stream's entries, joined where they are journal records that follow each other.

    Args:
        chain: the stream.
        entries: in order; each reaches above `above`.
        above: the first number wanted is the one after it.
        bytes_max: no further record is joined once those before it reach this.
    """
    pieces: list[Piece] = []
    size = 0
    for entry in entries:
        joins = pieces and _is_journal(pieces[-1]) and entry.first == pieces[-1].last + 1
        if pieces and not (joins and _is_journal(entry) and (bytes_max is None or size < bytes_max)):
            yield Stretch(chain, max(pieces[0].first, above + 1), tuple(pieces))
            pieces, size = [], 0
        pieces.append(Piece(entry.file, entry.first, entry.last, entry.samples, entry.record, entry.dropped))
        size += entry.record.body_length if entry.record is not None else 0
    if pieces:
        yield Stretch(chain, max(pieces[0].first, above + 1), tuple(pieces))


def _is_journal(part: Entry | Piece) -> bool:
    return not part.dropped and part.record is not None and part.record.kind is Kind.JOURNAL
