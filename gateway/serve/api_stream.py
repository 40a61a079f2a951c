"""The route of the live stream."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from gateway.serve import answers
from gateway.serve.answers import json_of
from gateway.serve.asking import KNOWN_PARAMETERS, PartsOf, Viewer, problems
from gateway.serve.gate import LIMIT
from gateway.serve.stream import LiveResponse

api_stream = APIRouter(prefix="/api/v1", tags=["live"], dependencies=KNOWN_PARAMETERS)

WORDS: Final = """\
Server-sent events. Open the stream first, then load the lists: nothing that happens in between is missed. The id of an
event, `<ledger id>:<log position>:<number>`, resumes after it (header `Last-Event-ID`, or `after`).

| event | data |
| --- | --- |
| `hello` | `{"position": {"ledger_id", "pos"}, "at_ms", "site"}`, first in every stream |
| `alarms` | `{"items": [AlarmAnswer]}`: alarms with a new revision |
| `values` | `{"items": [TagNow]}`: tags that changed in more than their age, at most five times a second |
| `edges` | `{"items": [EdgeNow]}` that changed |
| `deliveries` | `ReceiverList`, whole |
| `health` | `HealthAnswer`, every second: without one for 5 s nothing shown may be taken for current |
| `reset` | `{"cause": "behind" or "ledger" or "flood"}`: what is known may be wrong; load the lists again |
"""


@api_stream.get(
    "/stream", response_class=StreamingResponse, description=WORDS,
    responses={200: {"description": "events without end", "content": {"text/event-stream": {}}}, **problems()},
)  # fmt: skip
async def stream(
    request: Request,
    token: Viewer,
    parts: PartsOf,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> LiveResponse:
    """Stream what changes."""
    client = parts.hub.subscribe(token.id, last_event_id or after)
    limit = request.scope[LIMIT]
    assert isinstance(limit, asyncio.Timeout)
    limit.reschedule(None)

    def hello() -> bytes:
        return json_of(answers.Hello(position=parts.hub.position, at_ms=parts.wall_ms(), site=parts.site.site))

    return LiveResponse(client, hello)
