"""Every limit of a site in columns: what the evaluator compares with, compiled once from the configuration.

One row per (tag, limit), rows of one tag together and in tag order. The fault row every tag has besides is
not listed here; the evaluator numbers it after the limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alerting.errors import LimitTableError

if TYPE_CHECKING:
    from config import SiteConfig

SYSTEM_GRADE = 2  # yellow

_TAG_COLUMNS = {"low": np.float64, "high": np.float64, "stale_after_ms": np.int64,
                "fault_delay_ms": np.int64, "fault_grade": np.int8, "in_service": np.bool_}
_ROW_COLUMNS = {"row_tag": np.int32, "side": np.int8, "setpoint": np.float64, "deadband": np.float64,
                "on_delay_ms": np.int64, "off_delay_ms": np.int64, "grade": np.int8}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LimitTable:
    """The limits of one site.

    Attributes:
        site: the site's id.
        tag_id, unit: one text per tag, in the order of the site's tags.
        low, high: float64[tags], range in the tag's unit; -inf and inf where there is none.
        stale_after_ms: int64[tags], silence after which a tag is stale.
        fault_delay_ms: int64[tags], how long BAD must last before it is a fault alarm.
        fault_grade: int8[tags], 1 blue … 4 red.
        in_service: bool[tags]; a planned tag raises no fault and is never stale by silence, but its limits
            are evaluated like all others.
        row_tag: int32[rows], not decreasing: which tag a limit belongs to.
        limit: one name per row, unique within its tag.
        side: int8[rows], +1 when values above the setpoint alarm, -1 below.
        setpoint, deadband: float64[rows], in the tag's unit.
        on_delay_ms, off_delay_ms: int64[rows].
        grade: int8[rows].
        system_grade, system_grades: grade of a system alarm that brings none of its own, in general and by
            the last word of its key.
        row_start: int32[tags + 1], rows of tag t are row_start[t] … row_start[t + 1] - 1.

    Raises:
        LimitTableError: columns of unequal length or type, rows out of order, a name twice in one tag, a
            number that is not finite, a deadband or delay below 0.
    """

    site: str
    tag_id: tuple[str, ...]
    unit: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    stale_after_ms: NDArray[np.int64]
    fault_delay_ms: NDArray[np.int64]
    fault_grade: NDArray[np.int8]
    in_service: NDArray[np.bool_]
    row_tag: NDArray[np.int32]
    limit: tuple[str, ...]
    side: NDArray[np.int8]
    setpoint: NDArray[np.float64]
    deadband: NDArray[np.float64]
    on_delay_ms: NDArray[np.int64]
    off_delay_ms: NDArray[np.int64]
    grade: NDArray[np.int8]
    system_grade: int = SYSTEM_GRADE
    system_grades: Mapping[str, int] = field(default_factory=dict)
    row_start: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        for columns, length in ((_TAG_COLUMNS, len(self.tag_id)), (_ROW_COLUMNS, len(self.limit))):
            for name, dtype in columns.items():
                column: NDArray[Any] = getattr(self, name)
                if column.shape != (length,) or column.dtype != np.dtype(dtype):
                    raise LimitTableError(f"{name}: expected {np.dtype(dtype)}[{length}], "
                                          f"found {column.dtype}{list(column.shape)}")
        if len(self.unit) != len(self.tag_id) or len(set(self.tag_id)) != len(self.tag_id):
            raise LimitTableError("one unit per tag and every tag id once")
        tags = self.row_tag
        if len(tags) and (tags[0] < 0 or tags[-1] >= len(self.tag_id) or bool((tags[1:] < tags[:-1]).any())):
            raise LimitTableError("row_tag must name existing tags in order")
        if len(set(zip(tags.tolist(), self.limit, strict=True))) != len(tags):
            raise LimitTableError("a limit name stands twice in one tag")
        if not (np.isfinite(self.setpoint).all() and np.isfinite(self.deadband).all()):
            raise LimitTableError("setpoints and deadbands must be finite numbers")
        if bool((self.deadband < 0).any() or (self.on_delay_ms < 0).any() or (self.off_delay_ms < 0).any()
                or (self.fault_delay_ms < 0).any() or (self.stale_after_ms <= 0).any()):
            raise LimitTableError("deadbands and delays are 0 or more, stale_after_ms above 0")
        if not bool(np.isin(self.side, (-1, 1)).all()):
            raise LimitTableError("side is 1 or -1")
        starts = np.searchsorted(tags, np.arange(len(self.tag_id) + 1)).astype(np.int32)
        object.__setattr__(self, "row_start", starts)

    @staticmethod
    def compile(site: SiteConfig) -> LimitTable:
        """Return the table of a checked site, its tags in the site's order."""
        tags, spans = site.tags, [tag.span() for tag in site.tags]
        rows = [(index, row) for index, tag in enumerate(tags) for row in tag.limit_rows()]
        return LimitTable(
            site=site.site,
            tag_id=tuple(tag.id for tag in tags),
            unit=tuple(tag.unit or "" for tag in tags),
            low=column([span.low for span in spans], np.float64),
            high=column([span.high for span in spans], np.float64),
            stale_after_ms=column([_ms(tag.stale_after_s) for tag in tags], np.int64),
            fault_delay_ms=column([_ms(tag.fault_delay_s) for tag in tags], np.int64),
            fault_grade=column([int(tag.fault_alarm_grade()) for tag in tags], np.int8),
            in_service=column([not tag.planned for tag in tags], np.bool_),
            row_tag=column([index for index, _ in rows], np.int32),
            limit=tuple(row.kind.value for _, row in rows),
            side=column([1 if row.kind.high_side else -1 for _, row in rows], np.int8),
            setpoint=column([row.setpoint for _, row in rows], np.float64),
            deadband=column([row.deadband for _, row in rows], np.float64),
            on_delay_ms=column([_ms(row.on_delay_s) for _, row in rows], np.int64),
            off_delay_ms=column([_ms(row.off_delay_s) for _, row in rows], np.int64),
            grade=column([int(row.grade) for _, row in rows], np.int8),
            system_grade=int(site.system_alarms.default_grade),
            system_grades={word: int(grade) for word, grade in site.system_alarms.grades.items()},
        )

    def grade_of_condition(self, key: str) -> int:
        """Return the grade of a system condition, as `EDGE.E1.OFFLINE`, by its last word."""
        return self.system_grades.get(key.rsplit(".", 1)[-1], self.system_grade)

    @property
    def tags(self) -> int:
        """How many tags there are."""
        return len(self.tag_id)

    @property
    def rows(self) -> int:
        """How many limits there are, all tags together."""
        return len(self.limit)

    def subset(self, tags: NDArray[np.int32]) -> tuple[LimitTable, NDArray[np.int64]]:
        """Return the table of some tags, renumbered from 0 in that order, and their rows in this one."""
        starts, ends = self.row_start[tags].tolist(), self.row_start[tags + 1].tolist()
        rows = np.array([row for start, end in zip(starts, ends, strict=True) for row in range(start, end)],
                        np.int64)
        place = np.full(self.tags, -1, np.int32)
        place[tags] = np.arange(len(tags), dtype=np.int32)
        columns: dict[str, Any] = {name: getattr(self, name)[tags] for name in _TAG_COLUMNS}
        columns |= {name: getattr(self, name)[rows] for name in _ROW_COLUMNS}
        columns["row_tag"] = place[self.row_tag[rows]]
        table = LimitTable(
            site=self.site, tag_id=tuple(self.tag_id[tag] for tag in tags.tolist()),
            unit=tuple(self.unit[tag] for tag in tags.tolist()),
            limit=tuple(self.limit[row] for row in rows.tolist()),
            system_grade=self.system_grade, system_grades=self.system_grades, **columns)
        return table, rows


def column(values: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Return a read-only column of a table; an empty one keeps its type."""
    made = np.array(values, dtype=dtype).reshape(-1)
    made.flags.writeable = False
    return made


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
