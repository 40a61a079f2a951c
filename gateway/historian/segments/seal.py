"""Sealing: a range of log rows becomes day files and one manifest.

What a range holds follows from its rows alone, and so does every byte of its files and its manifest: sealing again after
a crash makes the same. Rows are decoded layout by layout, all frames of one shape as one table of bytes.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from alerting import condition
from config import SiteConfig
from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.durable import make_folder, write_durably
from gateway.historian.segments.files import by_day, write_day
from gateway.historian.segments.manifest import Manifest, combined
from gateway.historian.segments.names import MANIFESTS, Stem, manifest_path
from wire import BlockError, Quality, Reason, SampleBatch, decode_block, quality_code

log = logging.getLogger(__name__)

_FIXED: Final = 13  # see gateway.core.entries: samples, flags, raw rows, common source time
_HEAD: Final = 5  # the first three of these say how the rest is laid out
_ONE_TIME: Final = 1


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row of the log as sealing needs it; rows without samples have an empty body."""

    pos: int
    kind: str
    received_ms: int
    node: str
    stream: int
    first: int
    body: bytes
    late_upto: int = 0
    fresh: str | None = None


class Places:
    """What the site says of tags: whose they are, and the range they are clamped to."""

    def __init__(self, site: SiteConfig) -> None:
        self.node_of = {point.tag: edge.id for edge in site.edges for device in edge.devices for point in device.points}
        spans = {tag.id: tag.span() for tag in site.tags}
        self.spans = {tag: (span.low, span.high) for tag, span in spans.items()}

    def belongs(self, tag: str, node: str) -> bool:
        """Whether a node may speak for a tag: it is its own, or nobody's any more."""
        return self.node_of.get(tag, node) == node


def samples_of(rows: Sequence[LogRow], names: Mapping[int, str], places: Places) -> Samples:
    """Return what the frames and blocks among some rows hold, sorted; each frame's samples once.

    Args:
        names: the ledger's tag table. A tag the site no longer has keeps its ledger name; what neither knows was never
            evaluated and is left out, as it is of live frames.
    """
    known = frozenset(names.values())
    parts = [_of_frames([row for row in rows if row.kind in ("F", "H")], names)]
    parts += [_of_block(row, known, places) for row in rows if row.kind == "B"]
    return sorted_samples(sound(concatenated([part for part in parts if part is not None])))


def sound(samples: Samples) -> Samples:
    """Let a value be NaN if and only if it is BAD, whoever made it: one odd row must not stop all that follow."""
    bad = samples.code < Quality.UNCERTAIN
    broken = ~np.isfinite(samples.value) & ~bad
    if not (broken.any() or (bad & ~np.isnan(samples.value)).any()):
        return samples
    code = np.where(broken, np.uint8(quality_code(Quality.BAD, Reason.NOT_A_NUMBER)), samples.code)
    return replace(samples, value=np.where(bad | broken, np.nan, samples.value), code=code)


def sorted_samples(samples: Samples) -> Samples:
    """Sort by tag id, source time; of one moment what was late first, then by stream and number."""
    if not len(samples):
        return samples
    used = np.flatnonzero(np.bincount(samples.tag, minlength=len(samples.names)))
    ordered = sorted(used.tolist(), key=lambda at: samples.names[at])
    rank = np.full(len(samples.names), -1, np.int32)
    rank[ordered] = np.arange(len(ordered), dtype=np.int32)
    tag = rank[samples.tag]
    ranked = Samples(
        tuple(samples.names[at] for at in ordered), tag, samples.source_ms, samples.value, samples.code, samples.raw, samples.late,
        samples.stream, samples.sequence,
    )  # fmt: skip
    return ranked.take(_order(ranked))


def _order(samples: Samples) -> NDArray[np.int64]:
    """Return the order of samples whose tag numbers are ranks: by one key of tag and time, and by the rest where these tie."""
    at = samples.source_ms
    low, span = int(at.min()), int(at.max()) - int(at.min()) + 1
    if span * len(samples.names) >= 1 << 62:  # stamps of lost clocks: too far apart for one key
        return np.lexsort((samples.sequence, samples.stream, ~samples.late, at, samples.tag))
    key = samples.tag.astype(np.int64) * span + (at - low)
    order = np.argsort(key, kind="stable")
    key = key[order]
    tied = key[1:] == key[:-1]
    if not tied.any():
        return order
    both = np.zeros(len(key), np.bool_)
    both[1:] |= tied
    both[:-1] |= tied
    rows = np.flatnonzero(both)
    mine = order[rows]
    order[rows] = mine[np.lexsort((samples.sequence[mine], samples.stream[mine], ~samples.late[mine], key[rows]))]
    return order


def _of_frames(rows: Sequence[LogRow], names: Mapping[int, str]) -> Samples | None:
    layouts: defaultdict[bytes, list[LogRow]] = defaultdict(list)
    for row in rows:
        layouts[row.body[:_HEAD]].append(row)
    if not layouts:
        return None
    parts = []
    for head, same in layouts.items():
        number, *columns = _table(head, [row.body for row in same])
        historical = np.array([row.kind == "H" for row in same], np.bool_)
        late = historical | np.array([0 < row.first <= row.late_upto for row in same], np.bool_)
        stream = np.array([0 if row.kind == "H" else row.stream for row in same], np.int64)
        sequence = np.array([row.pos if row.kind == "H" else row.first for row in same], np.int64)
        parts.append((number, *columns, *(column.repeat(len(number) // len(same)) for column in (late, stream, sequence))))
    number, source_ms, value, code, raw, late, stream, sequence = (np.concatenate(column) for column in zip(*parts, strict=True))
    used = np.flatnonzero(np.bincount(number))
    place = np.zeros(int(used[-1]) + 1 if len(used) else 1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return Samples(tuple(names[each] for each in used.tolist()), place[number], source_ms, value, code, raw, late, stream, sequence)


def _table(head: bytes, bodies: Sequence[bytes]) -> tuple[NDArray[Any], ...]:
    """Read frames of one layout together: tag number, source_ms, value, code and raw, frame after frame."""
    layout, n, raws, one_time = _layout(head)
    table = np.frombuffer(b"".join(bodies), layout)
    frames = len(table)
    source_ms = np.repeat(table["one_ms"], n) if one_time else table["source_ms"].ravel()
    raw = np.full(frames * n, np.nan)
    if raws:
        at = table["raw_at"].astype(np.int64) + np.arange(frames)[:, None] * n
        raw[at.ravel()] = table["raw"].ravel()
    return table["tag"].ravel(), source_ms.astype(np.int64), table["value"].ravel().astype(np.float64), table["code"].ravel(), raw


@lru_cache(maxsize=1024)
def _layout(head: bytes) -> tuple[np.dtype[Any], int, int, bool]:
    """Return a frame's layout as `pack_columns` made it, its samples, its raw values, and whether it has one time."""
    n, flags, raws = int.from_bytes(head[:2], "little"), head[2], int.from_bytes(head[3:5], "little")
    one_time = bool(flags & _ONE_TIME)
    columns: list[Any] = [("head", "u1", _HEAD), ("one_ms", "<i8"), ("tag", "<i4", (n,)), ("value", "<f8", (n,)), ("code", "u1", (n,))]
    if not one_time:
        columns.append(("source_ms", "<i8", (n,)))
    if raws:
        columns += [("raw_at", "<u2", (raws,)), ("raw", "<f8", (raws,))]
    return np.dtype(columns), n, raws, one_time


def _of_block(row: LogRow, known: frozenset[str], places: Places) -> Samples | None:
    """Return a block's samples of its node's tags, conditioned as core conditioned them; None if there are none."""
    try:
        columns = decode_block(row.body).columns
    except BlockError as error:  # core had read it once
        log.error("log position %d: a block that cannot be read any more: %s", row.pos, error)
        return None
    mine = [c for c in columns if len(c) and (c.tag in places.spans or c.tag in known) and places.belongs(c.tag, row.node)]
    if not mine:
        return None
    tag = np.repeat(np.arange(len(mine), dtype=np.int32), [len(column) for column in mine])
    sequence = np.concatenate([column.sequence for column in mine])
    batch = SampleBatch(
        tag, np.concatenate([column.value() for column in mine]), np.concatenate([column.code for column in mine]),
        np.concatenate([column.source_ms for column in mine]),
    )  # fmt: skip
    open_span = (-np.inf, np.inf)
    spans = np.array([places.spans.get(column.tag, open_span) for column in mine])
    value, code, raw = condition(batch, spans[:, 0], spans[:, 1])
    samples = Samples(
        tuple(column.tag for column in mine), tag, batch.source_ms, value, code, raw, sequence <= row.late_upto,
        np.full(len(tag), row.stream, np.int64), sequence,
    )  # fmt: skip
    ranges = _ranges(row)
    if ranges is None:
        return samples
    # Odd places among the sorted ends are inside a range.
    inside = np.searchsorted(ranges, sequence, "right") % 2 == 1
    return samples.take(inside)


def _ranges(row: LogRow) -> NDArray[np.int64] | None:
    """Return the ends of the ranges of a block's new frames as [lo, hi + 1, lo, …], None if all are."""
    if row.fresh is None:
        return None
    try:
        pairs = [(int(lo), int(hi)) for lo, hi in json.loads(row.fresh)]
    except (ValueError, TypeError):
        log.error("log position %d: which frames are new cannot be read: all are taken", row.pos)
        return None
    return np.array([end for lo, hi in sorted(pairs) for end in (lo, hi + 1)], np.int64)


def seal(
    db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, prev: str, samples: Samples, sealed_ms: int
) -> Manifest:
    """Write sorted samples as the files of a stem, then its manifest: from that moment they count.

    Args:
        sealed_ms: when the newest row of the range was received: not the time of sealing, so that doing it again is the same.

    Raises:
        OSError, duckdb.Error: the disk would not; nothing counts, do it again.
    """
    files = [write_day(db, folder, stem, day, part, sealed_ms) for day, part in by_day(samples)] if len(samples) else []
    manifest = Manifest(stem, sealed_ms, len(samples), combined([file.digest for file in files]), prev, tuple(files))
    commit(folder, manifest)
    return manifest


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a manifest count: its rename is the commit.

    Raises:
        OSError: it does not count; a name that may not have reached the disk is taken back.
    """
    make_folder(folder / MANIFESTS)
    path = manifest_path(folder, manifest.stem)
    try:
        write_durably(path, manifest.text())
    except OSError:
        path.unlink(missing_ok=True)
        raise
