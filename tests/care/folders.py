"""Data folders with real content for the tests of care, and processes that are killed at a chosen step."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from alerting.delivery import Attempt
from gateway.care import Disk
from gateway.core.entries import Entry, EntryKind
from gateway.core.ledger import Batch, Ledger, StreamRow
from gateway.core.reader import LedgerReader
from gateway.core.snapshots import Snapshot, write_snapshot
from gateway.historian.segments.manifest import DayFile, Manifest
from gateway.historian.segments.names import Stem, manifest_path, rollup_path, samples_path
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, T0_MS, Edge
from tests.gateway.test_ledger import notice, raised
from tests.patience import killed_if_it_hangs

DAY = "2023-11-14"
LEDGER = "core/ledger.sqlite3"
LEDGER_ID = "ledger-one"


def with_alarms(data: Path, *, scans: int = 6) -> None:
    """A ledger that core's own loop has written: frames, alarms, notices; and two snapshots of it."""
    data.mkdir(parents=True, exist_ok=True)
    bench = Bench(data / "core")

    async def story() -> None:
        edge = Edge()
        bench.deliver(edge.born())
        for at in range(scans):
            bench.deliver(edge.scan({LEVEL: 12.0 if at % 2 == 0 else 5.0}))
            await bench.settle(3)
            if at >= scans - 2:
                state = bench.loop.settled_state()
                assert state is not None
                write_snapshot(data / "core", Snapshot(*state))

    asyncio.run(story())
    bench.close()


def with_serve(data: Path) -> None:
    """What serve keeps."""
    folder = data / "serve"
    folder.mkdir(parents=True)
    (folder / "tokens.json").write_text('{"format": 1, "tokens": []}', encoding="utf-8")
    (folder / "audit.jsonl").write_text('{"event": "act"}\n', encoding="utf-8")
    (folder / "audit.1.jsonl").write_text('{"event": "older"}\n', encoding="utf-8")
    (folder / "where.json").write_text('{"url": "http://127.0.0.1:1"}', encoding="utf-8")


def seal(data: Path, first: int, last: int, *, prev: str = "", kind: str = "seal", day: str = DAY) -> Manifest:
    """A manifest and its files; what is in them is nobody's business here."""
    folder = data / "historian"
    stem = Stem(LEDGER_ID, first, last, kind)  # type: ignore[arg-type]
    bodies = [f"{what} {stem} {day}\n".encode() * 50 for what in ("samples", "rollups")]
    for path, body in zip((samples_path(folder, stem, day), rollup_path(folder, stem, day)), bodies, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    told: dict[str, Any] = {
        "day": day, "rows": 0, "digest": 0, "bytes": len(bodies[0]), "sha256": hashlib.sha256(bodies[0]).hexdigest(),
        "rollup_bytes": len(bodies[1]), "rollup_sha256": hashlib.sha256(bodies[1]).hexdigest(), "from_ms": T0_MS, "to_ms": T0_MS,
        "leaves": day,
    }  # fmt: skip
    file = DayFile(**{field.name: told[field.name] for field in fields(DayFile)})
    manifest = Manifest(stem, T0_MS, 0, 0, prev, (file,))
    path = manifest_path(folder, stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(manifest.text(), encoding="utf-8")
    return manifest


def with_segments(data: Path) -> None:
    """Three sealed ranges, evidence, cursors of a fed store, and what no backup takes."""
    before = ""
    for first, last in ((1, 3), (4, 6), (7, 8)):
        before = seal(data, first, last, prev=before).hash
    folder = data / "historian"
    (folder / "evidence").mkdir()
    (folder / "evidence" / "2023-11.parquet").write_bytes(b"evidence")
    (folder / "quarantine").mkdir()
    (folder / "quarantine" / "L1-0000000000000007").write_bytes(b"{}\ntorn")
    (folder / "feeds").mkdir()
    (folder / "feeds" / "MAIN.json").write_text('{"ledger": "ledger-one"}', encoding="utf-8")
    (folder / "kept_from.json").write_text('{"day": "2020-01-01", "why": "age", "at_ms": 1}', encoding="utf-8")
    (folder / "status.json").write_text("{}", encoding="utf-8")
    (folder / "samples" / DAY / "seal-ledger-one-0000000000000009-0000000000000010.parquet").write_bytes(b"not sealed yet")


def whole(data: Path) -> Path:
    """A data folder with everything."""
    with_alarms(data)
    with_serve(data)
    with_segments(data)
    return data


def contents(path: Path, *, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Every row of every table of a ledger that nobody writes."""
    reader = LedgerReader.open(path)
    try:
        tables = [name for (name,) in reader.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: sorted(reader.rows(f"SELECT * FROM {name}"), key=repr) for name in tables if name not in but}
    finally:
        reader.close()


def schema(path: Path) -> list[Any]:
    """The statements of a ledger's schema."""
    reader = LedgerReader.open(path)
    try:
        return sorted(reader.rows("SELECT type, name, sql FROM sqlite_master"))
    finally:
        reader.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- a writer that does all that core does to a ledger --------------------------------------------------------------


class BusyLedger:
    """Commits in a thread: new frames, alarms that rise and return, notices, attempts, streams, losses."""

    def __init__(self, path: Path, *, seed: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(path, "PARK1")
        if not self.ledger.ledger_id:
            self.ledger.set_id(LEDGER_ID)
        self.pos = self.ledger.reader.last_pos()
        self.committed = self.pos
        self.alarms: list[str] = []
        self.revision: dict[str, int] = {}
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="busy-ledger", daemon=True)
        self.failure: BaseException | None = None

    def commit(self) -> None:
        """One transaction with some of everything."""
        chance = self._random.random
        batch = Batch(engine_ms=self.pos + 1, wall_ms=T0_MS + self.pos)
        for _ in range(self._random.randint(1, 30)):
            self.pos += 1
            body = self._random.randbytes(self._random.randint(10, 3_000))
            batch.entries.append(Entry(self.pos, EntryKind.FRAME, self.pos, T0_MS, body, "E1", "TANK", 7, self.pos, self.pos, 1))
        if chance() < 0.5:
            name = f"a{self.pos}"
            self.alarms.append(name)
            self.revision[name] = 1
            batch.transitions.append((self.pos, raised(name)))
            batch.notices.append(notice(name))
        if self.alarms and chance() < 0.7:  # an alarm of long ago changes
            alarm = self._random.choice(self.alarms)
            self.revision[alarm] += 1
            name = f"{alarm}-{self.revision[alarm]}"
            batch.transitions.append((self.pos, raised(name, revision=self.revision[alarm], alarm=alarm)))
        if self.alarms and chance() < 0.7:  # and a notice of long ago is accepted, or not yet
            name = self._random.choice(self.alarms)
            accepted = chance() < 0.5
            number, told = self._random.randint(1, 9), "accepted" if accepted else "retry"
            batch.attempts.append(Attempt(
                f"n-{name}-CITY", "CITY", "yellow", None, number, T0_MS, 5, told, 200, "", None if accepted else T0_MS,
                accepted, parked=False, unjournaled=False,
            ))  # fmt: skip
        batch.streams[("E1", self._random.randint(1, 5))] = StreamRow("E1", 7, self.pos, "[]", None, 0, 0, T0_MS)
        self.ledger.commit([batch])
        self.committed = self.pos
        if self.ledger.fold_due:
            self.ledger.fold()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.commit()
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> BusyLedger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.ledger.close()
        assert self.failure is None, self.failure


# -- processes that are killed --------------------------------------------------------------------------------------


def ends_at(number: int, work: Callable[[Disk], object]) -> bool:
    """Run `work` in a process of its own that is killed when its step of this number comes; False if it came to its end."""
    child = os.fork()
    if child == 0:
        killed_if_it_hangs()
        left = number

        def step(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            work(Disk(step=step))
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def steps_of(work: Callable[[Disk], object]) -> list[str]:
    """The names of all steps of `work`, which is done here."""
    found: list[str] = []
    work(Disk(step=found.append))
    return found


def every_step(work: Callable[[Disk], object]) -> Iterator[int]:
    """Number every step of `work`, which is done once to count them."""
    yield from range(1, len(steps_of(work)) + 1)


def rewritten(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a listing as somebody would who knows how to make its hash right again."""
    told = json.loads(place.read_text(encoding="utf-8"))
    change(told)
    told.pop("hash")
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    told["hash"] = hashlib.sha256(text.encode()).hexdigest()
    place.write_text(json.dumps(told), encoding="utf-8")
