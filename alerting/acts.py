"""What people do to an alarm, and what the chain reports about itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from alerting.alarm import Fact

ACT_TEXT_MAX = 2_000


class ActKind(StrEnum):
    """What a person can do."""

    ACKNOWLEDGE = "acknowledge"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Act:
    """One act of one person.

    Attributes:
        actor: who.
        at_ms: when, UTC epoch milliseconds.
        reason, measure: why it happened and what was done; needed to close, at most 2000 characters each.
    """

    kind: ActKind
    alarm_id: str
    actor: str
    at_ms: int
    reason: str | None = None
    measure: str | None = None


@dataclass(frozen=True, slots=True)
class SystemCondition:
    """Something about the chain itself, as `EDGE.E1.OFFLINE`.

    Attributes:
        key: names the condition; its last word chooses the grade.
        standing: True it is so, False it is over, None it happened (start and return at once).
        facts: what is known of it, told on with the alarm.
        grade: 1 blue … 4 red; None takes the site's grade for the key.
        cause_zh, cause_en: one sentence for people.
    """

    key: str
    standing: bool | None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    grade: int | None = None
    cause_zh: str = ""
    cause_en: str = ""

    def __post_init__(self) -> None:
        # Facts go into JSON as they are.
        odd = [name for name, fact in self.facts.items() if isinstance(fact, float) and not math.isfinite(fact)]
        assert not odd, f"facts must be finite numbers: {odd}"
