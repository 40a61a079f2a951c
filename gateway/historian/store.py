"""What every historian can do: one port, and its errors. The contract suite runs on all that implement it.

Every method may block on disk or network: only threads call it. Times are UTC epoch milliseconds, ranges are
[from_ms, to_ms) of source time, `deadline_s` bounds the whole call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples

ROWS_MAX: Final = 2_000_000
RANGE_MS_MAX: Final = 400 * 86_400_000
DEADLINE_S_MAX: Final = 5.0


class HistorianError(Exception):
    """Root of what a historian may raise; the message names the place, the cause and the next step.

    HistorianError
    ├── StoreAwayError         not reachable, or cannot answer now: try again (`retry_after_s` when it said when)
    ├── StoreRefusedError      it will not take it however often it is asked (401, 404, wrong schema): a person must act
    ├── QueryTooLargeError     more than the limits allow: ask for less
    ├── QueryTimeError         the deadline passed
    └── SegmentDamagedError    a stored piece failed its checks; says which range of which tags
    """

    def __init__(self, message: str, message_zh: str) -> None:
        self.message_zh = message_zh
        super().__init__(message)


class StoreAwayError(HistorianError):
    """Not reachable or overloaded: nothing is wrong with what was sent."""

    def __init__(self, message: str, message_zh: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, message_zh)


class StoreRefusedError(HistorianError):
    """It refuses, and will refuse again until a person changes something. `missing`: the database is not there."""

    def __init__(self, message: str, message_zh: str, *, missing: bool = False) -> None:
        self.missing = missing
        super().__init__(message, message_zh)


class QueryTooLargeError(HistorianError):
    """A question beyond the limits."""


class QueryTimeError(HistorianError):
    """No answer within the deadline."""


class SegmentDamagedError(HistorianError):
    """A stored piece failed its checks."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that the store would not take, and why: quarantined by whoever wrote it.

    `value` and `raw` are None where it had none; `code` is None where whoever refused it did not say.
    """

    tag: str
    source_ms: int
    reason: str
    value: float | None = None
    code: int | None = None
    raw: float | None = None


def rejected_of(samples: Samples, row: int, reason: str) -> Rejected:
    """Return one of some samples as a rejected one."""
    value, raw = float(samples.value[row]), float(samples.raw[row])
    return Rejected(
        samples.names[samples.tag[row]], int(samples.source_ms[row]), reason, None if np.isnan(value) else value,
        int(samples.code[row]), None if np.isnan(raw) else raw,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write. `durable`: the store promises to have it after a power cut (or never says so)."""

    rows: int
    rejected: tuple[Rejected, ...] = ()
    durable: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Aggregates of one tag by window; windows without samples are left out. All columns have one row a window.

    start_ms: int64, where the window begins. samples: int64, all. good, uncertain, bad, late: int64.
    first, last, min, max, mean: float64 over samples that are not BAD, NaN without one; first_ms … max_ms: int64 source
    times of these (of equal extremes the earliest), 0 without one.
    silence_ms: int64, the longest time from one sample to the next among those that begin in the window (0: a single one).
    """

    width_ms: int
    start_ms: NDArray[np.int64]
    good: NDArray[np.int64]
    uncertain: NDArray[np.int64]
    bad: NDArray[np.int64]
    late: NDArray[np.int64]
    first: NDArray[np.float64]
    first_ms: NDArray[np.int64]
    last: NDArray[np.float64]
    last_ms: NDArray[np.int64]
    min: NDArray[np.float64]
    min_ms: NDArray[np.int64]
    max: NDArray[np.float64]
    max_ms: NDArray[np.int64]
    mean: NDArray[np.float64]
    silence_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start_ms)


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One transition of an alarm, for annotations. `id` is the transition's: writing it twice is writing it once."""

    id: str
    alarm_id: str
    tag: str
    kind: str
    limit: str
    grade: int
    at_ms: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class DayCount:
    """What a store holds of one UTC day: rows and their digest (`Samples.digest`), one row a tag and millisecond."""

    day_ms: int
    rows: int
    digest: int


class Historian(Protocol):
    """A store of samples. `write` may be repeated with the same samples: the effect is that of one time."""

    @property
    def name(self) -> str:
        """As people know it: `embedded`, or the id in the configuration."""
        ...

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        """Store samples; those it would not take are named in the answer.

        Raises:
            StoreAwayError, StoreRefusedError: nothing is known to be stored; send the same again.
        """
        ...

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        """Store alarm transitions as annotations."""
        ...

    def latest(self, tags: Sequence[str], deadline_s: float = DEADLINE_S_MAX) -> Samples:
        """Return the newest sample of each tag that has one, at most 10 000 tags, in the order asked."""
        ...

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return one tag's samples in order of source time.

        Raises:
            QueryTooLargeError: there are more than `rows_max`, or the range is over 400 days.
        """
        ...

    def windows(self, tag: str, from_ms: int, to_ms: int, width_ms: int, deadline_s: float = DEADLINE_S_MAX) -> Windows:
        """Return aggregates by window; windows begin at `from_ms`."""
        ...

    def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = 10_000) -> Sequence[AlarmEvent]:
        """Return alarm transitions, oldest first."""
        ...

    def days(self, deadline_s: float = 60.0) -> Sequence[int]:
        """Return the beginnings of the UTC days that hold samples, oldest first."""
        ...

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        """Yield a day's samples in bounded pieces (for copying): whole tags, in the order of their ids, one row a tag and ms."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
