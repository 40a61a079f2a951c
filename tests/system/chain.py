"""The chain as child processes: started, killed and started again by process id, and read from outside.

Nothing here looks into a process: only the files that each part writes, and the platform's HTTP.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ports import free_port
from config import SiteConfig, dump_edge, dump_site, export_edge
from edge import SpooledSample, read_spool
from gateway.core import HEARTBEAT_NAME, LEDGER_NAME, LedgerReader
from simulators import read_json_lines
from tests.brokers import Broker
from tests.system.site import RECEIVERS, bound, restless_site

ROOT = Path(__file__).resolve().parents[2]
START_S_MAX = 60.0  # guards against hanging, here and below: how fast a part has to be its own tests say
STOP_S_MAX = 30.0
LOOK_EVERY_S = 0.03
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


CLI = (sys.executable, "-m", "cli")
REFUSED = 2


class WaitedTooLongError(AssertionError):
    """A condition did not come true in its time."""


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = START_S_MAX, every_s: float = LOOK_EVERY_S) -> Any:
    """Return the condition's first true answer.

    Raises:
        WaitedTooLongError: it has none within the time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise WaitedTooLongError(f"not within {timeout_s:g} s: {what}")
        time.sleep(every_s)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that is replaced as a whole; an empty one when it is not there yet."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_beat(path: Path) -> dict[str, Any]:
    """Return core's newest heartbeat; an empty one before the first.

    Two files take turns in its place, so that who reads one for half a second may find it written anew half way.
    """
    for _ in range(20):
        found = read_json(path)
        if found or not path.exists():
            return found
    return {}


def refused(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command that must refuse to start; return what it said."""
    done = subprocess.run(
        [*CLI, *command], cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=START_S_MAX
    )
    assert done.returncode == REFUSED, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


def _die_with_parent() -> None:
    """Runs in the child: however the tests end, nothing of theirs stays behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Part:
    """One process of the chain, which may die and come back."""

    def __init__(self, name: str, command: Sequence[str], log_path: Path, environment: Mapping[str, str]) -> None:
        self.name, self.command, self.log_path = name, list(command), log_path
        # On SIGABRT a part writes the stack of every thread into its log: what a hang was busy with.
        self._environment = {**os.environ, **environment, "PYTHONFAULTHANDLER": "1", "LANG": "C.UTF-8"}
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.stderr: int | None = None  # a descriptor that takes its log in the place of the file

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *more: str) -> None:
        """Start it; `more` goes at the end of its command line this once."""
        assert not self.alive, f"{self.name} runs already"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            stderr = log if self.stderr is None else self.stderr
            self.process = subprocess.Popen(
                [*self.command, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=stderr, cwd=ROOT,
                env=self._environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.starts += 1

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL, STOP_S_MAX)

    def stop(self, timeout_s: float = STOP_S_MAX) -> float:
        """SIGTERM, and return how long it took.

        Raises:
            AssertionError: it did not end in time (it is killed then), or not with 0.
        """
        began = time.monotonic()
        code = self._end(signal.SIGTERM, timeout_s)
        assert code == 0, f"{self.name} ended with code {code}:\n{self.last_lines()}"
        return time.monotonic() - began

    def freeze(self) -> None:
        """SIGSTOP: connections stand, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_end(self, timeout_s: float = START_S_MAX) -> int:
        """Wait for it to end by itself; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def last_lines(self, count: int = 60) -> str:
        """The end of its log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-count:])

    def _end(self, how: signal.Signals, timeout_s: float) -> int | None:
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return None if process is None else process.returncode
        process.send_signal(how)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            process.wait(STOP_S_MAX)
            raise AssertionError(f"{self.name} did not end {timeout_s:g} s after {how.name}:\n{self.last_lines()}") from None


class Chain:
    """Plant, broker, platform, core and edges of the restless site, in one folder."""

    def __init__(self, folder: Path, *, broker: str = "nats-server", seed: int = 1, site: SiteConfig | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.broker = Broker(broker, folder / "broker")
        self.platform_port = free_port()
        self.site: SiteConfig = bound(site or restless_site(), self.broker.port, self.platform_port)
        self.site_file = folder / "site" / "site.yaml"
        self.site_file.parent.mkdir()
        self.site_file.write_text(dump_site(self.site), encoding="utf-8")
        source = random.Random(seed)
        self.environment = {
            variable: "whsec_" + base64.b64encode(source.randbytes(32)).decode() for variable in RECEIVERS.values()
        }
        (folder / "plant").mkdir()
        own = CLI
        self.plant = self._part(
            "plant", [sys.executable, "-m", "tests.system.plant", str(self.site_file), str(folder / "plant"), str(seed)]
        )
        self.platform = self._part(
            "platform",
            [*own, "simulate", "platform", str(self.site_file), "--data", str(folder), "--port", str(self.platform_port)],
        )
        self.core = self._part("core", [*own, "core", str(self.site_file), "--data", str(folder)])
        self.edges: dict[str, Part] = {}
        for edge in self.site.edges:
            file = self.site_file.with_name(f"{edge.id}.yaml")
            file.write_text(dump_edge(export_edge(self.site, edge.id)), encoding="utf-8")
            command = [*own, "edge", "run", str(file), "--data", str(self.edge_folder(edge.id))]
            self.edges[edge.id] = self._part(f"edge-{edge.id}", command)

    def _part(self, name: str, command: list[str]) -> Part:
        return Part(name, command, self.folder / "logs" / f"{name}.log", self.environment)

    @property
    def parts(self) -> list[Part]:
        return [*self.edges.values(), self.core, self.platform, self.plant]

    # -- places ------------------------------------------------------------------------------------------

    @property
    def core_folder(self) -> Path:
        return self.folder / "core"

    def edge_folder(self, edge: str) -> Path:
        return self.folder / "edges" / edge

    # -- life --------------------------------------------------------------------------------------------

    def start_world(self) -> None:
        """Start what is not ours: broker, plant, platform."""
        self.broker.start()
        self.plant.start()
        self.platform.start()
        wait_until(lambda: (self.folder / "plant" / "plant.pid").exists(), "the plant listens")
        self.wait_platform()

    def start(self) -> None:
        """Start everything, and return when both edges are live."""
        self.start_world()
        self.core.start()
        for edge in self.edges.values():
            edge.start()
        self.wait_healed()

    def end(self) -> None:
        """End everything that still runs, whatever state it is in."""
        for part in self.parts:
            if part.alive:
                part.thaw()
                part.kill()
        self.broker.kill()

    def wait_platform(self) -> None:
        """Wait until the platform of this start answers."""
        path = self.folder / "platform" / "platform.json"
        wait_until(lambda: read_json(path).get("pid") == self.platform.pid, "the platform listens")

    def wait_core(self, timeout_s: float = START_S_MAX) -> dict[str, Any]:
        """Wait for a heartbeat of this core with a broker; return it."""

        def beats() -> dict[str, Any]:
            if not self.core.alive:
                raise WaitedTooLongError(f"core ended:\n{self.core.last_lines()}")
            beat = self.heartbeat()
            return beat if beat.get("pid") == self.core.pid and beat["connected"] else {}

        return wait_until(beats, "core is connected", timeout_s)

    def wait_healed(self, timeout_s: float = START_S_MAX) -> None:
        """Wait until every part that should be up is, and every edge is live with core."""
        self.wait_core(timeout_s)

        def healed() -> bool:
            beat = self.heartbeat()
            for name, edge in self.edges.items():
                status = self.edge_status(name)
                if not edge.alive:
                    raise WaitedTooLongError(f"{edge.name} ended:\n{edge.last_lines()}")
                if status.get("pid") != edge.pid or not status["live"]:
                    return False
            lines = {line["node"]: line for line in beat.get("nodes", ())}
            return beat.get("pid") == self.core.pid and all(
                lines.get(name, {}).get("online") and lines[name]["stream"] == self.edge_status(name)["stream"]
                for name in self.edges
            )

        wait_until(healed, "both edges are live, and core knows their streams", timeout_s)

    # -- reading from outside ------------------------------------------------------------------------------

    def heartbeat(self) -> dict[str, Any]:
        return read_beat(self.core_folder / HEARTBEAT_NAME)

    def edge_status(self, edge: str) -> dict[str, Any]:
        return read_json(self.edge_folder(edge) / "status.json")

    def spool(self, edge: str) -> list[SpooledSample]:
        """Return what lies on the disk of a dead edge."""
        assert not self.edges[edge].alive, "a spool is read when nobody writes it"
        return read_spool(self.edge_folder(edge) / "spool")

    @contextmanager
    def ledger(self) -> Iterator[LedgerReader]:
        """The ledger, read-only, beside a running core or a dead one."""
        reader = LedgerReader.open(self.core_folder / LEDGER_NAME)
        try:
            yield reader
        finally:
            reader.close()

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one query on the ledger."""
        with self.ledger() as reader:
            return reader.rows(sql, parameters)

    def alarms_about(self, key: str) -> list[str]:
        """Return the ids of the alarms of a system condition that are in the ledger."""
        rows = self.rows("SELECT id FROM alarm WHERE json_extract(body, '$.tag') = ? LIMIT 1000", (key,))
        return [row[0] for row in rows]

    def received(self) -> list[dict[str, Any]]:
        """Return every verified message the platform has kept, heartbeats among them."""
        return [line for line in read_json_lines(self.folder / "platform" / "received.jsonl") if "id" in line]

    def rejected(self) -> list[dict[str, Any]]:
        """Return what the platform refused."""
        return [line for line in read_json_lines(self.folder / "platform" / "received.jsonl") if "rejected" in line]

    def platform_control(self, wanted: dict[str, Any]) -> None:
        """Tell the platform how to behave."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.platform_port}/control", json.dumps(wanted).encode(),
            {"content-type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200

    def platform_summary(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.platform_port}/summary", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def write_requests(self) -> list[dict[str, Any]]:
        """Requests with anything but a read function code in the plant's own log."""
        return [line for line in read_json_lines(self.folder / "plant" / "requests.jsonl") if line.get("kind") != "read"]

    def copy(self, source: Path, name: str) -> Path:
        """Copy a folder of a part that does not run; return the copy."""
        target = self.folder / "copies" / name
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock", "*.lock", "ballast"))
        return target


@contextmanager
def running_chain(folder: Path, *, broker: str = "nats-server", seed: int = 1) -> Iterator[Chain]:
    """A chain with both edges live, all of it gone afterwards."""
    chain = Chain(folder, broker=broker, seed=seed)
    try:
        chain.start()
        yield chain
    finally:
        chain.end()
