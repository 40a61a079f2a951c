"""One sample that a store was sent and has shown: when it shows it no more, its disk was emptied, or it is another store.

Cursors alone would go on from where they stand, and nobody would send again what is gone. Only what it has shown once is
asked for, so that a store that lets nobody read, or keeps another selection, is fed all the same.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from gateway.historian.samples import Samples
from gateway.historian.store import Historian, HistorianError, QueryTooLargeError, StoreRefusedError

log = logging.getLogger(__name__)

Witness = tuple[str, int]
"""A tag, and the source time of one of its samples in UTC epoch milliseconds."""
RENEWED_S: Final = 1_800.0
"""No store keeps less than an hour: one that is not shown any more when the next is chosen was not removed by age."""
SHOWN_S: Final = 60.0
"""How long after its answer a store shows every sample for certain."""
ASKED_S: Final = 60.0
"""So often one that gave no answer is asked again, while it is fed."""
BEFORE_MS: Final = 600_000
"""A store that thins out what is close together still has a sample within so long before."""
READ_S: Final = 5.0


class Witnesses:
    """Chooses a witness about every half hour, and knows when to ask for those there are. Seconds never run back."""

    def __init__(self) -> None:
        self._chosen: tuple[Witness, float] | None = None
        self._next_s = self._ask_s = float("-inf")
        self._unsure = True

    def connected(self) -> None:
        """Of what was sent lately nothing is known; it may be another store."""
        self._chosen, self._unsure, self._ask_s = None, True, float("-inf")

    def sent(self, samples: Samples, now_s: float, now_ms: int) -> None:
        """Choose the newest of some samples that were sent; none from the future."""
        if self._chosen is not None or now_s < self._next_s:
            return
        at = np.where(samples.source_ms <= now_ms, samples.source_ms, -1)
        newest = int(np.argmax(at)) if len(at) else 0
        if len(at) and at[newest] >= 0:
            self._chosen = (samples.names[samples.tag[newest]], int(at[newest])), now_s

    def due(self, now_s: float) -> bool:
        """Whether it is time to ask for the one that was shown before."""
        return now_s >= self._ask_s and (self._unsure or self._is_ready(now_s))

    def later(self, now_s: float) -> None:
        """It is still not known: ask again in a while, and let no other take its place."""
        self._unsure, self._ask_s = True, now_s + ASKED_S

    def shown(self, store: Historian, now_s: float) -> Witness | None:
        """The one before was shown, or there is none: return a new one when it is time for it and the store shows it."""
        self._unsure = False
        if self._chosen is None or not self._is_ready(now_s):
            return None
        (witness, _), self._chosen, self._next_s = self._chosen, None, now_s + RENEWED_S
        return witness if shows(store, witness) else None

    def _is_ready(self, now_s: float) -> bool:
        return self._chosen is not None and now_s - self._chosen[1] >= SHOWN_S


def shows(store: Historian, witness: Witness) -> bool | None:
    """Return whether a store shows a witness; None: it gives no answer. Whether it is away the next write tells."""
    tag, at_ms = witness
    try:
        return len(store.range(tag, at_ms - BEFORE_MS, at_ms + 1, deadline_s=READ_S)) > 0
    except QueryTooLargeError:
        return True
    except HistorianError as error:
        if isinstance(error, StoreRefusedError) and error.missing:
            return False
        log.debug("store %s cannot be asked for what it was sent: %s", store.name, error)
        return None
