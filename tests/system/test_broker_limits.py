"""Core and edge on a real broker that carries nothing more, or that lets everybody speak for himself alone."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import export_edge
from edge import run_edge
from edge.app import point_table
from edge.poll import Sink
from edge.scan import Scan
from gateway.core import HEARTBEAT_NAME, Core, own_trouble
from tests.brokers import Broker, running
from tests.gateway.field import DEVICE_OF, GOOD, LEVEL, T0_MS, device_birth, node_birth, site
from wire import (
    AioMqttConnector,
    BrokerAddress,
    DataType,
    Metric,
    encode_acknowledge,
    encode_payload,
    encode_rebirth,
    encode_state,
)

pytestmark = [pytest.mark.system, pytest.mark.needs("mosquitto"), pytest.mark.timeout(300)]

WAIT_S = 60.0
ACL = Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl.example"
OWN_USER = f"user {getpass.getuser()}"  # else one started by root becomes nobody, who may not read this folder again
PASSWORDS = {"gateway": "correct horse", "E1": "battery staple", "E2": "tape measure"}


class Hand:
    """A field side: `give` reads what it is told to."""

    def __init__(self, edge_file: Any) -> None:
        self._table = point_table(edge_file)
        self._sink: Sink | None = None
        self.given: list[tuple[int, float]] = []

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        await asyncio.Event().wait()

    def give(self, tag: str, value: float, at_ms: int) -> None:
        assert self._sink is not None
        point = next(at for at, each in enumerate(self._table.points) if each.tag == tag)
        values = np.array([value])
        self.given.append((at_ms, value))
        self._sink(Scan(self._table.devices.index(DEVICE_OF[tag]), np.array([point], np.int32), values.view(np.uint64), values,
                        np.array([GOOD], np.uint8), np.array([at_ms], np.int64)))  # fmt: skip


class Yard:
    """A core and edge E1 on one broker, in this process."""

    def __init__(self, folder: Path, broker: Broker, *, accounts: bool = False) -> None:
        self.folder, self.broker, self._accounts = folder, broker, accounts
        self.edge_file = export_edge(site(), "E1")
        self.hand = Hand(self.edge_file)
        self._stop = asyncio.Event()

    def connector(self, user: str) -> AioMqttConnector:
        named = (user, PASSWORDS[user]) if self._accounts else ()
        return AioMqttConnector(BrokerAddress(self.broker.host, self.broker.port, *named))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Core]:
        core = Core(site(receivers=0), self.folder / "core", self.connector("gateway"), {}, self.folder)
        tasks = [
            asyncio.create_task(core.run(self._stop), name="core"),
            asyncio.create_task(
                run_edge(self.edge_file, self.folder / "edge", self._stop, self.connector("E1"), field_side=self.hand), name="edge"
            ),
        ]
        try:
            await self.until(lambda: bool(self.status().get("live")) and self.node()["online"], "E1 is live")
            yield core
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    def status(self) -> dict[str, Any]:
        return _read(self.folder / "edge" / "status.json")

    def node(self) -> dict[str, Any]:
        nodes = _read(self.folder / "core" / HEARTBEAT_NAME).get("nodes", ())
        return next((node for node in nodes if node["node"] == "E1"), {"online": False})

    async def until(self, met: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not met():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s: {what}; {self.status()}; {self.node()}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def standing(core: Core) -> set[str]:
    return {alarm.tag for alarm in core.loop.machine.engine.alarms() if alarm.state.active}


def stored(core: Core) -> set[float]:
    """Every level that is in the ledger or on its way there, live or late."""
    rows = core._reader.rows("SELECT body FROM alarm")
    return {json.loads(body)["value"] for (body,) in rows}


@pytest.mark.fault("F31")
def test_a_broker_that_takes_no_more_blocks_the_transport_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosquitto drops what is over its limit and says nothing: to both clients all is well, and nothing arrives."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(own_trouble, "EXPLAINS_MS", 0)  # core has only just started, which would explain it for a minute

    async def story(broker: Broker) -> None:
        yard = Yard(tmp_path, broker)
        async with yard.running() as core:
            before = core.loop.counters.samples_committed
            yard.hand.give(LEVEL, 3.0, T0_MS)
            await yard.until(lambda: core.loop.counters.samples_committed > before, "a sample is committed")
            await yard.until(lambda: not yard.status()["unfinished"], "and acknowledged")
            broker.settings += ["message_size_limit 20"]
            await asyncio.to_thread(broker.reload)
            committed = core.loop.counters.frames_committed
            for number in range(12):
                yard.hand.give(LEVEL, 12.0, T0_MS + 1_000 * number)
            await yard.until(lambda: yard.status()["transport_blocked_since_ms"] is not None, "the edge says so")
            assert (yard.status()["connected"], yard.status()["live"]) == (True, True)
            kept = sum(span["last"] - span["first"] + 1 for span in yard.status()["unfinished"])
            assert kept >= 12, "and keeps every frame"
            assert core.loop.counters.frames_committed == committed
            assert yard.node()["online"], "the gateway cannot see what does not arrive"
            broker.settings.pop()
            await asyncio.to_thread(broker.reload)
            yard.hand.give(LEVEL, 13.0, T0_MS + 20_000)
            await yard.until(lambda: "EDGE.E1.TRANSPORT" in standing(core), "with its next births the gateway knows")
            await yard.until(lambda: "EDGE.E1.TRANSPORT" not in standing(core), "and that it is over")
            await yard.until(lambda: not yard.status()["unfinished"], "everything kept is acknowledged")
            assert yard.status()["transport_blocked_since_ms"] is None
            assert yard.status()["samples_taken"] == yard.status()["samples_acked"]
            assert core._reader.rows("SELECT count(*) FROM loss") == [(0,)]
            assert LEVEL in standing(core)

    with running("mosquitto", tmp_path / "broker") as broker:
        broker.settings.append(OWN_USER)
        asyncio.run(_restarted(broker, story))
    words = ("transport blocked", "acknowledgements come again")
    said = [word for record in caplog.records for word in words if word in record.getMessage()]
    assert said == [*words] * (len(said) // 2) != [], "each once, in turn; a slow machine may have blocked it once more"


@pytest.mark.fault("F60")
@pytest.mark.fault("F61")
def test_under_the_documented_acl_ours_work_and_an_edge_can_speak_for_nobody_else(tmp_path: Path) -> None:
    passwords, acl = tmp_path / "passwd", tmp_path / "acl"
    acl.write_text(ACL.read_text())
    acl.chmod(0o600)
    passwords.touch(0o600)
    for user, password in PASSWORDS.items():
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, password], check=True, timeout=60)

    async def story(broker: Broker) -> None:
        yard = Yard(tmp_path, broker, accounts=True)
        async with yard.running() as core:
            yard.hand.give(LEVEL, 12.0, T0_MS)
            await yard.until(lambda: LEVEL in standing(core), "the level's alarm stands")
            await yard.until(lambda: not yard.status()["unfinished"], "the edge is acknowledged")
            refused_before, births = core.loop.counters.refused, yard.status()["refused"]
            stream = yard.status()["stream"]
            yard.hand.give(LEVEL, 12.5, T0_MS + 1_000)
            async with yard.connector("E2").connect("an-edge-gone-bad") as link:
                await link.publish("spBv1.0/PARK1/NBIRTH/E1", node_birth(9), 1)
                await link.publish("spBv1.0/PARK1/DBIRTH/E1/TANK", device_birth(1, {LEVEL: 3.0}), 1)
                await link.publish("spBv1.0/PARK1/NDEATH/E1", encode_payload(T0_MS, None, []), 1)
                await link.publish("spBv1.0/PARK1/NBIRTH/E9", node_birth(9), 1)
                await link.publish("spBv1.0/PARK1/NCMD/E1", encode_acknowledge(T0_MS, [(stream, 1_000)]), 1)
                await link.publish("spBv1.0/PARK1/NCMD/E1", encode_rebirth(T0_MS), 1)
                write = Metric(LEVEL, timestamp_ms=T0_MS, datatype=DataType.DOUBLE, value=0.0)
                await link.publish("spBv1.0/PARK1/DCMD/E1/TANK", encode_payload(T0_MS, None, [write]), 1)
                await link.publish("spBv1.0/STATE/HAZARDGATE", encode_state(False, 2 * T0_MS), 1)
                # What it may say goes the same way behind all that, so once this is heard, all that was refused.
                await link.publish("spBv1.0/PARK1/NBIRTH/E2", node_birth(9), 1)
                await link.publish("spBv1.0/PARK1/DBIRTH/E2/PUMP", device_birth(1, {LEVEL: 3.0}), 1)
                await yard.until(lambda: "E2" in {name for name, node in core.loop.machine.nodes.items() if node.online},
                                 "its own birth is heard")  # fmt: skip
            assert LEVEL in standing(core)
            assert yard.status()["stream"] == stream, "no birth was forced, no session lost"
            assert yard.status()["refused"] == births
            assert core.loop.counters.refused == refused_before
            assert "EDGE.E1.IDENTITY" not in standing(core)
            keys = {alarm.tag for alarm in core.loop.machine.engine.alarms()}
            assert "SECURITY.NODE.UNKNOWN" not in keys
            await yard.until(lambda: "SECURITY.E2.TRESPASS" in {alarm.tag for alarm in core.loop.machine.engine.alarms()},
                             "what it may publish it may not claim")  # fmt: skip

    with running("mosquitto", tmp_path / "broker") as broker:
        broker.settings = [OWN_USER, "allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}"]
        asyncio.run(_restarted(broker, story))


async def _restarted(broker: Broker, story: Callable[[Broker], Any]) -> None:
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)
    await story(broker)
