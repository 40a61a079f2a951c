"""Samples as columns: the fast writer and reader against the generated code, qualities, types, and speed."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import (
    TIMESTAMP_MS_MAX,
    DataType,
    MalformedPayloadError,
    OversizePayloadError,
    PayloadLimits,
    Quality,
    Reason,
    ShapeMismatchError,
    ValueKind,
    conform,
    decode_data,
    decode_payload,
    encode_data,
    encode_payload,
    quality_code,
    quality_from_wire,
    quality_of,
    quality_on_wire,
    sample_metric,
)
from wire import sparkplug_pb2 as pb

GOOD = int(Quality.GOOD)
CODES = sorted({GOOD, *[quality_code(quality, reason) for quality in (Quality.BAD, Quality.UNCERTAIN)
                        for reason in Reason]})
STREAM, SEQUENCE = 2**62 + 9, 123_456


def columns(rows) -> tuple[Any, Any, Any, Any]:
    alias, value, code, source_ms = zip(*rows, strict=True) if rows else ((), (), (), ())
    return (np.array(alias, np.int64), np.array(value, np.float64),
            np.array(code, np.uint8), np.array(source_ms, np.int64))


ROWS = st.lists(st.tuples(
    st.integers(0, 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(CODES), st.integers(1, TIMESTAMP_MS_MAX),
), max_size=12)


@given(ROWS, st.integers(1, TIMESTAMP_MS_MAX), st.integers(0, 255), st.integers(1, 2**63 - 1),
       st.integers(1, 2**63 - 1))
def test_columns_read_back_bit_by_bit(rows, timestamp_ms, seq, stream, sequence):
    alias, value, code, source_ms = columns(rows)
    read = decode_data(encode_data(timestamp_ms, seq, stream, sequence, alias, value, code, source_ms))
    assert (read.timestamp_ms, read.seq, read.stream, read.sequence) == (timestamp_ms, seq, stream, sequence)
    assert read.alias.tolist() == alias.tolist()
    assert read.code.tolist() == code.tolist()
    assert read.source_ms.tolist() == source_ms.tolist()
    bad = quality_of(code) == Quality.BAD
    assert np.isnan(read.value[bad]).all()
    assert read.value[~bad].tobytes() == value[~bad].tobytes()
    assert read.names == [None] * len(rows)
    assert not read.historical.any()
    assert read.others == ()


@given(ROWS, st.booleans())
def test_the_hand_written_bytes_are_what_the_generated_code_writes(rows, marked):
    alias, value, code, source_ms = columns(rows)
    stream, sequence = (STREAM, SEQUENCE) if marked else (0, 0)
    message = pb.Payload(timestamp=1_700_000_000_000, seq=9)
    for row_alias, row_value, row_code, row_ms in rows:
        metric = message.metrics.add(alias=row_alias, timestamp=row_ms)
        for key, number in zip(("Quality", "QualityDetail"), quality_on_wire(row_code), strict=True):
            if number is not None:
                metric.properties.keys.append(key)
                metric.properties.values.add(type=3, int_value=number)
        if quality_of(row_code) == Quality.BAD:
            metric.is_null = True
        else:
            metric.double_value = row_value
    if marked:
        message.metrics.add(name="Spool/Stream", timestamp=1_700_000_000_000, long_value=STREAM)
        message.metrics.add(name="Spool/Sequence", timestamp=1_700_000_000_000, long_value=SEQUENCE)
    written = encode_data(1_700_000_000_000, 9, stream, sequence, alias, value, code, source_ms)
    assert pb.Payload.FromString(written) == message
    assert len(written) == len(message.SerializeToString())


@pytest.mark.spec("tck-id-payloads-ddata-timestamp")
@pytest.mark.spec("tck-id-payloads-ddata-seq")
@pytest.mark.spec("tck-id-payloads-name-birth-data-requirement")
@pytest.mark.spec("tck-id-payloads-name-requirement")
def test_a_data_message_has_every_part_the_specification_asks_for():
    message = pb.Payload.FromString(encode_data(5, 7, STREAM, SEQUENCE, *columns([(1, 2.5, GOOD, 4)])))
    assert message.HasField("timestamp")
    assert message.HasField("seq")
    for metric in message.metrics:
        assert metric.HasField("timestamp")
        assert not metric.HasField("datatype")
        assert metric.HasField("name") is not metric.HasField("alias")


@pytest.mark.parametrize(("value", "code"), [
    (math.nan, GOOD), (math.inf, GOOD), (-math.inf, quality_code(Quality.UNCERTAIN, Reason.RANGE)),
])
def test_what_is_not_finite_never_passes_for_a_measured_value(value, code):
    sent = decode_data(encode_data(5, 0, 0, 0, *columns([(1, value, code, 4)])))
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(alias=1, timestamp=4, double_value=value)
    for read in (sent, decode_data(message.SerializeToString())):
        assert read.code.tolist() == [quality_code(Quality.BAD, Reason.NOT_A_NUMBER)]
        assert math.isnan(read.value[0])


def test_what_is_not_finite_goes_out_as_null():
    written = encode_data(5, 0, 0, 0, *columns([(1, math.inf, GOOD, 4), (2, math.nan, GOOD, 4)]))
    for metric in pb.Payload.FromString(written).metrics:
        assert metric.is_null
        assert metric.WhichOneof("value") is None
        assert [value.int_value for value in metric.properties.values] == [0, Reason.NOT_A_NUMBER]


def test_a_null_is_bad_even_beside_a_value():
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(alias=1, is_null=True, double_value=7.5)
    read = decode_data(message.SerializeToString())
    assert read.code.tolist() == [quality_code(Quality.BAD, Reason.UNKNOWN)]
    assert math.isnan(read.value[0])
    assert read.kind.tolist() == [ValueKind.NULL]


@pytest.mark.fault("F29")
def test_stamps_from_the_far_future_are_bounded_and_stay_there():
    message = pb.Payload(timestamp=2**64 - 1, seq=0)
    message.metrics.add(alias=1, double_value=7.5)
    message.metrics.add(alias=1, timestamp=2**63, double_value=7.5)
    message.metrics.add(alias=1, timestamp=4, double_value=7.5)
    read = decode_data(message.SerializeToString())
    assert read.timestamp_ms == TIMESTAMP_MS_MAX
    assert read.source_ms.tolist() == [TIMESTAMP_MS_MAX, TIMESTAMP_MS_MAX, 4]


@pytest.mark.spec("tck-id-payloads-propertyset-quality-value-value")
@pytest.mark.parametrize("code", CODES)
def test_a_quality_goes_out_as_the_specification_allows_and_comes_back_whole(code):
    quality, detail = quality_on_wire(code)
    assert quality in (None, 0, 500)
    assert (quality is None) is (code == GOOD)
    assert quality_from_wire(quality, detail) == code


@pytest.mark.parametrize(("quality", "detail", "is_null", "code"), [
    (None, None, False, GOOD),
    (192, None, False, GOOD),
    (192, GOOD, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (0, None, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (500, None, False, quality_code(Quality.BAD, Reason.STALE)),
    (0, GOOD, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (0, 9_999, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (193, None, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (516, None, False, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (192, 64 | 5, False, quality_code(Quality.UNCERTAIN, Reason.RANGE)),
    (None, None, True, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (192, None, True, quality_code(Quality.BAD, Reason.UNKNOWN)),
    (0, 64 | 5, True, quality_code(Quality.BAD, Reason.RANGE)),
])
def test_doubt_is_never_resolved_towards_good(quality, detail, is_null, code):
    assert quality_from_wire(quality, detail, is_null) == code


@given(st.none() | st.integers(0, 2**32 - 1), st.none() | st.integers(0, 2**32 - 1), st.booleans())
def test_only_a_plain_192_or_silence_is_good(quality, detail, is_null):
    code = quality_from_wire(quality, detail, is_null)
    assert code in CODES
    if code == GOOD:
        assert quality in (None, 192)
        assert detail is None
        assert not is_null


def test_a_birth_reads_as_columns_with_names_and_types():
    metrics = [
        sample_metric("T101.PRESSURE", 1, 4, 2.5, GOOD),
        sample_metric("T101.LEVEL", 2, 4, math.nan, quality_code(Quality.BAD, Reason.COMM)),
        sample_metric("T101.VALVE", 3, 4, 1.0, GOOD, DataType.BOOLEAN),
        sample_metric("T101.COUNT", 4, 4, -7.0, quality_code(Quality.UNCERTAIN, Reason.RANGE), DataType.INT16),
    ]
    read = decode_data(encode_payload(5, 1, metrics))
    assert read.names == ["T101.PRESSURE", "T101.LEVEL", "T101.VALVE", "T101.COUNT"]
    assert read.alias.tolist() == [1, 2, 3, 4]
    assert read.datatype.tolist() == [DataType.DOUBLE, DataType.DOUBLE, DataType.BOOLEAN, DataType.INT16]
    assert read.code.tolist() == [GOOD, 1, GOOD, 64 | 5]
    np.testing.assert_array_equal(read.value, [2.5, math.nan, 1.0, -7.0])
    assert read.kind.tolist() == [ValueKind.DOUBLE, ValueKind.NULL, ValueKind.BOOLEAN, ValueKind.INT]


def test_what_is_no_number_of_a_tag_stands_apart():
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(name="bdSeq", datatype=DataType.INT64, long_value=3)
    message.metrics.add(name="Node Control/Rebirth", datatype=DataType.BOOLEAN, boolean_value=False)
    message.metrics.add(name="Spool/Block", bytes_value=b"block")
    message.metrics.add(name="Edge/Spool Fault", boolean_value=True)
    message.metrics.add(alias=7, string_value="text")
    message.metrics.add(name="Spool/Acknowledge", datatype=DataType.DATASET, is_null=True)
    message.metrics.add(name="since", datatype=DataType.DATETIME, long_value=5)
    message.metrics.add(name="Edge/Temperature", double_value=0.0)
    message.metrics.add(alias=0, int_value=4)
    read = decode_data(message.SerializeToString())
    assert [(metric.name or metric.alias) for metric in read.others] == [
        "bdSeq", "Node Control/Rebirth", "Spool/Block", "Edge/Spool Fault", 7, "Spool/Acknowledge", "since"]
    assert read.names == ["Edge/Temperature", None]
    assert read.alias.tolist() == [-1, 0]
    assert read.value.tolist() == [0.0, 4.0]
    assert read.source_ms.tolist() == [5, 5], "without a stamp of its own a sample has the message's"
    assert (read.stream, read.sequence) == (0, 0)


def test_several_samples_of_one_tag_keep_their_order_and_history_its_flag():
    message = pb.Payload(timestamp=9, seq=0)
    for source_ms, value in ((3, 1.0), (1, 2.0), (2, 3.0)):
        message.metrics.add(alias=1, timestamp=source_ms, double_value=value, is_historical=source_ms == 1)
    read = decode_data(message.SerializeToString())
    assert (read.source_ms.tolist(), read.value.tolist()) == ([3, 1, 2], [1.0, 2.0, 3.0])
    assert read.historical.tolist() == [False, True, False]


@given(st.lists(st.tuples(st.sampled_from([
    DataType.INT8, DataType.INT16, DataType.INT32, DataType.UINT8, DataType.UINT16, DataType.UINT32,
    DataType.FLOAT, DataType.DOUBLE, DataType.BOOLEAN]), st.integers(-(2**31), 2**32 - 1)), max_size=6))
def test_conform_gives_untyped_rows_the_value_their_birth_type_means(pairs):
    rows = []
    for number, (datatype, seed) in enumerate(pairs):
        limits = {DataType.INT8: (8, 128), DataType.INT16: (16, 2**15), DataType.INT32: (32, 2**31),
                  DataType.BOOLEAN: (1, 0)}
        bits, offset = limits.get(datatype, (8, 0))
        rows.append((number, datatype, float(seed % 2**bits - offset)))
    message = pb.Payload(timestamp=5, seq=0)
    for alias, datatype, value in rows:
        one = encode_data(5, 0, 0, 0, *columns([(alias, value, GOOD, 4)]), datatype=datatype)
        message.metrics.extend(pb.Payload.FromString(one).metrics)
    read = decode_data(message.SerializeToString())
    declared = np.array([datatype for _, datatype, _ in rows], np.uint8)
    assert conform(read, declared).value.tolist() == [value for _, _, value in rows]


@pytest.mark.fault("F55")
@pytest.mark.parametrize(("declared", "field", "value"), [
    pytest.param(DataType.INT32, "boolean_value", True, id="bool as int"),
    pytest.param(DataType.BOOLEAN, "int_value", 1, id="int as bool"),
    pytest.param(DataType.DOUBLE, "float_value", 1.0, id="float as double"),
    pytest.param(DataType.DOUBLE, "long_value", 1, id="long as double"),
    pytest.param(DataType.INT16, "int_value", 2**16, id="beyond its range"),
    pytest.param(DataType.STRING, "double_value", 1.0, id="number as text"),
    pytest.param(DataType.DATETIME, "double_value", 1.0, id="number as time"),
    pytest.param(35, "double_value", 1.0, id="no such type"),
])
def test_conform_refuses_confused_types(declared, field, value):
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(alias=1, **{field: value})
    read = decode_data(message.SerializeToString())
    with pytest.raises(MalformedPayloadError):
        conform(read, np.array([declared], np.uint8))


def test_conform_leaves_what_is_undeclared_and_what_is_null():
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(alias=1, int_value=2**32 - 1)
    message.metrics.add(alias=2, is_null=True)
    message.metrics.add(alias=3, int_value=2**32 - 1)
    read = conform(decode_data(message.SerializeToString()), np.array([0, DataType.INT32, DataType.INT32], np.uint8))
    np.testing.assert_array_equal(read.value, [2.0**32 - 1, math.nan, -1.0])
    with pytest.raises(ShapeMismatchError):
        conform(read, np.zeros(2, np.uint8))


def test_conform_never_gives_a_bad_row_a_value():
    message = pb.Payload(timestamp=5, seq=0)
    metric = message.metrics.add(alias=1, int_value=5)
    metric.properties.keys.append("Quality")
    metric.properties.values.add(type=3, int_value=0)
    read = conform(decode_data(message.SerializeToString()), np.array([DataType.INT32], np.uint8))
    assert math.isnan(read.value[0])


@pytest.mark.parametrize(("datatype", "value", "field"), [
    (DataType.INT16, -5.0, "int_value"), (DataType.UINT64, 2.0**40, "long_value"),
    (DataType.INT64, -1.0, "long_value"), (DataType.FLOAT, 0.5, "float_value"),
    (DataType.BOOLEAN, 1.0, "boolean_value"), (DataType.BOOLEAN, 0.0, "boolean_value"),
])
def test_encode_data_writes_the_field_of_the_declared_type(datatype, value, field):
    written = encode_data(5, 0, 0, 0, *columns([(1, value, GOOD, 4)]), datatype=datatype)
    assert pb.Payload.FromString(written).metrics[0].WhichOneof("value") == field
    assert conform(decode_data(written), np.array([datatype], np.uint8)).value.tolist() == [value]


@pytest.mark.parametrize("change", [
    pytest.param({"timestamp_ms": -1}, id="before 1970"), pytest.param({"seq": 256}, id="seq"),
    pytest.param({"stream": STREAM, "sequence": 0}, id="half a mark"),
    pytest.param({"stream": 0, "sequence": 1}, id="other half"),
    pytest.param({"stream": 2**63, "sequence": 1}, id="stream beyond 63 bits"),
    pytest.param({"alias": np.array([-1])}, id="negative alias"),
    pytest.param({"source_ms": np.array([-1])}, id="sample before 1970"),
    pytest.param({"source_ms": np.array([TIMESTAMP_MS_MAX + 1])}, id="sample after 9999"),
    pytest.param({"datatype": DataType.STRING}, id="text"), pytest.param({"datatype": DataType.DATETIME}, id="time"),
    pytest.param({"datatype": DataType.UINT8}, id="1.5 as an integer"),
    pytest.param({"datatype": DataType.FLOAT, "value": np.array([1e39])}, id="beyond a float"),
])
def test_encode_data_refuses_what_could_not_be_read_back(change):
    alias, value, code, source_ms = columns([(1, 1.5, GOOD, 4)])
    good = {"timestamp_ms": 5, "seq": 0, "stream": 0, "sequence": 0, "alias": alias, "value": value, "code": code,
            "source_ms": source_ms}
    encode_data(**good)
    with pytest.raises(MalformedPayloadError):
        encode_data(**good | change)


def test_encode_data_refuses_columns_of_different_length_and_frames_over_the_caps():
    alias, value, code, source_ms = columns([(n, 1.5, GOOD, 4) for n in range(40)])
    with pytest.raises(ShapeMismatchError):
        encode_data(5, 0, 0, 0, alias, value[:-1], code, source_ms)
    with pytest.raises(OversizePayloadError):
        encode_data(5, 0, 0, 0, alias, value, code, source_ms, limits=PayloadLimits(metrics_max=40))
    with pytest.raises(OversizePayloadError):
        encode_data(5, 0, 0, 0, alias, value, code, source_ms, limits=PayloadLimits(bytes_max=500))


def test_both_readers_agree_on_a_message():
    payload = encode_data(5, 7, STREAM, SEQUENCE, *columns([(1, 2.5, GOOD, 4), (2, 1.0, 64 | 5, 3), (3, 0.0, 1, 2)]))
    fast, slow = decode_data(payload), decode_payload(payload)
    assert [metric.name for metric in slow.metrics[-2:]] == ["Spool/Stream", "Spool/Sequence"]
    samples = slow.metrics[:-2]
    assert [metric.alias for metric in samples] == fast.alias.tolist()
    assert [metric.timestamp_ms for metric in samples] == fast.source_ms.tolist()
    codes = [quality_from_wire(metric.quality, metric.detail, metric.is_null) for metric in samples]
    assert codes == fast.code.tolist()
