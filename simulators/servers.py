"""Modbus TCP servers in front of the register image, on pymodbus, in one event loop.

pymodbus takes the connections and decodes and encodes the protocol data units, so that the edge is tried
against someone else's reading of the standard. Here: the frame cutting (several requests may arrive glued),
the request log, the faults, and the answers from `RegisterImage`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from pymodbus.framer import FramerType
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsResponse, ReadDiscreteInputsResponse
from pymodbus.pdu.register_message import ReadHoldingRegistersResponse, ReadInputRegistersResponse
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.errors import PortTakenError
from simulators.instrument_faults import FaultKind, InstrumentFault
from simulators.jsonlines import check_loopback
from simulators.registers import TABLE_OF_FUNCTION, RegisterImage
from simulators.requests import READ_CODES, RequestLog

HEADER_BYTES = 7
FRAME_BYTES_MAX = 260
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, NO_RESPONSE_BEHIND_GATEWAY = 1, 2, 3, 11
COUNT_MAX = {1: 2000, 2: 2000, 3: 125, 4: 125}

Served = Callable[[str, int, str, int, int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as cut from the byte stream."""

    transaction: int
    unit: int
    function: int
    body: bytes

    @property
    def address(self) -> int:
        """First address of a read."""
        return int.from_bytes(self.body[0:2], "big")

    @property
    def count(self) -> int:
        """Registers or bits asked for."""
        return int.from_bytes(self.body[2:4], "big")


class Instruments:
    """What all listeners share: registers, standing faults, the log, and whom to tell of a served read."""

    def __init__(self, image: RegisterImage, requests: RequestLog, seed: int, served: Served) -> None:
        self.image, self.requests, self.served = image, requests, served
        self.random = random.Random(seed)
        self.faults: dict[tuple[str, int], InstrumentFault] = {}

    def fault_of(self, server: str, request: Request) -> InstrumentFault | None:
        """The fault that this request meets, if any."""
        fault = self.faults.get((server, request.unit))
        if fault is None or not fault.hits(request.address, max(request.count, 1)):
            return None
        return fault

    def answer(self, server: str, request: Request) -> ModbusPDU:
        """Build the true answer of a healthy instrument."""
        if request.function not in READ_CODES:
            return _refusal(request, ILLEGAL_FUNCTION)
        if (server, request.unit) not in self.image.units:
            return _refusal(request, NO_RESPONSE_BEHIND_GATEWAY)
        if len(request.body) != 4 or not 1 <= request.count <= COUNT_MAX[request.function]:
            return _refusal(request, ILLEGAL_VALUE)
        table = TABLE_OF_FUNCTION[request.function]
        values = self.image.read(server, request.unit, table, request.address, request.count)
        if values is None:
            return _refusal(request, ILLEGAL_ADDRESS)
        return _reading(request, values)


def _refusal(request: Request, code: int) -> ModbusPDU:
    return ExceptionResponse(request.function, code, device_id=request.unit, transaction=request.transaction)


def _reading(request: Request, values: list[int]) -> ModbusPDU:
    answer: ModbusPDU
    match request.function:
        case 1:
            answer = ReadCoilsResponse(bits=[bool(v) for v in values])
        case 2:
            answer = ReadDiscreteInputsResponse(bits=[bool(v) for v in values])
        case 3:
            answer = ReadHoldingRegistersResponse(registers=values)
        case _:
            answer = ReadInputRegistersResponse(registers=values)
    answer.dev_id, answer.transaction_id = request.unit, request.transaction
    return answer


class _Connection(ServerRequestHandler):
    """One client's connection: requests in, answers out, in order unless a fault says otherwise."""

    def __init__(self, owner: InstrumentServer) -> None:
        super().__init__(owner, None, None, None)  # type: ignore[no-untyped-call]
        self._owner = owner
        self._later: set[asyncio.TimerHandle] = set()

    def callback_data(self, data: bytes, addr: tuple[str, int] | None = None) -> int:
        """Take every whole request out of `data`; return how many bytes were used."""
        used = 0
        while len(data) - used > HEADER_BYTES:
            length = 6 + int.from_bytes(data[used + 4 : used + 6], "big")
            if data[used + 2 : used + 4] != b"\0\0" or not HEADER_BYTES < length <= FRAME_BYTES_MAX:
                self.close()
                return len(data)
            if len(data) - used < length:
                break
            self._take(data[used : used + length])
            used += length
        return used

    def _take(self, frame: bytes) -> None:
        request = Request(int.from_bytes(frame[0:2], "big"), frame[6], frame[7], frame[8:])
        owner = self._owner
        owner.instruments.requests.take(owner.name, request.unit, request.function, request.body)
        fault = owner.instruments.fault_of(owner.name, request)
        if fault is None or fault.kind is FaultKind.FREEZE or request.function not in READ_CODES:
            self._reply(request)
        else:
            self._misbehave(request, fault)

    def _reply(self, request: Request) -> None:
        """Send the registers as they are now."""
        owner = self._owner
        answer = owner.instruments.answer(owner.name, request)
        self._write(self.framer.buildFrame(answer))
        if not answer.isError():
            table = TABLE_OF_FUNCTION[request.function]
            owner.instruments.served(owner.name, request.unit, table, request.address, request.count)

    def _misbehave(self, request: Request, fault: InstrumentFault) -> None:
        instruments = self._owner.instruments
        match fault.kind:
            case FaultKind.EXCEPTION:
                self._write(self.framer.buildFrame(_refusal(request, fault.code)))
            case FaultKind.GARBAGE:
                self._write(instruments.random.randbytes(instruments.random.randint(1, 64)))
            case FaultKind.TRUNCATED:
                whole = self.framer.buildFrame(instruments.answer(self._owner.name, request))
                self._write(whole[: len(whole) // 2])
            case FaultKind.WRONG_TRANSACTION:
                whole = self.framer.buildFrame(instruments.answer(self._owner.name, request))
                self._write(((request.transaction + 1) % 65536).to_bytes(2, "big") + whole[2:])
            case FaultKind.SLOW:
                self._reply_later(request, fault.delay_s)
            case FaultKind.CLOSE:
                self.close()
            case _:
                pass  # NO_ANSWER: silence is the answer

    def _reply_later(self, request: Request, delay_s: float) -> None:
        def send() -> None:
            self._later.discard(handle)
            if self.is_active():
                self._reply(request)

        handle = self.loop.call_later(delay_s, send)
        self._later.add(handle)

    def callback_disconnected(self, exc: Exception | None) -> None:
        """Forget answers that wait for a client that has gone."""
        for handle in self._later:
            handle.cancel()
        self._later.clear()
        super().callback_disconnected(exc)

    def _write(self, frame: bytes) -> None:
        # not self.send(): that clears the receive buffer, and with it a second request half arrived
        if self.is_active():
            cast(asyncio.Transport, self.transport).write(frame)


class InstrumentServer(ModbusTcpServer):
    """One listener: a bus with all units on it."""

    def __init__(self, name: str, instruments: Instruments, host: str, port: int) -> None:
        """Prepare a listener; must be called with a running loop.

        Raises:
            NotLoopbackError: `host` is reachable from outside.
        """
        check_loopback(host)
        self.name, self.instruments = name, instruments
        self.host, self.port = host, port
        # pymodbus insists on a datastore; answers come from the register image instead
        unused = SimDevice(0, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
        super().__init__(unused, framer=FramerType.SOCKET, address=(host, port))

    def callback_new_connection(self) -> _Connection:
        """Make the protocol of an accepted connection."""
        return _Connection(self)

    async def start(self) -> None:
        """Listen; `port` then holds the port in use.

        Raises:
            PortTakenError: the port cannot be opened.
        """
        if not await self.listen():
            raise PortTakenError(self.name, self.host, self.port)
        listener = cast(asyncio.Server, self.transport)
        self.port = listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        await self.shutdown()  # type: ignore[no-untyped-call]

    def drop_connections(self) -> None:
        """Cut every open connection; clients may come back at once."""
        for connection in list(self.active_connections.values()):
            connection.close()
