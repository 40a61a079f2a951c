"""Feeding: the present first, holes in order at a pace, cursors only behind what the store keeps."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.store import StoreAwayError, StoreRefusedError
from tests.historian.feeding import AWAY, T0, Store, done, gateway, same, turn


def test_a_new_store_gets_all_and_the_present_before_the_past(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(200)
        made.seal()
        made.frames(50)
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=1_000)
        turn(feed, made.clock, lambda: feed.status()["cursor"] == made.pos)
        made.frames(1)
        newest = made.written[-1]
        turn(feed, made.clock, lambda: len(store.range(made.names[2], T0, T0 + 10**9)) > 0 and feed.status()["cursor"] == made.pos)
        assert store.latest([made.names[2]]).source_ms.tolist() == [int(newest.source_ms[0])]
        assert feed.status()["state"] == "catching up"
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_alarm_transitions_are_annotations_with_a_cursor_of_their_own(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(3)
        events = [made.alarm(number) for number in range(3)]
        store = Store()
        feed = made.feed(lambda: store)
        turn(feed, made.clock, done(feed, made))
        assert list(store.events(T0 - 1, T0 + 10**9)) == events
        later = made.alarm(9)
        turn(feed, made.clock, done(feed, made))
        assert list(store.events(T0 - 1, T0 + 10**9)) == [*events, later]
        made.clock.now_s += 5
        feed.round()
        assert made.kept().transition == 4
        feed.close()


@pytest.mark.fault("F33")
def test_an_hour_without_the_store_is_lag_and_then_nothing_is_missing(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=5_000)
        made.frames(10)
        turn(feed, made.clock, done(feed, made))
        store.away = AWAY
        began = made.clock.now_s
        while made.clock.now_s < began + 3_600:
            made.frames(1)
            if made.pos % 100 == 0:
                made.seal()
            rest = feed.round()
            made.clock.now_s += max(10.0, rest)
        status = feed.status()
        assert status["state"] == "away"
        assert (status["detail"], status["detail_zh"]) == ("away", "不在")
        assert status["lag_rows"] >= 60
        assert 3_300_000 <= status["lag_ms"] <= 3_700_000
        missing = made.pos - 10
        store.away = None
        store.writes.clear()
        made.frames(1)
        turned = turn(feed, made.clock, done(feed, made))
        assert store.writes[0] == len(made.names), "the first thing sent is the present"
        assert store.writes[1] == 400, "and then the hole, some batches at a time"
        assert "catching up" in turned.states
        assert same(store.held(), made.all())
        assert made.clock.now_s - began - 3_600 >= (missing - 200) * len(made.names) / 5_000
        assert sum(store.writes) < 2 * missing * len(made.names)
        feed.close()


def test_the_longest_wait_is_asked_for_by_the_store(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(1)
        store = Store()
        feed = made.feed(lambda: store)
        store.away = StoreAwayError("slow down", "慢一点", 42.0)
        assert feed.round() == 42.0
        store.away = None
        made.clock.now_s += 41.0
        assert feed.round() == pytest.approx(1.0)
        assert store.writes == []
        made.clock.now_s += 1.0
        feed.round()
        assert store.writes
        feed.close()


@pytest.mark.parametrize("kind", ["influxdb1", "victoriametrics"])
def test_a_store_that_was_away_from_the_start_has_everything_to_come(tmp_path: Path, kind: str) -> None:
    with gateway(tmp_path) as made:
        made.frames(7)
        store = Store()
        store.away = AWAY
        feed = made.feed(lambda: store, kind=kind)
        for _ in range(3):
            made.clock.now_s += feed.round()
            assert feed.status()["lag_rows"] == 7, "nothing of it is there"
        feed.close()


def test_a_refusal_is_told_and_asked_again(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(1)
        store = Store()
        feed = made.feed(lambda: store)
        store.away = StoreRefusedError("no database: run setup", "没有数据库：请运行 setup")
        made.clock.now_s += feed.round()
        assert feed.status()["state"] == "refused"
        assert "setup" in feed.status()["detail_zh"]
        store.away = None
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_a_full_disk_is_told_in_one_line_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "plant.json"))

    with gateway(tmp_path) as made:
        made.frames(1)
        store = Store()
        feed = made.feed(lambda: store)
        with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
            patched.setattr("gateway.historian.feed_files.save", full)
            for _ in range(5):
                made.clock.now_s += max(2.0, feed.round())
        (record,) = caplog.records
        assert record.exc_info in (None, False), "no stack: a person needs the place and the cause"
        assert "plant.json: cannot be used (No space left on device)" in record.getMessage()
        assert "请腾出空间" in feed.status()["detail_zh"]
        turn(feed, made.clock, done(feed, made))
        feed.close()


def test_a_store_that_cannot_be_opened_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    from config import SecretError

    with gateway(tmp_path) as made:
        made.frames(1)
        store = Store()
        problems = [SecretError("storage.stores.plant", ("file x", "文件 x"), ("is empty", "为空"), ("fill it", "请填写"))]

        def opened() -> Store:
            if problems:
                raise problems[0]
            return store

        feed = made.feed(opened)
        made.clock.now_s += feed.round()
        assert feed.status()["state"] == "refused"
        assert "文件 x" in feed.status()["detail_zh"]
        problems.clear()
        turn(feed, made.clock, done(feed, made))
        feed.close()


@pytest.mark.parametrize("sealed", [True, False])
def test_positions_that_were_never_committed_hold_nothing_up(tmp_path: Path, sealed: bool) -> None:
    with gateway(tmp_path) as made:
        made.frames(3)
        made.lose(4)
        made.frames(3)
        made.tick()
        made.lose(2)
        made.frames(2)
        if sealed:
            made.seal()
            made.lose(3)
        made.frames(1)
        store = Store()
        feed = made.feed(lambda: store)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_what_left_the_ledger_while_it_was_the_present_comes_from_the_segments(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store)
        made.frames(5)
        turn(feed, made.clock, done(feed, made))
        made.frames(5)
        made.seal()
        made.frames(5)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_what_left_the_ledger_is_not_passed_over_when_nothing_but_ticks_follow(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store)
        made.frames(5)
        turn(feed, made.clock, done(feed, made))
        made.frames(5)
        made.seal()
        made.tick()
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()
