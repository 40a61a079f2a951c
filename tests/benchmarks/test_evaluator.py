"""B3's verdict on made-up figures, and that its loads are what they are called."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pytest

from alerting import AlarmEngine, LimitTable, Observed, Transition
from benchmarks import b3_evaluator as b3
from benchmarks.__main__ import arguments
from benchmarks.b3_evaluator import MOVING, QUIET, ROUGH, Cell, Load, bare_check, checked_site, doubled, judge, measure
from benchmarks.harness import BenchmarkError
from wire import Quality

TAGS, BATCH = 400, 1_200
WARM_SCANS = 9


def cell(kind: str = QUIET, engine: float = 60.0, bare: float = 100.0, rounds: int = 5) -> Cell:
    """One with the same figures in every round."""
    return Cell(100_000, 100_000, kind, [engine] * rounds, [engine] * rounds, [bare] * rounds)


# -- the verdict --


def test_a_run_inside_all_limits_holds() -> None:
    found = judge([cell(), cell(ROUGH, 30.0), cell(MOVING, 6.0)], 4, {8: [cell(engine=55.0)]})
    assert found.holds
    assert found.ratios["100k tags, batch 100k, quiet"] == 0.6
    assert found.figures["100k tags, batch 100k, quiet"] == {
        "engine": 60.0, "evaluator": 60.0, "bare": 100.0, "judged": "engine",
    }  # fmt: skip
    assert "with 8 limits a tag" in found.text()


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        pytest.param(cell(engine=49.9, bare=99.0), {"100k tags, batch 100k, quiet"}, id="under 50 M/s"),
        pytest.param(cell(bare=121.0), {"100k tags, batch 100k, quiet: to bare"}, id="under half of the bare check"),
        pytest.param(cell(ROUGH, 24.9), {"100k tags, batch 100k, 0.5 % not quiet"}, id="under 25 M/s not quiet"),
        pytest.param(cell(MOVING, 4.9), {"100k tags, batch 100k, 5 % transitions"}, id="under 5 M/s moving"),
    ],
)
def test_each_limit_is_judged_by_itself(found: Cell, missed: set[str]) -> None:
    verdict = judge([found], 4, {})
    assert {name for name, held in verdict.held.items() if not held} == missed
    assert not verdict.holds


@pytest.mark.parametrize(("kind", "engine"), [(QUIET, 40.0), (ROUGH, 20.0)])
def test_the_evaluator_alone_cannot_carry_the_goal_where_the_engine_is_judged(kind: str, engine: float) -> None:
    slow = cell(kind, engine)
    slow.evaluator = [90.0] * 5
    assert not judge([slow], 4, {}).holds


def test_transitions_are_judged_on_the_evaluator_and_the_engine_is_told_beside() -> None:
    found = cell(MOVING, 1.2)
    found.evaluator = [8.0] * 5
    verdict = judge([found], 4, {})
    assert verdict.holds
    assert verdict.figures[found.name] == {"engine": 1.2, "evaluator": 8.0, "bare": 100.0, "judged": "evaluator"}
    assert "evaluator >= 5" in verdict.text()
    assert "judged on the evaluator alone" in verdict.text()
    found.engine, found.evaluator = [60.0] * 5, [4.9] * 5
    assert not judge([found], 4, {}).holds


def test_a_ratio_is_of_one_round_and_the_median_counts() -> None:
    found = cell()
    found.engine, found.bare = [10.0, 60.0, 60.0, 60.0, 90.0], [100.0, 100.0, 80.0, 100.0, 100.0]
    assert found.ratio == 0.6


def test_nothing_measured_is_no_outcome() -> None:
    with pytest.raises(BenchmarkError, match="no cell"):
        judge([], 4, {})


def test_limits_are_four_unless_asked_for_eight() -> None:
    assert (arguments().parse_args(["B3"]).limits, arguments().parse_args(["B3", "--limits", "8"]).limits) == (4, 8)


# -- the load --


def told(kind: str, seed: int = 1) -> tuple[AlarmEngine, list[Observed], list[list[Transition]]]:
    """Run a small load past its start; returns the next batches and what each did."""
    engine, load = AlarmEngine(LimitTable.compile(checked_site(TAGS))), Load(TAGS, BATCH, kind, seed)
    for batch in load.batches(WARM_SCANS * TAGS):
        engine.samples(0, batch)
    batches = load.batches(4 * BATCH)
    return engine, batches, [engine.samples(0, batch) for batch in batches]


@pytest.mark.parametrize("kind", [QUIET, ROUGH, MOVING])
def test_a_load_has_the_share_of_transitions_it_is_named_after(kind: str) -> None:
    _, batches, made = told(kind)
    assert [len(batch) for batch in batches] == [BATCH] * 4
    assert [len(steps) for steps in made] == [round(BATCH * 0.05) if kind == MOVING else 0] * 4


def test_quiet_samples_are_all_inside_their_bands_and_rough_ones_are_not() -> None:
    def share(kind: str) -> float:
        engine, batches, _ = told(kind)
        batch = batches[-1]
        rough, _ = engine._evaluator.bands.outside(batch.tag.astype(np.intp), batch.value, batch.code)
        return 0.0 if rough is None else len(rough) / len(batch)

    assert share(QUIET) == 0.0
    assert share(ROUGH) > 0.0


def test_a_scan_holds_every_tag_once_in_frames_of_neighbours_and_has_bad_and_uncertain_ones() -> None:
    (batch,) = Load(TAGS, TAGS, QUIET, 1).batches(TAGS)
    assert sorted(batch.tag.tolist()) == list(range(TAGS))
    steps = np.diff(batch.tag)[np.diff(batch.frame) == 0]
    assert (steps == 1).all()
    assert len(batch.frames) == TAGS // b3.FRAME == batch.frame[-1] + 1
    bad = batch.code < Quality.UNCERTAIN
    assert bad.sum() == TAGS * b3.BAD_SHARE
    assert np.isnan(batch.value[bad]).all()
    assert (batch.code[~bad] < Quality.GOOD).any()


def test_the_load_is_the_seeds() -> None:
    def values(seed: int) -> Iterable[float]:
        (batch,) = Load(TAGS, TAGS, QUIET, seed).batches(TAGS)
        return batch.value[batch.code >= Quality.GOOD].tolist()

    assert values(3) == values(3) != values(4)


@pytest.mark.parametrize(("number", "found"), [(0, False), (1, True)])
def test_the_bare_check_finds_a_good_value_over_a_limit_and_no_other(number: int, found: bool) -> None:
    (batch,) = Load(TAGS, TAGS, QUIET, 1).batches(TAGS)
    low, high = np.full(TAGS, 20.0), np.full(TAGS, 80.0)
    place = np.flatnonzero(batch.code >= Quality.GOOD)[0] if number else np.flatnonzero(batch.code < Quality.GOOD)[0]
    batch.value[place] = 99.0
    assert bare_check(batch, low, high) is found


def test_eight_limits_lie_a_little_outside_the_four() -> None:
    table = doubled(LimitTable.compile(checked_site(TAGS)))
    assert table.rows == 8 * TAGS
    assert dict(zip(table.limit[:8], table.setpoint[:8].tolist(), strict=True)) == {
        "LL": 10.0, "LL2": 9.0, "L": 20.0, "L2": 19.0, "H": 80.0, "H2": 81.0, "HH": 90.0, "HH2": 91.0,
    }  # fmt: skip


# -- the run --


def test_a_short_run_measures_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b3, "SLICE_SAMPLES", dict.fromkeys(b3.SHARE, 2_000))
    monkeypatch.setattr(b3, "SLICES", 1)
    cells = list(measure(4, (TAGS,), (TAGS, BATCH), 2, 1))
    assert [(each.batch, each.kind) for each in cells] == [(TAGS, QUIET), (BATCH, QUIET), (BATCH, ROUGH), (BATCH, MOVING)]
    for each in cells:
        assert [len(column) for column in (each.engine, each.evaluator, each.bare)] == [2, 2, 2]
        assert min(each.engine + each.evaluator + each.bare) > 0


def test_run_judges_what_the_command_line_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b3, "TAGS", (TAGS,))
    monkeypatch.setattr(b3, "BATCHES", (BATCH,))
    monkeypatch.setattr(b3, "SLICE_SAMPLES", dict.fromkeys(b3.SHARE, 2_000))
    monkeypatch.setattr(b3, "SLICES", 1)
    found = b3.run(argparse.Namespace(limits=8, steps=1, seed=1))
    assert "8 limits a tag" in found.title
    assert len(found.rows) == 4
    assert any("with 4 limits" in note for note in found.notes)
