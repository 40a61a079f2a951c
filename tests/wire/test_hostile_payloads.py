"""Bytes from a hostile, broken or confused sender: refused with a `WireError`, quickly, or read to sound columns."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.patience import cpu_s
from wire import (
    TIMESTAMP_MS_MAX,
    DataColumns,
    DataType,
    MalformedPayloadError,
    Metric,
    OversizePayloadError,
    PayloadLimits,
    Quality,
    WireError,
    decode_command,
    decode_data,
    decode_payload,
    encode_acknowledge,
    encode_data,
    encode_payload,
    quality_of,
)
from wire import sparkplug_pb2 as pb

DECODERS = [decode_payload, decode_data, decode_command]
REFUSED_S_MAX = 0.25  # of the processor's time, for the worst 256 KiB


def refused(decode, payload):
    with contextlib.suppress(WireError):
        decode(payload)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def message_of(*metrics: bytes, head: bytes = b"\x08\x05\x18\x00") -> bytes:
    """A payload of raw metrics, with timestamp 5 and seq 0."""
    return head + b"".join(field(2, metric) for metric in metrics)


def built(**parts) -> bytes:
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(**parts)
    return message.SerializeToString()


def with_property(key: str, **parts) -> bytes:
    message = pb.Payload(timestamp=5, seq=0)
    metric = message.metrics.add(alias=1, double_value=1.0)
    metric.properties.keys.append(key)
    metric.properties.values.add(**parts)
    return message.SerializeToString()


def with_dataset(columns=("a",), types=(4,), width=None, rows=((1,),)) -> bytes:
    message = pb.Payload(timestamp=5, seq=0)
    table = message.metrics.add(name="t", datatype=16).dataset_value
    table.num_of_columns = len(columns) if width is None else width
    table.columns.extend(columns)
    table.types.extend(types)
    for row in rows:
        elements = table.rows.add().elements
        for cell in row:
            elements.add(long_value=cell)
    return message.SerializeToString()


def nested_templates(depth: int) -> bytes:
    metric = b"\x0a\x01x\x50\x01"  # name "x", int_value 1
    for _ in range(depth - 1):
        metric = b"\x0a\x01x" + field(18, field(2, metric))
    return message_of(metric)


def nested_property_sets(depth: int) -> bytes:
    value = b"\x08\x03\x18\x01"  # type Int32, int_value 1
    for _ in range(depth - 2):
        value = field(9, field(1, b"k") + field(2, value))
    return message_of(b"\x10\x01" + field(9, field(1, b"k") + field(2, value)) + b"\x50\x01")


# Payloads that are well-formed protobuf yet break a rule of the format, for every decoder.
CONFUSED = {
    "bool as int": built(name="x", datatype=DataType.INT32, boolean_value=True),
    "int as bool": built(name="x", datatype=DataType.BOOLEAN, int_value=1),
    "text as double": built(name="x", datatype=DataType.DOUBLE, string_value="1.0"),
    "double as text": built(name="x", datatype=DataType.STRING, double_value=1.0),
    "zero double as text": built(name="x", datatype=DataType.STRING, double_value=0.0),
    "double as int": built(name="x", datatype=DataType.INT32, double_value=1.0),
    "float as double": built(name="x", datatype=DataType.DOUBLE, float_value=1.0),
    "long as UInt16": built(name="x", datatype=DataType.UINT16, long_value=1),
    "bytes as table": built(name="x", datatype=DataType.DATASET, bytes_value=b"1"),
    "table as double": built(name="x", datatype=DataType.DOUBLE, dataset_value=pb.DataSet(num_of_columns=0)),
    "template as double": built(name="x", datatype=DataType.DOUBLE, template_value=pb.Template()),
    "UInt8 of 256": built(name="x", datatype=DataType.UINT8, int_value=256),
    "UInt16 of 65536": built(name="x", datatype=DataType.UINT16, int_value=65_536),
    "Int8 of 200 in 16 bits": built(name="x", datatype=DataType.INT8, int_value=0xFF38),
    "UInt32 of 2**32": built(name="x", datatype=DataType.UINT32, long_value=2**32),
    "property set as metric type": built(name="x", datatype=DataType.PROPERTY_SET, int_value=1),
    "unknown type 35": built(name="x", datatype=35, int_value=1),
    "unknown type 2**32-1": built(name="x", datatype=2**32 - 1, int_value=1),
    "no value": built(name="x"),
    "no value, typed": built(name="x", datatype=DataType.DOUBLE),
    "neither name nor alias": built(double_value=1.0),
    "empty name": built(name="", double_value=1.0),
    "alias of 64 bits": built(alias=2**63, double_value=1.0),
    "alias as text": message_of(field(2, b"7") + b"\x50\x01"),
    "name not UTF-8": message_of(field(1, b"\xff\xfe") + b"\x50\x01"),
    "name a surrogate": message_of(field(1, b"\xed\xa0\x80") + b"\x50\x01"),
    "text not UTF-8": message_of(field(1, b"x") + field(15, b"\xff")),
    "column not UTF-8": message_of(field(1, b"t") + field(17, b"\x08\x01" + field(2, b"\xff") + b"\x18\x04")),
    "seq of 256": b"\x08\x05\x18\x80\x02" + field(2, b"\x10\x01\x50\x01"),
    "quality of no type Int32": with_property("Quality", type=4, long_value=192),
    "quality said to be a Boolean": with_property("Quality", type=11, int_value=192),
    "quality as bool": with_property("Quality", type=3, boolean_value=True),
    "quality as text": with_property("Quality", type=12, string_value="GOOD"),
    "quality null": with_property("Quality", type=3, is_null=True, int_value=192),
    "quality without value": with_property("Quality", type=3),
    "detail as bool": with_property("QualityDetail", type=11, boolean_value=True),
    "a key without value": message_of(b"\x10\x01\x50\x01" + field(9, field(1, b"Quality"))),
    "a value without key": message_of(b"\x10\x01\x50\x01" + field(9, field(2, b"\x08\x03\x18\x01"))),
    "quality twice": message_of(
        b"\x10\x01\x50\x01" + field(9, field(1, b"Quality") * 2 + field(2, b"\x08\x03\x18\x00") * 2)),
    "table with another width": with_dataset(width=2),
    "table of 2**64-1 columns": with_dataset(width=2**64 - 1),
    "table without types": with_dataset(types=()),
    "table of a type that is not basic": with_dataset(types=(17,)),
    "table of an unknown type": with_dataset(types=(99,)),
    "table with a short row": with_dataset(rows=((1,), ())),
    "table with a long row": with_dataset(rows=((1, 2),)),
    "table with a cell of another type": with_dataset(types=(11,)),
}


@pytest.mark.fault("F55")
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("payload", CONFUSED.values(), ids=CONFUSED.keys())
def test_type_confusion_is_refused(decode, payload):
    with pytest.raises(MalformedPayloadError):
        decode(payload)


@pytest.mark.fault("F55")
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("payload", [
    b"\x08", b"\x12\x05\x0a", b"\x12\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 11, b"\x00", b"\x07\x01", b"\x0b",
    b"{\"timestamp\": 5}", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", field(2, b"\x08"), b"\x12\x80",
])
def test_what_is_no_protobuf_is_refused(decode, payload):
    with pytest.raises(MalformedPayloadError):
        decode(payload)


@pytest.mark.fault("F55")
@pytest.mark.parametrize("payload", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x08\x05", id="no seq"),
    pytest.param(b"\x18\x00", id="no timestamp"),
    pytest.param(message_of(field(1, b"Spool/Stream") + b"\x58\x05"), id="stream without number"),
    pytest.param(message_of(field(1, b"Spool/Sequence") + b"\x58\x05"), id="number without stream"),
    *[pytest.param(message_of(field(1, b"Spool/Stream") + stream, field(1, b"Spool/Sequence") + sequence), id=name)
      for name, stream, sequence in [
          ("stream 0", b"\x58\x00", b"\x58\x05"), ("number 0", b"\x58\x05", b"\x58\x00"),
          ("stream as int", b"\x50\x05", b"\x58\x05"), ("number as bool", b"\x58\x05", b"\x70\x01"),
          ("number as double", b"\x58\x05", b"\x69" + bytes(7) + b"\x40"), ("number null", b"\x58\x05", b"\x38\x01"),
          ("stream of 64 bits", b"\x58" + varint(2**63), b"\x58\x05"),
          ("number of type UInt64", b"\x58\x05", b"\x20\x08\x58\x05"),
      ]],
    pytest.param(message_of(*[field(1, b"Spool/Stream") + b"\x58\x05"] * 2,
                            field(1, b"Spool/Sequence") + b"\x58\x05"), id="stream twice"),
])
def test_a_data_message_with_broken_marks_is_refused(payload):
    with pytest.raises(MalformedPayloadError):
        decode_data(payload)


@pytest.mark.fault("F56")
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(("payload", "quantity"), [
    pytest.param(b"\x08\x05" + field(5, bytes(256 * 1024)), "bytes", id="over 256 KiB"),
    pytest.param(bytes(10_000_000), "bytes", id="ten megabytes of nothing"),
    pytest.param(message_of(*[b""] * 120_000), "metrics", id="120 000 empty metrics"),
    pytest.param(message_of(*[b"\x10\x01\x50\x01"] * 20_001), "metrics", id="one metric too many"),
    pytest.param(with_dataset(("a",) * 8, (4,) * 8, rows=((0,) * 8,) * 3_000), "data set cells", id="wide table"),
    pytest.param(with_dataset((), (), rows=((),) * 100_000), "data set cells", id="rows without columns"),
    pytest.param(nested_templates(9), "levels of nesting", id="templates nested 9 deep"),
    pytest.param(nested_templates(40), "levels of nesting", id="templates nested 40 deep"),
    pytest.param(nested_property_sets(9), "levels of nesting", id="property sets nested 9 deep"),
])
def test_what_is_over_a_cap_is_dropped_quickly(decode, payload, quantity):
    with pytest.raises(OversizePayloadError) as caught:
        decode(payload)
    assert caught.value.quantity == quantity
    assert caught.value.found > caught.value.limit
    assert cpu_s(lambda: refused(decode, payload)) < REFUSED_S_MAX


@pytest.mark.fault("F56")
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("payload", [nested_templates(10_000), nested_property_sets(10_000)])
def test_nesting_past_the_parsers_own_limit_is_refused_without_recursion(decode, payload):
    with pytest.raises(MalformedPayloadError):
        decode(payload)
    assert cpu_s(lambda: refused(decode, payload)) < REFUSED_S_MAX


@pytest.mark.parametrize("payload", [nested_templates(8), nested_property_sets(8)])
def test_nesting_within_the_cap_is_read(payload):
    assert len(decode_payload(payload).metrics) == 1
    decode_data(payload)


@pytest.mark.fault("F56")
def test_the_largest_payload_that_is_taken_is_taken_whole():
    rows = 19_998
    payload = encode_data(5, 0, 1, 1, np.arange(rows) % 100, np.full(rows, 1.5), np.full(rows, 64, np.uint8),
                          np.full(rows, 4), limits=PayloadLimits(bytes_max=2**22))
    with pytest.raises(OversizePayloadError):
        decode_data(payload)
    assert len(decode_data(payload, PayloadLimits(bytes_max=2**22))) == rows


def test_an_error_message_is_safe_to_log():
    hostile = "x\n2026-01-01 ALARM CLEARED\x1b[2J\u2028"
    message = pb.Payload(timestamp=5, seq=0)
    message.metrics.add(name=hostile, datatype=DataType.INT32, boolean_value=True)
    with pytest.raises(MalformedPayloadError) as caught:
        decode_payload(message.SerializeToString())
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


# Fuzzing: whatever the bytes, a WireError or a sound result --------------------------------------------------

SAMPLE = encode_data(1_700_000_000_000, 7, 2**62 + 9, 12, np.arange(4) + 1, np.array([1.5, 0.0, 2.5, 3.5]),
                     np.array([192, 192, 1, 69], np.uint8), np.full(4, 1_700_000_000_000))
SEEDS = [
    SAMPLE,
    encode_acknowledge(1_700_000_000_000, [(2**62 + 9, 12), (5, 1)]),
    encode_payload(1_700_000_000_000, 0, [
        Metric("bdSeq", datatype=DataType.INT64, value=3), Metric("x", 1, 5, DataType.INT8, -5),
        Metric("text", datatype=DataType.STRING, value="丙烯"), Metric("block", value=bytes(20)),
    ]),
    *CONFUSED.values(),
    nested_templates(12), nested_property_sets(12),
]


def check_sound(payload: bytes) -> None:
    for decode in (decode_payload, decode_data, decode_command):
        try:
            read = decode(payload)
        except WireError:
            continue
        if not isinstance(read, DataColumns):
            assert decode is not decode_data
            continue
        assert (read.stream > 0) is (read.sequence > 0)
        bad = quality_of(read.code) == Quality.BAD
        assert (np.isnan(read.value) == bad).all()
        assert np.isfinite(read.value[~bad]).all()
        assert (read.alias >= -1).all()
        assert all(name or alias >= 0 for name, alias in zip(read.names, read.alias.tolist(), strict=True))
        assert ((read.source_ms >= 0) & (read.source_ms <= TIMESTAMP_MS_MAX)).all()
        lengths = {len(column) for column in (read.alias, read.names, read.value, read.code, read.source_ms,
                                              read.historical, read.kind, read.raw, read.datatype)}
        assert lengths == {len(read)}


@pytest.mark.fault("F55")
@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes(payload):
    check_sound(payload)


@pytest.mark.fault("F55")
@settings(max_examples=600, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_valid_payloads_with_bytes_changed_cut_and_inserted(seed, data):
    payload = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at:at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_sound(bytes(payload))


@pytest.mark.fault("F55")
def test_every_single_bit_flip_of_a_frame_is_refused_or_read_to_sound_columns():
    for bit in range(len(SAMPLE) * 8):
        payload = bytearray(SAMPLE)
        payload[bit // 8] ^= 1 << bit % 8
        check_sound(bytes(payload))


@pytest.mark.fault("F55")
def test_every_truncation_of_a_frame_is_refused():
    for length in range(len(SAMPLE)):
        with pytest.raises(MalformedPayloadError):
            decode_data(SAMPLE[:length])


VALUES = st.one_of(
    st.builds(dict, int_value=st.integers(0, 2**32 - 1)), st.builds(dict, long_value=st.integers(0, 2**64 - 1)),
    st.builds(dict, float_value=st.floats(width=32)), st.builds(dict, double_value=st.floats()),
    st.builds(dict, boolean_value=st.booleans()), st.builds(dict, string_value=st.sampled_from(["", "x"])),
    st.builds(dict, bytes_value=st.binary(max_size=3)), st.just({}),
    st.just({"template_value": pb.Template()}), st.just({"extension_value": pb.Extension()}),
    st.just({"dataset_value": pb.DataSet(num_of_columns=1, columns=["a"], types=[4])}),
)
METRICS = st.tuples(
    st.sampled_from([None, "", "x", "bdSeq", "Spool/Stream", "Spool/Sequence", "Spool/Acknowledge", "Spool/Block",
                     "Node Control/Rebirth", "Edge/Spool Fault"]),
    st.none() | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    st.none() | st.integers(0, 40), st.none() | st.booleans(), st.none() | st.integers(0, 2**64 - 1), VALUES,
    st.lists(st.tuples(st.sampled_from(["Quality", "QualityDetail", "other"]),
                       st.sampled_from([0, 1, 65, 128, 192, 193, 500, 2**32 - 1])), max_size=3),
)


@pytest.mark.fault("F55")
@settings(max_examples=600, deadline=None)
@given(st.lists(METRICS, max_size=4), st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_well_formed_nonsense(metrics, timestamp, seq):
    message = pb.Payload(timestamp=timestamp, seq=seq)
    for name, alias, datatype, is_null, stamp, value, properties in metrics:
        metric = message.metrics.add(name=name, alias=alias, datatype=datatype, is_null=is_null, timestamp=stamp,
                                     **value)
        for key, number in properties:
            metric.properties.keys.append(key)
            metric.properties.values.add(type=3, int_value=number)
    check_sound(message.SerializeToString())
