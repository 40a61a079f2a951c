"""Core without its shells: the real loop, machine and ledger, a writer that commits when the test says so.

Nothing here sleeps or reads a clock. `Bench.crash` drops what is not committed and starts anew from the files.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alerting import AlarmState, Transition
from alerting.delivery import Notice, NoticePlanner, OutboxRow
from config import SiteConfig
from gateway.core.engine_clock import EngineClock, downtime
from gateway.core.history_runs import LateWant, Stretch
from gateway.core.ledger import Batch, Committed, Ledger
from gateway.core.loop import CoreLoop
from gateway.core.reader import LedgerReader
from gateway.core.recover import FrameReader, Recovered, fetch_late, recover
from gateway.core.sessions import Sessions
from tests.gateway.field import T0_MS, Sent, site
from wire import PAYLOAD_LIMITS

LEDGER_NAME = "ledger.sqlite3"


class ManualWriter:
    """Takes batches as the writer thread does, and commits them when told."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.waiting: list[Batch] = []
        self.fail: BaseException | None = None

    def submit(self, batch: Batch) -> None:
        self.waiting.append(batch)

    def commit(self, loop: CoreLoop, batches_max: int = 1_000) -> list[Batch]:
        """Commit what waits in one transaction and tell the loop."""
        part, self.waiting = self.waiting[:batches_max], self.waiting[batches_max:]
        if part:
            settled: Committed = self.ledger.commit(part)
            loop.committed(part, settled, 0.002)
        return part


@dataclass
class Sayings:
    """What the loop handed to the courier."""

    rows: list[OutboxRow] = field(default_factory=list)
    unjournaled: list[str] = field(default_factory=list)
    from_memory: list[Notice] = field(default_factory=list)


class Bench:
    """One run of core on a folder. Times are the test's: `now_s` is the monotonic clock."""

    def __init__(
        self, folder: Path, *, config: SiteConfig | None = None, now_s: float = 100.0, restored: bool = False,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.folder, self.site, self.now_s = folder, config or site(), now_s
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder / LEDGER_NAME, self.site.site)
        if not self.ledger.ledger_id:
            self.ledger.set_id("ledger-one")
        self.recovered: Recovered = recover(self.site, folder, self.ledger.reader, restored=restored)
        self.machine = self.recovered.machine
        down = downtime(int(self.ledger.reader.meta("wall_ms") or 0), self.wall_ms())
        clock = EngineClock(self.recovered.engine_ms + down.ms, lambda: self.now_s)
        numbers = self.ledger.tag_numbers([tag.id for tag in self.site.tags])
        self.late_reader = LedgerReader.open(folder / LEDGER_NAME)
        frames = FrameReader(self.machine, self.late_reader.tag_names())

        def fetch(want: LateWant, pos_max: int) -> Stretch | None:
            return fetch_late(self.late_reader, frames, want, pos_max)

        self.sessions = Sessions(self.site, PAYLOAD_LIMITS, clock.now())
        self.loop = CoreLoop(
            self.machine, self.sessions, NoticePlanner.compile(self.site), clock, self.wall_ms,
            self.recovered.last_pos + 1, fetch,
        )  # fmt: skip
        self.loop._builder._random = random.Random(seed + self.recovered.last_pos)
        self.loop.use(numbers, {})
        self.loop.started(down.ms, self.recovered, believed=down.believed)
        self.writer = ManualWriter(self.ledger)
        self.loop.writer = self.writer  # type: ignore[assignment]
        self.said = Sayings()
        self.loop.on_rows = self.said.rows.extend
        self.loop.on_unjournaled = self._unjournaled

    def _unjournaled(self, notices: Sequence[Notice]) -> None:
        self.said.from_memory += notices
        self.said.unjournaled += [notice.id for notice in notices]

    def wall_ms(self) -> int:
        return T0_MS + int(self.now_s * 1000)

    # -- time and messages --

    def deliver(self, sent: Iterable[Sent]) -> None:
        for topic, payload in sent:
            self.loop.message(topic, payload)

    async def cycle(self, after_ms: float = 100, *, commit: bool = True) -> None:
        """Let time pass, run one cycle, and commit what it brought."""
        self.now_s += after_ms / 1000
        self.loop.cycle()
        if commit:
            self.writer.commit(self.loop)
        await self.fetched()

    async def wait(self, for_ms: float) -> None:
        """Let time pass in which the loop goes on turning."""
        while for_ms > 0:
            await self.cycle(min(for_ms, 900))
            for_ms -= 900

    async def fetched(self) -> None:
        """Let a running history fetch end."""
        if self.loop._late_task is not None:
            await asyncio.wait([self.loop._late_task])

    async def settle(self, cycles: int = 12) -> None:
        """Cycle and commit until nothing moves any more."""
        for _ in range(cycles):
            await self.cycle(1)

    # -- endings --

    def close(self) -> None:
        self.late_reader.close()
        self.ledger.close()

    def crash(self, **more: Any) -> Bench:
        """Die with what is uncommitted, and start again on the same folder."""
        self.close()
        return Bench(self.folder, config=self.site, now_s=self.now_s + 1, **more)

    # -- views --

    def journal(self) -> list[Transition]:
        return [
            Transition.from_json(json.loads(body))
            for (body,) in self.ledger.reader.rows("SELECT body FROM transition ORDER BY row")
        ]

    def alarms(self) -> list[AlarmState]:
        return self.machine.engine.alarms()

    def standing(self, *, late: bool | None = None) -> set[tuple[str, str]]:
        """(tag, limit) of alarms whose cause stands."""
        return {
            (alarm.tag, alarm.limit)
            for alarm in self.alarms()
            if alarm.state.active and (late is None or alarm.late is late)
        }


def copy_ledger(folder: Path, into: Path) -> Path:
    """Copy a ledger as it lies on the disk, its write-ahead log too, as a crash would leave it."""
    into.mkdir()
    for suffix in ("", "-wal"):
        source = folder / f"{LEDGER_NAME}{suffix}"
        if source.exists():
            shutil.copy(source, into / source.name)
    return into


def words(transitions: Sequence[Transition]) -> list[str]:
    """Transitions as `T1.LEVEL H raised`, late ones marked, system conditions left out."""
    return [
        f"{'late ' if each.late else ''}{each.alarm.tag} {each.alarm.limit} {each.kind}"
        for each in transitions
        if each.alarm.category != "system"
    ]
