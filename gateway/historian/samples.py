"""Samples as the historian keeps them: columns, one row a sample, and a checksum that does not mind their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DAY_MS: Final = 86_400_000
_NAN_BITS: Final = np.uint64(0x7FF8_0000_0000_0000)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """n samples in any order.

    Attributes:
        names: tag ids that `tag` counts in.
        tag: int32[n], index into `names`.
        source_ms: int64[n], UTC epoch milliseconds at the instrument.
        value: float64[n] in the tag's unit, clamped to its range; NaN if and only if the quality is BAD.
        code: uint8[n], quality codes of `wire`.
        raw: float64[n], the value as measured where it was clamped, else NaN.
        late: bool[n], came after newer ones.
        stream: int64[n], the stream that carried it, below zero for nodes that do not number, 0 for imported history.
        sequence: int64[n], its frame's number in that stream, 0 for imported history.
    """

    names: tuple[str, ...]
    tag: NDArray[np.int32]
    source_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    raw: NDArray[np.float64]
    late: NDArray[np.bool_]
    stream: NDArray[np.int64]
    sequence: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source_ms)

    @classmethod
    def empty(cls, names: tuple[str, ...] = ()) -> Samples:
        """Return no samples."""
        return cls(
            names, np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8), np.empty(0),
            np.empty(0, np.bool_), np.empty(0, np.int64), np.empty(0, np.int64),
        )  # fmt: skip

    def take(self, rows: NDArray[Any] | slice) -> Samples:
        """Return these rows (indices, a mask or a slice)."""
        return Samples(self.names, *(getattr(self, name)[rows] for name in COLUMNS))

    def in_order(self) -> Samples:
        """Return them sorted by tag id, then source time; of one moment in the order given."""
        rank = np.empty(len(self.names), np.int64)
        rank[np.argsort(np.array(self.names, object), kind="stable")] = np.arange(len(self.names))
        return self.take(np.lexsort((self.source_ms, rank[self.tag]))) if len(self) else self

    def digest(self) -> int:
        """Return a checksum of what was measured (tag, time, value, code, raw): the sum over rows, modulo 2**64.

        Equal for equal rows in any order, and the digest of two parts is the sum of theirs modulo 2**64.
        """
        names = np.array([_hash_of(name) for name in self.names], np.uint64)
        if not len(self):
            return 0
        mixed = _mixed(names[self.tag] ^ self.source_ms.astype(np.uint64))
        mixed = _mixed(mixed ^ _bits(self.value))
        mixed = _mixed(mixed ^ _bits(self.raw) ^ self.code.astype(np.uint64))
        return int(mixed.sum(dtype=np.uint64))


COLUMNS: Final = tuple(field.name for field in fields(Samples) if field.name != "names")


def concatenated(parts: Sequence[Samples]) -> Samples:
    """Join parts into one; the tags of the result are all of theirs."""
    index: dict[str, int] = {}
    for part in parts:
        for name in part.names:
            index.setdefault(name, len(index))
    if not parts:
        return Samples.empty()
    places = [np.array([index[name] for name in part.names], np.int32) for part in parts]
    tag = np.concatenate([place[part.tag] for place, part in zip(places, parts, strict=True)])
    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS[1:])
    return Samples(tuple(index), tag.astype(np.int32), *rest)


@lru_cache(maxsize=200_000)
def _hash_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _bits(column: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the bit patterns; all NaN are one, and so are both zeros."""
    bits = (column + 0.0).view(np.uint64)
    return np.where(np.isnan(column), _NAN_BITS, bits)


def _mixed(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of every word: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return word ^ (word >> np.uint64(31))
