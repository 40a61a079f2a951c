"""How a simulated instrument misbehaves on its Modbus line. What a *sensor* does wrong is in plant.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DELAY_S_MAX = 60.0


class FaultKind(StrEnum):
    """One way to fail."""

    NO_ANSWER = "no_answer"  # takes the request and stays silent
    EXCEPTION = "exception"  # answers with exception `code`
    FREEZE = "freeze"  # keeps answering with the registers of the moment it froze
    GARBAGE = "garbage"  # answers with random bytes
    TRUNCATED = "truncated"  # sends the first half of the right answer
    WRONG_TRANSACTION = "wrong_transaction"  # right answer under another transaction id
    SLOW = "slow"  # right answer after `delay_s`
    CLOSE = "close"  # closes the connection on every request


@dataclass(frozen=True, slots=True)
class InstrumentFault:
    """A standing fault of one device.

    `first`/`last` narrow an exception to reads that touch those addresses (a hole in the map); by default
    every read is hit. `delay_s` is for SLOW, `code` (1…255) for EXCEPTION.
    """

    kind: FaultKind
    code: int = 4
    delay_s: float = 1.0
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.code <= 255:
            raise ValueError(f"exception code {self.code} is not within 1…255")
        if not 0 <= self.delay_s <= DELAY_S_MAX:
            raise ValueError(f"delay_s {self.delay_s:g} is not within 0…{DELAY_S_MAX:g}")

    def hits(self, address: int, count: int) -> bool:
        """Whether a read of `count` addresses from `address` meets this fault."""
        first = 0 if self.first is None else self.first
        last = 65535 if self.last is None else self.last
        return address <= last and first < address + count
