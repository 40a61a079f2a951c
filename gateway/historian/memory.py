"""A historian in memory: the twin that tests use, and what the contract says in a few lines of numpy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from gateway.historian.limits import DAY_PIECE_ROWS, check_latest, check_range, check_width, too_many
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.store import DEADLINE_S_MAX, ROWS_MAX, AlarmEvent, Windows, Written
from gateway.historian.windows import between, no_windows, windows_of

ROWS_HELD_MAX: Final = 5_000_000


class MemoryHistorian:
    """Holds everything, one row a tag and millisecond: of two writes the later counts. Any thread may call."""

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._held = Samples.empty()
        self._events: dict[str, AlarmEvent] = {}

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        """Take samples.

        Raises:
            QueryTooLargeError: it is full.
        """
        with self._lock:
            held = one_a_moment(concatenated([self._held, samples]))
            if len(held) > ROWS_HELD_MAX:
                raise too_many(ROWS_HELD_MAX)
            self._held = held
        return Written(len(samples), durable=False)

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        """Take events."""
        with self._lock:
            self._events.update((event.id, event) for event in events)

    def latest(self, tags: Sequence[str], deadline_s: float = DEADLINE_S_MAX) -> Samples:
        """Return the newest sample of each tag."""
        check_latest(tags)
        found = [self._of(tag) for tag in dict.fromkeys(tags)]
        return concatenated([own.take(slice(len(own) - 1, None)) for own in found if len(own)])

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return one tag's samples."""
        check_range(from_ms, to_ms)
        found = between(self._of(tag), from_ms, to_ms)
        if len(found) > rows_max:
            raise too_many(rows_max)
        return found

    def windows(self, tag: str, from_ms: int, to_ms: int, width_ms: int, deadline_s: float = DEADLINE_S_MAX) -> Windows:
        """Return one tag's windows."""
        check_width(from_ms, to_ms, width_ms)
        own = between(self._of(tag), from_ms, to_ms)
        return windows_of(own, width_ms, from_ms).get(tag) or no_windows(width_ms)

    def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = 10_000) -> Sequence[AlarmEvent]:
        """Return events, oldest first."""
        with self._lock:
            found = [
                event for event in self._events.values() if from_ms <= event.at_ms < to_ms and tag in (None, event.tag)
            ]
        if len(found) > rows_max:
            raise too_many(rows_max)
        return sorted(found, key=lambda event: (event.at_ms, event.id))

    def days(self, deadline_s: float = 60.0) -> Sequence[int]:
        """Return the days held."""
        with self._lock:
            days: list[int] = (np.unique(self._held.source_ms // DAY_MS) * DAY_MS).tolist()
        return days

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        """Yield a day tag by tag, several tags in one piece."""
        with self._lock:
            held = self._held
        part = held.take((held.source_ms >= day_ms) & (held.source_ms < day_ms + DAY_MS))
        yield from in_pieces(part)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _of(self, tag: str) -> Samples:
        with self._lock:
            held = self._held
        if tag not in held.names:
            return Samples.empty((tag,))
        own = held.take(held.tag == held.names.index(tag))
        return replace(own, names=(tag,), tag=np.zeros(len(own), np.int32))


def one_a_moment(samples: Samples) -> Samples:
    """Return them sorted by tag id and time, of one tag and millisecond only the one that stands last."""
    ordered = samples.in_order()  # stable: the later stays behind
    if not len(ordered):
        return ordered
    last = np.append((np.diff(ordered.tag) != 0) | (np.diff(ordered.source_ms) != 0), True)
    return ordered.take(last)


def in_pieces(ordered: Samples, rows: int = DAY_PIECE_ROWS) -> Iterator[Samples]:
    """Yield whole tags of samples that are in order, about so many rows at a time."""
    starts = np.flatnonzero(np.diff(ordered.tag, prepend=-1)).tolist()
    begin = 0
    for end in [*starts[1:], len(ordered)]:
        if end - begin >= rows or end == len(ordered):
            if end > begin:
                yield ordered.take(slice(begin, end))
            begin = end
