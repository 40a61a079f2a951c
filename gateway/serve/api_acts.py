"""The two routes that do something: acknowledge and close. What may be done is core's to say."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from alerting import Transition
from gateway.serve import answers
from gateway.serve.acts import note_of
from gateway.serve.answers import json_of
from gateway.serve.asking import KNOWN_PARAMETERS, AlarmId, Operator, Parts, PartsOf, Said, problems
from gateway.serve.bodies import StrictRoute
from gateway.serve.gate import NOTE
from gateway.serve.problems import Kind, RefusedError
from gateway.serve.tokens import Token
from gateway.serve.view_errors import ViewError

api_acts = APIRouter(prefix="/api/v1", tags=["alarms"], route_class=StrictRoute, dependencies=KNOWN_PARAMETERS)
REFUSALS: Final = problems(403, 404, 408, 409, 413, 415)
WORDS_S_MAX: Final = 1.0
"""How long the answer to an act waits for the alarm's words."""


class Acknowledgement(BaseModel):
    """Nothing but `{}`: who acknowledges is the token's name."""

    model_config = ConfigDict(extra="forbid")


class Closing(BaseModel):
    """Why it happened and what was done about it."""

    model_config = ConfigDict(extra="forbid")
    reason: Said = Field(description="why it happened; no control characters")
    measure: Said = Field(description="what was done; no control characters")


@api_acts.post("/alarms/{alarm_id}/acknowledge", response_model=answers.ActDone, responses=REFUSALS)
async def acknowledge(http: Request, token: Operator, parts: PartsOf, alarm_id: AlarmId, _: Acknowledgement) -> Any:
    """Acknowledge an alarm under the token's name. Answered once it is committed."""
    return await _act(http, token, parts, {"act": "acknowledge", "alarm": alarm_id})


@api_acts.post("/alarms/{alarm_id}/close", response_model=answers.ActDone, responses=REFUSALS)
async def close(http: Request, token: Operator, parts: PartsOf, alarm_id: AlarmId, said: Closing) -> Any:
    """Close an alarm that has returned to normal, under the token's name. Answered once it is committed."""
    request = {"act": "close", "alarm": alarm_id, "reason": said.reason, "measure": said.measure}
    return await _act(http, token, parts, request)


async def _act(http: Request, token: Token, parts: Parts, request: dict[str, str]) -> Response:
    """Hand an act to core under the token's name. The audit hears of it however it ends."""
    http.scope[NOTE] = note_of(request, "act_unanswered")
    try:
        step = await parts.acts.do({**request, "actor": token.name})
    except RefusedError as refused:
        if refused.kind is Kind.NOT_FOUND:
            known = await parts.reads.run(lambda: parts.view.alarm(request["alarm"]))
            if known is not None:  # it is closed
                refused = RefusedError(Kind.REFUSED, refused.detail, refused.detail_zh)
        http.scope[NOTE] = note_of(request, "act_refused", refused.detail)
        raise refused from None
    http.scope[NOTE] = note_of(request, "act")
    return await _told(parts, step)


async def _told(parts: Parts, step: Transition) -> Response:
    """Return what was done. It is committed, so no ledger that is busy may make it look refused."""

    def with_words() -> answers.ActDone:
        try:
            return answers.act_done(step, parts.view.alarm(step.alarm_id))
        except ViewError:
            return answers.act_done(step, None)

    try:
        async with asyncio.timeout(WORDS_S_MAX):
            return await parts.read(with_words)
    except (TimeoutError, RefusedError):
        return Response(json_of(answers.act_done(step, None)), media_type="application/json")
