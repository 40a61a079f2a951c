"""The running server in this process, over real sockets: who may listen where, bad clients, and the order of its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serve import SERVE_FOLDER, WHERE_NAME, Role, ServeError, ServeSettings, TokenStore, run_serve
from gateway.serve.problems import Problem
from tests.gateway.field import site
from tests.patience import GUARD_S, fair_clock
from tests.serve.processes import now_ms

Story = Callable[[str, int], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def running(folder: Path, settings: ServeSettings) -> AsyncIterator[tuple[str, asyncio.Event]]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_serve(site(), folder, stop, settings, wait_for_core=True))
    where = folder / SERVE_FOLDER / WHERE_NAME
    try:
        while not await asyncio.to_thread(where.exists):
            if task.done():
                break
            await asyncio.sleep(0.01)
        if task.done():
            await task
        told = json.loads(await asyncio.to_thread(where.read_text))
        yield told["url"], stop
    finally:
        stop.set()
        async with asyncio.timeout(GUARD_S):
            await task
    assert not where.exists()


def run(folder: Path, story: Story, settings: ServeSettings | None = None) -> None:
    async def main() -> None:
        async with asyncio.timeout(GUARD_S), running(folder, settings or ServeSettings(port=0)) as (url, _):
            await story(url, int(url.rsplit(":", 1)[1]))

    asyncio.run(main())


def viewer(folder: Path) -> dict[str, str]:
    _, sent = TokenStore(folder / SERVE_FOLDER, now_ms).new("li", Role.VIEWER, 1)
    return {"Authorization": f"Bearer {sent}"}


def test_it_starts_before_core_has_made_its_ledger_and_shows_nothing_calm(tmp_path: Path) -> None:
    headers = viewer(tmp_path)

    async def story(url: str, _: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=GUARD_S) as http:
            assert (await http.get("/healthz")).status_code == 503
            health = (await http.get("/api/v1/health")).json()
            assert (health["core"], health["ledger"], health["degraded"]) == ("never_started", "missing", True)
            tags = (await http.get("/api/v1/tags")).json()["items"]
            assert len(tags) == 4
            assert {tag["quality"] for tag in tags} <= {"BAD", "UNKNOWN"}
            for path in ("/api/v1/alarms", "/api/v1/deliveries", "/api/v1/edges", f"/api/v1/tags/{tags[0]['tag']}"):
                assert (await http.get(path)).status_code in (200, 503)

    run(tmp_path, story)


def test_a_bug_in_the_refresher_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("gateway.serve.view.LedgerView.refresh", broken)

    async def main() -> None:
        async with asyncio.timeout(GUARD_S):
            await run_serve(site(), tmp_path, asyncio.Event(), ServeSettings(port=0), wait_for_core=True)

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(main())
    assert caught.group_contains(RuntimeError, match="a bug")


# ------------------------------------------------------------------ where it listens


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (ServeSettings(host="0.0.0.0", port=0), "without TLS tokens would cross the network"),
        (ServeSettings(host="gateway.example", port=0), "without TLS tokens would cross the network"),
        (ServeSettings(port=0, tls_cert=Path("/nonexistent/c.pem"), tls_key=Path("/nonexistent/k.pem")), "No such file"),
        (ServeSettings(port=0, tls_cert=Path("/nonexistent/c.pem")), "belong together"),
        (ServeSettings(port=0, tls_key=Path("/nonexistent/k.pem")), "belong together"),
    ],
)  # fmt: skip
def test_where_tokens_would_travel_in_clear_it_does_not_listen(tmp_path: Path, settings: ServeSettings, says: str) -> None:
    with pytest.raises(ServeError, match=says):
        asyncio.run(run_serve(site(), tmp_path / "data", asyncio.Event(), settings))
    assert not (tmp_path / "data").exists(), "refused before anything was made"


@pytest.mark.needs("openssl")
def test_with_tls_it_speaks_nothing_else(tmp_path: Path) -> None:
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    headers = viewer(tmp_path)

    async def story(url: str, port: int) -> None:
        assert url.startswith("https://")
        import ssl

        trusting = ssl.create_default_context(cafile=str(cert))
        async with httpx.AsyncClient(base_url=url, headers=headers, verify=trusting, trust_env=False, timeout=GUARD_S) as http:
            answer = await http.get("/api/v1/me")
            assert answer.status_code == 200
            assert "strict-transport-security" in answer.headers
        with pytest.raises(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=GUARD_S) as http:
                await http.get(f"http://127.0.0.1:{port}/healthz")

    run(tmp_path, story, ServeSettings(port=0, tls_cert=cert, tls_key=key))


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ServeSettings(port=taken.getsockname()[1])
        with pytest.raises(ServeError, match="end the program that holds the port"):
            asyncio.run(run_serve(site(), tmp_path, asyncio.Event(), settings, wait_for_core=True))


def test_a_second_one_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async def story(_: str, __: int) -> None:
        with pytest.raises(ServeError, match="another serve runs on this data folder"):
            await run_serve(site(), tmp_path, asyncio.Event(), ServeSettings(port=0), wait_for_core=True)

    run(tmp_path, story)
    run(tmp_path, no_story)


async def no_story(_: str, __: int) -> None:
    """It starts and ends."""


# ------------------------------------------------------------------ bad clients


async def raw(port: int, sent: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back until the server ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(GUARD_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


CLOSE = b"Connection: close\r\n\r\n"


def told(answer: bytes) -> dict[str, Any]:
    """Return the problem of a raw answer, in the one shape that all refusals have."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines, head
    assert {b"cache-control: no-store", b"x-content-type-options: nosniff", b"connection: close"} <= set(lines), head
    problem: dict[str, Any] = json.loads(body)
    assert Problem.model_validate(problem).status == int(head.split()[1])
    return problem


@pytest.mark.fault("F65")
def test_what_is_no_http_is_cut_and_the_next_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    headers = viewer(tmp_path)

    async def story(url: str, port: int) -> None:
        host = b"Host: 127.0.0.1\r\n"
        for refused in (
            b"\x16\x03\x01\x02\x00\x01" * 20,
            b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 100_000,
            b"GET /api/v1/me HTTP/1.1\r\n" + host + b"Host: evil\r\n" + CLOSE,
            b"GET /api/v1/me HTTP/1.1\r\nHost: evil/healthz?\r\n" + CLOSE,
            b"GET /api/v1/me HTTP/1.1\r\n" + CLOSE,
        ):
            answer = await raw(port, refused)
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 421")), refused[:60]
            assert told(answer)["title_zh"] in ("请求无法读取", "本服务不以此主机名应答")
        smuggled = (
            b"POST /api/v1/alarms/x/close HTTP/1.1\r\n" + host + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /healthz HTTP/1.1\r\n" + host + CLOSE
        )
        assert b"degraded" not in await raw(port, smuggled)
        upgrade = b"GET /healthz HTTP/1.1\r\n" + host + b"Upgrade: websocket\r\n" + CLOSE
        assert (await raw(port, upgrade)).startswith(b"HTTP/1.1 503"), "no WebSocket: an ordinary answer"
        ranges = b"Range: bytes=" + b",".join(b"%d-" % number for number in range(1_500)) + b"\r\n"
        began = time.process_time()
        assert (await raw(port, b"GET /healthz HTTP/1.1\r\n" + host + ranges + CLOSE)).startswith(b"HTTP/1.1 503")
        assert time.process_time() - began < 1
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=GUARD_S) as http:
            me = await http.get("/api/v1/me")
            assert me.status_code == 200
            assert "server" not in me.headers

    run(tmp_path, story)
    assert "Traceback" not in caplog.text


@pytest.mark.fault("F65")
def test_a_head_that_dribbles_is_cut_however_lively_it_dribbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.connection.HEAD_S_MAX", 0.3)
    monkeypatch.setattr("gateway.serve.connection.HEAD_LOOK_S", 0.05)

    async def story(_: str, port: int) -> None:
        for opening in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"PUT /x HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                        b"Content-Length: 999999\r\n\r\n"):  # fmt: skip
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(opening)

            async def dribble(writer: asyncio.StreamWriter = writer) -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.02)

            dribbling = asyncio.create_task(dribble())
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(GUARD_S / 4):
                    await reader.read()
            dribbling.cancel()
            await asyncio.gather(dribbling, return_exceptions=True)
            writer.close()

    run(tmp_path, story)


@pytest.mark.fault("F65")
def test_connections_that_say_nothing_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.app.CONNECTIONS_MAX", 8)
    monkeypatch.setattr("gateway.serve.connection.HEAD_S_MAX", 10 * GUARD_S)  # only who is cut for the crowd makes room
    monkeypatch.setattr("gateway.serve.connection.HEAD_S_MAX_CROWDED", 0.1)
    monkeypatch.setattr("gateway.serve.connection.HEAD_LOOK_S", 0.05)
    headers = viewer(tmp_path)

    async def story(url: str, port: int) -> None:
        async def status() -> int:
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=GUARD_S) as http:
                answer = await http.get("/api/v1/me")
            if answer.status_code == 503:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["retry-after"] == "2"
                assert Problem.model_validate_json(answer.content).title_zh == "请求过多"
            return answer.status_code

        async with contextlib.AsyncExitStack() as stack:
            readers: list[asyncio.StreamReader] = []
            for opening in (b"", b"", b"", *(b"", b"GET /api") * 4):
                if len(readers) == 3:  # few: a head has all its time
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(readers[0].read(), 0.6)
                    monkeypatch.setattr("gateway.serve.connection.HEAD_S_MAX_CROWDED", GUARD_S)
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(opening)
                readers.append(reader)
            assert await status() == 503, "no place is free"
            monkeypatch.setattr("gateway.serve.connection.HEAD_S_MAX_CROWDED", 0.3)
            async with asyncio.timeout(GUARD_S / 2):
                while await status() != 200:
                    await asyncio.sleep(0.02)

    run(tmp_path, story)


@pytest.mark.fault("F65")
def test_a_stream_that_nobody_reads_is_cut_and_its_place_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.connection.UNREAD_S_MAX", 0.2)
    hubs: list[Any] = []
    import gateway.serve.app as app
    from gateway.serve.models import Position
    from gateway.serve.stream import Event, Hub

    def kept(*arguments: Any) -> Hub:
        hubs.append(Hub(*arguments))
        return hubs[0]

    monkeypatch.setattr(app, "Hub", kept)
    headers = viewer(tmp_path)

    async def story(_: str, port: int) -> None:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
        request = f"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(peer, request.encode())
        while not hubs[0].streams:
            await asyncio.sleep(0.01)
        large = Event("values", b'"' + b"x" * 4_000_000 + b'"', Position())
        hubs[0].publish([large, large], Position())
        async with asyncio.timeout(GUARD_S / 2):
            while hubs[0].streams:
                await asyncio.sleep(0.02)
        peer.close()

    run(tmp_path, story)


def test_it_ends_in_time_with_streams_open(tmp_path: Path) -> None:
    headers = viewer(tmp_path)

    async def main() -> None:
        async with asyncio.timeout(GUARD_S), httpx.AsyncClient(headers=headers, trust_env=False, timeout=GUARD_S) as http:
            async with running(tmp_path, ServeSettings(port=0)) as (url, stop), http.stream("GET", f"{url}/api/v1/stream") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == "event: hello"
                began_s, began_cpu_s = now_s(), time.process_time()
                stop.set()
                async for _ in lines:
                    pass
            assert now_s() - began_s < 3
            assert time.process_time() - began_cpu_s < 3

    with fair_clock() as now_s:
        asyncio.run(main())
