"""A plant's control port for tests and drills: one JSON object a line, loopback only.

`{"do": "instrument", …}` and every other scenario step happen at once; besides them `{"do": "begin"}`,
`{"do": "drop_connections"}` and `{"do": "status"}`. Each line is answered by `{"ok": true, …}` or
`{"ok": false, "error": …}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from simulators.errors import SimulatorError

LINE_BYTES_MAX = 64 * 1024
ANSWER_S_MAX = 5.0

Obey = Callable[[dict[str, Any]], dict[str, Any]]


async def serve_control(obey: Obey, port: int = 0) -> asyncio.Server:
    """Listen on 127.0.0.1; `obey` does the work and raises `SimulatorError` or `ValueError` to refuse."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(_answer(obey, line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client went away, or sent a line beyond the cap
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port, limit=LINE_BYTES_MAX)


def _answer(obey: Obey, line: bytes) -> dict[str, Any]:
    try:
        wanted = json.loads(line)
        if not isinstance(wanted, dict):
            return {"ok": False, "error": "one JSON object a line, please"}
        return {"ok": True, **obey(wanted)}
    except (SimulatorError, ValueError) as error:
        return {"ok": False, "error": str(error)}


async def control_plant(port: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Send one control line to a running plant and return its answer.

    Raises:
        SimulatorError: the plant refused.
        OSError, TimeoutError: nobody answers there.
    """
    async with asyncio.timeout(ANSWER_S_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES_MAX)
        try:
            writer.write(json.dumps(wanted).encode() + b"\n")
            await writer.drain()
            answer: dict[str, Any] = json.loads(await reader.readline())
        finally:
            writer.close()
    if not answer.get("ok"):
        raise SimulatorError(str(answer.get("error")))
    return answer
