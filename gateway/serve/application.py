"""The application: routes, refusals as problems, and the OpenAPI document. Nothing here opens a file or a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from gateway.historian.store import HistorianError, QueryTooLargeError
from gateway.serve.api import api, open_api
from gateway.serve.api_acts import api_acts
from gateway.serve.api_export import api_export
from gateway.serve.api_history import api_history
from gateway.serve.api_stream import api_stream
from gateway.serve.asking import Parts
from gateway.serve.faults_zh import fault_zh
from gateway.serve.problems import MEDIA_TYPE, Fault, Kind, RefusedError, not_found, problem_response
from gateway.serve.view_errors import (
    BadCursorError,
    HistoryTooLargeError,
    LedgerAwayError,
    OutOfTimeError,
    UnknownTagError,
    ViewError,
    in_days,
)

VERSION: Final = "1"


def create_app(parts: Parts | None) -> FastAPI:
    """Return the application without its gate; without parts it can only tell its OpenAPI document."""
    app = FastAPI(
        title="hazardgate", version=VERSION, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False,
        description="What the gateway knows, and the acts of people on alarms. It cannot write to an instrument.",
    )  # fmt: skip
    app.state.parts = parts
    for router in (open_api, api, api_history, api_export, api_acts, api_stream):
        app.include_router(router)
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(json.dumps(app.openapi(), ensure_ascii=False), media_type="application/json")

    return app


# -- problems --


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return problem_response(error, request.scope["path"])


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(
        Fault(
            where=".".join(map(str, fault["loc"]))[:100], message=str(fault["msg"])[:200],
            message_zh=fault_zh(fault["type"], fault.get("ctx", {}), str(fault["msg"]))[:200],
        )
        for fault in error.errors()[:20]
    )  # fmt: skip
    refused = RefusedError(Kind.INVALID, "see errors for what is wrong where", "见 errors 所列各处", faults)
    return problem_response(refused, request.scope["path"])


async def _http(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, no such method, a body that is none."""
    assert isinstance(error, StarletteHTTPException)
    if error.status_code == 404:
        refused = not_found()
    elif error.status_code == 405:
        refused = RefusedError(Kind.METHOD, "see Allow for what can be done here", "可用的操作见 Allow")
        refused.headers = dict(error.headers or {})
    else:
        refused = RefusedError(Kind.MALFORMED, "the request cannot be read", "请求无法读取")
    return problem_response(refused, request.scope["path"])


async def _view(request: Request, error: Exception) -> Response:
    if isinstance(error, UnknownTagError):
        refused = not_found(error.tag)
    elif isinstance(error, HistoryTooLargeError):
        refused = RefusedError(
            Kind.INVALID, str(error), f"范围 {in_days(error.asked_ms)} 天过长；一次最多 {in_days(error.fits_ms)} 天"
        )
    elif isinstance(error, BadCursorError):
        refused = RefusedError(Kind.INVALID, str(error), "before 须为上一页给出的 next")
    elif isinstance(error, LedgerAwayError):
        refused = RefusedError(
            Kind.LEDGER_AWAY, f"{error.state}: {error.told}", f"{error.state}：{error.told_zh}", retry_after_s=2
        )
    else:
        assert isinstance(error, OutOfTimeError), type(error)
        refused = RefusedError(
            Kind.BUSY, "the ledger was not read in time; see /api/v1/health and try again",
            "账本未能及时读完；请查看 /api/v1/health 后重试", retry_after_s=2,
        )  # fmt: skip
    return problem_response(refused, request.scope["path"])


async def _historian(request: Request, error: Exception) -> Response:
    """The question was beyond the limits, or the store has no answer just now."""
    assert isinstance(error, HistorianError)
    told, told_zh = str(error)[:500], error.message_zh[:500]
    if isinstance(error, QueryTooLargeError):
        refused = RefusedError(Kind.INVALID, told, told_zh)
    else:
        refused = RefusedError(Kind.BUSY, told, told_zh, retry_after_s=2)
    return problem_response(refused, request.scope["path"])


async def _bug(request: Request, _: Exception) -> Response:
    """The stack goes to the log; the client learns nothing of it."""
    refused = RefusedError(Kind.BUG, "the server's log says more", "详见服务日志")
    return problem_response(refused, request.scope["path"])


_ANSWERS: Final[dict[type[Exception], Callable[[Request, Exception], Any]]] = {
    RefusedError: _refused, RequestValidationError: _invalid, HTTPException: _http, StarletteHTTPException: _http,
    ViewError: _view, HistorianError: _historian, Exception: _bug,
}  # fmt: skip


# -- the OpenAPI document --


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the document; every refusal is told as problem+json, which FastAPI cannot be told itself."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in document["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    for told in list(answer.get("content", {}).values()):
                        if status.startswith(("4", "5")) and told.get("schema", {}).get("$ref", "").endswith("/Problem"):
                            answer["content"] = {MEDIA_TYPE: told}
        app.openapi_schema = document
    return app.openapi_schema


def openapi_document() -> str:
    """Return the OpenAPI document as it is checked in."""
    return json.dumps(create_app(None).openapi(), ensure_ascii=False, indent=1) + "\n"
