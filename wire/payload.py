"""Sparkplug B payloads, metric by metric: births, commands, and whatever is not a plain column of samples.

The reader trusts nothing: a payload is read whole or refused whole, and the only errors it raises are
`MalformedPayloadError` and `OversizePayloadError`. Templates, properties other than our two, metadata and
vendor extensions are measured, not read. Columns of samples have a faster way of their own in `columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError

from wire import sparkplug_pb2 as pb
from wire.datatypes import (
    ALSO_READ,
    BASIC_TYPES,
    FIELD,
    INTEGER_RANGE,
    TIMESTAMP_MS_MAX,
    DataType,
    integer_from_wire,
    integer_on_wire,
)
from wire.errors import MalformedPayloadError, OversizePayloadError
from wire.names import QUALITY_DETAIL_PROPERTY, QUALITY_PROPERTY

SEQ_END: Final = 256
_FLOAT32_MAX: Final = 3.4028234663852886e38
_ALIAS_MAX: Final = 2**63 - 1  # aliases stand in int64 columns

Cell: TypeAlias = float | int | bool | str | None


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """Caps of one payload; what is over any of them is refused before it is taken apart.

    Attributes:
        bytes_max: size of the encoded payload.
        metrics_max: metrics at the top level.
        depth_max: nesting of metrics in templates and of property sets in property sets; a metric counts 1.
        cells_max: cells, and rows, of one data set.
    """

    bytes_max: int = 256 * 1024
    metrics_max: int = 20_000
    depth_max: int = 8
    cells_max: int = 20_000


PAYLOAD_LIMITS: Final = PayloadLimits()


@dataclass(frozen=True, slots=True)
class DataSet:
    """A small table: every row has one cell per column, of the column's type, or None for null."""

    columns: tuple[str, ...]
    types: tuple[DataType, ...]
    rows: tuple[tuple[Cell, ...], ...]


MetricValue: TypeAlias = float | int | bool | str | bytes | DataSet | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it stands in a payload.

    Attributes:
        name, alias: at least one is there.
        timestamp_ms: UTC epoch milliseconds of the value; None where the payload's own stamp counts.
        datatype: None where the message leaves it to the birth (DATA and commands may).
        value: None for null, and for a template or extension, whose content is not read. Without a datatype
            an integer is what the unsigned field holds.
        quality: Sparkplug's property `Quality` as it came: 0, 192, 500, or a number no one defined.
        detail: our property `QualityDetail` as it came.
    """

    name: str | None = None
    alias: int | None = None
    timestamp_ms: int | None = None
    datatype: DataType | None = None
    value: MetricValue = None
    is_null: bool = False
    is_historical: bool = False
    quality: int | None = None
    detail: int | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """A decoded payload; `seq` is absent in commands and NDEATH, the timestamp possibly in NDEATH."""

    timestamp_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]


def encode_payload(timestamp_ms: int, seq: int | None, metrics: Sequence[Metric],
                   limits: PayloadLimits = PAYLOAD_LIMITS) -> bytes:
    """Return a payload as bytes, in the order of the metrics.

    Raises:
        MalformedPayloadError: a metric that `decode_payload` would refuse.
        OversizePayloadError: over a cap that the other end holds too.
    """
    if seq is not None and not 0 <= seq < SEQ_END:
        raise MalformedPayloadError(f"seq {seq} is not in 0..255")
    if len(metrics) > limits.metrics_max:
        raise OversizePayloadError("metrics", len(metrics), limits.metrics_max)
    message = pb.Payload(timestamp=_checked_stamp(timestamp_ms))
    if seq is not None:
        message.seq = seq
    for metric in metrics:
        _write_metric(message.metrics.add(), metric)
    payload = message.SerializeToString()
    if len(payload) > limits.bytes_max:
        raise OversizePayloadError("bytes", len(payload), limits.bytes_max)
    return payload


def decode_payload(payload: bytes, limits: PayloadLimits = PAYLOAD_LIMITS) -> Payload:
    """Take a payload apart.

    Raises:
        MalformedPayloadError: not protobuf, a value that does not fit its data type, a metric without name,
            alias or value, a data set or property set whose parts differ in length, text that is not UTF-8.
        OversizePayloadError: over one of `limits`.
    """
    message = parse_payload(payload, limits)
    return Payload(
        timestamp_ms=read_stamp(message.timestamp) if message.HasField("timestamp") else None,
        seq=message.seq if message.HasField("seq") else None,
        metrics=tuple([read_metric(metric, limits) for metric in message.metrics]),
    )


def parse_payload(payload: bytes, limits: PayloadLimits) -> pb.Payload:
    """Parse the bytes and check the caps and the seq; the metrics inside are still unread."""
    if len(payload) > limits.bytes_max:
        raise OversizePayloadError("bytes", len(payload), limits.bytes_max)
    try:
        message = pb.Payload.FromString(payload)
    except DecodeError as error:
        raise MalformedPayloadError("not a protobuf message, cut short or nested too deep") from error
    if len(message.metrics) > limits.metrics_max:
        raise OversizePayloadError("metrics", len(message.metrics), limits.metrics_max)
    if message.seq >= SEQ_END:
        raise MalformedPayloadError("seq is not in 0..255")
    return message


def read_stamp(timestamp_ms: int) -> int:
    """Bound a timestamp from outside so that arithmetic on it cannot overflow; far in the future it stays."""
    return min(timestamp_ms, TIMESTAMP_MS_MAX)


def read_metric(metric: pb.Metric, limits: PayloadLimits) -> Metric:
    """Read one metric of a parsed payload, or refuse it with a `WireError`."""
    name = _read_name(metric)
    alias = metric.alias if metric.HasField("alias") else None
    if name is None and alias is None:
        raise MalformedPayloadError("a metric has neither name nor alias")
    if alias is not None and alias > _ALIAS_MAX:
        raise MalformedPayloadError("an alias is beyond 63 bits")
    field = metric.WhichOneof("value")
    datatype = read_datatype(metric.datatype) if metric.HasField("datatype") else None
    quality, detail = (read_quality(metric.properties, limits.depth_max) if metric.HasField("properties")
                       else (None, None))
    if field == "template_value":
        _check_depth(metric.template_value.metrics, 2, limits.depth_max)
    return Metric(
        name=name,
        alias=alias,
        timestamp_ms=read_stamp(metric.timestamp) if metric.HasField("timestamp") else None,
        datatype=datatype,
        value=None if metric.is_null else _read_value(metric, field, datatype, limits),
        is_null=metric.is_null,
        is_historical=metric.is_historical,
        quality=quality,
        detail=detail,
    )


def read_datatype(code: int) -> DataType:
    """Return the data type of a code from outside."""
    try:
        return DataType(code)
    except ValueError:
        raise MalformedPayloadError("a data type code is none of Sparkplug's") from None


def read_quality(properties: pb.PropertySet, depth_max: int) -> tuple[int | None, int | None]:
    """Return the properties `Quality` and `QualityDetail` as they came, None where absent."""
    keys, values = properties.keys, properties.values
    if len(keys) != len(values):
        raise MalformedPayloadError("a property set has not as many values as keys")
    found: dict[str, int] = {}
    for key, value in zip(keys, values, strict=True):
        field = value.WhichOneof("value")
        if field in _NESTED_PROPERTIES:
            _check_property_depth(value, 2, depth_max)
        if key not in (QUALITY_PROPERTY, QUALITY_DETAIL_PROPERTY):
            continue
        if key in found:
            raise MalformedPayloadError("a quality property stands twice")
        if field != "int_value" or value.type not in (DataType.UNKNOWN, DataType.INT32) or value.is_null:
            raise MalformedPayloadError("a quality property is not an Int32")
        found[key] = value.int_value
    return found.get(QUALITY_PROPERTY), found.get(QUALITY_DETAIL_PROPERTY)


def write_quality(metric: pb.Metric, quality: int | None, detail: int | None) -> None:
    """Add the two quality properties to a metric, where they are not None."""
    for key, value in ((QUALITY_PROPERTY, quality), (QUALITY_DETAIL_PROPERTY, detail)):
        if value is not None:
            metric.properties.keys.append(key)
            metric.properties.values.add(type=DataType.INT32, int_value=value)


def _read_name(metric: pb.Metric) -> str | None:
    name: object = metric.name
    if type(name) is not str:  # the parser hands out text that is not UTF-8 as bytes
        raise MalformedPayloadError("a metric name is not UTF-8")
    return name or None


def _read_value(metric: pb.Metric, field: str | None, datatype: DataType | None,
                limits: PayloadLimits) -> MetricValue:
    if field is None:
        raise MalformedPayloadError("a metric has no value and is not null")
    if field in ("template_value", "extension_value"):
        if datatype not in (None, DataType.UNKNOWN, DataType.TEMPLATE):
            raise MalformedPayloadError("a value does not fit its data type")
        return None
    if field == "dataset_value":
        if datatype not in (None, DataType.UNKNOWN, DataType.DATASET):
            raise MalformedPayloadError("a value does not fit its data type")
        return _read_dataset(metric.dataset_value, limits)
    return _read_scalar(getattr(metric, field), field, datatype)


def _read_scalar(raw: Any, field: str, datatype: DataType | None) -> float | int | bool | str | bytes:
    """Return a scalar as its data type means it; without a type, as its field holds it."""
    if field == "string_value" and type(raw) is not str:
        raise MalformedPayloadError("a text value is not UTF-8")
    if datatype is None or datatype is DataType.UNKNOWN:
        return raw  # type: ignore[no-any-return]
    if FIELD.get(datatype) != field and ALSO_READ.get(datatype) != field:
        raise MalformedPayloadError("a value does not fit its data type")
    if datatype in INTEGER_RANGE:
        integer = integer_from_wire(raw, field, datatype)
        if integer is None:
            raise MalformedPayloadError("an integer is beyond the range of its data type")
        return integer
    return raw  # type: ignore[no-any-return]


def _read_dataset(table: pb.DataSet, limits: PayloadLimits) -> DataSet:
    width = len(table.columns)
    if not table.num_of_columns == width == len(table.types):
        raise MalformedPayloadError("a data set's columns, types and column count differ")
    found = max(len(table.rows), len(table.rows) * width, width)
    if found > limits.cells_max:
        raise OversizePayloadError("data set cells", found, limits.cells_max)
    if any(type(column) is not str for column in table.columns):
        raise MalformedPayloadError("a column name is not UTF-8")
    types = tuple([read_datatype(code) for code in table.types])
    if not BASIC_TYPES.issuperset(types):
        raise MalformedPayloadError("a data set column is of no basic type")
    rows: list[tuple[Cell, ...]] = []
    for row in table.rows:
        if len(row.elements) != width:
            raise MalformedPayloadError("a data set row has not one cell per column")
        rows.append(tuple([_read_cell(cell, datatype)
                           for cell, datatype in zip(row.elements, types, strict=True)]))
    return DataSet(tuple(table.columns), types, tuple(rows))


def _read_cell(cell: pb.DataSetValue, datatype: DataType) -> Cell:
    field = cell.WhichOneof("value")
    if field is None:
        return None
    if field == "extension_value":
        raise MalformedPayloadError("a data set cell is a vendor extension")
    value = _read_scalar(getattr(cell, field), field, datatype)
    assert not isinstance(value, bytes)
    return value


_NESTED_PROPERTIES: Final = ("propertyset_value", "propertysets_value")


def _check_depth(metrics: Iterable[pb.Metric], depth: int, depth_max: int) -> None:
    """Refuse metrics nested deeper than the cap; the parser's own recursion limit bounds this walk."""
    for metric in metrics:
        if depth > depth_max:
            raise OversizePayloadError("levels of nesting", depth, depth_max)
        if metric.WhichOneof("value") == "template_value":
            _check_depth(metric.template_value.metrics, depth + 1, depth_max)
        if metric.HasField("properties"):
            for value in metric.properties.values:
                _check_property_depth(value, depth + 1, depth_max)


def _check_property_depth(value: pb.PropertyValue, depth: int, depth_max: int) -> None:
    if depth > depth_max:
        raise OversizePayloadError("levels of nesting", depth, depth_max)
    field = value.WhichOneof("value")
    if field == "propertyset_value":
        for inner in value.propertyset_value.values:
            _check_property_depth(inner, depth + 1, depth_max)
    elif field == "propertysets_value":
        for properties in value.propertysets_value.propertyset:
            for inner in properties.values:
                _check_property_depth(inner, depth + 1, depth_max)


def _checked_stamp(timestamp_ms: int) -> int:
    if not 0 <= timestamp_ms <= TIMESTAMP_MS_MAX:
        raise MalformedPayloadError(f"timestamp {timestamp_ms} ms is before 1970 or after 9999")
    return timestamp_ms


def _write_metric(message: pb.Metric, metric: Metric) -> None:
    if not metric.name and metric.alias is None:
        raise MalformedPayloadError("a metric has neither name nor alias")
    if metric.name:
        message.name = metric.name
    if metric.alias is not None:
        if not 0 <= metric.alias <= _ALIAS_MAX:
            raise MalformedPayloadError(f"alias {metric.alias} is negative or beyond 63 bits")
        message.alias = metric.alias
    if metric.timestamp_ms is not None:
        message.timestamp = _checked_stamp(metric.timestamp_ms)
    if metric.datatype is not None:
        message.datatype = metric.datatype
    if metric.is_historical:
        message.is_historical = True
    if metric.is_null:
        message.is_null = True
    write_quality(message, metric.quality, metric.detail)
    if metric.is_null:
        return
    datatype = metric.datatype if metric.datatype is not None else _natural_type(metric.value)
    if isinstance(metric.value, DataSet):
        if datatype is not DataType.DATASET:
            raise MalformedPayloadError(f"{metric.name}: a data set under data type {datatype.name}")
        _write_dataset(message.dataset_value, metric.value)
    else:
        field = FIELD.get(datatype)
        if field is None or field in ("dataset_value", "template_value"):
            raise MalformedPayloadError(f"{metric.name}: no value can be written as {datatype.name}")
        setattr(message, field, _scalar_on_wire(metric.value, datatype))


def _natural_type(value: MetricValue) -> DataType:
    """Return the data type that a value without one is written as: what its Python type says."""
    for python_type, datatype in _NATURAL_TYPES:
        if isinstance(value, python_type):
            return datatype
    raise MalformedPayloadError("a metric has no value and is not null")


_NATURAL_TYPES: Final[tuple[tuple[type, DataType], ...]] = (
    (bool, DataType.BOOLEAN), (int, DataType.INT64), (float, DataType.DOUBLE), (str, DataType.STRING),
    (bytes, DataType.BYTES), (DataSet, DataType.DATASET),
)


def _scalar_on_wire(value: object, datatype: DataType) -> float | int | bool | str | bytes:
    """Return a scalar as its field holds it; a bool is never an integer, an integer never a bool."""
    field = FIELD[datatype]
    if datatype in INTEGER_RANGE:
        lo, hi = INTEGER_RANGE[datatype]
        if isinstance(value, int) and not isinstance(value, bool) and lo <= value <= hi:
            return integer_on_wire(value, datatype)
    elif field in ("float_value", "double_value"):
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if field == "double_value" or not isfinite(number) or abs(number) <= _FLOAT32_MAX:
                return number
    elif field == "boolean_value":
        if isinstance(value, bool):
            return value
    elif field == "string_value":
        if isinstance(value, str):
            return value
    elif isinstance(value, bytes):
        return value
    raise MalformedPayloadError(f"a {type(value).__name__} does not fit data type {datatype.name}")


def _write_dataset(message: pb.DataSet, table: DataSet) -> None:
    if len(table.columns) != len(table.types) or not BASIC_TYPES.issuperset(table.types):
        raise MalformedPayloadError("a data set needs one basic data type per column")
    message.num_of_columns = len(table.columns)
    message.columns.extend(table.columns)
    message.types.extend(table.types)
    for row in table.rows:
        if len(row) != len(table.types):
            raise MalformedPayloadError("a data set row has not one cell per column")
        elements = message.rows.add().elements
        for cell, datatype in zip(row, table.types, strict=True):
            element = elements.add()
            if cell is not None:
                setattr(element, FIELD[datatype], _scalar_on_wire(cell, datatype))
