"""Frames in the site's tag order, as core's parts hand them to one another. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerting import FrameKey, Observed
from wire import SampleBatch


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """One frame in the site's tag order, conditioned: value clamped, raw kept where the range was left."""

    node: str
    device: str
    stream: int
    sequence: int
    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    raw: NDArray[np.float64]
    unmarked: bool = False  # numbered by the gateway: always current, never acknowledged


class Unconditioned(NamedTuple):
    """One frame as it came; the rest as in `Arrived`."""

    node: str
    device: str
    stream: int
    sequence: int
    batch: SampleBatch
    unmarked: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Frames that are applied together, and all their samples end to end.

    Attributes:
        frames: their columns are slices of those below.
        ends: where each frame ends.
        tag, value, code, source_ms, raw: as in `Arrived`.
    """

    frames: list[Arrived]
    ends: list[int]
    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    raw: NDArray[np.float64]


def _by_itself(column: NDArray[Any]) -> NDArray[Any]:
    return column if column.base is None else column.copy()


def observed(frames: Sequence[Arrived]) -> Observed:
    """Lay frames end to end as the engine reads them."""
    if len(frames) == 1:
        frame = frames[0]
        rows = np.zeros(len(frame.tag), np.int32)
        keys: tuple[FrameKey, ...] = (FrameKey(frame.stream, frame.sequence),)
        # The engine keeps them for a while, and must not keep all that was gathered with them.
        return Observed(
            _by_itself(frame.tag), _by_itself(frame.value), _by_itself(frame.code), _by_itself(frame.source_ms), rows, keys
        )
    rows = np.repeat(np.arange(len(frames), dtype=np.int32), [len(frame.tag) for frame in frames])
    return Observed(
        np.concatenate([frame.tag for frame in frames]),
        np.concatenate([frame.value for frame in frames]),
        np.concatenate([frame.code for frame in frames]),
        np.concatenate([frame.source_ms for frame in frames]),
        rows,
        tuple(FrameKey(frame.stream, frame.sequence) for frame in frames),
    )
