"""A disk that fails: what was written is written elsewhere, what is damaged is named exactly, and the rest serves on."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.historian.segments import durable
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.scrub import Scrub
from tests.historian.segments.journal import (
    DAY_MS,
    T0_MS,
    TAGS,
    Journal,
    everything,
    owner_of,
    rows_in,
    settle,
    status_of,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "ledger.sqlite3")
    yield made
    made.close()


@pytest.mark.fault("F72")
@pytest.mark.parametrize("which", range(1, 12))
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
    owner = owner_of(folder, journal.path, T0_MS + DAY_MS + 9000)
    owner.begin()
    settle(owner)
    owner.close()
    assert {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")} == whole
    assert status_of(folder)["damaged"] == []
    assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos


def sealed(tmp_path: Path, journal: Journal, rows: int = 3000) -> Path:
    """Seal two days of three tags into two files of some size."""
    for at in range(rows):
        when = T0_MS + at * 1000 + (DAY_MS if at >= rows // 2 else 0)
        journal.frame(T0_MS + DAY_MS, [(TAGS[at % 3], when, (at * 7919 % 4096) / 7, 192)])
    owner = owner_of(tmp_path / "h", journal.path, T0_MS + DAY_MS + 5000, seal_s=1.0)
    owner.begin()
    settle(owner)
    owner.close()
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
    owner = owner_of(folder, journal.path, T0_MS + DAY_MS + 9000)
    owner.begin()
    settle(owner)
    owner.close()
    damaged = status_of(folder)["damaged"]
    assert isinstance(damaged, list)
    assert [(each["file"], each["day"]) for each in damaged] == [(str(victim.relative_to(folder)), "2025-06-16")]
    assert damaged[0]["from_ms"] == T0_MS
    assert damaged[0]["to_ms"] == T0_MS + 1499 * 1000
    assert SegmentFolder(folder).verified("ledger-one").problems[0].file in (damaged[0]["file"], str(victim))


@pytest.mark.fault("F73")
def test_a_damaged_manifest_holds_the_cursor_and_its_files_are_not_touched(tmp_path: Path, journal: Journal) -> None:
    folder = sealed(tmp_path, journal)
    manifest = next((folder / "manifests").iterdir())
    manifest.write_text(manifest.read_text().replace('"rows":3000', '"rows":3001'), encoding="utf-8")
    assert SegmentFolder(folder).snapshot().cursor("ledger-one") == 0
    owner = owner_of(folder, journal.path, T0_MS + DAY_MS + 6000, seal_s=3600)
    owner.begin()
    settle(owner)
    owner.close()
    assert everything(folder) == journal.rows
    damaged = status_of(folder)["damaged"]
    assert isinstance(damaged, list)
    assert [each["file"] for each in damaged] == [manifest.name]


@pytest.mark.fault("F73")
def test_data_of_a_lost_manifest_is_never_taken_for_rubbish(tmp_path: Path, journal: Journal) -> None:
    for at in range(30):
        journal.frame(T0_MS + at, [(TAGS[0], T0_MS + at, at * 1.0, 192)])
    owner = owner_of(tmp_path / "h", journal.path, T0_MS + 5000, seal_s=1.0, samples_max=10)
    owner.begin()
    settle(owner)
    owner.close()
    lost = sorted((tmp_path / "h" / "manifests").iterdir())[1]
    lost.unlink()
    owner = owner_of(tmp_path / "h", journal.path, T0_MS + 9000, seal_s=1.0, samples_max=10)
    owner.begin()
    settle(owner)
    owner.close()
    assert everything(tmp_path / "h") == journal.rows
    taken = SegmentFolder(tmp_path / "h").snapshot()
    assert taken.cursor("ledger-one") == 10
    damaged = status_of(tmp_path / "h")["damaged"]
    assert isinstance(damaged, list)
    assert "log positions 11 to 20" in damaged[0]["why"]


def _found(folder: Path) -> Any:
    """Look at file after file until something is found."""
    scrub, taken = Scrub(folder), SegmentFolder(folder).snapshot()
    for at in range(1, 5):
        scrub.look(taken, at * 3_600_000)
        if scrub.problems():
            return scrub.problems()[0]
    raise AssertionError("nothing was found")
