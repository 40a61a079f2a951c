"""Alarm transitions as annotations: out of the ledger's journal, which is where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.historian.limits import too_many
from gateway.historian.store import AlarmEvent

EVENTS_MAX: Final = 10_000

Rows = Callable[[str, tuple[Any, ...]], Sequence[tuple[Any, ...]]]
"""Runs one bounded query on a ledger."""

_OF_TAG: Final = "AND json_extract(body, '$.alarm.tag') = ?"
_SQL: Final = """
SELECT id, alarm_id, kind, at_ms, late, json_extract(body, '$.alarm.tag'), json_extract(body, '$.alarm.limit'),
  json_extract(body, '$.alarm.grade')
FROM transition WHERE at_ms >= ? AND at_ms < ? {tag} ORDER BY at_ms, row LIMIT ?
"""


def events_of_ledger(
    rows: Rows, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = EVENTS_MAX
) -> list[AlarmEvent]:
    """Return the transitions of [from_ms, to_ms), oldest first.

    Raises:
        QueryTooLargeError: there are more than `rows_max`.
    """
    of_tag = () if tag is None else (tag,)
    found = rows(_SQL.format(tag=_OF_TAG if of_tag else ""), (from_ms, to_ms, *of_tag, rows_max + 1))
    if len(found) > rows_max:
        raise too_many(rows_max)
    return [
        AlarmEvent(id_, alarm_id, str(of), str(kind), str(limit), int(grade), int(at_ms), bool(late))
        for id_, alarm_id, kind, at_ms, late, of, limit, grade in found
    ]
