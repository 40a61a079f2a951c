"""The figures, the table, the closing line and the exit code. No benchmark is run here."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.__main__ import EXIT_MISSED, EXIT_REFUSED, MODULES, main
from benchmarks.harness import BenchmarkError, Outcome, RawDisk, closing_line, percentile, spread, table

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


def outcome(name: str = "B0", *, held: bool = True) -> Outcome:
    """One with a goal of one part."""
    made = Outcome(name, "a test", "nothing is on any disk", figures={"p50_ms": 3.0}, ratios={"to_bare": 2.0})
    made.goal, made.held = {"p50_ms": 10.0}, {"p50_ms": held}
    made.rows = [["", "p50"], ["ours", "3.00"]]
    return made


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 50, id="the median of an even count is the lower middle"),
        pytest.param(0.99, 99, id="99 of 100 values are at most the p99"),
        pytest.param(0.991, 100, id="never below its share"),
        pytest.param(1.0, 100, id="the maximum"),
        pytest.param(0.001, 1, id="the minimum"),
    ],
)
def test_percentiles_are_measured_values(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


@given(VALUES, st.floats(0.001, 1.0))
def test_a_percentile_has_its_share_at_or_below_it_and_less_below_it(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


@given(VALUES)
def test_a_spread_is_in_order_and_whatever_order_it_was_measured_in(values: list[float]) -> None:
    found = spread(values)
    assert found.p50 <= found.p99 <= found.max == max(values)
    assert found == spread(values[::-1])
    assert found.count == len(values)


def test_what_was_not_measured_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_the_closing_line_is_the_object_of_the_interface() -> None:
    assert json.loads(closing_line([outcome("B2")])) == {
        "id": "B2", "figures": {"p50_ms": 3.0}, "ratios": {"to_bare": 2.0}, "goal": {"p50_ms": 10.0}, "holds": True,
    }  # fmt: skip


def test_several_close_with_one_object_that_holds_only_if_all_do() -> None:
    found = json.loads(closing_line([outcome("B1"), outcome("B2", held=False)]))
    assert found["id"] == "all"
    assert found["figures"].keys() == {"B1", "B2"}
    assert found["holds"] is False
    assert json.loads(closing_line([outcome("B1"), outcome("B2")]))["holds"] is True


def test_a_figure_that_is_no_number_cannot_hide_in_the_closing_line() -> None:
    broken = outcome()
    broken.figures["p50_ms"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        closing_line([broken])


@pytest.mark.parametrize(
    ("goal", "held"),
    [
        pytest.param({}, {}, id="no goal"),
        pytest.param({"p50_ms": 1.0, "p99_ms": 2.0}, {"p50_ms": True}, id="a part that nobody judged"),
        pytest.param({"p50_ms": 1.0}, {"p50_ms": False}, id="a part that was missed"),
    ],
)
def test_nothing_holds_that_was_not_shown(goal: dict[str, float], held: dict[str, bool]) -> None:
    made = outcome()
    made.goal, made.held = dict(goal), held
    assert not made.holds


def test_the_text_names_durability_misses_and_missing_peers() -> None:
    made = outcome(held=False)
    made.missing = ["Prometheus: not installed here"]
    text = made.text()
    assert "durability: nothing is on any disk" in text
    assert "MISSED  p50_ms (goal 10.0)" in text
    assert "missing: Prometheus: not installed here" in text


def test_a_table_is_aligned_under_wide_characters_too() -> None:
    lines = table([["", "p50"], ["裸链路", "1.00"], ["ours", "10.00"]])
    assert lines == ["          p50", "-------------", "裸链路   1.00", "ours    10.00"]


def test_the_raw_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = RawDisk(tmp_path)
    assert disk.once_ms() > 0
    assert disk.once_ms() > 0
    disk.close()
    assert not list(tmp_path.iterdir())


# -- the command --


def stand_in(monkeypatch: pytest.MonkeyPatch, *found: Outcome | BenchmarkError) -> dict[str, str]:
    """Benchmarks that find what they are told, under the ids B100, B101 …"""
    modules = {}
    for number, what in enumerate(found, 100):
        name = f"tests.benchmarks.stand_in_{number}"

        def run(options: argparse.Namespace, what: Outcome | BenchmarkError = what) -> Outcome:
            if isinstance(what, BenchmarkError):
                raise what
            what.figures["steps"] = options.steps
            return what

        monkeypatch.setitem(sys.modules, name, SimpleNamespace(run=run))
        modules[f"B{number}"] = name
    return modules


@pytest.mark.parametrize(("held", "code"), [(True, 0), (False, EXIT_MISSED)])
def test_the_exit_code_says_whether_the_goal_holds(
    held: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = stand_in(monkeypatch, outcome("B100", held=held))
    assert main(["B100", "--steps", "7"], modules) == code
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["id"], last["holds"], last["figures"]["steps"]) == ("B100", held, 7)


def test_all_runs_all_of_them_and_one_miss_is_a_miss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = stand_in(monkeypatch, outcome("B100", held=False), outcome("B101"))
    assert main(["all"], modules) == EXIT_MISSED
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [found["id"] for found in objects] == ["B100", "B101", "all"]


def test_an_unknown_id_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["B99"]) == EXIT_REFUSED
    said = capsys.readouterr()
    assert "B99" in said.err
    assert all(name in said.err for name in MODULES)
    assert not said.out


def test_what_could_not_be_measured_is_an_error_and_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = stand_in(monkeypatch, BenchmarkError("the broker did not come up"))
    assert main(["B100"], modules) == EXIT_REFUSED
    said = capsys.readouterr()
    assert "B100: the broker did not come up" in said.err
    assert not said.out


@pytest.mark.parametrize("steps", ["0", "-1", "many"])
def test_a_run_of_no_steps_is_refused(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["B2", "--steps", steps])
    assert ended.value.code == EXIT_REFUSED
    assert "--steps" in capsys.readouterr().err
