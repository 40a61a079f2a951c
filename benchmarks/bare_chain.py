"""The bare chain: the fewest steps from a register to a webhook that survive the loss of power on both sides.

Two processes, as on a real network, each one loop of callbacks without a library above the socket:
`edge`     reads one block of registers over Modbus TCP, appends and syncs a record, publishes it by MQTT;
`gateway`  takes the message, appends and syncs a record, posts a body on a kept connection.
It knows no quality, no alarm, no order, no retry and no signature. Messages and bodies are as long as ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, cast

import uvloop

REGISTERS = 80
TOPIC = b"bare/chain"
RECORD_BYTES = 4096
CONNACK, PUBLISH, SUBACK = 0x20, 0x30, 0x90


class Stream(asyncio.Protocol):
    """A kept connection that hands its bytes on."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        sys.exit(f"bare chain: a connection was lost ({exc or 'closed'})")


class Disk:
    """Append and sync, in the loop: there is nothing else to do meanwhile."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def keep(self, record: bytes) -> None:
        os.write(self._file, record.ljust(RECORD_BYTES, b"\0"))
        os.fdatasync(self._file)


class Mqtt:
    """As much of MQTT 3.1.1 as QoS 0 needs."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take, self._read = take, bytearray()
        self._answered: dict[int, asyncio.Event] = {CONNACK: asyncio.Event(), SUBACK: asyncio.Event()}
        self._write: Callable[[bytes], None] = lambda _: None

    async def open(self, port: int, name: bytes, *, subscribe: bool) -> None:
        _, stream = await connect(port, self._received)
        assert stream.transport is not None
        self._write = stream.transport.write
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name
        self._write(b"\x10" + bytes([len(body)]) + body)
        if subscribe:
            body = b"\x00\x01" + len(TOPIC).to_bytes(2, "big") + TOPIC + b"\x00"
            self._write(b"\x82" + bytes([len(body)]) + body)
            await self._answered[SUBACK].wait()
        await self._answered[CONNACK].wait()

    def publish(self, payload: bytes) -> None:
        body = len(TOPIC).to_bytes(2, "big") + TOPIC + payload
        self._write(b"\x30" + _length(len(body)) + body)

    def _received(self, data: bytes) -> None:
        self._read += data
        while len(self._read) >= 2:
            length, at, shift = 0, 1, 0
            while at < len(self._read):
                length |= (self._read[at] & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if self._read[at - 1] < 0x80:
                    break
            else:
                return
            if len(self._read) < at + length:
                return
            kind, body = self._read[0] & 0xF0, bytes(self._read[at : at + length])
            del self._read[: at + length]
            if kind == PUBLISH:
                self._take(body[2 + int.from_bytes(body[:2], "big") :])
            else:
                self._answered[kind].set()


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


async def connect(port: int, take: Callable[[bytes], None]) -> tuple[Any, Stream]:
    """Open a connection to a port of this machine."""
    return await asyncio.get_running_loop().create_connection(lambda: Stream(take), "127.0.0.1", port)


async def edge(modbus_port: int, mqtt_port: int, path: str, payload_bytes: int) -> None:
    """Read once for every line on stdin, which is the number of the register pair that has changed."""
    disk, mqtt = Disk(path), Mqtt(lambda _: None)
    await mqtt.open(mqtt_port, b"bare-edge", subscribe=False)
    answer = bytearray()
    asked = [0]

    def answered(data: bytes) -> None:
        answer.extend(data)
        if len(answer) < 9 + 2 * REGISTERS:
            return
        values = struct.unpack_from(f">{REGISTERS // 2}f", answer, 9)
        answer.clear()
        if max(values) < 80.0:
            sys.exit("bare chain: read a calm register")
        record = b"%d " % asked[0] + b"".join(struct.pack(">d", value) for value in values)
        record = record.ljust(payload_bytes, b"\0")
        disk.keep(record)
        mqtt.publish(record)

    _, modbus = await connect(modbus_port, answered)
    assert modbus.transport is not None
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    print("ready", flush=True)
    while line := await stdin.readline():
        asked[0] = int(line)
        modbus.transport.write(struct.pack(">HHHBBHH", asked[0] & 0xFFFF, 0, 6, 1, 3, 0, REGISTERS))


async def gateway(mqtt_port: int, http_port: int, path: str, body_bytes: int) -> None:
    """Keep every message and post about it."""
    disk = Disk(path)
    _, http = await connect(http_port, lambda _: None)
    assert http.transport is not None
    body = b"{}".ljust(body_bytes)
    head = b"HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % body_bytes
    write = http.transport.write

    def take(payload: bytes) -> None:
        disk.keep(payload)
        write(b"POST /bare/%s %s%s" % (payload[: payload.index(b" ")], head, body))

    mqtt = Mqtt(take)
    await mqtt.open(mqtt_port, b"bare-gateway", subscribe=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    print("ready", flush=True)
    await stdin.read()


if __name__ == "__main__":
    side, *rest = sys.argv[1:]
    first, second, record_path, size = rest
    part = edge if side == "edge" else gateway
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(part(int(first), int(second), record_path, int(size)))
