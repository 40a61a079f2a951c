"""`hazardgate store` against a real InfluxDB: sets up once, tells what is there, and fails with advice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import store
from cli.commands import app
from gateway.core.conditions import SENTENCES
from gateway.core.historian_status import STORE_LAG_MS
from gateway.historian import influx
from gateway.historian.influx.setup import Health
from tests.stores import INFLUXD, StoreServer, needs_influxd, running_store

NOW_MS = 1_795_000_000_000
DEMO = Path(__file__).parents[2] / "config" / "sites" / "demo" / "site.yaml"


@pytest.fixture(autouse=True)
def _at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "wall_ms", lambda: NOW_MS)


def tell(data: Path, *entries: dict[str, Any], age_ms: int = 4_000, **more: Any) -> None:
    """Write what serve says of its stores."""
    (data / "historian").mkdir(exist_ok=True)
    status = {"at_ms": NOW_MS - age_ms, "stores": list(entries), **more}
    (data / "historian" / "status.json").write_text(json.dumps(status), encoding="utf-8")


def fed(state: str = "live", **more: Any) -> dict[str, Any]:
    """An entry of it."""
    return {"id": "plant", "state": state, "lag_rows": 0, "lag_ms": 0, "quarantined": 0, "detail": "", "detail_zh": "", **more}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers and has our database."""

    @contextmanager
    def opened(*_: object) -> Iterator[object]:
        yield object()

    monkeypatch.setattr(store, "_opened", opened)
    monkeypatch.setattr(influx, "health", lambda _: Health("1.0", True))


def site_with(folder: Path, url: str, **more: Any) -> Path:
    """The demo site with a store."""
    stored = {"id": "plant", "kind": "influxdb1", "url": url, **more}
    text = DEMO.read_text("utf-8")
    assert text.count("\nstorage:\n") == 1
    text = text.replace("\nstorage:\n", f"\nstorage:\n  stores: [{json.dumps(stored)}]\n")
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["store", *words])
    return found.exit_code, found.output


@needs_influxd
def test_setup_tells_what_it_did_and_status_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    with running_store(INFLUXD, tmp_path / "server") as server:
        site = str(site_with(tmp_path, server.url))
        data = ["--data", str(tmp_path)]
        assert run("status", site, *data)[0] == 1, "no database yet"
        code, told = run("setup", site, "--json")
        assert code == 0
        assert [done["changed"] for done in json.loads(told)[0]["done"]] == [True, True]
        assert [done["changed"] for done in json.loads(run("setup", site, "--json")[1])[0]["done"]] == [False, False]
        assert run("status", site, *data)[0] == 1, "the gateway has not told how far it is"
        tell(tmp_path, fed("catching up", lag_rows=7, quarantined=0))
        code, told = run("status", site, *data, "--json")
        assert code == 0
        _own, entry = json.loads(told)
        assert (entry["database"], entry["error"], entry["fed"]["lag_rows"]) == (True, None, 7)
        assert entry["version"].startswith("1.")
        assert "7" in run("status", site, *data)[1]
        _away(server, site, data)


def _away(server: StoreServer, site: str, data: list[str]) -> None:
    server.stop()
    for words in (("status", site, *data), ("setup", site)):
        code, told = run(*words)
        assert code == 1
        assert "storage.stores.plant" in told


def test_a_site_without_such_a_store_is_refused(tmp_path: Path) -> None:
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    assert run("setup", site, "--id", "other")[0] == 2
    assert run("setup", str(DEMO))[0] == 2


def test_a_secret_that_is_missing_is_told_without_being_asked_for(tmp_path: Path) -> None:
    site = str(site_with(tmp_path, "http://127.0.0.1:1", secret_file="no-such-file"))
    code, told = run("setup", site)
    assert code == 1
    assert "no-such-file" in told


def test_a_store_that_is_away_is_told_with_what_helps_and_how_far_it_was_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    code, told = run("setup", site)
    assert code == 1
    assert "run this again" in told
    assert "tried again" not in told, "setup does not"
    tell(tmp_path, fed("away", lag_rows=71))
    code, told = run("status", site, "--data", str(tmp_path))
    assert code == 1
    assert "71 log rows to go" in told
    code, told = run("status", site, "--data", str(tmp_path / "typo"))
    assert code == 2
    assert "no such folder" in told


@pytest.mark.parametrize(("language", "key"), [("zh", "detail_zh"), ("en", "detail")])
def test_what_the_gateway_says_of_a_store_is_repeated_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, key: str
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    entry = fed("refused", lag_rows=71, detail="set its clock", detail_zh="请校准时钟")
    tell(tmp_path, entry)
    told = run("status", str(site_with(tmp_path, "http://127.0.0.1:1")), "--data", str(tmp_path))[1]
    assert entry[key] in told


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("language", "words"), [("zh", "4 秒前报告"), ("en", "told 4 s ago")])
def test_how_old_the_gateways_word_is_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, words: str
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    tell(tmp_path, fed())
    code, told = run("status", site, "--data", str(tmp_path))
    assert (code, words in told) == (0, True)
    entries = json.loads(run("status", site, "--data", str(tmp_path), "--json")[1])
    (entry,) = [each for each in entries if each["id"] == "plant"]
    assert (entry["fed_age_ms"], entry["fed_current"]) == (4_000, True)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("age_ms", [60_001, 180_000, -3_600_000])
@pytest.mark.parametrize(
    ("language", "words"), [("zh", "以下不是现在的：请检查查询服务"), ("en", "this is not of now: see that serve runs")]
)
def test_what_serve_said_long_ago_is_not_the_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, words: str, age_ms: int
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    tell(tmp_path, fed(), age_ms=age_ms)
    code, told = run("status", site, "--data", str(tmp_path))
    assert (code, words in told) == (1, True)
    code, told = run("status", site, "--data", str(tmp_path), "--json")
    (entry,) = [each for each in json.loads(told) if each["id"] == "plant"]
    assert (code, entry["fed_age_ms"], entry["fed_current"]) == (1, age_ms, False)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("text", ["", "[]", '{"at_ms": 1}', '{"at_ms": 1, "stores": [1]}', '{"stores": []}'])
def test_a_status_that_cannot_be_read_is_no_word_at_all(tmp_path: Path, text: str) -> None:
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    tell(tmp_path)
    (tmp_path / "historian" / "status.json").write_text(text, encoding="utf-8")
    code, told = run("status", site, "--data", str(tmp_path), "--json")
    (entry,) = [each for each in json.loads(told) if each["id"] == "plant"]
    assert (code, entry["fed"], entry["fed_age_ms"]) == (1, None, None)


@pytest.mark.usefixtures("healthy")
def test_a_store_that_is_switched_off_is_not_waited_for(tmp_path: Path) -> None:
    site = str(site_with(tmp_path, "http://127.0.0.1:1", enabled=False))
    tell(tmp_path)
    assert run("status", site, "--data", str(tmp_path))[0] == 0


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({}, 0),
        ({"state": "catching up", "lag_rows": 10_000, "lag_ms": 300_000}, 0),
        ({"state": "catching up", "lag_ms": 300_001}, 1),
        ({"state": "away"}, 1),
        ({"state": "refused"}, 1),
        ({"quarantined": 1}, 1),
        ({"detail": "a file cannot be read", "detail_zh": "文件无法读取"}, 1),
        ({"state": "catching up", "detail": "a file cannot be read"}, 1),
    ],
)
def test_the_exit_code_is_0_only_where_nothing_is_wrong(tmp_path: Path, entry: dict[str, Any], code: int) -> None:
    """Whether the store answers us just now makes no difference: the gateway's own word counts, too."""
    site = str(site_with(tmp_path, "http://127.0.0.1:1"))
    tell(tmp_path, fed(**entry))
    assert run("status", site, "--data", str(tmp_path))[0] == code
    found = json.loads(run("status", site, "--data", str(tmp_path), "--json")[1])
    assert [each["well"] for each in found if each["id"] == "plant"] == [code == 0]


DAMAGED: list[dict[str, Any]] = [
    {"file": "2026-11-18/a.samples.parquet", "day": "2026-11-18", "from_ms": NOW_MS - 60_000, "to_ms": NOW_MS,
     "tags": ["CL101.LEVEL", "CL103.LEVEL"], "why": "its checksum differs"},
    {"file": "manifests/b\x1b[2J.json", "day": "", "from_ms": 0, "to_ms": 0, "tags": None, "why": "no JSON"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        ("zh", ["embedded（自带历史库）：有 2 处损坏或缺失，请从备份恢复（4 秒前报告）：",
                "  2026-11-18/a.samples.parquet  2026-11-18 19:05:40 CST 至 2026-11-18 19:06:40 CST"
                "  CL101.LEVEL 至 CL103.LEVEL  its checksum differs",
                "  manifests/b\\x1b[2J.json  时段不明  测点不限  no JSON"]),
        ("en", ["embedded (our own historian): 2 files damaged or gone, restore them from a backup (told 4 s ago):",
                "  2026-11-18/a.samples.parquet  2026-11-18 19:05:40 CST to 2026-11-18 19:06:40 CST"
                "  CL101.LEVEL to CL103.LEVEL  its checksum differs",
                "  manifests/b\\x1b[2J.json  times not known  any tag  no JSON"]),
    ],
)  # fmt: skip
def test_what_is_damaged_of_our_own_is_listed_with_its_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, lines: list[str]
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    tell(tmp_path, damaged=DAMAGED)
    code, told = run("status", str(DEMO), "--data", str(tmp_path))  # a site without stores
    assert (code, told.splitlines()) == (1, lines)
    code, told = run("status", str(DEMO), "--data", str(tmp_path), "--json", "--id", "embedded")
    (entry,) = json.loads(told)
    assert (code, entry["id"], entry["damaged"], entry["well"], entry["fed_current"]) == (1, "embedded", DAMAGED, False, True)


def _whole(data: Path) -> None:
    tell(data, damaged=[], trouble="")


def _troubled(data: Path) -> None:
    tell(data, damaged=[], trouble="seal: no space left")


def _old(data: Path) -> None:
    tell(data, damaged=[], age_ms=70_000)


@pytest.mark.parametrize(
    ("write", "code", "words"),
    [
        (_whole, 0, "embedded（自带历史库）：无损坏（4 秒前报告）"),
        (_troubled, 1, "embedded（自带历史库）：无损坏；上一项工作未完成：seal: no space left（4 秒前报告）"),
        (_old, 1, "embedded（自带历史库）：网关 70 秒前的报告，以下不是现在的：请检查查询服务是否运行、磁盘是否已满；无损坏"),
        (lambda _: None, 1, "embedded（自带历史库）：网关尚未报告：请检查查询服务"),
    ],
)
def test_our_own_historian_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write, code: int, words: str) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    write(tmp_path)
    assert run("status", str(DEMO), "--data", str(tmp_path)) == (code, words + "\n")


def test_the_alarm_of_damage_names_the_command() -> None:
    for text in SENTENCES["HISTORIAN.DAMAGED"]:
        assert "hazardgate store status" in text


def test_a_store_is_behind_here_when_it_is_for_core() -> None:
    assert store.BEHIND_MS == STORE_LAG_MS
