"""Samples and windows as the plain values that the API tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from gateway.historian.samples import Samples
from gateway.historian.store import Windows
from gateway.serve.models import HistoryBucket, HistoryPoint, QualityWord, TagWindows
from wire import Quality, quality_of

WINDOW_COLUMNS: Final = (
    "samples", "late", "good_share", "first", "first_ms", "last", "last_ms", "min", "min_ms", "max", "max_ms", "mean", "silence_ms",
)  # fmt: skip
_WORDS: Final[dict[int, QualityWord]] = {Quality.GOOD: "GOOD", Quality.UNCERTAIN: "UNCERTAIN", Quality.BAD: "BAD"}


def points_of(samples: Samples) -> tuple[HistoryPoint, ...]:
    """Return every sample."""
    return tuple(
        HistoryPoint(
            source_ms, None if value != value else value, _WORDS.get(quality_of(code), "BAD"), code,
            None if raw != raw else raw, late,
        )
        for source_ms, value, code, raw, late in zip(
            samples.source_ms.tolist(), samples.value.tolist(), samples.code.tolist(), samples.raw.tolist(), samples.late.tolist(),
            strict=True,
        )
    )  # fmt: skip


def cut_to(buckets: Sequence[HistoryBucket], from_ms: int, to_ms: int) -> tuple[HistoryBucket, ...]:
    """Let no bucket reach out of the range it was made for."""
    return tuple(
        replace(each, from_ms=max(from_ms, each.from_ms), to_ms=min(to_ms, each.to_ms))
        if each.from_ms < from_ms or each.to_ms > to_ms else each
        for each in buckets
    )  # fmt: skip


def tag_windows(
    tag: str, unit: str, windows: Windows, columns: Sequence[str], damaged: Sequence[tuple[int, int]]
) -> TagWindows:
    """Return these columns of a tag's windows."""
    samples = windows.good + windows.uncertain + windows.bad
    told: dict[str, Any] = {}
    for name in columns:
        if name == "samples":
            told[name] = samples.tolist()
        elif name == "good_share":
            told[name] = (windows.good / np.maximum(samples, 1)).tolist()
        else:
            told[name] = getattr(windows, name).tolist()
    return TagWindows(tag, unit, windows.start_ms.tolist(), **told, damaged=list(damaged))
