"""Samples by window of time: exact aggregates, and how aggregates of pieces become those of longer windows.

Pure numpy, the only implementation: the seals' rollups, the API's buckets and the twin in memory all come from here.
Adding samples never hides an extreme, and nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples
from gateway.historian.store import Windows
from wire import Quality, quality_of

_Columns = list[NDArray[Any]]

ROLLUP_MS: Final = 300_000
"""Width of the windows that are kept beside the samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollups:
    """n rows, each what is known of one tag in one window, from one piece of its samples.

    Attributes:
        names: tag ids that `tag` counts in. tag: int32[n].
        start_ms: int64[n], where the window begins.
        from_ms, to_ms: int64[n], source times of its first and last sample of any quality.
        good, uncertain, bad, late: int64[n], samples.
        first, last, min, max, sum: float64[n] over samples that are not BAD; NaN without one, sum 0.
        first_ms, last_ms, min_ms, max_ms: int64[n], source times of these (of equal extremes the earliest); 0 without one.
        silence_ms: int64[n], the longest time from one of its samples to the next of them.
    """

    names: tuple[str, ...]
    tag: NDArray[np.int32]
    start_ms: NDArray[np.int64]
    from_ms: NDArray[np.int64]
    to_ms: NDArray[np.int64]
    good: NDArray[np.int64]
    uncertain: NDArray[np.int64]
    bad: NDArray[np.int64]
    late: NDArray[np.int64]
    first: NDArray[np.float64]
    first_ms: NDArray[np.int64]
    last: NDArray[np.float64]
    last_ms: NDArray[np.int64]
    min: NDArray[np.float64]
    min_ms: NDArray[np.int64]
    max: NDArray[np.float64]
    max_ms: NDArray[np.int64]
    sum: NDArray[np.float64]
    silence_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start_ms)

    def take(self, rows: NDArray[Any] | slice) -> Rollups:
        """Return these rows (indices, a mask or a slice)."""
        taken: _Columns = [self.tag[rows]]
        for name in ROLLUP_COLUMNS[1:]:
            column = getattr(self, name)
            taken.append(left_out(name, len(taken[0])) if _is_left_out(column) else column[rows])
        return Rollups(self.names, *taken)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Samples of any quality, row by row."""
        return self.good + self.uncertain + self.bad


ROLLUP_COLUMNS: Final = tuple(field.name for field in fields(Rollups) if field.name != "names")
_FLOATS: Final = frozenset(("first", "last", "min", "max", "sum", "mean"))


def no_rollups(names: tuple[str, ...] = ()) -> Rollups:
    """Return no rows."""
    columns: _Columns = [np.empty(0, np.float64 if name in _FLOATS else np.int64) for name in ROLLUP_COLUMNS[1:]]
    return Rollups(names, np.empty(0, np.int32), *columns)


def joined(parts: Sequence[Rollups]) -> Rollups:
    """Join parts that count in the same names; a column that one of them left out is left out."""
    if not parts:
        return no_rollups()
    filled = [part for part in parts if len(part)] or list(parts[:1])
    if len(filled) == 1:
        return filled[0]
    columns: _Columns = []
    for name in ROLLUP_COLUMNS:
        own = [getattr(part, name) for part in filled]
        gone = name != "tag" and any(map(_is_left_out, own))
        columns.append(left_out(name, sum(map(len, own))) if gone else np.concatenate(own))
    return Rollups(parts[0].names, *columns)


def left_out(name: str, rows: int) -> NDArray[Any]:
    """Return a column that was not asked for: it takes no room, and nothing may be read from it."""
    return np.broadcast_to(np.array(np.nan) if name in _FLOATS else np.array(0, np.int64), (rows,))


def columns_for(wanted: Collection[str] | None) -> tuple[str, ...]:
    """Return the columns of rollups that these columns of windows are made of; None: all."""
    if wanted is None:
        return ROLLUP_COLUMNS
    needed = {"tag", "start_ms", "from_ms", "to_ms", "good", "uncertain", "bad", *wanted} | ({"sum"} if "mean" in wanted else set())
    for name in ("first", "last", "min", "max"):
        if f"{name}_ms" in needed:
            needed.add(name)
    return tuple(name for name in ROLLUP_COLUMNS if name in needed)


def rolled_up(samples: Samples, width_ms: int = ROLLUP_MS, origin_ms: int = 0) -> Rollups:
    """Return one row for every tag and window that holds samples, in the order given.

    Args:
        samples: tag after tag, each in order of source time.
        origin_ms: windows begin here and at every whole number of widths before and after it.
    """
    if not len(samples):
        return no_rollups(samples.names)
    at, value = samples.source_ms, samples.value
    place = (at - origin_ms) // width_ms
    starts = _starts(samples.tag, place)
    ends = np.append(starts[1:], len(at))
    quality = quality_of(samples.code)
    bad = quality == Quality.BAD
    counts = [
        np.add.reduceat(mask.astype(np.int64), starts)
        for mask in (quality == Quality.GOOD, (quality != Quality.GOOD) & ~bad, bad, samples.late)
    ]
    step = np.append(np.diff(at), 0)
    step[ends - 1] = 0
    shown = np.flatnonzero(~bad)
    of_group = np.repeat(np.arange(len(starts)), ends - starts)[shown]
    values = _extremes(value[shown], at[shown], of_group, len(starts))
    total = np.bincount(of_group, value[shown], len(starts))
    columns: _Columns = [
        samples.tag[starts], origin_ms + place[starts] * width_ms, at[starts], at[ends - 1], *counts, *values, total,
        np.maximum.reduceat(step, starts),
    ]  # fmt: skip
    return Rollups(samples.names, *columns)


def interleaved(rollups: Rollups) -> NDArray[np.bool_]:
    """Return which rows' stretches of time touch another row's of the same tag: what they say together is not exact."""
    found = np.zeros(len(rollups), np.bool_)
    if len(rollups) < 2:
        return found
    order = in_time(rollups)
    if order is None:
        tag, from_ms, to_ms = rollups.tag, rollups.from_ms, rollups.to_ms
        if not ((tag[1:] == tag[:-1]) & (from_ms[1:] <= to_ms[:-1])).any():
            return found
        order = np.arange(len(rollups))
    tag, from_ms, to_ms = rollups.tag[order], rollups.from_ms[order], rollups.to_ms[order]
    # Of a tag's rows so far the latest end: a running maximum that begins anew with every tag, by lifting each above the last.
    span = int(to_ms.max()) - int(from_ms.min()) + 1
    lift = (np.cumsum(np.append(0, np.diff(tag) != 0)) * span).astype(np.int64)
    reached = np.maximum.accumulate(to_ms + lift)
    touches = (from_ms[1:] + lift[1:] <= reached[:-1]) & (tag[1:] == tag[:-1])
    inside = np.zeros(len(order), np.bool_)
    inside[1:] |= touches
    # The row that reached so far is the one touched, wherever it stands before.
    furthest = np.maximum.accumulate(np.where(to_ms + lift == reached, np.arange(len(order)), 0))
    inside[furthest[:-1][touches]] = True
    inside[:-1] |= touches
    found[order] = inside
    return found


def combined(rollups: Rollups, width_ms: int, origin_ms: int = 0) -> dict[str, Windows]:
    """Return each tag's windows, oldest first, out of rows of windows that lie whole in them.

    Args:
        rollups: in any order, from any number of pieces; no two rows of a tag `interleaved`.
        origin_ms: windows begin here and at every whole number of widths before and after it.
    """
    if not len(rollups):
        return {}
    order = in_time(rollups)
    rows = rollups if order is None else rollups.take(order)
    place = (rows.start_ms - origin_ms) // width_ms
    starts = _starts(rows.tag, place)
    sizes = np.diff(np.append(starts, len(place)))
    of_group = np.repeat(np.arange(len(starts)), sizes)
    # From the last sample of a row to the first of the next: a silence that begins in this row.
    step = np.append(np.where(rows.tag[1:] == rows.tag[:-1], rows.from_ms[1:] - rows.to_ms[:-1], 0), 0)
    silence = np.maximum.reduceat(np.maximum(rows.silence_ms, step), starts)
    counts = [np.add.reduceat(getattr(rows, name), starts) for name in ("good", "uncertain", "bad", "late")]
    shown = np.flatnonzero(rows.good + rows.uncertain)
    columns = _of_rows(rows, shown, of_group[shown], len(starts))
    valued = counts[0] + counts[1]
    mean = left_out("mean", len(starts))
    if not _is_left_out(rows.sum):
        mean = np.bincount(of_group, rows.sum, len(starts)) / np.where(valued > 0, valued, np.nan)
    begin = origin_ms + place[starts] * width_ms
    tag = rows.tag[starts]
    cuts = [*_starts(tag).tolist(), len(starts)]
    return {
        rows.names[tag[lo]]: Windows(width_ms, *(column[lo:hi] for column in (begin, *counts, *columns, mean, silence)))
        for lo, hi in pairwise(cuts)
    }


def in_time(rollups: Rollups) -> NDArray[np.int64] | None:
    """Return the order of rows by tag, then time; None where they stand in it."""
    tag, from_ms = rollups.tag, rollups.from_ms
    if not _out_of_order(tag, from_ms):
        return None
    small = len(rollups.names) < 1 << 15
    order = np.argsort(tag.astype(np.int16) if small else tag, kind="stable")  # of 16 bits, a sort without comparing
    if _out_of_order(tag[order], from_ms[order]):
        order = np.lexsort((rollups.to_ms, from_ms, tag))
    return order


def _out_of_order(tag: NDArray[np.int32], from_ms: NDArray[np.int64]) -> bool:
    return bool(((tag[1:] < tag[:-1]) | ((tag[1:] == tag[:-1]) & (from_ms[1:] < from_ms[:-1]))).any())


def _is_left_out(column: NDArray[Any]) -> bool:
    return column.strides == (0,)


def windows_of(samples: Samples, width_ms: int, origin_ms: int = 0) -> dict[str, Windows]:
    """Return each tag's windows; samples tag after tag, each in order of source time."""
    return combined(rolled_up(samples, width_ms, origin_ms), width_ms, origin_ms)


def no_windows(width_ms: int) -> Windows:
    """Return no windows."""
    names = (field.name for field in fields(Windows) if field.name != "width_ms")
    columns: _Columns = [np.empty(0, np.float64 if name in _FLOATS else np.int64) for name in names]
    return Windows(width_ms, *columns)


def between(samples: Samples, from_ms: int, to_ms: int) -> Samples:
    """Return what one tag's samples, in order of source time, hold of [from_ms, to_ms)."""
    lo, hi = np.searchsorted(samples.source_ms, (from_ms, to_ms)).tolist()
    return samples.take(slice(lo, hi))


def _starts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Return where a run of equal rows begins."""
    changes = np.zeros(len(columns[0]), np.bool_)
    changes[:1] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def _extremes(value: NDArray[np.float64], at: NDArray[np.int64], of_group: NDArray[np.int64], groups: int) -> _Columns:
    """Return first, last, min and max, each with its time, of every group; rows are in order of group and time."""
    starts = _starts(of_group)
    lasts = np.append(starts, len(value))[1:] - 1
    if len(value):
        low = _earliest(value, np.minimum.reduceat(value, starts), starts, lasts)
        high = _earliest(value, np.maximum.reduceat(value, starts), starts, lasts)
    else:
        low = high = starts
    return _spread([(value, at, starts), (value, at, lasts), (value, at, low), (value, at, high)], of_group[starts], groups)


def _of_rows(rows: Rollups, shown: NDArray[np.int64], of_group: NDArray[np.int64], groups: int) -> _Columns:
    """The same out of rows that are rollups themselves; `shown` are those that have values."""
    part = rows if len(shown) == len(rows) else rows.take(shown)
    starts = _starts(of_group)
    lasts = np.append(starts, len(part))[1:] - 1
    low = high = starts
    if len(part) and not _is_left_out(part.min):
        low = _earliest(part.min, np.minimum.reduceat(part.min, starts), starts, lasts)
    if len(part) and not _is_left_out(part.max):
        high = _earliest(part.max, np.maximum.reduceat(part.max, starts), starts, lasts)
    return _spread(
        [(part.first, part.first_ms, starts), (part.last, part.last_ms, lasts), (part.min, part.min_ms, low),
         (part.max, part.max_ms, high)], of_group[starts], groups,
    )  # fmt: skip


def _spread(
    picked: list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]], at: NDArray[np.int64], groups: int
) -> _Columns:
    """Put values and times of picked rows at their groups; the others have none."""
    columns: _Columns = []
    for value, time_ms, rows in picked:
        values: NDArray[Any] = np.full(groups, np.nan)
        times: NDArray[Any] = np.zeros(groups, np.int64)
        if not _is_left_out(value):
            values[at] = value[rows]
        if not _is_left_out(time_ms):
            times[at] = time_ms[rows]
        columns += [values, times]
    return columns


def _earliest(
    value: NDArray[np.float64], extreme: NDArray[np.float64], starts: NDArray[np.int64], lasts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the first row of each group that equals the group's extreme."""
    rows = np.flatnonzero(value == np.repeat(extreme, lasts - starts + 1))
    found: NDArray[np.int64] = rows[np.searchsorted(rows, starts)]
    return found
