"""`hazardgate store` against a real InfluxDB: sets up once, tells what is there, and fails with advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.stores import INFLUXD, StoreServer, needs_influxd, running_store

DEMO = Path(__file__).parents[2] / "config" / "sites" / "demo" / "site.yaml"


def site_with(folder: Path, url: str, **more: Any) -> Path:
    """The demo site with a store."""
    store = {"id": "plant", "kind": "influxdb1", "url": url, **more}
    text = DEMO.read_text("utf-8")
    assert text.count("\nstorage:\n") == 1
    text = text.replace("\nstorage:\n", f"\nstorage:\n  stores: [{json.dumps(store)}]\n")
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
        code, told = run("status", site, *data, "--json")
        assert code == 0
        (entry,) = json.loads(told)
        assert (entry["database"], entry["error"], entry["fed"]) == (True, None, None)
        assert entry["version"].startswith("1.")
        status = {"stores": [{"id": "plant", "state": "catching up", "lag_rows": 7, "quarantined": 2}]}
        (tmp_path / "historian").mkdir()
        (tmp_path / "historian" / "status.json").write_text(json.dumps(status))
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
    status = {"stores": [{"id": "plant", "state": "away", "lag_rows": 71, "quarantined": 0}]}
    (tmp_path / "historian").mkdir()
    (tmp_path / "historian" / "status.json").write_text(json.dumps(status))
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
    entry: dict[str, Any] = {"id": "plant", "state": "refused", "lag_rows": 71, "quarantined": 0}
    entry |= {"detail": "set its clock", "detail_zh": "请校准时钟"}
    (tmp_path / "historian").mkdir()
    (tmp_path / "historian" / "status.json").write_text(json.dumps({"stores": [entry]}))
    told = run("status", str(site_with(tmp_path, "http://127.0.0.1:1")), "--data", str(tmp_path))[1]
    assert entry[key] in told
