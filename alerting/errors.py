"""Everything `alerting` can raise on purpose, as one tree.

    AlertingError
    ├── ActRefusedError             an operator act that cannot be done; nothing changed, tell the operator
    │   └── UnknownAlarmError       no open alarm has the id; names the nearest one that has
    ├── LimitTableError             columns of a limit table that contradict each other
    └── CorruptDumpError            a state dump that is damaged or of another format (use an older one)

A clock that runs backwards or a column of the wrong length is a bug on our side and fails an assertion.
"""

from __future__ import annotations


class AlertingError(Exception):
    """Base of every error this package raises."""


class ActRefusedError(AlertingError):
    """The act is not possible in the alarm's present state. `alarm_id` is what was asked for."""

    def __init__(self, alarm_id: str, reason: str) -> None:
        self.alarm_id, self.reason = alarm_id, reason
        super().__init__(f"alarm {alarm_id[:64]!a}: {reason}")


class UnknownAlarmError(ActRefusedError):
    """No alarm in memory has this id; `nearest` is the open alarm whose id is most like it, if any is."""

    def __init__(self, alarm_id: str, nearest: str | None) -> None:
        self.nearest = nearest
        hint = f"did you mean {nearest}?" if nearest else "see the list of open alarms"
        super().__init__(alarm_id, f"no open alarm has this id (it may be closed already); {hint}")


class LimitTableError(AlertingError):
    """A limit table cannot be built from these columns."""


class CorruptDumpError(AlertingError):
    """The bytes are not a dump of this package, or are damaged."""
