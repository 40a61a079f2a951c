"""status.json: what an edge says of itself to whoever looks into its data folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge.held import Counters
from wire import StreamSpan


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """One moment of an edge.

    Attributes:
        edge: Sparkplug edge node id.
        pid: process id.
        at_ms: UTC epoch milliseconds.
        connected, live: a link to the broker; births are out.
        stream: id of the stream that frames go into.
        counters: what went through the spool since its folder was made.
        unfinished: what is unacknowledged, oldest stream first.
        polls, polls_failed: of all devices since the start.
        spool_bytes: what the spool's files take.
        spool_fault: why frames cannot be taken; empty when they can.
        clock_synced, clock_offset_ms: whether stamps are UTC, and the correction.
        refused: commands that were refused since the start.
        transport_blocked_since_ms: since when published frames are not acknowledged, UTC epoch ms; None while they are.
        sessions_cut_short: sessions in a row that were lost as soon as they were made.
        stopped: the last status of a run that ended in order.
    """

    edge: str
    pid: int
    at_ms: int
    connected: bool
    live: bool
    stream: int
    counters: Counters
    unfinished: Sequence[StreamSpan]
    polls: int
    polls_failed: int
    spool_bytes: int
    spool_fault: str
    clock_synced: bool
    clock_offset_ms: int
    refused: int
    transport_blocked_since_ms: int | None
    sessions_cut_short: int
    stopped: bool

    def to_json(self) -> dict[str, Any]:
        """Return the members of status.json; counters stand among them, not in an object of their own."""
        members = {name: getattr(self, name) for name in EdgeStatus.__slots__ if name != "counters"}
        members["unfinished"] = [asdict(span) for span in self.unfinished]
        return members | asdict(self.counters)
