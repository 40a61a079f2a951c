"""Spool blocks: what goes in comes out, nothing damaged is taken, and they are small."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import (
    BLOCK_BYTES_MAX,
    BlockColumn,
    BlockTooLargeError,
    CorruptBlockError,
    Dropped,
    InvalidBlockError,
    Native,
    Quality,
    Reason,
    ShapeMismatchError,
    SpoolBlock,
    decode_block,
    encode_block,
    frames_of,
    is_quality_code,
    native_value,
    quality_code,
)
from wire.block_series import decode_series, encode_series
from wire.block_writer import pack

GOOD = int(Quality.GOOD)
COMM = quality_code(Quality.BAD, Reason.COMM)
START_MS = 1_790_000_000_000
CODES = [code for code in range(256) if is_quality_code(code)]


def column(tag: str, bits: list[int], *, device: str = "D1", native: Native = Native.U16, scale: float = 1.0,
           offset: float = 0.0, sequence: list[int] | None = None, code: list[int] | None = None,
           source_ms: list[int] | None = None) -> BlockColumn:
    numbers = list(range(1, len(bits) + 1)) if sequence is None else sequence
    times = [START_MS + 1000 * number for number in numbers] if source_ms is None else source_ms
    return BlockColumn(
        tag, device, native, scale, offset, np.array(numbers, np.int64), np.array(times, np.int64),
        np.array(bits, np.uint64), np.array([GOOD] * len(bits) if code is None else code, np.uint8))


def block(*columns: BlockColumn, first: int = 1, last: int = 1000, **others: Any) -> SpoolBlock:
    facts: dict[str, Any] = {"node": "E1", "stream": 77, "predecessor": 0, "predecessor_last": 0} | others
    return SpoolBlock(first=first, last=last, columns=tuple(columns), **facts)


def assert_same(one: SpoolBlock, other: SpoolBlock) -> None:
    for name in ("node", "stream", "first", "last", "predecessor", "predecessor_last", "dropped"):
        assert getattr(one, name) == getattr(other, name), name
    assert len(one.columns) == len(other.columns)
    for mine, theirs in zip(one.columns, other.columns, strict=True):
        for name in ("tag", "device", "native", "scale", "offset"):
            assert getattr(mine, name) == getattr(theirs, name), (mine.tag, name)
        for name in ("sequence", "source_ms", "bits", "code"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), f"{mine.tag}.{name}")
            assert getattr(mine, name).dtype == getattr(theirs, name).dtype


@st.composite
def blocks(draw: st.DrawFn) -> SpoolBlock:
    """Any valid block, small: frames shared out among devices, tags with holes, times in any order."""
    first = draw(st.integers(1, 2**62))
    span = draw(st.integers(1, 40))
    owners = draw(st.lists(st.integers(0, 2), min_size=span, max_size=span))
    columns = []
    for at in range(draw(st.integers(0, 6))):
        device = draw(st.integers(0, 2))
        numbers = [first + n for n, owner in enumerate(owners) if owner == device and draw(st.booleans())]
        native = draw(st.sampled_from(list(Native)))
        rows = len(numbers)

        def rows_of(values: st.SearchStrategy[int], rows: int = rows) -> list[int]:
            return draw(st.lists(values, min_size=rows, max_size=rows))

        finite = st.floats(allow_nan=False, allow_infinity=False)
        columns.append(column(
            f"{draw(st.text(max_size=5))}{at}", rows_of(st.integers(0, (1 << native.width_bits) - 1)),
            device=f"D{device}", native=native, scale=draw(finite), offset=draw(finite), sequence=numbers,
            source_ms=rows_of(st.one_of(st.integers(START_MS, START_MS + 9), st.integers(0, 2**53 - 1))),
            code=rows_of(st.sampled_from(CODES))))
    dropped = draw(st.lists(st.builds(lambda lo, n, why: Dropped(lo, lo + n, why), st.integers(1, 2**62),
                                      st.integers(0, 2**62), st.text(max_size=20)), max_size=3))
    return SpoolBlock(draw(st.text(max_size=8)), draw(st.integers(1, 2**63 - 1)), first, first + span,
                      draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 2**63 - 1)), tuple(columns),
                      tuple(dropped))


# ---- what goes in comes out ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(blocks())
def test_a_block_comes_back_as_it_went_in(one: SpoolBlock) -> None:
    assert_same(decode_block(encode_block(one)), one)


@settings(deadline=None)
@given(st.data(), st.sampled_from([1, 16, 32, 64]))
def test_every_series_of_bit_patterns_has_a_code(data: st.DataObject, width: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=50))
    series = encode_series(np.array(values, np.uint64), width)
    assert decode_series(series, len(values), width).tolist() == values


@pytest.mark.parametrize(("values", "width"), [
    pytest.param([65535, 0, 1, 65534], 16, id="a 16-bit counter that wraps steps by one"),
    pytest.param([2**32 - 1, 0, 1], 32, id="so does a 32-bit one"),
    pytest.param([1000 * n for n in range(50)], 64, id="a straight line costs one byte at most"),
    pytest.param([0, 1, 0, 1, 1, 0], 1, id="bits"),
])
def test_a_tame_series_needs_one_byte_a_row_at_most(values: list[int], width: int) -> None:
    series = encode_series(np.array(values, np.uint64), width)
    assert series.residual_bytes <= 1
    assert decode_series(series, len(values), width).tolist() == values


def test_a_straight_line_costs_nothing_a_row() -> None:
    assert encode_series(np.arange(5, 50_000, 7).astype(np.uint64), 64).planes == b""


# ---- bits to values ------------------------------------------------------------------------------------------

F32_NAN = struct.unpack("<I", struct.pack("<f", math.nan))[0]


@pytest.mark.parametrize(("native", "bits", "scale", "offset", "value"), [
    (Native.BIT, 1, 1.0, 0.0, 1.0),
    (Native.U16, 0xFFFF, 1.0, 0.0, 65535.0),
    (Native.I16, 0xFFFF, 1.0, 0.0, -1.0),
    (Native.I16, 0x8000, 0.1, 5.0, -3271.8),
    (Native.U32, 0xFFFF_FFFF, 1.0, 0.0, 4294967295.0),
    (Native.I32, 0x8000_0000, 1.0, 0.0, -2147483648.0),
    (Native.U64, 2**64 - 1, 1.0, 0.0, 2.0**64),
    (Native.I64, 2**64 - 1, 1.0, 0.0, -1.0),
    (Native.F32, 0x41BC0000, 2.0, -1.0, 46.0),
    (Native.F64, 0x4037800000000000, 1.0, 0.0, 23.5),
    (Native.F32, F32_NAN, 1.0, 0.0, math.nan),
    (Native.F32, 0x7F800000, -1.0, 0.0, -math.inf),
    (Native.F64, 0x7FEFFFFFFFFFFFFF, 10.0, 0.0, math.inf),
    (Native.U16, 0xABCD_0001, 1.0, 0.0, 1.0),
])
def test_native_value(native: Native, bits: int, scale: float, offset: float, value: float) -> None:
    found = native_value(native, np.array([bits], np.uint64), scale, offset)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [value])


@given(st.sampled_from(list(Native)), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8),
       st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_one_row_or_many_with_one_factor_or_many_give_the_same_bits(native: Native, bits: list[int], scale: float,
                                                                    offset: float) -> None:
    """The edge converts the rows of a scan, the gateway those of a column: no value may depend on that."""
    together = native_value(native, np.array(bits, np.uint64), scale, offset)
    rowwise = native_value(native, np.array(bits, np.uint64), np.full(len(bits), scale),
                           np.full(len(bits), offset))
    alone = np.concatenate([native_value(native, np.array([one], np.uint64), scale, offset) for one in bits])
    assert together.tobytes() == rowwise.tobytes() == alone.tobytes()


# ---- frames --------------------------------------------------------------------------------------------------


def test_frames_come_in_sequence_order_with_samples_in_column_order() -> None:
    one = block(
        column("T2", [20, 21], sequence=[1, 3], scale=0.5),
        column("T1", [10, 11], sequence=[1, 5], code=[GOOD, COMM]),
        column("X1", [1], device="D2", sequence=[4], native=Native.BIT),
    )
    frames, unknown = frames_of(decode_block(encode_block(one)), {"T1": 7, "T2": 3, "X1": 9})
    assert unknown == ()
    assert [(f.sequence, f.device, f.stream) for f in frames] == [
        (1, "D1", 77), (3, "D1", 77), (4, "D2", 77), (5, "D1", 77)]
    assert [f.batch.tag.tolist() for f in frames] == [[3, 7], [3], [9], [7]]
    np.testing.assert_array_equal(np.concatenate([f.batch.value for f in frames]), [10.0, 10.0, 10.5, 1.0, np.nan])
    assert [f.batch.code.tolist() for f in frames] == [[GOOD, GOOD], [GOOD], [GOOD], [COMM]]
    assert frames[1].batch.source_ms.tolist() == [START_MS + 3000]


def test_unknown_tags_are_left_out_and_named() -> None:
    one = block(column("T1", [1, 2]), column("GONE", [3, 4]), column("AWAY", [5], sequence=[9]))
    frames, unknown = frames_of(one, {"T1": 0})
    assert unknown == ("GONE", "AWAY")
    assert [f.sequence for f in frames] == [1, 2]
    assert frames_of(one, {}) == ([], ("T1", "GONE", "AWAY"))


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_frames_hold_every_sample_once_and_no_tag_twice(one: SpoolBlock) -> None:
    index = {column.tag: at for at, column in enumerate(one.columns)}
    frames, unknown = frames_of(one, index)
    assert unknown == ()
    assert [f.sequence for f in frames] == sorted({f.sequence for f in frames})
    expected = {(int(number), at): (int(ms), int(code), value.tobytes(), part.device)
                for at, part in enumerate(one.columns)
                for number, ms, code, value in zip(part.sequence, part.source_ms, part.code, part.value(), strict=True)}
    found = {(f.sequence, int(tag)): (int(ms), int(code), value.tobytes(), f.device)
             for f in frames
             for tag, ms, code, value in zip(f.batch.tag, f.batch.source_ms, f.batch.code, f.batch.value, strict=True)}
    assert found == expected
    assert sum(len(f.batch) for f in frames) == one.samples
    for f in frames:
        assert f.batch.tag.tolist() == sorted(set(f.batch.tag.tolist()))


# ---- nothing damaged is taken --------------------------------------------------------------------------------


def sample_block() -> SpoolBlock:
    random = np.random.default_rng(3)
    return block(*(
        column(f"T10{at}.PRESSURE", random.integers(0, 4000, 40).tolist(), device=f"D{at % 2}",
               sequence=list(range(1 + at % 2, 81, 2)), code=[GOOD] * 39 + [COMM], scale=0.1)
        for at in range(6)), dropped=(Dropped(900, 950, "spool full"),), predecessor=5, predecessor_last=9)


def test_every_flipped_bit_is_found() -> None:
    encoded = encode_block(sample_block())
    for bit in range(8 * len(encoded)):
        damaged = bytearray(encoded)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptBlockError):
            decode_block(bytes(damaged))


def test_every_truncation_and_any_appendix_is_found() -> None:
    encoded = encode_block(sample_block())
    for length in range(len(encoded)):
        with pytest.raises(CorruptBlockError):
            decode_block(encoded[:length])
    for appendix in (b"\0", encoded):
        with pytest.raises(CorruptBlockError):
            decode_block(encoded + appendix)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_corrupt(noise: bytes) -> None:
    for encoded in (noise, b"HGSB" + noise):
        with pytest.raises(CorruptBlockError):
            decode_block(encoded)


def sealed(body: bytes, *, method: int = 0, version: int = 1, body_bytes: int | None = None) -> bytes:
    """A block with a right checksum around any body: what a hostile or broken writer could send."""
    head = b"HGSB" + bytes((version, method))
    tail = (len(body) if body_bytes is None else body_bytes).to_bytes(4, "little") + body
    return head + hashlib.blake2b(head + tail, digest_size=8).digest() + tail


BODY = pack(sample_block())


def test_the_seal_of_these_tests_is_the_real_one() -> None:
    assert_same(decode_block(sealed(BODY)), sample_block())


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), min_size=1, max_size=4),
       st.integers(0, len(BODY)) | st.none())
def test_a_forged_body_with_a_right_checksum_is_a_valid_block_or_corrupt(changes: list[tuple[int, int]],
                                                                        length: int | None) -> None:
    body = bytearray(BODY)
    for place, byte in changes:
        body[place] = byte
    try:
        taken = decode_block(sealed(bytes(body[:length])))
    except CorruptBlockError:
        return
    assert_same(decode_block(encode_block(taken)), taken)  # all invariants hold, so it can be written again
    frames_of(taken, {part.tag: at for at, part in enumerate(taken.columns)})


@pytest.mark.fault("F56")
@pytest.mark.parametrize(("encoded", "reason"), [
    pytest.param(sealed(zlib.compress(bytes(10_000_000)), method=1, body_bytes=10_000_000), "cap",
                 id="over the absolute cap"),
    pytest.param(sealed(zlib.compress(bytes(1_000_000)), method=1, body_bytes=1_000_000), "cap",
                 id="over the ratio"),
    pytest.param(sealed(zlib.compress(bytes(1_000_000)), method=1, body_bytes=10_000), "length",
                 id="more than it says"),
    pytest.param(sealed(zlib.compress(BODY)[:-1], method=1, body_bytes=len(BODY)), "length",
                 id="a cut zlib stream"),
    pytest.param(sealed(zlib.compress(BODY) + b"x", method=1, body_bytes=len(BODY)), "length",
                 id="bytes behind the zlib stream"),
    pytest.param(sealed(BODY, method=2), "method", id="unknown method"),
    pytest.param(sealed(BODY, version=2), "version 2", id="a later version says so"),
    pytest.param(sealed(b"\xff" * 200), "number", id="numbers without end"),
    pytest.param(sealed(BODY + b"\0"), "after", id="bytes behind the body"),
    pytest.param(b"HGSB" + bytes(BLOCK_BYTES_MAX), "bytes", id="over 128 KiB"),
])
def test_hostile_blocks_are_refused_before_they_cost_memory(encoded: bytes, reason: str) -> None:
    with pytest.raises(CorruptBlockError, match=reason):
        decode_block(encoded)


def test_a_few_bytes_cannot_claim_a_million_samples() -> None:
    """Columns without residuals cost no bytes per row, so the count is capped on its own."""
    widest = block(*(column(f"T{at}", [1] * 500, sequence=list(range(1, 501))) for at in range(8)))
    body = pack(widest)
    grown = body.replace(b"\xf4\x03", b"\xff\xff\x1f")  # 500 frames become 524 287
    assert grown != body
    with pytest.raises(CorruptBlockError, match="more samples"):
        decode_block(sealed(grown))


# ---- what may not be written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "reason"), [
    pytest.param(lambda: block(column("T", [1, 2], sequence=[2, 2])), "increase", id="one number twice in a tag"),
    pytest.param(lambda: block(column("T", [1]), column("T", [2])), "one tag", id="two columns of one tag"),
    pytest.param(lambda: block(column("T", [1]), column("U", [2], device="D2")), "two devices",
                 id="a frame of two devices"),
    pytest.param(lambda: block(column("T", [1], sequence=[1001])), "outside", id="beyond last"),
    pytest.param(lambda: block(column("T", [1]), first=2), "outside", id="before first"),
    pytest.param(lambda: block(column("T", [1 << 16])), "bits", id="bits wider than the type"),
    pytest.param(lambda: block(column("T", [1], code=[GOOD + 1])), "quality", id="GOOD with a reason"),
    pytest.param(lambda: block(column("T", [1], scale=math.nan)), "scale", id="scale NaN"),
    pytest.param(lambda: block(column("T", [1], source_ms=[-1])), "time", id="before 1970"),
    pytest.param(lambda: block(column("T" * 256, [1])), "name", id="a tag id of 256 bytes"),
    pytest.param(lambda: block(first=0), "first", id="numbers begin at 1"),
    pytest.param(lambda: block(first=9, last=8), "first", id="last below first"),
    pytest.param(lambda: block(stream=0), "stream", id="no stream"),
    pytest.param(lambda: block(dropped=(Dropped(5, 4, "x"),)), "dropped", id="a stretch backwards"),
])
def test_a_block_that_contradicts_itself_is_not_written(wrong: Any, reason: str) -> None:
    with pytest.raises(InvalidBlockError, match=reason):
        encode_block(wrong())


def test_columns_of_one_sample_set_must_have_one_length_and_type() -> None:
    good = column("T", [1, 2])
    with pytest.raises(ShapeMismatchError, match=r"T\.code"):
        dataclasses.replace(good, code=good.code[:1])
    with pytest.raises(ShapeMismatchError, match=r"T\.bits"):
        dataclasses.replace(good, bits=good.bits.astype(np.int64))


def test_a_block_over_128_kib_is_refused_with_its_size_and_its_halves_fit() -> None:
    random = np.random.default_rng(5)
    noise = random.integers(0, 2**64, 20_000, np.uint64, endpoint=False)
    one = column("T", [0] * 20_000, native=Native.F64, sequence=list(range(1, 20_001)))
    whole = dataclasses.replace(one, bits=noise)
    with pytest.raises(BlockTooLargeError) as caught:
        encode_block(block(whole, last=20_000))
    assert caught.value.quantity == "bytes"
    assert caught.value.found > BLOCK_BYTES_MAX == caught.value.limit
    for part in (slice(0, 10_000), slice(10_000, None)):
        half = dataclasses.replace(whole, sequence=whole.sequence[part], source_ms=whole.source_ms[part],
                                   bits=whole.bits[part], code=whole.code[part])
        assert len(encode_block(block(half, last=20_000))) <= BLOCK_BYTES_MAX


def test_a_block_that_would_shrink_beyond_the_ratio_is_stored_and_still_read() -> None:
    quiet = block(*(column(f"T{at:04}", [7] * 10) for at in range(1500)))
    encoded = encode_block(quiet)
    assert encoded[5] == 0
    assert_same(decode_block(encoded), quiet)


# ---- density -------------------------------------------------------------------------------------------------


def plant(tags: int, seconds: int, seed: int = 1) -> SpoolBlock:
    """1 Hz samples as reported by exception: half 16-bit counts, half floats that a PLC made of counts.

    Levels wander by about two counts a second under three counts of noise; the two requests a device takes
    answer 20 ms apart with a jitter of 4 ms.
    """
    random = np.random.default_rng(seed)
    devices, columns = 4, []
    for at in range(tags):
        device, second = at % devices, np.arange(seconds, dtype=np.int64)
        jitter = np.random.default_rng((seed, device, at // devices % 2)).integers(0, 4, seconds)
        walk = np.cumsum(random.normal(0, 2, seconds)) + random.normal(0, 3, seconds)
        counts = np.clip(13_000 + 50 * (at % 200) + walk, 0, 27_648).round()
        if at % 2:
            native, bits, scale = Native.U16, counts.astype(np.uint64), 100 / 27_648
        else:
            native, scale = Native.F32, 1.0
            bits = (counts / 27_648 * 160).astype(np.float32).view(np.uint32).astype(np.uint64)
        changed = np.concatenate(([True], bits[1:] != bits[:-1]))
        columns.append(BlockColumn(
            f"T{at:03}.{('PRESSURE', 'LEVEL', 'TEMPERATURE')[at % 3]}", f"D{device}", native, scale, 0.0,
            (1 + second * devices + device)[changed],
            (START_MS + 1000 * second + 50 * device + 20 * (at // devices % 2) + jitter)[changed],
            bits[changed], np.full(int(changed.sum()), GOOD, np.uint8)))
    return block(*columns, last=seconds * devices + devices)


@pytest.mark.parametrize(("tags", "bytes_per_sample_max"), [(60, 2.0), (600, 2.0), (12, 2.6)])
def test_a_minute_of_samples_at_1_hz_takes_about_two_bytes_each(tags: int, bytes_per_sample_max: float) -> None:
    one = plant(tags, 60)
    encoded = encode_block(one)
    assert_same(decode_block(encoded), one)
    assert len(encoded) / one.samples < bytes_per_sample_max
