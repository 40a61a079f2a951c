"""A gateway's data folder in small, for tests of feeding: a real ledger, real segments, a clock that the test turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from alerting import AlarmState, Category, State, Transition, TransitionKind
from config import TimeSeriesStoreConfig
from gateway.core.entries import Columns, Entry, EntryKind, pack_columns
from gateway.core.ledger import Batch, Ledger
from gateway.historian.feed import Cursors
from gateway.historian.feed_files import FEEDS
from gateway.historian.feed_run import Clocks, Feed
from gateway.historian.feed_source import LogSource
from gateway.historian.memory import MemoryHistorian
from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.files import connect
from gateway.historian.segments.names import Stem
from gateway.historian.segments.seal import LogRow, Places, samples_of, seal
from gateway.historian.store import AlarmEvent, Historian, StoreAwayError, Written
from tests.serve.fakes import SITE

T0 = 1_767_225_600_000
LEDGER = "ledger-one"
STREAM = 77


class Clock:
    """Time as the test tells it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: T0 + round((self.now_s - 1_000.0) * 1000), lambda: self.now_s)

    @property
    def now_ms(self) -> int:
        return self.clocks().wall_ms()


class Gateway:
    """What core and the sealer leave behind."""

    def __init__(self, folder: Path, clock: Clock, tags: int = 10) -> None:
        self.folder, self.clock = folder, clock
        self.historian = folder / "historian"
        (folder / "core").mkdir(parents=True)
        self.path = folder / "core" / "ledger.sqlite3"
        self.ledger = Ledger(self.path, SITE.site)
        self.ledger.set_id(LEDGER)
        self.names = [f"FED{number:03d}.LEVEL" for number in range(tags)]
        self.numbers = np.array(self.ledger.tag_numbers(self.names), np.int32)
        self.pos = self.sealed = self.number = 0
        self.written: list[Samples] = []
        self._prev = ""

    def frames(self, count: int = 1, *, step_ms: int = 1_000) -> None:
        """Commit frames of all tags, one log row each, received now."""
        entries = []
        for _ in range(count):
            self.pos += 1
            self.number += 1
            at = T0 + self.number * step_ms
            values = np.round(np.sin(np.arange(len(self.numbers)) + self.number), 6)
            code = np.full(len(values), 192, np.uint8)
            raw = np.full(len(values), np.nan)
            code[0], values[0] = (1, np.nan) if self.number % 7 == 0 else (192, values[0])
            if self.number % 5 == 0:
                code[1], raw[1] = 69, 99.5
            columns = Columns(self.numbers, values, code, np.full(len(values), at, np.int64), raw)
            entries.append(Entry(
                self.pos, EntryKind.FRAME, 1, self.clock.now_ms, pack_columns(columns), "E1", "TANK", STREAM, self.number,
                self.number, len(values),
            ))  # fmt: skip
            zero = np.zeros(len(values), np.int64)
            self.written.append(Samples(
                tuple(self.names), np.arange(len(values), dtype=np.int32), columns.source_ms, values, code, raw,
                np.zeros(len(values), np.bool_), zero + STREAM, zero + self.number,
            ))  # fmt: skip
        self.ledger.commit([Batch(entries=entries, engine_ms=1, wall_ms=self.clock.now_ms)])

    def tick(self) -> None:
        """Commit a row without samples."""
        self.pos += 1
        self.ledger.commit([Batch(entries=[Entry(self.pos, EntryKind.TICK, 1, self.clock.now_ms, b"")], engine_ms=1, wall_ms=1)])

    def alarm(self, number: int) -> AlarmEvent:
        """Commit a transition of the first tag, with a row of its own."""
        self.pos += 1
        state = AlarmState(
            id=f"{number:032x}", site=SITE.site, category=Category.PROCESS, tag=self.names[0], limit="H", grade=2,
            state=State.ACTIVE_UNACKED, value=12.0, code=192, setpoint=10.0, unit="m", start_ms=T0 + number, revision=1,
        )  # fmt: skip
        step = Transition(
            id=f"{number + 2**64:032x}", alarm_id=state.id, revision=1, kind=TransitionKind.RAISED, alarm=state, engine_ms=5,
            at_ms=T0 + number,
        )  # fmt: skip
        entry = Entry(self.pos, EntryKind.TICK, 1, self.clock.now_ms, b"")
        self.ledger.commit([Batch(entries=[entry], transitions=[(self.pos, step)], engine_ms=1, wall_ms=1)])
        return AlarmEvent(step.id, state.id, state.tag, "raised", "H", 2, step.at_ms)

    def lose(self, rows: int = 1) -> None:
        """Use up positions that are never committed, as a batch that was dropped does."""
        self.pos += rows

    def backup(self) -> bytes:
        """Return the ledger as a backup has it."""
        self._fold()
        return self.path.read_bytes()

    def restore(self, backup: bytes, ledger_id: str) -> None:
        """Put a backup in the ledger's place, under a name of its own."""
        self.ledger.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()
        self.path.write_bytes(backup)
        self.ledger = Ledger(self.path, SITE.site)
        self.ledger.renew_id(ledger_id)
        self.pos = self.sealed = self.ledger.reader.last_pos()
        self._prev = ""

    def _fold(self) -> None:
        other = apsw.Connection(str(self.path))
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()

    def seal(self, *, remove: bool = True) -> None:
        """Seal all that is there, and let it leave the ledger."""
        reader = self.ledger.reader
        rows = [
            LogRow(*row) for row in reader.rows(
                "SELECT pos, kind, received_ms, node, stream, first, body, late_upto, fresh FROM log WHERE pos > ? AND kind = 'F'"
                " ORDER BY pos", (self.sealed,),
            )
        ]  # fmt: skip
        if self.pos == self.sealed:
            return
        self.historian.mkdir(exist_ok=True)
        db = connect(self.historian)
        stem = Stem(self.ledger.ledger_id, self.sealed + 1, self.pos, "seal")
        made = seal(db, self.historian, stem, self._prev, samples_of(rows, reader.tag_names(), Places(SITE)), self.clock.now_ms)
        db.close()
        self._prev, self.sealed = made.hash, self.pos
        if remove:
            other = apsw.Connection(str(self.path))
            other.execute("DELETE FROM log WHERE pos <= ? AND kind IN ('F', 'B', 'H', 'X')", (self.sealed,))
            other.close()

    def all(self) -> Samples:
        """What was committed, all of it."""
        return concatenated(self.written)

    def source(self) -> LogSource:
        return LogSource(self.path, self.historian, SITE)

    def feed(self, store: Callable[[], Historian], **more: Any) -> Feed:
        config = TimeSeriesStoreConfig.model_validate({
            "id": "plant", "kind": "influxdb1", "url": "http://127.0.0.1:1", "batch_rows": 100, **more,
        })  # fmt: skip
        return Feed(config, store, self.source, self.historian / FEEDS, self.clock.clocks())

    def kept(self) -> Cursors:
        """The cursors as they lie on the disk."""
        return Cursors.of_text((self.historian / FEEDS / "plant.json").read_text())

    def close(self) -> None:
        self.ledger.close()


@contextlib.contextmanager
def gateway(folder: Path, tags: int = 10) -> Iterator[Gateway]:
    """A data folder, closed afterwards."""
    made = Gateway(folder, Clock(), tags)
    try:
        yield made
    finally:
        made.close()


class Store(MemoryHistorian):
    """A store in memory that the test takes away, fills with faults and forgets."""

    def __init__(self) -> None:
        super().__init__("plant")
        self.away: Exception | None = None
        self.writes: list[int] = []

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        if self.away is not None:
            raise self.away
        self.writes.append(len(samples))
        return super().write(samples, deadline_s)

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        if self.away is not None:
            raise self.away
        super().write_events(events, deadline_s)

    def held(self) -> Samples:
        """All of it."""
        return concatenated([part for day in self.days() for part in self.day(day)])

    def close(self) -> None:
        """It stays."""


AWAY = StoreAwayError("away", "不在")


@dataclass
class Turned:
    """What rounds did."""

    rounds: int
    states: list[str]


def turn(feed: Feed, clock: Clock, until: Callable[[], bool], rounds_max: int = 5_000) -> Turned:
    """Do rounds, each after the rest that the one before asked for, until something holds."""
    states = []
    for number in range(rounds_max):
        if until():
            return Turned(number, states)
        clock.now_s += feed.round()
        states.append(feed.status()["state"])
    raise AssertionError(f"not reached in {rounds_max} rounds: {feed.status()}")


def done(feed: Feed, made: Gateway) -> Callable[[], bool]:
    """Whether the store has all of it."""
    return lambda: feed.status()["state"] == "live" and feed.status()["lag_rows"] == 0 and feed.status()["cursor"] == made.pos


def same(found: Samples, wanted: Samples) -> bool:
    """Whether two hold the same rows, once each."""
    return (len(found), found.digest()) == (len(wanted), wanted.digest())
