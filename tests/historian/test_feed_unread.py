"""Feeding while the ledger or a segment cannot be read: the rest goes on, and what is missing comes once it can be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.feed import (
    HOLES_MAX,
    Cursors,
    Hole,
    put_off,
    tried_again,
)
from gateway.historian.feed_run import AGAIN_S
from gateway.historian.feed_source import LogSource
from gateway.historian.samples import concatenated
from tests.historian.feeding import Gateway, Store, done, gateway, same, turn
from tests.serve.fakes import SITE


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
