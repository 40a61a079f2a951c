"""Whatever the gateway's clock says, retention takes only days that enough newer days stand behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from gateway.core.historian_status import parse_status
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.kept import KeptFrom
from gateway.historian.segments.names import Stem
from gateway.historian.segments.owner import Owner
from tests.historian.segments.journal import (
    DAY_MS,
    T0_MS,
    TAGS,
    Journal,
    everything,
    owner_of,
    rows_in,
    settle,
    status_of,
)


def days(journal: Journal, owner: Owner, clock: list[int], first: int, last: int) -> None:
    """Let days pass, with a few samples in each."""
    for day in range(first, last):
        for at in range(3):
            when = T0_MS + day * DAY_MS + at * 1000
            journal.frame(when, [(TAGS[0], when, 1.0 + at, 192)])
        clock[0] = T0_MS + day * DAY_MS + 60_000
        settle(owner)


def a_day_each() -> Callable[[], float]:
    """Return a clock by which a day passes between two looks."""
    return (86_400.0 * at for at in count()).__next__


@pytest.mark.fault("F28")
@pytest.mark.parametrize("jumps", [(800,), (800, 1200), (800, 801, 802, 803)])
@pytest.mark.parametrize("source", ["right", "wrong"])
def test_a_clock_that_jumps_ahead_takes_nothing_and_what_comes_after_counts(
    tmp_path: Path, journal: Journal, jumps: tuple[int, ...], source: str
) -> None:
    clock = [T0_MS]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=400.0, clock=clock)
    owner.begin()
    days(journal, owner, clock, 0, 20)
    real = T0_MS + 19 * DAY_MS + 120_000
    for jump in jumps:
        wrong = real + jump * DAY_MS
        journal.frame(wrong, [(TAGS[0], wrong if source == "wrong" else real + jump, 5.0, 192)])
        clock[0] = wrong + 5000
        settle(owner)
        clock[0] += 120_000
        settle(owner)
        assert everything(tmp_path / "h") == journal.rows
    withheld = status_of(tmp_path / "h")["withheld"]
    assert withheld == {"days": 20, "why": "clock"}
    status = parse_status((tmp_path / "h" / "status.json").read_text(encoding="utf-8"))
    assert (status.withheld_days, status.withheld_why) == (20, "clock"), "as core reads it"
    days(journal, owner, clock, 20, 22)
    owner.close()
    assert everything(tmp_path / "h") == journal.rows
    found = SegmentFolder(tmp_path / "h").verified("ledger-one")
    assert (found.cursor, found.problems) == (journal.pos, ())
    assert status_of(tmp_path / "h")["withheld"] == {"days": 0, "why": ""}


@pytest.mark.fault("F28")
def test_a_clock_that_runs_away_takes_a_day_for_each_that_really_passes(tmp_path: Path, journal: Journal) -> None:
    clock, passed = [T0_MS], [0.0]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=10.0, clock=clock, monotonic=lambda: passed[0])
    owner.begin()
    days(journal, owner, clock, 0, 11)
    days(journal, owner, clock, 11, 20)  # nine days of the clock in a moment
    held = {row[1] // DAY_MS for row in everything(tmp_path / "h")}
    assert len(held) == 19, "one day may go at once, and no more"
    assert status_of(tmp_path / "h")["withheld"] == {"days": 8, "why": "pace"}
    for _ in range(3):
        passed[0] += 86_400.0
        clock[0] += 61_000
        settle(owner)
    assert {row[1] // DAY_MS for row in everything(tmp_path / "h")} == set(sorted(held)[3:])
    owner.close()
    # What is due when a process begins goes: so an operator who lowers the days gets the room.
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=5.0, clock=clock)
    owner.begin()
    settle(owner)
    owner.close()
    assert len({row[1] // DAY_MS for row in everything(tmp_path / "h")}) == 6


@pytest.mark.fault("F28")
@pytest.mark.parametrize("keep_days", [2.0, 9.0])
@pytest.mark.parametrize(
    ("behind", "source"), [("1970", "right"), ("1970", "wrong"), ("a year", "right"), ("a year", "wrong"), ("five days", "right")]
)
def test_what_a_clock_behind_receives_is_kept_as_long_as_the_rest(
    tmp_path: Path, journal: Journal, keep_days: float, behind: str, source: str
) -> None:
    clock = [T0_MS]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=keep_days, clock=clock, monotonic=a_day_each())
    owner.begin()
    days(journal, owner, clock, 0, 11)
    real = T0_MS + 10 * DAY_MS + 3_600_000
    wrong = {"1970": 10_000, "a year": real - 365 * DAY_MS, "five days": real - 5 * DAY_MS}[behind]
    before = +journal.rows
    for at in range(5):
        stamp = wrong + at * 1000 if source == "wrong" else real + at * 1000
        journal.frame(wrong + at * 1000, [(TAGS[1], stamp, 7.0, 192)])
    during = journal.rows - before
    clock[0] = wrong + 60_000
    settle(owner)
    clock[0] = real + 60_000
    for _ in range(3):
        clock[0] += 61_000
        settle(owner)
    assert not during - everything(tmp_path / "h")
    days(journal, owner, clock, 11, 11 + int(keep_days) + 2)
    owner.close()
    assert not during & everything(tmp_path / "h"), "they go when their time has come"


@pytest.mark.fault("F28")
def test_a_gateway_that_begins_in_1970_keeps_what_it_took_then(tmp_path: Path, journal: Journal) -> None:
    clock = [5_000]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=3.0, clock=clock)
    owner.begin()
    for at in range(10):
        journal.frame(10_000 + at * 1000, [(TAGS[0], (T0_MS if at % 2 else 0) + at * 1000, 1.0, 192)])
    clock[0] = 60_000
    settle(owner)
    days(journal, owner, clock, 0, 3)
    assert everything(tmp_path / "h") == journal.rows
    found = SegmentFolder(tmp_path / "h").verified("ledger-one")
    assert (found.cursor, found.problems) == (journal.pos, ())
    owner.close()


def test_only_what_was_sealed_before_a_day_went_went_with_it() -> None:
    kept = KeptFrom("2025-06-17", {"led": 20, "load:old": 3})
    assert kept.covers(Stem("led", 11, 20, "seal"), "2025-06-16")
    assert not kept.covers(Stem("led", 11, 21, "pack"), "2025-06-16"), "sealed later"
    assert not kept.covers(Stem("led", 11, 20, "seal"), "2025-06-17"), "a younger day"
    assert not kept.covers(Stem("old", 1, 2, "seal"), "2025-06-16"), "another owner"
    assert kept.covers(Stem("old", 3, 3, "load"), "2025-06-16")
    assert not kept.covers(Stem("old", 4, 4, "load"), "2025-06-16")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"day": 5}', '{"day": "2025-06-17"}', '{"day": "2025-06-17", "upto": {"a": "b", "c": -1}}']
)
def test_what_cannot_be_read_covers_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept_from.json").write_text(text, encoding="utf-8")
    assert not KeptFrom.read(tmp_path).covers(Stem("a", 1, 2, "seal"), "2020-01-01")


def test_late_samples_of_a_day_that_has_gone_go_with_their_evidence(tmp_path: Path, journal: Journal) -> None:
    clock = [T0_MS]
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=2.0, clock=clock, monotonic=a_day_each())
    owner.begin()
    days(journal, owner, clock, 0, 10)
    assert SegmentFolder(tmp_path / "h").snapshot().kept_from == "2025-06-23"
    late = T0_MS + 4 * DAY_MS + 5_000_000
    journal.alarm(TAGS[1], late, late + 1000)
    journal.frame(clock[0], [(TAGS[1], late, 9.0, 192), (TAGS[2], late, 9.0, 192)])
    clock[0] += 5000
    owner.round()
    owner.close()
    clock[0] += 61_000
    owner = owner_of(tmp_path / "h", journal.path, 0, seal_s=1.0, keep_days=2.0, clock=clock)
    owner.begin()
    assert rows_in((tmp_path / "h").glob(f"samples/*/*{journal.pos:016d}.parquet")), "not taken for rubbish"
    settle(owner)
    owner.close()
    assert {row[0] for row in rows_in((tmp_path / "h" / "evidence").glob("*.parquet")) if row[1] == late} == {TAGS[1]}
    assert not {row for row in everything(tmp_path / "h") if row[1] == late}
    facts = json.loads((tmp_path / "h" / "kept_from.json").read_text())
    assert facts["day"] == "2025-06-23"
    assert facts["upto"] == {"ledger-one": journal.pos}
    found = SegmentFolder(tmp_path / "h").verified("ledger-one")
    assert (found.cursor, found.problems) == (journal.pos, ())
