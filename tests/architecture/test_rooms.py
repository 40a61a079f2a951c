"""What may load what: an edge box must not need the gateway's packages, nor anybody the simulators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATEWAY_ONLY = {"aiohttp", "apsw", "fastapi", "influxdb_client", "pymodbus", "standardwebhooks", "starlette", "uvicorn"}
PLANT_NEVER = {"simulators", "pymodbus"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after the statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"],
        check=True, capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        pytest.param("import edge", GATEWAY_ONLY | {"alerting", "gateway", "simulators"}, id="the edge"),
        pytest.param("import wire", GATEWAY_ONLY | {"config", "edge", "alerting", "gateway"}, id="the wire"),
        pytest.param("import cli", GATEWAY_ONLY | {"edge", "alerting", "gateway", "simulators"}, id="the command"),
        pytest.param("import gateway.core", PLANT_NEVER | {"edge", "fastapi"}, id="core"),
        pytest.param("import alerting", GATEWAY_ONLY | {"gateway", "edge"}, id="the engine"),
    ],
)
def test_a_package_loads_no_more_than_its_box_has(statement: str, never: set[str]) -> None:
    assert not loaded_by(statement) & never


def test_no_file_of_ours_names_a_package_index() -> None:
    words = ("pypi.org", "pythonhosted", "registry.npmjs", "--index-url", "--extra-index")
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True, cwd=ROOT).stdout.split("\n")
    for name in listed:
        path = ROOT / name
        if path == Path(__file__) or not name or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        assert not [word for word in words if word in text], name


def test_the_lock_pins_every_package_by_hash() -> None:
    lines = (ROOT / "requirements.lock").read_text("ascii").splitlines()
    names = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert names
    for at, line in enumerate(lines):
        if line in names:
            assert "==" in line, line
            assert "--hash=sha256:" in lines[at + 1], line
