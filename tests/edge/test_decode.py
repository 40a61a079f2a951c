"""Decoding: every type in every order, against `struct`; what is no number; what is out of range."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decode import DeviceDecoder, RegisterPoint, WordOrder
from edge.plan import PlanLimits, Table, halves, plan_reads
from wire import Native, Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
FORMATS = {
    Native.U16: ">H", Native.I16: ">h", Native.U32: ">I", Native.I32: ">i", Native.U64: ">Q",
    Native.I64: ">q", Native.F32: ">f", Native.F64: ">d",
}  # fmt: skip


def decode(points, content_of):
    """Decode `points` from a device whose block content is `content_of(table, address, count)`."""
    blocks = plan_reads((p.span(row) for row, p in enumerate(points)), PlanLimits())
    decoder = DeviceDecoder(points, blocks)
    for block in blocks:
        decoder.load(block, content_of(block.table, block.address, block.count))
    return decoder.decode()


def from_words(words):
    """Holding register content from {address: word}."""
    return lambda table, address, count: b"".join(
        struct.pack(">H", words.get(a, 0xEEEE)) for a in range(address, address + count)
    )


def in_order(big_endian, order):
    """Bytes as an instrument of that order sends them, from first principles."""
    words = [big_endian[i : i + 2] for i in range(0, len(big_endian), 2)]
    if order in (WordOrder.CDAB, WordOrder.DCBA):
        words.reverse()
    if order in (WordOrder.BADC, WordOrder.DCBA):
        words = [word[::-1] for word in words]
    return b"".join(words)


@pytest.mark.parametrize(
    ("order", "registers"),
    [
        (WordOrder.ABCD, (0x47F1, 0x2000)),
        (WordOrder.CDAB, (0x2000, 0x47F1)),
        (WordOrder.BADC, (0xF147, 0x0020)),
        (WordOrder.DCBA, (0x0020, 0xF147)),
    ],
)
def test_123456_in_the_four_orders(order, registers):
    point = RegisterPoint("T.P", Table.HOLDING, 10, Native.F32, order=order)
    bits, value, code = decode([point], from_words({10: registers[0], 11: registers[1]}))
    assert value.tolist() == [123456.0]
    assert bits.tolist() == [0x47F12000]
    assert code.tolist() == [GOOD]


@pytest.mark.parametrize("order", WordOrder)
@pytest.mark.parametrize(
    ("native", "number"),
    [
        (Native.U16, 0xABCD), (Native.I16, -2), (Native.U32, 0x89ABCDEF), (Native.I32, -123456789),
        (Native.U64, 0x0123456789ABCDEF), (Native.I64, -1234567890123), (Native.F32, -2.5),
        (Native.F64, 1.0 / 3.0),
    ],
)  # fmt: skip
def test_every_type_in_every_order(native, number, order):
    sent = in_order(struct.pack(FORMATS[native], number), order)
    words = dict(enumerate(struct.unpack(f">{len(sent) // 2}H", sent), start=7))
    bits, value, code = decode([RegisterPoint("T.P", Table.INPUT, 7, native, order=order)], from_words(words))
    assert value.tolist() == [float(number)]
    assert bits.tolist() == [int.from_bytes(struct.pack(FORMATS[native], number), "big")]
    assert code.tolist() == [GOOD]


@given(st.data())
def test_a_mixed_device_decodes_as_struct_does(data):
    natives = data.draw(st.lists(st.sampled_from(list(FORMATS)), min_size=1, max_size=12))
    points, words, expected, address = [], {}, [], 0
    for native in natives:
        order = data.draw(st.sampled_from(WordOrder))
        address += data.draw(st.integers(0, 3))
        size = struct.calcsize(FORMATS[native])
        content = data.draw(st.binary(min_size=size, max_size=size))
        expected.append(struct.unpack(FORMATS[native], content)[0])
        sent = in_order(content, order)
        points.append(RegisterPoint("T.P", Table.HOLDING, address, native, order=order))
        words.update(enumerate(struct.unpack(f">{len(sent) // 2}H", sent), start=address))
        address += len(sent) // 2
    _, value, code = decode(points, from_words(words))
    for got, quality, number, native in zip(value.tolist(), code.tolist(), expected, natives, strict=True):
        tiny = {Native.F32: 2.0**-126, Native.F64: 2.0**-1022}.get(native, 0.0)
        if not math.isfinite(number) or 0 < abs(number) < tiny:
            assert math.isnan(got)
            assert quality < 64
        else:
            assert got == float(number)
            assert quality == GOOD


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 3))
def test_coils_are_packed_lowest_first(states, first):
    points = [RegisterPoint("T.P", Table.COIL, first + i, Native.BIT) for i in range(len(states))]
    packed = sum(1 << i for i, state in enumerate(states) if state)
    content = packed.to_bytes((len(states) + 7) // 8, "little")
    bits, value, code = decode(points, lambda table, address, count: content)
    assert value.tolist() == [float(state) for state in states]
    assert bits.tolist() == [int(state) for state in states]
    assert set(code.tolist()) == {GOOD}


def test_bits_of_a_register_are_counted_from_the_lowest_under_any_order():
    points = [
        RegisterPoint("T.P", Table.HOLDING, 3, Native.BIT, bit=bit, order=order)
        for order in WordOrder
        for bit in range(16)
    ]
    _, value, _ = decode(points, from_words({3: 0x8005}))
    assert value.reshape(4, 16).tolist() == [[float(0x8005 >> bit & 1) for bit in range(16)]] * 4


def test_scale_and_offset_apply_in_this_order():
    points = [RegisterPoint("T.P", Table.HOLDING, i, Native.I16, scale=0.1, offset=-40.0) for i in range(2)]
    _, value, _ = decode(points, from_words({0: 1234, 1: 0xFFFF}))
    assert value.tolist() == [1234 * 0.1 - 40.0, -1 * 0.1 - 40.0]


BAD_NAN = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)
BAD_OVERFLOW = quality_code(Quality.BAD, Reason.OVERFLOW)


@pytest.mark.fault("F01")
@pytest.mark.fault("F02")
@pytest.mark.parametrize(
    ("native", "pattern", "scale", "expected"),
    [
        (Native.F32, 0x7FC00000, 1.0, BAD_NAN),
        (Native.F32, 0xFFC00001, 1.0, BAD_NAN),
        (Native.F32, 0x7F800001, 1.0, BAD_NAN),
        (Native.F64, 0x7FF8000000000000, 1.0, BAD_NAN),
        (Native.F32, 0x7F800000, 1.0, BAD_OVERFLOW),
        (Native.F32, 0xFF800000, -1.0, BAD_OVERFLOW),
        (Native.F64, 0x7FF0000000000000, 1.0, BAD_OVERFLOW),
        (Native.F32, 0x007FFFFF, 1.0, BAD_OVERFLOW),
        (Native.F32, 0x80000001, 1.0, BAD_OVERFLOW),
        (Native.F64, 0x000FFFFFFFFFFFFF, 1.0, BAD_OVERFLOW),
        (Native.F64, 0x7FE0000000000000, 1e300, BAD_OVERFLOW),
        (Native.F32, 0x00000000, 1.0, GOOD),
        (Native.F32, 0x80000000, 1.0, GOOD),
        (Native.F32, 0x00800000, 1.0, GOOD),
        (Native.F32, 0x7F7FFFFF, 1.0, GOOD),
    ],
)
def test_what_is_no_number_is_bad_and_only_that(native, pattern, scale, expected):
    count = 2 if native is Native.F32 else 4
    words = {i: pattern >> 16 * (count - 1 - i) & 0xFFFF for i in range(count)} | {count: 7}
    points = [
        RegisterPoint("T.P", Table.HOLDING, 0, native, scale=scale, low=-math.inf),
        RegisterPoint("T.Q", Table.HOLDING, count, Native.U16),
    ]
    _, value, code = decode(points, from_words(words))
    assert code.tolist() == [expected, GOOD]
    assert math.isnan(value[0]) == (expected != GOOD)
    assert value[1] == 7.0


@pytest.mark.fault("F03")
@pytest.mark.fault("F07")
@pytest.mark.parametrize(
    ("word", "uncertain"), [(0, False), (100, False), (101, True), (0xFFFF, True), (0x8000, True)]
)
def test_beyond_the_range_on_either_side_keeps_the_value_and_marks_it(word, uncertain):
    point = RegisterPoint("T.P", Table.HOLDING, 0, Native.I16, low=0.0, high=100.0)
    _, value, code = decode([point], from_words({0: word}))
    assert value.tolist() == [float(np.int16(np.uint16(word)))]
    assert code.tolist() == [quality_code(Quality.UNCERTAIN, Reason.RANGE) if uncertain else GOOD]


def test_a_part_of_a_block_is_loaded_in_its_place():
    points = [RegisterPoint("T.P", Table.HOLDING, a, Native.U16) for a in range(4)]
    [block] = plan_reads((p.span(row) for row, p in enumerate(points)), PlanLimits())
    decoder = DeviceDecoder(points, [block])
    decoder.load(block, struct.pack(">4H", 1, 2, 3, 4))
    decoder.load(halves(block)[1], struct.pack(">2H", 30, 40))
    assert decoder.decode()[1].tolist() == [1.0, 2.0, 30.0, 40.0]
