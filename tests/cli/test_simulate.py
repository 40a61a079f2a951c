"""The simulators alone: where they listen, what they say about it, and numbers that make no sense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cli.simulate import receiver_port
from config import DEMO_SITE, SiteConfig, load_site, parse_site
from tests.cli.invoking import run
from tests.config.documents import SOUND
from tests.patience import GUARD_S

SECRETS = dict.fromkeys(("HAZARDGATE_SECRET_CITY", "HAZARDGATE_SECRET_PARK"), "whsec_" + "A" * 40)


def with_urls(*urls: str) -> SiteConfig:
    site = load_site(DEMO_SITE)
    pairs = zip(site.receivers, urls, strict=True)
    return site.model_copy(update={"receivers": tuple(one.model_copy(update={"url": url}) for one, url in pairs)})


@pytest.mark.parametrize(
    ("urls", "port"),
    [
        (("http://127.0.0.1:18080/hooks/CITY", "http://127.0.0.1:18081/hooks/PARK"), 18080),
        (("https://city.example/hooks", "http://localhost:18081/hooks/PARK"), 18081),
        (("http://10.1.2.3:18080/hooks", "http://127.0.0.1/hooks/PARK"), 80),
        (("https://127.0.0.1:18080/hooks", "http://[::1]:18080/hooks"), 0),
    ],
)
def test_the_platform_listens_where_the_site_seeks_it(urls: tuple[str, str], port: int) -> None:
    assert receiver_port(with_urls(*urls)) == port


def test_a_site_without_a_receiver_on_loopback_gets_a_free_port() -> None:
    assert receiver_port(parse_site(SOUND)) == 0


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_cannot_be_is_refused(port: str, tmp_path: Path) -> None:
    result = run("simulate", "platform", DEMO_SITE, "--data", tmp_path, "--port", port)
    assert result.exit_code == 2
    assert "--port" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_demo_runs_for_some_time(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    result = run("demo", "--for", seconds)
    assert result.exit_code == 2
    assert "must be more than 0" in result.output


def first_line(tmp_path: Path, *arguments: str) -> tuple[str, subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "simulate", *arguments, "--data", str(tmp_path)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **SECRETS, "HAZARDGATE_LANG": "en"},
    )  # fmt: skip
    assert process.stdout is not None
    return process.stdout.readline(), process


def ended(process: subprocess.Popen[str]) -> str:
    """Stop it; return what else it said."""
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=GUARD_S)[0]


def test_the_platform_says_where_it_is(tmp_path: Path) -> None:
    line, process = first_line(tmp_path, "platform", str(DEMO_SITE), "--port", "0")
    try:
        url = line.removeprefix("simulated platform: ").partition(",")[0]
        assert line == f"simulated platform: {url}, notices go to {url}/hooks/RECEIVER, counts are at {url}/summary\n"
        with urllib.request.urlopen(f"{url}/summary", timeout=GUARD_S) as answer:
            assert answer.status == 200
    finally:
        assert ended(process) == ""


def test_the_plant_says_where_its_buses_are(tmp_path: Path) -> None:
    line, process = first_line(tmp_path, "plant", str(DEMO_SITE), "--free-ports")
    try:
        places = dict(place.split(" ") for place in line.strip().removeprefix("simulated plant: ").split(", "))
        assert set(places) == {f"{edge.id}/{bus.id}" for edge in load_site(DEMO_SITE).edges for bus in edge.buses}
        for place in places.values():
            host, port = place.split(":")
            socket.create_connection((host, int(port)), timeout=GUARD_S).close()
    finally:
        assert ended(process) == ""
