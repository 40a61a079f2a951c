"""Serve's threads that feed stores: they run beside it, end with it, and tell where each store stands."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from config import TimeSeriesStoreConfig
from gateway.historian.feed_run import CLOSE_S_MAX
from gateway.historian.influx import open_store, set_up
from gateway.historian.samples import concatenated
from gateway.serve.feeding import Feeding
from tests.historian.feeding import SITE, gateway, same
from tests.patience import GUARD_S
from tests.stores import INFLUXD, needs_influxd, running_store, store_config

STATUS = {"id", "kind", "state", "lag_rows", "lag_ms", "cursor", "quarantined", "detail", "detail_zh"}


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def feeding(folder: Path, *stores: TimeSeriesStoreConfig) -> Feeding:
    site = SITE.model_copy(update={"storage": SITE.storage.model_copy(update={"stores": stores})})
    return Feeding(site, folder / "core" / "ledger.sqlite3", folder / "historian", folder, wall_ms, lambda _: nullcontext())


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD_S
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_influxd
@pytest.mark.fault("F33")
def test_two_stores_are_fed_and_one_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    with running_store(INFLUXD, tmp_path / "server") as server, gateway(tmp_path / "data") as made:
        store = open_store(store_config(server), SITE.site)
        set_up(store)
        away = TimeSeriesStoreConfig(id="away", kind="influxdb2", url="http://127.0.0.1:1")
        off = TimeSeriesStoreConfig(id="off", kind="influxdb1", url="http://127.0.0.1:1", enabled=False)
        made.frames(30)
        feeds = feeding(tmp_path / "data", store_config(server), away, off)
        assert [each["id"] for each in feeds.status()] == ["store", "away"]
        feeds.start()
        names = {thread.name for thread in threading.enumerate()}
        assert {"feed-store", "feed-away"} <= names
        assert "feed-off" not in names
        wait(lambda: feeds.status()[0]["state"] == "live" and feeds.status()[0]["lag_rows"] == 0 < feeds.status()[0]["cursor"])
        wait(lambda: feeds.status()[1]["state"] == "away")
        made.frames(5)
        wait(lambda: feeds.status()[0]["cursor"] == made.pos)
        for each in feeds.status():
            assert each.keys() == STATUS
        assert any("\u4e00" <= char <= "\u9fff" for char in feeds.status()[1]["detail_zh"])
        feeds.close()
        assert not {"feed-store", "feed-away"} & {thread.name for thread in threading.enumerate()}
        assert same(concatenated([part for day in store.days() for part in store.day(day)]), made.all())
        store.close()


def test_without_a_store_nothing_runs(tmp_path: Path) -> None:
    feeds = feeding(tmp_path)
    before = threading.active_count()
    feeds.start()
    assert (feeds.status(), threading.active_count()) == ([], before)
    feeds.close()


def test_without_a_ledger_it_waits_and_ends_when_told(tmp_path: Path) -> None:
    feeds = feeding(tmp_path, TimeSeriesStoreConfig(id="plant", kind="influxdb1", url="http://127.0.0.1:1"))
    feeds.start()
    (told,) = feeds.status()
    assert told["lag_rows"] == 0
    feeds.close()
    assert "feed-plant" not in {thread.name for thread in threading.enumerate()}


def test_four_stores_that_never_answer_keep_a_stop_waiting_for_one_bound(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(gateway(tmp_path))
        made.frames(3)
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        feeds = feeding(tmp_path, *(
            TimeSeriesStoreConfig(id=f"s{number}", kind="influxdb1", url=f"http://127.0.0.1:{line.getsockname()[1]}", timeout_s=60)
            for number, line in enumerate(silent)
        ))  # fmt: skip
        feeds.start()
        asked = [stack.enter_context(line.accept()[0]) for line in silent]  # each of them waits for its answer
        began = time.monotonic()
        feeds.close()
        assert time.monotonic() - began < 2 * CLOSE_S_MAX
        for line in asked:
            line.close()
        wait(lambda: not any(thread.name.startswith("feed-s") for thread in threading.enumerate()))
