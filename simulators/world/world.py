"""A whole installation in one process: two edges, a broker, core, two receivers, an operator, and what goes wrong.

Everything runs in virtual time on one thread and draws from one seed, so a run can be had again exactly. Faults come
as the plan says; then the world heals, and waits until everything has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from config import export_edge
from simulators.world.clock import VirtualLoop
from simulators.world.core_part import CorePart
from simulators.world.edge_part import EdgePart
from simulators.world.faults import BROKER, CORE, Fault, FaultKind, FaultPlan, draw_plan
from simulators.world.network import Network
from simulators.world.plant import BAD_COMM, BAD_SENSOR, Plant
from simulators.world.process import Killed, Process, own_tasks
from simulators.world.receivers import Receiver
from simulators.world.record import (
    Acted,
    Committed,
    Event,
    FaultBegan,
    FaultEnded,
    Healed,
    Noticed,
    PartEnded,
    PartStarted,
    Record,
    Settled,
)
from simulators.world.site import SECRETS, parts_of, world_site
from wire import MemoryBroker

START_MS: Final = 1_800_000_000_000
RESTART_S: Final = 1.0
SETTLE_S_MIN: Final = 20.0
SETTLE_S_MAX: Final = 600.0  # a patient notice that was refused twice waits for five minutes, give or take a fifth
QUIET_S: Final = 12.0  # longer than every off-delay and every silence of an instrument
UNDER_WAY_S: Final = 4.0
ACT_EVERY_S: Final = (5.0, 20.0)
STOP_S_MAX: Final = 20.0
LEFT_S: Final = 3.0  # longer than a tag's fault waits once its node has left
BLOCK_ENCODED_EVERY: Final = 4
POWER_CUTS_SHARE: Final = 0.5
CALM_BEFORE_HEALED_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Life:
    """One life of an edge or core."""

    process: Process
    stop: asyncio.Event
    task: asyncio.Task[None]


class World:
    """One run. `async with World(seed, folder) as world: await world.run()`; what was seen is in `record`.

    Attributes:
        record: what was observed.
        applied: how often each kind of fault did something.
    """

    def __init__(self, seed: int, folder: Path, plan: FaultPlan | None = None) -> None:
        """`folder`: an empty one for this run alone. `plan`: by default what the seed draws."""
        self.seed, self._folder = seed, folder
        self.site = world_site(block_encoded=seed % BLOCK_ENCODED_EVERY == BLOCK_ENCODED_EVERY - 1)
        self.plan = plan or draw_plan(seed, parts_of(self.site))
        self.applied: Counter[FaultKind] = Counter()
        self.broken: list[BaseException] = []
        """What was raised where nobody could catch it."""
        self._stepped_ms: dict[str, int] = {}
        self._random = Random(f"world {seed}")
        self._lives: dict[tuple[str, int], _Life] = {}
        self._runs: Counter[tuple[str, int]] = Counter()
        self._down: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stirred_s = 0.0
        self._streams: set[tuple[str, int]] = set()
        self._known: dict[str, Noticed] = {}

        self.plant = Plant(seed, self.plan.heal_s - CALM_BEFORE_HEALED_S)
        self.broker = MemoryBroker()
        self.network = Network(self.broker, Random(f"network {seed}"), self.applied)
        self.receivers = {
            one.id: Receiver(
                one.id, SECRETS[one.id], folder / one.id, self._wall_s, self._note, Random(f"receiver {seed} {one.id}"),
                self.applied,
            )
            for one in self.site.receivers
        }  # fmt: skip
        self.core = CorePart(
            self.site, folder / CORE, seed, self.network, self.receivers, partial(self._wall_ms, CORE), self._note,
            self.applied, partial(self._fall, CORE, 0),
        )  # fmt: skip
        self._edges: dict[tuple[str, int], EdgePart] = {}
        for edge in self.site.edges:
            self._edges[edge.id, 0] = EdgePart(
                export_edge(self.site, edge.id), folder / edge.id, seed, self.network, self.plant,
                partial(self._wall_ms, edge.id), self._note, self.core.look, self.applied,
                partial(self._fall, edge.id, 0),
            )  # fmt: skip
        self.record = Record(seed, self.site, START_MS, self.core.ledger)

    # -- the run --

    async def __aenter__(self) -> World:
        loop = asyncio.get_running_loop()
        own_tasks(loop)
        loop.set_exception_handler(self._broke)
        self._context = contextvars.copy_context()
        self._start(BROKER)
        for name in self.receivers:
            self._start(name)
        self._start(CORE)
        for name, _ in list(self._edges):
            self._start(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        for life in list(self._lives.values()):
            life.process.die()
            await life.process.buried()
        self.core.buried()
        self.core.close()
        for receiver in self.receivers.values():
            receiver.stopped()

    async def run(self) -> Record:
        """Let the plan happen, heal, wait until everything has arrived, and stop in order.

        Raises:
            RuntimeError: something broke where no part could have caught it.
        """
        playing = [self._spawn(self._play(fault)) for fault in self.plan.faults]
        operator = self._spawn(self._operate())
        for task in playing:
            await task
        await self._until(self.plan.heal_s)
        operator.cancel()
        self._note(Healed(self._now_s()))
        waiting = await self._settle()
        await self._stop()
        self.core.look()
        self._note(Settled(self._now_s(), not waiting, waiting))
        if self.broken:
            raise RuntimeError(f"seed {self.seed}: {self.broken[0]!r} was raised in a callback") from self.broken[0]
        return self.record

    async def _settle(self) -> str:
        """Wait until nothing is on its way any more; return what still is when patience ends."""
        began_s = self._now_s()
        while True:
            waiting = self._waiting()
            passed_s = self._now_s() - began_s
            if (not waiting and passed_s >= SETTLE_S_MIN) or passed_s >= SETTLE_S_MAX:
                return waiting
            await asyncio.sleep(1.0)

    def _waiting(self) -> str:
        now_s = self._now_s()
        for (name, box), edge in self._edges.items():
            if (name, box) not in self._lives:
                return f"{name} does not run"
            if frames := edge.waiting(now_s, UNDER_WAY_S):
                return f"{name} has {frames} frames without receipt"
        if (CORE, 0) not in self._lives:
            return f"{CORE} does not run"
        if reason := self.core.busy():
            return reason
        self.core.look()
        if due := self.core.due():
            return f"{due} notices are due"
        return "" if now_s - self._stirred_s >= QUIET_S else "a notice or a new stream came a moment ago"

    async def _stop(self) -> None:
        """Stop in order: edges, then core, once it has told what the edges' leaving brought."""
        for key in list(self._edges):
            await self._stop_part(key)
        await asyncio.sleep(LEFT_S)
        for _ in range(int(STOP_S_MAX)):
            await asyncio.sleep(1.0)
            self.core.look()
            if not self.core.due() and not self.core.busy():
                break
        await self._stop_part((CORE, 0))

    async def _stop_part(self, key: tuple[str, int]) -> None:
        life = self._lives.get(key)
        if life is not None:
            life.stop.set()
            async with asyncio.timeout(STOP_S_MAX):
                await asyncio.wait([life.task])

    # -- lives --

    def _start(self, part: str, box: int = 0) -> None:
        self._down.discard(part)
        key = part, box
        self._runs[key] += 1
        self._note(PartStarted(self._now_s(), part, self._runs[key], box))
        if part == BROKER:
            self.broker.start()
            return
        process = Process(part, self._runs[key], box)
        if part in self.receivers:
            self.receivers[part].start(process)
            self._lives[key] = _Life(process, asyncio.Event(), self._spawn(asyncio.sleep(0)))
            return
        stop = asyncio.Event()
        work = self.core.run(process, stop) if part == CORE else self._edges[key].run(process, stop)
        task = process.spawn(self._live(process, work), name=part)
        self._lives[key] = _Life(process, stop, task)

    async def _live(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        """Run core or an edge; one that ends by itself is started again, as a supervisor does."""
        cause = "stopped"
        try:
            await work
        except BaseException as error:
            if process.dead:
                raise
            cause = _cause(error)
        if process.dead:
            return
        self._end(process, cause)
        if cause != "stopped":
            self._spawn(self._supervise(process))

    async def _supervise(self, process: Process) -> None:
        process.die()
        self.network.gone(process.part, silent=False)
        await self._bury(process, power=False)
        await asyncio.sleep(RESTART_S)
        key = process.part, process.box
        wanted = process.part == CORE or key in self._edges
        if wanted and process.part not in self._down and key not in self._lives:
            self._start(*key)

    def _end(self, process: Process, cause: str) -> None:
        self._lives.pop((process.part, process.box), None)
        self._note(PartEnded(self._now_s(), process.part, process.run, cause, process.box))

    def _fall(self, part: str, box: int) -> None:
        """Kill a part here and now; it may be the one that is running."""
        life = self._lives.get((part, box))
        self.applied[FaultKind.KILL] += 1
        self._down.add(part)
        if life is None:
            return
        power = self._random.random() < POWER_CUTS_SHARE
        life.process.die()
        self._end(life.process, "killed")
        if part in self.receivers:
            self.receivers[part].stopped()
        elif box == 0:
            self.network.gone(part, silent=power)
        self._spawn(self._bury(life.process, power=power))

    async def _bury(self, process: Process, *, power: bool) -> None:
        await process.buried()
        if process.part == CORE:
            self.core.buried()
        elif power and (process.part, process.box) in self._edges:
            self._edges[process.part, process.box].lose_power()

    # -- faults --

    async def _play(self, fault: Fault) -> None:
        await self._until(fault.at_s)
        self._note(FaultBegan(self._now_s(), fault))
        if fault.kind is FaultKind.KILL and fault.mode == "behind_sync":
            self._arm(fault.part, True)
            await self._until(fault.at_s + fault.for_s / 2)
            if fault.part not in self._down:
                self._arm(fault.part, False)
                self._fall(fault.part, 0)
        else:
            self._begin(fault)
        await self._until(fault.ends_s)
        self._finish(fault)
        self._note(FaultEnded(self._now_s(), fault))

    def _arm(self, part: str, armed: bool) -> None:
        if part == CORE:
            self.core.disk.kill_behind_sync = armed
        else:
            self._edges[part, 0].kill_behind_sync = armed

    def _begin(self, fault: Fault) -> None:
        part = fault.part
        match fault.kind:
            case FaultKind.KILL if part == BROKER:
                self.applied[FaultKind.KILL] += 1
                self.broker.stop()
                if self._random.random() < POWER_CUTS_SHARE:
                    self.broker.retained.clear()
                self._note(PartEnded(self._now_s(), BROKER, self._runs[BROKER, 0], "killed"))
            case FaultKind.KILL:
                self._fall(part, 0)
            case FaultKind.PARTITION:
                self.network.cut(part, silent=fault.mode == "silent")
            case FaultKind.RECEIVER_ERRORS:
                self.receivers[part].fail(fault.mode)
            case FaultKind.INSTRUMENT_DEAD:
                self.applied[fault.kind] += 1
                self.plant.dead[part] = BAD_COMM if fault.mode == "comm" else BAD_SENSOR
            case FaultKind.TWINS:
                self._begin_twin(part)
            case FaultKind.CLOCK_STEP:
                self.applied[fault.kind] += 1
                self._stepped_ms[part] = self._stepped_ms.get(part, 0) + round(fault.strength * 1000)
            case _:
                self._set(fault, fault.strength, True)

    def _finish(self, fault: Fault) -> None:
        part = fault.part
        match fault.kind:
            case FaultKind.KILL:
                if (part, 0) not in self._lives:
                    self._start(part)
            case FaultKind.PARTITION:
                self.network.mend(part)
            case FaultKind.RECEIVER_ERRORS:
                self.receivers[part].fail("")
            case FaultKind.INSTRUMENT_DEAD:
                self.plant.dead.pop(part, None)
            case FaultKind.TWINS:
                self._end_twin(part)
            case FaultKind.CLOCK_STEP:
                self._stepped_ms[part] -= round(fault.strength * 1000)
            case _:
                self._set(fault, 0.0, False)

    def _set(self, fault: Fault, strength: float, on: bool) -> None:
        """Set what is a number of a line or a flag of a disk."""
        line = self.network.line(fault.part)
        disk = self.core.disk if fault.part == CORE else self._edges[fault.part, 0].disk
        match fault.kind:
            case FaultKind.LOSS:
                line.loss = strength
            case FaultKind.DELAY:
                line.delay_s = strength
            case FaultKind.DUPLICATE:
                line.twice = strength
            case FaultKind.REORDER:
                line.reorder = strength
            case FaultKind.DISK_FULL:
                disk.full = on
            case FaultKind.SYNC_FAILS:
                disk.sync_fails = on

    def _begin_twin(self, part: str) -> None:
        self.applied[FaultKind.TWINS] += 1
        folder = self._folder / f"{part}-twin"
        self._edges[part, 1] = self._edges[part, 0].twin(folder, partial(self._fall, part, 1))
        self._start(part, 1)

    def _end_twin(self, part: str) -> None:
        life = self._lives.get((part, 1))
        if life is not None:
            life.process.die()
            self._end(life.process, "killed")
            self._spawn(life.process.buried())
        del self._edges[part, 1]

    # -- the operator --

    async def _operate(self) -> None:
        """Acknowledge what the receivers were told of, and close what has returned."""
        random = Random(f"operator {self.seed}")
        while True:
            await asyncio.sleep(random.uniform(*ACT_EVERY_S))
            seen = [step for step in self._known.values() if step.alarm["state"] not in ("CLOSED", "ACTIVE_ACKED")]
            if not seen:
                continue
            step = random.choice(seen)
            kind = "close" if step.alarm["state"].startswith("RETURNED") and random.random() < 0.5 else "acknowledge"
            self._act(kind, step.alarm["id"])

    def _act(self, kind: str, alarm: str) -> None:
        actor = "operator"

        def answered(answer: dict[str, Any] | None) -> None:
            refused = "core died over it" if answer is None else None if answer["ok"] else str(answer["error"])
            self._note(Acted(self._now_s(), actor, kind, alarm, refused))

        told = {"act": kind, "alarm": alarm, "actor": actor, "reason": "it leaked", "measure": "valve closed"}
        self.core.ask(told, answered)

    # -- the rest --

    def _note(self, event: Event) -> None:
        self.record.add(event)
        if isinstance(event, Committed) and (event.node, event.stream) not in self._streams:
            self._streams.add((event.node, event.stream))
            self._stirred_s = event.at_s  # an edge is back: what it held up falls from now on
        if isinstance(event, Noticed) and event.kept:
            self._stirred_s = event.at_s
            known = self._known.get(event.alarm["id"])
            if known is None or known.revision < event.revision:
                self._known[event.alarm["id"]] = event

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _wall_ms(self, part: str) -> int:
        return START_MS + round(self._now_s() * 1000) + self._stepped_ms.get(part, 0)

    def _wall_s(self) -> float:
        return START_MS / 1000 + self._now_s()

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self._now_s()))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something of the world's own: it belongs to no process, whoever asked for it."""
        task = asyncio.get_running_loop().create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        self.broken.append(error or RuntimeError(context["message"]))


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """The record tells what happened; lines of logs would only cost time."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_world(seed: int, folder: Path, plan: FaultPlan | None = None, *, logs: bool = False) -> Record:
    """Run one world from its seed to its end and return what was seen.

    Args:
        folder: an empty one for this run alone, best in memory.
        plan: by default what the seed draws.
        logs: let the parts log.
    """

    async def run() -> Record:
        async with World(seed, folder, plan) as world:
            return await world.run()

    quiet = contextlib.nullcontext() if logs else _without_logs()
    with quiet, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())
