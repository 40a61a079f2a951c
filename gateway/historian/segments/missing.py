"""What of an answer is missing: stretches of time whose samples are stored and cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from gateway.historian.segments.folder import Problem
from gateway.historian.store import SegmentDamagedError

TIME_MS_MAX: Final = 1 << 62  # beyond every time


@dataclass(frozen=True, slots=True)
class Missing:
    """Samples of [from_ms, to_ms) that are stored and cannot be read: neither a gap nor calm.

    `whole`: the file's stretch, where this is cut to what was asked for.
    """

    from_ms: int
    to_ms: int
    file: str
    why: str
    whole: tuple[int, int] | None = None


def of_hole(hole: Problem) -> Missing:
    """Return what has left the ledger and is in no manifest; where nobody knows when it was, it may be of any time."""
    known = (hole.from_ms, hole.to_ms) != (0, 0)
    return Missing(hole.from_ms if known else -TIME_MS_MAX, hole.to_ms + 1 if known else TIME_MS_MAX, hole.file, hole.why)


def within(missing: Sequence[Missing], from_ms: int, to_ms: int) -> list[Missing]:
    """Return what is missing of a range, cut to it, each stretch once."""
    cut = [
        replace(
            each, from_ms=max(each.from_ms, from_ms), to_ms=min(each.to_ms, to_ms), whole=each.whole or (each.from_ms, each.to_ms)
        )
        for each in missing if each.from_ms < to_ms and each.to_ms > from_ms
    ]  # fmt: skip
    return list(dict.fromkeys(cut))


def stretches_of(missing: Sequence[Missing]) -> list[tuple[int, int]]:
    """Return the stretches of time [from, to), oldest first, joined where they touch."""
    found: list[tuple[int, int]] = []
    for lo, hi in sorted((each.from_ms, each.to_ms) for each in missing):
        if found and lo <= found[-1][1]:
            found[-1] = (found[-1][0], max(hi, found[-1][1]))
        else:
            found.append((lo, hi))
    return found


def refuse_missing(missing: Sequence[Missing], zone: tzinfo = UTC) -> None:
    """Raise SegmentDamagedError where something could not be read, with times of the zone."""
    if missing:
        first = missing[0]
        begin, end = (_moment(at_ms, zone) for at_ms in first.whole or (first.from_ms, first.to_ms))
        count = len(missing)
        more, more_zh = (f" and {count - 1} more", f" 及另外 {count - 1} 个文件") if count > 1 else ("", "")
        raise SegmentDamagedError(
            f"{first.file}{more}: {first.why}; samples from {begin} until {end} are stored and cannot be read:"
            " restore the file from a backup",
            f"{first.file}{more_zh}：{first.why}；"
            f"{begin} 至 {end}（不含）的数据已存但无法读取，请从备份恢复该文件",
        )


def _moment(at_ms: int, zone: tzinfo) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(zone).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{at_ms} ms since 1970"
