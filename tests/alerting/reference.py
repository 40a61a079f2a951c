"""The rules again, one row at a time and with no thought for speed: what the engine is compared with.

Written from the rules as they are stated, not from the engine: every row has an object, every sample visits
every row of its tag, nothing is skipped, nothing is vectorised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.alerting.plant import SIDES, Limit, Sent, Tag


class Seen(NamedTuple):
    """A transition the rules ask for."""

    tag: str
    limit: str
    kind: str
    at_ms: int


@dataclass
class Timer:
    """A running delay, on both clocks."""

    source_ms: int
    stream: int
    engine_ms: int

    def elapsed_ms(self, sent: Sent, engine_ms: int) -> int:
        """Source time inside one stream, engine time between two."""
        same = sent.stream == self.stream
        return sent.source_ms - self.source_ms if same else engine_ms - self.engine_ms


@dataclass
class Row:
    """One limit of one tag."""

    limit: Limit
    active: bool = False
    since_ms: int = 0
    on: Timer | None = None
    off: Timer | None = None

    def over(self, value: float) -> bool:
        """On the setpoint counts as over it."""
        high = SIDES[self.limit.name] > 0
        return value >= self.limit.setpoint if high else value <= self.limit.setpoint

    def clear(self, value: float) -> bool:
        """Back by more than the deadband."""
        high, setpoint, deadband = SIDES[self.limit.name] > 0, self.limit.setpoint, self.limit.deadband
        return value < setpoint - deadband if high else value > setpoint + deadband

    def sample(self, sent: Sent, trusted: bool, engine_ms: int) -> str | None:
        """Return "raised", "returned" or None."""
        if not trusted:
            self.off = None  # an off-delay needs GOOD without a break
        if math.isnan(sent.value):
            return None
        if not self.active:
            if self.over(sent.value):
                if self.on is None:
                    self.on = Timer(sent.source_ms, sent.stream, engine_ms)
                if self.limit.on_ms == 0 or self.on.elapsed_ms(sent, engine_ms) >= self.limit.on_ms:
                    self.active, self.since_ms, self.on = True, sent.source_ms, None
                    return "raised"
            elif trusted:
                self.on = None
            return None
        if not self.clear(sent.value):
            self.off = None
        elif trusted:
            if self.off is None:
                self.off = Timer(sent.source_ms, sent.stream, engine_ms)
                if self.limit.off_ms > 0:
                    return None
            if self.off.elapsed_ms(sent, engine_ms) >= self.limit.off_ms:
                self.active, self.off = False, None
                return "returned"
        return None


@dataclass
class Instrument:
    """One tag with its rows and its fault."""

    tag: Tag
    seen_engine_ms: int
    rows: list[Row] = field(init=False)
    fault: bool = False
    fault_since_ms: int = 0
    excused_ms: int | None = None  # engine time until which silence is no fault
    pending: bool = False  # silent, and excused
    failing: Timer | None = None
    stale: bool = False
    known: bool = False
    source_ms: int | None = None
    stream: int = 0

    def __post_init__(self) -> None:
        self.rows = [Row(limit) for limit in self.tag.limits]


class ReferenceEngine:
    """The rules for all tags, in the order things happen."""

    def __init__(self, tags: list[Tag], engine_ms: int) -> None:
        self.instruments = [Instrument(tag, engine_ms) for tag in tags]
        self.only_raise: set[int] = set()

    def sample(self, engine_ms: int, sent: Sent) -> list[Seen]:
        """Apply one sample."""
        one = self.instruments[sent.tag]
        bad = math.isnan(sent.value)
        trusted = sent.code == 192 and sent.tag not in self.only_raise
        one.seen_engine_ms, one.source_ms, one.stale, one.pending = engine_ms, sent.source_ms, False, False
        one.stream = sent.stream
        seen = []
        for row in one.rows:
            kind = row.sample(sent, trusted, engine_ms)
            if kind:  # what ends has not ended before it began
                seen.append(Seen(one.tag.name, row.limit.name, kind, max(sent.source_ms, row.since_ms)))
        if one.tag.in_service:
            if bad and not one.fault:
                if one.failing is None:
                    one.failing = Timer(sent.source_ms, sent.stream, engine_ms)
                if one.tag.fault_ms == 0 or one.failing.elapsed_ms(sent, engine_ms) >= one.tag.fault_ms:
                    one.fault, one.fault_since_ms, one.failing = True, sent.source_ms, None
                    seen.append(Seen(one.tag.name, "FAULT", "raised", sent.source_ms))
            elif trusted:
                one.failing = None
                if one.fault:
                    one.fault = False
                    at_ms = max(sent.source_ms, one.fault_since_ms)
                    seen.append(Seen(one.tag.name, "FAULT", "returned", at_ms))
        one.known = one.known or trusted
        return seen

    def tick(self, engine_ms: int) -> list[Seen]:
        """Limits whose on-delay is over, then faults, then tags fallen silent; each in order."""
        seen = []
        for one in self.instruments:
            for row in one.rows:
                if row.on is not None and engine_ms - row.on.engine_ms >= row.limit.on_ms:
                    at_ms = row.on.source_ms + engine_ms - row.on.engine_ms
                    row.active, row.since_ms, row.on = True, at_ms, None
                    seen.append(Seen(one.tag.name, row.limit.name, "raised", at_ms))
        for one in self.instruments:
            if one.failing is not None and engine_ms - one.failing.engine_ms >= one.tag.fault_ms:
                at_ms = one.failing.source_ms + engine_ms - one.failing.engine_ms
                one.fault, one.fault_since_ms, one.failing = True, at_ms, None
                seen.append(Seen(one.tag.name, "FAULT", "raised", at_ms))
        for one in self.instruments:
            silent = engine_ms - one.seen_engine_ms >= one.tag.stale_ms
            if one.tag.in_service and silent:
                seen += self._silence(one, engine_ms)
        return seen

    def death(self, engine_ms: int, tags: list[int]) -> list[Seen]:
        """The node of some tags has died."""
        return [found for tag in tags for found in self._silence(self.instruments[tag], engine_ms, died=True)]

    def downtime(self, ms: int) -> None:
        """Nobody watched for a while: delays did not run."""
        for one in self.instruments:
            timers = [one.failing, *(row.on for row in one.rows), *(row.off for row in one.rows)]
            for timer in timers:
                if timer is not None:
                    timer.engine_ms += ms
            if one.pending and one.excused_ms is not None:
                one.excused_ms += ms

    def excuse(self, engine_ms: int, ms: int, tags: list[int] | None = None) -> None:
        """Nobody listened to these tags, or any: who is not silent yet may be so for a while."""
        for one in self.instruments if tags is None else [self.instruments[tag] for tag in tags]:
            if not one.stale:
                one.excused_ms = max(one.excused_ms or 0, engine_ms + ms)

    def excuse_ends(self, tags: list[int], until_ms: int) -> None:
        """They have been asked again."""
        for one in (self.instruments[tag] for tag in tags):
            if one.excused_ms is not None:
                one.excused_ms = min(one.excused_ms, until_ms)

    def _silence(self, one: Instrument, engine_ms: int, *, died: bool = False) -> list[Seen]:
        if one.stale and (died or not one.pending or (one.excused_ms or 0) > engine_ms):
            return []
        one.stale = True
        for row in one.rows:
            row.off = None
        if one.fault or not one.tag.in_service:
            return []
        if not died and one.failing is None and (one.excused_ms or 0) > engine_ms:
            one.pending = True
            return []
        one.pending, one.excused_ms = False, None
        at_ms = engine_ms if one.source_ms is None else one.source_ms + engine_ms - one.seen_engine_ms
        if died and (one.failing is not None or one.tag.fault_ms > 0):
            one.failing = one.failing or Timer(at_ms, one.stream, engine_ms)  # a death's fault waits for its delay
            return []
        one.fault, one.fault_since_ms, one.failing = True, at_ms, None
        return [Seen(one.tag.name, "FAULT", "raised", at_ms)]
