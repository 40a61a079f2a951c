"""Others at work in the folder: an import beside the owner, somebody who exchanges the folder under it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.leftover import orphans
from gateway.historian.segments.lock import FolderBusyError
from tests.historian.segments.journal import DAY_MS, T0_MS, TAGS, Journal, everything, owner_of, run, settle

HOUR_MS = 3_600_000


def frames(journal: Journal, count: int, at_ms: int = T0_MS) -> None:
    for at in range(count):
        journal.frame(at_ms + at, [(TAGS[at % 3], at_ms + at, 1.0 * at, 192)])


def test_what_an_import_is_writing_is_left_alone_for_a_day(tmp_path: Path, journal: Journal) -> None:
    folder = tmp_path / "h"
    frames(journal, 1)
    run(folder, journal, T0_MS + 5000)
    begun = folder / "samples" / "2020-01-01"
    begun.mkdir()
    samples = folder / "samples" / "2025-06-16"
    aside = [folder / "manifests" / "load-old1-00000000.json.7-1.tmp", samples / "load-old1-00000000.parquet.7-1.tmp"]
    for path in aside:
        path.touch()
    for path in (*aside, begun):
        os.utime(path, (T0_MS / 1000, T0_MS / 1000))
    run(folder, journal, T0_MS + DAY_MS)
    assert all(path.exists() for path in (*aside, begun))
    run(folder, journal, T0_MS + DAY_MS + 60_001)
    assert not any(path.exists() for path in (*aside, begun))


def test_a_day_that_an_import_begins_in_this_moment_does_not_stop_the_owner(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "h"
    begun = folder / "samples" / "2020-01-01"
    begun.mkdir(parents=True)
    os.utime(begun, (0, 0))
    real = Path.rmdir

    def rmdir(path: Path) -> None:
        if path == begun:
            (path / "load-old1-00000000.parquet.7-1.tmp").touch()
        real(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    frames(journal, 1)
    run(folder, journal, T0_MS + 5000)
    assert begun.is_dir()


@pytest.mark.fault("F73")
def test_a_folder_that_was_exchanged_has_one_owner_all_the_same(tmp_path: Path, journal: Journal) -> None:
    folder, clock = tmp_path / "h", [T0_MS + 5000]
    frames(journal, 3)
    first = owner_of(folder, journal.path, 0, seal_s=1.0, clock=clock)
    first.begin()
    settle(first)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    clock[0] += 60_000
    first.round()
    second = owner_of(folder, journal.path, 0, seal_s=1.0, clock=clock)
    with pytest.raises(FolderBusyError):
        second.begin()
    first.close()
    second.begin()
    folder.rename(tmp_path / "older")
    folder.mkdir()
    third = owner_of(folder, journal.path, 0, seal_s=1.0, clock=clock)
    third.begin()
    with pytest.raises(FolderBusyError):
        second.round()
    third.close()
    second.close()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_where_a_file_system_knows_no_links_files_are_copied(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = tmp_path / "h"
    frames(journal, 60, T0_MS)
    late = T0_MS - DAY_MS
    journal.frame(T0_MS + 60, [(TAGS[0], late, 1.0, 192)])

    def no_links(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    run(folder, journal, T0_MS + 3 * DAY_MS, samples_max=10)
    taken = SegmentFolder(folder).snapshot()
    assert [m.stem.kind for m in taken.manifests] == ["pack"]
    assert everything(folder) == journal.rows
    assert not [*orphans(folder, taken, T0_MS + 3 * DAY_MS)]
