"""The load of a busy console room on serve: live streams that are read, and history queries at a fixed rate.

A process of its own: `python -m benchmarks.serve_load URL TAGS STREAMS QUERIES_PER_S`, the token in HAZARDGATE_TOKEN. Says
one JSON line when its streams are open, and one with what it counted when its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any, Final

import aiohttp
import uvloop

from benchmarks.harness import percentile

RANGES_S: Final = (60, 300, 900, 3_600)
POINTS: Final = 500
QUERY_S_MAX: Final = 10.0
WAITING_MAX: Final = 200
"""Queries under way beyond which no more are begun: a generator that piles up measures itself."""


class Load:
    """Counts what it asked for and got."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tags: int) -> None:
        self._session, self._url, self._tags = session, url, tags
        self._chance = random.Random(1)
        self.counts: Counter[str] = Counter()
        self.query_ms: list[float] = []
        self.open = asyncio.Semaphore(0)

    async def stream(self) -> None:
        """Read one live stream, and open it again when it ends."""
        while True:
            try:
                async with self._session.get(f"{self._url}/api/v1/stream") as answer:
                    self.counts[f"stream {answer.status}"] += 1
                    self.open.release()
                    async for line in answer.content:
                        self.counts["stream bytes"] += len(line)
                        self.counts["stream events"] += line.startswith(b"event:")
            except aiohttp.ClientError as error:
                self.counts[f"stream {type(error).__name__}"] += 1
            await asyncio.sleep(1.0)

    async def queries(self, per_s: float) -> None:
        """Begin queries at random moments, `per_s` a second on average, whatever the answers do."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            under_way: set[asyncio.Task[None]] = set()
            while True:
                due += self._chance.expovariate(per_s)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if len(under_way) >= WAITING_MAX:
                    self.counts["not begun"] += 1
                    continue
                task = tasks.create_task(self._query(), name="query")
                under_way.add(task)
                task.add_done_callback(under_way.discard)

    async def _query(self) -> None:
        now = time.time_ns() // 1_000_000
        parameters = {
            "from_ms": now - 1_000 * self._chance.choice(RANGES_S), "to_ms": now, "points": POINTS,
        }  # fmt: skip
        tag = f"S{self._chance.randrange(self._tags):06d}.PRESSURE"
        began = time.monotonic()
        try:
            async with self._session.get(f"{self._url}/api/v1/tags/{tag}/history", params=parameters) as answer:
                body = await answer.read()
                self.counts[f"query {answer.status}"] += 1
                self.counts["query bytes"] += len(body)
                if answer.status == 200:
                    self.query_ms.append(1_000 * (time.monotonic() - began))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.counts[f"query {type(error).__name__}"] += 1


async def _run(url: str, tags: int, streams: int, per_s: float) -> None:
    headers = {"Authorization": f"Bearer {os.environ['HAZARDGATE_TOKEN']}"}
    connector = aiohttp.TCPConnector(limit=streams + WAITING_MAX)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=QUERY_S_MAX)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
        load = Load(session, url, tags)
        tasks = [asyncio.create_task(load.stream(), name=f"stream-{number}") for number in range(streams)]
        for _ in range(streams):
            await load.open.acquire()
        tasks.append(asyncio.create_task(load.queries(per_s), name="queries"))
        _say({"open": streams})
        began = time.monotonic()
        await asyncio.to_thread(sys.stdin.read)
        seconds = time.monotonic() - began
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [end for end in ended if isinstance(end, Exception)]
        if wrong:
            raise wrong[0]
    took = sorted(load.query_ms)
    _say({
        "seconds": seconds, "counts": dict(load.counts),
        "query_ms": {name: round(percentile(took, share), 1) for name, share in (("p50", 0.5), ("p99", 0.99))} if took else {},
    })  # fmt: skip


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
