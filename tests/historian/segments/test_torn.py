"""Rows that a bad disk has left unreadable: what is left of them is kept and named, and all others are stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from gateway.core.entries import Columns, EntryKind, pack_columns, torn_frames
from gateway.historian.segments import durable, quarantine
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.manifest import TORN_MAX, Manifest, ManifestError, Torn, bounded, parse_manifest
from gateway.historian.segments.names import Stem, manifest_path
from gateway.historian.segments.pack import pack
from gateway.historian.segments.quarantine import QUARANTINE, put_aside, quarantine_name, torn_problems
from gateway.historian.segments.seal import LogRow, TornRow, commit, seal, taken_from
from tests.historian.segments.journal import (
    SITE,
    T0_MS,
    TAGS,
    Journal,
    TestPlaces,
    everything,
    run,
    status_of,
)

FOREIGN = 9_999


@pytest.fixture
def db(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    made = connect(tmp_path / "h")
    yield made
    made.close()


def frame(*tags: int, raw: float = math.nan) -> bytes:
    n = len(tags)
    raws = np.full(n, np.nan)
    raws[:1] = raw
    return pack_columns(Columns(np.array(tags, np.int32), np.ones(n), np.full(n, 192, np.uint8), np.full(n, T0_MS, np.int64), raws))


def sealed(db: duckdb.DuckDBPyConnection, folder: Path, journal: Journal) -> Manifest:
    """Seal all that is in the ledger, as the owner does."""
    log = LedgerLog(journal.path, SITE)
    try:
        taken = taken_from(log.rows(1, journal.pos), log.tag_names(), TestPlaces())
    finally:
        log.close()
    return seal(db, folder, Stem(journal.ledger_id, 1, journal.pos, "seal"), "", taken.samples, T0_MS, taken.torn)


BODIES = {
    "nothing": b"",
    "four bytes": frame(1)[:4],
    "a frame cut short": frame(1, 2)[:-1],
    "a frame with more behind it": frame(1, 2) + b"x",
    "a raw value for a sample it has not": frame(1, raw=5.0)[:-10] + b"\x07\x00" + frame(1, raw=5.0)[-8:],
    "a tag number nobody drew": frame(1, FOREIGN),
    "a tag number below zero": frame(1, -5),
    "zeros": bytes(200),
}


@pytest.mark.fault("F73")
@pytest.mark.parametrize("kind", [EntryKind.FRAME, EntryKind.HISTORICAL, EntryKind.BLOCK])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_torn_row_stops_nothing_is_kept_as_it_is_and_named(
    tmp_path: Path, journal: Journal, db: duckdb.DuckDBPyConnection, kind: EntryKind, body: bytes
) -> None:
    folder = tmp_path / "h"
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192)])
    journal.torn(T0_MS + 1, kind, body)
    journal.frame(T0_MS + 2, [(TAGS[0], T0_MS + 2, 2.0, 192), (TAGS[1], T0_MS + 2, 3.0, 192)])
    made = sealed(db, folder, journal)
    assert everything(folder) == journal.rows
    ((first, last, rows, from_ms, to_ms),) = [(t.first, t.last, t.rows, t.from_ms, t.to_ms) for t in made.torn]
    assert (first, last, rows, from_ms, to_ms) == (2, 2, 1, T0_MS + 1, T0_MS + 1)
    head, _, kept = (folder / quarantine_name(journal.ledger_id, 2)).read_bytes().partition(b"\n")
    assert (json.loads(head)["kind"], json.loads(head)["pos"], kept) == (kind, 2, body)
    taken = SegmentFolder(folder).snapshot()
    assert taken.manifests == (made,)
    (problem,) = torn_problems(folder, taken.manifests)
    assert problem.file == f"quarantine/{journal.ledger_id}-{2:016d}"
    assert "log position 2" in problem.why
    assert (problem.from_ms, problem.to_ms) == (T0_MS + 1, T0_MS + 1)
    assert sealed(db, folder, journal).text() == made.text(), "made again it is the same"


def test_a_whole_frame_is_never_taken_for_a_torn_one() -> None:
    assert torn_frames([frame(), frame(1), frame(1, 2, raw=7.0), frame(1, 2)]) == []


@pytest.mark.fault("F73")
def test_of_a_block_with_names_that_are_no_tags_the_rest_is_stored_and_all_of_it_kept_aside(
    tmp_path: Path, journal: Journal, db: duckdb.DuckDBPyConnection
) -> None:
    journal.block(T0_MS, [T0_MS], [1], first=1, tag="../../etc passwd")
    journal.block(T0_MS, [T0_MS], [1], first=2)
    made = sealed(db, tmp_path / "h", journal)
    assert everything(tmp_path / "h") == journal.rows
    assert [(torn.first, torn.why) for torn in made.torn] == [(1, "a block with 1 names that are no tags'")]


@pytest.mark.fault("F73")
def test_there_is_a_bound_on_what_is_kept_and_none_on_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "FILES_MAX", 2)
    torn = [TornRow(LogRow(pos, "F", T0_MS + pos, "E1", 7, pos, b"rest"), "torn") for pos in (3, 4, 5)]
    for _ in range(2):  # doing it again keeps the same ones
        put_aside(tmp_path, "one", torn)
        assert [path.name for path in sorted((tmp_path / QUARANTINE).iterdir())] == [f"one-{pos:016d}" for pos in (3, 4)]
    manifest = Manifest(Stem("one", 1, 9, "seal"), T0_MS, 0, 0, "", (), torn=quarantine.named(torn))
    told = [problem.why for problem in torn_problems(tmp_path, [manifest])]
    assert told == [
        "log position 3: torn; kept aside as it is", "log position 4: torn; kept aside as it is",
        "log position 5: torn; not kept: there was no room",
    ]  # fmt: skip
    assert [*torn_problems(tmp_path, [manifest], "2025-06-17")] == [], "nobody is told of a day that went long ago"


def test_more_bytes_than_there_is_room_for_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "BYTES_MAX", 1000)
    put_aside(tmp_path, "one", [TornRow(LogRow(pos, "F", T0_MS, "E1", 7, pos, bytes(size)), "") for pos, size in ((1, 2000), (2, 10))])
    assert [path.name for path in (tmp_path / QUARANTINE).iterdir()] == ["one-0000000000000002"]


# -- in the manifest ------------------------------------------------------------------------------------------------


def torn_at(pos: int) -> Torn:
    return Torn(pos, pos, 1, pos, pos, "torn")


def test_torn_rows_are_part_of_what_the_manifest_says_and_of_its_hash() -> None:
    stem = Stem("one", 1, 9, "seal")
    plain = Manifest(stem, T0_MS, 0, 0, "", ())
    told = Manifest(stem, T0_MS, 0, 0, "", (), torn=(torn_at(2), Torn(4, 9, 3, 1, 5, "罐")))
    assert parse_manifest(stem, told.text()) == told
    assert plain.hash != told.hash
    assert "torn" not in plain.text()


@pytest.mark.parametrize(
    "torn",
    [
        (torn_at(10),), (torn_at(3), torn_at(2)), (torn_at(3), torn_at(3)), (Torn(2, 3, 3, 0, 0, ""),), (Torn(5, 4, 1, 0, 0, ""),),
        (Torn(2, 2, 1, 0, 0, "x" * 201),),
    ],
    ids=["outside its range", "out of order", "twice", "more rows than positions", "ends before it begins", "a long why"],
)  # fmt: skip
def test_torn_rows_that_contradict_themselves_are_refused(torn: tuple[Torn, ...]) -> None:
    stem = Stem("one", 1, 9, "seal")
    with pytest.raises(ManifestError):
        parse_manifest(stem, Manifest(stem, T0_MS, 0, 0, "", (), torn=torn).text())


def test_beyond_the_bound_torn_rows_are_named_together() -> None:
    told = bounded([torn_at(pos) for pos in range(1, TORN_MAX + 11)])
    assert len(told) == TORN_MAX
    assert told[-1] == Torn(TORN_MAX, TORN_MAX + 10, 11, TORN_MAX, TORN_MAX + 10, "torn")


# -- the commit -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("F72")
def test_a_manifest_that_has_its_name_is_never_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core may have seen it, and removed the rows."""
    synced: list[Path] = []

    def refuse(path: Path) -> None:
        synced.append(path)
        raise OSError(5, "Input/output error")

    manifest = Manifest(Stem("one", 1, 9, "seal"), T0_MS, 0, 0, "", ())
    durable.make_folder(tmp_path / "manifests")
    monkeypatch.setattr(durable, "sync_folder", refuse)
    commit(tmp_path, manifest)
    assert synced == [tmp_path / "manifests"], "the second try, of another function, went well"
    monkeypatch.setattr("gateway.historian.segments.seal.sync_folder", refuse)
    with pytest.raises(OSError, match="Input/output"):
        commit(tmp_path, manifest)
    assert manifest_path(tmp_path, manifest.stem).is_file()


@pytest.mark.fault("F73")
def test_the_owner_seals_past_torn_rows_and_tells_of_them(tmp_path: Path, journal: Journal) -> None:
    journal.torn(T0_MS, EntryKind.FRAME, b"\x02")
    journal.torn(T0_MS, EntryKind.BLOCK, b"HZB1 and no more")
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192)])
    folder = tmp_path / "h"
    run(folder, journal, T0_MS + 5000)
    assert everything(folder) == journal.rows
    status = status_of(folder)
    assert status["cursor"] == 3
    assert [one["file"] for one in status["damaged"]] == [quarantine_name(journal.ledger_id, pos) for pos in (1, 2)]


@pytest.mark.fault("F73")
def test_a_pack_names_what_its_seals_named(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    folder, before, chosen = tmp_path / "h", "", []
    for first in (1, 3):
        torn = [TornRow(LogRow(first + 1, "F", T0_MS, "E1", 7, 1, b"rest"), "torn")]
        stem = Stem("one", first, first + 1, "seal")
        chosen.append(seal(db, folder, stem, before, taken_from([], {}, TestPlaces()).samples, T0_MS, torn))
        before = chosen[-1].hash
    made = pack(db, folder, chosen)
    assert made is not None
    assert [torn.first for torn in made.torn] == [2, 4]
    assert SegmentFolder(folder).snapshot().manifests == (made,)
