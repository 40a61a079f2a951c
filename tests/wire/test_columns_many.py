"""What is read of many payloads at once is what is read of each: only faster, and only where the shape is the usual one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import DataColumns, PayloadLimits, decode_data, decode_usual, encode_data
from wire.columns_many import ALIAS_BYTES_MAX, RUNS_MAX

NOW_MS = 1_790_000_000_000
ALIAS_MAX = (1 << 7 * ALIAS_BYTES_MAX) - 1
GOOD = 192

aliases = st.one_of(st.integers(0, 127), st.integers(120, 135), st.integers(0, ALIAS_MAX))
rows = st.tuples(aliases, st.floats(allow_nan=False, allow_infinity=False), st.integers(NOW_MS - 10**9, NOW_MS + 10**9))
marks = st.one_of(st.just((0, 0)), st.tuples(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1)))


@st.composite
def frames(draw: st.DrawFn, *, sorted_rows: bool = True) -> bytes:
    samples = draw(st.lists(rows, min_size=1, max_size=30))
    if sorted_rows:  # so that there are few runs
        samples.sort()
    alias, value, source_ms = (list(column) for column in zip(*samples, strict=True))
    stream, sequence = draw(marks)
    return encode_data(
        draw(st.integers(NOW_MS, NOW_MS + 1000)), draw(st.integers(0, 255)), stream, sequence, np.array(alias, np.int64),
        np.array(value), np.full(len(alias), GOOD, np.uint8), np.array(source_ms, np.int64),
    )  # fmt: skip


def fields(columns: DataColumns) -> dict[str, Any]:
    """Everything of a frame, bit by bit."""
    found = {name: getattr(columns, name) for name in DataColumns.__slots__}
    return {name: (each.dtype, each.tobytes()) if isinstance(each, np.ndarray) else each for name, each in found.items()}


@given(st.lists(frames(), min_size=1, max_size=12))
def test_usual_frames_are_all_read_as_one_by_one(payloads: list[bytes]) -> None:
    for payload, read in zip(payloads, decode_usual(payloads), strict=True):
        assert read is not None
        assert fields(read) == fields(decode_data(payload))


@given(st.lists(frames(sorted_rows=False), min_size=1, max_size=6))
def test_aliases_in_any_order_are_read_alike_or_left_alone(payloads: list[bytes]) -> None:
    for payload, read in zip(payloads, decode_usual(payloads), strict=True):
        assert read is None or fields(read) == fields(decode_data(payload))


@given(
    payloads=st.lists(frames(), min_size=1, max_size=4),
    wounds=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(-8, 3),
)
def test_whatever_is_done_to_a_frame_it_is_read_alike_or_left_alone(
    payloads: list[bytes], wounds: list[tuple[int, int, int]], cut: int
) -> None:
    harmed = [bytearray(payload) for payload in payloads]
    for which, at, byte in wounds:
        target = harmed[which % len(harmed)]
        target[at % len(target)] = byte
    harmed[0] = harmed[0][:cut] if cut < 0 else harmed[0] + b"\x18\x01"[:cut]
    bytes_of = [bytes(each) for each in harmed]
    for payload, read in zip(bytes_of, decode_usual(bytes_of), strict=True):
        if read is not None:  # what the plain reader refuses must have been left to it
            assert fields(read) == fields(decode_data(payload))


def frame(**wrong: Any) -> bytes:
    given = {
        "timestamp_ms": NOW_MS, "seq": 7, "stream": 2**60, "sequence": 9, "alias": np.array([1, 200]),
        "value": np.array([1.5, -0.0]), "code": np.array([GOOD, GOOD], np.uint8),
        "source_ms": np.array([NOW_MS, NOW_MS]), **wrong,
    }  # fmt: skip
    return encode_data(**given)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(frame(alias=np.array([], np.int64), value=np.array([]), code=np.array([], np.uint8),
                           source_ms=np.array([], np.int64)), id="no sample"),
        pytest.param(frame(code=np.array([GOOD, 67], np.uint8)), id="a quality that is not GOOD"),
        pytest.param(frame(value=np.array([1.5, np.inf])), id="a value that is not finite"),
        pytest.param(frame(source_ms=np.array([NOW_MS, 5])), id="a stamp of 1970"),
        pytest.param(frame(alias=np.array([1, ALIAS_MAX + 1])), id="a large alias"),
        pytest.param(frame(alias=np.array([1, 200] * RUNS_MAX), value=np.ones(2 * RUNS_MAX),
                           code=np.full(2 * RUNS_MAX, GOOD, np.uint8), source_ms=np.full(2 * RUNS_MAX, NOW_MS)), id="many runs"),
        pytest.param(frame().replace(b"Spool/Stream", b"Spool/Strean"), id="another metric"),
    ],
)  # fmt: skip
def test_any_other_shape_is_left_alone_and_disturbs_no_other(payload: bytes) -> None:
    first, read, last = decode_usual([frame(), payload, frame(seq=200)])
    assert read is None
    assert first is not None
    assert fields(first) == fields(decode_data(frame()))
    assert last is not None
    assert fields(last) == fields(decode_data(frame(seq=200)))


def test_over_a_limit_a_frame_is_left_to_be_refused() -> None:
    payload = frame()
    assert decode_usual([payload], PayloadLimits(bytes_max=len(payload) - 1)) == [None]
    assert decode_usual([payload], PayloadLimits(metrics_max=3)) == [None]
    assert decode_usual([payload], PayloadLimits(metrics_max=4, bytes_max=len(payload))) != [None]


def test_nobody_can_change_a_frame_of_the_same_batch() -> None:
    (read,) = decode_usual([frame()])
    assert read is not None
    with pytest.raises(ValueError, match="read-only"):
        read.code[0] = 0
