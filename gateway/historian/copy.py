"""Copy from store to store, day by day. Nothing is remembered between runs: what the target holds is the state.

A day that the target holds already, row for row, costs reading it; of any other only what is missing or different is
written, and then it is checked. So a copy that was cut short at any point is gone on with by running it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar, runtime_checkable

from gateway.historian.copy_compare import compared
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.segments.missing import Missing, within
from gateway.historian.store import (
    AlarmEvent,
    Historian,
    HistorianError,
    QueryTimeError,
    QueryTooLargeError,
    Rejected,
    SegmentDamagedError,
    StoreAwayError,
)

DAY_S_MAX: Final = 3_600.0
WRITE_S_MAX: Final = 120.0
WAITS_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between tries of a store that is away; then the copy ends, to be run again."""
LOOKS_MAX: Final = 10
EVENTS_MAX: Final = 10_000
ALL_MS: Final = (0, 4_102_444_800_000)
"""From 1970, before which not every store answers, to 2100."""
REJECTED_TOLD_MAX: Final = 100

Answer = TypeVar("Answer")


class CopyError(HistorianError):
    """The copy cannot be made."""


@dataclass(frozen=True, slots=True)
class CopyRules:
    """How a target is to be treated.

    Attributes:
        batch_rows: rows in one write; all writes of a day but its last have just as many, for our own store keeps a file for each.
        tolerance: see `copy_compare.compared`; 0 for stores that keep every digit.
        visible_after_s: how long a target may take to show what it has accepted.
    """

    batch_rows: int = 1_000_000
    tolerance: float = 0.0
    visible_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DayCopied:
    """One day. `verified`: the target holds every row of the source; `extra` are rows that only the target has.

    `by_digest`: rows and digest of both are the same; else every row was compared with its counterpart.
    `damaged`: why not all of the source's day can be read; the other numbers but `written` then say nothing.
    """

    day_ms: int
    rows: int
    written: int
    missing: int
    different: int
    extra: int
    by_digest: bool
    rejected: int = 0
    damaged: str = ""
    damaged_zh: str = ""

    @property
    def verified(self) -> bool:
        """All could be read, nothing is missing and nothing is different."""
        return self.missing == self.different == 0 and not self.damaged


@dataclass(slots=True)
class Copied:
    """A whole copy. `holes`: of these stretches the source should hold samples, and does not."""

    days: list[DayCopied] = field(default_factory=list)
    holes: list[Missing] = field(default_factory=list)
    events: int = 0
    events_missing: int = 0
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        """Every day is, all events are there, and the source has no holes."""
        return all(day.verified for day in self.days) and not self.events_missing and not self.holes


@runtime_checkable
class KnowsHoles(Protocol):
    """A source that knows what it should hold and does not: not even a day tells of that."""

    def holes(self) -> Sequence[Missing]:
        """Return these stretches."""
        ...


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a copy is: `day` (from 0) of `days`, and rows written so far."""

    day_ms: int
    day: int
    days: int
    written: int


def copy_store(
    source: Historian, target: Historian, rules: CopyRules | None = None, *, from_ms: int | None = None, to_ms: int | None = None,
    progress: Callable[[CopyProgress], None] = lambda _: None, wait: Callable[[float], None] = time.sleep,
) -> Copied:  # fmt: skip
    """Copy the days that begin in [from_ms, to_ms), oldest first; of one that is damaged what can be read, and it is told.

    Raises:
        CopyError: the stores or days are no such; nothing was begun.
        HistorianError: a store is away or refuses. All that was copied stays; run it again.
    """
    if source.name == target.name:
        raise CopyError("a store is not copied onto itself; name two", "不能把存储复制到它自己；请指定两个不同的存储")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise CopyError("the days are none: the first must not be after the last", "没有这样的日期：起始日不能晚于结束日")
    rules = rules or CopyRules()
    days = [day for day in source.days() if (from_ms is None or day >= from_ms) and (to_ms is None or day < to_ms)]
    held = frozenset(target.days())
    begin_ms, end_ms = ALL_MS[0] if from_ms is None else from_ms, ALL_MS[1] if to_ms is None else to_ms
    done = Copied(holes=within(source.holes(), begin_ms, end_ms) if isinstance(source, KnowsHoles) else [])
    written = 0
    for at, day_ms in enumerate(days):
        progress(CopyProgress(day_ms, at, len(days), written))
        work = _DayCopy(source, target, rules, day_ms, done, wait)
        try:
            day = work.run(held=day_ms in held)
        except SegmentDamagedError as error:
            day = work.damaged(error)
        written += day.written
        done.days.append(day)
    for own, within_ms in _event_batches(source, begin_ms, end_ms):  # also of days without a sample: then there are alarms
        _copy_events(own, target, within_ms, done, rules, wait)
    if days:
        progress(CopyProgress(days[-1], len(days), len(days), written))
    return done


class _DayCopy:
    def __init__(
        self, source: Historian, target: Historian, rules: CopyRules, day_ms: int, done: Copied, wait: Callable[[float], None]
    ) -> None:
        self._source, self._target, self._rules, self._day_ms = source, target, rules, day_ms
        self._done, self._wait = done, wait
        self._written = self._rejected = 0
        self._torn: SegmentDamagedError | None = None

    def run(self, *, held: bool) -> DayCopied:
        target = self._shown() if held else iter(())
        rows, digest, wanted, extra = 0, 0, 0, 0
        waiting: list[Samples] = []
        waiting_rows = 0
        for each in compared(self._readable(), target, self._rules.tolerance):
            rows, digest, extra = rows + each.rows, (digest + each.digest) % 2**64, extra + each.extra
            piece = each.wanted()
            if len(piece):
                wanted += len(piece)
                waiting.append(piece)
                waiting_rows += len(piece)
            if waiting_rows >= self._rules.batch_rows:
                rest = self._write(concatenated(waiting))
                waiting, waiting_rows = [rest], len(rest)
        if waiting_rows:
            self._write_one(concatenated(waiting))
        if self._torn is not None:
            return self.damaged(self._torn)
        if not wanted:
            return DayCopied(self._day_ms, rows, 0, 0, 0, extra, by_digest=not extra and not self._rules.tolerance)
        return self._checked(rows, digest)

    def _readable(self) -> Iterator[Samples]:
        """Yield what the source gives; that it is not all is told at the end."""
        try:
            yield from self._source.day(self._day_ms, DAY_S_MAX)
        except SegmentDamagedError as error:
            self._torn = error

    def _shown(self) -> Iterator[Samples]:
        """Yield what the target can read: what it has lost is missing there, and is written again."""
        with suppress(SegmentDamagedError):
            yield from self._target.day(self._day_ms, DAY_S_MAX)

    def damaged(self, error: SegmentDamagedError) -> DayCopied:
        """Return what is known of a day that the source cannot read as a whole."""
        told = DayCopied(self._day_ms, 0, self._written, 0, 0, 0, by_digest=False, rejected=self._rejected)
        return replace(told, damaged=str(error), damaged_zh=error.message_zh)

    def _checked(self, rows: int, digest: int) -> DayCopied:
        """Look at what the target shows now, more than once where it takes its time."""
        looks = LOOKS_MAX if self._rules.visible_after_s else 1
        for look in range(looks):
            if self._rules.visible_after_s:
                self._wait(self._rules.visible_after_s)
            day = self._look(rows, digest)
            if day.verified or look + 1 == looks:
                return day
        raise AssertionError("unreachable")

    def _look(self, rows: int, digest: int) -> DayCopied:
        told = DayCopied(self._day_ms, rows, self._written, 0, 0, 0, by_digest=True, rejected=self._rejected)
        if not self._rules.tolerance and _counted(self._shown()) == (rows, digest):
            return told
        rows = missing = different = extra = 0
        for each in compared(self._source.day(self._day_ms, DAY_S_MAX), self._shown(), self._rules.tolerance):
            rows, missing = rows + each.rows, missing + len(each.missing)
            different, extra = different + len(each.different), extra + each.extra
        return replace(told, rows=rows, missing=missing, different=different, extra=extra, by_digest=False)

    def _write(self, samples: Samples) -> Samples:
        """Write whole batches; return what is left over."""
        step = self._rules.batch_rows
        for at in range(0, len(samples) - step + 1, step):
            self._write_one(samples.take(slice(at, at + step)))
        return samples.take(slice(len(samples) // step * step, None))

    def _write_one(self, samples: Samples) -> None:
        written = _patiently(lambda: self._target.write(samples, WRITE_S_MAX), self._wait)
        self._written += written.rows
        self._rejected += len(written.rejected)
        self._done.rejected += written.rejected[: max(0, REJECTED_TOLD_MAX - len(self._done.rejected))]


def _counted(pieces: Iterator[Samples]) -> tuple[int, int]:
    rows = digest = 0
    for piece in pieces:
        rows, digest = rows + len(piece), (digest + piece.digest()) % 2**64
    return rows, digest


def _copy_events(
    own: Sequence[AlarmEvent], target: Historian, within_ms: tuple[int, int], done: Copied, rules: CopyRules,
    wait: Callable[[float], None],
) -> None:  # fmt: skip
    lacking = _lacking(own, target, within_ms)
    if lacking:
        _patiently(lambda: target.write_events(lacking, WRITE_S_MAX), wait)
        for _ in range(LOOKS_MAX if rules.visible_after_s else 1):
            if rules.visible_after_s:
                wait(rules.visible_after_s)
            left = _lacking(own, target, within_ms)
            if not left:
                break
        done.events_missing += len(left)
    done.events += len(lacking)


def _lacking(events: Sequence[AlarmEvent], target: Historian, within_ms: tuple[int, int]) -> list[AlarmEvent]:
    there = {event.id for found, _ in _event_batches(target, *within_ms) for event in found}
    return [event for event in events if event.id not in there]


def _event_batches(store: Historian, from_ms: int, to_ms: int) -> Iterator[tuple[list[AlarmEvent], tuple[int, int]]]:
    """Yield the events of a range and the ranges they are of, by halves where one answer cannot hold them or takes too long."""
    try:
        found = list(store.events(from_ms, to_ms, rows_max=EVENTS_MAX))
    except (QueryTooLargeError, QueryTimeError) as error:
        if to_ms - from_ms <= (1 if isinstance(error, QueryTooLargeError) else DAY_MS):
            raise
        middle = (from_ms + to_ms) // 2
        yield from _event_batches(store, from_ms, middle)
        yield from _event_batches(store, middle, to_ms)
        return
    if found:
        yield found, (min(event.at_ms for event in found), max(event.at_ms for event in found) + 1)


def _patiently(work: Callable[[], Answer], wait: Callable[[float], None]) -> Answer:
    """Try again while the store is away, a bounded number of times."""
    for wait_s in WAITS_S:
        try:
            return work()
        except StoreAwayError as error:
            wait(wait_s if error.retry_after_s is None else min(60.0, max(wait_s, error.retry_after_s)))
    return work()
