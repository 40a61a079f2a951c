"""The routes of history beyond one tag's picture: aggregates by window, alarms as annotations, how the stores stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from gateway.historian.limits import TAGS_MAX
from gateway.serve import answers
from gateway.serve.answers import json_of
from gateway.serve.asking import KNOWN_PARAMETERS, Parts, PartsOf, TagId, TimeMs, Viewer, problems
from gateway.serve.models import WindowList
from gateway.serve.problems import Kind, RefusedError

WINDOWS_S_MAX: Final = 5.0
WINDOWS_MAX: Final = 2_000
ANNOTATIONS_MAX: Final = 10_000

api_history = APIRouter(prefix="/api/v1", tags=["history"], dependencies=KNOWN_PARAMETERS)

Column = Literal[
    "samples", "late", "good_share", "first", "first_ms", "last", "last_ms", "min", "min_ms", "max", "max_ms", "mean", "silence_ms",
]  # fmt: skip
_COLUMNS: Final[list[Column]] = ["samples", "good_share", "last", "min", "max", "mean"]
Columns = Annotated[list[Column], Query(max_length=13, description="which columns to tell beside `start_ms`")]
Width = Annotated[int, Query(ge=1, le=400 * 86_400_000, description="of a window, in ms; from 300 000 on a multiple of it")]
Tags = Annotated[
    list[Annotated[str, Query(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$", max_length=64)]],
    Query(min_length=1, max_length=TAGS_MAX, description="as T101.LEVEL; once for each tag"),
]
_WINDOWS_JSON: Final = TypeAdapter(WindowList)


@api_history.get("/tags/{tag}/windows", response_model=WindowList, responses=problems(404))
async def windows_of_tag(
    _: Viewer, parts: PartsOf, tag: TagId, from_ms: TimeMs, to_ms: TimeMs, width_ms: Width, column: Columns = _COLUMNS
) -> Any:
    """One tag by windows of time: extremes, mean, share of good samples. Windows without samples are left out."""
    return await _windows(parts, [tag], from_ms, to_ms, width_ms, column)


@api_history.get("/windows", response_model=WindowList, responses=problems(404))
async def windows(
    _: Viewer, parts: PartsOf, tag: Tags, from_ms: TimeMs, to_ms: TimeMs, width_ms: Width, column: Columns = _COLUMNS
) -> Any:
    """Up to 50 tags by windows of time, for a dashboard."""
    return await _windows(parts, tag, from_ms, to_ms, width_ms, column)


async def _windows(
    parts: Parts, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int, columns: Sequence[str]
) -> Response:
    _check_range(from_ms, to_ms)
    if (to_ms - from_ms) // width_ms > WINDOWS_MAX:
        least = -((from_ms - to_ms) // WINDOWS_MAX)
        raise RefusedError(
            Kind.INVALID, f"more than {WINDOWS_MAX} windows: let width_ms be at least {least}",
            f"时间窗超过 {WINDOWS_MAX} 个：width_ms 至少为 {least}",
        )  # fmt: skip
    names = list(dict.fromkeys(columns))

    def make() -> bytes:
        found = parts.historian.windows(list(dict.fromkeys(tags)), from_ms, to_ms, width_ms, names, WINDOWS_S_MAX)
        return _WINDOWS_JSON.dump_json(found)

    return Response(await parts.histories.run(make), media_type="application/json")


@api_history.get("/annotations", response_model=answers.AnnotationList, responses=problems())
async def alarm_annotations(
    _: Viewer, parts: PartsOf, from_ms: TimeMs, to_ms: TimeMs,
    tag: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=ANNOTATIONS_MAX, description="more than that is refused, not cut")] = ANNOTATIONS_MAX,
) -> Any:  # fmt: skip
    """Every step of every alarm in a range of time, oldest first."""
    _check_range(from_ms, to_ms)

    def make() -> bytes:
        found = parts.historian.events(from_ms, to_ms, tag, limit, WINDOWS_S_MAX)
        items = [
            answers.Annotation(
                id=each.id, alarm_id=each.alarm_id, tag=each.tag, kind=each.kind, limit=each.limit, grade=each.grade,
                at_ms=each.at_ms, late=each.late,
            )
            for each in found
        ]  # fmt: skip
        return json_of(answers.AnnotationList(items=items))

    return Response(await parts.histories.run(make), media_type="application/json")


@api_history.get("/historian", response_model=answers.HistorianAnswer, responses=problems())
async def historian(_: Viewer, parts: PartsOf) -> Any:
    """How the stores of history stand: how far sealed, what is damaged, how long there is room, what is fed beside."""
    return await parts.read(lambda: answers.historian_answer(parts.historian.status(), parts.wall_ms()))


def _check_range(from_ms: int, to_ms: int) -> None:
    if from_ms >= to_ms:
        raise RefusedError(Kind.INVALID, "from_ms must be before to_ms", "from_ms 必须早于 to_ms")
