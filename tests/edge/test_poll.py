"""Polling: what each answer, refusal and silence makes of the tags. In virtual time."""

from __future__ import annotations

import asyncio
import math
import struct

import pytest

from edge.modbus import meaning_of
from edge.reads import REPROBE_S
from tests.edge.field_rig import PORT, Close, Instrument, Wait, Watch, in_virtual_time, one_device, refusal
from wire import Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
RANGE = quality_code(Quality.UNCERTAIN, Reason.RANGE)


def bad(reason: Reason) -> int:
    return quality_code(Quality.BAD, reason)


def test_values_flow_and_only_changes_are_reported():
    async def scenario():
        instrument = Instrument()
        await instrument.listen()
        watch = Watch(one_device(4))
        asyncio.get_running_loop().call_later(2.5, instrument.words.update, {2: 77})
        await watch.for_s(4.9)
        assert [(round(at), value) for at, value, _ in watch.of(2)] == [(0, 2.0), (3, 77.0)]
        assert [len(watch.of(point)) for point in (0, 1, 3)] == [1, 1, 1]
        assert watch.field.counts.polls == 5
        assert len(instrument.asks) == 5
        bits, value, code, source_ms = watch.field.latest()
        assert value.tolist() == [0.0, 1.0, 77.0, 3.0]
        assert bits.tolist() == [0, 1, 77, 3]
        assert set(code.tolist()) == {GOOD}
        assert source_ms.max() > source_ms[0] - 1

    in_virtual_time(scenario)


def test_an_unchanged_tag_is_sent_again_after_its_longest_silence():
    async def scenario():
        await Instrument().listen()
        watch = Watch(one_device(1, tag={"longest_silence_s": 3.0}))
        await watch.for_s(9.5)
        assert [round(at) for at, _, _ in watch.of(0)] == [0, 3, 6, 9]

    in_virtual_time(scenario)


@pytest.mark.fault("F01")
@pytest.mark.fault("F02")
@pytest.mark.parametrize(
    ("word", "reason"),
    [
        pytest.param(0x7FC00000, Reason.NOT_A_NUMBER, id="NaN"),
        pytest.param(0x7F800001, Reason.NOT_A_NUMBER, id="signalling NaN"),
        pytest.param(0x7F800000, Reason.OVERFLOW, id="infinite"),
        pytest.param(0xFF800000, Reason.OVERFLOW, id="minus infinite"),
        pytest.param(0x00000001, Reason.OVERFLOW, id="subnormal"),
    ],
)
def test_a_float_that_is_no_number_is_bad_and_its_neighbours_are_not(word, reason):
    async def scenario():
        instrument = Instrument()
        two = struct.unpack(">HH", struct.pack(">f", 2.5))
        instrument.words = {0: two[0], 1: two[1], 2: word >> 16, 3: word & 0xFFFF, 4: two[0], 5: two[1]}
        await instrument.listen()
        watch = Watch(one_device(points=[{"table": "holding", "address": a, "type": "f32"} for a in (0, 2, 4)]))
        await watch.for_s(0.5)
        assert [value for _, value, _ in watch.of(0) + watch.of(2)] == [2.5, 2.5]
        [(_, value, code)] = watch.of(1)
        assert math.isnan(value)
        assert code == bad(reason)

    in_virtual_time(scenario)


@pytest.mark.fault("F03")
@pytest.mark.fault("F07")
@pytest.mark.parametrize(
    ("native", "word", "value"),
    [
        pytest.param("u16", 65535, 65535.0, id="-1 read as unsigned"),
        pytest.param("i16", 0x8000, -32768.0, id="below the range"),
        pytest.param("u16", 101, 101.0, id="past full scale"),
    ],
)
def test_beyond_the_range_is_uncertain_with_the_value_as_measured(native, word, value):
    async def scenario():
        instrument = Instrument(words={0: word, 1: 100})
        await instrument.listen()
        points = [{"table": "holding", "address": a, "type": native} for a in (0, 1)]
        watch = Watch(one_device(points=points, tag={"range": {"low": 0.0, "high": 100.0}}))
        await watch.for_s(0.5)
        assert watch.of(0)[0][1:] == (value, RANGE)
        assert watch.of(1)[0][1:] == (100.0, GOOD)

    in_virtual_time(scenario)


@pytest.mark.fault("F10")
@pytest.mark.parametrize("missing", [{0}, {63}, {99}, {40, 41}, {3, 50, 98}])
def test_a_refused_address_is_isolated_in_the_first_poll_and_the_rest_has_values(missing):
    async def scenario():
        instrument = Instrument(missing=set(missing))
        await instrument.listen()
        watch = Watch(one_device(100))
        await watch.for_s(0.5)
        for point in range(100):
            expected = bad(Reason.CONFIG) if point in missing else GOOD
            assert watch.codes(point) == [expected], point
        assert "exception 2" in watch.field.faults[f"D{PORT}U1"]
        # Later polls leave the refused addresses alone and read the rest in as few pieces as were found.
        asked = len(instrument.asks)
        await watch.for_s(0.5)
        later = instrument.asks[asked:]
        assert all(not missing.intersection(range(a.address, a.address + a.count)) for a in later)
        assert len(later) <= 7 * len(missing)

    in_virtual_time(scenario)


@pytest.mark.fault("F10")
def test_a_refused_address_is_asked_again_slowly_and_its_block_is_whole_again_when_it_answers():
    async def scenario():
        instrument = Instrument(missing={5})
        await instrument.listen()
        watch = Watch(one_device(10))
        loop = asyncio.get_running_loop()
        loop.call_later(REPROBE_S * 2.5, instrument.missing.clear)
        await watch.for_s(REPROBE_S * 4)
        alone = [ask for ask in instrument.asks if ask.count == 1 and ask.address == 5]
        assert 1 <= len(alone) <= 3
        assert watch.codes(5)[-1] == GOOD
        for other in {*range(10)} - {5}:
            assert set(watch.codes(other)) == {GOOD}, "asking again must not touch what is read well"
        recovered = next(at for at, _, code in watch.of(5) if code == GOOD)
        assert REPROBE_S * 2.5 <= recovered <= REPROBE_S * 3.5 + 2
        assert [ask.count for ask in instrument.asks[-5:]] == [10] * 5
        assert watch.field.faults == {}

    in_virtual_time(scenario)


@pytest.mark.fault("F10")
def test_a_whole_block_that_is_swallowed_when_asked_again_costs_no_value_of_its_pieces():
    async def scenario():
        instrument = Instrument(missing={5})
        instrument.behave = lambda ask: [] if ask.count == 10 and ask.at > 30 else [instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(10, timeout_s=0.2))
        await watch.for_s(REPROBE_S * 2.5)
        assert len([ask for ask in instrument.asks if ask.count == 10]) == 3
        for other in {*range(10)} - {5}:
            assert set(watch.codes(other)) == {GOOD}

    in_virtual_time(scenario)


@pytest.mark.fault("F10")
def test_a_device_that_refuses_everything_is_taken_apart_over_several_polls():
    async def scenario():
        instrument = Instrument(missing=set(range(300)))
        await instrument.listen()
        watch = Watch(one_device(300))
        await watch.for_s(0.5)
        assert len(instrument.asks) <= 3 + 2 * 32
        assert all(watch.codes(point) == [bad(Reason.CONFIG)] for point in range(300))

    in_virtual_time(scenario)


def test_a_device_that_takes_fewer_registers_than_it_says_is_read_in_halves():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [refusal(ask, 3) if ask.count > 60 else instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(120))
        await watch.for_s(2.5)
        assert all(watch.codes(point) == [GOOD] for point in range(120))
        assert [ask.count for ask in instrument.asks[-2:]] == [60, 60]

    in_virtual_time(scenario)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("code", [4, 7, 8, 9, 12, 255])
def test_a_device_fault_is_bad_and_asked_again_at_the_normal_rate(code):
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [refusal(ask, code)]
        await instrument.listen()
        watch = Watch(one_device(4))
        await watch.for_s(4.5)
        expected = Reason.DEVICE_FAULT if code in (4, 7, 8) else Reason.UNKNOWN
        assert watch.codes(0) == [bad(expected)]
        assert len(instrument.asks) == 5
        assert f"exception {code} ({meaning_of(code)})" in watch.field.faults[f"D{PORT}U1"]

    in_virtual_time(scenario)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("code", [5, 6])
def test_a_busy_device_is_asked_again_a_little_later_before_its_tags_go_bad(code):
    async def scenario():
        instrument = Instrument()
        busy_until = [1.15]
        instrument.behave = lambda ask: [
            refusal(ask, code) if 0.9 < ask.at < busy_until[0] else instrument.honest(ask)
        ]
        await instrument.listen()
        watch = Watch(one_device(4))
        await watch.for_s(1.9)
        assert watch.codes(0) == [GOOD]
        busy_until[0] = math.inf
        await watch.for_s(30)
        assert watch.codes(0)[1] == bad(Reason.BUSY)
        assert len([ask for ask in instrument.asks if ask.at > 2]) < 15

    in_virtual_time(scenario)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("code", [10, 11])
def test_a_gateway_that_cannot_reach_the_unit_takes_all_its_tags_offline(code):
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [refusal(ask, code) if ask.at < 5 else instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(200))
        await watch.for_s(8)
        for point in (0, 199):
            assert watch.codes(point) == [bad(Reason.OFFLINE), GOOD]

    in_virtual_time(scenario)


def test_a_device_without_an_answer_reports_bad_with_a_source_time_of_now():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: []
        await instrument.listen()
        watch = Watch(one_device(4, timeout_s=0.5))
        await watch.for_s(21.2)
        rows = watch.of(3)
        assert {code for _, _, code in rows} == {bad(Reason.COMM)}
        assert all(math.isnan(value) for _, value, _ in rows)
        assert [round(at) for at, _, _ in rows] in ([0, 10, 20], [1, 10, 20], [0, 10, 21], [1, 11, 21])

    in_virtual_time(scenario)


def test_an_absent_device_is_bad_at_once_and_found_when_it_comes():
    async def scenario():
        watch = Watch(one_device(4))
        instrument = Instrument()

        async def come():
            await asyncio.sleep(20)
            await instrument.listen()

        coming = asyncio.create_task(come())
        await watch.for_s(60)
        await coming
        rows = watch.of(0)
        assert rows[0][0] < 0.1
        assert rows[0][2] == bad(Reason.COMM)
        back = next(at for at, _, code in rows if code == GOOD)
        assert 20 <= back <= 52

    in_virtual_time(scenario)


def test_one_block_without_an_answer_does_not_hold_up_the_others_for_ever():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [] if ask.address == 0 else [instrument.honest(ask)]
        await instrument.listen()
        points = [{"table": "holding", "address": a, "type": "u16"} for a in (0, 1000, 2000)]
        watch = Watch(one_device(points=points, timeout_s=0.3))
        asyncio.get_running_loop().call_later(3.5, instrument.words.update, {1000: 5})
        await watch.for_s(6)
        assert watch.codes(0) == [bad(Reason.COMM)]
        assert watch.codes(2) == [GOOD]
        assert watch.of(1)[-1][1] == 5.0
        assert watch.arrivals(1)[-1] == pytest.approx(4.0, abs=0.05), "handed on before the silent one is asked"

    in_virtual_time(scenario)


def test_what_was_read_before_a_block_fell_silent_waits_for_one_deadline_at_most():
    async def scenario():
        instrument = Instrument()
        silent = set()
        instrument.behave = lambda ask: [] if ask.address in silent else [instrument.honest(ask)]
        await instrument.listen()
        points = [{"table": "holding", "address": a, "type": "u16"} for a in (0, 1000, 2000)]
        watch = Watch(one_device(points=points, timeout_s=0.4))
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, instrument.words.update, {0: 9})
        loop.call_later(0.5, silent.update, {1000, 2000})
        await watch.for_s(1.9)
        assert watch.of(0)[-1][1] == 9.0
        assert watch.arrivals(0)[-1] == pytest.approx(1.4, abs=0.05)
        assert watch.codes(1) == watch.codes(2) == [GOOD, bad(Reason.COMM)]

    in_virtual_time(scenario)


@pytest.mark.fault("F18")
def test_a_peer_without_power_is_bad_within_three_polls_and_read_again_on_a_new_connection():
    async def scenario():
        instrument = Instrument()
        dead_upto, powered = [0], [True]
        instrument.behave = lambda ask: (
            [instrument.honest(ask)] if powered[0] and ask.connection > dead_upto[0] else []
        )
        await instrument.listen()
        watch = Watch(one_device(4, timeout_s=0.5))

        def power_cut():
            powered[0] = False
            dead_upto[0] = instrument.connections  # what was open stays mute for ever, without a reset

        loop = asyncio.get_running_loop()
        loop.call_later(4.5, power_cut)
        loop.call_later(9.5, powered.__setitem__, 0, True)
        await watch.for_s(20)
        rows = watch.of(0)
        went_bad = next(at for at, _, code in rows if code == bad(Reason.COMM))
        assert went_bad <= 4.5 + 3 * 1.0
        assert rows[-1][2] == GOOD
        assert instrument.connections >= 2
        assert watch.field.counts.resets >= 1

    in_virtual_time(scenario)


def test_a_device_that_closes_idle_connections_never_goes_bad():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [instrument.honest(ask), Wait(0.5), Close]
        await instrument.listen()
        watch = Watch(one_device(2))
        await watch.for_s(9.5)
        assert watch.codes(0) == [GOOD]
        assert instrument.connections == 10

    in_virtual_time(scenario)


@pytest.mark.fault("F19")
def test_a_device_that_resets_every_connection_is_left_in_peace_more_and_more():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Close]
        await instrument.listen()
        watch = Watch(one_device(2, period_s=0.1))
        await watch.for_s(600)
        assert instrument.connections < 60
        assert set(watch.codes(0)) == {bad(Reason.COMM)}
        instrument.behave = None
        await watch.for_s(35)
        assert watch.codes(0)[-1] == GOOD

    in_virtual_time(scenario)


@pytest.mark.fault("F21")
def test_a_silent_unit_on_a_shared_bus_leaves_the_others_nine_tenths_of_their_rate():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [] if ask.unit <= 3 else [Wait(0.01), instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(4, units=range(1, 33), timeout_s=1.0))
        await watch.for_s(20)
        assert instrument.connections == 1, "dead units are no reason to hang up on the gateway"
        instrument.asks.clear()
        await watch.for_s(100)
        for unit in range(4, 33):
            assert len([ask for ask in instrument.asks if ask.unit == unit]) >= 90, unit
        for unit in (1, 2, 3):
            assert len([ask for ask in instrument.asks if ask.unit == unit]) >= 2, unit
        instrument.behave = None
        await watch.for_s(62)
        for unit in (1, 2, 3):
            assert watch.codes((unit - 1) * 4)[-1] == GOOD

    in_virtual_time(scenario)


@pytest.mark.fault("F21")
def test_when_the_serial_line_is_mended_all_its_units_are_back_within_half_a_minute():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [] if ask.at < 300 else [instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(2, units=range(1, 13), timeout_s=1.0))
        await watch.for_s(340)
        for unit in range(12):
            back = next(at for at, _, code in watch.of(2 * unit) if code == GOOD)
            assert back <= 300 + 35, unit

    in_virtual_time(scenario)


@pytest.mark.fault("F21")
def test_a_single_silent_unit_on_a_shared_bus_is_asked_twice_a_minute_in_the_long_run():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [] if ask.unit == 1 else [instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(4, units=(1, 2)))
        await watch.for_s(60)
        instrument.asks.clear()
        await watch.for_s(300)
        assert 8 <= len([ask for ask in instrument.asks if ask.unit == 1]) <= 12

    in_virtual_time(scenario)


@pytest.mark.fault("F21")
def test_silent_blocks_of_living_units_take_no_more_than_their_share_of_a_shared_bus():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [] if ask.address == 1000 else [instrument.honest(ask)]
        await instrument.listen()
        points = [{"table": "holding", "address": a, "type": "u16"} for a in (0, 1000)]
        watch = Watch(one_device(points=points, units=range(1, 13), timeout_s=1.0))
        await watch.for_s(30)
        instrument.asks.clear()
        await watch.for_s(200)
        silent = [ask for ask in instrument.asks if ask.address == 1000]
        assert 12 <= len(silent) <= 200 * 0.1 + 2
        for unit in range(1, 13):
            assert len([ask for ask in instrument.asks if ask.unit == unit and ask.address == 0]) >= 180

    in_virtual_time(scenario)


def test_late_polls_are_skipped_not_queued():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Wait(2.3 if ask.at < 1 else 0.0), instrument.honest(ask)]
        await instrument.listen()
        watch = Watch(one_device(2, timeout_s=5.0))
        await watch.for_s(7.5)
        # Late from 0 to 2.3: the moment 1 is lost, 2 is made up for at once, then the schedule holds.
        assert [round(ask.at, 1) for ask in instrument.asks] == [0.0, 2.3, 3.0, 4.0, 5.0, 6.0, 7.0]
        assert watch.field.counts.polls_skipped == 1

    in_virtual_time(scenario)


def test_a_sink_that_waits_slows_its_device_and_loses_nothing_it_was_given():
    async def scenario():
        instrument = Instrument()
        await instrument.listen()
        watch = Watch(one_device(2))
        taken = []

        async def slow(scan):
            await asyncio.sleep(2.5)
            taken.append(scan)

        task = asyncio.create_task(watch.field.run(slow))
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(taken) >= 1
        assert watch.field.counts.polls_skipped >= 1

    in_virtual_time(scenario)


def test_a_bug_in_the_sink_is_loud():
    async def scenario():
        await Instrument().listen()
        watch = Watch(one_device(2))

        def broken(scan):
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as caught:
            await watch.field.run(broken)
        assert caught.group_contains(ZeroDivisionError)

    in_virtual_time(scenario)


def test_coils_bits_and_numbers_of_one_device_come_in_one_scan():
    async def scenario():
        instrument = Instrument(words={0: 1, 1: 0, 2: 1, 30: 0x8001})
        await instrument.listen()
        points = [
            {"table": "coil", "address": 0, "type": "bit"},
            {"table": "discrete", "address": 1, "type": "bit"},
            {"table": "coil", "address": 2, "type": "bit"},
            {"table": "holding", "address": 30, "type": "bit", "bit": 15},
            {"table": "holding", "address": 30, "type": "bit", "bit": 14},
            {"table": "input", "address": 30, "type": "u16"},
        ]
        watch = Watch(one_device(points=points))
        await watch.for_s(0.5)
        [scan] = watch.scans
        assert scan.value.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0, 32769.0]
        assert {ask.function for ask in instrument.asks} == {1, 2, 3, 4}

    in_virtual_time(scenario)
