"""Runs one edge: field side, numbering, spool, session and uplink, joined here and nowhere else."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, Protocol

from config import BrokerConfig, EdgeFile, broker_address, edge_hash
from edge.clock import EdgeClock
from edge.disk import Disk, OsDisk
from edge.field import FieldSide
from edge.files import DataFolderError, data_folder_lock, read_number, replace_json
from edge.keeper import DiskThread, SpoolKeeper
from edge.messages import Identity
from edge.node import EdgeNode
from edge.numbering import Numbering
from edge.points import Point, PointTable
from edge.poll import Sink
from edge.recovery import open_spool
from edge.session import EdgeSession
from edge.spool import Spool
from edge.status import EdgeStatus
from edge.uplink import Uplink
from wire import UNFINISHED_ROWS_MAX, AioMqttConnector, MqttConnector, Native, new_stream_id, notify_systemd

TICK_S: Final = 0.25
STATUS_EVERY_S: Final = 1.0
CLOCK_SAVED_EVERY_S: Final = 30.0
WATCHDOG_EVERY_S: Final = 2.0
ACKS_AWAITED_S_MAX: Final = 3.0
GOODBYE_S_MAX: Final = 1.5
SPOOL_FOLDER: Final = "spool"
STATUS_FILE: Final = "status.json"
SESSION_FILE: Final = "session.json"
CLOCK_FILE: Final = "clock.json"

log = logging.getLogger(__name__)


class Field(Protocol):
    """What the edge needs of its field side."""

    async def run(self, sink: Sink) -> None:
        """Give scans to `sink` until cancelled."""


class SaveJson(Protocol):
    """Puts a JSON object in the place of a file, see `files.replace_json`."""

    def __call__(self, path: Path, members: Mapping[str, Any], *, durable: bool) -> None:
        """Save it."""


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside of an edge that a test may replace.

    Attributes:
        wall_ms: the box's clock, UTC epoch milliseconds.
        monotonic: seconds.
        random: for stream ids; of the system, so that no two boxes draw alike.
        jitter: for waits and phases.
        disk_thread: makes what runs blocking work.
        open_disk: opens the spool's folder.
        save_json: writes the small files beside it.
        field_of: makes the field side, given the edge's own clock; None for the instruments of the edge's file.
    """

    wall_ms: Callable[[], int] = _system_ms
    monotonic: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=SystemRandom)
    jitter: Random = field(default_factory=SystemRandom)
    disk_thread: Callable[[], DiskThread] = DiskThread
    open_disk: Callable[[Path], Disk] = OsDisk
    save_json: SaveJson = replace_json
    field_of: Callable[[Callable[[], int]], Field] | None = None


async def run_edge(
    edge_file: EdgeFile,
    data_dir: Path,
    stop: asyncio.Event,
    connector: MqttConnector | None = None,
    *,
    ports: Ports | None = None,
    field_side: Field | None = None,
) -> None:
    """Run one edge until `stop` is set, then end in order: no more polls, sync, await receipts, goodbye.

    Args:
        edge_file: the edge's own configuration.
        data_dir: the edge's folder; made when missing. Holds spool/, status.json, session.json, clock.json.
        stop: set by whoever wants the edge to end; it has ended within five seconds.
        connector: to the broker; by default as `edge_file.broker` says.
        ports, field_side: for tests.

    Raises:
        DataFolderInUseError: another edge process holds `data_dir`.
        DataFolderError: `data_dir` is no folder, cannot be written to, or its spool cannot be read.
        SpoolFormatError: another version wrote the spool.
        PlanError, SecretError: the configuration cannot work.
    """
    ports = ports or Ports()
    with data_folder_lock(data_dir):
        link = connector or connector_for(edge_file.broker, data_dir)
        disk = ports.disk_thread()
        try:
            clock = EdgeClock(ports.wall_ms, ports.monotonic, read_number(data_dir / CLOCK_FILE, "utc_ms", 0))
            edge = await disk.run(functools.partial(_build, edge_file, data_dir, clock, ports))
            if field_side is None and ports.field_of is not None:
                field_side = ports.field_of(clock.now_ms)
            side = field_side or FieldSide(
                edge_file, now_ms=clock.now_ms, monotonic=ports.monotonic, random=ports.jitter
            )
            await _Run(edge, side, link, data_dir, disk, ports).until(stop)
        finally:
            disk.close()


def connector_for(broker: BrokerConfig, base_dir: Path) -> MqttConnector:
    """Return the connector to a configured broker.

    Args:
        broker: as configured.
        base_dir: where relative paths of its files begin.

    Raises:
        SecretError, BrokerTlsError: its password or a certificate is not where the configuration says.
    """
    return AioMqttConnector(broker_address(broker, base_dir))


@dataclass(frozen=True, slots=True)
class _Edge:
    """The parts of one edge behind its field side."""

    node_id: str
    client_id: str
    clock: EdgeClock
    spool: Spool
    session: EdgeSession


def _build(edge_file: EdgeFile, data_dir: Path, clock: EdgeClock, ports: Ports) -> _Edge:
    """Open what the last run left and build the parts on it. Blocks on the disk."""
    edge = edge_file.edge
    table = point_table(edge_file)
    try:
        spool = open_spool(ports.open_disk(data_dir / SPOOL_FOLDER), edge.id, table, edge.spool.max_bytes)
    except OSError as error:
        raise DataFolderError(data_dir / SPOOL_FOLDER, error) from error
    for cut in spool.cuts:
        log.warning(
            "spool: %s is no record from byte %d on (%s); %d bytes are cut off",
            cut.name,
            cut.offset,
            cut.reason,
            cut.bytes_cut,
        )
    numbering = Numbering(
        table.device_of, len(table.devices), functools.partial(new_stream_id, ports.random), *spool.newest()
    )
    identity = Identity(
        edge_file.site,
        edge.id,
        edge_file.host_id,
        edge_hash(edge_file),
        _version(),
        receipt=edge.receipt == "required",
        blocks=edge.encoding == "block",
    )
    bdseq = read_number(data_dir / SESSION_FILE, "bdseq", -1)
    session = EdgeSession(identity, table, numbering, bdseq, spool.spans)
    return _Edge(edge.id, f"{edge_file.site}-{edge.id}", clock, spool, session)


class _Run:
    """One run of an edge: its tasks, and their end in order."""

    def __init__(
        self, edge: _Edge, side: Field, connector: MqttConnector, data_dir: Path, disk: DiskThread, ports: Ports
    ) -> None:
        self._edge, self._side, self._data_dir, self._disk, self._ports = edge, side, data_dir, disk, ports
        self._unsaved: set[str] = set()
        self._keeper = SpoolKeeper(edge.spool, disk, ports.monotonic, self._spool_changed, self._synced)
        self._node = EdgeNode(edge.session, edge.spool, edge.clock, ports.monotonic, self._keeper.wake)
        self._uplink = Uplink(self._node, self._keeper, connector, edge.client_id, self._save_bdseq, ports.jitter)

    async def until(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or a task fails, which cancels the rest and raises."""
        async with asyncio.TaskGroup() as tasks:
            field_task = tasks.create_task(self._side.run(self._node.scan), name="edge-field")
            uplink = tasks.create_task(self._uplink.run(), name="edge-uplink")
            others = [
                tasks.create_task(self._keeper.run(), name="edge-spool"),
                tasks.create_task(self._tick(), name="edge-tick"),
                tasks.create_task(self._report(), name="edge-status"),
            ]
            await stop.wait()
            field_task.cancel()  # 1. take nothing more
            await asyncio.wait([field_task])
            await self._keeper.sync(finally_=True)  # 2. what was taken is on the disk
            await self._await_acks()
            self._node.stop()  # 3. say goodbye
            await self._goodbye()
            for task in (uplink, *others):
                task.cancel()
        await self._keeper.close()
        await self._save_clock()
        await self._write_status(stopped=True)

    # ---- ends ----------------------------------------------------------------------------------------------

    async def _await_acks(self) -> None:
        """Wait until the gateway has everything, while there is a session and at most three seconds."""
        until_s = self._ports.monotonic() + ACKS_AWAITED_S_MAX
        while self._node.live and self._edge.spool.spans() and self._ports.monotonic() < until_s:
            await asyncio.sleep(0.02)

    async def _goodbye(self) -> None:
        until_s = self._ports.monotonic() + GOODBYE_S_MAX
        while self._uplink.connected and self._ports.monotonic() < until_s:
            await asyncio.sleep(0.02)

    # ---- tasks ---------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        saved_s = self._ports.monotonic()
        notify_systemd("READY=1")
        fed_s = saved_s
        while True:
            self._node.tick()
            if self._ports.monotonic() - fed_s >= WATCHDOG_EVERY_S:  # a loop that hangs feeds nobody
                fed_s = self._ports.monotonic()
                notify_systemd("WATCHDOG=1")
            self._keeper.report()
            if self._ports.monotonic() - saved_s >= CLOCK_SAVED_EVERY_S:
                saved_s = self._ports.monotonic()
                await self._save_clock()
            await asyncio.sleep(TICK_S)

    async def _report(self) -> None:
        while True:
            await self._write_status(stopped=False)
            await asyncio.sleep(STATUS_EVERY_S)

    # ---- files ---------------------------------------------------------------------------------------------

    async def _save_bdseq(self, bdseq: int) -> None:
        await self._save(SESSION_FILE, {"bdseq": bdseq}, durable=True)

    async def _save_clock(self) -> None:
        await self._save(CLOCK_FILE, {"utc_ms": self._edge.clock.now_ms()}, durable=True)

    async def _write_status(self, *, stopped: bool) -> None:
        await self._save(STATUS_FILE, self._status(stopped).to_json(), durable=False)

    async def _save(self, name: str, members: Mapping[str, Any], *, durable: bool) -> None:
        try:
            await self._disk.run(lambda: self._ports.save_json(self._data_dir / name, members, durable=durable))
        except OSError as error:
            if name not in self._unsaved:
                log.error("%s: cannot be written (%s); going on without", self._data_dir / name, error)
            self._unsaved.add(name)
        else:
            self._unsaved.discard(name)

    # ---- news ----------------------------------------------------------------------------------------------

    def _spool_changed(self, fault: bool) -> None:
        self._node.spool_state(fault)

    def _synced(self) -> None:
        self._node.room.set()
        self._node.news.set()

    def _status(self, stopped: bool) -> EdgeStatus:
        edge, node = self._edge, self._node
        counts = getattr(self._side, "counts", None)
        return EdgeStatus(
            edge=edge.node_id,
            pid=os.getpid(),
            at_ms=edge.clock.now_ms(),
            connected=self._uplink.connected,
            live=node.live,
            stream=edge.session.stream,
            counters=edge.spool.counters(),
            unfinished=edge.spool.spans()[:UNFINISHED_ROWS_MAX],
            polls=counts.polls if counts is not None else 0,
            polls_failed=counts.polls_failed if counts is not None else 0,
            spool_bytes=edge.spool.size_bytes,
            spool_fault=edge.spool.fault,
            clock_synced=edge.clock.synced,
            clock_offset_ms=edge.clock.offset_ms,
            refused=node.refused,
            transport_blocked_since_ms=edge.session.blocked_since_ms,
            sessions_cut_short=self._uplink.cut_short,
            stopped=stopped,
        )


def point_table(edge_file: EdgeFile) -> PointTable:
    """Return the points of an edge's file as columns, in file order."""
    return PointTable.of(
        (
            device.id,
            [Point(point.tag, Native[point.type.upper()], point.scale, point.offset) for point in device.points],
        )
        for device in edge_file.edge.devices
    )


def _version() -> str:
    try:
        return version("hazardgate")
    except PackageNotFoundError:
        return "unknown"
