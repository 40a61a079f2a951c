"""Joins core's parts and runs them: the only place where they know each other."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import apsw

from alerting import AlarmState
from alerting.delivery import Courier, NoticePlanner, SiteWords
from config import SiteConfig, edge_hash, export_edge
from gateway.core.acts import ActsSocket
from gateway.core.engine_clock import EngineClock, downtime
from gateway.core.errors import AnotherCoreError, DataFolderBusyError, UnfinishedCareError
from gateway.core.history_runs import LateWant, Stretch
from gateway.core.keeper import LedgerKeeper, Look
from gateway.core.ledger import Batch, Committed
from gateway.core.loop import CoreLoop
from gateway.core.ports import Ports
from gateway.core.reader import LedgerReader
from gateway.core.recover import FrameReader, Recovered, fetch_late, recover
from gateway.core.retention import Pending
from gateway.core.sealed import SealedSegments, newest_sealed
from gateway.core.sessions import Sessions
from gateway.core.snapshots import SNAPSHOTS_KEPT, Snapshot
from gateway.core.source import MqttSource
from gateway.core.stall import StallNote
from gateway.core.watchdog import Watchdog
from gateway.core.writer import Ballast, LedgerWriter
from gateway.historian.segments.names import FOLDER_NAME
from gateway.unfinished import unfinished
from wire import PAYLOAD_LIMITS, MqttConnector

log = logging.getLogger(__name__)

LEDGER_NAME: Final = "ledger.sqlite3"
HEARTBEAT_NAME: Final = "heartbeat.json"
ACTS_NAME: Final = "acts.sock"
STALL_NAME: Final = "stall.json"
SNAPSHOT_S: Final = 60.0
RETENTION_S: Final = 60.0
DRAIN_S_MAX: Final = 3.0
WRITER_CLOSE_S_MAX: Final = 5.0


class Core:
    """One core on one data folder."""

    def __init__(
        self,
        site: SiteConfig,
        folder: Path,
        connector: MqttConnector,
        secrets: Mapping[str, str],
        base_dir: Path,
        *,
        restored: bool = False,
        ports: Ports | None = None,
        historian: Path | None = None,
    ) -> None:
        """Open the ledger, recover, and join the parts; nothing runs before `run`.

        Args:
            historian: the folder that serve seals into; without one no frame ever leaves the ledger.

        Raises:
            CoreError: the folder is in use, or its ledger cannot be used.
            SecretRefusedError: a receiver has no usable secret.
        """
        self._ports = ports = ports or Ports()
        wall_ms = ports.wall_ms
        self._site, self._folder, self._wall_ms = site, folder, wall_ms
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock_folder(folder)
        self._ledger = ports.open_ledger(folder / LEDGER_NAME, site.site)
        pending = self._ledger.reader.restore_pending()  # its id is renewed already, and nothing has gone out under it
        restored = restored or pending
        sealed_pos = 0 if historian is None or restored else newest_sealed(historian, self._ledger.ledger_id)
        recovered = recover(site, folder, self._ledger.reader, restored=restored, sealed_pos=sealed_pos)
        self._name_ledger(restored=restored and not pending)
        last_wall_ms = int(self._ledger.reader.meta("wall_ms") or 0)
        down = downtime(last_wall_ms, wall_ms())
        clock = EngineClock(recovered.engine_ms + down.ms, ports.monotonic)
        words = SiteWords.compile(site)
        self._reader = LedgerReader.open(folder / LEDGER_NAME)
        self._space_reader = LedgerReader.open(folder / LEDGER_NAME)  # one connection for each thread of use
        segments = None if historian is None else SealedSegments(
            historian, self._ledger.ledger_id, self._space_reader.ancestry(), site.storage.historian.seal_s, wall_ms()
        )  # fmt: skip
        self._keeper = LedgerKeeper(self._space_reader, folder, site.storage, segments)
        self._pending_at: dict[int, Pending] = {}  # position of a snapshot -> what history needed then
        numbers = self._ledger.tag_numbers([tag.id for tag in site.tags])
        machine = recovered.machine
        late_frames = FrameReader(machine, self._ledger.reader.tag_names())
        late_reader = LedgerReader.open(folder / LEDGER_NAME)
        self._late_reader = late_reader

        def fetch(want: LateWant, pos_max: int) -> Stretch | None:
            try:
                return fetch_late(late_reader, late_frames, want, pos_max)
            except (apsw.BusyError, apsw.IOError) as error:
                log.warning("history waits: the ledger could not be read (%s)", error)
                return None

        sessions = Sessions(site, PAYLOAD_LIMITS, clock.now())
        self.loop = CoreLoop(
            machine, sessions, NoticePlanner.compile(site), clock, wall_ms, recovered.last_pos + 1, fetch,
            random=ports.random, run_blocking=ports.run_blocking,
        )  # fmt: skip
        self.loop.use(numbers, {edge.id: edge_hash(export_edge(site, edge.id)) for edge in site.edges})
        self.loop.started(down.ms, recovered, believed=down.believed, restored=restored)
        self._recovered = recovered
        self._in_trouble = False
        self._stall = StallNote(folder / STALL_NAME)
        self._courier = Courier(
            site.receivers, secrets, words=words, ledger_id=self._ledger.ledger_id, base_dir=base_dir,
            heartbeat_fields=self._heartbeat_fields, wall_ms=wall_ms, random=ports.random.random,
            post_of=ports.post_of, on_result=self._take_results,
        )  # fmt: skip
        self._source = MqttSource(
            self.loop, connector, site.site, site.host_id, wall_ms, self._ledger.ledger_id
        )
        self.acts = ActsSocket(folder / ACTS_NAME, self.loop, wall_ms, self._stored_alarm, ports.run_blocking)
        self._event_loop: asyncio.AbstractEventLoop | None = None

    @property
    def recovered(self) -> Recovered:
        """What the start found."""
        return self._recovered

    @property
    def connected(self) -> bool:
        """Core has its link to the broker."""
        return self._source.connected

    def _name_ledger(self, *, restored: bool) -> None:
        if restored and self._ledger.ledger_id:
            old = self._ledger.renew_id(self._ports.new_id())
            log.warning("ledger %s restored: it goes on as %s", old, self._ledger.ledger_id)
        elif not self._ledger.ledger_id:
            self._ledger.set_id(self._ports.new_id())

    # -- running --

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or a task fails, which ends the rest and raises."""
        self._event_loop = asyncio.get_running_loop()
        ballast = Ballast(self._folder / "ballast", self._ports.ballast_bytes)
        writer = self._ports.writer(self._ledger, self._committed, self._trouble, ballast)
        self.loop.writer = writer
        self.loop.on_rows = lambda rows: self._offered(self._courier.offer(rows))
        self.loop.on_unjournaled = lambda notices: self._offered(self._courier.offer_unjournaled(notices))
        self._courier.offer(self._ledger.reader.due_outbox())
        watchdog = Watchdog(
            lambda: self.loop.counters.cycles, self._heartbeat, self._folder / HEARTBEAT_NAME, self._stalled,
            on_turn=self._stall.drop, gone=self._ledger.gone,
        )  # fmt: skip
        writer.start()
        if self._ports.beside:
            await self.acts.start()
            watchdog.start()
        inner, courier_stop = asyncio.Event(), asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                source = tasks.create_task(self._source.run(), name="mqtt")
                cycle = tasks.create_task(self.loop.run(inner), name="core-loop")
                courier = tasks.create_task(self._courier.run(courier_stop), name="courier")
                periodic = [
                    tasks.create_task(self._snapshots(), name="snapshots"),
                    tasks.create_task(self._retention(), name="retention"),
                    tasks.create_task(self._watch_writer(writer), name="writer-watch"),
                    tasks.create_task(self._tell_stall(), name="stall"),
                ]
                await stop.wait()
                await self.acts.close()
                source.cancel()  # 1. take on no more
                await self._drain()  # 2. commit what was taken
                for task in periodic:
                    task.cancel()
                courier_stop.set()  # 3. stop sending; the outbox keeps the rest
                await courier
                await self._drain()
                inner.set()
                self.loop.wake.set()
                await cycle
        finally:
            closed = await self._ports.run_blocking(writer.close, WRITER_CLOSE_S_MAX)
            await asyncio.sleep(0)  # let the last commit's callback run
            if self._ports.beside:
                watchdog.close()
            if closed:
                await self._ports.run_blocking(self._last_snapshot)
                self.release()
            self._lock.close()

    def release(self) -> None:
        """Give up every file, as the end of the process would; nothing may run any more."""
        self._late_reader.close()
        self._reader.close()
        self._space_reader.close()
        self._ledger.close()
        self._lock.close()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                while not self.loop.idle:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.error("drain hit %g s; what was not committed comes again from the edges", DRAIN_S_MAX)

    # -- writer thread --

    def _committed(self, batches: list[Batch], settled: Committed, took_s: float) -> None:
        """Called in the writer's thread, as `_trouble` is."""
        assert self._event_loop is not None
        self._event_loop.call_soon_threadsafe(self.loop.committed, batches, settled, took_s)
        if self._in_trouble:
            self._in_trouble = False
            self._event_loop.call_soon_threadsafe(self.loop.fact, "CORE.LEDGER.WRITE", False)

    def _trouble(self, reason: str) -> None:
        log.error("ledger: %s", reason)
        self._in_trouble = True
        assert self._event_loop is not None
        facts = {"reason": reason[:200]}
        self._event_loop.call_soon_threadsafe(self.loop.fact, "CORE.LEDGER.WRITE", True, facts)

    async def _watch_writer(self, writer: LedgerWriter) -> None:
        while True:
            await asyncio.sleep(1.0)
            if not writer.alive:
                raise RuntimeError("the ledger writer died") from writer.failure

    def _stalled(self, seconds: float) -> None:
        """Called in the watchdog's thread: the loop cannot report its own stall until it turns again."""
        assert self._event_loop is not None
        self._stall.leave(seconds, self._wall_ms())
        facts = {"seconds": round(seconds, 1)}
        self._event_loop.call_soon_threadsafe(self.loop.fact, "CORE.EVALUATOR.STALLED", None, facts)

    async def _tell_stall(self) -> None:
        """Raise the alarm of a stall that ended the core before this one; what it left goes once that is committed."""
        facts = self._stall.found()
        if facts is None:
            return
        log.error("an earlier core was ended because its loop stood still: %s", facts)
        self.loop.fact("CORE.EVALUATOR.STALLED", None, {**facts, "restarted": True})
        turn = self.loop.counters.cycles + 1
        while self.loop.counters.cycles <= turn:  # it has a position in the log then
            await asyncio.sleep(0.05)
        pos = self.loop.last_pos
        while self.loop.counters.committed_pos < pos:
            await asyncio.sleep(0.05)
        self._stall.drop()

    # -- delivery --

    def _take_results(self) -> None:
        for condition in self._courier.take_conditions():
            self.loop.fact(condition.key, condition.standing, dict(condition.facts))
        attempts = self._courier.take_results()
        if attempts:
            self.loop.attempts(attempts)

    def _offered(self, refused: list[Any]) -> None:
        if refused:
            log.warning("%d notices wait in the ledger: their lane is full", len(refused))

    def _heartbeat_fields(self, _receiver: str) -> dict[str, object]:
        counters = self.loop.counters
        return {
            "cycles": counters.cycles, "engine_ms": counters.engine_ms,
            "samples_committed": counters.samples_committed, "alarms": counters.alarms,
            "nodes": [{"node": line["node"], "online": line["online"]} for line in counters.nodes],
            "unjournaled": counters.unjournaled,
        }  # fmt: skip

    def _stored_alarm(self, alarm_id: str) -> AlarmState | None:
        return self._reader.alarm(alarm_id)

    # -- periodic --

    async def _snapshots(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            state = self.loop.settled_state()
            if state is None:
                continue
            pos, sections = state
            pending = self.loop.machine.pending()
            while self.loop.counters.committed_pos < pos:  # a snapshot must never be ahead of its ledger
                await asyncio.sleep(0.05)
            try:
                await self._ports.run_blocking(self._ports.write_snapshot, self._folder, Snapshot(pos, sections))
            except OSError as error:
                log.error("snapshot: %s; replay after a restart takes longer", error)
                self.loop.fact("CORE.SNAPSHOT.WRITE", True, {"reason": str(error)[:200]})
            else:
                self.loop.fact("CORE.SNAPSHOT.WRITE", False)
                self._pending_at[pos] = pending
                self._pending_at = dict(sorted(self._pending_at.items())[-SNAPSHOTS_KEPT:])

    def _last_snapshot(self) -> None:
        state = self.loop.settled_state()
        if state is not None and self.loop.idle and self.loop.counters.committed_pos == state[0]:
            self._ports.write_snapshot(self._folder, Snapshot(*state))

    async def _retention(self) -> None:
        while True:
            await asyncio.sleep(RETENTION_S)
            standing = tuple(self.loop.machine.engine.book.system_alarm)
            look = await self._ports.run_blocking(self._look_at_space, dict(self._pending_at), standing)
            self.loop.removable = look.removable
            self.loop.backlog_refused, self.loop.live_refused = look.room.full, look.room.over_full
            facts = {"used_bytes": look.used_bytes, "wal_bytes": look.wal_bytes, "cap_bytes": look.cap_bytes}
            self.loop.fact("CORE.LEDGER.SPACE", look.room.half_full, facts)
            for told in look.sealed.told if look.sealed is not None else ():
                self.loop.fact(told.key, told.standing, dict(told.facts))
            for row in self._courier.shortfalls():
                log.warning("lane %s of %s has room again", row[1], row[0])
                self._courier.offer(await self._ports.run_blocking(self._space_reader.due_outbox))
                break

    def _look_at_space(self, pending_at: Mapping[int, Pending], standing: Sequence[str]) -> Look:
        """Blocks on the disk: runs in a thread."""
        return self._keeper.look(self._ports.disk_bytes(self._folder), self._wall_ms(), pending_at, standing)

    def _heartbeat(self) -> dict[str, Any]:
        counters = self.loop.counters
        took = sorted(counters.commit_ms)
        deliveries = {
            receiver: {"due": status.due, "accepted": status.accepted, "down": status.down, "detail": status.detail}
            for receiver, status in self._courier.status().items()
        }
        return {
            "pid": os.getpid(), "at_ms": self._wall_ms(), "site": self._site.site, "timezone": self._site.timezone,
            "ledger": self._ledger.ledger_id, "connected": self._source.connected,
            "cycles": counters.cycles, "engine_ms": counters.engine_ms,
            "samples_committed": counters.samples_committed, "frames_committed": counters.frames_committed,
            "duplicates_dropped": counters.duplicates_dropped, "refused": counters.refused,
            "acks_sent": counters.acks_sent, "messages_dropped": counters.messages_dropped,
            "committed_pos": counters.committed_pos, "nodes": counters.nodes, "alarms": counters.alarms,
            "commit_ms_p50": statistics.median(took) if took else None,
            "commit_ms_p99": took[int(0.99 * (len(took) - 1))] if took else None,
            "deliveries": deliveries, "unjournaled": counters.unjournaled, "overflow": counters.overflow,
        }  # fmt: skip


def _lock_folder(folder: Path) -> IO[str]:
    """Lock the folder for as long as the file stays open; the kernel lets go when the process dies."""
    lock = (folder / "core.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another core"
        lock.close()
        raise DataFolderBusyError(folder, owner) from None
    lock.truncate(0)
    lock.write(f"core with process id {os.getpid()}")
    lock.flush()
    return lock


async def run_core(
    site: SiteConfig,
    data_dir: Path,
    stop: asyncio.Event,
    *,
    connector: MqttConnector,
    secrets: Mapping[str, str],
    base_dir: Path,
    restored: bool = False,
) -> None:
    """Run core on `data_dir`/core until `stop` is set.

    Raises:
        CoreError: it cannot start; the message says why and what to do.
    """
    begun = unfinished(data_dir)
    if begun is not None:
        raise UnfinishedCareError(*begun)
    core = Core(
        site, data_dir / "core", connector, secrets, base_dir, restored=restored, historian=data_dir / FOLDER_NAME
    )
    try:
        await core.run(stop)
    except BaseExceptionGroup as group:
        # One reason to end that is told in a sentence; everything else is a bug and stays loud.
        another = group.subgroup(AnotherCoreError)
        if another is not None:
            raise AnotherCoreError(site.host_id) from None
        raise
