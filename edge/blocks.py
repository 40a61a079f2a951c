"""Turns journalled frames into wire blocks of at most a minute and 128 KiB, each sample keeping its frame number.

Pure. How many samples fit is learned from block to block, because it depends on how the values move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.entries import Chain
from edge.points import PointTable
from edge.spool_file import JournalFrames
from wire import BLOCK_BYTES_MAX, BlockColumn, BlockTooLargeError, Dropped, SpoolBlock, encode_block

BLOCK_SPAN_MS_MAX: Final = 60_000
BLOCK_ROWS_START: Final = 20_000
BLOCK_ROWS_MAX: Final = 100_000
GIVEN_UP_TOO_LARGE: Final = "one frame is larger than a block"


@dataclass(frozen=True, slots=True)
class WireBlock:
    """An encoded block: what it speaks for, its bytes (at most 128 KiB) and how many samples are in them."""

    stream: int
    first: int
    last: int
    payload: bytes
    samples: int = 0


def join_frames(parts: Sequence[JournalFrames], above: int) -> JournalFrames:
    """Return the frames of all parts numbered above `above`, in order, as one."""
    sequence = np.concatenate([part.sequence for part in parts])
    keep = sequence > above
    return JournalFrames(
        sequence[keep],
        np.concatenate([part.point for part in parts])[keep],
        np.concatenate([part.bits for part in parts])[keep],
        np.concatenate([part.code for part in parts])[keep],
        np.concatenate([part.source_ms for part in parts])[keep],
        np.empty(0, np.uint32),
    )


class BlockCutter:
    """Cuts the frames of one stream after another into blocks.

    Args:
        node: Sparkplug edge node id.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._rows = BLOCK_ROWS_START

    def cut(self, chain: Chain, table: PointTable, frames: JournalFrames, first: int, last: int) -> Iterator[WireBlock]:
        """Yield blocks that together speak for every number from `first` to `last`.

        Args:
            chain: the stream.
            table: the points that `frames.point` counts in.
            frames: all samples of those numbers, in frame order; numbers without samples are allowed.
            first, last: ends included.
        """
        numbers, starts = np.unique(frames.sequence, return_index=True)
        bounds = np.append(starts, len(frames.sequence))
        newest = np.maximum.reduceat(frames.source_ms, starts) if len(starts) else np.empty(0, np.int64)
        at = 0
        while at < len(numbers):
            end = self._fit(bounds, newest, at)
            while True:
                upto = int(numbers[end]) - 1 if end < len(numbers) else last
                rows = slice(int(bounds[at]), int(bounds[end]))
                try:
                    payload = encode_block(self._block(chain, table, frames, rows, first, upto))
                except BlockTooLargeError:
                    self._rows = max(1, (rows.stop - rows.start) // 2)
                    if end == at + 1:
                        payload = self.dropped(chain, first, upto, GIVEN_UP_TOO_LARGE).payload
                        break
                    end = at + (end - at) // 2
                else:
                    self._learn(rows.stop - rows.start, len(payload))
                    break
            yield WireBlock(chain.stream, first, upto, payload, rows.stop - rows.start)
            at, first = end, upto + 1
        if first <= last:
            yield WireBlock(
                chain.stream,
                first,
                last,
                encode_block(self._block(chain, table, frames, slice(0, 0), first, last)),
            )

    def dropped(self, chain: Chain, first: int, last: int, reason: str) -> WireBlock:
        """Return a block that says the numbers `first` to `last` are gone, and why."""
        block = SpoolBlock(
            self._node,
            chain.stream,
            first,
            last,
            chain.predecessor,
            chain.predecessor_last,
            (),
            (Dropped(first, last, reason),),
        )
        return WireBlock(chain.stream, first, last, encode_block(block))

    def _fit(self, bounds: NDArray[np.intp], newest: NDArray[np.int64], at: int) -> int:
        """Return the end of the longest run of frames from `at` that is likely to fit one block."""
        by_rows = int(np.searchsorted(bounds, bounds[at] + self._rows, side="right")) - 1
        late = np.flatnonzero(np.abs(newest[at:] - newest[at]) > BLOCK_SPAN_MS_MAX)
        by_time = at + int(late[0]) if len(late) else len(newest)
        return max(at + 1, min(by_rows, by_time))

    def _learn(self, rows: int, size: int) -> None:
        fits = int(rows * 0.85 * BLOCK_BYTES_MAX / max(size, 1))
        self._rows = max(1, min(BLOCK_ROWS_MAX, fits, max(self._rows, rows) * 2))

    def _block(
        self, chain: Chain, table: PointTable, frames: JournalFrames, rows: slice, first: int, last: int
    ) -> SpoolBlock:
        point = frames.point[rows]
        order = np.argsort(point, kind="stable")  # stable: each column stays in frame order
        columns = []
        bounds = np.flatnonzero(np.diff(point[order])) + 1
        for picked in np.split(order, bounds) if len(order) else ():
            at = int(point[picked[0]])
            known = table.points[at]
            columns.append(
                BlockColumn(
                    known.tag,
                    table.devices[int(table.device_of[at])],
                    known.native,
                    known.scale,
                    known.offset,
                    frames.sequence[rows][picked],
                    frames.source_ms[rows][picked],
                    frames.bits[rows][picked],
                    frames.code[rows][picked],
                )
            )
        return SpoolBlock(
            self._node, chain.stream, first, last, chain.predecessor, chain.predecessor_last, tuple(columns)
        )
