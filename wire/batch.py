"""Samples in columns, and the frame that carries those of one device.

A batch holds what is known of n samples, a column for each thing; nothing here interprets them. Columns are
the only form samples have inside the project: there is no object per sample anywhere on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.errors import ShapeMismatchError

_TAG, _VALUE, _CODE, _SOURCE_MS = (np.dtype(of) for of in (np.int32, np.float64, np.uint8, np.int64))
_COLUMNS = (("tag", _TAG), ("value", _VALUE), ("code", _CODE), ("source_ms", _SOURCE_MS))


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """n samples, in the order they are to be evaluated.

    Attributes:
        tag: int32[n], index in the holder's own tag table.
        value: float64[n], in the tag's engineering unit AS MEASURED, never clamped; NaN if and only if the
            quality is BAD.
        code: uint8[n], quality codes (see `quality`).
        source_ms: int64[n], UTC epoch milliseconds at the instrument, never at arrival.

    Raises:
        ShapeMismatchError: a column has another length or type than the others ask for.
    """

    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.tag.shape
        if (
            len(shape) == 1 and self.value.shape == self.code.shape == self.source_ms.shape == shape
            and self.tag.dtype == _TAG and self.value.dtype == _VALUE
            and self.code.dtype == _CODE and self.source_ms.dtype == _SOURCE_MS
        ):  # fmt: skip
            return
        if len(shape) != 1:
            raise ShapeMismatchError("tag", "one dimension", str(shape))
        for name, dtype in _COLUMNS:
            column = getattr(self, name)
            if column.shape != shape:
                raise ShapeMismatchError(name, f"shape {shape}", str(column.shape))
            if column.dtype != dtype:
                raise ShapeMismatchError(name, str(dtype), str(column.dtype))

    def __len__(self) -> int:
        return len(self.tag)

    def take(self, rows: NDArray[Any] | slice) -> SampleBatch:
        """Return the rows a boolean mask, an index column or a slice selects, in that order."""
        return SampleBatch(self.tag[rows], self.value[rows], self.code[rows], self.source_ms[rows])

    @staticmethod
    def concat(batches: Sequence[SampleBatch]) -> SampleBatch:
        """Return the samples of all batches, one after the other."""
        if not batches:
            return SampleBatch.empty()
        if len(batches) == 1:
            return batches[0]
        return SampleBatch(
            np.concatenate([batch.tag for batch in batches]),
            np.concatenate([batch.value for batch in batches]),
            np.concatenate([batch.code for batch in batches]),
            np.concatenate([batch.source_ms for batch in batches]),
        )

    @staticmethod
    def empty() -> SampleBatch:
        """Return a batch of no samples."""
        return SampleBatch(np.empty(0, np.int32), np.empty(0, np.float64),
                           np.empty(0, np.uint8), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Samples of one device that belong together, numbered within a stream.

    Attributes:
        device: the Sparkplug device id; empty for metrics of the edge node itself.
        stream: id of the stream; 0 for a frame without marks (a node that is not ours, a spool that fails).
        sequence: number within the stream from 1, or 0 for a frame without marks.
        batch: the samples; in frames our own edges make, at most one per tag.
    """

    device: str
    stream: int
    sequence: int
    batch: SampleBatch
