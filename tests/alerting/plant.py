"""A small site in columns, and short ways to say what its instruments sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from alerting import AlarmEngine, FrameKey, LimitTable, Observed, Transition
from wire import Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
RANGE = quality_code(Quality.UNCERTAIN, Reason.RANGE)
COMM = quality_code(Quality.BAD, Reason.COMM)
STALE = quality_code(Quality.BAD, Reason.STALE)
SIDES = {"LL": -1, "L": -1, "H": 1, "HH": 1}


@dataclass(frozen=True)
class Limit:
    """One limit of a tag; delays in milliseconds."""

    name: str
    setpoint: float
    deadband: float = 1.0
    on_ms: int = 0
    off_ms: int = 0
    grade: int = 3


@dataclass(frozen=True)
class Tag:
    """One tag; delays in milliseconds."""

    name: str
    limits: tuple[Limit, ...] = ()
    fault_ms: int = 0
    stale_ms: int = 30_000
    in_service: bool = True


@dataclass(frozen=True)
class Sent:
    """One sample as it arrived."""

    tag: int
    value: float
    code: int
    source_ms: int
    stream: int
    sequence: int


TWO_SIDED = Tag("T1.LEVEL", (Limit("LL", 2), Limit("L", 4), Limit("H", 10), Limit("HH", 20)))


def table(*tags: Tag, site: str = "SITE1") -> LimitTable:
    """Return the columns of some tags."""
    rows = [(index, limit) for index, tag in enumerate(tags) for limit in tag.limits]
    return LimitTable(
        site=site, tag_id=tuple(tag.name for tag in tags), unit=("m",) * len(tags),
        low=np.full(len(tags), -50.0), high=np.full(len(tags), 50.0),
        stale_after_ms=np.array([tag.stale_ms for tag in tags], np.int64),
        fault_delay_ms=np.array([tag.fault_ms for tag in tags], np.int64),
        fault_grade=np.full(len(tags), 2, np.int8),
        in_service=np.array([tag.in_service for tag in tags], np.bool_),
        row_tag=np.array([index for index, _ in rows], np.int32), limit=tuple(limit.name for _, limit in rows),
        side=np.array([SIDES[limit.name] for _, limit in rows], np.int8),
        setpoint=np.array([limit.setpoint for _, limit in rows], np.float64),
        deadband=np.array([limit.deadband for _, limit in rows], np.float64),
        on_delay_ms=np.array([limit.on_ms for _, limit in rows], np.int64),
        off_delay_ms=np.array([limit.off_ms for _, limit in rows], np.int64),
        grade=np.array([limit.grade for _, limit in rows], np.int8),
        system_grades={"OFFLINE": 3},
    )


def batch(samples: Iterable[Sent]) -> Observed:
    """Return samples as one batch; a frame is a run of samples with one (stream, sequence)."""
    sent = list(samples)
    frames: list[FrameKey] = []
    frame: list[int] = []
    for one in sent:
        key = FrameKey(one.stream, one.sequence)
        if not frames or frames[-1] != key:
            frames.append(key)
        frame.append(len(frames) - 1)
    return Observed(
        np.array([one.tag for one in sent], np.int32), np.array([one.value for one in sent], np.float64),
        np.array([one.code for one in sent], np.uint8), np.array([one.source_ms for one in sent], np.int64),
        np.array(frame, np.int32), tuple(frames))


@dataclass
class Bench:
    """An engine and an edge that numbers its frames: each call is one frame of one tag, one second later."""

    engine: AlarmEngine
    stream: int = 77
    sequence: int = 0
    now_ms: int = 1_000_000
    told: list[Transition] = field(default_factory=list)

    def send(self, value: float, code: int = GOOD, *, tag: int = 0, after_ms: int = 1000) -> list[Transition]:
        """Let time pass on both clocks, then send one sample."""
        self.now_ms += after_ms
        self.sequence += 1
        value = math.nan if code < Quality.UNCERTAIN else value
        sent = Sent(tag, value, code, self.now_ms, self.stream, self.sequence)
        return self._tell(self.engine.samples(self.now_ms, batch([sent])))

    def tick(self, after_ms: int = 1000) -> list[Transition]:
        """Let time pass with nothing but a tick."""
        self.now_ms += after_ms
        return self._tell(self.engine.tick(self.now_ms))

    def _tell(self, transitions: list[Transition]) -> list[Transition]:
        self.told += transitions
        return transitions


def bench(*tags: Tag) -> Bench:
    """Return a bench of these tags; TWO_SIDED when none is named."""
    return Bench(AlarmEngine(table(*(tags or (TWO_SIDED,))), 1_000_000))


def words(transitions: Sequence[Transition]) -> list[str]:
    """Return transitions as `H raised`, for reading."""
    return [f"{transition.alarm.limit} {transition.kind}" for transition in transitions]
