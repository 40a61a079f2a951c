"""How long a line without transaction ids must rest after a timeout, as a pure decision.

A gateway that does not echo transaction ids can answer late, and the late answer would pass for the next
one. So after a timeout nothing is asked until the line has been silent for the longest reply time ever seen,
and the unit's first request then has another byte count than the ones it still owes. An answer that is later
than that, and later than the next request of the same size, cannot be told apart: that is the stated bound.
"""

from __future__ import annotations

from typing import Final

from edge.modbus import ADDRESSES, ReadFunction, ReadRequest
from edge.plan import BITS_MAX, REGISTERS_MAX

REPLY_S_MAX: Final = 5.0
"""Reply times beyond this are not learned, so that one hiccup does not slow a line for ever."""
MARGIN_S: Final = 0.00401
"""3.5 characters at 9600 baud, the pause that ends a frame on the serial side of the gateway."""
CLOCK_S: Final = 1e-6
"""A rest shorter than any clock's step is over: waiting for it would never end."""


class LineSilence:
    """Facts about one line: who owes an answer, how late answers can be. All times are monotonic seconds."""

    def __init__(self) -> None:
        self.worst_reply_s = 0.0
        self._owed: dict[int, set[int]] = {}
        """unit: byte counts of the answers it never gave."""
        self._since: float | None = None
        self._sent = 0.0

    def timed_out(self, request: ReadRequest, sent: float, now: float) -> None:
        """A request sent at `sent` was given up at `now`."""
        self._owed.setdefault(request.unit, set()).add(request.answer_bytes)
        self._since, self._sent = now, sent
        if self.worst_reply_s == 0.0:
            self._learn(now - sent)

    def replied(self, request: ReadRequest, elapsed_s: float) -> None:
        """An answer of the awaited size came: the unit is in step again."""
        self._owed.pop(request.unit, None)
        self._learn(elapsed_s)

    def remaining_s(self, now: float, heard_at: float) -> float:
        """Return the seconds the line must still rest; `heard_at` is when the last byte came."""
        if self._since is None:
            return 0.0
        if heard_at > self._since:
            self._learn(heard_at - self._sent)
        remaining_s = max(self._since, heard_at) + self.worst_reply_s + MARGIN_S - now
        if remaining_s < CLOCK_S:
            self._since = None
            return 0.0
        return remaining_s

    def probe_for(self, request: ReadRequest) -> ReadRequest | None:
        """Return the request to send, and forget, before `request`; None when it may go at once."""
        owed = self._owed.get(request.unit)
        if owed is None or request.answer_bytes not in owed:
            return None
        is_bits = request.function <= ReadFunction.READ_DISCRETE_INPUTS
        step, count_max = (8, BITS_MAX) if is_bits else (1, REGISTERS_MAX)
        for count in (*range(request.count - step, 0, -step), request.count + step):
            if count <= count_max:
                address = min(request.address, ADDRESSES - count)
                probe = ReadRequest(request.unit, request.function, address, count)
                if probe.answer_bytes not in owed:
                    return probe
        # Every size is owed: only the silence protects, and the debts are as old as the line's whole outage.
        return None

    def _learn(self, elapsed_s: float) -> None:
        self.worst_reply_s = min(REPLY_S_MAX, max(self.worst_reply_s, elapsed_s))
