"""Bodies of requests: read whole within a limit of bytes and time, and as strict JSON, before a model sees them (F54)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from gateway.serve.faults_zh import reason_zh
from gateway.serve.problems import Kind, RefusedError
from wire import JsonRefusedError, parse_json_object

BODY_S_MAX: Final = 5.0
BODY_BYTES_MAX: Final = 16_384


class StrictRequest(Request):
    """A request whose body is one JSON object that everybody reads alike."""

    _checked: bytes | None = None

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            RefusedError: it is no such object, too long, or came too slowly.
        """
        if self._checked is None:
            media = self.headers.get("content-type", "").split(";")[0].strip().lower()
            if media != "application/json":
                raise RefusedError(Kind.MEDIA, "send application/json", "请发送 application/json")
            body = await self._whole()
            try:
                parse_json_object(body, BODY_BYTES_MAX)
            except JsonRefusedError as error:
                raise RefusedError(
                    Kind.MALFORMED, f"the body is refused: {error}", f"请求体不是规范的 JSON 对象：{reason_zh(str(error))}"
                ) from None
            self._checked = body
        return self._checked

    async def _whole(self) -> bytes:
        body = b""
        try:
            async with asyncio.timeout(BODY_S_MAX):
                async for part in self.stream():
                    body += part
                    if len(body) > BODY_BYTES_MAX:
                        raise RefusedError(
                            Kind.TOO_LARGE, f"a body has at most {BODY_BYTES_MAX} bytes",
                            f"请求体不得超过 {BODY_BYTES_MAX} 字节", headers={"Connection": "close"},
                        )  # fmt: skip
        except TimeoutError:
            raise RefusedError(
                Kind.TIMEOUT, f"the body took more than {BODY_S_MAX:g} s", f"请求体超过 {BODY_S_MAX:g} 秒未收完",
                headers={"Connection": "close"},
            ) from None  # fmt: skip
        except ClientDisconnect:
            raise RefusedError(Kind.MALFORMED, "the body ended early", "请求体不完整") from None
        return body


class StrictRoute(APIRoute):
    """A route that takes such a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler behind the check."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            await strict.body()
            return await handle(strict)

        return checked
