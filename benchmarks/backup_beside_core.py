"""What a backup costs a core that commits beside it: `python -m benchmarks.backup_beside_core --mb 2000`.

A real `Ledger` commits a batch of live frames every 50 ms, with an alarm and its notice now and then, and folds its
write-ahead log as core's writer does. Commit times are taken without a backup, then beside ours, beside `VACUUM INTO`
and beside SQLite's backup API (given up after a while: it begins anew after every commit of another process). Each runs
in a process of its own, niced as the command makes itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np

from alerting import AlarmState, Category, State, Transition, TransitionKind
from alerting.delivery import Notice
from gateway.care.disk import Pace
from gateway.care.ledger_check import facts_of
from gateway.care.ledger_copy import LedgerCopy
from gateway.core.entries import Columns, Entry, EntryKind, pack_columns
from gateway.core.ledger import Batch, Ledger, StreamRow

EVERY_S: Final = 0.05
FRAMES: Final = 40  # a commit
TAGS: Final = 100  # a frame: 40 000 samples/s
GIVE_UP_S: Final = 60.0
ALONE_S: Final = 20.0  # how long the ledger is written with nothing beside, to compare with
T0_MS: Final = 1_790_000_000_000


class Load:
    """Commits batches to a ledger, in a thread of its own, and notes how long each took."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path, "PARK1")
        if not self.ledger.ledger_id:
            self.ledger.set_id("ledger-one")
        self.pos, self.took_ms, self.wal_max = self.ledger.reader.last_pos(), list[float](), 0
        self._random = np.random.default_rng(1)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def batch(self, frames: int) -> Batch:
        """Return frames of noisy values, one alarm in fifty batches."""
        entries, batch = [], Batch(engine_ms=self.pos + 1, wall_ms=T0_MS + self.pos)
        tag = np.arange(1, TAGS + 1, dtype=np.int32)
        for _ in range(frames):
            self.pos += 1
            columns = Columns(
                tag, self._random.normal(50, 5, TAGS), np.full(TAGS, 192, np.uint8),
                np.full(TAGS, T0_MS + self.pos, np.int64), np.full(TAGS, np.nan),
            )  # fmt: skip
            body = pack_columns(columns)
            entries.append(Entry(self.pos, EntryKind.FRAME, self.pos, T0_MS, body, "E1", "TANK", 7, self.pos, self.pos, TAGS))
        batch.entries = entries
        batch.streams[("E1", 7)] = StreamRow("E1", 7, self.pos, "[]", None, 0, 0, T0_MS)
        if random.random() < 0.02:
            name = f"t{self.pos}"
            state = AlarmState(
                id=name, site="PARK1", category=Category.PROCESS, tag="T1.LEVEL", limit="H", grade=2, state=State.ACTIVE_UNACKED,
                value=12.0, code=192, setpoint=10.0, unit="m", start_ms=T0_MS, revision=1,
            )  # fmt: skip
            batch.transitions = [(self.pos, Transition(
                id=name, alarm_id=name, revision=1, kind=TransitionKind.RAISED, alarm=state, engine_ms=self.pos, at_ms=T0_MS
            ))]  # fmt: skip
            batch.notices = [Notice(f"n-{name}", name, name, 1, "CITY", "yellow", T0_MS, "{}")]
        return batch

    def fill(self, size_bytes: int) -> None:
        """Let the ledger grow to a size."""
        while self.ledger.reader.size_bytes() < size_bytes:
            self.ledger.commit([self.batch(2_000)])
            if self.ledger.fold_due:
                self.ledger.fold()

    def start(self) -> None:
        """Begin to commit."""
        self._stop.clear()
        self.took_ms, self.wal_max = [], 0
        self._thread = threading.Thread(target=self._run, name="benchmark-writer", daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Any]:
        """End; return what was measured."""
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        took = np.array(self.took_ms)
        return {
            "commits": len(took), "p50_ms": round(float(np.median(took)), 2), "p99_ms": round(float(np.quantile(took, 0.99)), 1),
            "max_ms": round(float(took.max()), 1), "wal_mb": round(self.wal_max / 1e6, 1),
        }  # fmt: skip

    def _run(self) -> None:
        following = time.monotonic()
        while not self._stop.is_set():
            batch = self.batch(FRAMES)
            began = time.monotonic()
            self.ledger.commit([batch])
            self.took_ms.append((time.monotonic() - began) * 1000)
            if self.ledger.fold_due:
                self.ledger.fold()
            self.wal_max = max(self.wal_max, self.ledger.reader.wal_bytes())
            following = max(following + EVERY_S, time.monotonic() - EVERY_S)
            self._stop.wait(max(0.0, following - time.monotonic()))


def ours(source: Path, target: Path) -> dict[str, Any]:
    """Copy by rows, paced."""
    copy = LedgerCopy(source, target, Pace())
    done = copy.run()
    copy.finish()
    copy.close()
    return {"longest_read_s": round(done.longest_read_s, 3), "rounds": done.rounds, "pos": done.facts.pos}


def unpaced(source: Path, target: Path) -> dict[str, Any]:
    """Copy by rows, as fast as it goes."""
    copy = LedgerCopy(source, target, Pace(0))
    done = copy.run()
    copy.finish()
    copy.close()
    return {"longest_read_s": round(done.longest_read_s, 3), "rounds": done.rounds, "pos": done.facts.pos}


def vacuum_into(source: Path, target: Path) -> dict[str, Any]:
    """SQLite's own copy in one read transaction."""
    db = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    db.execute("VACUUM INTO ?", (str(target),))
    return {}


def backup_api(source: Path, target: Path) -> dict[str, Any]:
    """SQLite's online backup, 1 000 pages at a time with a pause."""
    db, to = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY), apsw.Connection(str(target))
    began, least = time.monotonic(), None
    backup = to.backup("main", db, "main")
    while not backup.done and time.monotonic() - began < GIVE_UP_S:
        backup.step(1_000)
        least = backup.remaining if least is None else min(least, backup.remaining)
        time.sleep(0.02)  # the pause of this way of copying, not a wait for anything
    finished = backup.done
    backup.close(True)
    return {"finished": finished, "least_pages_left": least}


def _child(work: Callable[[Path, Path], dict[str, Any]], source: Path, target: Path, told: Any) -> None:
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    began = time.monotonic()
    result = work(source, target)
    told.put({"seconds": round(time.monotonic() - began, 1), **result})


def main() -> None:
    """Print a line of JSON for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "core" / "ledger.sqlite3"
        path.parent.mkdir()
        load = Load(path)
        load.fill(asked.mb * 1_000_000)
        load.start()
        time.sleep(ALONE_S)  # this long the load runs alone: what is measured
        print(json.dumps({"way": "nothing beside", **load.stop()}), flush=True)
        context = multiprocessing.get_context("spawn")
        for way in (ours, unpaced, vacuum_into, backup_api):
            target, told = Path(folder) / f"{way.__name__}.sqlite3", context.Queue()
            child = context.Process(target=_child, args=(way, path, target, told))
            load.start()
            child.start()
            result = told.get()
            child.join()
            measured = load.stop()
            size = path.stat().st_size
            line = {"way": way.__name__, "ledger_mb": round(size / 1e6), **result, **measured}
            if way is ours:
                began = time.monotonic()
                facts, broken = facts_of(target)
                assert (facts.pos, broken) == (result["pos"], ""), facts
                line["check_s"] = round(time.monotonic() - began, 1)
            print(json.dumps(line), flush=True)
            target.unlink()
            load.ledger.fold()


if __name__ == "__main__":
    main()
