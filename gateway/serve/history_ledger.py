"""One tag's samples that are in no segment yet: out of memory and the ledger, live frames and late blocks, each once.

The newest rows come from memory (`recent`), older ones are looked up by stream: within a stream source time does not
run back, so the numbers of a range of time are found by halving. Reads are slices; what does not fit the bounds is left
out from the oldest end and said so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.moments import in_moments
from gateway.serve.history_blocks import BlockCache
from gateway.serve.history_streams import NEVER_POS, Finder, KnownStreams, StreamPart
from gateway.serve.recent import RecentFrames, StoredFrame
from gateway.serve.stored import TagRows, none_found, refused_tags, tag_of_block, tag_of_frames
from gateway.serve.view_errors import LedgerAwayError, OutOfTimeError
from gateway.serve.view_ledger import LedgerFile

SAMPLES_MAX: Final = 2_000_000
SLICE_ROWS: Final = 2_000
WINDOW_MS: Final = 600_000  # what is read in one piece, so that a cut leaves whole pieces
WINDOWS_MAX: Final = 256

Cut = Literal["", "time", "samples", "ledger"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The tag asked for, and where its samples are."""

    tag: str
    low: float  # of its span, beyond which values of blocks are clamped
    high: float
    node: str
    device: str
    number: int  # in the ledger's tag table, -1 if the ledger does not know it


@dataclass(frozen=True, slots=True, eq=False)
class Unsealed:
    """Samples in order of source time, each once; all of [covered_ms, to) that was asked for, cut by `cut`."""

    samples: Samples
    covered_ms: int
    cut: Cut = ""
    duplicates: int = 0


@dataclass(slots=True)
class _Found:
    """Samples in any order, and of each the log position of its row."""

    samples: list[Samples] = field(default_factory=list)
    pos: list[NDArray[np.int64]] = field(default_factory=list)
    copies: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.pos))

    def add(self, other: _Found) -> None:
        self.samples += other.samples
        self.pos += other.pos
        self.copies += other.copies


class LedgerPast:
    """Reads what is logged after a position. Shared by the threads that ask."""

    def __init__(self, recent: RecentFrames) -> None:
        self._recent = recent
        self._known = KnownStreams()
        self._blocks = BlockCache()

    def oldest_frame(self, file: LedgerFile, ledger_id: str) -> int | None:
        """Return when the oldest frame row kept was received."""
        self._known.begin(ledger_id)
        return self._known.oldest_frame(file)

    def samples(
        self, file: LedgerFile, ledger_id: str, subject: Subject, from_ms: int, to_ms: int, after: int, give_up_at: float
    ) -> Unsealed:
        """Return the samples of [from_ms, to_ms) that were logged after position `after`, windows of time newest first.

        Raises:
            OutOfTimeError, LedgerAwayError: not even the newest part was read.
        """
        found = _Found()
        if subject.number < 0 or not subject.node:
            return self._told(subject, found, from_ms, "")
        self._known.begin(ledger_id)
        held = self._recent.of(ledger_id, subject.node, subject.device, after)
        cut: Cut = ""
        hi_ms = to_ms
        if held is not None:
            wanted = [frame for frame in held.frames if frame.pos > after and (frame.is_block or frame.last_ms >= from_ms)]
            found.add(self._read(subject, wanted, from_ms, to_ms))
            if held.after_pos <= after:  # memory has it all
                return self._told(subject, found, from_ms, "")
        pos_max = held.after_pos if held else NEVER_POS
        width_ms = max(WINDOW_MS, -((from_ms - to_ms) // WINDOWS_MAX))
        try:
            for frames in self._historical(file, subject, after, pos_max, give_up_at):
                found.add(self._read(subject, frames, from_ms, to_ms))
            finder = Finder(file, self._known, self._blocks, subject.node, subject.device, pos_max)
            while hi_ms > from_ms and not cut:
                lo_ms = max(from_ms, hi_ms - width_ms)
                window = _Found()
                for part in finder.parts(lo_ms, hi_ms):
                    for frames in self._slices(file, subject, part, after, finder.pos_max):
                        window.add(self._read(subject, frames, lo_ms, hi_ms))
                if len(found) + len(window) > SAMPLES_MAX:
                    cut = "samples"
                elif time.monotonic() > give_up_at:
                    cut = "time"
                else:
                    found.add(window)
                    hi_ms = lo_ms
        except OutOfTimeError:
            cut = "time"
        except LedgerAwayError:
            if hi_ms >= to_ms:
                raise
            cut = "ledger"
        if cut and hi_ms >= to_ms > from_ms:
            raise OutOfTimeError
        return self._told(subject, found, hi_ms if cut else from_ms, cut)

    @staticmethod
    def _told(subject: Subject, found: _Found, covered_ms: int, cut: Cut) -> Unsealed:
        samples = concatenated([Samples.empty((subject.tag,)), *found.samples])
        kept = _first_copies(samples, np.concatenate([np.empty(0, np.int64), *found.pos]))
        copies = found.copies + len(samples) - len(kept)
        samples = in_moments(samples.take(kept))
        return Unsealed(samples.take(samples.source_ms >= covered_ms) if cut else samples, covered_ms, cut, copies)

    @staticmethod
    def _slices(
        file: LedgerFile, subject: Subject, part: StreamPart, after: int, pos_max: int
    ) -> Iterator[list[StoredFrame]]:
        """Read the rows of a part, a slice at a time."""
        number = "first" if part.kind == "F" else "last"
        device = "AND device = ?" if part.kind == "F" else ""
        lo = part.lo
        while lo <= part.hi:
            rows = file.rows(
                f"SELECT pos, stream, first, body, late_upto, fresh, refused, {number} FROM log WHERE kind = '{part.kind}' AND node = ?"  # noqa: S608
                f" AND stream = ? AND {number} >= ? AND {number} <= ? AND +pos > ? AND +pos <= ? {device}"
                f" ORDER BY {number} LIMIT {SLICE_ROWS}",
                (subject.node, part.stream, lo, part.hi, after, pos_max, *([subject.device] if device else [])),
            )
            yield [
                StoredFrame(pos, stream, first, body, 0, part.kind == "B", late_upto, fresh, refused)
                for pos, stream, first, body, late_upto, fresh, refused, _ in rows
            ]
            if len(rows) < SLICE_ROWS:
                return
            lo = rows[-1][7] + 1

    @staticmethod
    def _historical(
        file: LedgerFile, subject: Subject, after: int, pos_max: int, give_up_at: float
    ) -> Iterator[list[StoredFrame]]:
        """Read what a foreign node had stored itself: such rows have no stream, and an index of their own."""
        while True:
            rows = file.rows(
                "SELECT pos, node, device, body FROM log WHERE kind = 'H' AND pos > ? AND pos <= ? ORDER BY pos LIMIT ?",
                (after, pos_max, SLICE_ROWS),
            )
            mine = [row for row in rows if row[1:3] == (subject.node, subject.device)]
            yield [StoredFrame(pos, 0, pos, body, 0, late_upto=pos) for pos, _, _, body in mine]
            if len(rows) < SLICE_ROWS:
                return
            if time.monotonic() > give_up_at:
                raise OutOfTimeError
            after = rows[-1][0]

    def _read(self, subject: Subject, frames: Sequence[StoredFrame], from_ms: int, to_ms: int) -> _Found:
        """Take one tag's samples of [from_ms, to_ms) out of rows."""
        plain = [frame for frame in frames if not frame.is_block]
        firsts = np.array([frame.first for frame in plain], np.int64)
        parts = [(plain, tag_of_frames([frame.body for frame in plain], firsts, subject.number))]
        blocks = [frame for frame in frames if frame.is_block]
        parts += [(blocks, self._of_block(subject, frame, at)) for at, frame in enumerate(blocks)]
        found = _Found()
        for source, rows in parts:
            rows = rows.take((rows.source_ms >= from_ms) & (rows.source_ms < to_ms))
            if not len(rows.row):
                continue
            pos, stream, late_upto = (
                np.array([getattr(frame, name) for frame in source], np.int64)[rows.row] for name in ("pos", "stream", "late_upto")
            )
            late = (rows.sequence > 0) & (rows.sequence <= late_upto)
            columns = (rows.source_ms, rows.value, rows.code, rows.raw, late, stream, rows.sequence)
            samples = Samples((subject.tag,), np.zeros(len(pos), np.int32), *columns)
            new = _new(source, rows)
            found.add(_Found([samples.take(new)], [pos[new]], int((~new).sum())))
        return found

    def _of_block(self, subject: Subject, frame: StoredFrame, at: int) -> TagRows:
        try:
            if subject.tag in refused_tags(frame.refused):
                return none_found()
        except ValueError:  # such a row is put aside when it is sealed
            return none_found()
        column = self._blocks.columns(frame.pos, frame.body).of_tag.get(subject.tag)
        return none_found() if column is None else tag_of_block(column, at, subject.low, subject.high)


def joined_parts(parts: Sequence[Unsealed]) -> Unsealed:
    """Join what was found in several places of one tag: blocks of a node were read for each of its devices, and count once."""
    samples = concatenated([part.samples for part in parts])
    at = np.repeat(np.arange(len(parts)), [len(part.samples) for part in parts])
    covered_ms = max(part.covered_ms for part in parts)
    samples = in_moments(samples.take(_first_copies(samples, at)))
    cut: Cut = next((part.cut for part in parts if part.cut), "")
    return Unsealed(samples.take(samples.source_ms >= covered_ms), covered_ms, cut, sum(part.duplicates for part in parts))


def _new(source: Sequence[StoredFrame], rows: TagRows) -> NDArray[np.bool_]:
    """Return which samples are of frames that were not here before, as core noted it."""
    new = np.ones(len(rows.row), np.bool_)
    for at in np.unique(rows.row).tolist():
        fresh = source[at].fresh
        if fresh is not None:
            ends = np.array([end for lo, hi in sorted(json.loads(fresh)) for end in (lo, hi + 1)], np.int64)
            mine = rows.row == at
            new[mine] = np.searchsorted(ends, rows.sequence[mine], "right") % 2 == 1
    return new


def _first_copies(samples: Samples, pos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that stay where a frame was logged twice: the copy that came first, all its samples."""
    if not len(pos):
        return np.empty(0, np.int64)
    order = np.lexsort((pos, samples.sequence, samples.stream))
    new = np.append(True, (np.diff(samples.stream[order]) != 0) | (np.diff(samples.sequence[order]) != 0))
    first = pos[order][new][np.cumsum(new) - 1]
    kept: NDArray[np.int64] = order[pos[order] == first]
    return kept
