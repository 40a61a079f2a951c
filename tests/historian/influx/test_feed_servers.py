"""Feeding real servers that are stopped, killed in mid write and started again: all rows are there, exactly once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.historian.influx import health, open_store, set_up
from gateway.historian.influx.answers import Away
from gateway.historian.influx.store import InfluxHistorian
from gateway.historian.samples import Samples, concatenated
from tests.historian.feeding import SITE, T0, Gateway, done, gateway, same, turn
from tests.historian.influx.running import flush
from tests.stores import INFLUXD, VICTORIA, StoreServer, needs_influxd, needs_victoria, running_store, store_config


def held(store: InfluxHistorian) -> Samples:
    """All that a store has."""
    return concatenated([part for day in store.days() for part in store.day(day)])


def opener(server: StoreServer) -> Callable[[], InfluxHistorian]:
    return lambda: open_store(store_config(server, batch_rows=1_000), SITE.site)


def feed_of(made: Gateway, server: StoreServer, opened: Callable[[], Any] | None = None) -> Any:
    return made.feed(opened or opener(server), kind=store_config(server).kind, url=server.url, catch_up_rows_per_s=50_000,
                     batch_rows=1_000)  # fmt: skip


@needs_influxd
@pytest.mark.fault("F33")
def test_an_hour_without_influxdb_is_filled_exactly(tmp_path: Path) -> None:
    """One hour of the test's clock: down, sealed and gone from the ledger meanwhile, then back."""
    with running_store(INFLUXD, tmp_path / "server") as server, gateway(tmp_path / "data", tags=50) as made:
        store = opener(server)()
        set_up(store)
        feed = feed_of(made, server)
        made.frames(20)
        turn(feed, made.clock, done(feed, made))
        server.stop()
        began = made.clock.now_s
        while made.clock.now_s < began + 3_600:
            made.frames(10)
            if made.pos % 200 == 0:
                made.seal()
            made.clock.now_s += max(10.0, feed.round())
        status = feed.status()
        assert status["state"] == "away"
        assert status["lag_rows"] == made.pos - 20
        assert status["lag_ms"] > 3_000_000
        assert "storage.stores.plant" in status["detail"] or "store" in status["detail"]
        server.start()
        made.frames(1)
        newest = int(made.written[-1].source_ms[0])
        turn(feed, made.clock, lambda: store.latest([made.names[3]]).source_ms.tolist() == [newest])
        assert feed.status()["state"] == "catching up", "the present is there before the hour is"
        turn(feed, made.clock, done(feed, made))
        assert health(store).database
        assert same(held(store), made.all())
        assert feed.status()["lag_ms"] == 0
        assert feed.status()["quarantined"] == 0
        feed.close()
        store.close()


@needs_influxd
@pytest.mark.parametrize("lost", ["the request", "the answer"])
def test_influxdb_killed_in_mid_feed_misses_nothing(tmp_path: Path, lost: str) -> None:
    """`kill -9` before a write has reached it, or after it was stored and before we heard so: at every write of a feed."""
    with running_store(INFLUXD, tmp_path / "server") as server:
        first = opener(server)()
        set_up(first)
        first.close()
        for kill_at in range(1, 5):
            with gateway(tmp_path / f"data{kill_at}", tags=20) as made:
                made.names = [f"{name}{kill_at}" for name in made.names]
                made.numbers = np.array(made.ledger.tag_numbers(made.names), np.int32)
                writes = 0

                def opened(kill_at: int = kill_at) -> InfluxHistorian:
                    store = opener(server)()
                    write = store.link.write

                    def killing(body: bytes, precision: str, deadline_s: float | None = None) -> Any:
                        nonlocal writes
                        writes += 1
                        if writes != kill_at:
                            return write(body, precision, deadline_s)
                        if lost == "the answer":
                            write(body, precision, deadline_s)
                        server.kill()
                        decision = write(body, precision, deadline_s)
                        assert isinstance(decision, Away)
                        server.start()
                        return decision

                    store.link.write = killing  # type: ignore[method-assign]
                    return store

                feed = feed_of(made, server, opened)
                made.frames(200)
                made.seal()
                made.frames(200)
                made.clock.now_s += 100
                made.frames(200)
                turn(feed, made.clock, done(feed, made))
                assert writes > kill_at
                store = opener(server)()
                mine = held(store)
                own = np.array([name in made.names for name in mine.names])
                assert same(mine.take(own[mine.tag]), made.all())
                feed.close()
                store.close()


@needs_influxd
def test_influxdb_with_an_emptied_disk_gets_everything_again(tmp_path: Path) -> None:
    with running_store(INFLUXD, tmp_path / "server") as server, gateway(tmp_path / "data", tags=10) as made:
        store = opener(server)()
        set_up(store)
        feed = feed_of(made, server)
        made.clock.now_s += 100  # the samples are of before
        for count in (1, 30, 5):
            made.frames(count)
            turn(feed, made.clock, done(feed, made))
            made.clock.now_s += 60
            made.seal()
        feed.round()
        server.stop()
        for name in ("meta", "data", "wal"):
            shutil.rmtree(server.folder / name)
        server.start()
        made.frames(1)
        turn(feed, made.clock, lambda: feed.status()["state"] == "refused")
        assert "hazardgate store setup" in feed.status()["detail_zh"]
        set_up(store)
        turn(feed, made.clock, done(feed, made))
        assert same(held(store), made.all())
        feed.close()
        store.close()


@needs_victoria
def test_what_victoria_lost_in_a_kill_is_sent_again(tmp_path: Path) -> None:
    """It is killed at once after its answers, when all of it is lost, and again while it is sent anew."""
    with running_store(VICTORIA, tmp_path / "server") as server, gateway(tmp_path / "data", tags=10) as made:
        turned = {"on": True}  # what it has counted is a second old, and a second of the test's clock is none of its

        def opened() -> InfluxHistorian:
            store = opener(server)()
            store.link.clock = lambda: made.clock.now_s if turned["on"] else 0.0
            return store

        feed = feed_of(made, server, opened)
        made.frames(100)
        made.seal()
        made.frames(100)
        for _ in range(2):
            turn(feed, made.clock, done(feed, made))
            assert not (made.historian / "feeds" / "plant.json").exists(), "nothing is believed yet"
            server.kill()
            server.start()  # often within the second, which is what it tells of its start
            made.clock.now_s += 11.0
            feed.round()
            assert feed.status()["state"] == "away"
        turned["on"] = False
        turn(feed, made.clock, done(feed, made))
        flush(server.url)
        store = opener(server)()
        found = held(store)
        wanted = made.all()
        assert len(found) == len(wanted)
        one = store.range(made.names[2], T0, T0 + 10**9)
        assert one.value.tolist() == wanted.take(wanted.tag == 2).value.tolist()
        made.clock.now_s += 11.0
        feed.round()
        assert made.kept().live == made.pos
        feed.close()
        store.close()

