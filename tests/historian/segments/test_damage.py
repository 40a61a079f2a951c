"""A disk that fails: what was written is written elsewhere, what is damaged is named exactly, and the rest serves on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gateway.historian.segments import durable
from gateway.historian.segments import seal as seal_module
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.load import write_part
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.scrub import Scrub
from gateway.historian.segments.spill import open_database, own_folder
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import SegmentDamagedError
from tests.historian.reference import Row as RowOf
from tests.historian.reference import samples_of
from tests.historian.segments.journal import (
    DAY_MS,
    SITE,
    T0_MS,
    TAGS,
    Journal,
    everything,
    owner_of,
    rows_in,
    run,
    settle,
    status_of,
)


@pytest.mark.fault("F72")
@pytest.mark.parametrize("which", range(1, 11))
def test_a_sync_that_fails_once_withholds_the_cursor_and_what_it_wrote_is_written_elsewhere(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192)])
    clock = [T0_MS + 5000]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, clock=clock)
    owner.begin()
    synced: list[tuple[int, str]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append((found.st_ino, str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        if len(synced) == which:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    owner.round()
    failed_inode, failed_path = synced[which - 1]
    assert SegmentFolder(tmp_path / "h").snapshot().cursor("ledger-one") == 0
    assert "Input/output error" in owner.trouble
    before = len(synced)
    clock[0] += 6000
    settle(owner)
    assert owner.trouble == ""
    owner.close()
    assert everything(tmp_path / "h") == journal.rows
    assert SegmentFolder(tmp_path / "h").verified("ledger-one").cursor == journal.pos
    if failed_path.endswith(".tmp"):
        again = {inode for inode, path in synced[before:] if path.endswith(".tmp")}
        assert failed_inode not in again, "the same blocks were trusted again"


@pytest.mark.fault("F72")
def test_a_full_disk_costs_time_only(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192)])
    clock = [T0_MS + 5000]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, clock=clock)
    owner.begin()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.historian.segments.files.sync_file", full)
        for _ in range(5):
            assert owner.round() >= 0
            clock[0] += 1000
        assert "No space left" in owner.trouble
        assert "No space left" in str(status_of(tmp_path / "h")["trouble"])
    clock[0] += 20_000
    settle(owner)
    owner.close()
    assert everything(tmp_path / "h") == journal.rows


@pytest.mark.fault("F73")
@pytest.mark.parametrize("part", ["samples", "rollups"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_what_the_ledger_still_holds_is_made_anew_byte_for_byte(tmp_path: Path, journal: Journal, part: str, damage: str) -> None:
    folder = sealed(tmp_path, journal)
    whole = {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")}
    victim = sorted(folder.glob(f"{part}/*/*.parquet"))[0]
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(whole[victim][:100] + bytes([whole[victim][100] ^ 1]) + whole[victim][101:])
    run(folder, journal, T0_MS + DAY_MS + 9000)
    assert {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")} == whole
    assert status_of(folder)["damaged"] == []
    assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos


def sealed(tmp_path: Path, journal: Journal, rows: int = 3000) -> Path:
    """Seal two days of three tags into two files of some size."""
    for at in range(rows):
        when = T0_MS + at * 1000 + (DAY_MS if at >= rows // 2 else 0)
        journal.frame(T0_MS + DAY_MS, [(TAGS[at % 3], when, (at * 7919 % 4096) / 7, 192)])
    run(tmp_path / "h", journal, T0_MS + DAY_MS + 5000, samples_max=10_000)
    return tmp_path / "h"


@pytest.mark.fault("F73")
@pytest.mark.parametrize("part", ["samples", "rollups"])
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_is_found_and_named_with_its_exact_range_and_the_rest_serves_on(
    tmp_path: Path, journal: Journal, part: str, where: float
) -> None:
    folder = sealed(tmp_path, journal)
    victim, other = sorted(folder.glob(f"{part}/*/*.parquet"))
    raw = bytearray(victim.read_bytes())
    raw[int(where * len(raw))] ^= 16
    victim.write_bytes(raw)
    problem = _found(folder)
    assert problem.file == str(victim.relative_to(folder))
    assert problem.day == "2025-06-16"
    assert T0_MS <= problem.from_ms <= problem.to_ms < T0_MS + 1500 * 1000
    assert problem.tags is None or TAGS[0] <= problem.tags[0] <= problem.tags[1] <= TAGS[2]
    assert SegmentFolder(folder).verified("ledger-one").cursor == 0, "core gives up no row for it"
    rest = Counter({row: count for row, count in journal.rows.items() if row[1] >= T0_MS + DAY_MS})
    second = sorted(folder.glob("samples/*/*.parquet"))[1]
    assert rows_in([second]) == rest
    assert other.exists()
    assert victim.exists(), "it stays for whoever wants to save what can be saved"


@pytest.mark.fault("F73")
@pytest.mark.parametrize("damage", ["torn", "empty", "gone", "longer"])
def test_a_torn_file_is_seen_at_the_first_look(tmp_path: Path, journal: Journal, damage: str) -> None:
    folder = sealed(tmp_path, journal)
    victim = sorted(folder.glob("samples/*/*.parquet"))[0]
    raw = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes({"torn": raw[: len(raw) // 2], "empty": b"", "longer": raw + b"x"}[damage])
    # The ledger has given up one of the rows: nothing can be made anew of what is left.
    with journal.ledger._db:
        journal.ledger._db.execute("DELETE FROM log WHERE pos = 1")
    run(folder, journal, T0_MS + DAY_MS + 9000)
    damaged = status_of(folder)["damaged"]
    assert [(each["file"], each["day"]) for each in damaged] == [(str(victim.relative_to(folder)), "2025-06-16")]
    assert damaged[0]["from_ms"] == T0_MS
    assert damaged[0]["to_ms"] == T0_MS + 1499 * 1000
    assert SegmentFolder(folder).verified("ledger-one").problems[0].file in (damaged[0]["file"], str(victim))


@pytest.mark.fault("F73")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_damaged_manifest_is_made_anew_while_the_ledger_holds_its_rows(tmp_path: Path, journal: Journal, which: int) -> None:
    folder = three_seals(tmp_path, journal)
    manifest = sorted((folder / "manifests").iterdir())[which]
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:50] + b"X" + whole[51:])
    run(folder, journal, T0_MS + 9000, samples_max=10)
    assert manifest.read_bytes() == whole
    assert everything(folder) == journal.rows
    assert status_of(folder)["damaged"] == []
    assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos


@pytest.mark.fault("F73")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_follows_a_damaged_manifest_is_sealed_behind_it_and_counts_once_it_is_restored(
    tmp_path: Path, journal: Journal, which: int
) -> None:
    folder = three_seals(tmp_path, journal)
    manifest = sorted((folder / "manifests").iterdir())[which]
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:50] + b"X" + whole[51:])
    given_up(journal, 30)
    journal.frame(T0_MS + 9000, [(TAGS[0], T0_MS + 9000, 5.0, 192)])
    run(folder, journal, T0_MS + 20_000, samples_max=10)
    assert everything(folder) == journal.rows
    taken = SegmentFolder(folder).snapshot()
    assert taken.cursor("ledger-one") == 10 * which
    assert str(taken.chain("ledger-one")[-1].stem) == f"seal-ledger-one-{31:016d}-{31:016d}"
    assert manifest.name in {each["file"] for each in status_of(folder)["damaged"]}
    manifest.write_bytes(whole)
    run(folder, journal, T0_MS + 90_000, samples_max=10)
    found = SegmentFolder(folder).verified("ledger-one")
    assert (found.cursor, found.problems) == (31, ())
    assert status_of(folder)["damaged"] == []


@pytest.mark.fault("F73")
@pytest.mark.parametrize("lost", ["all", "newest"])
@pytest.mark.parametrize("held", [True, False])
def test_what_has_lost_its_manifest_is_put_away_or_sealed_again_and_never_deleted(
    tmp_path: Path, journal: Journal, lost: str, held: bool
) -> None:
    folder = three_seals(tmp_path, journal)
    if not held:
        given_up(journal, 30)
    for manifest in sorted((folder / "manifests").iterdir())[0 if lost == "all" else 2 :]:
        manifest.unlink()
    journal.frame(T0_MS + 9000, [(TAGS[0], T0_MS + 9000, 5.0, 192)])
    run(folder, journal, T0_MS + 20_000, samples_max=10)
    away = rows_in((folder / "lost").glob("samples/*/*.parquet"))
    assert everything(folder) + away == journal.rows
    names = [each["file"] for each in status_of(folder)["damaged"]]
    if held:
        assert (away, names) == (Counter(), [])
        assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos
    else:
        assert sum(away.values()) == (30 if lost == "all" else 10)
        assert len(names) == (3 if lost == "all" else 1)
        assert all(name.startswith("lost/samples/2025-06-16/seal-ledger-one-") for name in names)


@pytest.mark.fault("F73")
@pytest.mark.parametrize("parts", [1, 2])
def test_a_load_that_lost_its_manifest_is_damaged_in_status_reads_and_copy(tmp_path: Path, journal: Journal, parts: int) -> None:
    folder = tmp_path / "h"
    db = connect(folder)
    for part in range(parts):
        write_part(db, folder, "old1", part, samples_of([RowOf(TAGS[0], T0_MS + part * DAY_MS, 1.5)]), T0_MS)
    last = folder / "manifests" / f"load-old1-{parts - 1:08d}.json"
    last.unlink()
    journal.tick(T0_MS)
    from_ms = T0_MS + (parts - 1) * DAY_MS
    for now_ms in (T0_MS, 10**13):  # at once, and still when it is long ago
        run(folder, journal, now_ms, samples_max=10)
        damaged = status_of(folder)["damaged"]
        assert [(each["file"], each["from_ms"], each["to_ms"]) for each in damaged] == [(last.name, from_ms, from_ms + DAY_MS - 1)]
        assert f"part {parts - 1} of load old1" in damaged[0]["why"]
        assert len(everything(folder)) == parts, "it waits for its manifest where it is"
    (folder / "status.json").unlink()
    store = EmbeddedHistorian(folder)
    try:
        assert store.days() == [T0_MS + part * DAY_MS for part in range(parts)]
        assert [each.file for each in store.readable(TAGS[0], from_ms - DAY_MS, from_ms + 1)[1]] == [last.name]
        assert [each.file for each in store.windows_of([TAGS[0]], from_ms, from_ms + DAY_MS, 300_000)[1]] == [last.name]
        assert store.readable(TAGS[0], from_ms + DAY_MS, from_ms + 2 * DAY_MS)[1] == []
        with pytest.raises(SegmentDamagedError, match=last.name):
            list(store.day(from_ms))
    finally:
        store.close()
    write_part(db, folder, "old1", parts - 1, samples_of([RowOf(TAGS[0], from_ms, 1.5)]), T0_MS)
    db.close()
    run(folder, journal, T0_MS, samples_max=10)
    assert status_of(folder)["damaged"] == []


@pytest.mark.fault("F73")
def test_a_part_that_is_written_beside_has_lost_nothing(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "h"
    journal.tick(T0_MS)
    seen: list[int] = []
    real = seal_module.commit

    def commit(*given: Any) -> None:
        run(folder, journal, T0_MS, samples_max=10)
        seen.append(len(everything(folder)))
        assert status_of(folder)["damaged"] == []
        with contextlib.closing(EmbeddedHistorian(folder)) as store:
            assert store.readable(TAGS[0], T0_MS, T0_MS + 10)[1] == []
        real(*given)

    monkeypatch.setattr(seal_module, "commit", commit)
    db = connect(folder)
    write_part(db, folder, "old1", 0, samples_of([RowOf(TAGS[0], T0_MS, 1.5)]), T0_MS)
    db.close()
    assert seen == [1]
    assert not [*folder.glob("manifests/*.begun")]


@pytest.mark.fault("F73")
def test_a_part_that_was_cut_short_is_put_away_when_it_is_old(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "h"
    db = connect(folder)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(seal_module, "commit", full)
        with pytest.raises(OSError, match="No space"):
            write_part(db, folder, "old1", 0, samples_of([RowOf(TAGS[0], T0_MS, 1.5)]), T0_MS)
    db.close()
    journal.tick(T0_MS)
    run(folder, journal, T0_MS, samples_max=10)
    assert len(everything(folder)) == 1, "it may be gone on with"
    assert status_of(folder)["damaged"] == []
    run(folder, journal, 10**13, samples_max=10)
    assert len(rows_in((folder / "lost").glob("samples/*/*.parquet"))) == 1
    run(folder, journal, 10**13, samples_max=10)
    assert not [*folder.glob("manifests/*.begun")]


@pytest.mark.fault("F73")
def test_a_ledger_that_lost_its_end_is_not_sealed(tmp_path: Path, journal: Journal) -> None:
    folder = three_seals(tmp_path, journal)
    with journal.ledger._db:
        journal.ledger._db.execute("DELETE FROM log WHERE pos > 25")
    journal.pos = 25
    journal.frame(T0_MS + 9000, [(TAGS[0], T0_MS + 9000, 5.0, 192)])
    run(folder, journal, T0_MS + 20_000, samples_max=10)
    assert len(SegmentFolder(folder).snapshot().manifests) == 3
    assert "up to 30, and the ledger ends at 26" in status_of(folder)["damaged"][0]["why"]


@pytest.mark.fault("F72")
def test_a_day_does_not_go_while_the_disk_does_not_give_its_evidence(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [T0_MS]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=1.0, clock=clock)
    owner.begin()
    journal.alarm(TAGS[0], T0_MS + 10, T0_MS + 20)
    for day in range(4):
        journal.frame(T0_MS + day * DAY_MS, [(TAGS[0], T0_MS + day * DAY_MS + 15, 1.0, 192)])
    clock[0] = T0_MS + 3 * DAY_MS + 60_000

    def passing(*_: Any) -> None:
        raise duckdb.IOException("Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.historian.segments.evidence._rows_of", passing)
        for _ in range(10):
            owner.round()
            clock[0] += 5000
        assert everything(tmp_path / "h") == journal.rows
        assert "Input/output error" in owner.trouble
    clock[0] += 300_000
    settle(owner)
    owner.close()
    assert len(rows_in((tmp_path / "h" / "evidence").glob("*.parquet"))) == 1
    assert len(everything(tmp_path / "h")) == 2


def test_however_many_alarms_all_are_read(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.historian.segments.log.READ_ROWS", 3)
    for at in range(20):
        journal.alarm(f"T{at}.LEVEL", T0_MS + at // 4, T0_MS + 50 + at if at % 3 else None)
    ledger = LedgerLog(journal.path, SITE)
    assert len(list(ledger.alarms(T0_MS, T0_MS + 100))) == 20
    assert len(list(ledger.alarms(T0_MS, T0_MS + 2))) == 8
    ledger.close()


def test_rows_are_read_in_pieces_of_bytes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(20):
        journal.frame(T0_MS + at, [(TAGS[0], T0_MS + at, 1.0, 192)])
    ledger = LedgerLog(journal.path, SITE)
    whole = ledger.rows(1, 20)
    reads: list[int] = []
    real = ledger._read

    def counted(sql: str, parameters: tuple[Any, ...], weight: Any) -> Any:
        found = real(sql, parameters, weight)
        reads.append(len(found[0]))
        return found

    monkeypatch.setattr(ledger, "_read", counted)
    monkeypatch.setattr("gateway.historian.segments.log.READ_BYTES", 2 * len(whole[0].body))
    assert ledger.rows(1, 20) == whole
    assert max(reads) == 2
    assert (ledger.last_pos(), ledger.held(2, 4), ledger.held(19, 21)) == (20, T0_MS + 3, None)
    ledger.close()


def test_what_another_process_spills_is_left_alone_and_what_nobody_uses_goes(tmp_path: Path, journal: Journal) -> None:
    temporary = tmp_path / "h" / "temporary"
    mine = own_folder(temporary)
    assert own_folder(temporary) == mine
    dead = temporary / "process-dead"
    dead.mkdir()
    (dead / "in-use").touch()
    (temporary / "part-x.parquet.1-1.tmp").touch()
    run(tmp_path / "h", journal, T0_MS, samples_max=10)
    assert [*temporary.iterdir()] == [mine]
    db = open_database(tmp_path / "h")
    found = db.execute("SELECT current_setting('temp_directory'), current_setting('max_temp_directory_size')").fetchall()
    db.close()
    assert found[0][0] == str(mine)


def three_seals(tmp_path: Path, journal: Journal) -> Path:
    """Seal thirty rows, ten in each."""
    for at in range(30):
        journal.frame(T0_MS + at, [(TAGS[0], T0_MS + at, at * 1.0, 192)])
    run(tmp_path / "h", journal, T0_MS + 5000, samples_max=10)
    assert len(SegmentFolder(tmp_path / "h").snapshot().manifests) == 3
    return tmp_path / "h"


def given_up(journal: Journal, upto: int) -> None:
    """Let rows leave the ledger, as core does with what is sealed."""
    with journal.ledger._db:
        journal.ledger._db.execute("DELETE FROM log WHERE pos <= ?", (upto,))


@pytest.mark.fault("F73")
def test_data_of_a_lost_manifest_is_never_taken_for_rubbish(tmp_path: Path, journal: Journal) -> None:
    for at in range(30):
        journal.frame(T0_MS + at, [(TAGS[0], T0_MS + at, at * 1.0, 192)])
    run(tmp_path / "h", journal, T0_MS + 5000, samples_max=10)
    lost = sorted((tmp_path / "h" / "manifests").iterdir())[1]
    lost.unlink()
    run(tmp_path / "h", journal, T0_MS + 9000, samples_max=10)
    assert everything(tmp_path / "h") == journal.rows
    taken = SegmentFolder(tmp_path / "h").snapshot()
    assert taken.cursor("ledger-one") == 10
    damaged = status_of(tmp_path / "h")["damaged"]
    assert "log positions 11 to 20" in damaged[0]["why"]


def _found(folder: Path) -> Any:
    """Look at file after file until something is found."""
    scrub, taken = Scrub(folder), SegmentFolder(folder).snapshot()
    for at in range(1, 5):
        scrub.look(taken, at * 3_600_000)
        if scrub.problems():
            return scrub.problems()[0]
    raise AssertionError("nothing was found")
