"""Commands and the tables of streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import (
    ACKNOWLEDGE_ROWS_MAX,
    UNFINISHED_ROWS_MAX,
    DataSet,
    DataType,
    MalformedPayloadError,
    Metric,
    OversizePayloadError,
    StreamSpan,
    decode_command,
    decode_payload,
    encode_acknowledge,
    encode_payload,
    encode_rebirth,
    read_unfinished,
    unfinished_table,
)
from wire import sparkplug_pb2 as pb

STREAMS = st.integers(1, 2**63 - 1)
NUMBERS = st.integers(0, 2**63 - 1)
SPAN = StreamSpan(5, 3, 9, 4, 7)


@given(st.integers(0, 2**41), st.lists(st.tuples(STREAMS, NUMBERS), max_size=ACKNOWLEDGE_ROWS_MAX))
def test_acknowledged_positions_read_back(timestamp_ms, positions):
    command = decode_command(encode_acknowledge(timestamp_ms, positions))
    assert command.timestamp_ms == timestamp_ms
    assert command.acknowledged == tuple(positions)
    assert (command.rebirth, command.refused) == (False, ())


@pytest.mark.spec("tck-id-payloads-ncmd-seq")
@pytest.mark.spec("tck-id-payloads-ncmd-timestamp")
@pytest.mark.parametrize("payload", [encode_rebirth(5), encode_acknowledge(5, [(1, 1)])])
def test_a_command_has_a_timestamp_and_no_sequence_number(payload):
    message = pb.Payload.FromString(payload)
    assert message.HasField("timestamp")
    assert not message.HasField("seq")


@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-name")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-value")
def test_a_rebirth_request():
    metric = pb.Payload.FromString(encode_rebirth(5)).metrics[0]
    assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", 11, True)
    command = decode_command(encode_rebirth(5))
    assert (command.rebirth, command.acknowledged, command.refused) == (True, (), ())


def test_a_rebirth_of_false_asks_for_nothing():
    assert not decode_command(encode_payload(5, None, [Metric("Node Control/Rebirth", value=False)])).rebirth


@pytest.mark.fault("F61")
def test_every_other_wish_is_named_as_refused_and_the_rest_still_heard():
    payload = encode_payload(5, None, [
        Metric("T101.VALVE", datatype=DataType.BOOLEAN, value=True),
        Metric(alias=17, datatype=DataType.DOUBLE, value=4.0),
        Metric("Node Control/Reboot", datatype=DataType.BOOLEAN, value=True),
        Metric("node control/rebirth", datatype=DataType.BOOLEAN, value=True),
        Metric("Node Control/Rebirth", datatype=DataType.BOOLEAN, value=True),
    ])
    command = decode_command(payload)
    assert command.rebirth
    assert command.refused == ("T101.VALVE", "alias 17", "Node Control/Reboot", "node control/rebirth")


def table(columns=("stream", "upto"), types=(DataType.INT64, DataType.INT64), rows=((1, 1),)) -> DataSet:
    return DataSet(tuple(columns), tuple(types), tuple(rows))


@pytest.mark.fault("F55")
@pytest.mark.parametrize("metric", [
    Metric("Spool/Acknowledge", value=5),
    Metric("Spool/Acknowledge", is_null=True),
    Metric("Spool/Acknowledge", value=table(columns=("upto", "stream"))),
    Metric("Spool/Acknowledge", value=table(types=(DataType.INT64, DataType.UINT64))),
    Metric("Spool/Acknowledge", value=table(types=(DataType.BOOLEAN, DataType.BOOLEAN), rows=((True, True),))),
    Metric("Spool/Acknowledge", value=table(rows=((0, 1),))),
    Metric("Spool/Acknowledge", value=table(rows=((-1, 1),))),
    Metric("Spool/Acknowledge", value=table(rows=((1, -1),))),
    Metric("Spool/Acknowledge", value=table(rows=((1, None),))),
    Metric("Node Control/Rebirth", value=1),
    Metric("Node Control/Rebirth", value="true"),
    Metric("Node Control/Rebirth", is_null=True),
])
def test_a_command_of_ours_in_another_shape_is_refused_whole(metric):
    with pytest.raises(MalformedPayloadError):
        decode_command(encode_payload(5, None, [metric]))


def test_a_command_without_a_timestamp_is_refused():
    message = pb.Payload()
    message.metrics.add(name="Node Control/Rebirth", boolean_value=True)
    with pytest.raises(MalformedPayloadError):
        decode_command(message.SerializeToString())


def test_more_streams_than_a_command_holds_are_refused_at_both_ends():
    rows = [(n + 1, 1) for n in range(ACKNOWLEDGE_ROWS_MAX + 1)]
    with pytest.raises(OversizePayloadError):
        encode_acknowledge(5, rows)
    half = table(rows=rows[:ACKNOWLEDGE_ROWS_MAX])
    whole = table(rows=rows)
    for metrics in ([Metric("Spool/Acknowledge", value=whole)], [Metric("Spool/Acknowledge", value=half)] * 2):
        with pytest.raises(OversizePayloadError):
            decode_command(encode_payload(5, None, metrics))


@pytest.mark.parametrize("position", [(0, 1), (-1, 1), (2**63, 1), (1, -1), (1, 2**63)])
def test_what_is_no_position_is_not_sent(position):
    with pytest.raises(MalformedPayloadError):
        encode_acknowledge(5, [position])


@st.composite
def spans(draw):
    found = []
    for stream in draw(st.lists(STREAMS, unique=True, max_size=20)):
        last = draw(st.integers(0, 2**63 - 2))
        predecessor = draw(st.integers(0, 2**63 - 1).filter(stream.__ne__))
        found.append(StreamSpan(stream, draw(st.integers(1, last + 1)), last, predecessor, draw(NUMBERS)))
    return found


@given(spans())
def test_unfinished_streams_read_back(written):
    metric = Metric("Spool/Unfinished", datatype=DataType.DATASET, value=unfinished_table(written))
    read = decode_payload(encode_payload(5, 0, [metric])).metrics[0].value
    assert isinstance(read, DataSet)
    assert read.columns == ("stream", "first", "last", "predecessor", "predecessor_last")
    assert read_unfinished(read) == tuple(written)


@pytest.mark.parametrize("change", [
    {"stream": 0}, {"stream": -5}, {"first": 0}, {"first": 11}, {"last": -1}, {"predecessor": -1},
    {"predecessor_last": -1}, {"predecessor": 5},
])
def test_a_row_that_cannot_be_true_is_refused(change):
    row = {"stream": 5, "first": 3, "last": 9, "predecessor": 4, "predecessor_last": 7} | change
    with pytest.raises(MalformedPayloadError):
        read_unfinished(unfinished_table([StreamSpan(**row)]))


def test_a_stream_listed_twice_is_refused():
    with pytest.raises(MalformedPayloadError):
        read_unfinished(unfinished_table([SPAN, SPAN]))


@pytest.mark.parametrize("value", [None, 5, "x", b"", table()])
def test_what_is_no_table_of_streams_is_refused(value):
    with pytest.raises(MalformedPayloadError):
        read_unfinished(value)


def test_the_list_of_unfinished_streams_is_bounded():
    too_many = [StreamSpan(n + 1, 1, 1, 0, 0) for n in range(UNFINISHED_ROWS_MAX + 1)]
    with pytest.raises(OversizePayloadError):
        unfinished_table(too_many)
    rows = tuple((span.stream, 1, 1, 0, 0) for span in too_many)
    columns = ("stream", "first", "last", "predecessor", "predecessor_last")
    with pytest.raises(OversizePayloadError):
        read_unfinished(DataSet(columns, (DataType.INT64,) * 5, rows))
