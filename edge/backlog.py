"""Which backlog blocks are under way, and when one goes again.

Pure. At most eight blocks are unacknowledged; on a slow link fewer, so that live frames never wait behind a
megabyte: the window begins at one block, grows by one with each that is acknowledged promptly and is
halved by each that has to be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.blocks import WireBlock

UNACKED_BLOCKS_MAX: Final = 8
RESEND_S_MIN: Final = 5.0
RESEND_S_MAX: Final = 60.0
PROMPT_S: Final = 0.5
"""An acknowledgement within this long shows that the link carries what is under way."""


@dataclass(slots=True)
class _Flight:
    block: WireBlock
    sent_s: float | None = None
    wait_s: float = RESEND_S_MIN


class Backlog:
    """The window of blocks under way in one session."""

    def __init__(self) -> None:
        self._flights: list[_Flight] = []
        self._window = 1
        self.resent = 0
        """Blocks sent again since the start."""

    def __len__(self) -> int:
        return len(self._flights)

    def room(self) -> bool:
        """Whether another block may be taken in."""
        return len(self._flights) < self._window

    def after(self) -> dict[int, int]:
        """Return for each stream with blocks under way the highest number these speak for."""
        reach: dict[int, int] = {}
        for flight in self._flights:
            block = flight.block
            reach[block.stream] = max(reach.get(block.stream, 0), block.last)
        return reach

    def add(self, block: WireBlock) -> None:
        """Take a block in; `due` gives it out."""
        self._flights.append(_Flight(block))

    def due(self, now_s: float) -> WireBlock | None:
        """Return the next block to send, new or again, and count it as sent now; None if none is due."""
        for flight in self._flights:
            if flight.sent_s is None:
                flight.sent_s = now_s
                return flight.block
            if now_s - flight.sent_s >= flight.wait_s:
                flight.sent_s, flight.wait_s = now_s, min(RESEND_S_MAX, 2 * flight.wait_s)
                self._window = max(1, self._window // 2)
                self.resent += 1
                return flight.block
        return None

    def acked(self, stream: int, upto: int, now_s: float) -> bool:
        """Let go of the stream's blocks up to `upto`; True when that made room."""
        done = [each for each in self._flights if each.block.stream == stream and each.block.last <= upto]
        for flight in done:
            self._flights.remove(flight)
            if flight.sent_s is not None and now_s - flight.sent_s <= PROMPT_S:
                self._window = min(UNACKED_BLOCKS_MAX, self._window + 1)
        return bool(done)

    def clear(self) -> None:
        """The session is over; the next one begins again with the oldest."""
        self._flights, self._window = [], 1
