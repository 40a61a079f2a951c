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
    """The last frame of each of `tags` tags; before the first one, key (0, 0) seen at `engine_ms`."""

    def __init__(self, tags: int, engine_ms: int) -> None:
        self.slot = np.zeros(tags, np.int32)
        self._engine_ms = np.zeros(2 * tags + SLOTS_SPARE, np.int64)
        self._engine_ms[0] = engine_ms
        self._keys = [FrameKey(0, 0)]
        self._scratch = np.empty(0, np.int32)

    def note(self, engine_ms: int, tag: NDArray[np.intp], frame: NDArray[np.int32],
             frames: tuple[FrameKey, ...]) -> None:
        """Note a batch seen now: the tags, and as `frame` which of `frames` each was in; of several the last stays."""
        if len(self._keys) + len(frames) > len(self._engine_ms):
            self._drop_unused(len(frames))
        base = len(self._keys)
        self._keys += frames
        self._engine_ms[base:len(self._keys)] = engine_ms
        if len(frames) == 1:
            self.slot[tag] = base
            return
        if len(frame) > len(self._scratch):
            self._scratch = np.empty(len(frame), np.int32)
        self.slot[tag] = np.add(frame, base, out=self._scratch[:len(frame)])

    def key(self, tag: int) -> FrameKey:
        """Return the key of the frame a tag was last in."""
        return self._keys[int(self.slot[tag])]

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
