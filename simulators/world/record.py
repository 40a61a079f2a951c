"""What could be observed of a run of the world, in order and in virtual time: facts, and no judgement of them.

The world writes it, an oracle reads it. `at_s` is virtual seconds since the world began, on one clock that nothing
steps; `_ms` are UTC epoch milliseconds on the clock of whoever stamped them, which a fault may have stepped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from config import SiteConfig
from simulators.world.faults import Fault


class Sample(NamedTuple):
    """One tag in one reading: `value` in the tag's unit, NaN where `code` (a `wire` quality code) is BAD."""

    tag: str
    value: float
    code: int
    source_ms: int


@dataclass(frozen=True, slots=True)
class Read:
    """The plant: a device was read and the reading was given to a running edge, before report by exception."""

    at_s: float
    node: str
    box: int
    device: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """An edge: a frame has been synced to its disk. From here on nothing may lose it.

    `box` tells two boxes with one id apart: 0 is the right one. `samples` are in engineering units.
    """

    at_s: float
    node: str
    box: int
    stream: int
    sequence: int
    predecessor: int
    predecessor_last: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The ledger: a row with frames `first` to `last` of a stream is found in it by a reading connection.

    The world looks before it notes a `Forgot`, and after a core was killed. `kind` is the log's: F, B or Q.
    """

    at_s: float
    pos: int
    kind: str
    node: str
    stream: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Forgot:
    """An edge: it was told that all of a stream up to `upto` is committed, and will not send it again."""

    at_s: float
    node: str
    box: int
    stream: int
    upto: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """A receiver: a notice came, its signature was good, and this was answered.

    Attributes:
        notice: the `webhook-id`; the same on every attempt.
        ledger, lane, sequence: where the notice stands; sequence None when it is not journaled yet.
        transition: the transition's id; kind: raised, returned, acknowledged or closed.
        at_ms: when the step happened, as the notice says.
        alarm: the whole state that the notice tells (`alarm` of the body).
        status: the HTTP status answered; None when the answer never left.
        kept: the receiver has it, whatever it answered.
        body: the bytes that came.
    """

    at_s: float
    receiver: str
    notice: str
    ledger: str
    lane: str
    sequence: int | None
    transition: str
    kind: str
    revision: int
    late: bool
    at_ms: int
    actor: str | None
    alarm: Mapping[str, Any]
    status: int | None
    kept: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A receiver: something came that it could not believe (signature, timestamp, shape)."""

    at_s: float
    receiver: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A receiver: core's sign of life came."""

    at_s: float
    receiver: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FaultBegan:
    """The plan: a fault sets in."""

    at_s: float
    fault: Fault


@dataclass(frozen=True, slots=True)
class FaultEnded:
    """The plan: a fault is over."""

    at_s: float
    fault: Fault


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A part (`core`, `broker`, an edge, a receiver) runs; `run` counts its lives from 1."""

    at_s: float
    part: str
    run: int
    box: int = 0


@dataclass(frozen=True, slots=True)
class PartEnded:
    """A part is no more: killed by a fault, stopped in order at the end, or ended by itself (`cause` says why)."""

    at_s: float
    part: str
    run: int
    cause: str
    box: int = 0


@dataclass(frozen=True, slots=True)
class Acted:
    """An operator: acknowledged or closed an alarm; `refused` says why not, None when it was done."""

    at_s: float
    actor: str
    kind: str
    alarm: str
    refused: str | None


@dataclass(frozen=True, slots=True)
class Healed:
    """From here on no fault acts, every part runs, and every tag is read as calm."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The end. `in_time` is False when something was still on its way when the world gave up waiting."""

    at_s: float
    in_time: bool
    waiting: str


Event = (
    Read | Taken | Committed | Forgot | Noticed | Refused | Heartbeat | FaultBegan | FaultEnded
    | PartStarted | PartEnded | Acted | Healed | Settled
)  # fmt: skip

E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class Record:
    """Everything observed in one run.

    Attributes:
        seed: what the run was drawn from.
        site: the configuration all parts ran with.
        start_ms: UTC epoch ms at virtual second 0, on the unstepped clock.
        ledger: the ledger's file, to be read when core has ended.
        events: in the order they happened.
    """

    seed: int
    site: SiteConfig
    start_ms: int
    ledger: Path
    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Note what happened just now."""
        self.events.append(event)

    def of(self, kind: type[E]) -> Iterator[E]:
        """Return the events of one kind, in order."""
        return (event for event in self.events if isinstance(event, kind))
