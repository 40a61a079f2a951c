"""Packets come out as they went in, however the network cuts the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import Message
from wire.mqtt_packets import NAMELESS, NamelessMessage, Packets

Found = Message | NamelessMessage | bytes


def packet(head: int, body: bytes) -> bytes:
    length, out = len(body), bytearray([head])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(out) + bytes([length]) + body


def message(topic: bytes, payload: bytes, head: int = 0x30) -> bytes:
    return packet(head, len(topic).to_bytes(2, "big") + topic + payload)


plain = st.builds(
    lambda topic, payload, retained: (
        message(topic.encode(), payload, 0x31 if retained else 0x30), Message(topic, payload, retained)
    ),
    st.text(max_size=20), st.binary(max_size=300), st.booleans(),
)  # fmt: skip
nameless = st.binary(max_size=50).map(lambda payload: (message(b"a\xff", payload), NAMELESS))
other = st.builds(packet, st.sampled_from([0x20, 0x32, 0x3D, 0x40, 0x90, 0xD0]), st.binary(max_size=200)).map(
    lambda whole: (whole, whole)
)


@given(
    sent=st.lists(st.one_of(plain, nameless, other), max_size=20),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=50),
)
def test_packets_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[bytes, Found]], cuts: list[int]
) -> None:
    stream, packets, found, at, turn = b"".join(whole for whole, _ in sent), Packets(), list[Found](), 0, 0
    while at < len(stream):
        found += packets.feed(stream[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    assert found == [wanted for _, wanted in sent]


@pytest.mark.parametrize(
    "body",
    [pytest.param(b"", id="no topic"), pytest.param(b"\x00", id="half a length"), pytest.param(b"\x00\x05abc", id="cut topic")],
)
def test_a_message_shorter_than_its_topic_is_left_to_the_library(body: bytes) -> None:
    assert Packets().feed(packet(0x30, body) + message(b"t", b"p")) == [packet(0x30, body), Message("t", b"p", False)]


def test_a_length_without_end_is_left_to_the_library_with_all_behind_it() -> None:
    packets = Packets()
    assert packets.feed(b"\x30\xff\xff\xff") == []
    assert packets.feed(b"\xff\x01rest") == [b"\x30\xff\xff\xff\xff\x01rest"]
    assert packets.feed(b"\xd0\x00") == [b"\xd0\x00"]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_or_vanish(read: bytes) -> None:
    packets = Packets()
    packets.feed(read)
    packets.feed(b"\x00" * 300)
