"""Sparkplug's data types, and which protobuf field and which range each of them asks for.

A value whose field or range does not fit its data type is type confusion: refused, never converted. UInt32
and Int32 may also come as `long_value`, as some encoders write them; their range holds.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

TIMESTAMP_MS_MAX: Final = 253_402_300_799_999  # end of the year 9999; a stamp beyond is taken as this one


class DataType(IntEnum):
    """Data type codes of the Sparkplug 3.0 specification, chapter 6."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


INTEGER_RANGE: Final[dict[DataType, tuple[int, int]]] = {
    DataType.INT8: (-(2**7), 2**7 - 1),
    DataType.INT16: (-(2**15), 2**15 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1),
    DataType.UINT8: (0, 2**8 - 1),
    DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1),
    DataType.DATETIME: (0, 2**64 - 1),
}

# The field each type is written to; reading takes it and those in ALSO_READ.
FIELD: Final[dict[DataType, str]] = {
    **dict.fromkeys((DataType.INT8, DataType.INT16, DataType.INT32,
                     DataType.UINT8, DataType.UINT16, DataType.UINT32), "int_value"),
    **dict.fromkeys((DataType.INT64, DataType.UINT64, DataType.DATETIME), "long_value"),
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    **dict.fromkeys((DataType.STRING, DataType.TEXT, DataType.UUID), "string_value"),
    DataType.DATASET: "dataset_value",
    **dict.fromkeys((DataType.BYTES, DataType.FILE), "bytes_value"),
    DataType.TEMPLATE: "template_value",
    **{datatype: "bytes_value" for datatype in DataType if datatype >= DataType.INT8_ARRAY},
}
ALSO_READ: Final[dict[DataType, str]] = {DataType.INT32: "long_value", DataType.UINT32: "long_value"}

BASIC_TYPES: Final = frozenset(DataType(code) for code in range(DataType.INT8, DataType.TEXT + 1))

_WIDTH: Final = {"int_value": 32, "long_value": 64}


def integer_on_wire(value: int, datatype: DataType) -> int:
    """Return an integer as its unsigned protobuf field holds it: two's complement of the field's width."""
    return value & ((1 << _WIDTH[FIELD[datatype]]) - 1)


def integer_from_wire(raw: int, field: str, datatype: DataType) -> int | None:
    """Return the integer that an unsigned field means under a data type, or None where it is out of range.

    A negative value may come as two's complement of the field's width, or of the type's own width.
    """
    lo, hi = INTEGER_RANGE[datatype]
    if raw <= hi:
        return raw
    if lo == 0:
        return None
    for width in (hi.bit_length() + 1, _WIDTH[field]):
        if raw >> width == 0 and lo <= raw - (1 << width) < 0:
            return raw - (1 << width)
    return None
