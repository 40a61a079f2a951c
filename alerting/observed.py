"""What the engine is told: conditioned samples in columns, and in which frames they came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FrameKey(NamedTuple):
    """Which frame a sample came in."""

    stream: int
    sequence: int


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """n conditioned samples in the order they are to be evaluated.

    Once told to an engine the columns are its own: it reads them later too, so nobody may write to them any more.

    Attributes:
        tag: int32[n], position in the site's tags.
        value: float64[n], in the tag's unit, conditioned (see `condition`); NaN where BAD.
        code: uint8[n], quality codes.
        source_ms: int64[n], UTC epoch milliseconds at the instrument.
        frame: int32[n], index into `frames`, not decreasing.
        frames: the keys of the frames; samples of one frame stay in one batch wherever possible.
    """

    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    frame: NDArray[np.int32]
    frames: tuple[FrameKey, ...]

    def __len__(self) -> int:
        return len(self.tag)
