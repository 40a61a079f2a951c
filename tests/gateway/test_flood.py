"""A flood in front of a disk that takes nothing: core's memory stays within its bounds, and a kill costs nothing committed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL
from tests.gateway.flooded_core import MIB
from tests.patience import GUARD_S
from tests.system.chain import ROOT

BOUND_MIB = 8
SLACK = 8 * MIB  # what Python and numpy take once, whatever waits


@pytest.mark.fault("F70")
@pytest.mark.parametrize("kind", ["quiet", "alarming", "inbox"])
def test_memory_is_bounded_and_what_was_committed_survives_the_kill(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gateway.flooded_core", str(tmp_path / "core"), kind, str(BOUND_MIB)],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * GUARD_S,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = json.loads(done.stdout)
    assert told["full_at"] > 0, "it came to the point where nothing more is kept"
    assert told["overflow"] is (kind != "inbox")
    assert told["grown"] <= 1.5 * BOUND_MIB * MIB + SLACK, f"{told['grown'] / MIB:.0f} MiB for {BOUND_MIB} MiB"
    again = Bench(tmp_path / "core")
    try:
        assert again.recovered.differences == ()
        assert (LEVEL, "H") in again.standing()
    finally:
        again.close()
