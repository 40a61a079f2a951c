"""Core, edges and broker are killed at random moments, twenty times; then everything is counted.

The seed stands in the test's id and is new in every run; `HAZARDGATE_SEED=n` runs one again.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from pathlib import Path

import pytest

from edge import SpooledSample
from tests.system.books import nothing_missing, same_alarms_after_restart, settle, stop_edges
from tests.system.chain import Chain, running_chain

pytestmark = pytest.mark.system

SEED = int(os.environ.get("HAZARDGATE_SEED") or random.SystemRandom().randrange(10**6))
TARGETS = ("core",) * 7 + ("E1",) * 4 + ("E2",) * 3 + ("broker",) * 6
MOMENT_S = (0.2, 2.4)
DOWN_S = (0.0, 1.0)
HEAL_CHANCE = 0.4  # else the next kill comes wherever the healing stands


class Killer:
    """Kills parts of a chain at moments that its seed draws, and keeps what must not be lost."""

    def __init__(self, chain: Chain, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chain, self._random, self._monkeypatch = chain, random.Random(seed), monkeypatch
        self.taken: dict[str, list[SpooledSample]] = defaultdict(list)
        self.kills = 0
        self.open_alarms: list[int] = []

    def order(self, targets: tuple[str, ...]) -> list[str]:
        return self._random.sample(targets, len(targets))

    def strike(self, target: str) -> None:
        """Wait for the moment, kill, look at what is on the disk, start it again after a while."""
        time.sleep(self._random.uniform(*MOMENT_S))  # the random moment itself: nothing is waited for
        back_at = time.monotonic() + self._random.uniform(*DOWN_S)
        self.kills += 1
        if target == "broker":
            self.chain.broker.kill()
            _sleep_until(back_at)
            self.chain.broker.start()
        elif target == "core":
            self.chain.core.kill()
            self.open_alarms.append(same_alarms_after_restart(self.chain, f"kill-{self.kills}", self._monkeypatch))
            _sleep_until(back_at)
            self.chain.core.start()
        else:
            self.chain.edges[target].kill()
            self.taken[target] += self.chain.spool(target)
            _sleep_until(back_at)
            self.chain.edges[target].start()
        if self._random.random() < HEAL_CHANCE:
            self.chain.wait_healed()


def _sleep_until(moment_s: float) -> None:
    time.sleep(max(0.0, moment_s - time.monotonic()))


@pytest.mark.timeout(600)
@pytest.mark.fault("F30")
@pytest.mark.fault("F32")
@pytest.mark.parametrize("seed", [SEED])
def test_twenty_kills_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    began = time.monotonic()
    print(f"HAZARDGATE_SEED={seed}")
    with running_chain(tmp_path / "chain", seed=seed) as chain:
        killer = Killer(chain, seed, monkeypatch)
        for target in killer.order(TARGETS):
            killer.strike(target)
        killed_s = time.monotonic() - began
        chain.wait_healed()
        stop_edges(chain)
        books = settle(chain)
        chain.core.stop()
        killer.open_alarms.append(same_alarms_after_restart(chain, "stopped", monkeypatch))
        for part in (chain.plant, chain.platform):
            part.stop()
        nothing_missing(chain, books, killer.taken)
        assert books.verdict.late > 0, "no excursion fell into an outage: the run proved less than it should"
        assert sum(map(len, killer.taken.values())) > 0
        received = [line for line in chain.received() if line["type"] != "heartbeat"]
        print(
            f"{killer.kills} kills in {killed_s:.0f} s; {len(books.found.frames)} frames,"
            f" {len(books.found.samples)} samples, {books.found.stored_twice} frames came twice;"
            f" {sum(map(len, killer.taken.values()))} samples seen on dead edges' disks;"
            f" {books.verdict.present} present and {books.verdict.late} late transitions;"
            f" {len(received)} webhooks, {sum(bool(line['duplicate']) for line in received)} of them again;"
            f" open alarms at core's ends {killer.open_alarms}; {time.monotonic() - began:.0f} s in all"
        )
