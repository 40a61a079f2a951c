"""The Modbus TCP core: framing under any cut, and no answer taken for another's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.modbus import (
    DISCARDS_IN_A_ROW_MAX,
    ModbusTcpCore,
    ReadFunction,
    ReadRequest,
    Refusal,
    request_for,
)
from edge.plan import Atom, Table, block_of

READ = ReadRequest(17, ReadFunction.READ_HOLDING_REGISTERS, 100, 3)
CONTENT = bytes.fromhex("022B00000064")


def reply(transaction=1, unit=17, function=3, body=b"\x06" + CONTENT, protocol=0):
    return struct.pack(">HHHBB", transaction, protocol, len(body) + 2, unit, function) + body


def asked(read=READ, *, match_transaction=True):
    core = ModbusTcpCore()
    core.request(read, match_transaction=match_transaction)
    return core


def feed(core, segments):
    """All that the core gave out, in order."""
    return [outcome for segment in segments if (outcome := core.receive(segment)) is not None]


def cut(stream, cuts):
    places = sorted({min(place, len(stream)) for place in cuts})
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]


def test_a_request_is_the_twelve_bytes_of_the_specification():
    # The worked example of Modbus Application Protocol 1.1b3, 6.3: function 3, registers 108 to 110.
    core = ModbusTcpCore()
    sent = core.request(ReadRequest(0x11, ReadFunction.READ_HOLDING_REGISTERS, 107, 3))
    assert sent.hex(" ") == "00 01 00 00 00 06 11 03 00 6b 00 03"


def test_the_matching_answer_is_taken_once():
    core = asked()
    assert core.receive(reply()) == CONTENT
    assert core.receive(reply()) is None
    assert core.counts.answers == 1
    assert core.counts.discarded == 1


@pytest.mark.fault("F17")
@given(cuts=st.lists(st.integers(0, 60)), strays=st.integers(0, DISCARDS_IN_A_ROW_MAX - 1))
def test_any_cut_of_glued_answers_gives_the_one_answer_once(cuts, strays):
    core = asked()
    stream = reply(transaction=9) * strays + reply() + reply(transaction=10) * (2 - strays)
    assert feed(core, cut(stream, cuts)) == [CONTENT]


@pytest.mark.fault("F17")
def test_an_answer_in_one_byte_segments_is_parsed_exactly_once():
    assert feed(asked(), [bytes([b]) for b in reply()]) == [CONTENT]


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(reply(transaction=2), id="transaction"),
        pytest.param(reply(unit=18), id="unit"),
        pytest.param(reply(function=4), id="function"),
        pytest.param(reply(body=b"\x04" + CONTENT[:4]), id="fewer bytes"),
        pytest.param(reply(body=b"\x08" + CONTENT + b"\0\0"), id="more bytes"),
        pytest.param(reply(body=b"\x05" + CONTENT), id="byte count that contradicts the length"),
        pytest.param(reply(body=b"\x06" + CONTENT + b"\0"), id="length that contradicts the byte count"),
        pytest.param(reply(function=0x84, body=b"\x02"), id="refusal of another function"),
        pytest.param(reply(function=0x83, body=b"\x02\x00"), id="refusal that is too long"),
        pytest.param(reply(function=0x83, body=b""), id="refusal without a code"),
    ],
)
def test_a_wrong_answer_is_discarded_and_the_right_one_still_taken(wrong):
    core = asked()
    assert core.receive(wrong) is None
    assert core.counts.discarded == 1
    assert not core.must_reset
    assert core.receive(reply()) == CONTENT


@pytest.mark.fault("F16")
def test_several_wrong_answers_in_a_row_ask_for_a_new_connection_and_nothing_is_taken_after():
    core = asked()
    for _ in range(DISCARDS_IN_A_ROW_MAX):
        assert not core.must_reset
        core.receive(reply(transaction=99))
    assert core.must_reset
    assert core.receive(reply()) is None


@pytest.mark.fault("F16")
def test_a_right_answer_between_wrong_ones_starts_the_count_anew():
    core = ModbusTcpCore()
    for transaction in range(1, 20):
        core.request(READ)
        for _ in range(DISCARDS_IN_A_ROW_MAX - 1):
            core.receive(reply(transaction=9999))
        assert core.receive(reply(transaction=transaction)) == CONTENT
    assert not core.must_reset


@pytest.mark.fault("F11")
@pytest.mark.parametrize("code", [*range(1, 12), 12, 200, 255, 0])
def test_a_refusal_carries_its_code(code):
    assert asked().receive(reply(function=0x83, body=bytes([code]))) == Refusal(code)


@pytest.mark.fault("F16")
def test_late_answers_are_dropped_and_told_apart_from_wrong_ones():
    core = ModbusTcpCore()
    for transaction in range(1, 10):
        core.request(READ)
        core.give_up()
        core.request(ReadRequest(17, ReadFunction.READ_HOLDING_REGISTERS, 200, 3))
        assert core.receive(reply(transaction=2 * transaction - 1)) is None
        assert core.receive(reply(transaction=2 * transaction)) == CONTENT
    assert core.counts.late == 9
    assert core.counts.discarded == 0
    assert not core.must_reset


def test_ignoring_the_transaction_id_still_checks_everything_else():
    for wrong in (reply(7, unit=18), reply(7, function=4), reply(7, body=b"\x04" + CONTENT[:4])):
        core = asked(match_transaction=False)
        assert core.receive(wrong) is None
        assert core.receive(reply(7)) == CONTENT


@pytest.mark.fault("F15")
def test_half_a_frame_before_a_silence_never_mixes_with_the_next_answer():
    core = asked(match_transaction=False)
    core.receive(reply(0)[:10])
    core.give_up()
    core.request(READ, match_transaction=False)
    other = bytes.fromhex("AAAABBBBCCCC")
    assert core.receive(reply(0, body=b"\x06" + other)) == other


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(reply(protocol=1), id="another protocol"),
        pytest.param(struct.pack(">HHHBB", 1, 0, 0, 17, 3), id="length 0"),
        pytest.param(struct.pack(">HHHBB", 1, 0, 1, 17, 3), id="length 1"),
        pytest.param(struct.pack(">HHHBB", 1, 0, 255, 17, 3), id="length over 254"),
        pytest.param(struct.pack(">HHHBB", 1, 0, 65535, 17, 3), id="length 65535"),
    ],
)
def test_a_header_that_is_not_modbus_makes_the_stream_unusable(header):
    core = asked()
    assert core.receive(header + reply()) is None
    assert core.must_reset
    assert core.counts.framing_lost == 1


def _oracle(stream, ask):
    """Cut frames the slow way; return the first right content, or None when the stream breaks before."""
    wrong = 0
    while len(stream) >= 8:
        transaction, protocol, length, unit, function = struct.unpack(">HHHBB", stream[:8])
        if protocol != 0 or length < 2 or length > 254:
            return None
        if len(stream) < 6 + length:
            return None
        body, stream = stream[8 : 6 + length], stream[6 + length :]
        if (transaction, unit) == (1, ask.unit):
            if function == 3 and len(body) == 2 * ask.count + 1 and body[0] == 2 * ask.count:
                return body[1:]
            if function == 0x83 and len(body) == 1:
                return Refusal(body[0])
        wrong += 1
        if wrong == DISCARDS_IN_A_ROW_MAX:
            return None
    return None


_fragments = st.one_of(
    st.binary(max_size=40),
    st.builds(
        reply,
        transaction=st.sampled_from([0, 1, 2, 0x0100]),
        unit=st.sampled_from([17, 0, 18]),
        function=st.sampled_from([3, 4, 0x83, 0x84, 6, 16]),
        body=st.one_of(
            st.just(b"\x06" + CONTENT), st.binary(max_size=10), st.integers(0, 255).map(lambda c: bytes([c]))
        ),
    ),
    st.builds(lambda n: reply()[:n], st.integers(0, 14)),
)


@pytest.mark.fault("F16")
@pytest.mark.fault("F17")
@given(stream=st.lists(_fragments, max_size=6).map(b"".join), cuts=st.lists(st.integers(0, 200)))
def test_garbage_in_any_cut_never_gives_anything_but_the_right_answer(stream, cuts):
    expected = _oracle(stream, READ)
    outcomes = feed(asked(), cut(stream, cuts))
    assert outcomes == ([] if expected is None else [expected])


@given(stream=st.lists(st.binary(max_size=300), max_size=20))
def test_what_is_kept_of_garbage_is_bounded(stream):
    core = asked()
    for segment in stream:
        core.receive(segment)
        assert len(core._pending) < 260


@given(flips=st.sets(st.integers(0, 8 * 9 - 1), min_size=1, max_size=2))
def test_one_or_two_wrong_bits_in_the_envelope_never_give_a_value(flips):
    # Bits 0 to 71: transaction, protocol, length, unit, function, byte count. (The content is TCP's to keep.)
    frame = bytearray(reply())
    for flip in flips:
        frame[flip // 8] ^= 1 << (flip % 8)
    assert not isinstance(asked().receive(bytes(frame)), bytes)


@given(st.data())
def test_every_request_of_every_plan_is_a_read_within_the_limits(data):
    table = data.draw(st.sampled_from(Table))
    count = data.draw(st.integers(1, 2000 if table.is_bits else 125))
    address = data.draw(st.integers(0, 65536 - count))
    read = request_for(data.draw(st.integers(0, 255)), block_of(table, [Atom(address, address + count, (0,))]))
    sent = ModbusTcpCore().request(read)
    assert sent[7] in (1, 2, 3, 4)
    assert len(sent) == 12


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((1, 6, 0, 1), id="a bare number is no read function"),
        pytest.param((1, 3, 0, 1), id="not even that of a read"),
        pytest.param((256, ReadFunction.READ_COILS, 0, 1), id="unit"),
        pytest.param((1, ReadFunction.READ_COILS, 0, 2001), id="too many coils"),
        pytest.param((1, ReadFunction.READ_INPUT_REGISTERS, 0, 126), id="too many registers"),
        pytest.param((1, ReadFunction.READ_INPUT_REGISTERS, 0, 0), id="nothing"),
        pytest.param((1, ReadFunction.READ_INPUT_REGISTERS, 65535, 2), id="past the last address"),
        pytest.param((1, ReadFunction.READ_INPUT_REGISTERS, -1, 2), id="before the first address"),
    ],
)
def test_what_the_protocol_cannot_ask_is_refused(fields):
    with pytest.raises(ValueError):
        ReadRequest(*fields)


def test_a_second_request_while_one_is_out_is_a_bug():
    core = asked()
    with pytest.raises(RuntimeError):
        core.request(READ)
