"""What a store should answer, worked out by hand: slow, one sample after the other, nothing shared with the code under test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gateway.historian import samples as _samples
from gateway.historian.store import Windows
from wire import Quality, quality_of

Samples = _samples.Samples


class Row(NamedTuple):
    """One sample."""

    tag: str
    source_ms: int
    value: float
    code: int = int(Quality.GOOD)
    raw: float = math.nan
    late: bool = False
    stream: int = 0
    sequence: int = 0


def samples_of(rows: Sequence[Row]) -> Samples:
    """Put rows into columns, in the order given."""
    names = tuple(dict.fromkeys(row.tag for row in rows))
    columns = list(zip(*rows, strict=True)) or [()] * 8
    return Samples(
        names, np.array([names.index(tag) for tag in columns[0]], np.int32), np.array(columns[1], np.int64),
        np.array(columns[2], np.float64), np.array(columns[3], np.uint8), np.array(columns[4], np.float64),
        np.array(columns[5], np.bool_), np.array(columns[6], np.int64), np.array(columns[7], np.int64),
    )  # fmt: skip


def rows_of(samples: Samples) -> list[Row]:
    """Take columns apart again, in their order."""
    return [
        Row(samples.names[samples.tag[at]], *(getattr(samples, name)[at].item() for name in _samples.COLUMNS[1:]))
        for at in range(len(samples))
    ]


def plain(value: float) -> float | None:
    """NaN is None, so that rows can be compared."""
    return None if math.isnan(value) else value


class WindowRow(NamedTuple):
    """One window. The mean is compared apart: it is the only one that rounds."""

    start_ms: int
    good: int
    uncertain: int
    bad: int
    late: int
    first: float | None
    first_ms: int
    last: float | None
    last_ms: int
    min: float | None
    min_ms: int
    max: float | None
    max_ms: int
    silence_ms: int


def told(windows: Windows) -> tuple[list[WindowRow], list[float | None]]:
    """Return windows as rows, and their means."""
    rows = [
        WindowRow(*(
            plain(value) if isinstance(value, float) else value
            for value in (getattr(windows, name)[at].item() for name in WindowRow._fields)
        ))
        for at in range(len(windows))
    ]  # fmt: skip
    return rows, [plain(mean) for mean in windows.mean.tolist()]


def reference_windows(
    rows: Sequence[Row], tag: str, from_ms: int, to_ms: int, width_ms: int, origin_ms: int | None = None
) -> tuple[list[WindowRow], list[float | None]]:
    """Return one tag's windows of [from_ms, to_ms); of one moment in the order given."""
    origin_ms = from_ms if origin_ms is None else origin_ms
    own = sorted((row for row in rows if row.tag == tag and from_ms <= row.source_ms < to_ms), key=lambda row: row.source_ms)
    places: dict[int, list[int]] = {}
    for at, row in enumerate(own):
        places.setdefault((row.source_ms - origin_ms) // width_ms, []).append(at)
    found, means = [], []
    for place, inside in sorted(places.items()):
        window = [own[at] for at in inside]
        silences = [own[at + 1].source_ms - own[at].source_ms for at in inside if at + 1 < len(own)]
        qualities = [quality_of(row.code) for row in window]
        shown = [(row.value, row.source_ms) for row in window if quality_of(row.code) != Quality.BAD]
        values: list[float | int | None] = [None, 0] * 4
        if shown:
            low, high = min(value for value, _ in shown), max(value for value, _ in shown)
            values = [
                *shown[0], *shown[-1], *next(each for each in shown if each[0] == low),
                *next(each for each in shown if each[0] == high),
            ]  # fmt: skip
        good, bad = qualities.count(int(Quality.GOOD)), qualities.count(int(Quality.BAD))
        counts = (good, len(window) - good - bad, bad, sum(row.late for row in window))
        found.append(WindowRow(origin_ms + place * width_ms, *counts, *values, max(silences, default=0)))  # type: ignore[arg-type]
        means.append(math.fsum(value for value, _ in shown) / len(shown) if shown else None)
    return found, means


def same_means(some: Sequence[float | None], others: Sequence[float | None]) -> bool:
    """Means may differ in the last digits: a sum depends on its order."""
    return len(some) == len(others) and all(
        one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-6))
        for one, other in zip(some, others, strict=True)
    )
