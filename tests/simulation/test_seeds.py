"""Fifty worlds full of faults, each from its seed: whatever breaks, every promise holds, and then everything arrives.

The seed in a test's id replays it: `HAZARDGATE_SEEDS=17 make test ARGS=tests/simulation`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators.world import Healed, Noticed, Taken
from tests.simulation.running import chosen_seeds, run_seed


@pytest.mark.parametrize("seed", chosen_seeds())
def test_every_promise_holds(seed: int, tmp_path: Path) -> None:
    outcome = run_seed(seed, tmp_path)
    if outcome.violations:
        pytest.fail(str(outcome), pytrace=False)
    # A world in which nothing happens keeps every promise.
    assert any(outcome.record.of(Healed))
    assert sum(1 for _ in outcome.record.of(Taken)) > 20
    assert any(notice.kind == "raised" for notice in outcome.record.of(Noticed))


@pytest.mark.parametrize(
    ("text", "seeds"), [("", [0, 1]), ("17", [17]), ("3,5", [3, 5]), ("8-10", [8, 9, 10]), ("1,8-9", [1, 8, 9])]
)
def test_seeds_are_chosen_by_a_variable(monkeypatch: pytest.MonkeyPatch, text: str, seeds: list[int]) -> None:
    monkeypatch.setenv("HAZARDGATE_SEEDS", text)
    assert chosen_seeds(2) == seeds
