"""The edge among others who may enter the broker: commands it does not obey, a twin of its own name, a broker that keeps all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.node import REFUSALS_LOGGED_MAX
from tests.edge.fakes import GROUP, NODE, START_MS, virtual
from tests.edge.test_uplink import CLIENT, site_at
from wire import (
    COMMANDS_REFUSED,
    TRANSPORT_BLOCKED,
    DataType,
    LinkLostError,
    MemoryConnector,
    Message,
    MessageKind,
    Metric,
    Payload,
    encode_payload,
    encode_rebirth,
)

DCMD = f"spBv1.0/{GROUP}/DCMD/{NODE}/D1"
NCMD = f"spBv1.0/{GROUP}/NCMD/{NODE}"
WRITE = encode_payload(START_MS, None, [Metric("T1.P1\r\nforged", timestamp_ms=START_MS, datatype=DataType.DOUBLE, value=9.9)])


def told(payloads: list[Payload], name: str) -> list[object]:
    return [metric.value for payload in payloads for metric in payload.metrics if metric.name == name]


@pytest.mark.fault("F61")
def test_commands_are_refused_logged_counted_and_told_to_the_gateway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            births = len(site.gateway.of_kind(MessageKind.NBIRTH))
            async with MemoryConnector(site.broker).connect("intruder") as link:
                for _ in range(50):
                    await link.publish(DCMD, WRITE)
                    await link.publish(NCMD, WRITE)
                    await link.publish(DCMD, encode_rebirth(START_MS))
                await asyncio.sleep(2)
                assert site.status()["refused"] == 150
                await asyncio.sleep(70)
                await link.publish(DCMD, WRITE)
                await asyncio.sleep(60)
            assert site.status()["refused"] == 151
            assert len(site.gateway.of_kind(MessageKind.NBIRTH)) == births, "none of them was obeyed"
            assert told(site.gateway.of_kind(MessageKind.NDATA), COMMANDS_REFUSED) == [1, 150, 151]

    virtual(scenario)
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == REFUSALS_LOGGED_MAX + 2, "so many a minute, the number of the rest, and the one a minute later"
    assert all(line.isprintable() for line in lines)
    assert lines[REFUSALS_LOGGED_MAX] == f"refused, nothing was done: {150 - REFUSALS_LOGGED_MAX} more commands"
    assert "DCMD D1: T1.P1" in lines[0]


@pytest.mark.fault("F61")
def test_a_broker_that_lets_nobody_read_device_commands_does_not_keep_the_edge_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.broker.refused_filters.add(f"spBv1.0/{GROUP}/DCMD/{NODE}/+")
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(3)
            await site.sample(5)
            await asyncio.sleep(2)
            assert site.status()["live"]
            assert site.missing() == []

    virtual(scenario)


def test_a_broker_that_ends_the_link_of_who_asks_for_device_commands_does_not_keep_the_edge_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some brokers answer a filter that is not allowed so, instead of refusing it."""

    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            subscribe = site.broker.subscribe

            def cuts(link: Any, filters: Sequence[tuple[str, int]]) -> None:
                if any("/DCMD/" in topic for topic, _ in filters):
                    site.broker.kill(CLIENT)
                    raise LinkLostError("broker", "not allowed")
                subscribe(link, filters)

            monkeypatch.setattr(site.broker, "subscribe", cuts)
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(10)
            await site.sample(100, 10)
            await site.stop_edge()
            assert site.missing() == []

    virtual(scenario)


@pytest.mark.fault("F31")
def test_a_broker_that_passes_nothing_on_is_a_blocked_transport_and_everything_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queue is full or its disk is: it takes messages, answers keepalives, and delivers none of an edge's."""

    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(3)
            await site.sample(5)
            assert site.status()["transport_blocked_since_ms"] is None

            def full(client: str, message: Message) -> float | None:
                return None if client == CLIENT else 0.0

            site.broker.inward = full
            at_ms = site.world.wall_ms()
            await site.sample(30, 5)
            status = site.status()
            assert (status["connected"], status["live"]) == (True, True), "to MQTT all is well"
            assert at_ms <= status["transport_blocked_since_ms"] <= at_ms + 2_000
            kept = sum(span["last"] - span["first"] + 1 for span in status["unfinished"])
            assert kept >= 30, "every frame since is kept"
            site.broker.inward = None
            await site.sample(60, 35)
            await asyncio.sleep(60)
            assert site.missing() == []
            assert site.status()["transport_blocked_since_ms"] is None
            assert site.status()["unfinished"] == []
            births = told(site.gateway.of_kind(MessageKind.NBIRTH), TRANSPORT_BLOCKED)
            assert (births[0], births[-1]) == (False, True), "the gateway is told with the first births that reach it"
            assert told(site.gateway.of_kind(MessageKind.NDATA), TRANSPORT_BLOCKED) == [False], "and of its end"

    virtual(scenario)
    lines = [record.getMessage() for record in caplog.records if record.name == "edge.node"]
    assert sum("transport blocked" in line for line in lines) == 1
    assert sum("acknowledgements come again" in line for line in lines) == 1


@pytest.mark.fault("F60")
def test_a_twin_with_the_same_client_id_is_noticed_and_costs_no_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(3)
            await site.sample(15)
            assert site.status()["sessions_cut_short"] == 0

            async def twin() -> None:
                while True:
                    with contextlib.suppress(Exception):
                        async with MemoryConnector(site.broker).connect(CLIENT) as link:
                            async for _ in link.messages():
                                pass
                    await asyncio.sleep(3)

            twins = asyncio.create_task(twin())
            await site.sample(60, 15)
            assert site.status()["sessions_cut_short"] >= 3
            twins.cancel()
            await asyncio.gather(twins, return_exceptions=True)
            await site.sample(60, 75)
            await asyncio.sleep(60)
            assert site.missing() == []

    with caplog.at_level(logging.ERROR):
        virtual(scenario)
    assert f"another client enters the broker as {CLIENT}" in caplog.text
