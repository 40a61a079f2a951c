"""What the routes share: the parts they work with, who asks and in which role, and how a question is put."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, StringConstraints

from config import SiteConfig
from gateway.core import TEXT_CHARS_MAX, has_control_characters
from gateway.serve.acts import Acts
from gateway.serve.answers import ServeHealth, json_of
from gateway.serve.audit import Audit
from gateway.serve.export_turns import ExportTurns
from gateway.serve.gate import CALLER
from gateway.serve.ports import Historian, View
from gateway.serve.problems import Fault, Kind, Problem, RefusedError
from gateway.serve.refresher import Refresher
from gateway.serve.stream import Hub
from gateway.serve.tokens import Role, Token
from gateway.serve.workers import Workers

TIME_MS_MAX: Final = 253_402_300_799_999  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with. `reads` and `histories` are the only threads that may ask `view` and `historian`."""

    site: SiteConfig
    view: View
    historian: Historian
    acts: Acts
    audit: Audit
    hub: Hub
    refresher: Refresher
    reads: Workers
    histories: Workers
    wall_ms: Callable[[], int]
    site_json: Callable[[], bytes]
    """The site as the API tells it: it does not change while this process runs, so it is made once."""
    exports: ExportTurns = field(default_factory=ExportTurns)

    def serve_health(self) -> ServeHealth:
        """How this process stands."""
        waiting = self.reads.waiting + self.histories.waiting
        return ServeHealth(streams=self.hub.streams, queries_waiting=waiting, audit_lines_lost=self.audit.lost)

    async def read(self, make: Callable[[], Any]) -> Response:
        """Read and serialise in a thread; return the answer."""
        return Response(await self.reads.run(lambda: json_of(make())), media_type="application/json")


async def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


PartsOf = Annotated[Parts, Depends(_parts)]

# -- who asks --

_BEARER: Final = HTTPBearer(
    scheme_name="token", bearerFormat="hg1_<id>_<secret>", auto_error=False, description="made by `hazardgate token new`"
)


async def _caller(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Token:
    """The gate has let the token in."""
    token = request.scope[CALLER]
    assert isinstance(token, Token)
    return token


async def _operator(token: Annotated[Token, Depends(_caller)]) -> Token:
    if not token.role.may(Role.OPERATOR):
        raise RefusedError(
            Kind.FORBIDDEN, f"this needs the role {Role.OPERATOR}; your token has {token.role}",
            f"需要角色 {Role.OPERATOR}；您的令牌为 {token.role}",
        )  # fmt: skip
    return token


Viewer = Annotated[Token, Depends(_caller)]
Operator = Annotated[Token, Depends(_operator)]

# -- how --

TagId = Annotated[str, Path(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$", max_length=64, description="as T101.LEVEL")]
AlarmId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="32 hex digits")]
Before = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]
TimeMs = Annotated[int, Query(ge=0, le=TIME_MS_MAX, description="UTC epoch milliseconds")]
Word = Annotated[str, Query(max_length=64)]


def _fit(text: str) -> str:
    if has_control_characters(text):
        raise ValueError("holds a control character: write it as one line of plain text")
    return text


Said = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_CHARS_MAX), AfterValidator(_fit)
]
"""What a person says in an act."""

# -- what may come back instead of an answer --

_MEANINGS: Final = {
    400: "the request cannot be read", 401: "no valid token", 403: "the role does not suffice", 404: "there is none",
    408: "the body came too slowly", 409: "the alarm's state does not allow it", 413: "the body is too large",
    415: "the body is not application/json", 421: "wrong host name", 422: "a parameter or field is not valid",
    429: "too many failed authentications from this address", 503: "too much is asked for, or core or ledger is not there",
}  # fmt: skip
_ALWAYS: Final = (400, 401, 421, 422, 429, 503)


async def known_parameters(request: Request) -> None:
    """Refuse parameters that the route does not have: a misspelt filter would answer another question."""
    names = _names_of(request.scope["route"])
    unknown = sorted(set(request.query_params) - names)
    if unknown:
        faults = tuple(
            Fault(where=f"query.{name}"[:100], message_zh="没有此参数", message="there is no such parameter here")
            for name in unknown[:20]
        )
        raise RefusedError(Kind.INVALID, "see errors for parameters that are not known here", "见 errors 所列未知参数", faults)


def _names_of(route: Any) -> frozenset[str]:
    """Return the query parameters that a route has."""
    waiting, names = [route.dependant], set[str]()
    while waiting:
        dependant = waiting.pop()
        names.update(each.alias for each in dependant.query_params)
        waiting += dependant.dependencies
    return frozenset(names)


KNOWN_PARAMETERS: Final = (Depends(known_parameters),)


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of a route for its documentation: those of every route and `more`."""
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in sorted({*_ALWAYS, *more})}
