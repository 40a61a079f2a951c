"""Random histories of a small plant, drawn from a seed: what two edges and two people do to core, and what fails.

Edge E1 is ours (marks, acks, backlog); E2 is a foreign node. Every history ends with a healed world.
"""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

from alerting import Act, ActKind, ActRefusedError
from gateway.core.snapshots import Snapshot, write_snapshot
from tests.gateway.bench import Bench, ManualWriter, copy_ledger
from tests.gateway.field import (
    DEVICE_OF,
    GAS,
    LEVEL,
    PRESSURE,
    TEMP,
    Edge,
    Sent,
    address,
    device_birth,
    device_frame,
    node_birth,
    node_death,
)
from wire import MessageKind

VALUES = {
    LEVEL: (3.0, 9.5, 10.0, 12.0, 19.5, 22.0, 45.0, math.nan),
    PRESSURE: (0.5, 0.95, 1.2, 1.4, math.nan),
    GAS: (0.1, 0.7, 1.5, 40.0),
    TEMP: (20.0, 59.0, 61.0, 70.0),
}
CALM = {LEVEL: 3.0, PRESSURE: 0.5, GAS: 0.1, TEMP: 20.0}


class WatchingWriter(ManualWriter):
    """Notes the whole state at every log position, and copies the ledger after every commit it is asked to."""

    def __init__(self, bench: WatchedBench, states: dict[int, dict[str, bytes]]) -> None:
        super().__init__(bench.ledger)
        self._bench, self._states = bench, states

    def submit(self, batch: Any) -> None:
        super().submit(batch)
        self._bench.note(self._states)


class WatchedBench(Bench):
    """A bench that holds the engine to its promise: state is a function of the log alone."""

    def __init__(self, folder: Path, states: dict[int, dict[str, bytes]], **more: Any) -> None:
        super().__init__(folder, **more)
        self.states = states
        # What a crash forgot is as if it had never been.
        for pos in [pos for pos in states if pos > self.recovered.last_pos]:
            del states[pos]
        self.writer = WatchingWriter(self, states)
        self.loop.writer = self.writer  # type: ignore[assignment]

    def note(self, states: dict[int, dict[str, bytes]]) -> None:
        pos, sections = self.loop.state_bytes()
        known = states.setdefault(pos, sections)
        assert known == sections, f"state changed at log position {pos} without an entry"

    def crash(self, **more: Any) -> WatchedBench:
        self.close()
        return WatchedBench(self.folder, self.states, config=self.site, now_s=self.now_s + 1, **more)


class World:
    """Draws and plays one history."""

    def __init__(self, seed: int, folder: Path, *, crashes: bool = True, copies: bool = False) -> None:
        self.random = random.Random(seed)
        self.states: dict[int, dict[str, bytes]] = {}
        self.folder, self.crashes = folder, crashes
        self.bench = WatchedBench(folder / "core", self.states, seed=seed)
        self.edge = Edge("E1", first_stream=1_000)
        self.foreign_seq, self.foreign_bdseq, self.foreign_up = 0, 0, False
        self.online = False
        self.held: list[Sent] = []
        self.copies: list[Path] | None = [] if copies else None
        self.unacked_reached = 0

    # -- what can happen --

    async def step(self) -> None:
        """Do one random thing."""
        choices: list[tuple[int, Any]] = [
            (40, self._scan), (6, self._burst), (5, self._session), (3, self._lost_session), (6, self._backlog), (12, self._foreign),
            (4, self._foreign_session), (8, self._tick), (6, self._act), (3, self._condition), (4, self._held_again),
            (2, self._link_lost), (3, self._reseal), (2 if self.crashes else 0, self._crash), (1, self._snapshot),
        ]  # fmt: skip
        (what,) = self.random.choices([each for _, each in choices], [weight for weight, _ in choices])
        await what()
        await self._turn()

    async def _turn(self) -> None:
        """Cycle sometimes, commit sometimes, acknowledge what is committed."""
        if self.random.random() < 0.7:
            await self.bench.cycle(self.random.choice((1, 10, 100, 700)), commit=False)
            self.bench.note(self.states)
        if self.random.random() < 0.6:
            self._commit()

    def _commit(self, batches_max: int = 1_000) -> None:
        if not self.bench.writer.commit(self.bench.loop, batches_max):
            return
        if self.copies is not None:
            self.copies.append(copy_ledger(self.bench.folder, self.folder / f"copy-{len(self.copies)}"))
        acks, self.bench.loop.acks = self.bench.loop.acks, {}
        for (node, stream), upto in acks.items():
            if node == "E1" and self.random.random() < 0.8:
                self.edge.acked(stream, upto)

    def _arrive(self, sent: list[Sent]) -> None:
        """Deliver, lose, double or hold back messages."""
        for message in sent:
            fate = self.random.random()
            if fate < 0.78:
                self.bench.deliver([message])
            elif fate < 0.86:
                self.bench.deliver([message, message])
            elif fate < 0.94:
                self.held.append(message)

    def _values(self, tags: list[str]) -> dict[str, float]:
        return {tag: self.random.choice(VALUES[tag]) for tag in tags}

    async def _scan(self) -> None:
        device = self.random.choice(self.edge.devices)
        tags = [tag for tag in self.edge.tags if DEVICE_OF[tag] == device]
        values = self._values(self.random.sample(tags, self.random.randint(1, len(tags))))
        after_ms = self.random.choice((10, 300, 1_500))
        if self.online:
            self._arrive(self.edge.scan(values, after_ms))
        elif self.edge.live:
            self.edge.offline_scan(values, after_ms)

    async def _burst(self) -> None:
        for _ in range(self.random.randint(2, 12)):
            await self._scan()

    async def _session(self) -> None:
        """Begin a session, or end the one that is."""
        if not self.online:
            self.online = True
            self.bench.deliver(self.edge.born())
            return
        self.online = False
        if self.random.random() < 0.7:
            self.bench.deliver(self.edge.death())
        self.edge.session_lost()

    async def _lost_session(self) -> None:
        """A session whose birth was lost on the way, and which asks again only when it is told to."""
        if self.online:
            self.bench.deliver(self.edge.born(new_stream=False))

    async def _reseal(self) -> None:
        if self.online:
            self.bench.deliver(self.edge.born())

    async def _backlog(self) -> None:
        if self.online:
            sent = self.edge.backlog(frames_max=self.random.choice((1, 3, 20)))
            self.random.shuffle(sent)
            self._arrive(sent[:8])

    async def _held_again(self) -> None:
        self.random.shuffle(self.held)
        part, self.held = self.held[:4], self.held[4:]
        self.bench.deliver(part)

    async def _foreign(self) -> None:
        if not self.foreign_up:
            return
        self.foreign_seq = (self.foreign_seq + 1) % 256
        payload = device_frame(self.foreign_seq, [(1, self.random.choice(VALUES[TEMP]))], source_ms=self.edge.source_ms)
        self._arrive([(address(MessageKind.DDATA, "E2", "PUMP"), payload)])

    async def _foreign_session(self) -> None:
        if self.foreign_up and self.random.random() < 0.5:
            self.foreign_up = False
            self.bench.deliver([(address(MessageKind.NDEATH, "E2"), node_death(self.foreign_bdseq))])
            return
        self.foreign_up, self.foreign_seq = True, 1
        self.foreign_bdseq = (self.foreign_bdseq + 1) % 256
        self.bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(self.foreign_bdseq)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"),
             device_birth(1, {TEMP: self.random.choice(VALUES[TEMP])}, source_ms=self.edge.source_ms)),
        ])  # fmt: skip

    async def _tick(self) -> None:
        await self.bench.cycle(self.random.choice((100, 1_000, 5_000, 31_000)), commit=False)

    async def _act(self) -> None:
        """A person acknowledges or closes something, whether that is possible or not."""
        alarms = self.bench.alarms()
        if not alarms:
            return
        alarm = self.random.choice(alarms)
        kind = self.random.choice((ActKind.ACKNOWLEDGE, ActKind.CLOSE))
        texts = ("seen", "done") if self.random.random() < 0.8 else ("", "")
        act = Act(kind, alarm.id, "li", self.bench.wall_ms(), *texts)
        adopted = alarm.to_json() if self.random.random() < 0.1 else None
        task = asyncio.ensure_future(self.bench.loop.act(act, adopted))
        await asyncio.sleep(0)
        await self.bench.cycle(1, commit=False)
        self._commit()
        await asyncio.wait([task], timeout=0)
        if task.done() and not task.cancelled() and task.exception() is not None:
            assert isinstance(task.exception(), ActRefusedError)
        task.cancel()

    async def _condition(self) -> None:
        key = self.random.choice(("RECEIVER.CITY0.DOWN", "CORE.LEDGER.SPACE"))
        self.bench.loop.fact(key, self.random.choice((True, False, None)), {"n": self.random.randint(0, 9)})

    async def _link_lost(self) -> None:
        self.bench.loop.link_lost()

    async def _snapshot(self) -> None:
        pos, sections = self.bench.loop.state_bytes()
        if self.bench.loop.counters.committed_pos >= pos > 0:
            write_snapshot(self.bench.folder, Snapshot(pos, sections))

    async def _crash(self) -> None:
        """Core is killed: what was not committed is gone, and every session with it."""
        if self.random.random() < 0.5:
            self._commit(self.random.randint(1, 3))
        self.bench = self.bench.crash()
        if self.online:
            self.edge.session_lost()
            self.bench.deliver(self.edge.born())
        self.foreign_up = False

    # -- the end --

    async def heal(self) -> None:
        """Everything arrives again, everything is acknowledged, every value is calm."""
        self.bench.deliver(self.held)
        self.held.clear()
        if self.online:
            self.edge.session_lost()
        self.online = True
        self.bench.deliver(self.edge.born())
        await self._settle()
        for _ in range(3):  # on both clocks: a delay that spans two streams counts core's own time
            for tag in self.edge.tags:
                self.bench.deliver(self.edge.scan({tag: CALM[tag]}, after_ms=1_000))
            await self.bench.cycle(3_000, commit=False)
            self.bench.note(self.states)
        self.foreign_seq = self.foreign_bdseq = 0
        self.bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, {TEMP: CALM[TEMP]})),
        ])  # fmt: skip
        for _ in range(60):
            await self._settle()
            if self.edge.settled and self.bench.machine.node("E1").history is None:
                return
            # A stream in which a frame was lost is sealed, and comes again as blocks.
            self.bench.deliver(self.edge.born(new_stream=not self._only_live_is_open()))
            self.bench.deliver(self.edge.backlog())

    def _only_live_is_open(self) -> bool:
        return all(held.acked == held.last or held.stream == self.edge.live for held in self.edge.streams.values())

    async def _settle(self) -> None:
        for _ in range(6):
            await self.bench.cycle(1, commit=False)
            self.bench.note(self.states)
            self.bench.writer.commit(self.bench.loop)
            for (node, stream), upto in self.bench.loop.acks.items():
                if node == "E1":
                    self.edge.acked(stream, upto)
            self.bench.loop.acks.clear()
