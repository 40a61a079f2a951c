"""A day without a store: what the others do meanwhile, and that nothing is missing once it is back.

Real ledger, real sealing, packing and removal, real InfluxDB; the clock is the test's, so a day takes some seconds.
That alarms wait for none of it is measured: `make bench ID=B2-outage`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import HistorianConfig
from gateway.core.ledger import Batch
from gateway.core.retention import Removable, removable_before
from gateway.core.sealed import SealedSegments
from gateway.historian.feed_run import Feed
from gateway.historian.influx import open_store
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.owner import Owner
from gateway.historian.segments.seal import Places
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import AlarmEvent, Historian
from tests.historian.feeding import T0, Gateway, Store, done, gateway, turn
from tests.serve.fakes import SITE
from tests.stores import INFLUXD, StoreServer, ask, needs_influxd, store_config

TAGS = 20
SCAN_S = 10
STEP_S = 600
HOUR_STEPS = 6
BEHIND = "CORE.STORE-plant.BEHIND"
NOT_SEALED = "CORE.HISTORIAN.BEHIND"


@dataclass
class Plant:
    """A gateway in small with everything that a historian does on it, turned ten minutes at a time."""

    made: Gateway
    feed: Feed
    owner: Owner = field(init=False)
    standing: set[str] = field(default_factory=set)
    alarms: list[AlarmEvent] = field(default_factory=list)
    _first: int = 1

    def __post_init__(self) -> None:
        wall_ms = self.made.clock.clocks().wall_ms
        self.owner = Owner(
            self.made.historian, LedgerLog(self.made.path, SITE.site), Places(SITE), HistorianConfig(seal_s=STEP_S / 2), wall_ms,
            lambda: [self.feed.status()],
        )  # fmt: skip
        self.owner.begin()
        self._eyes = SealedSegments(self.made.historian, self.made.ledger.ledger_id, (), STEP_S / 2, T0)

    def step(self) -> None:
        """Ten minutes: frames come, are sealed and packed, leave the ledger where core lets them, and the store is fed."""
        self.made.frames(STEP_S // SCAN_S, step_ms=SCAN_S * 1_000)
        self.made.clock.now_s += STEP_S
        for _ in range(4):
            self.made.clock.now_s += self.feed.round() * 1e-3
        self.settle()

    def hours(self, count: int) -> None:
        """Let hours pass, with an alarm each."""
        for _ in range(count):
            self.alarms.append(self.made.alarm(len(self.alarms) * 3_600_000 + 1))
            for _ in range(HOUR_STEPS):
                self.step()

    def settle(self) -> None:
        """Let the owner do what is due, and core look at it and remove what it may."""
        for _ in range(100):
            if self.owner.round() > 0:
                break
        sealed = self._eyes.look(self.made.ledger.reader, self._first - 1, self.made.clock.now_ms, sorted(self.standing))
        for told in sealed.told:
            (self.standing.add if told.standing else self.standing.discard)(told.key)
        before = removable_before(sealed.cursor, self.made.pos)
        while self._first < before and self.made.ledger.commit([Batch(removable=Removable(self._first, before))]).pruned:
            pass
        self._first = max(self._first, before)

    def status(self) -> dict[str, Any]:
        """What serve says in status.json."""
        found: dict[str, Any] = json.loads((self.made.historian / "status.json").read_text(encoding="utf-8"))
        return found

    def frames_in_ledger(self) -> int:
        found = self.made.ledger.reader.rows("SELECT count(*) FROM log WHERE kind = 'F'")
        return int(found[0][0])


@contextlib.contextmanager
def plant(made: Gateway, feed: Feed) -> Iterator[Plant]:
    found = Plant(made, feed)
    try:
        yield found
    finally:
        found.owner.close()


def by_day(samples: Samples) -> dict[int, tuple[int, int]]:
    """Rows and digest of every UTC day."""
    days = samples.source_ms // DAY_MS * DAY_MS
    return {day: _told(samples.take(days == day)) for day in np.unique(days).tolist()}


def held(store: Historian) -> dict[int, tuple[int, int]]:
    """Rows and digest of every UTC day that a store holds."""
    return {day: _told(concatenated([*store.day(day)])) for day in store.days()}


def _told(samples: Samples) -> tuple[int, int]:
    return len(samples), samples.digest()


@pytest.mark.fault("F33")
@needs_influxd
def test_after_a_day_without_influxdb_it_holds_what_it_would_hold_without_the_outage(tmp_path: Path) -> None:
    server = StoreServer(INFLUXD, tmp_path / "influxd")
    config = store_config(server, id="plant")
    with gateway(tmp_path / "data", TAGS) as made, contextlib.ExitStack() as ends:
        ends.callback(server.stop)
        server.start()
        ask(server, 'CREATE DATABASE "hazardgate"')
        feed = made.feed(lambda: open_store(config, SITE.site), url=server.url, batch_rows=5_000)
        with plant(made, feed) as running:
            running.hours(1)
            turn(feed, made.clock, done(feed, made))
            running.settle()
            assert running.status()["stores"][0]["state"] == "live"

            server.kill()
            running.hours(24)

            (told,) = running.status()["stores"]
            assert told["state"] == "away"
            assert told["lag_rows"] >= 24 * 3_600 // SCAN_S
            assert told["lag_ms"] >= 23 * 3_600_000
            assert BEHIND in running.standing
            assert NOT_SEALED not in running.standing
            assert running.frames_in_ledger() <= HOUR_STEPS * STEP_S // SCAN_S, "what it missed comes from segments alone"
            whole = by_day(made.all())
            assert held(EmbeddedHistorian(made.historian)) == whole

            server.start()
            made.clock.now_s += 60.0
            turned = turn(feed, made.clock, done(feed, made))
            assert turned.states[0] != "live"
            assert "catching up" in turned.states
            running.settle()
            made.clock.now_s += 60.0
            running.settle()
            assert running.status()["stores"][0]["state"] == "live"
            assert BEHIND not in running.standing

            store = open_store(config, SITE.site)
            ends.callback(store.close)
            assert held(store) == whole
            assert sum(rows for rows, _ in whole.values()) == 25 * 3_600 // SCAN_S * TAGS
            assert [*store.events(T0, T0 + 2 * DAY_MS)] == running.alarms
        feed.close()


@pytest.mark.fault("F33")
def test_a_day_in_which_nothing_can_be_sealed_costs_room_in_the_ledger_and_nothing_else(tmp_path: Path) -> None:
    """The folder of samples is not to be reached; the feed of the other store goes on, and afterwards nothing is missing."""
    with gateway(tmp_path, TAGS) as made:
        store = Store()
        feed = made.feed(lambda: store, batch_rows=5_000)
        with plant(made, feed) as running:
            running.hours(1)
            samples = made.historian / "samples"
            samples.rename(tmp_path / "taken away")
            samples.write_text("no folder", encoding="utf-8")
            sealed = running.status()["cursor"]

            running.hours(24)

            assert running.owner.trouble
            assert running.status()["cursor"] == sealed > 0
            assert NOT_SEALED in running.standing
            assert running.frames_in_ledger() >= 24 * 3_600 // SCAN_S, "unsealed rows are never removed"
            assert feed.status()["state"] == "live"
            assert held(store) == by_day(made.all()), "what is fed beside does not wait for our own"

            samples.unlink()
            (tmp_path / "taken away").rename(samples)
            running.hours(1)

            assert not running.owner.trouble
            assert running.status()["damaged"] == [], "what could not be reached was never damaged"
            assert NOT_SEALED not in running.standing
            assert held(EmbeddedHistorian(made.historian)) == by_day(made.all()) == held(store)
            assert running.frames_in_ledger() <= HOUR_STEPS * STEP_S // SCAN_S
        feed.close()


@pytest.mark.parametrize("steps", [1, 7])
def test_the_plant_of_these_tests_seals_and_removes_as_time_passes(tmp_path: Path, steps: int) -> None:
    with gateway(tmp_path, TAGS) as made, plant(made, made.feed(Store)) as running:
        for _ in range(steps):
            running.step()
        assert running.status()["cursor"] == made.pos
        assert running.frames_in_ledger() <= 1
