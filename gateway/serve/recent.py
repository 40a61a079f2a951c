"""The newest frames of every device, packed as the ledger has them: most questions are about the last minutes.

Bounded in bytes over all devices. What it says of a device is complete from a log position on, so that the ledger is
asked only for what lies before. Written by one thread, read by any.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, NamedTuple

BYTES_MAX: Final = 128 * 1024 * 1024
FRAME_OVERHEAD_BYTES: Final = 260  # what Python needs for one, beside its body


class StoredFrame(NamedTuple):
    """One row of the log that holds samples.

    Attributes:
        stream, first: of the frame; of a block its first number; 0 and its log position for a foreign node's stored data.
        last_ms: newest source time in it, 0 for a block.
        late_upto: frames numbered up to here were late. fresh: JSON [[lo, hi], …] of a block's new frames, None: all.
        refused: JSON [tag, …] of a block's tags that core did not take from its node, None: none.
    """

    pos: int
    stream: int
    first: int
    body: bytes
    last_ms: int
    is_block: bool = False
    late_upto: int = 0
    fresh: str | None = None
    refused: str | None = None


class Held(NamedTuple):
    """All rows of a device after log position `after_pos`; nothing of it was sampled later than `after_ms` before that."""

    frames: list[StoredFrame]
    after_pos: int


@dataclass(slots=True)
class _Device:
    frames: deque[StoredFrame] = field(default_factory=deque)
    dropped_pos: int = 0


class RecentFrames:
    """Keyed by (node, device); blocks speak for a whole node and stand under the empty device."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._lock = threading.Lock()
        self._bytes_max = bytes_max
        self._devices: dict[tuple[str, str], _Device] = {}
        self._order: deque[tuple[str, str]] = deque()  # whose frame is the oldest, next oldest …
        self._from_pos = 0
        self._ledger_id = ""
        self.bytes = 0

    def begin(self, ledger_id: str, after_pos: int) -> None:
        """Forget everything; what comes is complete after this position of this ledger."""
        with self._lock:
            self._devices.clear()
            self._order.clear()
            self._ledger_id, self._from_pos, self.bytes = ledger_id, after_pos, 0

    def add(self, node: str, device: str, frame: StoredFrame) -> None:
        """Take the next row, in log order; the oldest go to make room."""
        key = (node, "" if frame.is_block else device)
        with self._lock:
            self._devices.setdefault(key, _Device()).frames.append(frame)
            self._order.append(key)
            self.bytes += len(frame.body) + FRAME_OVERHEAD_BYTES
            while self.bytes > self._bytes_max:
                oldest = self._devices[self._order.popleft()]
                gone = oldest.frames.popleft()
                oldest.dropped_pos = gone.pos
                self.bytes -= len(gone.body) + FRAME_OVERHEAD_BYTES

    def of(self, ledger_id: str, node: str, device: str, after: int = 0) -> Held | None:
        """Return what is held of a device after a log position, blocks of its node included, in log order.

        None for another ledger.
        """
        with self._lock:
            if ledger_id != self._ledger_id or not ledger_id:
                return None
            own, blocks = self._devices.get((node, device)), self._devices.get((node, ""))
            held = [each for each in (own, blocks) if each is not None]
            frames = [frame for each in held for frame in _after(each.frames, after)]
            after_pos = max([self._from_pos, *(each.dropped_pos for each in held)])
        if blocks is not None:
            frames.sort(key=lambda frame: frame.pos)
        if frames and frames[0].pos <= after_pos:  # one of the two lost more than the other
            frames = [frame for frame in frames if frame.pos > after_pos]
        return Held(frames, after_pos)


def _after(frames: deque[StoredFrame], pos: int) -> list[StoredFrame]:
    """Return the newest rows, those after a position."""
    if not pos:
        return list(frames)
    found = list(takewhile(lambda frame: frame.pos > pos, reversed(frames)))
    found.reverse()
    return found
