"""What the oracle knows: violations, and the plant's readings in the order they were made."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from config import LimitRow, SiteConfig, TagConfig
from simulators.world import Read, Sample, Taken
from tests.simulation.rules import conditioned


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken.

    Attributes:
        rule: P1, P2 or P3; RUN when a part ended by itself.
        at_s: virtual seconds; what is only seen at the end has the end's.
        what: one sentence.
        marks: positions in the record of the events that show it.
    """

    rule: str
    at_s: float
    what: str
    marks: tuple[int, ...] = ()


class Reading(NamedTuple):
    """One sample the plant showed, as the gateway must take it. `mark` is the event's position in the record."""

    mark: int
    value: float
    code: int
    source_ms: int


@dataclass(slots=True)
class Site:
    """The configuration by id."""

    config: SiteConfig
    tags: dict[str, TagConfig] = field(init=False)
    node_of: dict[str, str] = field(init=False)
    limits: dict[tuple[str, str], LimitRow] = field(init=False)

    def __post_init__(self) -> None:
        self.tags = {tag.id: tag for tag in self.config.tags}
        self.node_of = {
            point.tag: edge.id for edge in self.config.edges for device in edge.devices for point in device.points
        }
        self.limits = {(tag.id, str(row.kind)): row for tag in self.config.tags for row in tag.limit_rows()}

    def wanting(self, grade: int, category: str) -> list[str]:
        """Return the receivers that want alarms of a grade and a category."""
        region = self.config.region.path
        return [
            receiver.id
            for receiver in self.config.receivers
            if any(int(one) == grade and receiver.wants(one, category, region) for one in receiver.grades)
        ]


@dataclass(slots=True)
class Plant:
    """All readings by tag; a birth repeats one, and a clock step moves the stamp of the copy."""

    site: Site
    readings: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))
    _at: dict[tuple[str, int], list[Reading]] = field(default_factory=lambda: defaultdict(list))
    _copies: dict[tuple[str, int], int] = field(default_factory=dict)

    def see(self, mark: int, event: Read | Taken) -> None:
        """Take a reading in; of a frame, where its samples first stood."""
        for sample in event.samples:
            if isinstance(event, Taken):
                self._copies.setdefault((sample.tag, sample.source_ms), mark)
                continue
            reading = self._reading(mark, sample)
            self.readings[sample.tag].append(reading)
            self._at[sample.tag, sample.source_ms].append(reading)

    def _reading(self, mark: int, sample: Sample) -> Reading:
        value, code = conditioned(self.site.tags[sample.tag], sample.value, sample.code)
        return Reading(mark, value, code, sample.source_ms)

    def position(self, tag: str, source_ms: int) -> int | None:
        """Return where in the record a sample first stood; None when there is no such sample."""
        readings = self._at.get((tag, source_ms))
        return readings[0].mark if readings else self._copies.get((tag, source_ms))

    def time(self, tag: str, source_ms: int) -> int | None:
        """Return where in the record a tag's clock stood so; for what a timer did, at the reading next below.

        Next below by its stamp: where a clock was set back, the newest readings lie below every earlier time.
        """
        found = self.position(tag, source_ms)
        if found is not None:
            return found
        before = [(one.source_ms, one.mark) for one in self.readings[tag] if one.source_ms <= source_ms]
        return max(before)[1] if before else None

    def shown(
        self, tag: str, source_ms: int | None, value: float | None, fits: Callable[[Reading], bool], after: int = -1
    ) -> bool:
        """Tell whether the plant showed a fitting reading with this stamp, or with this value, behind a position."""
        return any(
            reading.mark > after and fits(reading) for reading in self._candidates(tag, source_ms, value, after)
        )

    def _candidates(
        self, tag: str, source_ms: int | None, value: float | None, after: int
    ) -> Iterator[Reading]:
        if source_ms is not None:
            yield from self._at.get((tag, source_ms), ())
        if value is not None:
            readings = self.readings[tag]
            for reading in readings[bisect.bisect_left(readings, (after,)) :]:
                if math.isclose(reading.value, value, rel_tol=1e-9):
                    yield reading
