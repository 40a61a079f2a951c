"""The registers of simulated instruments: tag values in, Modbus words out, and what a reader makes of them.

Pure: no clock, no socket. Values become register words in each point's native type, word order, scale and
offset; the words decode to `float64(native) * scale + offset`, which is what crossings are judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import RegisterMapError

NATIVE_DTYPE = {
    "u16": ">u2",
    "i16": ">i2",
    "u32": ">u4",
    "i32": ">i4",
    "u64": ">u8",
    "i64": ">i8",
    "f32": ">f4",
    "f64": ">f8",
}
BIT_TABLES = frozenset({"coil", "discrete"})
TABLE_OF_FUNCTION = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
ADDRESSES = 65536

Words = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class PointSpec:
    """Where one tag's value sits: `address` is the wire address (base 0)."""

    tag: str
    device: str
    server: str  # the listener that answers for it, e.g. "EDGE1/BUS1"
    unit: int
    table: str  # holding | input | coil | discrete
    address: int
    native: str  # bit | u16 | … | f64
    bit: int | None = None
    word_order: str = "ABCD"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def width(self) -> int:
        """Registers (or bits of a bit table) that the point takes."""
        return 1 if self.native == "bit" else int(NATIVE_DTYPE[self.native][2:]) // 2


@dataclass(frozen=True, slots=True)
class Place:
    """A run of addresses of one unit's table."""

    server: str
    unit: int
    table: str
    address: int
    width: int

    def overlaps(self, address: int, count: int) -> bool:
        """Whether a read of `count` from `address` touches this place."""
        return address < self.address + self.width and self.address < address + count


@dataclass(frozen=True, slots=True)
class _Table:
    """`span` addresses from `first`, stored at `base` of the image's flat word array."""

    first: int
    span: int
    base: int


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Points of one native type and word order; `words` int64[n, width] are indexes into the flat array."""

    native: str
    word_order: str
    point: NDArray[np.int64]
    words: NDArray[np.int64]
    bit: NDArray[np.uint16]


class RegisterImage:
    """All registers of all units behind all listeners, written as one atomic step."""

    def __init__(self, points: Sequence[PointSpec]) -> None:
        """Lay out the tables.

        Raises:
            RegisterMapError: a point lies beyond address 65535, or has an unknown type.
        """
        self.points = tuple(points)
        self.scale = np.array([p.scale for p in points], np.float64)
        self.offset = np.array([p.offset for p in points], np.float64)
        self.places = tuple(Place(p.server, p.unit, p.table, p.address, p.width) for p in points)
        self._tables = _lay_out(self.places)
        words = sum(table.span for table in self._tables.values())
        self._words: Words = np.zeros(words, np.uint16)
        self._groups = self._make_groups()
        self.value = np.full(len(self.points), np.nan)

    @property
    def units(self) -> frozenset[tuple[str, int]]:
        """The (listener, unit) pairs that exist."""
        return frozenset((server, unit) for server, unit, _ in self._tables)

    def write(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Write one value per point and return what a reader will decode: float64[n], in the tag's unit.

        A value outside the native type is pinned to its end; NaN in an integer becomes the pattern that
        instruments use for "not available" (0x8000… signed, 0xFFFF… unsigned).
        """
        with np.errstate(all="ignore"):
            native = (value - self.offset) / self.scale
            decoded = np.empty_like(native)
            for group in self._groups:
                decoded[group.point] = self._write_group(group, native[group.point])
            self.value = decoded * self.scale + self.offset
        return self.value

    def read(self, server: str, unit: int, table: str, address: int, count: int) -> list[int] | None:
        """Return `count` words (or 0/1 of a bit table), or None when the device has no such addresses.

        Unused addresses between the first and the last point of a table read as 0, as most devices do.
        """
        found = self._tables.get((server, unit, table))
        if found is None or address < found.first or address + count > found.first + found.span:
            return None
        start = found.base + address - found.first
        words: list[int] = self._words[start : start + count].tolist()
        return words

    def _write_group(self, group: _Group, native: NDArray[np.float64]) -> NDArray[np.float64]:
        if group.native == "bit":
            bits = (np.nan_to_num(native) >= 0.5).astype(np.uint16)
            index = group.words[:, 0]
            np.bitwise_and.at(self._words, index, ~(np.uint16(1) << group.bit))
            np.bitwise_or.at(self._words, index, bits << group.bit)
            return bits.astype(np.float64)
        exact = to_native(group.native, native)
        self._words[group.words] = to_words(exact, group.word_order)
        return exact.astype(np.float64)

    def _make_groups(self) -> tuple[_Group, ...]:
        members: dict[tuple[str, str], list[int]] = {}
        for i, point in enumerate(self.points):
            order = "ABCD" if point.native == "bit" else point.word_order
            members.setdefault((point.native, order), []).append(i)
        groups = []
        # bits last: the same register may also be mapped as a word, and bits are the finer statement
        for (native, order), index in sorted(members.items(), key=lambda item: item[0][0] == "bit"):
            width = self.points[index[0]].width
            start = np.array([self._index_of(self.places[i]) for i in index], np.int64)
            groups.append(
                _Group(
                    native=native,
                    word_order=order,
                    point=np.array(index, np.int64),
                    words=start[:, None] + np.arange(width),
                    bit=np.array([self.points[i].bit or 0 for i in index], np.uint16),
                )
            )
        return tuple(groups)

    def _index_of(self, place: Place) -> int:
        table = self._tables[place.server, place.unit, place.table]
        return table.base + place.address - table.first


def _lay_out(places: Iterable[Place]) -> dict[tuple[str, int, str], _Table]:
    ends: dict[tuple[str, int, str], tuple[int, int]] = {}
    for place in places:
        end = place.address + place.width
        if end > ADDRESSES:
            raise RegisterMapError(f"unit {place.unit}: register {place.address} runs past address 65535")
        key = (place.server, place.unit, place.table)
        low, high = ends.get(key, (place.address, end))
        ends[key] = (min(low, place.address), max(high, end))
    tables, base = {}, 0
    for key, (low, high) in ends.items():
        tables[key] = _Table(low, high - low, base)
        base += high - low
    return tables


def to_native(native: str, value: NDArray[np.float64]) -> NDArray[np.generic]:
    """Quantise to the native type, big-endian; integers are rounded and pinned to the type's ends."""
    dtype = np.dtype(NATIVE_DTYPE[native])
    if dtype.kind == "f":
        return value.astype(dtype)
    limits = np.iinfo(dtype)
    # float64 cannot hold 2**63 - 1: pinning to the next float below keeps the cast inside the type
    top = float(limits.max) if limits.bits < 64 else np.nextafter(float(limits.max), 0.0)
    pinned = np.clip(np.rint(np.nan_to_num(value)), float(limits.min), top).astype(dtype)
    absent = limits.min if dtype.kind == "i" else limits.max
    return np.where(np.isnan(value), np.array(absent, dtype), pinned).astype(dtype)


def to_words(native: NDArray[np.generic], word_order: str) -> Words:
    """Split big-endian values into uint16[n, width] in wire order; CDAB swaps words, BADC bytes."""
    octets = np.ascontiguousarray(native).view(np.uint8).reshape(len(native), -1, 2)
    if word_order in {"CDAB", "DCBA"}:
        octets = octets[:, ::-1, :]
    if word_order in {"BADC", "DCBA"}:
        octets = octets[:, :, ::-1]
    words: Words = np.ascontiguousarray(octets).view(">u2")[:, :, 0].astype(np.uint16)
    return words
