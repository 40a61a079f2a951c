"""Samples of one tag made few enough for a picture, without losing what matters: extremes, gaps, bad stretches.

Pure numpy; the windows themselves are the historian's. Nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples
from gateway.historian.store import Windows
from gateway.historian.windows import Rollups, windows_of
from gateway.serve.models import HistoryBucket, HistoryStretch
from wire import Quality, quality_of

_UNCERTAIN: Final = 1
_BAD: Final = 2
_NO_DATA: Final = 3


def bucket_width_ms(from_ms: int, to_ms: int, buckets_max: int) -> int:
    """Return the width, in whole milliseconds, of at most `buckets_max` equal buckets over [from_ms, to_ms)."""
    return max(1, -((from_ms - to_ms) // buckets_max))


def bucketed(samples: Samples, from_ms: int, width_ms: int) -> tuple[HistoryBucket, ...]:
    """Return the buckets of one tag's samples, which are in order of source time."""
    return tuple(bucket for windows in windows_of(samples, width_ms, from_ms).values() for bucket in buckets_of(windows))


def buckets_of(windows: Windows) -> list[HistoryBucket]:
    """Return windows as buckets: what is not there is None."""
    valued = (windows.good + windows.uncertain > 0).tolist()
    starts = windows.start_ms.tolist()
    values = zip(*(
        getattr(windows, name).tolist() for name in ("first", "first_ms", "last", "last_ms", "min", "min_ms", "max", "max_ms")
    ), strict=True)  # fmt: skip
    counts = zip(*(getattr(windows, name).tolist() for name in ("good", "uncertain", "bad", "late")), strict=True)
    none = (None,) * 8
    return [
        HistoryBucket(start, start + windows.width_ms, *(shown if has else none), *count)
        for start, has, shown, count in zip(starts, valued, values, counts, strict=True)
    ]


def stretches(samples: Samples, from_ms: int, to_ms: int, silence_ms: int) -> list[HistoryStretch]:
    """Return what is not GOOD in [from_ms, to_ms), oldest first; every moment is in at most one stretch.

    A sample stands until the next one, if that comes within `silence_ms`; if not, there are no data from it to the
    next. So a single sample between two gaps is a stretch of no length. Before the first sample the range has no data
    if that lasts longer than `silence_ms`, or there is no sample at all.

    Args:
        samples: one tag's, in order of source time.
    """
    known = np.zeros(len(samples), np.bool_)
    return _stretches(samples.source_ms, _kinds(samples.code), known, from_ms, to_ms, silence_ms)


def unclear(rows: Rollups, silence_ms: int) -> NDArray[np.bool_]:
    """Return which rows need their samples to tell their stretches: of several qualities, or with a silence inside."""
    most = np.maximum(np.maximum(rows.good, rows.uncertain), rows.bad)
    return (most < rows.samples) | (rows.silence_ms > silence_ms)


def stretches_of_rows(
    rows: Rollups, samples: Samples | None, from_ms: int, to_ms: int, silence_ms: int
) -> list[HistoryStretch]:
    """Return the same out of one tag's rows, in any order.

    Args:
        samples: all samples of the rows that are `unclear`, in order of time; None where they are too many: such a row
            then counts, from its first sample to its last, as the worst that it holds.
    """
    vague = unclear(rows, silence_ms)
    kind = np.where(rows.bad > 0, _BAD, np.where(rows.uncertain > 0, _UNCERTAIN, 0))
    if samples is None:
        plain = rows
        kind = np.where(vague & (rows.silence_ms > silence_ms), _NO_DATA, kind)
        at = kinds = np.empty(0, np.int64)
    else:
        plain, kind = rows.take(~vague), kind[~vague]
        at, kinds = samples.source_ms, _kinds(samples.code)
    # A plain row is its first sample and its last, and between them nothing else happens.
    times = np.concatenate([plain.from_ms, plain.to_ms, at])
    what = np.concatenate([kind, kind, kinds])
    known = np.concatenate([np.ones(len(plain), np.bool_), np.zeros(len(plain) + len(at), np.bool_)])
    order = np.lexsort((~known, times))
    return _stretches(times[order], what[order], known[order], from_ms, to_ms, silence_ms)


def with_damaged(found: list[HistoryStretch], damaged: Sequence[tuple[int, int]]) -> list[HistoryStretch]:
    """Put in what is stored and cannot be read, [from, to) each: it takes the place of `no_data`, and of nothing else."""
    whole: list[tuple[int, int]] = []
    for lo, hi in sorted(damaged):
        if whole and lo <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(hi, whole[-1][1]))
        else:
            whole.append((lo, hi))
    parts: list[HistoryStretch] = [HistoryStretch("damaged", lo, hi) for lo, hi in whole]
    for stretch in found:
        left = [stretch]
        for lo, hi in whole if stretch.kind == "no_data" else ():
            left = [
                part
                for each in left
                for part in (
                    [each] if each.to_ms <= lo or each.from_ms >= hi
                    else [replace(each, to_ms=lo)] * (each.from_ms < lo) + [replace(each, from_ms=hi)] * (each.to_ms > hi)
                )
            ]  # fmt: skip
        parts += left
    return sorted(parts, key=lambda each: (each.from_ms, each.to_ms))


def longest(found: list[HistoryStretch], count_max: int) -> tuple[tuple[HistoryStretch, ...], int]:
    """Return the `count_max` longest stretches, oldest first, and how many were left out; damaged ones are kept first."""
    if len(found) <= count_max:
        return tuple(found), 0
    by_length = sorted(found, key=lambda each: (each.kind == "damaged", each.to_ms - each.from_ms), reverse=True)[:count_max]
    return tuple(sorted(by_length, key=lambda each: each.from_ms)), len(found) - count_max


def _kinds(code: NDArray[np.uint8]) -> NDArray[np.int64]:
    quality = quality_of(code)
    return np.where(quality == Quality.GOOD, 0, np.where(quality == Quality.BAD, _BAD, _UNCERTAIN)).astype(np.int64)


def _stretches(
    at: NDArray[np.int64], kind: NDArray[np.int64], known: NDArray[np.bool_], from_ms: int, to_ms: int, silence_ms: int
) -> list[HistoryStretch]:
    """`known`: until the next moment it goes on as here, however long that is."""
    if from_ms >= to_ms:
        return []
    if not len(at):
        return [HistoryStretch("no_data", from_ms, to_ms)]
    following = np.append(at[1:], to_ms)
    silent = (following - at > silence_ms) & ~known
    found: list[HistoryStretch] = []
    if int(at[0]) - from_ms > silence_ms:
        found.append(HistoryStretch("no_data", from_ms, int(at[0])))
    # A run ends where the kind changes and after every sample that silence follows.
    new_run = np.append(True, (kind[1:] != kind[:-1]) | silent[:-1])
    firsts = np.flatnonzero(new_run)
    lasts = np.append(firsts[1:], len(at)) - 1
    notable = (kind[firsts] > 0) | silent[lasts]
    for first, last in zip(firsts[notable].tolist(), lasts[notable].tolist(), strict=True):
        if kind[first]:
            end = at[last] if silent[last] else following[last]
            word = {_BAD: "bad", _UNCERTAIN: "uncertain", _NO_DATA: "no_data"}[int(kind[first])]
            found.append(HistoryStretch(word, int(at[first]), int(end)))  # type: ignore[arg-type]
        if silent[last]:
            found.append(HistoryStretch("no_data", int(at[last]), int(following[last])))
    return found
