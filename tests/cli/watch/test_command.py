"""What is typed before the screen opens: an address that keeps the token safe, and a token from where nobody else reads."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.watch.command import TOKEN_ENV, checked_url, read_token, trusted
from tests.cli.watch.fake_server import FakeGateway, serving
from tests.patience import GUARD_S

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    monkeypatch.delenv(TOKEN_ENV, raising=False)


@pytest.mark.parametrize(
    ("typed", "used"),
    [
        ("http://127.0.0.1:8580", "http://127.0.0.1:8580"),
        ("http://localhost:8580/", "http://localhost:8580"),
        ("http://[::1]:8580", "http://[::1]:8580"),
        ("https://gate.example", "https://gate.example"),
        ("https://10.1.2.3:8443", "https://10.1.2.3:8443"),
    ],
)
def test_addresses_that_are_used(typed: str, used: str) -> None:
    assert checked_url(typed) == used


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("http://10.1.2.3:8580", "in the clear"),
        ("http://127.0.0.1.example:8580", "in the clear"),
        ("http://localhost.example", "in the clear"),
        ("ftp://127.0.0.1", "should be"),
        ("127.0.0.1:8580", "should be"),
        ("https://", "should be"),
        ("https://gate.example/api", "should be"),
        ("https://user@gate.example", "should be"),
        ("https://gate.example:99999", "should be"),
        ("https://gate.example?x=1", "should be"),
    ],
)
def test_addresses_that_are_refused(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        checked_url(typed)
    assert told in capsys.readouterr().err


def test_the_token_comes_from_the_file_or_else_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("hg1_a_b\nwho it is for, and until when\n", encoding="ascii")
    assert read_token(path) == "hg1_a_b"
    monkeypatch.setenv(TOKEN_ENV, " hg1_c_d ")
    assert read_token(None) == "hg1_c_d"
    assert read_token(path) == "hg1_a_b"


@pytest.mark.parametrize("held", ["", "two words", "x" * 600, "令牌", "a\x00b"])
def test_what_is_no_token_is_refused_and_not_shown(
    held: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    path.write_text(held, encoding="utf-8")
    with pytest.raises(SystemExit):
        read_token(path)
    told = capsys.readouterr().err
    assert "does not hold a token" in told
    assert not held or held not in told


def test_a_ca_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ca.pem"
    for told in ("No such file", "is no CA certificate"):
        with pytest.raises(SystemExit):
            trusted(path)
        assert told in capsys.readouterr().err
        path.write_text("nothing", encoding="ascii")


def test_the_screens_machine_needs_no_gateway() -> None:
    listed = "import cli.watch, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", listed], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    loaded = set(done.stdout.split())
    assert {"textual", "aiohttp"} <= loaded
    assert not loaded & {"gateway", "alerting", "edge", "simulators", "apsw", "fastapi", "uvicorn", "pymodbus"}


def test_a_token_refused_at_the_start_is_one_sentence_and_code_2(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hg1_a_wrong", encoding="ascii")
    screen, terminal = pty.openpty()

    async def story() -> tuple[int, bytes]:
        told = bytearray()
        asyncio.get_running_loop().add_reader(screen, lambda: told.extend(os.read(screen, 65_536)))
        async with serving(FakeGateway()) as url, asyncio.timeout(GUARD_S):
            started = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli", "watch", "--url", url, "--token-file", str(path),
                stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env=os.environ | {"TERM": "xterm"},
            )  # fmt: skip
            code = await started.wait()
        return code, bytes(told)

    try:
        code, told = asyncio.run(story())
    finally:
        os.close(screen)
        os.close(terminal)
    assert code == 2
    left = told.rpartition(b"\x1b[?1049l")[2]  # what stands in the terminal once the screen has gone
    assert b"this token was revoked, has ended or is wrong; get a new one" in left
    assert b"Traceback" not in left


def test_the_command_says_what_is_missing() -> None:
    result = CliRunner().invoke(app, ["watch"])
    assert result.exit_code == 2
    assert "no token" in result.output
    result = CliRunner().invoke(app, ["watch", "--url", "http://127.0.0.1:1"], env={TOKEN_ENV: "hg1_a_b"})
    assert result.exit_code == 2
    assert "needs a terminal" in result.output
