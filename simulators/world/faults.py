"""Draws what goes wrong in a world from its seed: a list of faults with times and parts, all over before it heals. Pure.

A plan says what happens and when; how a fault is played is the world's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

CORE: Final = "core"
BROKER: Final = "broker"

FAULTY_S: Final = 120.0
"""How long a world has faults; then it heals."""
QUIET_S: Final = 8.0
"""Before the first fault: everybody is connected and has said what it stands at."""
FAULTS_MIN: Final = 3
FAULTS_MAX: Final = 9
FOR_S_MIN: Final = 1.0
BEHIND_SYNC_S_MIN: Final = 10.0
TWINS_SHARE: Final = 0.2
"""Seeds with two boxes of one id. Samples of that id lower nothing any more, which hides other mistakes."""


class FaultKind(StrEnum):
    """What goes wrong. `strength` and `mode` of a fault mean what stands here."""

    LOSS = "loss"  # a link loses messages; strength: the share of them
    DELAY = "delay"  # a link holds each message; strength: for at most so many seconds
    DUPLICATE = "duplicate"  # a link brings messages twice; strength: the share of them
    REORDER = "reorder"  # a link lets messages overtake each other; strength: the share held back
    PARTITION = "partition"  # a link is cut; mode: `closed` (both ends see it) or `silent` (nobody does)
    # A part dies without a word, and starts again at the end. Mode: `now`, or for core and edges `behind_sync`: the moment
    # its disk has made durable a step of an alarm (core: a transaction with a transition) or a frame (edge), before
    # anything could follow from it; at the latest half way through the fault.
    KILL = "kill"
    DISK_FULL = "disk_full"  # every write of a part is refused for want of room
    SYNC_FAILS = "sync_fails"  # every sync of a part fails, whatever was written
    CLOCK_STEP = "clock_step"  # a box's clock jumps by `strength` seconds, and back at the end
    RECEIVER_ERRORS = "receiver_errors"  # mode: a status, `silent` (no answer), `drop` (cut), `kept` (takes it, answers 500)
    INSTRUMENT_DEAD = "instrument_dead"  # a device's tags are read as BAD; mode: `comm` or `sensor_fault`
    TWINS = "twins"  # a copy of an edge's box, disk and all, runs beside it under the same id


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: from `at_s` for `for_s` virtual seconds.

    Attributes:
        number: from 0 in the order of `at_s`.
        part: an edge id, a receiver id, a device id, `core` or `broker`. For a link: the part at its far end
            from the broker.
        strength, mode: as the kind says; 0 and empty where it says nothing.
    """

    number: int
    kind: FaultKind
    at_s: float
    for_s: float
    part: str
    strength: float = 0.0
    mode: str = ""

    @property
    def ends_s(self) -> float:
        """When it is over."""
        return self.at_s + self.for_s

    def __str__(self) -> str:
        strength = f" {self.strength:+g}" if self.strength else ""
        mode = f" {self.mode}" if self.mode else ""
        return f"{self.kind} {self.part}{strength}{mode} for {self.for_s:g} s"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a world has that can break, by id."""

    edges: tuple[str, ...]
    devices: tuple[str, ...]
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All faults of one run, in the order of their beginning; none lasts beyond `heal_s`."""

    faults: tuple[Fault, ...]
    heal_s: float


def draw_plan(seed: int, parts: Parts, faulty_s: float = FAULTY_S) -> FaultPlan:
    """Return the plan of a seed: the same for the same seed, parts and length.

    Args:
        faulty_s: when the world heals, in virtual seconds; at least 30.
    """
    random = Random(f"faults {seed}")
    common = [kind for kind in FaultKind if kind is not FaultKind.TWINS]
    kinds: list[FaultKind] = random.sample(common, random.randint(FAULTS_MIN, FAULTS_MAX - 1))
    kinds.append(FaultKind.TWINS if random.random() < TWINS_SHARE else FaultKind.KILL)
    drawn: list[Fault] = []
    for kind in kinds:
        fault = _draw(random, kind, parts, faulty_s)
        if not any(_same_thing(fault, other) for other in drawn):
            drawn.append(fault)
    drawn.sort(key=lambda fault: (fault.at_s, fault.kind, fault.part))
    numbered = tuple(
        Fault(number, fault.kind, fault.at_s, fault.for_s, fault.part, fault.strength, fault.mode)
        for number, fault in enumerate(drawn)
    )
    return FaultPlan(numbered, faulty_s)


def _draw(random: Random, kind: FaultKind, parts: Parts, faulty_s: float) -> Fault:
    """Draw one fault of a kind; times in tenths of seconds, so that a plan reads well."""
    at_s = round(random.uniform(QUIET_S, faulty_s - 2 * FOR_S_MIN), 1)
    longest_s = min(60.0, faulty_s - at_s)
    # Short ones are common: most mistakes live in the seconds around a change.
    for_s = int(10 * min(longest_s, FOR_S_MIN + random.expovariate(1 / 12.0))) / 10
    part = random.choice(_targets(kind, parts))
    strength, mode = 0.0, ""
    if kind in (FaultKind.LOSS, FaultKind.DUPLICATE, FaultKind.REORDER):
        strength = round(random.uniform(0.05, 0.6), 2)
    elif kind is FaultKind.DELAY:
        strength = round(random.uniform(0.1, 3.0), 1)
    elif kind is FaultKind.KILL:
        mode = random.choice(("now", "behind_sync", "behind_sync")) if part in (*parts.edges, CORE) else "now"
        if mode == "behind_sync":  # something must be synced before its time is up
            for_s = max(for_s, min(BEHIND_SYNC_S_MIN, int(10 * longest_s) / 10))
    elif kind is FaultKind.PARTITION:
        mode = random.choice(("closed", "silent"))
    elif kind is FaultKind.CLOCK_STEP:
        strength = round(random.choice((-1, 1)) * random.choice((0.4, 3.0, 90.0, 4_000.0)) * random.uniform(0.5, 1.5), 1)
    elif kind is FaultKind.RECEIVER_ERRORS:
        mode = random.choice(("500", "503", "429", "400", "silent", "drop", "kept"))
    elif kind is FaultKind.INSTRUMENT_DEAD:
        mode = random.choice(("comm", "sensor_fault"))
    return Fault(0, kind, at_s, for_s, part, strength, mode)


def _targets(kind: FaultKind, parts: Parts) -> tuple[str, ...]:
    """Return what a kind of fault can strike."""
    boxes = (*parts.edges, CORE)
    match kind:
        case FaultKind.KILL:
            return (*boxes, CORE, CORE, BROKER, *parts.receivers)  # most that could be lost is lost in core
        case FaultKind.RECEIVER_ERRORS:
            return parts.receivers
        case FaultKind.INSTRUMENT_DEAD:
            return parts.devices
        case FaultKind.TWINS:
            return parts.edges
        case _:
            return boxes


def _same_thing(one: Fault, other: Fault) -> bool:
    """Tell whether two faults of one kind would strike one part at once: then the end of one ended the other."""
    same = one.kind is other.kind and one.part == other.part
    return same and one.at_s <= other.ends_s and other.at_s <= one.ends_s
