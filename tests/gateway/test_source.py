"""Core's side of MQTT against a broker in memory: STATE, subscriptions, acks, rebirth requests, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import async_solipsism
import pytest

from edge.messages import Identity, Messages, NodeFacts
from gateway.core.source import MqttSource
from tests.edge.fakes import small_table
from tests.gateway.bench import Bench
from tests.gateway.field import GROUP, LEVEL, Edge, address
from wire import (
    ACKNOWLEDGE_ROWS_MAX,
    REBIRTH,
    SPOOL_ACKNOWLEDGE,
    Command,
    HostState,
    MemoryBroker,
    MemoryConnector,
    Message,
    MessageKind,
    MqttLink,
    Will,
    decode_command,
    decode_payload,
    decode_state,
    encode_state,
    state_topic,
)

HOST = "HAZARDGATE"
STATE = state_topic(HOST)
CLIENT = f"hazardgate-core-{GROUP}"


class Spying(MemoryConnector):
    """A connector that notes wills, subscriptions and publications in their order."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.wills: list[Will] = []
        self.did: list[tuple[str, Any]] = []

    def connect(self, client_id: str, will: Will | None = None) -> Any:
        if will is not None:
            self.wills.append(will)
        self.did.append(("connect", client_id))
        return _Spied(self, super().connect(client_id, will))


class _Spied:
    def __init__(self, spy: Spying, inner: Any) -> None:
        self._spy, self._inner = spy, inner

    async def __aenter__(self) -> MqttLink:
        link: Any = await self._inner.__aenter__()
        subscribe, publish, did = link.subscribe, link.publish, self._spy.did

        async def noted_subscribe(filters: Any) -> None:
            did.append(("subscribe", list(filters)))
            await subscribe(filters)

        async def noted_publish(topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
            did.append(("publish", (topic, payload, qos, retain)))
            await publish(topic, payload, qos, retain)

        link.subscribe, link.publish = noted_subscribe, noted_publish
        return link  # type: ignore[no-any-return]

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


class Rig:
    """A source on a bench, and what an observer at the broker sees."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder / "core")
        self.broker = MemoryBroker()
        self.connector = Spying(self.broker)
        self.wall_ms = 1_000_000
        self.source = MqttSource(self.bench.loop, self.connector, GROUP, HOST, lambda: self.wall_ms)
        self.source._alone = True  # what it does to find out has tests of its own
        self.states: list[HostState] = []
        self.commands: list[tuple[float, str, Command]] = []
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to observe, then start the source and let it connect."""
        observed = asyncio.Event()
        self.observer = asyncio.ensure_future(self._observe(observed))
        await observed.wait()
        self.task = asyncio.ensure_future(self.source.run())
        await asyncio.sleep(0.01)

    async def _observe(self, ready: asyncio.Event) -> None:
        async with MemoryConnector(self.broker).connect("observer", None) as link:
            await link.subscribe([(STATE, 1), ("spBv1.0/+/NCMD/+", 1)])
            ready.set()
            async for message in link.messages():
                self._saw(message)

    def _saw(self, message: Message) -> None:
        if message.topic == STATE:
            self.states.append(decode_state(message.payload))
        else:
            at_s = asyncio.get_running_loop().time()
            self.commands.append((at_s, message.topic.rsplit("/", 1)[-1], decode_command(message.payload)))

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task, self.observer], timeout=0.1)
        self.observer.cancel()

    async def publish(self, sent: list[tuple[str, bytes]], client: str = "E1") -> None:
        async with MemoryConnector(self.broker).connect(client, None) as link:
            for topic, payload in sent:
                await link.publish(topic, payload)
        await asyncio.sleep(0.01)


Story = Callable[[Rig], Coroutine[Any, Any, None]]


def play(tmp_path: Path, story: Story, *, before: Callable[[Rig], None] = lambda rig: None) -> Rig:
    rig = Rig(tmp_path)

    async def main() -> None:
        before(rig)
        await rig.start()
        await story(rig)
        if rig.task is not None and not rig.task.done():
            await rig.stop()

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(main())
    return rig


def connected(rig: Rig) -> bool:
    return rig.source.connected


def online(rig: Rig) -> bool:
    return rig.bench.sessions.nodes["E1"].online


async def nothing(_: Rig) -> None:
    pass


# -- STATE -----------------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-host-topic-phid-death-required")
@pytest.mark.spec("tck-id-host-topic-phid-death-topic")
@pytest.mark.spec("tck-id-host-topic-phid-death-payload")
@pytest.mark.spec("tck-id-host-topic-phid-death-qos")
@pytest.mark.spec("tck-id-host-topic-phid-death-retain")
@pytest.mark.spec("tck-id-host-topic-phid-death-payload-timestamp-connect")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-will")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-will-topic")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-will-payload")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-will-qos")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-will-retained")
@pytest.mark.spec("tck-id-payloads-state-will-message")
@pytest.mark.spec("tck-id-payloads-state-will-message-payload")
@pytest.mark.spec("tck-id-payloads-state-will-message-qos")
@pytest.mark.spec("tck-id-payloads-state-will-message-retain")
def test_the_will_says_offline_retained_at_qos_1_with_the_time_of_the_connect(tmp_path: Path) -> None:
    (will,) = play(tmp_path, nothing).connector.wills
    assert (will.topic, will.qos, will.retain) == ("spBv1.0/STATE/HAZARDGATE", 1, True)
    assert decode_state(will.payload) == HostState(False, 1_000_000)


@pytest.mark.spec("tck-id-host-topic-phid-birth-required")
@pytest.mark.spec("tck-id-host-topic-phid-birth-message")
@pytest.mark.spec("tck-id-host-topic-phid-birth-topic")
@pytest.mark.spec("tck-id-host-topic-phid-birth-payload")
@pytest.mark.spec("tck-id-host-topic-phid-birth-payload-timestamp")
@pytest.mark.spec("tck-id-host-topic-phid-birth-qos")
@pytest.mark.spec("tck-id-host-topic-phid-birth-retain")
@pytest.mark.spec("tck-id-host-topic-phid-birth-sub-required")
@pytest.mark.spec("tck-id-message-flow-phid-sparkplug-subscription")
@pytest.mark.spec("tck-id-message-flow-phid-sparkplug-state-publish")
@pytest.mark.spec("tck-id-message-flow-phid-sparkplug-state-publish-payload")
@pytest.mark.spec("tck-id-message-flow-phid-sparkplug-state-publish-payload-timestamp")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-birth")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-birth-topic")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-birth-payload")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-birth-qos")
@pytest.mark.spec("tck-id-operational-behavior-host-application-connect-birth-retained")
@pytest.mark.spec("tck-id-payloads-state-birth")
@pytest.mark.spec("tck-id-payloads-state-birth-payload")
@pytest.mark.spec("tck-id-payloads-state-subscribe")
def test_it_subscribes_first_and_then_says_online_with_the_time_of_its_will(tmp_path: Path) -> None:
    rig = play(tmp_path, nothing)
    assert len(rig.connector.wills) == 1
    (connect, (what, filters), birth, *_) = rig.connector.did
    assert connect == ("connect", CLIENT)
    assert what == "subscribe"
    assert STATE in [topic for topic, _ in filters]
    assert {topic.split("/")[2] for topic, _ in filters if topic != STATE} == {
        "NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA",
    }  # fmt: skip
    assert birth == ("publish", (STATE, encode_state(online=True, timestamp_ms=1_000_000), 1, True))


@pytest.mark.spec("tck-id-message-flow-hid-sparkplug-state-message-delivered")
def test_an_offline_state_of_its_own_is_answered_with_online_at_once(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.publish([(STATE, encode_state(online=False, timestamp_ms=999_000))], "ghost")
        assert rig.states[-1] == HostState(True, 1_000_000)
        await rig.publish([(STATE, b"OFFLINE")], "an old host")
        assert rig.connector.did[-1][1][1] == encode_state(online=True, timestamp_ms=1_000_000)

    def deaf(rig: Rig) -> None:
        saw = rig._saw
        rig._saw = lambda message: saw(message) if message.payload != b"OFFLINE" else None  # type: ignore[method-assign]

    play(tmp_path, story, before=deaf)


def test_what_an_earlier_run_left_retained_does_not_stand(tmp_path: Path) -> None:
    def before(rig: Rig) -> None:
        rig.broker.retained[STATE] = encode_state(online=False, timestamp_ms=5)

    rig = play(tmp_path, nothing, before=before)
    assert HostState(True, 1_000_000) in rig.states


@pytest.mark.spec("tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean")
@pytest.mark.spec("tck-id-operational-behavior-host-application-disconnect-intentional")
@pytest.mark.spec("tck-id-operational-behavior-host-application-termination")
@pytest.mark.spec("tck-id-operational-behavior-host-application-death-topic")
@pytest.mark.spec("tck-id-operational-behavior-host-application-death-payload")
@pytest.mark.spec("tck-id-operational-behavior-host-application-death-qos")
@pytest.mark.spec("tck-id-operational-behavior-host-application-death-retained")
@pytest.mark.spec("tck-id-conformance-primary-host")
@pytest.mark.spec("tck-id-intro-sparkplug-host-state")
@pytest.mark.spec("tck-id-components-ph-state")
def test_an_orderly_end_says_offline_itself_and_its_will_is_void(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        rig.wall_ms += 5_000
        await rig.stop()

    rig = play(tmp_path, story)
    assert rig.connector.did[-1] == ("publish", (STATE, b'{"online":false,"timestamp":1005000}', 1, True))
    assert decode_state(rig.broker.retained[STATE]) == HostState(False, 1_005_000)
    assert [state.online for state in rig.states].count(False) == 1
    assert CLIENT not in rig.broker.clients


@pytest.mark.spec("tck-id-principles-birth-certificates-order")
@pytest.mark.spec("tck-id-host-topic-phid-birth-message")
@pytest.mark.spec("tck-id-operational-behavior-primary-application-state-with-multiple-servers-state")
def test_the_first_word_of_every_session_is_its_birth_even_where_another_core_may_be(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(2)
        rig.broker.kill(CLIENT)
        await asyncio.sleep(1)

    def before(rig: Rig) -> None:
        rig.source._alone = False
        rig.broker.retained[STATE] = encode_state(online=True, timestamp_ms=5)  # a core that died without a word

    rig = play(tmp_path, story, before=before)
    sessions = [at for at, (what, whom) in enumerate(rig.connector.did) if (what, whom) == ("connect", CLIENT)]
    assert len(sessions) == 2
    for at in sessions:
        first = next(said for what, said in rig.connector.did[at:] if what == "publish")
        assert (first[0], decode_state(first[1]).online) == (STATE, True)


def test_the_time_of_a_later_session_is_later_whatever_the_wall_clock_does(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        rig.wall_ms -= 3_600_000
        rig.broker.kill(CLIENT)
        await asyncio.sleep(1)

    rig = play(tmp_path, story)
    first, second = (decode_state(will.payload).timestamp_ms for will in rig.connector.wills)
    assert second > first
    assert rig.states[-2] == HostState(True, second), "before the offline of the stop"


# -- links -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F30")
def test_a_broker_that_is_not_there_is_waited_for_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(60)
        assert not connected(rig)
        rig.broker.start()
        await asyncio.sleep(3)
        assert connected(rig)

    def before(rig: Rig) -> None:
        rig.start = lambda: start_alone(rig)  # type: ignore[method-assign]
        rig.broker.stop()

    async def start_alone(rig: Rig) -> None:
        rig.observer = asyncio.ensure_future(asyncio.sleep(0))
        rig.task = asyncio.ensure_future(rig.source.run())

    play(tmp_path, story, before=before)
    assert caplog.text.count("core waits") == 1


@pytest.mark.fault("F30")
def test_a_lost_link_is_made_anew_and_every_session_is_unknown_until_its_birth(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        edge = Edge()
        await rig.publish(edge.born())
        await rig.bench.cycle()
        assert online(rig)
        rig.broker.kill(CLIENT)
        await asyncio.sleep(0.5)
        assert connected(rig)
        assert not online(rig)
        await rig.publish(edge.scan({LEVEL: 3.0}))
        await rig.bench.cycle()
        await asyncio.sleep(0.1)
        assert [command.rebirth for _, _, command in rig.commands] == [True]

    play(tmp_path, story)


def test_a_refused_client_and_refused_filters_are_retried(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert not connected(rig)
        rig.broker.refused_clients.clear()
        rig.broker.refused_filters.add(f"spBv1.0/{GROUP}/DDATA/+/+")
        await asyncio.sleep(10)
        assert not connected(rig)
        assert HostState(True, 1_000_000) not in rig.states
        rig.broker.refused_filters.clear()
        await asyncio.sleep(10)
        assert connected(rig)

    play(tmp_path, story, before=lambda rig: rig.broker.refused_clients.add(CLIENT))


def test_messages_reach_the_loop_as_they_came(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.publish(Edge().born())
        await rig.bench.cycle()
        assert rig.bench.machine.node("E1").online
        await rig.publish([("spBv1.0/OTHER/NBIRTH/E1", b"x"), ("spBv1.0/PARK1/NCMD/E1", b"x")])
        assert not rig.bench.loop._inbox, "no other group, and no commands"

    play(tmp_path, story)


# -- acks and rebirths ---------------------------------------------------------------------------------------------


def acks(rig: Rig) -> list[tuple[float, tuple[tuple[int, int], ...]]]:
    return [(at, command.acknowledged) for at, _, command in rig.commands if command.acknowledged]


def test_live_frames_are_acknowledged_at_most_once_a_second(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        edge = Edge()
        rig.bench.deliver(edge.born())
        for _ in range(50):
            rig.bench.deliver(edge.scan({LEVEL: 3.0}))
            await rig.bench.cycle(100)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        told = acks(rig)
        times = [at for at, _ in told]
        assert 5 <= len(told) <= 7
        assert all(later - earlier >= 0.99 for earlier, later in pairwise(times))
        assert told[-1][1] == ((edge.live, 52),)
        assert rig.bench.loop.counters.acks_sent == len(told)

    play(tmp_path, story)


def test_backlog_is_acknowledged_with_every_commit(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        edge = Edge()
        rig.bench.deliver(edge.born())
        await rig.bench.cycle()
        edge.session_lost()
        sealed = edge.live
        for _ in range(6):
            edge.offline_scan({LEVEL: 3.0})
        rig.bench.deliver(edge.born())
        await rig.bench.cycle()
        await asyncio.sleep(1.5)
        rig.commands.clear()
        for message in edge.backlog(frames_max=2):
            rig.bench.deliver([message])
            await rig.bench.cycle()
            await asyncio.sleep(0.02)
        uptos = [upto for _, rows in acks(rig) for stream, upto in rows if stream == sealed]
        assert uptos == [2, 4, 6]
        assert acks(rig)[-1][0] - acks(rig)[0][0] < 0.5

    play(tmp_path, story)


@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-name")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-value")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-verb")
@pytest.mark.spec("tck-id-topics-ncmd-topic")
@pytest.mark.spec("tck-id-payloads-ncmd-timestamp")
@pytest.mark.spec("tck-id-payloads-ncmd-seq")
def test_a_rebirth_is_asked_for_by_ncmd_at_once(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        edge = Edge()
        edge.born()
        await rig.publish(edge.scan({LEVEL: 3.0}))
        await rig.bench.cycle()
        await asyncio.sleep(0.01)
        ((_, node, command),) = rig.commands
        assert (node, command) == ("E1", Command(1_000_000, True, (), ()))

    rig = play(tmp_path, story)
    sent = [facts for what, facts in rig.connector.did if what == "publish" and "NCMD" in facts[0]]
    assert [(topic, retain) for topic, _, _, retain in sent] == [(address(MessageKind.NCMD, "E1"), False)]


@pytest.mark.spec("tck-id-payloads-ncmd-qos")
@pytest.mark.spec("tck-id-payloads-ncmd-retain")
@pytest.mark.spec("tck-id-topics-ncmd-mqtt")
@pytest.mark.spec("tck-id-topics-ncmd-timestamp")
@pytest.mark.spec("tck-id-topics-ncmd-payload")
@pytest.mark.spec("tck-id-payloads-name-cmd-requirement")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-verb")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-metric-name")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-metric-value")
def test_every_command_is_an_ncmd_that_writes_what_the_nodes_birth_declared(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        edge = Edge()
        edge.born()
        await rig.publish(edge.scan({LEVEL: 3.0}))  # unborn: a rebirth is asked for
        await rig.publish(edge.born())
        await rig.bench.cycle()
        await asyncio.sleep(1.5)

    rig = play(tmp_path, story)
    _, birth = Messages(Identity(GROUP, "E1", HOST), small_table()).node_birth(0, NodeFacts(7, 0, 0, 0, (), False, True, 0), 1)
    declared = {metric.name: metric.datatype for metric in decode_payload(birth).metrics}
    sent = [said for what, said in rig.connector.did if what == "publish" and said[0] != STATE]
    assert {(topic, qos, retain) for topic, _, qos, retain in sent} == {(address(MessageKind.NCMD, "E1"), 0, False)}
    written = [metric for _, payload, _, _ in sent for metric in decode_payload(payload).metrics]
    assert {metric.name for metric in written} == {REBIRTH, SPOOL_ACKNOWLEDGE}
    assert all(metric.datatype == declared[metric.name] and metric.timestamp_ms == 1_000_000 for metric in written)
    assert [decode_payload(payload).timestamp_ms for _, payload, _, _ in sent] == [1_000_000] * len(sent)


def test_nodes_that_were_born_before_core_listened_are_asked_for_their_births(tmp_path: Path) -> None:
    """One that does not wait for its host and reports by exception would say nothing until its values change."""

    async def story(rig: Rig) -> None:
        await rig.publish(Edge("E2").born())
        for _ in range(100):
            await rig.bench.cycle(100)
            await asyncio.sleep(0.1)
        assert [node for at, node, command in rig.commands if command.rebirth and at > 1] == ["E1", "E1"]
        await rig.publish(Edge("E1").born())
        rig.commands.clear()
        for _ in range(100):
            await rig.bench.cycle(1_000)
            await asyncio.sleep(1)
        assert not [command for _, _, command in rig.commands if command.rebirth]

    play(tmp_path, story)


def test_many_streams_are_acknowledged_in_commands_of_bounded_size(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        count = 2 * ACKNOWLEDGE_ROWS_MAX + 5
        rig.bench.loop.acks = {("E1", stream): 7 for stream in range(1, count + 1)}
        rig.bench.loop.acks_wake.set()
        await asyncio.sleep(1.5)
        rows = [row for _, part in acks(rig) for row in part]
        assert sorted(rows) == [(stream, 7) for stream in range(1, count + 1)]
        assert max(len(part) for _, part in acks(rig)) <= ACKNOWLEDGE_ROWS_MAX

    play(tmp_path, story)


def test_an_ack_that_becomes_due_while_another_is_being_sent_is_not_forgotten(tmp_path: Path) -> None:
    async def story(rig: Rig) -> None:
        rig.bench.loop.acks = {("E1", 1): 1}
        rig.bench.loop.acks_wake.set()
        await asyncio.sleep(0)
        rig.bench.loop.acks["E1", 2] = 5
        rig.bench.loop.acks_wake.set()
        await asyncio.sleep(3)
        assert {row for _, part in acks(rig) for row in part} == {(1, 1), (2, 5)}

    play(tmp_path, story)
