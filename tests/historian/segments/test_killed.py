"""Death at any step of sealing, packing, letting go and loading loses nothing and doubles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.fault("F73")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("scenario", "steps_min"), [("seal", 80), ("pack", 120), ("retention", 120), ("load", 40)])
def test_killed_at_every_step_it_goes_on_as_if_nothing_had_been(tmp_path: Path, scenario: str, steps_min: int) -> None:
    command = [sys.executable, "-m", "tests.historian.segments.killer", scenario, str(tmp_path / "k")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=880)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["steps"] >= steps_min
