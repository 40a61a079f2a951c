"""Core beside a historian, in virtual time: what is sealed leaves the ledger, what is not stays whatever that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import async_solipsism
import pytest

from gateway.core import LEDGER_NAME, Core, LedgerReader
from gateway.core.entries import PASSING_KINDS
from gateway.core.ledger import Ledger
from gateway.core.ports import Ports
from gateway.core.task_writer import TaskWriter
from gateway.core.writer import Ballast, OnCommitted, OnTrouble
from tests.gateway.field import LEVEL, T0_MS, Edge, Sent, site
from tests.gateway.test_sealed import sealed_range
from wire import MemoryBroker, MemoryConnector, decode_command

Story = Callable[["Plant"], Coroutine[Any, Any, None]]
HUGE = 1 << 40


class Plant:
    """A core in virtual time, an edge that forgets what is acknowledged, a folder that the test seals into."""

    def __init__(self, data: Path) -> None:
        self.folder, self.historian = data / "core", data / "historian"
        self.edge, self.broker = Edge(), MemoryBroker()
        self.disk_bytes = HUGE
        loop = asyncio.get_running_loop()

        async def inline(work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.001)
            return work(*args, **kwargs)

        def writer(ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, ballast: Ballast | None) -> TaskWriter:
            return TaskWriter(ledger, on_committed, on_trouble, ballast, monotonic=loop.time, commit_s=lambda: 0.002)

        ports = Ports(
            wall_ms=lambda: T0_MS + int(loop.time() * 1000), monotonic=loop.time, run_blocking=inline, writer=writer,
            new_id=lambda: "ledger-one", disk_bytes=lambda _: self.disk_bytes, ballast_bytes=4096, beside=False,
        )  # fmt: skip
        self.core = Core(
            site(receivers=0), self.folder, MemoryConnector(self.broker), {}, self.folder, ports=ports, historian=self.historian
        )
        self.reader = LedgerReader.open(self.folder / LEDGER_NAME)
        self.prev, self.sealed = "", 0

    async def run(self, story: Story) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(self.core.run(stop))
        async with MemoryConnector(self.broker).connect("E1", None) as link:
            await link.subscribe([("spBv1.0/PARK1/NCMD/E1", 1)])

            async def commands() -> None:
                async for message in link.messages():
                    for stream, upto in decode_command(message.payload).acknowledged:
                        self.edge.acked(stream, upto)

            self.link = link
            reading = asyncio.create_task(commands())
            await asyncio.sleep(2)
            await story(self)
            reading.cancel()
        stop.set()
        await task
        self.reader.close()

    async def send(self, sent: list[Sent]) -> None:
        for topic, payload in sent:
            await self.link.publish(topic, payload)

    async def scans(self, count: int) -> None:
        for at in range(count):
            await self.send(self.edge.scan({LEVEL: 1.0 + at % 3}))
            await asyncio.sleep(0.2)
        await asyncio.sleep(3)

    def seal(self) -> int:
        """Seal all that the ledger holds, as serve would; return up to where."""
        first, self.sealed = self.sealed + 1, self.reader.last_pos()
        self.prev = sealed_range(self.historian, first, self.sealed, self.prev).hash
        return self.sealed

    def frames(self) -> list[int]:
        kinds = ", ".join(f"'{kind}'" for kind in PASSING_KINDS)
        return [pos for (pos,) in self.reader.rows(f"SELECT pos FROM log WHERE kind IN ({kinds}) ORDER BY pos")]

    def settled(self) -> bool:
        return self.edge.settled

    def stands(self, key: str) -> bool:
        return key in self.core.loop.machine.engine.book.system_alarm


def play(data: Path, story: Story) -> None:
    data.mkdir()
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(_play(data, story))


async def _play(data: Path, story: Story) -> None:
    await Plant(data).run(story)


def test_what_is_sealed_leaves_the_ledger_within_minutes_and_what_is_not_stays(tmp_path: Path) -> None:
    async def story(plant: Plant) -> None:
        await plant.send(plant.edge.born())
        await plant.scans(20)
        held = plant.frames()
        assert len(held) == 22
        await asyncio.sleep(300)
        assert plant.frames() == held, "there are snapshots, and nothing is sealed"
        sealed = plant.seal()
        await plant.scans(5)
        await asyncio.sleep(240)
        assert all(pos > sealed for pos in plant.frames()), "sealed, and older than both snapshots"
        assert len(plant.frames()) == 5
        assert not plant.stands("CORE.HISTORIAN.BEHIND")
        await asyncio.sleep(1_900)
        assert len(plant.frames()) == 5
        assert plant.stands("CORE.HISTORIAN.BEHIND")
        plant.seal()
        await asyncio.sleep(240)
        assert plant.frames() == []
        assert not plant.stands("CORE.HISTORIAN.BEHIND")

    play(tmp_path / "data", story)


@pytest.mark.fault("F58")
def test_at_its_cap_a_ledger_of_unsealed_frames_stops_acknowledging_and_gives_up_nothing(tmp_path: Path) -> None:
    async def story(plant: Plant) -> None:
        await plant.send(plant.edge.born())
        await plant.scans(20)
        await asyncio.sleep(200)
        held = plant.frames()
        assert plant.settled()
        plant.disk_bytes = 2 * plant.reader.size_bytes()  # its quarter is half of what is used already
        await asyncio.sleep(120)
        assert plant.stands("CORE.LEDGER.SPACE")
        assert (plant.core.loop.backlog_refused, plant.core.loop.live_refused) == (True, True)
        await plant.send(plant.edge.scan({LEVEL: 25.0}))
        await asyncio.sleep(120)
        assert plant.frames()[: len(held)] == held, "nothing that is not sealed is removed"
        assert ("T1.LEVEL", "HH") in {(alarm.tag, alarm.limit) for alarm in plant.core.loop.machine.engine.alarms()}
        assert not plant.settled(), "the edge keeps what the ledger has no room for"
        plant.seal()
        plant.disk_bytes = HUGE
        await asyncio.sleep(300)
        assert not set(held) & set(plant.frames()), "sealed, it goes"
        assert not plant.stands("CORE.LEDGER.SPACE")
        plant.edge.session_lost()
        await plant.send(plant.edge.born())
        await asyncio.sleep(5)
        await plant.send(plant.edge.backlog())
        await asyncio.sleep(30)
        assert plant.settled(), "and what was kept back is taken"

    play(tmp_path / "data", story)
