"""Topics and the host's STATE."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import (
    HostState,
    MalformedStateError,
    MalformedTopicError,
    MessageKind,
    Topic,
    WireError,
    build_topic,
    check_id,
    decode_state,
    encode_state,
    node_filter,
    parse_topic,
    state_topic,
)

IDS = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="+/#$"),
              min_size=1, max_size=20)


@pytest.mark.spec("tck-id-topic-structure")
@pytest.mark.spec("tck-id-topic-structure-namespace-a")
@pytest.mark.spec("tck-id-topics-nbirth-topic")
@pytest.mark.spec("tck-id-topics-ndata-topic")
@pytest.mark.spec("tck-id-topics-ndeath-topic")
@pytest.mark.spec("tck-id-topics-ncmd-topic")
@pytest.mark.parametrize("kind", [kind for kind in MessageKind if not kind.of_device])
def test_a_node_topic(kind):
    text = build_topic(Topic(kind, "PARK", "edge-1"))
    assert text == f"spBv1.0/PARK/{kind.value}/edge-1"
    assert parse_topic(text) == Topic(kind, "PARK", "edge-1")


@pytest.mark.spec("tck-id-topics-dbirth-topic")
@pytest.mark.spec("tck-id-topics-ddata-topic")
@pytest.mark.spec("tck-id-topics-ddeath-topic")
@pytest.mark.spec("tck-id-topics-dcmd-topic")
@pytest.mark.parametrize("kind", [kind for kind in MessageKind if kind.of_device])
def test_a_device_topic(kind):
    text = build_topic(Topic(kind, "PARK", "edge-1", "T101"))
    assert text == f"spBv1.0/PARK/{kind.value}/edge-1/T101"
    assert parse_topic(text) == Topic(kind, "PARK", "edge-1", "T101")


@given(st.sampled_from(MessageKind), IDS, IDS, IDS)
@pytest.mark.spec("tck-id-intro-group-id-string")
@pytest.mark.spec("tck-id-intro-edge-node-id-string")
@pytest.mark.spec("tck-id-intro-device-id-string")
def test_every_topic_of_valid_ids_reads_back(kind, group, node, device):
    if group == "STATE":
        group = "PARK"
    topic = Topic(kind, group, node, device if kind.of_device else None)
    assert parse_topic(build_topic(topic)) == topic


@pytest.mark.spec("tck-id-topic-structure-namespace-valid-group-id")
@pytest.mark.spec("tck-id-topic-structure-namespace-valid-edge-node-id")
@pytest.mark.spec("tck-id-topic-structure-namespace-valid-device-id")
@pytest.mark.spec("tck-id-intro-group-id-chars")
@pytest.mark.spec("tck-id-intro-edge-node-id-chars")
@pytest.mark.spec("tck-id-intro-device-id-chars")
@pytest.mark.parametrize("bad", [
    "", "a+b", "a/b", "a#b", "$SYS", "a b", "a\0b", "a\nb", "a\x1b[2Jb", "a\u2028b", "a\ud800b", "a\u202eb",
    "x" * 129,
])
def test_an_id_that_cannot_stand_in_a_topic_is_refused(bad):
    with pytest.raises(MalformedTopicError):
        check_id(bad)
    for group, node, device in ((bad, "n", "d"), ("g", bad, "d"), ("g", "n", bad)):
        with pytest.raises(MalformedTopicError):
            build_topic(Topic(MessageKind.DDATA, group, node, device))


@pytest.mark.spec("tck-id-topic-structure-namespace-device-id-associated-message-types")
@pytest.mark.spec("tck-id-topic-structure-namespace-device-id-non-associated-message-types")
@pytest.mark.parametrize("kind", MessageKind)
def test_a_device_is_named_by_exactly_the_kinds_of_devices(kind):
    wrong = Topic(kind, "PARK", "edge-1", None if kind.of_device else "T101")
    with pytest.raises(MalformedTopicError):
        build_topic(wrong)
    parts = ["spBv1.0", "PARK", kind.value, "edge-1"]
    with pytest.raises(MalformedTopicError):
        parse_topic("/".join(parts if kind.of_device else [*parts, "T101"]))


@pytest.mark.parametrize("text", [
    "spbv1.0/PARK/NDATA/e", "spBv1.0/PARK/ndata/e", "spAv1.0/PARK/NDATA/e", "spBv1.0/PARK/NDATA",
    "spBv1.0/PARK/NDATA/e/d/x", "spBv1.0//NDATA/e", "spBv1.0/PARK/NDATA/", "spBv1.0/STATE/HOST",
    "spBv1.0/STATE/NDATA/e", "spBv1.0/PARK/WRITE/e", "/spBv1.0/PARK/NDATA/e", "", "spBv1.0/" + "x" * 2_000,
])
def test_what_is_no_topic_of_a_node_is_refused(text):
    with pytest.raises(MalformedTopicError):
        parse_topic(text)


@given(st.text() | st.from_regex(r"spBv1\.0/.{0,9}/(NDATA|DDATA|STATE)/.{0,9}(/.{0,9})?", fullmatch=True))
def test_no_topic_raises_anything_else(text):
    try:
        parse_topic(text)
    except WireError as error:
        assert error.args[0].isprintable()  # noqa: PT017  (a hostile topic must not write log lines of its own)


@pytest.mark.spec("tck-id-host-topic-phid-birth-topic")
@pytest.mark.spec("tck-id-host-topic-phid-death-topic")
def test_the_topic_of_a_host():
    assert state_topic("HAZARDGATE") == "spBv1.0/STATE/HAZARDGATE"
    with pytest.raises(MalformedTopicError):
        state_topic("A/B")
    assert node_filter("PARK") == "spBv1.0/PARK/#"


@pytest.mark.spec("tck-id-host-topic-phid-birth-payload")
@pytest.mark.spec("tck-id-host-topic-phid-death-payload")
@pytest.mark.parametrize("online", [True, False])
def test_state_is_two_keys_of_json(online):
    payload = encode_state(online, 1_700_000_000_123)
    assert json.loads(payload) == {"online": online, "timestamp": 1_700_000_000_123}
    assert decode_state(payload) == HostState(online, 1_700_000_000_123)


@pytest.mark.fault("F54")
@pytest.mark.parametrize("payload", [
    b"", b"ONLINE", b"null", b"[]", b"{}", b'{"online":true}', b'{"online":1,"timestamp":5}',
    b'{"online":"true","timestamp":5}', b'{"online":true,"timestamp":true}',
    b'{"online":true,"timestamp":5.5}', b'{"online":true,"timestamp":-1}', b'{"online":true,"timestamp":NaN}',
    b'{"online":true,"timestamp":1e400}', b'{"online":true,"online":false,"timestamp":5}', b"\xff\xfe",
    b'{"online":true,"timestamp":' + b"9" * 200 + b"}", b'{"online":true,"timestamp":' + b"9" * 5_000 + b"}",
    b"[" * 1_000, b"[" * 100_000, b'{"online":true,"timestamp":5,"x":Infinity}',
])
def test_a_state_that_is_not_one_is_refused(payload):
    with pytest.raises(MalformedStateError):
        decode_state(payload)


@given(st.binary(max_size=200))
def test_no_state_raises_anything_else(payload):
    try:
        decode_state(payload)
    except WireError:
        return


def test_a_state_with_further_keys_is_read():
    assert decode_state(b'{"online":true,"timestamp":5,"bdSeq":3}') == HostState(True, 5)
