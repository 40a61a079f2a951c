"""Import, single cells: a time, a number, a word of quality, as foreign programs write them. No file, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final

from config import HistoryTime

TIME_MS_MIN: Final = 315_532_800_000  # 1980: what is older is a wrong format or a dead clock
FUTURE_MS_MAX: Final = 86_400_000
_DAY_1970: Final = date(1970, 1, 1).toordinal()
_EXCEL_1970: Final = 25_569


class CellError(ValueError):
    """A cell that is not what its column must hold."""

    def __init__(self, message: str, message_zh: str) -> None:
        super().__init__(message)
        self.message_zh = message_zh


TimeOf = Callable[[Any], int]


def time_reader(time: HistoryTime, zone: tzinfo, now_ms: int) -> TimeOf:
    """Return what turns a cell into UTC epoch milliseconds; it raises CellError.

    Args:
        zone: of times that name none. A time that the clocks there showed twice is taken for the first.
        now_ms: what is more than a day later is refused.
    """
    read = _reader(time.format, zone)

    def checked(cell: Any) -> int:
        try:
            at_ms = read(cell)
        except CellError:
            raise
        except (ValueError, TypeError, OverflowError, ArithmeticError):
            raise CellError(
                f"{shown(cell)} is no time of the format {time.format}", f"{shown(cell)} 不是 {time.format} 格式的时间"
            ) from None
        if not TIME_MS_MIN <= at_ms <= now_ms + FUTURE_MS_MAX:
            told = _year(at_ms)
            raise CellError(
                f"{shown(cell)} is a time in {told}: is the format right?", f"{shown(cell)} 是 {told} 年的时间：格式是否正确？"
            )
        return at_ms

    return checked


def _reader(form: str, zone: tzinfo) -> TimeOf:
    if form == "iso":
        return lambda cell: _moment(cell if isinstance(cell, datetime) else datetime.fromisoformat(cell), zone)
    if form == "epoch_ms":
        return lambda cell: int(cell)
    if form == "epoch_us":
        return lambda cell: int(cell) // 1000
    if form == "epoch_s":
        return lambda cell: round(float(cell) * 1000)
    if form == "excel":
        return lambda cell: _local_ms(round((float(cell) - _EXCEL_1970) * 86_400_000), zone)
    return lambda cell: _moment(cell if isinstance(cell, datetime) else datetime.strptime(cell, form), zone)  # noqa: DTZ007


def _moment(at: datetime, zone: tzinfo) -> int:
    local_ms = (
        ((at.toordinal() - _DAY_1970) * 24 + at.hour) * 3_600_000 + at.minute * 60_000 + at.second * 1000 + at.microsecond // 1000
    )
    offset = at.utcoffset()
    if offset is not None:
        return local_ms - round(offset.total_seconds() * 1000)
    return _local_ms(local_ms, zone)


def _local_ms(local_ms: int, zone: tzinfo) -> int:
    return local_ms - _offset_ms(zone, local_ms // 900_000)


@lru_cache(maxsize=65_536)
def _offset_ms(zone: tzinfo, quarter: int) -> int:
    """Return how far the zone's clocks were ahead of UTC when they showed this quarter of an hour (since 1970)."""
    local = datetime(1970, 1, 1) + timedelta(minutes=15 * quarter)  # noqa: DTZ001 - what a clock on the wall shows
    there = local.replace(tzinfo=zone)
    offset = there.utcoffset() or timedelta()
    if there.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        raise CellError(
            f"{local:%Y-%m-%d %H:%M} did not exist in {zone}: clocks were put forward",
            f"{zone} 没有 {local:%Y-%m-%d %H:%M} 这一时刻：时钟曾拨快",
        )
    return round(offset.total_seconds() * 1000)


def number_of(cell: Any) -> float:
    """Return a finite number, NaN for none (None, NaN).

    Raises:
        CellError: it is no number, or an infinite one.
    """
    if cell is None:
        return math.nan
    try:
        if isinstance(cell, str) and ("_" in cell or not cell.isascii()):
            raise ValueError  # Python's own spellings of numbers are not everybody's
        number = float(cell)
    except (ValueError, TypeError, OverflowError):
        raise CellError(f"{shown(cell)} is no number", f"{shown(cell)} 不是数字") from None
    if math.isinf(number):
        raise CellError(f"{shown(cell)} is no finite number", f"{shown(cell)} 不是有限的数")
    return number


def shown(cell: Any) -> str:
    """Return a cell for a message: on one line, cut."""
    text = ascii(cell) if not (isinstance(cell, str) and cell.isprintable()) else f"'{cell}'"
    return text if len(text) <= 60 else text[:57] + "..."


def _year(at_ms: int) -> str:
    try:
        return str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).year)
    except OverflowError:
        return "no year at all"
