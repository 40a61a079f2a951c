"""The JSON a receiver gets. Pure.

    {"type": "alarm.raised", "timestamp": ISO 8601 in the site's zone,
     "data": {"ledger", "receiver", "lane", "sequence", "unjournaled", "notice", "transition", "revision",
              "site", "late", "at_ms", "actor", "alarm": {…}, "text": {"zh", "en"}}}

What all receivers of a transition share is built once, when the notice is planned, and stored as the
row's body; `render` adds what belongs to the row. So an attempt costs no JSON encoding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from alerting.alarm import Transition
from alerting.delivery.outbox import Notice, OutboxRow
from alerting.delivery.words import SiteWords
from config import Grade

_DATA: Final = '"data":{'
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_ALARM_TIMES: Final = ("start", "returned", "end", "acked")


def message(step: Transition, words: SiteWords) -> str:
    """Return the part of a notice that all receivers share, as JSON text.

    The alarm is its full state, with its grade and quality also in words and its times also as ISO 8601.
    """
    alarm = step.alarm.to_json()
    alarm["grade_word"] = Grade(step.alarm.grade).word
    for name in _ALARM_TIMES:
        at_ms = alarm[f"{name}_ms"]
        alarm[f"{name}_at"] = None if at_ms is None else words.iso(at_ms)
    return _dump(
        {
            "type": f"alarm.{step.kind.value}",
            "timestamp": words.iso(step.at_ms),
            "data": {
                "site": words.site,
                "late": step.late,
                "at_ms": step.at_ms,
                "actor": step.actor,
                "alarm": alarm,
                "text": words.lines(step),
            },
        }
    )


def render(notice: Notice, ledger_id: str) -> bytes:
    """Return the bytes to send for a row, or for a notice that is not journaled yet (sequence null)."""
    sequence = notice.sequence if isinstance(notice, OutboxRow) else None
    own = _encode(
        {
            "ledger": notice.ledger_id if isinstance(notice, OutboxRow) else ledger_id,
            "receiver": notice.receiver,
            "lane": notice.lane,
            "sequence": sequence,
            "unjournaled": sequence is None,
            "notice": notice.id,
            "transition": notice.transition_id,
            "revision": notice.revision,
        }
    )
    head, mark, rest = notice.body.partition(_DATA)
    assert mark, "the body of a notice is what `message` returned"
    return f"{head}{_DATA}{own[1:-1]},{rest}".encode()


def render_heartbeat(
    words: SiteWords, ledger_id: str, receiver: str, at_ms: int, fields: Mapping[str, object]
) -> tuple[str, bytes]:
    """Return id and bytes of a heartbeat. It has no sequence; `fields` come from the caller."""
    beat_id = hashlib.sha256(f"heartbeat\n{ledger_id}\n{receiver}\n{at_ms}".encode()).hexdigest()[:32]
    body = {
        "type": "heartbeat",
        "timestamp": words.iso(at_ms),
        "data": {
            **fields,
            "site": words.site,
            "ledger": ledger_id,
            "receiver": receiver,
            "notice": beat_id,
            "at_ms": at_ms,
        },
    }
    return beat_id, _dump(body).encode()


def _dump(body: object) -> str:
    """Encode compactly; NaN is refused, a lone surrogate (from a person's terminal) is escaped."""
    text = _encode(body)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _encode_ascii(body)
    return text
