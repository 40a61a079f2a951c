"""A spool block: the frames of a stretch of one stream, tag by tag, as the edge keeps and sends them.

    BlockError (a WireError)
    ├── CorruptBlockError      bytes that are not a block we can trust (ask again, then quarantine)
    ├── BlockTooLargeError     the samples do not fit one block (split and encode again)
    └── InvalidBlockError      a block that contradicts itself, before encoding: a bug on our side

This file says what a block is and takes its frames out; `block_codec` turns it into bytes and back. The block
describes itself (tags, native types, scale, offset), so it can be read without the edge's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wire.batch import Frame, SampleBatch
from wire.errors import ShapeMismatchError, WireError
from wire.native import Native, native_value
from wire.quality import Quality, is_quality_code, quality_of

SAMPLES_MAX: Final = 1 << 19
COLUMNS_MAX: Final = 20_000
DROPPED_MAX: Final = 256
TEXT_BYTES_MAX: Final = 255
NUMBER_MAX: Final = (1 << 63) - 1
SOURCE_MS_MAX: Final = (1 << 53) - 1

# Flags of a column, in its bytes.
EVERY_FRAME: Final = 1
ONE_CODE: Final = 2

KNOWN_CODE: Final = np.array([is_quality_code(code) for code in range(256)])


class BlockError(WireError):
    """Base of what can be wrong with a spool block."""


class CorruptBlockError(BlockError):
    """The bytes are not a spool block, or not the one that was written. `reason` is short and safe to log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"corrupt spool block: {reason}; ask for it again, quarantine it the second time")


class BlockTooLargeError(BlockError):
    """`found` of `quantity` (bytes, samples, columns …) is over `limit`: encode fewer frames at once."""

    def __init__(self, quantity: str, found: int, limit: int) -> None:
        self.quantity, self.found, self.limit = quantity, found, limit
        super().__init__(f"spool block of {found} {quantity}, at most {limit} fit: split it by sequence")


class InvalidBlockError(BlockError):
    """The block to encode contradicts itself; nothing was encoded."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not a valid spool block: {reason}")


_COLUMN_TYPES = (("sequence", np.dtype(np.int64)), ("source_ms", np.dtype(np.int64)),
                 ("bits", np.dtype(np.uint64)), ("code", np.dtype(np.uint8)))


@dataclass(frozen=True, slots=True, eq=False)
class BlockColumn:
    """All samples of one tag within a block.

    Attributes:
        tag: id of the tag; one column per tag in a block.
        device: Sparkplug device id the tag belongs to; a frame holds samples of one device only.
        native: register type; engineering value = float64(native) * scale + offset (`native_value`).
        scale: engineering units per count, finite.
        offset: in the engineering unit, finite.
        sequence: int64[n], frame number of each sample within the stream, strictly increasing.
        source_ms: int64[n], UTC epoch milliseconds at the instrument, 0 <= ms < 2**53.
        bits: uint64[n], register bit pattern in the low `native.width_bits` bits, the others zero.
        code: uint8[n], quality codes. Where BAD, the bits are kept but carry no value.

    Raises:
        ShapeMismatchError: a column has another length or type than the others ask for.
    """

    tag: str
    device: str
    native: Native
    scale: float
    offset: float
    sequence: NDArray[np.int64]
    source_ms: NDArray[np.int64]
    bits: NDArray[np.uint64]
    code: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shape = (len(self.sequence),)
        for name, dtype in _COLUMN_TYPES:
            column = getattr(self, name)
            if column.shape != shape:
                raise ShapeMismatchError(f"{self.tag}.{name}", f"shape {shape}", str(column.shape))
            if column.dtype != dtype:
                raise ShapeMismatchError(f"{self.tag}.{name}", str(dtype), str(column.dtype))

    def __len__(self) -> int:
        return len(self.sequence)

    def value(self) -> NDArray[np.float64]:
        """Return float64[n] in the engineering unit, NaN where the quality is BAD."""
        value = native_value(self.native, self.bits, self.scale, self.offset)
        value[quality_of(self.code) == Quality.BAD] = np.nan
        return value


@dataclass(frozen=True, slots=True)
class Dropped:
    """Frame numbers `first` to `last` that the edge had to give up, and why (words for the journal)."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SpoolBlock:
    """What the edge took in the frames `first` to `last` of one stream.

    Attributes:
        node: Sparkplug edge node id of the edge that took the samples.
        stream: id of the stream, 1 <= id < 2**63.
        first, last: the block speaks for every number of this stretch, ends included.
        predecessor, predecessor_last: id and highest number of the stream before; 0, 0 when there is none.
        columns: one per tag, in the order samples stand in a live frame.
        dropped: stretches the edge had to drop.
    """

    node: str
    stream: int
    first: int
    last: int
    predecessor: int
    predecessor_last: int
    columns: tuple[BlockColumn, ...]
    dropped: tuple[Dropped, ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples in all columns."""
        return sum(len(column) for column in self.columns)


class BlockFrames(NamedTuple):
    """What `frames_of` returns: the frames, and the tags of the block that the reader does not know."""

    frames: list[Frame]
    unknown: tuple[str, ...]


def frames_of(block: SpoolBlock, tag_index: Mapping[str, int]) -> BlockFrames:
    """Return the frames of a block in sequence order, as the live way would have brought them.

    Args:
        block: the block; its invariants hold (it was decoded, or encodes without error).
        tag_index: index of each tag in the reader's own tag table.

    Returns:
        The frames, each with at most one sample per tag, in column order; numbers whose samples are all of
        unknown tags have no frame. Then the tags that `tag_index` does not know, in column order.
    """
    known = [column for column in block.columns if column.tag in tag_index]
    unknown = tuple(column.tag for column in block.columns if column.tag not in tag_index)
    if not any(len(column) for column in known):
        return BlockFrames([], unknown)
    rows = [len(column) for column in known]
    sequence = np.concatenate([column.sequence for column in known])
    order = np.argsort(sequence, kind="stable")  # stable: column order stays within a frame
    sequence = sequence[order]
    tag = np.repeat(np.array([tag_index[column.tag] for column in known], np.int32), rows)[order]
    value = np.concatenate([column.value() for column in known])[order]
    code = np.concatenate([column.code for column in known])[order]
    source_ms = np.concatenate([column.source_ms for column in known])[order]
    owner = np.repeat(np.arange(len(known)), rows)[order]
    starts = np.flatnonzero(np.diff(sequence, prepend=-1))
    ends = np.append(starts[1:], len(sequence))
    frames = [
        Frame(known[owner[lo]].device, block.stream, int(sequence[lo]),
              SampleBatch(tag[lo:hi], value[lo:hi], code[lo:hi], source_ms[lo:hi]))
        for lo, hi in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return BlockFrames(frames, unknown)


def devices_of(columns: Sequence[BlockColumn]) -> dict[str, list[BlockColumn]]:
    """Return the columns by device, both in order of first appearance."""
    devices: dict[str, list[BlockColumn]] = {}
    for column in columns:
        devices.setdefault(column.device, []).append(column)
    return devices


def check_numbers(block: SpoolBlock) -> None:
    """Refuse what must hold of a block's own numbers, whichever way it goes."""
    if not 1 <= block.stream <= NUMBER_MAX:
        raise InvalidBlockError("stream id out of range")
    if not 1 <= block.first <= block.last <= NUMBER_MAX:
        raise InvalidBlockError("first and last out of order")
    if not (0 <= block.predecessor <= NUMBER_MAX and 0 <= block.predecessor_last <= NUMBER_MAX):
        raise InvalidBlockError("predecessor out of range")
    if len(block.dropped) > DROPPED_MAX:
        raise InvalidBlockError(f"more than {DROPPED_MAX} dropped stretches")
    for gap in block.dropped:
        if not 1 <= gap.first <= gap.last <= NUMBER_MAX:
            raise InvalidBlockError("a dropped stretch out of order")


def check_one_device(numbers: list[NDArray[np.int64]]) -> None:
    """Refuse a frame that two devices' numbers hold."""
    together = np.sort(np.concatenate(numbers)) if numbers else np.empty(0, np.int64)
    if bool((together[1:] == together[:-1]).any()):
        raise InvalidBlockError("a frame with samples of two devices")
