"""Samples for tests of moving history: hand-made, drawn by Hypothesis, or as plain rows to compare."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

from gateway.historian.export import ExportOrder, ExportTag
from gateway.historian.samples import DAY_MS, Samples
from wire import Quality, Reason, quality_code

SHANGHAI = ZoneInfo("Asia/Shanghai")
T0_MS = 1_760_000_000_000 // DAY_MS * DAY_MS
GOOD = int(Quality.GOOD)
RANGE = quality_code(Quality.UNCERTAIN, Reason.RANGE)
BAD = quality_code(Quality.BAD, Reason.COMM)
Row = tuple[str, int, float | None, int, float | None, bool]
"""Tag, source time, value, code, raw, late; None stands for NaN."""


def samples_of(rows: Iterable[Row]) -> Samples:
    listed = list(rows)
    names = tuple(sorted({row[0] for row in listed}))
    number = {name: at for at, name in enumerate(names)}

    def column(at: int, kind: Any) -> Any:
        return np.array([row[at] if row[at] is not None else math.nan for row in listed], kind)

    none = np.zeros(len(listed), np.int64)
    return Samples(
        names, np.array([number[row[0]] for row in listed], np.int32), column(1, np.int64), column(2, float),
        column(3, np.uint8), column(4, float), column(5, np.bool_), none, none.copy(),
    )  # fmt: skip


def rows_of(samples: Samples) -> list[Row]:
    """Return them as rows in order of tag and time."""
    columns = (samples.tag, samples.source_ms, samples.value, samples.code, samples.raw, samples.late)
    listed = zip(*(column.tolist() for column in columns), strict=True)
    return sorted(
        (samples.names[tag], at, None if math.isnan(value) else value, code, None if math.isnan(raw) else raw, late)
        for tag, at, value, code, raw, late in listed
    )


def many(tags: Iterable[str], count: int, *, from_ms: int = T0_MS, step_ms: int = 1000, seed: int = 1) -> Samples:
    """Return `count` samples of each tag, noisy, some BAD, some clamped."""
    draw = np.random.default_rng(seed)
    names = tuple(sorted(tags))
    n = len(names) * count
    value = np.round(draw.normal(0.0, 10.0, n), 3)
    code = np.full(n, GOOD, np.uint8)
    code[draw.random(n) < 0.02] = BAD
    clamped = (draw.random(n) < 0.01) & (code == GOOD)
    code[clamped] = RANGE
    raw = np.where(clamped, value * 2, np.nan)
    value[code == BAD] = np.nan
    none = np.zeros(n, np.int64)
    return Samples(
        names, np.repeat(np.arange(len(names), dtype=np.int32), count),
        np.tile(from_ms + np.arange(count, dtype=np.int64) * step_ms, len(names)), value, code, raw,
        draw.random(n) < 0.05, none, none.copy(),
    )  # fmt: skip


def order(tags: Iterable[str | ExportTag], from_ms: int = T0_MS, to_ms: int = T0_MS + DAY_MS, rows_max: int = 10**9) -> ExportOrder:
    named = tuple(ExportTag(tag, "名称", "kPa") if isinstance(tag, str) else tag for tag in tags)
    return ExportOrder(named, from_ms, to_ms, SHANGHAI, rows_max)


_NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def sound_samples(draw: st.DrawFn, tags: tuple[str, ...] = ("A.X", "B.Y"), rows_max: int = 60) -> Samples:
    """Draw samples that keep the rules: one row a tag and ms, NaN where BAD, raw only where clamped."""
    keys = draw(st.lists(st.tuples(st.sampled_from(tags), st.integers(T0_MS, T0_MS + 3 * DAY_MS - 1)),
                         unique=True, max_size=rows_max))  # fmt: skip
    rows: list[Row] = []
    for tag, at in keys:
        code = draw(st.sampled_from([GOOD, RANGE, BAD, quality_code(Quality.BAD, Reason.UNKNOWN), int(Quality.UNCERTAIN)]))
        bad = code < Quality.UNCERTAIN
        rows.append((
            tag, at, None if bad else draw(_NUMBER), code, draw(_NUMBER) if code == RANGE else None, draw(st.booleans()),
        ))  # fmt: skip
    return samples_of(rows)
