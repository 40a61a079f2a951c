"""Modbus TCP client without a socket: requests in, bytes out; bytes in, answers out.

It can only read. `ReadFunction` is the whole set of function codes that exist here, and a request takes
nothing else, so no sequence of calls forms a write. It trusts no answer: transaction, unit, function and
byte count must all be those of the request that is out, or the frame is discarded and counted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from edge.plan import BITS_MAX, REGISTERS_MAX, Block, Table

UNIT_MAX: Final = 255
ADDRESSES: Final = 65536
HEADER_BYTES: Final = 6
"""Transaction (2), protocol (2), length (2); the length counts what follows: unit, function, body."""
LENGTH_MIN, LENGTH_MAX = 2, 254
"""Unit and function at least; unit and a 253-byte PDU at most."""
EXCEPTION_FLAG: Final = 0x80
DISCARDS_IN_A_ROW_MAX: Final = 3
"""Wrong frames without a right one between them, after which only a new connection can be trusted."""
ABANDONED_MAX: Final = 16
"""Timed-out transactions whose late answer is told apart from a wrong one."""

EXCEPTION_MEANINGS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledged, still working",
    6: "server device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target failed to respond",
}

_REQUEST = struct.Struct(">HHHBBHH")
_ENVELOPE = struct.Struct(">HHHBB")


class ReadFunction(IntEnum):
    """Every function code this program can send."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4


FUNCTION_OF_TABLE: Final = {
    Table.COIL: ReadFunction.READ_COILS,
    Table.DISCRETE: ReadFunction.READ_DISCRETE_INPUTS,
    Table.HOLDING: ReadFunction.READ_HOLDING_REGISTERS,
    Table.INPUT: ReadFunction.READ_INPUT_REGISTERS,
}


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Read `count` registers (or bits) from wire address `address` (base 0) of `unit`.

    Raises:
        ValueError: a field is outside what the protocol can carry (a bug of the caller: `plan` keeps to it).
    """

    unit: int
    function: ReadFunction
    address: int
    count: int
    answer_bytes: int = field(init=False)
    """Bytes of register or bit content that the right answer carries."""

    def __post_init__(self) -> None:
        if type(self.function) is not ReadFunction:
            raise ValueError(f"{self.function!r} is not a read function")
        is_bits = self.function <= ReadFunction.READ_DISCRETE_INPUTS
        if not 0 <= self.unit <= UNIT_MAX:
            raise ValueError(f"unit {self.unit} is not within 0 to {UNIT_MAX}")
        if not 1 <= self.count <= (BITS_MAX if is_bits else REGISTERS_MAX):
            raise ValueError(f"cannot read {self.count} in one request")
        if not 0 <= self.address <= ADDRESSES - self.count:
            raise ValueError(f"addresses {self.address} to {self.address + self.count - 1} do not exist")
        object.__setattr__(self, "answer_bytes", (self.count + 7) // 8 if is_bits else 2 * self.count)


def request_for(unit: int, block: Block) -> ReadRequest:
    """Return the request that reads `block` from `unit`."""
    return ReadRequest(unit, FUNCTION_OF_TABLE[block.table], block.address, block.count)


def meaning_of(exception_code: int) -> str:
    """Return the specification's words for an exception code, or "unknown"."""
    return EXCEPTION_MEANINGS.get(exception_code, "unknown")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The right device answered the right request with an exception code (0…255)."""

    exception_code: int


@dataclass(slots=True)
class LinkCounts:
    """What came in on one connection, or on all connections of one bus."""

    answers: int = 0
    refusals: int = 0
    late: int = 0
    """Answers of a request that had been given up: dropped."""
    discarded: int = 0
    """Frames with a wrong transaction, unit, function or byte count, or that nobody asked for: dropped."""
    framing_lost: int = 0
    """Headers that no Modbus frame can have: the byte stream is unusable from there on."""


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A request that is out, or was given up; `transaction` None accepts any."""

    read: ReadRequest
    transaction: int | None

    def fits(
        self, transaction: int, unit: int, function: int, buffer: bytes | bytearray, body: int, end: int
    ) -> bool:
        """Tell whether the frame with its body at buffer[body:end] answers or refuses this very request."""
        read = self.read
        if unit != read.unit or (transaction != self.transaction and self.transaction is not None):
            return False
        if function == read.function:
            return end - body == read.answer_bytes + 1 and buffer[body] == read.answer_bytes
        return function == read.function | EXCEPTION_FLAG and end - body == 1


class ModbusTcpCore:
    """One connection's protocol state: at most one request is out at any time.

    `must_reset` becomes true when the stream cannot be trusted any more (several wrong frames in a row, or
    a header that is not Modbus); from then on nothing is accepted and the shell opens a new connection.
    """

    def __init__(self, counts: LinkCounts | None = None, *, transaction: int = 0) -> None:
        """Start a connection.

        `counts` lets the connections of one bus share their counters. `transaction` is the last id used on
        the one before: some gateways send an answer owed to an old connection down the new one.
        """
        self.counts = LinkCounts() if counts is None else counts
        self.must_reset = False
        self._pending = bytearray()
        self.transaction = transaction
        self._awaited: _Awaited | None = None
        self._abandoned: list[_Awaited] = []
        self._discards_in_a_row = 0

    def request(self, read: ReadRequest, *, match_transaction: bool = True) -> bytes:
        """Return the bytes to send for `read`, and expect its answer from now on.

        `match_transaction` false is for gateways that answer with a transaction id of their own; the shell
        then has to keep the line silent after a timeout.
        """
        if self._awaited is not None:
            raise RuntimeError("a request is still out on this connection")
        self.transaction = (self.transaction + 1) & 0xFFFF
        self._awaited = _Awaited(read, self.transaction if match_transaction else None)
        if not match_transaction:
            # Half a frame left from before the silence would swallow the head of the next answer, and with
            # no transaction id to tell them apart the mixture could pass for it.
            self._pending = bytearray()
        return _REQUEST.pack(
            self.transaction, 0, HEADER_BYTES, read.unit, read.function.value, read.address, read.count
        )

    def give_up(self) -> None:
        """Stop waiting: the deadline has passed. An answer that still comes is late and is dropped."""
        if self._awaited is not None:
            self._abandoned.append(self._awaited)
            self._awaited = None
            del self._abandoned[:-ABANDONED_MAX]

    def receive(self, segment: bytes) -> bytes | Refusal | None:
        """Take what the socket gave, in whatever pieces, and return the awaited answer if it is complete.

        Returns:
            The answer's register or bit content, its refusal, or None when it has not come (yet).
        """
        answer: bytes | Refusal | None = None
        buffer: bytes | bytearray = segment
        if self._pending:
            self._pending += segment
            buffer = self._pending
        at, end = 0, len(buffer)
        while not self.must_reset and end - at > HEADER_BYTES + 1:
            transaction, protocol, length, unit, function = _ENVELOPE.unpack_from(buffer, at)
            if protocol or not LENGTH_MIN <= length <= LENGTH_MAX:
                self.counts.framing_lost += 1
                self.must_reset = True
                break
            body, at_next = at + HEADER_BYTES + 2, at + HEADER_BYTES + length
            if at_next > end:
                break
            if self._is_awaited(transaction, unit, function, buffer, body, at_next):
                answer = self._settle(function, buffer, body, at_next)
            else:
                self._discard(transaction, unit, function, buffer, body, at_next)
            at = at_next
        if self.must_reset or at == end:
            self._pending = bytearray()
        else:
            self._pending = bytearray(buffer[at:end])
        return answer

    def _is_awaited(
        self, transaction: int, unit: int, function: int, buffer: bytes | bytearray, body: int, end: int
    ) -> bool:
        awaited = self._awaited
        return awaited is not None and awaited.fits(transaction, unit, function, buffer, body, end)

    def _settle(self, function: int, buffer: bytes | bytearray, body: int, end: int) -> bytes | Refusal:
        self._awaited = None
        self._discards_in_a_row = 0
        if function & EXCEPTION_FLAG:
            self.counts.refusals += 1
            return Refusal(buffer[body])
        self.counts.answers += 1
        return bytes(buffer[body + 1 : end])

    def _discard(
        self, transaction: int, unit: int, function: int, buffer: bytes | bytearray, body: int, end: int
    ) -> None:
        for abandoned in self._abandoned:
            if abandoned.fits(transaction, unit, function, buffer, body, end):
                self._abandoned.remove(abandoned)
                self.counts.late += 1
                return
        self.counts.discarded += 1
        self._discards_in_a_row += 1
        self.must_reset = self._discards_in_a_row >= DISCARDS_IN_A_ROW_MAX
