"""What core believes of the historian's folder: names, hashes and bytes that it has checked itself, and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.core.entries import Entry, EntryKind
from gateway.core.ledger import Batch, Ledger
from gateway.core.sealed import VERIFIED_BYTES_MAX, Sealed, SealedSegments
from gateway.historian.segments.manifest import DayFile, Manifest
from gateway.historian.segments.names import Stem, manifest_path, rollup_path, samples_path
from tests.gateway.field import T0_MS

DAY = "2023-11-14"
START_MS, SEAL_S = T0_MS, 600.0
BEHIND, DAMAGED = "CORE.HISTORIAN.BEHIND", "CORE.HISTORIAN.DAMAGED"


def sealed_range(folder: Path, first: int, last: int, prev: str = "", ledger_id: str = "ledger-one") -> Manifest:
    """Write one manifest and its two files, whose bytes core compares and never reads."""
    stem = Stem(ledger_id, first, last, "seal")
    bodies = [f"{kind} {first} to {last}".encode() * 20 for kind in ("samples", "rollups")]
    for path, body in zip((samples_path(folder, stem, DAY), rollup_path(folder, stem, DAY)), bodies, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (bytes_, sha256), (rollup_bytes, rollup_sha256) = [(len(body), hashlib.sha256(body).hexdigest()) for body in bodies]
    file = DayFile(DAY, 5, 0, bytes_, sha256, rollup_bytes, rollup_sha256, T0_MS + first, T0_MS + last, DAY)
    manifest = Manifest(stem, T0_MS, 5, 0, prev, (file,))
    manifest_path(folder, stem).parent.mkdir(exist_ok=True)
    manifest_path(folder, stem).write_text(manifest.text(), encoding="utf-8")
    return manifest


def chain(folder: Path, *lasts: int) -> list[Manifest]:
    made: list[Manifest] = []
    for last in lasts:
        first, prev = (made[-1].stem.last + 1, made[-1].hash) if made else (1, "")
        made.append(sealed_range(folder, first, last, prev))
    return made


class Folder:
    """A historian's folder beside a ledger with a frame at every position up to 100."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.ledger = Ledger(path / "ledger.sqlite3", "PARK1")
        self.ledger.commit([Batch(entries=[
            Entry(pos, EntryKind.FRAME, 1, T0_MS + pos, b"", "E1", "", 7, pos, pos) for pos in range(1, 101)
        ])])  # fmt: skip
        self.path = path / "historian"
        self.seen = self.core()

    def core(self, *ancestry: tuple[str, int], ledger_id: str = "ledger-one") -> SealedSegments:
        return SealedSegments(self.path, ledger_id, ancestry, SEAL_S, START_MS)

    def look(self, after_s: float = 60, gone_upto: int = 0) -> Sealed:
        return self.seen.look(self.ledger.reader, gone_upto, START_MS + int(after_s * 1000), ())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "data")
    yield made
    made.ledger.close()


def stands(found: Sealed, key: str) -> bool | None:
    return next((told.standing for told in found.told if told.key == key), None)


def what(found: Sealed, key: str) -> str:
    return next(str(told.facts["what"]) for told in found.told if told.key == key)


def test_without_a_folder_nothing_is_sealed_and_after_three_seals_that_is_told(folder: Folder) -> None:
    assert [(told.key, told.standing) for told in folder.look().told] == [(BEHIND, False)]
    assert stands(folder.look(1_859), BEHIND) is False
    late = folder.look(1_861)
    assert (late.cursor, stands(late, BEHIND)) == (0, True)


def test_the_cursor_follows_what_is_sealed(folder: Folder) -> None:
    made = chain(folder.path, 10, 30)
    assert folder.look().cursor == 30
    sealed_range(folder.path, 31, 100, made[-1].hash)
    found = folder.look(9_999)
    assert (found.cursor, stands(found, BEHIND), stands(found, DAMAGED)) == (100, False, None)


@pytest.mark.fault("F72")
def test_the_cursor_waits_until_the_names_are_on_the_disk(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve may have died between the rename and its sync: after a loss of power the name would be gone, and the rows, too."""
    chain(folder.path, 10, 30)
    asked: list[Path] = []

    def refuse(path: Path) -> None:
        asked.append(path)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.core.sealed.sync_folder", refuse)
        found = folder.look()
    assert asked == [folder.path / "manifests"]
    assert (found.cursor, stands(found, DAMAGED)) == (0, True)
    assert folder.look().cursor == 30


def test_a_range_that_is_missing_holds_the_cursor(folder: Folder) -> None:
    made = chain(folder.path, 10, 20)
    sealed_range(folder.path, 26, 100, made[-1].hash)
    assert folder.look().cursor == 20


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.fault("F73")
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["a flipped bit", "a torn tail", "no file"])
@pytest.mark.parametrize("where", [samples_path, rollup_path], ids=["samples", "rollups"])
def test_a_damaged_file_holds_the_cursor_and_is_told_with_its_range(
    folder: Folder, damage: Callable[[Path], None], where: Callable[[Path, Stem, str], Path]
) -> None:
    made = chain(folder.path, 10, 30, 100)
    path = where(folder.path, made[1].stem, DAY)
    whole = path.read_bytes()
    damage(path)
    found = folder.look()
    assert (found.cursor, stands(found, DAMAGED)) == (10, True)
    assert "seal-ledger-one-0000000000000011-0000000000000030" in what(found, DAMAGED)
    assert "2023-11-14T22:13:20.011+00:00 to 2023-11-14T22:13:20.030+00:00" in what(found, DAMAGED)
    path.write_bytes(whole)
    found = folder.look()
    assert (found.cursor, bool(stands(found, DAMAGED))) == (100, False)


@pytest.mark.fault("F73")
def test_a_damaged_manifest_holds_the_cursor_and_is_named(folder: Folder) -> None:
    made = chain(folder.path, 10, 30, 100)
    flip(manifest_path(folder.path, made[1].stem))
    found = folder.look()
    assert (found.cursor, stands(found, DAMAGED)) == (10, True)
    assert "seal-ledger-one-0000000000000011-0000000000000030.json" in what(found, DAMAGED)


@pytest.mark.fault("F73")
def test_a_manifest_that_follows_another_one_holds_the_cursor_for_as_long_as_it_does(folder: Folder) -> None:
    chain(folder.path, 10)
    sealed_range(folder.path, 11, 100, "f" * 64)
    for _ in range(2):
        found = folder.look()
        assert (found.cursor, stands(found, DAMAGED)) == (10, True)
        assert "does not follow" in what(found, DAMAGED)


@pytest.mark.fault("F73")
def test_what_was_verified_and_is_gone_is_told_and_believed_no_more(folder: Folder) -> None:
    made = chain(folder.path, 10, 30, 100)
    assert folder.look().cursor == 100
    manifest_path(folder.path, made[1].stem).unlink()
    found = folder.look()
    assert (found.cursor, stands(found, DAMAGED)) == (10, True)
    assert "log positions 11 to 100 were sealed and are gone" in what(found, DAMAGED)


def test_a_core_that_starts_believes_of_what_the_ledger_no_longer_has(folder: Folder) -> None:
    made = chain(folder.path, 10, 30, 100)
    flip(samples_path(folder.path, made[0].stem, DAY))
    assert folder.look(gone_upto=10).cursor == 100, "nothing is read anew that left the ledger long ago"


def test_a_ledger_that_lost_frames_before_there_was_a_historian_is_no_damage(folder: Folder) -> None:
    found = folder.look(gone_upto=40)
    assert (found.cursor, stands(found, DAMAGED)) == (40, None)
    chain(folder.path, 30)
    assert stands(folder.look(gone_upto=40), DAMAGED) is None
    chain(folder.path, 30, 100)
    assert folder.look(gone_upto=40).cursor == 100


def test_a_restored_ledger_goes_on_from_what_its_ancestors_had_sealed_of_it(folder: Folder) -> None:
    chain(folder.path, 10, 60)
    folder.seen = folder.core(("ledger-one", 40), ledger_id="ledger-two")
    assert folder.look().cursor == 40, "what the old ledger sealed beyond is not this one's"
    sealed_range(folder.path, 41, 100, ledger_id="ledger-two")
    assert folder.look().cursor == 100
    folder.seen = folder.core(("ledger-two", 90), ("ledger-one", 40), ledger_id="ledger-three")
    assert folder.look().cursor == 90


def test_of_a_huge_folder_only_so_much_is_read_at_a_time(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VERIFIED_BYTES_MAX >= 100_000_000
    monkeypatch.setattr("gateway.core.sealed.VERIFIED_BYTES_MAX", 1)
    chain(folder.path, 10, 30, 100)
    assert [folder.look().cursor for _ in range(3)] == [10, 30, 100]


def test_a_folder_that_cannot_be_read_is_told_and_nothing_moves(folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / "manifests").symlink_to("manifests")  # a circle: an error of the file system
    found = folder.look()
    assert found.cursor == 0
    assert stands(found, DAMAGED) is True


def test_serves_word_is_read_from_its_file_and_rubbish_there_hurts_nobody(folder: Folder) -> None:
    chain(folder.path, 50)
    status = folder.path / "status.json"
    status.write_text(json.dumps({"at_ms": START_MS, "stores": [{"id": "influx", "state": "refused", "detail": "401"}]}))
    assert stands(folder.look(), "CORE.STORE-influx.REFUSED") is True
    for rubbish in (b"{", b"\xff", b"[" * 100_000, b" " * 300_000, b"{}", b'{"at_ms": NaN}'):
        status.write_bytes(rubbish)
        found = folder.look(181)
        assert (found.cursor, stands(found, BEHIND)) == (50, True), rubbish[:10]
        reason = next(told.facts["reason"] for told in found.told if told.key == BEHIND)
        assert str(reason).startswith("status.json: "), rubbish[:10]


def test_core_loads_no_database(folder: Folder) -> None:
    program = "import sys, gateway.core; print([name for name in ('duckdb', 'openpyxl', 'influxdb_client') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
