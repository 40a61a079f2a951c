"""What every MQTT link keeps, on the broker in memory, on nats-server and on mosquitto.

Each test is a dialogue between clients of one broker. Waiting is always for an event, with a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

import pytest
import uvloop

import wire.mqtt_aiomqtt as shell
from tests import brokers
from tests.patience import GUARD_S
from wire import (
    AioMqttConnector,
    BrokerAddress,
    BrokerUnavailableError,
    LinkLostError,
    MemoryBroker,
    MemoryConnector,
    Message,
    MqttConnector,
    MqttLink,
    Will,
)

PATIENCE_S = GUARD_S / 3
QUIET_S = 0.3


class Bench(Protocol):
    """A broker under test and a way in."""

    connector: MqttConnector

    def kill(self) -> None: ...
    def start(self) -> None: ...


class MemoryBench:
    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.connector: MqttConnector = MemoryConnector(self.broker)

    def kill(self) -> None:
        self.broker.stop()

    def start(self) -> None:
        self.broker.start()


class RealBench:
    def __init__(self, broker: brokers.Broker) -> None:
        self.broker = broker
        self.connector: MqttConnector = AioMqttConnector(BrokerAddress(broker.host, broker.port, keepalive_s=600))

    def kill(self) -> None:
        self.broker.kill()

    def start(self) -> None:
        if self.broker.pid is None:
            self.broker.start()


@pytest.fixture(scope="module")
def real_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], brokers.Broker]]:
    """Starts each kind of broker once for this file."""
    started: dict[str, brokers.Broker] = {}
    with contextlib.ExitStack() as stack:
        def get(kind: str) -> brokers.Broker:
            if kind == "mosquitto" and brokers.find_mosquitto() is None:
                pytest.skip("needs mosquitto: apt-get install mosquitto")
            if kind not in started:
                started[kind] = stack.enter_context(brokers.running(kind, tmp_path_factory.mktemp(kind)))
            return started[kind]
        yield get


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is late because this machine is."""
    for limit in ("CONNECT_S_MAX", "ANSWER_S_MAX"):
        monkeypatch.setattr(shell, limit, GUARD_S)


@pytest.fixture(params=[
    "memory", "nats-server", pytest.param("mosquitto", marks=pytest.mark.needs("mosquitto")),
])
def bench(request: pytest.FixtureRequest, real_brokers: Callable[[str], brokers.Broker]) -> Iterator[Bench]:
    made: Bench = MemoryBench() if request.param == "memory" else RealBench(real_brokers(request.param))
    yield made
    made.start()


def run(dialogue: Callable[[], Awaitable[Any]],
        loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run one dialogue; fail if it leaves a task behind."""
    async def watched() -> None:
        await asyncio.wait_for(dialogue(), GUARD_S)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(watched())


class Ear:
    """Reads a link in the background, as the real users do."""

    def __init__(self, link: MqttLink) -> None:
        self.heard: list[Message] = []
        self.error: LinkLostError | None = None
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._listen(link), name="ear")

    async def _listen(self, link: MqttLink) -> None:
        try:
            async for message in link.messages():
                async with self._news:
                    self.heard.append(message)
                    self._news.notify_all()
        except LinkLostError as error:
            async with self._news:
                self.error = error
                self._news.notify_all()

    async def until(self, count: int) -> list[Message]:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.heard) >= count)
        return self.heard

    async def until_lost(self) -> LinkLostError:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self.error is not None)
        assert self.error is not None
        return self.error


@contextlib.asynccontextmanager
async def listening(bench: Bench, *filters: tuple[str, int], will: Will | None = None,
                    client_id: str = "ear") -> AsyncIterator[tuple[Ear, MqttLink]]:
    async with bench.connector.connect(client_id, will) as link:
        await link.subscribe(filters)
        yield Ear(link), link


def topic(*levels: str) -> str:
    """A topic that no other test uses: the real brokers stay up between tests."""
    return "/".join(("t" + uuid.uuid4().hex[:8], *levels))


@pytest.mark.spec("tck-id-conformance-mqtt-qos0")
@pytest.mark.spec("tck-id-conformance-mqtt-qos1")
def test_a_message_arrives_as_it_was_sent(bench: Bench) -> None:
    async def dialogue() -> None:
        place, payload = topic("DDATA", "E1"), bytes(range(256)) * 700
        async with (listening(bench, (place, 0)) as (ear, _), bench.connector.connect("speaker") as speaker):
            await speaker.publish(place, payload)
            await speaker.publish(place, b"")
            await speaker.publish(place, b"at least once", qos=1)
            assert await ear.until(3) == [Message(place, payload, False), Message(place, b"", False),
                                          Message(place, b"at least once", False)]
    run(dialogue)


def test_messages_of_one_sender_keep_their_order(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()
        async with (listening(bench, (place, 0)) as (ear, link), bench.connector.connect("speaker") as speaker):
            for number in range(500):
                await speaker.publish(place, b"%d" % number)
            heard = await ear.until(500)
            assert [int(message.payload) for message in heard] == list(range(500))
            assert link.dropped == 0
    run(dialogue)


@pytest.mark.parametrize(("pattern", "heard"), [
    pytest.param("+/NDATA/E1", ["A/NDATA/E1"], id="plus stands for one level"),
    pytest.param("A/#", ["A", "A/NDATA/E1", "A/DDATA/E1/D1"], id="hash stands for all below, and the level itself"),
    pytest.param("A/+", [], id="plus does not reach deeper"),
    pytest.param("A/+/E1/+", ["A/DDATA/E1/D1"], id="plus at the end"),
])
def test_wildcards_cover_what_the_standard_says(bench: Bench, pattern: str, heard: list[str]) -> None:
    async def dialogue() -> None:
        root = topic()
        async with (listening(bench, (f"{root}/{pattern}", 1), (f"{root}/end", 1)) as (ear, _),
                    bench.connector.connect("speaker") as speaker):
            for place in ("A", "A/NDATA/E1", "A/DDATA/E1/D1", "B/DDATA/E1/D1"):
                await speaker.publish(f"{root}/{place}", b"x")
            await speaker.publish(f"{root}/end", b"x")
            await ear.until(len(heard) + 1)
            assert [message.topic.removeprefix(f"{root}/") for message in ear.heard] == [*heard, "end"]
    run(dialogue)


@pytest.mark.spec("tck-id-conformance-mqtt-retained")
def test_a_retained_message_waits_for_late_subscribers_until_it_is_cleared(bench: Bench) -> None:
    async def dialogue() -> None:
        state = topic("STATE", "HAZARDGATE")
        async with bench.connector.connect("host") as host:
            await host.publish(state, b"online", qos=1, retain=True)
            async with listening(bench, (state, 1)) as (ear, _):
                assert await ear.until(1) == [Message(state, b"online", True)]
                await host.publish(state, b"offline", qos=1, retain=True)
                assert (await ear.until(2))[1] == Message(state, b"offline", False)
            await host.publish(state, b"", qos=1, retain=True)
            async with listening(bench, (state, 1)) as (ear, _):
                await host.publish(state, b"mark", qos=1)
                assert await ear.until(1) == [Message(state, b"mark", False)]
    run(dialogue)


@pytest.mark.spec("tck-id-conformance-mqtt-will-messages")
def test_a_link_left_in_order_publishes_no_will(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic("NDEATH", "E1")
        async with listening(bench, (place, 1)) as (ear, link):
            async with bench.connector.connect("edge", Will(place, b"dead", 1)):
                pass
            await link.publish(place, b"mark")
            await asyncio.sleep(QUIET_S)
            assert [message.payload for message in await ear.until(1)] == [b"mark"]
    run(dialogue)


def test_a_link_left_by_an_error_publishes_its_will(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic("NDEATH", "E1")
        async with listening(bench, (place, 1)) as (ear, _):
            with pytest.raises(ZeroDivisionError):
                async with bench.connector.connect("edge", Will(place, b"dead", 1)):
                    raise ZeroDivisionError
            assert await ear.until(1) == [Message(place, b"dead", False)]
    run(dialogue)


def test_a_link_left_by_cancellation_publishes_its_will(bench: Bench) -> None:
    async def dialogue() -> None:
        place, inside = topic("NDEATH", "E1"), asyncio.Event()

        async def live() -> None:
            async with bench.connector.connect("edge", Will(place, b"dead", 1)):
                inside.set()
                await asyncio.Event().wait()

        async with listening(bench, (place, 1)) as (ear, _):
            living = asyncio.create_task(live())
            await inside.wait()
            living.cancel()
            assert await ear.until(1) == [Message(place, b"dead", False)]
            await asyncio.wait({living})
            assert living.cancelled()
    run(dialogue)


@pytest.mark.spec("tck-id-conformance-mqtt-will-messages")
@pytest.mark.spec("tck-id-conformance-mqtt-retained")
def test_a_retained_will_is_kept_for_those_who_come_later(bench: Bench) -> None:
    async def dialogue() -> None:
        state = topic("STATE", "HAZARDGATE")
        async with listening(bench, (state, 1)) as (ear, _):
            with contextlib.suppress(ZeroDivisionError):
                async with bench.connector.connect("host", Will(state, b"offline", 1, retain=True)) as host:
                    await host.publish(state, b"online", 1, retain=True)
                    await ear.until(1)
                    raise ZeroDivisionError
            await ear.until(2)
        async with listening(bench, (state, 1)) as (late, _):
            assert await late.until(1) == [Message(state, b"offline", True)]
    run(dialogue)


def test_a_second_client_with_the_same_id_takes_over_and_the_first_is_told(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()
        async with contextlib.AsyncExitStack() as stack:
            first, first_link = await stack.enter_async_context(listening(bench, (place, 0), client_id="twin"))
            second, second_link = await stack.enter_async_context(listening(bench, (place, 0), client_id="twin"))
            await first.until_lost()
            with pytest.raises(LinkLostError):
                await first_link.publish(place, b"from the first")
            await second_link.publish(place, b"from the second")
            assert await second.until(1) == [Message(place, b"from the second", False)]
            assert first.heard == []
    run(dialogue)


@pytest.mark.fault("F30")
def test_a_killed_broker_is_noticed_at_once_by_reader_and_publisher(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()
        with contextlib.suppress(LinkLostError):
            async with listening(bench, (place, 0)) as (ear, link):
                await link.publish(place, b"before")
                await ear.until(1)
                bench.kill()
                await ear.until_lost()  # no answer is awaited, and none is due for minutes
                for call in (lambda: link.publish(place, b"x"), lambda: link.publish(place, b"x", qos=1),
                             lambda: link.subscribe([(place, 0)])):
                    with pytest.raises(LinkLostError):
                        await call()
                with pytest.raises(LinkLostError):
                    await anext(link.messages())
        with pytest.raises(BrokerUnavailableError):
            async with bench.connector.connect("ear"):
                pytest.fail("connected to a dead broker")
        bench.start()
        async with listening(bench, (place, 0)) as (ear, link):
            await link.publish(place, b"after")
            assert [message.payload for message in await ear.until(1)] == [b"after"]
    run(dialogue)


@pytest.mark.fault("F30")
def test_a_publisher_that_waits_is_told_when_the_broker_dies(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()

        async def publish_for_ever(link: MqttLink) -> None:
            while True:
                await link.publish(place, bytes(2000), qos=1)

        async with bench.connector.connect("speaker") as link:
            publishers = [asyncio.create_task(publish_for_ever(link)) for _ in range(5)]
            await asyncio.sleep(0.05)
            bench.kill()
            done, _ = await asyncio.wait(publishers, timeout=PATIENCE_S)
            assert [type(task.exception()) for task in done] == [LinkLostError] * 5
    run(dialogue)


def test_messages_that_arrived_before_the_end_are_still_delivered(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()
        async with bench.connector.connect("late-reader") as link:
            await link.subscribe([(place, 0)])
            for number in range(3):
                await link.publish(place, b"%d" % number)
            await link.publish(f"{place}/mark", b"", qos=1)  # its answer comes behind the three
            bench.kill()
            ear = Ear(link)
            await ear.until_lost()
            assert [message.payload for message in ear.heard] == [b"0", b"1", b"2"]
    run(dialogue)


def test_many_clients_at_once_do_not_disturb_each_other(bench: Bench) -> None:
    async def dialogue() -> None:
        root = topic()

        async def edge(number: int) -> None:
            async with bench.connector.connect(f"edge-{number}") as link:
                for _ in range(10):
                    await link.publish(f"{root}/{number}", b"%d" % number)

        async with listening(bench, (f"{root}/+", 0)) as (ear, _):
            async with asyncio.TaskGroup() as edges:
                for number in range(20):
                    edges.create_task(edge(number))
            heard = await ear.until(200)
            assert all(message.topic == f"{root}/{message.payload.decode()}" for message in heard)
    run(dialogue)


def test_the_same_holds_on_uvloop(bench: Bench) -> None:
    async def dialogue() -> None:
        place = topic()
        will = Will(f"{place}/will", b"dead", 1)
        async with listening(bench, (f"{place}/#", 1)) as (ear, _):
            with contextlib.suppress(ZeroDivisionError):
                async with bench.connector.connect("edge", will) as link:
                    await link.publish(place, bytes(100_000))
                    await link.publish(place, b"once more", qos=1)
                    await ear.until(2)
                    raise ZeroDivisionError
            assert (await ear.until(3))[2].payload == b"dead"
            bench.kill()
            await ear.until_lost()
    run(dialogue, uvloop.new_event_loop)
