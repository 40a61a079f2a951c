"""The whole edge behind its instruments, in virtual time: a broker in memory, and a gateway that acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge import read_spool, run_edge
from edge.backlog import RESEND_S_MIN, UNACKED_BLOCKS_MAX, Backlog
from edge.blocks import WireBlock
from edge.uplink import RECONNECT_S_MAX, reconnect_delay_s
from tests.edge.fakes import (
    GROUP,
    HOST,
    NODE,
    FakeGateway,
    Instruments,
    World,
    small_edge_file,
    small_table,
    virtual,
)
from wire import (
    BDSEQ,
    CLOCK_SYNCED,
    SPOOL_BLOCK,
    MemoryBroker,
    MemoryConnector,
    Message,
    MessageKind,
    encode_block,
    encode_rebirth,
)

CLIENT = f"{GROUP}-{NODE}"


class Site:
    """One edge, one broker, one gateway; each can be started and ended by itself."""

    def __init__(self, data_dir: Path, **edge: Any) -> None:
        self.world, self.broker = World(), MemoryBroker()
        points = edge.pop("points_per_device", (2, 1))
        self.edge_file = small_edge_file(points, **edge)
        self.data_dir = data_dir
        self.connector = MemoryConnector(self.broker)
        self.instruments = Instruments(small_table(points), self.world)
        self.gateway = FakeGateway(self.broker, self.world)
        self._tasks: list[asyncio.Task[None]] = []
        self.stop = asyncio.Event()

    def start_edge(self) -> asyncio.Task[None]:
        self.stop.clear()
        self.edge = asyncio.create_task(
            run_edge(self.edge_file, self.data_dir, self.stop, self.connector, ports=self.world.ports,
                     field_side=self.instruments), name="edge")
        self._tasks.append(self.edge)
        return self.edge

    def start_gateway(self) -> None:
        self._gateway_task = asyncio.create_task(self.gateway.run(), name="gateway")
        self._tasks.append(self._gateway_task)

    async def kill_gateway(self) -> None:
        self._gateway_task.cancel()
        await asyncio.gather(self._gateway_task, return_exceptions=True)

    async def kill_edge(self) -> None:
        """As SIGKILL: nothing is done in order, only what is on the disk remains."""
        self.edge.cancel()
        await asyncio.gather(self.edge, return_exceptions=True)

    async def stop_edge(self) -> None:
        self.stop.set()
        await self.edge

    async def sample(self, seconds: int, first: int = 0) -> None:
        for second in range(first, first + seconds):
            self.instruments.give(second % 2, second)
            await asyncio.sleep(1)

    def status(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "status.json").read_text())

    def missing(self) -> list[tuple[str, float, int]]:
        """What the instruments gave and the gateway does not have, as (tag, value, source_ms)."""
        there = {(tag, value, source_ms) for (_, _, tag), (value, _, source_ms) in self.gateway.samples.items()}
        table = self.instruments.table
        return [
            (table.points[point].tag, value, source_ms)
            for scan in self.instruments.given
            for point, value, source_ms in zip(
                scan.point.tolist(), scan.value.tolist(), scan.source_ms.tolist(), strict=True)
            if (table.points[point].tag, value, source_ms) not in there
        ]


@contextlib.asynccontextmanager
async def site_at(tmp_path: Path, **edge: Any) -> AsyncIterator[Site]:
    site = Site(tmp_path / "edge", **edge)
    try:
        yield site
    finally:
        for task in site._tasks:
            task.cancel()
        await asyncio.gather(*site._tasks, return_exceptions=True)


def test_everything_taken_before_the_gateway_was_there_arrives_and_the_end_is_clean(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            await asyncio.sleep(1)
            await site.sample(30)
            site.start_gateway()
            await site.sample(10, 30)
            began = site.world.monotonic()
            await site.stop_edge()
            assert site.world.monotonic() - began <= 5
            assert site.missing() == []
            assert site.gateway.duplicates == 0
            assert site.gateway.got[-1][0] == f"spBv1.0/{GROUP}/NDEATH/{NODE}"
            status = site.status()
            assert status["samples_taken"] == status["samples_acked"] == len(site.gateway.samples)
            assert (status["unfinished"], status["stopped"], status["connected"]) == ([], True, False)
            assert CLIENT not in site.broker.clients

    virtual(scenario)


def test_a_broker_absent_at_the_start_is_waited_for_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.broker.stop()
            site.start_edge()
            await asyncio.sleep(1)
            await site.sample(60)
            assert sum("no MQTT broker" in record.getMessage() for record in caplog.records) == 1
            site.broker.start()
            site.start_gateway()
            await asyncio.sleep(10)
            assert site.missing() == []

    virtual(scenario)


@pytest.mark.fault("F30")
@pytest.mark.fault("F23")
def test_a_broker_that_dies_again_and_again_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            for outage in range(8):
                await site.sample(7, 100 * outage)
                site.broker.stop()
                await site.kill_gateway()
                await site.sample(outage * 2, 100 * outage + 10)
                site.broker.start()
                site.start_gateway()
                await asyncio.sleep(2 * RECONNECT_S_MAX)
            await asyncio.sleep(10)
            assert site.missing() == []
            await site.stop_edge()
            assert site.status()["unfinished"] == []
            assert all(not book.intervals for book in site.gateway.books.values())

    virtual(scenario)


@pytest.mark.fault("F26")
@pytest.mark.fault("F23")
@pytest.mark.parametrize("lose_every", [2, 3, 7])
def test_frames_the_network_loses_are_sent_again_as_blocks_and_stored_once(tmp_path: Path, lose_every: int) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            count = 0

            def lossy(client: str, message: Message) -> float | None:
                nonlocal count
                count += client == CLIENT and "/DDATA/" in message.topic
                return None if client == CLIENT and "/DDATA/" in message.topic and count % lose_every == 0 else 0.0

            site.broker.inward = lossy
            await site.sample(40)
            site.broker.inward = None
            await asyncio.sleep(60)
            assert site.missing() == []
            assert site.status()["unfinished"] == []
            assert site.gateway.blocks

    virtual(scenario)


def test_a_crash_of_the_edge_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            for run in range(5):
                site.start_edge()
                await asyncio.sleep(3)
                await site.sample(10, 100 * run)
                await site.kill_edge()
            site.start_gateway()
            site.start_edge()
            await asyncio.sleep(20)
            assert site.missing() == []
            bdseqs = [metric.value for payload in site.gateway.of_kind(MessageKind.NBIRTH)
                      for metric in payload.metrics if metric.name == BDSEQ]
            assert bdseqs == [5], "one number per CONNECT, over restarts"

    virtual(scenario)


def test_a_stream_is_on_the_disk_before_the_gateway_hears_of_it(tmp_path: Path) -> None:
    """Else an edge killed at its birth would know nothing of a stream the gateway has: a restored disk, it seems."""

    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_gateway()
            take = site.gateway.take
            heard: list[bool] = []

            async def watched(message: Message) -> None:
                known = set(site.gateway.books)
                on_disk = {sample.stream for sample in read_spool(site.data_dir / "spool")}
                await take(message)
                heard.extend(stream in on_disk for stream in set(site.gateway.books) - known)

            site.gateway.take = watched  # type: ignore[method-assign]
            for run in range(4):
                site.start_edge()
                await asyncio.sleep(3)
                site.instruments.give(run % 2, run)
                await asyncio.sleep(0.05)
                await site.kill_edge()
            assert len(heard) >= 4
            assert all(heard)

    virtual(scenario)


@pytest.mark.fault("F31")
def test_a_gateway_that_stops_acknowledging_gets_everything_when_it_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            site.gateway.acking = False
            await site.sample(120)
            births = len(site.gateway.of_kind(MessageKind.NBIRTH))
            assert births <= 6, "sealed after 5, 10, 20, 40 s, not at every turn"
            assert site.status()["unfinished"]
            assert site.missing() == [], "live went on all the time"
            site.gateway.acking = True
            await asyncio.sleep(120)
            assert site.status()["unfinished"] == []

    virtual(scenario)


def test_live_frames_wait_for_one_block_at_most_on_a_slow_link(tmp_path: Path) -> None:
    bytes_per_s = 20_000
    noise = random.Random(3)

    async def scenario() -> None:
        async with site_at(tmp_path, points_per_device=(200,)) as site:
            site.start_edge()
            await asyncio.sleep(1)
            for _ in range(300):
                site.instruments.give(0, *[noise.randrange(65536) for _ in range(200)])
                await asyncio.sleep(1)
            late: list[float] = []

            def slow(client: str, message: Message) -> float | None:
                return len(message.payload) / bytes_per_s if client == CLIENT else 0.0

            site.broker.inward = slow
            site.start_gateway()
            while not site.gateway.of_kind(MessageKind.DBIRTH):
                await asyncio.sleep(0.01)
            while sum(len(encode_block(block)) for block in site.gateway.blocks) < 5 * bytes_per_s:
                live = len(site.gateway.of_kind(MessageKind.DDATA))
                site.instruments.give(0, 1, 2, 3)
                given_s = site.world.monotonic()
                while len(site.gateway.of_kind(MessageKind.DDATA)) == live:
                    await asyncio.sleep(0.01)
                late.append(site.world.monotonic() - given_s)
                await asyncio.sleep(0.3)
            sizes = [len(encode_block(block)) for block in site.gateway.blocks]
            assert max(late) <= max(sizes) / bytes_per_s + 0.2
            assert len(late) >= 4
            await asyncio.sleep(5)
            assert site.missing() == []

    virtual(scenario)


@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-offline-reconnect")
def test_a_host_that_says_offline_is_left_and_found_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(3)
            await site.kill_gateway()  # its will says offline
            await site.sample(20, 10)
            status = site.status()
            assert (status["connected"], status["live"]) == (True, False), "back, waiting for the host"
            site.start_gateway()
            await asyncio.sleep(10)
            assert site.missing() == []
            assert site.status()["live"]

    virtual(scenario)


def test_a_refused_client_waits_longer_and_gets_in_at_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.broker.refused_clients = {CLIENT}
            tries: list[float] = []
            enter = site.broker.enter
            site.broker.enter = lambda link: (  # type: ignore[method-assign]
                tries.append(site.world.monotonic()) if link.client_id == CLIENT else None, enter(link))[1]
            site.start_edge()
            await asyncio.sleep(300)
            gaps = [after - before for before, after in itertools.pairwise(tries)]
            assert min(gaps) >= 5
            assert max(gaps) <= 61
            site.broker.refused_clients = set()
            site.start_gateway()
            await asyncio.sleep(65)
            assert site.status()["live"]

    virtual(scenario)


def test_a_rebirth_request_is_met_through_the_broker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            before = len(site.gateway.of_kind(MessageKind.NBIRTH))
            await site.gateway.command(encode_rebirth(site.world.wall_ms()))
            await asyncio.sleep(1)
            assert len(site.gateway.of_kind(MessageKind.NBIRTH)) == before + 1

    virtual(scenario)


@pytest.mark.fault("F27")
@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000], ids=["+1 h", "-1 h"])
def test_a_clock_that_jumps_seals_the_stream_and_loses_nothing(tmp_path: Path, step_ms: int) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(5)
            streams = len(site.gateway.books)
            site.world.wrong_ms = step_ms
            await site.sample(5, 10)
            await asyncio.sleep(3)
            assert len(site.gateway.books) == streams + 1
            assert site.missing() == []

    virtual(scenario)


@pytest.mark.fault("F28")
@pytest.mark.fault("F77")
def test_a_box_that_wakes_in_1970_takes_its_time_from_the_gateway(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            gateway_world = World()
            site.gateway = FakeGateway(site.broker, gateway_world)
            site.world.wrong_ms = -1_800_000_000_000
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(1)
            assert site.status()["clock_synced"] is False
            await asyncio.sleep(9)
            status = site.status()
            assert status["clock_synced"] is True
            assert abs(status["at_ms"] - gateway_world.wall_ms()) < 1500
            said = [metric.value for payload in site.gateway.of_kind(MessageKind.NBIRTH)
                    for metric in payload.metrics if metric.name == CLOCK_SYNCED]
            assert said[0] is False
            assert said[-1] is True

    virtual(scenario)


def test_a_wire_block_is_what_a_metered_edge_sends_live(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path, encoding="block") as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(5)
            await asyncio.sleep(2)
            assert site.missing() == []
            assert not site.gateway.of_kind(MessageKind.DDATA)
            assert any(metric.name == SPOOL_BLOCK for payload in site.gateway.of_kind(MessageKind.NDATA)
                       for metric in payload.metrics)

    virtual(scenario)


@pytest.mark.fault("F30")
def test_a_thousand_nodes_come_back_spread_over_two_seconds() -> None:
    delays = sorted(reconnect_delay_s(f"{GROUP}-E{number}") for number in range(1000))
    assert delays[0] >= 0
    assert delays[-1] < RECONNECT_S_MAX
    in_tenths = [sum(tenth / 10 <= delay < (tenth + 1) / 10 for delay in delays) for tenth in range(20)]
    assert max(in_tenths) <= 85, "no tenth of a second gets much more than its share of 50"
    assert min(in_tenths) >= 25
    assert reconnect_delay_s(HOST) == reconnect_delay_s(HOST)


def test_the_window_of_blocks_grows_with_prompt_answers_and_shrinks_with_silence() -> None:
    backlog = Backlog()
    number = 0

    def fill(now_s: float) -> int:
        nonlocal number
        sent = 0
        while backlog.room():
            number += 1
            backlog.add(WireBlock(1, number, number, b""))
        while backlog.due(now_s) is not None:
            sent += 1
        return sent

    sizes = []
    for now_s in range(12):
        sizes.append(fill(float(now_s)))
        backlog.acked(1, number, now_s + 0.5)
    assert sizes == [1, 2, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    assert UNACKED_BLOCKS_MAX == 8
    assert fill(100.0) == 8
    resends: dict[int, int] = {}
    for second in range(100, 400):
        while backlog.due(float(second)) is not None:
            resends[second] = resends.get(second, 0) + 1
    assert min(resends) == 100 + RESEND_S_MIN
    assert resends == dict.fromkeys((105, 115, 135, 175, 235, 295, 355), 8)
    backlog.acked(1, number, 400.0)
    assert len(backlog) == 0
    assert fill(400.0) == 1
