"""Answers that refuse: `application/problem+json` (RFC 9457), in both languages, one kind for each next step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


class Fault(BaseModel):
    """One thing wrong in a request."""

    where: str = Field(description="the parameter or the field of the body")
    message_zh: str = Field(description="what is wrong with it, in Chinese")
    message: str = Field(description="the same in English")


class Problem(BaseModel):
    """Why a request was not done, after RFC 9457."""

    type: str = Field(description="names the kind of problem: urn:hazardgate:problem:…")
    status: int
    title_zh: str
    detail_zh: str = Field(description="what happened here and what to do next")
    title: str
    detail: str = Field(description="the same in English")
    instance: str = Field(description="the path that was asked for")
    errors: list[Fault] = Field(default_factory=list)


class Kind(Enum):
    """Every kind of problem: name, status, title in English and Chinese."""

    MALFORMED = ("malformed", 400, "The request cannot be read", "请求无法读取")
    UNAUTHENTICATED = ("unauthenticated", 401, "No valid token", "没有有效的令牌")
    FORBIDDEN = ("forbidden", 403, "The role does not suffice", "角色权限不足")
    NOT_FOUND = ("not-found", 404, "There is no such thing here", "没有此资源")
    METHOD = ("method-not-allowed", 405, "That cannot be done here", "不支持此操作")
    TIMEOUT = ("request-timeout", 408, "The request came too slowly", "请求发送过慢")
    REFUSED = ("refused", 409, "The alarm's state does not allow it", "报警当前状态不允许")
    TOO_LARGE = ("too-large", 413, "The request is too large", "请求过大")
    MEDIA = ("unsupported-media-type", 415, "The body must be application/json", "请求体须为 application/json")
    WRONG_HOST = ("wrong-host", 421, "This server does not answer under that name", "本服务不以此主机名应答")
    INVALID = ("invalid", 422, "The request is not valid", "请求内容无效")
    THROTTLED = ("throttled", 429, "Too many failures from this address", "此地址失败次数过多")
    BUG = ("internal", 500, "A fault of the server", "服务内部错误")
    CORE_GONE = ("core-not-there", 503, "Core does not answer", "核心没有应答")
    LEDGER_AWAY = ("ledger-away", 503, "The ledger cannot be read", "账本无法读取")
    BUSY = ("busy", 503, "Too much is asked for at once", "请求过多")
    SLOW = ("too-slow", 503, "The answer took too long", "应答超时")

    def __init__(self, slug: str, status: int, title: str, title_zh: str) -> None:
        self.slug, self.status, self.title, self.title_zh = slug, status, title, title_zh


@dataclass
class RefusedError(Exception):
    """Raised by routes: the app turns it into its problem."""

    kind: Kind
    detail: str
    detail_zh: str
    errors: tuple[Fault, ...] = ()
    retry_after_s: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


def problem_response(refused: RefusedError, path: str) -> Response:
    """Return the answer for a refusal."""
    kind = refused.kind
    body: dict[str, Any] = {
        "type": f"urn:hazardgate:problem:{kind.slug}", "status": kind.status, "title_zh": kind.title_zh,
        "detail_zh": refused.detail_zh, "title": kind.title, "detail": refused.detail, "instance": path[:200],
        "errors": [fault.model_dump() for fault in refused.errors],
    }  # fmt: skip
    headers = dict(refused.headers)
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(refused.retry_after_s)
    if kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="hazardgate"'
    # A path or a key may hold half a surrogate pair, which has no UTF-8.
    told = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(told, kind.status, headers, MEDIA_TYPE)


def unauthenticated() -> RefusedError:
    """One answer for no, a malformed, an unknown, an expired and a revoked token: nobody learns which."""
    return RefusedError(
        Kind.UNAUTHENTICATED,
        "send `Authorization: Bearer` with a valid token; `hazardgate token new` makes one",
        "请在 Authorization: Bearer 中附上有效令牌；用 hazardgate token new 创建",
    )


def not_found(tag: str = "") -> RefusedError:
    """There is nothing under this path or id; or no such tag."""
    if tag:
        return RefusedError(
            Kind.NOT_FOUND, f"the site has no tag {tag}; /api/v1/tags lists them", f"站点没有测点 {tag}；见 /api/v1/tags"
        )
    return RefusedError(Kind.NOT_FOUND, "nothing here has this path or id", "没有此路径或编号")


def busy(retry_after_s: int = 2) -> RefusedError:
    """Shed load: alarms and acts come before queries."""
    return RefusedError(
        Kind.BUSY, "too many such queries wait; try again in a moment", "同类查询排队过多；请稍后再试", retry_after_s=retry_after_s
    )
