"""Bodies of log entries: what goes in comes out, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.entries import (
    SAMPLES_MAX,
    Columns,
    EntryKind,
    pack_columns,
    pack_frames,
    pack_json,
    unpack_columns,
    unpack_frames,
    unpack_json,
)

TAGS = st.integers(0, 2**31 - 1)
VALUES = st.floats(allow_nan=True, allow_infinity=False)
TIMES = st.integers(0, 2**53 - 1)
ROWS = st.lists(st.tuples(TAGS, VALUES, st.integers(0, 255), TIMES, st.one_of(st.just(float("nan")), VALUES)), max_size=20)


def columns(rows: list[tuple[int, float, int, int, float]]) -> Columns:
    tag, value, code, source_ms, raw = zip(*rows, strict=True) if rows else ((),) * 5
    return Columns(
        np.array(tag, np.int32), np.array(value, np.float64), np.array(code, np.uint8), np.array(source_ms, np.int64),
        np.array(raw, np.float64),
    )  # fmt: skip


def assert_same(found: Columns, meant: Columns) -> None:
    for name in ("tag", "value", "code", "source_ms", "raw"):
        was, now = getattr(meant, name), getattr(found, name)
        assert was.dtype == now.dtype, name
        # By bits: -0.0 is not 0.0, and a NaN in a value column is one of the values.
        if name == "raw":
            assert np.array_equal(np.isnan(was), np.isnan(now))
            was, now = was[~np.isnan(was)], now[~np.isnan(now)]
        assert was.tobytes() == now.tobytes(), name


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_a_frame_comes_back_as_it_was(rows: list[tuple[int, float, int, int, float]]) -> None:
    meant = columns(rows)
    assert_same(unpack_columns(pack_columns(meant)), meant)


@given(ROWS, TIMES)
@settings(max_examples=25, deadline=None)
def test_one_common_time_is_stored_once(rows: list[tuple[int, float, int, int, float]], at_ms: int) -> None:
    meant = columns([(tag, value, code, at_ms, raw) for tag, value, code, _, raw in rows])
    packed = pack_columns(meant)
    assert_same(unpack_columns(packed), meant)
    raws = int((~np.isnan(meant.raw)).sum())
    assert len(packed) == 13 + 13 * len(rows) + 10 * raws


@given(st.lists(st.one_of(ROWS, st.tuples(ROWS, TIMES, st.booleans()).map(
    lambda given: [(*row[:3], given[1], row[4] if given[2] else float("nan")) for row in given[0]]
)), min_size=1, max_size=8))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_frames_packed_together_are_packed_as_one_by_one(frames: list[list[tuple[int, float, int, int, float]]]) -> None:
    together = columns([row for rows in frames for row in rows])
    ends = np.cumsum([len(rows) for rows in frames]).tolist()
    assert pack_frames(together, ends) == [pack_columns(columns(rows)) for rows in frames]


@given(st.lists(ROWS, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_frames_unpacked_together_are_as_one_by_one(
    frames: list[list[tuple[int, float, int, int, float]]], one_time: bool
) -> None:
    if one_time:
        frames = [[(*row[:3], 7, row[4]) for row in rows] for rows in frames]
    bodies = [pack_columns(columns(rows)) for rows in frames]
    together, ends = unpack_frames(bodies)
    assert ends == np.cumsum([len(rows) for rows in frames]).tolist()
    start = 0
    for body, end in zip(bodies, ends, strict=True):
        own = slice(start, end)
        assert_same(
            Columns(together.tag[own], together.value[own], together.code[own], together.source_ms[own], together.raw[own]),
            unpack_columns(body),
        )
        start = end


def test_the_columns_read_back_may_be_written_to() -> None:
    meant = columns([(1, 2.0, 192, 3, float("nan"))])
    unpack_columns(pack_columns(meant)).value[0] = 4.0


def test_a_frame_that_cannot_be_counted_is_refused() -> None:
    n = SAMPLES_MAX + 1
    with pytest.raises(ValueError, match=str(SAMPLES_MAX)):
        pack_columns(
            Columns(np.zeros(n, np.int32), np.zeros(n), np.zeros(n, np.uint8), np.zeros(n, np.int64), np.full(n, np.nan))
        )


def test_the_largest_frame_keeps_the_raw_value_of_its_last_row() -> None:
    n = SAMPLES_MAX
    raw = np.full(n, np.nan)
    raw[-1] = 7.0
    meant = Columns(np.zeros(n, np.int32), np.zeros(n), np.zeros(n, np.uint8), np.arange(n, dtype=np.int64), raw)
    assert_same(unpack_columns(pack_columns(meant)), meant)


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.lists(st.integers()))))
@settings(max_examples=25, deadline=None)
def test_facts_come_back_as_they_were(facts: dict[str, object]) -> None:
    assert unpack_json(pack_json(facts)) == facts


def test_equal_facts_are_equal_bytes_and_readable() -> None:
    assert pack_json({"b": 1, "a": "氯"}) == pack_json({"a": "氯", "b": 1}) == '{"a":"氯","b":1}'.encode()


def test_a_body_that_is_no_object_is_a_bug() -> None:
    with pytest.raises(TypeError):
        unpack_json(b"[1]")


def test_every_kind_has_a_letter_of_its_own() -> None:
    assert len({str(kind) for kind in EntryKind}) == len(EntryKind)
    assert all(len(kind) == 1 for kind in EntryKind)
