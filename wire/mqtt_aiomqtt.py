"""The MQTT link over aiomqtt, the asyncio face of paho-mqtt, for any MQTT 3.1.1 broker.

It uses little of aiomqtt: connecting, subscribing and publishing. Dialling, receiving and noticing the end of
a link are done here, because aiomqtt's own ways cannot be cancelled, cost two tasks per message, or are not
noticed by a publisher that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from wire.mqtt import (
    ANSWER_S_MAX,
    CONNECT_S_MAX,
    DISCONNECT_S_MAX,
    BrokerRefusedError,
    BrokerUnavailableError,
    Inbox,
    LinkLostError,
    Message,
    MqttLink,
    SubscribeRefusedError,
    Will,
)
from wire.mqtt_packets import Packets

READ_BYTES: Final = 65_536  # at once: some seventy frames

# The libraries would only log what is reported here as an error of its own class, or counted.
_LIBRARY_LOG = logging.getLogger(f"{__name__}.library")
_LIBRARY_LOG.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to enter. `keepalive_s`: a silent link counts as lost after twice that."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive_s: int = 15

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Given:
    """What paho may read: the rest of one packet, and then how the connection ended."""

    def __init__(self) -> None:
        self.left = b""
        self.ended: OSError | bytes | None = None

    def take(self, bufsize: int) -> bytes:
        """Stand in for the socket's `recv`."""
        if self.left:
            taken, self.left = self.left[:bufsize], self.left[bufsize:]
            return taken
        if self.ended is None:
            raise BlockingIOError
        if isinstance(self.ended, OSError):
            raise self.ended
        return self.ended


class _Client(aiomqtt.Client):
    """aiomqtt with the doors into paho that it keeps shut: the socket, and two callbacks.

    With a socket of ours, connecting can be cancelled at any moment. Paho's own connect runs in a thread; one
    given up would finish later and take the session over from its successor under the same client id.
    """

    _door: socket.socket | None = None

    def adopt(self, connected: socket.socket) -> None:
        """Use this connected socket instead of opening one."""
        self._door = connected.dup()  # TLS swallows the original; this one can still end the connection
        self._client._create_socket_connection = lambda: connected  # type: ignore[method-assign]

    def cut(self) -> None:
        """End the connection, whatever state it is in, without a goodbye: the broker publishes the will."""
        if self._door is not None:
            with contextlib.suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)
            self._door.close()
            self._door = None

    def deliver_to(self, inbox: Inbox) -> None:
        """Hand messages straight to `inbox`: aiomqtt's own queue costs two tasks per message."""

        def take(_client: object, _userdata: object, message: paho.MQTTMessage) -> None:
            try:
                topic = message.topic
            except UnicodeDecodeError:  # a hostile publisher must not cost us the link
                inbox.dropped += 1
                return
            inbox.put(Message(topic, bytes(message.payload), message.retain))

        self._client.on_message = take
        self._read_for(inbox)

    def _read_for(self, inbox: Inbox) -> None:
        """Read whatever has come at once. Paho takes one packet a turn of the loop, in four reads.

        Messages at QoS 0 go to `inbox`; the other packets are given to paho whole, as if it read them from the socket.
        """
        client, packets, given = self._client, Packets(), _Given()
        receive, read_packet = client._sock_recv, client.loop_read

        def read(max_packets: int = 1) -> MQTTErrorCode:
            try:
                came = receive(READ_BYTES)
            except BlockingIOError:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            except OSError as error:
                given.ended = error
                return read_packet()
            if not came:
                given.ended = came
                return read_packet()
            client._last_bytes_received = time.monotonic()  # what keepalive goes by
            for packet in packets.feed(came):
                if isinstance(packet, Message):
                    inbox.put(packet)
                elif isinstance(packet, bytes):
                    given.left = packet
                    while given.left:
                        result = read_packet()
                        if result:
                            return result
                else:
                    inbox.dropped += 1
            return MQTTErrorCode.MQTT_ERR_SUCCESS

        client._sock_recv = given.take  # type: ignore[method-assign]
        client.loop_read = read  # type: ignore[method-assign]

    def write_at_once(self) -> None:
        """Let a packet leave in the turn of the loop that made it.

        aiomqtt waits two turns until the socket is asked for room. In between, other threads of the process may
        take the interpreter, and on a busy machine an alarm then waits for milliseconds. Call it in the loop.
        """
        wait_for_room = self._client.on_socket_register_write
        assert wait_for_room is not None
        loop_thread = threading.get_ident()

        def write(client: paho.Client, userdata: Any, sock: Any) -> None:
            # Paho's own rule where no loop is registered: not inside a callback. CONNECT comes from a thread.
            if threading.get_ident() == loop_thread and client._in_callback_mutex.acquire(blocking=False):
                client._in_callback_mutex.release()
                with contextlib.suppress(OSError):  # found again, and told, by whoever waits for room
                    client.loop_write()
            if client.socket() is not None and client.want_write():
                wait_for_room(client, userdata, sock)

        self._client.on_socket_register_write = write

    async def enter(self) -> None:
        """Connect through the adopted socket; if that fails or is cancelled, nothing goes on unseen."""
        loop = asyncio.get_running_loop()
        entering = asyncio.create_task(self.__aenter__(), name=f"mqtt-connect-{self.identifier}")
        ended = self._client.on_disconnect
        assert ended is not None

        def end(*facts: Any) -> None:
            ended(*facts)
            if not self._connected.done():  # aiomqtt would wait for an answer that cannot come
                loop.call_soon_threadsafe(entering.cancel)

        self._client.on_disconnect = end
        try:
            await asyncio.wait({entering})
        except asyncio.CancelledError:
            self.cut()
            await asyncio.wait({entering}, timeout=DISCONNECT_S_MAX)
            entering.cancel()
            raise
        if entering.cancelled():
            raise ConnectionAbortedError("connection closed before an answer")
        entering.result()

    async def leave(self) -> None:
        """Say goodbye if the broker still listens; in any case end the connection."""
        with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
            async with asyncio.timeout(DISCONNECT_S_MAX):
                await self.__aexit__(None, None, None)
        self.cut()

    async def lost(self) -> str:
        """Return, once the connection has ended, the reason."""
        try:
            await anext(self.messages)
        except aiomqtt.MqttError as error:
            return str(error.__cause__ or "closed")
        raise AssertionError("a message in aiomqtt's queue, which gets none")


class _AioMqttLink:
    """`MqttLink` over one connected aiomqtt client."""

    def __init__(self, client: _Client, address: str, inbox: Inbox) -> None:
        self._client, self._address, self._inbox = client, address, inbox
        self._lost: LinkLostError | None = None
        self._pending: set[asyncio.Timeout] = set()

    @property
    def dropped(self) -> int:
        return self._inbox.dropped

    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        async with self._answered("PUBACK" if qos else "room in the socket"):
            await self._client.publish(topic, payload, qos, retain, timeout=math.inf)
        await asyncio.sleep(0)  # it has left already; who publishes without end must not starve the others

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        if not filters:
            return
        async with self._answered("SUBACK"):
            codes = await self._client.subscribe(list(filters), timeout=math.inf)
        granted = [_granted_qos(code) is not None for code in codes]
        if len(granted) != len(filters) or not all(granted):
            refused = [name for (name, _), yes in zip(filters, granted, strict=False) if not yes]
            raise SubscribeRefusedError(refused or [name for name, _ in filters])

    def messages(self) -> AsyncIterator[Message]:
        return self._inbox.read()

    def lose(self, reason: str) -> None:
        """Make every waiting and every later call fail. The first reason stays."""
        if self._lost is None:
            self._lost = LinkLostError(self._address, reason)
            self._inbox.close(self._lost)
        for waiting in self._pending:
            if not waiting.expired():
                waiting.reschedule(0.0)

    @contextlib.asynccontextmanager
    async def _answered(self, awaited: str) -> AsyncIterator[None]:
        """Bound a call by `ANSWER_S_MAX` and the life of the link; a broker that owes an answer is lost."""
        if self._lost is not None:
            raise self._lost
        deadline = asyncio.timeout(ANSWER_S_MAX)
        try:
            async with deadline:
                self._pending.add(deadline)
                try:
                    yield
                finally:
                    self._pending.discard(deadline)
        except TimeoutError:
            if self._lost is None:
                self._client.cut()
                self.lose(f"no {awaited} within {ANSWER_S_MAX:g} s")
            assert self._lost is not None
            raise self._lost from None
        except aiomqtt.MqttError as error:
            self.lose(str(error))
            assert self._lost is not None
            raise self._lost from None


class AioMqttConnector:
    """`MqttConnector` for a real broker."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address

    @asynccontextmanager
    async def connect(self, client_id: str, will: Will | None = None) -> AsyncIterator[MqttLink]:
        inbox = Inbox()
        client = await self._open(client_id, will, inbox)
        link = _AioMqttLink(client, str(self._address), inbox)
        watch = asyncio.create_task(_watch(client, link), name=f"mqtt-watch-{client_id}")
        try:
            yield link
        except BaseException:
            client.cut()
            raise
        else:
            await client.leave()
        finally:
            link.lose("closed here")
            client.cut()
            await asyncio.wait({watch}, timeout=DISCONNECT_S_MAX)
            watch.cancel()

    async def _open(self, client_id: str, will: Will | None, inbox: Inbox) -> _Client:
        address = self._address
        client = _Client(
            address.host, address.port, username=address.username, password=address.password,
            identifier=client_id, protocol=aiomqtt.ProtocolVersion.V311, clean_session=True,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            keepalive=address.keepalive_s, tls_context=address.tls, timeout=math.inf, logger=_LIBRARY_LOG,
        )
        client.deliver_to(inbox)
        client.write_at_once()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                client.adopt(await _dial(address.host, address.port))
                await client.enter()
        except TimeoutError:
            client.cut()
            raise BrokerUnavailableError(str(address), f"no answer within {CONNECT_S_MAX:g} s") from None
        except aiomqtt.MqttCodeError as error:
            client.cut()
            raise BrokerRefusedError(str(address), str(error.rc)) from None
        except (aiomqtt.MqttError, OSError) as error:
            client.cut()
            raise BrokerUnavailableError(str(address), str(error) or type(error).__name__) from None
        return client


async def _dial(host: str, port: int) -> socket.socket:
    """Return a socket connected to the first address of `host` that answers, small packets undelayed."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            await loop.sock_connect(dialled, place)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            dialled.close()
            failure = error
        except BaseException:
            dialled.close()
            raise
        else:
            dialled.settimeout(CONNECT_S_MAX)  # for the TLS handshake; paho sets it non-blocking afterwards
            return dialled
    raise failure


def _granted_qos(code: Any) -> int | None:
    """Return the QoS of a SUBACK code, or None for a refusal, which aiomqtt returns and does not raise."""
    value = int(getattr(code, "value", code))
    return value if value < 0x80 else None


async def _watch(client: _Client, link: _AioMqttLink) -> None:
    link.lose(await client.lost())
