"""One core on a broker: a second one would acknowledge frames that the first never got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import async_solipsism
import pytest

from gateway.core.errors import AnotherCoreError
from gateway.core.ledger import Ledger
from gateway.core.source import ANSWER_S, RETAINED_S, MqttSource
from gateway.core.watchdog import Watchdog
from tests.gateway.bench import Bench
from tests.gateway.field import GROUP
from wire import HostState, MemoryBroker, MemoryConnector, Message, decode_state, encode_state, state_topic

HOST = "HOST1"


def virtual(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())


@contextlib.asynccontextmanager
async def core_on(broker: MemoryBroker, folder: Path, ledger_id: str) -> AsyncIterator[asyncio.Task[None]]:
    """A source that runs; its end is the caller's."""
    source = MqttSource(Bench(folder).loop, MemoryConnector(broker), GROUP, HOST, lambda: 1_000_000, ledger_id)
    task = asyncio.create_task(source.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.fault("F68")
@pytest.mark.spec("tck-id-operational-behavior-host-application-host-id")
def test_a_second_core_on_the_broker_does_not_begin_and_the_first_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        broker = MemoryBroker()
        async with core_on(broker, tmp_path / "one", "a" * 32) as first:
            await asyncio.sleep(3)
            async with MemoryConnector(broker).connect("edge") as edge:
                await edge.subscribe([(state_topic(HOST), 1)])
                heard: list[tuple[bool, int]] = []

                async def listen() -> None:
                    async for message in edge.messages():
                        state = decode_state(message.payload)
                        heard.append((state.online, state.timestamp_ms))

                listening = asyncio.create_task(listen())
                async with core_on(broker, tmp_path / "two", "b" * 32) as second:
                    with pytest.raises(AnotherCoreError, match=HOST):
                        await asyncio.wait_for(second, 5)
                await asyncio.sleep(1)
                listening.cancel()
            assert not first.done()
            newest_online = max(stamp for online, stamp in heard if online)
            assert all(stamp < newest_online for online, stamp in heard if not online), "no edge heeds an older one"

    virtual(story)


@pytest.mark.fault("F68")
def test_a_second_core_that_is_killed_while_it_asks_leaves_no_word_behind(tmp_path: Path) -> None:
    async def story() -> None:
        broker = MemoryBroker()
        said: list[HostState] = []

        def note(_: str, message: Message) -> float:
            said.append(decode_state(message.payload))
            return 0.0

        async with core_on(broker, tmp_path / "one", "a" * 32) as first:
            await asyncio.sleep(3)
            async with MemoryConnector(broker).connect("edge") as edge:
                await edge.subscribe([(state_topic(HOST), 1)])
                broker.outward = note
                async with core_on(broker, tmp_path / "two", "b" * 32):
                    while not (asking := [client for client in broker.clients if "b" * 12 in client]):
                        await asyncio.sleep(0)
                    broker.kill(asking[0])
                    await asyncio.sleep(0.01)
                    assert not [state for state in said if not state.online and state.timestamp_ms], "an edge would leave"
            assert not first.done()

    virtual(story)


def test_a_core_that_died_without_a_word_keeps_nobody_out_for_long(tmp_path: Path) -> None:
    async def story() -> None:
        broker = MemoryBroker()
        async with MemoryConnector(broker).connect("long gone") as ghost:
            await ghost.publish(state_topic(HOST), encode_state(online=True, timestamp_ms=5), qos=1, retain=True)
        async with core_on(broker, tmp_path / "one", "a" * 32) as core:
            await asyncio.sleep(RETAINED_S + ANSWER_S + 0.2)
            assert not core.done()
            newest = decode_state(broker.retained[state_topic(HOST)])
            assert (newest.online, newest.timestamp_ms) == (True, 1_000_000)

    virtual(story)


@pytest.mark.fault("F32")
@pytest.mark.parametrize("late", [1, 2])
def test_a_late_word_of_a_core_that_is_dead_is_no_answer(tmp_path: Path, late: int) -> None:
    """What it said before it died may be on its way when the next one asks."""

    async def story() -> None:
        broker = MemoryBroker()
        async with MemoryConnector(broker).connect("long gone") as ghost:
            word = encode_state(online=True, timestamp_ms=5)
            await ghost.publish(state_topic(HOST), word, qos=1, retain=True)
            async with core_on(broker, tmp_path / "one", "a" * 32) as core:
                for _ in range(late):
                    await asyncio.sleep(ANSWER_S / 2)
                    await ghost.publish(state_topic(HOST), word, qos=1, retain=True)
                await asyncio.sleep(RETAINED_S + ANSWER_S + 0.2)
                assert not core.done()
                assert decode_state(broker.retained[state_topic(HOST)]) == HostState(online=True, timestamp_ms=1_000_000)

    virtual(story)


@pytest.mark.fault("F27")
@pytest.mark.parametrize("heard_s", [0.0, 0.5, 3.0], ids=["kept by the broker", "while it asks", "in its session"])
@pytest.mark.parametrize("said_ms", [1_000_000, 5_000_000])
def test_a_core_whose_clock_was_set_back_is_heeded_by_edges_that_heard_the_one_before(
    tmp_path: Path, said_ms: int, heard_s: float
) -> None:
    """An edge heeds no STATE that is older than the newest it has heard, so all would wait until the clock is as far again."""

    async def story() -> None:
        broker = MemoryBroker()
        async with MemoryConnector(broker).connect("the one before") as link:
            offline = encode_state(online=False, timestamp_ms=said_ms)
            if not heard_s:
                await link.publish(state_topic(HOST), offline, qos=1, retain=True)
            async with core_on(broker, tmp_path / "one", "a" * 32) as core:
                await asyncio.sleep(heard_s)
                await link.publish(state_topic(HOST), offline, qos=1, retain=True)
                await asyncio.sleep(5)
                assert not core.done()
                newest = decode_state(broker.retained[state_topic(HOST)])
                assert newest.online
                assert newest.timestamp_ms >= said_ms
                broker.kill(next(client for client in broker.clients if "core" in client))
                await asyncio.sleep(0.01)
                will = decode_state(broker.retained[state_topic(HOST)])
                assert will == HostState(online=False, timestamp_ms=newest.timestamp_ms), "as the specification demands"

    virtual(story)


def test_a_ledger_that_is_taken_away_ends_core(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3", "SITE1")
    assert ledger.gone() == ""
    (tmp_path / "ledger.sqlite3").rename(tmp_path / "elsewhere")
    assert "removed" in ledger.gone()
    (tmp_path / "ledger.sqlite3").write_bytes(b"")
    assert "another file" in ledger.gone()
    ended: list[bool] = []
    dog = Watchdog(lambda: 0, dict, tmp_path / "beat.json", lambda _: None, lambda: ended.append(True), ledger.gone)
    dog.start()
    dog._thread.join(3.0)
    dog.close()
    ledger.close()
    assert ended
