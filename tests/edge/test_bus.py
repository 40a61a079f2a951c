"""The connection: deadlines, distrust, silence, reconnecting. Raw sockets and pymodbus on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from itertools import pairwise
from pathlib import Path

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from benchmarks.ports import free_port
from edge.bus import BusAddress, TcpBus
from edge.errors import BusDownError, ConnectionDroppedError, ExceptionReplyError, FieldLinkError, ReadTimeoutError
from edge.modbus import ReadFunction, ReadRequest
from tests.edge.field_rig import HOST, PORT, Close, Instrument, Wait, frame, in_virtual_time, registers
from tests.patience import GUARD_S

READ = ReadRequest(1, ReadFunction.READ_HOLDING_REGISTERS, 100, 2)
TRUE = struct.pack(">HH", 100, 101)


def bus_to(port=PORT, *, connect_timeout_s=1.0):
    return TcpBus(
        BusAddress("BUS", HOST, port, connect_timeout_s),
        monotonic=asyncio.get_running_loop().time,
        rng=random.Random(3),
    )


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def outcome(bus, read=READ, **how):
    """Content, or the class of what was raised."""
    try:
        return await bus.read(read, timeout_s=how.pop("timeout_s", 0.5), **how)
    except FieldLinkError as error:
        return type(error)


@pytest.mark.fault("F17")
def test_an_answer_in_one_byte_segments_and_two_glued_ones_are_read_once_each():
    async def scenario():
        instrument = Instrument()

        def behave(ask):
            true = instrument.honest(ask)
            if ask.transaction % 2:
                return [step for byte in true for step in (bytes([byte]), Wait(0.001))]
            return [true + true]

        instrument.behave = behave
        await instrument.listen()
        bus = bus_to()
        for address in range(50):
            content = await bus.read(ReadRequest(1, ReadFunction.READ_INPUT_REGISTERS, address, 1), timeout_s=1)
            assert content == struct.pack(">H", address)
        assert bus.counts.connects == 1
        assert bus.counts.links.answers == 50
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda ask: frame(ask, b"\x04\xde\xad\xbe\xef", transaction=ask.transaction + 7), id="transaction"),
        pytest.param(lambda ask: frame(ask, b"\x04\xde\xad\xbe\xef", unit=9), id="unit"),
        pytest.param(lambda ask: frame(ask, b"\x04\xde\xad\xbe\xef", function=4), id="function"),
        pytest.param(lambda ask: frame(ask, b"\x02\xde\xad"), id="length"),
    ],
)
def test_a_lying_device_gives_no_value_and_several_lies_a_new_connection(lie):
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [lie(ask)]
        await instrument.listen()
        bus = bus_to()
        for _ in range(9):
            assert await outcome(bus) in (ReadTimeoutError, ConnectionDroppedError)
        assert bus.counts.resets >= 2
        assert bus.counts.links.discarded == 9
        instrument.behave = None
        await asyncio.sleep(40)
        assert await outcome(bus) == TRUE
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F13")
def test_a_truncated_answer_ends_at_the_deadline_and_costs_no_more_than_the_next_transaction():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [instrument.honest(ask)[: 10 if len(instrument.asks) == 2 else None]]
        await instrument.listen()
        bus = bus_to()
        assert await outcome(bus) == TRUE
        assert await outcome(bus) is ReadTimeoutError
        results = [await outcome(bus) for _ in range(3)]
        assert results[1:] == [TRUE, TRUE]
        assert results[0] in (TRUE, ReadTimeoutError, ConnectionDroppedError)
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F14")
def test_endless_garbage_ends_at_the_deadline_and_is_cut_off():
    async def scenario():
        instrument = Instrument()
        noise = random.Random(5)
        instrument.behave = lambda ask: [step for _ in range(400) for step in (noise.randbytes(64), Wait(0.01))]
        await instrument.listen()
        bus = bus_to()
        for _ in range(5):
            started = asyncio.get_running_loop().time()
            assert await outcome(bus) in (ReadTimeoutError, ConnectionDroppedError, BusDownError)
            assert asyncio.get_running_loop().time() - started <= 0.51
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F15")
@pytest.mark.fault("F16")
def test_a_gateway_without_transaction_ids_never_gives_one_address_the_content_of_another():
    """The address 100 is answered after 0.7 s, the rest after 0.4 s, at a deadline of 0.5 s, over and over."""

    async def scenario():
        instrument = Instrument()

        def behave(ask):
            content = registers(ask, range(ask.address, ask.address + ask.count))
            return [Wait(0.7 if ask.address == 100 else 0.4), b"\0\0" + content[2:]]

        instrument.behave = behave
        await instrument.listen()
        bus = bus_to()
        results = {address: [] for address in (100, 500, 600, 700)}
        for _ in range(20):
            for address, got in results.items():
                read = ReadRequest(1, ReadFunction.READ_HOLDING_REGISTERS, address, 2)
                content = await outcome(bus, read, match_transaction=False)
                got.append(struct.unpack(">HH", content)[0] if isinstance(content, bytes) else None)
        assert set(results[100]) == {None}
        for address in (500, 600, 700):
            # Right, or (when the probe after 100 fell to the slow address) no value; never another's.
            assert set(results[address]) <= {address, None}
            assert results[address].count(address) >= 15
        assert bus.counts.links.late > 0
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F15")
def test_after_a_timeout_a_line_without_transaction_ids_rests_before_any_unit_is_asked():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Wait(0.3), instrument.honest(ask)] if ask.unit == 1 else []
        await instrument.listen()
        bus = bus_to()
        assert await outcome(bus, match_transaction=False) == TRUE
        silent = ReadRequest(2, ReadFunction.READ_HOLDING_REGISTERS, 0, 5)
        assert await outcome(bus, silent, match_transaction=False) is ReadTimeoutError
        gave_up = asyncio.get_running_loop().time()
        assert await outcome(bus, match_transaction=False) == TRUE
        assert instrument.asks[-1].at - gave_up == pytest.approx(0.3, abs=0.01)
        # With transaction ids nothing can be mistaken, and nobody waits.
        assert await outcome(bus, silent) is ReadTimeoutError
        gave_up = asyncio.get_running_loop().time()
        assert await outcome(bus) == TRUE
        assert instrument.asks[-1].at == gave_up
        bus.close()

    in_virtual_time(scenario)


def test_a_request_that_crosses_with_the_close_of_an_idle_connection_is_repeated_on_a_new_one():
    async def scenario():
        instrument = Instrument()
        seen = set()

        def behave(ask):
            if ask.connection in seen:
                return [Close]
            seen.add(ask.connection)
            return [instrument.honest(ask)]

        instrument.behave = behave
        await instrument.listen()
        bus = bus_to()
        assert [await outcome(bus) for _ in range(5)] == [TRUE] * 5
        assert bus.counts.connects == 5
        # An answer owed to an old connection must not fit a request on the new one.
        assert len({ask.transaction for ask in instrument.asks}) == len(instrument.asks) == 9
        bus.close()

    in_virtual_time(scenario)


def test_a_pause_is_kept_between_the_end_of_one_exchange_and_the_next_request():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Wait(0.1), instrument.honest(ask)]
        await instrument.listen()
        bus = bus_to()
        await asyncio.gather(*(bus.read(READ, timeout_s=1, pause_s=0.25) for _ in range(4)))
        gaps = [b.at - a.at for a, b in pairwise(instrument.asks)]
        assert gaps == pytest.approx([0.35] * 3)
        bus.close()

    in_virtual_time(scenario)


def test_readers_take_turns_and_waiting_does_not_count_against_the_deadline():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Wait(0.4), instrument.honest(ask)]
        await instrument.listen()
        bus = bus_to()
        results = await asyncio.gather(*(bus.read(READ, timeout_s=0.5) for _ in range(10)))
        assert results == [TRUE] * 10
        assert instrument.connections == 1
        bus.close()

    in_virtual_time(scenario)


def test_a_cancelled_reader_leaves_the_bus_usable():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [Wait(0.4), instrument.honest(ask)]
        await instrument.listen()
        bus = bus_to()
        reader = asyncio.create_task(bus.read(READ, timeout_s=0.5))
        await asyncio.sleep(0.1)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert await bus.read(ReadRequest(1, ReadFunction.READ_HOLDING_REGISTERS, 7, 2), timeout_s=1) == struct.pack(
            ">HH", 7, 8
        )
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F18")
def test_two_mute_timeouts_end_the_connection():
    async def scenario():
        instrument = Instrument()
        instrument.behave = lambda ask: [instrument.honest(ask)] if len(instrument.asks) not in (3, 4) else []
        await instrument.listen()
        bus = bus_to()
        got = [await outcome(bus) for _ in range(6)]
        assert got == [TRUE, TRUE, ReadTimeoutError, ReadTimeoutError, TRUE, TRUE]
        assert bus.counts.connects == 2
        bus.close()

    in_virtual_time(scenario)


@pytest.mark.fault("F18")
def test_the_kernel_is_told_to_watch_for_a_dead_peer():
    async def scenario():
        instrument = Instrument()
        server = await instrument.listen(0)
        bus = bus_to(server.sockets[0].getsockname()[1], connect_timeout_s=GUARD_S)
        await bus.read(READ, timeout_s=GUARD_S)
        sock = bus._link._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        bus.close()
        server.close()

    asyncio.run(scenario())


@pytest.mark.fault("F19")
def test_ten_thousand_refused_or_reset_connections_leave_no_file_open():
    async def scenario():
        instrument = Instrument(behave=lambda ask: [Close])
        server = await instrument.listen(0)
        port, closed_port = server.sockets[0].getsockname()[1], free_port()
        before = open_files()
        for target, cycles in ((port, 5_000), (closed_port, 5_000)):
            bus = bus_to(target, connect_timeout_s=GUARD_S)
            for _ in range(cycles):
                bus._connect_from = 0.0  # without the pause that keeps real devices from such a storm
                assert await outcome(bus, timeout_s=GUARD_S) in (ConnectionDroppedError, BusDownError)
            assert bus.counts.connects >= cycles
            bus.close()
        instrument.transports.clear()
        async with asyncio.timeout(GUARD_S):
            while open_files() > before + 2:
                await asyncio.sleep(0.01)
        server.close()

    asyncio.run(scenario())


@pytest.mark.fault("F19")
def test_an_unreachable_device_is_tried_fast_first_and_then_every_half_minute():
    async def scenario():
        bus, tried = bus_to(), []
        loop = asyncio.get_running_loop()
        for _ in range(3000):
            connects = bus.counts.connects
            assert await outcome(bus) is BusDownError
            if bus.counts.connects > connects:
                tried.append(loop.time())
            await asyncio.sleep(0.1)
        gaps = [b - a for a, b in pairwise(tried)]
        assert tried[2] < 0.5
        assert 20 < max(gaps) <= 30.2
        assert len(tried) < 25

    in_virtual_time(scenario)


def test_a_refused_connection_says_where_and_what_to_check():
    async def scenario():
        with pytest.raises(BusDownError, match=r"no connection to 127\.0\.0\.1:5020 .*check power, cable and port"):
            await bus_to().read(READ, timeout_s=1)

    in_virtual_time(scenario)


# an independent server


def simulated():
    words = [SimData(0, values=list(range(300)), datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[i % 3 == 0 for i in range(320)], datatype=DataType.BITS)]
    return SimDevice(id=1, simdata=(bits, bits, words, words))


async def with_pymodbus(use):
    """Run `use(bus)` against a pymodbus server."""
    port = free_port()
    server = ModbusTcpServer(simulated(), address=(HOST, port))
    serving = asyncio.create_task(server.serve_forever(), name="pymodbus")
    bus = bus_to(port, connect_timeout_s=GUARD_S)
    try:
        deadline = time.monotonic() + GUARD_S
        while await outcome(bus, timeout_s=GUARD_S) is BusDownError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await use(bus)
    finally:
        bus.close()
        await server.shutdown()
        await asyncio.gather(serving, return_exceptions=True)


def test_pymodbus_answers_every_function_with_what_it_holds():
    async def use(bus):
        for function in (ReadFunction.READ_HOLDING_REGISTERS, ReadFunction.READ_INPUT_REGISTERS):
            for address, count in ((0, 125), (17, 1), (175, 125)):
                content = await bus.read(ReadRequest(1, function, address, count), timeout_s=GUARD_S)
                assert struct.unpack(f">{count}H", content) == tuple(range(address, address + count))
        for function in (ReadFunction.READ_COILS, ReadFunction.READ_DISCRETE_INPUTS):
            content = await bus.read(ReadRequest(1, function, 5, 300), timeout_s=GUARD_S)
            got = [content[i // 8] >> i % 8 & 1 for i in range(300)]
            assert got == [int((i + 5) % 3 == 0) for i in range(300)]

    asyncio.run(with_pymodbus(use))


@pytest.mark.fault("F10")
def test_pymodbus_refuses_addresses_it_has_not_with_exception_2():
    async def use(bus):
        with pytest.raises(ExceptionReplyError) as caught:
            await bus.read(ReadRequest(1, ReadFunction.READ_HOLDING_REGISTERS, 290, 20), timeout_s=GUARD_S)
        assert caught.value.exception_code == 2
        assert "refused addresses 290 to 309 with Modbus exception 2 (illegal data address)" in str(caught.value)

    asyncio.run(with_pymodbus(use))
