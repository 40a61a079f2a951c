"""Downsampling keeps what matters: held against a plain reference, sample by sample."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.historian.samples import Samples
from gateway.historian.windows import rolled_up
from gateway.serve.downsample import (
    bucket_width_ms,
    bucketed,
    longest,
    stretches,
    stretches_of_rows,
    unclear,
    with_damaged,
)
from gateway.serve.models import HistoryBucket, HistoryStretch
from wire import Quality, Reason, quality_code

G, U = quality_code(Quality.GOOD), quality_code(Quality.UNCERTAIN, Reason.RANGE)
B = quality_code(Quality.BAD, Reason.COMM)
Row = tuple[int, float, int, bool]


def series_of(rows: list[Row]) -> Samples:
    rows = sorted(rows, key=lambda row: row[0])
    return Samples(
        ("T",), np.zeros(len(rows), np.int32), np.array([row[0] for row in rows], np.int64),
        np.array([math.nan if row[2] == B else row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.uint8),
        np.full(len(rows), np.nan),
        np.array([row[3] for row in rows], np.bool_), np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64),
    )


def reference(series: Samples, from_ms: int, width_ms: int) -> list[HistoryBucket]:
    """Bucket by bucket, as one would by hand."""
    columns = zip(*(getattr(series, name).tolist() for name in ("source_ms", "value", "code", "late")), strict=True)
    places: dict[int, list[tuple[int, float, int, bool]]] = {}
    for row in columns:
        places.setdefault((row[0] - from_ms) // width_ms, []).append(row)
    found = []
    for place, rows in sorted(places.items()):
        shown = [(value, at_ms) for at_ms, value, code, _ in rows if code != B]
        values: list[float | int | None] = [None] * 8
        if shown:
            lowest = min(value for value, _ in shown)
            highest = max(value for value, _ in shown)
            values = [
                *shown[0], *shown[-1], *next(row for row in shown if row[0] == lowest),
                *next(row for row in shown if row[0] == highest),
            ]  # fmt: skip
        codes = [row[2] for row in rows]
        counts = (codes.count(G), codes.count(U), codes.count(B), sum(row[3] for row in rows))
        lo = from_ms + place * width_ms
        found.append(HistoryBucket(lo, lo + width_ms, *values, *counts))  # type: ignore[arg-type, call-arg]
    return found


rows = st.lists(
    st.tuples(
        st.integers(0, 9_999), st.sampled_from((0.0, -0.0, 1.0, -1e9, 1e9, 3.25, 7.5)), st.sampled_from((G, U, B)), st.booleans()
    ),
    max_size=80,
)


@given(rows, st.integers(1, 50))
def test_every_bucket_says_what_a_plain_count_says(rows: list[Row], buckets_max: int) -> None:
    series, width_ms = series_of(rows), bucket_width_ms(0, 10_000, buckets_max)
    found = bucketed(series, 0, width_ms)
    assert list(found) == reference(series, 0, width_ms)
    assert len(found) <= buckets_max
    assert all(0 <= bucket.from_ms < 10_000 for bucket in found)
    assert sum(bucket.good + bucket.uncertain + bucket.bad for bucket in found) == len(rows)


@given(rows, rows, st.integers(1, 20))
def test_more_samples_never_hide_an_extreme(some: list[Row], more: list[Row], buckets_max: int) -> None:
    width_ms = bucket_width_ms(0, 10_000, buckets_max)
    before = bucketed(series_of(some), 0, width_ms)
    after = {bucket.from_ms: bucket for bucket in bucketed(series_of(some + more), 0, width_ms)}
    for bucket in before:
        now = after[bucket.from_ms]
        if bucket.max is not None and bucket.min is not None:
            assert now.max is not None
            assert now.min is not None
            assert now.max >= bucket.max
            assert now.min <= bucket.min


@given(rows, st.integers(1, 2_000))
def test_every_moment_that_is_not_good_is_in_just_one_stretch(rows: list[Row], silence_ms: int) -> None:
    series = series_of(rows)
    found = stretches(series, 0, 10_000, silence_ms)
    assert all(0 <= each.from_ms <= each.to_ms <= 10_000 for each in found)
    assert all(one.to_ms <= other.from_ms for one, other in pairwise(found))
    times, kinds = series.source_ms.tolist(), series.code.tolist()
    ends = [*times[1:], 10_000][: len(times)]
    for at_ms, end_ms, code in zip(times, ends, kinds, strict=True):
        inside = [each.kind for each in found if each.from_ms <= at_ms and end_ms <= each.to_ms and each.from_ms < each.to_ms]
        if end_ms - at_ms > silence_ms:
            assert "no_data" in inside
        elif end_ms > at_ms:
            assert inside == {G: [], U: ["uncertain"], B: ["bad"]}[code]
    for code, kind in ((B, "bad"), (U, "uncertain")):
        for at_ms in (at for at, each in zip(times, kinds, strict=True) if each == code):
            assert any(each.kind == kind and each.from_ms <= at_ms <= each.to_ms for each in found), "a bad sample is always told"


# Bad and uncertain at one moment: the row counts as bad, so what is uncertain to the end is told in two stretches.
@example([(0, 0.0, B, False), (0, 0.0, U, False), (2, 0.0, U, False), (4, 0.0, G, False)], 2, 1)
@given(rows, st.integers(1, 2_000), st.integers(1, 3_000))
def test_rows_of_windows_tell_the_same_stretches_as_their_samples(rows: list[Row], silence_ms: int, width_ms: int) -> None:
    series = series_of(rows)
    pieces = rolled_up(series, width_ms)
    vague = unclear(pieces, silence_ms)
    place = series.source_ms // width_ms * width_ms
    seen = series.take(np.isin(place, pieces.start_ms[vague]))
    exact = stretches(series, 0, 10_000, silence_ms)
    assert joined(stretches_of_rows(pieces, seen, 0, 10_000, silence_ms)) == joined(exact)
    told = spans(stretches_of_rows(pieces, None, 0, 10_000, silence_ms))
    assert all(
        any(lo - width_ms <= other.from_ms and other.to_ms <= hi + width_ms for lo, hi in told) for other in exact
    ), "without the samples every stretch is within what is told, a window more or less, if perhaps as something worse"


def spans(found: list[HistoryStretch]) -> list[tuple[int, int]]:
    """Return the spans of time that stretches cover, of whatever kind; those that touch are one."""
    covered: list[tuple[int, int]] = []
    for each in found:
        if covered and each.from_ms <= covered[-1][1]:
            covered[-1] = (covered[-1][0], max(covered[-1][1], each.to_ms))
        else:
            covered.append((each.from_ms, each.to_ms))
    return covered


def joined(found: list[HistoryStretch]) -> list[HistoryStretch]:
    """Samples at one moment are in no order: leave out stretches of no length, and join what touches and is alike."""
    whole: list[HistoryStretch] = []
    for each in found:
        if whole and whole[-1].kind == each.kind != "no_data" and whole[-1].to_ms == each.from_ms:
            whole[-1] = HistoryStretch(each.kind, whole[-1].from_ms, each.to_ms)
        elif each.from_ms < each.to_ms:
            whole.append(each)
    return whole


S = HistoryStretch


def test_what_cannot_be_read_is_never_told_as_a_gap() -> None:
    found = [S("no_data", 0, 100), S("bad", 100, 200), S("no_data", 200, 900)]
    assert with_damaged(found, []) == found
    assert with_damaged(found, [(50, 60), (300, 400), (350, 450)]) == [
        S("no_data", 0, 50), S("damaged", 50, 60), S("no_data", 60, 100), S("bad", 100, 200), S("no_data", 200, 300),
        S("damaged", 300, 450), S("no_data", 450, 900),
    ]  # fmt: skip
    assert with_damaged(found, [(0, 1_000)]) == [S("damaged", 0, 1_000), S("bad", 100, 200)]
    assert with_damaged([], [(0, 10)]) == [S("damaged", 0, 10)]



@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([], [S("no_data", 0, 1000)], id="nothing at all is one gap"),
        pytest.param([(50, G), (100, G), (900, G)], [S("no_data", 100, 900)], id="silence beyond the limit is a gap"),
        pytest.param([(50, G), (150, G), (250, G)], [S("no_data", 250, 1000)], id="silence at the end is a gap"),
        pytest.param([(400, G), (500, G)], [S("no_data", 0, 400), S("no_data", 500, 1000)], id="and at the beginning"),
        pytest.param([(50, G), (100, B), (150, B), (200, G)],
                     [S("bad", 100, 200), S("no_data", 200, 1000)], id="bad until the first good"),
        pytest.param([(50, B), (60, U), (70, G)],
                     [S("bad", 50, 60), S("uncertain", 60, 70), S("no_data", 70, 1000)], id="bad and uncertain apart"),
        pytest.param([(50, B), (900, B)],
                     [S("bad", 50, 50), S("no_data", 50, 900), S("bad", 900, 1000)], id="bad does not reach over a gap"),
    ],
)  # fmt: skip
def test_stretches(rows: list[tuple[int, int]], found: list[HistoryStretch]) -> None:
    assert stretches(series_of([(at, 1.0, code, False) for at, code in rows]), 0, 1000, 100) == found


def test_too_many_stretches_leave_the_shortest_out_and_say_how_many() -> None:
    found = [S("bad", 10 * at, 10 * at + at) for at in range(9)]
    assert longest(found, 3) == (tuple(found[6:]), 6)
    assert longest(found, 9) == (tuple(found), 0)
