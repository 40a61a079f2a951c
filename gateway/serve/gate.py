"""What every request passes before it is looked at: host name, token; and what every answer carries.

Default deny: without a token only `/healthz` answers. No decision here rests on a route, so none can be forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.serve.audit import Audit
from gateway.serve.problems import Kind, RefusedError, problem_response, unauthenticated
from gateway.serve.throttle import Throttle
from gateway.serve.tokens import Token, TokenStore

log = logging.getLogger(__name__)

REQUEST_S_MAX: Final = 10.0
OPEN_PATH: Final = "/healthz"
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CALLER: Final = "hazardgate.caller"
LIMIT: Final = "hazardgate.time_limit"
NOTE: Final = "hazardgate.audit_note"
HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


HEADERS_TLS: Final = ((b"strict-transport-security", b"max-age=31536000"),)


class Gate:
    """ASGI middleware, the outermost."""

    def __init__(
        self, app: ASGIApp, *, tokens: TokenStore, throttle: Throttle, audit: Audit, hosts: Iterable[str]
    ) -> None:
        """`hosts` are the names this server answers under, without port, in lower case."""
        self._app, self._tokens, self._throttle, self._audit = app, tokens, throttle, audit
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        close = False

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"cache-control"]
                message["headers"] = [*kept, *HEADERS, *(HEADERS_TLS if scope["scheme"] == "https" else ())]
                if close:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            async with asyncio.timeout(REQUEST_S_MAX) as limit:
                scope[LIMIT] = limit
                try:
                    self._check_host(scope)
                    if not (scope["path"] == OPEN_PATH and scope["method"] == "GET"):
                        scope[CALLER] = self._authenticated(scope)
                except RefusedError as refused:
                    close = True  # what is left of its body is not read
                    await problem_response(refused, scope["path"])(scope, receive, answer)
                else:
                    await self._app(scope, receive, answer)
        except TimeoutError:
            log.warning("%s %s took more than %g s", scope["method"], scope["path"][:200], REQUEST_S_MAX)
            if status == 0:
                await problem_response(_slow(), scope["path"])(scope, receive, answer)
        finally:
            self._note(scope, status)

    # -- checks --

    def _check_host(self, scope: Scope) -> None:
        sent = [value for name, value in scope["headers"] if name == b"host"]
        host = sent[0].decode("latin-1").lower() if len(sent) == 1 else ""
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if name not in self._hosts:
            raise RefusedError(
                Kind.WRONG_HOST, "use the name or address serve was started with; more are given with --name",
                "请使用启动 serve 时指定的主机名或地址；可用 --name 增加",
            )  # fmt: skip

    def _authenticated(self, scope: Scope) -> Token:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, credentials = (sent[0].decode("latin-1") if len(sent) == 1 else "").partition(" ")
        token = self._tokens.find(credentials.strip()) if scheme.lower() == "bearer" else None
        if token is not None:
            return token
        wait_s, told = self._throttle.failed(_address(scope))
        if not told:
            scope[NOTE] = {"event": "auth_throttled" if wait_s else "auth_failed"}
        if wait_s:
            raise RefusedError(
                Kind.THROTTLED, "wait before the next try; a valid token is not held up",
                "请稍候再试；有效令牌不受影响", retry_after_s=int(wait_s) + 1,
            )  # fmt: skip
        raise unauthenticated()

    # -- the audit --

    def _note(self, scope: Scope, status: int) -> None:
        """Note what was refused or tried: every failed authentication, lack of rights, act, and attempted write."""
        note: dict[str, Any] = scope.get(NOTE, {})
        token: Token | None = scope.get(CALLER)
        rated = not note and token is not None
        if rated:
            if status == 403:
                note = {"event": "forbidden"}
            elif scope["method"] not in READING:
                note = {"event": "write_attempt"}
        if not note:
            return
        facts = dict(note)
        write = self._audit.write_at_rate if rated else self._audit.write
        write(
            facts.pop("event"), name=token.name if token else None, id=token.id if token else None,
            role=str(token.role) if token else None, remote=_address(scope), method=scope["method"], path=scope["path"],
            status=status, **facts,
        )  # fmt: skip


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unix"


def _slow() -> RefusedError:
    return RefusedError(
        Kind.SLOW, f"no answer within {REQUEST_S_MAX:g} s; look at /api/v1/health and try again",
        f"{REQUEST_S_MAX:g} 秒内没有应答；请查看 /api/v1/health 后重试", retry_after_s=5,
    )  # fmt: skip


