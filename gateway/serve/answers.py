"""What the API answers, as models: the read model's plain values, and what is put together from them and the site.

`json_of` makes the bytes, so that serialising happens in the thread that read and once for all streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from alerting import AlarmState, Transition
from config import Grade, SiteConfig, TagConfig
from gateway.serve.models import (
    AlarmPage,
    AlarmView,
    EdgeNow,
    Health,
    Position,
    ReceiverNow,
    TagNow,
)

Fact = str | int | float | bool | None


class Named(BaseModel):
    """A text in both languages."""

    zh: str
    en: str


class Me(BaseModel):
    """Who the token speaks for."""

    name: str = Field(description="the actor of every act done with this token")
    role: Literal["viewer", "operator"]
    expires_ms: int


class ServeHealth(BaseModel):
    """How this process itself stands."""

    streams: int = Field(description="live streams open now")
    queries_waiting: int
    audit_lines_lost: int = Field(description="audit lines that could not be written since it started")


@dataclass(frozen=True)
class HealthAnswer(Health):
    """The chain as this process sees it, and the process itself."""

    serve: ServeHealth | None = None


class Word(BaseModel):
    """`{"status": "ok"}` while core runs and its ledger is read, else `degraded`."""

    status: Literal["ok", "degraded"]


# -- the site --


class LimitAnswer(BaseModel):
    """One limit of a tag, in its unit."""

    limit: str = Field(description="LL, L, H or HH; a contact's alarm state is L or H at 0.5")
    setpoint: float
    deadband: float
    on_delay_s: float
    off_delay_s: float
    grade: int
    grade_en: str
    grade_zh: str
    guidance: Named


class SiteTag(BaseModel):
    """What the site says of a tag."""

    tag: str
    name: Named
    unit: str
    equipment: str
    limits: list[LimitAnswer]


class EquipmentAnswer(BaseModel):
    """A tank, a room: what tags belong to."""

    id: str
    name: Named
    kind: str


class HazardSourceAnswer(BaseModel):
    """A unit of GB 18218-2018; grade 1 is the gravest, none where it is not given."""

    id: str
    name: Named
    kind: str
    grade: int | None
    equipment: list[EquipmentAnswer]


class SiteAnswer(BaseModel):
    """The site as configured: names, places and limits. No address and no secret."""

    site: str
    name: Named
    region: str = Field(description="codes of city, county, park and enterprise, joined by /")
    region_name: Named
    timezone: str
    hazard_sources: list[HazardSourceAnswer]
    tags: list[SiteTag]


# -- tags, alarms, deliveries --


class TagList(BaseModel):
    """A stretch of the site's tags, in its order."""

    items: list[TagNow]
    total: int = Field(description="how many tags the filter leaves, on all pages")
    at_ms: int
    position: Position


class AlarmAnswer(BaseModel):
    """One alarm, in its newest state. All times are UTC epoch milliseconds."""

    id: str
    site: str
    tag: str = Field(description="the tag; for a system alarm its condition, as EDGE.E1.OFFLINE")
    tag_name_zh: str
    tag_name_en: str
    limit: str = Field(description="LL, L, H, HH, FAULT or SYSTEM")
    kind: str = Field(description="LOW_LOW, LOW, HIGH, HIGH_HIGH, FAULT or SYSTEM")
    grade: int = Field(description="1 blue … 4 red")
    grade_en: str
    grade_zh: str
    category: Literal["process", "fault", "system"]
    state: Literal["ACTIVE_UNACKED", "ACTIVE_ACKED", "RETURNED_UNACKED", "RETURNED_ACKED", "CLOSED"]
    active: bool = Field(description="the cause stands")
    acked: bool = Field(description="a person has taken notice: acknowledged it (`acked_by`), or closed it without (`closed_by`)")
    start_ms: int
    rtn_ms: int | None = Field(description="back to normal (销警)")
    end_ms: int | None = Field(description="closed by a person")
    value: float | None = Field(description="at its last step; null where BAD")
    value_at_start: float | None
    setpoint: float | None
    unit: str
    code: int = Field(description="quality code of `value`")
    late: bool = Field(description="found in data that came late; it never was a current level")
    linked: str | None = Field(
        description="for a late alarm, the current one this excursion lives on in; one that began later is not named here"
    )
    acked_by: str | None
    acked_ms: int | None
    closed_by: str | None
    reason: str | None
    measure: str | None
    cause_zh: str
    cause_en: str
    guidance_zh: str = Field(description="what the operator does first")
    guidance_en: str
    facts: dict[str, Fact]
    equipment: str
    hazard_source: str
    revision: int = Field(description="from 1, of a late alarm from 5, one more with every step; the highest is the truth")


class TransitionAnswer(BaseModel):
    """One step in the life of an alarm."""

    id: str
    alarm_id: str
    revision: int
    kind: Literal["raised", "returned", "acknowledged", "closed"]
    state: str = Field(description="of the alarm after it")
    at_ms: int = Field(description="source time of the sample that did it, or when the person acted")
    engine_ms: int
    value: float | None
    late: bool
    actor: str | None


class AlarmList(BaseModel):
    """A page of alarms; `next` is the `before` of the next one."""

    items: list[AlarmAnswer]
    next: str | None
    position: Position


class AlarmWithSteps(BaseModel):
    """One alarm and its steps, oldest first."""

    alarm: AlarmAnswer
    transitions: list[TransitionAnswer]


class ActDone(BaseModel):
    """What an act did; it is in core's journal."""

    alarm: AlarmAnswer
    transition: TransitionAnswer


@dataclass(frozen=True)
class ReceiverAnswer(ReceiverNow):
    """How delivery to one receiver stands, lane by lane and in all."""

    due: int = 0
    parked: int = 0


class ReceiverList(BaseModel):
    """Every receiver."""

    items: list[ReceiverAnswer]


class EdgeList(BaseModel):
    """Every edge."""

    items: list[EdgeNow]


# -- the historian --


class DamagedAnswer(BaseModel):
    """A stored piece that failed its checks: what it held from `from_ms` to `to_ms` cannot be read."""

    file: str
    day: str = ""
    tags: tuple[str, str] | None = Field(default=None, description="first and last tag concerned; null: all")
    from_ms: int = 0
    to_ms: int = 0
    why: str = ""


class SpaceAnswer(BaseModel):
    """Room on the disk. projected_days: how many days fit at the present rate."""

    bytes: int
    limit_bytes: int
    days_held: float
    projected_days: float | None = None


class StoreAnswer(BaseModel):
    """A time-series store that is fed beside our own."""

    id: str
    kind: str
    state: str = Field(description="live, catching up, away or refused")
    lag_rows: int | None = None
    lag_ms: int | None = None
    cursor: int | None = None
    quarantined: int = Field(default=0, description="samples that the store would never take, kept aside")
    detail: str = ""
    detail_zh: str = ""


class HistorianAnswer(BaseModel):
    """How the stores of history stand, as their keeper wrote it last."""

    state: Literal["running", "silent", "unknown"] = Field(
        description="silent: its keeper has not written for 3 min; unknown: it never has, or it cannot be read"
    )
    at_ms: int | None = Field(default=None, description="when this was written")
    cursor: int | None = Field(default=None, description="log position up to which everything is sealed in segments")
    damaged: list[DamagedAnswer] = []
    space: SpaceAnswer | None = None
    stores: list[StoreAnswer] = []
    trouble: str = Field(default="", description="why its keeper could not do its last piece of work; empty if it could")


class Annotation(BaseModel):
    """One step of an alarm, to be drawn at `at_ms`."""

    id: str
    alarm_id: str
    tag: str
    kind: str = Field(description="raised, returned, acknowledged or closed")
    limit: str = Field(description="LL, L, H, HH, FAULT or SYSTEM")
    grade: int = Field(description="1 blue … 4 red")
    at_ms: int
    late: bool


class AnnotationList(BaseModel):
    """Steps of alarms, oldest first."""

    items: list[Annotation]


SILENT_MS: Final = 180_000


def historian_answer(said: dict[str, Any] | None, now_ms: int) -> HistorianAnswer:
    """Return the keeper's words; what cannot be read as such is unknown, never well."""
    try:
        found = HistorianAnswer.model_validate({**(said or {}), "state": "running"})
    except ValidationError:
        return HistorianAnswer(state="unknown")
    if found.at_ms is None:
        return HistorianAnswer(state="unknown")
    return found if now_ms - found.at_ms <= SILENT_MS else found.model_copy(update={"state": "silent"})


class Hello(BaseModel):
    """The first event of every stream."""

    position: Position
    at_ms: int
    site: str


# -- from the read model --


def alarm_answer(view: AlarmView) -> AlarmAnswer:
    """Return an alarm with its words."""
    return _alarm(
        view.alarm,
        tag_name_zh=view.tag_name_zh, tag_name_en=view.tag_name_en, kind=view.kind, guidance_zh=view.guidance_zh,
        guidance_en=view.guidance_en, equipment=view.equipment, hazard_source=view.hazard_source,
        value_at_start=view.value_at_start,
    )  # fmt: skip


def _alarm(alarm: AlarmState, **words: Any) -> AlarmAnswer:
    body = alarm.to_json()
    body["rtn_ms"] = body.pop("returned_ms")
    grade = Grade(alarm.grade)
    return AlarmAnswer(
        **body, **words, grade_en=grade.en, grade_zh=grade.zh, active=alarm.state.active, acked=alarm.state.acked
    )


def transition_answer(step: Transition) -> TransitionAnswer:
    """Return a step without the whole alarm in it."""
    return TransitionAnswer(
        id=step.id, alarm_id=step.alarm_id, revision=step.revision, kind=step.kind.value, state=step.alarm.state.value,
        at_ms=step.at_ms, engine_ms=step.engine_ms, value=step.alarm.value, late=step.late, actor=step.actor,
    )  # fmt: skip


def alarm_with_steps(view: AlarmView) -> AlarmWithSteps:
    """Return an alarm and its steps."""
    return AlarmWithSteps(alarm=alarm_answer(view), transitions=[transition_answer(step) for step in view.transitions])


def act_done(step: Transition, view: AlarmView | None) -> ActDone:
    """Return what an act did. The alarm is as core left it, with the words of the read model where that has it."""
    if view is None:
        words = AlarmView(step.alarm, step.alarm.tag, step.alarm.tag, step.alarm.limit, "", "", "", "", None)
    else:
        words = replace(view, alarm=step.alarm)
    return ActDone(alarm=alarm_answer(words), transition=transition_answer(step))


def alarm_list(page: AlarmPage) -> AlarmList:
    """Return a page of alarms."""
    return AlarmList(items=[alarm_answer(view) for view in page.items], next=page.next, position=page.position)


def receiver_list(receivers: Sequence[ReceiverNow]) -> ReceiverList:
    """Return every receiver with its sums."""
    return ReceiverList(items=[
        ReceiverAnswer(**_fields(receiver), due=receiver.due, parked=receiver.parked)
        for receiver in receivers
    ])  # fmt: skip


def health_answer(health: Health, serve: ServeHealth) -> HealthAnswer:
    """Return the chain's health with this process's own."""
    return HealthAnswer(**_fields(health), serve=serve)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def site_answer(site: SiteConfig) -> SiteAnswer:
    """Return what the site's file says to those who look."""
    places = (site.region.city, site.region.county, site.region.park, site.region.enterprise)
    return SiteAnswer(
        site=site.site, name=_named(site.name), region=site.region.path, timezone=site.timezone,
        region_name=Named(zh="/".join(one.name.zh for one in places), en="/".join(one.name.en for one in places)),
        hazard_sources=[
            HazardSourceAnswer(
                id=source.id, name=_named(source.name), kind=source.kind, grade=source.grade,
                equipment=[EquipmentAnswer(id=item.id, name=_named(item.name), kind=item.kind) for item in source.equipment],
            )
            for source in site.hazard_sources
        ],
        tags=[_site_tag(tag) for tag in site.tags],
    )  # fmt: skip


def _site_tag(tag: TagConfig) -> SiteTag:
    limits = [
        LimitAnswer(
            limit=row.kind.value, setpoint=row.setpoint, deadband=row.deadband, on_delay_s=row.on_delay_s,
            off_delay_s=row.off_delay_s, grade=int(row.grade), grade_en=row.grade.en, grade_zh=row.grade.zh,
            guidance=_named(row.guidance),
        )
        for row in tag.limit_rows()
    ]  # fmt: skip
    return SiteTag(tag=tag.id, name=_named(tag.name), unit=tag.unit or "", equipment=tag.equipment, limits=limits)


def _named(names: Any) -> Named:
    return Named(zh=names.zh, en=names.en)


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def json_of(answer: Any, kind: Any = None) -> bytes:
    """Return the answer as UTF-8 JSON; `kind` names its type where that is not its class."""
    of = kind or type(answer)
    adapter = _ADAPTERS.get(of)
    if adapter is None:
        adapter = _ADAPTERS[of] = TypeAdapter(of)
    return adapter.dump_json(answer)
