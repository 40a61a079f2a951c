"""A municipal platform that receives signed alarms: it checks signature, time, id, sequence, and keeps all.

It can be told to fail (`POST /control`). FastAPI behind a thin ASGI layer that stamps the arrival before any
parsing and plays the faults that a framework would not let through (cut connections, one byte per second).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from standardwebhooks.webhooks import Webhook
from starlette.types import ASGIApp, Receive, Scope, Send

from simulators.errors import PortTakenError
from simulators.intake import Intake, Received
from simulators.jsonlines import JsonLines, check_loopback, cut_torn_line, read_json_lines, write_json

BODY_BYTES_MAX = 1024 * 1024
PERSISTED_BYTES_MAX = 1024 * 1024 * 1024
FAIL_S_MAX = 3600.0
TOLERANCE_S = 300.0
STOP_S_MAX = 2.0
KEEP_ALIVE_S = 75  # longer than the pause between two heartbeats


class Failure(BaseModel):
    """How the platform fails, how long or how often; without `for_s` and `times` until told otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    status: int | None = Field(None, ge=200, le=599, description="answer with this status")
    for_s: float | None = Field(None, gt=0, le=FAIL_S_MAX, description="stop failing after this time")
    times: int | None = Field(None, ge=1, description="stop failing after this many requests")
    retry_after: int | None = Field(None, ge=0, description="Retry-After header, in seconds")
    delay_s: float = Field(0.0, ge=0, le=FAIL_S_MAX, description="wait this long before answering")
    drop: bool = Field(False, description="cut the connection instead of answering")
    cut_body: bool = Field(False, description="send status and half of the body, then cut")
    trickle: bool = Field(False, description="send the answer's body one byte per second")
    location: str | None = Field(None, description="Location header, for redirects")
    body: str | None = Field(None, max_length=10_000, description="answer with this body")
    body_bytes: int = Field(0, ge=0, le=256 * 1024 * 1024, description="pad the body to this size")
    keep: bool = Field(False, description="book the message although the answer is a failure")
    receiver: str | None = Field(None, description="fail for this receiver alone")


class Control(BaseModel):
    """`POST /control`: what to change. `fail: null` heals."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fail: Failure | None = None
    clock_offset_s: float | None = Field(None, description="run the platform's clock this far off")


@dataclass(frozen=True, slots=True)
class PlatformSettings:
    """`secrets`: receiver id → the secrets it accepts (`whsec_…`; two while one is being replaced)."""

    secrets: Mapping[str, tuple[str, ...]]
    directory: Path
    host: str = "127.0.0.1"
    port: int = 0


class Platform:
    """The receiver's state and rules, without HTTP."""

    def __init__(self, settings: PlatformSettings, now_s: Callable[[], float] = time.time) -> None:
        """`now_s` is the platform's clock: UTC epoch seconds."""
        self.now_s = now_s
        self._webhooks = {
            receiver: [Webhook(secret) for secret in secrets] for receiver, secrets in settings.secrets.items()
        }
        self.intake = Intake()
        self.failure: Failure | None = None
        self._failure_ends = 0.0
        self._failures_left = 0
        self.clock_offset_s = 0.0
        path = settings.directory / "received.jsonl"
        self._restore(path)
        self._file = JsonLines(path, PERSISTED_BYTES_MAX)

    def _restore(self, path: Path) -> None:
        cut_torn_line(path)
        for record in read_json_lines(path):
            if "rejected" in record:
                self.intake.reject(record["rejected"])
            elif "id" in record:
                released = record.pop("released")
                self.intake.take(Received.from_json(record), released)

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()

    def control(self, wanted: Control) -> None:
        """Start or end failing."""
        self.failure = wanted.fail
        if wanted.clock_offset_s is not None:
            self.clock_offset_s = wanted.clock_offset_s
        if wanted.fail is not None:
            self._failure_ends = self.now_s() + (wanted.fail.for_s or float("inf"))
            self._failures_left = wanted.fail.times or -1

    def failure_for(self, receiver: str) -> Failure | None:
        """The failure that this request meets, if any; counts it."""
        failure = self.failure
        if failure is None or (failure.receiver is not None and failure.receiver != receiver):
            return None
        if self.now_s() >= self._failure_ends or self._failures_left == 0:
            self.failure = None
            return None
        self._failures_left -= 1
        return failure

    def take(
        self, receiver: str, headers: Mapping[str, str], body: bytes, received_ms: float
    ) -> tuple[int, dict[str, Any]]:
        """Check and book one message; returns HTTP status and answer."""
        webhooks = self._webhooks.get(receiver)
        if webhooks is None:
            return self._reject(404, "unknown receiver")
        if len(body) > BODY_BYTES_MAX:
            return self._reject(413, "body too large")
        refused = self.verify(receiver, headers, body)
        if refused is not None:
            return self._reject(401, refused)
        try:
            message = json.loads(body)
            event, released = self._event_of(receiver, headers["webhook-id"], message, received_ms)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._reject(400, f"not a notice: {type(error).__name__}")
        self.intake.take(event, released)
        self._file.write({**event.to_json(), "released": released}, flush=True)
        return 200, {"ok": True, "id": event.id, "duplicate": event.duplicate}

    def _reject(self, status: int, reason: str) -> tuple[int, dict[str, Any]]:
        self.intake.reject(reason)
        record = {"rejected": reason, "status": status, "received_ms": self.now_s() * 1000}
        self._file.write(record, flush=True)
        return status, {"ok": False, "error": reason}

    def verify(self, receiver: str, headers: Mapping[str, str], body: bytes) -> str | None:
        """Return why a message for `receiver` cannot be believed; None when it can.

        The library's own `verify` looks at the system's clock; here it is the platform's that counts.
        """
        try:
            notice, stamp = headers["webhook-id"], headers["webhook-timestamp"]
            signatures = [given.partition(",") for given in headers["webhook-signature"].split(" ")]
            sent, text = datetime.fromtimestamp(int(stamp), tz=UTC), body.decode()
        except KeyError:
            return "Missing required headers"
        except (ValueError, OverflowError, OSError):
            return "Invalid Signature Headers"
        for webhook in self._webhooks.get(receiver, ()):
            _, _, right = webhook.sign(notice, sent, text).partition(",")
            if any(version == "v1" and hmac.compare_digest(right.encode(), given.encode())
                   for version, _, given in signatures):
                break
        else:
            return "No matching signature found"
        if abs(self.now_s() + self.clock_offset_s - sent.timestamp()) > TOLERANCE_S:
            return "Message timestamp outside the tolerance"
        return None

    def _event_of(
        self, receiver: str, notice: str, message: dict[str, Any], received_ms: float
    ) -> tuple[Received, list[int]]:
        kind, content = str(message["type"]), dict(message["data"])
        alarm = content.get("alarm") or {}
        sequence = content.get("sequence")
        if sequence is not None and (not isinstance(sequence, int) or sequence < 1):
            raise ValueError(f"sequence {sequence!r}")
        if content.get("receiver", receiver) != receiver or content.get("notice", notice) != notice:
            raise ValueError("addressed to another receiver, or under another id")
        event = Received(
            id=notice,
            receiver=receiver,
            type=kind,
            lane=content.get("lane"),
            sequence=sequence,
            ledger=content.get("ledger"),
            alarm=alarm.get("id"),
            tag=alarm.get("tag"),
            limit=alarm.get("limit"),
            state=alarm.get("state"),
            revision=content.get("revision"),
            transition=content.get("transition") or kind.rpartition(".")[2],
            grade=alarm.get("grade"),
            late=bool(content.get("late")),
            unjournaled=bool(content.get("unjournaled")),
            received_ms=received_ms,
            duplicate=self.intake.knows(receiver, notice),
        )
        return event, [int(number) for number in content.get("released") or ()]


def create_platform_app(platform: Platform) -> ASGIApp:
    """Build the HTTP face of `platform`."""
    app = FastAPI(title="municipal platform (simulated)")

    @app.post("/hooks/{receiver}")
    async def hook(receiver: str, request: Request) -> JSONResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                break
        status, answer = platform.take(receiver, request.headers, bytes(body), request.scope["received_ms"])
        return JSONResponse(answer, status)

    @app.get("/received")
    async def received(receiver: str | None = None, heartbeats: bool = False, since_ms: float = 0.0) -> JSONResponse:
        return JSONResponse(
            [
                event.to_json()
                for event in platform.intake.events
                if (heartbeats or event.type != "heartbeat")
                and event.received_ms >= since_ms
                and (receiver is None or event.receiver == receiver)
            ]
        )

    @app.get("/summary")
    async def summary() -> JSONResponse:
        return JSONResponse(platform.intake.summary())

    @app.post("/control")
    async def control(wanted: Control) -> JSONResponse:
        platform.control(wanted)
        return JSONResponse({"ok": True})

    return _Gate(cast(ASGIApp, app), platform)


class _Gate:
    """The ASGI layer in front: stamps arrivals and plays failures."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app, self._platform = app, platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/hooks/"):
            await self._app(scope, receive, send)
            return
        scope["received_ms"] = self._platform.now_s() * 1000
        failure = self._platform.failure_for(scope["path"].removeprefix("/hooks/"))
        if failure is None:
            await self._app(scope, receive, send)
        else:
            await self._fail(failure, scope, receive, send)

    async def _fail(self, failure: Failure, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Captured()
        silent = failure.status is None and failure.body is None and failure.location is None
        if failure.keep or (silent and not failure.drop):
            await self._app(scope, receive, answer)
        else:
            await _read_out(receive)
        await asyncio.sleep(failure.delay_s)
        if failure.drop:
            await _cut(receive)
            return
        own = failure.body is not None or failure.status is not None
        body = (failure.body or "").encode() if own else answer.body
        status = failure.status or answer.status
        body = body.ljust(failure.body_bytes, b" ")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if failure.retry_after is not None:
            headers.append((b"retry-after", str(failure.retry_after).encode()))
        if failure.location is not None:
            headers.append((b"location", failure.location.encode("latin-1")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if failure.cut_body:
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _cut(receive)
            return
        if failure.trickle:
            for i in range(len(body)):
                await send({"type": "http.response.body", "body": body[i : i + 1], "more_body": True})
                await asyncio.sleep(1.0)
            body = b""
        await send({"type": "http.response.body", "body": body})


class _Captured:
    """Holds the true answer while a failure decides what of it goes out."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")


async def _read_out(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _cut(receive: Receive) -> None:
    """Abort the TCP connection under uvicorn; ASGI itself has no word for it."""
    transport: asyncio.Transport = receive.__self__.transport  # type: ignore[attr-defined]
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


class _Server(uvicorn.Server):
    """uvicorn that leaves the process's signals alone: who starts us stops us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_platform(
    settings: PlatformSettings, stop: asyncio.Event, started: asyncio.Future[str] | None = None
) -> dict[str, Any]:
    """Serve until `stop` is set; return the last summary.

    `started` gets the base URL, which also stands in `platform.json` of the directory (with pid and port).

    Raises:
        NotLoopbackError, PortTakenError: the address cannot be used.
    """
    check_loopback(settings.host)
    listener = _listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    url = f"http://{settings.host}:{port}"
    platform = Platform(settings)
    server = _Server(
        uvicorn.Config(
            create_platform_app(platform),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=int(STOP_S_MAX),
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="platform-http")
    stopping = asyncio.create_task(stop.wait(), name="platform-stop")
    ready = asyncio.create_task(server.ready.wait(), name="platform-ready")
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        write_json(settings.directory / "platform.json", {"pid": os.getpid(), "port": port, "url": url})
        if started is not None and not started.done():
            started.set_result(url)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        ready.cancel()
        await serving
        platform.close()
        listener.close()
    return platform.intake.summary()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise PortTakenError("municipal platform", host, port) from None
    return listener
