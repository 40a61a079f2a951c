"""Core's loop: takes whatever waits, evaluates it in one call, hands one batch to the writer. It waits for nothing else.

One cycle is one synchronous call, so nothing can come between a frame and its evaluation. Acks, deliveries and
history runs follow from commits. A disk that stalls stops acks, not alarms: what is raised then goes out from memory,
marked `unjournaled`, and again with a sequence once it is committed (decision 0014).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from alerting import Act, ActRefusedError, Transition
from alerting.delivery import Attempt, Notice, NoticePlanner, OutboxRow
from gateway.core.batching import NODE_GRACE_MS, BatchBuilder
from gateway.core.engine_clock import EngineClock
from gateway.core.history_runs import LateWant, Stretch
from gateway.core.ledger import DELETE_ROWS_MAX, Batch, Committed
from gateway.core.machine import Machine
from gateway.core.own_trouble import OWN_KEYS, OwnTrouble
from gateway.core.ports import RunBlocking
from gateway.core.recover import Recovered
from gateway.core.retention import Removable
from gateway.core.sessions import Sessions
from gateway.core.writer import LedgerWriter
from wire import DataColumns, decode_usual

log = logging.getLogger(__name__)

MESSAGES_PER_CYCLE_MAX: Final = 512
USUAL_FROM: Final = 3  # messages that wait; decoding fewer together costs more than one by one
BLOCKS_PER_CYCLE_MAX: Final = 2
INBOX_MESSAGES_MAX: Final = 20_000
INBOX_BYTES_MAX: Final = 64 * 1024 * 1024
TICK_MS: Final = 100
HOUSEKEEPING_MS: Final = 500
DROPPED_OVER_MS: Final = 60_000
STATE_EVERY_MS: Final = 1_000
STALL_MS: Final = 500  # a commit that takes longer no longer holds its notices back
HUNG_MS: Final = 3_000  # and with one that takes so long, edges miss their acknowledgements: that is an alarm
UNCOMMITTED_BYTES_MAX: Final = 64 * 1024 * 1024
LIVE_ACK_MS: Final = 1_000
STOOD_STILL_MS: Final = 1_000  # between two cycles: far above a tick, and as long as a silence may be
STALL_TOLD_MS: Final = 3_000  # the watchdog tells of a stall then, unless it was stopped with the loop
AWAY_TOLD_MS: Final = 10_000
STALLED_KEY: Final = "CORE.EVALUATOR.STALLED"
ACTS_WAITING_MAX: Final = 64
REBIRTHS_MAX: Final = 1_000
TRANSITIONS_LOGGED_MAX: Final = 20  # a tick
BACKLOG_BLOCKS_MAX: Final = 512
DETACHED_NAMED_MAX: Final = 8


@dataclass(slots=True)
class Counters:
    """What the heartbeat tells. Plain numbers, written by the loop, read by the watchdog thread."""

    cycles: int = 0
    engine_ms: int = 0
    samples_committed: int = 0
    frames_committed: int = 0
    duplicates_dropped: int = 0
    refused: int = 0
    acks_sent: int = 0
    messages_dropped: int = 0
    committed_pos: int = 0
    commit_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1_000))
    unjournaled: bool = False
    overflow: bool = False
    alarms: dict[str, int] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class InFlight:
    """A batch at the writer."""

    batch: Batch
    since_ms: int
    offered: bool = False


@dataclass(slots=True)
class WaitingAct:
    """An operator act that is answered once it is committed."""

    act: Act
    adopted: dict[str, Any] | None
    answer: asyncio.Future[Transition]


class CoreLoop:
    """The cycle and what hangs on it. `wall_ms` and the engine clock are passed in; publishing goes out by callback."""

    def __init__(
        self,
        machine: Machine,
        sessions: Sessions,
        planner: NoticePlanner,
        clock: EngineClock,
        wall_ms: Callable[[], int],
        next_pos: int,
        fetch_late: Callable[[LateWant, int], Stretch | None],
        *,
        random: Random | None = None,
        run_blocking: RunBlocking = asyncio.to_thread,
    ) -> None:
        """Join the parts.

        Args:
            fetch_late: reads frames from the ledger, by `run_blocking`; None if it cannot be read just now.
            random: for ids; by default the system's.
            run_blocking: runs what waits for the disk; in a thread.
        """
        self.machine, self.sessions, self._planner = machine, sessions, planner
        self._clock, self._wall_ms, self._fetch_late = clock, wall_ms, fetch_late
        self.counters = Counters(committed_pos=next_pos - 1)
        self._run_blocking = run_blocking
        self._own = OwnTrouble(clock.now())
        self._hung, self._hung_looks = False, 0
        self._builder = BatchBuilder(machine, next_pos, random, self._own)
        self._inbox: deque[tuple[str, bytes]] = deque()
        self._inbox_bytes = 0
        self._backlog: deque[tuple[str, bytes]] = deque()
        self._block_encoded = frozenset(edge.id for edge in machine.site.edges if edge.encoding == "block")
        self._acts: deque[WaitingAct] = deque()
        self._facts: deque[dict[str, Any]] = deque()
        self._attempts: list[Attempt] = []
        self._unsaid: list[Transition] = []
        self.wake = asyncio.Event()
        self._flight: deque[InFlight] = deque()
        self._flight_bytes = 0
        self._unlogged = False  # frames are evaluated but not kept
        self._held = False  # a batch is held back until a state record can go with it
        self._state_ms = -STATE_EVERY_MS
        self._last_tick_ms = 0
        self._last_cycle_ms: int | None = None
        self._late_want: tuple[LateWant, int] | None = None  # and the log position that holds it
        self._late_task: asyncio.Task[Stretch | None] | None = None
        self._late_checked_pos = -1
        self._late_turn = -1
        self._last_housekeeping_ms = 0
        self._acts_in_flight: dict[int, list[tuple[WaitingAct, Transition]]] = {}
        self.acks: dict[tuple[str, int], int] = {}  # committed, not yet sent
        self.urgent_nodes: set[str] = set()
        self.acks_wake = asyncio.Event()
        self.rebirths: deque[str] = deque()
        self._starting: Callable[[], None] | None = None
        self.removable: Removable | None = None  # rows that the next batch removes
        self._removing: Removable | None = None
        self._dropped_seen = 0
        self._dropped_ms: int | None = None
        self.backlog_refused = False
        self.live_refused = False
        self.writer: LedgerWriter | None = None
        self.on_rows: Callable[[Sequence[OutboxRow]], None] = lambda rows: None
        self.on_unjournaled: Callable[[Sequence[Notice]], None] = lambda notices: None

    def use(self, tag_numbers: Sequence[int], config_hashes: dict[str, str]) -> None:
        """Give the ledger's numbers of the tags, and the hash that each edge's own file must have."""
        self._builder.use_tag_numbers(tag_numbers)
        self._builder.use_config_hashes(config_hashes)

    def started(self, downtime_ms: int, recovered: Recovered, *, believed: bool, restored: bool = False) -> None:
        """Put the start itself into the log: the time core was down, what holds now, that no session outlives it."""
        self._starting = partial(self._start_entries, downtime_ms, recovered, believed=believed, restored=restored)

    # -- in --

    def message(self, topic: str, payload: bytes) -> None:
        """Take one MQTT message. Over the caps it is dropped and counted: its frame stays unacked and comes again."""
        if len(self._inbox) >= INBOX_MESSAGES_MAX or self._inbox_bytes + len(payload) > INBOX_BYTES_MAX:
            self.counters.messages_dropped += 1
            return
        self._inbox.append((topic, payload))
        self._inbox_bytes += len(payload)
        self.wake.set()

    def fact(self, key: str, standing: bool | None, facts: dict[str, Any] | None = None) -> None:
        """Report a system condition; it becomes an entry of the next cycle."""
        if key in OWN_KEYS:
            self._own.seen(self._clock.now())
        self._facts.append({"key": key, "standing": standing, "facts": facts or {}})
        self.wake.set()

    def attempts(self, attempts: Sequence[Attempt]) -> None:
        """Record delivery attempts with the next commit."""
        self._attempts += attempts
        self.wake.set()

    def link_up(self) -> None:
        """The source is connected and listens."""
        self._own.seen(self._clock.now())
        self.sessions.link_up(self._clock.now())

    def link_lost(self) -> None:
        """Core's own MQTT link is gone: nothing is known of any node until it is born again."""
        self._own.seen(self._clock.now())
        self.sessions.link_lost(self._clock.now())
        self.wake.set()

    async def act(self, act: Act, adopted: dict[str, Any] | None) -> Transition:
        """Do an operator act; returns once it is committed.

        Raises:
            ActRefusedError: the life cycle does not allow it, or too many acts wait.
        """
        if len(self._acts) >= ACTS_WAITING_MAX:
            raise ActRefusedError(act.alarm_id, "too many acts wait; try again in a moment")
        answer: asyncio.Future[Transition] = asyncio.get_running_loop().create_future()
        self._acts.append(WaitingAct(act, adopted, answer))
        self.wake.set()
        return await answer

    # -- the cycle --

    async def run(self, stop: asyncio.Event) -> None:
        """Cycle until `stop` is set; a tick comes at least every 100 ms."""
        while not stop.is_set():
            if not self._inbox and (not self._backlog or self.backlog_refused):
                try:
                    async with asyncio.timeout(TICK_MS / 1000):
                        await self.wake.wait()
                except TimeoutError:
                    pass
            self.wake.clear()
            self.cycle()
            await asyncio.sleep(0)  # let the source, the courier and the acks run between two cycles
        self._say_steps()

    def _say_steps(self) -> None:
        """Log committed steps of alarms: at a tick, not at the commit, where their notices would wait for the log."""
        steps, self._unsaid = self._unsaid, []
        _log_steps(steps)

    def cycle(self) -> None:
        """Take what waits, evaluate it, hand it to the writer."""
        engine_ms, wall_ms = self._clock.now(), self._wall_ms()
        build = self._builder
        overflow = self._flight_bytes > UNCOMMITTED_BYTES_MAX or self.live_refused
        build.begin(engine_ms, wall_ms, go_on=self._held)
        if self._starting is not None:
            self._starting()
            self._starting = None
        elif self._last_cycle_ms is not None and engine_ms - self._last_cycle_ms >= STOOD_STILL_MS:
            self._stood_still(engine_ms - self._last_cycle_ms)
        self._last_cycle_ms = engine_ms
        build.unlogged = self._unlogged = self._unlogged or overflow
        self.counters.overflow = self._unlogged
        if self._unlogged or self._dropped_ms is not None:
            self._own.seen(engine_ms)
        self._take_messages(engine_ms, wall_ms)
        if not self._unlogged and not self.backlog_refused:
            self._take_blocks(wall_ms)
        for _ in range(len(self._facts)):
            build.condition(self._facts.popleft())
        self._take_acts()
        self._take_late()
        self._start_late()
        if engine_ms - self._last_tick_ms >= TICK_MS:
            self._last_tick_ms = engine_ms
            build.tick()
            self._say_steps()
        if engine_ms - self._last_housekeeping_ms >= HOUSEKEEPING_MS:
            self._last_housekeeping_ms = engine_ms
            self._housekeeping(engine_ms)
        if self._attempts:
            build.attempts(self._attempts)
            self._attempts = []
        if self.removable is not None:
            build.remove(self.removable)
            self._removing, self.removable = self.removable, None
        if self._unlogged:
            self._hold(engine_ms, overflow=overflow)
        else:
            self._submit(build.finish(self._planner), engine_ms)
        self._release_stalled(engine_ms)
        self.counters.cycles += 1
        self.counters.engine_ms = engine_ms
        self.counters.duplicates_dropped = build.duplicates
        self.counters.refused = self.sessions.refused

    def _stood_still(self, away_ms: int) -> None:
        """The loop did not turn for a while: nobody was heard, so nobody's silence is a fault yet."""
        log.warning("the loop stood still for %d ms", away_ms)
        self._builder.was_away(away_ms)
        if away_ms >= STALL_TOLD_MS and all(told["key"] != STALLED_KEY for told in self._facts):
            self.fact(STALLED_KEY, None, {"seconds": round(away_ms / 1000, 1)})

    def _start_entries(self, downtime_ms: int, recovered: Recovered, *, believed: bool, restored: bool) -> None:
        build, differences, detached = self._builder, recovered.differences, recovered.detached
        build.start(downtime_ms, believed=believed, restored=restored)
        if recovered.revision is not None:
            build.configured(recovered.revision)
            build.was_away(downtime_ms)  # tags that have come with it too
        if differences:  # the next replay would meet them again, and go on from a state that is not this one
            build.state_record()
        for name, node in list(self.machine.nodes.items()):
            if node.online:
                build.died(name, "", quiet=True)
        if not believed:
            build.condition({"key": "CORE.CLOCK.DOWNTIME", "standing": None, "facts": {}})
        if downtime_ms >= AWAY_TOLD_MS:
            now_ms = self._wall_ms()
            away = {"seconds": downtime_ms // 1000, "from_ms": now_ms - downtime_ms, "to_ms": now_ms}
            build.condition({"key": "CORE.PROCESS.AWAY", "standing": None, "facts": away})
        if differences:
            facts = {"count": len(differences), "first": differences[0]}
            build.condition({"key": "CORE.REPLAY.DIFFERS", "standing": None, "facts": facts})
        if detached:
            facts = {"count": len(detached), "what": "; ".join(detached[:DETACHED_NAMED_MAX])}
            build.condition({"key": "CORE.CONFIG.CHANGED", "standing": None, "facts": facts})

    def _take_messages(self, engine_ms: int, wall_ms: int) -> None:
        for node, fact in self.sessions.ended():
            self._apply(node, fact, wall_ms)
        taken = [self._inbox.popleft() for _ in range(min(len(self._inbox), MESSAGES_PER_CYCLE_MAX))]
        self._inbox_bytes -= sum(len(payload) for _, payload in taken)
        usual: Sequence[DataColumns | None] = [None] * len(taken)
        if len(taken) >= USUAL_FROM:
            usual = decode_usual([payload for _, payload in taken])
        for (topic, payload), columns in zip(taken, usual, strict=True):
            for node, fact in self.sessions.message(topic, payload, engine_ms, columns):
                self._apply(node, fact, wall_ms)
        for node, fact in self.sessions.poll(engine_ms):
            self._apply(node, fact, wall_ms)

    def _apply(self, node: str, fact: Any, wall_ms: int) -> None:
        wanted = self._builder.fact(node, fact)
        if wanted is not None:
            if isinstance(wanted, bytes) and node in self._block_encoded:
                self._block(node, wanted, wall_ms)  # its live frames travel so: they wait for nothing
            elif isinstance(wanted, bytes):
                if len(self._backlog) < BACKLOG_BLOCKS_MAX:  # else it stays unacked and comes again
                    self._backlog.append((node, wanted))
            elif len(self.rebirths) < REBIRTHS_MAX:
                self.rebirths.append(node)
                self.acks_wake.set()

    def _block(self, node: str, body: bytes, wall_ms: int) -> None:
        if self._builder.block(node, body):
            for asked, fact in self.sessions.unlisted(node, self._clock.now()):
                self._apply(asked, fact, wall_ms)

    def _take_blocks(self, wall_ms: int) -> None:
        for _ in range(min(len(self._backlog), BLOCKS_PER_CYCLE_MAX)):
            self._block(*self._backlog.popleft(), wall_ms)

    def _take_acts(self) -> None:
        while self._acts:
            waiting = self._acts.popleft()
            try:
                transition = self._builder.act(waiting.act, waiting.adopted)
            except ActRefusedError as error:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
                continue
            self._acts_in_flight.setdefault(self._builder.last_pos, []).append((waiting, transition))

    def _housekeeping(self, engine_ms: int) -> None:
        for node in self.sessions.overdue(engine_ms, NODE_GRACE_MS):
            self._builder.died(node, "", quiet=False)
        self._watch_inbox(engine_ms)
        self._watch_disk(engine_ms)
        self._builder.unexplained()
        self.counters.nodes = self.sessions.view(self.machine)
        self.counters.alarms = self._builder.alarm_counts()

    def _watch_inbox(self, engine_ms: int) -> None:
        """Messages that found no room are an alarm until none was dropped for a minute."""
        dropped = self.counters.messages_dropped
        if dropped != self._dropped_seen:
            self._dropped_seen, self._dropped_ms = dropped, engine_ms
            self._builder.condition({"key": "CORE.INBOX.DROPPED", "standing": True, "facts": {"dropped": dropped}})
        elif self._dropped_ms is not None and engine_ms - self._dropped_ms >= DROPPED_OVER_MS:
            self._dropped_ms = None
            self._builder.condition({"key": "CORE.INBOX.DROPPED", "standing": False, "facts": {"dropped": dropped}})

    def _watch_disk(self, engine_ms: int) -> None:
        """A commit that does not come back fails no less than one that the disk refuses: one alarm, until it is done.

        Looked at twice: a loop that itself stood still has not heard yet of what was committed meanwhile.
        """
        waited_ms = engine_ms - self._flight[0].since_ms if self._flight else 0
        self._hung_looks = self._hung_looks + 1 if waited_ms >= HUNG_MS else 0
        if self._hung_looks:
            self._own.seen(engine_ms)
        if self._hung_looks > 1 and not self._hung:
            self._hung = True
            facts = {"reason": f"a commit takes longer than {HUNG_MS // 1000} s"}
            self._builder.condition({"key": "CORE.LEDGER.WRITE", "standing": True, "facts": facts})
        elif self._hung and waited_ms < STALL_MS:
            self._hung = False
            self._builder.condition({"key": "CORE.LEDGER.WRITE", "standing": False, "facts": {}})

    # -- commits --

    def _hold(self, engine_ms: int, *, overflow: bool) -> None:
        """There is no room to keep frames: tell the alarms from memory, and hold back all else of this batch.

        What frames caused that are not kept may only be committed together with a state record, from which
        replay then starts; otherwise it would look for their cause in vain. That is done once a second as far
        as there is room for it, and a last time when frames are kept again.
        """
        build = self._builder
        self._tell_raised(build.plan(self._planner))
        room = self._flight_bytes < UNCOMMITTED_BYTES_MAX // 2
        self._held = True
        if not room or engine_ms - self._state_ms < STATE_EVERY_MS or (overflow and not build.pending):
            return
        build.state_record()
        self._state_ms = engine_ms
        self._submit(build.finish(self._planner), engine_ms, offered=True)
        self._held, self._unlogged = False, overflow

    def _submit(self, batch: Batch, engine_ms: int, *, offered: bool = False) -> None:
        if batch.empty and not batch.acks:
            return
        assert self.writer is not None
        self._flight.append(InFlight(batch, engine_ms, offered))
        self._flight_bytes += batch.bytes
        self.writer.submit(batch)

    def _release_stalled(self, engine_ms: int) -> None:
        """Notices of batches that the disk holds up for too long go out from memory."""
        stalled = bool(self._flight) and engine_ms - self._flight[0].since_ms >= STALL_MS
        if stalled:  # what stands behind a commit that stalls need not wait to see that it stalls too
            for flight in self._flight:
                if not flight.offered:
                    flight.offered = True
                    self._tell_raised(flight.batch.notices)
        self.counters.unjournaled = stalled or self._unlogged

    def _tell_raised(self, notices: Sequence[Notice]) -> None:
        """Tell what one batch has raised. That something older ended is told when it is safe.

        A core killed first would find that alarm standing as before, and tell nobody of the next excursion. What was
        raised and returned in one batch it knows wholly or not at all, and nobody would ever tell of the end again.
        """
        raised = {notice.alarm_id for notice in notices if notice.transition_id == notice.alarm_id}
        told = [notice for notice in notices if notice.alarm_id in raised]
        if told:
            self.on_unjournaled(told)

    def committed(self, batches: list[Batch], settled: Committed, took_s: float) -> None:
        """Called in the loop's thread when a transaction is safe. Notices first: what is woken here runs in turn."""
        if settled.outbox:
            self.on_rows(settled.outbox)
        acks_told = bool(self.acks)
        for batch in batches:
            flight = self._flight.popleft()
            assert flight.batch is batch, "the writer keeps the order"
            self._flight_bytes -= batch.bytes
            self.counters.samples_committed += batch.samples
            self._unsaid += [step for _, step in batch.transitions]
            self.counters.frames_committed += batch.frames
            self.acks.update(batch.acks)
            self.urgent_nodes |= batch.backlog_nodes
        if settled.pruned >= DELETE_ROWS_MAX:  # there is more to go
            self.removable = self._removing
        if settled.last_pos:
            self.counters.committed_pos = settled.last_pos
        self.counters.commit_ms.append(took_s * 1000)
        if self.urgent_nodes or (self.acks and not acks_told):  # live acks that wait already go once a second
            self.acks_wake.set()
        for pos in [pos for pos in self._acts_in_flight if pos <= self.counters.committed_pos]:
            for waiting, transition in self._acts_in_flight.pop(pos):
                if not waiting.answer.done():
                    waiting.answer.set_result(transition)
        self.wake.set()

    # -- history --

    def _start_late(self) -> None:
        """Find what a fork needs next, and fetch it in a thread once the disk holds all that is booked by now.

        Fetched earlier, a frame that is booked but not yet committed would be taken for one removed by age.
        """
        if self._late_task is not None:
            return
        if self._late_want is None and self._late_checked_pos != self.counters.committed_pos:
            self._late_checked_pos = self.counters.committed_pos
            names = list(self.machine.nodes)
            for _ in names:
                self._late_turn = (self._late_turn + 1) % len(names)  # every node's history gets its turn
                want = self._builder.late_step(names[self._late_turn])
                if want is not None:
                    self._late_want = want, self._builder.last_pos
                    break
        if self._late_want is not None and self.counters.committed_pos >= self._late_want[1]:
            want, pos = self._late_want
            self._late_task = asyncio.get_running_loop().create_task(
                self._run_blocking(self._fetch_late, want, pos), name=f"late-fetch-{want.node}"
            )
            self._late_task.add_done_callback(lambda _: self.wake.set())

    def _take_late(self) -> None:
        if self._late_task is None or not self._late_task.done() or self._late_want is None:
            return
        stretch = self._late_task.result()  # a bug in the fetch ends core here
        want, pos = self._late_want
        self._late_task = self._late_want = None
        if stretch is not None:
            self._builder.late(want, pos, stretch)
            self._late_checked_pos = -1

    @property
    def last_pos(self) -> int:
        """The newest log position given out."""
        return self._builder.last_pos

    @property
    def idle(self) -> bool:
        """Nothing waits: used to stop in order."""
        return not (
            self._inbox or self._backlog or self._flight or self._acts or self._attempts or self._facts
            or self._late_task or (self._held and self._builder.pending)
        )  # fmt: skip

    def settled_state(self) -> tuple[int, dict[str, bytes]] | None:
        """Return the last log position applied and all state after it, to be written once that is committed.

        None while frames are evaluated that are not kept: a snapshot would know what the ledger never will. Likewise
        before the start itself is in the log.
        """
        return None if self._unlogged or self._starting is not None else self.state_bytes()

    def state_bytes(self) -> tuple[int, dict[str, bytes]]:
        """Return the last log position applied, and all state after it."""
        return self._builder.last_pos, self.machine.dump()


def _log_steps(steps: Sequence[Transition]) -> None:
    """One line for each step of an alarm, so that core's log alone tells what it raised; a flood is summed up."""
    for step in steps[:TRANSITIONS_LOGGED_MAX]:
        alarm = step.alarm
        late, actor = " late" if step.late else "", f" by {step.actor}" if step.actor else ""
        log.info("alarm %s: %s %s %s grade %d%s%s", alarm.id, alarm.tag, alarm.limit, step.kind, alarm.grade, late, actor)
    more = len(steps) - TRANSITIONS_LOGGED_MAX
    if more > 0:
        log.info("and %d more steps of alarms at the same time", more)
