"""Alarms: which stand now, and the ledger's answers about all of them, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from alerting import AlarmState, Category, Transition, TransitionKind
from config import SiteConfig
from gateway.core.conditions import system_condition
from gateway.serve.models import AlarmListing, AlarmPage, AlarmView, Position
from gateway.serve.view_errors import BadCursorError
from gateway.serve.view_ledger import LedgerFile

STANDING_MAX: Final = 20_000
PAGE_MAX: Final = 500
TRANSITIONS_SHOWN_MAX: Final = 1_000
_OPEN: Final = ("ACTIVE_UNACKED", "ACTIVE_ACKED", "RETURNED_UNACKED", "RETURNED_ACKED")
_STATES: Final[Mapping[str, tuple[str, ...]]] = {"open": _OPEN, "closed": ("CLOSED",), "all": (*_OPEN, "CLOSED")}
_ACTIVE_SQL: Final = "(state IN ('ACTIVE_UNACKED', 'ACTIVE_ACKED'))"
_UNACKED_SQL: Final = "(state IN ('ACTIVE_UNACKED', 'RETURNED_UNACKED'))"
_BY_NEED: Final = (_UNACKED_SQL, "grade", _ACTIVE_SQL, "start_ms", "id")
"""The order of the screen, which cuts a list that is too long at its end: what nobody has seen must not be there."""
_BY_AGE: Final = ("start_ms", "id")
_KINDS: Final = {"LL": "LOW_LOW", "L": "LOW", "H": "HIGH", "HH": "HIGH_HIGH"}


class Standing:
    """The alarms that stand now, in memory, late ones left out: what a tag's row says of it."""

    def __init__(self) -> None:
        self.too_many = False
        self._alarms: dict[str, AlarmState] = {}
        self._of_tag: dict[str, dict[str, AlarmState]] = {}
        self._of_edge: dict[str, set[str]] = {}

    def load(self, alarms: Iterable[AlarmState], *, too_many: bool) -> None:
        """Replace everything."""
        self._alarms.clear()
        self._of_tag.clear()
        self._of_edge.clear()
        self.too_many = too_many
        for alarm in alarms:
            self.take(alarm)

    def take(self, alarm: AlarmState) -> None:
        """Take the newest state of an alarm in."""
        if alarm.state.active and not alarm.late:
            self._alarms[alarm.id] = alarm
            self._of_tag.setdefault(alarm.tag, {})[alarm.id] = alarm
        elif self._alarms.pop(alarm.id, None) is not None:
            self._of_tag[alarm.tag].pop(alarm.id, None)
            if not self._of_tag[alarm.tag]:
                del self._of_tag[alarm.tag]
        if alarm.category is Category.SYSTEM and alarm.tag.startswith("EDGE."):
            edge, _, word = alarm.tag.removeprefix("EDGE.").rpartition(".")
            words = self._of_edge.setdefault(edge, set())
            (words.add if alarm.tag in self._of_tag else words.discard)(word)

    def of(self, tag: str) -> list[AlarmState]:
        """Return the standing alarms of a tag or of a system condition, gravest first."""
        found = self._of_tag.get(tag)
        return sorted(found.values(), key=lambda alarm: (-alarm.grade, alarm.start_ms, alarm.id)) if found else []

    def subjects(self) -> list[str]:
        """Return the tags and system conditions on which something stands."""
        return list(self._of_tag)

    def by_grade(self) -> dict[int, int]:
        """Return how many stand, by grade 1..4."""
        counts = dict.fromkeys((1, 2, 3, 4), 0)
        for alarm in self._alarms.values():
            counts[int(alarm.grade)] = counts.get(int(alarm.grade), 0) + 1
        return counts

    def conditions_of(self, edge: str) -> tuple[str, ...]:
        """Return the last words of the standing system conditions of an edge."""
        return tuple(sorted(self._of_edge.get(edge, ())))


def read_standing(file: LedgerFile) -> tuple[list[AlarmState], bool]:
    """Return the standing alarms, gravest first where there are too many, and whether some were left out."""
    sql = f"SELECT body FROM alarm WHERE {_ACTIVE_SQL} ORDER BY grade DESC LIMIT {STANDING_MAX + 1}"  # noqa: S608 - our own
    found = [AlarmState.from_json(json.loads(body)) for (body,) in file.rows(sql)]
    return found[:STANDING_MAX], len(found) > STANDING_MAX


def read_alarm_states(file: LedgerFile, ids: Iterable[str]) -> list[AlarmState]:
    """Return the newest state of these alarms."""
    found = []
    for alarm_id in ids:
        for (body,) in file.rows("SELECT body FROM alarm WHERE id = ?", (alarm_id,)):
            found.append(AlarmState.from_json(json.loads(body)))
    return found


class AlarmWords:
    """Puts the site's words beside an alarm."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._limits = {
            (tag.id, str(row.kind)): row.guidance for tag in site.tags for row in tag.limit_rows()
        }

    def view(self, alarm: AlarmState, value_at_start: float | None, transitions: tuple[Transition, ...] = ()) -> AlarmView:
        """Return the alarm with its words."""
        index = self._site.tag_index.get(alarm.tag)
        guidance = self._limits.get((alarm.tag, str(alarm.limit)))
        guidance_zh, guidance_en = (guidance.zh, guidance.en) if guidance is not None else ("", "")
        kind = _KINDS.get(str(alarm.limit), str(alarm.limit))
        if index is None:
            told = system_condition(alarm.tag, None, {})
            zh, en = told.cause_zh or alarm.tag, told.cause_en or alarm.tag
            return AlarmView(alarm, zh, en, kind, guidance_zh, guidance_en, "", "", value_at_start, transitions)
        tag = self._site.tags[index]
        source = self._site.hazard_source_of.get(tag.equipment, "")
        return AlarmView(
            alarm, tag.name.zh, tag.name.en, kind, guidance_zh, guidance_en, tag.equipment, source, value_at_start, transitions
        )


def read_page(
    file: LedgerFile, words: AlarmWords, *, state: AlarmListing, grade_min: int, tag: str | None, before: str | None,
    limit: int, position: Position,
) -> AlarmPage:  # fmt: skip
    """Read one page: open alarms unacknowledged first, then the gravest, standing, newest; others newest first."""
    limit = max(1, min(limit, PAGE_MAX))
    rows: list[tuple[Any, ...]] = []
    by_need = state == "open"
    keys = _BY_NEED if by_need else _BY_AGE
    key, order = ", ".join(keys), ", ".join(f"{each} DESC" for each in keys)
    cursor = None if before is None else _cursor_read(before, len(keys))
    states = [_STATES[state]] if by_need else [(each,) for each in _STATES[state]]
    for wanted in states:  # one state at a time: that is how the index has them
        where = [f"state IN ({', '.join('?' * len(wanted))})", "grade >= ?"]
        parameters: list[Any] = [*wanted, grade_min]
        if tag is not None:
            where.append("subject = ?")
            parameters.append(tag)
        if cursor is not None:
            where.append(f"({key}) < ({', '.join('?' * len(cursor))})")
            parameters += cursor
        sql = f"SELECT {key}, body FROM alarm WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"  # noqa: S608 - bound values
        rows += file.rows(sql, (*parameters, limit + 1))
    rows.sort(key=lambda row: row[:-1], reverse=True)
    alarms = [AlarmState.from_json(json.loads(row[-1])) for row in rows[:limit]]
    items = tuple(words.view(alarm, read_start_value(file, alarm)) for alarm in alarms)
    following = ".".join(str(part) for part in rows[limit - 1][:-1]) if len(rows) > limit else None
    return AlarmPage(items, following, position)


def _cursor_read(before: str, parts: int) -> list[Any]:
    found = before.split(".") if len(before) <= 200 else []
    if len(found) != parts or not all(part.lstrip("-").isdecimal() and len(part) < 19 for part in found[:-1]):
        raise BadCursorError(before[:200])
    return [*(int(part) for part in found[:-1]), found[-1]]


def read_start_value(file: LedgerFile, alarm: AlarmState) -> float | None:
    """Return what the alarm showed when it was raised."""
    if alarm.revision == 1:
        return alarm.value
    rows = file.rows("SELECT body FROM transition WHERE alarm_id = ? AND kind = 'raised'", (alarm.id,))
    return AlarmState.from_json(json.loads(rows[0][0])["alarm"]).value if rows else None


def read_alarm(file: LedgerFile, words: AlarmWords, alarm_id: str) -> AlarmView | None:
    """Read one alarm with its steps, oldest first."""
    found = read_alarm_states(file, [alarm_id])
    if not found:
        return None
    steps = tuple(
        Transition.from_json(json.loads(body))
        for (body,) in file.rows(
            f"SELECT body FROM transition WHERE alarm_id = ? ORDER BY revision LIMIT {TRANSITIONS_SHOWN_MAX}", (alarm_id,)  # noqa: S608
        )
    )
    value = next((step.alarm.value for step in steps if step.kind is TransitionKind.RAISED), found[0].value if not steps else None)
    return words.view(found[0], value, steps)
