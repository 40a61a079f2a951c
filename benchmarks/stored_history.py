"""A ledger that already holds a day of history, so that a store has much to catch up with and nobody waits a day.

The rows are what a foreign node's stored data become (kind H): kept and sealed, never evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from gateway.core.entries import Columns, Entry, EntryKind, pack_columns
from gateway.core.ledger import Batch, Ledger
from wire import Quality, quality_code

FRAME_TAGS: Final = 40
ENTRIES_A_COMMIT: Final = 5_000
DAY_MS: Final = 86_400_000


def write_history(path: Path, site: str, tags: Sequence[str], rows: int, until_ms: int, seed: int = 1) -> int:
    """Write at least `rows` samples of `tags`, spread evenly over the day that ends at `until_ms`, into a new ledger.

    Returns:
        How many samples it holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(path, site)
    try:
        numbers = np.array(ledger.tag_numbers(tags), np.int32)
        entries = _entries(numbers, rows, until_ms, np.random.default_rng(seed))
        written = 0
        while group := list(islice(entries, ENTRIES_A_COMMIT)):
            ledger.commit([Batch(entries=group)])
            written += sum(entry.samples for entry in group)
        return written
    finally:
        ledger.close()


def _entries(
    numbers: np.ndarray[tuple[int], np.dtype[np.int32]], rows: int, until_ms: int, draw: np.random.Generator
) -> Iterator[Entry]:
    frames = [numbers[at : at + FRAME_TAGS] for at in range(0, len(numbers), FRAME_TAGS)]
    rounds = -(-rows // len(numbers))
    level = draw.uniform(20.0, 70.0, len(numbers)).round(1)
    pos = 0
    for at_ms in np.linspace(until_ms - DAY_MS, until_ms, rounds, endpoint=False).astype(np.int64).tolist():
        level += draw.integers(-1, 2, len(numbers)) * 0.1
        for index, tag in enumerate(frames):
            pos += 1
            value = level[index * FRAME_TAGS : index * FRAME_TAGS + len(tag)]
            columns = Columns(
                tag, value, np.full(len(tag), quality_code(Quality.GOOD), np.uint8), np.full(len(tag), at_ms, np.int64),
                np.full(len(tag), np.nan),
            )  # fmt: skip
            yield Entry(pos, EntryKind.HISTORICAL, 0, at_ms, pack_columns(columns), "BEFORE", f"D{index}", samples=len(tag))
