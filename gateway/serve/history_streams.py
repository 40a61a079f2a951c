"""Where in the log a node's past lies: which streams, which frame numbers, for a range of source time.

The ledger has no index by time. Within a stream the source time of a device does not run back (a clock step seals the
stream), so a range of time is a range of numbers, found by halving through the index on (node, stream, number).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from gateway.serve.history_blocks import BlockCache
from gateway.serve.stored import newest_source_ms
from gateway.serve.view_ledger import LedgerFile

SLACK_MS: Final = 60_000  # how far a stamp may stand out of its stream's order and still be found
SLACK_NUMBERS: Final = 1_024  # the same for the order in which frames were logged
UNMARKED_STREAMS_MAX: Final = 4_096
UNMARKED_KEPT_S: Final = 5.0
PROBE_NUMBERS: Final = 256  # how far from a number a frame of the same device is looked for
NEVER_POS: Final = 2**62

RowKind = Literal["F", "B"]
_NUMBER: Final[dict[RowKind, str]] = {"F": "first", "B": "last"}


@dataclass(frozen=True, slots=True)
class StreamPart:
    """Rows of one kind in one stream whose number (`first` of a frame, `last` of a block) is in lo..hi."""

    kind: RowKind
    stream: int
    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream of a node. `end_ms`: newest source time in it, None where the ledger does not tell."""

    stream: int
    end_ms: int | None


class KnownStreams:
    """What does not change of streams, kept between questions: bounded, and shared by the threads that ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger_id, self._oldest_pos = "", 0
        self._unmarked: dict[str, tuple[float, list[int]]] = {}

    def begin(self, ledger_id: str) -> None:
        """Forget what was known of another ledger."""
        with self._lock:
            if ledger_id != self._ledger_id:
                self._ledger_id, self._oldest_pos = ledger_id, 0
                self._unmarked.clear()

    def oldest_frame(self, file: LedgerFile) -> int | None:
        """Return when the oldest frame row kept was received. Other rows stay for ever, so they are passed over once."""
        with self._lock:
            pos = self._oldest_pos
        rows = file.rows("SELECT pos, received_ms FROM log WHERE pos >= ? AND kind = 'F' ORDER BY pos LIMIT 1", (pos,))
        if not rows:
            return None
        with self._lock:
            self._oldest_pos = int(rows[0][0])
        return int(rows[0][1])

    def unmarked(self, node: str, find: Callable[[], list[int]]) -> list[int]:
        """Return the node's streams that the gateway numbered; a few seconds old at most (the newest rows are in memory)."""
        with self._lock:
            found = self._unmarked.get(node)
        if found is None or time.monotonic() - found[0] > UNMARKED_KEPT_S:
            found = time.monotonic(), find()
            with self._lock:
                self._unmarked[node] = found
        return found[1]


class Finder:
    """Finds one device's rows of one node, for one question."""

    def __init__(self, file: LedgerFile, known: KnownStreams, blocks: BlockCache, node: str, device: str, pos_max: int) -> None:
        """`pos_max`: rows logged after it are not wanted."""
        self._file, self._known, self._blocks = file, known, blocks
        self._node, self._device, self.pos_max = node, device, pos_max
        rows = file.rows("SELECT stream, last_source_ms FROM stream WHERE node = ?", (node,))
        self._streams = {stream: StreamRow(stream, end_ms) for stream, end_ms in rows}
        for stream in known.unmarked(node, self._find_unmarked):
            self._streams.setdefault(stream, StreamRow(stream, None))
        self._ends: dict[tuple[RowKind, int], tuple[int, int] | None] = {}
        self._times: dict[tuple[RowKind, int, int], tuple[int, int]] = {}

    def _find_unmarked(self) -> list[int]:
        found: list[int] = []
        for _ in range(UNMARKED_STREAMS_MAX):
            rows = self._file.rows(
                "SELECT stream FROM log WHERE kind = 'F' AND node = ? AND stream < ? ORDER BY stream DESC LIMIT 1",
                (self._node, found[-1] if found else 0),
            )
            if not rows:
                break
            found.append(rows[0][0])
        return found

    # -- ranges --

    def parts(self, lo_ms: int, hi_ms: int) -> Iterator[StreamPart]:
        """Yield where the samples of [lo_ms, hi_ms) are; there may be others among them."""
        for row in self._streams.values():
            if row.end_ms is not None and row.end_ms < lo_ms:
                continue
            kinds: tuple[RowKind, ...] = ("F", "B")
            for kind in kinds:
                ends = self._numbers(kind, row.stream)
                if ends is None:
                    continue
                lo = self._first_at(kind, row.stream, ends, lo_ms - SLACK_MS)
                hi = self._first_at(kind, row.stream, ends, hi_ms + SLACK_MS)
                if lo <= ends[1]:
                    yield StreamPart(kind, row.stream, lo, min(hi, ends[1]))

    def _numbers(self, kind: RowKind, stream: int) -> tuple[int, int] | None:
        """Return the lowest and highest number of a stream's wanted rows, None without rows."""
        key = (kind, stream)
        if key not in self._ends:
            number = _NUMBER[kind]
            sql = f"SELECT {number}, pos FROM log WHERE kind = '{kind}' AND node = ? AND stream = ? ORDER BY {number}"  # noqa: S608 - our own constants
            first = self._file.rows(f"{sql} LIMIT 1", (self._node, stream))
            last = self._file.rows(f"{sql} DESC LIMIT 1", (self._node, stream))
            ends = (first[0][0], last[0][0]) if first and last else None
            if ends is not None and last[0][1] > self.pos_max:
                ends = self._logged_before(kind, stream, ends)
            self._ends[key] = ends
        return self._ends[key]

    def _logged_before(self, kind: RowKind, stream: int, ends: tuple[int, int]) -> tuple[int, int] | None:
        """Narrow the numbers to about those that were logged up to `pos_max`; positions rise with numbers, nearly."""
        number = _NUMBER[kind]
        sql = (
            f"SELECT {number}, pos FROM log WHERE kind = '{kind}' AND node = ? AND stream = ? AND {number} >= ?"  # noqa: S608 - our own constants
            f" ORDER BY {number} LIMIT 1"
        )
        lo, hi = ends[0], ends[1]
        while lo < hi:
            middle = (lo + hi) // 2
            rows = self._file.rows(sql, (self._node, stream, middle))
            if not rows or rows[0][1] > self.pos_max:
                hi = middle
            else:
                lo = rows[0][0] + 1
        narrowed = min(ends[1], lo + SLACK_NUMBERS)
        return (ends[0], narrowed) if narrowed >= ends[0] else None

    def _first_at(self, kind: RowKind, stream: int, ends: tuple[int, int], at_ms: int) -> int:
        """Return the first number whose row reaches `at_ms`, one above the last where none does."""
        lo, hi = ends[0], ends[1] + 1
        while lo < hi:
            middle = (lo + hi) // 2
            found, newest_ms = self._time_at(kind, stream, middle)
            if newest_ms >= at_ms:
                hi = middle
            else:
                lo = max(middle, found) + 1
        return lo

    def _time_at(self, kind: RowKind, stream: int, number: int) -> tuple[int, int]:
        """Return the number and newest source time of the first row from `number` on; of the device, if it is near."""
        key = (kind, stream, number)
        if key not in self._times:
            self._times[key] = self._frame_time(stream, number) if kind == "F" else self._block_time(stream, number)
        return self._times[key]

    def _frame_time(self, stream: int, number: int) -> tuple[int, int]:
        sql = "SELECT first, body FROM log WHERE kind = 'F' AND node = ? AND stream = ? AND first >= ?"
        rows = self._file.rows(
            f"{sql} AND first < ? AND device = ? ORDER BY first LIMIT 1",
            (self._node, stream, number, number + PROBE_NUMBERS, self._device),
        ) or self._file.rows(f"{sql} ORDER BY first LIMIT 1", (self._node, stream, number))
        for found, body in rows:
            return found, newest_source_ms(body)
        return number, 2**62  # removed by retention meanwhile

    def _block_time(self, stream: int, number: int) -> tuple[int, int]:
        rows = self._file.rows(
            "SELECT pos, last, body FROM log WHERE kind = 'B' AND node = ? AND stream = ? AND last >= ? ORDER BY last LIMIT 1",
            (self._node, stream, number),
        )
        for pos, found, body in rows:
            return found, self._blocks.columns(pos, body).newest_ms
        return number, 2**62
