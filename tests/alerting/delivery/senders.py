"""What the tests of delivery share: rows, receivers, a twin of the way out, and a courier in virtual time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import async_solipsism

from alerting.delivery import Answer, Courier, NoAnswerError, Notice, OutboxRow, Post, SiteWords, notice_id
from config import ReceiverConfig
from tests.patience import GUARD_S

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
WORDS = SiteWords("DEMO", ("示范园区", "demo park"), ZoneInfo("Asia/Shanghai"), {})
START_WALL_MS = 1_780_000_000_000
LOOPBACK = ("127.0.0.0/8", "::1/128")
BODY = '{"type":"alarm.raised","timestamp":"t","data":{"site":"DEMO","late":false}}'


def notice(alarm: str = "a1", revision: int = 1, *, lane: str = "red", receiver: str = "CITY") -> Notice:
    step = f"{alarm}/{revision}"
    return Notice(notice_id(step, revision, receiver), step, alarm, revision, receiver, lane, START_WALL_MS, BODY)


def row(
    sequence: int = 1, alarm: str | None = None, revision: int = 1, *, lane: str = "red", receiver: str = "CITY", **had: Any
) -> OutboxRow:
    n = notice(alarm or f"a{sequence}", revision, lane=lane, receiver=receiver)
    return OutboxRow(
        n.id, n.transition_id, n.alarm_id, n.revision, n.receiver, n.lane, n.created_ms, n.body, "L1", sequence, **had
    )


def receiver(url: str = "https://platform.example/hooks", name: str = "CITY", **more: Any) -> ReceiverConfig:
    return ReceiverConfig(
        id=name, name={"zh": "市平台", "en": "city"}, url=url, secret_env="X", plain_http_ranges=LOOPBACK, **more
    )


class TwinPost:
    """A way out without sockets. `answer` decides per request; every request is kept."""

    def __init__(self, answer: Callable[[TwinRequest], Awaitable[Answer]]) -> None:
        self._answer, self.requests, self.forgotten, self.closed = answer, list[TwinRequest](), 0, False
        self.in_flight = self.in_flight_most = 0

    async def post(self, headers: Mapping[str, str], body: bytes, deadline_s: float) -> Answer:
        request = TwinRequest(dict(headers), body, asyncio.get_running_loop().time())
        self.requests.append(request)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight, self.in_flight_most)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._answer(request)
        except TimeoutError:
            raise NoAnswerError("timeout", "virtual deadline") from None
        finally:
            self.in_flight -= 1

    def forget_address(self) -> None:
        self.forgotten += 1

    async def close(self) -> None:
        self.closed = True

    def notices(self) -> list[TwinRequest]:
        return [request for request in self.requests if not request.heartbeat]


class TwinRequest:
    def __init__(self, headers: dict[str, str], body: bytes, at_s: float) -> None:
        self.headers, self.body, self.at_s = headers, body, at_s
        self.id = headers["webhook-id"]
        self.heartbeat = b'"type":"heartbeat"' in body


def answers(*statuses: int | Answer, then: int = 200) -> Callable[[TwinRequest], Awaitable[Answer]]:
    """Answer notices with these one by one, then with the last; heartbeats always with 200."""
    waiting = list(statuses)

    async def answer(request: TwinRequest) -> Answer:
        if request.heartbeat:
            return Answer(200)
        found = waiting.pop(0) if waiting else then
        return found if isinstance(found, Answer) else Answer(found)

    return answer


class Running:
    """A courier at work."""

    def __init__(self, courier: Courier) -> None:
        self.courier = courier
        self.results: list[Any] = []
        self.conditions: list[tuple[str, bool]] = []

    def gather(self) -> Running:
        self.results += self.courier.take_results()
        self.conditions += [(found.key, found.standing) for found in self.courier.take_conditions()]
        return self


@contextlib.asynccontextmanager
async def running(
    posts: Mapping[str, Post] | None = None, *receivers: ReceiverConfig, random: Callable[[], float] = lambda: 0.5, **more: Any
) -> AsyncIterator[Running]:
    """Run a courier until the block ends, then stop it in order and prove that no task is left."""
    known = receivers or tuple(receiver(name=name) for name in posts or ())
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    courier = Courier(
        known, {r.id: SECRET for r in known}, words=WORDS, ledger_id="L1", base_dir=Path(__file__).parent,
        wall_ms=more.pop("wall_ms", lambda: START_WALL_MS + round((loop.time() - began_s) * 1000)), random=random,
        post_of=None if posts is None else lambda r: posts[r.id], **more,
    )
    stop, before = asyncio.Event(), asyncio.all_tasks()
    task = asyncio.create_task(courier.run(stop), name="courier")
    try:
        yield Running(courier)
    finally:
        stop.set()
        await task
    left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("courier")]
    assert not left, "the courier left tasks behind"


def virtual(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in virtual time."""
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(scenario)


async def until(condition: Callable[[], object], within_s: float = GUARD_S) -> None:
    """Wait on a real loop until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)
