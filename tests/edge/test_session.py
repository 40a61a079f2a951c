"""The Sparkplug session of an edge node, as dialogues: what happens, and what it says to that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.messages import Identity
from edge.session import (
    ACK_STALL_S_MAX,
    ACK_STALL_S_MIN,
    REBIRTH_SPACING_S,
    Command,
    EdgeSession,
    Forget,
    HostTime,
    Now,
    Phase,
    Publish,
    Refused,
    Seal,
    Store,
    Subscribe,
)
from tests.edge.fakes import GROUP, HOST, NODE, START_MS, scan_of, small_numbering, small_table
from wire import (
    BDSEQ,
    CLOCK_SYNCED,
    COMMANDS_REFUSED,
    REBIRTH,
    SPOOL_ACKNOWLEDGE,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    TRANSPORT_BLOCKED,
    DataSet,
    DataType,
    Message,
    Metric,
    Payload,
    StreamSpan,
    decode_block,
    decode_payload,
    encode_acknowledge,
    encode_payload,
    encode_rebirth,
    encode_state,
    read_unfinished,
    state_topic,
)

TABLE = small_table()
NCMD = f"spBv1.0/{GROUP}/NCMD/{NODE}"
DCMD = f"spBv1.0/{GROUP}/DCMD/{NODE}/D1"
DEVICE_COMMANDS = ((f"spBv1.0/{GROUP}/DCMD/{NODE}/+", 1),)
STATE = state_topic(HOST)


class Dialogue:
    """A session and a clock; `said` is what it answered last, as short words."""

    def __init__(self, bdseq: int = -1, unfinished: Sequence[StreamSpan] = (), **identity: bool) -> None:
        self.numbering = small_numbering(TABLE)
        self.session = EdgeSession(Identity(GROUP, NODE, HOST, "c0ffee", "1.2.3", **identity), TABLE, self.numbering,
                                   bdseq, lambda: unfinished)
        self.s = 100.0
        self.commands: list[Command] = []

    @property
    def now(self) -> Now:
        return Now(self.s, START_MS + round(self.s * 1000))

    @property
    def said(self) -> list[str]:
        return [_word(command) for command in self.commands]

    @property
    def payloads(self) -> list[Payload]:
        return [decode_payload(each.payload) for each in self.commands if isinstance(each, Publish)]

    def after(self, seconds: float) -> Dialogue:
        self.s += seconds
        return self

    def connect(self) -> Dialogue:
        self.will = self.session.connecting(self.now)
        self.commands = [*self.session.connected(self.now), *self.session.subscribed(self.now)]
        return self

    def state(self, online: bool, timestamp_ms: int, topic: str = STATE) -> Dialogue:
        return self.hear(topic, encode_state(online, timestamp_ms))

    def hear(self, topic: str, payload: bytes) -> Dialogue:
        self.commands = self.session.message(Message(topic, payload, False), self.now)
        return self

    def ack(self, *positions: tuple[int, int]) -> Dialogue:
        return self.hear(NCMD, encode_acknowledge(self.now.ms, positions))

    def scan(self, device: int, *bits: int) -> Dialogue:
        self.commands = self.session.scan(scan_of(TABLE, device, bits, self.now.ms), self.now)
        return self

    def tick(self) -> Dialogue:
        self.commands = self.session.tick(self.now)
        return self

    def live(self) -> Dialogue:
        return self.connect().state(True, 1000)


def _word(command: Command) -> str:
    if isinstance(command, Publish):
        parts = command.topic.split("/")
        return " ".join([parts[2], *parts[4:]])
    if isinstance(command, Store):
        return f"store {command.frame.stream}/{command.frame.sequence}"
    if isinstance(command, Seal):
        return f"seal {command.stream}"
    if isinstance(command, Forget):
        return f"forget {command.stream}/{command.upto}"
    return type(command).__name__.lower()


def metrics(payload: Payload) -> dict[str, Metric]:
    return {metric.name: metric for metric in payload.metrics if metric.name is not None}


BIRTHS = ["NBIRTH", "DBIRTH D1", "store {}/1", "DBIRTH D2", "store {}/2"]


def births(stream: int) -> list[str]:
    return [word.format(stream) for word in BIRTHS]


# ---- connecting ---------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-topic")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-payload")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-qos")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-will-retained")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message-qos")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message-retain")
@pytest.mark.spec("tck-id-payloads-ndeath-bdseq")
@pytest.mark.spec("tck-id-payloads-ndeath-seq")
@pytest.mark.spec("tck-id-topics-ndeath-topic")
@pytest.mark.spec("tck-id-topics-ndeath-payload")
@pytest.mark.spec("tck-id-topics-ndeath-seq")
def test_the_will_is_an_ndeath_with_the_bdseq_alone() -> None:
    will = Dialogue(bdseq=6).connect().will
    assert (will.topic, will.qos, will.retain) == (f"spBv1.0/{GROUP}/NDEATH/{NODE}", 1, False)
    payload = decode_payload(will.payload)
    assert payload.seq is None
    (metric,) = payload.metrics
    assert (metric.name, metric.value, metric.datatype) == (BDSEQ, 7, DataType.INT64)


@pytest.mark.spec("tck-id-topics-nbirth-bdseq-included")
@pytest.mark.spec("tck-id-topics-nbirth-bdseq-increment")
@pytest.mark.spec("tck-id-topics-nbirth-bdseq-matching")
@pytest.mark.spec("tck-id-payloads-nbirth-bdseq")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-payload-bd")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-payload-bd")
def test_bdseq_is_one_more_with_every_connect_and_the_same_in_will_and_birth() -> None:
    dialogue = Dialogue(bdseq=250)
    seen = []
    for _ in range(10):
        dialogue.live()
        in_will = metrics(decode_payload(dialogue.will.payload))[BDSEQ].value
        assert metrics(dialogue.payloads[0])[BDSEQ].value == in_will == dialogue.session.bdseq
        seen.append(in_will)
        dialogue.session.link_lost(dialogue.now)
    assert seen == [251, 252, 253, 254, 255, 0, 1, 2, 3, 4]


@pytest.mark.spec("tck-id-message-flow-edge-node-ncmd-subscribe")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-phid-wait")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-birth-sequence-wait")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-phid-wait-online")
def test_no_birth_before_the_primary_host_is_online() -> None:
    dialogue = Dialogue().connect()
    assert dialogue.commands == [Subscribe(((NCMD, 1), (STATE, 1)), DEVICE_COMMANDS)]
    assert dialogue.tick().said == []
    assert dialogue.scan(0, 1, 2).said == ["store 101/1", "store 101/2"], "kept, not published"
    assert dialogue.state(False, 900).said == []
    assert dialogue.state(True, 1000).said == ["seal 101", *births(102)]
    assert dialogue.session.phase is Phase.LIVE


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-phid-wait-id")
def test_another_hosts_state_means_nothing() -> None:
    dialogue = Dialogue().connect()
    assert dialogue.state(True, 1000, topic=state_topic("OTHER")).said == []
    assert dialogue.state(True, 1000).said == births(101)


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp")
def test_an_online_state_older_than_one_seen_is_a_ghost() -> None:
    dialogue = Dialogue().connect()
    dialogue.state(False, 2000)
    assert dialogue.state(True, 1999).said == []
    assert dialogue.state(True, 2000).said == births(101)


def test_a_state_that_cannot_be_read_changes_nothing() -> None:
    dialogue = Dialogue().connect()
    for payload in (b"", b"ONLINE", b'{"online":"true","timestamp":1}', b'{"online":true}', b"[" * 2000):
        assert dialogue.hear(STATE, payload).said == ["refused"]
    assert dialogue.session.phase is Phase.WAITING


def test_a_node_that_needs_no_receipt_is_live_without_a_host_and_plain() -> None:
    dialogue = Dialogue(receipt=False).connect()
    assert dialogue.commands[0] == Subscribe(((NCMD, 1),), DEVICE_COMMANDS)
    assert dialogue.said[1:] == ["NBIRTH", "DBIRTH D1", "DBIRTH D2"]
    assert not any(name.startswith("Spool/") for payload in dialogue.payloads for name in metrics(payload))
    assert dialogue.scan(1, 5).said == ["DDATA D2"]
    assert dialogue.after(1000).tick().said == []


# ---- births -------------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-payloads-nbirth-seq")
@pytest.mark.spec("tck-id-payloads-nbirth-rebirth-req")
@pytest.mark.spec("tck-id-topics-nbirth-rebirth-metric")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-name")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-name-aliases")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-datatype")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-value")
@pytest.mark.spec("tck-id-topics-nbirth-seq-num")
@pytest.mark.spec("tck-id-topics-nbirth-timestamp")
@pytest.mark.spec("tck-id-payloads-nbirth-timestamp")
@pytest.mark.spec("tck-id-topics-nbirth-topic")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-topic")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-qos")
@pytest.mark.spec("tck-id-payloads-nbirth-qos")
def test_an_nbirth_says_who_the_node_is_and_what_it_holds() -> None:
    held = (StreamSpan(77, 3, 9, 76, 12), StreamSpan(78, 1, 4, 77, 9))
    dialogue = Dialogue(unfinished=held).live()
    birth = dialogue.commands[0]
    assert isinstance(birth, Publish)
    assert (birth.topic, birth.qos) == (f"spBv1.0/{GROUP}/NBIRTH/{NODE}", 0)
    payload = dialogue.payloads[0]
    assert payload.seq == 0
    assert payload.timestamp_ms == dialogue.now.ms
    said = metrics(payload)
    assert (said[REBIRTH].value, said[REBIRTH].datatype, said[REBIRTH].alias) == (False, DataType.BOOLEAN, None)
    assert [said[name].value for name in (SPOOL_STREAM, SPOOL_SEQUENCE, SPOOL_PREDECESSOR, SPOOL_PREDECESSOR_LAST)] == [
        101, 0, 0, 0]
    assert read_unfinished(said[SPOOL_UNFINISHED].value) == held
    empty = DataSet(("stream", "upto"), (DataType.INT64, DataType.INT64), ())
    assert (said[SPOOL_ACKNOWLEDGE].value, said[SPOOL_ACKNOWLEDGE].datatype) == (empty, DataType.DATASET)
    assert (said[SPOOL_BLOCK].is_null, said[SPOOL_BLOCK].datatype) == (True, DataType.BYTES)
    assert (said[SPOOL_FAULT].value, said[CLOCK_SYNCED].value) == (False, True)
    assert all(metric.alias is None for metric in payload.metrics)


def test_a_birth_lists_at_most_256_unfinished_streams_the_oldest() -> None:
    held = [StreamSpan(1000 + at, 1, 2, 999 + at, 2) for at in range(300)]
    listed = read_unfinished(metrics(Dialogue(unfinished=held).live().payloads[0])[SPOOL_UNFINISHED].value)
    assert listed == tuple(held[:256])


@pytest.mark.spec("tck-id-message-flow-device-birth-publish-nbirth-wait")
@pytest.mark.spec("tck-id-payloads-dbirth-order")
@pytest.mark.spec("tck-id-payloads-ddata-order")
@pytest.mark.spec("tck-id-payloads-dbirth-seq")
@pytest.mark.spec("tck-id-payloads-dbirth-seq-inc")
@pytest.mark.spec("tck-id-topics-dbirth-seq")
@pytest.mark.spec("tck-id-topics-dbirth-metric-reqs")
@pytest.mark.spec("tck-id-topics-dbirth-metrics")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-dbirth-values")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-topic")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-match-edge-node-topic")
@pytest.mark.spec("tck-id-topics-dbirth-topic")
@pytest.mark.spec("tck-id-payloads-alias-uniqueness")
@pytest.mark.spec("tck-id-payloads-name-birth-data-requirement")
def test_device_births_follow_with_every_tag_by_name_and_alias_and_are_numbered_frames() -> None:
    dialogue = Dialogue().connect()
    dialogue.scan(0, 10, 20)
    dialogue.state(True, 1000)
    assert dialogue.said == ["seal 101", *births(102)]
    nbirth, first, second = dialogue.payloads
    assert [payload.seq for payload in (nbirth, first, second)] == [0, 1, 2]
    assert [(metric.name, metric.alias, metric.value, metric.datatype) for metric in first.metrics] == [
        ("T1.P1", 1, 1.0, DataType.DOUBLE), ("T1.P2", 2, 2.0, DataType.DOUBLE),
        (SPOOL_STREAM, None, 102, DataType.INT64), (SPOOL_SEQUENCE, None, 1, DataType.INT64)]
    (unread, _, number) = second.metrics
    assert number.value == 2
    assert (unread.name, unread.alias, unread.is_null) == ("T2.P1", 3, True)


def test_the_first_stream_after_a_loss_names_the_one_before_it() -> None:
    dialogue = Dialogue().live()
    dialogue.scan(0, 1)
    dialogue.commands = dialogue.session.link_lost(dialogue.now)
    assert dialogue.said == ["seal 101"]
    assert dialogue.scan(1, 4).said == ["store 102/1", "store 102/2"], "a stream begins with every tag's value"
    assert dialogue.scan(1, 5).said == ["store 102/3"]
    dialogue.connect().state(True, 2000)
    assert dialogue.said == ["seal 102", *births(103)]
    said = metrics(dialogue.payloads[0])
    assert (said[SPOOL_PREDECESSOR].value, said[SPOOL_PREDECESSOR_LAST].value) == (102, 3)
    stored = [command.frame for command in dialogue.commands if isinstance(command, Store)]
    assert [(frame.predecessor, frame.predecessor_last) for frame in stored] == [(102, 3)] * 2
    assert stored[0].bits.tolist() == [1, 0]
    assert stored[1].bits.tolist() == [5]


def test_a_stream_that_took_nothing_leaves_no_trace() -> None:
    dialogue = Dialogue().live()
    dialogue.session.link_lost(dialogue.now)
    assert dialogue.connect().state(True, 2000).said == births(102)
    assert metrics(dialogue.payloads[0])[SPOOL_PREDECESSOR].value == 101


# ---- live ---------------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-payloads-sequence-num-incrementing")
@pytest.mark.spec("tck-id-payloads-sequence-num-always-included")
@pytest.mark.spec("tck-id-payloads-sequence-num-req-nbirth")
@pytest.mark.spec("tck-id-payloads-ddata-seq")
@pytest.mark.spec("tck-id-payloads-ddata-seq-inc")
@pytest.mark.spec("tck-id-payloads-ndata-seq-inc")
@pytest.mark.spec("tck-id-topics-ddata-seq-num")
@pytest.mark.spec("tck-id-topics-ndata-seq-num")
def test_seq_counts_every_message_of_the_node_and_wraps_at_255() -> None:
    dialogue = Dialogue().live()
    seen = [payload.seq for payload in dialogue.payloads]
    for count in range(600):
        if count % 3 == 0:
            block = dialogue.session.block(b"block", dialogue.now)
            seen.append(decode_payload(block.payload).seq)
        else:
            seen.append(dialogue.scan(count % 2, count).payloads[0].seq)
    assert seen == [count % 256 for count in range(603)]


@pytest.mark.spec("tck-id-topics-ddata-topic")
@pytest.mark.spec("tck-id-payloads-ddata-qos")
@pytest.mark.spec("tck-id-payloads-ddata-timestamp")
def test_a_live_frame_is_published_first_and_stored_under_its_mark() -> None:
    dialogue = Dialogue().live()
    assert dialogue.scan(0, 33, 44).said == ["DDATA D1", "store 101/3"]
    message = dialogue.commands[0]
    assert isinstance(message, Publish)
    assert message.qos == 0
    (payload,) = dialogue.payloads
    assert payload.timestamp_ms == dialogue.now.ms
    assert [(metric.name, metric.alias, metric.value) for metric in payload.metrics] == [
        (None, 1, pytest.approx(3.3)), (None, 2, pytest.approx(4.4)),
        (SPOOL_STREAM, None, 101), (SPOOL_SEQUENCE, None, 3)]


def test_on_a_metered_link_live_frames_go_as_blocks() -> None:
    dialogue = Dialogue(blocks=True).live()
    assert dialogue.scan(0, 33, 44).said == ["NDATA", "store 101/3"]
    payload = metrics(dialogue.payloads[0])[SPOOL_BLOCK].value
    assert isinstance(payload, bytes)
    block = decode_block(payload)
    assert (block.stream, block.first, block.last) == (101, 3, 3)
    assert {column.tag: column.bits.tolist() for column in block.columns} == {"T1.P1": [33], "T1.P2": [44]}


@pytest.mark.spec("tck-id-operational-behavior-data-publish-dbirth-order")
@pytest.mark.parametrize("encoded", ["births", "data"])
def test_values_leave_oldest_first_whatever_the_order_of_the_points(encoded: str) -> None:
    dialogue = Dialogue().live()
    newer = scan_of(TABLE, 0, [10, 20], dialogue.now.ms)
    newer.source_ms[1] -= 70
    dialogue.commands = dialogue.session.scan(newer, dialogue.now)
    if encoded == "births":
        dialogue.after(REBIRTH_SPACING_S).hear(NCMD, encode_rebirth(dialogue.now.ms))
    (values,) = [payload for payload in dialogue.payloads if any(metric.alias == 1 for metric in payload.metrics)]
    assert [(metric.alias, metric.value) for metric in values.metrics if metric.alias] == [(2, 2.0), (1, 1.0)]
    assert next(command.frame.point.tolist() for command in dialogue.commands if isinstance(command, Store)) == [0, 1]


@pytest.mark.spec("tck-id-topics-nbirth-metric-reqs")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-nbirth")
def test_what_the_node_says_of_itself_was_declared_by_its_birth() -> None:
    dialogue = Dialogue().live()
    declared = set(metrics(dialogue.payloads[0]))
    dialogue.commands = [
        dialogue.session.block(b"block", dialogue.now),
        *dialogue.session.clock_state(False, 5, dialogue.now),
        *dialogue.session.spool_state(True, dialogue.now),
    ]
    assert dialogue.said == ["NDATA"] * 3
    assert set().union(*map(metrics, dialogue.payloads)) <= declared


def test_an_empty_scan_uses_no_number() -> None:
    dialogue = Dialogue().live()
    assert dialogue.scan(0).said == []
    assert dialogue.scan(0, 1).said == ["DDATA D1", "store 101/3"]


# ---- the host goes ------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-phid-offline")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-offline")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-intentional-disconnect-packet")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message-publisher")
def test_when_the_host_goes_the_node_says_so_leaves_and_keeps_on_taking() -> None:
    dialogue = Dialogue().live()
    dialogue.state(False, 1000)
    assert dialogue.said == ["NDEATH", "seal 101", "disconnect"]
    death = dialogue.commands[0]
    assert isinstance(death, Publish)
    assert death.qos == 1
    assert metrics(dialogue.payloads[0])[BDSEQ].value == 0
    assert dialogue.payloads[0].seq is None
    assert dialogue.scan(0, 7).said == ["store 102/1", "store 102/2"]
    assert dialogue.session.link_lost(dialogue.now) == []
    assert dialogue.connect().said == ["subscribe"]
    assert dialogue.state(True, 3000).said == ["seal 102", *births(103)]


@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-offline-timestamp")
def test_a_replayed_older_offline_state_ends_nothing() -> None:
    dialogue = Dialogue().live()
    assert dialogue.state(False, 999).said == []
    assert dialogue.session.phase is Phase.LIVE


def test_stopping_says_goodbye_once_and_is_silent_without_a_link() -> None:
    dialogue = Dialogue()
    assert dialogue.session.stop(dialogue.now) == []
    dialogue.live()
    dialogue.commands = dialogue.session.stop(dialogue.now)
    assert dialogue.said == ["NDEATH", "seal 101", "disconnect"]
    assert dialogue.session.stop(dialogue.now) == []


# ---- commands -----------------------------------------------------------------------------------------------


@pytest.mark.fault("F26")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-action-2")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-action-3")
@pytest.mark.spec("tck-id-payloads-nbirth-bdseq-repeat")
def test_a_rebirth_sends_all_births_under_the_same_bdseq_in_the_same_stream() -> None:
    dialogue = Dialogue().live()
    dialogue.scan(0, 5)
    dialogue.after(REBIRTH_SPACING_S).hear(NCMD, encode_rebirth(dialogue.now.ms))
    assert dialogue.said == ["NBIRTH", "DBIRTH D1", "store 101/4", "DBIRTH D2", "store 101/5"]
    assert [payload.seq for payload in dialogue.payloads] == [0, 1, 2]
    said = metrics(dialogue.payloads[0])
    assert (said[BDSEQ].value, said[SPOOL_STREAM].value, said[SPOOL_SEQUENCE].value) == (0, 101, 3)
    assert dialogue.payloads[1].metrics[0].value == 0.5


@pytest.mark.fault("F26")
def test_a_storm_of_rebirth_requests_costs_one_birth_every_two_seconds() -> None:
    dialogue = Dialogue().live()
    births_before = dialogue.session.births
    for _ in range(80):  # ten seconds
        dialogue.after(0.125).hear(NCMD, encode_rebirth(dialogue.now.ms))
        dialogue.tick().ack((101, dialogue.numbering.last))
    assert dialogue.session.births - births_before == 5
    assert dialogue.after(0.5).hear(NCMD, encode_rebirth(dialogue.now.ms)).said == []
    assert dialogue.after(REBIRTH_SPACING_S).tick().said[:1] == ["NBIRTH"], "the last request is still owed one"
    dialogue.ack((101, dialogue.numbering.last))
    assert dialogue.after(60).tick().said == []


@pytest.mark.fault("F61")
def test_a_command_to_write_is_refused_and_named_and_the_rest_of_it_obeyed() -> None:
    dialogue = Dialogue().live()
    write = Metric("T1.P1", datatype=DataType.DOUBLE, value=9.9, timestamp_ms=START_MS)
    payload = encode_payload(START_MS, None, [write])
    assert dialogue.hear(NCMD, payload).commands[0] == Refused(("T1.P1",))
    assert dialogue.said == ["refused", "NDATA"], "and the gateway is told"
    assert dialogue.hear(NCMD, b"\xff\xff").said == ["refused"]


@pytest.mark.fault("F61")
def test_a_command_to_a_device_is_refused_whatever_it_asks_for() -> None:
    dialogue = Dialogue().live()
    write = Metric("T1.P1", datatype=DataType.DOUBLE, value=9.9, timestamp_ms=START_MS)
    asked = dialogue.hear(DCMD, encode_payload(START_MS, None, [write, Metric(alias=3, datatype=DataType.INT32, value=1)]))
    assert asked.commands[0] == Refused(("DCMD D1: T1.P1", "DCMD D1: alias 3"))
    assert dialogue.hear(DCMD, encode_rebirth(START_MS)).said == ["refused"], "nor does it make births"
    assert dialogue.hear(DCMD, encode_acknowledge(START_MS, [(101, 2)])).said == ["refused"], "nor let the spool forget"
    assert dialogue.hear(DCMD, b"\xff\xff").said == ["refused"]
    assert dialogue.hear(f"spBv1.0/{GROUP}/DCMD/E2/D1", encode_rebirth(START_MS)).said == [], "another node's"
    assert dialogue.session.commands_refused == 4


@pytest.mark.fault("F61")
def test_the_gateway_is_told_of_refused_commands_at_once_then_once_a_minute_and_in_births() -> None:
    dialogue = Dialogue().live()
    told: list[tuple[float, object]] = []
    began = dialogue.s
    for _ in range(1_200):  # 150 s, eight commands a second
        dialogue.after(0.125).hear(DCMD, encode_rebirth(dialogue.now.ms))
        counts = [metrics(payload)[COMMANDS_REFUSED].value for payload in dialogue.payloads]
        told += [(dialogue.s - began, count) for count in counts]
        dialogue.ack((101, 2))
    assert told == [(0.125, 1), (60.125, 481), (120.125, 961)]
    assert dialogue.after(60).tick().said == ["NDATA"], "the rest when its time has come"
    assert metrics(dialogue.payloads[0])[COMMANDS_REFUSED].value == 1200
    dialogue.hear(NCMD, encode_rebirth(dialogue.now.ms))
    assert metrics(dialogue.payloads[0])[COMMANDS_REFUSED].value == 1200


@pytest.mark.fault("F61")
def test_commands_refused_before_the_session_are_told_in_it() -> None:
    dialogue = Dialogue().connect()
    assert dialogue.hear(DCMD, encode_rebirth(START_MS)).said == ["refused"]
    assert metrics(dialogue.state(True, 1000).payloads[0])[COMMANDS_REFUSED].value == 1


COMMANDED = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.builds(
            lambda name, value: Metric(name, timestamp_ms=START_MS, datatype=DataType.BOOLEAN, value=value),
            st.sampled_from(["T1.P1", "Node Control/Reboot", "Node Control/Next Server", REBIRTH, "x"]), st.booleans(),
        ),
        max_size=4,
    ).map(lambda asked: encode_payload(START_MS, None, asked)),
)


@pytest.mark.fault("F61")
@given(st.lists(st.tuples(st.sampled_from([NCMD, DCMD]), COMMANDED), max_size=8))
def test_no_command_makes_a_node_do_anything_but_births(asked: list[tuple[str, bytes]]) -> None:
    dialogue = Dialogue().live()
    for topic, payload in asked:
        dialogue.after(3).hear(topic, payload)
        stored = {word for word in dialogue.said if word.startswith("store 101/")}
        assert set(dialogue.said) - stored <= {"refused", "NDATA", "NBIRTH", "DBIRTH D1", "DBIRTH D2"}
        assert topic == NCMD or "NBIRTH" not in dialogue.said


def test_acknowledgements_let_the_spool_forget_and_bring_the_gateways_time() -> None:
    dialogue = Dialogue().live()
    dialogue.ack((55, 9), (101, 2))
    assert dialogue.commands == [HostTime(dialogue.now.ms), Forget(55, 9), Forget(101, 2)]


# ---- stalling acknowledgements --------------------------------------------------------------------------------


@pytest.mark.fault("F31")
def test_without_progress_the_stream_is_sealed_after_5_s_then_10_then_20_up_to_300() -> None:
    dialogue = Dialogue().live()
    began, sealed = dialogue.s, []
    while dialogue.s - began < 1500:
        dialogue.after(1).tick()
        if "NBIRTH" in dialogue.said:
            sealed.append(round(dialogue.s - began))
    assert sealed == [5, 15, 35, 75, 155, 315, 615, 915, 1215]
    assert (ACK_STALL_S_MIN, ACK_STALL_S_MAX) == (5, 300)


@pytest.mark.fault("F31")
def test_frames_that_nobody_acknowledges_are_a_blocked_transport_until_an_acknowledgement_comes() -> None:
    dialogue = Dialogue().live()
    began_ms = dialogue.now.ms
    assert dialogue.session.blocked_since_ms is None
    dialogue.after(5).tick()
    assert dialogue.session.blocked_since_ms == began_ms
    assert metrics(dialogue.payloads[0])[TRANSPORT_BLOCKED].value is True, "the births of the next stream say so"
    dialogue.after(10).tick()
    assert dialogue.session.blocked_since_ms == began_ms, "since the first frame that nobody acknowledged"
    dialogue.session.link_lost(dialogue.now)
    dialogue.after(5).live()
    assert dialogue.session.blocked_since_ms == began_ms, "a new link proves nothing"
    assert metrics(dialogue.payloads[0])[TRANSPORT_BLOCKED].value is True
    dialogue.ack((dialogue.session.stream, 1))
    assert dialogue.session.blocked_since_ms is None
    assert dialogue.said[-1] == "NDATA"
    assert metrics(dialogue.payloads[-1])[TRANSPORT_BLOCKED].value is False
    assert dialogue.ack((dialogue.session.stream, 2)).said == ["hosttime", f"forget {dialogue.session.stream}/2"], "said once"


def test_a_stalled_stream_is_followed_by_one_that_begins_with_births() -> None:
    dialogue = Dialogue().live()
    assert dialogue.after(5).tick().said == ["seal 101", *births(102)]


def test_progress_restarts_the_wait_and_takes_the_doubling_back() -> None:
    dialogue = Dialogue().live()
    assert "seal 101" in dialogue.after(5).tick().said
    dialogue.after(9).ack((102, 1))  # one of two frames: progress, not the end
    assert dialogue.after(4.9).tick().said == []
    assert "seal 102" in dialogue.after(0.2).tick().said
    dialogue.ack((103, 2))
    assert dialogue.after(10_000).tick().said == [], "nothing is unacknowledged"
    dialogue.scan(0, 1)
    assert dialogue.after(4.9).tick().said == []
    assert "seal 103" in dialogue.after(0.2).tick().said


@pytest.mark.parametrize("position", [(99, 50), (101, 0)], ids=["an older stream", "nothing new"])
def test_an_acknowledgement_without_progress_of_the_live_stream_does_not_count(position: tuple[int, int]) -> None:
    dialogue = Dialogue().live()
    dialogue.after(4).ack(position)
    assert "seal 101" in dialogue.after(1).tick().said


def test_no_stall_is_counted_outside_a_live_session() -> None:
    dialogue = Dialogue().connect()
    dialogue.scan(0, 1)
    assert dialogue.after(1000).tick().said == []


# ---- spool and clock ------------------------------------------------------------------------------------------


@pytest.mark.fault("F72")
def test_while_the_spool_fails_frames_go_unmarked_and_afterwards_a_new_stream_begins() -> None:
    dialogue = Dialogue().live()
    dialogue.commands = dialogue.session.spool_state(True, dialogue.now)
    assert dialogue.said == ["NDATA"]
    assert metrics(dialogue.payloads[0])[SPOOL_FAULT].value is True
    assert dialogue.scan(0, 8).said == ["DDATA D1"], "published, with nothing to store"
    assert [metric.alias for metric in dialogue.payloads[0].metrics] == [1], "no marks"
    assert dialogue.after(400).tick().said == []
    dialogue.hear(NCMD, encode_rebirth(dialogue.now.ms))
    assert dialogue.said == ["NBIRTH", "DBIRTH D1", "DBIRTH D2"]
    assert metrics(dialogue.payloads[0])[SPOOL_FAULT].value is True
    dialogue.commands = dialogue.session.spool_state(False, dialogue.now)
    assert dialogue.said == ["seal 101", *births(102)]
    assert metrics(dialogue.payloads[0])[SPOOL_FAULT].value is False
    assert dialogue.payloads[1].metrics[0].value == 0.8, "what went unmarked is in the birth"


def test_a_spool_that_fails_offline_ends_the_stream_and_begins_another_when_it_works() -> None:
    dialogue = Dialogue()
    assert dialogue.scan(0, 1).said == ["store 101/1", "store 101/2"]
    assert dialogue.session.spool_state(True, dialogue.now) == []
    assert dialogue.scan(0, 2).said == []
    dialogue.commands = dialogue.session.spool_state(False, dialogue.now)
    assert dialogue.said == ["seal 101"]
    assert dialogue.scan(1, 3).said == ["store 102/1", "store 102/2"]


@pytest.mark.fault("F27")
@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000], ids=["+1 h", "-1 h"])
def test_a_step_of_the_clock_seals_the_stream_and_births_begin_the_next(step_ms: int) -> None:
    dialogue = Dialogue().live()
    dialogue.scan(0, 1, 2)
    taken_ms = dialogue.now.ms
    dialogue.after(1)
    after_step = Now(dialogue.s, dialogue.now.ms + step_ms)
    dialogue.commands = dialogue.session.clock_stepped(step_ms, True, 0, after_step)
    assert dialogue.said == ["seal 101", *births(102)]
    assert [metric.timestamp_ms for metric in dialogue.payloads[1].metrics[:2]] == [taken_ms + step_ms] * 2, (
        "stamps move with the clock, so that no tag seems to stand for an hour")
    dialogue.session.link_lost(dialogue.now)
    dialogue.scan(1, 1)
    dialogue.commands = dialogue.session.clock_stepped(step_ms, True, 0, after_step)
    assert dialogue.said == ["seal 103"]


@pytest.mark.fault("F28")
@pytest.mark.spec("tck-id-topics-ndata-payload")
def test_what_is_known_of_the_clock_is_published_when_it_changes() -> None:
    dialogue = Dialogue().live()
    assert dialogue.session.clock_state(True, 0, dialogue.now) == []
    dialogue.commands = dialogue.session.clock_state(False, 86_400_000, dialogue.now)
    assert dialogue.said == ["NDATA"]
    assert metrics(dialogue.payloads[0])[CLOCK_SYNCED].value is False
    assert metrics(dialogue.after(5).tick().payloads[0])[CLOCK_SYNCED].value is False
