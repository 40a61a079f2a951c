"""The raw server sends exactly what a test asks for."""

from __future__ import annotations

import asyncio

from simulators import CLOSE, Chunk, CloseConnection, FaultyServer, reading
from tests.simulators.small_site import real_loop

REQUEST = bytes.fromhex("1234 0000 0006 05 03 0000 0002")


def test_chunks_come_as_given_and_the_connection_closes_when_told() -> None:
    def answer(request: bytes, number: int) -> list[Chunk | CloseConnection]:
        good = reading(request, [1, 0xABCD])
        return [Chunk(good[:5]), Chunk(good[5:], delay_s=0.01)] if number == 0 else [CLOSE]

    async def scenario() -> None:
        async with FaultyServer(answer) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(REQUEST)
            assert await reader.readexactly(13) == bytes.fromhex("1234 0000 0007 05 03 04 0001 abcd")
            writer.write(REQUEST)
            assert await reader.read() == b""
            writer.close()
            assert (server.connections, server.requests) == (1, [REQUEST, REQUEST])

    real_loop(scenario)


def test_it_stops_with_a_client_still_connected() -> None:
    async def scenario() -> None:
        async with FaultyServer(lambda request, number: []) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
        assert await reader.read() == b""
        writer.close()

    real_loop(scenario, timeout_s=5)
