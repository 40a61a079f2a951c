"""An upgrade: every part to this program's version, or nothing; ended at any step it goes on; never a downgrade."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.care import (
    CareError,
    Disk,
    InUseError,
    NewerDataError,
    NothingToBackUpError,
    TooOldError,
    Upgraded,
    backup,
    plan,
    restore,
    upgrade,
    verify,
)
from gateway.care.upgrading import CONVERTERS
from gateway.core import Core, LedgerFormatError, run_core
from gateway.core.errors import UnfinishedCareError
from gateway.core.migrations import MIGRATIONS, Migration, schema_version, upgrade_ledger
from gateway.core.schema import SCHEMA_VERSION
from gateway.unfinished import unfinished
from tests.care.folders import LEDGER, contents, ends_at, files, steps_of, whole
from tests.gateway.field import site
from wire import MemoryBroker, MemoryConnector

NOW_MS = 1_795_000_000_000


def aged(data: Path) -> Path:
    """Make the ledger one of schema version 1, as version 0.1.0 wrote it."""
    db = apsw.Connection(str(data / LEDGER))
    later = db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'log'").fetchall()
    for (name,) in later:
        if name not in ("log_frames", "log_blocks", "log_revisions"):
            db.execute(f"DROP INDEX {name}")
    db.execute("ALTER TABLE log DROP COLUMN refused; ALTER TABLE log DROP COLUMN fresh; ALTER TABLE log DROP COLUMN late_upto")
    db.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    db.close()
    return data


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return aged(whole(tmp_path / "data"))


def done(data: Path, disk: Disk | None = None, **more: Any) -> Upgraded:
    return upgrade(data, program="0.2.0", wall_ms=lambda: NOW_MS, disk=disk, room_bytes=0, **more)


def kept_files(data: Path) -> dict[str, bytes]:
    """What lies in the folder but for locks, and what SQLite lays beside a ledger that is looked at."""
    return {path: body for path, body in files(data).items() if not path.endswith((".lock", "-wal", "-shm"))}


def version_of(data: Path) -> int:
    return schema_version(data / LEDGER)


def test_an_old_ledger_is_brought_to_this_version_after_a_backup(old: Path) -> None:
    before = contents(old / LEDGER)
    report = done(old)
    assert version_of(old) == SCHEMA_VERSION
    assert report.done == ("ledger schema 1 → 2: log rows tell which of their frames are late or new, and which tags were refused",)
    assert report.backup == old / f"before-upgrade-{NOW_MS}"
    listing, problems = verify(report.backup)
    assert (problems, listing.versions["ledger"]) == ([], 1)
    assert contents(report.backup / LEDGER) == before
    after = contents(old / LEDGER)
    assert [row[:-3] for row in after["log"]] == before["log"]
    assert {name: rows for name, rows in after.items() if name not in ("log", "meta")} == {
        name: rows for name, rows in before.items() if name not in ("log", "meta")
    }
    assert unfinished(old) is None
    (told,) = [json.loads(line) for line in (old / "upgrades.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (told["from"], told["program"], told["ended_ms"]) == ({"ledger": 1}, "0.2.0", NOW_MS)


def test_then_core_starts_on_it(old: Path) -> None:
    folder = old / "core"
    with pytest.raises(LedgerFormatError, match="hazardgate upgrade"):
        Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder)
    done(old)
    core = Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder)
    assert core.recovered.differences == ()
    core.release()


def test_what_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    before = kept_files(data)
    report = done(data)
    assert (report.done, report.backup) == ((), None)
    assert kept_files(data) == before


def test_a_plan_changes_nothing_and_names_every_part(old: Path) -> None:
    before = kept_files(old)
    told = {part.name: (part.found, part.wanted) for part in plan(old)}
    assert told == {"ledger": (1, 2), "snapshots": (2, 2), "state": (2, 2), "manifests": (1, 1), "tokens": (1, 1)}
    assert kept_files(old) == before


def test_the_backup_goes_where_it_is_told_or_is_not_made(old: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(old, tmp_path / "other"))
    assert done(old, backup_to=tmp_path / "elsewhere").backup == tmp_path / "elsewhere"
    assert verify(tmp_path / "elsewhere")[1] == []
    assert done(other, with_backup=False).backup is None
    assert version_of(other) == SCHEMA_VERSION


def test_without_room_for_the_backup_nothing_is_begun(old: Path) -> None:
    with pytest.raises(CareError, match=r"nothing was upgraded.*--no-backup") as told:
        upgrade(old, program="1", wall_ms=lambda: NOW_MS, room_bytes=10**18)
    assert "未升级" in told.value.message_zh
    assert version_of(old) == 1
    assert unfinished(old) is None


class FullDisk(Disk):
    """Refuses the copy of the ledger."""

    def rename(self, source: Path, target: Path) -> None:
        if target.name == "ledger.sqlite3":
            raise OSError(errno.ENOSPC, "no space left on device")
        super().rename(source, target)


@pytest.mark.fault("F74")
@pytest.mark.parametrize("tried_before", [False, True])
def test_a_backup_of_another_day_is_not_taken_for_the_one_before_the_upgrade(
    old: Path, tmp_path: Path, tried_before: bool
) -> None:
    backup(old, tmp_path / "last week", program="0.1.0", wall_ms=lambda: NOW_MS - 1, room_bytes=0)
    if tried_before:
        with pytest.raises(OSError, match="no space"):
            done(old, FullDisk(), backup_to=tmp_path / "full")
    with pytest.raises(CareError, match=r"last week: already holds.*nothing was upgraded"):
        done(old, backup_to=tmp_path / "last week")
    assert version_of(old) == 1
    assert done(old, backup_to=tmp_path / "today").backup == tmp_path / "today"
    assert verify(tmp_path / "today")[1] == []


@pytest.mark.fault("F74")
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_disk_that_refuses_the_backup_is_got_round_by_another_place_or_none(
    old: Path, tmp_path: Path, elsewhere: bool
) -> None:
    before = contents(old / LEDGER)
    with pytest.raises(OSError, match="no space"):
        done(old, FullDisk(), backup_to=tmp_path / "full")
    assert contents(old / LEDGER) == before
    other = {"backup_to": tmp_path / "other"} if elsewhere else {"with_backup": False}
    report = done(old, FullDisk() if not elsewhere else None, **other)
    assert report.backup == (tmp_path / "other" if elsewhere else None)
    assert not elsewhere or contents(tmp_path / "other" / LEDGER) == before
    assert version_of(old) == SCHEMA_VERSION
    assert unfinished(old) is None


class CutOffError(BaseException):
    """The power fails: nothing after this is done."""


class CutAfterConversion(Disk):
    """Loses its power between the ledger's conversion and the note of it."""

    def write(self, path: Path, body: bytes) -> None:
        if b"ledger schema 1" in body:
            raise CutOffError
        super().write(path, body)


@pytest.mark.fault("F74")
@pytest.mark.parametrize("how", ["the same again", "another place", "none"])
def test_a_backup_that_is_away_after_the_conversion_stays_the_one_on_record(old: Path, tmp_path: Path, how: str) -> None:
    before = contents(old / LEDGER)
    usb, unplugged = tmp_path / "usb", tmp_path / "unplugged"
    usb.mkdir()
    with pytest.raises(CutOffError):
        done(old, CutAfterConversion(), backup_to=usb / "backup")
    assert version_of(old) == SCHEMA_VERSION
    usb.rename(unplugged)
    asked: dict[str, dict[str, Any]] = {
        "the same again": {}, "another place": {"backup_to": tmp_path / "other"}, "none": {"with_backup": False},
    }  # fmt: skip
    assert done(old, **asked[how]).backup == usb / "backup"
    assert not usb.exists()
    assert not (tmp_path / "other").exists()
    assert contents(unplugged / "backup" / LEDGER) == before
    (told,) = [json.loads(line) for line in (old / "upgrades.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told["backup"] == str(usb / "backup")
    assert unfinished(old) is None


@pytest.mark.timeout(400)  # a process for every step
@pytest.mark.fault("F74")
def test_killed_at_any_step_it_is_old_or_new_or_says_that_it_is_neither_and_goes_on(old: Path, tmp_path: Path) -> None:
    names = steps_of(lambda disk: done(Path(shutil.copytree(old, tmp_path / "first")), disk))
    assert "upgrade ledger" in names
    before, expected = contents(old / LEDGER), contents(tmp_path / "first" / LEDGER)
    data = tmp_path / "killed"
    for number, name in enumerate(names, 1):
        shutil.copytree(old, data)
        assert ends_at(number, lambda disk: done(data, disk)), name
        if unfinished(data) is None:
            assert contents(data / LEDGER) in (before, expected), name
        if not (data / "upgrades.jsonl").exists():
            ends_at(number, lambda disk: done(data, disk))  # and at the same step again
        done(data)
        assert unfinished(data) is None
        assert contents(data / LEDGER) == expected, name
        assert len((data / "upgrades.jsonl").read_text(encoding="utf-8").splitlines()) == 1, name
        assert verify(data / f"before-upgrade-{NOW_MS}")[1] == [], name
        assert contents(data / f"before-upgrade-{NOW_MS}" / LEDGER) == before, name
        shutil.rmtree(data)


@pytest.mark.fault("F74")
def test_a_migration_that_fails_half_way_leaves_the_old_ledger_and_goes_on(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old / LEDGER)
    broken = (Migration(2, "half", (MIGRATIONS[0].statements[0], "no statement")),)
    monkeypatch.setitem(CONVERTERS, "ledger", lambda part: upgrade_ledger(part.place, broken))
    with pytest.raises(apsw.SQLError):
        done(old)
    assert contents(old / LEDGER) == before
    with pytest.raises(UnfinishedCareError, match="hazardgate upgrade"):
        asyncio.run(_core_on(old))
    monkeypatch.undo()
    done(old)
    assert version_of(old) == SCHEMA_VERSION
    assert unfinished(old) is None


async def _core_on(data: Path) -> None:
    await run_core(
        site(receivers=0), data, asyncio.Event(), connector=MemoryConnector(MemoryBroker()), secrets={}, base_dir=data
    )


def ledger_of(version: str) -> Any:
    def make(data: Path) -> None:
        db = apsw.Connection(str(data / LEDGER))
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,))
        db.close()

    return make


def snapshot_of(old: bytes, new: bytes) -> Any:
    def make(data: Path) -> None:
        path = sorted((data / "core").glob("snapshot-*.bin"))[-1]
        path.write_bytes(path.read_bytes().replace(old, new))

    return make


def manifest_of(version: int) -> Any:
    def make(data: Path) -> None:
        path = sorted((data / "historian" / "manifests").iterdir())[-1]
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": version}))

    return make


def tokens_of(version: int) -> Any:
    return lambda data: (data / "serve" / "tokens.json").write_text(json.dumps({"format": version, "tokens": []}))


@pytest.mark.fault("F74")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(ledger_of("9"), "the ledger's schema has version 9, this program knows versions up to 2", id="ledger"),
        pytest.param(snapshot_of(b"HGSNAP2", b"HGSNAP3"), "snapshots has version 3, .* versions up to 2", id="snapshot"),
        pytest.param(snapshot_of(b"STATE-2", b"STATE-3"), "the state in snapshots has version 3", id="state"),
        pytest.param(manifest_of(4), "the historian's manifests has version 4, this program knows versions up to 1", id="manifest"),
        pytest.param(tokens_of(2), "the tokens has version 2", id="tokens"),
    ],
)
def test_a_downgrade_is_refused_with_both_versions_and_nothing_changes(tmp_path: Path, make: Any, told: str) -> None:
    data = whole(tmp_path / "data")
    make(data)
    before = kept_files(data)
    for call in (lambda: done(data), lambda: plan(data)):
        with pytest.raises(NewerDataError, match=told):
            call()
    assert kept_files(data) == before


@pytest.mark.fault("F74")
def test_one_newer_part_keeps_the_older_ones_as_they_are(old: Path) -> None:
    tokens_of(2)(old)
    with pytest.raises(NewerDataError):
        done(old)
    assert version_of(old) == 1


@pytest.mark.fault("F74")
def test_what_no_migration_leads_from_is_refused(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    snapshot_of(b"HGSNAP2", b"HGSNAP1")(data)
    with pytest.raises(TooOldError, match="cannot bring it to version 2"):
        done(data)


@pytest.mark.parametrize(("text", "found"), [("version: 1\n", 1), ("site: X\n", 0)])
def test_the_site_file_has_a_version_too(tmp_path: Path, text: str, found: int) -> None:
    data = whole(tmp_path / "data")
    (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
    for site_path in (tmp_path / "site.yaml", tmp_path):
        (part,) = [part for part in plan(data, site_path) if part.name == "config"]
        assert part.found == found
    (tmp_path / "site.yaml").write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(NewerDataError, match="configuration has version 2"):
        plan(data, tmp_path)


@pytest.mark.parametrize("lock", ["core/core.lock", "serve/serve.lock", "historian/historian.lock", "care.lock"])
def test_nothing_is_upgraded_under_a_program_that_runs(old: Path, lock: str) -> None:
    with (old / lock).open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InUseError):
            done(old)
    assert version_of(old) == 1


def test_without_a_ledger_there_is_nothing_to_upgrade(tmp_path: Path) -> None:
    with pytest.raises(NothingToBackUpError):
        plan(tmp_path)


def test_a_damaged_note_is_not_guessed_at(old: Path) -> None:
    (old / "upgrade.json").write_text("torn", encoding="utf-8")
    with pytest.raises(CareError, match="cannot be read"):
        done(old)
    assert version_of(old) == 1


@pytest.mark.fault("F74")
def test_a_backup_of_an_older_version_is_restored_in_this_one(old: Path, tmp_path: Path) -> None:
    backup(old, tmp_path / "backup", program="0.1.0", wall_ms=lambda: NOW_MS, room_bytes=0)
    report = restore(tmp_path / "backup", tmp_path / "back", wall_ms=lambda: NOW_MS)
    assert version_of(tmp_path / "back") == SCHEMA_VERSION
    assert report.upgraded[0].startswith("ledger schema 1 → 2")
    core = Core(site(receivers=0), tmp_path / "back" / "core", MemoryConnector(MemoryBroker()), {}, tmp_path)
    assert core.recovered.differences == ()
    core.release()
