"""What every tag showed last, in which frame, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerting.lastframes import LastFrames
from alerting.observed import FrameKey, Observed
from alerting.phases import CODE_UNHEARD

Columns = dict[str, NDArray[Any]]


class LastSamples:
    """The last sample of each of `tags` tags; before the first one BAD/UNKNOWN, in frame (0, 0) seen at `engine_ms`.

    Attributes:
        value: float64[tags], in the tag's unit; NaN where BAD.
        code: uint8[tags], quality codes.
        source_ms: int64[tags], UTC epoch milliseconds at the instrument; 0 before the first sample.
    """

    def __init__(self, tags: int, engine_ms: int) -> None:
        self.value = np.full(tags, np.nan)
        self.code = np.full(tags, CODE_UNHEARD, np.uint8)
        self.source_ms = np.zeros(tags, np.int64)
        self._frames = LastFrames(tags, engine_ms)

    def note(self, engine_ms: int, tag: NDArray[np.intp], value: NDArray[np.float64], code: NDArray[np.uint8],
             observed: Observed) -> None:
        """Note a batch: of several samples of one tag the last stays.

        Args:
            value, code: of the samples, where they are to be others than those of `observed`.

        Raises:
            IndexError: a sample of no tag; nothing has been noted.
        """
        self.code[tag], self.value[tag], self.source_ms[tag] = code, value, observed.source_ms
        self._frames.note(engine_ms, tag, observed.frame, observed.frames)

    def key(self, tag: int) -> FrameKey:
        """Return the key of the frame a tag was last in; (0, 0) when it was never heard."""
        return self._frames.key(tag)

    def seen_engine_ms(self) -> NDArray[np.int64]:
        """Return int64[tags]: engine time at which each tag was last heard."""
        return self._frames.seen_engine_ms()

    def columns(self) -> Columns:
        """Return copies of all columns, by the names they have in a dump."""
        stream, sequence, seen_engine_ms = self._frames.columns()
        return {"value": self.value.copy(), "code": self.code.copy(), "source_ms": self.source_ms.copy(),
                "last_stream": stream, "last_sequence": sequence, "seen_engine_ms": seen_engine_ms}

    def load(self, columns: Columns) -> None:
        """Replace everything by what `columns` returned."""
        self.value[:], self.code[:], self.source_ms[:] = columns["value"], columns["code"], columns["source_ms"]
        self._frames.load(columns["last_stream"], columns["last_sequence"], columns["seen_engine_ms"])
