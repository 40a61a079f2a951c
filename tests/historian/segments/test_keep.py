"""What goes, and what stays whatever room says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.historian_status import WITHHELD_DAYS_MIN
from gateway.historian.segments.keep import NEAR, Held, Pace, day_after, decide, evidence_leaves, limit_bytes, received
from gateway.historian.segments.names import day_of

DAY_MS = 86_400_000
NOW_MS = 1_750_032_000_000 + 12 * 3_600_000  # 2025-06-16 12:00
GB = 10**9


def held(days: int, each: int = GB) -> Held:
    """So many days, the last of them today."""
    return Held({day_of(NOW_MS - at * DAY_MS): each for at in range(days)}, 0)


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


@pytest.mark.fault("F28")
def test_a_clock_that_jumps_ahead_takes_nothing() -> None:
    kept = decide(held(300), NOW_MS + 1000 * DAY_MS, 400, 1000 * GB)
    assert (kept.remove, kept.due, kept.withheld) == ("", 0, 300)
    jumped = Held({**held(402).days, day_of(NOW_MS + 900 * DAY_MS): GB}, 0)
    kept = decide(jumped, NOW_MS + 900 * DAY_MS, 400, 1000 * GB)
    assert (kept.due, kept.withheld) == (2, 400), "a day that a clock made takes one other day, not all"


@pytest.mark.fault("F28")
def test_a_plant_that_stood_still_keeps_its_days() -> None:
    kept = decide(Held({day_of(NOW_MS - at * 30 * DAY_MS): GB for at in range(100)}, 0), NOW_MS, 90, 1000 * GB)
    assert kept.remove == day_of(NOW_MS - 99 * 30 * DAY_MS)
    kept = decide(Held({day_of(NOW_MS - at * 30 * DAY_MS): GB for at in range(91)}, 0), NOW_MS, 90, 1000 * GB)
    assert (kept.remove, kept.withheld) == ("", 87)


def withheld_by_day(works: Callable[[int], bool], days: int, keep_days: int, ahead: Callable[[int], int] = lambda _: 0) -> list[int]:
    """Let days pass at some of which the plant works, by a clock that is so many days ahead; return what is withheld each day."""
    there: dict[str, int] = {}
    told = []
    for at in range(days):
        now_ms = NOW_MS + (at + ahead(at)) * DAY_MS
        if works(at):
            there[day_of(now_ms)] = GB
        kept = decide(Held(there, 0), now_ms, keep_days, 10_000 * GB)
        while kept.remove:
            there = {day: size for day, size in there.items() if day > kept.remove}
            kept = decide(Held(there, 0), now_ms, keep_days, 10_000 * GB)
        told.append(kept.withheld)
    return told


@pytest.mark.parametrize("off", [14, 60])
@pytest.mark.parametrize("begin", [30, 200])
def test_an_overhaul_is_told_as_withheld_for_a_month_at_most(begin: int, off: int) -> None:
    told = withheld_by_day(lambda at: not begin <= at < begin + off, begin + 250, 100)
    many = [at for at, days in enumerate(told) if days >= WITHHELD_DAYS_MIN]
    assert all(begin <= at <= begin + off + NEAR for at in many), many
    assert many or begin == 30, "what is old is told"


def test_a_plant_that_rests_at_weekends_or_in_turns_is_not_told_as_withheld() -> None:
    for works in (lambda at: at % 7 < 5, lambda at: at % 10 < 5, lambda at: at % 2 == 0):
        assert max(withheld_by_day(works, 500, 100)) < WITHHELD_DAYS_MIN


@pytest.mark.fault("F28")
def test_a_clock_ahead_is_told_for_as_long_as_a_month_whatever_is_missing_before() -> None:
    for keep_days in (60, 100):
        told = withheld_by_day(lambda at: not 110 <= at < 124, 240, keep_days, lambda at: 300 if at >= 200 else 0)
        assert max(told[124 + NEAR : 200]) < WITHHELD_DAYS_MIN
        assert min(told[200 : 200 + NEAR]) >= WITHHELD_DAYS_MIN
    old = Held({"1970-01-01": GB, **held(300).days}, 0)
    assert decide(old, NOW_MS + 1000 * DAY_MS, 400, 1000 * GB).withheld == 301, "one stray day explains nothing"


def test_what_came_late_of_days_that_have_gone_goes_together() -> None:
    days = {day_of(NOW_MS - at * DAY_MS): GB for at in (60, 50, *range(12))}
    assert decide(Held(days, 0), NOW_MS, 10, 100 * GB).remove == day_of(NOW_MS - 60 * DAY_MS)
    assert decide(Held(days, 0), NOW_MS, 10, 100 * GB, day_of(NOW_MS - 20 * DAY_MS)).remove == day_of(NOW_MS - 50 * DAY_MS)
    assert decide(Held(days, 0), NOW_MS, 55, 100 * GB, day_of(NOW_MS - 20 * DAY_MS)).remove == "", "not all of it is old"


def test_days_go_at_the_pace_of_days_once_a_start_is_made() -> None:
    pace = Pace()
    assert pace.allows(3, 100.0)
    for _ in range(3):
        assert pace.allows(9, 100.0)
        pace.took()
    assert not pace.allows(9, 100.0)
    assert not pace.allows(9, 100.0 + 86_399)
    assert pace.allows(9, 100.0 + 86_401)
    pace.took()
    assert pace.allows(0, 100.0 + 90 * 86_400)
    for _ in range(2):
        pace.took()
    assert not pace.allows(9, 100.0 + 90 * 86_400), "no more than two are saved up"


@pytest.mark.fault("F28")
@pytest.mark.parametrize(
    ("received_days", "source_days", "expected_days"),
    [
        pytest.param(0, 0, 0, id="all is well"),
        pytest.param(-1, 0, -1, id="yesterday's seal"),
        pytest.param(-20_000, 0, -2, id="1970"),
        pytest.param(-20_000, -20_000, -2, id="1970 everywhere"),
        pytest.param(-5, 0, -2, id="five days behind, as the samples say"),
        pytest.param(900, 0, 900, id="ahead: nobody can tell"),
        pytest.param(0, 20_000, 0, id="a device from the future proves nothing"),
    ],
)
def test_a_clock_behind_what_is_held_is_not_believed(received_days: int, source_days: int, expected_days: int) -> None:
    days = sorted(day_of(NOW_MS - at * DAY_MS) for at in range(1, 30))
    found = received(days, NOW_MS + received_days * DAY_MS, NOW_MS + source_days * DAY_MS)
    assert day_of(found) == day_of(NOW_MS + expected_days * DAY_MS)
    assert received(days[:1], 5, NOW_MS) == 5, "one day proves nothing"


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
    week = sorted(day_of(NOW_MS - at * DAY_MS) for at in range(8))
    assert evidence_leaves(days, NOW_MS, week, 1100) == [day_of(NOW_MS - at * DAY_MS) for at in (1102, 1101)]
    assert evidence_leaves(days[2:], NOW_MS, week, 1100) == []
    assert evidence_leaves(days, NOW_MS, week[1:], 1100) == [], "without a week of days nobody knows"
    ahead = [*week, *(day_of(NOW_MS + at * DAY_MS) for at in (900, 901))]
    younger = [day_of(NOW_MS - at * DAY_MS) for at in (1090, 500, 5)]
    assert evidence_leaves(younger, NOW_MS + 900 * DAY_MS, ahead, 1100) == [], "a clock that jumped ahead takes none of these"


def test_the_day_after_the_last_is_the_last() -> None:
    assert day_after("2025-12-31") == "2026-01-01"
    assert day_after("9999-12-31") == "9999-12-31"
