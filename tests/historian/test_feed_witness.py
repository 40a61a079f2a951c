"""A store that was emptied, restored, or is another one is fed from the beginning; one that cannot be asked is left as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.feed import Cursors
from gateway.historian.feed_witness import ASKED_S, RENEWED_S, SHOWN_S
from gateway.historian.samples import Samples
from gateway.historian.store import QueryTimeError, QueryTooLargeError, StoreRefusedError
from tests.historian.feeding import AWAY, Gateway, Store, done, gateway, same, turn


def fed(made: Gateway, store: Store, **more: Any) -> Any:
    """A feed whose store has shown a witness."""
    feed = made.feed(lambda: store, catch_up_rows_per_s=100_000, **more)
    made.clock.now_s += 20  # the samples are of the last ten seconds
    for count in (1, 9):
        made.frames(count)
        turn(feed, made.clock, done(feed, made))
    made.seal()
    made.clock.now_s += SHOWN_S
    made.frames(5)
    turn(feed, made.clock, done(feed, made))
    made.clock.now_s += 5
    feed.round()
    return feed


def emptied(store: Store) -> None:
    store._held = Samples.empty()


def reopened(made: Gateway, store: Store, feed: Any) -> None:
    store.away = AWAY
    made.frames(1)
    made.clock.now_s += feed.round()
    store.away = None


def test_a_store_that_was_emptied_gets_everything_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gateway(tmp_path) as made, caplog.at_level(logging.WARNING):
        store = Store()
        feed = fed(made, store)
        assert made.kept().witness == (made.names[0], int(made.written[9].source_ms[0]))
        emptied(store)
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        assert "fed from the beginning" in caplog.text
        feed.close()


def test_a_store_that_was_emptied_between_two_requests_gets_everything_again_at_the_next_witness(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store)
        emptied(store)
        for _ in range(3):
            made.clock.now_s += RENEWED_S
            made.frames(1)
            turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_another_store_under_the_same_id_gets_everything(tmp_path: Path) -> None:
    """`url` or `database` was changed: the cursors are those of the one before."""
    with gateway(tmp_path) as made:
        fed(made, Store()).close()
        other = Store()
        feed = made.feed(lambda: other, catch_up_rows_per_s=100_000)
        made.frames(1)
        turn(feed, made.clock, done(feed, made))
        assert same(other.held(), made.all())
        feed.close()


def test_a_store_that_settles_slowly_gets_everything_again(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store, kind="victoriametrics")
        for _ in range(20):
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
        assert made.kept().witness is not None
        emptied(store)
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_a_store_that_still_has_it_is_not_sent_it_again(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store)
        sent = sum(store.writes)
        for _ in range(3):
            reopened(made, store, feed)
            turn(feed, made.clock, done(feed, made))
        assert sum(store.writes) == sent + 3 * len(made.names)
        feed.close()


class Unreadable(Store):
    """Takes everything; a question is answered with an error, or with nothing."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def range(self, *_: Any, **__: Any) -> Samples:
        if self.error is not None:
            raise self.error
        return Samples.empty()


@pytest.mark.parametrize(
    "error", [None, StoreRefusedError("not authorized", "无权"), QueryTimeError("slow", "慢"), QueryTooLargeError("much", "多")]
)
def test_a_store_that_does_not_show_what_it_is_sent_is_fed_once(tmp_path: Path, error: Exception | None) -> None:
    with gateway(tmp_path) as made:
        store = Unreadable(error)
        feed = fed(made, store)
        for _ in range(3):
            reopened(made, store, feed)
            turn(feed, made.clock, done(feed, made))
            made.clock.now_s += RENEWED_S
        assert sum(store.writes) == sum(map(len, made.written))
        feed.close()


class ReadsFail(Store):
    """Takes everything; once told to, answers no question."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.asked = 0

    def range(self, *words: Any, **more: Any) -> Samples:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return super().range(*words, **more)


@pytest.mark.parametrize("error", [AWAY, StoreRefusedError("not authorized", "无权"), QueryTimeError("slow", "慢")])
def test_a_store_that_takes_writes_is_fed_although_its_queries_fail(tmp_path: Path, error: Exception) -> None:
    """A broken shard (500), a proxy (503, 504), too many queries (429): the write itself tells whether it is away."""
    with gateway(tmp_path) as made:
        store = ReadsFail()
        feed = fed(made, store)
        assert made.kept().witness
        store.error = error
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        store.asked = 0
        began_s = made.clock.now_s
        while made.clock.now_s < began_s + 600:
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
            assert feed.status()["state"] != "away"
        assert 1 <= store.asked <= 11, "about every minute"
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


@pytest.mark.parametrize("also_s", [0, 2 * RENEWED_S])
def test_a_store_that_was_emptied_while_it_answered_no_question_gets_everything_once_it_does(tmp_path: Path, also_s: float) -> None:
    """Also when it is long: no newer witness takes the place of one that was not asked for."""
    with gateway(tmp_path) as made:
        store = ReadsFail()
        feed = fed(made, store)
        emptied(store)
        store.error = AWAY
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        ends_s = made.clock.now_s + also_s
        while made.clock.now_s < ends_s:
            made.frames(1)
            made.clock.now_s += max(10.0, feed.round())
        assert len(store.held()) < len(made.all())
        store.error = None
        for _ in range(3):
            made.clock.now_s += ASKED_S
            feed.round()
            turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_a_store_that_is_filled_again_and_killed_gets_everything_again(tmp_path: Path) -> None:
    """That it is fed from the beginning is on our disk before the first of it is sent: it settles slowly."""
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store, kind="victoriametrics")
        for _ in range(20):
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
        witness = made.kept().witness
        assert witness is not None
        emptied(store)
        reopened(made, store, feed)
        made.clock.now_s += 1
        for _ in range(100):  # within a second or two
            made.clock.now_s += min(feed.round(), 0.02)
            assert made.kept().witness is None, "as begun"
        assert done(feed, made)()
        held = store.held()
        store._held = held.take(held.source_ms <= witness[1] + 1_000)  # what it was sent last is lost, the witness is not
        reopened(made, store, feed)
        for _ in range(60):
            made.clock.now_s += max(1.0, feed.round())
        assert same(store.held(), made.all())
        feed.close()


@pytest.mark.parametrize("kind", ["influxdb1", "victoriametrics"])
def test_where_our_disk_refuses_that_a_store_is_fed_anew_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store, kind=kind)
        for _ in range(20):
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
        emptied(store)
        with monkeypatch.context() as patch:
            patch.setattr("gateway.historian.feed_files.write_durably", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
            reopened(made, store, feed)
            for _ in range(3):
                made.clock.now_s += max(1.0, feed.round())
        assert made.kept().witness is not None
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_a_store_whose_database_is_missing_has_nothing(tmp_path: Path) -> None:
    """3 Core makes it anew at the next write, without a word."""
    with gateway(tmp_path) as made:
        fed(made, Store()).close()
        other = Unreadable(StoreRefusedError("database not found", "没有数据库", missing=True))
        feed = made.feed(lambda: other, catch_up_rows_per_s=100_000)
        turn(feed, made.clock, done(feed, made))
        assert same(other.held(), made.all())
        feed.close()


@pytest.mark.parametrize("future", [True, False])
def test_no_sample_from_the_future_is_a_witness(tmp_path: Path, future: bool) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        for _ in range(90):
            made.frames(1, step_ms=10_000_000 if future else 1)
            made.clock.now_s += max(1.0, feed.round())
        made.clock.now_s += 5
        feed.round()
        assert (made.kept().witness is None) is future
        feed.close()


def test_a_witness_is_renewed_by_the_half_hour(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = ReadsFail()
        feed = fed(made, store)
        store.asked = 0
        for at_s, count in ((RENEWED_S - 60, 0), (RENEWED_S + 60, 2), (2 * RENEWED_S + 180, 4)):
            before = made.kept().witness
            made.clock.now_s = 1_000.0 + SHOWN_S + at_s
            for _ in range(90):
                made.frames(1)
                made.clock.now_s += max(1.0, feed.round())
            assert store.asked == count, "the one before, then the new one"
            assert (made.kept().witness != before) is (count > 0)
        feed.close()


def test_cursors_of_before_have_no_witness() -> None:
    text = Cursors("L", 7).to_text().replace(', "witness": null', "")
    assert "witness" not in text
    assert Cursors.of_text(text) == Cursors("L", 7)
    told = Cursors("L", 7, witness=("T", 5))
    assert Cursors.of_text(told.to_text()) == told
