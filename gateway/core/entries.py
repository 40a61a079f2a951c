"""Entries of the engine's input log, and how their bodies are packed.

Engine state is a function of these entries alone, so everything that can change a level is one of them: frames,
ticks that changed something, births and deaths, operator acts, configuration revisions, facts about the system.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


class EntryKind(StrEnum):
    """One letter in the ledger."""

    FRAME = "F"  # one live frame: body is `pack_columns`
    BLOCK = "B"  # one spool block, committed as it came
    TICK = "T"  # a tick that changed something; with a JSON body, the loop had stood still
    BORN = "N"  # a node's birth: body is JSON
    DIED = "D"  # a node's or a device's death: body is JSON
    ACT = "A"  # an operator act
    CONDITION = "S"  # a system condition began, ended or happened
    HISTORICAL = "H"  # a foreign node's stored data: kept, never evaluated
    LATE = "L"  # a history fork ran a stretch of late frames
    START = "W"  # core started: body holds the downtime
    CONFIG = "C"  # a configuration revision
    QUARANTINE = "Q"  # bytes that failed their checks, kept as they are
    STATE = "X"  # a full state record, from which replay starts


SAMPLE_KINDS: Final = (EntryKind.FRAME, EntryKind.BLOCK, EntryKind.HISTORICAL)  # a historian stores what they hold
PASSING_KINDS: Final = (*SAMPLE_KINDS, EntryKind.STATE)  # the others stay in the ledger for ever


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the input log. `pos` is given by core's loop and never used twice.

    Attributes:
        late_upto: frames of the row numbered up to here were late; 0: none.
        fresh: ranges of a block's frame numbers that were not here before; None: all of it.
        refused: tags of a block that were another node's when it was committed: not this node's to tell of; None: none.
    """

    pos: int
    kind: EntryKind
    engine_ms: int
    received_ms: int
    body: bytes
    node: str = ""
    device: str = ""
    stream: int = 0
    first: int = 0
    last: int = 0
    samples: int = 0
    late_upto: int = 0
    fresh: tuple[tuple[int, int], ...] | None = None
    refused: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A conditioned frame as the ledger keeps it. Rows keep the frame's order.

    tag: int32[n], numbers of the ledger's tag table. value: float64[n], clamped to the tag's range, NaN where BAD.
    code: uint8[n]. source_ms: int64[n]. raw: float64[n], the value as measured where the code says RANGE, else NaN.
    """

    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    raw: NDArray[np.float64]


_HEAD: Final = struct.Struct("<HBHq")  # samples, flags, raw rows, common source time
_LAYOUT_BYTES: Final = 5  # of the head: they tell how the rest is laid out
_ONE_TIME: Final = 1
SAMPLES_MAX: Final = 65_535


def pack_columns(columns: Columns) -> bytes:
    """Pack a frame; times are stored once when all are equal, raw values only where there are any."""
    n = len(columns.tag)
    if n > SAMPLES_MAX:
        raise ValueError(f"a frame of {n} samples; at most {SAMPLES_MAX} fit")
    raw_at = np.flatnonzero(~np.isnan(columns.raw)).astype(np.uint16)
    one_time = n > 0 and bool((columns.source_ms == columns.source_ms[0]).all())
    head = _HEAD.pack(n, _ONE_TIME if one_time else 0, len(raw_at), int(columns.source_ms[0]) if one_time else 0)
    parts = [head, columns.tag.astype("<i4").tobytes(), columns.value.astype("<f8").tobytes(), columns.code.tobytes()]
    if not one_time:
        parts.append(columns.source_ms.astype("<i8").tobytes())
    if len(raw_at):
        parts += [raw_at.astype("<u2").tobytes(), columns.raw[raw_at].astype("<f8").tobytes()]
    return b"".join(parts)


def pack_frames(columns: Columns, ends: Sequence[int]) -> list[bytes]:
    """Pack frames that lie end to end, each as `pack_columns` packs it.

    Args:
        ends: where each of them ends; ascending, the last one at the end of the columns.
    """
    if len(ends) == 1:
        return [pack_columns(columns)]
    starts = [0, *ends[:-1]]
    packed: list[bytes] = []
    raw = ~np.isnan(columns.raw)
    odd = {bisect_right(ends, row) for row in np.flatnonzero(raw).tolist()} if raw.any() else set()
    tag, value = columns.tag.astype("<i4").tobytes(), columns.value.astype("<f8").tobytes()
    code, source_ms = columns.code.tobytes(), columns.source_ms
    changes = np.flatnonzero(source_ms[1:] != source_ms[:-1]) + 1  # rows whose time is not that of the row before
    odd |= {bisect_right(ends, row) for row in set(changes.tolist()).difference(starts)}
    first_ms = source_ms[[min(start, len(source_ms) - 1) for start in starts]].tolist() if len(source_ms) else [0] * len(ends)
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        samples = end - start
        if at in odd or not 0 < samples <= SAMPLES_MAX:
            own = slice(start, end)
            packed.append(
                pack_columns(
                    Columns(columns.tag[own], columns.value[own], columns.code[own], source_ms[own], columns.raw[own])
                )
            )
            continue
        head = _HEAD.pack(samples, _ONE_TIME, 0, first_ms[at])
        packed.append(head + tag[4 * start : 4 * end] + value[8 * start : 8 * end] + code[start:end])
    return packed


def unpack_columns(body: bytes) -> Columns:
    """Inverse of `pack_columns`."""
    n, flags, n_raw, common_ms = _HEAD.unpack_from(body)
    at = _HEAD.size

    def take(dtype: str, count: int) -> NDArray[Any]:
        nonlocal at
        column = np.frombuffer(body, dtype, count, at)
        at += column.nbytes
        return column

    tag, value, code = take("<i4", n), take("<f8", n), take("u1", n)
    source_ms = np.full(n, common_ms, np.int64) if flags & _ONE_TIME else take("<i8", n)
    raw = np.full(n, np.nan)
    if n_raw:
        rows = take("<u2", n_raw)
        raw[rows] = take("<f8", n_raw)
    return Columns(tag.astype(np.int32), value.astype(np.float64), code.astype(np.uint8), source_ms.astype(np.int64), raw)


def torn_frames(bodies: Sequence[bytes]) -> list[int]:
    """Return the places of bodies that are not whole: too short, too long, or a raw value for no sample of theirs."""
    layouts: dict[bytes, list[int]] = {}
    for at, body in enumerate(bodies):
        layouts.setdefault(body[:_LAYOUT_BYTES], []).append(at)
    torn: list[int] = []
    for head, places in layouts.items():
        if len(head) < _LAYOUT_BYTES:
            torn += places
            continue
        layout, _, raws = _layout(head)
        size = layout.itemsize
        wrong = [at for at in places if len(bodies[at]) != size]
        if raws:
            offset, samples = layout.fields["raw_at"][1] if layout.fields else 0, layout["tag"].shape[0]
            whole = [at for at in places if len(bodies[at]) == size]
            wrong += [at for at in whole if np.frombuffer(bodies[at], "<u2", raws, offset).max() >= samples]
        torn += wrong
    return sorted(torn)


def unpack_frames(bodies: Sequence[bytes]) -> tuple[Columns, list[int]]:
    """Unpack frames together, each as `unpack_columns` unpacks it; return their columns end to end, and where each ends.

    Frames of one layout, which almost all of a device's are, are read as one table of bytes.
    """
    layouts: dict[bytes, list[int]] = {}
    for at, body in enumerate(bodies):
        layouts.setdefault(body[:_LAYOUT_BYTES], []).append(at)
    samples = np.zeros(len(bodies), np.int64)
    for head, places in layouts.items():
        samples[places] = int.from_bytes(head[:2], "little")
    ends = np.cumsum(samples)
    total = int(ends[-1]) if len(bodies) else 0
    found = Columns(
        np.empty(total, np.int32), np.empty(total), np.empty(total, np.uint8), np.empty(total, np.int64), np.full(total, np.nan)
    )
    for head, places in layouts.items():
        layout, one_time, raws = _layout(head)
        own = bodies if len(layouts) == 1 else [bodies[at] for at in places]
        table = np.frombuffer(b"".join(own), layout)
        starts = (ends - samples)[places]
        rows: Any = slice(None) if len(layouts) == 1 else (starts[:, None] + np.arange(layout["tag"].shape[0])).ravel()
        found.tag[rows], found.value[rows] = table["tag"].ravel(), table["value"].ravel()
        found.code[rows] = table["code"].ravel()
        found.source_ms[rows] = table["one_ms"].repeat(layout["tag"].shape[0]) if one_time else table["source_ms"].ravel()
        if raws:
            found.raw[(starts[:, None] + table["raw_at"]).ravel()] = table["raw"].ravel()
    return found, ends.tolist()


@lru_cache(1_024)
def _layout(head: bytes) -> tuple[np.dtype[Any], bool, int]:
    """Return how a frame that begins so is laid out, whether it has one time, and how many raw values."""
    samples, flags, raws = struct.unpack("<HBH", head)
    one_time = bool(flags & _ONE_TIME)
    fields: list[Any] = [
        ("head", "u1", _LAYOUT_BYTES), ("one_ms", "<i8"), ("tag", "<i4", (samples,)), ("value", "<f8", (samples,)),
        ("code", "u1", (samples,)),
    ]  # fmt: skip
    if not one_time:
        fields.append(("source_ms", "<i8", (samples,)))
    if raws:
        fields += [("raw_at", "<u2", (raws,)), ("raw", "<f8", (raws,))]
    return np.dtype(fields), one_time, raws


def pack_json(facts: dict[str, Any]) -> bytes:
    """Pack a body that a person may want to read."""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def unpack_json(body: bytes) -> dict[str, Any]:
    """Inverse of `pack_json`."""
    facts = json.loads(body)
    if not isinstance(facts, dict):
        raise TypeError("a log body must be a JSON object")
    return facts
