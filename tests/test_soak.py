"""The soak's own ways: every seed is run once, a failing one is told and makes the whole fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import soak


def odd_ones_fail(seed: int) -> str:
    return f"timeline of {seed}" if seed % 2 else ""


def all_pass(seed: int) -> str:
    return ""


@pytest.mark.parametrize(
    ("run", "passed", "failing"),
    [(all_pass, True, []), (odd_ones_fail, False, [1, 3, 5, 7, 9, 11, 13])],
)
def test_every_seed_is_run_and_a_failing_one_is_told(run: Callable[[int], str], passed: bool, failing: list[int]) -> None:
    said: list[str] = []
    assert soak.soak_seeds(range(15), run, said.append) is passed
    assert said[-1].startswith("seeds: 15 run in ")
    assert said[-1].endswith(f"{len(failing)} failing" + (f": {','.join(map(str, failing))}" if failing else ""))
    in_full = {int(line.rpartition(" ")[2]) for line in said if line.startswith("timeline")}
    assert in_full <= set(failing)
    assert len(in_full) == min(len(failing), soak.TIMELINES_MAX)


@pytest.mark.parametrize(
    ("arguments", "asked", "code"),
    [
        ([], ["seeds 0…1999", "memory 10.0"], 0),
        (["--only", "seeds", "--seeds", "30", "--first", "100"], ["seeds 100…129"], 0),
        (["--only", "memory", "--minutes", "0.5"], ["memory 0.5"], 1),
    ],
)
def test_parts_run_in_order_and_one_that_fails_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], asked: list[str], code: int
) -> None:
    ran: list[str] = []

    def seeds(wanted: range) -> bool:
        ran.append(f"seeds {wanted[0]}…{wanted[-1]}")
        return True

    def memory(minutes: float) -> bool:
        ran.append(f"memory {minutes}")
        return minutes > 1

    monkeypatch.setattr(soak, "soak_seeds", seeds)
    monkeypatch.setattr(soak, "soak_memory", memory)
    assert soak.main(arguments) == code
    assert ran == asked
