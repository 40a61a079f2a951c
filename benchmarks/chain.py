"""The whole chain for a benchmark: our edge, broker and core as the processes that ship, a plant and a receiver.

Broker, plant and receiver come first, so that a benchmark can use them before ours runs; `start_ours` starts the rest.

The plant runs in the benchmark's own process, which steps its registers and learns when each left in an answer;
the receiver is a process of its own. Everything ends with the `async with` block.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import BenchmarkError
from benchmarks.ports import free_port
from cli.broker import BrokerMissingError, nats_server_path, write_nats_config
from cli.children import Child
from config import SiteConfig, dump_edge, dump_site, export_edge, rebind
from simulators import SyntheticPlant, synthetic_site

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 6.0
POLL_S: Final = 0.05
LINE_BYTES_MAX: Final = 1024 * 1024
SECRET_ENV: Final = "BENCHMARK_SECRET"
RECEIVER: Final = "CITY"


class Helper:
    """A process of the benchmark itself, spoken to by lines. It ends when its stdin does."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self._process = name, process

    @classmethod
    async def start(cls, module: str, *words: object, environment: Mapping[str, str] | None = None) -> Helper:
        """Run a module of this package; `environment` is added to this process's own."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *map(str, words), env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX,
        )  # fmt: skip
        return cls(module, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def read(self) -> bytes:
        """Return the next line. Raises BenchmarkError when it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self.name} ended with code {await self._process.wait()}")
        return line

    def write(self, line: bytes) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def end_input(self) -> None:
        """Give it no more lines, which tells it to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def stop(self) -> None:
        """End it."""
        self.end_input()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass(slots=True)
class Receiver:
    """The receiver process, and who waits for what it got."""

    helper: Helper
    port: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    bare_lines: list[dict[str, Any]] = field(default_factory=list)
    _waiting: dict[tuple[str, object], asyncio.Future[dict[str, Any]]] = field(default_factory=dict)

    async def follow(self) -> None:
        """Read what it got until cancelled."""
        while True:
            line = json.loads(await self.helper.read())
            bare = "number" in line
            (self.bare_lines if bare else self.lines).append(line)
            key = ("bare", line["number"]) if bare else (line.get("type", "unverified"), line.get("tag"))
            waiting = self._waiting.pop(key, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(line)

    def expect(self, kind: str, what: object) -> asyncio.Future[dict[str, Any]]:
        """Return what will be the next webhook of `kind` about `what`; must be asked for before it can come."""
        return self._waiting.setdefault((kind, what), asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class Chain:
    """The running chain."""

    site: SiteConfig
    folder: Path
    plant: SyntheticPlant
    receiver: Receiver
    broker_port: int
    environment: dict[str, str]
    ends: AsyncExitStack
    children: dict[str, Child] = field(default_factory=dict)

    async def start_ours(self) -> None:
        """Start core and edge; returns once the edge is online."""
        own, folder = [sys.executable, "-m", "cli"], self.folder
        await self.start("core", [*own, "core", str(folder / "site.yaml"), "--data", str(folder)], lambda: bool(self.heartbeat()))
        await self.start(
            "edge", [*own, "edge", "run", str(folder / "edge.yaml"), "--data", str(folder / "edge")],
            lambda: any(node["online"] for node in self.heartbeat().get("nodes", ())),
        )  # fmt: skip

    async def start(self, name: str, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start one part and wait until it is ready. Raises BenchmarkError when it does not come up."""
        child = Child(name, command, self.folder / "logs" / f"{name}.log", self.environment)
        child.start()
        self.children[name] = child
        self.ends.push_async_callback(stop_child, child)
        await _wait_for(child, ready)

    def heartbeat(self) -> dict[str, Any]:
        """What core last said of itself."""
        return read_json(self.folder / "core" / "heartbeat.json") or {}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each process has used so far, the load generator's included."""
        found = {name: cpu_s(child.process.pid) for name, child in self.children.items() if child.process is not None}
        return {**found, "receiver": cpu_s(self.receiver.helper.pid), "plant and driver": cpu_s(os.getpid())}

    def dead(self) -> str | None:
        """What went wrong with a part that should run, in words."""
        for name, child in self.children.items():
            if not child.alive:
                return f"{name} ended with code {child.exit_code}: {child.last_lines()}"
        return None


@asynccontextmanager
async def running_chain(folder: Path, *, tags: int, devices: int, seed: int) -> AsyncIterator[Chain]:
    """Start broker, plant and receiver on `folder`, give the chain out, and stop all of it in order."""
    async with AsyncExitStack() as ends:
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        receiver = await _receiver(secret, ends)
        site = SiteConfig.model_validate(
            synthetic_site(tags, devices, receivers=[{
                "id": RECEIVER, "name": {"zh": "市平台", "en": "City"}, "secret_env": SECRET_ENV,
                "url": f"http://127.0.0.1:{receiver.port}/hooks/{RECEIVER}", "plain_http_ranges": ["127.0.0.0/8"],
            }])
        )  # fmt: skip
        plant = SyntheticPlant(site, seed, ports={("EDGE1", f"BUS{i}"): 0 for i in range(devices)})
        await ends.enter_async_context(plant)
        broker_port = free_port()
        addresses = {tuple_of(name): place for name, place in plant.bank.addresses.items()}
        site = rebind(site, addresses, ("127.0.0.1", broker_port))
        (folder / "site.yaml").write_text(dump_site(site), encoding="utf-8")
        (folder / "edge.yaml").write_text(dump_edge(export_edge(site, "EDGE1")), encoding="utf-8")
        chain = Chain(site, folder, plant, receiver, broker_port, {SECRET_ENV: secret}, ends)
        try:
            nats = [str(nats_server_path()), "-c", str(write_nats_config(folder / "broker", broker_port))]
        except BrokerMissingError as error:
            raise BenchmarkError(str(error)) from None
        await chain.start("broker", nats, lambda: answers(broker_port))
        yield chain


def tuple_of(listener: str) -> tuple[str, str]:
    """Split a listener's name "EDGE/BUS"."""
    edge, bus = listener.split("/", 1)
    return edge, bus


async def _receiver(secret: str, ends: AsyncExitStack) -> Receiver:
    helper = await Helper.start("benchmarks.receiver", secret)
    ends.push_async_callback(helper.stop)
    receiver = Receiver(helper, int(json.loads(await helper.read())["port"]))
    following = asyncio.create_task(receiver.follow(), name="receiver-lines")
    ends.callback(following.cancel)
    return receiver


async def stop_child(child: Child) -> None:
    """End a part in order, or by force after a while."""
    deadline_s = time.monotonic() + STOP_S_MAX
    await child.stop(lambda: deadline_s)


async def _wait_for(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not ready():
        if not child.alive:
            raise BenchmarkError(f"{child.name} ended with code {child.exit_code}:\n{child.last_lines(10)}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{child.name} did not come up in {START_S_MAX:g} s; see {child.log_path}")
        await asyncio.sleep(POLL_S)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file that another process replaces; None when there is none (yet)."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False
