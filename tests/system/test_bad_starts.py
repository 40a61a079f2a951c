"""Wrong order, taken ports, typing errors, a second process: each is refused in a sentence, or waited out."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from config import DEMO_SITE, Grade, SiteConfig, dump_site, load_site, rebind
from tests.patience import fair_clock
from tests.system.books import delivered_all, settle, stop_edges
from tests.system.chain import CLI, Chain, Part, read_json, refused, wait_until
from tests.system.site import restless_site

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DEMO_END_S_MAX = 5.0


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A chain of which nothing runs yet."""
    made = Chain(tmp_path / "chain")
    yield made
    made.end()


@pytest.mark.fault("F34")
def test_parts_started_in_the_wrong_order_wait_say_so_once_and_find_each_other(tmp_path: Path) -> None:
    """Core and edges first; then the broker, the receiver and the instruments, one after the other."""
    chain = Chain(tmp_path / "chain", site=urgent_site())
    try:
        in_the_wrong_order(chain)
    finally:
        chain.end()


def urgent_site() -> SiteConfig:
    """Every notice is tried again within a minute: the others rest for five once they were refused twice."""
    site = restless_site()
    tags = tuple(
        tag.model_copy(update={"fault_grade": Grade.RED}) if tag.id.endswith(".GAS") else tag for tag in site.tags
    )
    receivers = tuple(
        receiver.model_copy(update={"grades": (Grade.RED, Grade.ORANGE)}) for receiver in site.receivers
    )
    return site.model_copy(update={"tags": tags, "receivers": receivers})


def in_the_wrong_order(chain: Chain) -> None:
    chain.core.start()
    for edge in chain.edges.values():
        edge.start()
    wait_until(lambda: all(chain.edge_status(name).get("frames_taken", 0) >= 3 for name in chain.edges), "edges take frames")
    wait_until(lambda: "waits and connects" in chain.core.log_path.read_text(), "core says that there is no broker")
    assert not wait_until(chain.heartbeat, "core beats without a broker")["connected"]

    chain.broker.start()
    chain.wait_healed()
    assert chain.core.log_path.read_text().count("waits and connects") == 1
    for edge in chain.edges.values():
        assert edge.log_path.read_text().count("trying again until it works") == 1

    wait_until(lambda: _gas_faults(chain, "raised") == 6, "dead instruments are an alarm")
    assert chain.heartbeat()["deliveries"]["CITY"]["due"] > 0
    chain.platform.start()
    chain.wait_platform()
    wait_until(lambda: len(chain.received()) > 0, "what was due is delivered")

    chain.plant.start()
    wait_until(lambda: _gas_faults(chain, "returned") == 6, "instruments that appear are read, and their faults return")
    stop_edges(chain)
    books = settle(chain)
    chain.core.stop()
    assert books.verdict.complete
    assert books.losses == []
    delivered_all(chain, books)


def _gas_faults(chain: Chain, kind: str) -> int:
    """How many of the six gas detectors, whose faults have no delay, have a fault that was raised or has returned."""
    if not (chain.core_folder / "ledger.sqlite3").exists():
        return 0
    rows = chain.rows("SELECT body FROM transition WHERE kind = ? LIMIT 10000", (kind,))
    alarms = [json.loads(body)["alarm"] for (body,) in rows]
    return len({alarm["tag"] for alarm in alarms if alarm["limit"] == "FAULT" and alarm["tag"].endswith(".GAS")})


@pytest.mark.fault("F45")
@pytest.mark.parametrize("part", ["core", "edge"])
def test_an_unknown_key_is_refused_at_start_with_its_line_and_the_nearest_one(chain: Chain, part: str) -> None:
    file = chain.site_file if part == "core" else chain.site_file.with_name("E1.yaml")
    lines = file.read_text("utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if "host_id:" in line)
    lines[at] = lines[at].replace("host_id:", "host_idd:")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = chain.folder / "data"
    command = ["core", str(file)] if part == "core" else ["edge", "run", str(file)]
    said = refused([*command, "--data", str(data)], chain.environment)
    assert f"{file}:{at + 1}" in said
    assert "host_idd" in said
    assert "host_id" in said.replace("host_idd", "")
    assert not data.exists(), "a refused start leaves nothing behind"


def test_a_missing_secret_is_refused_at_start_and_named(chain: Chain) -> None:
    said = refused(["core", str(chain.site_file), "--data", str(chain.folder)])
    assert "HAZARDGATE_SYSTEM_CITY" in said


@pytest.mark.parametrize("what", ["platform", "plant"])
def test_a_port_that_is_taken_is_refused_and_named(tmp_path: Path, what: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port: int = holder.getsockname()[1]
        site = load_site(DEMO_SITE)
        buses = {(edge.id, bus.id): ("127.0.0.1", free_port()) for edge in site.edges for bus in edge.buses}
        buses[next(iter(buses))] = ("127.0.0.1", port)
        urls = {receiver.id: receiver.url for receiver in site.receivers}
        file = tmp_path / "site.yaml"
        file.write_text(dump_site(rebind(site, buses, ("127.0.0.1", 1), urls)), encoding="utf-8")
        secrets = {str(receiver.secret_env): "whsec_" + "c2VjcmV0" * 6 for receiver in site.receivers}
        command = ["simulate", what, str(file), "--data", str(tmp_path)]
        said = refused([*command, *(["--port", str(port)] if what == "platform" else [])], secrets)
    assert str(port) in said


def test_ctrl_c_ends_the_demo_in_time_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = Part("demo", [*CLI, "demo", "--scenario", "quiet-day", "--json", "--data", str(folder)], tmp_path / "demo.log", {})
    demo.start()
    try:

        def committed() -> int:
            beat = read_json(folder / "core" / "heartbeat.json")
            return int(beat["samples_committed"]) if beat and all(node["online"] for node in beat["nodes"]) else 0

        first = wait_until(committed, "the demo's chain is up")
        wait_until(lambda: committed() > first + 60, "the demo runs")
        children = _children(demo.pid)
        assert len(children) >= 5
        with fair_clock() as now_s:
            os.kill(demo.pid, signal.SIGINT)
            demo.wait_end()
            took_s = now_s()
        print(f"ended after {took_s:.1f} s")
        assert took_s < DEMO_END_S_MAX
        wait_until(lambda: not any(map(_runs, children)), "nothing of it runs any more")
        said = demo.log_path.read_text("utf-8")
        assert str(folder) in said
        assert "Traceback" not in said
        assert json.loads(said.splitlines()[-1])["scenario"] == "quiet-day"
    finally:
        if demo.alive:
            demo.kill()


def _children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in _children(child)]


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
