"""Feeding a ledger that was restored: nothing of it, or of those it came from, is missing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw
import pytest

from gateway.core.ledger import Ledger
from gateway.historian.feed import (
    FAR,
)
from gateway.historian.feed_source import Head, lineage, shared
from tests.historian.feeding import AWAY, Store, done, gateway, same, turn
from tests.serve.fakes import SITE


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
