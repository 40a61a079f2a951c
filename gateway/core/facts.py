"""Facts about one edge node, as its session tells them. What they mean for alarms is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wire import SampleBatch, StreamSpan


@dataclass(frozen=True, slots=True)
class NodeBorn:
    """A valid NBIRTH. `live` is 0 for a node that is not ours."""

    live: int
    spans: tuple[StreamSpan, ...]
    config_hash: str
    spool_fault: bool
    clock_offset_ms: int
    clock_synced: bool
    transport_blocked: bool = False
    commands_refused: int = 0  # since the node's start


@dataclass(frozen=True, slots=True, eq=False)
class FrameArrived:
    """Values of one device in the site's tag order. stream and sequence are 0 without marks."""

    device: str
    stream: int
    sequence: int
    batch: SampleBatch
    historical: bool = False


@dataclass(frozen=True, slots=True)
class BlockArrived:
    """A spool block, still packed."""

    body: bytes


@dataclass(frozen=True, slots=True)
class NodeDied:
    """NDEATH of the current session."""


@dataclass(frozen=True, slots=True)
class DeviceDied:
    """DDEATH."""

    device: str


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A node-level metric of ours changed."""

    name: str
    value: bool | int | str


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be used. `reason` is safe to log."""

    topic: str
    reason: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Somebody may pose as this node, or it goes beyond what is its own. Nothing of it was believed.

    Attributes:
        word: last word of the security alarm's key.
        facts: told on with it.
    """

    word: str
    facts: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class RebirthWanted:
    """Ask the node to begin its session's births anew."""

    reason: str


Fact = NodeBorn | FrameArrived | BlockArrived | NodeDied | DeviceDied | NodeFact | Refused | Suspicion | RebirthWanted
