"""Reads that follow each other without a gap do not keep core's write-ahead log growing."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest

from gateway.core.reader import connect
from gateway.serve.turnstile import CLOSED_S_MAX, REST_S, Turnstile
from gateway.serve.view_errors import OutOfTimeError
from tests.patience import GUARD_S
from tests.serve.fakes import Clock

COMMITS, COMMIT_BYTES = 100, 30_000


def soon() -> float:
    return time.monotonic() + GUARD_S


def grown(folder: Path, log_bytes: int) -> int:
    """Bytes of log after many commits, each with a checkpoint, beside two readers of whom one always stands in it."""
    path = folder / "ledger.sqlite3"
    log, clock = path.with_name(path.name + "-wal"), Clock()
    turnstile = Turnstile(log, clock, log_bytes=log_bytes, every_s=10 * REST_S)
    writer = connect(path, read_only=False)
    writer.wal_autocheckpoint(0)
    writer.execute("CREATE TABLE t (body BLOB)")
    readers = [connect(path, read_only=True) for _ in range(2)]
    inside = [ExitStack(), ExitStack()]
    for number in range(COMMITS):
        writer.execute(f"INSERT INTO t VALUES (zeroblob({COMMIT_BYTES}))")
        writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        clock.now_s += REST_S
        if turnstile.look():  # the next one begins before the last one ends
            inside[number % 2].enter_context(turnstile.reading(soon()))
            inside[number % 2].callback(readers[number % 2].execute, "ROLLBACK")
            readers[number % 2].execute("BEGIN")
            readers[number % 2].execute("SELECT count(*) FROM t").fetchall()
        inside[(number + 1) % 2].close()
    for each in inside:
        each.close()
    size = log.stat().st_size
    for db in (*readers, writer):
        db.close()
    return size


def test_reads_without_a_gap_do_not_keep_the_log_growing(tmp_path: Path) -> None:
    never, soon_full = tmp_path / "never", tmp_path / "soon"
    never.mkdir()
    soon_full.mkdir()
    assert grown(never, 2**62) > COMMITS * COMMIT_BYTES, "without it the log never begins anew"
    assert grown(soon_full, 10 * COMMIT_BYTES) < COMMITS * COMMIT_BYTES / 3


def test_closed_nobody_enters_until_it_was_empty_for_long_enough(tmp_path: Path) -> None:
    log, clock = tmp_path / "log", Clock()
    turnstile = Turnstile(log, clock, log_bytes=100, every_s=30)
    assert turnstile.look(), "no log at all"
    log.write_bytes(bytes(99))
    assert turnstile.look()
    with turnstile.reading(soon()):
        log.write_bytes(bytes(100))
        assert not turnstile.look()
        clock.now_s += 2 * REST_S
        assert not turnstile.look(), "somebody is still inside"
        with pytest.raises(OutOfTimeError), turnstile.reading(time.monotonic()):
            pass
    assert not turnstile.look(), "it has been empty for no time yet"
    clock.now_s += REST_S + 0.01
    assert turnstile.look()
    with turnstile.reading(soon()):
        assert turnstile.look(), "not again at once, whatever the size"
        clock.now_s += 30
        assert not turnstile.look()
        clock.now_s += CLOSED_S_MAX + 0.1
        assert turnstile.look(), "one that never ends does not hold up the others for ever"


def test_whoever_waits_goes_in_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(100))
    turnstile = Turnstile(log, log_bytes=100)
    assert not turnstile.look()
    with turnstile.reading(soon()):
        assert turnstile.look()
