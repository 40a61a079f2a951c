"""Core's side of MQTT: STATE, subscriptions, acks and rebirth requests. A shell: it decides nothing about values.

The connection is made anew for as long as core runs. STATE follows the specification: the will is registered with
CONNECT and the birth of the same session carries the same timestamp; our own offline STATE, published by a will of
an earlier connection that the broker noticed late, is answered with the birth again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.core.errors import AnotherCoreError
from gateway.core.loop import LIVE_ACK_MS, CoreLoop
from wire import (
    ACKNOWLEDGE_ROWS_MAX,
    BrokerUnavailableError,
    HostState,
    LinkLostError,
    MalformedStateError,
    Message,
    MessageKind,
    MqttConnector,
    MqttLink,
    SubscribeRefusedError,
    Topic,
    Will,
    WireError,
    build_topic,
    decode_state,
    encode_acknowledge,
    encode_rebirth,
    encode_state,
    state_topic,
)

log = logging.getLogger(__name__)

RECONNECT_FIRST_S: Final = 0.1
RECONNECT_MAX_S: Final = 2.0
RETAINED_S: Final = 0.2  # a retained STATE comes right behind its subscription
ANSWER_S: Final = 0.8
QUESTIONS: Final = 3
STATE_MS_END: Final = 1 << 53  # what every JSON reader takes for an integer
_NODE_KINDS: Final = ("NBIRTH", "NDEATH", "NDATA")
_DEVICE_KINDS: Final = ("DBIRTH", "DDEATH", "DDATA")


class OutlivedError(LinkLostError):
    """An earlier run of core, by a clock that was ahead, has said offline with a later timestamp than ours."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        WireError.__init__(self, f"STATE of {host_id} says offline later than this core's clock; connecting with a later time")


class MqttSource:
    """Feeds the loop from the broker and carries its acks back."""

    def __init__(
        self, loop: CoreLoop, connector: MqttConnector, group: str, host_id: str, wall_ms: Callable[[], int],
        ledger_id: str = "",
    ) -> None:  # fmt: skip
        """`ledger_id` makes the client id this ledger's own: a second core must not throw the first one off."""
        self._loop, self._connector = loop, connector
        self._group, self._host_id, self._wall_ms = group, host_id, wall_ms
        self.connected = False
        self._said_absent = False
        self._state_ms = 0
        self._client_id = f"hazardgate-core-{group}" + (f"-{ledger_id[:12]}" if ledger_id else "")
        self._alone = False

    async def run(self) -> None:
        """Connect, listen, connect again, until cancelled. A cancelled run says offline before it leaves."""
        wait_s = RECONNECT_FIRST_S
        while True:
            try:
                await self._session()
            except SubscribeRefusedError as error:
                log.error("%s", error)
                wait_s = RECONNECT_MAX_S
            except (BrokerUnavailableError, LinkLostError) as error:
                if self.connected:
                    log.warning("%s", error)
                    wait_s = RECONNECT_FIRST_S
                elif not self._said_absent:
                    self._said_absent = True
                    log.warning("%s; core waits and connects when it is there", error)
            if self.connected:
                self.connected = False
                self._loop.link_lost()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RECONNECT_MAX_S)

    async def _session(self) -> None:
        topic = state_topic(self._host_id)
        if not self._alone:
            if await self._another_answers(topic):
                raise AnotherCoreError(self._host_id)
            self._alone = True
        # A later session's timestamp must not be below an earlier one's, whatever the wall clock did: no edge heeds it.
        self._state_ms = max(self._state_ms + 1, self._wall_ms())
        cancelled: asyncio.CancelledError | None = None
        will = Will(topic, encode_state(online=False, timestamp_ms=self._state_ms), qos=1, retain=True)
        async with self._connector.connect(self._client_id, will) as link:
            try:
                await self._be_host(link, topic)
            except asyncio.CancelledError as error:
                # Leave the block as one leaves in order: cut off, the broker would publish the will.
                await self._say_offline(link, topic)
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _be_host(self, link: MqttLink, topic: str) -> None:
        await link.subscribe([(topic, 1), *self._filters()])
        await link.publish(topic, encode_state(online=True, timestamp_ms=self._state_ms), qos=1, retain=True)
        self.connected, self._said_absent = True, False
        self._loop.link_up()
        log.info("connected to the broker")
        await self._serve(link, topic)

    async def _another_answers(self, topic: str) -> bool:
        """Ask, before the first session, whether another core is there: it would answer a false offline STATE.

        The question carries timestamp 0, so no edge heeds it. A core that died without a word does not answer. It is
        asked by a client without a will: whoever is killed while asking must not declare the other one dead, and the
        first message of a host's own session is its birth.
        """
        async with self._connector.connect(f"{self._client_id}-asks") as link:
            await link.subscribe([(topic, 1)])
            if not await self._hears_online(link, topic, RETAINED_S):
                return False
            for _ in range(QUESTIONS):  # one answer may be a word of the dead one that was long on its way
                await link.publish(topic, encode_state(online=False, timestamp_ms=0), qos=1)
                if not await self._hears_online(link, topic, ANSWER_S):
                    return False
            return True

    async def _hears_online(self, link: MqttLink, topic: str, timeout_s: float) -> bool:
        """Tell whether an online STATE comes in time. Only STATE is subscribed at this moment."""
        try:
            async with asyncio.timeout(timeout_s):
                async for message in link.messages():
                    state = _state_of(message) if message.topic == topic else None
                    self._outlive(state)
                    if state is not None and state.online:
                        return True
        except TimeoutError:
            return False
        return False

    def _outlive(self, state: HostState | None) -> bool:
        """Let the next session be later than what an earlier run said; tell whether this one is not.

        A run whose clock was ahead may have ended: nobody would heed us before ours is as far.
        """
        if state is None or not self._state_ms < state.timestamp_ms < STATE_MS_END:
            return False
        self._state_ms = state.timestamp_ms
        return True

    async def _serve(self, link: MqttLink, topic: str) -> None:
        lost: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(link, topic), name="mqtt-source")
                tasks.create_task(self._answer(link), name="mqtt-acks")
        except* LinkLostError as group:
            lost = group.exceptions[0]
        if lost is not None:
            raise lost

    async def _say_offline(self, link: MqttLink, topic: str) -> None:
        """An orderly end publishes offline itself: after a DISCONNECT the broker publishes no will."""
        self._state_ms = max(self._state_ms, self._wall_ms())
        try:
            async with asyncio.timeout(1.0):
                await link.publish(topic, encode_state(online=False, timestamp_ms=self._state_ms), qos=1, retain=True)
        except (LinkLostError, TimeoutError):
            log.warning("could not say offline; the broker's will does")

    def _filters(self) -> list[tuple[str, int]]:
        base = f"spBv1.0/{self._group}"
        nodes = [(f"{base}/{kind}/+", 0) for kind in _NODE_KINDS]
        return nodes + [(f"{base}/{kind}/+/+", 0) for kind in _DEVICE_KINDS]

    async def _listen(self, link: MqttLink, own_state: str) -> None:
        async for message in link.messages():
            if message.topic == own_state:
                await self._own_state(link, message)
            else:
                self._loop.message(message.topic, message.payload)

    async def _own_state(self, link: MqttLink, message: Message) -> None:
        """Answer our own offline STATE.

        Raises:
            OutlivedError: it is later than our session, which has to begin anew, with its will.
        """
        state = _state_of(message)
        if state is not None and state.online:
            return
        if self._outlive(state):
            raise OutlivedError(self._host_id)
        topic = state_topic(self._host_id)
        await link.publish(topic, encode_state(online=True, timestamp_ms=self._state_ms), qos=1, retain=True)

    async def _answer(self, link: MqttLink) -> None:
        """Send rebirth requests and backlog acks at once, live acks once a second."""
        loop = asyncio.get_running_loop()
        live_after = loop.time()
        while True:
            timeout_s = max(0.0, live_after - loop.time()) if self._loop.acks else None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._loop.acks_wake.wait()
            except TimeoutError:
                pass
            self._loop.acks_wake.clear()
            while self._loop.rebirths:
                await self._command(link, self._loop.rebirths.popleft(), encode_rebirth(self._wall_ms()))
            urgent, self._loop.urgent_nodes = self._loop.urgent_nodes, set()
            due = loop.time() >= live_after
            if due:
                live_after = loop.time() + LIVE_ACK_MS / 1000
            await self._acknowledge(link, None if due else urgent)

    async def _acknowledge(self, link: MqttLink, only: set[str] | None) -> None:
        """Send what is committed: of all nodes, or of those whose backlog waits for it."""
        positions: dict[str, list[tuple[int, int]]] = {}
        for node, stream in list(self._loop.acks):
            if only is None or node in only:
                positions.setdefault(node, []).append((stream, self._loop.acks.pop((node, stream))))
        for node, rows in positions.items():
            for at in range(0, len(rows), ACKNOWLEDGE_ROWS_MAX):
                part = rows[at : at + ACKNOWLEDGE_ROWS_MAX]
                await self._command(link, node, encode_acknowledge(self._wall_ms(), part))
                self._loop.counters.acks_sent += len(part)

    async def _command(self, link: MqttLink, node: str, payload: bytes) -> None:
        await link.publish(build_topic(Topic(MessageKind.NCMD, self._group, node)), payload)


def _state_of(message: Message) -> HostState | None:
    try:
        return decode_state(message.payload)
    except MalformedStateError:
        return None
