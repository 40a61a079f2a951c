"""The rules of limits as tables: what was sent, and what it raised or returned."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alerting import Transition
from tests.alerting.plant import (
    COMM,
    GOOD,
    RANGE,
    STALE,
    TWO_SIDED,
    Bench,
    Limit,
    Sent,
    Tag,
    batch,
    bench,
    words,
)

H10 = Tag("T1.PRESSURE", (Limit("H", 10),))
ON_3S = Tag("T1.PRESSURE", (Limit("H", 10, on_ms=3000),))
OFF_3S = Tag("T1.PRESSURE", (Limit("H", 10, off_ms=3000),))
FAULT_4S = Tag("T1.PRESSURE", (Limit("H", 10),), fault_ms=4000)


@pytest.mark.parametrize(("values", "expected"), [
    pytest.param([9.9, 10.0], ["H raised"], id="a value on the setpoint is over it"),
    pytest.param([10.0, 9.0], ["H raised"], id="on the end of the deadband it still stands"),
    pytest.param([10.0, 8.9], ["H raised", "H returned"], id="returns below setpoint minus deadband"),
    pytest.param([10.0, 9.5, 10.5, 9.5, 10.0], ["H raised"], id="chatter inside the deadband is one alarm",
                 marks=pytest.mark.fault("F09")),
    pytest.param([10.0, 8.9, 10.0], ["H raised", "H returned", "H raised"], id="each raise is an occurrence"),
    pytest.param([25.0], ["H raised", "HH raised"], id="a jump crosses both limits"),
    pytest.param([25.0, 18.0, 8.0], ["H raised", "HH raised", "HH returned", "H returned"], id="and back"),
    pytest.param([4.0, 5.0, 5.1], ["L raised", "L returned"], id="the low side mirrors it"),
    pytest.param([1.0, 25.0], ["LL raised", "L raised", "LL returned", "L returned", "H raised", "HH raised"],
                 id="from one side to the other"),
])
def test_good_values(values: list[float], expected: list[str]) -> None:
    site = bench(TWO_SIDED)
    for value in values:
        site.send(value)
    assert words(site.told) == expected


@pytest.mark.parametrize(("sent", "expected"), [
    pytest.param([(12, RANGE)], ["H raised"], id="uncertain may raise", marks=pytest.mark.fault("F03")),
    pytest.param([(12, GOOD), (-50, RANGE)], ["H raised"], id="uncertain never lowers",
                 marks=pytest.mark.fault("F03")),
    pytest.param([(12, GOOD), (0, COMM)], ["H raised", "FAULT raised"], id="bad holds the level",
                 marks=pytest.mark.fault("F01")),
    pytest.param([(0, COMM), (12, RANGE)], ["FAULT raised", "H raised"], id="uncertain ends no fault"),
    pytest.param([(0, COMM), (5, GOOD)], ["FAULT raised", "FAULT returned"], id="good ends a fault"),
    pytest.param([(12, GOOD), (0, COMM), (5, GOOD)],
                 ["H raised", "FAULT raised", "H returned", "FAULT returned"], id="good ends both"),
    pytest.param([(math.inf, GOOD)], ["FAULT raised"], id="infinity is above nothing",
                 marks=pytest.mark.fault("F02")),
    pytest.param([(-math.inf, GOOD)], ["FAULT raised"], id="nor below", marks=pytest.mark.fault("F02")),
])
def test_quality(sent: list[tuple[float, int]], expected: list[str]) -> None:
    site = bench(H10)
    for value, code in sent:
        site.send(value, code)
    assert words(site.told) == expected


def test_an_unconditioned_infinity_is_shown_as_bad() -> None:
    site = bench(Tag("T1.FREE"))
    site.send(math.inf)
    states = site.engine.tag_states()
    assert math.isnan(states.value[0])
    assert states.code[0] < 64


class TestOnDelay:
    @pytest.mark.fault("F08")
    def test_a_spike_is_no_alarm(self) -> None:
        site = bench(ON_3S)
        for value in (12, 5, 5, 5, 5):
            site.send(value)
        assert site.told == []

    def test_over_for_long_enough_by_source_time(self) -> None:
        site = bench(ON_3S)
        assert [words(site.send(12)) for _ in range(4)] == [[], [], [], ["H raised"]]

    @pytest.mark.parametrize("code", [COMM, RANGE])
    def test_only_good_cancels(self, code: int) -> None:
        site = bench(ON_3S)
        site.send(12)
        site.send(-50, code)
        site.tick(1000)
        assert "H raised" in words(site.tick(1000))

    def test_a_tick_ripens_it_without_new_samples(self) -> None:
        site = bench(ON_3S)
        site.send(12)
        assert words(site.tick(2999)) == []
        (raised,) = site.tick(1)
        assert (raised.at_ms, raised.alarm.value) == (site.now_ms, 12.0)

    @pytest.mark.fault("F27")
    @pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
    def test_between_two_streams_our_own_time_counts(self, jump_ms: int) -> None:
        site = bench(ON_3S)
        site.send(12)
        over = [Sent(0, 12.0, GOOD, site.now_ms + jump_ms, 78, number) for number in (1, 2)]
        assert site.engine.samples(site.now_ms + 2999, batch([over[0]])) == []
        assert words(site.engine.samples(site.now_ms + 3000, batch([over[1]]))) == ["H raised"]

    def test_downtime_ages_no_delay(self) -> None:
        site = bench(ON_3S)
        site.send(12)
        site.engine.downtime(60_000)
        site.now_ms += 60_000
        assert "H raised" not in words(site.tick(2999))
        assert "H raised" in words(site.tick(1))


class TestOffDelay:
    @pytest.mark.fault("F09")
    def test_lowered_only_after_good_for_long_enough(self) -> None:
        site = bench(OFF_3S)
        assert [words(site.send(value)) for value in (12, 5, 5, 5, 5)] == [["H raised"], [], [], [], ["H returned"]]

    @pytest.mark.parametrize(("value", "code"), [(5, RANGE), (0, COMM), (9.5, GOOD), (12, GOOD)])
    def test_anything_but_good_and_clear_begins_it_anew(self, value: float, code: int) -> None:
        site = bench(OFF_3S)
        for each in (12, 5, 5):
            site.send(each)
        site.send(value, code)
        assert [words(site.send(5))[:1] for _ in range(3)].count(["H returned"]) == 0
        assert "H returned" in words(site.send(5))

    def test_no_tick_lowers(self) -> None:
        site = bench(OFF_3S)
        for value in (12, 5):
            site.send(value)
        assert site.tick(20_000) == []
        assert words(site.tick(20_000)) == ["FAULT raised"]

    def test_silence_breaks_it(self) -> None:
        site = bench(OFF_3S)
        for value in (12, 5):
            site.send(value)
        site.tick(40_000)
        assert words(site.send(5)) == ["FAULT returned"]
        assert words(site.send(5, after_ms=3000)) == ["H returned"]

    def test_downtime_ages_it_neither(self) -> None:
        site = bench(OFF_3S)
        for value in (12, 5):
            site.send(value)
        site.engine.downtime(5000)
        site.now_ms += 5000
        clear = [Sent(0, 5.0, GOOD, 0, 99, 1), Sent(0, 5.0, GOOD, 0, 99, 2)]
        assert site.engine.samples(site.now_ms + 2999, batch(clear[:1])) == []
        assert words(site.engine.samples(site.now_ms + 3000, batch(clear[1:]))) == ["H returned"]


class TestFault:
    def test_bad_has_to_last(self) -> None:
        site = bench(FAULT_4S)
        assert [words(site.send(0, COMM)) for _ in range(5)] == [[], [], [], [], ["FAULT raised"]]

    def test_a_tick_ripens_it(self) -> None:
        site = bench(FAULT_4S)
        site.send(0, COMM)
        assert words(site.tick(4000)) == ["FAULT raised"]

    def test_good_in_between_begins_it_anew(self) -> None:
        site = bench(FAULT_4S)
        for code in (COMM, COMM, GOOD, COMM, COMM):
            site.send(5, code)
        assert words(site.tick(1000)) == []

    def test_it_says_why_in_both_languages(self) -> None:
        site = bench(H10)
        (raised,) = site.send(0, COMM)
        assert (raised.alarm.cause_zh, raised.alarm.cause_en) == ("坏值/通信中断", "bad/no communication")
        assert (raised.alarm.value, raised.alarm.code, raised.alarm.grade) == (None, COMM, 2)

    @pytest.mark.fault("F01")
    def test_other_samples_of_the_frame_are_untouched(self) -> None:
        site = bench(H10, Tag("T2.TEMP", (Limit("H", 10),)))
        frame = [Sent(0, math.nan, COMM, 1, 1, 1), Sent(1, 12.0, GOOD, 1, 1, 1)]
        told = site.engine.samples(site.now_ms, batch(frame))
        assert [(made.alarm.tag, made.alarm.limit) for made in told] == [("T1.PRESSURE", "FAULT"), ("T2.TEMP", "H")]


class TestSilence:
    def test_a_silent_tag_is_stale_and_its_levels_stand(self) -> None:
        site = bench(H10)
        site.send(12)
        assert words(site.tick(29_999)) == []
        (raised,) = site.tick(1)
        assert (raised.alarm.limit, raised.alarm.cause_en, raised.at_ms) == ("FAULT", "bad/stale", site.now_ms)
        states = site.engine.tag_states()
        assert (states.code[0], bool(np.isnan(states.value[0]))) == (STALE, True)
        assert {(alarm.limit, str(alarm.state)) for alarm in site.engine.alarms()} == {
            ("H", "ACTIVE_UNACKED"), ("FAULT", "ACTIVE_UNACKED")}

    def test_a_tag_that_never_spoke_is_stale_too(self) -> None:
        site = bench(H10)
        (raised,) = site.engine.tick(site.now_ms + 30_000, at_ms=1_700_000_000_000)
        assert (raised.alarm.limit, raised.at_ms) == ("FAULT", 1_700_000_000_000)
        assert not site.engine.tag_states().known[0]

    def test_a_planned_tag_may_be_silent(self) -> None:
        site = bench(Tag("T1.LATER", (Limit("H", 10),), in_service=False))
        assert site.tick(100_000) == []
        assert words(site.send(12)) == ["H raised"]

    def test_uncertain_or_bad_samples_count_as_heard(self) -> None:
        site = bench(H10)
        site.send(5)
        for _ in range(5):
            site.send(5, RANGE, after_ms=20_000)
            assert site.tick(0) == []

    def test_it_falls_silent_again_after_it_was_heard(self) -> None:
        site = bench(H10)
        site.send(5)
        assert [words(site.tick(30_000)), words(site.send(5)), words(site.tick(30_000))] == [
            ["FAULT raised"], ["FAULT returned"], ["FAULT raised"]]

    def test_the_death_of_its_node_makes_it_stale_at_once_and_faulty_after_the_delay(self) -> None:
        site = bench(Tag("T1.PRESSURE", (Limit("H", 10),), fault_ms=4_000), Tag("T2.TEMP"))
        site.send(12)
        assert site.engine.stale(site.now_ms, [0]) == []
        assert site.engine.stale(site.now_ms, [0]) == []
        assert site.engine.tag_states().code.tolist()[0] == STALE
        assert [words(site.tick(3_999)), words(site.tick(1))] == [[], ["FAULT raised"]]

    def test_a_node_that_is_back_within_the_delay_leaves_no_fault(self) -> None:
        site = bench(Tag("T1.PRESSURE", (Limit("H", 10),), fault_ms=4_000))
        site.send(12)
        site.engine.stale(site.now_ms, [0])
        assert [words(site.tick(2_000)), words(site.send(12)), words(site.tick(4_000))] == [[], [], []]

    def test_without_a_delay_the_death_is_a_fault_at_once(self) -> None:
        site = bench(H10)
        site.send(12)
        assert words(site.engine.stale(site.now_ms + 10, [0])) == ["FAULT raised"]

    def test_uncertain_after_silence_keeps_the_fault(self) -> None:
        site = bench(H10)
        site.send(5)
        site.tick(30_000)
        assert site.send(5, RANGE) == []
        assert site.engine.tag_states().code[0] == RANGE
        assert site.tick(30_000) == []
        assert site.engine.tag_states().code[0] == STALE


class TestRaiseOnly:
    def test_samples_raise_and_never_lower(self) -> None:
        site = bench(H10)
        site.engine.raise_only([0], True)
        assert [words(site.send(value)) for value in (12, 5, 5)] == [["H raised"], [], []]
        site.engine.raise_only([0], False)
        assert words(site.send(5)) == ["H returned"]

    def test_a_fault_that_a_good_sample_may_not_end_is_not_told_as_good(self) -> None:
        site = bench(FAULT_4S)
        site.send(0, COMM)
        site.engine.raise_only([0], True)
        (raised,) = [*site.send(5), *site.tick(5_000)]
        assert (raised.alarm.limit, raised.alarm.code) == ("FAULT", GOOD)
        assert raised.alarm.cause_en == "a value is there, but it is in doubt whose it is"
        assert "存疑" in raised.alarm.cause_zh

    def test_nor_end_a_fault(self) -> None:
        site = bench(H10)
        site.send(0, COMM)
        site.engine.raise_only([0], True)
        assert site.send(5) == []


class TestManyAtOnce:
    def test_samples_of_one_tag_keep_their_order(self) -> None:
        site = bench(H10, Tag("T2.TEMP", (Limit("H", 10),)))
        values = [(0, 5.0), (1, 12.0), (0, 12.0), (0, 5.0), (1, 5.0), (0, 12.0), (0, 7.0)]
        sent = [Sent(tag, value, GOOD, 1000 + at, 1, at + 1) for at, (tag, value) in enumerate(values)]
        told = site.engine.samples(site.now_ms, batch(sent))
        assert [(made.alarm.tag[:2], str(made.kind), made.at_ms) for made in told] == [
            ("T2", "raised", 1001), ("T1", "raised", 1002), ("T1", "returned", 1003), ("T2", "returned", 1004),
            ("T1", "raised", 1005), ("T1", "returned", 1006)]
        assert site.engine.tag_states().value.tolist() == [7.0, 5.0]

    def test_the_last_quiet_sample_is_what_is_shown(self) -> None:
        site = bench(H10)
        site.send(5)
        site.engine.samples(site.now_ms, batch([Sent(0, 6.0, GOOD, 7, 1, 8), Sent(0, 7.0, GOOD, 8, 1, 9)]))
        states = site.engine.tag_states()
        assert (states.value[0], states.source_ms[0]) == (7.0, 8)

    def test_more_frames_than_are_held_at_once(self) -> None:
        """Frame keys of quiet tags survive the dropping of those nobody needs."""
        site = bench(ON_3S, Tag("T2.TEMP"))
        site.send(12)
        expected = None
        for start in range(1, 50_001, 10_000):
            quiet = [Sent(1, 1.0, GOOD, number, 5, number) for number in range(start, start + 10_000)]
            site.engine.samples(site.now_ms, batch(quiet))
        (raised,) = site.engine.tick(site.now_ms + 3000)
        alone = bench(ON_3S, Tag("T2.TEMP"))
        alone.send(12)
        (expected,) = alone.engine.tick(alone.now_ms + 3000)
        assert raised.id == expected.id

    @pytest.mark.parametrize("tag", [-1, 1, 2**31 - 1])
    def test_a_sample_of_no_tag_is_refused_and_leaves_no_trace(self, tag: int) -> None:
        site = bench(H10)
        site.send(5)
        before = site.engine.tag_states()
        with pytest.raises(IndexError):
            site.engine.samples(site.now_ms, batch([Sent(0, 12.0, GOOD, 9, 1, 9), Sent(tag, 12.0, GOOD, 9, 1, 9)]))
        after = site.engine.tag_states()
        assert (after.value[0], after.source_ms[0]) == (5.0, before.source_ms[0])
        assert site.engine.alarms() == []

    @pytest.mark.fault("F01")
    def test_a_number_marked_bad_is_not_shown_even_while_its_fault_stands(self) -> None:
        site = bench(H10)
        site.send(5, COMM)
        for _ in range(2):
            site.now_ms += 1000
            assert site.engine.samples(site.now_ms, batch([Sent(0, 12.0, COMM, site.now_ms, 77, 50)])) == []
            assert math.isnan(site.engine.tag_states().value[0])

    def test_engine_time_never_runs_backwards(self) -> None:
        site = bench(H10)
        with pytest.raises(AssertionError, match="ran backwards"):
            site.engine.tick(site.now_ms - 1)

    @pytest.mark.fault("F29")
    def test_a_stamp_in_the_far_future_is_evaluated_as_current(self) -> None:
        site = bench(H10)
        far_ms = 4_000_000_000_000
        told: list[Transition] = site.engine.samples(site.now_ms, batch([Sent(0, 12.0, GOOD, far_ms, 1, 1)]))
        told += site.engine.samples(site.now_ms, batch([Sent(0, 5.0, GOOD, 0, 1, 2)]))
        assert words(told) == ["H raised", "H returned"]


class TestFlood:
    """Enough tags in one batch that the rules are applied to many at once."""

    COUNT = 100

    def site(self) -> Bench:
        """A hundred tags with H at 10."""
        return bench(*(Tag(f"T{number}.LEVEL", (Limit("H", 10),)) for number in range(self.COUNT)))

    def send(self, site: Bench, value: float, code: int = GOOD) -> list[str]:
        """Every tag sends the same, in one frame."""
        site.now_ms += 1000
        site.sequence += 1
        sent = [Sent(tag, value, code, site.now_ms, 7, site.sequence) for tag in range(self.COUNT)]
        return words(site.engine.samples(site.now_ms, batch(sent)))

    def test_each_raises_and_returns_once(self) -> None:
        site = self.site()
        assert [len(self.send(site, value)) for value in (5, 12, 12, 9.5, 8.9, 8.9, 12)] == [
            0, 100, 0, 0, 100, 0, 100]

    def test_held_back_samples_lower_nothing(self) -> None:
        site = self.site()
        self.send(site, 12)
        site.engine.raise_only(range(self.COUNT), True)
        assert [self.send(site, 5), self.send(site, 5)] == [[], []]
        site.engine.raise_only(range(self.COUNT), False)
        assert self.send(site, 5) == ["H returned"] * self.COUNT

    @pytest.mark.fault("F03")
    def test_uncertain_lowers_nothing_and_makes_nothing_known(self) -> None:
        site = self.site()
        assert self.send(site, 12, RANGE) == ["H raised"] * self.COUNT
        assert self.send(site, -50, RANGE) == []
        assert not site.engine.tag_states().known.any()

    @pytest.mark.fault("F01")
    def test_bad_holds_every_level(self) -> None:
        site = self.site()
        self.send(site, 12)
        assert self.send(site, math.nan, COMM) == ["FAULT raised"] * self.COUNT
        assert self.send(site, math.nan, COMM) == []
        assert self.send(site, 5) == ["H returned", "FAULT returned"] * self.COUNT

    def test_delays_of_many_run_and_end_like_those_of_one(self) -> None:
        delayed = Limit("H", 10, on_ms=3000, off_ms=2000)
        site, alone = bench(*(Tag(f"T{number}.LEVEL", (delayed,)) for number in range(self.COUNT))), bench(
            Tag("T0.LEVEL", (delayed,)))
        values = (12, 12, 9.5, 12, 12, 12, 12, 5, 9.5, 5, 5, 5, 12)
        said = [self.send(site, value) for value in values]
        assert said == [words(alone.send(value)) * self.COUNT for value in values]
        assert sum(map(len, said)) == 2 * self.COUNT

    def test_a_delay_of_many_ripens_with_time_alone(self) -> None:
        site = bench(*(Tag(f"T{number}.LEVEL", (Limit("H", 10, on_ms=3000),)) for number in range(self.COUNT)))
        self.send(site, 12)
        assert [words(site.tick(2999)), words(site.tick(1))] == [[], ["H raised"] * self.COUNT]

    def test_several_samples_of_many_tags_in_one_batch_keep_their_order(self) -> None:
        site, values = self.site(), (5.0, 12.0, 11.0, 5.0, 6.0, 12.0)
        sent = [Sent(tag, value, GOOD, 1000 + at, 7, at + 1) for at, value in enumerate(values) for tag in range(self.COUNT)]
        told = site.engine.samples(site.now_ms, batch(sent))
        assert words(told) == [word for word in ("H raised", "H returned", "H raised") for _ in range(self.COUNT)]
        assert [made.at_ms for made in told[::self.COUNT]] == [1001, 1003, 1005]
        assert len({made.id for made in told}) == 3 * self.COUNT
