"""What a sample must be before it may meet a limit: finite, or BAD; within its tag's range, or UNCERTAIN.

The gateway conditions every frame, whatever the edge made of it. The edge sends values as measured; here they
are clamped to the range, and what was measured is kept beside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wire import Quality, Reason, SampleBatch, quality_code

_BAD_NOT_A_NUMBER = np.uint8(quality_code(Quality.BAD, Reason.NOT_A_NUMBER))
_BAD_UNKNOWN = np.uint8(quality_code(Quality.BAD, Reason.UNKNOWN))
_UNCERTAIN_RANGE = np.uint8(quality_code(Quality.UNCERTAIN, Reason.RANGE))


def condition(batch: SampleBatch, low: NDArray[np.float64], high: NDArray[np.float64]
              ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
    """Return (value, code, raw), each with one row per sample; the batch itself is not changed.

    Args:
        batch: n samples as they came; `tag` indexes `low` and `high`.
        low, high: float64[tags], the range in the tag's unit; infinite on a side without one.

    Returns:
        value: float64[n]; NaN where the code is BAD, else finite and inside the range.
        code: uint8[n]; a value that is not finite becomes BAD, one beyond the range UNCERTAIN/RANGE. A value
            on an end of the range keeps the code it came with.
        raw: float64[n]; the measured value where it was clamped, NaN elsewhere.
    """
    value, code = batch.value.copy(), batch.code.copy()
    raw = np.full(len(batch), np.nan)
    bad = code < Quality.UNCERTAIN
    broken = ~np.isfinite(value) & ~bad
    code[broken] = _BAD_NOT_A_NUMBER
    value[broken | bad] = np.nan
    floor, ceiling = low[batch.tag], high[batch.tag]
    # A BAD row is NaN by now and compares false.
    outside = (value < floor) | (value > ceiling)
    if outside.any():
        raw[outside] = value[outside]
        value[outside] = np.clip(value[outside], floor[outside], ceiling[outside])
        code[outside] = _UNCERTAIN_RANGE
    # Codes between the three qualities are no quality of ours: never GOOD, and not worth a guess.
    odd = (code & 0xC0) == 0x80
    if odd.any():
        code[odd], value[odd], raw[odd] = _BAD_UNKNOWN, np.nan, np.nan
    return value, code, raw
