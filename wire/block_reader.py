"""Takes the body of a spool block apart, trusting nothing in it; `block_writer` is the other side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.block import (
    COLUMNS_MAX,
    DROPPED_MAX,
    EVERY_FRAME,
    KNOWN_CODE,
    NUMBER_MAX,
    ONE_CODE,
    SAMPLES_MAX,
    SOURCE_MS_MAX,
    BlockColumn,
    CorruptBlockError,
    Dropped,
    InvalidBlockError,
    SpoolBlock,
    check_numbers,
    check_one_device,
)
from wire.block_series import Series, Shape, decode_series, residual_count
from wire.native import WIDTH_BITS, Native


class _Reader:
    """Takes a body apart from the front; every step is bounded by what is left."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, count: int) -> bytes:
        part = self._body[self._at:self._at + count]
        if len(part) != count:
            raise CorruptBlockError("body ends early")
        self._at += count
        return part

    def left(self) -> int:
        return len(self._body) - self._at

    def number(self, limit: int = NUMBER_MAX) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if number > limit or shift > 63:
                raise CorruptBlockError("a number over its limit")
            if byte <= 0x7F:
                return number

    def numbers(self, count: int, limit: int = NUMBER_MAX) -> list[int]:
        return [self.number(limit) for _ in range(count)]

    def texts(self, count: int) -> list[str]:
        try:
            return [self.take(length).decode() for length in self.take(count)]
        except UnicodeDecodeError:
            raise CorruptBlockError("a name that is not UTF-8") from None

    def words(self, count: int) -> list[int]:
        planes = np.frombuffer(self.take(8 * count), np.uint8).reshape(8, count)
        words: list[int] = np.ascontiguousarray(planes.T).view("<u8").reshape(count).tolist()
        return words


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """What the body says of its columns before the bulk."""

    tags: list[str]
    clock_of: list[int]
    natives: list[Native]
    scale: list[float]
    offset: list[float]
    rows: list[NDArray[np.intp] | None]  # which frames of the device; None: every one
    counts: list[int]
    codes: list[NDArray[np.uint8]]


def unpack(body: bytes) -> SpoolBlock:
    """Return the block of a body, or raise `CorruptBlockError`."""
    reader = _Reader(body)
    stream, first, last, predecessor, predecessor_last = reader.numbers(5)
    node = reader.texts(1)[0]
    dropped_count = reader.number(DROPPED_MAX)
    ends = reader.numbers(2 * dropped_count)
    reasons = reader.texts(dropped_count)
    device_count = reader.number(COLUMNS_MAX)
    devices, frame_counts = reader.texts(device_count), reader.numbers(device_count, SAMPLES_MAX)
    clock_devices = _indices(reader, reader.number(COLUMNS_MAX), device_count)
    if sum(frame_counts) > SAMPLES_MAX or sum(frame_counts[at] for at in clock_devices) > SAMPLES_MAX:
        raise CorruptBlockError("more frames than fit a block")
    heads = _heads(reader, [frame_counts[at] for at in clock_devices])
    lengths = frame_counts + [frame_counts[at] for at in clock_devices] + heads.counts
    widths = [64] * (device_count + len(clock_devices)) + [WIDTH_BITS[native] for native in heads.natives]
    series = _series(reader, lengths, widths)
    if reader.left():
        raise CorruptBlockError("bytes after the last series")
    numbers = [one.view(np.int64) for one in series[:device_count]]
    clocks = [one.view(np.int64) for one in series[device_count:device_count + len(clock_devices)]]
    columns = []
    for at, bits in enumerate(series[device_count + len(clock_devices):]):
        clock, rows = heads.clock_of[at], heads.rows[at]
        device = clock_devices[clock]
        columns.append(BlockColumn(
            heads.tags[at], devices[device], heads.natives[at], heads.scale[at], heads.offset[at],
            numbers[device] if rows is None else numbers[device][rows],
            clocks[clock] if rows is None else clocks[clock][rows], bits, heads.codes[at]))
    dropped = tuple(Dropped(ends[2 * at], ends[2 * at + 1], reason) for at, reason in enumerate(reasons))
    block = SpoolBlock(node, stream, first, last, predecessor, predecessor_last, tuple(columns), dropped)
    _check_decoded(block, numbers, clocks)
    return block


def _heads(reader: _Reader, frames_of_clock: list[int]) -> _Heads:
    count = reader.number(COLUMNS_MAX)
    tags = reader.texts(count)
    if len(set(tags)) != count:
        raise CorruptBlockError("two columns of one tag")
    clock_of = _indices(reader, count, len(frames_of_clock))
    try:
        natives = [Native(byte) for byte in reader.take(count)]
    except ValueError:
        raise CorruptBlockError("unknown register type") from None
    flags = reader.take(count)
    if flags and max(flags) > (EVERY_FRAME | ONE_CODE):
        raise CorruptBlockError("unknown column flags")
    first_codes = iter(reader.take(sum(1 for flag in flags if flag & ONE_CODE)))
    factors = np.frombuffer(reader.take(16 * count), "<f8").reshape(2, count)
    if not np.isfinite(factors).all():
        raise CorruptBlockError("scale or offset is not a number")
    rows: list[NDArray[np.intp] | None] = []
    counts = []
    for flag, clock in zip(flags, clock_of, strict=True):
        frames = frames_of_clock[clock]
        rows.append(None if flag & EVERY_FRAME else _members(reader, frames))
        mine = rows[-1]
        counts.append(frames if mine is None else len(mine))
    if sum(counts) > SAMPLES_MAX:
        raise CorruptBlockError("more samples than fit a block")
    codes = [
        np.full(samples, next(first_codes), np.uint8) if flag & ONE_CODE
        else np.frombuffer(reader.take(samples), np.uint8)
        for flag, samples in zip(flags, counts, strict=True)
    ]
    return _Heads(tags, clock_of, natives, factors[0].tolist(), factors[1].tolist(), rows, counts, codes)


def _members(reader: _Reader, frames: int) -> NDArray[np.intp]:
    packed = np.frombuffer(reader.take((frames + 7) // 8), np.uint8)
    member = np.unpackbits(packed)
    if member[frames:].any():
        raise CorruptBlockError("a sample in a frame that is not there")
    return np.flatnonzero(member[:frames])


def _indices(reader: _Reader, count: int, size: int) -> list[int]:
    """Read `count` indices into a table of `size` rows."""
    if count and not size:
        raise CorruptBlockError("an index into an empty table")
    return reader.numbers(count, size - 1) if count else []


def _series(reader: _Reader, lengths: list[int], widths: list[int]) -> list[NDArray[np.uint64]]:
    kinds = reader.take(len(lengths))
    starts, slopes = reader.words(len(lengths)), reader.words(len(lengths))
    columns = []
    for kind, start, slope, rows, width in zip(kinds, starts, slopes, lengths, widths, strict=True):
        if kind >> 4 > Shape.WALK or kind & 0x0F > 8:
            raise CorruptBlockError("unknown series code")
        shape, residual_bytes = Shape(kind >> 4), kind & 0x0F
        planes = reader.take(residual_bytes * residual_count(shape, rows))
        columns.append(decode_series(Series(shape, residual_bytes, start, slope, planes), rows, width))
    return columns


def _check_decoded(block: SpoolBlock, numbers: list[NDArray[np.int64]],
                   clocks: list[NDArray[np.int64]]) -> None:
    """Refuse what cannot be true of a block, though its bytes are in order."""
    try:
        check_numbers(block)
        check_one_device(numbers)
    except InvalidBlockError as error:
        raise CorruptBlockError(error.reason) from None
    for frames in numbers:
        if len(frames) and bool((frames[1:] <= frames[:-1]).any()):
            raise CorruptBlockError("frame numbers do not increase")
        if len(frames) and (frames[0] < block.first or frames[-1] > block.last):
            raise CorruptBlockError("frame numbers outside the block's stretch")
    for clock in clocks:
        if len(clock) and (clock.min() < 0 or clock.max() > SOURCE_MS_MAX):
            raise CorruptBlockError("source time out of range")
    if not all(KNOWN_CODE[column.code].all() for column in block.columns):
        raise CorruptBlockError("a code that is no quality code")
