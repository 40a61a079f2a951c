"""The fast way in for samples: DATA messages and device births as columns, without an object per metric.

`decode_data` takes a Sparkplug payload apart into columns of numeric samples, our stream marks and the rest;
`conform` then reads the columns as the types their births declared. What is wrong is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wire import sparkplug_pb2 as pb
from wire.datatypes import ALSO_READ, FIELD, INTEGER_RANGE, TIMESTAMP_MS_MAX, DataType, integer_from_wire
from wire.errors import MalformedPayloadError, ShapeMismatchError
from wire.names import (
    BDSEQ,
    CLOCK_OFFSET,
    CLOCK_SYNCED,
    COMMANDS_REFUSED,
    CONFIG_HASH,
    EDGE_VERSION,
    SPOOL_FAULT,
    SPOOL_PREFIX,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    TRANSPORT_BLOCKED,
)
from wire.payload import (
    PAYLOAD_LIMITS,
    Metric,
    PayloadLimits,
    parse_payload,
    read_datatype,
    read_metric,
    read_quality,
)
from wire.quality import QUALITY_MASK, Quality, Reason, quality_code
from wire.wire_quality import WIRE_GOOD, quality_from_wire

_INT64_MAX: Final = 2**63 - 1
_NOT_A_NUMBER: Final = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)
_PROPERTY_SETS_CACHED: Final = 1_024
_PROPERTY_SET_BYTES_CACHED: Final = 64

# Metrics that are no tag, whatever their type; a foreign node may name its tags as it likes otherwise.
_NOT_TAGS: Final = frozenset(
    (BDSEQ, CONFIG_HASH, EDGE_VERSION, SPOOL_FAULT, CLOCK_OFFSET, CLOCK_SYNCED, TRANSPORT_BLOCKED, COMMANDS_REFUSED)
)
_NOT_TAG_PREFIXES: Final = (SPOOL_PREFIX, "Node Control/", "Device Control/")
_MARKS: Final = frozenset((SPOOL_STREAM, SPOOL_SEQUENCE))


class ValueKind(IntEnum):
    """Which field a sample's value came in; what `conform` checks against the type its birth declared."""

    NULL = 0
    INT = 1
    LONG = 2
    FLOAT = 3
    DOUBLE = 4
    BOOLEAN = 5


@dataclass(frozen=True, slots=True, eq=False)
class DataColumns:
    """One decoded payload of samples.

    Attributes:
        timestamp_ms: when the message was sent, UTC epoch milliseconds.
        seq: Sparkplug's own sequence number, 0..255.
        stream, sequence: our marks; both 0 when the message carries none.
        alias: int64[n], -1 where the metric has none.
        names: n names, None where the metric has none.
        value: float64[n], finite unless the quality is BAD, then NaN.
        code: uint8[n], quality codes.
        source_ms: int64[n], UTC epoch milliseconds; the message's own stamp where the metric has none.
        historical: bool[n].
        others: metrics that are not numeric samples: text, bytes, data sets, our own and control metrics.
        kind: uint8[n], `ValueKind`.
        raw: uint64[n], what an integer field held; 0 for other kinds.
        datatype: uint8[n], `DataType` as the metric itself says; 0 where it leaves that to the birth.
    """

    timestamp_ms: int
    seq: int
    stream: int
    sequence: int
    alias: NDArray[np.int64]
    names: list[str | None]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    historical: NDArray[np.bool_]
    others: tuple[Metric, ...]
    kind: NDArray[np.uint8]
    raw: NDArray[np.uint64]
    datatype: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.alias)


def decode_data(payload: bytes, limits: PayloadLimits = PAYLOAD_LIMITS) -> DataColumns:
    """Read a DATA message or a device birth into columns; rows keep the order of the metrics.

    Raises:
        MalformedPayloadError: as `decode_payload`; also no timestamp, no seq, only half of the stream marks.
        OversizePayloadError: over one of `limits`.
    """
    message = parse_payload(payload, limits)
    if not message.HasField("timestamp") or not message.HasField("seq"):
        raise MalformedPayloadError("no timestamp or no seq")
    sent_ms = message.timestamp
    samples, others, stream, sequence = _sort(message, limits)
    rows = len(samples)
    code = np.full(rows, WIRE_GOOD, np.uint8)
    kind = np.full(rows, ValueKind.DOUBLE, np.uint8)
    raw = np.zeros(rows, np.uint64)
    datatype = np.zeros(rows, np.uint8)
    value = [metric.double_value for metric in samples]
    for row, metric in enumerate(samples):
        # A oneof holds one field, so a double that is not 0.0 is the value; the usual sample ends here.
        if value[row] and not metric.is_null and not metric.datatype and not metric.HasField("properties"):
            continue
        value[row], kind[row], code[row], raw[row], datatype[row] = _read_sample(metric, limits)
    value_column = np.array(value, np.float64)
    is_bad = code & QUALITY_MASK == Quality.BAD
    code[~np.isfinite(value_column) & ~is_bad] = _NOT_A_NUMBER
    value_column[code & QUALITY_MASK == Quality.BAD] = np.nan
    source_ms = [metric.timestamp or sent_ms for metric in samples]
    if rows and max(source_ms) > TIMESTAMP_MS_MAX:
        source_ms = [min(stamp, TIMESTAMP_MS_MAX) for stamp in source_ms]
    return DataColumns(
        timestamp_ms=min(sent_ms, TIMESTAMP_MS_MAX), seq=message.seq, stream=stream, sequence=sequence,
        alias=_read_aliases(samples), names=[metric.name or None for metric in samples], value=value_column,
        code=code, source_ms=np.array(source_ms, np.int64),
        historical=np.array([metric.is_historical for metric in samples], np.bool_), others=others,
        kind=kind, raw=raw, datatype=datatype,
    )


def conform(columns: DataColumns, declared: NDArray[np.uint8]) -> DataColumns:
    """Read the rows as the types their births declared: integers get their sign, confusion is refused.

    Args:
        columns: what `decode_data` returned.
        declared: uint8[n] `DataType`, 0 where nothing is declared (the row stays as it is).

    Raises:
        MalformedPayloadError: a value came in another field, or is beyond the range, of its declared type.
    """
    if declared.shape != columns.kind.shape:
        raise ShapeMismatchError("declared", f"shape {columns.kind.shape}", str(declared.shape))
    if declared.size and int(declared.max()) >= len(_KINDS_OF):
        raise MalformedPayloadError("a data type code is none of Sparkplug's")
    if not (_KINDS_OF[declared] >> columns.kind & 1).all():
        raise MalformedPayloadError("a value does not fit the data type its birth declared")
    integers = np.flatnonzero(_IS_INTEGER[declared] & (columns.kind != ValueKind.NULL))
    if not integers.size:
        return columns
    value = columns.value.copy()
    for row in integers.tolist():
        field = "int_value" if columns.kind[row] == ValueKind.INT else "long_value"
        integer = integer_from_wire(int(columns.raw[row]), field, DataType(int(declared[row])))
        if integer is None:
            raise MalformedPayloadError("an integer is beyond the range of the data type its birth declared")
        if columns.code[row] & QUALITY_MASK:
            value[row] = integer
    return replace(columns, value=value)


def takes_double(datatype: int) -> bool:
    """Tell whether `conform` leaves a double as it is where a birth declared this type, 0 for none."""
    if not 0 <= datatype < len(_KINDS_OF):
        return False
    return bool(_KINDS_OF[datatype] >> ValueKind.DOUBLE & 1) and not bool(_IS_INTEGER[datatype])


_KINDS: Final = {
    "int_value": int(ValueKind.INT), "long_value": int(ValueKind.LONG), "float_value": int(ValueKind.FLOAT),
    "double_value": int(ValueKind.DOUBLE), "boolean_value": int(ValueKind.BOOLEAN),
}
_NULL: Final = int(ValueKind.NULL)
_NUMERIC_TYPES: Final = frozenset(
    (*INTEGER_RANGE, DataType.FLOAT, DataType.DOUBLE, DataType.BOOLEAN)) - {DataType.DATETIME}


def _sort(message: pb.Payload, limits: PayloadLimits) -> tuple[list[pb.Metric], tuple[Metric, ...], int, int]:
    """Part the metrics into numeric samples, the rest, and our stream marks."""
    samples: list[pb.Metric] = []
    others: list[Metric] = []
    marks: dict[str, int] = {}
    for metric in message.metrics:
        name: object = metric.name
        if name:
            if type(name) is not str:  # the parser hands out text that is not UTF-8 as bytes
                raise MalformedPayloadError("a metric name is not UTF-8")
            if name in _MARKS:
                _read_mark(metric, marks, limits)
                continue
            if name in _NOT_TAGS or name.startswith(_NOT_TAG_PREFIXES):
                others.append(read_metric(metric, limits))
                continue
        if metric.double_value or _is_sample(metric):
            samples.append(metric)
        else:
            others.append(read_metric(metric, limits))
    stream, sequence = _stream_of(marks)
    return samples, tuple(others), stream, sequence


def _is_sample(metric: pb.Metric) -> bool:
    """Tell whether a metric can be a number of some tag, by the type it names, else by its field."""
    if metric.datatype:
        return metric.datatype in _NUMERIC_TYPES
    return metric.is_null or metric.WhichOneof("value") in _KINDS


def _read_sample(metric: pb.Metric, limits: PayloadLimits) -> tuple[float, int, int, int, int]:
    """Read a numeric metric of any kind; return its value, kind, quality code, raw integer and data type."""
    datatype = metric.datatype
    declared = read_datatype(datatype) if datatype else DataType.UNKNOWN
    code = _read_code(metric, limits)
    if metric.is_null:
        return 0.0, _NULL, code, 0, datatype
    field = metric.WhichOneof("value")
    if field not in _KINDS:
        raise MalformedPayloadError("a metric has no value, or one that does not fit its data type")
    raw = getattr(metric, field)
    number = raw
    if declared is not DataType.UNKNOWN:
        if FIELD.get(declared) != field and ALSO_READ.get(declared) != field:
            raise MalformedPayloadError("a value does not fit its data type")
        if declared in INTEGER_RANGE:
            number = integer_from_wire(raw, field, declared)
            if number is None:
                raise MalformedPayloadError("an integer is beyond the range of its data type")
    kind = _KINDS[field]
    return float(number), kind, code, raw if kind in (ValueKind.INT, ValueKind.LONG) else 0, datatype


def _read_code(metric: pb.Metric, limits: PayloadLimits) -> int:
    """Read a sample's quality; a device that fails says the same few property sets over and over."""
    if not metric.HasField("properties"):
        return quality_from_wire(None, None, metric.is_null)
    encoded = metric.properties.SerializeToString()
    if len(encoded) > _PROPERTY_SET_BYTES_CACHED:
        return quality_from_wire(*read_quality(metric.properties, limits.depth_max), metric.is_null)
    return _code_of(encoded, limits.depth_max, metric.is_null)


@lru_cache(_PROPERTY_SETS_CACHED)
def _code_of(encoded: bytes, depth_max: int, is_null: bool) -> int:
    return quality_from_wire(*read_quality(pb.PropertySet.FromString(encoded), depth_max), is_null)


def _read_aliases(samples: list[pb.Metric]) -> NDArray[np.int64]:
    alias = [metric.alias for metric in samples]
    if 0 in alias:
        for row, metric in enumerate(samples):
            if alias[row] == 0 and not metric.HasField("alias"):
                if not metric.name:
                    raise MalformedPayloadError("a metric has neither name nor alias")
                alias[row] = -1
    try:
        return np.array(alias, np.int64)
    except OverflowError:
        raise MalformedPayloadError("an alias is beyond 63 bits") from None


def _read_mark(metric: pb.Metric, marks: dict[str, int], limits: PayloadLimits) -> None:
    mark = read_metric(metric, limits)
    assert mark.name is not None
    if mark.name in marks:
        raise MalformedPayloadError("a stream mark stands twice")
    if mark.datatype not in (None, DataType.INT64) or type(mark.value) is not int \
            or metric.WhichOneof("value") != "long_value" or not 0 < mark.value <= _INT64_MAX:
        raise MalformedPayloadError("a stream mark is not a positive Int64")
    marks[mark.name] = mark.value


def _stream_of(marks: dict[str, int]) -> tuple[int, int]:
    if not marks:
        return 0, 0
    if len(marks) != len(_MARKS):
        raise MalformedPayloadError("only one of the two stream marks is there")
    return marks[SPOOL_STREAM], marks[SPOOL_SEQUENCE]


def _kinds_of() -> NDArray[np.uint8]:
    """Return, per data type, the set of kinds it may come in, as bits; null is always among them."""
    sets: list[int] = []
    for datatype in DataType:
        kinds = 1 << ValueKind.NULL
        for field in (FIELD.get(datatype), ALSO_READ.get(datatype)):
            kinds |= 1 << _KINDS[field] if field in _KINDS else 0
        sets.append(kinds if datatype is not DataType.UNKNOWN else 0xFF)
    return np.array(sets, np.uint8)


_KINDS_OF: Final = _kinds_of()
_IS_INTEGER: Final[NDArray[Any]] = np.array([datatype in INTEGER_RANGE for datatype in DataType], np.bool_)
