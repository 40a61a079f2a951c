"""Nobody's word but ours proves little: an edge node and a decoder that others wrote, over real brokers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alerting import State
from config import SiteConfig, dump_site
from gateway.core.entries import EntryKind, unpack_columns
from tests.system.chain import Chain, wait_until
from tests.system.sparkplug.peers import Peer, PeersMissingError, install
from wire import Quality, Reason, quality_code

pytestmark = [pytest.mark.system, pytest.mark.needs("node"), pytest.mark.needs("npm"), pytest.mark.timeout(600)]

REORDER_S = 0.5
OURS, THEIRS = "E1", "E2"
GOOD, BAD = quality_code(Quality.GOOD), Quality.BAD
STALE = quality_code(Quality.BAD, Reason.STALE)
SENT_MS_MAX = 60_000  # a busy machine stalls for seconds; a stamp that is not of the sending is older
OLD_MS_MAX = 600_000  # a birth repeats what was read since the start
FRAMES_COMPARED_MIN = 40
Alarms = dict[tuple[str, str], dict[str, Any]]


@dataclass
class Stage:
    """A chain whose second edge is not ours, and somebody else who reads along from the beginning."""

    chain: Chain
    decoder: Peer
    theirs: Peer

    def log(self, node: str, kind: EntryKind) -> list[tuple[Any, ...]]:
        sql = "SELECT device, stream, first, body FROM log WHERE node = ? AND kind = ? ORDER BY pos LIMIT 10000"
        return self.chain.rows(sql, (node, str(kind)))

    def last(self, tag: str) -> tuple[float, int, int] | None:
        """The newest (value, code, source_ms) of a tag in the ledger's frames of their node."""
        numbers = dict(self.chain.rows("SELECT name, id FROM tag LIMIT 1000"))
        found = None
        for _, _, _, body in self.log(THEIRS, EntryKind.FRAME):
            columns = unpack_columns(body)
            for row in (columns.tag == numbers.get(tag, -1)).nonzero()[0].tolist():
                found = (float(columns.value[row]), int(columns.code[row]), int(columns.source_ms[row]))
        return found

    def alarms(self) -> Alarms:
        rows = self.chain.rows("SELECT body FROM alarm LIMIT 1000")
        states = [json.loads(body) for (body,) in rows]
        return {(state["tag"], state["limit"]): state for state in states}

    def online(self, node: str) -> bool:
        return any(line["node"] == node and line["online"] for line in self.chain.heartbeat().get("nodes", ()))

    def states(self) -> list[dict[str, Any]]:
        """What the decoder read of the host's STATE."""
        return [line for line in list(self.decoder.lines) if line.get("topic", "").startswith("spBv1.0/STATE/")]

    def read(self, kind: str, node: str = OURS) -> list[dict[str, Any]]:
        """What the decoder read of one kind of message of one node."""
        lines = (line for line in list(self.decoder.lines) if "topic" in line)
        return [line for line in lines if line["topic"].split("/")[2:4] == [kind, node]]


def their_devices(site: SiteConfig) -> dict[str, list[dict[str, Any]]]:
    """What their node reports: the tags of our configuration under aliases and in types of its own choice."""
    types = {"WAVE": "Float", "COUNTER": "UInt16", "WALK": "Double", "GAS": "Double", "SLOW": "Int32", "DOOR": "Boolean"}
    values: dict[str, Any] = {"DOOR": False}
    devices: dict[str, list[dict[str, Any]]] = {}
    alias = 100
    for device in site.edge(THEIRS).devices:
        for point in device.points:
            alias += 7
            word = point.tag.rpartition(".")[2]
            devices.setdefault(device.id, []).append(
                {"name": point.tag, "alias": alias, "type": types[word], "value": values.get(word, 40)})
    return devices


def a_stage(folder: Path, broker: str, *, unheard: bool) -> Iterator[Stage]:
    """`unheard`: their node is born before core listens, so that core has to ask for its births."""
    chain = Chain(folder, broker=broker)
    peers: list[Peer] = []

    def peer(program: str, *arguments: str) -> Peer:
        peers.append(Peer(program, [str(chain.broker.port), *arguments], folder / "logs" / f"{program}.log"))
        return peers[-1]

    def their_node() -> Peer:
        node = peer("edge_node.js", chain.site.site, THEIRS, json.dumps(their_devices(chain.site)))
        node.wait(lambda: node.count(lambda line: line.get("event") == "born"), "their node is born")
        return node

    try:
        chain.site = chain.site.model_copy(update={"reorder_timeout_s": REORDER_S})
        chain.site_file.write_text(dump_site(chain.site), encoding="utf-8")
        del chain.edges[THEIRS]
        chain.start_world()
        decoder = peer("decoder.js")
        decoder.wait(lambda: decoder.lines, "the decoder listens")
        early = [their_node()] if unheard else []
        chain.core.start()
        chain.edges[OURS].start()
        chain.wait_healed()
        yield Stage(chain, decoder, *(early or [their_node()]))
    finally:
        for each in peers:
            each.end()
        chain.end()


@pytest.fixture(scope="module", autouse=True)
def packages() -> Path:
    """Installed once; a machine that can fetch nothing skips these tests by name."""
    try:
        return install()
    except PeersMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("nats-server", False), id="nats-server"),
        pytest.param(("mosquitto", True), marks=pytest.mark.needs("mosquitto"), id="mosquitto, born unheard"),
    ],
)
def stage(request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")  # no stamp may depend on where the box stands
        broker, unheard = request.param
        yield from a_stage(tmp_path_factory.mktemp(broker), broker, unheard=unheard)


def test_the_packages_come_without_the_name_of_a_registry(packages: Path) -> None:
    lock = json.loads((Path(__file__).parent / "package-lock.json").read_text("utf-8"))
    assert all("resolved" not in package for package in lock["packages"].values())
    assert (packages / "node_modules" / "sparkplug-client").is_dir()


@pytest.mark.fault("F24")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-param")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-rebirth")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-name")
@pytest.mark.spec("tck-id-operational-behavior-data-commands-ncmd-rebirth-value")
def test_an_edge_node_that_others_wrote_is_heard_asked_alarmed_and_mourned(stage: Stage) -> None:
    theirs = stage.theirs
    wave, counter, gas = f"{THEIRS}D1.WAVE", f"{THEIRS}D1.COUNTER", f"{THEIRS}D2.GAS"
    wait_until(lambda: stage.online(THEIRS), "their node was asked for its births")
    wait_until(lambda: (stage.last(counter) or (0,))[:2] == (40.0, GOOD), "the births' values are in the ledger")

    at_ms = int(time.time() * 1000)
    theirs.order("data", device=f"{THEIRS}D1", values={wave: 95.5, counter: 7}, at=at_ms)
    wait_until(lambda: stage.last(wave) == (95.5, GOOD, at_ms), "a value by alias, with its own stamp")
    assert stage.last(counter) == (7.0, GOOD, at_ms)
    wait_until(lambda: {(wave, "H"), (wave, "HH")} <= set(stage.alarms()), "it raised its alarms")
    wait_until(lambda: any(wave in json.dumps(message) for message in stage.chain.received()), "and they were delivered")

    theirs.order("data", device=f"{THEIRS}D2", values={gas: 11.0}, quality=0)
    wait_until(lambda: (stage.last(gas) or (0, GOOD))[1] & 0xC0 == BAD, "a quality of 0 is BAD")
    theirs.order("data", device=f"{THEIRS}D2", values={gas: 12.0}, quality=500)
    wait_until(lambda: (stage.last(gas) or (0, GOOD))[1] == STALE, "a quality of 500 is STALE")
    assert math.isnan(stage.last(gas)[0])  # type: ignore[index]
    theirs.order("data", device=f"{THEIRS}D2", values={gas: 13.0}, quality=192)
    wait_until(lambda: (stage.last(gas) or (0,))[:2] == (13.0, GOOD), "a quality of 192 is GOOD")
    theirs.order("data", device=f"{THEIRS}D2", values={gas: 99.0}, at=at_ms - 60_000, historical=True)
    wait_until(lambda: stage.log(THEIRS, EntryKind.HISTORICAL), "stored values are kept apart")
    assert (gas, "HH") not in stage.alarms()

    before = theirs.count(lambda line: line.get("why") == "asked")
    theirs.order("lose")
    began = time.monotonic()
    theirs.order("data", device=f"{THEIRS}D1", values={counter: 8})
    theirs.wait(lambda: theirs.count(lambda line: line.get("why") == "asked") > before, "a rebirth was asked for and given")
    assert time.monotonic() - began >= REORDER_S * 0.8, "not before the site's reorder timeout"
    asked = [line for line in theirs.lines if line["event"] == "command"]
    assert {(line["name"], line["type"], line["value"]) for line in asked} == {("Node Control/Rebirth", "Boolean", True)}
    wait_until(lambda: (stage.last(counter) or (0,))[0] == 8.0, "nothing stays lost behind the hole")

    theirs.order("device_death", device=f"{THEIRS}D2")
    wait_until(lambda: (gas, "FAULT") in stage.alarms(), "the tags of a dead device are faulty")
    assert stage.online(THEIRS)
    assert (f"EDGE.{THEIRS}.OFFLINE", "SYSTEM") not in stage.alarms()

    theirs.kill()
    wait_until(lambda: (f"EDGE.{THEIRS}.OFFLINE", "SYSTEM") in stage.alarms(), "its will ended the session")
    wait_until(lambda: not stage.online(THEIRS), "it is offline")
    faulty = {f"{THEIRS}D{number}.GAS" for number in (1, 2, 3)}
    wait_until(lambda: {tag for tag, limit in stage.alarms() if limit == "FAULT"} >= faulty, "its tags are stale")
    assert stage.alarms()[wave, "HH"]["state"] == str(State.ACTIVE_UNACKED), "and what was high has not become calm by that"


def frames_read(lines: list[dict[str, Any]]) -> dict[tuple[int, int], dict[str, tuple[Any, int, int | None]]]:
    """(stream, number) of every frame of ours that the decoder read, to tag, to (value, source_ms, quality)."""
    frames: dict[tuple[int, int], dict[str, tuple[Any, int, int | None]]] = {}
    for line in lines:
        metrics = line["payload"]["metrics"]
        marks = {metric["name"]: int(metric["value"]) for metric in metrics if "alias" not in metric}
        frames[marks["Spool/Stream"], marks["Spool/Sequence"]] = {
            metric["name"]: (
                metric["value"], int(metric["timestamp"]), metric.get("properties", {}).get("Quality", {}).get("value"))
            for metric in metrics if "alias" in metric
        }  # fmt: skip
    return frames


def frames_kept(stage: Stage) -> dict[tuple[int, int], dict[str, tuple[Any, int, int | None]]]:
    """The same from the ledger."""
    names = dict(stage.chain.rows("SELECT id, name FROM tag LIMIT 1000"))
    frames = {}
    for _, stream, first, body in stage.log(OURS, EntryKind.FRAME):
        columns = unpack_columns(body)
        rows = zip(columns.tag.tolist(), columns.value.tolist(), columns.raw.tolist(), columns.code.tolist(),
                   columns.source_ms.tolist(), strict=True)  # fmt: skip
        frames[stream, first] = {
            names[tag]: (None if code & 0xC0 == BAD else value if math.isnan(raw) else raw, source_ms,
                         None if code == GOOD else 0)
            for tag, value, raw, code, source_ms in rows
        }  # fmt: skip
    return frames


@pytest.mark.spec("tck-id-payloads-timestamp-in")
@pytest.mark.spec("tck-id-payloads-metric-timestamp-in")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-nbirth-payload")
@pytest.mark.spec("tck-id-message-flow-device-birth-publish-dbirth-payload")
@pytest.mark.spec("tck-id-message-flow-edge-node-birth-publish-will-message-payload")
@pytest.mark.spec("tck-id-conformance-primary-host")
def test_a_decoder_that_others_wrote_reads_what_we_wrote(stage: Stage) -> None:
    chain, decoder = stage.chain, stage.decoder
    tags = {point.tag for device in chain.site.edge(OURS).devices for point in device.points}

    def latest() -> dict[str, dict[str, Any]]:
        return {metric["name"]: metric for line in stage.read("DDATA") for metric in line["payload"]["metrics"]}

    decoder.wait(lambda: len(stage.read("DDATA")) >= FRAMES_COMPARED_MIN, "enough frames went by")
    chain.plant.kill()
    decoder.wait(lambda: {tag for tag, metric in latest().items() if metric["value"] is None} >= tags, "every tag is BAD")
    newest = list(frames_read(stage.read("DDATA")))[-1]
    wait_until(lambda: newest in frames_kept(stage), "the last of them is in the ledger")
    decoder.wait(lambda: acknowledged(stage) >= FRAMES_COMPARED_MIN, "acknowledgements went by")
    chain.edges[OURS].stop()
    chain.core.stop()
    decoder.wait(lambda: stage.read("NDEATH") and not stage.states()[-1]["payload"]["online"], "both said goodbye")
    assert not [line for line in decoder.lines if "error" in line]

    frames, kept = frames_read([*stage.read("DBIRTH"), *stage.read("DDATA")]), frames_kept(stage)
    compared = frames.keys() & kept.keys()
    assert len(compared) >= FRAMES_COMPARED_MIN
    assert {key: frames[key] for key in compared} == {key: kept[key] for key in compared}
    assert all(latest()[tag]["properties"]["Quality"] == {"value": 0, "type": "Int32"} for tag in tags)
    births_are_whole(stage, tags)
    the_rest_is_plain(stage)


def births_are_whole(stage: Stage, tags: set[str]) -> None:
    """NBIRTH and DBIRTHs as somebody else reads them."""
    (node, *_), devices = stage.read("NBIRTH"), stage.read("DBIRTH")
    of_node = {metric["name"]: metric for metric in node["payload"]["metrics"]}
    assert node["payload"]["seq"] in (0, "0")
    assert (of_node["bdSeq"]["type"], of_node["bdSeq"]["value"]) == ("Int64", "0")
    assert (of_node["Node Control/Rebirth"]["type"], of_node["Node Control/Rebirth"]["value"]) == ("Boolean", False)
    assert of_node["Spool/Acknowledge"]["value"]["columns"] == ["stream", "upto"]
    declared = {metric["name"]: metric for line in devices for metric in line["payload"]["metrics"] if "alias" in metric}
    assert declared.keys() == tags
    assert {metric["type"] for metric in declared.values()} == {"Double"}
    assert len({metric["alias"] for metric in declared.values()}) == len(tags)


def the_rest_is_plain(stage: Stage) -> None:
    """Stamps, the host's STATE, commands and deaths as somebody else reads them."""
    ours = [line for kind in ("NBIRTH", "DBIRTH", "DDATA") for line in stage.read(kind)]
    assert all(0 <= line["received"] - int(line["payload"]["timestamp"]) <= SENT_MS_MAX for line in ours if not line["retain"])
    stamps = [(line["received"], int(metric["timestamp"])) for line in ours for metric in line["payload"]["metrics"]]
    assert all(0 <= received - stamp <= OLD_MS_MAX for received, stamp in stamps)
    assert not any(metric["typed"] for line in stage.read("DDATA") for metric in line["payload"]["metrics"])

    states = [line["payload"] for line in stage.states()]
    assert [state["online"] for state in states] == [True, False]
    assert states[0]["timestamp"] <= states[1]["timestamp"]
    (death, *_) = stage.read("NDEATH")
    assert "seq" not in death["payload"]
    assert [(metric["name"], metric["type"], metric["value"]) for metric in death["payload"]["metrics"]] == [("bdSeq", "Int64", "0")]
    assert all(table["types"] == ["Int64", "Int64"] for table in acknowledgements(stage))


def acknowledgements(stage: Stage) -> list[dict[str, Any]]:
    """The tables in core's commands to our edge."""
    metrics = [metric for line in stage.read("NCMD") for metric in line["payload"]["metrics"]]
    return [metric["value"] for metric in metrics if metric["name"] == "Spool/Acknowledge"]


def acknowledged(stage: Stage) -> int:
    """The highest number of the edge's first stream that core has acknowledged."""
    live = next(iter(frames_read(stage.read("DBIRTH"))))[0]
    return max((int(upto) for table in acknowledgements(stage) for stream, upto in table["rows"] if int(stream) == live), default=0)
