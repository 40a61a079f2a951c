"""Alarms: grade samples, run the alarm life cycle, deliver notices (`alerting.delivery`).

Pure: no clock, socket, file or log. Facts go in stamped with time, transitions come out.
"""

from alerting.acts import ACT_TEXT_MAX, Act, ActKind, SystemCondition
from alerting.alarm import (
    FAULT_LIMIT,
    LATE_REVISION_FIRST,
    SYSTEM_LIMIT,
    AlarmState,
    Category,
    Fact,
    Transition,
    TransitionKind,
)
from alerting.conditioning import condition
from alerting.engine import AlarmEngine, TagStates
from alerting.errors import (
    ActRefusedError,
    AlertingError,
    CorruptDumpError,
    LimitTableError,
    UnknownAlarmError,
)
from alerting.history import HistoryFork
from alerting.lifecycle import NEXT, Event, State, next_state
from alerting.limits import LimitTable
from alerting.observed import FrameKey, Observed
from alerting.times import in_zone, utc_text, zone_text

__all__ = [
    "ACT_TEXT_MAX",
    "FAULT_LIMIT",
    "LATE_REVISION_FIRST",
    "NEXT",
    "SYSTEM_LIMIT",
    "Act",
    "ActKind",
    "ActRefusedError",
    "AlarmEngine",
    "AlarmState",
    "AlertingError",
    "Category",
    "CorruptDumpError",
    "Event",
    "Fact",
    "FrameKey",
    "HistoryFork",
    "LimitTable",
    "LimitTableError",
    "Observed",
    "State",
    "SystemCondition",
    "TagStates",
    "Transition",
    "TransitionKind",
    "UnknownAlarmError",
    "condition",
    "in_zone",
    "next_state",
    "utc_text",
    "zone_text",
]
