"""The client on its own: what it sends, what it never follows, and how a stream ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cli.watch import client as client_module
from cli.watch.client import Client, RefusedError, UnreachableError
from cli.watch.fields import AnswerError
from tests.cli.watch.fake_server import TOKEN, FakeGateway, serving
from tests.patience import GUARD_S

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """Serve one handler for every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.2, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def get_from(handler: Handler) -> object:
    async with answering(handler) as url, Client(url, TOKEN) as client:
        return await client.get("/me")


def test_a_redirect_is_not_followed_so_the_token_goes_nowhere_else() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    with pytest.raises(RefusedError) as refused:
        asyncio.run(get_from(handler))
    assert refused.value.status == 307
    assert asked == ["/api/v1/me"]


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES_MAX", 1_000)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=b"[" + b"1," * 1_000 + b"1]")

    with pytest.raises(AnswerError, match="too large"):
        asyncio.run(get_from(handler))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(body: bytes) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    with pytest.raises(AnswerError, match="no JSON"):
        asyncio.run(get_from(handler))


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("zh", "原因：含有控制字符；处置措施：最多 500 个字符；query.x：没有此参数 (422)"),
        ("en", "reason: holds a control character; measure: at most 500; query.x: no such parameter (422)"),
    ],
)
def test_what_is_wrong_with_an_act_is_told_field_by_field(language: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    faults = [
        {"where": "body.reason", "message_zh": "含有控制字符", "message": "holds a control character"},
        {"where": "body.measure", "message_zh": "最多 500 个字符", "message": "at most 500"},
        {"where": "query.x", "message_zh": "没有此参数", "message": "no such parameter"},
    ]

    async def handler(_request: web.Request) -> web.Response:
        return web.json_response({"detail": "see errors", "detail_zh": "见 errors", "errors": faults}, status=422)

    with pytest.raises(RefusedError) as caught:
        asyncio.run(get_from(handler))
    assert str(caught.value).endswith(told)
    assert "errors" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"detail": 7}', b"[" * 100_000, b'{"errors": 7}', b'{"errors": [7, {}, {"where": []}]}'],
)
def test_a_refusal_in_any_shape_is_a_refusal(body: bytes) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=503, body=body)

    with pytest.raises(RefusedError, match="503"):
        asyncio.run(get_from(handler))


def test_an_act_that_is_not_answered_is_not_called_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_S_MAX", 0.05)

    async def handler(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        async with answering(handler) as url, Client(url, TOKEN) as client:
            with pytest.raises(UnreachableError, match="no answer"):
                await client.act("a1", "close", {"reason": "x", "measure": "y"})

    asyncio.run(story())


@pytest.mark.parametrize("ends", ["silence", "end"])
def test_a_stream_that_says_nothing_is_as_dead_as_one_that_ended(ends: str) -> None:
    gateway, names = FakeGateway(), list[str]()

    async def listen(client: Client) -> None:
        async with client.stream(None) as events:
            async for event in events:
                names.append(event.name)
                if ends == "end":
                    await gateway.cut()

    async def story(silence_s: float) -> None:
        async with serving(gateway) as url, Client(url, TOKEN, silence_s=silence_s) as client:
            with pytest.raises(UnreachableError):
                await listen(client)

    for silence_s in (0.05, 1.0, 10.0) if ends == "silence" else (GUARD_S,):
        asyncio.run(story(silence_s))
        if names:  # else this machine was silent, and not the stream: once more, with more patience
            break
    assert names == ["hello"]


def test_nobody_there_is_unreachable() -> None:
    async def story() -> None:
        async with Client("http://127.0.0.1:1", TOKEN) as client:
            with pytest.raises(UnreachableError, match="cannot connect"):
                await client.get("/me")
            with pytest.raises(UnreachableError, match="cannot connect"):
                async with client.stream(None):
                    pass

    asyncio.run(story())


def test_a_server_without_tls_behind_https_is_told() -> None:
    async def story() -> None:
        async with serving(FakeGateway()) as url:
            trust = ssl.create_default_context()
            async with Client(url.replace("http:", "https:"), TOKEN, trust) as client:
                with pytest.raises(UnreachableError):
                    await client.get("/me")

    asyncio.run(story())
