"""The quiet bands: per tag the interval in which, as things stand, no sample can change anything.

A batch is compared with them in one pass, and almost every sample leaves there, however many limits its tag has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alerting.phases import UNCERTAIN_FROM

SCRATCH_SAMPLES_MIN = 1_024

_UNCERTAIN_FROM = np.array(UNCERTAIN_FROM, np.uint8)  # compared in half the time of a plain number


class QuietBands:
    """The bands of `tags` tags, all empty at first, and behind them that of what is no tag, empty for ever.

    Attributes:
        low, high: float64[tags + 1], in the tag's unit, both inside; inf and -inf while every sample matters.
        held: bool[tags], while True a BAD sample changes nothing either.
    """

    def __init__(self, tags: int) -> None:
        self.low, self.high = np.full(tags + 1, np.inf), np.full(tags + 1, -np.inf)
        self.held = np.zeros(tags, np.bool_)
        self._scratch = _Scratch(SCRATCH_SAMPLES_MIN)

    def outside(self, tag: NDArray[np.intp], value: NDArray[np.float64], code: NDArray[np.uint8]
                ) -> tuple[NDArray[np.intp] | None, NDArray[np.intp] | None]:
        """Return the places of samples that may change something, and of BAD ones; ascending, None when there are none.

        Args:
            tag: intp[n], 0 or more.
            value: float64[n]; what it is where the code is BAD does not matter.
            code: uint8[n], quality codes.

        Raises:
            IndexError: a sample of no tag.
        """
        edge, quiet, other = self._scratch.of(len(tag))
        np.greater_equal(value, self.low.take(tag, None, edge, "clip"), quiet)
        np.less_equal(value, self.high.take(tag, None, edge, "clip"), other)
        np.logical_and(quiet, other, quiet)
        bad = np.less(code, _UNCERTAIN_FROM, other)
        np.less_equal(quiet, bad, quiet)  # from here on True where a sample is BAD or outside its band
        rough = quiet.nonzero()[0]
        if not len(rough):
            return None, None
        # What is no tag was clipped to the empty band behind the last one, and ends here.
        bad_too, calm = bad[rough], self.held[tag[rough]]
        np.logical_and(calm, bad_too, calm)
        kept = np.count_nonzero(calm)
        if kept == len(rough):
            return None, rough
        bad_places = rough[bad_too]
        return rough[~calm] if kept else rough, bad_places if len(bad_places) else None


class _Scratch:
    """Room for a batch's intermediate columns, kept: fresh memory would cost more than the comparisons."""

    def __init__(self, samples: int) -> None:
        self._edge = np.empty(samples)
        self._flags = np.empty((2, samples), np.bool_)
        self._views = (self._edge, self._flags[0], self._flags[1])

    def of(self, samples: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return one column of numbers and two of flags; batches are often as long as the one before."""
        if len(self._views[0]) != samples:
            if samples > len(self._edge):
                self._edge, self._flags = np.empty(samples), np.empty((2, samples), np.bool_)
            self._views = (self._edge[:samples], self._flags[0, :samples], self._flags[1, :samples])
        return self._views
