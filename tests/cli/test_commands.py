"""What a person meets at the command line: one sentence in their language, never a stack, on any terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import DEMO_SITE, load_edge
from tests.cli.invoking import run
from tests.config.documents import SOUND, spoiled

SECRET = "whsec_" + "A" * 40
DEMO = str(DEMO_SITE)


@pytest.fixture(autouse=True)
def _secrets_and_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    for name in ("HAZARDGATE_SECRET_CITY", "HAZARDGATE_SECRET_PARK", "CITY_SECRET"):
        monkeypatch.setenv(name, SECRET)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "plant.yaml"
    path.write_text(SOUND, encoding="utf-8")
    return path


# ------------------------------------------------------------------ check, export, schema


def test_check_of_a_sound_site(site: Path) -> None:
    result = run("check", site)
    assert result.exit_code == 0
    assert result.output == "TEST: usable, 3 tags, 1 edges, 0 warnings\n"


def test_check_shows_every_error_with_its_place(site: Path) -> None:
    text = spoiled("L: {setpoint: 1,", "L: {setpoint: -1,").replace("regulator: true", "regulater: true")
    site.write_text(text, encoding="utf-8")
    result = run("check", site)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[-1] == "not usable: 2 errors"
    assert all(line.startswith(f"error: {site}:") for line in lines[:-1])
    told = json.loads(run("check", site, "--json").output)
    assert [problem["place"] for problem in told] == ["tags[T101.LEVEL].limits.L.setpoint", "receivers[CITY].regulater"]


def test_check_speaks_chinese(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    site.write_text(spoiled("quantity: valve_state", "quantity: valve_stat"), encoding="utf-8")
    lines = run("check", site).output.splitlines()
    assert lines[0].startswith(f"错误: {site}:")
    assert lines[0].endswith("不是可选值之一；是否想写 'valve_state'？")
    assert lines[-1] == "不可用：1 处错误"


def test_export_writes_a_file_that_loads(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "e1.yaml"
    result = run("edge", "export", site, "E1", "-o", out)
    assert result.exit_code == 0
    assert load_edge(out).edge.id == "E1"
    assert "CITY" not in out.read_text(encoding="utf-8")


def test_an_exported_edge_file_passes_its_own_check(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "edge.yaml"
    run("edge", "export", site, "E1", "-o", out)
    result = run("edge", "check", out)
    assert result.exit_code == 0
    assert result.output.startswith("E1: usable, ")


# ------------------------------------------------------------------ refusals

REFUSALS = [
    pytest.param(("check", "{tmp}/absent.yaml"), 1, "cannot be read: No such file", id="check: no file"),
    pytest.param(("check", "{tmp}"), 1, "site.yaml: cannot be read", id="check: a folder without a site"),
    pytest.param(("core", "{tmp}/absent.yaml"), 2, "cannot be read: No such file", id="core: no site"),
    pytest.param(("core", DEMO, "--data", "{file}"), 2, "core: cannot be used (Not a directory)", id="core: data is a file"),
    pytest.param(("core", DEMO, "--data", "{ledger}"), 2, "the ledger cannot be opened", id="core: the ledger is a folder"),
    pytest.param(("edge", "run", "{tmp}/absent.yaml"), 2, "cannot be read", id="edge run: no file"),
    pytest.param(("edge", "run", "{edge}", "--data", "{file}"), 2, "{file}", id="edge run: data is a file"),
    pytest.param(("edge", "check", "{file}"), 2, "{file}", id="edge check: no edge file"),
    pytest.param(("edge", "export", DEMO, "E9"), 2, "no edge 'E9'; valid here: E1, E2", id="export: no such edge"),
    pytest.param(
        ("edge", "export", DEMO, "E1", "-o", "{tmp}/no/x"), 2, "no/x: cannot be used (No such file", id="export: no folder"
    ),
    pytest.param(("simulate", "plant", DEMO, "--data", "{file}"), 2, "cannot be used (Not a dir", id="plant: data is a file"),
    pytest.param(
        ("simulate", "plant", DEMO, "--scenario", "quite-day", "--data", "{tmp}"), 2, "did you mean 'quiet-day'?",
        id="plant: no such scenario",
    ),
    pytest.param(("simulate", "platform", DEMO, "--data", "{file}"), 2, "cannot be used", id="platform: data is a file"),
    pytest.param(("demo", "--data", "{file}"), 2, "cannot be used (File exists)", id="demo: data is a file"),
    pytest.param(("demo", "--data", "{tmp}"), 2, "is not empty", id="demo: data is not empty"),
    pytest.param(("demo", "--scenario", "nope"), 2, "no scenario 'nope'", id="demo: no such scenario"),
    pytest.param(
        ("ack", "A1", "--actor", "Li", "--data", "{tmp}"), 2, "is core running on this data folder?", id="ack: no core"
    ),
    pytest.param(
        ("close", "A1", "--actor", "Li", "--reason", "r", "--measure", "m", "--data", "{tmp}"), 2, "is core running",
        id="close: no core",
    ),
]  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, site: Path) -> dict[str, str]:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "ledger" / "core" / "ledger.sqlite3").mkdir(parents=True)
    run("edge", "export", site, "E1", "-o", tmp_path / "edge.yaml")
    return {
        "tmp": str(tmp_path), "file": str(tmp_path / "file"), "edge": str(tmp_path / "edge.yaml"),
        "ledger": str(tmp_path / "ledger"),
    }  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_a_refusal_is_one_sentence(arguments, code, words, places) -> None:
    result = run(*(argument.format_map(places) for argument in arguments))
    assert result.exit_code == code
    assert words.format_map(places) in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_a_refusal_is_told_in_chinese(arguments, code, words, places, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    result = run(*(argument.format_map(places) for argument in arguments))
    assert result.exit_code == code
    assert any("\u4e00" <= char <= "\u9fff" for char in result.output)
    assert words.format_map(places) == places["file"] or words.format_map(places) not in result.output


def test_a_missing_secret_names_its_place_and_the_next_step(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CITY_SECRET")
    assert "environment variable CITY_SECRET is empty or not there; put a secret there" in run("core", site).output
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    assert "环境变量 CITY_SECRET 为空或不存在；请在该处放置密钥" in run("core", site).output


def test_a_broker_certificate_that_cannot_be_used_is_one_sentence(site: Path, tmp_path: Path) -> None:
    site.write_text(SOUND + "broker: {tls: {ca_file: ca.pem}}\n", encoding="utf-8")
    result = run("core", site)
    assert result.exit_code == 2
    assert result.output == (
        f"broker.tls.ca_file: {tmp_path / 'ca.pem'} cannot be used (No such file or directory); name a readable PEM file\n"
    )


# ------------------------------------------------------------------ terminals


def in_terminal(*arguments: str, encoding: str, language: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments], capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "HAZARDGATE_LANG": language, "PYTHONUTF8": "0"},
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["gbk", "ascii"])
def test_check_on_a_terminal_that_lacks_characters(site: Path, encoding: str) -> None:
    site.write_text(SOUND.replace("T101.LEVEL", "T101.LEVEL³"), encoding="utf-8")
    done = in_terminal("check", str(site), encoding=encoding, language="zh")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode(encoding)
    assert "tags[T101.LEVEL?].id" in text  # what the terminal lacks
    assert ("请用大写字母" in text) is (encoding == "gbk")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("重大危险源监测网关", "检查站点配置", "确认报警", "采集终端：运行、导出配置")),
        (("core", "--help"), ("运行核心", "数据目录", "账本由备份恢复")),
        (("edge", "export", "--help"), ("导出一个采集终端自己的配置", "写入此文件")),
        (("demo", "--help"), ("在本机运行整条链路", "场景", "随机种子")),
    ],
)
def test_help_on_a_gbk_terminal(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = in_terminal(*arguments, encoding="gbk", language="zh")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("gbk")
    assert all(word in text for word in words)
    assert "Run the" not in text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_help_is_cut_at_80_columns(language: str) -> None:
    """A help text is broken at its blanks alone: Chinese without one is cut where its column ends."""
    program = (
        "from typer.main import get_command\n"
        "from typer.testing import CliRunner\n"
        "from cli.commands import app\n"
        "def walk(command, path):\n"
        "    yield path\n"
        "    for name, below in getattr(command, 'commands', {}).items():\n"
        "        yield from walk(below, (*path, name))\n"
        "for path in walk(get_command(app), ()):\n"
        "    shown = CliRunner().invoke(app, [*path, '--help']).output\n"
        "    assert 'help' in shown\n"
        "    print('seen', *path)\n"
        "    print(*(line for line in shown.splitlines() if '…' in line), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "HAZARDGATE_LANG": language, "COLUMNS": "80", "TERMINAL_WIDTH": "80"},
    )  # fmt: skip
    assert "seen store copy" in done.stdout
    assert [line for line in done.stdout.splitlines() if "…" in line] == []


def test_the_views_plain_line_on_a_gbk_terminal() -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from cli import demo_view\n"
        "from cli.language import make_output_safe\n"
        "from config import DEMO_SITE, load_site\n"
        "make_output_safe()\n"
        "demo_view.PLAIN_PERIOD_S = 0.01\n"
        "async def main():\n"
        "    said, line, looks = asyncio.Event(), demo_view._line, []\n"
        "    def counted(seen):\n"
        "        looks.append(seen)\n"
        "        if len(looks) == 2:\n"
        "            said.set()  # the first line is out\n"
        "        return line(seen)\n"
        "    demo_view._line = counted\n"
        "    view = demo_view.show(pathlib.Path('/nonexistent'), load_site(DEMO_SITE), 'x', plain=True)\n"
        "    showing = asyncio.ensure_future(view)\n"
        "    await said.wait()\n"
        "    showing.cancel()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONIOENCODING": "gbk", "HAZARDGATE_LANG": "zh", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.decode("gbk").splitlines()[0] == "已提交 0 个样本；报警中：红 0 橙 0 黄 0 蓝 0；已送达 0"
