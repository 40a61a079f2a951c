"""What a register holds, and the one conversion from its bits to an engineering value.

The edge uses `native_value` when it reports live and the gateway when it opens a spool block, so both get the
same value down to the last bit. Nothing here knows of word order or addresses: bits arrive assembled.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Native(IntEnum):
    """Type of a register value. The numbers stand in spool blocks: append, never change one."""

    BIT = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    U64 = 6
    I64 = 7
    F32 = 8
    F64 = 9

    @property
    def width_bits(self) -> int:
        """Number of low bits that carry the value: 1, 16, 32 or 64."""
        return WIDTH_BITS[self]


WIDTH_BITS: dict[Native, int] = {
    Native.BIT: 1, Native.U16: 16, Native.I16: 16, Native.U32: 32, Native.I32: 32,
    Native.U64: 64, Native.I64: 64, Native.F32: 32, Native.F64: 64,
}

# Unsigned type of the same width, then the type its bits are read as.
_VIEWS: dict[Native, tuple[type[np.unsignedinteger[Any]], type[np.number[Any]]]] = {
    Native.U16: (np.uint16, np.uint16), Native.I16: (np.uint16, np.int16),
    Native.U32: (np.uint32, np.uint32), Native.I32: (np.uint32, np.int32),
    Native.U64: (np.uint64, np.uint64), Native.I64: (np.uint64, np.int64),
    Native.F32: (np.uint32, np.float32), Native.F64: (np.uint64, np.float64),
}


def native_value(native: Native, bits: NDArray[np.uint64], scale: float | NDArray[np.float64],
                 offset: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64(native) * scale + offset: the product is rounded, then the sum.

    Args:
        native: how the bits are to be read.
        bits: uint64[n], register bit pattern in the low `native.width_bits` bits; the rest is ignored.
        scale: engineering units per count; one number, or float64[n].
        offset: in the engineering unit; one number, or float64[n].

    Returns:
        float64[n], in the engineering unit. 64-bit integers beyond 2**53 are rounded to nearest. A float
        register may hold NaN or an infinity, and the result then is not finite: the caller sets the quality.
    """
    if native is Native.BIT:
        wide = (bits & np.uint64(1)).astype(np.float64)
    else:
        unsigned, kind = _VIEWS[native]
        with np.errstate(invalid="ignore"):  # widening a signalling NaN is not an error here
            wide = bits.astype(unsigned).view(kind).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        wide *= scale
        wide += offset
    return wide
