"""A tag: one measured quantity with a unit, a range and limits."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from config.limits import LimitRow, LimitsConfig
from config.model import Closed, Flag, Grade, GradeWord, Names, Number, PlaceId, TagId, custom_word_error
from config.units import UNIT_SPELLINGS, UNITS, Quantity, is_discrete

STALE_AFTER_S = 30.0
LONGEST_SILENCE_S = 10.0


class RangeConfig(Closed):
    """What the instrument can show. A value beyond it may raise an alarm, never lower one."""

    low: Number = Field(description="lowest value, in the tag's unit")
    high: Number = Field(description="highest value, in the tag's unit")


def _longest_silence(tag: dict[str, Any]) -> float:
    """The default follows stale_after_s, so that shortening that one alone is no contradiction."""
    return min(LONGEST_SILENCE_S, float(tag.get("stale_after_s", STALE_AFTER_S)) / 2)


class TagConfig(Closed):
    """One measured quantity."""

    id: TagId = Field(description="ASCII name, at least two parts in capitals: T101.LEVEL")
    label: str = Field(default="", max_length=128, description="位号, the loop number on the drawings, free text")
    name: Names
    equipment: PlaceId = Field(description="id of the equipment it belongs to")
    quantity: Quantity = Field(description="what it measures")
    unit: str | None = Field(default=None, description="needed by all but discrete quantities")
    range: RangeConfig | None = Field(default=None, description="needed by all but discrete quantities")
    safety_critical: Flag = Field(default=False, description="kept whole when an edge's disk runs full")
    state: Literal["in_service", "planned"] = Field(
        default="in_service", description="a planned tag is not read, and its faults in this file only warn"
    )
    stale_after_s: Number = Field(default=STALE_AFTER_S, gt=0, le=86400, description="silence that makes the tag stale")
    longest_silence_s: Number = Field(
        default_factory=_longest_silence,
        gt=0,
        le=43200,
        description="after so long an unchanged value is sent again; at most half of stale_after_s",
    )
    report_deadband: Number = Field(
        default=0.0, ge=0, description="changes up to this are not sent; only for a tag without limits"
    )
    fault_grade: GradeWord | None = Field(default=None, description="default: yellow if safety_critical, else blue")
    fault_delay_s: Number = Field(default=4.0, ge=0, le=600, description="BAD for so long before a fault alarm")
    limits: LimitsConfig = Field(default_factory=LimitsConfig)

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str | None) -> str | None:
        if unit is None or unit in UNITS:
            return unit
        spelled = UNIT_SPELLINGS.get(unit)
        raise custom_word_error("not a known unit", unit, [spelled] if spelled else list(UNITS))

    @property
    def discrete(self) -> bool:
        """Whether the tag is a state, 0 or 1."""
        return is_discrete(self.quantity)

    @property
    def planned(self) -> bool:
        """Whether the instrument is still to come."""
        return self.state == "planned"

    def span(self) -> RangeConfig:
        """Return the range; 0 to 1 for a discrete tag, and for a planned one that has none yet."""
        return self.range if self.range is not None else RangeConfig(low=0.0, high=1.0)

    def limit_rows(self) -> tuple[LimitRow, ...]:
        """Return every limit of the tag, as LimitsConfig.rows does."""
        return self.limits.rows()

    def fault_alarm_grade(self) -> Grade:
        """Return the grade of this tag's fault alarm, defaults applied."""
        if self.fault_grade is not None:
            return self.fault_grade
        return Grade.YELLOW if self.safety_critical else Grade.BLUE
