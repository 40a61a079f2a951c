"""What goes, and what stays whatever room says."""

from __future__ import annotations

import pytest

from gateway.historian.segments.keep import Held, day_after, decide, evidence_leaves, limit_bytes
from gateway.historian.segments.names import day_of

DAY_MS = 86_400_000
NOW_MS = 1_750_032_000_000 + 12 * 3_600_000  # 2025-06-16 12:00
GB = 10**9


def held(days: int, each: int = GB, *, newest_ms: int = NOW_MS) -> Held:
    """So many days, the last of them today."""
    return Held({day_of(NOW_MS - at * DAY_MS): each for at in range(days)}, 0, newest_ms)


@pytest.mark.parametrize(
    ("what", "keep_days", "limit", "removed"),
    [
        pytest.param(held(10), 400, 100 * GB, "", id="young and small: all stays"),
        pytest.param(held(401), 400, 1000 * GB, "", id="the day that is just 400 days old stays"),
        pytest.param(held(402), 400, 1000 * GB, day_of(NOW_MS - 401 * DAY_MS), id="older than configured goes"),
        pytest.param(held(410), 400, 1000 * GB, day_of(NOW_MS - 409 * DAY_MS), id="one day at a time, the oldest"),
        pytest.param(held(100), 400, 99 * GB, day_of(NOW_MS - 99 * DAY_MS), id="over the limit the oldest goes early"),
        pytest.param(held(31), 400, 5 * GB, "", id="below 30 days nothing goes for want of room"),
        pytest.param(held(32), 400, 5 * GB, day_of(NOW_MS - 31 * DAY_MS), id="the 31st day may"),
        pytest.param(held(0), 400, 5 * GB, "", id="nothing is nothing"),
    ],
)
def test_what_goes_next(what: Held, keep_days: float, limit: int, removed: str) -> None:
    kept = decide(what, NOW_MS, keep_days, limit)
    assert kept.remove == removed
    assert not removed or kept.why == ("age" if what.bytes <= limit else "space")


def test_a_clock_that_jumps_ahead_takes_nothing() -> None:
    assert decide(held(300), NOW_MS + 1000 * DAY_MS, 400, 1000 * GB).remove == ""


def test_room_is_told_in_days_before_it_is_short() -> None:
    kept = decide(held(20), NOW_MS, 400, 25 * GB)
    assert kept.projected_days == 25.0
    assert kept.days_held == 20
    assert decide(held(2), NOW_MS, 400, 25 * GB).projected_days is None


@pytest.mark.parametrize(
    ("configured", "held_bytes", "total", "free", "limit"),
    [
        (200 * GB, 10 * GB, 1000 * GB, 500 * GB, 200 * GB),
        (200 * GB, 10 * GB, 100 * GB, 80 * GB, 50 * GB),
        (200 * GB, 10 * GB, 1000 * GB, 2**28, 10 * GB),
        (200 * GB, 0, 1000 * GB, 0, 0),
    ],
)
def test_the_limit_is_the_least_of_three(configured: int, held_bytes: int, total: int, free: int, limit: int) -> None:
    assert limit_bytes(configured, held_bytes, total, free) == limit


def test_evidence_stays_longer() -> None:
    days = [day_of(NOW_MS - at * DAY_MS) for at in (1102, 1101, 1100, 5)]
    assert evidence_leaves(days, NOW_MS, NOW_MS, 1100) == [day_of(NOW_MS - 1102 * DAY_MS)]
    assert evidence_leaves(days[2:], NOW_MS, NOW_MS, 1100) == []


def test_the_day_after_the_last_is_the_last() -> None:
    assert day_after("2025-12-31") == "2026-01-01"
    assert day_after("9999-12-31") == "9999-12-31"
