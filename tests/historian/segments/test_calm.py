"""Nothing that is damaged or away looks whole, and nothing that is whole looks damaged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core import ledger
from gateway.core.ledger import Batch
from gateway.core.retention import Removable
from gateway.historian.segments import durable, evidence, scrub
from gateway.historian.segments import folder as folder_module
from gateway.historian.segments.evidence import evidence_path, set_aside, spans_of
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder, Snapshot
from gateway.historian.segments.load import write_part
from gateway.historian.segments.log import AlarmSpan
from gateway.historian.segments.lost import lost_problems, put_away, put_evidence_away
from gateway.historian.segments.manifest import Link, Manifest
from gateway.historian.segments.names import Stem, samples_path
from gateway.historian.segments.query import ParquetReader, by_halves
from gateway.historian.segments.reading import SegmentReader
from gateway.historian.segments.scrub import EVERY_MS, Scrub
from tests.historian.reference import Row as RowOf
from tests.historian.reference import samples_of
from tests.historian.segments.journal import (
    DAY_MS,
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

HOUR_MS = 3_600_000


def frames(journal: Journal, count: int, at_ms: int = T0_MS, step_ms: int = 1000) -> None:
    for at in range(count):
        when = at_ms + at * step_ms
        journal.frame(when, [(TAGS[at % 3], when, (at * 7919 % 4096) / 7, 192)])


def prune(journal: Journal, upto: int) -> None:
    journal.ledger.commit([Batch(removable=Removable(1, upto + 1))])


def told(folder: Path) -> list[str]:
    return [each["why"] for each in status_of(folder)["damaged"]]


# -- evidence -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F73")
def test_evidence_takes_nothing_from_a_file_that_was_changed_even_where_it_can_be_read(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 3000)
    run(folder, journal, T0_MS + DAY_MS, samples_max=10_000)
    (live,) = SegmentFolder(folder).snapshot().files()
    path, db = live.samples(folder), connect(folder)
    whole, wrong = path.read_bytes(), 0
    try:
        for at in range(4, len(whole), 97):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            try:
                wrong += bool(rows_in([path]) - journal.rows)
            except Exception:
                continue
            set_aside(db, folder, "2025-06-16", [live], {TAGS[0]: [(T0_MS, T0_MS + DAY_MS)]})
            assert not rows_in((folder / "evidence").glob("*.parquet")) - journal.rows
            if wrong > 2:
                break
    finally:
        db.close()
    assert wrong, "no such damage was met"


@pytest.mark.fault("F73")
@pytest.mark.parametrize("alarm", [True, False])
def test_damaged_samples_of_a_day_with_alarms_are_kept_aside_when_it_goes(tmp_path: Path, journal: Journal, alarm: bool) -> None:
    folder = tmp_path / "h"
    for day in range(4):
        frames(journal, 3, T0_MS + day * DAY_MS)
    if alarm:
        journal.alarm(TAGS[0], T0_MS, T0_MS + 1000)
    run(folder, journal, T0_MS + 3 * DAY_MS + 60_000)
    prune(journal, 9)
    (victim,) = folder.glob("samples/2025-06-16/*.parquet")
    raw = victim.read_bytes()
    victim.write_bytes(raw[:20] + bytes([raw[20] ^ 1]) + raw[21:])
    run(folder, journal, T0_MS + 3 * DAY_MS + 120_000, keep_days=2.0)
    assert not [*folder.glob("samples/2025-06-16/*")]
    assert not [*folder.glob("evidence/*")]
    put = [path.read_bytes() for path in folder.glob("lost/evidence/2025-06-16/*")]
    assert len(put) == alarm
    run(folder, journal, T0_MS + 3 * DAY_MS + 240_000, keep_days=2.0)
    assert [why.partition(":")[0] for why in told(folder)] == ["it was damaged when its day went"] * alarm


@pytest.mark.fault("F72", "F73")
@pytest.mark.parametrize("back", [True, False])
def test_samples_that_the_disk_does_not_give_hold_up_retention_only_until_they_were_looked_at_again(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    folder, clock = tmp_path / "h", [T0_MS + 11 * DAY_MS + 300_000]
    for day in range(12):
        frames(journal, 3, T0_MS + day * DAY_MS)
    journal.alarm(TAGS[0], T0_MS, T0_MS + 1000)
    run(folder, journal, T0_MS + 11 * DAY_MS + 60_000)
    prune(journal, 3)
    (victim,) = folder.glob("samples/2025-06-16/*.parquet")
    away = [True]

    def refused(path: Path) -> str:
        if path == victim and away[0]:
            raise OSError(5, "Input/output error")
        return real(path)

    real = folder_module.file_sha256
    monkeypatch.setattr(evidence, "file_sha256", refused)
    monkeypatch.setattr(folder_module, "file_sha256", refused)
    monkeypatch.setattr(scrub, "NEW_MAX", 0)  # as with packs, which have their turn only
    monkeypatch.setattr(scrub, "EVERY_MS", 10**15)
    owner = owner_of(folder, journal.path, 0, clock=clock, keep_days=2.0)
    owner.begin()
    owner.round()
    assert "Input/output error" in owner.trouble
    assert victim.exists(), "a disk that was away for a moment takes no evidence"
    away[0] = not back
    for _ in range(10):
        clock[0] += 61_000
        for _ in range(3):
            owner.round()
    owner.close()
    assert not [*folder.glob("samples/2025-06-16/*")]
    assert len([*folder.glob("lost/evidence/2025-06-16/*")]) == (not back)
    assert len([*folder.glob("evidence/*")]) == back


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["empty", "middle", "end"])
def test_evidence_that_is_damaged_is_put_away_and_holds_up_no_day(tmp_path: Path, journal: Journal, harm: str) -> None:
    folder = tmp_path / "h"
    for day in range(4):
        frames(journal, 3, T0_MS + day * DAY_MS)
    journal.alarm(TAGS[0], T0_MS, T0_MS + 1000)
    now_ms = T0_MS + 3 * DAY_MS
    run(folder, journal, now_ms + 60_000)
    db = connect(folder)
    set_aside(db, folder, "2025-06-16", list(SegmentFolder(folder).snapshot().files())[:1], {TAGS[0]: [(T0_MS, T0_MS + 1000)]})
    db.close()
    path = folder / "evidence" / "2025-06-16.parquet"
    raw = path.read_bytes()
    at = {"empty": 0, "middle": 30, "end": len(raw) - 40}[harm]
    wrong = b"" if harm == "empty" else raw[:at] + bytes(each ^ 255 for each in raw[at : at + 20]) + raw[at + 20 :]
    path.write_bytes(wrong)
    run(folder, journal, now_ms + 120_000, keep_days=2.0)
    assert not [*folder.glob("samples/2025-06-16/*")]
    assert {row for row in journal.rows if row[0] == TAGS[0] and row[1] <= T0_MS + 1000} == set(rows_in([path]))
    (put,) = folder.glob("lost/evidence/2025-06-16/*")
    assert put.read_bytes() == wrong
    assert [why.partition(";")[0] for why in told(folder)] == ["it was evidence of a day and cannot be read any more"]


def test_an_alarm_that_stands_is_evidence_to_the_end_whatever_the_clock_says() -> None:
    assert spans_of([AlarmSpan("T", 1000, None)], 10) == {"T": [(990, (1 << 62) + 10)]}


# -- looking for damage ---------------------------------------------------------------------------------------------


@pytest.mark.fault("F73")
def test_every_file_has_its_turn_however_often_the_process_begins_anew(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    for day in range(12):
        frames(journal, 2, T0_MS + day * DAY_MS)
    run(folder, journal, T0_MS + 13 * DAY_MS)
    taken = SegmentFolder(folder).snapshot()
    assert len(list(taken.files())) == 12
    looked: set[str] = set()
    now_ms = T0_MS + 20 * DAY_MS
    for _ in range(5):
        one = Scrub(folder)
        one._checked = {one._name(live) for live in taken.files()}
        one._check = lambda live: looked.add(live.file.day)  # type: ignore[method-assign,assignment,return-value]
        for _ in range(3):
            one.look(taken, now_ms)
            now_ms += EVERY_MS
    assert len(looked) == 12


@pytest.mark.fault("F72", "F73")
def test_damage_is_told_where_no_database_can_be_opened_to_locate_it(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "h"
    frames(journal, 10)
    run(folder, journal, T0_MS + 60_000)
    victim = next(folder.glob("samples/*/*.parquet"))
    raw = victim.read_bytes()
    victim.write_bytes(raw[:20] + bytes([raw[20] ^ 1]) + raw[21:])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scrub, "open_database", full)
    one = Scrub(folder)
    one.look(SegmentFolder(folder).snapshot(), T0_MS)
    assert [problem.file for problem in one.problems()] == [str(victim.relative_to(folder))]


def test_as_many_ancestors_as_the_ledger_remembers() -> None:
    assert ledger.ANCESTORS_MAX == folder_module.ANCESTORS_MAX


@pytest.mark.fault("F73")
def test_whatever_is_flipped_in_a_file_s_end_looking_goes_on(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 60)
    run(folder, journal, T0_MS + 120_000)
    taken = SegmentFolder(folder).snapshot()
    (live,) = taken.files()
    victim = live.samples(folder)
    raw = victim.read_bytes()
    size = int.from_bytes(raw[-8:-4], "little") + 8
    wrong = []
    for at in range(len(raw) - size, len(raw)):
        victim.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :])
        one = Scrub(folder)
        try:
            one._check(live)
        except Exception as error:
            wrong.append((at, repr(error)))
        else:
            assert one.problems()
    assert wrong == []


@pytest.mark.fault("F73")
def test_whatever_is_flipped_in_a_file_s_end_readers_name_the_file(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 120_000)
    reader = SegmentReader(folder, ParquetReader(folder))
    taken = reader.taken()
    (live,) = taken.files()
    victim = live.samples(folder)
    raw = victim.read_bytes()
    end = len(raw) - int.from_bytes(raw[-8:-4], "little") - 8
    names = [found.start() for found in re.finditer(rb"tag|source_ms|value|code|raw|late|stream|sequence", raw) if found.start() >= end]
    assert len(names) > 15
    for at in names:
        for bit in (1, 32, 128):
            victim.write_bytes(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
            found, missing = reader.samples(taken, TAGS[0], T0_MS, T0_MS + DAY_MS, 10**6, time.monotonic() + 60)
            assert len(found) == 10 or [each.file for each in missing] == [str(victim.relative_to(folder))], (at, bit)


def test_a_fault_of_our_own_is_not_taken_for_damage() -> None:
    def ask(_: object) -> None:
        raise KeyError("number")

    with pytest.raises(KeyError):
        by_halves([Path("a"), Path("b")], ask, lambda *_: None)


# -- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.fault("F73")
def test_a_historian_taken_away_stays_a_hole_after_the_ledger_was_restored(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    prune(journal, 20)
    shutil.rmtree(folder)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    hole = [why for why in told(folder) if why.startswith("log positions 1 to 20")]
    assert len(hole) == 1
    journal.ledger.renew_id("ledger-two")
    frames(journal, 2, T0_MS + 130_000)
    run(folder, journal, T0_MS + 200_000, samples_max=10)
    assert [why for why in told(folder) if why.startswith("log positions 1 to 20")] == hole
    assert everything(folder) + +journal.rows == everything(folder) + journal.rows


@pytest.mark.fault("F73")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_part_of_a_load_that_is_away_with_its_manifest_is_told(tmp_path: Path, journal: Journal, lost: int) -> None:
    folder, db = tmp_path / "h", connect(tmp_path / "h")
    for part in range(3):
        write_part(db, folder, "old1", part, samples_of([RowOf(TAGS[0], T0_MS + part, 1.5)]), T0_MS)
    db.close()
    journal.tick(T0_MS)
    run(folder, journal, T0_MS + 60_000)
    assert told(folder) == []
    for path in folder.glob(f"**/load-old1-{lost:08d}.*"):
        path.unlink()
    run(folder, journal, T0_MS + 120_000)
    assert [why.partition(";")[0] for why in told(folder)] == [f"no manifest holds part {lost} of load old1"]


@pytest.mark.fault("F73")
@pytest.mark.parametrize("known", [True, False])
def test_a_hole_in_what_an_earlier_ledger_had_sealed_is_told(tmp_path: Path, journal: Journal, known: bool) -> None:
    folder = tmp_path / "h"
    frames(journal, 50)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    with journal.ledger._db:  # the ledger was restored: it has taken over 15 of these 50
        journal.ledger._db.execute("DELETE FROM log WHERE pos > 15")
    journal.ledger.renew_id("ledger-two")
    if not known:
        with journal.ledger._db:
            journal.ledger._db.execute("UPDATE meta SET value = '[]' WHERE key = 'ancestry'")
    journal.pos = 15
    frames(journal, 30, T0_MS + 130_000)
    run(folder, journal, T0_MS + 200_000, samples_max=10)
    assert told(folder) == []
    for path in folder.glob(f"**/seal-ledger-one-{21:016d}-*"):
        path.unlink()
    run(folder, journal, T0_MS + 300_000, samples_max=10)
    assert [why.partition(";")[0] for why in told(folder)] == ["no manifest holds log positions 21 to 30 of ledger-one"]
    if known:  # what it had, and what its heir took over from it and never had itself
        for path in folder.glob(f"**/seal-ledger-one-{11:016d}-*"):
            path.unlink()
        run(folder, journal, T0_MS + 400_000, samples_max=10)
        assert [why.partition(";")[0] for why in told(folder)] == [
            "no manifest holds log positions 11 to 15", "no manifest holds log positions 16 to 30 of ledger-one",
        ]  # fmt: skip


@pytest.mark.fault("F73")
def test_what_was_put_away_is_told_until_it_counts_again(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    kept = {path: path.read_bytes() for path in folder.glob("*/**/seal-*") if path.is_file()}
    prune(journal, 30)
    for path in (folder / "manifests").iterdir():
        path.unlink()
    journal.tick(T0_MS + 60_000)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    assert sum("no manifest names it any more" in why for why in told(folder)) == 3
    for path, raw in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    run(folder, journal, T0_MS + 200_000, samples_max=10)
    assert told(folder) == []
    assert everything(folder) == journal.rows


@pytest.mark.fault("F73")
def test_what_is_put_away_twice_under_one_name_is_there_twice(tmp_path: Path) -> None:
    folder, stem, day = tmp_path / "h", Stem("ledger-one", 1, 10, "seal"), "2025-06-16"
    samples, evidence = samples_path(folder, stem, day), evidence_path(folder, day)
    for path in (samples, evidence):
        path.parent.mkdir(parents=True)
    for each in ("one", "two", "three"):
        samples.write_text(each)
        put_away(folder, [(samples, stem)])
        evidence.write_text(each)
        put_evidence_away(folder, evidence)
    assert sorted(path.read_text() for path in (folder / "lost").glob("samples/*/*")) == ["one", "three", "two"]
    assert sorted(path.read_text() for path in (folder / "lost").glob("evidence/*/*")) == ["one", "three", "two"]
    problems = [*lost_problems(folder, Snapshot((), (), ()))]
    assert [problem.why.partition(" (")[0].partition(" and")[0] for problem in problems] == [
        *["it was evidence of a day"] * 3, *["no manifest names it any more"] * 3,
    ]  # fmt: skip
    assert len({problem.file for problem in problems}) == 6


def test_manifests_are_gone_through_once_however_much_is_lost(tmp_path: Path) -> None:
    class Counted(tuple[Manifest, ...]):
        looks = 0

        def __iter__(self) -> Iterator[Manifest]:
            Counted.looks += 1
            return super().__iter__()

    stems = [Stem("ledger-one", first, first + 9, "seal") for first in range(1, 401, 10)]
    for stem in stems:
        path = tmp_path / "lost" / "samples" / "2025-06-16" / stem.data_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    links = tuple(Link(stem.first, stem.last, "", 1, 1) for stem in stems[10:20])
    wide = (Link(201, 220, "", 1, 1), Link(221, 240, "", 1, 1))
    manifests = Counted((
        *(Manifest(stem, 0, 0, 0, "", (), ()) for stem in stems[:10]),
        Manifest(Stem("ledger-one", 101, 200, "pack"), 0, 0, 0, "", (), links),
        Manifest(Stem("ledger-one", 201, 240, "pack"), 0, 0, 0, "", (), wide),
        Manifest(Stem("ledger-two", 1, 400, "pack"), 0, 0, 0, "", (), tuple(Link(s.first, s.last, "", 1, 1) for s in stems)),
    ))  # fmt: skip
    told = [Path(problem.file).name for problem in lost_problems(tmp_path, Snapshot(manifests, (), ()))]
    assert told == [stem.data_name for stem in stems[20:]]
    assert Counted.looks == 1


# -- the chain ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F73")
@pytest.mark.parametrize("packed", ["before", "after"])
def test_a_manifest_made_anew_behind_a_pack_still_holds_the_chain(tmp_path: Path, journal: Journal, packed: str) -> None:
    folder = tmp_path / "h"
    frames(journal, 60)
    hour = T0_MS + HOUR_MS
    if packed == "before":
        run(folder, journal, T0_MS + 2 * HOUR_MS, samples_max=10)
    frames(journal, 20, hour)
    run(folder, journal, hour + 60_000, samples_max=10)
    frames(journal, 1, hour + 61_000)
    run(folder, journal, hour + 20 * 60_000, samples_max=10)
    chain = SegmentFolder(folder).snapshot().chain("ledger-one")
    assert [m.stem.kind for m in chain][:3] == ["pack", "seal", "seal"]
    path = folder / "manifests" / chain[1].stem.manifest_name
    path.write_bytes(path.read_bytes()[:50])
    run(folder, journal, hour + 30 * 60_000, samples_max=10)
    assert told(folder) == []
    found = SegmentFolder(folder).verified("ledger-one")
    assert (found.cursor, found.problems) == (journal.pos, ())


# -- what was there a moment ago ------------------------------------------------------------------------------------


def settled(owner: object, clock: list[int], to_ms: int) -> None:
    clock[0] = to_ms
    settle(owner)  # type: ignore[arg-type]


@pytest.mark.fault("F73")
def test_rows_that_a_restored_ledger_does_not_have_yet_are_not_sealed(tmp_path: Path, journal: Journal) -> None:
    folder, clock = tmp_path / "h", [T0_MS + 5000]
    frames(journal, 10, step_ms=1)
    owner = owner_of(folder, journal.path, 0, seal_s=60.0, clock=clock)
    owner.begin()
    settle(owner)  # ten rows wait, and it knows of them
    with journal.ledger._db:  # an older copy of the ledger, under the same name
        journal.ledger._db.execute("DELETE FROM log WHERE pos > 4")
    for row in [row for row in journal.rows if row[1] >= T0_MS + 4]:
        del journal.rows[row]
    journal.pos = 4
    settled(owner, clock, T0_MS + 70_000)
    assert SegmentFolder(folder).snapshot().cursor("ledger-one") == 4
    frames(journal, 10, T0_MS + 80_000)
    settled(owner, clock, T0_MS + 200_000)
    owner.close()
    assert everything(folder) == journal.rows
    assert told(folder) == []


@pytest.mark.fault("F72")
def test_a_folder_whose_name_was_not_synced_is_synced_before_anything_in_it_counts(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clock = tmp_path / "h", [T0_MS + 5000]
    frames(journal, 1)
    owner = owner_of(folder, journal.path, 0, seal_s=1.0, clock=clock)
    owner.begin()
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.endswith("/samples") and path not in synced:
            synced.append(path)
            raise OSError(5, "Input/output error")
        synced.append(path)
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    owner.round()
    assert "Input/output error" in owner.trouble
    before = len(synced)
    settled(owner, clock, T0_MS + 20_000)
    owner.close()
    assert everything(folder) == journal.rows
    manifest = next(at for at, path in enumerate(synced) if at >= before and "/manifests/" in path)
    assert str(folder / "samples") in synced[before:manifest]


@pytest.mark.fault("F73")
@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("data", ["there", "gone"])
def test_a_manifest_is_made_anew_only_as_it_was(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, changed: bool, data: str
) -> None:
    """The range of a tag may have changed since its block was sealed: then its rows say something else today."""
    folder = tmp_path / "h"
    for at in range(4):
        journal.block(T0_MS + at, [T0_MS + at], [190], first=at + 1)
        run(folder, journal, T0_MS + 60_000 + at)
    path = sorted((folder / "manifests").iterdir())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    if changed:
        monkeypatch.setattr("tests.historian.segments.journal.SPAN", (0.0, 50.0))
    if data == "gone":
        next(folder.glob(f"samples/*/{path.stem}.parquet")).unlink()
    before = {each: each.read_bytes() for each in folder.glob("*/*/*.parquet")}
    run(folder, journal, T0_MS + 120_000)
    assert path.read_bytes() == (whole[:50] if changed else whole)
    assert before.items() <= {each: each.read_bytes() for each in folder.glob("*/*/*.parquet")}.items()
    assert bool(told(folder)) is changed
    path.write_bytes(whole)
    assert (SegmentFolder(folder).verified("ledger-one").cursor == 4) is (not changed or data == "there")
    assert len([*folder.glob("temporary/process-*")]) == 1, "that of this process"


@pytest.mark.fault("F73")
@pytest.mark.parametrize(("more", "why"), [({"format": 2}, "format 2"), ({"codec": "x"}, "unknown entry codec")])
def test_a_manifest_of_a_newer_version_is_left_as_it_is(
    tmp_path: Path, journal: Journal, more: dict[str, object], why: str
) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    path = sorted((folder / "manifests").iterdir())[1]
    content = json.loads(path.read_text())
    del content["hash"]
    newer = json.dumps({**content, **more}, separators=(",", ":"), sort_keys=True)
    newer = json.dumps({**json.loads(newer), "hash": hashlib.sha256(newer.encode()).hexdigest()})
    path.write_text(newer)
    before = {each: each.stat().st_ino for each in folder.glob("*/*/*.parquet")}
    frames(journal, 1, T0_MS + 61_000)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    assert path.read_text() == newer
    assert before.items() <= {each: each.stat().st_ino for each in folder.glob("*/*/*.parquet")}.items()
    assert any(each.startswith(why) for each in told(folder))


@pytest.mark.fault("F72")
@pytest.mark.parametrize("what", ["pack", "retention"])
def test_what_replaces_is_on_the_disk_before_what_it_replaces_goes(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Who died between a rename and its sync left a name that a loss of power would take back."""
    folder = tmp_path / "h"
    for day in range(4):
        frames(journal, 60 if what == "pack" else 3, T0_MS + day * DAY_MS)
    now_ms = T0_MS + 3 * DAY_MS + 5 * HOUR_MS
    run(folder, journal, now_ms if what == "retention" else T0_MS + 60_000, samples_max=10)
    done: list[str] = []

    def died(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_folder", lambda path: died() if path == place and replacing.exists() else None)
        place, replacing = (folder / "manifests", folder) if what == "pack" else (folder, folder / "kept_from.json")
        owner = owner_of(folder, journal.path, now_ms, keep_days=2.0 if what == "retention" else 400.0, samples_max=10)
        owner.begin()
        with pytest.raises(KeyboardInterrupt):
            settle(owner)
        owner.close()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        done.append("sync " + str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    durable.hook_steps(lambda step: done.append(step) if step.startswith("before remove") else None)
    try:
        run(folder, journal, now_ms, samples_max=10, keep_days=2.0 if what == "retention" else 400.0)
    finally:
        durable.hook_steps(None)
    removed = next(at for at, step in enumerate(done) if step.startswith("before remove"))
    assert f"sync {place}" in done[:removed], done
