"""A store that was emptied, restored, or is another one is fed from the beginning; one that cannot be asked is left as it is."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.feed import Cursors
from gateway.historian.feed_witness import ASKED_S, FRESH_MS, RENEWED_S, SHOWN_S, WITNESSES
from gateway.historian.samples import Samples
from gateway.historian.store import QueryTimeError, QueryTooLargeError, StoreRefusedError
from tests.historian.feeding import AWAY, Gateway, Store, done, gateway, same, turn

DAY_S = 86_400


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
        assert made.kept().witnesses == tuple((name, int(made.written[9].source_ms[0])) for name in made.names[:WITNESSES])
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
            made.number = round(made.clock.now_s - 1_000) - 1
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
        assert made.kept().witnesses
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
        assert made.kept().witnesses
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
        witness = made.kept().witnesses[0]
        emptied(store)
        reopened(made, store, feed)
        made.clock.now_s += 1
        for _ in range(100):  # within a second or two
            made.clock.now_s += min(feed.round(), 0.02)
            assert made.kept().witnesses == (), "as begun"
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
        assert made.kept().witnesses
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
        assert (made.kept().witnesses == ()) is future
        feed.close()


def test_a_witness_is_renewed_by_the_half_hour(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = ReadsFail()
        feed = fed(made, store)
        store.asked = 0
        for at_s, count in ((RENEWED_S - 60, 0), (RENEWED_S + 60, 4), (2 * RENEWED_S + 180, 8)):
            before = made.kept().witnesses
            made.clock.now_s = 1_000.0 + SHOWN_S + at_s
            made.number = round(SHOWN_S + at_s) - 1
            for _ in range(90):
                made.frames(1)
                made.clock.now_s += max(1.0, feed.round())
            assert store.asked == count, "one of those before, then the new ones"
            assert (made.kept().witnesses != before) is (count > 0)
        feed.close()


class Retains(Store):
    """Shows nothing that is older than its retention, by a clock that is right."""

    def __init__(self, made: Gateway, keeps_s: float) -> None:
        super().__init__()
        self.clock, self.keeps_s = made.clock, keeps_s

    def range(self, tag: str, from_ms: int, to_ms: int, *words: Any, **more: Any) -> Samples:
        return super().range(tag, max(from_ms, self.clock.now_ms - round(self.keeps_s * 1000)), to_ms, *words, **more)


def test_a_store_that_was_away_for_longer_than_it_keeps_was_not_emptied(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Retains(made, 14 * DAY_S)
        feed = fed(made, store, retention_days=14)
        before = sum(store.writes)
        store.away = AWAY
        made.frames(1)
        made.clock.now_s += feed.round() + 15 * DAY_S
        store.away = None
        made.frames(1)
        turn(feed, made.clock, done(feed, made))
        assert sum(store.writes) == before + 2 * len(made.names)
        feed.close()


def rarely(made: Gateway, feed: Any, hours: float) -> None:
    """A plant at rest: some minutes of samples nearly every hour."""
    ends_s = made.clock.now_s + hours * 3_600
    while made.clock.now_s < ends_s:
        made.clock.now_s += 3_500
        made.number = round(made.clock.now_s - 1_000) - 1
        for _ in range(4):
            made.frames(1)
            turn(feed, made.clock, done(feed, made))
            made.clock.now_s += SHOWN_S + 1
            feed.round()


def test_a_store_that_keeps_an_hour_is_fed_once(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Retains(made, 3_600)
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000, retention_days=1 / 24)
        rarely(made, feed, 30)
        assert sum(store.writes) == sum(map(len, made.written))
        feed.close()


def test_a_store_that_keeps_less_than_was_said_is_fed_from_the_beginning_once_a_day_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with gateway(tmp_path) as made, caplog.at_level(logging.WARNING):
        store = Retains(made, 3_600)
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000, retention_days=400)
        rarely(made, feed, 60)
        assert 2 <= caplog.text.count("does not show what it has shown before") <= 3
        assert "retention_days" in feed.status()["detail"]
        feed.close()


def test_one_tag_that_somebody_removed_is_no_store_that_was_emptied(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store)
        sent, held = sum(store.writes), store.held()
        first = held.names.index(made.kept().witnesses[0][0])
        store._held = held.take(held.tag != first)
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        assert sum(store.writes) == sent + len(made.names)
        feed.close()


@pytest.mark.parametrize(("age_s", "taken"), [(FRESH_MS / 1000 - 200, True), (FRESH_MS / 1000, False)])
def test_what_came_late_is_no_witness(tmp_path: Path, age_s: float, taken: bool) -> None:
    """The store may drop it by its age at any time."""
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        made.clock.now_s += age_s + 1
        for _ in range(80):
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
        made.clock.now_s += 5
        feed.round()
        assert bool(made.kept().witnesses) is taken
        feed.close()


def test_a_store_that_is_emptied_twice_a_day_is_told_and_fed_from_the_beginning_a_day_later(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store)
        emptied(store)
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        assert "从头" in feed.status()["detail_zh"]
        again(made, feed)
        assert same(store.held(), made.all())
        emptied(store)
        feed.close()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)  # it is told and bounded after a start, too
        made.frames(1)
        turn(feed, made.clock, done(feed, made))
        assert len(store.held()) == len(made.names)
        assert "hazardgate store copy --from embedded --to plant" in feed.status()["detail"]
        assert "hazardgate store copy --from embedded --to plant" in feed.status()["detail_zh"]
        made.clock.now_s += DAY_S
        feed.round()
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_what_a_person_copied_there_is_told_no_longer(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store)
        for _ in range(2):
            emptied(store)
            reopened(made, store, feed)
            turn(feed, made.clock, done(feed, made))
            again(made, feed)
        assert "store copy" in feed.status()["detail"]
        Store.write(store, made.all())
        sent = sum(store.writes)
        made.clock.now_s += ASKED_S
        feed.round()
        assert "store copy" not in feed.status()["detail"]
        made.clock.now_s += DAY_S
        feed.round()
        assert (sum(store.writes), feed.status()["detail"]) == (sent, "")
        feed.close()


def again(made: Gateway, feed: Any) -> None:
    """The store shows a new witness."""
    for _ in range(round(SHOWN_S) + 10):
        made.frames(1)
        made.number = round(made.clock.now_s - 1_000) - 1
        made.clock.now_s += max(1.0, feed.round())
    made.clock.now_s += 5
    feed.round()
    assert made.kept().witnesses


@pytest.mark.parametrize(("kind", "noticed"), [("influxdb1", True), ("victoriametrics", False)])
def test_a_store_that_was_put_back_by_seconds_is_noticed_where_it_keeps_every_sample(
    tmp_path: Path, kind: str, noticed: bool
) -> None:
    """VictoriaMetrics may have been told to thin out what is close together."""
    with gateway(tmp_path) as made:
        store = Store()
        feed = fed(made, store, kind=kind)
        for _ in range(20):
            made.frames(1)
            made.clock.now_s += max(1.0, feed.round())
        held, at_ms = store.held(), made.kept().witnesses[0][1]
        store._held = held.take(held.source_ms < at_ms)
        reopened(made, store, feed)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all()) is noticed
        feed.close()


def test_cursors_of_before_have_no_witnesses() -> None:
    told = Cursors("L", 7, witnesses=(("T", 5), ("U", 6)), anew_ms=9)
    assert Cursors.of_text(told.to_text()) == told
    loaded = json.loads(told.to_text())
    del loaded["witnesses"], loaded["anew_ms"]
    assert Cursors.of_text(json.dumps(loaded)) == Cursors("L", 7)
