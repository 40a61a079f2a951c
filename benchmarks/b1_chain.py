"""B1's chain: broker, core and serve as the processes that ship, under the load of `b1_generator`; and what each used."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.chain import Helper, answers, cpu_s, read_json, stop_child
from benchmarks.harness import BenchmarkError
from benchmarks.ports import free_port
from cli.broker import BrokerMissingError, nats_server_path, write_nats_config
from cli.children import Child
from config import SiteConfig, dump_site, rebind
from gateway.core import LEDGER_NAME, LedgerReader
from gateway.historian.segments.folder import SegmentFolder
from simulators import synthetic_site

TAGS: Final = 1_000
SAMPLES_A_FRAME: Final = 40
NODES: Final = 5
DEVICES: Final = TAGS // SAMPLES_A_FRAME
BROKERS: Final = ("nats", "mosquitto")
LIMITS: Final = {"LL": 10.0, "L": 20.0, "H": 80.0, "HH": 95.0}
SEAL_S: Final = 5.0  # so that sealing is part of what is measured
START_S_MAX: Final = 60.0
SETTLED_S_MAX: Final = 120.0
POLL_S: Final = 0.1


@dataclass(slots=True)
class Ingested:
    """One run of ours.

    Attributes:
        published, committed, acked, stored: samples, those of the births included.
        frames, samples: published after the births. seconds count from the first of them.
    """

    broker: str
    published: int = 0
    committed: int = 0
    acked: int = 0
    stored: int | None = None
    alarms_made: int = 0
    alarms_found: int = 0
    frames: int = 0
    samples: int = 0
    published_s: float = 0.0
    acked_s: float = 0.0
    stored_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    dropped: int = 0
    most_unacked: int = 0
    commit_ms: tuple[float, float] = (0.0, 0.0)

    @property
    def per_s(self) -> float:
        """Samples a second from the first frame published to the last one acknowledged."""
        return self.samples / self.acked_s

    @property
    def whole(self) -> bool:
        """Nothing was lost, doubled, or only claimed, and every alarm that was made was raised and returned."""
        return self.published == self.committed == self.acked == self.stored and self.alarms_made == self.alarms_found

    @property
    def store_lag_s(self) -> float:
        """How long after the last acknowledgement the last sample was sealed."""
        return self.stored_s - self.acked_s

    def cpu_s_per_million(self) -> dict[str, float]:
        """CPU seconds each process took for a million samples, until all were sealed."""
        return {name: 1e6 * used / self.samples for name, used in self.cpu_s.items()}


def site_mapping(nodes: int = NODES) -> dict[str, Any]:
    """The synthetic site with four limits a tag, its devices shared out to several edges."""
    made = synthetic_site(TAGS, DEVICES)
    (edge,) = made["edges"]
    for tag in made["tags"]:
        (limit,) = tag["limits"].values()
        tag["limits"] = {kind: {**limit, "setpoint": setpoint} for kind, setpoint in LIMITS.items()}
    made["storage"] = {"historian": {"seal_s": SEAL_S}}
    share = DEVICES // nodes
    made["edges"] = [
        {
            "id": f"EDGE{at + 1}",
            "buses": edge["buses"][at * share : (at + 1) * share],
            "devices": edge["devices"][at * share : (at + 1) * share],
        }
        for at in range(nodes)
    ]
    return made


async def ingest(folder: Path, seconds: float, broker: str, seed: int, *, serve: bool = True) -> Ingested:
    """Run the chain once on an empty folder."""
    found = Ingested(broker)
    async with AsyncExitStack() as ends:
        children: dict[str, Child] = {}

        async def start(name: str, command: list[str], ready: Callable[[], object]) -> None:
            child = Child(name, command, folder / "logs" / f"{name}.log", {})
            child.start()
            children[name] = child
            ends.push_async_callback(stop_child, child)
            await _until(ready, START_S_MAX, f"{name} did not come up; see {child.log_path}", children)

        port, api_port = free_port(), free_port()
        await start(broker, broker_command(broker, folder / "broker", port), lambda: answers(port))
        site = rebind(SiteConfig.model_validate(site_mapping()), {}, ("127.0.0.1", port))
        (folder / "site.yaml").write_text(dump_site(site), encoding="utf-8")
        (folder / "site.json").write_text(site.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
        own = [sys.executable, "-m", "cli"]
        where = [str(folder / "site.yaml"), "--data", str(folder)]
        await start("core", [*own, "core", *where], lambda: heartbeat(folder).get("connected"))
        if serve:
            await start("serve", [*own, "serve", *where, "--port", str(api_port)], lambda: answers(api_port))
        load = await Helper.start("benchmarks.b1_generator", folder / "site.json", port, seed)
        ends.push_async_callback(load.stop)
        born = json.loads(await load.read())
        before = _cpu(children, load)
        began_s = time.monotonic()
        load.write(b"go %g\n" % seconds)
        said = json.loads(await load.read())
        found.published_s, found.acked_s = said["published_s"], said["acked_s"]
        found.frames, found.samples = said["frames"], said["samples"]
        found.published = born["samples"] + said["samples"]
        found.acked = found.published - said["unacked"] * SAMPLES_A_FRAME
        found.alarms_made, found.most_unacked = said["alarms"], said["most_unacked"]
        if serve:
            await _until(lambda: (stored(folder) or 0) >= found.published, SETTLED_S_MAX, "", children, must=False)
            found.stored, found.stored_s = stored(folder), time.monotonic() - began_s
        found.cpu_s = {name: used - before[name] for name, used in _cpu(children, load).items()}
        await _until(lambda: heartbeat(folder).get("samples_committed") == found.published, 5.0, "", children, must=False)
        beat = heartbeat(folder)
        found.committed, found.dropped = beat.get("samples_committed", 0), beat.get("messages_dropped", 0)
        found.commit_ms = beat.get("commit_ms_p50") or 0.0, beat.get("commit_ms_p99") or 0.0
        found.alarms_found = _raised(folder)
    return found


def broker_command(broker: str, folder: Path, port: int) -> list[str]:
    """Return what starts a broker on this port. Raises BenchmarkError when it is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    if broker == "nats":
        try:
            return [str(nats_server_path()), "-c", str(write_nats_config(folder, port))]
        except BrokerMissingError as error:
            raise BenchmarkError(str(error)) from None
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchmarkError("mosquitto is not installed")
    path = folder / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", encoding="utf-8")
    return [program, "-c", str(path)]


def heartbeat(folder: Path) -> dict[str, Any]:
    """What core last said of itself."""
    return read_json(folder / "core" / "heartbeat.json") or {}


def stored(folder: Path) -> int | None:
    """Rows in sealed segments, by their manifests; None while there is no historian."""
    found = folder / "historian"
    return sum(manifest.rows for manifest in SegmentFolder(found).snapshot().manifests) if found.is_dir() else None


def _raised(folder: Path) -> int:
    """Alarms of tags that the ledger's journal has raised and returned."""
    reader = LedgerReader.open(folder / "core" / LEDGER_NAME)
    try:
        ((count,),) = reader.rows("SELECT count(*) FROM transition t JOIN alarm a ON a.id = t.alarm_id"
                                  " WHERE a.kind = 'H' AND t.kind = 'returned'")
        return int(count)
    finally:
        reader.close()


def _cpu(children: dict[str, Child], load: Helper) -> dict[str, float]:
    used = {name: cpu_s(child.process.pid) for name, child in children.items() if child.process is not None}
    return {"generator": cpu_s(load.pid), **used}


async def _until(
    ready: Callable[[], object], seconds: float, otherwise: str, children: dict[str, Child], *, must: bool = True
) -> None:
    deadline_s = time.monotonic() + seconds
    while not ready():
        _all_run(children.values())
        if time.monotonic() > deadline_s:
            if must:
                raise BenchmarkError(otherwise)
            return
        await asyncio.sleep(POLL_S)


def _all_run(children: Iterable[Child]) -> None:
    for child in children:
        if not child.alive:
            raise BenchmarkError(f"{child.name} ended with code {child.exit_code}:\n{child.last_lines(10)}")
