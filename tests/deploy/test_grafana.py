"""Grafana's files: their shape, and that every query of every dashboard finds what a real InfluxDB was sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.historian.influx import open_store, set_up
from gateway.historian.influx.line import (
    ALARMS,
    EVENT,
    GRADE,
    LATE,
    LEVEL,
    LIMIT,
    POINT,
    QUALITY,
    RAW,
    SAMPLES,
    SITE,
    VALUE,
)
from gateway.historian.store import AlarmEvent
from tests.historian.reference import Row, samples_of
from tests.stores import INFLUXD, StoreServer, ask, needs_influxd, running_store, store_config

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
T0 = 1_767_225_600_000
NAMES = {SAMPLES, ALARMS, SITE, POINT, EVENT, LIMIT, GRADE, VALUE, QUALITY, RAW, LATE, LEVEL}
MACROS = {
    "$timeFilter": f"time >= {T0}ms AND time < {T0 + 3_600_000}ms", "$__interval": "1m", "$site": "works",
    "${point:regex}": r"(T101\.LEVEL|T102\.PRESSURE)", "${equipment:regex}": "(T101|T102)",
}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every query with where it stands."""
    for each in dashboard["templating"]["list"]:
        yield f"variable {each['name']}", each["query"]
    for each in dashboard["annotations"]["list"]:
        yield f"annotation {each['name']}", each["query"]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']} {target['refId']}", target["query"]


ALL = [pytest.param(query, id=f"{path.stem}: {where}") for path in DASHBOARDS for where, query in queries(load(path))]


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """What the gateway would have sent: two tags, all qualities, something late, an alarm."""
    with running_store(INFLUXD, tmp_path_factory.mktemp("grafana")) as server:
        store = open_store(store_config(server), "works")
        set_up(store)
        store.write(samples_of([
            *(Row("T101.LEVEL", T0 + 1_000 * at, float(at), late=at == 7) for at in range(600)),
            Row("T101.LEVEL", T0 + 700_000, math.nan, 1), Row("T102.PRESSURE", T0 + 1, 20.0, 69, 31.5),
        ]))  # fmt: skip
        store.write_events([AlarmEvent(f"{1:032x}", f"{1:032x}", "T101.LEVEL", "raised", "HH", 4, T0 + 5_000)])
        store.close()
        yield server


def test_there_are_two_dashboards_and_each_has_the_shape_that_grafana_reads() -> None:
    assert len(DASHBOARDS) == 2
    for path in DASHBOARDS:
        loaded = load(path)
        assert {"uid", "title", "schemaVersion", "panels", "templating", "annotations", "time"} <= loaded.keys()
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", loaded["uid"])
        assert len({panel["id"] for panel in loaded["panels"]}) == len(loaded["panels"])
        for panel in loaded["panels"]:
            grid = panel["gridPos"]
            assert grid["x"] >= 0
            assert grid["x"] + grid["w"] <= 24
            assert any("\u4e00" <= char <= "\u9fff" for char in panel["title"])
            assert all(target["rawQuery"] for target in panel["targets"])
        assert loaded["annotations"]["list"], "alarms stand in every dashboard"


def test_the_data_source_is_the_one_the_dashboards_ask_and_holds_no_secret() -> None:
    yaml = YAML(typ="safe")
    (source,) = yaml.load((FOLDER / "provisioning" / "datasources" / "hazardgate.yaml").read_text())["datasources"]
    used = {json.dumps(each) for path in DASHBOARDS for each in re.findall(r'"uid": "(hazardgate)"', path.read_text("utf-8"))}
    assert used == {json.dumps(source["uid"])}
    for value in (source["url"], source["user"], source["jsonData"]["dbName"], source["secureJsonData"]["password"]):
        assert re.fullmatch(r"\$\{HAZARDGATE_[A-Z_]+\}", value)
    (provider,) = yaml.load((FOLDER / "provisioning" / "dashboards" / "hazardgate.yaml").read_text())["providers"]
    assert provider["options"]["path"].startswith("${HAZARDGATE_GRAFANA}/")


@pytest.mark.parametrize("query", ALL)
def test_a_query_names_only_what_the_schema_has(query: str) -> None:
    names = set(re.findall(r'"([^"]+)"', re.sub(r'AS "[^"]+"', "", query)))
    assert names <= NAMES


@needs_influxd
@pytest.mark.parametrize("query", ALL)
def test_a_query_finds_rows(fed: StoreServer, query: str) -> None:
    for macro, value in MACROS.items():
        query = query.replace(macro, value)
    assert "$" not in query.replace("$/", "")
    (result,) = json.loads(ask(fed, query, db="hazardgate", epoch="ms"))["results"]
    assert "error" not in result
    rows = [row for series in result.get("series", []) for row in series["values"]]
    assert rows
    assert any(value is not None for row in rows for value in row[1:])
