"""A platform's door as a process of its own: stamps the first byte of every webhook, verifies it, answers 200.

It is nothing but a socket, so that what it adds is small and the same for both chains: a framework's own time
would blur the difference. Says its port on the first line of stdout and one JSON line for every request; ends
when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 1024 * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class Door(asyncio.Protocol):
    """One kept connection: requests one after the other, none pipelined."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._read = bytearray()
        self._first_ns = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._read:
            self._first_ns = time.time_ns()
        self._read += data
        while (request := self._whole_request()) is not None:
            self._answer(*request)

    def _whole_request(self) -> tuple[str, dict[str, str], bytes] | None:
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return None
        lines = self._read[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:])}
        length = int(headers["content-length"])
        if length > BODY_BYTES_MAX:
            raise ValueError("a webhook of more than 1 MiB")
        whole = end + 4 + length
        if len(self._read) < whole:
            return None
        body = bytes(self._read[end + 4 : whole])
        del self._read[:whole]
        return lines[0].split(" ")[1], headers, body

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> None:
        assert self._transport is not None
        line: dict[str, Any] = {"path": path, "at_ms": self._first_ns / 1e6, "bytes": len(body)}
        if path.startswith("/bare/"):
            self._transport.write(ANSWER)
            line["number"] = int(path.removeprefix("/bare/"))
        else:
            line |= self._verified(headers, body)
            self._transport.write(ANSWER if line["verified"] else REFUSAL)
        print(json.dumps(line), flush=True)

    def _verified(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            return {"verified": False}
        message = json.loads(body)
        alarm = message["data"].get("alarm") or {}
        return {
            "verified": True, "id": headers["webhook-id"], "type": message["type"], "tag": alarm.get("tag"),
            "limit": alarm.get("limit"), "lane": message["data"].get("lane"), "sequence": message["data"].get("sequence"),
        }  # fmt: skip


async def serve(secret: str) -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    webhook = Webhook(secret)
    server = await loop.create_server(lambda: Door(webhook), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await until_stdin_ends()
    server.close()


async def until_stdin_ends() -> None:
    """Return when whoever started this process has gone or wants it to go."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def missing_sequences(lines: list[dict[str, Any]]) -> int:
    """Return how many numbers below the highest of each lane never came."""
    lanes: dict[str, set[int]] = {}
    for line in lines:
        if line.get("sequence") is not None:
            lanes.setdefault(line["lane"], set()).add(line["sequence"])
    return sum(max(numbers) - len(numbers) for numbers in lanes.values())


def counts(lines: list[dict[str, Any]]) -> Counter[str]:
    """Count verified webhooks by type."""
    return Counter(line["type"] for line in lines if line.get("verified"))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
