"""The whole field side against servers it shares no code with, in real time."""

from __future__ import annotations

import asyncio
import math
import struct

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from benchmarks.ports import free_port
from edge.errors import PlanError
from tests.edge.field_rig import HOST, Close, Instrument, Wait, Watch, in_virtual_time, one_device
from wire import Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
COMM = quality_code(Quality.BAD, Reason.COMM)
CONFIG = quality_code(Quality.BAD, Reason.CONFIG)

POINTS = [
    {"table": "holding", "address": 0, "type": "f32"},
    {"table": "holding", "address": 2, "type": "f32", "word_order": "CDAB"},
    {"table": "holding", "address": 4, "type": "i32"},
    {"table": "holding", "address": 6, "type": "u16", "scale": 0.1, "offset": -5.0},
    {"table": "input", "address": 8, "type": "f64"},
    {"table": "coil", "address": 3, "type": "bit"},
    {"table": "discrete", "address": 4, "type": "bit"},
    {"table": "holding", "address": 12, "type": "u16"},
]
EXPECTED = [123456.0, 123456.0, -7.0, 12.5, 1.0 / 3.0, 1.0, 0.0]


def simulated():
    words = [0x47F1, 0x2000, 0x2000, 0x47F1, 0xFFFF, 0xFFF9, 175, 0, *struct.unpack(">4H", struct.pack(">d", 1.0 / 3.0))]
    bits = [SimData(0, values=[False, False, False, True, False, False, False, False] * 4, datatype=DataType.BITS)]
    # Registers 0 to 11 and no more: 12 is refused by the server.
    registers = [SimData(0, values=words, datatype=DataType.REGISTERS)]
    return SimDevice(id=1, simdata=(bits, bits, registers, registers))


class Running:
    """A field side in real time, whose reads are awaited and not timed."""

    def __init__(self, watch):
        self._watch = watch

    async def __aenter__(self):
        self._task = asyncio.create_task(self._watch.for_s(90))
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, met):
        async with asyncio.timeout(40):
            while not met():
                assert not self._task.done()
                await asyncio.sleep(0.02)


@pytest.mark.fault("F10")
def test_pymodbus_gives_every_type_and_only_the_address_it_has_not_is_bad():
    async def scenario():
        port = free_port()
        server = ModbusTcpServer(simulated(), address=(HOST, port))
        serving = asyncio.create_task(server.serve_forever(), name="pymodbus")
        watch = Watch(one_device(points=POINTS, ports=[port], period_s=0.1))
        try:
            async with Running(watch) as running:
                await running.until(lambda: watch.field.latest()[2].tolist() == [GOOD] * 7 + [CONFIG])
        finally:
            await server.shutdown()
            await asyncio.gather(serving, return_exceptions=True)
        bits, value, code, _ = watch.field.latest()
        assert value[:7].tolist() == EXPECTED
        assert bits[:2].tolist() == [0x47F12000] * 2
        assert code.tolist() == [GOOD] * 7 + [CONFIG]
        assert math.isnan(value[7])

    asyncio.run(scenario())


def test_pymodbus_stopped_and_started_again_is_bad_and_then_good_again():
    async def scenario():
        port = free_port()
        watch = Watch(one_device(points=POINTS[:2], ports=[port], period_s=0.1, timeout_s=0.2))
        async with Running(watch) as running:

            async def until(code):
                await running.until(lambda: watch.scans and watch.codes(0)[-1] == code)

            await until(COMM)
            for _ in range(2):
                server = ModbusTcpServer(simulated(), address=(HOST, port))
                serving = asyncio.create_task(server.serve_forever(), name="pymodbus")
                await until(GOOD)
                await server.shutdown()
                await asyncio.gather(serving, return_exceptions=True)
                await until(COMM)
        assert all(math.isnan(value) == (code < 64) for _, value, code in watch.of(0))

    asyncio.run(scenario())


def test_two_devices_on_two_buses_do_not_wait_for_each_other():
    async def scenario():
        sound, silent = Instrument(), Instrument(behave=lambda ask: [])
        await sound.listen(5020)
        await silent.listen(5021)
        watch = Watch(one_device(2, ports=[5020, 5021], timeout_s=0.9))
        await watch.for_s(20.5)
        assert len(sound.asks) == 21
        assert watch.codes(0) == [GOOD, GOOD, GOOD]
        assert set(watch.codes(2)) == {COMM}

    in_virtual_time(scenario)


def test_present_values_are_those_last_read_even_when_not_reported():
    async def scenario():
        instrument = Instrument()
        await instrument.listen()
        watch = Watch(one_device(2, tag={"has_limit": False, "report_deadband": 5.0}))
        _, value, code, _ = watch.field.latest()
        assert all(math.isnan(v) for v in value)
        assert set(code.tolist()) == {quality_code(Quality.BAD, Reason.UNKNOWN)}
        asyncio.get_running_loop().call_later(0.5, instrument.words.update, {1: 4})
        await watch.for_s(1.5)
        assert watch.field.latest()[1].tolist() == [0.0, 4.0]
        assert [value for _, value, _ in watch.of(1)] == [1.0]

    in_virtual_time(scenario)


def test_every_value_is_nan_exactly_when_it_is_bad_under_a_storm_of_faults():
    async def scenario():
        instrument = Instrument()
        turn = iter(range(10**9))

        def behave(ask):
            step = next(turn) % 7
            true = instrument.honest(ask)
            return [
                [true], [], [true[:9]], [Close], [Wait(0.2), true],
                [true[:2] + b"\0\0" + true[4:6] + b"\x09" + true[7:]], [true[:-1], Wait(0.05), true[-1:]],
            ][step]  # fmt: skip

        instrument.behave = behave
        await instrument.listen()
        watch = Watch(one_device(300, timeout_s=0.1, period_s=0.5))
        await watch.for_s(300)
        good = 0
        for scan in watch.scans:
            assert len(set(scan.point.tolist())) == len(scan)
            for point, value, code in zip(scan.point.tolist(), scan.value.tolist(), scan.code.tolist(), strict=True):
                assert math.isnan(value) == (code < 64)
                # The instrument says of every register its own address: a value that lies would show.
                assert math.isnan(value) or value == point
                good += code == GOOD
        assert good > 100

    in_virtual_time(scenario)


def test_a_value_wider_than_the_device_allows_is_refused_at_the_start():
    with pytest.raises(PlanError, match="raise registers_max"):
        asyncio.run(_build_narrow())


async def _build_narrow():
    Watch(one_device(points=[{"table": "holding", "address": 0, "type": "f64"}], registers_max=2))
