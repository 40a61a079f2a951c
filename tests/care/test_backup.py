"""A backup: what is in it, what is not, that it can be ended at any step, and that the next one is cheap."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.care import (
    Disk,
    Listing,
    NewerDataError,
    NotABackupError,
    NothingToBackUpError,
    Report,
    TargetError,
    backup,
    backup_into_file,
    verify,
)
from gateway.care.ledger_check import facts_of
from gateway.care.taking import _Backup
from gateway.core.ledger import Ledger
from gateway.core.snapshots import Snapshot, write_snapshot
from gateway.historian.segments.names import Stem, manifest_path, samples_path
from tests.care.folders import DAY, LEDGER, LEDGER_ID, BusyLedger, contents, ends_at, files, seal, steps_of, whole

NOW_MS = 1_795_000_000_000


def made(data: Path, to: Path, disk: Disk | None = None, **more: Any) -> Report:
    return backup(data, to, program="0.1.0", wall_ms=lambda: NOW_MS, disk=disk, room_bytes=0, **more)


def listed(report: Report) -> Listing:
    assert report.listing is not None
    return report.listing


EXPECTED = {
    "core/ledger.sqlite3", "serve/audit.jsonl", "serve/audit.1.jsonl", "serve/tokens.json", "historian/kept_from.json",
    "historian/evidence/2023-11.parquet", "historian/quarantine/L1-0000000000000007", "historian/feeds/MAIN.json",
    *(f"historian/manifests/seal-ledger-one-{a:016d}-{b:016d}.json" for a, b in ((1, 3), (4, 6), (7, 8))),
    *(f"historian/{top}/{DAY}/seal-ledger-one-{a:016d}-{b:016d}.parquet"
      for top in ("samples", "rollups") for a, b in ((1, 3), (4, 6), (7, 8))),
}  # fmt: skip


def test_it_holds_the_ledger_its_snapshots_what_serve_keeps_and_every_segment_that_is_named(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    report = made(data, tmp_path / "backup")
    listing, problems = verify(tmp_path / "backup")
    assert problems == []
    assert listing == report.listing
    snapshots = {path for path in listing.by_path if path.startswith("core/snapshot-")}
    assert len(snapshots) == 2
    assert set(listing.by_path) == EXPECTED | snapshots
    assert set(files(tmp_path / "backup")) == set(listing.by_path) | {"backup.json"}
    assert contents(tmp_path / "backup" / LEDGER) == contents(data / LEDGER)
    for path in listing.by_path:
        if path != LEDGER:
            assert (tmp_path / "backup" / path).read_bytes() == (data / path).read_bytes()
    assert (listing.ledger.id, listing.ledger.site) == (LEDGER_ID, "PARK1")
    assert listing.versions == {"ledger": 2, "snapshot": 2, "state": 2, "manifest": 1}
    assert oct((tmp_path / "backup").stat().st_mode & 0o777) == "0o700"


def test_segments_share_the_disk_with_the_data_and_the_second_backup_with_the_first(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    first = made(data, tmp_path / "b" / "monday")
    stem = Stem(LEDGER_ID, 1, 3, "seal")
    assert first.linked == 9  # 3 × (samples, rollups, manifest); evidence may be written anew under its name
    assert samples_path(tmp_path / "b" / "monday" / "historian", stem, DAY).samefile(samples_path(data / "historian", stem, DAY))
    seal(data, 9, 10, prev="0" * 64)
    second = made(data, tmp_path / "b" / "tuesday")
    assert second.reused == 6
    assert verify(tmp_path / "b" / "tuesday")[1] == []
    assert len(listed(second).files) == len(listed(first).files) + 3


def test_what_the_backup_before_has_lost_is_taken_anew(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    made(data, tmp_path / "b" / "monday")
    lost = samples_path(tmp_path / "b" / "monday" / "historian", Stem(LEDGER_ID, 1, 3, "seal"), DAY)
    lost.unlink()
    assert made(data, tmp_path / "b" / "tuesday").reused == 5
    assert verify(tmp_path / "b" / "tuesday")[1] == []
    assert verify(tmp_path / "b" / "monday")[1] == [f"{lost.relative_to(tmp_path / 'b' / 'monday')}: No such file or directory"]


def test_where_the_disk_has_no_links_everything_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    data = whole(tmp_path / "data")
    monkeypatch.setattr(os, "link", refused)
    report = made(data, tmp_path / "backup")
    assert report.linked == 0
    assert verify(tmp_path / "backup")[1] == []


@pytest.mark.fault("F73")
def test_damaged_and_missing_segments_are_taken_as_they_are_and_told(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    folder = data / "historian"
    one, two, three = (Stem(LEDGER_ID, a, b, "seal") for a, b in ((1, 3), (4, 6), (7, 8)))
    path = samples_path(folder, one, DAY)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    samples_path(folder, two, DAY).unlink()
    manifest_path(folder, three).write_text("torn", encoding="utf-8")
    report = made(data, tmp_path / "backup")
    told = [one.split(": ", 1) for one in listed(report).damaged]
    assert [(path.rsplit("/", 1)[0], why) for path, why in told] == [
        ("historian/manifests", told[0][1]),
        (f"historian/samples/{DAY}", "not what its manifest says"),
        (f"historian/samples/{DAY}", "missing"),
    ]
    assert f"historian/samples/{DAY}/{three.data_name}" in listed(report).by_path, "its data is kept though its manifest is torn"
    assert verify(tmp_path / "backup")[1] == [], "it is what was there"


def test_segments_that_go_while_they_are_taken_are_left_out_with_their_manifests(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    done = False

    def packing(step: str) -> None:
        nonlocal done
        if not done and step.startswith("read historian/samples"):  # one file is taken: now they go
            done = True
            seal(data, 9, 9, prev="0" * 64)
            for first, last in ((1, 3), (4, 6), (7, 8)):
                stem = Stem(LEDGER_ID, first, last, "seal")
                manifest_path(data / "historian", stem).unlink()
                samples_path(data / "historian", stem, DAY).unlink()

    report = made(data, tmp_path / "backup", Disk(step=packing))
    assert done
    taken = [path for path in listed(report).by_path if path.startswith(("historian/samples", "historian/manifests"))]
    assert taken == [
        "historian/manifests/seal-ledger-one-0000000000000009-0000000000000009.json",
        f"historian/samples/{DAY}/seal-ledger-one-0000000000000009-0000000000000009.parquet",
    ]
    assert verify(tmp_path / "backup")[1] == []


@pytest.mark.timeout(400)  # a process for every step
def test_killed_at_any_step_it_is_no_backup_and_the_same_command_finishes_it(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    names = steps_of(lambda disk: made(data, tmp_path / "first", disk))
    assert len(names) > 40
    expected = {one.path: one for one in verify(tmp_path / "first")[0].files if one.path != LEDGER}
    shutil.rmtree(tmp_path / "first")
    for number, name in enumerate(names, 1):
        to = tmp_path / "backup"
        assert ends_at(number, lambda disk: made(data, tmp_path / "backup", disk)), name
        finished = (to / "backup.json").exists()
        if not finished and to.exists() and any(to.iterdir()):
            with pytest.raises(NotABackupError):
                verify(to)
        ends_at(number, lambda disk: made(data, tmp_path / "backup", disk))  # and at the same step again
        if not (to / "backup.json").exists() or (to / "backup.part.jsonl").exists():
            made(data, to)
        listing, problems = verify(to)
        assert problems == [], name
        assert {one.path: one for one in listing.files if one.path != LEDGER} == expected, name
        assert set(files(to)) == set(listing.by_path) | {"backup.json"}, name
        assert contents(to / LEDGER) == contents(data / LEDGER), name
        shutil.rmtree(to)


def test_what_was_done_before_a_kill_is_kept_only_if_it_is_still_so(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    names = steps_of(lambda disk: made(data, tmp_path / "first", disk))
    at = names.index("make the copy of the ledger") + 1
    shutil.rmtree(tmp_path / "first")
    assert ends_at(at, lambda disk: made(data, tmp_path / "backup", disk))
    folder = tmp_path / "backup" / "historian"
    path = samples_path(folder, Stem(LEDGER_ID, 1, 3, "seal"), DAY)
    body = path.read_bytes()
    path.unlink()  # not the data folder's own, which it shares
    path.write_bytes(body[:-1] + b"X")
    report = made(data, tmp_path / "backup")
    assert report.kept == 5
    assert verify(tmp_path / "backup")[1] == []


def test_beside_a_writer_every_row_up_to_its_position_is_in_it_and_the_journal_holds(tmp_path: Path) -> None:
    busy = BusyLedger(tmp_path / "data" / LEDGER)
    for _ in range(50):
        busy.commit()
    before = busy.committed
    with busy:
        report = made(tmp_path / "data", tmp_path / "backup")
    facts, broken = facts_of(tmp_path / "backup" / LEDGER)
    assert facts == listed(report).ledger
    assert (facts.pos >= before, broken) == (True, "")
    then, now = contents(tmp_path / "backup" / LEDGER), contents(tmp_path / "data" / LEDGER)
    assert sorted(row[0] for row in then["log"]) == list(range(1, facts.pos + 1))
    assert [row for row in now["log"] if row[0] <= facts.pos] == then["log"]


def test_a_snapshot_that_comes_while_the_ledger_is_copied_never_stands_beside_an_older_ledger(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    busy = BusyLedger(data / LEDGER)
    written = 0

    def snapshots(step: str) -> None:
        nonlocal written
        if step == "write a piece of the ledger" and written < 5:
            written += 1
            busy.commit()
            write_snapshot(data / "core", Snapshot(busy.committed, {"engine": b"", "nodes": b"{}"}))

    report = made(data, tmp_path / "backup", Disk(step=snapshots))
    busy.ledger.close()
    positions = [int(path[-24:-4]) for path in listed(report).by_path if path.startswith("core/snapshot-")]
    assert written == 5
    assert len(positions) == 2
    assert max(positions) <= listed(report).ledger.pos


def test_a_snapshot_that_comes_just_before_the_last_read_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have let rows go that replay from the older ones needs."""
    data = whole(tmp_path / "data")
    busy = BusyLedger(data / LEDGER)
    held, written = _Backup._open_snapshots, list[int]()

    def late(self: _Backup) -> None:
        held(self)
        if not written:
            busy.commit()
            written.append(busy.committed)
            write_snapshot(data / "core", Snapshot(busy.committed, {"engine": b"", "nodes": b"{}"}))

    monkeypatch.setattr(_Backup, "_open_snapshots", late)
    report = made(data, tmp_path / "backup")
    busy.ledger.close()
    positions = {int(path[-24:-4]) for path in listed(report).by_path if path.startswith("core/snapshot-")}
    assert written[0] in positions


def test_what_is_sealed_while_the_ledger_is_copied_is_in_it(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    sealed: list[str] = []

    def sealing(step: str) -> None:
        if step == "write a piece of the ledger" and not sealed:
            sealed.append(seal(data, 9, 10, prev="0" * 64).stem.manifest_name)

    report = made(data, tmp_path / "backup", Disk(step=sealing))
    assert f"historian/manifests/{sealed[0]}" in listed(report).by_path
    assert verify(tmp_path / "backup")[1] == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda to: to.mkdir() or (to / "x").write_text("x"), "not empty", id="a folder with something else"),
        pytest.param(lambda to: to.write_text("x"), "no folder", id="a file"),
        pytest.param(lambda to: to.symlink_to("/tmp"), "no folder", id="a link"),
    ],
)
def test_a_target_that_holds_something_else_is_refused(tmp_path: Path, make: Any, why: str) -> None:
    data = whole(tmp_path / "data")
    make(tmp_path / "backup")
    with pytest.raises(TargetError, match=why):
        made(data, tmp_path / "backup")


def test_a_finished_backup_is_not_changed_any_more(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    made(data, tmp_path / "backup")
    before = files(tmp_path / "backup")
    with pytest.raises(TargetError, match="finished backup"):
        made(data, tmp_path / "backup")
    assert files(tmp_path / "backup") == before


@pytest.mark.fault("F51")
@pytest.mark.parametrize("inside", ["core/backup", "historian/x", "serve/../core/b", "", "link/core/x"])
def test_a_target_among_the_data_is_refused(tmp_path: Path, inside: str) -> None:
    data = whole(tmp_path / "data")
    (data / "link").symlink_to(data)
    with pytest.raises(TargetError, match="lies in the data folder"):
        made(data, data / inside)


def test_an_unfinished_backup_of_another_ledger_is_not_gone_on_with(tmp_path: Path) -> None:
    one, two = whole(tmp_path / "one"), whole(tmp_path / "two")
    ledger = Ledger(two / LEDGER, "PARK1")
    ledger.renew_id("ledger-two")
    ledger.close()
    assert ends_at(20, lambda disk: made(one, tmp_path / "backup", disk))
    with pytest.raises(TargetError, match="another ledger"):
        made(two, tmp_path / "backup")


def test_a_disk_without_room_is_not_filled(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    with pytest.raises(TargetError, match="left to core"):
        backup(data, tmp_path / "backup", program="1", wall_ms=lambda: NOW_MS, room_bytes=10**18)


def test_without_a_ledger_there_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(NothingToBackUpError):
        made(tmp_path / "data", tmp_path / "backup")


@pytest.mark.fault("F74")
def test_data_of_a_newer_program_is_not_backed_up_by_an_older_one(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    (data / "serve" / "tokens.json").write_text('{"format": 9}', encoding="utf-8")
    with pytest.raises(NewerDataError, match=r"version 9.*up to 1"):
        made(data, tmp_path / "backup")


def test_site_files_come_along_and_secrets_do_not(tmp_path: Path) -> None:
    data, site = whole(tmp_path / "data"), tmp_path / "site"
    site.mkdir()
    (site / "site.yaml").write_text("version: 1\nreceivers:\n  - id: A\n    secret_file: secrets/city.yaml\n", encoding="utf-8")
    (site / "city.yaml").write_text("whsec_x", encoding="utf-8")
    (site / "edge-1.yaml").write_text("edge: 1\n", encoding="utf-8")
    (site / "server.key").write_text("key", encoding="utf-8")
    (site / "linked.yaml").symlink_to("/etc/hostname")
    report = made(data, tmp_path / "backup", site=site)
    assert {path for path in listed(report).by_path if path.startswith("site/")} == {"site/site.yaml", "site/edge-1.yaml"}
    assert report.left_out == ["city.yaml", "linked.yaml"]
    assert b"whsec_x" not in b"".join(files(tmp_path / "backup").values())


# -- one file -------------------------------------------------------------------------------------------------------


def packed(data: Path, place: Path, disk: Disk | None = None) -> Report:
    return backup_into_file(data, place, disk=disk or Disk(), program="1", wall_ms=lambda: NOW_MS, room_bytes=0)


def test_one_file_holds_the_same(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    report = packed(data, tmp_path / "b.tar")
    listing, problems = verify(tmp_path / "b.tar")
    assert (listing, problems) == (report.listing, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]
    with pytest.raises(TargetError, match="not overwritten"):
        packed(data, tmp_path / "b.tar")


@pytest.mark.timeout(400)  # a process for every step
def test_killed_while_the_file_is_written_the_same_command_finishes_it(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    names = steps_of(lambda disk: packed(data, tmp_path / "first.tar", disk))
    for number in range(names.index("write backup.json") + 1, len(names) + 1):
        assert ends_at(number, lambda disk: packed(data, tmp_path / "b.tar", disk))
        if not (tmp_path / "b.tar").exists():
            packed(data, tmp_path / "b.tar")
        assert verify(tmp_path / "b.tar")[1] == [], names[number - 1]
        (tmp_path / "b.tar").unlink()
        shutil.rmtree(tmp_path / "b.tar.parts", ignore_errors=True)


def test_copies_share_nothing_so_a_file_spoilt_in_its_place_spoils_one(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    made(data, tmp_path / "b" / "monday")
    report = made(data, tmp_path / "b" / "tuesday", copies=True)
    assert (report.linked, report.reused) == (0, 0)
    (path,) = list(data.glob("historian/samples/*/seal-ledger-one-0000000000000001-*"))
    with path.open("r+b") as file:
        file.write(b"spoilt in its place")
    assert verify(tmp_path / "b" / "monday")[1] != []
    assert verify(tmp_path / "b" / "tuesday")[1] == []


def test_a_damaged_file_is_told_when_it_is_taken(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    (path,) = list(data.glob("historian/samples/*/seal-ledger-one-0000000000000001-*"))
    path.write_bytes(b"spoilt before")
    for copies in (False, True):
        report = made(data, tmp_path / f"b{copies}", copies=copies)
        assert any(path.name in one for one in listed(report).damaged)
        assert verify(tmp_path / f"b{copies}")[1] == [], "it is what was there, and the listing says that it was damaged"


def test_the_data_folder_is_no_place_for_its_backup_and_a_refused_one_leaves_nothing(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    for name in ("backup", "core/backup", "historian/b"):
        with pytest.raises(TargetError, match="lies in the data folder"):
            made(data, data / name)
    with pytest.raises(TargetError, match=r"GB are left to core") as caught:
        backup(data, tmp_path / "b", program="1", wall_ms=lambda: NOW_MS, room_bytes=10**18)
    assert " 0.0 GB" not in f"{caught.value}"
    assert not (tmp_path / "b").exists()


def test_a_small_folder_needs_no_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = whole(tmp_path / "data")
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9 - 200_000_000, 200_000_000))
    backup(data, tmp_path / "b", program="1", wall_ms=lambda: NOW_MS)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9 - 20_000_000, 20_000_000))
    with pytest.raises(TargetError, match=r"20\.0 MB are free"):
        backup(data, tmp_path / "c", program="1", wall_ms=lambda: NOW_MS)
