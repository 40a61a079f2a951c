"""What a question to any historian may ask for, and how it is refused: the same words whichever store answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.historian.store import RANGE_MS_MAX, QueryTimeError, QueryTooLargeError

LATEST_MAX: Final = 10_000
WINDOWS_MAX: Final = 100_000
TAGS_MAX: Final = 50
"""How many tags one dashboard may ask for at once."""
DAY_PIECE_ROWS: Final = 500_000


def check_range(from_ms: int, to_ms: int) -> None:
    """Refuse a range of more than 400 days.

    Raises:
        QueryTooLargeError: it is.
    """
    if to_ms - from_ms > RANGE_MS_MAX:
        days = RANGE_MS_MAX // 86_400_000
        raise QueryTooLargeError(
            f"a range of {(to_ms - from_ms) // 86_400_000} days; ask for at most {days} days at once",
            f"范围 {(to_ms - from_ms) // 86_400_000} 天过长；一次最多 {days} 天",
        )


def check_width(from_ms: int, to_ms: int, width_ms: int) -> None:
    """Refuse windows that are too many, or none.

    Raises:
        QueryTooLargeError: they are.
    """
    check_range(from_ms, to_ms)
    if width_ms < 1 or (to_ms - from_ms) // width_ms > WINDOWS_MAX:
        least = max(1, -((from_ms - to_ms) // WINDOWS_MAX))
        raise QueryTooLargeError(
            f"windows of {width_ms} ms; at most {WINDOWS_MAX} fit an answer, so make them at least {least} ms wide",
            f"时间窗 {width_ms} 毫秒；一次最多 {WINDOWS_MAX} 个，宽度至少 {least} 毫秒",
        )


def check_latest(tags: Sequence[str]) -> None:
    """Refuse too many tags.

    Raises:
        QueryTooLargeError: they are.
    """
    if len(tags) > LATEST_MAX:
        raise QueryTooLargeError(
            f"the newest samples of {len(tags)} tags; ask for at most {LATEST_MAX} at once",
            f"位号 {len(tags)} 个过多；一次最多 {LATEST_MAX} 个",
        )


def too_many(rows_max: int) -> QueryTooLargeError:
    """There is more in the range than asked for."""
    return QueryTooLargeError(
        f"more than {rows_max} rows; ask for a shorter range, or for windows", f"超过 {rows_max} 行；请缩短范围，或按时间窗查询"
    )


def out_of_time(store: str, deadline_s: float) -> QueryTimeError:
    """The deadline passed."""
    return QueryTimeError(
        f"{store}: no answer within {deadline_s:g} s; ask for a shorter range, or try again",
        f"{store}：{deadline_s:g} 秒内没有答复；请缩短范围，或稍后再试",
    )
