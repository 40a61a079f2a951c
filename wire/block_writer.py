"""Lays a spool block out as a body of bytes; `block_reader` reads it, and `block_codec` seals it.

    stream, first, last, predecessor, predecessor_last; node; dropped: count, (first, last) each, reasons
    devices: count, names, frame counts      clocks: count, device of each      columns: count, tags
    per column: clock, native type, flags, code (where one serves all rows), scales, offsets
    bitmaps of the frames a column has samples in, where not in every one; codes, where they differ
    series of all devices' frame numbers, all clocks' times, all columns' bits: kinds, starts, slopes, planes

Numbers are groups of seven bits, lowest first; names are their lengths, a byte each, then their UTF-8. Starts
and slopes are 64-bit words turned into eight planes of bytes; scales and offsets are little-endian float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire.block import (
    COLUMNS_MAX,
    EVERY_FRAME,
    KNOWN_CODE,
    ONE_CODE,
    SAMPLES_MAX,
    SOURCE_MS_MAX,
    TEXT_BYTES_MAX,
    BlockColumn,
    BlockTooLargeError,
    InvalidBlockError,
    SpoolBlock,
    check_numbers,
    check_one_device,
    devices_of,
)
from wire.block_series import Series, encode_series
from wire.native import WIDTH_BITS

_CLOCKS_TRIED_MAX: Final = 16  # per column; beyond it the column gets a clock of its own


@dataclass(slots=True, eq=False)
class _Clock:
    """Times of a device's frames as one group of tags saw them; `known` marks the rows that a tag has set."""

    device: int
    source_ms: NDArray[np.int64]
    known: NDArray[np.bool_]

    def take(self, rows: NDArray[np.intp], source_ms: NDArray[np.int64]) -> bool:
        """Learn a column's times; False, and nothing learnt, if they contradict what is known."""
        if bool((self.known[rows] & (self.source_ms[rows] != source_ms)).any()):
            return False
        self.source_ms[rows] = source_ms
        self.known[rows] = True
        return True

    def filled(self) -> NDArray[np.uint64]:
        """Return the times with rows that no tag has set on the line between their neighbours."""
        if not self.known.all():
            at = np.arange(len(self.known))
            gaps = np.interp(at[~self.known], at[self.known], self.source_ms[self.known].astype(np.float64))
            self.source_ms[~self.known] = np.rint(gaps).astype(np.int64)
        return self.source_ms.view(np.uint64)


@dataclass(slots=True)
class _Layout:
    """The body while it is gathered: small things first, then one header per series, then the bulk."""

    clocks: list[_Clock] = field(default_factory=list)
    clock_of: list[int] = field(default_factory=list)
    flags: bytearray = field(default_factory=bytearray)
    first_codes: bytearray = field(default_factory=bytearray)
    members: list[bytes] = field(default_factory=list)
    codes: list[bytes] = field(default_factory=list)
    bits: list[Series] = field(default_factory=list)


def pack(block: SpoolBlock) -> bytes:
    """Return the body. Raises as `encode_block` does, but for the limits in bytes."""
    check_numbers(block)
    if len(block.columns) > COLUMNS_MAX:
        raise BlockTooLargeError("columns", len(block.columns), COLUMNS_MAX)
    if block.samples > SAMPLES_MAX:
        raise BlockTooLargeError("samples", block.samples, SAMPLES_MAX)
    if len({column.tag for column in block.columns}) != len(block.columns):
        raise InvalidBlockError("two columns of one tag")
    devices = devices_of(block.columns)
    numbers = {device: _frame_numbers(block, columns) for device, columns in devices.items()}
    check_one_device(list(numbers.values()))
    layout, index = _Layout(), {device: at for at, device in enumerate(devices)}
    for column in block.columns:
        _lay(layout, column, index[column.device], numbers[column.device])
    if sum(len(clock.known) for clock in layout.clocks) > SAMPLES_MAX:
        raise BlockTooLargeError("clock rows", sum(len(clock.known) for clock in layout.clocks), SAMPLES_MAX)
    series = [encode_series(frames.view(np.uint64), 64) for frames in numbers.values()]
    series += [encode_series(clock.filled(), 64) for clock in layout.clocks]
    series += layout.bits
    natives = bytes(column.native for column in block.columns)
    factors = np.array([[column.scale for column in block.columns],
                        [column.offset for column in block.columns]], "<f8")
    return b"".join((
        _numbers((block.stream, block.first, block.last, block.predecessor, block.predecessor_last)),
        _texts([block.node]),
        _numbers([len(block.dropped)]), _numbers([n for gap in block.dropped for n in (gap.first, gap.last)]),
        _texts([gap.reason for gap in block.dropped]),
        _numbers([len(devices)]), _texts(list(devices)), _numbers([len(n) for n in numbers.values()]),
        _numbers([len(layout.clocks)]), _numbers([clock.device for clock in layout.clocks]),
        _numbers([len(block.columns)]), _texts([column.tag for column in block.columns]),
        _numbers(layout.clock_of), natives, layout.flags, layout.first_codes, factors.tobytes(),
        *layout.members, *layout.codes,
        bytes(one.shape << 4 | one.residual_bytes for one in series),
        _planes_of_words([one.start for one in series]), _planes_of_words([one.slope for one in series]),
        *(one.planes for one in series),
    ))


def _lay(layout: _Layout, column: BlockColumn, device: int, numbers: NDArray[np.int64]) -> None:
    """Add one column: which frames it has samples in, by which clock, of what quality, and its bits."""
    width = WIDTH_BITS[column.native]
    if width < 64 and len(column) and int(column.bits.max()) >> width:
        raise InvalidBlockError(f"{column.tag}: bits beyond the {width} of its type")
    if not KNOWN_CODE[column.code].all():
        raise InvalidBlockError(f"{column.tag}: a code that is no quality code")
    rows = np.searchsorted(numbers, column.sequence)
    flags = 0
    if len(column) == len(numbers):
        flags |= EVERY_FRAME
    else:
        member = np.zeros(len(numbers), np.bool_)
        member[rows] = True
        layout.members.append(np.packbits(member).tobytes())
    if len(column) == 0 or bool((column.code == column.code[0]).all()):
        flags |= ONE_CODE
        layout.first_codes.append(int(column.code[0]) if len(column) else 0)
    else:
        layout.codes.append(column.code.tobytes())
    layout.flags.append(flags)
    layout.bits.append(encode_series(column.bits, width))
    own = [at for at in range(len(layout.clocks)) if layout.clocks[at].device == device]
    for at in own[-_CLOCKS_TRIED_MAX:]:
        if layout.clocks[at].take(rows, column.source_ms):
            layout.clock_of.append(at)
            return
    clock = _Clock(device, np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.bool_))
    clock.take(rows, column.source_ms)
    if not len(column):
        clock.known[:] = True
    layout.clock_of.append(len(layout.clocks))
    layout.clocks.append(clock)


def _frame_numbers(block: SpoolBlock, columns: list[BlockColumn]) -> NDArray[np.int64]:
    """Return the numbers of a device's frames, ascending."""
    for column in columns:
        numbers, times = column.sequence, column.source_ms
        if not (math.isfinite(column.scale) and math.isfinite(column.offset)):
            raise InvalidBlockError(f"{column.tag}: scale or offset is not a number")
        if not len(column):
            continue
        if bool((numbers[1:] <= numbers[:-1]).any()):
            raise InvalidBlockError(f"{column.tag}: frame numbers do not increase")
        if numbers[0] < block.first or numbers[-1] > block.last:
            raise InvalidBlockError(f"{column.tag}: frame numbers outside the block's stretch")
        if times.min() < 0 or times.max() > SOURCE_MS_MAX:
            raise InvalidBlockError(f"{column.tag}: source time out of range")
    return np.unique(np.concatenate([column.sequence for column in columns]))


def _numbers(numbers: list[int] | tuple[int, ...]) -> bytes:
    """Return each number in groups of seven bits, lowest first, the top bit set on all but its last."""
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _texts(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    for one in encoded:
        if len(one) > TEXT_BYTES_MAX:
            raise InvalidBlockError(f"a name of {len(one)} bytes, at most {TEXT_BYTES_MAX} fit")
    return bytes(len(one) for one in encoded) + b"".join(encoded)


def _planes_of_words(words: list[int]) -> bytes:
    return np.array(words, "<u8").view(np.uint8).reshape(len(words), 8).T.tobytes()
