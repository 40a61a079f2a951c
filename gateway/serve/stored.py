"""One tag's samples out of many packed frames and blocks at once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alerting import condition
from gateway.core.entries import torn_frames, unpack_columns
from wire import BlockColumn, SampleBatch

HEAD_BYTES: Final = 13  # see gateway.core.entries: samples, flags, raw rows, common source time
_ONE_TIME: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class TagRows:
    """Samples of one tag, n rows in the order of the frames they came from.

    Attributes:
        row: int64[n], index of the frame among those given. sequence: int64[n], its number in its stream.
        value, code, source_ms, raw: as in `downsample.Series`.
    """

    row: NDArray[np.int64]
    sequence: NDArray[np.int64]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    raw: NDArray[np.float64]

    def take(self, wanted: NDArray[np.bool_]) -> TagRows:
        """Return the samples that a mask selects."""
        return TagRows(
            self.row[wanted], self.sequence[wanted], self.value[wanted], self.code[wanted], self.source_ms[wanted],
            self.raw[wanted],
        )  # fmt: skip


def newest_source_ms(body: bytes) -> int:
    """Return the newest source time of a frame, 0 of an empty or torn one, without reading more of it than that takes."""
    if len(body) < HEAD_BYTES:  # torn
        return 0
    if body[2] & _ONE_TIME:
        return int.from_bytes(body[5:HEAD_BYTES], "little", signed=True)
    try:
        source_ms = unpack_columns(body).source_ms
    except ValueError:  # torn
        return 0
    return int(source_ms.max()) if len(source_ms) else 0


def tag_of_frames(bodies: Sequence[bytes], firsts: NDArray[np.int64], number: int) -> TagRows:
    """Return one tag's samples.

    Frames of one layout (as many samples, one source time, no raw values), which is almost all of a device's, are read
    together as one table of bytes; the others one by one.

    Args:
        bodies: what `pack_columns` made. firsts: int64[frames], their numbers. number: the tag's number in the ledger.
    """
    layouts: defaultdict[bytes, list[int]] = defaultdict(list)
    single: list[int] = []
    torn = frozenset(torn_frames(bodies))  # they hold nothing that can be read; sealing puts them aside
    for at, body in enumerate(bodies):
        if at in torn:
            continue
        # Samples, flags and raw rows: the five bytes that say how the rest is laid out.
        head = body[:5]
        if head[2] == _ONE_TIME and not (head[3] or head[4]):
            layouts[head].append(at)
        else:
            single.append(at)
    parts = [_same_layout([bodies[at] for at in rows], np.array(rows, np.int64), number) for rows in layouts.values()]
    parts += [_one_frame(bodies[at], at, number) for at in single]
    if not parts:
        return none_found()
    row, value, code, source_ms, raw = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return TagRows(row[order], firsts[row[order]], value[order], code[order], source_ms[order], raw[order])


_Part = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]


def _same_layout(bodies: Sequence[bytes], rows: NDArray[np.int64], number: int) -> _Part:
    samples = int.from_bytes(bodies[0][:2], "little")
    layout = np.dtype([
        ("head", "u1", 5), ("source_ms", "<i8"), ("tag", "<i4", samples), ("value", "<f8", samples), ("code", "u1", samples),
    ])  # fmt: skip
    table = np.frombuffer(b"".join(bodies), layout)
    at, column = np.nonzero(table["tag"] == number)
    return (
        rows[at], table["value"][at, column].astype(np.float64), table["code"][at, column],
        table["source_ms"][at].astype(np.int64), np.full(len(at), np.nan),
    )  # fmt: skip


def _one_frame(body: bytes, at: int, number: int) -> _Part:
    columns = unpack_columns(body)
    own = np.flatnonzero(columns.tag == number)
    return np.full(len(own), at, np.int64), columns.value[own], columns.code[own], columns.source_ms[own], columns.raw[own]


def tag_of_block(column: BlockColumn, at: int, low: float, high: float) -> TagRows:
    """Return a block column's samples, conditioned as core conditions them; `at` is their row."""
    tag = np.zeros(len(column), np.int32)
    batch = SampleBatch(tag, column.value(), column.code, column.source_ms)
    value, code, raw = condition(batch, np.array([low]), np.array([high]))
    return TagRows(np.full(len(tag), at, np.int64), column.sequence, value, code, column.source_ms, raw)


def refused_tags(refused: str | None) -> frozenset[str]:
    """Return the tags of a block that core did not take from its node when it committed it.

    Raises:
        ValueError: the ledger has been damaged since.
    """
    if refused is None:
        return frozenset()
    names = json.loads(refused)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("which of its tags were refused is no list of names")
    return frozenset(names)


def none_found() -> TagRows:
    """Return no samples."""
    empty = np.empty(0, np.int64)
    return TagRows(empty, empty, np.empty(0), np.empty(0, np.uint8), empty, np.empty(0))
