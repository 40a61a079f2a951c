"""The alarm rules once more, as few lines as they can be said in: what the oracle holds the world against.

One limit, one sample after the other, in the order of the plant. Written from the promises, not from the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from config import LimitRow, SiteConfig, TagConfig
from simulators.world import Sample

GOOD, UNCERTAIN, RANGE = 192, 64, 64 | 5


def conditioned(tag: TagConfig, value: float, code: int) -> tuple[float, int]:
    """What a reading is worth: BAD is no number; beyond the range it is UNCERTAIN and held at the range's end."""
    if code < UNCERTAIN or not math.isfinite(value):
        return math.nan, min(code, UNCERTAIN - 1)
    span = tag.span()
    if span.low <= value <= span.high:
        return value, code
    return min(max(value, span.low), span.high), RANGE


def over(row: LimitRow, value: float) -> bool:
    """On the setpoint counts as over it; no number is over nothing."""
    return value >= row.setpoint if row.kind.high_side else value <= row.setpoint


def clear(row: LimitRow, value: float) -> bool:
    """Back by more than the deadband; no number is never clear."""
    return value < row.setpoint - row.deadband if row.kind.high_side else value > row.setpoint + row.deadband


class Place(NamedTuple):
    """Where a sample stands in the plant's own order."""

    node: str
    stream: int
    sequence: int


@dataclass(slots=True)
class Excursion:
    """A tag beyond a limit, from the sample that raises it to the GOOD one that returns it.

    Attributes:
        begun_ms: source time of the first sample over the setpoint.
        start_ms: of the sample that raises: `begun_ms`, or when the on-delay was over.
        end_ms: of the sample that returns it; None while it stands.
        begun, start: the places of those samples.
    """

    tag: str
    limit: str
    grade: int
    begun_ms: int
    start_ms: int
    begun: Place
    start: Place
    end_ms: int | None = None


@dataclass(slots=True)
class _Standing:
    """How one limit of one tag stands."""

    row: LimitRow
    now: Excursion | None = None
    over_since: tuple[int, Place] | None = None
    clear_since: int | None = None


def excursions(site: SiteConfig, frames: Iterable[tuple[Place, tuple[Sample, ...]]]) -> list[Excursion]:
    """Cross every limit of the site with frames in the plant's order; delays run on source time."""
    tags = {tag.id: tag for tag in site.tags}
    standing = {tag.id: [_Standing(row) for row in tag.limit_rows()] for tag in site.tags}
    found: list[Excursion] = []
    for place, samples in frames:
        for sample in samples:
            value, code = conditioned(tags[sample.tag], sample.value, sample.code)
            for one in standing[sample.tag]:
                raised = _step(one, sample, value, code, place)
                if raised is not None:
                    found.append(raised)
    return found


def _step(one: _Standing, sample: Sample, value: float, code: int, place: Place) -> Excursion | None:
    """Apply one sample to one limit; return what it raised."""
    row, at_ms = one.row, sample.source_ms
    if one.now is None:
        if over(row, value):
            since_ms, begun = one.over_since = one.over_since or (at_ms, place)
            if at_ms - since_ms >= row.on_delay_s * 1000:
                one.now = Excursion(sample.tag, str(row.kind), int(row.grade), since_ms, at_ms, begun, place)
                one.over_since = one.clear_since = None
                return one.now
        elif code == GOOD:
            one.over_since = None
        return None
    if code == GOOD and clear(row, value):
        one.clear_since = at_ms if one.clear_since is None else one.clear_since
        if at_ms - one.clear_since >= row.off_delay_s * 1000:
            one.now.end_ms, one.now = at_ms, None
    else:
        one.clear_since = None
    return None
