"""The API as this screen uses it: a few GETs, two acts, one stream. It keeps nothing and retries nothing.

It follows no redirect and asks no proxy, so the token goes to the named gateway alone. It cannot write anything but
the two acts of an operator.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final

import aiohttp

from cli.language import say
from cli.watch.fields import AnswerError
from cli.watch.sse import EventTooLargeError, SseEvent, SseParser

BASE: Final = "/api/v1"
CONNECT_S_MAX: Final = 3.0
ANSWER_S_MAX: Final = 12.0  # core gives an act up to 10 s
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
CHUNK_BYTES: Final = 65_536
STREAM_SILENCE_S: Final = 3.0
"""Health comes every second, so a stream that says nothing for so long is dead, whatever its socket says."""
BUSY: Final = "urn:hazardgate:problem:busy"


class ClientError(Exception):
    """Base: the text says, in the user's language, what happened."""


class UnreachableError(ClientError):
    """No answer, or one that broke off. Expected: try again."""


class RefusedError(ClientError):
    """The gateway answered, and said no."""

    def __init__(self, status: int, told: str, kind: str = "") -> None:
        self.status, self.told, self.kind = status, told, kind
        super().__init__(told)

    @property
    def token_refused(self) -> bool:
        """The token itself is not (or no longer) accepted."""
        return self.status == 401

    @property
    def perhaps_done(self) -> bool:
        """An act so answered may have been done, or be done yet: something failed on the way, and nobody said no."""
        return self.status >= 500 and self.kind != BUSY


class Client:
    """One gateway; use as an async context manager."""

    def __init__(
        self, url: str, token: str, ca: ssl.SSLContext | None = None, *, silence_s: float = STREAM_SILENCE_S
    ) -> None:
        self._base = url.rstrip("/") + BASE
        self._token, self._ca, self._silence_s = token, ca, silence_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        """Open."""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}", "User-Agent": "hazardgate-watch"},
            connector=aiohttp.TCPConnector(ssl=self._ca or True, limit=4),
            trust_env=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: str | int) -> Any:
        """Return the JSON of one GET.

        Raises:
            UnreachableError, RefusedError, AnswerError.
        """
        return await self._ask("GET", path, params=query)

    async def act(self, alarm_id: str, act: str, body: Mapping[str, str]) -> Any:
        """Send one act, `acknowledge` or `close`; returns the answer {alarm, transition}.

        Raises:
            UnreachableError: whether it was done is not known. RefusedError, AnswerError.
        """
        return await self._ask("POST", f"/alarms/{alarm_id}/{act}", json=dict(body))

    async def _ask(self, method: str, path: str, **more: Any) -> Any:
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(ANSWER_S_MAX),
                self._session.request(method, self._base + path, allow_redirects=False, **more) as answer,
            ):
                body = await _read(answer)
                _check(answer, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(_cause(error)) from error
        return _parse(body)

    @asynccontextmanager
    async def stream(self, after: str | None) -> AsyncIterator[AsyncIterator[SseEvent]]:
        """Open the stream, after an event's id or from now; yields its events.

        Raises:
            UnreachableError: it ended, broke, or said nothing for 3 s. RefusedError, AnswerError.
        """
        assert self._session is not None
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        try:
            async with (
                asyncio.timeout(None) as deadline,
                self._session.get(
                    f"{self._base}/stream", headers=headers, allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX, sock_read=self._silence_s),
                ) as answer,
            ):  # fmt: skip
                if answer.status != 200:
                    deadline.reschedule(asyncio.get_running_loop().time() + CONNECT_S_MAX)
                    _check(answer, await _read(answer))
                yield _events(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(_cause(error)) from error


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[SseEvent]:
    parser = SseParser()
    try:
        async for chunk in answer.content.iter_any():
            for event in parser.feed(chunk):
                yield event
    except EventTooLargeError as error:
        raise AnswerError("an event is too large") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnreachableError(_cause(error)) from error
    raise UnreachableError(say("网关结束了数据流", "the gateway ended the stream"))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise AnswerError("the answer is too large")
    return bytes(body)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError("the answer is no JSON") from error


def _check(answer: aiohttp.ClientResponse, body: bytes) -> None:
    if 200 <= answer.status < 300:
        return
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    title, detail = (
        str(problem.get(say(f"{name}_zh", name)) or problem.get(name) or "")[:500] for name in ("title", "detail")
    )
    told = f"{_faults(problem.get('errors')) or detail or title or str(answer.reason or '')} ({answer.status})"
    if answer.status == 401:  # the gateway speaks to who writes a client, this screen to an operator
        told = say("本令牌已被吊销、已到期或不正确；请向网关管理员领取新令牌",
                   "this token was revoked, has ended or is wrong; get a new one from the gateway's administrator")  # fmt: skip
    raise RefusedError(answer.status, told, str(problem.get("type") or "")[:100])


def _faults(errors: Any) -> str:
    """Say what is wrong with which field, where the gateway says so."""
    found = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    fields = {"body.reason": say("原因", "reason"), "body.measure": say("处置措施", "measure")}
    told = [
        say("{}：{}", "{}: {}").format(fields.get(str(error.get("where")), str(error.get("where"))[:100]), message[:200])
        for error in found
        if isinstance(message := error.get(say("message_zh", "message")), str)
    ]
    return say("；", "; ").join(told)


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return say("没有回答", "no answer")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return say(f"TLS 证书不被接受（{error}）", f"TLS certificate not accepted ({error})")
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionError):
        return say("连接不上", "cannot connect")
    return say(f"连接中断（{type(error).__name__}）", f"the connection broke ({type(error).__name__})")
