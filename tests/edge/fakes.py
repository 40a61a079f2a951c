"""Stand-ins for what is around an edge: a gateway that acknowledges, instruments that give what they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import async_solipsism
import numpy as np

from config import BrokerConfig, BusConfig, DeviceConfig, EdgeConfig, EdgeFile, EdgeTag, PointConfig, SpoolConfig
from config.tags import RangeConfig
from edge.app import Ports
from edge.keeper import InlineDisk
from edge.numbering import Numbering
from edge.points import Point, PointTable
from edge.poll import Sink
from edge.scan import Scan
from wire import (
    SPOOL_BLOCK,
    LinkLostError,
    MemoryBroker,
    MemoryConnector,
    Message,
    MessageKind,
    Native,
    Payload,
    Quality,
    Received,
    SpoolBlock,
    Topic,
    Will,
    build_topic,
    decode_block,
    decode_data,
    decode_payload,
    encode_acknowledge,
    encode_state,
    native_value,
    parse_topic,
    quality_of,
    state_topic,
)

START_MS = 1_800_000_000_000
GROUP, NODE, HOST = "PARK1", "E1", "HAZARDGATE"


def small_table(points_per_device: Iterable[int] = (2, 1)) -> PointTable:
    """Devices D1, D2 …, every point a U16 in tenths."""
    return PointTable.of(
        (f"D{device}", [Point(f"T{device}.P{point}", Native.U16, 0.1) for point in range(1, points + 1)])
        for device, points in enumerate(points_per_device, 1)
    )


def small_edge_file(points_per_device: Iterable[int] = (2, 1), **edge: Any) -> EdgeFile:
    """The same points as an edge's file."""
    devices = tuple(
        DeviceConfig(
            id=f"D{device}", bus="B1", unit=device,
            points=tuple(
                PointConfig(tag=f"T{device}.P{point}", table="holding", address=point, type="u16", scale=0.1)
                for point in range(1, points + 1)
            ),
        )
        for device, points in enumerate(points_per_device, 1)
    )
    tags = tuple(
        EdgeTag(id=point.tag, unit="kPa", range=RangeConfig(low=0, high=6553.5), has_limit=True, longest_silence_s=10)
        for device in devices for point in device.points
    )
    bus = BusConfig(id="B1", host="127.0.0.1")
    edge.setdefault("spool", SpoolConfig())
    return EdgeFile(site=GROUP, host_id=HOST, broker=BrokerConfig(),
                    edge=EdgeConfig(id=NODE, buses=(bus,), devices=devices, **edge), tags=tags)


def small_numbering(table: PointTable, seed: int = 1, predecessor: tuple[int, int] = (0, 0)) -> Numbering:
    """A book of streams whose ids are small numbers: 101, 102 …"""
    ids = iter(range(100 * seed + 1, 100 * seed + 100))
    return Numbering(table.device_of, len(table.devices), lambda: next(ids), *predecessor)


def scan_of(table: PointTable, device: int, bits: Iterable[int], source_ms: int, code: int = 192) -> Scan:
    """A scan of a device's first points; all points are U16 in tenths."""
    owned = np.flatnonzero(table.device_of == device).astype(np.int32)
    pattern = np.array(list(bits), np.uint64)[: len(owned)]
    codes = np.full(len(pattern), code, np.uint8)
    value = native_value(Native.U16, pattern, 0.1, 0.0)
    value[quality_of(codes) == Quality.BAD] = np.nan
    return Scan(device, owned[: len(pattern)], pattern, value, codes, np.full(len(pattern), source_ms, np.int64))


def virtual(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario())


class World:
    """Clocks of a virtual world: the wall clock follows the loop's, and can be put wrong by `wrong_ms`."""

    def __init__(self, seed: int = 7) -> None:
        self.wrong_ms = 0
        self.ports = Ports(self.wall_ms, self.monotonic, random.Random(seed), random.Random(seed + 1), InlineDisk)

    def wall_ms(self) -> int:
        return START_MS + round(self.monotonic() * 1000) + self.wrong_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Instruments:
    """A field side: `give` makes a device answer."""

    def __init__(self, table: PointTable, world: World) -> None:
        self.table, self._world = table, world
        self._sink: Sink | None = None
        self.given: list[Scan] = []

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        try:
            await asyncio.Event().wait()
        finally:
            self._sink = None

    def give(self, device: int, *bits: int) -> None:
        scan = scan_of(self.table, device, bits, self._world.wall_ms())
        assert self._sink is not None
        self.given.append(scan)
        self._sink(scan)


class FakeGateway:
    """Receives, keeps books on what it got, and acknowledges: live once a second, blocks at once."""

    def __init__(self, broker: MemoryBroker, world: World, *, host: str = HOST, client_id: str = "gateway") -> None:
        self._connector, self._world, self._host, self._client_id = MemoryConnector(broker), world, host, client_id
        self.acking = True
        self.got: list[tuple[str, Payload]] = []
        self.books: dict[int, Received] = {}
        self.samples: dict[tuple[int, int, str], tuple[float, int, int]] = {}
        self.blocks: list[SpoolBlock] = []
        self.duplicates = 0
        self._link: Any = None
        self._due: set[int] = set()
        self._names: dict[int, str] = {}

    async def run(self) -> None:
        """Be the host until cancelled; a cancelled one leaves its will, as a crash would."""
        now = self._world.wall_ms()
        will = Will(state_topic(self._host), encode_state(False, now), 1, True)
        async with self._connector.connect(self._client_id, will) as link:
            self._link = link
            await link.subscribe([(f"spBv1.0/{GROUP}/#", 0)])
            await self.state(True, now)
            acker = asyncio.create_task(self._ack_each_second())
            try:
                async for message in link.messages():
                    await self.take(message)
            except LinkLostError:
                return
            finally:
                acker.cancel()

    async def state(self, online: bool, timestamp_ms: int) -> None:
        await self._link.publish(state_topic(self._host), encode_state(online, timestamp_ms), 1, True)

    async def command(self, payload: bytes) -> None:
        await self._link.publish(build_topic(Topic(MessageKind.NCMD, GROUP, NODE)), payload)

    def of_kind(self, kind: MessageKind) -> list[Payload]:
        return [payload for topic, payload in self.got if parse_topic(topic).kind is kind]

    async def take(self, message: Message) -> None:
        topic = parse_topic(message.topic)
        if topic.kind in (MessageKind.NCMD, MessageKind.DCMD):
            return
        payload = decode_payload(message.payload)
        self.got.append((message.topic, payload))
        if topic.kind in (MessageKind.DBIRTH, MessageKind.DDATA):
            for metric in payload.metrics:
                if metric.name is not None and metric.alias is not None:
                    self._names[metric.alias] = metric.name
            columns = decode_data(message.payload)
            rows = [(self._names[int(alias)], float(columns.value[at]), int(columns.code[at]),
                     int(columns.source_ms[at])) for at, alias in enumerate(columns.alias)]
            self._book(columns.stream, columns.sequence, columns.sequence, [(columns.sequence, *row) for row in rows])
            if columns.stream:
                self._due.add(columns.stream)
        for metric in payload.metrics:
            if metric.name == SPOOL_BLOCK and isinstance(metric.value, bytes):
                block = decode_block(metric.value)
                self.blocks.append(block)
                of_block = []
                for column in block.columns:
                    of_block += [(int(number), column.tag, float(value), int(code), int(at)) for number, value, code, at in
                             zip(column.sequence, column.value(), column.code, column.source_ms, strict=True)]
                self._book(block.stream, block.first, block.last, of_block)
                self._due.add(block.stream)
                if self.acking:
                    await self.acknowledge()

    def _book(self, stream: int, first: int, last: int, rows: list[Any]) -> None:
        if not stream:
            return
        fresh = self.books.setdefault(stream, Received()).add(first, last)
        self.duplicates += not fresh
        for number, tag, value, code, source_ms in rows:
            if any(lo <= number <= hi for lo, hi in fresh):
                self.samples[stream, number, tag] = (value, code, source_ms)

    async def acknowledge(self) -> None:
        positions = [(stream, self.books[stream].upto) for stream in sorted(self._due)]
        self._due.clear()
        if positions:
            await self.command(encode_acknowledge(self._world.wall_ms(), positions))

    async def _ack_each_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if self.acking:
                await self.acknowledge()


def folder(tmp_path: Path) -> Path:
    """The data folder of the edge under test."""
    return tmp_path / "edge"
