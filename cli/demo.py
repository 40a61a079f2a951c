"""`hazardgate demo`: the whole chain on loopback, every part a real process, with a live view and a final account."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from cli.broker import BrokerMissingError, nats_server_path, write_nats_config
from cli.children import Child, ChildGaveUpError, keep_running, parts_now
from cli.demo_report import account, in_words
from cli.demo_view import show
from cli.json_files import read_json_file
from cli.language import say
from cli.running import EXIT_REFUSED, explain, set_up_logging, unusable
from config import DEMO_SITE, SiteConfig, dump_edge, dump_site, export_edge, load_site, rebind
from gateway.serve import SERVE_FOLDER, Role, TokenStore
from simulators import SimulatorError, control_plant, load_scenario

log = logging.getLogger(__name__)

NOTHING: Final[Mapping[str, str]] = {}
START_S_MAX: Final = 30.0
EDGE_STOP_S: Final = 4.5
DELIVER_S_MAX: Final = 10.0
CORE_STOP_S: Final = 6.0
QUICK_STOP_S: Final = 1.5
HURRY_S_MAX: Final = 4.5
"""From Ctrl-C to the end of the last process, whatever hangs. Each step below leaves the steps after it so much of it:"""
AFTER_EDGES_S: Final = 2.5
AFTER_DELIVERIES_S: Final = 2.2
AFTER_CORE_S: Final = 1.0
AFTER_FIELD_S: Final = 0.8
AFTER_BROKER_S: Final = 0.6
POLL_S: Final = 0.05
TOKEN_NAME: Final = "demo.token"  # noqa: S105 - the name of its file
WATCH_NAME: Final = "watch.sh"
EXIT_MISSING: Final = 1
OWN: Final = (sys.executable, "-m", "cli")
"""This very hazardgate, wherever it is installed."""


@dataclass(slots=True)
class Chain:
    """The running parts and where they keep their things."""

    site: SiteConfig
    folder: Path
    broker: Child
    plant: Child
    platform: Child
    core: Child
    serve: Child
    edges: list[Child]
    control_port: int
    how_to_look: str
    scenario: str
    began_s: float = 0.0

    @property
    def children(self) -> list[Child]:
        """All parts, in the order they were started."""
        return [self.broker, self.platform, self.plant, self.core, self.serve, *self.edges]


class StartError(Exception):
    """A part did not come up, or the user did not want to wait for it."""


class Ending:
    """By when everything must have ended: never, until Ctrl-C or SIGTERM; then one deadline for all of it."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self.end_s = math.inf

    def hurry(self) -> None:
        """End now. The first call sets the deadline."""
        self.end_s = min(self.end_s, time.monotonic() + HURRY_S_MAX)
        self.wanted.set()

    def within(self, limit_s: float, keep_s: float = 0.0) -> Callable[[], float]:
        """Return a step's deadline: `limit_s` from now, and in a hurry `keep_s` before the end of everything."""
        latest_s = time.monotonic() + limit_s
        return lambda: min(latest_s, self.end_s - keep_s)


def demo_command(scenario: str, seconds: float | None, *, as_json: bool, seed: int, data: Path | None) -> int:
    """Run the demo; 0 when nothing is missing at the end, 1 when something is, 2 when it could not start."""
    set_up_logging()
    if not as_json and sys.stdout.isatty():
        logging.getLogger().setLevel(logging.CRITICAL)  # the view owns the screen; parts log to their files
    try:
        load_scenario(scenario)
        folder = _empty_folder(data)
    except (SimulatorError, StartError) as error:
        print(explain(error), file=sys.stderr)
        return EXIT_REFUSED
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_demo(scenario, seconds, folder, seed, as_json=as_json))
    except (StartError, BrokerMissingError, ChildGaveUpError) as error:
        print(explain(error), file=sys.stderr)
        print(say(f"数据目录：{folder}", f"data folder: {folder}"), file=sys.stderr)
        return EXIT_REFUSED
    if report is None:
        print(say("被中断，来不及核账", "interrupted; there was no time to draw up the account"), file=sys.stderr)
        print(say(f"数据目录：{folder}", f"data folder: {folder}"), file=sys.stderr)
        return EXIT_MISSING
    out = sys.stderr if as_json else sys.stdout
    for line in in_words(report):
        print(line, file=out)
    print(say(f"数据目录：{folder}", f"data folder: {folder}"), file=out)
    if as_json:
        print(json.dumps(report, ensure_ascii=False), flush=True)
    return EXIT_MISSING if report["missing"] else 0


def _empty_folder(data: Path | None) -> Path:
    if data is None:
        return Path(tempfile.mkdtemp(prefix="hazardgate-demo-"))
    try:
        data.mkdir(parents=True, exist_ok=True)
        if any(data.iterdir()):
            raise StartError(say(f"{data} 不是空目录；请换一个 --data", f"{data} is not empty; give another --data"))
    except OSError as error:
        raise StartError(unusable(data, error)) from None
    return data


async def _demo(
    scenario: str, seconds: float | None, folder: Path, seed: int, *, as_json: bool
) -> dict[str, Any] | None:
    ending = Ending()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.hurry)
    started: list[Child] = []
    try:
        chain = await _unless_ended(ending, _start(scenario, folder, seed, started))
        watching = asyncio.create_task(keep_running(chain.children), name="supervisor")
        viewing = asyncio.create_task(_show(chain, plain=as_json), name="view")
        stopping = asyncio.create_task(ending.wanted.wait(), name="stop")
        try:
            await asyncio.wait({watching, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            viewing.cancel()
            await asyncio.gather(viewing, return_exceptions=True)
        if watching.done():
            watching.result()  # raises what made the supervisor give up
        watching.cancel()
        return await _wind_up(chain, ending)
    finally:
        deadline_s = ending.within(QUICK_STOP_S)
        await asyncio.gather(*(child.stop(deadline_s) for child in started))


async def _show(chain: Chain, *, plain: bool) -> None:
    await show(
        chain.folder, chain.site, chain.scenario, plain=plain, how_to_look=chain.how_to_look,
        parts=lambda: parts_now(chain.children),
    )  # fmt: skip


async def _unless_ended(ending: Ending, starting: Coroutine[Any, Any, Chain]) -> Chain:
    """Return the started chain; a Ctrl-C in the middle of it is heard at once."""
    start = asyncio.create_task(starting, name="start")
    stopping = asyncio.create_task(ending.wanted.wait(), name="stop-start")
    await asyncio.wait({start, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not start.done() or ending.wanted.is_set():
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        raise StartError(say("启动时被中断", "interrupted while starting"))
    return start.result()


async def _start(scenario: str, folder: Path, seed: int, started: list[Child]) -> Chain:
    """Start the parts in order, each once the one before says where it is; then let the scenario begin."""
    site = load_site(DEMO_SITE)
    signing = {
        receiver.secret_env: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        for receiver in site.receivers
        if receiver.secret_env is not None
    }
    site_folder = folder / "site"
    site_folder.mkdir()
    site_file = site_folder / "site.yaml"

    def child(name: str, command: list[str], environment: Mapping[str, str] = NOTHING) -> Child:
        # The signing secrets are for those who sign and verify; no edge, instrument or broker has them.
        without = frozenset(signing) - frozenset(environment)
        made = Child(name, command, folder / "logs" / f"{name}.log", environment, without)
        made.start()
        started.append(made)
        return made

    site_file.write_text(dump_site(site), encoding="utf-8")
    port = _free_port()
    nats = [str(nats_server_path()), "-c", str(write_nats_config(folder / "broker", port))]
    broker = child("broker", nats)
    platform = child(
        "platform", [*OWN, "simulate", "platform", str(site_file), "--data", str(folder), "--port", "0"], signing
    )
    plant = child(
        "plant",
        [*OWN, "simulate", "plant", str(site_file), "--data", str(folder), "--scenario", scenario,
         "--seed", str(seed), "--free-ports", "--hold"],
    )  # fmt: skip
    where_platform = await _wait_for_json(platform, folder / "platform" / "platform.json")
    where_plant = await _wait_for_json(plant, folder / "plant" / "plant.json")
    await _wait_until([broker], lambda: _answers(port))
    buses = {}
    for name, (host, bus_port) in where_plant["addresses"].items():
        edge, bus = name.split("/", 1)
        buses[edge, bus] = (host, bus_port)
    urls = {receiver.id: f"{where_platform['url']}/hooks/{receiver.id}" for receiver in site.receivers}
    site = rebind(site, buses, ("127.0.0.1", port), urls)
    site_file.write_text(dump_site(site), encoding="utf-8")
    core = child("core", [*OWN, "core", str(site_file), "--data", str(folder)], signing)
    await _wait_for_json(core, folder / "core" / "heartbeat.json")
    serve_port = _free_port()
    serve = child("serve", [*OWN, "serve", str(site_file), "--data", str(folder), "--port", str(serve_port)])
    edges = []
    for edge_config in site.edges:
        file = site_folder / f"{edge_config.id}.yaml"
        file.write_text(dump_edge(export_edge(site, edge_config.id)), encoding="utf-8")
        data = folder / "edges" / edge_config.id
        edges.append(child(f"edge-{edge_config.id}", [*OWN, "edge", "run", str(file), "--data", str(data)]))
    chain = Chain(
        site, folder, broker, plant, platform, core, serve, edges, where_plant["control_port"],
        _how_to_look(folder, serve_port), scenario,
    )  # fmt: skip
    await _wait_until(started, lambda: _all_online(folder, len(edges)))
    try:
        await control_plant(chain.control_port, {"do": "begin"})
    except (SimulatorError, OSError) as error:  # TimeoutError is one
        raise StartError(say(f"仿真工厂没有响应：{error}", f"the simulated plant does not answer: {error}")) from None
    chain.began_s = time.monotonic()
    return chain


def _how_to_look(folder: Path, port: int) -> str:
    """Make a token for whoever runs the demo, and a script that looks at it with that; return how to run the script.

    A script, because its short name can be copied whole from a narrow screen, and `hazardgate` may not be on the PATH.
    """
    store = TokenStore(folder / SERVE_FOLDER, lambda: time.time_ns() // 1_000_000)
    file = folder / TOKEN_NAME
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as kept:
        kept.write(store.new(say("演示", "demo"), Role.OPERATOR, 1)[1] + "\n")
    watch = [*OWN, "watch", "--url", f"http://127.0.0.1:{port}", "--token-file", str(file.resolve())]
    script = (folder / WATCH_NAME).resolve()
    script.write_text(f'#!/bin/sh\nexec {shlex.join(watch)} "$@"\n', encoding="utf-8")
    command = shlex.join(["sh", str(script)])
    return say(f"另开终端查看和确认报警：\n{command}", f"look and acknowledge in another terminal:\n{command}")


async def _wind_up(chain: Chain, ending: Ending) -> dict[str, Any] | None:
    """Stop in order and draw up the account: edges, then deliveries, then core, then the rest.

    Returns None when a hurry left no time for the account.
    """
    ran_s = time.monotonic() - chain.began_s
    ended_ms = time.time_ns() // 1_000_000
    deadline_s = ending.within(EDGE_STOP_S, AFTER_EDGES_S)
    await asyncio.gather(*(part.stop(deadline_s) for part in (chain.serve, *chain.edges)))
    deadline_s = ending.within(DELIVER_S_MAX, AFTER_DELIVERIES_S)
    while time.monotonic() < deadline_s() and not _delivered(chain.folder):
        await asyncio.sleep(POLL_S)
    await chain.core.stop(ending.within(CORE_STOP_S, AFTER_CORE_S))
    deadline_s = ending.within(QUICK_STOP_S, AFTER_FIELD_S)
    await asyncio.gather(*(part.stop(deadline_s) for part in (chain.platform, chain.plant)))
    await chain.broker.stop(ending.within(QUICK_STOP_S, AFTER_BROKER_S))
    restarts = {child.name: child.restarts for child in chain.children if child.restarts}
    return await _in_time(
        ending,
        lambda: account(
            chain.site, chain.folder, scenario=chain.scenario, ran_s=ran_s, ended_ms=ended_ms, restarts=restarts
        ),
    )


async def _in_time(ending: Ending, draw_up: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Run it in a thread that does not hold up the exit; None when the deadline comes first."""
    outcome: list[dict[str, Any] | Exception] = []

    def work() -> None:
        try:
            outcome.append(draw_up())
        except Exception as error:  # carried over to the main thread, which raises it
            outcome.append(error)

    threading.Thread(target=work, name="account", daemon=True).start()
    while not outcome and time.monotonic() < ending.end_s:
        await asyncio.sleep(POLL_S)
    if not outcome:
        return None
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


async def _wait_for_json(child: Child, path: Path) -> dict[str, Any]:
    """Wait until a part has said where it is."""
    await _wait_until([child], lambda: bool(read_json_file(path)))
    return read_json_file(path)


async def _wait_until(children: Sequence[Child], ready: Callable[[], bool]) -> None:
    """Wait while all of them live; the last one is named when nothing comes of it."""
    deadline = time.monotonic() + START_S_MAX
    while not ready():
        for child in children:
            if not child.alive:
                raise StartError(say(
                    f"{child.name} 已退出，代码 {child.exit_code}：\n{child.last_lines(10)}",
                    f"{child.name} ended with code {child.exit_code}:\n{child.last_lines(10)}",
                ))  # fmt: skip
        if time.monotonic() > deadline:
            raise StartError(say(
                f"{children[-1].name} 在 {START_S_MAX:g} 秒内没有起来；见 {children[-1].log_path}",
                f"{children[-1].name} did not come up in {START_S_MAX:g} s; see {children[-1].log_path}",
            ))  # fmt: skip
        await asyncio.sleep(POLL_S)


def _all_online(folder: Path, edges: int) -> bool:
    heartbeat = read_json_file(folder / "core" / "heartbeat.json")
    return sum(bool(node["online"]) for node in heartbeat.get("nodes", ())) == edges


def _delivered(folder: Path) -> bool:
    heartbeat = read_json_file(folder / "core" / "heartbeat.json")
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
