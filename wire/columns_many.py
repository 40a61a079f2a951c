"""Many DATA messages of the usual shape at once: samples by alias, each with its stamp and a double, then our marks.

That is what an edge of ours sends as long as its instruments are well. Such a frame is bytes of a fixed layout, so columns
are cut out of all frames of a batch together, without an object per metric. Whatever is of another shape, or only doubtful,
is left to `decode_data`, which stays the one that decides what is right: what is read here, it would have read alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wire.columns import DataColumns, ValueKind
from wire.names import SPOOL_SEQUENCE, SPOOL_STREAM
from wire.payload import PAYLOAD_LIMITS, PayloadLimits
from wire.wire_quality import WIRE_GOOD

STAMP_BYTES: Final = 6  # of seven bits each: times from 1971 to 2109
ALIAS_BYTES_MAX: Final = 4
RUNS_MAX: Final = 8  # stretches of samples whose aliases take as many bytes
STREAMS_CACHED: Final = 1_024

_METRIC: Final = b"\x12"
_ROW_FIXED_BYTES: Final = 19  # of a sample, beside its alias: two heads, three field tags, stamp, double
_ROW_HEADS: Final = tuple(
    _METRIC + bytes([_ROW_FIXED_BYTES - 2 + alias_bytes]) + b"\x10" for alias_bytes in range(1, ALIAS_BYTES_MAX + 1)
)
_MARK_FIXED_BYTES: Final = 4 + STAMP_BYTES  # of a mark's body, beside name and number: field tags, length of the name, stamp
_STAMP: Final = rb"[\x80-\xff]{5}[\x00-\x7f]"
_MARK_NUMBER: Final = rb"([\x80-\xff]{0,8}[\x00-\x7f])"  # below 2**63
_MARKS: Final = tuple(
    rb"\x12(.)\x0a" + re.escape(bytes([len(name)])) + name.encode() + rb"\x18" + _STAMP + rb"\x58" + _MARK_NUMBER
    for name in (SPOOL_STREAM, SPOOL_SEQUENCE)
)
_HEAD: Final = re.compile(rb"\x08" + _STAMP + b"(?:" + b"|".join(map(re.escape, _ROW_HEADS)) + b")", re.DOTALL)
_TAIL: Final = re.compile(b"(?:" + b"".join(_MARKS) + rb")?\x18([\x80-\xff]?[\x00-\x7f])", re.DOTALL)
_FIRST_ROW: Final = 1 + STAMP_BYTES


class _Run(NamedTuple):
    """Samples of one frame that lie end to end, each as long as the next."""

    frame: int
    alias_bytes: int
    rows: bytes


class _Heading(NamedTuple):
    """What a frame says beside its samples."""

    seq: int
    stream: int
    sequence: int


def decode_usual(payloads: Sequence[bytes], limits: PayloadLimits = PAYLOAD_LIMITS) -> list[DataColumns | None]:
    """Read the payloads that have the usual shape, as `decode_data` would; None for every other one.

    Columns of one call share their memory, and nobody may write to them.
    """
    headings: list[_Heading | None] = []
    runs: list[_Run] = []
    for payload in payloads:
        first = len(runs)
        heading = _take_apart(payload, len(headings), runs, limits)
        if heading is None:
            del runs[first:]
        headings.append(heading)
    found: list[DataColumns | None] = [None] * len(payloads)
    if not runs:
        return found
    frame, alias, stamp, value, doubtful = _columns_of(runs)
    stamps = b"".join([payload[1:9] for payload, known in zip(payloads, headings, strict=True) if known])
    sent_ms = iter(_number_of(np.frombuffer(stamps, "<u8"), STAMP_BYTES).tolist())
    ends = np.cumsum(np.bincount(frame, minlength=len(payloads))).tolist()
    start = 0
    for at, (heading, end) in enumerate(zip(headings, ends, strict=True)):
        if heading is None:
            continue
        timestamp_ms = next(sent_ms)
        if at not in doubtful:
            code, historical, kind, raw, datatype, names = _plain(end - start)
            found[at] = DataColumns(
                timestamp_ms, heading.seq, heading.stream, heading.sequence, alias[start:end], names, value[start:end],
                code, stamp[start:end], historical, (), kind, raw, datatype,
            )  # fmt: skip
        start = end
    return found


def _take_apart(payload: bytes, frame: int, runs: list[_Run], limits: PayloadLimits) -> _Heading | None:
    """Add a frame's runs, which are yet to be checked, and return its heading; None where it has another shape."""
    if len(payload) > limits.bytes_max or _HEAD.match(payload) is None:
        return None
    size, at, rows_left = len(payload), _FIRST_ROW, limits.metrics_max - len(_MARKS)
    for _ in range(RUNS_MAX):
        body = payload[at + 1]
        width = body + 2
        alias_bytes = width - _ROW_FIXED_BYTES
        if not 0 < alias_bytes <= ALIAS_BYTES_MAX:
            break
        heads, bodies = payload[at::width], payload[at + 1 :: width]
        rows = min(
            len(heads) - len(heads.lstrip(_METRIC)), len(bodies) - len(bodies.lstrip(payload[at + 1 : at + 2])),
            (size - at) // width,
        )  # fmt: skip
        end = at + rows * width
        runs.append(_Run(frame, alias_bytes, payload[at:end]))
        at, rows_left = end, rows_left - rows
        if not payload.startswith(_ROW_HEADS, at):
            break
    tail = _TAIL.fullmatch(payload, at)
    if tail is None or rows_left < 0 or at == _FIRST_ROW:
        return None
    stream_body, stream_groups, sequence_body, sequence_groups, seq_groups = tail.groups()
    seq = _number(seq_groups)
    if seq > 0xFF:
        return None
    if stream_groups is None:
        return _Heading(seq, 0, 0)
    stream, sequence = _same_number(stream_groups), _number(sequence_groups)
    whole = (stream_body[0], sequence_body[0]) == (
        _MARK_FIXED_BYTES + len(SPOOL_STREAM) + len(stream_groups), _MARK_FIXED_BYTES + len(SPOOL_SEQUENCE) + len(sequence_groups)
    )  # fmt: skip
    return _Heading(seq, stream, sequence) if whole and stream and sequence else None


def _number(groups: bytes) -> int:
    """Read a number in groups of seven bits, lowest first."""
    number = shift = 0
    for group in groups:
        number |= (group & 0x7F) << shift
        shift += 7
    return number


_same_number = lru_cache(STREAMS_CACHED)(_number)  # all frames of a stream bear its id


_Columns = tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], set[int]]


def _columns_of(runs: Sequence[_Run]) -> _Columns:
    """Return frame, alias, stamp and value of every sample, in the order of frames and rows, and the frames that are doubtful."""
    widths = sorted({run.alias_bytes for run in runs})
    counts = np.array([len(run.rows) // (_ROW_FIXED_BYTES + run.alias_bytes) for run in runs])
    frame = np.repeat(np.array([run.frame for run in runs], np.intp), counts)
    if len(widths) == 1:
        alias, stamp, value, wrong = _rows(b"".join([run.rows for run in runs]), widths[0])
    else:
        alias, stamp = np.empty(len(frame), np.int64), np.empty(len(frame), np.int64)
        value, wrong = np.empty(len(frame)), np.empty(len(frame), np.bool_)
        of_row = np.repeat(np.array([run.alias_bytes for run in runs]), counts)
        for width in widths:
            own = of_row == width
            joined = b"".join([run.rows for run in runs if run.alias_bytes == width])
            alias[own], stamp[own], value[own], wrong[own] = _rows(joined, width)
    wrong |= ~np.isfinite(value) | (stamp == 0)
    return frame, alias, stamp, value, set(frame[wrong].tolist()) if wrong.any() else set()


def _rows(
    joined: bytes, alias_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return alias, stamp and value of samples whose alias has so many bytes, and which of them are none after all."""
    width = _ROW_FIXED_BYTES + alias_bytes
    rows = len(joined) // width

    def words(at: int, dtype: str = "<u8") -> NDArray[Any]:
        return np.ndarray((rows,), dtype, joined, at, (width,)).copy()

    (mask, other_mask), (wanted, other_wanted) = _layout(alias_bytes)
    head = words(0)
    wrong = head & mask != wanted
    wrong |= words(8) & other_mask != other_wanted
    alias = _number_of(head >> np.uint64(24), alias_bytes)
    return alias, _number_of(words(4 + alias_bytes), STAMP_BYTES), words(width - 8, "<f8"), wrong


@lru_cache(ALIAS_BYTES_MAX)
def _layout(alias_bytes: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return which bits of a sample's first sixteen bytes never change, and what they are, as two words each."""
    body = _ROW_FIXED_BYTES + alias_bytes - 2
    wanted, mask = b"\x12" + bytes([body]) + b"\x10", b"\xff\xff\xff"
    for groups, following in ((alias_bytes, b"\x18"), (STAMP_BYTES, b"\x69")):
        wanted += b"\x80" * (groups - 1) + b"\x00" + following
        mask += b"\x80" * groups + b"\xff"
    return np.frombuffer(mask.ljust(16, b"\x00"), "<u8"), np.frombuffer(wanted.ljust(16, b"\x00"), "<u8")


def _number_of(word: NDArray[np.uint64], groups: int) -> NDArray[np.int64]:
    """Return int64[n]: numbers in groups of seven bits, lowest first, at most six, each in the low bytes of a word."""
    word = word & np.uint64(0x7F7F7F7F7F7F >> 8 * (6 - groups))
    pairs = word & np.uint64(0x7F007F007F)
    word >>= np.uint64(1)
    word &= np.uint64(0x3F80_3F80_3F80)
    pairs |= word  # fourteen bits in each sixteen
    number = pairs & np.uint64(0x3FFF)
    number |= (pairs >> np.uint64(2)) & np.uint64(0x3FFF << 14)
    number |= (pairs >> np.uint64(4)) & np.uint64(0x3FFF << 28)
    return number.view(np.int64)


_Plain = tuple[
    NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint8], list[str | None]
]


@lru_cache(1_024)
def _plain(rows: int) -> _Plain:
    """Return the columns that are the same in every usual frame of so many samples: code, historical, kind, raw, datatype, names."""
    code, kind = np.full(rows, WIRE_GOOD, np.uint8), np.full(rows, ValueKind.DOUBLE, np.uint8)
    historical, raw, datatype = np.zeros(rows, np.bool_), np.zeros(rows, np.uint64), np.zeros(rows, np.uint8)
    for column in (code, kind, historical, raw, datatype):
        column.flags.writeable = False
    return code, historical, kind, raw, datatype, [None] * rows
