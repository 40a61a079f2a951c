"""Keeps the MQTT link: connects, reads, writes, and connects again for as long as it runs.

After the link or the broker was lost a node comes back within two seconds, at a moment that a hash of its id
chooses, so that a thousand nodes do not come at once; only a refusal makes it wait longer. It knows nothing
of what the messages mean.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from edge.keeper import SpoolKeeper
from edge.node import EdgeNode
from edge.session import Disconnect
from wire import (
    BrokerRefusedError,
    BrokerUnavailableError,
    LinkLostError,
    MqttConnector,
    MqttError,
    MqttLink,
    SubscribeRefusedError,
)

RECONNECT_S_MAX: Final = 2.0
SHORT_SESSION_S: Final = 10.0
CUT_SHORT_SAID_EVERY: Final = 3
AUDITS_CUT_MAX: Final = 2  # in a row: once may be chance
REFUSED_S_MIN: Final = 5.0
REFUSED_S_MAX: Final = 60.0

log = logging.getLogger(__name__)


def reconnect_delay_s(node: str) -> float:
    """Return the node's own moment in [0, 2) seconds after a loss."""
    digest = hashlib.sha256(node.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * RECONNECT_S_MAX


class Uplink:
    """See the module.

    Args:
        node: what the link is for.
        keeper: gives out backlog blocks.
        connector: opens links.
        client_id: MQTT client id, of this node alone.
        save_bdseq: puts the session number on the disk; done before each attempt.
        random: for the wait after a refusal.
    """

    def __init__(
        self,
        node: EdgeNode,
        keeper: SpoolKeeper,
        connector: MqttConnector,
        client_id: str,
        save_bdseq: Callable[[int], Awaitable[None]],
        random: random.Random,
    ) -> None:
        self._node, self._keeper, self._connector = node, keeper, connector
        self._client_id, self._save_bdseq, self._random = client_id, save_bdseq, random
        self.connected = False
        self.connects = 0
        self.cut_short = 0
        """Sessions in a row that were lost within `SHORT_SESSION_S`."""
        self._complained = ""
        self._audits_cut = 0

    async def run(self) -> None:
        """Connect again and again until cancelled, or until the node has stopped and said goodbye."""
        delay_s = reconnect_delay_s(self._client_id)
        while True:
            wait_s = delay_s
            will = self._node.connecting()
            await self._save_bdseq(self._node.session.bdseq)
            try:
                async with self._connector.connect(self._client_id, will) as link:
                    await self._session(link)
            except (BrokerRefusedError, SubscribeRefusedError) as error:
                self._complain(error)
                wait_s = self._random.uniform(REFUSED_S_MIN, REFUSED_S_MAX)
            except BrokerUnavailableError as error:
                self._complain(error)
                wait_s = RECONNECT_S_MAX  # the phase the hash chose at the loss stays
            except LinkLostError as error:
                self._complain(error)
            finally:
                self.connected = False
                self._node.link_lost()
            await asyncio.sleep(wait_s)

    async def _session(self, link: MqttLink) -> None:
        """Serve one link until it is lost (raises) or the session ends as planned (returns)."""
        node = self._node
        node.connected()
        await link.subscribe(node.subscriptions)
        await self._audit(link)
        self.connected, self._complained = True, ""
        connected_s = asyncio.get_running_loop().time()
        self.connects += 1
        log.info("connected to the broker, session %d", node.session.bdseq)
        node.subscribed()
        tasks = [
            asyncio.create_task(self._write(link), name="uplink-write"),
            asyncio.create_task(self._read(link), name="uplink-read"),
            asyncio.create_task(self._feed(), name="uplink-backlog"),
            asyncio.create_task(self._watch(), name="uplink-watch"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for task in done:
                task.result()
        except LinkLostError:
            self._note_end(asyncio.get_running_loop().time() - connected_s)
            raise

    async def _audit(self, link: MqttLink) -> None:
        """Listen to what is only refused aloud. A broker may refuse that, or end the link of who asks: it costs no session."""
        if self._audits_cut >= AUDITS_CUT_MAX:
            return
        try:
            await link.subscribe(self._node.audited)
        except SubscribeRefusedError:  # the broker itself lets nobody command a device
            pass
        except LinkLostError:
            self._audits_cut += 1
            if self._audits_cut == AUDITS_CUT_MAX:
                log.warning("the broker ends the link of who listens to commands to devices; going on without")
            raise
        self._audits_cut = 0

    def _note_end(self, lasted_s: float) -> None:
        """Notice sessions that are lost as soon as they are made: somebody may use this node's client id."""
        self.cut_short = self.cut_short + 1 if lasted_s < SHORT_SESSION_S else 0
        if self.cut_short and self.cut_short % CUT_SHORT_SAID_EVERY == 0:
            log.error("%d sessions in a row ended within %g s: the link is bad, or another client enters the broker as %s",
                      self.cut_short, SHORT_SESSION_S, self._client_id)  # fmt: skip

    async def _write(self, link: MqttLink) -> None:
        while True:
            message = self._node.next_message()
            if message is None:
                self._node.news.clear()
                await self._node.news.wait()
            elif isinstance(message, Disconnect):
                log.info("leaving the broker: %s", message.reason)
                return
            else:
                await link.publish(message.topic, message.payload, message.qos)

    async def _read(self, link: MqttLink) -> None:
        async for message in link.messages():
            self._node.message(message)

    async def _feed(self) -> None:
        """Fetch backlog blocks from the disk as long as the window has room."""
        node = self._node
        while True:
            node.room.clear()
            while node.live and node.backlog.room():
                block = await self._keeper.next_block(node.backlog.after())
                if block is None or not node.live:
                    break
                node.backlog.add(block)
                node.news.set()
            await node.room.wait()

    async def _watch(self) -> None:
        await self._node.jammed.wait()
        raise LinkLostError(self._client_id, "it takes less than the instruments give")

    def _complain(self, error: MqttError) -> None:
        """Say what is wrong once, not with every attempt."""
        kind = type(error).__name__
        if kind != self._complained:
            log.warning("%s; trying again until it works", error)
        self._complained = kind
