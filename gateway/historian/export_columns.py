"""From samples to what a person reads: times in a zone, words of quality, texts that no spreadsheet runs as a formula."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import QUALITY_CODES
from gateway.historian.export import Piece
from gateway.historian.samples import Samples, concatenated

HEADER: Final = ("time", "utc_ms", "tag", "name_zh", "value", "unit", "quality", "code", "raw", "late")
"""Columns of every export. `raw`: the value as measured where `value` was clamped to the tag's range."""

_MARK: Final = "'"
_FORMULA: Final = (*"=+-@\t\r\n＝＋－＠", _MARK)
"""What a spreadsheet may take for the begin of a formula (OWASP, CSV injection), full-width forms among them, and our mark."""
_QUARTER_MS: Final = 900_000
_DAMAGED_CODE: Final = 0  # BAD: who reads codes alone does not take it for calm
_SECOND_MAX: Final = 253_402_000_000  # some days before the end of the year 9999


def neutral(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: `'` goes before it where one might. `plain` takes it away."""
    return _MARK + text if text.startswith(_FORMULA) else text


def plain(text: str) -> str:
    """Undo `neutral`."""
    return text[1:] if text.startswith(_MARK) else text


DAMAGED: Final = "BAD/DAMAGED"
"""Begins the quality of a row that is no sample: from its time on samples are stored and cannot be read."""
_WORD_OF: Final = {code: word for word, code in QUALITY_CODES.items()}
QUALITY_WORDS: Final = tuple(_WORD_OF.get(code, str(code)) for code in range(256))
"""By code: `GOOD`, `UNCERTAIN/RANGE`, `BAD/COMM` …; a code that is none of ours as its number."""


@lru_cache(maxsize=4096)
def _offset_ms(zone: tzinfo, quarter: int) -> int:
    at = datetime.fromtimestamp(max(0, min(quarter * _QUARTER_MS // 1000, _SECOND_MAX)), UTC)
    return round((at.astimezone(zone).utcoffset() or timedelta()).total_seconds() * 1000)


def offsets_ms(source_ms: NDArray[np.int64], zone: tzinfo) -> NDArray[np.int64]:
    """Return by how much the zone's clocks are ahead of UTC at each time; they change at quarters of an hour at most."""
    quarters, where = np.unique(source_ms // _QUARTER_MS, return_inverse=True)
    return np.array([_offset_ms(zone, int(quarter)) for quarter in quarters], np.int64)[where]


def times(source_ms: NDArray[np.int64], zone: tzinfo) -> list[str]:
    """Return times of a zone as ISO 8601 with its offset: `2026-03-01T08:00:00.250+08:00`."""
    if not len(source_ms):
        return []
    offset_ms = offsets_ms(source_ms, zone)
    told = np.datetime_as_string((source_ms + offset_ms).astype("datetime64[ms]"), unit="ms").tolist()
    ends = {int(each): _offset_text(int(each)) for each in np.unique(offset_ms)}
    if len(ends) == 1:
        (end,) = ends.values()
        return [f"{text}{end}" for text in told]
    return [text + ends[each] for text, each in zip(told, offset_ms.tolist(), strict=True)]


def _offset_text(offset_ms: int) -> str:
    minutes, seconds = divmod(abs(offset_ms) // 1000, 60)
    sign = "-" if offset_ms < 0 else "+"
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")


def rows_of(piece: Piece, zone: tzinfo) -> tuple[Samples, NDArray[Any]]:
    """Return the rows of a piece, and of each the word of its quality: stretches that are damaged first, then the samples.

    Such a row stands at the begin of its stretch, without a value; its word names the end: `BAD/DAMAGED until 2026-…`.
    """
    words = np.array(QUALITY_WORDS, object)[piece.samples.code]
    if not piece.damaged:
        return piece.samples, words
    at = np.array([each.from_ms for each in piece.damaged], np.int64)
    none, nan = np.zeros(len(at), np.int64), np.full(len(at), np.nan)
    rows = Samples(
        (piece.tag.id,), none.astype(np.int32), at, nan, np.full(len(at), _DAMAGED_CODE, np.uint8), nan, none.astype(np.bool_),
        none, none,
    )  # fmt: skip
    ends = times(np.array([each.to_ms for each in piece.damaged], np.int64), zone)
    told = np.array([f"{DAMAGED} until {end}" for end in ends], object)
    return concatenated([rows, piece.samples]), np.concatenate([told, words])


def numbers(column: NDArray[np.float64], text: Callable[[str], str]) -> list[float | str | None]:
    """Return None for NaN, `text` of the word for what is infinite, else the number."""
    values: list[float | str | None] = column.tolist()
    finite = np.isfinite(column)
    if finite.all():
        return values
    for at in np.flatnonzero(~finite).tolist():
        values[at] = None if np.isnan(column[at]) else text("inf" if column[at] > 0 else "-inf")
    return values
