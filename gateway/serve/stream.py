"""The live stream: what changed, made into bytes once and handed to every client; a client that was away resumes.

One ring holds the newest events. A client is a place in it, so a slow one costs no memory: when the ring has moved
past it, or it is too far behind, it is told `reset` and goes on from now. Only the event loop touches the hub.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from gateway.serve.models import Position
from gateway.serve.problems import busy

STREAMS_MAX: Final = 64
RING_EVENTS_MAX: Final = 10_000
RING_BYTES_MAX: Final = 33_554_432
RING_S: Final = 60.0
BEHIND_S_MAX: Final = 10.0
"""A client this far behind is told `reset`; one that resumes has so long to catch up."""
BATCH_EVENTS_MAX: Final = 64
BATCH_BYTES_MAX: Final = 1_048_576
"""What a client is handed in one piece, if that is more than one event: it lies in memory once for each."""
STREAM_S_MAX: Final = 3_600.0
"""A stream ends after so long; the client comes back with its place and misses nothing."""
END_GRACE_S: Final = 0.3
RETRY_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `number` is 0 until it is in the ring."""

    kind: str
    data: bytes
    position: Position
    number: int = 0
    at_s: float = 0.0

    def to_bytes(self) -> bytes:
        """Return it as server-sent event, with its place as id. JSON has no line ends of its own, so it is one line."""
        return b"event: %b\ndata: %b\nid: %b\n\n" % (
            self.kind.encode(), self.data, place(self.position, self.number).encode()
        )  # fmt: skip


def place(position: Position, number: int) -> str:
    """Return the id of an event: ledger id, log position, number in this run."""
    return f"{position.ledger_id}:{position.pos}:{number}"


class Subscription:
    """One client's place in the ring."""

    def __init__(self, hub: Hub, token_id: str, number: int, joined_s: float) -> None:
        self.hub, self.token_id, self.number, self.joined_s = hub, token_id, number, joined_s
        self.wake = asyncio.Event()
        self.ended = asyncio.Event()
        self.behind = False

    def end(self) -> None:
        """Let the client's stream end: its token is void, or the process stops."""
        self.ended.set()
        self.wake.set()


class Hub:
    """All clients, and the newest events.

    Args:
        first_number: number of the first event; higher than any of an earlier run, so that its ids are not known here.
    """

    def __init__(self, monotonic: Callable[[], float], first_number: int, *, stream_s_max: float = STREAM_S_MAX) -> None:
        self._monotonic, self._next, self._stream_s_max = monotonic, first_number, stream_s_max
        self._ring: deque[tuple[Event, bytes]] = deque()
        self._bytes = 0
        self._clients: set[Subscription] = set()
        self._closed = False
        self._left_s = -RING_S
        self.position = Position()

    @property
    def streams(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    @property
    def wanted(self) -> bool:
        """Somebody listens, or was here so lately that they may come back for what they missed."""
        return bool(self._clients) or self._monotonic() - self._left_s < RING_S

    # -- the side of the refresher --

    def publish(self, events: Sequence[Event], position: Position) -> None:
        """Put events into the ring and wake everybody."""
        self.position = position
        now = self._monotonic()
        for event in events:
            if event.kind == "reset":
                self._forget()  # nobody can resume across it
            numbered = replace(event, number=self._next, at_s=now)
            body = numbered.to_bytes()
            self._ring.append((replace(numbered, data=b""), body))  # the data once: as they are sent
            self._next += 1
            self._bytes += len(body)
        while self._ring and (
            len(self._ring) > RING_EVENTS_MAX or self._bytes > RING_BYTES_MAX or now - self._ring[0][0].at_s > RING_S
        ):
            self._bytes -= len(self._ring.popleft()[1])
        if events:
            for client in self._clients:
                client.wake.set()

    def skipped(self, position: Position) -> None:
        """Events were not made because nobody listened: no earlier place can be resumed."""
        self.position = position
        if self._ring:
            self._forget()
            self._next += 1

    def _forget(self) -> None:
        self._ring.clear()
        self._bytes = 0

    # -- the side of the clients --

    def subscribe(self, token_id: str, after: str | None) -> Subscription:
        """Take in a client, at the place it names or at now.

        Raises:
            RefusedError: there are too many.
        """
        if len(self._clients) >= STREAMS_MAX or self._closed:
            raise busy(5)
        known = self._number_of(after) if after else None
        client = Subscription(self, token_id, self._next if known is None else known + 1, self._monotonic())
        client.behind = bool(after) and known is None
        self._clients.add(client)
        return client

    def leave(self, client: Subscription) -> None:
        """A client is gone."""
        self._clients.discard(client)
        self._left_s = self._monotonic()

    def end_unless(self, valid: Callable[[str], bool]) -> None:
        """End the streams whose token is not valid any more."""
        for client in self._clients:
            if not valid(client.token_id):
                client.end()

    def close(self) -> None:
        """End all streams and take no more."""
        self._closed = True
        for client in self._clients:
            client.end()

    def _number_of(self, after: str) -> int | None:
        """Return the number of the event with this id, None if the ring does not follow on from it."""
        number = after.rpartition(":")[2]
        if not self._ring or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        at = int(number) - self._ring[0][0].number
        if not 0 <= at < len(self._ring):
            return None
        event = self._ring[at][0]
        return event.number if place(event.position, event.number) == after else None

    async def events(self, client: Subscription, hello: Callable[[], bytes]) -> AsyncIterator[bytes]:
        """Yield what the client gets, until its stream ends."""
        ends_s = self._monotonic() + self._stream_s_max
        yield format_sse_event(data_str=hello().decode(), event="hello", id=self._id_before(client), retry=RETRY_MS)
        while not client.ended.is_set():
            batch = self._batch(client)
            if batch:
                yield batch
                continue
            left_s = ends_s - self._monotonic()
            if left_s <= 0:
                return
            client.wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await client.wake.wait()
            except TimeoutError:
                return

    def _id_before(self, client: Subscription) -> str:
        """The place a client resumes from when nothing but `hello` reached it."""
        if self._ring and client.number > self._ring[0][0].number:
            at = min(client.number - 1 - self._ring[0][0].number, len(self._ring) - 1)
            event = self._ring[at][0]
            return place(event.position, event.number)
        return place(self.position, client.number - 1)

    def _batch(self, client: Subscription) -> bytes:
        """Return the next events of a client, in one piece; a `reset` where it cannot follow."""
        if client.behind or self._lost(client):
            client.behind, client.number = False, self._next
            return format_sse_event(data_str='{"cause":"behind"}', event="reset", id=self._id_before(client))
        if not self._ring:
            return b""
        at = max(0, client.number - self._ring[0][0].number)
        if at >= len(self._ring):
            return b""
        if len(self._ring) - at <= BATCH_EVENTS_MAX:  # nearly always: from the right end
            waiting: Iterable[bytes] = (self._ring[index][1] for index in range(at - len(self._ring), 0))
        else:
            waiting = (body for _, body in islice(self._ring, at, at + BATCH_EVENTS_MAX))
        parts, size = list[bytes](), 0
        for body in waiting:
            size += len(body)
            if parts and size > BATCH_BYTES_MAX:
                break
            parts.append(body)
        client.number = self._ring[0][0].number + at + len(parts)
        return b"".join(parts)

    def _lost(self, client: Subscription) -> bool:
        """The client's next event is gone from the ring, or too old to be told now."""
        if client.number >= self._next:
            return False
        if not self._ring:
            return True
        first = self._ring[0][0]
        if client.number < first.number:
            return first.kind != "reset"
        waits_since_s = max(self._ring[client.number - first.number][0].at_s, client.joined_s)
        return self._monotonic() - waits_since_s > BEHIND_S_MAX


class LiveResponse(EventSourceResponse):
    """Streams to one client. However it ends, the client leaves the hub; and it ends soon when it is told to."""

    def __init__(self, client: Subscription, hello: Callable[[], bytes]) -> None:
        super().__init__(client.hub.events(client, hello))
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes or its stream ends; a client that does not read is left behind."""
        client = self._client
        serving: asyncio.Task[Any] = asyncio.create_task(super().__call__(scope, receive, send), name="stream")
        ended = asyncio.create_task(client.ended.wait(), name="stream-end")
        try:
            await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await asyncio.wait({serving}, timeout=END_GRACE_S)
        finally:
            client.hub.leave(client)
            ended.cancel()
            if not serving.done():
                serving.cancel()
            await asyncio.gather(serving, ended, return_exceptions=True)
