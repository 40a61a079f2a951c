"""The life cycle of one alarm, as a table an engineer can check against IEC 62682 and OPC UA Part 9.

Each raise is an occurrence of its own, so there is no way back from RETURNED to ACTIVE: the next excursion
is the next alarm. Three times belong to an alarm: start, return to normal (销警), end (closed with a reason
and a measure). Shelving and suppression are flags beside this table and never part of it.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where an alarm stands: is the cause still there, and has a person taken notice of it."""

    ACTIVE_UNACKED = "ACTIVE_UNACKED"
    ACTIVE_ACKED = "ACTIVE_ACKED"
    RETURNED_UNACKED = "RETURNED_UNACKED"
    RETURNED_ACKED = "RETURNED_ACKED"
    CLOSED = "CLOSED"

    @property
    def active(self) -> bool:
        """The cause stands."""
        return self in (State.ACTIVE_UNACKED, State.ACTIVE_ACKED)

    @property
    def acked(self) -> bool:
        """A person has acknowledged it (a closed alarm was seen by the one who closed it)."""
        return self in (State.ACTIVE_ACKED, State.RETURNED_ACKED, State.CLOSED)


class Event(StrEnum):
    """What can happen to an alarm."""

    RAISED = "raised"
    RETURNED = "returned"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    # A person closes an alarm that no sample can return any more: its limit was changed or removed while it
    # stood, or a late run over history ended inside it.
    WRITTEN_OFF = "written_off"


NEXT: MappingProxyType[Event, MappingProxyType[State | None, State]] = MappingProxyType({
    Event.RAISED: MappingProxyType({
        None: State.ACTIVE_UNACKED,
    }),
    Event.RETURNED: MappingProxyType({
        State.ACTIVE_UNACKED: State.RETURNED_UNACKED,
        State.ACTIVE_ACKED: State.RETURNED_ACKED,
    }),
    Event.ACKNOWLEDGED: MappingProxyType({
        State.ACTIVE_UNACKED: State.ACTIVE_ACKED,
        State.RETURNED_UNACKED: State.RETURNED_ACKED,
    }),
    Event.CLOSED: MappingProxyType({
        State.RETURNED_UNACKED: State.CLOSED,
        State.RETURNED_ACKED: State.CLOSED,
    }),
    Event.WRITTEN_OFF: MappingProxyType({
        State.ACTIVE_UNACKED: State.CLOSED,
        State.ACTIVE_ACKED: State.CLOSED,
    }),
})


def next_state(state: State | None, event: Event) -> State | None:
    """Return the state after an event, or None when the table has no such step (nothing may happen then)."""
    return NEXT[event].get(state)
