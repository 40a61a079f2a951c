"""Feeding: the present first, holes in order at a pace, cursors only behind what the store keeps; killed at every step."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import Ledger
from gateway.historian.feed import (
    FAR,
    HOLES_MAX,
    Cursors,
    Hole,
    Pace,
    begun,
    filled,
    is_behind,
    left_behind,
    put_off,
    renewed,
    sent,
    tried_again,
    wait_after,
)
from gateway.historian.feed_files import QUARANTINE_BYTES_MAX, Quarantine
from gateway.historian.feed_run import AGAIN_S
from gateway.historian.feed_source import Head, LogSource, lineage, shared
from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.durable import hook_steps
from gateway.historian.store import Rejected, StoreAwayError, StoreRefusedError, Written, rejected_of
from tests.historian.feeding import AWAY, T0, Gateway, Store, done, gateway, same, turn
from tests.serve.fakes import SITE

# -- decisions --


def covered(cursors: Cursors) -> set[int]:
    holes = {pos for hole in cursors.holes for pos in range(hole.first, hole.last + 1)}
    return set(range(1, cursors.live + 1)) - holes


@given(st.lists(st.tuples(st.sampled_from(["behind", "live", "fill"]), st.integers(1, 40)), max_size=200))
def test_no_position_is_left_out_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Every position up to the head was sent, is in a hole, or is still ahead of the present: nothing else."""
    cursors, head, stored = begun("L", (), 10, {}, 0), 10, set[int]()
    for what, by in steps:
        head += by % 7
        if what == "behind":
            cursors = left_behind(cursors, min(head, cursors.live + by), 0)
        elif what == "live":
            upto = min(head, cursors.live + by)
            stored |= set(range(cursors.live + 1, upto + 1))
            cursors = sent(cursors, upto)
        elif cursors.holes:
            hole = cursors.holes[0]
            upto = min(hole.last, hole.first - 1 + by)
            stored |= set(range(hole.first, upto + 1))
            cursors = filled(cursors, upto)
        assert covered(cursors) <= stored
        assert len(cursors.holes) <= HOLES_MAX
        assert Cursors.of_text(cursors.to_text()) == cursors
    while cursors.holes:
        stored |= set(range(cursors.holes[0].first, cursors.holes[0].last + 1))
        cursors = filled(cursors, cursors.holes[0].last)
    assert stored >= set(range(1, cursors.live + 1))


def test_many_short_outages_are_joined_and_none_is_forgotten() -> None:
    cursors = Cursors("L", 0)
    for at in range(500):
        cursors = left_behind(sent(cursors, 10 * at), 10 * at + 3, 0)
    missing = {pos for hole in cursors.holes for pos in range(hole.first, hole.last + 1)}
    assert {10 * at + by for at in range(500) for by in (1, 2, 3)} <= missing
    assert len(cursors.holes) == HOLES_MAX


@pytest.mark.parametrize(
    ("ledger", "ancestry", "sealed", "live", "holes"),
    [
        pytest.param("A", [], {}, 90, [("A", 5, 9)], id="the same ledger"),
        pytest.param("B", [("A", 60)], {}, 60, [("A", 5, 9)], id="restored to before what was sent"),
        pytest.param("B", [("A", 60)], {"A": 95}, 60, [("A", 5, 9), ("A", 91, 95)], id="the segments hold what the restore lost"),
        pytest.param("B", [("A", 95)], {"A": 95}, 90, [("A", 5, 9)], id="restored to a little behind"),
        pytest.param("C", [("B", 70), ("A", 60)], {"A": 80}, 60, [("A", 5, 9)], id="restored twice"),
        pytest.param(
            "C", [("B", 70), ("A", 60)], {"A": 80, "B": 75, "C": 90}, 60, [("A", 5, 9), ("B", 71, 75)],
            id="restored twice while nothing was fed: what the second one lost",
        ),
        pytest.param("Z", [], {}, 100, [("Z", 1, 100)], id="a strange ledger is fed whole"),
        pytest.param("Z", [], {"A": 95, "Z": 50}, 100, [("A", 1, 95), ("Z", 1, 100)], id="and so are others' segments"),
        pytest.param("Z", [("Y", 40)], {}, 100, [("Y", 1, 40), ("Z", 41, 100)], id="with its ancestor's part"),
        pytest.param(
            "Z", [("Y", 40)], {"Y": 45, "Z": 80}, 100, [("Y", 41, 45), ("Y", 1, 40), ("Z", 41, 100)], id="and what was lost of it"
        ),
        pytest.param("Z", [("Y", 40), ("X", 7)], {}, 100, [("X", 1, 7), ("Y", 8, 40), ("Z", 41, 100)], id="and theirs"),
    ],
)  # fmt: skip
def test_a_restored_ledger_goes_on_where_its_ancestor_was(
    ledger: str, ancestry: list[tuple[str, int]], sealed: dict[str, int], live: int, holes: list[tuple[str, int, int]]
) -> None:
    before = Cursors("A", 90, (Hole("A", 5, 9, 1),), 7)
    found = renewed(before, ledger, ancestry, 100, sealed, 2)
    assert (found.ledger, found.live) == (ledger, live)
    assert [(hole.ledger, hole.first, hole.last) for hole in found.holes] == holes


def test_half_a_minute_old_is_no_present() -> None:
    assert not is_behind(None, 100_000)
    assert not is_behind(70_000, 100_000)
    assert is_behind(69_999, 100_000)


def test_waiting_grows_to_a_minute_and_is_never_shorter_than_asked() -> None:
    assert [wait_after(failures, None) for failures in range(1, 9)] == [1, 2, 5, 10, 30, 60, 60, 60]
    assert wait_after(1, 42.0) == 42.0
    assert wait_after(6, 42.0) == 60.0


def test_a_pace_is_kept_and_idle_time_is_not_saved_up() -> None:
    pace = Pace(100.0)
    pace.took(50, 10.0)
    assert pace.wait_s(10.0) == 0.5
    assert pace.wait_s(99.0) == 0.0
    pace.took(300, 99.0)
    assert pace.wait_s(99.0) == 3.0


WRONG = [
    "", "{}", "[]", "null", '{"format": 2}', '{"format":1,"ledger":"L","live":-1,"holes":[],"transition":0}',
    '{"format":1,"ledger":"L","live":1,"holes":[["L",5,4,0,"",0]],"transition":0}', "[" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_cursor_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Cursors.of_text(text)


# -- one store, one gateway --


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


def test_samples_a_store_will_not_take_are_kept_aside_and_told(tmp_path: Path) -> None:
    class Picky(Store):
        def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
            first = rejected_of(samples, 0, "not that one")
            written = super().write(samples.take(slice(1, None)))
            return Written(written.rows, (first,))

    with gateway(tmp_path) as made:
        made.frames(1)
        store = Picky()
        feed = made.feed(lambda: store)
        turn(feed, made.clock, done(feed, made))
        assert feed.status()["quarantined"] == 1
        kept = (made.historian / "feeds" / "plant.quarantine.jsonl").read_text().splitlines()
        (line,) = map(json.loads, kept)
        sample = made.written[0]
        assert line == {
            "at_ms": made.clock.now_ms, "tag": made.names[0], "source_ms": T0 + 1_000, "reason": "not that one",
            "value": sample.value[0], "code": sample.code[0], "raw": None,
        }  # fmt: skip
        feed.close()
        again = made.feed(lambda: store)
        made.clock.now_s += again.round()
        assert again.status()["quarantined"] == 1, "counted after a start, too"
        again.close()


def test_a_sample_kept_aside_is_as_it_was_whatever_it_holds(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    whole, bad, odd = Rejected("T", 1, "no", 1.5, 69, 99.5), Rejected("T", 2, "no", None, 1), Rejected("T", 3, "no", math.inf, 192)
    kept.add([whole, bad, odd], T0)
    lines = [json.loads(line) for line in kept.path.read_text().splitlines()]
    assert [(line["value"], line["code"], line["raw"]) for line in lines] == [(1.5, 69, 99.5), (None, 1, None), ("inf", 192, None)]


def test_the_quarantine_never_outgrows_its_bound(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    rejected = [Rejected("T" * 500, at, "x" * 500) for at in range(1_000)]
    for _ in range(40):
        kept.add(rejected, T0)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert QUARANTINE_BYTES_MAX // 2 < size <= QUARANTINE_BYTES_MAX


def test_one_batch_of_many_does_not_make_the_quarantine_outgrow_it(tmp_path: Path) -> None:
    """A hole's batch has up to 200 000 samples."""
    kept = Quarantine(tmp_path, "plant")
    kept.add([Rejected("T" * 500, at, "x" * 500) for at in range(40_000)], T0)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert QUARANTINE_BYTES_MAX // 2 < size <= QUARANTINE_BYTES_MAX
    assert json.loads(kept.path.read_text().splitlines()[-1])["source_ms"] == 39_999, "the newest stay"


def test_a_line_that_a_full_disk_cut_short_costs_the_next_one_nothing(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    kept.add([Rejected("T", 1, "no")], T0)
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole + whole[:20])
    kept.add([Rejected("T", 2, "no")], T0)
    first, torn, second = kept.path.read_text().splitlines()
    assert (json.loads(first)["source_ms"], json.loads(second)["source_ms"]) == (1, 2)
    assert torn == whole[:20].decode()


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


# -- a ledger that was restored --


@pytest.mark.parametrize("pruned", [True, False])
@pytest.mark.parametrize("sealed_again", [True, False])
def test_a_hole_of_the_ledger_before_a_restore_gets_its_own_rows_and_the_new_one_gets_all_of_its(
    tmp_path: Path, pruned: bool, sealed_again: bool
) -> None:
    """Both used positions 21 to 40: what the restore lost is in the segments alone."""
    with gateway(tmp_path) as made:
        made.frames(20)
        backup = made.backup()
        made.frames(20)
        made.seal(remove=False)
        store = Store()
        away = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        made.clock.now_s += 60  # all of it is no present any more: a hole of the first ledger
        store.away = AWAY
        made.clock.now_s += away.round()
        away._keep(made.clock.now_s, last=True)
        assert [(hole.first, hole.last) for hole in made.kept().holes] == [(1, 40)]
        made.restore(backup, "ledger-two")
        made.frames(30)  # at positions 21 to 50
        if sealed_again:
            made.seal(remove=pruned)
        made.tick()
        store.away = None
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


@pytest.mark.parametrize("fed", [True, False])
def test_what_two_restores_in_a_row_lost_is_fed_from_the_segments(tmp_path: Path, fed: bool) -> None:
    """The store is away, or new: either way it gets the tails of both, which only segments hold."""
    with gateway(tmp_path) as made:
        store = Store()
        made.frames(20)
        if fed:
            first = made.feed(lambda: store)
            turn(first, made.clock, done(first, made))
            made.clock.now_s += 5
            first.round()
            first.close()
        for number in (2, 3):
            backup = made.backup()
            made.frames(10)
            made.seal(remove=False)
            made.restore(backup, f"ledger-{number}")
        made.frames(5)
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_positions_shared_with_an_ancestor_end_where_the_nearest_restore_was() -> None:
    """C was restored from B at 50, B from A at 60: of A's positions C holds those up to 50."""
    head = Head("C", (("B", 50), ("A", 60), ("Z", 5)), 90, None)
    assert [lineage(head, "C", pos) for pos in (5, 6, 50, 51)] == [
        [("C", FAR), ("B", 50), ("A", 50), ("Z", 5)], [("C", FAR), ("B", 50), ("A", 50)],
        [("C", FAR), ("B", 50), ("A", 50)], [("C", FAR)],
    ]  # fmt: skip
    assert lineage(head, "A", 5) == [("A", FAR), ("Z", 5)]
    assert lineage(head, "A", 58) == [("A", FAR)]
    assert lineage(head, "X", 5) == [("X", FAR)]
    assert [shared(head, ledger) for ledger in ("C", "B", "A", "Z", "X")] == [FAR, 50, 50, 5, 0]


# -- segments that cannot be read --


def torn(made: Gateway) -> tuple[Path, bytes]:
    """Overwrite the first file of samples there is; return it and what it was."""
    path = min((made.historian / "samples").glob("*/*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(b"\0" * len(whole))
    return path, whole


def test_a_file_that_cannot_be_read_is_told_and_its_samples_come_once_it_can(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(20)
        made.seal()
        made.frames(20)
        made.seal()
        made.tick()
        path, whole = torn(made)
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        turn(feed, made.clock, lambda: feed.status()["state"] == "live")
        assert same(store.held(), concatenated(made.written[20:])), "the others do not wait for it"
        status = feed.status()
        assert status["lag_rows"] == 20
        assert path.name in status["detail"]
        assert path.name in status["detail_zh"]
        made.clock.now_s += 5
        feed.round()
        assert [(hole.first, hole.last) for hole in made.kept().parked] == [(1, 20)]
        feed.close()
        path.write_bytes(whole)
        again = made.feed(lambda: store, catch_up_rows_per_s=100_000)  # a start in between forgets nothing
        turn(again, made.clock, done(again, made))
        assert same(store.held(), made.all())
        assert again.status()["detail"] == ""
        again.close()


def test_a_disk_that_fails_for_some_seconds_costs_a_wait_and_nothing_else(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(20)
        made.seal()
        made.tick()
        path, whole = torn(made)
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        for _ in range(8):  # given up for now and, after a while, tried again: it fails anew
            made.clock.now_s += max(feed.round(), AGAIN_S / 4)
        path.write_bytes(whole)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_the_present_and_its_cursor_go_on_while_a_file_cannot_be_read(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(20)
        made.seal()
        made.tick()
        torn(made)
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        feed.round()
        made.clock.now_s += 2
        made.frames(1)
        feed.round()
        assert same(store.held(), made.written[-1])
        assert made.kept().live == made.pos
        feed.close()


def test_a_manifest_that_cannot_be_read_is_told_and_its_samples_come_once_it_can(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(20)
        made.seal()
        made.frames(20)
        made.seal()
        made.tick()
        path = min((made.historian / "manifests").iterdir())
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        store = Store()
        feed = made.feed(lambda: store, catch_up_rows_per_s=100_000)
        turn(feed, made.clock, lambda: feed.status()["state"] == "live")
        assert same(store.held(), concatenated(made.written[20:]))
        assert feed.status()["lag_rows"] == 20
        assert path.name in feed.status()["detail"]
        path.write_bytes(whole)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 50), st.integers(0, 9)), max_size=300))
def test_what_is_put_off_is_bounded_and_none_of_it_is_forgotten(parts: list[tuple[int, int, int]]) -> None:
    cursors = Cursors("L", 2 * 10**6)
    for first, count, row in parts:
        cursors = put_off(cursors, Hole("L", first, first + count - 1, 0, f"seal-L-{first}", row))
        assert len(cursors.parked) <= HOLES_MAX
        assert Cursors.of_text(cursors.to_text()) == cursors
    back = tried_again(cursors)
    assert back.parked == ()
    missing = {pos for hole in back.holes for pos in range(hole.first, hole.last + 1)} if len(parts) < 50 else set()
    assert len(parts) >= 50 or missing >= {pos for first, count, _ in parts for pos in range(first, first + count)}


def test_of_one_segment_that_was_put_off_twice_the_lower_row_counts() -> None:
    cursors = put_off(Cursors("L", 50), Hole("L", 1, 9, 0, "seal-L-1", 700))
    assert put_off(cursors, Hole("L", 1, 9, 0, "seal-L-1", 100)).parked == (Hole("L", 1, 9, 0, "seal-L-1", 100),)
    assert put_off(cursors, Hole("L", 1, 9, 0, "seal-L-1", 900)) == cursors


# -- killed at every step --


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


# -- a store that forgets --


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


# -- what cannot be read --


def test_a_damaged_segment_costs_its_own_samples_and_no_more(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        for _ in range(3):
            made.frames(20)
            made.seal()
        made.frames(5)
        damaged = sorted((made.historian / "samples").glob("*/*.parquet"))[1]
        damaged.write_bytes(b"PAR1" + b"\x00" * (damaged.stat().st_size - 8) + b"PAR1")
        store = Store()
        feed = made.feed(lambda: store)
        turn(feed, made.clock, lambda: feed.status()["state"] == "live")
        assert (feed.status()["cursor"], feed.status()["lag_rows"]) == (made.pos, 20)
        lost = range(20 * len(made.names), 40 * len(made.names))
        wanted = made.all().take(np.delete(np.arange(len(made.all())), lost))
        assert same(store.held(), wanted)
        feed.close()


def test_a_ledger_that_cannot_be_read_is_no_fault_of_the_store(tmp_path: Path) -> None:
    with gateway(tmp_path) as made:
        made.frames(3)
        store, turns = Store(), {"open": True}

        def reading(_: float) -> Any:
            if not turns["open"]:
                raise TimeoutError("no turn")
            return contextlib.nullcontext()

        made.source = lambda: LogSource(made.path, made.historian, SITE, reading)  # type: ignore[method-assign]
        feed = made.feed(lambda: store)
        turn(feed, made.clock, done(feed, made))
        turns["open"] = False
        made.frames(3)
        assert feed.round() == 1.0
        assert feed.status()["state"] == "live"
        turns["open"] = True
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()


def test_a_restored_ledger_is_another_file_and_nothing_of_either_is_missing(tmp_path: Path) -> None:
    """The store keeps what the gateway lost, gets from the segments what it had not got of that, and goes on."""
    with gateway(tmp_path) as made:
        store = Store()
        feed = made.feed(lambda: store)
        made.frames(10)
        turn(feed, made.clock, done(feed, made))
        made.ledger.fold()
        backup = made.path.with_name("backup")
        source, target = apsw.Connection(str(made.path)), apsw.Connection(str(backup))
        with contextlib.closing(source), contextlib.closing(target), target.backup("main", source, "main") as copy:
            copy.step(-1)
        store.away = AWAY
        made.frames(10)
        feed.round()
        made.seal(remove=False)
        made.ledger.close()
        for name in (made.path, made.path.with_name(made.path.name + "-wal"), made.path.with_name(made.path.name + "-shm")):
            name.unlink(missing_ok=True)
        backup.rename(made.path)
        made.ledger = Ledger(made.path, SITE.site)
        made.ledger.renew_id("ledger-two")
        made.pos = 10
        store.away = None
        made.clock.now_s += 100
        made.frames(5)
        turn(feed, made.clock, done(feed, made))
        assert same(store.held(), made.all())
        feed.close()
