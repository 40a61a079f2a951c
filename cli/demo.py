"""`hazardgate demo`: the whole chain on loopback, every part a real process, with a live view and a final account."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from cli.broker import BrokerMissingError, nats_server_path, write_nats_config
from cli.children import Child, ChildGaveUpError, keep_running
from cli.demo_report import account, in_words
from cli.demo_view import show
from cli.language import say
from cli.running import EXIT_REFUSED, set_up_logging
from config import DEMO_SITE, SiteConfig, dump_edge, dump_site, export_edge, load_site, rebind
from simulators import SimulatorError, control_plant, load_scenario

log = logging.getLogger(__name__)

START_S_MAX: Final = 30.0
EDGE_STOP_S: Final = 4.5
DELIVER_S_MAX: Final = 10.0
CORE_STOP_S: Final = 6.0
QUICK_STOP_S: Final = 1.5
POLL_S: Final = 0.05
EXIT_MISSING: Final = 1


@dataclass(slots=True)
class Chain:
    """The running parts and where they keep their things."""

    site: SiteConfig
    folder: Path
    broker: Child
    plant: Child
    platform: Child
    core: Child
    edges: list[Child]
    control_port: int
    scenario: str

    @property
    def children(self) -> list[Child]:
        """All parts, in the order they were started."""
        return [self.broker, self.platform, self.plant, self.core, *self.edges]


class StartError(Exception):
    """A part did not come up."""


def demo_command(scenario: str, seconds: float | None, *, as_json: bool, seed: int, data: Path | None) -> int:
    """Run the demo; 0 when nothing is missing at the end, 1 when something is, 2 when it could not start."""
    set_up_logging()
    if not as_json and sys.stdout.isatty():
        logging.getLogger().setLevel(logging.CRITICAL)  # the view owns the screen; parts log to their files
    try:
        load_scenario(scenario)
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    folder = data if data is not None else Path(tempfile.mkdtemp(prefix="hazardgate-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(say(f"{folder} 不是空目录；请换一个 --data", f"{folder} is not empty; give another --data"), file=sys.stderr)
        return EXIT_REFUSED
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_demo(scenario, seconds, folder, seed, as_json=as_json))
    except (StartError, BrokerMissingError, ChildGaveUpError) as error:
        print(error, file=sys.stderr)
        print(say(f"数据目录：{folder}", f"data folder: {folder}"), file=sys.stderr)
        return EXIT_REFUSED
    out = sys.stderr if as_json else sys.stdout
    for line in in_words(report):
        print(line, file=out)
    print(say(f"数据目录：{folder}", f"data folder: {folder}"), file=out)
    if as_json:
        print(json.dumps(report, ensure_ascii=False), flush=True)
    return EXIT_MISSING if report["missing"] else 0


async def _demo(scenario: str, seconds: float | None, folder: Path, seed: int, *, as_json: bool) -> dict[str, Any]:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    started: list[Child] = []
    try:
        chain = await _start(scenario, folder, seed, started)
        if chain is None or stop.is_set():
            raise StartError(say("启动时被中断", "interrupted while starting"))
        watching = asyncio.create_task(keep_running(chain.children), name="supervisor")
        viewing = asyncio.create_task(show(chain.folder, chain.site, scenario, plain=as_json), name="view")
        await control_plant(chain.control_port, {"do": "begin"})
        began = time.monotonic()
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({watching, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        viewing.cancel()
        await asyncio.gather(viewing, return_exceptions=True)
        if watching.done():
            watching.result()  # raises what made the supervisor give up
        watching.cancel()
        return await _wind_up(chain, time.monotonic() - began, hurried=stop.is_set())
    finally:
        for child in reversed(started):
            await child.stop(QUICK_STOP_S)


async def _start(scenario: str, folder: Path, seed: int, started: list[Child]) -> Chain | None:
    """Start the parts in order, each once the one before says where it is."""
    site = load_site(DEMO_SITE)
    environment = {
        receiver.secret_env: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        for receiver in site.receivers
        if receiver.secret_env is not None
    }
    own = [sys.executable, "-m", "cli"]
    site_folder = folder / "site"
    site_folder.mkdir()
    site_file = site_folder / "site.yaml"

    def child(name: str, command: list[str]) -> Child:
        made = Child(name, command, folder / "logs" / f"{name}.log", environment)
        made.start()
        started.append(made)
        return made

    site_file.write_text(dump_site(site), encoding="utf-8")
    port = _free_port()
    nats = [str(nats_server_path()), "-c", str(write_nats_config(folder / "broker", port))]
    broker = child("broker", nats)
    platform = child("platform", [*own, "simulate", "platform", str(site_file), "--data", str(folder)])
    plant = child(
        "plant",
        [*own, "simulate", "plant", str(site_file), "--data", str(folder), "--scenario", scenario,
         "--seed", str(seed), "--free-ports", "--hold"],
    )  # fmt: skip
    where_platform = await _wait_for_json(platform, folder / "platform" / "platform.json")
    where_plant = await _wait_for_json(plant, folder / "plant" / "plant.json")
    await _wait_until(broker, lambda: _answers(port))
    buses = {}
    for name, (host, bus_port) in where_plant["addresses"].items():
        edge, bus = name.split("/", 1)
        buses[edge, bus] = (host, bus_port)
    urls = {receiver.id: f"{where_platform['url']}/hooks/{receiver.id}" for receiver in site.receivers}
    site = rebind(site, buses, ("127.0.0.1", port), urls)
    site_file.write_text(dump_site(site), encoding="utf-8")
    core = child("core", [*own, "core", str(site_file), "--data", str(folder)])
    await _wait_for_json(core, folder / "core" / "heartbeat.json")
    edges = []
    for edge_config in site.edges:
        file = site_folder / f"{edge_config.id}.yaml"
        file.write_text(dump_edge(export_edge(site, edge_config.id)), encoding="utf-8")
        data = folder / "edges" / edge_config.id
        edges.append(child(f"edge-{edge_config.id}", [*own, "edge", "run", str(file), "--data", str(data)]))
    chain = Chain(site, folder, broker, plant, platform, core, edges, where_plant["control_port"], scenario)
    await _wait_until(core, lambda: _all_online(folder, len(edges)))
    return chain


async def _wind_up(chain: Chain, ran_s: float, *, hurried: bool) -> dict[str, Any]:
    """Stop in order and draw up the account: edges, then deliveries, then core, then the rest."""
    ended_ms = time.time_ns() // 1_000_000
    await asyncio.gather(*(edge.stop(EDGE_STOP_S) for edge in chain.edges))
    deadline = time.monotonic() + (1.0 if hurried else DELIVER_S_MAX)
    while time.monotonic() < deadline and not _delivered(chain.folder):
        await asyncio.sleep(POLL_S)
    await chain.core.stop(CORE_STOP_S)
    await asyncio.gather(*(part.stop(QUICK_STOP_S) for part in (chain.platform, chain.plant)))
    await chain.broker.stop(QUICK_STOP_S)
    restarts = {child.name: child.restarts for child in chain.children if child.restarts}
    return await asyncio.to_thread(
        account, chain.site, chain.folder, scenario=chain.scenario, ran_s=ran_s, ended_ms=ended_ms, restarts=restarts
    )


async def _wait_for_json(child: Child, path: Path) -> dict[str, Any]:
    """Wait until a part has said where it is."""
    await _wait_until(child, lambda: _read_json(path) is not None)
    found = _read_json(path)
    assert found is not None
    return found


async def _wait_until(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not ready():
        if not child.alive:
            raise StartError(f"{child.name} ended with code {child.exit_code}:\n{child.last_lines(10)}")
        if time.monotonic() > deadline:
            raise StartError(f"{child.name} did not come up in {START_S_MAX:g} s; see {child.log_path}")
        await asyncio.sleep(POLL_S)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _all_online(folder: Path, edges: int) -> bool:
    heartbeat = _read_json(folder / "core" / "heartbeat.json") or {}
    return sum(bool(node["online"]) for node in heartbeat.get("nodes", ())) == edges


def _delivered(folder: Path) -> bool:
    heartbeat = _read_json(folder / "core" / "heartbeat.json") or {}
    fresh = time.time() * 1000 - heartbeat.get("at_ms", 0) < 2_000
    return fresh and all(lane["due"] == 0 for lane in heartbeat.get("deliveries", {}).values())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


