"""Values become the words that an independent Modbus library decodes to the same values."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin as Peer

from simulators.errors import RegisterMapError
from simulators.registers import PointSpec, RegisterImage, to_native, to_words

PEER_TYPE = {
    "u16": Peer.DATATYPE.UINT16,
    "i16": Peer.DATATYPE.INT16,
    "u32": Peer.DATATYPE.UINT32,
    "i32": Peer.DATATYPE.INT32,
    "u64": Peer.DATATYPE.UINT64,
    "i64": Peer.DATATYPE.INT64,
    "f32": Peer.DATATYPE.FLOAT32,
    "f64": Peer.DATATYPE.FLOAT64,
}


def point(tag: str = "A.B", native: str = "f32", address: int = 0, **more: object) -> PointSpec:
    fields: dict[str, object] = {"device": "D", "server": "S", "unit": 1, "table": "holding", **more}
    return PointSpec(tag=tag, native=native, address=address, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", [0x47F1, 0x2000]),
        ("CDAB", [0x2000, 0x47F1]),
        ("BADC", [0xF147, 0x0020]),
        ("DCBA", [0x0020, 0xF147]),
    ],
)
def test_123456_in_the_four_word_orders(order: str, words: list[int]) -> None:
    image = RegisterImage([point(word_order=order)])
    image.write(np.array([123456.0]))
    assert image.read("S", 1, "holding", 0, 2) == words


@given(st.sampled_from(sorted(PEER_TYPE)), st.floats(-1e9, 1e9))
def test_the_peer_decodes_what_the_image_says_a_reader_decodes(native: str, value: float) -> None:
    image = RegisterImage([point(native=native)])
    shown = float(image.write(np.array([value]))[0])
    words = image.read("S", 1, "holding", 0, image.points[0].width)
    assert words is not None
    decoded = Peer.convert_from_registers(words, PEER_TYPE[native])
    assert isinstance(decoded, int | float)
    assert math.isclose(float(decoded), shown, rel_tol=1e-15, abs_tol=0.0) or decoded == shown


@given(st.floats(-20, 60), st.sampled_from([0.1, 0.01, 2.0]), st.floats(-50, 50))
def test_scale_and_offset_round_to_the_nearest_step(value: float, scale: float, offset: float) -> None:
    image = RegisterImage([point(native="i32", scale=scale, offset=offset)])
    assert abs(float(image.write(np.array([value]))[0]) - value) <= scale / 2 + 1e-9


@pytest.mark.parametrize(
    ("native", "value", "shown"),
    [
        ("u16", -5.0, 0.0),
        ("u16", 70000.0, 65535.0),
        ("i16", -1e6, -32768.0),
        ("u16", math.inf, 65535.0),
        ("i16", math.nan, -32768.0),
        ("u16", math.nan, 65535.0),
        ("u64", 1e30, 2.0**64 - 2048),
        ("i64", -1e30, -(2.0**63)),
    ],
)
def test_what_an_integer_cannot_hold_is_pinned(native: str, value: float, shown: float) -> None:
    assert float(RegisterImage([point(native=native)]).write(np.array([value]))[0]) == shown


def test_a_float_register_carries_nan_and_infinity() -> None:
    shown = RegisterImage([point(), point("A.C", address=2)]).write(np.array([math.nan, 1e300]))
    assert math.isnan(shown[0])
    assert shown[1] == math.inf


def test_bits_share_a_register_with_each_other() -> None:
    image = RegisterImage([point("A.X", "bit", 5, bit=0), point("A.Y", "bit", 5, bit=15)])
    image.write(np.array([1.0, 1.0]))
    assert image.read("S", 1, "holding", 5, 1) == [0x8001]
    image.write(np.array([0.0, 1.0]))
    assert image.read("S", 1, "holding", 5, 1) == [0x8000]


def test_gaps_read_as_zero_and_addresses_outside_do_not_exist() -> None:
    image = RegisterImage([point("A.X", "u16", 10), point("A.Y", "u16", 20)])
    image.write(np.array([1.0, 2.0]))
    assert image.read("S", 1, "holding", 10, 11) == [1, *[0] * 9, 2]
    assert image.read("S", 1, "holding", 9, 2) is None
    assert image.read("S", 1, "holding", 20, 2) is None
    assert image.read("S", 2, "holding", 10, 1) is None
    assert image.read("S", 1, "input", 10, 1) is None


def test_a_point_past_the_last_address_is_refused() -> None:
    with pytest.raises(RegisterMapError, match="65535"):
        RegisterImage([point("A.X", "f32", 65535)])


def test_64_bit_words_follow_the_same_four_orders() -> None:
    octets = struct.pack(">d", 1234.5)
    native = to_native("f64", np.array([1234.5]))
    as_bytes = {order: to_words(native, order).astype(">u2").tobytes() for order in ("ABCD", "CDAB", "BADC", "DCBA")}
    assert as_bytes["ABCD"] == octets
    assert as_bytes["DCBA"] == octets[::-1]
    assert as_bytes["CDAB"] == b"".join(octets[i : i + 2] for i in (6, 4, 2, 0))
    assert as_bytes["BADC"] == b"".join(octets[i : i + 2][::-1] for i in (0, 2, 4, 6))
