"""The limits of one tag: LL, L, H, HH of a measured value, or the alarm state of a contact."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from config.model import Closed, Grade, GradeWord, Guidance, Number

DELAY_S_MAX = 3600.0
STATE_SETPOINT = 0.5  # a contact reads 0 or 1: halfway between them, reached by neither
STATE_DEADBAND = 0.25


class LimitKind(StrEnum):
    """Which limit a value crosses. L and LL alarm below their setpoint, H and HH above."""

    LL = "LL"
    L = "L"
    H = "H"
    HH = "HH"

    @property
    def high_side(self) -> bool:
        """True for H and HH."""
        return self in (LimitKind.H, LimitKind.HH)


class LimitConfig(Closed):
    """One limit. H and HH alarm at or above the setpoint, L and LL at or below it."""

    setpoint: Number = Field(description="in the tag's unit; a value exactly on it is over it")
    deadband: Number = Field(gt=0, description="hysteresis in the tag's unit: H clears below setpoint minus deadband")
    on_delay_s: Number = Field(default=0.0, ge=0, le=DELAY_S_MAX, description="over for so long before it alarms")
    off_delay_s: Number = Field(default=0.0, ge=0, le=DELAY_S_MAX, description="normal for so long before it clears")
    grade: GradeWord = Field(description="the consequence, not the kind of limit: blue, yellow, orange, red")
    guidance: Guidance = Field(description="what the operator does first")


class StateLimitConfig(Closed):
    """The alarm state of a discrete tag."""

    alarm_value: Literal[0, 1] = Field(description="the state that alarms")
    on_delay_s: Number = Field(default=0.0, ge=0, le=DELAY_S_MAX, description="in it for so long before it alarms")
    off_delay_s: Number = Field(default=0.0, ge=0, le=DELAY_S_MAX, description="out of it for so long before it clears")
    grade: GradeWord = Field(description="blue, yellow, orange, red")
    guidance: Guidance = Field(description="what the operator does first")


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit as the evaluator needs it; a state limit has become H or L at 0.5."""

    kind: LimitKind
    setpoint: float
    deadband: float
    on_delay_s: float
    off_delay_s: float
    grade: Grade
    guidance: Guidance


class LimitsConfig(Closed):
    """The limits of one tag; leave out those it has not."""

    LL: LimitConfig | None = None
    L: LimitConfig | None = None
    H: LimitConfig | None = None
    HH: LimitConfig | None = None
    state: StateLimitConfig | None = Field(default=None, description="only for a discrete tag")

    def given(self) -> tuple[tuple[LimitKind, LimitConfig], ...]:
        """Return the LL, L, H, HH that are given, in that order."""
        pairs = ((kind, getattr(self, kind.value)) for kind in LimitKind)
        return tuple((kind, limit) for kind, limit in pairs if limit is not None)

    def rows(self) -> tuple[LimitRow, ...]:
        """Return every limit, in the order LL, L, H, HH, with a state limit as H or L."""
        rows = [
            LimitRow(
                kind,
                limit.setpoint,
                limit.deadband,
                limit.on_delay_s,
                limit.off_delay_s,
                limit.grade,
                limit.guidance,
            )
            for kind, limit in self.given()
        ]
        if self.state is not None:
            kind = LimitKind.H if self.state.alarm_value == 1 else LimitKind.L
            rows.append(
                LimitRow(
                    kind,
                    STATE_SETPOINT,
                    STATE_DEADBAND,
                    self.state.on_delay_s,
                    self.state.off_delay_s,
                    self.state.grade,
                    self.state.guidance,
                )
            )
        return tuple(rows)
