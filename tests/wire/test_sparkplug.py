"""Sparkplug's counters, and messages put back in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import ReorderBuffer, next_bdseq, next_seq


@pytest.mark.spec("tck-id-payloads-sequence-num-incrementing")
@pytest.mark.parametrize(("seq", "following"), [(0, 1), (254, 255), (255, 0)])
def test_the_sequence_runs_to_255_and_begins_again_at_0(seq, following):
    assert next_seq(seq) == following
    assert next_bdseq(seq) == following


@given(st.integers(0, 255), st.integers(0, 2_000))
def test_counting_is_the_remainder_of_256(start, steps):
    seq = start
    for _ in range(steps):
        seq = next_seq(seq)
    assert seq == (start + steps) % 256


@pytest.mark.fault("F24")
@given(st.data())
def test_messages_shuffled_within_a_window_come_out_in_order(data):
    total, window = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 60))
    shuffled: list[int] = []
    for start in range(1, total + 1, window):
        part = list(range(start, min(start + window, total + 1)))
        shuffled += data.draw(st.permutations(part))
    buffer: ReorderBuffer[int] = ReorderBuffer(timeout_ms=5_000)
    buffer.birth()
    out = [number for now_ms, message in enumerate(shuffled)
           for number in buffer.offer(message % 256, message, now_ms)]
    assert out == list(range(1, total + 1))
    assert buffer.deadline_ms is None
    assert len(buffer) == 0


def make_buffer_with_a_hole() -> ReorderBuffer[str]:
    """A session in which 2 is missing; 4 and 3 arrived at 100 and 200 ms."""
    buffer: ReorderBuffer[str] = ReorderBuffer(timeout_ms=2_000)
    buffer.birth()
    assert buffer.offer(1, "one", 0) == ["one"]
    assert buffer.offer(4, "four", 100) == []
    assert buffer.offer(3, "three", 200) == []
    return buffer


@pytest.mark.spec("tck-id-operational-behavior-host-reordering-start")
def test_a_hole_starts_the_timer_once():
    assert make_buffer_with_a_hole().deadline_ms == 2_100


@pytest.mark.spec("tck-id-operational-behavior-host-reordering-success")
def test_the_missing_message_in_time_stops_the_timer():
    buffer = make_buffer_with_a_hole()
    assert buffer.expire(2_099) is None
    assert buffer.offer(2, "two", 2_099) == ["two", "three", "four"]
    assert buffer.deadline_ms is None
    assert buffer.expire(10_000) is None


def test_when_time_runs_out_what_was_held_is_passed_on_in_order():
    buffer = make_buffer_with_a_hole()
    expired = buffer.expire(2_100)
    assert expired is not None
    assert expired.held == ("three", "four")
    assert buffer.expire(2_100) is None, "one timeout, one rebirth"
    assert buffer.offer(5, "five", 2_200) == ["five"]


def test_a_message_given_up_never_comes_out_as_a_present_value():
    buffer = make_buffer_with_a_hole()
    buffer.expire(2_100)
    assert buffer.offer(2, "two", 2_300) == []
    assert buffer.late == 1
    assert buffer.deadline_ms is None, "it must not start another timeout"


def test_a_number_is_not_late_for_ever():
    buffer = make_buffer_with_a_hole()
    buffer.expire(2_100)
    out = [number for number in range(5, 300) for _ in buffer.offer(number % 256, "", 3_000)]
    assert out == list(range(5, 300))
    assert buffer.late == 0


def test_a_number_given_up_long_ago_is_held_like_any_other():
    buffer = make_buffer_with_a_hole()
    buffer.expire(2_100)
    for number in range(5, 257):
        buffer.offer(number % 256, "", 3_000)
    assert buffer.offer(258 % 256, "two of the next round", 3_000) == []
    assert buffer.late == 0
    assert buffer.offer(257 % 256, "one", 3_000) == ["one", "two of the next round"]


def test_a_second_hole_gets_a_full_timeout_of_its_own():
    buffer = make_buffer_with_a_hole()
    buffer.offer(7, "seven", 300)
    assert buffer.offer(2, "two", 2_000) == ["two", "three", "four"]
    assert buffer.deadline_ms == 4_000


def test_repetitions_are_dropped_and_memory_is_bounded():
    buffer: ReorderBuffer[int] = ReorderBuffer(timeout_ms=1_000)
    buffer.birth()
    for now_ms in range(3_000):
        buffer.offer(2 + now_ms % 254, now_ms, now_ms)
    assert len(buffer) == 254
    assert buffer.offer(1, -1, 3_000)[:3] == [-1, 0, 1], "the first of each number is kept"


def test_outside_a_session_nothing_is_kept():
    buffer: ReorderBuffer[int] = ReorderBuffer(timeout_ms=1_000)
    assert buffer.offer(1, 1, 0) == []
    buffer.birth()
    buffer.offer(5, 5, 0)
    buffer.death()
    assert len(buffer) == 0
    assert buffer.deadline_ms is None
    assert buffer.offer(1, 1, 0) == []
