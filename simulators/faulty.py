"""A raw TCP server that answers with exactly the bytes a test asks for: no Modbus library, no mercy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from simulators.jsonlines import check_loopback

REQUEST_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes to send after waiting `delay_s`."""

    octets: bytes
    delay_s: float = 0.0


class CloseConnection:
    """In an answer: close here."""


CLOSE = CloseConnection()
Step = Chunk | CloseConnection
Answer = Callable[[bytes, int], Sequence[Step]]


class FaultyServer:
    """`async with FaultyServer(answer) as server:` listens on `server.host`, `server.port`.

    `answer(request, n)` gets what arrived in one read and how many came before, and returns what to send.
    `requests` keeps everything that arrived, `connections` counts accepts.
    """

    def __init__(self, answer: Answer, host: str = "127.0.0.1", port: int = 0) -> None:
        check_loopback(host)
        self._answer, self.host, self.port = answer, host, port
        self.requests: list[bytes] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with suppress(ConnectionError):
                while request := await reader.read(REQUEST_BYTES_MAX):
                    self.requests.append(request)
                    for step in self._answer(request, len(self.requests) - 1):
                        if isinstance(step, CloseConnection):
                            return
                        if step.delay_s:
                            await asyncio.sleep(step.delay_s)
                        writer.write(step.octets)
                        await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


def reading(request: bytes, registers: Sequence[int]) -> bytes:
    """The right answer to a register read: same transaction, unit and function, with `registers`."""
    body = bytes([request[6], request[7], 2 * len(registers)])
    body += b"".join(register.to_bytes(2, "big") for register in registers)
    return request[0:4] + len(body).to_bytes(2, "big") + body
