"""`hazardgate serve`, `token` and `openapi` at the command line: one sentence in the user's language, never a stack."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import DEMO_SITE
from gateway.serve import openapi_document
from tests.cli.invoking import run

ROOT = Path(__file__).parents[2]
SITE = str(DEMO_SITE)


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    monkeypatch.setattr("os.nice", lambda _: 0)  # the tests' own process is not to be slowed down
    monkeypatch.setattr("os.sched_setscheduler", lambda *_: None)


def test_a_token_is_shown_once_and_then_only_its_standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").mkdir()
    made = run("token", "new", "李工", "--role", "operator", "--days", 30, "--data", tmp_path)
    assert made.exit_code == 0
    sent = made.output.split("\n")[0]
    assert sent.startswith("hg1_")
    assert "shown only now" in made.output
    listed = run("token", "list", "--data", tmp_path)
    assert "李工" in listed.output
    assert "valid" in listed.output
    assert sent.split("_", 2)[2] not in listed.output
    told = json.loads(run("token", "list", "--json", "--data", tmp_path).output)
    assert [(one["name"], one["role"]) for one in told] == [("李工", "operator")]
    assert not {"sha256", "token"} & set(told[0])
    revoked = run("token", "revoke", "李工", "--data", tmp_path)
    assert revoked.output == f"revoked: {told[0]['id']} 李工\n"
    assert "revoked" in run("token", "list", "--data", tmp_path).output
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    assert "已吊销" in run("token", "list", "--data", tmp_path).output


def test_a_token_as_json_is_for_scripts(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    told = json.loads(run("token", "new", "screen", "--role", "viewer", "--json", "--data", tmp_path).output)
    assert told["token"].startswith(f"hg1_{told['id']}_")


def test_a_token_goes_into_a_new_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "heartbeat.json").write_text('{"timezone": "Asia/Shanghai"}', encoding="utf-8")
    file = tmp_path / "li.token"
    new = ("token", "new", "li", "--role", "viewer", "--data", tmp_path, "-o", file)
    before = os.umask(0)
    try:
        made = run(*new)
    finally:
        os.umask(before)
    sent = file.read_text("ascii")
    assert re.fullmatch(r"hg1_[0-9a-f]{10}_\S+\n", sent)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (made.exit_code, sent.strip() in made.output) == (0, False)
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d CST\. The token is in ", made.output)
    again = run(*new)
    assert (again.exit_code, "not overwritten" in again.output) == (2, True)
    assert file.read_text("ascii") == sent
    assert len(json.loads(run("token", "list", "--json", "--data", tmp_path).output)) == 1


def test_no_file_is_left_where_no_token_was_made(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    result = run("token", "new", " ", "--role", "viewer", "--data", tmp_path, "-o", tmp_path / "t")
    assert (result.exit_code, (tmp_path / "t").exists()) == (2, False)


@pytest.mark.parametrize("command", [("new", "li", "--role", "viewer"), ("list",), ("revoke", "li")])
def test_a_folder_that_is_none_of_ours_gets_no_tokens(tmp_path: Path, command: tuple[str, ...]) -> None:
    wrong = tmp_path / "wrong"
    result = run("token", *command, "--data", wrong)
    assert (result.exit_code, "holds neither core/ nor serve/" in result.output) == (2, True)
    assert not wrong.exists()


def test_the_log_of_a_command_ends_with_it(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    assert run("serve", SITE, "--data", places["broken"], "--port", 0).exit_code == 2
    assert logging.getLogger().handlers == before
    logging.getLogger("gateway.serve").warning("of the next test")
    assert "Logging error" not in capsys.readouterr().err


REFUSALS = [
    pytest.param(("token", "new", " ", "--role", "viewer", "--data", "{tmp}"), "printable characters", id="no name"),
    pytest.param(("token", "new", "l\x1b[2Ji", "--role", "viewer", "--data", "{tmp}"), "printable characters", id="a name that steers"),
    pytest.param(("token", "revoke", "nobody", "--data", "{tmp}"), "no valid token 'nobody'", id="nobody"),
    pytest.param(("token", "new", "li", "--role", "viewer", "--data", "{file}"), "holds neither core/", id="data is a file"),
    pytest.param(("token", "list", "--data", "{broken}"), "cannot be used", id="a broken token file"),
    pytest.param(("serve", SITE, "--data", "{broken}", "--port", "0"), "cannot be used", id="serve: a broken token file"),
    pytest.param(("serve", "{tmp}/absent.yaml", "--data", "{tmp}"), "cannot be read", id="serve: no site"),
    pytest.param(("serve", SITE, "--data", "{empty}", "--port", "0"), "holds no core/", id="serve: no core ran here"),
    pytest.param(("serve", SITE, "--data", "{file}"), "cannot be used", id="serve: data is a file"),
    pytest.param(("serve", SITE, "--data", "{tmp}", "--host", "0.0.0.0"), "without TLS", id="serve: in clear"),
    pytest.param(("serve", SITE, "--data", "{tmp}", "--host", "::", "--port", "0"), "without TLS", id="serve: in clear, IPv6"),
    pytest.param(("serve", SITE, "--data", "{tmp}", "--port", "{taken}"), "cannot listen on 127.0.0.1:", id="serve: port taken"),
    pytest.param(("serve", SITE, "--data", "{tmp}", "--tls-cert", "{file}", "--tls-key", "{file}"), "TLS cannot", id="serve: no PEM"),
]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "core").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "core").mkdir(parents=True)
    (tmp_path / "broken" / "serve").mkdir()
    (tmp_path / "broken" / "serve" / "tokens.json").write_text("{", encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield {
            "tmp": str(tmp_path), "file": str(tmp_path / "file"), "broken": str(tmp_path / "broken"),
            "empty": str(tmp_path / "empty"),
            "taken": str(taken.getsockname()[1]),
        }  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), REFUSALS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_refusal_is_one_sentence(
    arguments: tuple[str, ...], words: str, language: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    result = run(*(argument.format_map(places) for argument in arguments))
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert (words in result.output) == (language == "en")
    assert any("\u4e00" <= char <= "\u9fff" for char in result.output) == (language == "zh")
    assert "\x1b" not in result.output


def test_the_document_is_printed_as_it_is_checked_in() -> None:
    assert run("openapi").output == openapi_document() == (ROOT / "docs" / "openapi.json").read_text("utf-8")
