"""A broker in memory and the connector to it: the twin of `mqtt` for tests and the world in virtual time.

It follows MQTT 3.1.1 where our code can tell: retained messages, wills, `+` and `#`, takeover of a client id,
order per link. It has no sockets and no threads; time passes only by the event loop's own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from wire.mqtt import (
    ANSWER_S_MAX,
    CONNECT_S_MAX,
    BrokerRefusedError,
    BrokerUnavailableError,
    Inbox,
    LinkLostError,
    Message,
    MqttLink,
    SubscribeRefusedError,
    Will,
)

# Called for each message on its way in (from a client) or out (to a client) with that client's id. Returns
# seconds until it goes on, or None to lose it. Messages of one link never overtake each other.
Hook = Callable[[str, Message], float | None]


def topic_matches(pattern: str, topic: str) -> bool:
    """Tell whether a subscription filter covers a topic (MQTT 3.1.1, section 4.7)."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    wanted, levels = pattern.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


class MemoryBroker:
    """The broker. Its switches are for tests:

    Attributes:
        inward, outward: hooks that delay or lose messages; None lets all pass at once.
        strays: hook for further copies of a message to a client, as a bridge or a second path brings them: seconds
            until each arrives, whatever has overtaken it by then.
        refused_clients: client ids whose CONNECT is refused.
        refused_filters: filters that SUBSCRIBE is not granted for.
        retained: topic to payload; cleared by whoever wants a broker that lost its disk.
    """

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.inward: Hook | None = None
        self.outward: Hook | None = None
        self.strays: Callable[[str, Message], Sequence[float]] | None = None
        self.refused_clients: set[str] = set()
        self.refused_filters: set[str] = set()
        self.retained: dict[str, bytes] = {}
        self._links: dict[str, _MemoryLink] = {}
        self._running = True

    @property
    def clients(self) -> frozenset[str]:
        """Ids of the clients connected now."""
        return frozenset(self._links)

    def kill(self, client_id: str) -> bool:
        """Cut one client off; its will is published. False if it is not connected."""
        link = self._links.get(client_id)
        if link is None:
            return False
        self.end(link, "connection reset", goodbye=False)
        return True

    def hang(self, client_id: str) -> bool:
        """Let the network swallow everything of one client, both ways, until keepalive finds out.

        The broker gives up after 1.5 keepalives and publishes the will; the client then too.
        """
        link = self._links.get(client_id)
        if link is None:
            return False
        link.hung = True
        asyncio.get_running_loop().call_later(
            1.5 * link.keepalive_s, lambda: self.end(link, "keepalive timeout", goodbye=False))
        return True

    def stop(self) -> None:
        """Die at once: all links are lost, no will is published, connecting fails until `start`."""
        self._running = False
        for link in list(self._links.values()):
            del self._links[link.client_id]
            link.lose("broker stopped")

    def start(self) -> None:
        """Run again, with the retained messages it had."""
        self._running = True

    def enter(self, link: _MemoryLink) -> None:
        """Take a new link in; one that has its client id is cut off first."""
        if not self._running:
            raise BrokerUnavailableError(self.name, "connection refused")
        if link.client_id in self.refused_clients:
            raise BrokerRefusedError(self.name, "not authorized")
        former = self._links.get(link.client_id)
        if former is not None:
            self.end(former, "session taken over", goodbye=False)
        self._links[link.client_id] = link

    def end(self, link: _MemoryLink, reason: str, *, goodbye: bool) -> None:
        """End a link, once; without a goodbye its will is published."""
        if self._links.get(link.client_id) is link:
            del self._links[link.client_id]
            if not goodbye and link.will is not None:
                self.route(link.will.topic, link.will.payload, link.will.retain)
        link.lose(reason)

    def leave(self, link: _MemoryLink, *, goodbye: bool) -> None:
        """A client closes its end; over a hung link the broker hears nothing of it until keepalive."""
        if link.hung:
            link.lose("closed here")
        else:
            self.end(link, "closed here", goodbye=goodbye)

    def publish(self, link: _MemoryLink, topic: str, payload: bytes, retain: bool) -> None:
        """Take a message from a client, by way of the `inward` hook."""
        wait = self.inward(link.client_id, Message(topic, payload, False)) if self.inward else 0.0
        if wait is not None and not link.hung:
            link.up.after(wait, lambda: self.route(topic, payload, retain))

    def route(self, topic: str, payload: bytes, retain: bool) -> None:
        """Keep a retained message, and pass it to every link that subscribed."""
        if not self._running:
            return
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for link in list(self._links.values()):
            if any(topic_matches(pattern, topic) for pattern in link.filters):
                self.deliver(link, Message(topic, payload, False))

    def deliver(self, link: _MemoryLink, message: Message) -> None:
        """Give a message to one client, by way of the `outward` hook."""
        wait = self.outward(link.client_id, message) if self.outward else 0.0
        if wait is not None and not link.hung:
            link.down.after(wait, lambda: link.take(message))
        if self.strays is not None and not link.hung:
            for wait in self.strays(link.client_id, message):
                asyncio.get_running_loop().call_later(wait, link.take, message)

    def subscribe(self, link: _MemoryLink, filters: Sequence[tuple[str, int]]) -> None:
        """Add filters to a link and send it what is retained under them."""
        granted = [pattern for pattern, _ in filters if pattern not in self.refused_filters]
        link.filters.update(dict.fromkeys(granted))
        for topic, payload in list(self.retained.items()):
            if any(topic_matches(pattern, topic) for pattern in granted):
                self.deliver(link, Message(topic, payload, True))
        refused = [pattern for pattern, _ in filters if pattern in self.refused_filters]
        if refused:
            raise SubscribeRefusedError(refused)


class _Way:
    """One direction of a link: what is sent later never arrives earlier."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def after(self, wait: float, arrive: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time() + wait)
        if self._free_at <= loop.time():
            arrive()
        else:
            loop.call_at(self._free_at, arrive)


class _MemoryLink:
    """`MqttLink` to a broker in the same process."""

    def __init__(self, broker: MemoryBroker, client_id: str, will: Will | None, keepalive_s: int) -> None:
        self.client_id, self.will, self.keepalive_s = client_id, will, keepalive_s
        self.filters: dict[str, None] = {}
        self.up, self.down = _Way(), _Way()
        self.hung = False
        self._broker, self._inbox = broker, Inbox()
        self._lost: LinkLostError | None = None
        self._ended = asyncio.Event()

    @property
    def dropped(self) -> int:
        return self._inbox.dropped

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        if not topic or "+" in topic or "#" in topic:
            raise ValueError(f"not a topic to publish to: {topic!r}")
        self._alive()
        self._broker.publish(self, topic, payload, retain)
        await self._settle(answered=qos > 0)

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        self._alive()
        if self.hung:
            await self._settle(answered=True)
        self._broker.subscribe(self, filters)
        await self._settle(answered=False)

    def messages(self) -> AsyncIterator[Message]:
        return self._inbox.read()

    def take(self, message: Message) -> None:
        """Receive a message, unless the link has ended in the meantime."""
        if self._lost is None:
            self._inbox.put(message)

    def lose(self, reason: str) -> None:
        """Make every waiting and every later call fail. The first reason stays."""
        if self._lost is None:
            self._lost = LinkLostError(self._broker.name, reason)
            self._inbox.close(self._lost)
            self._ended.set()

    def _alive(self) -> None:
        if self._lost is not None:
            raise self._lost

    async def _settle(self, *, answered: bool) -> None:
        """Let others run, as a real call would; wait for an answer in vain on a hung link."""
        if not (answered and self.hung):
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._ended.wait()
        except TimeoutError:
            self.lose(f"no answer within {ANSWER_S_MAX:g} s")
        self._alive()


class MemoryConnector:
    """`MqttConnector` for a `MemoryBroker`; `unreachable` makes connecting wait in vain, as dead lines do."""

    def __init__(self, broker: MemoryBroker, keepalive_s: int = 15) -> None:
        self._broker, self._keepalive_s = broker, keepalive_s
        self.unreachable = False

    @asynccontextmanager
    async def connect(self, client_id: str, will: Will | None = None) -> AsyncIterator[MqttLink]:
        if self.unreachable:
            await asyncio.sleep(CONNECT_S_MAX)
            raise BrokerUnavailableError(self._broker.name, f"no answer within {CONNECT_S_MAX:g} s")
        link = _MemoryLink(self._broker, client_id, will, self._keepalive_s)
        self._broker.enter(link)
        await asyncio.sleep(0)
        try:
            yield link
        except BaseException:
            self._broker.leave(link, goodbye=False)
            raise
        self._broker.leave(link, goodbye=True)
