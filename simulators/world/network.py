"""The lines between the boxes and the broker: who may reach it, what gets lost, late, twice, or out of turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from simulators.world.faults import FaultKind
from simulators.world.process import Process
from wire import MemoryBroker, MemoryConnector, Message, MqttLink, Will

LATENCY_S_MAX: Final = 0.004
OVERTAKEN_S_MAX: Final = 2.0
TWICE_S_MAX: Final = 3.0
_STATE: Final = "spBv1.0/STATE/"


@dataclass(slots=True)
class Line:
    """What is wrong with the line of one box. `loss`, `twice` and `reorder` are shares, `delay_s` the longest delay."""

    loss: float = 0.0
    delay_s: float = 0.0
    twice: float = 0.0
    reorder: float = 0.0
    cut: bool = False


class Network:
    """Plays the faults of lines by the broker's hooks.

    STATE is published at QoS 1: it may come twice, but it is neither lost nor overtaken while a connection lasts.
    """

    def __init__(self, broker: MemoryBroker, random: Random, applied: Counter[FaultKind]) -> None:
        self.broker, self._random, self._applied = broker, random, applied
        self.lines: dict[str, Line] = {}
        self._part_of: dict[str, str] = {}
        self._connectors: dict[str, list[MemoryConnector]] = {}
        broker.inward, broker.outward, broker.strays = self._inward, self._outward, self._strays
        self._held: list[float] = []

    def line(self, part: str) -> Line:
        """Return the line of a box."""
        return self.lines.setdefault(part, Line())

    def connector(self, process: Process, heard: Callable[[Message], None] | None = None) -> Connector:
        """Return a way to the broker for one process; `heard` is told every message before the process has it."""
        inner = MemoryConnector(self.broker)
        inner.unreachable = self.line(process.part).cut
        connectors = self._connectors.setdefault(process.part, [])
        connectors.append(inner)
        return Connector(inner, process, self._part_of, heard)

    def gone(self, part: str, *, silent: bool) -> None:
        """The box's processes are dead: the broker sees its connection reset, or nothing at all."""
        for client in sorted(self.broker.clients):
            if self._part_of.get(client) == part:
                self.broker.hang(client) if silent else self.broker.kill(client)

    def cut(self, part: str, *, silent: bool) -> None:
        """Cut a line."""
        self.line(part).cut = True
        for connector in self._connectors.get(part, ()):
            connector.unreachable = True
        self._applied[FaultKind.PARTITION] += 1
        self.gone(part, silent=silent)

    def mend(self, part: str) -> None:
        """Let a cut line work again; what was connected over it finds out by itself."""
        self.line(part).cut = False
        for connector in self._connectors.get(part, ()):
            connector.unreachable = False

    # -- hooks --

    def _inward(self, client: str, message: Message) -> float | None:
        line = self.lines.get(self._part_of.get(client, ""))
        return self._way(line, message)

    def _outward(self, client: str, message: Message) -> float | None:
        self._held = []
        wait = self._way(self.lines.get(self._part_of.get(client, "")), message)
        if wait is None or message.topic.startswith(_STATE):
            return wait
        for line in self._concerned(client, message):
            if line.reorder and self._random.random() < line.reorder:
                self._applied[FaultKind.REORDER] += 1
                self._held = [self._random.uniform(0.01, OVERTAKEN_S_MAX)]
                return None
        return wait

    def _strays(self, client: str, message: Message) -> Sequence[float]:
        """Held back messages come after others; and copies."""
        strays, self._held = self._held, []
        for line in self._concerned(client, message):
            if line.twice and self._random.random() < line.twice:
                self._applied[FaultKind.DUPLICATE] += 1
                strays.append(self._random.uniform(0.0, TWICE_S_MAX))
        return strays

    def _way(self, line: Line | None, message: Message) -> float | None:
        wait = self._random.uniform(0.0005, LATENCY_S_MAX)
        if line is None:
            return wait
        if line.loss and not message.topic.startswith(_STATE) and self._random.random() < line.loss:
            self._applied[FaultKind.LOSS] += 1
            return None
        if line.delay_s:
            self._applied[FaultKind.DELAY] += 1
            wait += self._random.uniform(0.0, line.delay_s)
        return wait

    def _concerned(self, client: str, message: Message) -> list[Line]:
        """Lines a message has come over: the one it leaves by, and of what a node sent, that node's too."""
        own = self._part_of.get(client, "")
        levels = message.topic.split("/")
        sender = levels[3] if len(levels) > 3 else ""
        return [self.lines[part] for part in dict.fromkeys((own, sender)) if part in self.lines]


class Connector:
    """`MqttConnector` of one process; a dead process neither connects nor publishes nor hears."""

    def __init__(
        self, inner: MemoryConnector, process: Process, part_of: dict[str, str], heard: Callable[[Message], None] | None
    ) -> None:
        self._inner, self._process, self._part_of, self._heard = inner, process, part_of, heard

    @asynccontextmanager
    async def connect(self, client_id: str, will: Will | None = None) -> AsyncIterator[MqttLink]:
        """See `MqttConnector.connect`."""
        self._process.check()
        self._part_of[client_id] = self._process.part
        async with self._inner.connect(client_id, will) as link:
            yield _Link(link, self._process, self._heard)


class _Link:
    """`MqttLink` of one process."""

    def __init__(self, inner: MqttLink, process: Process, heard: Callable[[Message], None] | None) -> None:
        self._inner, self._process, self._heard = inner, process, heard

    @property
    def dropped(self) -> int:
        return self._inner.dropped

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        self._process.check()
        await self._inner.publish(topic, payload, qos, retain)

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        self._process.check()
        await self._inner.subscribe(filters)

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._inner.messages():
            self._process.check()
            if self._heard is not None:
                self._heard(message)
            yield message
