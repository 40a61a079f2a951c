"""A copy of a ledger that is being written: as of one moment, whole, and made in reads that hold nobody up."""

from __future__ import annotations

import itertools
from pathlib import Path

import apsw
import pytest

from gateway.care.disk import Disk, Pace
from gateway.care.errors import NothingToBackUpError, SourceChangedError
from gateway.care.ledger_check import LedgerDamagedError, facts_of
from gateway.care.ledger_copy import READ_S_MAX, LedgerCopy
from gateway.core.ledger import Ledger
from tests.care.folders import LEDGER, BusyLedger, contents, ends_at, every_step, schema, with_alarms


def copied(source: Path, target: Path, disk: Disk | None = None) -> None:
    disk = disk or Disk()
    copy = LedgerCopy(source, target, disk.pace, disk.step)
    try:
        copy.run()
        copy.finish()
    finally:
        copy.close()


def test_the_copy_of_a_ledger_at_rest_is_the_same_table_by_table(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    copied(tmp_path / LEDGER, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / LEDGER)
    assert schema(tmp_path / "copy") == schema(tmp_path / LEDGER)


@pytest.mark.parametrize("seed", range(5))
def test_beside_a_writer_the_copy_is_what_was_committed_at_its_position(tmp_path: Path, seed: int) -> None:
    busy = BusyLedger(tmp_path / LEDGER, seed=seed)
    for _ in range(30):
        busy.commit()
    at_least = busy.committed
    with busy:
        copy = LedgerCopy(tmp_path / LEDGER, tmp_path / "copy", Pace(0))
        done = copy.run()
        copy.finish()
        copy.close()
        after = busy.committed
    facts, broken = facts_of(tmp_path / "copy")
    assert (facts, broken) == (done.facts, "")
    assert at_least <= facts.pos <= after + 30
    assert done.longest_read_s < READ_S_MAX
    _as_of(tmp_path / LEDGER, tmp_path / "copy", facts.pos)


def _as_of(source: Path, copy: Path, pos: int) -> None:
    """The copy is the state that the source's own journal and attempts lead to at this position."""
    now, then = contents(source), contents(copy)
    assert [row[0] for row in sorted(then["log"])] == list(range(1, pos + 1))
    for table, upto in (("log", pos), ("transition", len(then["transition"])), ("attempt", len(then["attempt"])), ("loss", 0)):
        assert sorted(then[table]) == sorted(row for row in now[table] if row[0] <= upto), table
    assert all(row[2] <= pos for row in then["transition"])
    last = {row[3]: row[4] for row in sorted(then["transition"])}
    assert {row[0] for row in then["alarm"]} == set(last)
    for row in then["alarm"]:
        assert f'"revision":{last[row[0]]}' in row[8], "an alarm is as its last row in the journal"
    accepted = {row[1] for row in then["attempt"] if row[4] == "accepted"}
    assert {row[1] for row in then["outbox"] if row[10] == "accepted"} == accepted & {row[1] for row in then["outbox"]}
    raises = {f"n-{row[1]}-CITY" for row in then["transition"]} & {row[1] for row in now["outbox"]}
    assert {row[1] for row in then["outbox"]} == raises


@pytest.mark.timeout(400)  # a process for every step
def test_killed_at_any_step_it_goes_on_and_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.care.ledger_copy.PIECE_ROWS", 7)  # many pieces, many steps
    busy = BusyLedger(tmp_path / LEDGER)
    for _ in range(8):
        busy.commit()
    for number in every_step(lambda disk: copied(tmp_path / LEDGER, tmp_path / "first", disk)):
        target = tmp_path / f"copy-{number}"
        assert ends_at(number, lambda disk, target=target: copied(tmp_path / LEDGER, target, disk))  # type: ignore[misc]
        busy.commit()  # what was copied already changes before it goes on
        busy.commit()
        copied(tmp_path / LEDGER, target)
        assert contents(target) == contents(tmp_path / LEDGER), number
        assert facts_of(target)[0].pos == busy.committed
    busy.ledger.close()


def test_it_goes_on_where_it_was_and_does_not_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.care.ledger_copy.PIECE_ROWS", 7)
    busy = BusyLedger(tmp_path / LEDGER)
    for _ in range(20):
        busy.commit()
    steps = sum(1 for _ in every_step(lambda disk: copied(tmp_path / LEDGER, tmp_path / "first", disk)))
    assert ends_at(steps - 1, lambda disk: copied(tmp_path / LEDGER, tmp_path / "copy", disk))
    again: list[str] = []
    copied(tmp_path / LEDGER, tmp_path / "copy", Disk(step=again.append))
    assert len(again) <= 3 < steps
    busy.ledger.close()


def test_what_an_unfinished_copy_of_another_ledger_left_is_not_gone_on_with(tmp_path: Path) -> None:
    with_alarms(tmp_path / "one")
    with_alarms(tmp_path / "two", scans=3)
    ledger = Ledger(tmp_path / "two" / LEDGER, "PARK1")
    ledger.renew_id("ledger-two")
    ledger.close()
    assert ends_at(4, lambda disk: copied(tmp_path / "one" / LEDGER, tmp_path / "copy", disk))
    copied(tmp_path / "two" / LEDGER, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / "two" / LEDGER)


def test_a_torn_copy_is_begun_anew(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    (tmp_path / "copy").write_bytes(b"SQLite format 3\0 and no more")
    copied(tmp_path / LEDGER, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(tmp_path / LEDGER)


def test_a_ledger_that_is_renamed_by_a_restore_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    ledger = Ledger(tmp_path / LEDGER, "PARK1")
    copy = LedgerCopy(tmp_path / LEDGER, tmp_path / "copy", Pace(0))
    ledger.renew_id("ledger-two")
    with pytest.raises(SourceChangedError, match="restored or upgraded"):
        copy.run()
    copy.close()
    ledger.close()


def test_a_table_without_a_rule_is_copied_whole(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    db = apsw.Connection(str(tmp_path / LEDGER))
    db.execute("CREATE TABLE later (a TEXT, b INTEGER); CREATE INDEX later_b ON later (b); INSERT INTO later VALUES ('x', 1)")
    db.close()
    copied(tmp_path / LEDGER, tmp_path / "copy")
    assert contents(tmp_path / "copy")["later"] == [("x", 1)]
    assert schema(tmp_path / "copy") == schema(tmp_path / LEDGER)


def test_a_read_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.care.ledger_copy.STEPS_BETWEEN_LOOKS", 1)
    busy = BusyLedger(tmp_path / LEDGER)
    for _ in range(20):
        busy.commit()
    ticks = itertools.count(0, 1.0)
    with pytest.raises(SourceChangedError, match="more than 5 s"):
        LedgerCopy(tmp_path / LEDGER, tmp_path / "copy", Pace(0), monotonic=lambda: next(ticks)).run()
    busy.ledger.close()


def test_without_a_ledger_there_is_nothing_to_copy(tmp_path: Path) -> None:
    with pytest.raises(NothingToBackUpError, match=r"core/ledger\.sqlite3"):
        LedgerCopy(tmp_path / LEDGER, tmp_path / "copy", Pace(0))


@pytest.mark.fault("F73")
def test_a_journal_that_was_changed_is_found(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    db = apsw.Connection(str(tmp_path / LEDGER))
    db.execute("UPDATE transition SET body = replace(body, 'LEVEL', 'LEVEI') WHERE row = 2")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert facts_of(tmp_path / LEDGER)[1] == "row 2 of the journal is not what was written"


@pytest.mark.fault("F73")
def test_pages_that_contradict_themselves_are_found(tmp_path: Path) -> None:
    with_alarms(tmp_path)
    copied(tmp_path / LEDGER, tmp_path / "copy")
    body = bytearray((tmp_path / "copy").read_bytes())
    body[4096 * 2 : 4096 * 3] = bytes(4096)
    (tmp_path / "copy").write_bytes(bytes(body))
    with pytest.raises(LedgerDamagedError):
        facts_of(tmp_path / "copy")
