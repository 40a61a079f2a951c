"""Samples that a store was sent and has shown: when it shows none of them, its disk was emptied, or it is another store.

Cursors alone would go on from where they stand, and nobody would send again what is gone. Only what it has shown once is
asked for, so that a store that lets nobody read, or keeps another selection, is fed all the same; and only what its
retention cannot have removed. Several tags, as one alone may have been removed by a person.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.store import Historian, HistorianError, QueryTooLargeError, StoreRefusedError

log = logging.getLogger(__name__)

Witness = tuple[str, int]
"""A tag, and the source time of one of its samples in UTC epoch milliseconds."""
WITNESSES: Final = 3
FRESH_MS: Final = 300_000
"""One that came late may be near the end of what the store keeps."""
RENEWED_S: Final = 1_800.0
SHOWN_S: Final = 60.0
"""How long after its answer a store shows every sample for certain."""
ASKED_S: Final = 60.0
"""So often one that gave no answer is asked again, while it is fed."""
BEFORE_MS: Final = 600_000
"""A store that may thin out what is close together still has a sample within so long before."""
READ_S: Final = 5.0
HOUR_MS: Final = 3_600_000


class Witnesses:
    """Chooses a witness about every half hour, and knows when to ask for those there are. Seconds never run back."""

    def __init__(self) -> None:
        self._chosen: tuple[tuple[Witness, ...], float] | None = None
        self._next_s = self._ask_s = float("-inf")
        self._unsure = True

    def connected(self) -> None:
        """Of what was sent lately nothing is known; it may be another store."""
        self._chosen, self._unsure, self._ask_s = None, True, float("-inf")

    def sent(self, samples: Samples, now_s: float, now_ms: int) -> None:
        """Choose some that were sent, the newest of a tag each; none from the future, and none that came late."""
        if self._chosen is not None or now_s < self._next_s:
            return
        fresh = np.flatnonzero((samples.source_ms <= now_ms) & (samples.source_ms > now_ms - FRESH_MS))
        newest = fresh[np.argsort(-samples.source_ms[fresh], kind="stable")]
        _, first = np.unique(samples.tag[newest], return_index=True)
        rows = newest[np.sort(first)[:WITNESSES]]
        if len(rows):
            self._chosen = tuple((samples.names[samples.tag[row]], int(samples.source_ms[row])) for row in rows), now_s

    def due(self, now_s: float) -> bool:
        """Whether it is time to ask for those that were shown before."""
        return now_s >= self._ask_s and (self._unsure or self._is_ready(now_s))

    def later(self, now_s: float) -> None:
        """It is still not known: ask again in a while, and let no other take its place."""
        self._unsure, self._ask_s = True, now_s + ASKED_S

    def shown(self, store: Historian, now_s: float, before_ms: int) -> tuple[Witness, ...]:
        """One of those before was shown, or there are none: when it is time, return of the new ones those that are shown."""
        self._unsure = False
        if self._chosen is None or not self._is_ready(now_s):
            return ()
        (chosen, _), self._chosen, self._next_s = self._chosen, None, now_s + RENEWED_S
        return tuple(witness for witness in chosen if shows(store, [witness], before_ms))

    def _is_ready(self, now_s: float) -> bool:
        return self._chosen is not None and now_s - self._chosen[1] >= SHOWN_S


def believed(witnesses: Sequence[Witness], retention_days: float, now_ms: int) -> list[Witness]:
    """Return those that the store's retention cannot have removed: setup may round it down to whole days, and clocks differ."""
    if not retention_days:
        return list(witnesses)
    days = int(retention_days) if retention_days >= 1 else retention_days
    return [witness for witness in witnesses if witness[1] > now_ms - days * DAY_MS + HOUR_MS]


def shows(store: Historian, witnesses: Sequence[Witness], before_ms: int) -> bool | None:
    """Return whether a store shows one of some witnesses.

    None: it gives no answer. Whether it is away the next write tells.

    Args:
        before_ms: a sample within so long before one counts as that, too.
    """
    for tag, at_ms in witnesses:
        try:
            if len(store.range(tag, at_ms - before_ms, at_ms + 1, deadline_s=READ_S)):
                return True
        except QueryTooLargeError:
            return True
        except HistorianError as error:
            if isinstance(error, StoreRefusedError) and error.missing:
                return False
            log.debug("store %s cannot be asked for what it was sent: %s", store.name, error)
            return None
    return False
