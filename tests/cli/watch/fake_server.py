"""A gateway of a few lines that follows the API's contract: enough for a screen, on loopback, under the test's control.

`world` is what a GET answers; `send` puts an event on every open stream. Nothing happens by time.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

TOKEN = "hg1_test_0123456789"
NOW_MS = 1_763_000_000_000  # 2025-11-13 10:13:20 in Shanghai


def alarm(id_: str, **changes: Any) -> dict[str, Any]:
    """Return an alarm as the API gives it."""
    state = changes.pop("state", "ACTIVE_UNACKED")
    body = {
        "id": id_, "tag": "CL101.LEVEL", "tag_name_zh": "1号液氯储槽液位", "tag_name_en": "Chlorine tank 1 level",
        "limit": "HH", "kind": "HIGH_HIGH", "grade": 4, "category": "process", "state": state,
        "active": state.startswith("ACTIVE"), "acked": state.endswith("_ACKED") or state == "CLOSED",
        "start_ms": NOW_MS - 60_000, "rtn_ms": None, "end_ms": None, "value_at_start": 2.31, "setpoint": 2.3, "unit": "m",
        "late": False, "linked": None, "cause_zh": "", "cause_en": "", "acked_by": None, "acked_ms": None,
        "guidance_zh": "停止进料，核对现场液位计", "guidance_en": "Stop filling and check the gauge on site",
        "equipment": "CL101", "hazard_source": "HS-CL2", "revision": 1,
    }  # fmt: skip
    return body | changes


def tag(id_: str, **changes: Any) -> dict[str, Any]:
    """Return a tag as the API gives it."""
    body = {
        "tag": id_, "name_zh": "1号液氯储槽液位", "name_en": "Chlorine tank 1 level", "unit": "m", "value": 2.35, "raw": None,
        "quality": "GOOD", "reason": "", "stale_cause": "", "code": 192, "source_ms": NOW_MS - 900, "received_ms": NOW_MS - 800,
        "age_ms": 800, "last_good_value": 2.35, "last_good_ms": NOW_MS - 900, "held": False, "alarms": [], "worst_grade": 0,
        "equipment": "CL101", "hazard_source": "HS-CL2", "edge": "E1", "planned": False,
    }  # fmt: skip
    return body | changes


def health(**changes: Any) -> dict[str, Any]:
    """Return health as the API gives it."""
    body = {
        "at_ms": NOW_MS, "core": "running", "ledger": "ok", "degraded": False, "reasons": [], "heartbeat_age_ms": 400,
        "connected": True, "unjournaled": False, "standing": {},
    }  # fmt: skip
    return body | changes


def edge(id_: str, **changes: Any) -> dict[str, Any]:
    """Return an edge as the API gives it."""
    body = {
        "edge": id_, "name_zh": "1号采集终端", "name_en": "Edge 1", "online": True, "since_ms": NOW_MS - 3_600_000,
        "backlog_frames": 0, "last_frame_ms": NOW_MS - 500, "config_matches": True, "clock_synced": True, "conditions": [],
        "losses": 0, "tags": 3,
    }  # fmt: skip
    return body | changes


def receiver(id_: str, **changes: Any) -> dict[str, Any]:
    """Return a receiver as the API gives it."""
    lane = {"lane": "red", "due": 0, "parked": 0, "last_sequence": 7, "oldest_due_ms": None}
    body = {
        "receiver": id_, "name_zh": "市级平台", "name_en": "City platform", "regulator": True, "down": False, "detail": "",
        "accepted": 7, "lanes": [lane], "due": 0, "parked": 0, "last_accepted_ms": NOW_MS - 9_000,
        "last_attempt_ms": NOW_MS - 9_000, "last_outcome": "accepted", "last_status": 200, "last_detail": "200",
    }  # fmt: skip
    return body | changes


class FakeGateway:
    """What the screen is shown, and what it asked for."""

    def __init__(self) -> None:
        self.me: dict[str, Any] = {"name": "zhang", "role": "operator", "expires_ms": None}
        self.site: dict[str, Any] = {
            "site": "DEMO", "name": {"zh": "望潮化工园演示站点", "en": "Wangchao Chemical Park demo site"},
            "timezone": "Asia/Shanghai",
            "hazard_sources": [
                {"id": "HS-CL2", "name": {"zh": "液氯库", "en": "Liquid chlorine store"},
                 "equipment": [{"id": "CL101", "name": {"zh": "1号液氯储槽", "en": "Chlorine tank 1"}}]},
            ],
        }  # fmt: skip
        self.health = health()
        self.alarms: list[dict[str, Any]] = [alarm("a1")]
        self.tags: list[dict[str, Any]] = [tag("CL101.LEVEL")]
        self.edges: list[dict[str, Any]] = [edge("E1")]
        self.receivers: list[dict[str, Any]] = [receiver("CITY")]
        self.refuse: dict[str, tuple[int, str, str]] = {}
        self.refusal_kind = "about:blank"
        self.acts: list[tuple[str, str, dict[str, Any]]] = []
        self.resumed: list[str | None] = []
        self.asked: list[str] = []
        self.page = 500
        self.opened = asyncio.Event()
        self._number = 0
        self._streams: list[asyncio.Queue[bytes | None]] = []

    async def send(self, name: str, body: Any, *, id_: str | None = None) -> None:
        """Put one event on every open stream."""
        self._number += 1
        if name == "health":
            body = self._counted(body)
        data = json.dumps(body, ensure_ascii=False)
        text = f"id: {id_ or f'L1:{self._number}:0'}\nevent: {name}\ndata: {data}\n\n"
        for stream in self._streams:
            await stream.put(text.encode())

    def _counted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return health with the count of the standing alarms, unless it has one."""
        standing = Counter(str(item["grade"]) for item in self.alarms if item["active"] and not item["late"])
        return body | {"standing": body.get("standing") or standing}

    async def cut(self) -> None:
        """End every open stream."""
        self.opened.clear()
        for stream in self._streams:
            await stream.put(None)

    def app(self) -> web.Application:
        """Return the routes."""
        app = web.Application(middlewares=[self._guard])
        base = "/api/v1"
        app.add_routes([
            web.get(f"{base}/me", self._plain("me")), web.get(f"{base}/site", self._plain("site")),
            web.get(f"{base}/health", self._health), web.get(f"{base}/tags", self._tags),
            web.get(f"{base}/alarms", self._alarms), web.get(f"{base}/edges", self._items("edges")),
            web.get(f"{base}/deliveries", self._items("receivers")), web.get(f"{base}/stream", self._stream),
            web.post(f"{base}/alarms/{{id}}/{{act}}", self._act),
        ])  # fmt: skip
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _problem(401, "No valid token", "没有有效的令牌")
        for path, (status, detail, detail_zh) in self.refuse.items():
            if request.path.endswith(path):
                return _problem(status, detail, detail_zh, self.refusal_kind)
        return await handler(request)

    def _plain(self, name: str) -> Any:
        async def answer(_request: web.Request) -> web.Response:
            return web.json_response(getattr(self, name))

        return answer

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response(self._counted(self.health) if "core" in self.health else self.health)

    def _items(self, name: str) -> Any:
        async def answer(_request: web.Request) -> web.Response:
            return web.json_response({"items": getattr(self, name)})

        return answer

    async def _tags(self, request: web.Request) -> web.Response:
        offset, limit = int(request.query["offset"]), int(request.query["limit"])
        return web.json_response({"items": self.tags[offset : offset + limit], "total": len(self.tags)})

    async def _alarms(self, request: web.Request) -> web.Response:
        begin = int(request.query.get("before", 0))
        end = begin + min(self.page, int(request.query["limit"]))
        more = str(end) if end < len(self.alarms) else None
        return web.json_response({"items": self.alarms[begin:end], "next": more})

    async def _act(self, request: web.Request) -> web.Response:
        id_, act = request.match_info["id"], request.match_info["act"]
        self.acts.append((id_, act, await request.json()))
        found = next(item for item in self.alarms if item["id"] == id_)
        state = "CLOSED" if act == "close" else "ACTIVE_ACKED" if found["active"] else "RETURNED_ACKED"
        done = found | {"state": state, "acked": True, "active": False if act == "close" else found["active"],
                        "acked_by": self.me["name"], "acked_ms": NOW_MS, "revision": found["revision"] + 1}  # fmt: skip
        self.alarms = [done if item["id"] == id_ else item for item in self.alarms]
        return web.json_response({"alarm": done, "transition": {"kind": "acknowledged"}})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.resumed.append(request.headers.get("Last-Event-ID"))
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams.append(queue)
        await response.write(b'id: L1:0:0\nevent: hello\ndata: {"position": {"ledger_id": "L1", "pos": 0}}\n\n')
        self.opened.set()
        try:
            while (text := await queue.get()) is not None:
                await response.write(text)
        finally:
            self._streams.remove(queue)
        return response


def _problem(status: int, detail: str, detail_zh: str, kind: str = "about:blank") -> web.Response:
    body = {"type": kind, "title": detail, "title_zh": detail_zh, "status": status, "detail": detail,
            "detail_zh": detail_zh, "instance": ""}  # fmt: skip
    return web.json_response(body, status=status, content_type="application/problem+json")


@asynccontextmanager
async def serving(gateway: FakeGateway) -> AsyncIterator[str]:
    """Serve on a free port of loopback; yields the address."""
    runner = web.AppRunner(gateway.app(), shutdown_timeout=0.2, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await gateway.cut()
        await runner.cleanup()
