"""How far a store has been fed: decisions without a clock, a disk or a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.feed import (
    HOLES_MAX,
    Cursors,
    Hole,
    Pace,
    begun,
    filled,
    is_behind,
    left_behind,
    renewed,
    sent,
    wait_after,
)


def covered(cursors: Cursors) -> set[int]:
    holes = {pos for hole in cursors.holes for pos in range(hole.first, hole.last + 1)}
    return set(range(1, cursors.live + 1)) - holes


@given(st.lists(st.tuples(st.sampled_from(["behind", "live", "fill"]), st.integers(1, 40)), max_size=200))
def test_no_position_is_left_out_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """Every position up to the head was sent, is in a hole, or is still ahead of the present: nothing else."""
    cursors, head, stored = begun("L", (), 10, {}, 0), 10, set[int]()
    for what, by in steps:
        head += by % 7
        if what == "behind":
            cursors = left_behind(cursors, min(head, cursors.live + by), 0)
        elif what == "live":
            upto = min(head, cursors.live + by)
            stored |= set(range(cursors.live + 1, upto + 1))
            cursors = sent(cursors, upto)
        elif cursors.holes:
            hole = cursors.holes[0]
            upto = min(hole.last, hole.first - 1 + by)
            stored |= set(range(hole.first, upto + 1))
            cursors = filled(cursors, upto)
        assert covered(cursors) <= stored
        assert len(cursors.holes) <= HOLES_MAX
        assert Cursors.of_text(cursors.to_text()) == cursors
    while cursors.holes:
        stored |= set(range(cursors.holes[0].first, cursors.holes[0].last + 1))
        cursors = filled(cursors, cursors.holes[0].last)
    assert stored >= set(range(1, cursors.live + 1))


def test_many_short_outages_are_joined_and_none_is_forgotten() -> None:
    cursors = Cursors("L", 0)
    for at in range(500):
        cursors = left_behind(sent(cursors, 10 * at), 10 * at + 3, 0)
    missing = {pos for hole in cursors.holes for pos in range(hole.first, hole.last + 1)}
    assert {10 * at + by for at in range(500) for by in (1, 2, 3)} <= missing
    assert len(cursors.holes) == HOLES_MAX


@pytest.mark.parametrize(
    ("ledger", "ancestry", "sealed", "live", "holes"),
    [
        pytest.param("A", [], {}, 90, [("A", 5, 9)], id="the same ledger"),
        pytest.param("B", [("A", 60)], {}, 60, [("A", 5, 9)], id="restored to before what was sent"),
        pytest.param("B", [("A", 60)], {"A": 95}, 60, [("A", 5, 9), ("A", 91, 95)], id="the segments hold what the restore lost"),
        pytest.param("B", [("A", 95)], {"A": 95}, 90, [("A", 5, 9)], id="restored to a little behind"),
        pytest.param("C", [("B", 70), ("A", 60)], {"A": 80}, 60, [("A", 5, 9)], id="restored twice"),
        pytest.param(
            "C", [("B", 70), ("A", 60)], {"A": 80, "B": 75, "C": 90}, 60, [("A", 5, 9), ("B", 71, 75)],
            id="restored twice while nothing was fed: what the second one lost",
        ),
        pytest.param("Z", [], {}, 100, [("Z", 1, 100)], id="a strange ledger is fed whole"),
        pytest.param("Z", [], {"A": 95, "Z": 50}, 100, [("A", 1, 95), ("Z", 1, 100)], id="and so are others' segments"),
        pytest.param("Z", [("Y", 40)], {}, 100, [("Y", 1, 40), ("Z", 41, 100)], id="with its ancestor's part"),
        pytest.param(
            "Z", [("Y", 40)], {"Y": 45, "Z": 80}, 100, [("Y", 41, 45), ("Y", 1, 40), ("Z", 41, 100)], id="and what was lost of it"
        ),
        pytest.param("Z", [("Y", 40), ("X", 7)], {}, 100, [("X", 1, 7), ("Y", 8, 40), ("Z", 41, 100)], id="and theirs"),
    ],
)  # fmt: skip
def test_a_restored_ledger_goes_on_where_its_ancestor_was(
    ledger: str, ancestry: list[tuple[str, int]], sealed: dict[str, int], live: int, holes: list[tuple[str, int, int]]
) -> None:
    before = Cursors("A", 90, (Hole("A", 5, 9, 1),), 7)
    found = renewed(before, ledger, ancestry, 100, sealed, 2)
    assert (found.ledger, found.live) == (ledger, live)
    assert [(hole.ledger, hole.first, hole.last) for hole in found.holes] == holes


def test_half_a_minute_old_is_no_present() -> None:
    assert not is_behind(None, 100_000)
    assert not is_behind(70_000, 100_000)
    assert is_behind(69_999, 100_000)


def test_waiting_grows_to_a_minute_and_is_never_shorter_than_asked() -> None:
    assert [wait_after(failures, None) for failures in range(1, 9)] == [1, 2, 5, 10, 30, 60, 60, 60]
    assert wait_after(1, 42.0) == 42.0
    assert wait_after(6, 42.0) == 60.0


def test_a_pace_is_kept_and_idle_time_is_not_saved_up() -> None:
    pace = Pace(100.0)
    pace.took(50, 10.0)
    assert pace.wait_s(10.0) == 0.5
    assert pace.wait_s(99.0) == 0.0
    pace.took(300, 99.0)
    assert pace.wait_s(99.0) == 3.0


WRONG = [
    "", "{}", "[]", "null", '{"format": 2}', '{"format":1,"ledger":"L","live":-1,"holes":[],"transition":0}',
    '{"format":1,"ledger":"L","live":1,"holes":[["L",5,4,0,"",0]],"transition":0}', "[" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_cursor_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Cursors.of_text(text)
