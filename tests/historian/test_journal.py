"""The journal read beside a running core: in short reads, each row once, and never a day's worth of scanning for a day."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.historian import journal
from gateway.historian.journal import Journal
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import AlarmEvent, QueryTooLargeError, StoreAwayError

TAGS = ("A.X", "B.Y", "C.Z")
_TABLE = """CREATE TABLE transition (
  row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, pos INTEGER NOT NULL, alarm_id TEXT NOT NULL,
  revision INTEGER NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL, engine_ms INTEGER NOT NULL,
  late INTEGER NOT NULL, actor TEXT, body TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL)"""


def event(number: int, at_ms: int) -> AlarmEvent:
    return AlarmEvent(f"{number:032x}", f"{number:031x}a", TAGS[number % 3], "raised", "HH", 4, at_ms, bool(number % 2))


def ledger(path: Path, times: list[int], first: int = 0) -> list[AlarmEvent]:
    """Write a journal of transitions at these times, in this order."""
    events = [event(first + number, at_ms) for number, at_ms in enumerate(times)]
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(_TABLE.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        with db:
            db.executemany(
                "INSERT INTO transition (id, pos, alarm_id, revision, kind, at_ms, engine_ms, late, body, prev_hash, hash)"
                " VALUES (?, 1, ?, 1, ?, ?, 0, ?, json_object('alarm', json_object('tag', ?, 'limit', ?, 'grade', ?)), '', '')",
                [(e.id, e.alarm_id, e.kind, e.at_ms, e.late, e.tag, e.limit, e.grade) for e in events],
            )
    return events


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SLICE_ROWS", 10)
    monkeypatch.setattr(journal, "FETCH_ROWS", 7)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 99), max_size=60), st.integers(0, 99), st.integers(0, 99), st.sampled_from([None, *TAGS]))
def test_every_transition_of_a_range_and_tag_is_found_once(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], from_ms: int, to_ms: int, tag: str | None
) -> None:
    path = tmp_path_factory.mktemp("journal") / "ledger.sqlite3"
    events = ledger(path, times)
    wanted = [each for each in events if from_ms <= each.at_ms < to_ms and tag in (None, each.tag)]
    found = Journal(path, rest=lambda _: None).events(from_ms, to_ms, tag)
    assert found == sorted(wanted, key=lambda each: each.at_ms)


@pytest.mark.usefixtures("small")
def test_between_its_reads_core_can_begin_its_write_ahead_log_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger(path, list(range(95)))
    folded = []
    with closing(apsw.Connection(str(path))) as core:

        def rest(_: float) -> None:
            core.execute("UPDATE transition SET pos = pos + 1 WHERE row = 1")
            folded.append(core.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0])

        assert len(Journal(path, rest=rest).events(0, 1_000)) == 95
    assert len(folded) > 20
    assert not any(folded), "a read stood in its way"


@pytest.mark.usefixtures("small")
def test_day_after_day_costs_one_reading_of_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    events = ledger(path, list(range(200)))
    rests: list[float] = []
    store = EmbeddedHistorian(tmp_path / "historian", path)
    store._journal = Journal(path, rest=rests.append)
    assert list(store.events(0, 1)) == events[:1]
    first = len(rests)
    assert first >= 20
    for day in range(1, 50):
        assert list(store.events(day, day + 1)) == events[day : day + 1]
    assert len(rests) - first < 4 * 50, "each day looks for what is new, and reads its own"
    events += ledger(path, [300], first=200)
    assert list(store.events(300, 301)) == events[-1:], "what came since is seen"
    store.close()


@pytest.mark.usefixtures("small")
def test_another_ledger_in_its_place_is_read_anew(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.sqlite3", tmp_path / "other.sqlite3"
    ledger(path, [5] * 30)
    read = Journal(path, rest=lambda _: None)
    assert len(read.events(0, 10)) == 30
    events = ledger(other, [5] * 40, first=100)
    for end in ("-wal", "-shm", ""):
        Path(f"{path}{end}").unlink(missing_ok=True)
    other.rename(path)
    assert read.events(0, 10) == events


def test_more_than_one_answer_may_hold_is_refused_and_what_cannot_be_read_is_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger(path, [5] * 30)
    read = Journal(path, rest=lambda _: None)
    assert len(read.events(0, 10, rows_max=30)) == 30
    with pytest.raises(QueryTooLargeError):
        read.events(0, 10, rows_max=29)
    with pytest.raises(QueryTooLargeError):
        read.events(0, 10, "A.X", rows_max=9)
    assert len(read.events(0, 10, "A.X", rows_max=10)) == 10
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreAwayError, match="ledger"):
        Journal(path, rest=lambda _: None).events(0, 10)
