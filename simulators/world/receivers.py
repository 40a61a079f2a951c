"""The receivers: the municipal platform's own ASGI application, called without sockets, and the way to it.

A request that has arrived is handled by the receiver's process, whatever becomes of the one that sent it.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from alerting.delivery import Answer, NoAnswerError
from simulators.platform import Control, Failure, Platform, PlatformSettings, create_platform_app
from simulators.world.faults import FaultKind
from simulators.world.process import Process
from simulators.world.record import Event, Heartbeat, Noticed, Refused

LATENCY_S_MAX: Final = 0.02
SILENT_S: Final = 600.0
KEPT_HEADERS: Final = ("retry-after", "date", "location", "content-encoding")

_answering: contextvars.ContextVar[Failure | None] = contextvars.ContextVar("answering", default=None)


def failure_of(mode: str, receiver: str) -> Failure:
    """Return how the platform fails in a mode of `FaultKind.RECEIVER_ERRORS`."""
    match mode:
        case "silent":
            return Failure(delay_s=SILENT_S, receiver=receiver)
        case "drop":
            return Failure(drop=True, receiver=receiver)
        case "kept":
            return Failure(status=500, keep=True, receiver=receiver)
        case "cut":
            return Failure(cut_body=True, keep=True, receiver=receiver)
        case "302":
            return Failure(status=302, location="http://127.0.0.1:9/elsewhere", receiver=receiver)
        case "429" | "503":
            return Failure(status=int(mode), retry_after=3, receiver=receiver)
        case _:
            return Failure(status=int(mode), receiver=receiver)


class _WatchedPlatform(Platform):
    """A platform that tells the record what it took or refused."""

    def __init__(
        self, settings: PlatformSettings, now_s: Callable[[], float], note: Callable[[Event], None],
        at_s: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(settings, now_s)
        self._note, self._at_s = note, at_s

    def take(
        self, receiver: str, headers: Mapping[str, str], body: bytes, received_ms: float
    ) -> tuple[int, dict[str, Any]]:
        """See `Platform.take`."""
        status, answer = super().take(receiver, headers, body, received_ms)
        failure = _answering.get()
        told = status if failure is None else _told(failure)
        if status == 200:
            self.tell(receiver, headers, body, told, kept=True)
        else:
            self._note(Refused(self._at_s(), receiver, status, str(answer["error"])))
        return status, answer

    def tell(self, receiver: str, headers: Mapping[str, str], body: bytes, status: int | None, *, kept: bool) -> None:
        """Note a message whose signature is good."""
        message = json.loads(body)
        content = message["data"]
        if message["type"] == "heartbeat":
            self._note(Heartbeat(self._at_s(), receiver, content))
            return
        kind = str(message["type"]).rpartition(".")[2]
        self._note(
            Noticed(
                self._at_s(), receiver, headers["webhook-id"], content["ledger"], content["lane"], content["sequence"],
                content["transition"], kind, content["revision"], bool(content["late"]), content["at_ms"],
                content["actor"], content["alarm"], status, kept, body,
            )
        )  # fmt: skip


def _told(failure: Failure) -> int | None:
    """Return the status that leaves while it fails; None when no complete answer does."""
    if failure.drop or failure.cut_body or (failure.status is None and failure.delay_s >= SILENT_S):
        return None
    return failure.status


class Receiver:
    """One receiver: its platform on a folder, which outlives the process that runs it."""

    def __init__(
        self, name: str, secret: str, folder: Path, wall_s: Callable[[], float], note: Callable[[Event], None],
        random: Random, applied: Counter[FaultKind],
    ) -> None:  # fmt: skip
        self.name, self._random, self._applied = name, random, applied
        self._settings = PlatformSettings({name: (secret,)}, folder)
        self._wall_s, self._note = wall_s, note
        self._platform: _WatchedPlatform | None = None
        self._process: Process | None = None
        self._app: Any = None
        self._mode = ""

    def start(self, process: Process) -> None:
        """Run on the folder, with what an earlier life left in it."""
        self._process = process
        loop = asyncio.get_running_loop()
        self._platform = _WatchedPlatform(self._settings, self._wall_s, self._note, loop.time)
        self._app = create_platform_app(self._platform)
        self.fail(self._mode)

    def stopped(self) -> None:
        """The process is dead."""
        if self._platform is not None:
            self._platform.close()
        self._platform = self._process = None

    def fail(self, mode: str) -> None:
        """Begin to fail, or stop with an empty mode."""
        self._mode = mode
        if self._platform is not None:
            self._platform.control(Control(fail=failure_of(mode, self.name) if mode else None))

    async def exchange(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Carry a request there and its answer back.

        Raises:
            NoAnswerError: nobody listens, or the connection was cut.
        """
        await asyncio.sleep(self._random.uniform(0.001, LATENCY_S_MAX))
        if self._process is None or self._process.dead:
            raise NoAnswerError("connect", f"{self.name}: connection refused")
        exchange = _Exchange(self.name, headers, body)
        task = self._process.spawn(self._handle(exchange), name=f"receiver-{self.name}")
        task.add_done_callback(lambda _: exchange.abort())
        await exchange.over.wait()
        await asyncio.sleep(self._random.uniform(0.001, LATENCY_S_MAX))
        if not exchange.complete:
            raise NoAnswerError("cut", "the connection was cut before the end of the answer", exchange.status)
        kept = {name: value for name, value in exchange.headers.items() if name in KEPT_HEADERS}
        return Answer(exchange.status or 0, bytes(exchange.answer), False, kept)

    async def _handle(self, exchange: _Exchange) -> None:
        platform = self._platform
        assert platform is not None
        failure = platform.failure
        _answering.set(failure)
        if failure is not None:
            self._applied[FaultKind.RECEIVER_ERRORS] += 1
            silent = failure.status is None and failure.body is None and failure.location is None
            keeps = failure.keep or (silent and not failure.drop)
            if not keeps and platform.verify(self.name, exchange.given, exchange.body) is None:
                platform.tell(self.name, exchange.given, exchange.body, _told(failure), kept=False)
        await self._app(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request as ASGI sees it; `transport` stands for the connection under it."""

    def __init__(self, receiver: str, headers: Mapping[str, str], body: bytes) -> None:
        self.given, self.body = {name.lower(): value for name, value in headers.items()}, body
        raw = [(name.encode(), value.encode("latin-1")) for name, value in self.given.items()]
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": f"/hooks/{receiver}", "raw_path": f"/hooks/{receiver}".encode(), "query_string": b"",
            "root_path": "", "headers": raw, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 9),
        }  # fmt: skip
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.answer = bytearray()
        self.complete = False
        self.over = asyncio.Event()
        self.transport = self
        self._asked = False

    def abort(self) -> None:
        """Cut the connection; nothing if the answer is out."""
        self.over.set()

    async def receive(self) -> dict[str, Any]:
        """The request once, then whatever becomes of the connection."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Part of the answer."""
        if self.over.is_set():
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            return
        self.answer += message.get("body", b"")
        if not message.get("more_body"):
            self.complete = True
            self.over.set()


class ReceiverPost:
    """`Post` of one core process to one receiver."""

    def __init__(self, receiver: Receiver, process: Process) -> None:
        self._receiver, self._process = receiver, process

    async def post(self, headers: Mapping[str, str], body: bytes, deadline_s: float) -> Answer:
        """See `Post.post`."""
        self._process.check()
        try:
            async with asyncio.timeout(deadline_s):
                return await self._receiver.exchange(headers, body)
        except TimeoutError:
            raise NoAnswerError("timeout", f"no complete answer within {deadline_s:g} s") from None

    def forget_address(self) -> None:
        """There is none."""

    async def close(self) -> None:
        """There is nothing to close."""
