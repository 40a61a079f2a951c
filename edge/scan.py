"""What one device gave in one poll: the columns that flow from the field side to numbering and spool.

A scan carries the register patterns as well as the values, because the spool stores the native
width and both sides of the wire derive the value from it by the same function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Samples of one device, at most one per point, ordered by point.

    Columns have one row per sample and share one length n.
    """

    device: int
    """Position of the device in the edge file's device list."""
    point: NDArray[np.int32]
    """int32[n]: position in the edge file's flat point list (devices in file order, points in file order)."""
    bits: NDArray[np.uint64]
    """uint64[n]: register pattern after word order, right-aligned; 0 where nothing was read."""
    value: NDArray[np.float64]
    """float64[n]: engineering unit as measured, never clamped; NaN if and only if the quality is BAD."""
    code: NDArray[np.uint8]
    """uint8[n]: wire quality code (quality | reason)."""
    source_ms: NDArray[np.int64]
    """int64[n]: UTC epoch milliseconds when the answer arrived, or when the poll was known to have failed."""

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Scan:
        """Return the scan of the chosen rows (mask or positions)."""
        return Scan(
            self.device,
            self.point[rows],
            self.bits[rows],
            self.value[rows],
            self.code[rows],
            self.source_ms[rows],
        )
