"""A ledger of an older schema version: brought to this one step by step, whole or not at all, never back."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from gateway.core.errors import LedgerFormatError, LedgerVersionError
from gateway.core.ledger import Ledger
from gateway.core.migrations import MIGRATIONS, Migration, schema_version, upgrade_ledger
from gateway.core.schema import SCHEMA_VERSION
from tests.gateway.test_ledger import batch

V1 = Path(__file__).with_name("ledger_v1.sql")


def version_one(path: Path) -> Path:
    """A ledger as version 1 left it, with some rows in it."""
    made = Ledger(path.with_suffix(".newer"), "PARK1")
    made.set_id("ledger-one")
    made.commit([batch(pos, f"t{pos}") for pos in range(1, 4)])
    made.close()
    db = apsw.Connection(str(path))
    db.execute(V1.read_text(encoding="utf-8"))
    db.execute("ATTACH ? AS newer", (str(made.path),))
    for (table,) in list(db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")):
        names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
        db.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")
    db.execute("UPDATE main.meta SET value = '1' WHERE key = 'schema_version'")
    db.close()
    made.path.unlink()
    return path


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Name, type, NOT NULL, default and place in the key of every column; of an index its columns and its condition."""
    db = apsw.Connection(str(path))
    found = {name: [row[1:] for row in db.execute(f"PRAGMA table_info({name})")]
             for (name,) in list(db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))}  # fmt: skip
    found |= {name: [(sql,)] for name, sql in list(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))}
    db.close()
    return found


def content(path: Path) -> list[tuple[object, ...]]:
    db = apsw.Connection(str(path))
    rows = list(db.execute("SELECT pos, kind, node, stream, first, last, samples, body FROM log ORDER BY pos"))
    rows += list(db.execute("SELECT * FROM transition ORDER BY row"))
    db.close()
    return rows


@pytest.mark.fault("F74")
def test_core_refuses_an_older_ledger_and_names_the_command(tmp_path: Path) -> None:
    path = version_one(tmp_path / "ledger.sqlite3")
    with pytest.raises(LedgerVersionError, match=r"schema version 1, this program writes 2; run `hazardgate upgrade`") as told:
        Ledger(path, "PARK1")
    assert "hazardgate upgrade" in told.value.message_zh
    assert tables(path)["log"][-1][0] == "body", "left as it was"


@pytest.mark.fault("F74")
def test_an_older_ledger_is_brought_to_this_version_with_all_it_holds(tmp_path: Path) -> None:
    path = version_one(tmp_path / "ledger.sqlite3")
    before = content(path)
    assert upgrade_ledger(path) == [
        "ledger schema 1 → 2: log rows tell which of their frames are late or new, and which tags were refused"
    ]
    assert content(path) == before
    assert upgrade_ledger(path) == [], "a second time there is nothing to do"
    ledger = Ledger(path, "PARK1")
    entries = list(ledger.reader.entries_after(0))
    assert [(entry.late_upto, entry.fresh, entry.refused) for entry in entries] == [(0, None, None)] * 3
    ledger.commit([batch(4, "t4")])
    ledger.close()


@pytest.mark.fault("F74")
def test_a_new_ledger_and_an_upgraded_one_have_the_same_tables(tmp_path: Path) -> None:
    path = version_one(tmp_path / "old.sqlite3")
    upgrade_ledger(path)
    Ledger(tmp_path / "new.sqlite3", "PARK1").close()
    assert tables(path) == tables(tmp_path / "new.sqlite3")
    assert MIGRATIONS[-1].to == SCHEMA_VERSION


STATEMENTS = len(MIGRATIONS[0].statements)


@pytest.mark.fault("F74")
@pytest.mark.parametrize("done", range(STATEMENTS + 1), ids=lambda done: f"after {done} statements")
def test_a_migration_that_breaks_off_leaves_nothing_and_is_done_anew(tmp_path: Path, done: int) -> None:
    path = version_one(tmp_path / "ledger.sqlite3")
    before, was = content(path), tables(path)
    whole = MIGRATIONS[0]
    broken = Migration(2, whole.told, (*whole.statements[:done], "INSERT INTO no_such_table VALUES (1)"))
    with pytest.raises(apsw.SQLError):
        upgrade_ledger(path, (broken,))
    assert (content(path), tables(path), schema_version(path)) == (before, was, 1)
    assert len(upgrade_ledger(path)) == 1
    assert (content(path), schema_version(path)) == (before, 2)


@pytest.mark.fault("F74")
def test_of_several_migrations_those_done_stay_done(tmp_path: Path) -> None:
    path = version_one(tmp_path / "ledger.sqlite3")
    following = Migration(3, "something more", ("CREATE TABLE more (x INTEGER)", "INSERT INTO no_such_table VALUES (1)"))
    with pytest.raises(apsw.SQLError):
        upgrade_ledger(path, (*MIGRATIONS, following))
    assert schema_version(path) == 2
    Ledger(path, "PARK1").close()


@pytest.mark.fault("F74")
def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    made = Ledger(path, "PARK1")
    made._set_meta("schema_version", "3")
    made.close()
    before = path.read_bytes()
    for refused in (lambda: upgrade_ledger(path), lambda: Ledger(path, "PARK1")):
        with pytest.raises(LedgerVersionError, match="written by a newer version"):
            refused()
    assert path.read_bytes() == before


def test_what_is_no_ledger_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LedgerFormatError, match="no such file"):
        upgrade_ledger(tmp_path / "missing.sqlite3")
    assert not list(tmp_path.iterdir())
    text, foreign, empty = tmp_path / "text", tmp_path / "foreign", tmp_path / "empty"
    text.write_bytes(b"something else " * 100)
    empty.touch()
    db = apsw.Connection(str(foreign))
    db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    for path in (text, foreign, empty):
        before = path.read_bytes()
        with pytest.raises(LedgerFormatError, match="not a readable ledger"):
            upgrade_ledger(path)
        assert path.read_bytes() == before
