"""`hazardgate backup`, `restore` and `upgrade` at the command line: what they say in both languages, and a whole rehearsal."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.serve import Role
from tests.care.folders import LEDGER, LEDGER_ID, contents, whole
from tests.care.test_upgrade import aged
from tests.cli.invoking import run
from tests.serve.processes import Station, station
from tests.system.chain import wait_until


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    monkeypatch.setattr("os.nice", lambda _: 0)  # the tests' own process is not to be slowed down
    monkeypatch.setattr("os.sched_setscheduler", lambda *_: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return whole(tmp_path / "data")


def chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


@pytest.mark.parametrize("name", ["b", "b.tar"])
def test_backup_verify_and_restore(data: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    made = run("backup", "--data", data, "--to", place, "--rate-mb", 0)
    assert made.exit_code == 0, made.output
    assert f"ledger {LEDGER_ID}: everything up to log position" in made.output
    assert "It holds no secret" in made.output
    checked = run("backup", "--verify", place)
    assert (checked.exit_code, "0 damaged" in checked.output) == (0, True)
    back = run("restore", "--from", place, "--data", tmp_path / "back")
    assert back.exit_code == 0, back.output
    assert "start core with the site file, without --restored" in back.output
    assert "the edges send again by themselves" in back.output
    assert contents(tmp_path / "back" / LEDGER)["log"] == contents(data / LEDGER)["log"]


def test_an_archive_shares_nothing_with_anybody(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are gathered by hard links, and then all of them are copied into it."""
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    folder = run("backup", "--data", data, "--to", tmp_path / "b", "--json")
    assert json.loads(folder.output)["linked"] > 0, "there is something that a folder shares"
    told = json.loads(run("backup", "--data", data, "--to", tmp_path / "b.tar", "--json").output)
    assert (told["linked"], told["reused"], told["kept"]) == (0, 0, 0)
    assert (told["copied"], told["copied_bytes"]) == (told["files"], told["bytes"])
    output = run("backup", "--data", data, "--to", tmp_path / "c.tar").output
    assert ("备份完成" in output, "共用" in output) == (True, False)


def test_all_of_it_in_chinese(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    place = tmp_path / "b"
    assert "不含密钥" in run("backup", "--data", data, "--to", place).output
    assert "0 处损坏" in run("backup", "--verify", place).output
    assert "其中已有完成的备份" in run("backup", "--data", data, "--to", place).output
    assert "请给出 --replace" in run("restore", "--from", place, "--data", data).output
    assert "不会看到重复的序号" in run("restore", "--from", place, "--data", data, "--replace").output
    assert "无需升级" in run("upgrade", "--data", data).output
    assert "账本架构：2，无需升级" in run("upgrade", "--data", data, "--dry-run").output
    (place / "serve" / "tokens.json").write_text("x")
    assert "损坏：serve/tokens.json" in run("backup", "--verify", place).output
    for refused in (
        run("backup", "--data", tmp_path / "none", "--to", tmp_path / "c"), run("backup", "--verify", tmp_path / "none"),
        run("restore", "--from", place, "--data", tmp_path / "d"), run("upgrade", "--data", tmp_path / "none"),
    ):  # fmt: skip
        assert refused.exit_code == 2
        assert chinese(refused.output)


def test_scripts_get_json(data: Path, tmp_path: Path) -> None:
    told = json.loads(run("backup", "--data", data, "--to", tmp_path / "b", "--json").output)
    assert (told["ledger"], told["site"], told["damaged"], told["versions"]["ledger"]) == (LEDGER_ID, "PARK1", [], 2)
    assert json.loads(run("backup", "--verify", tmp_path / "b", "--json").output)["problems"] == []
    back = json.loads(run("restore", "--from", tmp_path / "b", "--data", tmp_path / "back", "--json").output)
    assert (back["old_id"], back["pos"], back["aside"]) == (LEDGER_ID, told["pos"], None)
    assert {one["part"] for one in json.loads(run("upgrade", "--data", data, "--dry-run", "--json").output)} >= {"ledger", "snapshots"}
    assert json.loads(run("upgrade", "--data", data, "--json").output)["done"] == []


def test_a_damaged_backup_ends_with_1_and_names_the_file(data: Path, tmp_path: Path) -> None:
    run("backup", "--data", data, "--to", tmp_path / "b")
    path = tmp_path / "b" / LEDGER
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    checked = run("backup", "--verify", tmp_path / "b")
    assert (checked.exit_code, f"damaged: {LEDGER}" in checked.output) == (1, True)
    refused = run("restore", "--from", tmp_path / "b", "--data", tmp_path / "back")
    assert (refused.exit_code, LEDGER in refused.output) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("--to", "a", "--verify", "b")])
def test_backup_wants_a_target_or_a_backup_to_check(arguments: tuple[str, ...]) -> None:
    assert run("backup", *arguments).exit_code == 2


def test_restore_refuses_under_a_running_core(data: Path, tmp_path: Path) -> None:
    run("backup", "--data", data, "--to", tmp_path / "b")
    with (data / "core" / "core.lock").open("a+") as held:
        held.write("core with process id 7")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = run("restore", "--from", tmp_path / "b", "--data", data, "--replace")
        assert refused.exit_code == 2
        assert "in use by core with process id 7" in refused.output
        assert "in use by core with process id 7" in run("upgrade", "--data", data).output


def test_an_old_folder_is_told_which_command_to_run_and_that_command_does_it(data: Path) -> None:
    aged(data)
    dry = run("upgrade", "--data", data, "--dry-run")
    assert "the ledger's schema: 1 → 2" in dry.output
    done = run("upgrade", "--data", data)
    assert done.exit_code == 0, done.output
    assert "backup from before" in done.output
    assert "upgraded: ledger schema 1 → 2" in done.output
    assert "nothing to do" in run("upgrade", "--data", data).output


# -- a rehearsal with processes -------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Station]:
    (tmp_path / "station").mkdir()
    with station(tmp_path / "station") as made:
        yield made


@pytest.mark.system
def test_a_backup_beside_a_running_core_and_serve_is_restored_and_core_goes_on_under_a_new_id(running: Station, tmp_path: Path) -> None:
    running.token("li", Role.VIEWER)
    running.start_serve()
    folder, place = running.folder, tmp_path / "backups" / "monday"
    made = run("backup", "--data", folder, "--to", place, "--site", folder / "site.yaml", "--json")
    assert made.exit_code == 0, made.output
    told = json.loads(made.output)
    before = running.heartbeat()["ledger"]
    assert told["ledger"] == before
    journal = running.journal()
    refused = run("restore", "--from", place, "--data", folder, "--replace")
    assert (refused.exit_code, "in use by core with process id" in refused.output) == (2, True)
    running.serve.kill()
    running.core.kill()
    back = run("restore", "--from", place, "--data", folder, "--replace", "--json")
    assert back.exit_code == 0, back.output
    running.core.start()
    wait_until(lambda: running.heartbeat().get("pid") == running.core.pid, "core's heartbeat")
    assert running.heartbeat()["ledger"] == json.loads(back.output)["new_id"] != before
    running.start_serve()
    assert running.journal()[: len(journal)] == journal
    assert (place / "site" / "site.yaml").exists()
    assert "li" in run("token", "list", "--data", folder).output


def test_who_holds_the_folder_is_told_in_chinese_too() -> None:
    from gateway.care import InUseError

    told = InUseError(Path("d"), "core with process id 17")
    assert "正被 核心进程 17 使用" in told.message_zh
    assert "core with process id 17" in str(told)
    assert "查询服务" in InUseError(Path("d"), "serve").message_zh


def test_a_refused_restore_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    assert run("backup", "--data", data, "--to", tmp_path / "b", "--rate-mb", 0, "--copy").exit_code == 0
    (path,) = list((tmp_path / "b").glob("historian/samples/*/seal-ledger-one-0000000000000001-*"))
    path.write_bytes(b"spoilt")
    refused = run("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
    assert refused.exit_code == 2
    assert "damaged" in refused.output
    assert not (tmp_path / "new").exists()


def test_the_version_is_told() -> None:
    told = run("--version")
    assert told.exit_code == 0
    assert told.output.startswith("hazardgate ")
