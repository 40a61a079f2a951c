"""Register content to values and qualities, for a whole device in one vectorised pass.

All index arithmetic is done once, when the decoder is built. Values come from `wire.native_value` alone, the
function the gateway uses too, so both ends of the wire hold bit-equal numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.plan import Block, Span, Table
from wire import Native, Quality, Reason, native_value, quality_code

WORDS_MAX: Final = 4

REGISTERS_OF: Final = {
    Native.BIT: 1,
    Native.U16: 1,
    Native.I16: 1,
    Native.U32: 2,
    Native.I32: 2,
    Native.F32: 2,
    Native.U64: 4,
    Native.I64: 4,
    Native.F64: 4,
}

GOOD: Final = quality_code(Quality.GOOD)
OUT_OF_RANGE: Final = quality_code(Quality.UNCERTAIN, Reason.RANGE)
NOT_A_NUMBER: Final = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)
OVERFLOW: Final = quality_code(Quality.BAD, Reason.OVERFLOW)

_EXPONENT_OF: Final = {Native.F32: 0x7F80_0000, Native.F64: 0x7FF0_0000_0000_0000}
_FRACTION_OF: Final = {Native.F32: 0x007F_FFFF, Native.F64: 0x000F_FFFF_FFFF_FFFF}


class WordOrder(Enum):
    """How a value lies in its registers, told by 0x0A0B0C0D.

    123456.0 as float32 is 47F1 2000 / 2000 47F1 / F147 0020 / 0020 F147 in this order. libmodbus and some
    manuals name them the other way round. Four registers follow the same pattern. In a single register BADC
    and DCBA both swap its two bytes; a bit is counted in the register as it came, under any order.
    """

    ABCD = "ABCD"
    CDAB = "CDAB"
    BADC = "BADC"
    DCBA = "DCBA"

    @property
    def low_word_first(self) -> bool:
        return self in (WordOrder.CDAB, WordOrder.DCBA)

    @property
    def bytes_swapped(self) -> bool:
        return self in (WordOrder.BADC, WordOrder.DCBA)


@dataclass(frozen=True, slots=True)
class RegisterPoint:
    """One value in a register map: where it lies, what it is, and what is plausible.

    `low` and `high` are the instrument's range in the engineering unit (infinite: none), after scaling.
    """

    tag: str
    table: Table
    address: int
    native: Native
    bit: int | None = None
    order: WordOrder = WordOrder.ABCD
    scale: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def span(self, row: int) -> Span:
        """Return the registers it takes, under the caller's row number."""
        return Span(row, self.table, self.address, REGISTERS_OF[self.native], self.tag)


class DeviceDecoder:
    """Holds the last content of every register of one device and turns all of it into columns."""

    def __init__(self, points: Sequence[RegisterPoint], blocks: Sequence[Block]) -> None:
        """Prepare to decode `points` (row i is points[i]) out of `blocks`, which cover all of them."""
        self._starts: dict[Table, list[int]] = {}
        self._bases: dict[Table, list[int]] = {}
        words = 0
        for block in sorted(blocks, key=lambda block: block.address):
            self._starts.setdefault(block.table, []).append(block.address)
            self._bases.setdefault(block.table, []).append(words)
            words += block.count
        # One element per register or coil, and at the end a zero for the words that narrow values lack.
        self._words = np.zeros(words + 1, dtype="<u2")
        self._zero = words
        self._index = self._indices(points)
        swapped = [i for i, p in enumerate(points) if p.order.bytes_swapped and p.native is not Native.BIT]
        self._swapped = np.array(swapped, dtype=np.intp)
        in_register = [i for i, p in enumerate(points) if p.native is Native.BIT and not p.table.is_bits]
        self._bit_rows = np.array(in_register, dtype=np.intp)
        self._bit_shift = np.array([points[i].bit or 0 for i in in_register], dtype=np.uint64)
        self._scale = np.array([p.scale for p in points], dtype=np.float64)
        self._offset = np.array([p.offset for p in points], dtype=np.float64)
        self._low = np.array([p.low for p in points], dtype=np.float64)
        self._high = np.array([p.high for p in points], dtype=np.float64)
        self._groups = _groups(points)
        floats = [i for i, p in enumerate(points) if p.native in _EXPONENT_OF]
        self._float_rows = _rows(floats, len(points))
        self._exponent = np.array([_EXPONENT_OF[points[i].native] for i in floats], dtype=np.uint64)
        self._fraction = np.array([_FRACTION_OF[points[i].native] for i in floats], dtype=np.uint64)

    def load(self, block: Block, content: bytes) -> None:
        """Keep the answer's content for `block` (a planned block or any part of one).

        `content` has two bytes per register, or one bit per coil, lowest first; its length has been checked.
        """
        base = self._place(block.table, block.address)
        if block.table.is_bits:
            bits = np.unpackbits(np.frombuffer(content, np.uint8), count=block.count, bitorder="little")
            self._words[base : base + block.count] = bits
        else:
            self._words[base : base + block.count] = np.frombuffer(content, dtype=">u2")

    def decode(self) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint8]]:
        """Return bits uint64[points], value float64[points] and code uint8[points] of the present content.

        NaN: BAD/NOT_A_NUMBER. Infinite, subnormal, or too large once scaled: BAD/OVERFLOW. Beyond the
        range: UNCERTAIN/RANGE with the value as measured. BAD rows have value NaN, and only they.
        """
        quads = self._words.take(self._index)
        if len(self._swapped):
            quads[self._swapped] = quads[self._swapped].byteswap()
        bits: NDArray[np.uint64] = quads.view("<u8").reshape(-1).astype(np.uint64, copy=False)
        if len(self._bit_rows):
            bits[self._bit_rows] = (bits[self._bit_rows] >> self._bit_shift) & np.uint64(1)
        value = self._values(bits)
        code = np.full(len(bits), GOOD, np.uint8)
        code[(value < self._low) | (value > self._high)] = OUT_OF_RANGE
        bad = ~np.isfinite(value)
        if len(self._exponent):
            of_floats = bits[self._float_rows]
            subnormal = ((of_floats & self._exponent) == 0) & ((of_floats & self._fraction) != 0)
            bad[self._float_rows] |= subnormal
        if bad.any():
            code[bad] = np.where(self._is_nan(bits, value)[bad], NOT_A_NUMBER, OVERFLOW)
            value[bad] = np.nan
        return bits, value, code

    def _values(self, bits: NDArray[np.uint64]) -> NDArray[np.float64]:
        # An overflow is a field fault with a quality of its own, not a warning on the console.
        with np.errstate(over="ignore", invalid="ignore"):
            if len(self._groups) == 1:
                return native_value(self._groups[0][0], bits, self._scale, self._offset)
            value = np.empty(len(bits), np.float64)
            for native, rows in self._groups:
                value[rows] = native_value(native, bits[rows], self._scale[rows], self._offset[rows])
        return value

    def _is_nan(self, bits: NDArray[np.uint64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell the rows whose register pattern is NaN from those that became NaN or infinite otherwise."""
        is_nan = np.zeros(len(value), np.bool_)
        of_floats = bits[self._float_rows]
        is_nan[self._float_rows] = ((of_floats & self._exponent) == self._exponent) & (
            (of_floats & self._fraction) != 0
        )
        return is_nan

    def _place(self, table: Table, address: int) -> int:
        """Return where in the word store an address lies that some block covers."""
        starts = self._starts[table]
        at = bisect_right(starts, address) - 1
        return self._bases[table][at] + address - starts[at]

    def _indices(self, points: Sequence[RegisterPoint]) -> NDArray[np.intp]:
        """Return intp[points, 4]: where in the word store each value's words lie, least significant first."""
        index = np.full((len(points), WORDS_MAX), self._zero, dtype=np.intp)
        for row, point in enumerate(points):
            base, width = self._place(point.table, point.address), REGISTERS_OF[point.native]
            for word in range(width):
                index[row, word] = base + (word if point.order.low_word_first else width - 1 - word)
        return index


def _rows(rows: list[int], count: int) -> slice | NDArray[np.intp]:
    """Return the rows as an index, as a slice where that is all of them: it costs no copy."""
    return slice(None) if len(rows) == count else np.array(rows, dtype=np.intp)


def _groups(points: Sequence[RegisterPoint]) -> list[tuple[Native, NDArray[np.intp]]]:
    rows: dict[Native, list[int]] = {}
    for row, point in enumerate(points):
        rows.setdefault(point.native, []).append(row)
    return [(native, np.array(at, dtype=np.intp)) for native, at in rows.items()]
