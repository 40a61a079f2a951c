"""Making the alarms in memory those of the ledger, where the two differ.

They should not: state is a function of the log. But a log can lose a row, and a version of this program can read
it otherwise than the one that wrote it. What was told to people is what the ledger says, so that is what holds.
An alarm it does not know was told to nobody: it goes, and its row is normal, so that a cause which still stands
raises it again, with a notice. An alarm that stands there stands here, returned by its row if that is still the
same limit, else by a person.
"""

from __future__ import annotations

from collections.abc import Mapping

from alerting.alarm import FAULT_LIMIT, AlarmState, Category
from alerting.book import AlarmBook
from alerting.evaluator import Evaluator
from alerting.lifecycle import State
from alerting.phases import ACTIVE, NORMAL


def reconcile(book: AlarmBook, evaluator: Evaluator, stored: Mapping[str, AlarmState]) -> list[str]:
    """Give book and evaluator the ledger's word.

    Args:
        stored: by id, every alarm of the book that the ledger knows, and all others that must be in the book.

    Returns:
        The ids of alarms that were otherwise.
    """
    differing = [known.id for known in book.alarms.values() if stored.get(known.id) != known]
    differing += [alarm.id for alarm in stored.values()
                  if alarm.id not in book.alarms and alarm.state is not State.CLOSED and _has_room(book, alarm)]
    back: list[AlarmState] = []
    row_of = {alarm_id: row for row, alarm_id in book.row_alarm.items()}
    tag_of = {tag: index for index, tag in enumerate(book.limits.tag_id)}
    for alarm_id in differing:
        known, word = book.alarms.get(alarm_id), stored.get(alarm_id)
        word = None if word is not None and word.state is State.CLOSED else word
        if known is not None and word is not None and known.state.active == word.state.active:
            book.alarms[alarm_id] = word
            continue
        if known is not None:
            _take_out(book, evaluator, known, row_of.get(known.id))
        if word is not None:
            back.append(word)
    # Of two alarms of one row the newer is bound, and late ones find what they are linked to.
    back.sort(key=lambda alarm: (alarm.late, -alarm.start_ms, alarm.id))
    for alarm in back:
        book.alarms[alarm.id] = alarm
    for alarm in back:
        if not (alarm.state.active and _bind(book, evaluator, alarm, tag_of.get(alarm.tag))):
            book.loosen(alarm.id)
    return differing


def _has_room(book: AlarmBook, alarm: AlarmState) -> bool:
    """Tell whether an alarm that is not in memory should be: too many detached ones may have pushed it out."""
    return not alarm.state.active or len(book.detached) < book.records_max


def _take_out(book: AlarmBook, evaluator: Evaluator, alarm: AlarmState, row: int | None) -> None:
    if row is not None:
        del book.row_alarm[row]
        evaluator.put(row, NORMAL)
    if book.system_alarm.get(alarm.tag) == alarm.id:
        del book.system_alarm[alarm.tag]
    for late_id in book.linked.pop(alarm.id, ()):
        book.loosen(late_id)
    book.unlink(alarm)
    book.forget(alarm.id)


def _bind(book: AlarmBook, evaluator: Evaluator, alarm: AlarmState, tag: int | None) -> bool:
    """Tie a standing alarm to what will return it; False when there is nothing. `tag` is the place of its tag now."""
    if alarm.late:
        bound = alarm.linked is not None and alarm.linked in book.row_alarm.values()
        if bound and alarm.linked is not None:
            book.link(alarm, alarm.linked)
        return bound
    if alarm.category is Category.SYSTEM:
        return book.system_alarm.setdefault(alarm.tag, alarm.id) == alarm.id
    row = None if tag is None else _row_of(book, alarm, tag)
    if row is None or row in book.row_alarm:
        return False
    book.row_alarm[row] = alarm.id
    evaluator.put(row, ACTIVE)
    return True


def _row_of(book: AlarmBook, alarm: AlarmState, tag: int) -> int | None:
    """Return the row that would raise this alarm today, None if its limit is gone or means something else."""
    limits = book.limits
    if alarm.limit == FAULT_LIMIT:
        return limits.rows + tag if limits.in_service[tag] else None
    first, after = int(limits.row_start[tag]), int(limits.row_start[tag + 1])
    if alarm.limit not in limits.limit[first:after]:
        return None
    row = limits.limit.index(alarm.limit, first, after)
    same = limits.unit[tag] == alarm.unit and float(limits.setpoint[row]) == alarm.setpoint
    return row if same else None
