"""Sealing: a range of log rows becomes day files and one manifest.

What a range holds follows from its rows alone, and so does every byte of its files and its manifest: sealing again after
a crash makes the same. A row that cannot be read any more stops nothing: it is put aside, and named in the manifest.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from alerting import condition
from config import SiteConfig
from gateway.core.entries import torn_frames, unpack_frames
from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.durable import make_folder, sync_folder, write_durably
from gateway.historian.segments.files import by_day, write_day
from gateway.historian.segments.manifest import Manifest, combined
from gateway.historian.segments.names import MANIFESTS, Stem, manifest_path
from gateway.historian.segments.quarantine import named, put_aside
from wire import BlockError, Quality, Reason, SampleBatch, decode_block, quality_code

log = logging.getLogger(__name__)

TAG_CHARS_MAX: Final = 64
_TAG: Final = re.compile(r"[A-Z0-9]+(\.[A-Z0-9_]+)+")  # with the bound above, what `config` lets a tag be called


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
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class TornRow:
    """A row of the log of which not all could be read, and why: one short sentence."""

    row: LogRow
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What rows of the log hold, sorted, and those among them that could not be read whole: give both to `seal`."""

    samples: Samples
    torn: tuple[TornRow, ...] = ()


class Places:
    """What the site says of tags: the range they are clamped to."""

    def __init__(self, site: SiteConfig) -> None:
        spans = {tag.id: tag.span() for tag in site.tags}
        self.spans = {tag: (span.low, span.high) for tag, span in spans.items()}


def samples_of(rows: Sequence[LogRow], names: Mapping[int, str], places: Places) -> Samples:
    """Return what can be read of some rows; see `taken_from`."""
    return taken_from(rows, names, places).samples


def taken_from(rows: Sequence[LogRow], names: Mapping[int, str], places: Places) -> Taken:
    """Return what the frames and blocks among some rows hold, sorted; each frame's samples once.

    Of a block everything is taken but the tags that core refused when it committed it (`refused`): the site may have
    changed since, what was committed has not. A tag the site no longer has is not clamped.

    Args:
        names: the ledger's tag table.
    """
    known = frozenset(names.values())
    frames, torn = _of_frames([row for row in rows if row.kind in ("F", "H")], names)
    parts = [] if frames is None else [frames]
    for row in rows:
        if row.kind == "B":
            samples, why = _of_block(row, known, places)
            parts += [] if samples is None else [samples]
            torn += [TornRow(row, f"a block {why}")] if why else []
    torn.sort(key=lambda one: one.row.pos)
    return Taken(sorted_samples(sound(concatenated(parts))), tuple(torn))


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


def _of_frames(rows: Sequence[LogRow], names: Mapping[int, str]) -> tuple[Samples | None, list[TornRow]]:
    """Return the samples of frames, and the frames that cannot be read."""
    wrong = set(torn_frames([row.body for row in rows]))
    torn = [TornRow(rows[at], "a frame that is not whole") for at in sorted(wrong)]
    rows = [row for at, row in enumerate(rows) if at not in wrong]
    columns, ends = unpack_frames([row.body for row in rows])
    known = np.zeros(max(names, default=0) + 1, np.bool_)
    known[list(names)] = True
    strange = (columns.tag < 0) | (columns.tag >= len(known))
    strange |= ~known[np.where(strange, 0, columns.tag)]
    if strange.any():
        wrong = set(np.searchsorted(ends, np.flatnonzero(strange), "right").tolist())
        torn += [TornRow(rows[at], "a frame with a tag number that the ledger does not have") for at in sorted(wrong)]
        rows = [row for at, row in enumerate(rows) if at not in wrong]
        columns, ends = unpack_frames([row.body for row in rows])
    if not rows:
        return None, torn
    used = np.flatnonzero(np.bincount(columns.tag))
    place = np.zeros(len(known), np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    marks = np.array(
        [(True, 0, row.pos) if row.kind == "H" else (0 < row.first <= row.late_upto, row.stream, row.first) for row in rows], np.int64
    )
    late, stream, sequence = marks.repeat(np.diff(ends, prepend=0), axis=0).T.copy()
    return Samples(
        tuple(names[each] for each in used.tolist()), place[columns.tag], columns.source_ms, columns.value, columns.code, columns.raw,
        late.astype(np.bool_), stream, sequence,
    ), torn  # fmt: skip


def _of_block(row: LogRow, known: frozenset[str], places: Places) -> tuple[Samples | None, str]:
    """Return a block's samples, conditioned as core conditioned them, None if there are none; and what is wrong with it."""
    try:
        columns = [column for column in decode_block(row.body).columns if len(column)]
        refused = _refused(row)
    except (BlockError, ValueError) as error:
        return None, f"that cannot be read: {error}"
    mine = [c for c in columns if c.tag not in refused and (c.tag in places.spans or c.tag in known or _is_tag(c.tag))]
    strange = len({c.tag for c in columns} - refused) - len(mine)
    why = f"with {strange} names that are no tags'" if strange else ""
    if not mine:
        return None, why
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
        return samples, why
    # Odd places among the sorted ends are inside a range.
    inside = np.searchsorted(ranges, sequence, "right") % 2 == 1
    return samples.take(inside), why


def _is_tag(name: str) -> bool:
    """Whether a name that neither site nor ledger has could be a tag's."""
    return len(name) <= TAG_CHARS_MAX and _TAG.fullmatch(name) is not None


def _refused(row: LogRow) -> frozenset[str]:
    """Return the tags of a block that core did not take from its node."""
    names = [] if row.refused is None else json.loads(row.refused)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("which of its tags were refused is no list of names")
    return frozenset(names)


def _ranges(row: LogRow) -> NDArray[np.int64] | None:
    """Return the ends of the ranges of a block's new frames as [lo, hi + 1, lo, …], None if all are."""
    if row.fresh is None:
        return None
    try:
        pairs = [(int(lo), int(hi)) for lo, hi in json.loads(row.fresh)]
        return np.array([end for lo, hi in sorted(pairs) for end in (lo, hi + 1)], np.int64)
    except (ValueError, TypeError, ArithmeticError):
        log.error("log position %d: which frames are new cannot be read: all are taken", row.pos)
        return None


def seal(
    db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, prev: str, samples: Samples, sealed_ms: int,
    torn: Sequence[TornRow] = (), aged_ms: int | None = None,
) -> Manifest:  # fmt: skip
    """Write sorted samples as the files of a stem, then its manifest: from that moment they count.

    Rows of it that could not be read are put aside before that, and the manifest names them.

    Args:
        sealed_ms: when the newest row of the range was received: not the time of sealing, so that doing it again is the same.
        aged_ms: what retention takes for that time, where the clock was behind (`keep.received`); None: the same.

    Raises:
        OSError, duckdb.Error: the disk would not; nothing counts, do it again.
    """
    received_ms = sealed_ms if aged_ms is None else aged_ms
    files = [write_day(db, folder, stem, day, part, received_ms) for day, part in by_day(samples)] if len(samples) else []
    put_aside(folder, stem.owner, torn)
    manifest = Manifest(
        stem, sealed_ms, len(samples), combined([file.digest for file in files]), prev, tuple(files), torn=named(torn)
    )
    commit(folder, manifest)
    return manifest


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a manifest count: its rename is the commit.

    Raises:
        OSError: it does not count, or the disk cannot say whether its name would outlast a loss of power. A name is never
            taken back: others may have seen it, and the next commit syncs the folder again.
    """
    make_folder(folder / MANIFESTS)
    path = manifest_path(folder, manifest.stem)
    try:
        write_durably(path, manifest.text())
    except OSError as error:
        if not path.exists():
            raise
        log.error("historian: %s stands, and its folder could not be synced (%s); once more", path.name, error)
        sync_folder(path.parent)
