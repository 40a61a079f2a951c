"""A store that was emptied, restored, or is another one is fed from the beginning; one that cannot be asked is left as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.feed import Cursors
from gateway.historian.feed_witness import BEFORE_MS, RENEWED_S, SHOWN_S
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
        store = Store()
        feed = fed(made, store)
        asked = []
        store.range = lambda *words, **_: asked.append(words) or Samples.empty()  # type: ignore[method-assign, func-returns-value]
        for at_s, count in ((RENEWED_S - 60, 0), (RENEWED_S + 60, 1), (2 * RENEWED_S + 180, 2)):
            made.clock.now_s = 1_000.0 + SHOWN_S + at_s
            for _ in range(90):
                made.frames(1)
                made.clock.now_s += max(1.0, feed.round())
            assert len(asked) == count
        tag, from_ms, to_ms = asked[0]
        assert (tag in made.names, to_ms - from_ms) == (True, BEFORE_MS + 1)
        feed.close()


def test_cursors_of_before_have_no_witness() -> None:
    text = Cursors("L", 7).to_text().replace(', "witness": null', "")
    assert "witness" not in text
    assert Cursors.of_text(text) == Cursors("L", 7)
    told = Cursors("L", 7, witness=("T", 5))
    assert Cursors.of_text(told.to_text()) == told
