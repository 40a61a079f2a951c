"""The broker in memory: its switches for delay, loss, hanging and refusal, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import async_solipsism
import pytest

from wire import (
    BrokerRefusedError,
    BrokerUnavailableError,
    LinkLostError,
    MemoryBroker,
    MemoryConnector,
    Message,
    SubscribeRefusedError,
    Will,
    topic_matches,
)
from wire.mqtt import Inbox


def run(dialogue: Callable[[], Awaitable[Any]]) -> None:
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(asyncio.wait_for(dialogue(), 3600.0))


@pytest.mark.parametrize(("pattern", "topic", "covered"), [
    ("a/b", "a/b", True), ("a/b", "a/c", False), ("a", "a/b", False), ("a/b", "a", False),
    ("+", "a", True), ("+", "a/b", False), ("+/+", "/finance", True), ("/+", "/finance", True),
    ("+", "/finance", False), ("a/+", "a/", True), ("a/+", "a", False),
    ("#", "a/b/c", True), ("a/#", "a", True), ("a/#", "ab", False), ("+/b/#", "a/b/c/d", True),
    ("#", "$SYS/load", False), ("+/load", "$SYS/load", False), ("$SYS/#", "$SYS/load", True),
])
def test_filters_cover_topics_as_in_section_4_7(pattern: str, topic: str, covered: bool) -> None:
    assert topic_matches(pattern, topic) is covered


def test_the_outward_hook_delays_and_loses_and_order_stays() -> None:
    async def dialogue() -> None:
        broker = MemoryBroker()
        waits = {b"slow": 5.0, b"lost": None}
        broker.outward = lambda client, message: waits.get(message.payload, 0.0)
        async with MemoryConnector(broker).connect("edge") as link:
            await link.subscribe([("t", 0)])
            began = asyncio.get_running_loop().time()
            for payload in (b"first", b"slow", b"lost", b"quick"):
                await link.publish("t", payload)
            reader = link.messages()
            assert [(await anext(reader)).payload for _ in range(3)] == [b"first", b"slow", b"quick"]
            assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    run(dialogue)


def test_the_inward_hook_sees_who_publishes_and_can_lose_it() -> None:
    async def dialogue() -> None:
        broker, seen = MemoryBroker(), []

        def lose_the_edge(client: str, message: Message) -> float | None:
            seen.append((client, message.topic))
            return None if client == "edge" else 0.0

        broker.inward = lose_the_edge
        connector = MemoryConnector(broker)
        async with connector.connect("edge") as edge, connector.connect("host") as host:
            await host.subscribe([("t", 0)])
            await edge.publish("t", b"lost")
            await host.publish("t", b"kept")
            assert (await anext(host.messages())).payload == b"kept"
        assert seen == [("edge", "t"), ("host", "t")]
    run(dialogue)


def test_a_killed_client_loses_its_link_and_leaves_its_will() -> None:
    async def dialogue() -> None:
        broker = MemoryBroker()
        connector = MemoryConnector(broker)
        async with connector.connect("host") as host:
            await host.subscribe([("dead/+", 1)])
            async with connector.connect("edge", Will("dead/edge", b"x")) as edge:
                assert broker.kill("edge")
                assert not broker.kill("edge")
                with pytest.raises(LinkLostError):
                    await edge.publish("t", b"x")
            assert await anext(host.messages()) == Message("dead/edge", b"x", False)
            assert broker.clients == {"host"}
    run(dialogue)


def test_a_hung_line_swallows_everything_until_keepalive() -> None:
    async def dialogue() -> None:
        broker = MemoryBroker()
        connector = MemoryConnector(broker, keepalive_s=10)
        loop = asyncio.get_running_loop()
        async with connector.connect("host") as host:
            await host.subscribe([("#", 1)])
            async with connector.connect("edge", Will("dead", b"x")) as edge:
                broker.hang("edge")
                began = loop.time()
                await edge.publish("t", b"swallowed")
                with pytest.raises(LinkLostError):
                    await anext(edge.messages())
                assert loop.time() - began == pytest.approx(15.0)
            assert (await anext(host.messages())).topic == "dead"
    run(dialogue)


def test_a_qos_1_publish_on_a_hung_line_gives_up_after_five_seconds() -> None:
    async def dialogue() -> None:
        broker = MemoryBroker()
        async with MemoryConnector(broker).connect("edge") as edge:
            broker.hang("edge")
            began = asyncio.get_running_loop().time()
            with pytest.raises(LinkLostError):
                await edge.publish("t", b"x", qos=1)
            assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    run(dialogue)


def test_refusals_can_be_set() -> None:
    async def dialogue() -> None:
        broker = MemoryBroker()
        broker.refused_clients.add("stranger")
        broker.refused_filters.add("secret/#")
        connector = MemoryConnector(broker)
        with pytest.raises(BrokerRefusedError):
            async with connector.connect("stranger"):
                pytest.fail("let in")
        async with connector.connect("edge") as edge:
            with pytest.raises(SubscribeRefusedError) as caught:
                await edge.subscribe([("open", 0), ("secret/#", 0)])
            assert caught.value.filters == ("secret/#",)
        connector.unreachable = True
        began = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnavailableError):
            async with connector.connect("edge"):
                pytest.fail("reached")
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
    run(dialogue)


def test_an_inbox_over_its_limits_drops_the_new_and_counts_them() -> None:
    async def dialogue() -> None:
        by_count, by_bytes = Inbox(messages_max=2), Inbox(bytes_max=5)
        for payload in (b"one", b"two", b"three"):
            by_count.put(Message("t", payload, False))
            by_bytes.put(Message("t", payload, False))
        for inbox, kept, dropped in ((by_count, [b"one", b"two"], 1), (by_bytes, [b"one"], 2)):
            assert inbox.dropped == dropped
            inbox.close(LinkLostError("here", "over"))
            reader = inbox.read()
            assert [(await anext(reader)).payload for _ in kept] == kept
            with pytest.raises(LinkLostError):
                await anext(reader)
        by_bytes.put(Message("t", b"again", False))
        assert by_bytes.dropped == 2, "room again once it was read"
    run(dialogue)


def test_a_full_inbox_does_not_starve_other_tasks() -> None:
    async def dialogue() -> None:
        inbox, turns = Inbox(), 0
        for _ in range(1000):
            inbox.put(Message("t", b"", False))
        inbox.close(LinkLostError("here", "over"))

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count_turns())
        with pytest.raises(LinkLostError):
            async for _ in inbox.read():
                pass
        other.cancel()
        assert turns >= 10
    run(dialogue)
