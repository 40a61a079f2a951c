"""Runs one seed of the world and asks the oracle: for the tests, the planted bugs and the soak."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulators.world import Record
from simulators.world.world import run_world
from tests.simulation.books import read_books
from tests.simulation.facts import Violation
from tests.simulation.oracle import check
from tests.simulation.timeline import SEEDS_VARIABLE, timeline

SEEDS_IN_TESTS = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run and what is wrong with it."""

    record: Record
    violations: Sequence[Violation]

    @property
    def rules(self) -> set[str]:
        """The promises that were broken."""
        return {violation.rule for violation in self.violations}

    def __str__(self) -> str:
        return timeline(self.record, self.violations)


def run_seed(seed: int, folder: Path) -> Outcome:
    """Run a seed from its start to its end, in virtual time, on an empty folder."""
    record = run_world(seed, folder)
    return Outcome(record, check(record, read_books(record)))


def chosen_seeds(default: int = SEEDS_IN_TESTS) -> list[int]:
    """Return the seeds to run: `HAZARDGATE_SEEDS` as `17`, `3,5` or `100-199`, else the first ones.

    Raises:
        ValueError: the variable holds something else.
    """
    text = os.environ.get(SEEDS_VARIABLE, "")
    if not text:
        return list(range(default))
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    return seeds
