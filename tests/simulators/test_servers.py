"""Real Modbus TCP servers, read by pymodbus' own client and by hand-made frames."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators import (
    READS_FILE,
    REQUESTS_FILE,
    TALLY,
    FaultKind,
    InstrumentBank,
    InstrumentFault,
    NotLoopbackError,
    PortTakenError,
    count_functions,
    field_of,
    read_json_lines,
)
from simulators.errors import ControlRefusedError
from simulators.layout import Layout
from simulators.plant import Plant
from tests.patience import GUARD_S
from tests.simulators.small_site import FREE_PORTS, real_loop, small_site

READ_INPUT = bytes.fromhex("0001 0000 0006 01 04 0000 0002")


def bank_of(directory: Path | None = None) -> InstrumentBank:
    field = field_of(small_site(), FREE_PORTS)
    bank = InstrumentBank(field, directory, seed=1)
    bank.write(Plant(field.tags, Layout(), seed=1).value)
    return bank


async def exchange(address: tuple[str, int], request: bytes, wait_s: float = GUARD_S / 2) -> bytes | None:
    """Send raw bytes; return what came, b"" for a closed connection, None for silence."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        async with asyncio.timeout(wait_s):
            return await reader.read(1000)
    except TimeoutError:
        return None
    finally:
        writer.close()


def test_every_table_and_type_reads_back_through_the_peer() -> None:
    async def scenario() -> None:
        bank = bank_of()
        await bank.start()
        value = {
            tag.id: float(v) for tag, v in zip(bank.field.tags, Plant(bank.field.tags, Layout(), 1).value, strict=True)
        }
        gas = AsyncModbusTcpClient(bank.addresses["E1/B1"][0], port=bank.addresses["E1/B1"][1])
        tank = AsyncModbusTcpClient(bank.addresses["E1/B2"][0], port=bank.addresses["E1/B2"][1])
        assert await gas.connect()
        assert await tank.connect()
        swapped = (await gas.read_input_registers(0, count=2, device_id=1)).registers
        f32 = gas.convert_from_registers(swapped, gas.DATATYPE.FLOAT32, word_order="little")
        assert f32 == pytest.approx(value["CL2.A1"], abs=1e-6)
        assert (await gas.read_discrete_inputs(3, count=1, device_id=1)).bits[0] is False
        holding = (await tank.read_holding_registers(100, count=6, device_id=7)).registers
        assert holding[0] == round(value["V1.LEVEL"] * 1000)
        assert holding[5] == 1 << 9
        wind = (await tank.read_holding_registers(4, count=4, device_id=8)).registers
        assert tank.convert_from_registers(wind, tank.DATATYPE.UINT64) == round(value["WIND.FROM"] * 1000)
        gas.close()
        tank.close()
        await bank.stop()

    real_loop(scenario)


def test_a_write_is_refused_logged_and_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TALLY, raising=False)  # these writes are sent on purpose, by another library

    async def scenario() -> None:
        bank = bank_of(tmp_path)
        await bank.start()
        before = bank.image.read("E1/B2", 7, "holding", 100, 6)
        client = AsyncModbusTcpClient(bank.addresses["E1/B2"][0], port=bank.addresses["E1/B2"][1])
        await client.connect()
        for answer in (
            await client.write_register(100, 1, device_id=7),
            await client.write_registers(100, [1, 2], device_id=7),
            await client.write_coil(0, True, device_id=7),
            await client.write_coils(0, [True], device_id=7),
            await client.mask_write_register(address=100, device_id=7),
            await client.readwrite_registers(read_address=100, read_count=1, address=100, values=[1], device_id=7),
        ):
            assert answer.isError()
            assert answer.exception_code == 1
        client.close()
        # too short to be a write that any library would decode: it still counts as one
        assert await exchange(bank.addresses["E1/B2"], bytes.fromhex("0009 0000 0003 07 10 00")) == bytes.fromhex(
            "0009 0000 0003 07 90 01"
        )
        assert bank.requests.writes == 7
        assert bank.image.read("E1/B2", 7, "holding", 100, 6) == before
        await bank.stop()
        assert count_functions(tmp_path / REQUESTS_FILE) == Counter({6: 1, 16: 2, 5: 1, 15: 1, 22: 1, 23: 1})
        assert {line["kind"] for line in read_json_lines(tmp_path / REQUESTS_FILE)} == {"write"}

    real_loop(scenario)


def test_an_unknown_function_is_refused_and_counted_apart() -> None:
    async def scenario() -> None:
        bank = bank_of()
        await bank.start()
        answer = await exchange(bank.addresses["E1/B1"], bytes.fromhex("0002 0000 0005 01 2b 0e 01 00"))
        assert answer == bytes.fromhex("0002 0000 0003 01 ab 01")
        assert (bank.requests.others, bank.requests.writes) == (1, 0)
        await bank.stop()

    real_loop(scenario)


@pytest.mark.parametrize(
    ("request_hex", "code"),
    [
        pytest.param("0001 0000 0006 01 04 0005 0002", 2, id="addresses the device has not"),
        pytest.param("0001 0000 0006 63 04 0000 0002", 11, id="a unit that is not there"),
        pytest.param("0001 0000 0006 01 04 0000 007e", 3, id="126 registers"),
        pytest.param("0001 0000 0006 01 04 0000 0000", 3, id="no registers"),
        pytest.param("0001 0000 0004 01 04 0000", 3, id="half a request"),
    ],
)
def test_exceptions_of_a_healthy_device(request_hex: str, code: int) -> None:
    async def scenario() -> None:
        bank = bank_of()
        await bank.start()
        answer = await exchange(bank.addresses["E1/B1"], bytes.fromhex(request_hex))
        assert answer is not None
        assert answer[7:] == bytes([0x84, code])
        await bank.stop()

    real_loop(scenario)


def test_glued_and_split_requests_are_each_answered_once() -> None:
    async def scenario() -> None:
        bank = bank_of()
        await bank.start()
        reader, writer = await asyncio.open_connection(*bank.addresses["E1/B1"])
        second = bytes.fromhex("0002") + READ_INPUT[2:]
        stream = READ_INPUT + second + READ_INPUT
        writer.write(stream[:30])
        first_two = await reader.readexactly(26)
        assert (first_two[0:2], first_two[13:15]) == (b"\0\1", b"\0\2")
        for i in range(30, len(stream)):
            writer.write(stream[i : i + 1])
            await writer.drain()
        assert (await reader.readexactly(13))[:2] == b"\0\1"
        assert bank.requests.functions[4] == 3
        writer.close()
        await bank.stop()

    real_loop(scenario)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (InstrumentFault(FaultKind.NO_ANSWER), lambda a, good: a is None),
        (InstrumentFault(FaultKind.EXCEPTION, code=6), lambda a, good: a == good[:4] + b"\0\3\1\x84\6"),
        (InstrumentFault(FaultKind.EXCEPTION, code=2, first=1, last=1), lambda a, good: a[-2:] == b"\x84\2"),
        (InstrumentFault(FaultKind.EXCEPTION, code=2, first=9, last=9), lambda a, good: a == good),
        (InstrumentFault(FaultKind.GARBAGE), lambda a, good: a and a != good),
        (InstrumentFault(FaultKind.TRUNCATED), lambda a, good: a == good[: len(good) // 2]),
        (InstrumentFault(FaultKind.WRONG_TRANSACTION), lambda a, good: a[:2] == b"\0\2" and a[2:] == good[2:]),
        (InstrumentFault(FaultKind.SLOW, delay_s=0.1), lambda a, good: a == good),
        (InstrumentFault(FaultKind.SLOW, delay_s=5.0), lambda a, good: a is None),
        (InstrumentFault(FaultKind.CLOSE), lambda a, good: a == b""),
        (InstrumentFault(FaultKind.FREEZE), lambda a, good: a == good),
    ],
)
def test_each_fault_shows_and_heals(fault: InstrumentFault, check: object) -> None:
    async def scenario() -> None:
        bank = bank_of()
        await bank.start()
        address = bank.addresses["E1/B1"]
        good = await exchange(address, READ_INPUT)
        assert good is not None
        assert len(good) == 13
        bank.set_fault("GAS", fault)
        silent = fault.kind is FaultKind.NO_ANSWER or fault.delay_s > 1
        assert check(await exchange(address, READ_INPUT, *([0.3] if silent else [])), good)  # type: ignore[operator]
        bank.set_fault("GAS", None)
        assert await exchange(address, READ_INPUT) == good
        await bank.stop()

    real_loop(scenario)


def test_a_frozen_instrument_answers_with_old_registers_and_no_change_is_logged() -> None:
    bank = bank_of()
    value = Plant(bank.field.tags, Layout(), 1).value
    bank.set_fault("E1/GAS", InstrumentFault(FaultKind.FREEZE))
    value[0] = 9.0
    assert bank.write(value) == []
    bank.set_fault("GAS", None)
    assert [change.limit for change in bank.write(value)] == ["H", "HH"]


def test_the_first_read_of_a_change_is_logged_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        bank = bank_of(tmp_path)
        await bank.start()
        value = Plant(bank.field.tags, Layout(), 1).value
        value[0] = 1.5
        (change,) = bank.write(value)
        await exchange(bank.addresses["E1/B1"], READ_INPUT)
        await exchange(bank.addresses["E1/B1"], READ_INPUT)
        await bank.stop()
        (read,) = read_json_lines(tmp_path / READS_FILE)
        assert (read["number"], read["tag"], read["limit"]) == (change.number, "CL2.A1", "H")
        assert 0 <= read["read_ms"] - change.at_ms < 5000

    real_loop(scenario)


def test_only_loopback_is_listened_on() -> None:
    async def scenario() -> None:
        site = small_site().model_dump(mode="json")
        site["edges"][0]["buses"][0]["host"] = "0.0.0.0"
        bank = InstrumentBank(field_of(type(small_site()).model_validate(site), FREE_PORTS), None, 1)
        with pytest.raises(NotLoopbackError, match=r"0\.0\.0\.0"):
            await bank.start()

    real_loop(scenario)


def test_a_taken_port_is_named_and_nothing_stays_open() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            bank = InstrumentBank(field_of(small_site(), {("E1", "B1"): 0, ("E1", "B2"): port}), None, 1)
            with pytest.raises(PortTakenError, match=str(port)):
                await bank.start()
            assert bank.addresses == {}

    real_loop(scenario)


def test_an_unknown_device_is_refused_by_name() -> None:
    with pytest.raises(ControlRefusedError, match="GAS"):
        bank_of().set_fault("GAZ", None)
