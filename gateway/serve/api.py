"""The reading routes: they parse and hand over. What is true is the read model's to say."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from gateway.serve import answers
from gateway.serve.answers import json_of
from gateway.serve.asking import KNOWN_PARAMETERS, AlarmId, Before, PartsOf, TagId, TimeMs, Viewer, Word, problems
from gateway.serve.models import AlarmListing, History, NoticePage, NoticeState, TagNow
from gateway.serve.problems import Kind, RefusedError, not_found

HISTORY_S_MAX: Final = 5.0
FRESH_S: Final = 5.0
"""A look at the ledger older than this is no look."""
TAGS_MAX: Final = 1_000
ALARMS_MAX: Final = 500
NOTICES_MAX: Final = 200
POINTS_MAX: Final = 5_000

api = APIRouter(prefix="/api/v1", dependencies=KNOWN_PARAMETERS)
open_api = APIRouter(dependencies=KNOWN_PARAMETERS)


@open_api.get(
    "/healthz", response_model=answers.Word, responses={503: {"model": answers.Word, "description": "degraded"}},
    tags=["this server"],
)  # fmt: skip
async def healthz(parts: PartsOf, response: Response) -> Any:
    """One word for a supervisor, without a token: from memory, so that asking costs nothing."""
    latest = parts.refresher.latest
    well = (
        latest is not None and time.monotonic() - latest[0] < FRESH_S
        and latest[1].core == "running" and latest[1].ledger == "ok"
    )  # fmt: skip
    response.status_code = 200 if well else 503
    return answers.Word(status="ok" if well else "degraded")


@api.get("/me", response_model=answers.Me, responses=problems(), tags=["this server"])
async def me(token: Viewer) -> Any:
    """Who the token speaks for."""
    return answers.Me(name=token.name, role=token.role.value, expires_ms=token.expires_ms)


@api.get("/health", response_model=answers.HealthAnswer, responses=problems(), tags=["this server"])
async def health(_: Viewer, parts: PartsOf) -> Any:
    """How the chain stands: core, broker, ledger, and this process."""
    return await parts.read(lambda: answers.health_answer(parts.view.health(), parts.serve_health()))


@api.get("/site", response_model=answers.SiteAnswer, responses=problems(), tags=["site"])
async def site(_: Viewer, parts: PartsOf) -> Any:
    """The site as configured: names, places, limits."""
    return Response(await parts.reads.run(parts.site_json), media_type="application/json")


@api.get("/tags", response_model=answers.TagList, responses=problems(), tags=["tags"])
async def tags(
    _: Viewer,
    parts: PartsOf,
    prefix: Word = "",
    hazard_source: Word = "",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=TAGS_MAX)] = TAGS_MAX,
) -> Any:
    """Every tag as it is known now, in the site's order."""

    def make() -> answers.TagList:
        position, at_ms = parts.hub.position, parts.wall_ms()
        found = [
            tag for tag in parts.view.tags()
            if tag.tag.startswith(prefix) and (not hazard_source or tag.hazard_source == hazard_source)
        ]  # fmt: skip
        return answers.TagList(items=found[offset : offset + limit], total=len(found), at_ms=at_ms, position=position)

    return await parts.read(make)


@api.get("/tags/{tag}", response_model=TagNow, responses=problems(404), tags=["tags"])
async def tag_now(_: Viewer, parts: PartsOf, tag: TagId) -> Any:
    """One tag as it is known now."""

    def make() -> TagNow:
        found = parts.view.tag(tag)
        if found is None:
            raise not_found(tag)
        return found

    return await parts.read(make)


@api.get("/tags/{tag}/history", response_model=History, responses=problems(404), tags=["tags"])
async def history(
    _: Viewer, parts: PartsOf, tag: TagId, from_ms: TimeMs, to_ms: TimeMs,
    points: Annotated[int, Query(ge=2, le=POINTS_MAX)] = 500,
) -> Any:  # fmt: skip
    """One tag's past. More samples than `points` come as buckets that keep the extremes; gaps are told."""
    if from_ms >= to_ms:
        raise RefusedError(Kind.INVALID, "from_ms must be before to_ms", "from_ms 必须早于 to_ms")
    reading = parts.histories.run(
        lambda: json_of(parts.historian.history(tag, from_ms, to_ms, points, HISTORY_S_MAX))
    )
    return Response(await reading, media_type="application/json")


@api.get("/alarms", response_model=answers.AlarmList, responses=problems(), tags=["alarms"])
async def alarms(
    _: Viewer,
    parts: PartsOf,
    state: AlarmListing = "open",
    grade: Annotated[int, Query(ge=1, le=4, description="this grade and graver: 1 blue … 4 red")] = 1,
    tag: Annotated[str | None, Query(max_length=128)] = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=ALARMS_MAX)] = 200,
) -> Any:
    """Alarms by pages: open ones unacknowledged first, then gravest, standing, newest; others newest first."""
    return await parts.read(
        lambda: answers.alarm_list(parts.view.alarms(state=state, grade_min=grade, tag=tag, before=before, limit=limit))
    )


@api.get("/alarms/{alarm_id}", response_model=answers.AlarmWithSteps, responses=problems(404), tags=["alarms"])
async def alarm(_: Viewer, parts: PartsOf, alarm_id: AlarmId) -> Any:
    """One alarm and every step of its life."""

    def make() -> answers.AlarmWithSteps:
        found = parts.view.alarm(alarm_id)
        if found is None:
            raise not_found()
        return answers.alarm_with_steps(found)

    return await parts.read(make)


@api.get("/deliveries", response_model=answers.ReceiverList, responses=problems(), tags=["deliveries"])
async def deliveries(_: Viewer, parts: PartsOf) -> Any:
    """How delivery to every receiver stands."""
    return await parts.read(lambda: answers.receiver_list(parts.view.deliveries()))


@api.get("/deliveries/notices", response_model=NoticePage, responses=problems(), tags=["deliveries"])
async def notices(
    _: Viewer,
    parts: PartsOf,
    receiver: Annotated[str | None, Query(max_length=64)] = None,
    state: NoticeState | None = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=NOTICES_MAX)] = 100,
) -> Any:
    """Notices with their attempts, newest first."""
    return await parts.read(lambda: parts.view.notices(receiver=receiver, state=state, before=before, limit=limit))


@api.get("/edges", response_model=answers.EdgeList, responses=problems(), tags=["edges"])
async def edges(_: Viewer, parts: PartsOf) -> Any:
    """Every edge as the gateway sees it."""
    return await parts.read(lambda: answers.EdgeList(items=list(parts.view.edges())))
