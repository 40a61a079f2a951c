"""Serve's thread that seals: it waits for a ledger, says how things stand, and ends when it is told to."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import HistorianConfig, SiteConfig
from gateway.historian.segments import owner as owner_module
from gateway.historian.segments.board import Board
from gateway.historian.segments.folder import Problem, SegmentFolder
from gateway.historian.segments.lock import open_lock
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.owner import Owner
from gateway.historian.segments.seal import taken_from
from gateway.serve import sealing as sealing_module
from gateway.serve.sealing import NICE, Sealing
from gateway.serve.view_errors import OutOfTimeError
from tests.gateway.field import site
from tests.historian.segments.journal import SITE, T0_MS, TAGS, Journal, TestPlaces, everything, settle, status_of


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another thread brings about."""
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it never came"
        time.sleep(0.02)


def quick_site() -> SiteConfig:
    """A site that seals every second."""
    whole = site()
    storage = whole.storage.model_copy(update={"historian": HistorianConfig(seal_s=1.0)})
    return whole.model_copy(update={"storage": storage})


class Turns:
    """Reads of the ledger that get no turn for a while."""

    def __init__(self, refused: int = 0) -> None:
        self.refused, self.asked = refused, 0

    @contextlib.contextmanager
    def __call__(self, _until: float) -> Iterator[None]:
        self.asked += 1
        if self.asked <= self.refused:
            raise OutOfTimeError
        yield


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Sealing, Path, Path, Turns]]:
    turns = Turns(refused=1)
    ledger, folder = tmp_path / "ledger.sqlite3", tmp_path / "historian"
    stores = [{"id": "influx", "state": "live"}]
    sealing = Sealing(quick_site(), ledger, folder, lambda: T0_MS + 5000, turns, lambda: stores)
    yield sealing, ledger, folder, turns
    assert sealing.close()


def test_it_waits_for_a_ledger_seals_it_and_tells(made: tuple[Sealing, Path, Path, Turns]) -> None:
    sealing, path, folder, turns = made
    sealing.start()
    until(lambda: turns.asked >= 2)
    journal = Journal(path)
    try:
        journal.frame(T0_MS, [("T1.LEVEL", T0_MS, 1.0, 192)])
        until(lambda: (folder / "status.json").exists() and status_of(folder)["cursor"] == 1)
        assert everything(folder) == journal.rows
        assert status_of(folder)["stores"] == [{"id": "influx", "state": "live"}]
        own = next(thread for thread in threading.enumerate() if thread.name == "historian-owner")
        assert own.native_id is not None
        assert os.getpriority(os.PRIO_PROCESS, own.native_id) >= NICE
        assert os.getpriority(os.PRIO_PROCESS, 0) < NICE, "the rest of serve keeps its priority"
        started = time.monotonic()
        assert sealing.close()
        assert time.monotonic() - started < sealing_module.STOP_S_MAX
    finally:
        journal.close()


def test_a_folder_that_another_process_seals_is_left_to_it_until_it_ends(
    made: tuple[Sealing, Path, Path, Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing_module, "BUSY_S", 0.05)
    sealing, path, folder, _ = made
    journal = Journal(path)
    try:
        journal.frame(T0_MS, [("T1.LEVEL", T0_MS, 1.0, 192)])
        lock = open_lock(folder)
        warned = threading.Event()
        monkeypatch.setattr(sealing_module.log, "warning", lambda *_: warned.set())
        sealing.start()
        assert warned.wait(60)
        assert not (folder / "manifests").exists()
        lock.close()
        until(lambda: SegmentFolder(folder).snapshot().cursor("ledger-one") == 1)
    finally:
        journal.close()


def test_a_bug_in_sealing_begins_anew_and_never_ends_serve(
    made: tuple[Sealing, Path, Path, Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing_module, "BUSY_S", 0.05)
    sealing, path, folder, _ = made
    journal = Journal(path)
    failures = iter([ZeroDivisionError("a bug")])
    real = taken_from

    def sometimes(*given: object) -> object:
        for failure in failures:
            raise failure
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(owner_module, "taken_from", sometimes)
    try:
        journal.frame(T0_MS, [("T1.LEVEL", T0_MS, 1.0, 192)])
        sealing.start()
        until(lambda: SegmentFolder(folder).snapshot().cursor("ledger-one") == 1)
        assert next(failures, None) is None
        assert everything(folder) == journal.rows
    finally:
        journal.close()


@pytest.mark.fault("F73")
def test_what_a_reader_finds_is_told_at_once_and_ends_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal, board, clock = Journal(tmp_path / "ledger.sqlite3"), Board(), [T0_MS + 5000]
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192)])
    folder = tmp_path / "h"
    owner = Owner(
        folder, LedgerLog(journal.path, SITE), TestPlaces(), HistorianConfig(seal_s=1.0), lambda: clock[0], board=board
    )
    owner.begin()
    settle(owner)
    assert board.status() == status_of(folder)
    live = next(SegmentFolder(folder).snapshot().files())
    name = str(live.samples(folder).relative_to(folder))
    board.found(Problem(name, live.file.day, T0_MS, T0_MS, "cannot be read"))
    settle(owner)
    told = status_of(folder)["damaged"]
    assert board.status() == status_of(folder)
    assert isinstance(told, list)
    assert [each["file"] for each in told] == [name]
    assert f"historian: {name} is damaged: cannot be read" in caplog.text
    clock[0] += 61_000  # the file is whole: the next look says so
    settle(owner)
    assert (board.status() or {})["damaged"] == status_of(folder)["damaged"] == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner_module, "write_durably", full)
    for _ in range(2):
        clock[0] += 21_000
        settle(owner)
    assert "No space left" in (board.status() or {})["trouble"]
    owner.close()
    journal.close()
