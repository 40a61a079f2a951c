"""The receiver's book about a stream, held against a plain set of numbers."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wire import (
    INTERVALS_MAX,
    IntervalsFullError,
    MalformedReceivedError,
    Received,
    WireError,
    new_stream_id,
)

NUMBERS = st.integers(1, 400)


def numbers(ranges: list[tuple[int, int]]) -> list[int]:
    return [number for lo, hi in ranges for number in range(lo, hi + 1)]


def ranges_needed(settled: set[int]) -> int:
    """How many intervals above the contiguous part a set of numbers needs."""
    upto = 0
    while upto + 1 in settled:
        upto += 1
    return sum(1 for number in settled if number > upto and number - 1 not in settled)


class ReceivedAgainstASet(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.received, self.settled = Received(), set()

    @rule(lo=NUMBERS, length=st.integers(1, 60))
    def add(self, lo, length):
        asked = set(range(lo, lo + length))
        self._add(lo, lo + length - 1, asked)

    @rule(number=NUMBERS)
    def add_one(self, number):
        self._add(number, number, {number})

    @rule(length=st.integers(1, 5))
    def add_the_next_in_order(self, length):
        lo = self.received.upto + 1
        self._add(lo, lo + length - 1, set(range(lo, lo + length)))

    @rule(step=st.integers(2, 4), start=NUMBERS)
    def add_a_comb_of_holes(self, step, start):
        for number in range(start, start + 40 * step, step):
            self._add(number, number, {number})

    def _add(self, lo, hi, asked):
        before = (self.received.upto, list(self.received.intervals))
        if ranges_needed(self.settled | asked) > INTERVALS_MAX:
            with pytest.raises(IntervalsFullError):
                self.received.add(lo, hi)
            assert (self.received.upto, self.received.intervals) == before
            return
        assert numbers(self.received.add(lo, hi)) == sorted(asked - self.settled)
        self.settled |= asked

    @rule(upto=NUMBERS)
    def close_gap(self, upto):
        asked = set(range(1, upto + 1))
        assert numbers(self.received.close_gap(upto)) == sorted(asked - self.settled)
        self.settled |= asked

    @rule(lo=NUMBERS, length=st.integers(1, 60))
    def reopen(self, lo, length):
        left = self.settled - set(range(lo, lo + length))
        if ranges_needed(left) > INTERVALS_MAX:
            left = {number for number in self.settled if number < lo}
        self.received.reopen(lo, lo + length - 1)
        self.settled = left

    @rule(last=NUMBERS)
    def missing(self, last):
        assert numbers(self.received.missing(last)) == sorted(set(range(1, last + 1)) - self.settled)

    @rule()
    def store_and_read_back(self):
        stored = Received.from_json(self.received.to_json())
        assert stored == self.received
        self.received = stored

    @invariant()
    def says_what_the_set_says(self):
        held = set(range(1, self.received.upto + 1)) | set(numbers(self.received.intervals))
        assert held == self.settled
        assert self.received.highest == max(self.settled, default=0)
        for number in (0, 1, self.received.upto, self.received.upto + 1, 200, self.received.highest):
            assert (number in self.received) is (number in self.settled)

    @invariant()
    def keeps_its_intervals_apart_and_few(self):
        before = self.received.upto
        for lo, hi in self.received.intervals:
            assert before + 1 < lo <= hi
            before = hi
        assert len(self.received.intervals) <= INTERVALS_MAX


ReceivedAgainstASet.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestReceivedAgainstASet = ReceivedAgainstASet.TestCase


def test_reopening_where_no_interval_is_left_reopens_all_that_stands_behind():
    """One interval more could be written to the ledger, but not read back from it."""
    received = Received()
    received.add(1, 10)
    for number in range(INTERVALS_MAX):
        received.add(20 + 2 * number, 20 + 2 * number)
    received.reopen(5, 6)
    assert (received.upto, received.intervals) == (4, [])
    assert Received.from_json(received.to_json()) == received


@pytest.mark.fault("F23")
def test_a_redelivered_range_is_a_duplicate():
    received = Received()
    assert received.add(1, 5) == [(1, 5)]
    assert received.add(1, 5) == []
    assert received.add(4, 8) == [(6, 8)]


def test_a_full_book_records_nothing_but_still_takes_what_fits():
    received = Received()
    for number in range(INTERVALS_MAX):
        received.add(3 + 2 * number, 3 + 2 * number)
    with pytest.raises(IntervalsFullError) as caught:
        received.add(1_000, 1_004)
    assert (caught.value.lo, caught.value.hi, caught.value.limit) == (1_000, 1_004, INTERVALS_MAX)
    assert 1_000 not in received
    assert received.add(4, 4) == [(4, 4)], "a number that joins two intervals needs none more"
    assert received.add(1_000, 1_004) == [(1_000, 1_004)], "and made room for one"


@pytest.mark.parametrize(("lo", "hi"), [(0, 1), (2, 1), (-5, -1), (1, 2**63)])
def test_what_is_no_range_of_frame_numbers_is_refused(lo, hi):
    with pytest.raises(ValueError, match="not a range"):
        Received().add(lo, hi)


@pytest.mark.parametrize("text", [
    "", "[]", "null", "{}", '{"upto":1}', '{"upto":-1,"intervals":[]}', '{"upto":true,"intervals":[]}',
    '{"upto":1.0,"intervals":[]}', '{"upto":1,"intervals":[[2,3]]}', '{"upto":1,"intervals":[[5,4]]}',
    '{"upto":1,"intervals":[[3,4],[5,6]]}', '{"upto":1,"intervals":[[3,4,5]]}', '{"upto":1,"intervals":{}}',
    '{"upto":1,"intervals":[["3","4"]]}', '{"upto":1,"intervals":[],"more":1}', "[" * 100_000,
    json.dumps({"upto": 0, "intervals": [[n * 2, n * 2] for n in range(1, INTERVALS_MAX + 2)]}),
])
def test_a_stored_book_that_contradicts_itself_is_refused(text):
    with pytest.raises(MalformedReceivedError):
        Received.from_json(text)


@given(st.text())
def test_no_stored_text_raises_anything_else(text):
    try:
        Received.from_json(text)
    except WireError:
        return


def test_stream_ids_are_positive_63_bit_and_do_not_repeat():
    source = random.Random(7)
    drawn = [new_stream_id(source) for _ in range(2_000)]
    assert all(1 <= stream < 2**63 for stream in drawn)
    assert len(set(drawn)) == len(drawn)
    assert max(drawn) > 2**62
