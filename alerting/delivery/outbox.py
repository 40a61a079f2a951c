"""Notices and outbox rows: what waits to be told, and the numbers that let a receiver see a gap.

A notice is planned when its transition happens; it becomes an outbox row when the commit that stores
the transition gives it the next sequence of its (receiver, lane). Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

LANES: Final = ("red", "orange", "yellow", "blue")
"""Most urgent first."""

SequenceKey = tuple[str, str]
"""(receiver id, lane)"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one receiver about one transition.

    Args:
        id: 32 hex digits, the `webhook-id` of every attempt.
        lane: red, orange, yellow or blue.
        created_ms: UTC epoch ms.
        body: the message as JSON text without what belongs to one row (receiver, lane, sequence …);
            one string, shared by the notices of all receivers of a transition. `render` completes it.
    """

    id: str
    transition_id: str
    alarm_id: str
    revision: int
    receiver: str
    lane: str
    created_ms: int
    body: str


@dataclass(frozen=True, slots=True)
class OutboxRow(Notice):
    """A committed notice.

    Args:
        sequence: from 1, without gaps per (ledger id, receiver, lane).
        attempts, next_ms, parked: how far delivery had come, as last committed; a new row has none.
            next_ms is UTC epoch ms.
    """

    ledger_id: str
    sequence: int
    attempts: int = 0
    next_ms: int | None = None
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt's result, for the next commit.

    Args:
        attempt: 1, 2, … counted per row; unjournaled notices count on their own.
        at_ms: UTC epoch ms when it began; duration_ms: until the answer was complete or given up.
        outcome: accepted, retry or refused.
        status: HTTP status, None when no status line came.
        next_ms: UTC epoch ms of the next attempt, None when accepted.
        parked: the row stands beside its lane after three definite refusals (still retried).
        unjournaled: this was the notice without a sequence. It settles nothing: its row, once
            committed, is sent all the same.
    """

    notice_id: str
    receiver: str
    lane: str
    sequence: int | None
    attempt: int
    at_ms: int
    duration_ms: int
    outcome: str
    status: int | None
    detail: str
    next_ms: int | None
    accepted: bool
    parked: bool
    unjournaled: bool


def notice_id(transition_id: str, revision: int, receiver: str) -> str:
    """Return the id of the notice of a transition to a receiver: the same after any restart or restore.

    A step that was told from memory, and is found again as late because core was killed before it could commit,
    has another revision. It is news, so it must not look like a repetition.
    """
    return hashlib.sha256(f"{transition_id}\n{revision}\n{receiver}".encode()).hexdigest()[:32]


def number(
    notices: Iterable[Notice], ledger_id: str, next_sequences: Mapping[SequenceKey, int]
) -> tuple[list[OutboxRow], dict[SequenceKey, int]]:
    """Give notices the next sequences of their lanes, in the order given.

    Args:
        next_sequences: next free number per (receiver, lane) of this ledger id; absent means 1.

    Returns:
        The rows, and the whole table of next free numbers after them (the input is not changed).
    """
    following = dict(next_sequences)
    rows = []
    for notice in notices:
        key = (notice.receiver, notice.lane)
        sequence = following.get(key, 1)
        following[key] = sequence + 1
        rows.append(
            OutboxRow(
                notice.id, notice.transition_id, notice.alarm_id, notice.revision, notice.receiver,
                notice.lane, notice.created_ms, notice.body, ledger_id, sequence,
            )
        )  # fmt: skip
    return rows, following
