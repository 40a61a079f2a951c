"""Samples to bytes: DATA payloads from columns, and one sample as a metric for births.

A sample's layout never varies, so `encode_data` writes the protobuf bytes itself; tests hold it against the
generated code. What cannot be read back is not written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire import sparkplug_pb2 as pb
from wire.datatypes import FIELD, INTEGER_RANGE, TIMESTAMP_MS_MAX, DataType, integer_on_wire
from wire.errors import MalformedPayloadError, OversizePayloadError, ShapeMismatchError
from wire.names import SPOOL_SEQUENCE, SPOOL_STREAM
from wire.payload import PAYLOAD_LIMITS, SEQ_END, Metric, PayloadLimits, write_quality
from wire.quality import QUALITY_MASK, Quality, Reason, quality_code, quality_of
from wire.wire_quality import WIRE_GOOD, quality_on_wire

_INT64_MAX: Final = 2**63 - 1
_NOT_A_NUMBER: Final = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)
_ALIAS_HEADS_CACHED: Final = 65_536


def sample_metric(name: str | None, alias: int | None, source_ms: int, value: float, code: int,
                  datatype: DataType | None = DataType.DOUBLE) -> Metric:
    """Return a sample as a metric, as births state it; a BAD or not finite one is null."""
    if quality_of(code) != Quality.BAD and not np.isfinite(value):
        code = _NOT_A_NUMBER
    is_null = quality_of(code) == Quality.BAD
    quality, detail = quality_on_wire(code)
    return Metric(name, alias, source_ms, datatype, None if is_null else _as_python(value, datatype), is_null,
                  quality=quality, detail=detail)


def encode_data(timestamp_ms: int, seq: int, stream: int, sequence: int, alias: NDArray[np.int64],
                value: NDArray[np.float64], code: NDArray[np.uint8], source_ms: NDArray[np.int64],
                datatype: DataType = DataType.DOUBLE, limits: PayloadLimits = PAYLOAD_LIMITS) -> bytes:
    """Return a DATA payload: one metric per row by alias, then the stream marks by name unless `stream` is 0.

    The marks bear the time of the message, and the specification wants what is newer to stand behind.

    Args:
        timestamp_ms: when it is sent, UTC epoch milliseconds.
        seq: Sparkplug's sequence number, 0..255.
        stream, sequence: our marks, both 0 for a frame without.
        alias, value, code, source_ms: columns of one length, as in `DataColumns`. A value that is not finite
            goes as BAD, whatever its code says.
        datatype: the numeric type the birth declared for every row; it chooses the field, and is not sent.

    Raises:
        ShapeMismatchError: columns of different length.
        MalformedPayloadError: a number out of its range, or a type that is not numeric.
        OversizePayloadError: more metrics or bytes than the other end takes.
    """
    rows = len(alias)
    for name, column in (("value", value), ("code", code), ("source_ms", source_ms)):
        if column.shape != (rows,):
            raise ShapeMismatchError(name, f"shape ({rows},)", str(column.shape))
    _check_heading(timestamp_ms, seq, stream, sequence)
    if rows and (alias.min() < 0 or source_ms.min() < 0 or source_ms.max() > TIMESTAMP_MS_MAX):
        raise MalformedPayloadError("an alias or a source time is out of range")
    if rows + 2 > limits.metrics_max:
        raise OversizePayloadError("metrics", rows + 2, limits.metrics_max)
    broken = ~np.isfinite(value) & (code & QUALITY_MASK != Quality.BAD)
    if broken.any():
        code = np.where(broken, np.uint8(_NOT_A_NUMBER), code)
    write_value = _value_writer(datatype)
    parts = [b"\x08", _varint(timestamp_ms)]
    stamped_ms, stamp = -1, b""
    for row_alias, row_value, row_code, row_ms in zip(
            alias.tolist(), value.tolist(), code.tolist(), source_ms.tolist(), strict=True):
        if row_ms != stamped_ms:  # most samples of a frame were read at one time
            stamped_ms, stamp = row_ms, b"\x18" + _varint(row_ms)
        metric = _alias_head(row_alias) + stamp
        if row_code == WIRE_GOOD:
            metric += write_value(row_value)
        elif row_code & QUALITY_MASK:
            metric += _properties(row_code) + write_value(row_value)
        else:
            metric += b"\x38\x01" + _properties(row_code)
        parts.append(b"\x12%c%b" % (len(metric), metric))
    if stream:
        parts += [_mark(SPOOL_STREAM, timestamp_ms, stream), _mark(SPOOL_SEQUENCE, timestamp_ms, sequence)]
    parts += [b"\x18", _varint(seq)]
    payload = b"".join(parts)
    if len(payload) > limits.bytes_max:
        raise OversizePayloadError("bytes", len(payload), limits.bytes_max)
    return payload


def _check_heading(timestamp_ms: int, seq: int, stream: int, sequence: int) -> None:
    if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
        raise MalformedPayloadError(f"timestamp {timestamp_ms} ms is before 1970 or after 9999")
    if not 0 <= seq < SEQ_END:
        raise MalformedPayloadError(f"seq {seq} is not in 0..255")
    marked = 0 < stream <= _INT64_MAX and 0 < sequence <= _INT64_MAX
    if not marked and (stream, sequence) != (0, 0):
        raise MalformedPayloadError(f"stream {stream} and number {sequence} do not make a mark")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(_ALIAS_HEADS_CACHED)
def _alias_head(alias: int) -> bytes:
    return b"\x10" + _varint(alias)


@lru_cache(256)
def _properties(code: int) -> bytes:
    metric = pb.Metric()
    write_quality(metric, *quality_on_wire(code))
    return metric.SerializeToString()


def _mark(name: str, timestamp_ms: int, number: int) -> bytes:
    metric = b"\x0a%c%b\x18%b\x58%b" % (len(name), name.encode(), _varint(timestamp_ms), _varint(number))
    return b"\x12%c%b" % (len(metric), metric)


def _value_writer(datatype: DataType) -> Callable[[float], bytes]:
    """Return what writes one value, tag byte and all, in the field of a numeric type."""
    if datatype is DataType.DOUBLE:
        return _write_double
    if datatype is DataType.FLOAT:
        return _write_float
    if datatype is DataType.BOOLEAN:
        return lambda value: b"\x70\x01" if value else b"\x70\x00"
    if datatype not in INTEGER_RANGE or datatype is DataType.DATETIME:
        raise MalformedPayloadError(f"{datatype.name} is not the type of a sample")
    lo, hi = INTEGER_RANGE[datatype]
    tag = b"\x50" if FIELD[datatype] == "int_value" else b"\x58"

    def write_integer(value: float) -> bytes:
        integer = int(value)
        if integer != value or not lo <= integer <= hi:
            raise MalformedPayloadError(f"{value!r} is not a value of type {datatype.name}")
        return tag + _varint(integer_on_wire(integer, datatype))

    return write_integer


_double = struct.Struct("<Bd").pack
_float = struct.Struct("<Bf").pack


def _write_double(value: float) -> bytes:
    return _double(0x69, value)


def _write_float(value: float) -> bytes:
    try:
        return _float(0x65, value)
    except OverflowError:
        raise MalformedPayloadError(f"{value!r} is beyond the range of FLOAT") from None


def _as_python(value: float, datatype: DataType | None) -> float | int | bool:
    if datatype is DataType.BOOLEAN:
        return bool(value)
    return int(value) if datatype in INTEGER_RANGE else float(value)
