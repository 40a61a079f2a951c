"""The writer thread: order kept, nothing given up, room made when there is none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apsw
import pytest

from gateway.core import writer as writer_file
from gateway.core.entries import Entry, EntryKind
from gateway.core.ledger import Batch, Committed, Ledger
from gateway.core.writer import Ballast, Writer
from tests.patience import GUARD_S

WAIT_S = GUARD_S


def batch(pos: int) -> Batch:
    return Batch(entries=[Entry(pos, EntryKind.TICK, 1, 1, b"")], engine_ms=1, wall_ms=1)


class Told:
    """What the writer said, and an event for the test to wait on."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.groups: list[int] = []
        self.trouble: list[str] = []
        self._grown = threading.Condition()

    def on_committed(self, batches: list[Batch], _: Committed, took_s: float) -> None:
        assert took_s >= 0
        with self._grown:
            self.committed += [each.entries[0].pos for each in batches]
            self.groups.append(len(batches))
            self._grown.notify_all()

    def on_trouble(self, reason: str) -> None:
        with self._grown:
            self.trouble.append(reason)
            self._grown.notify_all()

    def wait(self, met: Callable[[], bool]) -> None:
        with self._grown:
            assert self._grown.wait_for(met, WAIT_S)


class FlakyLedger:
    """A ledger whose commits fail as told, before or instead of writing."""

    def __init__(self, ledger: Ledger, failures: Sequence[BaseException]) -> None:
        self.ledger, self.failures = ledger, list(failures)
        self.gate = threading.Event()
        self.gate.set()

    @property
    def fold_due(self) -> bool:
        return self.ledger.fold_due

    def fold(self) -> None:
        self.ledger.fold()

    def commit(self, batches: Sequence[Batch]) -> Committed:
        self.gate.wait(WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        return self.ledger.commit(batches)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite3", "PARK1")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_file, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(writer_file, "RETRY_MAX_S", 0.01)


def start(ledger: object, told: Told, ballast: Ballast | None = None) -> Writer:
    writer = Writer(ledger, told.on_committed, told.on_trouble, ballast)  # type: ignore[arg-type]
    writer.start()
    return writer


def positions(ledger: Ledger) -> list[int]:
    return [pos for (pos,) in ledger.reader.rows("SELECT pos FROM log ORDER BY pos")]


@pytest.mark.fault("F58")
@pytest.mark.parametrize(
    "error",
    [apsw.FullError("full"), apsw.IOError("io"), apsw.BusyError("busy"), apsw.ReadOnlyError("ro")],
    ids=lambda error: type(error).__name__,
)
def test_a_commit_that_fails_is_tried_again_with_the_same_batches_in_order(ledger: Ledger, error: BaseException) -> None:
    told = Told()
    writer = start(FlakyLedger(ledger, [error] * 5), told)
    for pos in range(1, 21):
        writer.submit(batch(pos))
    told.wait(lambda: len(told.committed) == 20)
    assert told.committed == list(range(1, 21))
    assert positions(ledger) == list(range(1, 21))
    assert len(told.trouble) == 5
    assert type(error).__name__ in told.trouble[0]
    assert writer.close(WAIT_S)


def test_what_waits_behind_a_slow_commit_goes_into_one_transaction(ledger: Ledger) -> None:
    told = Told()
    slow = FlakyLedger(ledger, [])
    slow.gate.clear()
    writer = start(slow, told)
    for pos in range(1, 51):
        writer.submit(batch(pos))
    slow.gate.set()
    told.wait(lambda: len(told.committed) == 50)
    assert len(told.groups) <= 2
    assert told.committed == list(range(1, 51))
    assert writer.close(WAIT_S)


def test_closing_writes_what_waits(ledger: Ledger) -> None:
    told = Told()
    writer = start(ledger, told)
    for pos in range(1, 301):
        writer.submit(batch(pos))
    assert writer.close(WAIT_S)
    assert positions(ledger) == list(range(1, 301))
    assert not writer.alive


def test_a_bug_is_seen_and_not_retried(ledger: Ledger) -> None:
    told = Told()
    writer = start(FlakyLedger(ledger, [apsw.ConstraintError("a position twice")]), told)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        writer.submit(batch(1))
        writer._thread.join(WAIT_S)
    assert not writer.alive
    assert isinstance(writer.failure, apsw.ConstraintError)
    assert told.committed == []


@pytest.mark.fault("F58")
def test_a_full_disk_gets_the_ballast_back_first(ledger: Ledger, tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", 4_096)
    told = Told()
    flaky = FlakyLedger(ledger, [apsw.FullError("full"), apsw.FullError("full")])
    flaky.gate.clear()
    writer = start(flaky, told, ballast)
    writer.submit(batch(1))
    while not ballast.laid or (tmp_path / "ballast").stat().st_size < 4_096:
        threading.Event().wait(0.005)
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 4_096, "really laid, not a hole"
    flaky.gate.set()
    told.wait(lambda: told.committed == [1])
    assert told.trouble[0] == "disk full: ballast freed"
    assert "FullError" in told.trouble[1]
    assert not (tmp_path / "ballast").exists()
    assert writer.close(WAIT_S)


def test_the_ballast_is_laid_again_when_there_is_room(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_file, "BALLAST_AGAIN_S", 0.0)
    ballast = Ballast(tmp_path / "ballast", 4_096)
    told = Told()
    writer = start(FlakyLedger(ledger, [apsw.FullError("full")]), told, ballast)
    writer.submit(batch(1))
    told.wait(lambda: told.committed == [1])
    assert writer.close(WAIT_S)
    assert "disk full: ballast freed" in told.trouble
    assert ballast.laid


def test_no_room_for_ballast_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    Ballast(tmp_path / "ballast", 4_096).fill()
    assert list(tmp_path.iterdir()) == []
    assert Ballast(tmp_path / "ballast").drop() is False


def test_the_write_ahead_log_is_folded_in_when_nothing_waits(ledger: Ledger) -> None:
    told = Told()
    writer = Writer(ledger, told.on_committed, told.on_trouble)
    before = ledger.path.stat().st_size
    for pos in range(1, 10):
        writer.submit(Batch(entries=[Entry(pos, EntryKind.QUARANTINE, 1, 1, bytes(1_000_000))], engine_ms=1, wall_ms=1))
    writer.start()
    told.wait(lambda: len(told.committed) == 9)
    assert writer.close(WAIT_S)
    assert not ledger.fold_due
    assert ledger.path.stat().st_size > before + 8_000_000
