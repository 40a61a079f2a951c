"""The whole OpenAPI document as a test plan: who may do what, and requests that nobody would think of.

Both are made from the document, so that a new route is tried without anybody remembering to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from gateway.serve import openapi_document
from gateway.serve.stream import Hub
from tests.serve.fakes import ALARM_ID, NOW_MS, TAG, Clock, Served, build, finish, serving

DOCUMENT: dict[str, Any] = json.loads(openapi_document())
ROUTES = sorted(
    (method.upper(), path, bool(operation.get("security")))
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
)
ACTS = {path for method, path, _ in ROUTES if method == "POST"}
BODIES = {"close": {"reason": "r", "measure": "m"}, "acknowledge": {}}
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, unsupported_method,
]  # fmt: skip
EXAMPLES = 25


def concrete(path: str) -> str:
    query = "?from_ms=0&to_ms=1000" if path.endswith(("history", "windows", "annotations", "export")) else ""
    query += "&width_ms=100" if path.endswith("windows") else ""
    query += f"&tag={TAG}" if path.endswith(("v1/windows", "export")) else ""
    return path.format(tag=TAG, alarm_id=ALARM_ID) + query


@pytest.mark.parametrize("role", [None, "viewer", "operator"])
def test_each_role_may_do_what_it_may_and_nothing_else(tmp_path: Path, role: str | None) -> None:
    async def story() -> None:
        hub = Hub(Clock(), NOW_MS, stream_s_max=0.0)  # so that a stream ends
        async with serving(tmp_path, hub=hub) as served, served.client(role) as client:
            served.parts.refresher.round(0.0)
            for method, path, guarded in ROUTES:
                body = BODIES.get(path.rsplit("/", 1)[-1]) if method == "POST" else None
                answer = await client.request(method, concrete(path), json=body)
                if role is None and guarded:
                    expected = 401
                elif role == "viewer" and path in ACTS:
                    expected = 403
                else:
                    expected = 200
                assert answer.status_code == expected, (method, path, answer.text[:200])
            assert [act["actor"] for act in served.core.sent] == (["operator甲"] * 2 if role == "operator" else [])

    asyncio.run(story())


def test_only_one_route_is_open_and_only_acts_are_posts() -> None:
    assert [path for _, path, guarded in ROUTES if not guarded] == ["/healthz"]
    assert {method for method, _, _ in ROUTES} == {"GET", "POST"}
    assert {path.rsplit("/", 1)[-1] for path in ACTS} == {"acknowledge", "close"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    hub = Hub(Clock(), NOW_MS, stream_s_max=0.0)
    made = build(tmp_path_factory.mktemp("fuzz"), hub=hub, own_app=True)
    made.parts.refresher.round(0.0)
    yield made
    finish(made)


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.fault("F54")
@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_no_request_makes_a_server_error_and_every_answer_is_as_documented(case: Any, served: Served) -> None:
    case.operation.app = served.gate
    headers = {"Authorization": f"Bearer {served.sent['operator']}", "Host": "127.0.0.1"}
    response = case.call(app=served.gate, base_url="http://127.0.0.1", headers=headers)
    if response.status_code == 503 and case.path == "/healthz":
        return
    case.validate_response(response, checks=CHECKS, headers=headers)
    if response.status_code >= 400:
        told = response.json()
        said = [told["title_zh"], told["detail_zh"], *(fault["message_zh"] for fault in told["errors"])]
        assert all(any("\u4e00" <= char <= "\u9fff" for char in text) for text in said if text != "见 errors"), told
        assert not [text for text in said if "无效（" in text], told
