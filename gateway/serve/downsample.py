"""Samples of one tag made few enough for a picture, without losing what matters: extremes, gaps, bad stretches.

Pure numpy. Adding samples never hides an extreme, and nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.serve.models import HistoryBucket, HistoryStretch
from wire import Quality, quality_of

_UNCERTAIN, _BAD = 1, 2
_Values = tuple[
    float | None, int | None, float | None, int | None, float | None, int | None, float | None, int | None
]  # fmt: skip
_NO_VALUES: Final[_Values] = (None, None, None, None, None, None, None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """n samples of one tag in order of source time.

    Attributes:
        source_ms: int64[n], UTC epoch milliseconds, not decreasing.
        value: float64[n], NaN where BAD. raw: float64[n], as measured where clamped, else NaN.
        code: uint8[n], quality codes. late: bool[n], came after newer ones.
    """

    source_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    raw: NDArray[np.float64]
    late: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.source_ms)

    def between(self, from_ms: int, to_ms: int) -> Series:
        """Return the samples of [from_ms, to_ms)."""
        lo, hi = np.searchsorted(self.source_ms, (from_ms, to_ms)).tolist()
        part = slice(lo, hi)
        return Series(self.source_ms[part], self.value[part], self.code[part], self.raw[part], self.late[part])


def bucket_width_ms(from_ms: int, to_ms: int, buckets_max: int) -> int:
    """Return the width, in whole milliseconds, of at most `buckets_max` equal buckets over [from_ms, to_ms)."""
    return max(1, -((from_ms - to_ms) // buckets_max))


def bucketed(series: Series, from_ms: int, width_ms: int) -> tuple[HistoryBucket, ...]:
    """Return the buckets that hold samples, oldest first.

    Each keeps the first, last, lowest and highest value that is not BAD, exactly and with its source time (the
    earliest of equal extremes), and counts every sample.

    Args:
        series: none of it before `from_ms`.
    """
    if not len(series):
        return ()
    place = (series.source_ms - from_ms) // width_ms
    starts = np.flatnonzero(np.diff(place, prepend=place[0] - 1))
    quality = quality_of(series.code)
    counts = [
        np.add.reduceat(mask.astype(np.int64), starts).tolist()
        for mask in (quality == Quality.GOOD, quality == Quality.UNCERTAIN, quality == Quality.BAD, series.late)
    ]
    of_bucket = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(place))))
    shown = np.flatnonzero(quality != Quality.BAD)
    values = _extremes(series.value[shown], series.source_ms[shown], of_bucket[shown])
    return tuple(
        HistoryBucket(
            from_ms + at * width_ms, from_ms + (at + 1) * width_ms, *values.get(bucket, _NO_VALUES), good, uncertain, bad, late
        )
        for bucket, (at, good, uncertain, bad, late) in enumerate(zip(place[starts].tolist(), *counts, strict=True))
    )  # fmt: skip


def _extremes(
    value: NDArray[np.float64], source_ms: NDArray[np.int64], of_bucket: NDArray[np.int64]
) -> dict[int, _Values]:
    """Return first, last, min and max, each with its time, by bucket; rows are in order of time."""
    if not len(value):
        return {}
    starts = np.flatnonzero(np.diff(of_bucket, prepend=-1))
    sizes = np.diff(np.append(starts, len(value)))
    lowest = _first_equal(value, np.minimum.reduceat(value, starts), starts, sizes)
    highest = _first_equal(value, np.maximum.reduceat(value, starts), starts, sizes)
    columns = []
    for rows in (starts, starts + sizes - 1, lowest, highest):
        columns += [value[rows].tolist(), source_ms[rows].tolist()]
    return dict(zip(of_bucket[starts].tolist(), zip(*columns, strict=True), strict=True))


def _first_equal(
    value: NDArray[np.float64], extreme: NDArray[np.float64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the row of the first value in each group that equals the group's extreme."""
    rows = np.flatnonzero(value == np.repeat(extreme, sizes))
    found: NDArray[np.int64] = rows[np.searchsorted(rows, starts)]
    return found


def stretches(series: Series, from_ms: int, to_ms: int, silence_ms: int) -> list[HistoryStretch]:
    """Return what is not GOOD in [from_ms, to_ms), oldest first; every moment is in at most one stretch.

    A sample stands until the next one, if that comes within `silence_ms`; if not, there are no data from it to the
    next. So a single sample between two gaps is a stretch of no length. Before the first sample the range has no data
    if that lasts longer than `silence_ms`, or there is no sample at all.
    """
    if from_ms >= to_ms:
        return []
    if not len(series):
        return [HistoryStretch("no_data", from_ms, to_ms)]
    at = series.source_ms
    following = np.append(at[1:], to_ms)
    silent = following - at > silence_ms
    quality = quality_of(series.code)
    kind = np.where(quality == Quality.GOOD, 0, np.where(quality == Quality.UNCERTAIN, _UNCERTAIN, _BAD))
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
            found.append(HistoryStretch("bad" if kind[first] == _BAD else "uncertain", int(at[first]), int(end)))
        if silent[last]:
            found.append(HistoryStretch("no_data", int(at[last]), int(following[last])))
    return found


def longest(found: list[HistoryStretch], count_max: int) -> tuple[tuple[HistoryStretch, ...], int]:
    """Return the `count_max` longest stretches, oldest first, and how many were left out."""
    if len(found) <= count_max:
        return tuple(found), 0
    by_length = sorted(found, key=lambda each: each.to_ms - each.from_ms, reverse=True)[:count_max]
    return tuple(sorted(by_length, key=lambda each: each.from_ms)), len(found) - count_max
