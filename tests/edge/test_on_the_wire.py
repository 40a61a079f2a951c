"""One long story of an edge at its broker, and what the specification asks of every packet in it.

The edge begins without a host, gets one, is asked for births, loses the host, gets it back and is stopped. A spy on its
connector notes what it did, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.edge.fakes import GROUP, HOST, NODE, virtual
from tests.edge.test_uplink import site_at
from wire import (
    BDSEQ,
    SPOOL_BLOCK,
    DataType,
    MemoryBroker,
    MemoryConnector,
    MessageKind,
    Will,
    encode_rebirth,
    parse_topic,
    state_topic,
)
from wire import sparkplug_pb2 as pb

STATE = state_topic(HOST)
BIRTHS = (MessageKind.NBIRTH, MessageKind.DBIRTH)
DATA = (MessageKind.NDATA, MessageKind.DDATA)
SENDING_MS_MAX = 200  # births wait for the disk, but not longer than this


@dataclass(frozen=True)
class Did:
    """One step of the edge. `what`: connect, subscribe, publish, leave (in order) or cut."""

    what: str
    at_ms: int
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    filters: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> MessageKind:
        return parse_topic(self.topic).kind

    @property
    def decoded(self) -> Any:
        return pb.Payload.FromString(self.payload)


class Spying(MemoryConnector):
    """Notes what is done over its links."""

    def __init__(self, broker: MemoryBroker, wall_ms: Any) -> None:
        super().__init__(broker)
        self.did: list[Did] = []
        self._wall_ms = wall_ms

    @asynccontextmanager
    async def connect(self, client_id: str, will: Will | None = None) -> Any:
        try:
            async with super().connect(client_id, will) as link:
                assert will is not None
                self._note("connect", will.topic, will.payload, will.qos, will.retain)
                spied: Any = link
                subscribe, publish = spied.subscribe, spied.publish

                async def noted_subscribe(filters: Any) -> None:
                    self._note("subscribe", filters=tuple(filters))
                    await subscribe(filters)

                async def noted_publish(topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
                    self._note("publish", topic, payload, qos, retain)
                    await publish(topic, payload, qos, retain)

                spied.subscribe, spied.publish = noted_subscribe, noted_publish
                yield link
        except BaseException:
            self._note("cut")
            raise
        self._note("leave")

    def _note(self, what: str, *facts: Any, **more: Any) -> None:
        self.did.append(Did(what, self._wall_ms(), *facts, **more))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Did]:
    """The story, played once."""
    seen: list[Did] = []

    async def scenario(folder: Path) -> None:
        async with site_at(folder) as site:
            spy = Spying(site.broker, site.world.wall_ms)
            site.connector = spy
            site.start_edge()
            await asyncio.sleep(1)
            await site.sample(10)  # nobody is there: this becomes backlog, sent as NDATA
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(6, 20)
            await site.gateway.command(encode_rebirth(site.world.wall_ms()))
            await site.sample(3, 30)
            await site.kill_gateway()
            await site.sample(3, 50)
            site.start_gateway()
            await asyncio.sleep(5)
            site.broker.kill(f"{GROUP}-{NODE}")
            await asyncio.sleep(5)
            await site.sample(300, 60)
            await site.stop_edge()
            assert site.missing() == []
            assert set(site.broker.retained) == {STATE}, "nothing of the edge is retained"
            seen.extend(spy.did)

    virtual(lambda: scenario(tmp_path_factory.mktemp("wire")))
    kinds = {did.kind for did in seen if did.what == "publish"}
    assert kinds == {*BIRTHS, *DATA, MessageKind.NDEATH}, "the story shows every message of an edge"
    assert [did.what for did in seen].count("connect") >= 3
    return seen


def published(told: list[Did], *kinds: MessageKind) -> list[Did]:
    found = [did for did in told if did.what == "publish" and did.kind in kinds]
    assert found
    return found


def sessions(told: list[Did]) -> Iterator[list[Did]]:
    """The steps of every connection, from its connect on."""
    starts = [at for at, did in enumerate(told) if did.what == "connect"]
    for at, end in pairwise([*starts, len(told)]):
        yield told[at:end]


# -- sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-connect")
@pytest.mark.spec("tck-id-principles-birth-certificates-order")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-nbirth-wait")
@pytest.mark.spec("tck-id-payloads-dbirth-order")
@pytest.mark.spec("tck-id-payloads-ndata-order")
@pytest.mark.spec("tck-id-payloads-ddata-order")
def test_every_session_connects_subscribes_and_is_born_before_it_says_anything_else(told: list[Did]) -> None:
    born = 0
    for session in sessions(told):
        assert [did.what for did in session[:2]] == ["connect", "subscribe"]
        assert {did.what for did in session[2:]} <= {"subscribe", "publish", "leave", "cut"}
        kinds = [did.kind for did in session if did.what == "publish"]
        if kinds:
            born += 1
            assert kinds[:3] == [MessageKind.NBIRTH, MessageKind.DBIRTH, MessageKind.DBIRTH]
    assert born >= 3


@pytest.mark.spec("tck-id-operational-behavior-primary-application-state-with-multiple-servers-single-server")
def test_a_link_is_over_before_the_next_one_begins(told: list[Did]) -> None:
    turns = [did.what for did in told if did.what in ("connect", "leave", "cut")]
    assert turns == ["connect", *turns[1:-1], turns[-1]]
    assert all((before == "connect") != (after == "connect") for before, after in pairwise(turns))


@pytest.mark.spec("tck-id-message-flow-edge-node-ncmd-subscribe")
def test_it_listens_to_its_own_commands_and_its_host_and_to_nothing_else(told: list[Did]) -> None:
    for session in sessions(told):
        first, *more = [did.filters for did in session if did.what == "subscribe"]
        assert first == ((f"spBv1.0/{GROUP}/NCMD/{NODE}", 1), (STATE, 1))
        assert {topic for filters in more for topic, _ in filters} <= {f"spBv1.0/{GROUP}/DCMD/{NODE}/+"}, "to refuse them"


@pytest.mark.spec("tck-id-payloads-ndeath-will-message-publisher")
@pytest.mark.spec("tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-intentional-disconnect-packet")
def test_it_leaves_with_its_death_as_the_last_word(told: list[Did]) -> None:
    left = [session for session in sessions(told) if session[-1].what == "leave" and len(session) > 3]
    assert len(left) >= 2
    for session in left:
        last = session[-2]
        assert (last.what, last.kind) == ("publish", MessageKind.NDEATH)
        assert [metric.long_value for metric in last.decoded.metrics] == [session[0].decoded.metrics[0].long_value]


@pytest.mark.spec("tck-id-payloads-nbirth-bdseq-repeat")
def test_births_repeat_the_number_of_the_will(told: list[Did]) -> None:
    for session in sessions(told):
        will = session[0].decoded.metrics[0].long_value
        for birth in (did for did in session if did.what == "publish" and did.kind is MessageKind.NBIRTH):
            assert [metric.long_value for metric in birth.decoded.metrics if metric.name == BDSEQ] == [will]


# -- every message -----------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-topics-nbirth-mqtt")
@pytest.mark.spec("tck-id-payloads-nbirth-qos")
@pytest.mark.spec("tck-id-payloads-nbirth-retain")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-retained")
@pytest.mark.spec("tck-id-topics-dbirth-mqtt")
@pytest.mark.spec("tck-id-payloads-dbirth-qos")
@pytest.mark.spec("tck-id-payloads-dbirth-retain")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-qos")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-retained")
@pytest.mark.spec("tck-id-topics-ndata-mqtt")
@pytest.mark.spec("tck-id-payloads-ndata-qos")
@pytest.mark.spec("tck-id-payloads-ndata-retain")
@pytest.mark.spec("tck-id-topics-ddata-mqtt")
@pytest.mark.spec("tck-id-payloads-ddata-qos")
@pytest.mark.spec("tck-id-payloads-ddata-retain")
def test_births_and_data_go_at_qos_0_and_are_not_retained(told: list[Did]) -> None:
    assert {(did.qos, did.retain) for did in published(told, *BIRTHS, *DATA)} == {(0, False)}


@pytest.mark.spec("tck-id-payloads-nbirth-timestamp")
@pytest.mark.spec("tck-id-topics-nbirth-timestamp")
@pytest.mark.spec("tck-id-payloads-dbirth-timestamp")
@pytest.mark.spec("tck-id-topics-dbirth-timestamp")
@pytest.mark.spec("tck-id-payloads-ndata-timestamp")
@pytest.mark.spec("tck-id-topics-ndata-timestamp")
@pytest.mark.spec("tck-id-payloads-ddata-timestamp")
@pytest.mark.spec("tck-id-topics-ddata-timestamp")
@pytest.mark.spec("tck-id-payloads-timestamp-in")
def test_every_message_says_when_it_was_sent(told: list[Did]) -> None:
    for did in published(told, *BIRTHS, *DATA):
        assert did.decoded.HasField("timestamp")
        assert 0 <= did.at_ms - did.decoded.timestamp <= SENDING_MS_MAX


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-payload-seq")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-payload-seq")
@pytest.mark.spec("tck-id-payloads-ndata-seq")
@pytest.mark.spec("tck-id-payloads-sequence-num-incrementing")
def test_every_message_but_a_death_has_the_next_number(told: list[Did]) -> None:
    expected, wrapped = 0, False
    for did in published(told, *BIRTHS, *DATA):
        assert did.decoded.HasField("seq")
        wrapped |= expected == 256
        expected = 0 if did.kind is MessageKind.NBIRTH else expected % 256
        assert did.decoded.seq == expected
        expected += 1
    assert wrapped, "the story is long enough to pass 255"


@pytest.mark.spec("tck-id-operational-behavior-data-publish-nbirth-order")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-dbirth-order")
@pytest.mark.spec("tck-id-payloads-name-birth-data-requirement")
def test_what_is_newer_stands_behind_what_is_older(told: list[Did]) -> None:
    apart = 0
    for did in published(told, *BIRTHS, *DATA):
        stamps = [metric.timestamp for metric in did.decoded.metrics]
        assert all(metric.HasField("timestamp") for metric in did.decoded.metrics)
        assert stamps == sorted(stamps)
        apart += len(set(stamps)) > 1
    assert apart, "not all samples of all messages are of one moment"


# -- what births declare --------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-payload")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-payload")
@pytest.mark.spec("tck-id-topics-nbirth-metrics")
@pytest.mark.spec("tck-id-topics-dbirth-metrics")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-nbirth-values")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-dbirth-values")
@pytest.mark.spec("tck-id-payloads-metric-datatype-req")
@pytest.mark.spec("tck-id-payloads-metric-datatype-value")
@pytest.mark.spec("tck-id-payloads-metric-datatype-value-type")
def test_a_birth_gives_every_metric_with_name_type_and_value_or_null(told: list[Did]) -> None:
    nulls = 0
    for did in published(told, *BIRTHS):
        for metric in did.decoded.metrics:
            assert metric.name
            assert metric.HasField("datatype")
            assert 0 < metric.datatype <= max(DataType)
            assert (metric.WhichOneof("value") is None) == metric.is_null
            nulls += metric.is_null
    assert nulls


@pytest.mark.spec("tck-id-payloads-metric-propertyvalue-type-req")
@pytest.mark.spec("tck-id-payloads-propertyset-quality-value-type")
@pytest.mark.spec("tck-id-payloads-propertyset-quality-value-value")
def test_a_birth_gives_every_property_with_its_type(told: list[Did]) -> None:
    properties = [
        (key, value)
        for did in published(told, *BIRTHS)
        for metric in did.decoded.metrics
        for key, value in zip(metric.properties.keys, metric.properties.values, strict=True)
    ]
    assert {(key, value.type, value.WhichOneof("value")) for key, value in properties} == {
        ("Quality", 3, "int_value"), ("QualityDetail", 3, "int_value")}
    assert {value.int_value for key, value in properties if key == "Quality"} == {0}


@pytest.mark.spec("tck-id-topics-nbirth-metric-reqs")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-nbirth")
def test_an_nbirth_declares_every_metric_that_ndata_ever_carry(told: list[Did]) -> None:
    declared: set[str] = set()
    carried: set[str] = set()
    for did in published(told, MessageKind.NBIRTH, MessageKind.NDATA):
        names = {metric.name for metric in did.decoded.metrics}
        if did.kind is MessageKind.NBIRTH:
            declared = names
        assert names <= declared
        carried |= names if did.kind is MessageKind.NDATA else set()
    assert carried == {SPOOL_BLOCK}


@pytest.mark.spec("tck-id-topics-dbirth-metric-reqs")
@pytest.mark.spec("tck-id-operational-behavior-data-publish-dbirth")
@pytest.mark.spec("tck-id-payloads-alias-uniqueness")
def test_a_dbirth_declares_every_metric_that_its_devices_ddata_ever_carry(told: list[Did]) -> None:
    declared: dict[str, set[str | int]] = {}
    for did in published(told, MessageKind.DBIRTH, MessageKind.DDATA):
        metrics, device = did.decoded.metrics, parse_topic(did.topic).device
        assert device is not None
        if did.kind is MessageKind.DBIRTH:
            declared[device] = {metric.alias if metric.HasField("alias") else metric.name for metric in metrics}
        assert {metric.alias if metric.HasField("alias") else metric.name for metric in metrics} <= declared[device]
    of_device = [{alias for alias in names if isinstance(alias, int)} for names in declared.values()]
    assert sum(map(len, of_device)) == len(set().union(*of_device)) == 3


@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-action-2")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-rebirth-action-3")
def test_a_rebirth_is_whole_and_of_the_same_session(told: list[Did]) -> None:
    twice = [session for session in sessions(told) if sum(
        did.what == "publish" and did.kind is MessageKind.NBIRTH for did in session) >= 2]
    assert twice
    for session in twice:
        kinds = [did.kind for did in session if did.what == "publish"]
        runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
        after = [run for before, run in pairwise(runs) if before[0] is MessageKind.NBIRTH]
        assert set(after) == {(MessageKind.DBIRTH, 2)}
