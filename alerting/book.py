"""Every alarm that is not closed, and the steps of their lives.

An alarm is bound while something of the present will return it: a row of the evaluator, a standing system
condition, a late run, or the current alarm it is linked to. All others wait for a person, and only the newest
are kept here, because the ledger has them all: records, which have returned, and detached alarms, which stand
though nothing of the present can return them any more.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace
from typing import Any

from alerting.acts import ACT_TEXT_MAX, Act, ActKind, SystemCondition
from alerting.alarm import FAULT_LIMIT, SYSTEM_LIMIT, AlarmState, Category, Transition, TransitionKind
from alerting.errors import ActRefusedError, UnknownAlarmError
from alerting.ids import event_id, timed_id
from alerting.lifecycle import Event, State, next_state
from alerting.limits import LimitTable
from alerting.observed import FrameKey
from alerting.step import Step
from alerting.times import utc_text
from wire import Quality, describe, quality_code, quality_of

RECORDS_MAX = 10_000
NEAREST_LOOKED_AT_MAX = 64


class AlarmBook:
    """The open alarms of one site, in the order they were raised or adopted.

    Args:
        records_max: records kept in memory, and as many detached alarms; beyond it the oldest leaves and has
            to be adopted again before an act can name it.
    """

    def __init__(self, limits: LimitTable, records_max: int = RECORDS_MAX) -> None:
        self.limits, self.records_max = limits, records_max
        self.alarms: dict[str, AlarmState] = {}
        self.row_alarm: dict[int, str] = {}
        self.system_alarm: dict[str, str] = {}
        self.linked: dict[str, list[str]] = {}
        self.records: dict[str, None] = {}
        self.detached: dict[str, None] = {}
        self.system_steps = 0

    # -- steps of the evaluator --------------------------------------------------------------------------

    def raised_alarm(self, row: int, step: Step, engine_ms: int) -> AlarmState:
        """Return the occurrence a step raises, without entering it. `row` counts in the book's own table."""
        limits, fault = self.limits, row >= self.limits.rows
        limit = FAULT_LIMIT if fault else limits.limit[row]
        tag = row - limits.rows if fault else int(limits.row_tag[row])
        return AlarmState(
            id=self._raise_id(tag, limit, step, engine_ms), site=limits.site,
            category=Category.FAULT if fault else Category.PROCESS, tag=limits.tag_id[tag], limit=limit,
            grade=int(limits.fault_grade[tag] if fault else limits.grade[row]), state=State.ACTIVE_UNACKED,
            value=_number(step.value), code=step.code,
            setpoint=None if fault else float(limits.setpoint[row]), unit=limits.unit[tag],
            start_ms=step.at_ms,
            cause_zh=_fault_in_words(step.code)[0] if fault else "",
            cause_en=_fault_in_words(step.code)[1] if fault else "",
        )

    def enter(self, alarm: AlarmState, engine_ms: int) -> Transition:
        """Take in an alarm just raised and return its first transition."""
        self.alarms[alarm.id] = alarm
        return Transition(
            id=alarm.id, alarm_id=alarm.id, revision=alarm.revision, kind=TransitionKind.RAISED, alarm=alarm,
            engine_ms=engine_ms, at_ms=alarm.start_ms, late=alarm.late)

    def returned(self, alarm_id: str, step: Step, engine_ms: int) -> Transition:
        """A GOOD sample ended the excursion of an alarm."""
        alarm = self.alarms[alarm_id]
        assert step.ordinal is not None, "only a sample returns an alarm"
        step_id = event_id(alarm.site, alarm.tag, alarm.limit, step.stream, step.sequence, step.ordinal,
                           "returned", alarm.id)
        return self._return(alarm, step_id, engine_ms, step.at_ms, value=_number(step.value), code=step.code,
                            linked=None)

    def link(self, late: AlarmState, current_id: str) -> None:
        """From now on the late alarm returns when the current one does."""
        self.linked.setdefault(current_id, []).append(late.id)

    def unlink(self, late: AlarmState) -> None:
        """The late alarm's excursion has ended on its own, or it is gone."""
        current_id = next((current for current, late_ids in self.linked.items() if late.id in late_ids), None)
        if current_id is not None:
            self.linked[current_id].remove(late.id)
            if not self.linked[current_id]:
                del self.linked[current_id]

    def returned_with(self, current: Transition) -> list[Transition]:
        """Return the transitions of late alarms that live on in a current alarm which has just returned."""
        transitions = []
        for late_id in self.linked.pop(current.alarm_id, ()):
            late = self.alarms[late_id]
            step_id = timed_id(late.site, late.tag, late.limit, 0, 0, current.engine_ms, "returned",
                               f"{current.id},{late_id}")
            transitions.append(self._return(late, step_id, current.engine_ms, current.at_ms,
                                            value=current.alarm.value, code=current.alarm.code))
        return transitions

    def _return(self, alarm: AlarmState, step_id: str, engine_ms: int, at_ms: int,
                **changes: Any) -> Transition:
        at_ms = max(at_ms, alarm.start_ms)  # a silence is dated by our clock, the sample that ends it by the instrument's
        transition = self._take(alarm, Event.RETURNED, step_id, engine_ms, at_ms, returned_ms=at_ms, **changes)
        self.loosen(alarm.id)
        return transition

    def _raise_id(self, tag: int, limit: str, step: Step, engine_ms: int) -> str:
        site, name = self.limits.site, self.limits.tag_id[tag]
        if step.ordinal is None:
            return timed_id(site, name, limit, step.stream, step.sequence, engine_ms, "raised", step.cause)
        return event_id(site, name, limit, step.stream, step.sequence, step.ordinal, "raised")

    # -- system conditions -------------------------------------------------------------------------------

    def condition(self, engine_ms: int, at_ms: int, told: SystemCondition) -> list[Transition]:
        """Raise, return, or (standing None) raise and return at once; what is so already changes nothing."""
        standing = self.system_alarm.get(told.key)
        if told.standing is False:
            return [] if standing is None else [self._system_return(standing, engine_ms, at_ms, told)]
        if told.standing is True and standing is not None:
            return []
        alarm = AlarmState(
            id=self._system_id(told.key, engine_ms, at_ms, "raised"), site=self.limits.site,
            category=Category.SYSTEM, tag=told.key, limit=SYSTEM_LIMIT,
            grade=self.limits.grade_of_condition(told.key) if told.grade is None else told.grade,
            state=State.ACTIVE_UNACKED, value=None, code=quality_code(Quality.GOOD), setpoint=None, unit="",
            start_ms=at_ms, cause_zh=told.cause_zh, cause_en=told.cause_en, facts=dict(told.facts))
        transitions = [self.enter(alarm, engine_ms)]
        if told.standing is True:
            self.system_alarm[told.key] = alarm.id
        else:
            step_id = self._system_id(told.key, engine_ms, at_ms, "returned")
            transitions.append(self._return(alarm, step_id, engine_ms, at_ms))
        return transitions

    def _system_return(self, alarm_id: str, engine_ms: int, at_ms: int, told: SystemCondition) -> Transition:
        del self.system_alarm[told.key]
        alarm = self.alarms[alarm_id]
        step_id = self._system_id(told.key, engine_ms, at_ms, "returned")
        return self._return(alarm, step_id, engine_ms, at_ms, facts={**alarm.facts, **told.facts})

    def _system_id(self, key: str, engine_ms: int, at_ms: int, kind: str) -> str:
        # Two events of one key may fall into one millisecond; counting tells them apart in every replay.
        self.system_steps += 1
        cause = f"{at_ms},{self.system_steps}"
        return timed_id(self.limits.site, key, SYSTEM_LIMIT, 0, 0, engine_ms, kind, cause)

    # -- acts of people ----------------------------------------------------------------------------------

    def act(self, engine_ms: int, act: Act, last: FrameKey) -> Transition:
        """Do what a person asked for.

        Args:
            last: the frame the alarm's tag was last in; (0, 0) if it has none.

        Raises:
            UnknownAlarmError, ActRefusedError: it cannot be done; nothing has changed.
        """
        alarm = self.alarms.get(act.alarm_id)
        if alarm is None:
            raise UnknownAlarmError(act.alarm_id, self._nearest(act.alarm_id))
        _check_texts(act)
        step_id = timed_id(alarm.site, alarm.tag, alarm.limit, last.stream, last.sequence, engine_ms,
                           str(act.kind), alarm.id)
        if act.kind is ActKind.ACKNOWLEDGE:
            if alarm.state.acked:
                who = f"already acknowledged by {alarm.acked_by} (at {_when(alarm.acked_ms)})"
                raise ActRefusedError(alarm.id, who)
            return self._take(alarm, Event.ACKNOWLEDGED, step_id, engine_ms, act.at_ms, actor=act.actor,
                              acked_by=act.actor, acked_ms=act.at_ms)
        if alarm.state.active and alarm.id not in self.detached:
            raise ActRefusedError(alarm.id, f"{alarm.tag} {alarm.limit} still stands; "
                                            "close it after it has returned to normal")
        event = Event.WRITTEN_OFF if alarm.state.active else Event.CLOSED
        transition = self._take(alarm, event, step_id, engine_ms, act.at_ms, actor=act.actor,
                                closed_by=act.actor, end_ms=max(act.at_ms, alarm.returned_ms or alarm.start_ms),
                                reason=act.reason, measure=act.measure)
        self.forget(alarm.id)
        return transition

    def adopt(self, alarm: AlarmState) -> None:
        """Take a record back into memory as the ledger has it, so that an act can name it.

        Raises:
            ActRefusedError: it is closed.
        """
        assert alarm.site == self.limits.site, "an alarm of another site"
        if alarm.state is State.CLOSED:
            raise ActRefusedError(alarm.id, f"closed by {alarm.closed_by} (at {_when(alarm.end_ms)})")
        if alarm.id not in self.alarms:
            self.alarms[alarm.id] = alarm
            self.loosen(alarm.id)

    def waiting(self) -> list[str]:
        """Return the ids of all detached alarms and records, oldest first, then of what only a late run holds.

        A late run has a dump of its own; should it not come back, its alarms are records.
        """
        told = {*self.row_alarm.values(), *self.system_alarm.values(), *self.detached, *self.records}
        told.update(late for late_ids in self.linked.values() for late in late_ids)
        return [*self.detached, *self.records, *(alarm_id for alarm_id in self.alarms if alarm_id not in told)]

    def loosen(self, alarm_id: str) -> None:
        """Nothing of the present will change this alarm any more: keep it for a person, within the cap."""
        self.detached.pop(alarm_id, None)
        kept = self.detached if self.alarms[alarm_id].state.active else self.records
        kept[alarm_id] = None
        while len(kept) > self.records_max:
            self.forget(next(iter(kept)))

    def let_go(self, alarm_id: str) -> None:
        """What would have returned this standing alarm is gone: only a person ends it, and what is linked to it."""
        self.loosen(alarm_id)
        for late_id in self.linked.pop(alarm_id, ()):
            self.loosen(late_id)

    def let_go_condition(self, key: str) -> None:
        """Nobody will report on this condition any more; if it stands, a person has to end it."""
        alarm_id = self.system_alarm.pop(key, None)
        if alarm_id is not None:
            self.let_go(alarm_id)

    def forget(self, alarm_id: str) -> None:
        """Drop an alarm that nothing binds: it is closed, too old for memory, or was never true."""
        self.records.pop(alarm_id, None)
        self.detached.pop(alarm_id, None)
        del self.alarms[alarm_id]

    def _take(self, alarm: AlarmState, event: Event, step_id: str, engine_ms: int, at_ms: int,
              actor: str | None = None, **changes: Any) -> Transition:
        state = next_state(alarm.state, event)
        assert state is not None, f"{event} is no step of {alarm.state}"
        kind = TransitionKind.CLOSED if event is Event.WRITTEN_OFF else TransitionKind(event.value)
        after = replace(alarm, state=state, revision=alarm.revision + 1, **changes)
        self.alarms[alarm.id] = after
        return Transition(id=step_id, alarm_id=alarm.id, revision=after.revision, kind=kind, alarm=after,
                          engine_ms=engine_ms, at_ms=at_ms, late=alarm.late, actor=actor)

    def _nearest(self, alarm_id: str) -> str | None:
        # A few candidates by their ends first: comparing with thousands would delay the next samples.
        head, tail = alarm_id[:4].lower(), alarm_id[-4:].lower()
        close = (known for known in self.alarms if known.startswith(head) or known.endswith(tail))
        looked_at = [known for known, _ in zip(close, range(NEAREST_LOOKED_AT_MAX), strict=False)]
        return next(iter(difflib.get_close_matches(alarm_id[:64].lower(), looked_at, 1)), None)


def _fault_in_words(code: int) -> tuple[str, str]:
    """Say why a tag has no value to rely on, in Chinese and English. A GOOD one ends no fault while it may only raise."""
    if quality_of(code) == Quality.GOOD:
        return "有值，但存疑：不知出自哪台设备", "a value is there, but it is in doubt whose it is"
    return describe(code, "zh"), describe(code, "en")


def _check_texts(act: Act) -> None:
    closing = act.kind is ActKind.CLOSE
    for name, text, needed in (("actor", act.actor, True), ("reason", act.reason, closing),
                               ("measure", act.measure, closing)):
        if needed and not (text or "").strip():
            raise ActRefusedError(act.alarm_id, f"{act.kind} needs {name}; say it and send the act again")
        if len(text or "") > ACT_TEXT_MAX:
            raise ActRefusedError(act.alarm_id, f"{name} is longer than {ACT_TEXT_MAX} characters; shorten it")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _when(at_ms: int | None) -> str:
    return "an unknown time" if at_ms is None else utc_text(at_ms)
