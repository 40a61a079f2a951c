"""The screen and the real API: the twin of the other tests has no field that the API lacks, and both meet over a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.watch import answers
from cli.watch.app import WatchApp
from cli.watch.client import Client
from gateway.serve import SERVE_FOLDER, Role, ServeSettings, TokenStore
from tests.cli.watch import fake_server as fake
from tests.cli.watch.screens import Watched
from tests.serve.processes import now_ms
from tests.serve.test_run import running

OPENAPI = Path(__file__).parents[3] / "docs" / "openapi.json"
GATEWAY = fake.FakeGateway()


class Asked(dict[str, Any]):
    """An object that remembers which of its fields were asked for."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


@pytest.mark.parametrize(
    ("schema", "body", "read"),
    [
        ("Me", GATEWAY.me, answers.read_me),
        ("SiteAnswer", GATEWAY.site, answers.read_site),
        ("HealthAnswer", fake.health(), answers.read_health),
        ("AlarmAnswer", fake.alarm("a"), answers.read_alarm),
        ("TagNow", fake.tag("T"), answers.read_tag),
        ("EdgeNow", fake.edge("E"), answers.read_edge),
        ("ReceiverAnswer", fake.receiver("R"), answers.read_receiver),
    ],
)
def test_every_field_is_the_apis(schema: str, body: dict[str, Any], read: Callable[[Any], object]) -> None:
    known = set(json.loads(OPENAPI.read_text("utf-8"))["components"]["schemas"][schema]["properties"])
    asked = Asked(body)
    read(asked)
    assert asked.names
    assert asked.names <= known
    assert set(body) <= known


@pytest.mark.parametrize(("path", "method"), [
    ("/me", "get"), ("/site", "get"), ("/health", "get"), ("/tags", "get"), ("/alarms", "get"), ("/edges", "get"),
    ("/deliveries", "get"), ("/stream", "get"), ("/alarms/{alarm_id}/acknowledge", "post"), ("/alarms/{alarm_id}/close", "post"),
])  # fmt: skip
def test_every_route_is_the_apis(path: str, method: str) -> None:
    assert method in json.loads(OPENAPI.read_text("utf-8"))["paths"][f"/api/v1{path}"]


def test_in_front_of_the_real_server_without_a_core_nothing_is_calm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    _, token = TokenStore(tmp_path / SERVE_FOLDER, now_ms).new("li", Role.OPERATOR, 1)

    async def story() -> None:
        async with running(tmp_path, ServeSettings(port=0)) as (url, _):
            app = WatchApp(Client(url, token), url, ring=lambda: None)
            async with app.run_test(size=(100, 30)) as pilot:
                seen = Watched(GATEWAY, app, pilot, [])
                await seen.shows("THE GATEWAY ANSWERS, BUT DOES NOT GIVE", "cause: the gateway refuses", "ledger")
                assert "no open alarms" not in seen.text
                assert app.model.loads == 0

    asyncio.run(story())
