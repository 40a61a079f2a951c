"""What waits for the disk before it is told, for how long, and what never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge.clock import EdgeClock
from edge.messages import Identity
from edge.node import OPENING_S_MAX, EdgeNode
from edge.recovery import open_spool
from edge.session import REBIRTH_SPACING_S, EdgeSession, Publish
from tests.edge.fakes import GROUP, HOST, NODE, World, scan_of, small_numbering, small_table, virtual
from tests.edge.memory_disk import MemoryDisk
from wire import (
    Message,
    MessageKind,
    Topic,
    build_topic,
    encode_rebirth,
    encode_state,
    parse_topic,
    state_topic,
)

TABLE = small_table()
BIRTHS = ["NBIRTH", "DBIRTH", "DBIRTH"]


class Desk:
    """A node on a disk that syncs only when told to."""

    def __init__(self, *, receipt: bool = True) -> None:
        self.world, self.disk = World(), MemoryDisk()
        self.spool = open_spool(self.disk, NODE, TABLE, 10**9)
        session = EdgeSession(
            Identity(GROUP, NODE, HOST, "c0ffee", "1.2.3", receipt=receipt), TABLE, small_numbering(TABLE), -1,
            self.spool.spans)
        clock = EdgeClock(self.world.wall_ms, self.world.monotonic, 0)
        self.node = EdgeNode(session, self.spool, clock, self.world.monotonic, lambda: None)

    def connect(self) -> Desk:
        self.node.connecting()
        self.node.connected()
        self.node.subscribed()
        self.node.message(Message(state_topic(HOST), encode_state(True, 1000), True))
        return self

    def live(self) -> Desk:
        """Connected, with the births on the disk and sent."""
        self.connect().sync()
        assert self.sent() == BIRTHS
        return self

    def scan(self, device: int, *bits: int) -> None:
        self.node.scan(scan_of(TABLE, device, bits, self.world.wall_ms()))

    def sync(self) -> None:
        assert self.spool.sync(self.world.monotonic())

    def sent(self) -> list[str]:
        """What the node gives out now."""
        kinds = []
        while (message := self.node.next_message()) is not None:
            assert isinstance(message, Publish)
            kinds.append(parse_topic(message.topic).kind.name)
        return kinds

    def step_clock(self) -> None:
        self.world.wrong_ms += 3_600_000
        self.node.tick()


def at_desk(scenario: Callable[[Desk], object], *, receipt: bool = True) -> None:
    async def run() -> None:
        done = scenario(Desk(receipt=receipt))
        if asyncio.iscoroutine(done):
            await done

    virtual(run)


def test_births_of_a_new_stream_go_the_moment_its_first_frame_is_on_the_disk() -> None:
    async def scenario(desk: Desk) -> None:
        desk.connect()
        assert desk.sent() == []
        desk.sync()
        assert desk.sent() == BIRTHS

    at_desk(scenario)


def test_a_disk_that_dawdles_holds_births_up_for_the_limit_and_wakes_the_writer_then() -> None:
    assert OPENING_S_MAX <= 0.15

    async def scenario(desk: Desk) -> None:
        desk.connect()
        desk.scan(0, 7)
        assert desk.sent() == []
        desk.node.news.clear()
        began_s = desk.world.monotonic()
        await desk.node.news.wait()  # nobody else is there to wake it: no tick, no sync
        assert desk.world.monotonic() - began_s == pytest.approx(OPENING_S_MAX, abs=0.001)
        assert desk.sent() == [*BIRTHS, "DDATA"]

    at_desk(scenario)


def test_a_failing_disk_holds_up_nothing() -> None:
    async def scenario(desk: Desk) -> None:
        desk.disk.fail_syncs = 1
        desk.connect()
        assert desk.sent() == []
        assert not desk.spool.sync(0.0)
        assert desk.sent() == BIRTHS
        desk.node.spool_state(True)
        desk.scan(0, 7)
        desk.node.message(Message(build_topic(Topic(MessageKind.NCMD, GROUP, NODE)), encode_rebirth(1), False))
        assert desk.sent() == ["NDATA", "DDATA"]
        await asyncio.sleep(REBIRTH_SPACING_S)
        desk.node.tick()
        assert desk.sent() == BIRTHS

    at_desk(scenario)


def test_what_was_queued_before_a_new_stream_does_not_wait_for_it() -> None:
    async def scenario(desk: Desk) -> None:
        desk.live()
        desk.scan(0, 7)
        desk.step_clock()
        assert desk.sent() == ["DDATA"]
        desk.sync()
        assert desk.sent() == BIRTHS

    at_desk(scenario)


def test_of_two_new_streams_each_waits_for_its_own_first_frame() -> None:
    async def scenario(desk: Desk) -> None:
        desk.live()
        desk.step_clock()
        await asyncio.sleep(0.1)
        desk.step_clock()
        assert desk.sent() == []
        await asyncio.sleep(OPENING_S_MAX - 0.1)
        assert desk.sent() == BIRTHS
        desk.sync()
        assert desk.sent() == BIRTHS

    at_desk(scenario)


def test_a_rebirth_in_the_same_stream_and_its_frames_never_wait() -> None:
    async def scenario(desk: Desk) -> None:
        desk.live()
        await asyncio.sleep(REBIRTH_SPACING_S)
        desk.node.message(Message(build_topic(Topic(MessageKind.NCMD, GROUP, NODE)), encode_rebirth(1), False))
        desk.scan(0, 7)
        assert desk.sent() == [*BIRTHS, "DDATA"]

    at_desk(scenario)


def test_an_edge_without_receipts_never_waits() -> None:
    async def scenario(desk: Desk) -> None:
        desk.connect()
        assert desk.sent() == BIRTHS

    at_desk(scenario, receipt=False)


def test_a_lost_link_takes_its_waiting_births_along() -> None:
    async def scenario(desk: Desk) -> None:
        desk.connect()
        desk.node.link_lost()
        desk.node.news.clear()
        await asyncio.sleep(2 * OPENING_S_MAX)
        assert not desk.node.news.is_set()
        desk.connect()
        assert desk.sent() == []
        desk.sync()
        assert desk.sent() == BIRTHS

    at_desk(scenario)
