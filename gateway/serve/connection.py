"""HTTP/1.1 connections with a limit on every wait: a client that dribbles or does not read is cut (F65).

uvicorn bounds the size of a request's head and the time between requests, but neither the time a head takes nor the
time a client may leave an answer unread. Where more than half of the places are taken, a head has less time: who says
nothing must not keep those out who ask.

What uvicorn itself would refuse in plain text (a head that is no HTTP, no place free) is told as a problem, too.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.serve.gate import HEADERS, HEADERS_TLS
from gateway.serve.problems import Kind, RefusedError, busy, problem_response

HEAD_S_MAX: Final = 10.0
HEAD_S_MAX_CROWDED: Final = 3.0
HEAD_LOOK_S: Final = 0.5
UNREAD_S_MAX: Final = 10.0


class TimedProtocol(H11Protocol):
    """uvicorn's protocol with two more timers; both cut the connection at once."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_since_s = 0.0
    _unread_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take over the limit on places: uvicorn's own answer beyond it is plain text."""
        super().__init__(*arguments, **named)
        assert self.limit_concurrency is not None, "how many places there are"
        self._places, self.limit_concurrency = self.limit_concurrency, None

    @property
    def app(self) -> Any:
        """What answers the next request."""
        full = len(self.connections) >= self._places or len(self.tasks) >= self._places
        return self._no_place if full else self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    async def _no_place(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._told(busy(), scope["path"])(scope, receive, send)

    def _told(self, refused: RefusedError, path: str) -> Response:
        """Return a refusal that never reaches the gate, with the gate's headers; the connection ends with it."""
        response = problem_response(refused, path)
        response.raw_headers += [*HEADERS, *(HEADERS_TLS if self.scheme == "https" else ()), (b"connection", b"close")]
        return response

    def send_400_response(self, msg: str) -> None:
        """Tell a client that what it sent is no HTTP, where an answer can still begin."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            refused = RefusedError(Kind.MALFORMED, "this is no HTTP/1.1 request", "这不是 HTTP/1.1 请求")
            response = self._told(refused, "")
            for event in (
                h11.Response(status_code=response.status_code, headers=response.raw_headers),
                h11.Data(data=bytes(response.body)), h11.EndOfMessage(),
            ):  # fmt: skip
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def connection_made(self, transport: Any) -> None:
        """A client connected: its first request's head is due."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timers()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """An answer is written: the next request's head is due."""
        self._expect_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client leaves more than the transport's buffer unread."""
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_S_MAX, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        super().resume_writing()

    def _expect_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_since_s = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_LOOK_S, self._look_for_head)

    def _look_for_head(self) -> None:
        """A request that is being answered has its own limits; between requests nobody may dawdle."""
        if self.cycle is not None and not self.cycle.response_complete:
            return
        crowded = 2 * len(self.connections) > self._places
        if self.loop.time() - self._head_since_s >= (HEAD_S_MAX_CROWDED if crowded else HEAD_S_MAX):
            self.transport.abort()
        else:
            self._head_timer = self.loop.call_later(HEAD_LOOK_S, self._look_for_head)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._unread_timer = None
