"""Which reads are sound, split, probed: decisions without a socket."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.backoff import RETRY_S_MAX, Backoff
from edge.modbus import ReadFunction, ReadRequest
from edge.plan import PlanLimits, Span, Table, plan_reads
from edge.reads import BAD_COMM, BAD_CONFIG, REPROBE_S, SPLITS_PER_CYCLE_MAX, DeviceReads
from edge.silence import MARGIN_S, REPLY_S_MAX, LineSilence
from edge.turns import PROBE_SHARE, ProbeTurns


def reads_of(count, *, shared=False, step=1):
    spans = [Span(row, Table.HOLDING, row * step, 1) for row in range(count)]
    return DeviceReads(1, plan_reads(spans, PlanLimits(gap_max=8)), period_s=1.0, shared=shared)


def poll(reads, missing, now):
    """One poll of a device that refuses the rows in `missing`; returns the rows that gave a value, requests made."""
    reads.begin_cycle()
    values, asked, work = set(), 0, list(reads.sound)
    for turn in range(2):
        work = work if turn == 0 else reads.due(now)[::-1]
        while work:
            part = work.pop()
            if part.retired or (turn and part.asked_in == now):
                continue
            part.asked_in = now
            asked += 1
            if missing.intersection(part.rows.tolist()):
                work.extend(reads.refused(part, 2, now))
            else:
                reads.answered(part)
                values.update(part.rows.tolist())
    return values, asked


@pytest.mark.fault("F10")
@given(count=st.integers(1, 300), missing=st.sets(st.integers(0, 299), max_size=3))
def test_bisection_finds_exactly_the_refused_addresses(count, missing):
    missing = {row for row in missing if row < count}
    reads = reads_of(count)
    values, asked = poll(reads, missing, 1)
    assert values == set(range(count)) - missing
    # Each refused address costs two questions for every halving of its block.
    assert asked <= 3 + len(missing) * 2 * 7
    assert {row for part in reads.suspect for row in part.rows.tolist()} == missing
    assert all(part.failed_code == BAD_CONFIG for part in reads.suspect)
    values, asked = poll(reads, missing, 2)
    assert values == set(range(count)) - missing
    assert asked == len(reads.sound)


@pytest.mark.fault("F10")
@given(count=st.integers(2, 300), missing=st.sets(st.integers(0, 299), min_size=1, max_size=300))
def test_once_nothing_is_refused_the_first_plan_is_back(count, missing):
    reads = reads_of(count)
    planned = [part.block for part in reads.sound]
    for now in range(1, 12):
        poll(reads, missing, now)
    values, _ = poll(reads, set(), 12 + REPROBE_S)
    assert values == set(range(count))
    assert [part.block for part in reads.sound] == planned
    assert reads.suspect == ()


def test_splitting_is_bounded_in_one_poll():
    reads = reads_of(1000)
    _, asked = poll(reads, set(range(1000)), 1)
    assert asked <= 8 + 2 * SPLITS_PER_CYCLE_MAX


def test_a_block_refused_only_as_a_whole_stays_split_and_sound():
    reads = reads_of(10)
    [whole] = reads.sound
    left, right = reads.refused(whole, 3, 0.0)
    reads.answered(left)
    reads.answered(right)
    assert reads.sound == (left, right)
    assert reads.due(REPROBE_S - 1) == []
    assert reads.due(REPROBE_S) == [whole]
    assert reads.refused(whole, 3, REPROBE_S) == ()
    assert reads.sound == (left, right)


@pytest.mark.fault("F21")
def test_a_silent_unit_on_a_shared_bus_is_probed_ever_more_rarely_up_to_half_a_minute():
    reads, now, gaps = reads_of(3, shared=True), 0.0, []
    for _ in range(10):
        reads.silent(now)
        gaps.append(reads.probe_from - now)
        now = reads.probe_from
    assert gaps == [0.5, 1.5, 3.5, 7.5, 15.5, 29.5, 29.5, 29.5, 29.5, 29.5]


def test_a_silent_unit_alone_on_its_bus_is_probed_at_every_poll():
    reads = reads_of(3)
    for now in range(5):
        reads.silent(float(now))
        assert reads.probe_from == now


def test_a_unit_that_answers_again_gets_its_silent_blocks_asked_at_once():
    reads = reads_of(300, shared=True)
    for part in reads.sound:
        for now in range(6):
            reads.unanswered(part, float(now))
    reads.silent(5.0)
    assert reads.due(6.0) == []
    probe = reads.probe()
    reads.answered(probe)
    assert {part.failed_code for part in reads.suspect} == {BAD_COMM}
    assert len(reads.due(6.0)) == len(reads.suspect) == 2


# the pause after failures


class NoJitter(random.Random):
    def random(self):
        return 0.0


def test_back_off_starts_fast_doubles_and_ends_at_half_a_minute():
    backoff = Backoff(NoJitter())
    delays = [backoff.failed() for _ in range(12)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    for _ in range(10_000):
        assert backoff.failed() <= RETRY_S_MAX
    backoff.succeeded()
    assert backoff.failed() == 0.0


@given(st.randoms(use_true_random=False))
def test_jitter_only_shortens_and_by_a_fifth_at_most(rng):
    backoff, exact = Backoff(rng), Backoff(NoJitter())
    for _ in range(15):
        delay, longest = backoff.failed(), exact.failed()
        assert 0.8 * longest <= delay <= longest


# the turns of silent units


@pytest.mark.fault("F21")
@given(units=st.integers(1, 20), cost_s=st.sampled_from([0.2, 1.0, 3.0]))
def test_probes_take_their_share_of_the_bus_and_everybody_gets_a_turn(units, cost_s):
    turns, granted = ProbeTurns(), []
    duration_s = 1000
    for second in range(duration_s):
        for unit in range(units):
            if turns.take(str(unit), float(second), cost_s):
                granted.append((second, unit))
    assert {unit for _, unit in granted} == set(range(units))
    assert len(granted) * cost_s <= PROBE_SHARE * duration_s + cost_s


def test_who_polls_once_a_minute_is_not_forgotten_among_who_poll_every_second():
    turns, slow = ProbeTurns(), 0
    for second in range(1200):
        if second % 60 == 0:
            slow += turns.take("slow", float(second), 1.0)
        for unit in range(12):
            turns.take(str(unit), float(second), 1.0)
    assert slow >= 4


# the line that has no transaction ids


def read(address=0, count=10, unit=1):
    return ReadRequest(unit, ReadFunction.READ_HOLDING_REGISTERS, address, count)


@pytest.mark.fault("F15")
def test_after_a_timeout_the_line_rests_for_the_worst_reply_time_learned():
    line = LineSilence()
    line.replied(read(), 0.3)
    line.replied(read(), 0.1)
    line.timed_out(read(), 10.0, 10.5)
    assert line.remaining_s(10.5, 0.0) == pytest.approx(0.3 + MARGIN_S)
    assert line.remaining_s(10.6, 0.0) == pytest.approx(0.2 + MARGIN_S)
    # A late answer teaches: this line can be 0.7 s late, and the rest begins anew.
    assert line.remaining_s(10.7, 10.7) == pytest.approx(0.7 + MARGIN_S)
    assert line.remaining_s(11.5, 10.7) == 0.0
    assert line.worst_reply_s == pytest.approx(0.7)


def test_reply_times_are_not_learned_beyond_a_bound():
    line = LineSilence()
    line.replied(read(), 1000.0)
    assert line.worst_reply_s == REPLY_S_MAX


@pytest.mark.fault("F15")
@given(
    counts=st.lists(st.integers(1, 125), min_size=1, max_size=20),
    address=st.integers(0, 65535),
    next_count=st.integers(1, 125),
)
def test_the_first_request_after_timeouts_never_has_an_owed_byte_count(counts, address, next_count):
    line = LineSilence()
    for count in counts:
        line.timed_out(read(0, count), 0.0, 1.0)
    wanted = read(min(address, 65536 - next_count), next_count)
    probe = line.probe_for(wanted)
    first = wanted if probe is None else probe
    assert first.answer_bytes not in {2 * count for count in counts}
    assert probe is None or probe.unit == wanted.unit
    line.replied(first, 0.1)
    assert line.probe_for(wanted) is None


def test_another_unit_owes_nothing():
    line = LineSilence()
    line.timed_out(read(unit=1), 0.0, 1.0)
    assert line.probe_for(read(unit=1)) is not None
    assert line.probe_for(read(unit=2)) is None
