"""Payloads metric by metric: what goes in comes out, and what the specification fixes stands in the bytes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import (
    TIMESTAMP_MS_MAX,
    DataSet,
    DataType,
    MalformedPayloadError,
    Metric,
    OversizePayloadError,
    PayloadLimits,
    decode_payload,
    encode_payload,
)
from wire import sparkplug_pb2 as pb
from wire.datatypes import BASIC_TYPES

STAMPS = st.integers(0, TIMESTAMP_MS_MAX)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXTS.filter(bool)
INTEGERS = {
    DataType.INT8: (-(2**7), 2**7 - 1), DataType.INT16: (-(2**15), 2**15 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1), DataType.INT64: (-(2**63), 2**63 - 1),
    DataType.UINT8: (0, 2**8 - 1), DataType.UINT16: (0, 2**16 - 1), DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1), DataType.DATETIME: (0, 2**64 - 1),
}
SCALARS = {
    **{datatype: st.integers(lo, hi) for datatype, (lo, hi) in INTEGERS.items()},
    DataType.FLOAT: st.floats(width=32, allow_nan=False),
    DataType.DOUBLE: st.floats(allow_nan=False),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: TEXTS,
    DataType.TEXT: TEXTS,
}
BINARY = {datatype: st.binary(max_size=40) for datatype in
          (DataType.BYTES, DataType.FILE, *[d for d in DataType if d >= DataType.INT8_ARRAY])}


@st.composite
def datasets(draw):
    types = draw(st.lists(st.sampled_from(sorted(SCALARS)), max_size=4))
    row = st.tuples(*[st.none() | SCALARS[datatype] for datatype in types])
    rows = draw(st.lists(row, max_size=4))
    return DataSet(tuple(draw(TEXTS) for _ in types), tuple(types), tuple(rows))


@st.composite
def metrics(draw):
    datatype = draw(st.sampled_from([*SCALARS, *BINARY, DataType.UUID, DataType.DATASET]))
    is_null = draw(st.booleans())
    if is_null:
        value = None
    elif datatype is DataType.DATASET:
        value = draw(datasets())
    else:
        value = draw({**SCALARS, **BINARY, DataType.UUID: TEXTS}[datatype])
    name, alias = draw(st.sampled_from([(1, 0), (0, 1), (1, 1)]))
    return Metric(
        name=draw(NAMES) if name else None, alias=draw(st.integers(0, 2**63 - 1)) if alias else None,
        timestamp_ms=draw(st.none() | STAMPS), datatype=datatype, value=value, is_null=is_null,
        is_historical=draw(st.booleans()), quality=draw(st.sampled_from([None, 0, 192, 500])),
        detail=draw(st.none() | st.integers(0, 255)),
    )


@given(STAMPS, st.none() | st.integers(0, 255), st.lists(metrics(), max_size=5))
def test_every_payload_reads_back_as_it_was_written(timestamp_ms, seq, written):
    read = decode_payload(encode_payload(timestamp_ms, seq, written))
    assert (read.timestamp_ms, read.seq, read.metrics) == (timestamp_ms, seq, tuple(written))
    for before, after in zip(written, read.metrics, strict=True):
        assert type(before.value) is type(after.value)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_double_keeps_every_bit(value):
    metric = Metric("x", value=value, datatype=DataType.DOUBLE)
    read = decode_payload(encode_payload(1, 0, [metric])).metrics[0].value
    assert type(read) is float
    assert read.hex() == value.hex()


def raw(payload: bytes) -> pb.Payload:
    return pb.Payload.FromString(payload)


@pytest.mark.parametrize(("datatype", "value", "field", "on_wire"), [
    (DataType.INT8, -1, "int_value", 0xFFFFFFFF),
    (DataType.INT16, -2, "int_value", 0xFFFFFFFE),
    (DataType.INT32, -(2**31), "int_value", 0x80000000),
    (DataType.INT64, -1, "long_value", 2**64 - 1),
    (DataType.UINT32, 2**32 - 1, "int_value", 2**32 - 1),
    (DataType.DATETIME, 5, "long_value", 5),
    (DataType.BOOLEAN, True, "boolean_value", True),
    (DataType.UUID, "x", "string_value", "x"),
    (DataType.DOUBLE_ARRAY, b"12345678", "bytes_value", b"12345678"),
])
def test_each_type_stands_in_the_field_the_specification_names(datatype, value, field, on_wire):
    metric = raw(encode_payload(1, 0, [Metric("x", datatype=datatype, value=value)])).metrics[0]
    assert metric.WhichOneof("value") == field
    assert getattr(metric, field) == on_wire
    assert metric.datatype == datatype


@pytest.mark.parametrize(("datatype", "field", "on_wire", "value"), [
    pytest.param(DataType.INT8, "int_value", 0xFF, -1, id="two's complement of its own width"),
    pytest.param(DataType.INT16, "int_value", 0x8000, -(2**15), id="two's complement of its own width, 16 bits"),
    pytest.param(DataType.UINT32, "long_value", 2**32 - 1, 2**32 - 1, id="UInt32 as long"),
    pytest.param(DataType.INT32, "long_value", 2**64 - 3, -3, id="Int32 as long"),
    pytest.param(DataType.INT32, "long_value", 2**32 - 3, -3, id="Int32 as long of 32 bits"),
])
def test_other_encoders_ways_to_write_an_integer_are_understood(datatype, field, on_wire, value):
    message = pb.Payload(timestamp=1, seq=0)
    message.metrics.add(name="x", datatype=datatype, **{field: on_wire})
    assert decode_payload(message.SerializeToString()).metrics[0].value == value


@pytest.mark.spec("tck-id-payloads-propertyset-keys-array-size")
@pytest.mark.spec("tck-id-payloads-propertyset-values-array-size")
@pytest.mark.spec("tck-id-payloads-propertyset-quality-value-type")
@pytest.mark.spec("tck-id-payloads-propertyset-quality-value-value")
@pytest.mark.parametrize("quality", [0, 192, 500])
@pytest.mark.spec("tck-id-payloads-metric-propertyvalue-type-req")
@pytest.mark.spec("tck-id-payloads-metric-propertyvalue-type-type")
@pytest.mark.spec("tck-id-payloads-metric-propertyvalue-type-value")
def test_quality_is_an_int32_property(quality):
    properties = raw(encode_payload(1, 0, [Metric("x", value=1.0, quality=quality, detail=65)])).metrics[0].properties
    assert list(properties.keys) == ["Quality", "QualityDetail"]
    assert [(value.type, value.WhichOneof("value")) for value in properties.values] == [(3, "int_value")] * 2
    assert [value.int_value for value in properties.values] == [quality, 65]


@pytest.mark.spec("tck-id-payloads-dataset-column-size")
@pytest.mark.spec("tck-id-payloads-dataset-column-num-headers")
@pytest.mark.spec("tck-id-payloads-dataset-types-def")
@pytest.mark.spec("tck-id-payloads-dataset-types-num")
@pytest.mark.spec("tck-id-payloads-dataset-types-type")
@pytest.mark.spec("tck-id-payloads-dataset-types-value")
@pytest.mark.spec("tck-id-payloads-dataset-parameter-type-req")
def test_a_data_set_states_its_columns():
    table = DataSet(("a", "b"), (DataType.INT64, DataType.STRING), ((1, "x"), (None, "y")))
    written = raw(encode_payload(1, 0, [Metric("t", datatype=DataType.DATASET, value=table)])).metrics[0].dataset_value
    assert (written.num_of_columns, list(written.columns), list(written.types)) == (2, ["a", "b"], [4, 12])
    assert [len(row.elements) for row in written.rows] == [2, 2]
    assert written.rows[1].elements[0].WhichOneof("value") is None


@pytest.mark.spec("tck-id-payloads-template-dataset-value")
@pytest.mark.parametrize("datatype", sorted(BASIC_TYPES))
def test_a_cell_of_a_data_set_is_in_one_of_six_fields(datatype):
    cell: Any = {DataType.BOOLEAN: True, DataType.STRING: "x", DataType.TEXT: "x"}.get(datatype, 1)
    table = DataSet(("a",), (datatype,), ((cell,),))
    written = raw(encode_payload(1, 0, [Metric("t", datatype=DataType.DATASET, value=table)])).metrics[0].dataset_value
    (element,) = written.rows[0].elements
    assert element.WhichOneof("value") in {
        "int_value", "long_value", "float_value", "double_value", "boolean_value", "string_value"}


@pytest.mark.parametrize(("datatype", "value"), [
    pytest.param(DataType.INT32, True, id="bool as int"),
    pytest.param(DataType.DOUBLE, True, id="bool as double"),
    pytest.param(DataType.BOOLEAN, 1, id="int as bool"),
    pytest.param(DataType.STRING, b"x", id="bytes as text"),
    pytest.param(DataType.BYTES, "x", id="text as bytes"),
    pytest.param(DataType.INT32, 1.0, id="float as int"),
    pytest.param(DataType.UINT8, 256, id="beyond its range"),
    pytest.param(DataType.UINT64, -1, id="negative unsigned"),
    pytest.param(DataType.INT8, -129, id="below its range"),
    pytest.param(DataType.FLOAT, 1e39, id="would become infinite"),
    pytest.param(DataType.DATASET, 1, id="number as table"),
    pytest.param(DataType.TEMPLATE, b"", id="templates are not written"),
    pytest.param(DataType.UNKNOWN, 1, id="no type"),
    pytest.param(DataType.DOUBLE, None, id="no value, not null"),
    pytest.param(DataType.DOUBLE, DataSet((), (), ()), id="table as number"),
    pytest.param(DataType.DATASET, DataSet(("a",), (), ()), id="a column without type"),
    pytest.param(DataType.DATASET, DataSet(("a",), (DataType.BYTES,), ()), id="a column of no basic type"),
    pytest.param(DataType.DATASET, DataSet(("a",), (DataType.INT8,), ((1, 2),)), id="a row too long"),
    pytest.param(DataType.DATASET, DataSet(("a",), (DataType.INT8,), ((True,),)), id="a bool cell as int"),
])
def test_what_could_not_be_read_back_is_not_written(datatype, value):
    with pytest.raises(MalformedPayloadError):
        encode_payload(1, 0, [Metric("x", datatype=datatype, value=value)])


@pytest.mark.parametrize("metric", [
    Metric(value=1.0), Metric("", value=1.0), Metric("x", alias=-1, value=1.0), Metric("x", alias=2**63, value=1.0),
    Metric("x", timestamp_ms=-1, value=1.0), Metric("x", timestamp_ms=TIMESTAMP_MS_MAX + 1, value=1.0),
])
def test_a_metric_without_a_proper_head_is_not_written(metric):
    with pytest.raises(MalformedPayloadError):
        encode_payload(1, 0, [metric])


@pytest.mark.parametrize(("timestamp_ms", "seq"), [(-1, 0), (TIMESTAMP_MS_MAX + 1, 0), (1, 256), (1, -1)])
def test_a_payload_without_a_proper_head_is_not_written(timestamp_ms, seq):
    with pytest.raises(MalformedPayloadError):
        encode_payload(timestamp_ms, seq, [])


def test_what_the_other_end_would_drop_for_its_size_is_not_written():
    limits = PayloadLimits(bytes_max=100, metrics_max=3)
    with pytest.raises(OversizePayloadError, match="bytes"):
        encode_payload(1, 0, [Metric("x", value="y" * 100)], limits)
    with pytest.raises(OversizePayloadError, match="metrics"):
        encode_payload(1, 0, [Metric("x", value=1.0)] * 4, limits)


@pytest.mark.spec("tck-id-payloads-ndeath-seq")
@pytest.mark.spec("tck-id-payloads-ncmd-seq")
def test_a_payload_can_go_without_a_sequence_number():
    assert not raw(encode_payload(1, None, [Metric("bdSeq", datatype=DataType.INT64, value=0)])).HasField("seq")


@pytest.mark.fault("F29")
def test_a_stamp_from_the_far_future_is_bounded_and_stays_there():
    message = pb.Payload(timestamp=2**64 - 1, seq=0)
    message.metrics.add(name="x", timestamp=2**63, double_value=1.0)
    read = decode_payload(message.SerializeToString())
    assert read.timestamp_ms == read.metrics[0].timestamp_ms == TIMESTAMP_MS_MAX


def test_a_template_is_named_but_not_read():
    message = pb.Payload(timestamp=1, seq=0)
    message.metrics.add(name="x", datatype=DataType.TEMPLATE).template_value.metrics.add(name="inner", int_value=1)
    metric = decode_payload(message.SerializeToString()).metrics[0]
    assert (metric.name, metric.datatype, metric.value, metric.is_null) == ("x", DataType.TEMPLATE, None, False)


def test_not_a_number_survives_for_the_caller_to_judge():
    value = decode_payload(encode_payload(1, 0, [Metric("x", value=math.nan)])).metrics[0].value
    assert isinstance(value, float)
    assert math.isnan(value)
