"""Each sample once, and in order: of copies in several files one, where a live sample stands an imported one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples, concatenated


def in_moments(samples: Samples) -> Samples:
    """Put them in order of tag number, then time; of one moment what was late first, then by stream and number."""
    order = order_in_moments(samples)
    return samples if order is None else samples.take(order)


def together(parts: Sequence[Samples]) -> Samples:
    """Join parts in that order; where a live sample stands at the moment of imported ones, it alone counts."""
    samples = in_moments(concatenated(parts) if len(parts) > 1 else parts[0])
    imported = (samples.stream == 0) & (samples.sequence == 0)  # a live one has a stream, or a log position for number
    if not imported.any() or imported.all():
        return samples
    starts = np.flatnonzero(np.append(True, (np.diff(samples.source_ms) != 0) | (np.diff(samples.tag) != 0)))
    live = np.logical_or.reduceat(~imported, starts)
    kept = ~(imported & np.repeat(live, np.diff(np.append(starts, len(samples)))))
    return samples if kept.all() else samples.take(kept)


def order_in_moments(samples: Samples) -> NDArray[np.int64] | None:
    """Return that order; None where they stand in it, no two at one moment."""
    step, same = np.diff(samples.source_ms), np.diff(samples.tag)
    if not ((same < 0) | ((same == 0) & (step <= 0))).any():
        return None
    return np.lexsort((samples.sequence, samples.stream, ~samples.late, samples.source_ms, samples.tag))


def each_once(samples: Samples, rank: NDArray[np.int64], loaded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows to keep: of a frame that several files hold the copy sealed first, of a loaded moment the newest.

    Args:
        rank: of each row its file's, the one sealed first is 0. loaded: of each file, whether it was loaded.
    """
    if not len(samples):
        return np.empty(0, np.int64)
    from_load = (samples.stream == 0) & (samples.sequence == 0) & loaded[rank]
    # A frame may hold several samples of one tag: all rows of the file that counts stay.
    keys: list[NDArray[Any]] = [np.where(from_load, samples.source_ms, samples.sequence), samples.stream, from_load, samples.tag]
    # What a foreign node had stored is numbered by log position, which a restored ledger gives anew: its content tells it apart.
    foreign = (samples.stream == 0) & ~from_load
    if foreign.any():
        keys[:0] = [np.where(foreign, of, 0) for of in (samples.code, samples.value.view(np.int64), samples.source_ms)]
    wanted = np.where(from_load, -rank, rank)
    order = np.lexsort((wanted, *keys))
    columns = [key[order] for key in keys]
    new = np.append(True, np.logical_or.reduce([column[1:] != column[:-1] for column in columns]))
    first = wanted[order][new][np.cumsum(new) - 1]
    kept: NDArray[np.int64] = np.sort(order[wanted[order] == first])
    return kept


def same_names(names: tuple[str, ...], parts: Sequence[Samples]) -> Samples:
    """Join parts that count in the same names, without changing how they count."""
    return concatenated([Samples.empty(names), *parts])


def of_names(samples: Samples, names: tuple[str, ...], from_ms: int, to_ms: int) -> Samples:
    """Return the samples of [from_ms, to_ms) and of these names, counting in them, in order."""
    place = np.array([names.index(name) if name in names else -1 for name in samples.names], np.int32)
    tag = place[samples.tag] if len(place) else samples.tag
    wanted = (tag >= 0) & (samples.source_ms >= from_ms) & (samples.source_ms < to_ms)
    return in_moments(replace(samples, names=names, tag=tag).take(wanted))
