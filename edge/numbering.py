"""Gives every frame its place: which stream it belongs to and its number in it.

A stream begins with the present value of every tag and is numbered from 1 without holes. Once another stream has
begun, the one before is sealed: nothing here can number a frame in it again. When streams end is the session's
decision; this module only keeps the book. It is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.scan import Scan
from wire import Quality, Reason, quality_code

UNREAD_CODE: Final = quality_code(Quality.BAD, Reason.UNKNOWN)


@dataclass(frozen=True, slots=True, eq=False)
class NumberedFrame:
    """One device's samples under their mark. The columns are a scan's; the mark is (stream, sequence).

    An unmarked frame (the spool cannot take it) has stream and sequence 0.
    """

    stream: int
    sequence: int
    device: int
    point: NDArray[np.int32]
    bits: NDArray[np.uint64]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    predecessor: int = 0
    """Id of the stream before this frame's stream; 0 if none is known."""
    predecessor_last: int = 0

    def __len__(self) -> int:
        return len(self.point)


class Numbering:
    """The book of streams, and the present value of every point.

    Args:
        device_of: int32[points], position of each point's device, ascending.
        devices: how many devices there are.
        new_id: draws a stream id in [1, 2**63).
        predecessor, predecessor_last: the newest stream the spool knows, and the last number it used.
    """

    def __init__(
        self,
        device_of: Sequence[int] | NDArray[np.int32],
        devices: int,
        new_id: Callable[[], int],
        predecessor: int = 0,
        predecessor_last: int = 0,
    ) -> None:
        owner = np.asarray(device_of, np.int32)
        points = len(owner)
        self._rows = [np.flatnonzero(owner == device).astype(np.int32) for device in range(devices)]
        self._bits = np.zeros(points, np.uint64)
        self._value = np.full(points, np.nan)
        self._code = np.full(points, UNREAD_CODE, np.uint8)
        self._source_ms = np.zeros(points, np.int64)
        self._read = np.zeros(points, np.bool_)
        self._new_id = new_id
        self.stream = new_id()
        self.last = 0
        """Highest number used in the stream; 0 if none."""
        self.predecessor, self.predecessor_last = predecessor, predecessor_last

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return len(self._rows)

    def begin(self) -> int:
        """Seal the stream and begin the next one; return the sealed stream's id, 0 when it held nothing.

        A stream without a frame leaves no trace: its id was never used, so the next one follows what was before it.
        """
        if self.last == 0:
            return 0
        sealed = self.stream
        self.predecessor, self.predecessor_last = self.stream, self.last
        self.stream, self.last = self._new_id(), 0
        return sealed

    def note(self, scan: Scan) -> None:
        """Take a scan's values as the present ones."""
        rows = scan.point
        self._bits[rows], self._value[rows] = scan.bits, scan.value
        self._code[rows], self._source_ms[rows] = scan.code, scan.source_ms
        self._read[rows] = True

    def shift(self, step_ms: int) -> None:
        """Move the stamps of all present values by a step of the wall clock.

        The first frames of the stream that the step began must not seem an hour apart from the next ones.
        """
        self._source_ms[self._read] += step_ms

    def number(self, scan: Scan) -> NumberedFrame:
        """Return the scan under the next number of the stream; its values become the present ones."""
        self.note(scan)
        return self._mark(scan)

    def unmarked(self, scan: Scan) -> NumberedFrame:
        """Return the scan without a mark, using no number; its values become the present ones."""
        self.note(scan)
        return _without_mark(scan)

    def present(self, device: int, now_ms: int) -> Scan:
        """Return the present value of every point of a device; never read ones are BAD/UNKNOWN at `now_ms`."""
        rows = self._rows[device]
        source_ms = np.where(self._read[rows], self._source_ms[rows], now_ms)
        return Scan(device, rows, self._bits[rows], self._value[rows], self._code[rows], source_ms)

    def present_frames(self, now_ms: int) -> list[NumberedFrame]:
        """Return one numbered frame for every device, holding the present value of all its points."""
        return [self._mark(self.present(device, now_ms)) for device in self._with_points()]

    def unmarked_frames(self, now_ms: int) -> list[NumberedFrame]:
        """Return the same frames without marks, using no numbers."""
        return [_without_mark(self.present(device, now_ms)) for device in self._with_points()]

    def _with_points(self) -> list[int]:
        return [device for device, rows in enumerate(self._rows) if len(rows)]

    def _mark(self, scan: Scan) -> NumberedFrame:
        self.last += 1
        return NumberedFrame(
            self.stream,
            self.last,
            scan.device,
            scan.point,
            scan.bits,
            scan.value,
            scan.code,
            scan.source_ms,
            self.predecessor,
            self.predecessor_last,
        )


def _without_mark(scan: Scan) -> NumberedFrame:
    return NumberedFrame(0, 0, scan.device, scan.point, scan.bits, scan.value, scan.code, scan.source_ms)
