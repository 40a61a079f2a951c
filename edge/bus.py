"""One TCP connection to instruments: opened when needed, one request at a time, closed when not trusted.

All rules about bytes are in `modbus`; here are the socket, the deadline and the decision when to connect
again. A read either returns what the device said, or raises a `FieldLinkError` that says why not.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from edge.backoff import Backoff
from edge.errors import BusDownError, ConnectionDroppedError, ExceptionReplyError, ReadTimeoutError
from edge.modbus import LinkCounts, ModbusTcpCore, ReadRequest, Refusal, meaning_of
from edge.silence import LineSilence
from edge.turns import ProbeTurns

KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 3
KEEPALIVE_PROBES_MAX: Final = 3
UNACKED_MS_MAX: Final = 10_000
"""The kernel drops a connection whose peer has not acknowledged what we sent for so long (half-open)."""
MUTE_TIMEOUTS_PER_UNIT: Final = 2
"""Timeouts in a row without one byte received, after which the connection is taken for half-open …"""
MUTE_TIMEOUTS_MAX: Final = 6
"""… but never more than this. Gateways without transaction ids get as many: a radio modem dials slowly."""


@dataclass(frozen=True, slots=True)
class BusAddress:
    """Where the connection goes."""

    bus: str
    host: str
    port: int
    connect_timeout_s: float


@dataclass(slots=True)
class BusCounts:
    """What happened on one bus since the start."""

    requests: int = 0
    timeouts: int = 0
    connects: int = 0
    connects_failed: int = 0
    drops: int = 0
    resets: int = 0
    """Connections that we ended: the answers could not be trusted, or nothing came any more."""
    links: LinkCounts = field(default_factory=LinkCounts)


class TcpBus:
    """A bus with its lock: readers wait here for their turn, first come first served."""

    def __init__(
        self, address: BusAddress, *, monotonic: Callable[[], float], rng: random.Random, units: int = 1
    ) -> None:
        """`units`: how many share the connection; some of them may be dead while the connection is not."""
        self.address = address
        self._mute_max = min(MUTE_TIMEOUTS_PER_UNIT * units, MUTE_TIMEOUTS_MAX)
        self.counts = BusCounts()
        self.turns = ProbeTurns()
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._link: _Link | None = None
        self._backoff = Backoff(rng)
        self._connect_from = float("-inf")
        self._cause = "not connected yet"
        self._silence = LineSilence()
        self._mute_timeouts = 0
        self._last_exchange = float("-inf")
        self._closed_while_idle = False
        self._transaction = 0

    async def read(
        self, request: ReadRequest, *, timeout_s: float, match_transaction: bool = True, pause_s: float = 0.0
    ) -> bytes:
        """Return the answer's register or bit content, exactly as many bytes as asked for.

        `timeout_s` runs from the sending of the request; waiting for the bus is not counted.

        Raises:
            BusDownError: not connected, and the next attempt is not due or has just failed.
            ConnectionDroppedError: the peer, or our distrust, ended the connection before the answer.
            ReadTimeoutError: no matching answer in time.
            ExceptionReplyError: the device refused.
        """
        async with self._lock:
            try:
                return await self._read(request, timeout_s, match_transaction, pause_s)
            except ConnectionDroppedError:
                # Many devices close an idle connection; the request then crosses with the close. On a fresh
                # connection it cannot be answered twice, so one repetition is safe and saves a false BAD.
                if not self._closed_while_idle:
                    raise
                return await self._read(request, timeout_s, match_transaction, pause_s)

    def close(self) -> None:
        """Drop the connection and its file descriptor at once."""
        if self._link is not None:
            self._drop(self._link, "closed by us")

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.lost is None

    async def _read(
        self, request: ReadRequest, timeout_s: float, match_transaction: bool, pause_s: float
    ) -> bytes:
        link = self._link
        if link is None or link.lost is not None:
            link = await self._connect()
        if not match_transaction:
            await self._keep_silence(link)
            probe = self._silence.probe_for(request)
            if probe is not None:
                # Whatever it says, a probe's answer is never used: it only shows that the line is in step.
                await self._pause_until(self._last_exchange + pause_s)
                await self._exchange(link, probe, timeout_s, match_transaction)
        if pause_s:
            await self._pause_until(self._last_exchange + pause_s)
        outcome = await self._exchange(link, request, timeout_s, match_transaction)
        if isinstance(outcome, Refusal):
            code = outcome.exception_code
            raise ExceptionReplyError(
                self.address.bus, request.unit, request.address, request.count, code, meaning_of(code)
            )
        return outcome

    async def _exchange(
        self, link: _Link, request: ReadRequest, timeout_s: float, match_transaction: bool
    ) -> bytes | Refusal:
        self.counts.requests += 1
        sent = self._monotonic()
        try:
            outcome = await link.ask(request, timeout_s, match_transaction)
        except TimeoutError:
            self.counts.timeouts += 1
            self._timed_out(link, request, sent, timeout_s, match_transaction)
            raise ReadTimeoutError(self.address.bus, request.unit, request.address, timeout_s) from None
        except ConnectionError as error:
            self._closed_while_idle = link.answered and not link.heard and not link.core.must_reset
            self._drop(link, str(error))
            raise ConnectionDroppedError(self.address.bus, str(error)) from error
        finally:
            self._last_exchange = self._monotonic()
        link.answered = True
        self._mute_timeouts = 0
        self._backoff.succeeded()
        if not match_transaction:
            self._silence.replied(request, self._last_exchange - sent)
        return outcome

    def _timed_out(
        self, link: _Link, request: ReadRequest, sent: float, timeout_s: float, match_transaction: bool
    ) -> None:
        self._mute_timeouts = 0 if link.heard else self._mute_timeouts + 1
        mute_max = self._mute_max if match_transaction else MUTE_TIMEOUTS_MAX
        if not match_transaction:
            self._silence.timed_out(request, sent, self._monotonic())
        if self._mute_timeouts >= mute_max:
            self._mute_timeouts = 0
            self.counts.resets += 1
            self._drop(link, "no byte received any more")

    async def _pause_until(self, moment: float) -> None:
        remaining_s = moment - self._monotonic()
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    async def _keep_silence(self, link: _Link) -> None:
        """Wait until the line has been quiet for long enough after a timeout; late bytes are dropped."""
        while link.lost is None:
            remaining_s = self._silence.remaining_s(self._monotonic(), link.heard_at)
            if remaining_s <= 0:
                return
            await asyncio.sleep(remaining_s)

    async def _connect(self) -> _Link:
        address, now = self.address, self._monotonic()
        if self._link is not None:
            self._drop(self._link, self._link.lost or "closed by the peer")
        if now < self._connect_from:
            raise BusDownError(address.bus, address.host, address.port, self._cause, self._connect_from - now)
        self.counts.connects += 1
        # Counted as failed until a valid answer has come: a peer that accepts and resets is not a success.
        self._connect_from = now + self._backoff.failed()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(address.connect_timeout_s):
                _, link = await loop.create_connection(
                    lambda: _Link(loop, self._monotonic, self.counts, self._transaction), address.host, address.port
                )
        except (OSError, TimeoutError) as error:
            self.counts.connects_failed += 1
            self._cause = str(error) or f"no answer in {address.connect_timeout_s:g} s"
            retry_s = max(0.0, self._connect_from - self._monotonic())
            raise BusDownError(address.bus, address.host, address.port, self._cause, retry_s) from error
        self._link = link
        self._mute_timeouts = 0
        return link

    def _drop(self, link: _Link, cause: str) -> None:
        self._cause = cause
        self.counts.drops += 1
        self._transaction = link.core.transaction
        link.hang_up(cause)
        if self._link is link:
            self._link = None


class _Link(asyncio.Protocol):
    """One connection: bytes to the core, the core's answer to the one reader that waits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float],
        counts: BusCounts,
        transaction: int,
    ) -> None:
        self.core = ModbusTcpCore(counts.links, transaction=transaction)
        self.lost: str | None = None
        """Why the connection is of no use any more; None while it is."""
        self.answered = False
        """Whether it has ever given a valid answer."""
        self.heard = False
        """Whether any byte came since the last request went out."""
        self.heard_at = float("-inf")
        self._loop, self._monotonic, self._counts = loop, monotonic, counts
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[bytes | Refusal] | None = None

    async def ask(self, request: ReadRequest, timeout_s: float, match_transaction: bool) -> bytes | Refusal:
        """Send and wait. Raises TimeoutError or ConnectionError."""
        if self._transport is None or self.lost is not None:
            raise ConnectionError(self.lost or "not connected")
        waiter: asyncio.Future[bytes | Refusal] = self._loop.create_future()
        self._waiter = waiter
        self.heard = False
        timer = self._loop.call_later(timeout_s, _expire, waiter)
        try:
            self._transport.write(self.core.request(request, match_transaction=match_transaction))
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None
            self.core.give_up()

    def hang_up(self, cause: str) -> None:
        self.lost = self.lost or cause
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        _tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self.heard_at = self._monotonic()
        outcome = self.core.receive(data)
        if outcome is not None and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(outcome)
        if self.core.must_reset and self.lost is None:
            self._counts.resets += 1
            self.hang_up("answers out of step")
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or (str(exc) if exc is not None else "closed by the peer")
        self._fail()

    def _fail(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(self.lost))


def _expire(waiter: asyncio.Future[bytes | Refusal]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


def _tune(sock: socket.socket) -> None:
    """Send at once, and let the kernel find out when the peer has lost power."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES_MAX),
        ("TCP_USER_TIMEOUT", UNACKED_MS_MAX),
    ):
        # Not every operating system has all four; without them the read deadline still finds a dead peer.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
