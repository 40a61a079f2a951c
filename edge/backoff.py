"""When to try again, as a pure decision: quickly at first, then ever more slowly, never all at one moment."""

from __future__ import annotations

import random
from typing import Final

RETRY_S_FIRST: Final = 0.1
RETRY_S_MAX: Final = 30.0
JITTER: Final = 0.2
"""Share of the delay by which it may be shorter: boxes that lost one gateway together come back apart."""


class Backoff:
    """Delays after failures in a row: 0, 0.1, 0.2, 0.4 … 30 s, each up to 20 % shorter."""

    def __init__(
        self, rng: random.Random, *, first_s: float = RETRY_S_FIRST, max_s: float = RETRY_S_MAX
    ) -> None:
        self._rng, self._first_s, self._max_s = rng, first_s, max_s
        self.failures = 0

    def failed(self) -> float:
        """Count a failure and return the seconds to wait before the next attempt."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        # The exponent is bounded so that a year of failures does not overflow a float.
        delay_s = min(self._max_s, self._first_s * 2.0 ** min(self.failures - 2, 40))
        return delay_s * (1.0 - JITTER * self._rng.random())

    def succeeded(self) -> None:
        """Forget all failures."""
        self.failures = 0
