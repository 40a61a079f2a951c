"""A historian that somebody has taken away: what the ledger let go is named, and never sealed over as if it were whole."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from gateway.core.ledger import Batch
from gateway.core.retention import Removable
from gateway.core.sealed import SealedSegments
from gateway.historian.copy import copy_store
from gateway.historian.memory import MemoryHistorian
from gateway.historian.segments.folder import SegmentFolder, Snapshot
from gateway.historian.segments.gone import gone
from gateway.historian.segments.missing import of_hole
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import SegmentDamagedError
from tests.historian.segments.journal import T0_MS, TAGS, Journal, everything, run, status_of


def frames(journal: Journal, count: int) -> None:
    for _ in range(count):
        at_ms = T0_MS + journal.pos * 1000
        journal.frame(at_ms, [(TAGS[0], at_ms, 1.0, 192)])


def prune(journal: Journal, upto: int) -> None:
    journal.ledger.commit([Batch(removable=Removable(1, upto + 1))])


def core(folder: Path, journal: Journal) -> SealedSegments:
    return SealedSegments(folder, journal.ledger_id, (), 600.0, T0_MS)


def test_the_ledger_remembers_what_it_let_go(journal: Journal) -> None:
    frames(journal, 30)
    assert journal.ledger.reader.meta("pruned_pos") == ""
    prune(journal, 12)
    prune(journal, 20)
    meta = journal.ledger.reader.meta
    assert (meta("pruned_pos"), meta("pruned_from_ms"), meta("pruned_to_ms")) == ("20", str(T0_MS), str(T0_MS + 19_000))


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["all of it", "its newest manifests"])
def test_a_historian_taken_away_is_a_hole_and_what_follows_is_sealed_behind_it(tmp_path: Path, journal: Journal, harm: str) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    assert core(folder, journal).look(journal.ledger.reader, 0, T0_MS + 60_000, ()).cursor == 30
    prune(journal, 20)
    if harm == "all of it":
        shutil.rmtree(folder)
        hole = (1, 20)
    else:
        for path in sorted((folder / "manifests").iterdir())[1:]:
            path.unlink()
        hole = (11, 20)
    frames(journal, 5)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    damaged = status_of(folder)["damaged"]
    (told,) = [each for each in damaged if each["file"].startswith("manifests")]
    assert told["why"].startswith(f"log positions {hole[0]} to {hole[1]} have left the ledger and no manifest holds them")
    assert T0_MS <= told["from_ms"] <= told["to_ms"] == T0_MS + 19_000
    taken = SegmentFolder(folder).snapshot()
    assert taken.missing_upto(journal.ledger_id, (), 20) == [hole]
    assert not any(m.stem.first <= hole[1] and m.stem.last >= hole[0] for m in taken.manifests), "no piece claims the hole"
    assert taken.cursor(journal.ledger_id, (), 20) == 35
    assert status_of(folder)["cursor"] == 35
    found = core(folder, journal).look(journal.ledger.reader, 20, T0_MS + 180_000, ())
    (alarm,) = [each for each in found.told if each.key == "CORE.HISTORIAN.DAMAGED"]
    assert alarm.standing
    assert f"log positions {hole[0]} to {hole[1]} have left" in str(alarm.facts["what"])
    assert found.cursor == 35, "the hole does not hold up what is whole behind it"
    held = everything(folder)
    assert sum(held.values()) >= 15
    assert not held - journal.rows


@pytest.mark.fault("F73")
def test_a_copy_names_the_hole_and_is_not_a_whole_one(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    prune(journal, 20)
    with closing(EmbeddedHistorian(folder, journal.path)) as source:
        assert (source.holes(), copy_store(source, MemoryHistorian("whole")).verified) == ((), True)
    shutil.rmtree(folder)
    frames(journal, 5)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    with closing(EmbeddedHistorian(folder, journal.path)) as source:
        done = copy_store(source, MemoryHistorian("some"))
        (hole,) = done.holes
        assert not done.verified
        assert "log positions 1 to 20 have left the ledger" in hole.why
        (day,) = done.days
        assert (day.verified, day.written, hole.why in day.damaged) == (False, 15, True)
        for question in (lambda: source.range(TAGS[0], T0_MS, T0_MS + 5_000), lambda: source.windows(TAGS[0], T0_MS, T0_MS + 9, 1)):
            with pytest.raises(SegmentDamagedError, match="have left the ledger"):
                question()
        assert len(source.range(TAGS[0], T0_MS + 20_000, T0_MS + 99_000)) == 15
    with closing(EmbeddedHistorian(tmp_path / "nothing", journal.path)) as source:
        done = copy_store(source, MemoryHistorian("none"))
    assert (done.days, done.verified, len(done.holes)) == ([], False, 1), "where nothing is left, nothing is verified"


class _Holes:
    """A folder of whose positions every other is missing."""

    kept_from = ""

    def missing_upto(self, *_: object) -> list[tuple[int, int]]:
        return [(at, at) for at in range(1, 200, 2)]


@pytest.mark.fault("F73")
def test_however_many_holes_there_are_what_is_told_reaches_over_all() -> None:
    found = gone(cast(Snapshot, _Holes()), "ledger", (), lambda *_: [], 200)
    assert len(found) == 50
    assert "log positions 99 to 199 have left" in found[-1].why
    assert [of_hole(each).from_ms < T0_MS < of_hole(each).to_ms for each in found] == [True] * 50, "nobody knows when"


def test_a_whole_historian_has_no_hole(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 30)
    run(folder, journal, T0_MS + 60_000, samples_max=10)
    prune(journal, 30 - 5)
    run(folder, journal, T0_MS + 120_000, samples_max=10)
    assert status_of(folder)["damaged"] == []
    found = core(folder, journal).look(journal.ledger.reader, 25, T0_MS + 180_000, ())
    assert [told.standing for told in found.told if told.key == "CORE.HISTORIAN.DAMAGED"] == [False]
