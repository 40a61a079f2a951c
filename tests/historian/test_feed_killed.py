"""A feeder killed at every step, and a store that forgets what it answered for: nothing is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.samples import Samples
from gateway.historian.segments.durable import hook_steps
from gateway.historian.store import Written
from tests.historian.feeding import AWAY, Gateway, Store, done, gateway, same, turn


class Killed(BaseException):
    """SIGKILL: no handler of ours sees it."""


def scenario(made: Gateway, store: Store, feed_of: Callable[[], Any]) -> None:
    """Live, an outage, sealing, catching up: what a feeder does, as one story that may end anywhere."""
    feed = feed_of()
    for step in range(5):
        if made.number < 12 * (step + 1):
            made.frames(12 * (step + 1) - made.number)
        store.away = AWAY if step in (1, 2) else None
        for _ in range(2):
            made.clock.now_s += max(1.5, feed.round())
        made.clock.now_s += 20
        if step in (2, 3):
            made.seal()
    turn(feed, made.clock, done(feed, made))
    made.clock.now_s += 10
    feed.round()
    feed.close()


class Points:
    """Numbers the moments between steps, and kills at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.passed = kill_at, 0

    def __call__(self, name: str) -> None:
        self.passed += 1
        if self.passed == self.kill_at:
            raise Killed(name)


class WatchedStore(Store):
    """Passes a point before and after every write."""

    def __init__(self) -> None:
        super().__init__()
        self.points: Callable[[str], None] = lambda _: None

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        self.points("before write")
        written = super().write(samples, deadline_s)
        self.points("after write")
        return written


def run_story(folder: Path, kill_at: int) -> int:
    """Run the story, killed once at a point, then to its end; return how many points it has."""
    with gateway(folder, tags=8) as made:
        store = WatchedStore()
        points = Points(kill_at)
        store.points = points

        def feed_of() -> Any:
            return made.feed(lambda: store, catch_up_rows_per_s=5_000)

        feeding = {"on": True}
        hook_steps(lambda name: points(name) if (feeding["on"] and "plant.json" in name) or "feeds" in name else None)
        try:
            scenario(made, store, feed_of)
        except Killed:
            scenario(made, store, feed_of)
        finally:
            hook_steps(None)
        assert same(store.held(), made.all()), f"killed at point {kill_at}"
        assert made.kept().holes == ()
        assert made.kept().live == made.pos
        return points.passed


@pytest.mark.fault("F33")
@pytest.mark.parametrize("part", range(4))
def test_a_feeder_killed_at_any_step_loses_nothing(tmp_path: Path, part: int) -> None:
    """Every one of them, a quarter in each test."""
    points = run_story(tmp_path / "whole", 0)
    assert points > 40
    for kill_at in range(1 + part, points + 1, 4):
        run_story(tmp_path / str(kill_at), kill_at)


class Forgetful(Store):
    """Keeps what it has answered for only after some seconds, as VictoriaMetrics does; tells its processes apart."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.clock, self.process, self.first = clock, 1, 0
        self.fresh: list[tuple[float, Samples]] = []

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        self.fresh.append((self.clock.now_s, samples))
        self.settle()
        return Written(len(samples), durable=False)

    def settle(self) -> None:
        while self.fresh and self.clock.now_s - self.fresh[0][0] >= 5.0:
            super().write(self.fresh.pop(0)[1])

    def kill(self) -> None:
        self.settle()
        self.fresh.clear()
        self.process += 1

    def close(self) -> None:
        self.first = 0  # the next that is opened looks anew

    def restarted(self) -> bool:
        self.first = self.first or self.process
        return self.first != self.process


@pytest.mark.parametrize("kills", [(3,), (1, 2), (5, 20, 21), (0, 7, 14, 28)])
def test_what_a_store_forgets_in_a_kill_is_sent_again(tmp_path: Path, kills: tuple[int, ...]) -> None:
    with gateway(tmp_path) as made:
        store = Forgetful(made.clock)
        feed = made.feed(lambda: store, kind="victoriametrics")
        for step in range(30):
            made.frames(5)
            if step == 10:
                made.seal()
            for _ in range(4):
                made.clock.now_s += max(0.25, feed.round())
            if step in kills:
                store.kill()
        turn(feed, made.clock, lambda: (made.historian / "feeds" / "plant.json").exists() and made.kept().live == made.pos
             and not made.kept().holes)  # fmt: skip
        store.kill()
        assert same(store.held(), made.all()), "the cursor stands only behind what survives a kill"
        feed.close()
