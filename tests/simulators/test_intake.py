"""The platform's book of sequence numbers, against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulators.intake import LaneIntake

NUMBERS = st.lists(st.integers(1, 40), max_size=60)


@given(NUMBERS, st.lists(st.integers(1, 40), max_size=10))
def test_missing_is_every_lower_number_neither_seen_nor_released(seen: list[int], released: list[int]) -> None:
    lane = LaneIntake()
    for number in released:
        lane.release(number)
    first = [lane.take(number) for number in seen]
    highest = max([n for n, new in zip(seen, first, strict=True) if new], default=0)
    expected = sorted(set(range(1, max(highest, lane.highest))) - set(seen) - set(released))
    assert lane.missing() == expected
    assert lane.missing_count == len(expected)


@given(NUMBERS)
def test_a_number_is_new_once(seen: list[int]) -> None:
    lane = LaneIntake()
    assert [n for n in seen if lane.take(n)] == list(dict.fromkeys(seen))
