"""Codes one column of integers inside a spool block: a straight line, and what departs from it.

Numbers, times and register bits all go this way. A series is `start + slope * i` plus a residual per row, or
plus the running sum of residuals where the signal wanders; whichever costs fewer bits. Residuals are folded
to unsigned and written in as few bytes as the largest needs, one plane per byte place, so that the bytes that
hardly vary stand together for zlib. All arithmetic is modulo 2**width_bits: every bit pattern has a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

U64_MASK = (1 << 64) - 1


class Shape(IntEnum):
    """How the residuals are to be read. The numbers stand in spool blocks: append, never change one."""

    LINE = 0
    WALK = 1


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The code of one column.

    Attributes:
        shape: LINE: residual of each row. WALK: residual of each step between rows, so one fewer.
        residual_bytes: bytes per residual, 0 (all residuals are zero) to 8.
        start, slope: modulo 2**64.
        planes: all lowest bytes, then all second bytes …; residual_bytes * residual count in all.
    """

    shape: Shape
    residual_bytes: int
    start: int
    slope: int
    planes: bytes


def residual_count(shape: Shape, rows: int) -> int:
    """Return how many residuals a series of `rows` rows has."""
    return max(rows - 1, 0) if shape is Shape.WALK else rows


def encode_series(column: NDArray[np.uint64], width_bits: int) -> Series:
    """Return the cheapest code of a column of unsigned numbers, all below 2**width_bits."""
    rows = len(column)
    if rows == 0:
        return Series(Shape.LINE, 0, 0, 0, b"")
    first = int(column[0])
    climbs = _signed(column - column[0], width_bits)
    steps = _signed(column[1:] - column[:-1], width_bits)
    # The middle one, not the mean: a column of two regimes keeps the exact step of the longer.
    usual = int(np.partition(steps, len(steps) // 2)[len(steps) // 2]) if len(steps) else 0
    best: tuple[int, Shape, int, int, NDArray[np.uint64]] | None = None
    for slope in {0, usual}:
        line, middle = _centred(climbs, slope, width_bits)
        for shape, start, residual in (
            (Shape.LINE, first + middle, line),
            (Shape.WALK, first, _signed((steps - slope).view(np.uint64), width_bits)),
        ):
            folded = _fold(residual)
            bits = int(np.frexp(folded.astype(np.float64))[1].sum())
            if best is None or bits < best[0]:
                best = (bits, shape, start, slope, folded)
    assert best is not None
    _, shape, start, slope, folded = best
    residual_bytes = (int(folded.max()).bit_length() + 7) // 8 if len(folded) else 0
    planes = folded.astype("<u8").view(np.uint8).reshape(len(folded), 8).T[:residual_bytes].tobytes()
    return Series(shape, residual_bytes, start & U64_MASK, slope & U64_MASK, planes)


def decode_series(series: Series, rows: int, width_bits: int) -> NDArray[np.uint64]:
    """Return the column; every code has one, all below 2**width_bits.

    `series.planes` must hold `residual_bytes * residual_count(shape, rows)` bytes.
    """
    count = residual_count(series.shape, rows)
    wide = np.zeros((8, count), np.uint8)
    planes = np.frombuffer(series.planes, np.uint8)
    wide[:series.residual_bytes] = planes.reshape(series.residual_bytes, count)
    folded = np.ascontiguousarray(wide.T).view("<u8").reshape(count).astype(np.uint64, copy=False)
    residual = (folded >> np.uint64(1)) ^ (np.uint64(0) - (folded & np.uint64(1)))
    column = np.arange(rows, dtype=np.uint64) * np.uint64(series.slope) + np.uint64(series.start)
    if series.shape is Shape.WALK:
        column[1:] += np.cumsum(residual, dtype=np.uint64)
    else:
        column += residual
    return column & np.uint64((1 << width_bits) - 1)


def _signed(difference: NDArray[np.uint64], width_bits: int) -> NDArray[np.int64]:
    """Return differences modulo 2**width_bits as the signed numbers nearest zero."""
    unused = np.uint64(64 - width_bits)
    return (difference << unused).view(np.int64) >> unused.astype(np.int64)


def _centred(climbs: NDArray[np.int64], slope: int, width_bits: int) -> tuple[NDArray[np.int64], int]:
    """Return what is left of `climbs` over a line of this slope through their middle, and that middle."""
    rows = len(climbs)
    over = climbs - np.arange(rows, dtype=np.int64) * slope if slope else climbs
    over = _signed(over.view(np.uint64), width_bits)
    middle = int(np.partition(over, rows // 2)[rows // 2])
    return _signed((over - middle).view(np.uint64), width_bits), middle


def _fold(residual: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 0, -1, 1, -2 … as 0, 1, 2, 3 …"""
    return ((residual << 1) ^ (residual >> 63)).view(np.uint64)
