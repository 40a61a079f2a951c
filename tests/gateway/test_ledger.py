"""The ledger's one promise: everything a batch caused is there, or nothing of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from alerting import AlarmState, Category, State, Transition, TransitionKind
from alerting.delivery import Attempt, Notice
from gateway.core.books import Loss
from gateway.core.entries import Entry, EntryKind
from gateway.core.errors import LedgerFormatError
from gateway.core.ledger import DELETE_ROWS_MAX, GENESIS_HASH, WAL_PAGES_FOLDED, WAL_PAGES_MAX, Batch, Ledger, StreamRow
from gateway.core.reader import LedgerReader
from gateway.core.retention import Removable
from tests.gateway.field import T0_MS

RECEIVER = "CITY"
PAGE_BYTES = 4_096


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite3", "PARK1")
    opened.set_id("ledger-one")
    yield opened
    opened.close()


def raised(name: str, *, revision: int = 1, kind: TransitionKind = TransitionKind.RAISED, alarm: str = "") -> Transition:
    state = AlarmState(
        id=alarm or name, site="PARK1", category=Category.PROCESS, tag="T1.LEVEL", limit="H", grade=2,
        state=State.ACTIVE_UNACKED if kind is TransitionKind.RAISED else State.RETURNED_UNACKED, value=12.0, code=192,
        setpoint=10.0, unit="m", start_ms=T0_MS, revision=revision,
    )  # fmt: skip
    return Transition(
        id=name, alarm_id=state.id, revision=revision, kind=kind, alarm=state, engine_ms=5, at_ms=T0_MS
    )


def notice(transition: str, lane: str = "yellow", receiver: str = RECEIVER) -> Notice:
    return Notice(f"n-{transition}-{receiver}", transition, transition, 1, receiver, lane, T0_MS, "{}")


def batch(pos: int, *names: str, lane: str = "yellow") -> Batch:
    """One frame at `pos` that raised some alarms."""
    return Batch(
        entries=[Entry(pos, EntryKind.FRAME, 5, T0_MS, b"body", "E1", "TANK", 7, pos, pos, 1)],
        transitions=[(pos, raised(name)) for name in names],
        notices=[notice(name, lane) for name in names],
        streams={("E1", 7): StreamRow("E1", 7, pos, "[]", None, 0, 0, T0_MS)},
        losses=[(pos, "E1", Loss(7, 1, 2, "gone"))],
        engine_ms=5, wall_ms=T0_MS,
    )  # fmt: skip


TABLES = ("log", "transition", "alarm", "outbox", "attempt", "stream", "loss", "sequence")


def contents(ledger: Ledger) -> dict[str, list[Any]]:
    return {name: ledger.reader.rows(f"SELECT * FROM {name}") for name in (*TABLES, "meta")}


def sequences(ledger: Ledger) -> list[int]:
    return [number for (number,) in ledger.reader.rows("SELECT sequence FROM outbox ORDER BY row")]


# -- one transaction -----------------------------------------------------------------------------------------------


def test_a_batch_is_there_whole(ledger: Ledger) -> None:
    settled = ledger.commit([batch(1, "a", "b")])
    assert [len(ledger.reader.rows(f"SELECT * FROM {name}")) for name in TABLES] == [1, 2, 2, 2, 0, 1, 1, 1]
    assert [(row.id, row.sequence, row.ledger_id) for row in settled.outbox] == [
        ("n-a-CITY", 1, "ledger-one"), ("n-b-CITY", 2, "ledger-one"),
    ]  # fmt: skip
    assert (settled.last_pos, settled.fresh_transitions) == (1, frozenset({"a", "b"}))


@pytest.mark.parametrize("table", ["log", "transition", "alarm", "outbox", "stream", "loss", "attempt", "sequence", "meta"])
def test_a_statement_that_fails_leaves_nothing_of_the_whole_transaction(ledger: Ledger, table: str) -> None:
    ledger.commit([batch(1, "a")])
    before = contents(ledger)
    event = "UPDATE" if table in ("meta", "sequence") else "INSERT"
    ledger._db.execute(f"CREATE TRIGGER no BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
    second = batch(2, "b")
    second.attempts = [attempt("n-a-CITY")]
    if table == "stream":
        second.streams = {("E1", 8): StreamRow("E1", 8, 2, "[]", None, 0, 0, T0_MS)}
    with pytest.raises(apsw.ConstraintError):
        ledger.commit([second, batch(3, "c")])
    assert contents(ledger) == before
    ledger._db.execute("DROP TRIGGER no")
    settled = ledger.commit([second, batch(3, "c")])
    assert settled.fresh_transitions == {"b", "c"}
    assert sequences(ledger) == [1, 2, 3], "a number that was not committed was never used"
    assert_chain(ledger)


def test_sequences_have_no_gap_under_failures_and_are_counted_per_lane(ledger: Ledger) -> None:
    for pos in range(1, 30):
        work = batch(pos, f"t{pos}", lane="red" if pos % 3 else "blue")
        if pos % 4 == 0:
            broken = replace_entry(work, pos - 1)  # a log position that is taken
            with pytest.raises(apsw.ConstraintError):
                ledger.commit([work, broken])
        ledger.commit([work])
    for lane in ("red", "blue"):
        rows = ledger.reader.rows("SELECT sequence FROM outbox WHERE lane = ? ORDER BY row", (lane,))
        assert [number for (number,) in rows] == list(range(1, len(rows) + 1))


def replace_entry(work: Batch, pos: int) -> Batch:
    return Batch(entries=[replace(work.entries[0], pos=pos)], engine_ms=5, wall_ms=T0_MS)


def test_a_transition_found_again_is_neither_journalled_nor_told_again(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a")])
    settled = ledger.commit([batch(2, "a")])
    assert settled.outbox == ()
    assert settled.fresh_transitions == frozenset()
    assert sequences(ledger) == [1]
    assert ledger.reader.alarm("a") is not None


def test_the_newest_of_the_journal_is_found_without_reading_the_rest(ledger: Ledger) -> None:
    ledger.commit([batch(pos, f"a{pos}", f"b{pos}") for pos in range(1, 50)])
    read: list[Any] = []
    ledger._db.row_trace = lambda _cursor, row: read.append(row) or row
    assert ledger.reader.transition_ids_after(48) == {"a49", "b49"}
    assert len(read) == 3
    assert ledger.reader.transition_ids_after(49) == set()
    assert len(ledger.reader.transition_ids_after(0)) == 98


def test_what_is_committed_survives_a_reader_and_a_new_start(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a")])
    beside = LedgerReader.open(ledger.path)
    assert beside.last_pos() == 1
    assert [row.id for row in beside.due_outbox()] == ["n-a-CITY"]
    with pytest.raises(apsw.ReadOnlyError):
        beside.rows("DELETE FROM log")
    beside.close()


# -- the journal ------------------------------------------------------------------------------------------------------


def assert_chain(ledger: Ledger) -> None:
    before = GENESIS_HASH
    for row_id, body, prev, digest in ledger.reader.rows("SELECT id, body, prev_hash, hash FROM transition ORDER BY row"):
        assert prev == before
        assert digest == hashlib.sha256(f"{prev}\n{row_id}\n{body}".encode()).hexdigest()
        before = digest


def test_the_journal_is_a_chain_across_batches_failures_and_starts(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a", "b")])
    with pytest.raises(apsw.ConstraintError):
        ledger.commit([batch(2, "c"), batch(1, "d")])
    ledger.close()
    again = Ledger(ledger.path, "PARK1")
    again.commit([batch(2, "e")])
    assert_chain(again)
    rows = again.reader.rows("SELECT body FROM transition ORDER BY row")
    assert [Transition.from_json(json.loads(body)).id for (body,) in rows] == ["a", "b", "e"]
    again.close()


def test_an_alarm_row_is_its_newest_state(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a")])
    back = raised("a-back", revision=2, kind=TransitionKind.RETURNED, alarm="a")
    ledger.commit([Batch(transitions=[(2, back)], engine_ms=6, wall_ms=T0_MS)])
    stored = ledger.reader.alarm("a")
    assert stored is not None
    assert (stored.state, stored.revision) == (State.RETURNED_UNACKED, 2)
    assert [alarm.id for alarm in ledger.reader.open_alarms()] == ["a"]


# -- delivery -------------------------------------------------------------------------------------------------------


def attempt(notice_id: str, **changes: Any) -> Attempt:
    first = Attempt(
        notice_id, RECEIVER, "yellow", 1, 1, T0_MS, 5, "retry", None, "", None, accepted=False, parked=False, unjournaled=False
    )
    if changes.get("outcome") == "accepted":
        changes["accepted"] = True
    return replace(first, **changes)


def test_attempts_move_a_row_and_an_accepted_one_is_not_due_again(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a", "b")])
    ledger.commit([Batch(attempts=[attempt("n-a-CITY", next_ms=T0_MS + 5), attempt("n-b-CITY", outcome="accepted")])])
    (due,) = ledger.reader.due_outbox()
    assert (due.id, due.attempts, due.next_ms, due.parked) == ("n-a-CITY", 1, T0_MS + 5, False)
    ledger.commit([Batch(attempts=[attempt("n-b-CITY", attempt=2), attempt("n-a-CITY", attempt=3, outcome="refused", parked=True)])])
    (due,) = ledger.reader.due_outbox()
    assert (due.id, due.attempts, due.parked) == ("n-a-CITY", 3, True)


def test_an_unjournaled_notice_that_was_accepted_leaves_its_row_due(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a")])
    ledger.commit([Batch(attempts=[attempt("n-a-CITY", outcome="accepted", unjournaled=True)])])
    assert [row.id for row in ledger.reader.due_outbox()] == ["n-a-CITY"]
    assert ledger.reader.rows("SELECT count(*) FROM attempt") == [(1,)]


# -- a restored ledger ------------------------------------------------------------------------------------------------


def test_a_renewed_id_numbers_what_is_due_anew_and_keeps_what_was_accepted(ledger: Ledger) -> None:
    ledger.commit([batch(1, "a", "b", "c")])
    ledger.commit([Batch(attempts=[attempt("n-a-CITY", outcome="accepted"), attempt("n-c-CITY", outcome="refused", parked=True)])])
    assert ledger.renew_id("ledger-two") == "ledger-one"
    due = ledger.reader.due_outbox()
    assert [(row.id, row.ledger_id, row.sequence, row.attempts, row.parked) for row in due] == [
        ("n-b-CITY", "ledger-two", 1, 0, False), ("n-c-CITY", "ledger-two", 2, 0, False),
    ]  # fmt: skip
    settled = ledger.commit([batch(2, "d")])
    assert [(row.ledger_id, row.sequence) for row in settled.outbox] == [("ledger-two", 3)]
    ledger.close()
    again = Ledger(ledger.path, "PARK1")
    assert again.ledger_id == "ledger-two"
    again.close()


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_another_sites_ledger_is_refused(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(LedgerFormatError, match="belongs to site PARK1, not PARK2"):
        Ledger(ledger.path, "PARK2")


@pytest.mark.fault("F74")
def test_a_schema_of_another_version_is_refused(ledger: Ledger) -> None:
    ledger._set_meta("schema_version", "99")
    ledger.close()
    with pytest.raises(LedgerFormatError, match="schema version 99"):
        Ledger(ledger.path, "PARK1")


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(b"this is a text file, a long one, that somebody put here by mistake" * 20)
    before = path.read_bytes()
    with pytest.raises(LedgerFormatError, match="not a readable SQLite file"):
        Ledger(path, "PARK1")
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE customers (name TEXT)")
    other.close()
    with pytest.raises(LedgerFormatError):
        Ledger(path, "PARK1")
    names = list(apsw.Connection(str(path)).execute("SELECT name FROM sqlite_master"))
    assert names == [("customers",)]


# -- tags and retention ---------------------------------------------------------------------------------------------


def test_a_renewed_id_knows_where_it_came_from_and_how_far_that_was(ledger: Ledger) -> None:
    ledger.commit([batch(1, "t1"), batch(2, "t2")])
    assert ledger.reader.ancestry() == ()
    ledger.renew_id("ledger-two")
    ledger.commit([batch(3, "t3")])
    ledger.renew_id("ledger-three")
    meta = {key: ledger.reader.meta(key) for key in ("ledger_id", "ancestor_id", "ancestor_pos")}
    assert meta == {"ledger_id": "ledger-three", "ancestor_id": "ledger-two", "ancestor_pos": "3"}
    assert ledger.reader.ancestry() == (("ledger-two", 3), ("ledger-one", 2))


@pytest.mark.fault("F72")
def test_an_id_that_could_not_be_renewed_is_the_old_one_wholly(ledger: Ledger) -> None:
    ledger.commit([batch(1, "t1")])
    ledger._db.set_commit_hook(lambda: True)
    with pytest.raises(apsw.ConstraintError):
        ledger.renew_id("ledger-two")
    ledger._db.set_commit_hook(None)
    assert (ledger.ledger_id, ledger.reader.meta("ledger_id")) == ("ledger-one", "ledger-one")
    assert (ledger.reader.meta("ancestor_id"), ledger.reader.ancestry()) == ("", ())


@pytest.mark.fault("F49")
def test_a_tag_keeps_its_number_for_ever_whatever_its_name(ledger: Ledger) -> None:
    odd = ["T1.LEVEL", "a'b", 'a"b', "a;DROP TABLE log", "a\nb", "罐"]
    numbers = ledger.tag_numbers(odd)
    assert len(set(numbers)) == len(odd)
    ledger.close()
    again = Ledger(ledger.path, "PARK1")
    assert again.tag_numbers([odd[2], "NEW.ONE", odd[0]]) == [numbers[2], max(numbers) + 1, numbers[0]]
    assert again.reader.tag_names()[numbers[3]] == odd[3]
    again.close()


def test_retention_removes_old_frames_and_nothing_else(ledger: Ledger) -> None:
    ledger.commit([batch(pos, f"t{pos}") for pos in range(1, 11)])
    birth = Entry(11, EntryKind.BORN, 5, 0, b"{}", "E1")
    ledger.commit([Batch(entries=[birth], engine_ms=5, wall_ms=T0_MS)])
    settled = ledger.commit([Batch(removable=Removable(1, 6))])
    assert settled.pruned == 5
    assert [pos for (pos,) in ledger.reader.rows("SELECT pos FROM log ORDER BY pos")] == [6, 7, 8, 9, 10, 11]
    assert ledger.commit([Batch(removable=Removable(8, 9))]).pruned == 1, "from where it is told on"
    assert len(ledger.reader.rows("SELECT * FROM transition")) == 10


def test_retention_takes_a_bounded_bite(ledger: Ledger) -> None:
    count = DELETE_ROWS_MAX + 10
    ledger.commit([Batch(entries=[Entry(pos, EntryKind.FRAME, 5, 1, b"", "E1", "", 7, pos, pos, 0) for pos in range(1, count + 1)])])
    assert ledger.commit([Batch(removable=Removable(1, count + 1))]).pruned == DELETE_ROWS_MAX
    assert ledger.reader.rows("SELECT min(pos) FROM log") == [(DELETE_ROWS_MAX + 1,)]


def test_positions_are_read_in_order_from_any_place(ledger: Ledger) -> None:
    ledger.commit([batch(pos, f"t{pos}") for pos in range(1, 6)])
    assert [entry.pos for entry in ledger.reader.entries_after(2)] == [3, 4, 5]
    entry = next(ledger.reader.entries_after(4))
    assert entry == Entry(5, EntryKind.FRAME, 5, T0_MS, b"body", "E1", "TANK", 7, 5, 5, 1)


def wal_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def large(pos: int) -> Batch:
    """A batch of about 250 pages."""
    return Batch(entries=[Entry(pos, EntryKind.QUARANTINE, 5, T0_MS, bytes(1_000_000), "E1")], engine_ms=5, wall_ms=T0_MS)


def test_a_commit_never_folds_the_write_ahead_log_in_while_there_may_be_a_quiet_moment(ledger: Ledger) -> None:
    file_bytes = ledger.path.stat().st_size
    pos = 0
    while not ledger.fold_due:
        pos += 1
        ledger.commit([large(pos)])
        assert ledger.path.stat().st_size == file_bytes, "the file itself was written by a commit"
    assert wal_bytes(ledger.path) >= WAL_PAGES_FOLDED * PAGE_BYTES
    ledger.fold()
    assert ledger.path.stat().st_size > file_bytes
    assert not ledger.fold_due
    grown = wal_bytes(ledger.path)
    ledger.commit([large(pos + 1)])
    assert wal_bytes(ledger.path) == grown, "the log begins anew in the same file"


def test_without_a_quiet_moment_the_write_ahead_log_is_bounded_all_the_same(ledger: Ledger) -> None:
    for pos in range(1, 100):
        ledger.commit([large(pos)])
    assert wal_bytes(ledger.path) <= (WAL_PAGES_MAX + 1_000) * PAGE_BYTES


def test_a_reader_that_is_in_the_way_is_not_waited_for_and_not_asked_at_every_commit(ledger: Ledger) -> None:
    ledger.commit([batch(1)])
    reader = apsw.Connection(str(ledger.path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    pos = 1
    while not ledger.fold_due:
        pos += 1
        ledger.commit([large(pos)])
    ledger.fold()
    assert not ledger.fold_due, "it has to grow some more first"
    reader.execute("COMMIT")
    reader.close()
    while not ledger.fold_due:
        pos += 1
        ledger.commit([large(pos)])
    ledger.fold()
    ledger.commit([large(pos + 1)])
    assert not ledger.fold_due


def test_readers_that_leave_short_gaps_do_not_let_the_write_ahead_log_grow(ledger: Ledger) -> None:
    """Tried again only after much more has been written, each gap would pass unused."""
    pos = 0
    for _ in range(20):
        reader = apsw.Connection(str(ledger.path), flags=apsw.SQLITE_OPEN_READONLY)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        for _ in range(12):
            pos += 1
            ledger.commit([large(pos)])
            if ledger.fold_due:
                ledger.fold()
        reader.close()
        pos += 1
        ledger.commit([large(pos)])
        if ledger.fold_due:
            ledger.fold()
    assert wal_bytes(ledger.path) <= 4 * WAL_PAGES_FOLDED * PAGE_BYTES


def test_a_reader_at_the_end_of_the_write_ahead_log_does_not_have_it_folded_in_with_every_commit(ledger: Ledger) -> None:
    pos = 0
    while not ledger.fold_due:
        pos += 1
        ledger.commit([large(pos)])
    reader = apsw.Connection(str(ledger.path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    ledger.fold()
    ledger.commit([batch(pos + 1)])
    assert not ledger.fold_due
    reader.close()


def test_what_a_reader_that_stayed_made_of_the_write_ahead_log_goes_back_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.reader.WAL_BYTES_KEPT", 4_000_000)
    ledger = Ledger(tmp_path / "ledger.sqlite3", "PARK1")
    ledger.commit([batch(1)])
    reader = apsw.Connection(str(ledger.path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log").fetchone()
    for pos in range(2, 32):
        ledger.commit([large(pos)])
    assert wal_bytes(ledger.path) > 30_000_000
    reader.close()
    ledger.fold()
    ledger.commit([batch(32)])
    assert wal_bytes(ledger.path) <= 4_000_000
    ledger.close()
