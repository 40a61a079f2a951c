"""Streams: how frames are numbered, and which numbers have arrived.

A stream is the frames of one edge run, numbered from 1 without holes under a random id that is never reused.
`Received` is the receiving end's book about one stream. Both are pure.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from wire.errors import IntervalsFullError, MalformedReceivedError

STREAM_ID_END: Final = 2**63  # ids are positive Int64, which Sparkplug and SQLite both hold
NUMBER_MAX: Final = 2**63 - 1
INTERVALS_MAX: Final = 64


def new_stream_id(random: random.Random) -> int:
    """Draw a stream id in [1, 2**63); pass `random.SystemRandom()` outside tests."""
    return random.randrange(1, STREAM_ID_END)


@dataclass(frozen=True, slots=True)
class StreamSpan:
    """What an edge still holds of one stream.

    Attributes:
        stream: its id.
        first: lowest number not yet acknowledged; last + 1 when none is.
        last: highest number used; 0 if none.
        predecessor: id of the stream before it on this edge; 0 if none is known.
        predecessor_last: highest number that stream used; 0 if none.
    """

    stream: int
    first: int
    last: int
    predecessor: int
    predecessor_last: int


class Received:
    """Which numbers of one stream have arrived: all up to `upto`, and `intervals` above it.

    `intervals` are closed (lo, hi) ranges, ascending, with at least one number missing between them and after
    `upto`; at most `INTERVALS_MAX` of them.
    """

    __slots__ = ("intervals", "upto")

    def __init__(self, upto: int = 0, intervals: list[tuple[int, int]] | None = None) -> None:
        self.upto = upto
        self.intervals: list[tuple[int, int]] = [] if intervals is None else intervals

    def __repr__(self) -> str:
        return f"Received(upto={self.upto}, intervals={self.intervals})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Received):
            return NotImplemented
        return self.upto == other.upto and self.intervals == other.intervals

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, number: int) -> bool:
        if number <= self.upto:
            return number >= 1
        at = bisect_left(self.intervals, (number + 1,))
        return at > 0 and self.intervals[at - 1][1] >= number

    @property
    def highest(self) -> int:
        """The highest number that has arrived, holes or not; 0 if none."""
        return self.intervals[-1][1] if self.intervals else self.upto

    def end_of(self, number: int) -> int:
        """The last number of the stretch without a hole that `number` is in; 0 if it has not arrived."""
        if number <= self.upto:
            return self.upto if number >= 1 else 0
        at = bisect_left(self.intervals, (number + 1,))
        return self.intervals[at - 1][1] if at > 0 and self.intervals[at - 1][1] >= number else 0

    def add(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Record the numbers lo..hi, both included.

        Returns:
            The parts of lo..hi not seen before, ascending; empty when all of it is a duplicate.

        Raises:
            IntervalsFullError: one more interval than allowed would be needed; nothing was recorded.
            ValueError: not 1 <= lo <= hi <= 2**63 - 1.
        """
        if not 1 <= lo <= hi <= NUMBER_MAX:
            raise ValueError(f"not a range of frame numbers: {lo}..{hi}")
        if lo == self.upto + 1 and not self.intervals:  # the next one in order: nearly every call
            self.upto = hi
            return [(lo, hi)]
        if hi <= self.upto:
            return []
        if lo <= self.upto + 1:
            fresh, self.intervals, self.upto = self._join_base(self.upto + 1, hi)
            return fresh
        # The intervals that overlap or touch lo..hi are [start, end): they and it become one.
        start = bisect_left(self.intervals, (lo,))
        if start > 0 and self.intervals[start - 1][1] >= lo - 1:
            start -= 1
        end = bisect_left(self.intervals, (hi + 2,), lo=start)
        if start == end and len(self.intervals) >= INTERVALS_MAX:
            raise IntervalsFullError(lo, hi, INTERVALS_MAX)
        joined = self.intervals[start:end]
        fresh = _without(lo, hi, joined)
        if joined:
            lo, hi = min(lo, joined[0][0]), max(hi, joined[-1][1])
        self.intervals[start:end] = [(lo, hi)]
        return fresh

    def close_gap(self, upto: int) -> list[tuple[int, int]]:
        """Count everything up to `upto` as settled, because a loss was journalled for what never came.

        Returns:
            The numbers that had not arrived, as ascending ranges: what the loss record has to name.
        """
        if upto <= self.upto:
            return []
        fresh, self.intervals, self.upto = self._join_base(self.upto + 1, upto)
        return fresh

    def reopen(self, lo: int, hi: int) -> None:
        """Count lo..hi as not arrived, because they may still come after all.

        Where that needs more intervals than allowed, everything from lo on is: what comes twice is told apart elsewhere.
        """
        held = [(1, self.upto), *self.intervals] if self.upto else list(self.intervals)
        left = [part for known_lo, known_hi in held for part in _without(known_lo, known_hi, [(lo, hi)])]
        upto = left.pop(0)[1] if left and left[0][0] == 1 else 0
        if len(left) > INTERVALS_MAX:
            left = [(known_lo, known_hi) for known_lo, known_hi in left if known_hi < lo]
        self.upto, self.intervals = upto, left

    def missing(self, last: int) -> list[tuple[int, int]]:
        """Return the numbers in 1..last that have not arrived, as ascending ranges."""
        return _without(self.upto + 1, last, self.intervals) if last > self.upto else []

    def to_json(self) -> str:
        """Return the record as JSON text; `from_json` reads it back."""
        return json.dumps({"upto": self.upto, "intervals": self.intervals}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Received:
        """Read back what `to_json` wrote.

        Raises:
            MalformedReceivedError: not JSON of that shape, or ranges that are not as the class promises.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MalformedReceivedError("not JSON") from error
        if not isinstance(record, dict) or record.keys() != {"upto", "intervals"}:
            raise MalformedReceivedError("not an object of upto and intervals")
        upto, rows = record["upto"], record["intervals"]
        if type(upto) is not int or not 0 <= upto <= NUMBER_MAX:
            raise MalformedReceivedError("upto is not a frame number")
        if not isinstance(rows, list) or len(rows) > INTERVALS_MAX:
            raise MalformedReceivedError(f"intervals is not a list of at most {INTERVALS_MAX}")
        intervals: list[tuple[int, int]] = []
        before = upto
        for row in rows:
            if not isinstance(row, list) or len(row) != 2 or any(type(number) is not int for number in row):
                raise MalformedReceivedError("an interval is not a pair of numbers")
            lo, hi = row
            if not before + 1 < lo <= hi <= NUMBER_MAX:
                raise MalformedReceivedError(f"interval {lo}..{hi} does not follow {before}")
            intervals.append((lo, hi))
            before = hi
        return Received(upto, intervals)

    def _join_base(self, lo: int, hi: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
        """Extend the contiguous part by lo..hi; return what is new, the other intervals and `upto`."""
        end = bisect_left(self.intervals, (hi + 2,))
        joined = self.intervals[:end]
        upto = max(hi, joined[-1][1]) if joined else hi
        return _without(lo, hi, joined), self.intervals[end:], upto


def _without(lo: int, hi: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return lo..hi without the ranges in `taken` (ascending, disjoint), as ascending ranges."""
    left: list[tuple[int, int]] = []
    for taken_lo, taken_hi in taken:
        if taken_hi < lo:
            continue
        if taken_lo > hi:
            break
        if lo < taken_lo:
            left.append((lo, taken_lo - 1))
        lo = taken_hi + 1
    if lo <= hi:
        left.append((lo, hi))
    return left
