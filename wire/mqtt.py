"""The link to an MQTT 3.1.1 broker, as the rest of the project sees it.

    MqttError (a WireError)
    ├── BrokerUnavailableError      nobody answered in time, or not as a broker does (try again soon)
    │   └── BrokerRefusedError      the broker answered and said no (try again later, tell somebody)
    ├── SubscribeRefusedError       connected, but a filter was not granted (configuration or rights)
    └── LinkLostError               the link is gone; every call on it fails from now on (connect again)

A link never reconnects by itself: whoever holds it decides when, and begins a new session. It promises no
delivery; receipts that count are the application's own. `mqtt_aiomqtt` has the shell for real brokers and
`mqtt_memory` a twin without sockets; one suite of contract tests runs on both.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from wire.errors import WireError

CONNECT_S_MAX: Final = 5.0  # TCP, TLS and the broker's answer together
ANSWER_S_MAX: Final = 5.0  # SUBACK, PUBACK, and a full socket that takes nothing
DISCONNECT_S_MAX: Final = 1.0
INBOX_MESSAGES_MAX: Final = 20_000
INBOX_BYTES_MAX: Final = 64 * 1024 * 1024
READ_AT_ONCE_MAX: Final = 64

log = logging.getLogger(__name__)


class MqttError(WireError):
    """Base of what can go wrong with a broker or the link to it."""


class BrokerUnavailableError(MqttError):
    """No MQTT broker answered at this address."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"no MQTT broker at {address}: {reason}; "
                         "check broker.host, broker.port and that it runs")


class BrokerRefusedError(BrokerUnavailableError):
    """The broker answered CONNECT with a refusal; `reason` is the broker's, in words."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        MqttError.__init__(self, f"MQTT broker {address} refused the connection: {reason}; "
                                 "check broker.username, its password file and the client's rights")


class SubscribeRefusedError(MqttError):
    """The broker granted a link but not these filters."""

    def __init__(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        super().__init__(f"broker refused to subscribe {', '.join(self.filters)}; "
                         "check the client's rights there")


class LinkLostError(MqttError):
    """The link to the broker is gone. What was published in the last moments may not have arrived."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"link to MQTT broker {address} lost: {reason}; connect again")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived. `retained`: the broker had kept it from before the subscription."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a client whose link ends without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class MqttLink(Protocol):
    """One live session with a broker; valid inside the `connect` block it came from."""

    @property
    def dropped(self) -> int:
        """Messages that arrived but were not delivered: the inbox was full, or their topic was not UTF-8."""

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Hand a message to the broker; at QoS 1 return when it has answered, at QoS 0 when it is sent.

        Raises:
            LinkLostError: the link is gone, or was found dead by this call.
        """

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe (filter, QoS) pairs; return when the broker has granted all of them.

        Raises:
            SubscribeRefusedError: at least one was not granted; the others may be.
            LinkLostError: the link is gone, or was found dead by this call.
        """

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over arriving messages in order; one reader at a time.

        What has arrived before the link was lost is still delivered. The iterator never ends by itself.

        Raises:
            LinkLostError: by the iterator, when the link is gone.
        """


class MqttConnector(Protocol):
    """Opens links.

    Left normally, a link says goodbye and its will is void. Left by an exception, cancellation included, it
    is cut off and the broker publishes the will: a crash must not look planned.
    """

    def connect(self, client_id: str, will: Will | None = None) -> AbstractAsyncContextManager[MqttLink]:
        """Return a context manager that connects on entry, with a clean session.

        Raises:
            BrokerUnavailableError: on entry, within `CONNECT_S_MAX`; BrokerRefusedError if it said no.
        """


class Inbox:
    """Messages between a socket's callback and one reader; bounded, and what does not fit is counted.

    When the limit is reached new messages are dropped: senders notice by our missing receipt and resend.
    """

    def __init__(self, messages_max: int = INBOX_MESSAGES_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._lost: LinkLostError | None = None
        self.dropped = 0

    def put(self, message: Message) -> None:
        """Append a message, or count it as dropped."""
        size = len(message.payload)
        if len(self._waiting) >= self._messages_max or self._bytes + size > self._bytes_max:
            if self.dropped == 0:
                log.error("inbox full at %d messages, %d bytes; new ones are dropped until the reader "
                          "catches up", len(self._waiting), self._bytes)
            self.dropped += 1
            return
        self._bytes += size
        self._waiting.append(message)
        self._news.set()

    def close(self, lost: LinkLostError) -> None:
        """Let the reader have what is here, then this error."""
        self._lost = self._lost or lost
        self._news.set()

    async def read(self) -> AsyncIterator[Message]:
        """Yield messages in order of arrival; raise the `LinkLostError` of `close` after the last."""
        read = 0
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                self._bytes -= len(message.payload)
                yield message
                read += 1
                if read % READ_AT_ONCE_MAX == 0:
                    await asyncio.sleep(0)  # a full inbox must not starve the loop's other tasks
            if self._lost is not None:
                raise self._lost
            self._news.clear()
            await self._news.wait()
