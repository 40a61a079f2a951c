"""A rollup that was lost or damaged follows from its samples: it is made anew, whoever sealed them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.load import write_part
from tests.historian.reference import Row as RowOf
from tests.historian.reference import samples_of
from tests.historian.segments.journal import DAY_MS, T0_MS, TAGS, Journal, run, status_of


def history(tmp_path: Path, journal: Journal, *, packed: bool) -> Path:
    """Return a folder of ten seals or their pack, two days in it, one of them of one seal only; and a load."""
    folder = tmp_path / "h"
    for at in range(100):
        when = T0_MS + at if at != 35 else T0_MS - DAY_MS
        journal.frame(T0_MS + at, [(TAGS[at % 3], when, at * 1.0, 192), (TAGS[2], when + 1, -at * 1.0, 0)])
    run(folder, journal, T0_MS + 5000, samples_max=20)
    if packed:
        run(folder, journal, T0_MS + 7_200_000, samples_max=20)
    assert {manifest.stem.kind for manifest in SegmentFolder(folder).snapshot().manifests} == {"pack" if packed else "seal"}
    db = connect(folder)
    write_part(db, folder, "old1", 0, samples_of([RowOf(TAGS[1], T0_MS - DAY_MS, 1.5), RowOf(TAGS[0], T0_MS - DAY_MS, 2.5)]), T0_MS)
    db.close()
    return folder


@pytest.mark.fault("F73")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_lost_rollups_are_made_anew_at_the_next_look(
    tmp_path: Path, journal: Journal, packed: bool, held: bool, damage: str
) -> None:
    folder = history(tmp_path, journal, packed=packed)
    whole = {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")}
    rollups = sorted(folder.glob("rollups/*/*.parquet"))
    assert len(rollups) == (3 if packed else 12)
    if not held:
        with journal.ledger._db:
            journal.ledger._db.execute("DELETE FROM log WHERE pos <= 99")
    if damage == "gone":
        shutil.rmtree(folder / "rollups")
    else:
        for path in rollups:
            path.write_bytes(whole[path][:-1])
    run(folder, journal, T0_MS + 7_300_000 if packed else T0_MS + 9000, samples_max=20)
    assert {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")} == whole
    assert status_of(folder)["damaged"] == []
    assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos


@pytest.mark.fault("F73")
def test_no_rollup_is_made_of_samples_that_are_damaged(tmp_path: Path, journal: Journal) -> None:
    folder = history(tmp_path, journal, packed=True)
    victim = max(folder.glob("samples/*/pack-*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1])
    rollup = folder / "rollups" / victim.parent.name / victim.name
    rollup.unlink()
    run(folder, journal, T0_MS + 7_300_000, samples_max=20)
    assert not rollup.exists()
    assert {each["file"] for each in status_of(folder)["damaged"]} == {str(path.relative_to(folder)) for path in (victim, rollup)}
