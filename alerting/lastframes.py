"""Which frame every tag was last in, and when.

A tag holds the number of a slot, and the slot holds the frame's key and time: a quiet sample writes one
number instead of three. Slots nobody points to any more are dropped when they run out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alerting.observed import FrameKey

SLOTS_SPARE = 16_384  # frames noted before the slots nobody needs are dropped, beside two per tag


class LastFrames:
    """The last frame of each of `tags` tags; before the first one, key (0, 0) seen at `engine_ms`.

    Attributes:
        slot: int32[tags], to be set to what `add` returned.
    """

    def __init__(self, tags: int, engine_ms: int) -> None:
        self.slot = np.zeros(tags, np.int32)
        self._engine_ms = np.zeros(2 * tags + SLOTS_SPARE, np.int64)
        self._engine_ms[0] = engine_ms
        self._keys = [FrameKey(0, 0)]

    def reserve(self, frames: int) -> None:
        """Make room for so many frames; the slots of `add` hold until the next time room is made."""
        if len(self._keys) + frames > len(self._engine_ms):
            self._drop_unused(frames)

    def add(self, engine_ms: int, frames: tuple[FrameKey, ...]) -> int:
        """Note frames seen at `engine_ms`, for which room was made, and return the slot of the first."""
        base = len(self._keys)
        self._keys += frames
        self._engine_ms[base:len(self._keys)] = engine_ms
        return base

    def key(self, tag: int) -> FrameKey:
        """Return the key of the frame a tag was last in."""
        return self._keys[int(self.slot[tag])]

    def seen_ms(self, tag: int) -> int:
        """Return the engine time at which a tag was last heard."""
        return int(self._engine_ms[self.slot[tag]])

    def seen_engine_ms(self) -> NDArray[np.int64]:
        """Return int64[tags]: engine time at which each tag was last heard."""
        return self._engine_ms[self.slot]

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (stream, sequence, seen_engine_ms), int64[tags] each."""
        keys = [self._keys[slot] for slot in self.slot.tolist()]
        stream = np.array([key[0] for key in keys], np.int64)
        return stream, np.array([key[1] for key in keys], np.int64), self.seen_engine_ms()

    def load(self, stream: NDArray[np.int64], sequence: NDArray[np.int64],
             seen_engine_ms: NDArray[np.int64]) -> None:
        """Replace everything by what `columns` returned."""
        count = len(self.slot)
        self.slot[:] = np.arange(count, dtype=np.int32)
        self._keys = [FrameKey(*key) for key in zip(stream.tolist(), sequence.tolist(), strict=True)]
        self._engine_ms[:count] = seen_engine_ms

    def _drop_unused(self, wanted: int) -> None:
        used = np.zeros(len(self._keys), np.bool_)
        used[self.slot] = True
        kept = np.flatnonzero(used)
        engine_ms = np.zeros(max(len(self._engine_ms), len(kept) + wanted), np.int64)
        engine_ms[:len(kept)] = self._engine_ms[kept]
        self._keys = [self._keys[slot] for slot in kept.tolist()]
        self._engine_ms = engine_ms
        self.slot = (np.cumsum(used, dtype=np.int32) - 1)[self.slot]
