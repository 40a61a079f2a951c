"""The world is worth its time only if it finds what is wrong: each planted bug within the seeds of `make test`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.planted import ack_before_commit, bad_lowers, outbox_on_its_own
from tests.simulation.running import SEEDS_IN_TESTS, run_seed


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        pytest.param(ack_before_commit, "P1", id="ack before commit"),
        pytest.param(bad_lowers, "P2", id="a BAD sample lowers a level"),
        pytest.param(outbox_on_its_own, "P3", id="outbox row outside the transaction"),
    ],
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS_IN_TESTS):
        outcome = run_seed(seed, tmp_path / str(seed))
        if outcome.violations:
            assert rule in outcome.rules, str(outcome)
            assert f"HAZARDGATE_SEEDS={seed} " in str(outcome)
            return
    pytest.fail(f"no seed below {SEEDS_IN_TESTS} found it")
