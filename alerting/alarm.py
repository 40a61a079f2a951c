"""What is known of one alarm, and one step in its life, as values that can be stored and sent.

Both are immutable: a transition carries the whole state after the step, so that whoever receives only the
newest one knows everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from alerting.lifecycle import State

Fact = str | int | float | bool | None


class Category(StrEnum):
    """What kind of thing is wrong: the process, an instrument, or the monitoring itself."""

    PROCESS = "process"
    FAULT = "fault"
    SYSTEM = "system"


class TransitionKind(StrEnum):
    """What is told to others about an alarm."""

    RAISED = "raised"
    RETURNED = "returned"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


LATE_REVISION_FIRST = len(TransitionKind) + 1
"""The revision in which a run over history raises. An alarm takes each kind of step once at most, so this is above
all that was told of the same alarm as present, from memory, by a core that was killed before it could commit."""

FAULT_LIMIT = "FAULT"
SYSTEM_LIMIT = "SYSTEM"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmState:
    """One occurrence of an alarm. All times are UTC epoch milliseconds.

    Attributes:
        id: 32 hex digits, the id of the transition that raised it.
        tag: the tag id; for a system alarm the condition's key, as `EDGE.E1.OFFLINE`.
        limit: LL, L, H, HH, FAULT or SYSTEM.
        grade: 1 blue, 2 yellow, 3 orange, 4 red (`config.Grade`).
        value: what the tag showed at the last step of this alarm, in `unit`; None where it was BAD.
        code: quality code of that value (`wire.describe` puts it in words).
        setpoint: in `unit`; None for faults and system alarms.
        start_ms, returned_ms, end_ms: raised, back to normal (销警), closed; never one before another, whatever clocks
            they were read from.
        reason, measure: what the person who closed it gave.
        late: found by a run over history; it never was a current level.
        linked: for a late alarm, the id of the current alarm this excursion lives on in, where that stood when it was
            found. One that began later returns it, too, without being named here.
        cause_zh, cause_en: for faults, why the tag is BAD, in words.
        facts: for system alarms, what the condition reported.
        revision: from 1, for a late alarm from `LATE_REVISION_FIRST`, one more with every step; the highest is the truth.
    """

    id: str
    site: str
    category: Category
    tag: str
    limit: str
    grade: int
    state: State
    value: float | None
    code: int
    setpoint: float | None
    unit: str
    start_ms: int
    returned_ms: int | None = None
    end_ms: int | None = None
    acked_by: str | None = None
    acked_ms: int | None = None
    closed_by: str | None = None
    reason: str | None = None
    measure: str | None = None
    late: bool = False
    linked: str | None = None
    cause_zh: str = ""
    cause_en: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    revision: int = 1

    def __post_init__(self) -> None:
        # JSON has no NaN, and an alarm must stay comparable with what was read back from the ledger.
        assert self.value is None or math.isfinite(self.value), "an alarm's value is finite or None"

    @property
    def key(self) -> str:
        """The key of a system condition; the same text as `tag`."""
        return self.tag

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able object with every field, in field order."""
        body: dict[str, Any] = {name: getattr(self, name) for name in _ALARM_FIELDS}
        body["category"], body["state"], body["facts"] = str(self.category), str(self.state), dict(self.facts)
        return body

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> AlarmState:
        """Return the state that `to_json` described.

        Raises:
            ValueError, TypeError, KeyError: the object does not describe an alarm.
        """
        known = {name: body[name] for name in _ALARM_FIELDS if name in body}
        known["category"], known["state"] = Category(body["category"]), State(body["state"])
        return AlarmState(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step of one alarm.

    Attributes:
        id: 32 hex digits; the same step has the same id in every replay and every late run.
        alarm: the whole state after the step.
        engine_ms: engine time of the step; 0 for what a late run found.
        at_ms: UTC epoch milliseconds: source time of the sample that did it, or when the person acted.
        late: found by a run over history.
        actor: the person, for acknowledged and closed.
    """

    id: str
    alarm_id: str
    revision: int
    kind: TransitionKind
    alarm: AlarmState
    engine_ms: int
    at_ms: int
    late: bool = False
    actor: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able object with every field; `alarm` is an object inside it."""
        return {
            "id": self.id, "alarm_id": self.alarm_id, "revision": self.revision, "kind": str(self.kind),
            "alarm": self.alarm.to_json(), "engine_ms": self.engine_ms, "at_ms": self.at_ms,
            "late": self.late, "actor": self.actor,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Transition:
        """Return the transition that `to_json` described.

        Raises:
            ValueError, TypeError, KeyError: the object does not describe a transition.
        """
        return Transition(
            id=body["id"], alarm_id=body["alarm_id"], revision=body["revision"],
            kind=TransitionKind(body["kind"]), alarm=AlarmState.from_json(body["alarm"]),
            engine_ms=body["engine_ms"], at_ms=body["at_ms"], late=body["late"], actor=body["actor"],
        )


_ALARM_FIELDS = tuple(entry.name for entry in fields(AlarmState))
