"""Aggregates by window, held against a plain reference, whole and put together from pieces."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.windows import (
    ROLLUP_COLUMNS,
    Rollups,
    columns_for,
    combined,
    interleaved,
    joined,
    left_out,
    no_rollups,
    no_windows,
    rolled_up,
    windows_of,
)
from tests.historian.reference import Row, reference_windows, rows_of, same_means, samples_of, told
from wire import Quality, Reason, quality_code

G, U = quality_code(Quality.GOOD), quality_code(Quality.UNCERTAIN, Reason.RANGE)
B = quality_code(Quality.BAD, Reason.COMM)


def row_of(tag: str, source_ms: int, value: float, code: int, late: bool) -> Row:
    return Row(tag, source_ms, math.nan if code == B else value, code, math.nan, late)


values = st.sampled_from((0.0, -0.0, 1.0, -1e9, 1e9, 3.25, 7.5))
rows = st.lists(
    st.builds(row_of, st.sampled_from("ABC"), st.integers(-500, 9_999), values, st.sampled_from((G, U, B)), st.booleans()),
    max_size=60,
)
distinct = st.lists(
    st.builds(row_of, st.sampled_from("ABC"), st.integers(-500, 9_999), values, st.sampled_from((G, U, B)), st.booleans()),
    max_size=60, unique_by=lambda row: (row.tag, row.source_ms),
)  # fmt: skip


@given(rows, st.integers(1, 4_000), st.integers(-3_000, 3_000))
def test_every_window_says_what_a_plain_count_says(rows: list[Row], width_ms: int, origin_ms: int) -> None:
    found = windows_of(samples_of(rows).in_order(), width_ms, origin_ms)
    assert sorted(found) == sorted({row.tag for row in rows})
    for tag, windows in found.items():
        said, means = told(windows)
        wanted, wanted_means = reference_windows(rows, tag, -500, 10_000, width_ms, origin_ms)
        assert said == wanted
        assert same_means(means, wanted_means)


@given(distinct, st.integers(1, 400), st.integers(1, 9), st.lists(st.integers(-500, 9_999), max_size=5))
def test_pieces_cut_anywhere_together_say_what_the_whole_says(
    rows: list[Row], fine_ms: int, times: int, cuts: list[int]
) -> None:
    """As seals do: each piece rolled up for itself, put together to windows of several widths."""
    edges = [-501, *sorted(cuts), 10_000]
    whole = samples_of(rows)
    pieces = [
        rolled_up(whole.take((whole.source_ms >= lo) & (whole.source_ms < hi)).in_order(), fine_ms)
        for lo, hi in pairwise(edges)
    ]
    assert not interleaved(joined(pieces)).any()
    found = combined(joined(pieces[::-1]), fine_ms * times)
    for tag in {row.tag for row in rows}:
        said, means = told(found[tag])
        wanted, wanted_means = reference_windows(rows, tag, -500, 10_000, fine_ms * times, 0)
        assert said == wanted
        assert same_means(means, wanted_means)


@given(rows, st.lists(st.integers(0, 3), min_size=60, max_size=60), st.integers(1, 4_000))
def test_pieces_that_lie_in_each_other_are_found(rows: list[Row], owners: list[int], width_ms: int) -> None:
    whole = samples_of(rows)
    owner = np.array(owners[: len(rows)], np.int64)
    pieces = joined([rolled_up(whole.take(owner == at).in_order(), width_ms) for at in range(4)])
    found = interleaved(pieces)
    spans = list(zip(pieces.tag.tolist(), pieces.from_ms.tolist(), pieces.to_ms.tolist(), strict=True))
    for at, (tag, lo, hi) in enumerate(spans):
        touched = any(
            tag == other and lo <= end and begin <= hi for to, (other, begin, end) in enumerate(spans) if to != at
        )
        assert found[at] or not touched
    if not any(
        tag == other and lo <= end and begin <= hi
        for at, (tag, lo, hi) in enumerate(spans) for other, begin, end in spans[at + 1 :]
    ):  # fmt: skip
        assert not found.any()


def test_nothing_is_nothing() -> None:
    assert windows_of(samples_of([]), 10) == {}
    assert combined(no_rollups(("A",)), 10) == {}
    assert (len(no_windows(10)), len(joined([])), len(interleaved(no_rollups()))) == (0, 0, 0)
    assert rows_of(samples_of([])) == []


columns = st.sets(st.sampled_from(("first", "last_ms", "min", "min_ms", "max_ms", "mean", "silence_ms", "late")))


@given(distinct, st.integers(1, 400), columns)
def test_columns_that_are_left_out_change_nothing_in_the_others(rows: list[Row], fine_ms: int, wanted: set[str]) -> None:
    whole = rolled_up(samples_of(rows).in_order(), fine_ms)
    kept = columns_for(wanted)
    some = Rollups(
        whole.names, *(getattr(whole, name) if name in kept else left_out(name, len(whole)) for name in ROLLUP_COLUMNS)
    )
    order = np.random.default_rng(1).permutation(len(whole))
    found = combined(joined([some.take(order[::2]), some.take(order[1::2])]), fine_ms * 3)
    for tag, windows in combined(whole, fine_ms * 3).items():
        for name in {"start_ms", "good", "uncertain", "bad", *wanted}:
            assert np.array_equal(getattr(found[tag], name), getattr(windows, name), equal_nan=True) or name == "mean"
