"""Alarms: grade samples, run the alarm life cycle, deliver notices (`alerting.delivery`).

Pure: no clock, socket, file or log. Facts go in stamped with time, transitions come out.
"""

from alerting.alarm import FAULT_LIMIT, SYSTEM_LIMIT, AlarmState, Category, Fact, Transition, TransitionKind
from alerting.errors import (
    ActRefusedError,
    AlertingError,
    CorruptDumpError,
    LimitTableError,
    UnknownAlarmError,
)
from alerting.lifecycle import NEXT, Event, State, next_state

__all__ = [
    "FAULT_LIMIT",
    "NEXT",
    "SYSTEM_LIMIT",
    "ActRefusedError",
    "AlarmState",
    "AlertingError",
    "Category",
    "CorruptDumpError",
    "Event",
    "Fact",
    "LimitTableError",
    "State",
    "Transition",
    "TransitionKind",
    "UnknownAlarmError",
    "next_state",
]
