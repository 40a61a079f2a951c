"""What the gateway's API answers, as values: the one place that knows its field names.

A field that the screen cannot do without and that is missing or of the wrong kind is an `AnswerError`; nothing is
guessed. Texts stay as they came, in both languages; what draws them escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cli.watch.fields import (
    AnswerError,
    Text,
    counts,
    entries,
    flag,
    flag_or_none,
    named,
    number,
    text,
    text_or_none,
    texts,
    whole,
    whole_or_none,
    words,
)


@dataclass(frozen=True, slots=True)
class Me:
    """Whose token this is; `role` is viewer or operator."""

    name: str
    role: str
    expires_ms: int | None

    @property
    def may_act(self) -> bool:
        """The token may acknowledge and close."""
        return self.role == "operator"


@dataclass(frozen=True, slots=True)
class Site:
    """What does not change while the gateway runs; the maps go from id to name."""

    id: str
    name: Text
    timezone: str
    hazard_sources: Mapping[str, Text]
    equipment: Mapping[str, Text]


@dataclass(frozen=True, slots=True)
class Health:
    """How the chain does: `core` is running, stalled, gone or never_started; `connected` is core's link to the broker.

    `degraded` is the gateway's own judgement, with its `reasons` as short words (`core.gone`, `receiver.down` …).
    `standing` counts the standing alarms by grade, those of late runs left out.
    """

    core: str
    ledger: str
    connected: bool | None
    degraded: bool
    reasons: tuple[str, ...]
    heartbeat_age_ms: int | None
    at_ms: int
    standing: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm; times are UTC epoch milliseconds. `grade` is 1 blue … 4 red."""

    id: str
    tag: str
    tag_name: Text
    limit: str
    category: str
    grade: int
    state: str
    active: bool
    acked: bool
    start_ms: int
    returned_ms: int | None
    value: float | None
    setpoint: float | None
    unit: str
    late: bool
    linked: str | None
    guidance: Text
    cause: Text
    acked_by: str | None
    acked_ms: int | None
    hazard_source: str
    equipment: str
    revision: int

    @property
    def closed(self) -> bool:
        """It has ended: it leaves the list."""
        return self.state == "CLOSED"


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag as it is now; `quality` is GOOD, UNCERTAIN, BAD or UNKNOWN, `reason` a `wire.Reason` name, `code` both.

    `value` may be the last one known where the quality is BAD.
    """

    id: str
    name: Text
    unit: str
    value: float | None
    quality: str
    reason: str
    code: int
    source_ms: int | None
    received_ms: int | None
    last_good: float | None
    last_good_ms: int | None
    held: bool
    grade: int
    hazard_source: str
    edge: str
    planned: bool

    @property
    def valid(self) -> bool:
        """There is a value that somebody may rely on."""
        return self.value is not None and self.quality in ("GOOD", "UNCERTAIN")

    @property
    def missing(self) -> bool:
        """A value is missing that should be there: a planned tag is not read yet, by the site."""
        return not self.valid and not self.planned


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane of a receiver."""

    name: str
    due: int
    parked: int
    sequence: int
    oldest_due_ms: int | None


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver; `down` is None while nobody knows."""

    id: str
    name: Text
    down: bool | None
    detail: str
    accepted: int | None
    due: int
    parked: int
    lanes: tuple[Lane, ...]
    accepted_ms: int | None
    outcome: str
    attempt_detail: str


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge agent; None where nobody knows."""

    id: str
    name: Text
    online: bool | None
    since_ms: int | None
    backlog: int | None
    last_frame_ms: int | None
    config_matches: bool | None
    clock_synced: bool | None
    conditions: tuple[str, ...]
    losses: int
    tags: int


def read_me(body: Any) -> Me:
    """Read /me."""
    return Me(text(body, "name"), text(body, "role"), whole_or_none(body, "expires_ms"))


def read_site(body: Any) -> Site:
    """Read /site."""
    sources = entries(body, "hazard_sources")
    equipment = [item for source in sources for item in entries(source, "equipment")]
    return Site(
        id=text(body, "site"), name=named(body, "name"), timezone=text(body, "timezone"),
        hazard_sources={text(source, "id"): named(source, "name") for source in sources},
        equipment={text(item, "id"): named(item, "name") for item in equipment},
    )  # fmt: skip


def read_health(body: Any) -> Health:
    """Read /health, or the event of that name."""
    return Health(
        core=text(body, "core"), ledger=text(body, "ledger"), connected=flag_or_none(body, "connected"),
        degraded=flag(body, "degraded"), reasons=texts(body, "reasons"),
        heartbeat_age_ms=whole_or_none(body, "heartbeat_age_ms"), at_ms=whole(body, "at_ms"),
        standing=counts(body, "standing"),
    )  # fmt: skip


def read_alarm(body: Any) -> Alarm:
    """Read one alarm."""
    grade = whole(body, "grade")
    if not 1 <= grade <= 4:
        raise AnswerError(f"grade {grade}")
    return Alarm(
        id=text(body, "id"), tag=text(body, "tag"), tag_name=words(body, "tag_name"), limit=text(body, "limit"),
        category=text(body, "category", ""), grade=grade, state=text(body, "state"),
        active=flag(body, "active"), acked=flag(body, "acked"),
        start_ms=whole(body, "start_ms"), returned_ms=whole_or_none(body, "rtn_ms"), value=number(body, "value_at_start"),
        setpoint=number(body, "setpoint"), unit=text(body, "unit", ""), late=flag(body, "late", False),
        linked=text_or_none(body, "linked"), guidance=words(body, "guidance"), cause=words(body, "cause"),
        acked_by=text_or_none(body, "acked_by"), acked_ms=whole_or_none(body, "acked_ms"),
        hazard_source=text(body, "hazard_source", ""), equipment=text(body, "equipment", ""),
        revision=whole(body, "revision"),
    )  # fmt: skip


def read_tag(body: Any) -> Tag:
    """Read one tag."""
    return Tag(
        id=text(body, "tag"), name=words(body, "name"), unit=text(body, "unit", ""), value=number(body, "value"),
        quality=text(body, "quality"), reason=text(body, "reason", ""), code=whole(body, "code"),
        source_ms=whole_or_none(body, "source_ms"), received_ms=whole_or_none(body, "received_ms"),
        last_good=number(body, "last_good_value"), last_good_ms=whole_or_none(body, "last_good_ms"),
        held=flag(body, "held"), grade=whole(body, "worst_grade"), hazard_source=text(body, "hazard_source", ""),
        edge=text(body, "edge", ""), planned=flag(body, "planned", False),
    )  # fmt: skip


def read_receiver(body: Any) -> Receiver:
    """Read one receiver."""
    lanes = tuple(
        Lane(text(lane, "lane"), whole(lane, "due"), whole(lane, "parked"), whole(lane, "last_sequence"),
             whole_or_none(lane, "oldest_due_ms"))
        for lane in entries(body, "lanes")
    )  # fmt: skip
    return Receiver(
        id=text(body, "receiver"), name=words(body, "name"), down=flag_or_none(body, "down"),
        detail=text(body, "detail", ""), accepted=whole_or_none(body, "accepted"), due=whole(body, "due"),
        parked=whole(body, "parked"), lanes=lanes, accepted_ms=whole_or_none(body, "last_accepted_ms"),
        outcome=text(body, "last_outcome", ""), attempt_detail=text(body, "last_detail", ""),
    )  # fmt: skip


def read_edge(body: Any) -> Edge:
    """Read one edge."""
    return Edge(
        id=text(body, "edge"), name=words(body, "name"), online=flag_or_none(body, "online"),
        since_ms=whole_or_none(body, "since_ms"), backlog=whole_or_none(body, "backlog_frames"),
        last_frame_ms=whole_or_none(body, "last_frame_ms"), config_matches=flag_or_none(body, "config_matches"),
        clock_synced=flag_or_none(body, "clock_synced"), conditions=texts(body, "conditions"),
        losses=whole(body, "losses"), tags=whole(body, "tags", 0),
    )  # fmt: skip
