"""Instruments for the field side's tests: a Modbus TCP server written from the specification, told how to fail.

It shares no code with the client. It runs on a real loop or in virtual time (`async_solipsism`).
"""

from __future__ import annotations

import asyncio
import random
import struct
import warnings
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import async_solipsism

from config import EdgeFile
from edge.field import FieldSide
from edge.scan import Scan

HOST = "127.0.0.1"
PORT = 5020
EPOCH_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Ask:
    transaction: int
    unit: int
    function: int
    address: int
    count: int
    at: float = 0.0
    connection: int = 0


@dataclass(frozen=True)
class Wait:
    """In an answer: let so much time pass."""

    s: float


class Close:
    """In an answer: reset the connection."""


Step = bytes | Wait | type[Close]
Behaviour = Callable[[Ask], Iterable[Step]]


def frame(ask: Ask, body: bytes, *, transaction: int | None = None, unit: int | None = None,
          function: int | None = None) -> bytes:  # fmt: skip
    """A reply frame, right unless told otherwise; `body` follows the function code."""
    return struct.pack(
        ">HHHBB",
        ask.transaction if transaction is None else transaction,
        0,
        len(body) + 2,
        ask.unit if unit is None else unit,
        ask.function if function is None else function,
    ) + body


def refusal(ask: Ask, code: int) -> bytes:
    return frame(ask, bytes([code]), function=ask.function | 0x80)


def registers(ask: Ask, words: Iterable[int]) -> bytes:
    content = b"".join(struct.pack(">H", word & 0xFFFF) for word in words)
    return frame(ask, bytes([len(content)]) + content)


@dataclass
class Instrument:
    """Serves `words` (address to content, by default the address itself); `behave` may answer otherwise."""

    behave: Behaviour | None = None
    words: dict[int, int] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    asks: list[Ask] = field(default_factory=list)
    connections: int = 0
    transports: list[asyncio.Transport] = field(default_factory=list)

    def honest(self, ask: Ask) -> bytes:
        span = range(ask.address, ask.address + ask.count)
        if self.missing.intersection(span):
            return refusal(ask, 2)
        if ask.function <= 2:
            content = bytearray((ask.count + 7) // 8)
            for i, address in enumerate(span):
                content[i // 8] |= (self.words.get(address, 0) & 1) << (i % 8)
            return frame(ask, bytes([len(content)]) + content)
        return registers(ask, (self.words.get(address, address) for address in span))

    def answer(self, ask: Ask) -> Iterable[Step]:
        return [self.honest(ask)] if self.behave is None else self.behave(ask)

    async def listen(self, port: int = PORT) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Served(self, loop), HOST, port)

    def hang_up(self) -> None:
        for transport in self.transports:
            transport.abort()
        self.transports.clear()


class _Served(asyncio.Protocol):
    def __init__(self, instrument: Instrument, loop: asyncio.AbstractEventLoop) -> None:
        self._instrument, self._loop, self._pending = instrument, loop, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport: Any = transport
        self._instrument.connections += 1
        self._connection = self._instrument.connections
        self._instrument.transports.append(self._transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 12:
            transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", self._pending[:12])
            self._pending = self._pending[12:]
            ask = Ask(transaction, unit, function, address, count, self._loop.time(), self._connection)
            self._instrument.asks.append(ask)
            self._play(iter(list(self._instrument.answer(ask))))

    def _play(self, steps: Any) -> None:
        for step in steps:
            if isinstance(step, Wait):
                self._loop.call_later(step.s, self._play, steps)
                return
            if step is Close:
                self._transport.abort()
                return
            if not self._transport.is_closing():
                self._transport.write(step)


def one_device(
    count: int = 4, *, ports: Iterable[int] = (PORT,), units: Iterable[int] = (1,), **device: Any
) -> EdgeFile:
    """Every bus one port, on each bus one device per unit, each with `count` u16 points at 0, 1, 2 …"""
    points = device.pop("points", None) or [
        {"table": "holding", "address": address, "type": "u16"} for address in range(count)
    ]
    tag_members = device.pop("tag", {})
    buses, devices, tags = [], [], []
    for port in ports:
        buses.append({"id": f"BUS{port}", "host": HOST, "port": port})
        for unit in units:
            name = f"D{port}U{unit}"
            named = [{**point, "tag": f"{name}.P{i}"} for i, point in enumerate(points)]
            devices.append({"id": name, "bus": f"BUS{port}", "unit": unit, "points": named, **device})
            tags += [
                {
                    "id": point["tag"],
                    "unit": "bar",
                    "range": {"low": -1e12, "high": 1e12},
                    "has_limit": True,
                    "longest_silence_s": 10.0,
                    **tag_members,
                }
                for point in named
            ]
    return EdgeFile.model_validate(
        {
            "site": "DEMO",
            "host_id": "HAZARDGATE",
            "broker": {"host": HOST},
            "edge": {"id": "E1", "buses": buses, "devices": devices},
            "tags": tags,
        }
    )


@dataclass
class Watch:
    """A sink that keeps everything, and a field side under it, in the running loop's time."""

    edge_file: EdgeFile
    scans: list[Scan] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    """When each scan came, in seconds since the start."""

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._start = loop.time()
        self.field = FieldSide(
            self.edge_file,
            now_ms=self.now_ms,
            monotonic=loop.time,
            random=random.Random(7),
            spread_phases=False,
        )

    def now_ms(self) -> int:
        return EPOCH_MS + round((asyncio.get_running_loop().time() - self._start) * 1000)

    async def for_s(self, duration_s: float) -> None:
        """Run the field side for so long from now. Whatever it raises is raised here."""
        task = asyncio.create_task(self.field.run(self._take), name="field")
        done, _ = await asyncio.wait({task}, timeout=duration_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=not done)

    def _take(self, scan: Scan) -> None:
        self.scans.append(scan)
        self.arrived_s.append((self.now_ms() - EPOCH_MS) / 1000)

    def arrivals(self, point: int) -> list[float]:
        """When something was reported of one point."""
        return [at for at, scan in zip(self.arrived_s, self.scans, strict=True) if point in scan.point]

    def of(self, point: int) -> list[tuple[float, float, int]]:
        """What was reported of one point: seconds since the start, value, code."""
        rows = []
        for scan in self.scans:
            for i in (scan.point == point).nonzero()[0]:
                at_s = (int(scan.source_ms[i]) - EPOCH_MS) / 1000
                rows.append((at_s, float(scan.value[i]), int(scan.code[i])))
        return rows

    def codes(self, point: int) -> list[int]:
        return [code for _, _, code in self.of(point)]


def in_virtual_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end on a loop whose clock jumps to the next event."""
    with warnings.catch_warnings(), asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        warnings.simplefilter("ignore", async_solipsism.SolipsismWarning)  # its sockets have no keepalive
        runner.run(scenario())
