"""Registers to the cheapest block reads, as a pure function.

It never asks for a register beyond the device's limits, never mixes tables, and never reads one value
in two requests: two halves of a float taken at different moments are a value that never existed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edge.errors import PlanError

REGISTERS_MAX: Final = 125
"""Registers that one read may ask for (Modbus Application Protocol 1.1b3, function codes 3 and 4)."""
BITS_MAX: Final = 2000
"""Coils or discrete inputs that one read may ask for (the same, function codes 1 and 2)."""
BITS_PER_REGISTER: Final = 16
REQUEST_COST_TCP: Final = 1000.0
"""What one more request costs over TCP, in registers on the wire. A device needs milliseconds to turn a
request round and 0.2 µs to send a register, so fewer requests always win and fewer registers break ties."""


class Table(Enum):
    """The four Modbus tables, each an address space of its own."""

    COIL = "coil"
    DISCRETE = "discrete"
    INPUT = "input"
    HOLDING = "holding"

    @property
    def is_bits(self) -> bool:
        return self in (Table.COIL, Table.DISCRETE)


@dataclass(frozen=True, slots=True)
class Span:
    """The registers (or coils) that one point occupies; `row` is the caller's name for the point."""

    row: int
    table: Table
    address: int
    width: int
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Atom:
    """Addresses [start, end) that must be read in one request, and the rows that live there."""

    start: int
    end: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One read: `count` registers (or coils) of `table` from `address`, serving all `atoms`."""

    table: Table
    address: int
    count: int
    atoms: tuple[Atom, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(row for atom in self.atoms for row in atom.rows)


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What one device takes.

    `gap_max` is the longest run of unwanted registers, or 16 times as many coils, that a read may bridge
    (None: only cost decides; 0: never touch an address nobody asked for). `request_cost` is in registers,
    see `plan_reads`.
    """

    registers_max: int = REGISTERS_MAX
    bits_max: int = BITS_MAX
    gap_max: int | None = None
    request_cost: float = REQUEST_COST_TCP


def plan_reads(spans: Iterable[Span], limits: PlanLimits) -> list[Block]:
    """Return the cheapest reads that cover all spans, ordered by table and address.

    The cost of a plan is the sum over its reads of `request_cost` + registers read (a coil is 1/16).
    Bridging a gap of g registers therefore pays exactly when g < request_cost, as far as the limits let it.

    Worked example, request_cost 10, registers_max 8, gap_max none, holding registers, f32 at 0, 2, 6, 20:

        address   0 1 2 3 4 5 6 7 … 20 21
        wanted    a a b b . . c c …  d  d

        {a b c} {d}   10 + 8 + 10 + 2 = 30   <- chosen: the gap of 2 costs less than a request
        {a b} {c} {d} 10 + 4 + 10 + 2 + 10 + 2 = 38
        {a b c d}     10 + 22 = 32, and 22 registers exceed the limit of 8

    With registers_max 7, {a b c} no longer fits, and {a b} {c} {d} = 38 beats {a} {b c} {d} = 40: there the
    gap of 2 is paid for and saves no request.

    Raises:
        PlanError: one value is wider than the device lets us read at once.
    """
    tables: dict[Table, list[Span]] = {}
    for span in spans:
        tables.setdefault(span.table, []).append(span)
    blocks: list[Block] = []
    for table in Table:
        if table not in tables:
            continue
        length_max = limits.bits_max if table.is_bits else limits.registers_max
        atoms = _atoms(tables[table], length_max)
        blocks.extend(_cheapest(table, atoms, length_max, limits))
    return blocks


def block_of(table: Table, atoms: Sequence[Atom]) -> Block:
    """Return the read that just covers `atoms` (sorted, not empty)."""
    return Block(table, atoms[0].start, atoms[-1].end - atoms[0].start, tuple(atoms))


def halves(block: Block) -> tuple[Block, Block]:
    """Split a block of two or more atoms into two, to find out which half a device refuses."""
    middle = len(block.atoms) // 2
    return block_of(block.table, block.atoms[:middle]), block_of(block.table, block.atoms[middle:])


def _atoms(spans: list[Span], length_max: int) -> list[Atom]:
    """Join overlapping spans (a word read as a number and as bits) so that no cut can separate them."""
    atoms: list[Atom] = []
    for span in sorted(spans, key=lambda span: (span.address, span.width)):
        end = span.address + span.width
        if span.width > length_max:
            raise PlanError(span.tag, span.width, length_max)
        if atoms and span.address < atoms[-1].end:
            last = atoms[-1]
            joined = max(last.end, end)
            if joined - last.start > length_max:
                raise PlanError(span.tag, joined - last.start, length_max)
            atoms[-1] = Atom(last.start, joined, (*last.rows, span.row))
        else:
            atoms.append(Atom(span.address, end, (span.row,)))
    return atoms


def _cheapest(table: Table, atoms: list[Atom], length_max: int, limits: PlanLimits) -> list[Block]:
    """Shortest path over cuts: best[j] = end[j-1] + cost + min(best[i] - start[i]) over reads i..j-1.

    The minimum runs over a window that only moves forward, so a deque keeps it in O(n) overall.
    """
    weight = BITS_PER_REGISTER if table.is_bits else 1
    request_cost = limits.request_cost * weight
    gap_max = math.inf if limits.gap_max is None else limits.gap_max * weight
    best = [0.0] * (len(atoms) + 1)
    first_of = [0] * (len(atoms) + 1)
    window: deque[tuple[float, int]] = deque()
    for j, atom in enumerate(atoms):
        if j and atom.start - atoms[j - 1].end > gap_max:
            window.clear()
        candidate = best[j] - atom.start
        while window and window[-1][0] > candidate:
            window.pop()
        window.append((candidate, j))
        while atom.end - atoms[window[0][1]].start > length_max:
            window.popleft()
        best[j + 1] = window[0][0] + atom.end + request_cost
        first_of[j + 1] = window[0][1]
    blocks: list[Block] = []
    j = len(atoms)
    while j:
        blocks.append(block_of(table, atoms[first_of[j] : j]))
        j = first_of[j]
    blocks.reverse()
    return blocks
