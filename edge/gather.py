"""The present values of one device, and which of them changed enough to be sent. Pure.

Answers and failures go in as they come; `flush` turns everything since the last flush into one scan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.decode import DeviceDecoder, RegisterPoint
from edge.plan import Block
from edge.report import ReportFilter, ReportRules
from edge.scan import Scan
from wire import Quality, Reason, quality_code

NEVER_READ = quality_code(Quality.BAD, Reason.UNKNOWN)


class Gather:
    """Collects one device's samples. Rows are positions in the device's own list of points."""

    def __init__(
        self,
        device: int,
        first_point: int,
        points: Sequence[RegisterPoint],
        blocks: Sequence[Block],
        rules: ReportRules,
        now_ms: int,
    ) -> None:
        """`first_point`: position of the device's first point in the edge file's flat list."""
        count = len(points)
        self._device = device
        self._point = np.arange(first_point, first_point + count, dtype=np.int32)
        self._decoder = DeviceDecoder(points, blocks)
        self._filter = ReportFilter(rules)
        self._touched = np.zeros(count, np.bool_)
        self._heard = np.zeros(count, np.bool_)
        self._failed = np.zeros(count, np.uint8)
        self._any_failed = False
        self._at_ms = np.full(count, now_ms, np.int64)
        self.bits: NDArray[np.uint64] = np.zeros(count, np.uint64)
        self.value: NDArray[np.float64] = np.full(count, np.nan)
        self.code: NDArray[np.uint8] = np.full(count, NEVER_READ, np.uint8)
        self.source_ms: NDArray[np.int64] = self._at_ms.copy()

    def __len__(self) -> int:
        return len(self._point)

    def begin(self) -> None:
        """A poll begins."""
        self._heard[:] = False

    def answered(self, block: Block, rows: NDArray[np.intp], content: bytes, at_ms: int) -> None:
        """`content` of `block`, which carries `rows`, came at `at_ms`."""
        self._decoder.load(block, content)
        self._touched[rows] = self._heard[rows] = True
        self._at_ms[rows] = at_ms
        if self._any_failed:
            self._failed[rows] = 0

    def failed(self, rows: NDArray[np.intp], code: int, at_ms: int) -> None:
        """Nothing usable came for `rows`; they get the BAD quality `code`."""
        self._touched[rows] = self._heard[rows] = True
        self._at_ms[rows] = at_ms
        self._failed[rows] = code
        self._any_failed = True

    def failed_rest(self, code: int, at_ms: int) -> None:
        """The poll ends here: every point not heard of in it gets the BAD quality `code`."""
        self.failed(np.flatnonzero(~self._heard), code, at_ms)

    def flush(self) -> Scan | None:
        """Take everything since the last flush as present values; return what is to be sent, if anything."""
        touched = self._touched
        whole = bool(touched.all())
        if not whole and not touched.any():
            return None
        bits, value, code = self._decoder.decode()
        if self._any_failed:
            failed = self._failed != 0
            bits[failed], value[failed] = 0, np.nan
            code[failed] = self._failed[failed]
        source_ms = self._at_ms.copy()
        rows: slice | NDArray[np.intp] = slice(None)
        if not whole:
            rows = np.flatnonzero(touched)
            bits = np.where(touched, bits, self.bits)
            value = np.where(touched, value, self.value)
            code = np.where(touched, code, self.code)
            source_ms = np.where(touched, source_ms, self.source_ms)
        self.bits, self.value, self.code, self.source_ms = bits, value, code, source_ms
        self._touched[:] = False
        if self._any_failed:
            self._failed[:] = 0
            self._any_failed = False
        if not whole:
            bits, value, code, source_ms = bits[rows], value[rows], code[rows], source_ms[rows]
        scan = Scan(self._device, self._point[rows], bits, value, code, source_ms)
        send = self._filter.pick(rows, bits, value, code, source_ms)
        if send.all():
            return scan
        return scan.take(send) if send.any() else None
