"""Joins session, spool, clock and backlog: takes the facts, has the session decide, carries the commands out.

Everything here runs on the event loop and waits for nothing; what may wait is the uplink's and the keeper's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge.backlog import Backlog
from edge.clock import EdgeClock
from edge.scan import Scan
from edge.session import (
    Command,
    Disconnect,
    EdgeSession,
    Forget,
    HostTime,
    Now,
    Phase,
    Publish,
    Refused,
    Seal,
    Store,
    Subscribe,
)
from edge.spool import Spool
from wire import Message, Will

OUTGOING_MESSAGES_MAX: Final = 10_000
OUTGOING_BYTES_MAX: Final = 32 * 1024 * 1024
REFUSALS_LOGGED_MAX: Final = 20
REFUSALS_WINDOW_S: Final = 60.0
OPENING_S_MAX: Final = 0.15
"""How long births of a new stream may wait for its first frame to be on the disk: a sync comes every 100 ms.

See docs/decisions/0007-a-stream-is-on-disk-before-it-is-told.md.
"""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Opening:
    """Births of a new stream that wait for the disk: the messages from the `at`-th ever queued on."""

    stream: int
    at: int
    timer: asyncio.TimerHandle | None = None
    over: bool = False


class EdgeNode:
    """See the module.

    Args:
        session, spool, clock: the parts.
        monotonic: seconds.
        stored: told whenever a frame was appended to the spool.
    """

    def __init__(
        self,
        session: EdgeSession,
        spool: Spool,
        clock: EdgeClock,
        monotonic: Callable[[], float],
        stored: Callable[[], None],
    ) -> None:
        self.session, self.spool, self.clock = session, spool, clock
        self._monotonic, self._stored = monotonic, stored
        self.backlog = Backlog()
        self.outgoing: deque[Publish | Disconnect] = deque()
        self._outgoing_bytes = 0
        self._queued = 0
        """Messages ever put into `outgoing`."""
        self._openings: deque[_Opening] = deque()
        self.subscriptions: tuple[tuple[str, int], ...] = ()
        self.audited: tuple[tuple[str, int], ...] = ()
        self.news = asyncio.Event()
        """Set when there is something to send."""
        self.room = asyncio.Event()
        """Set when the backlog may have room or something to offer."""
        self.jammed = asyncio.Event()
        """Set when the link takes less than the instruments give; it then counts as lost."""
        self.refused = 0
        self._refusals_from_s, self._refusals_said, self._refusals_unsaid = monotonic(), 0, 0
        self._blocked_said = False
        self.acks = 0

    @property
    def live(self) -> bool:
        """Whether births are out and frames are published."""
        return self.session.phase is Phase.LIVE

    def now(self) -> Now:
        """Return this moment."""
        return Now(self._monotonic(), self.clock.now_ms())

    # ---- facts ---------------------------------------------------------------------------------------------

    def scan(self, scan: Scan) -> None:
        """Take a device's samples; returns at once."""
        self._look_for_step()
        self._carry_out(self.session.scan(scan, self.now()))

    def connecting(self) -> Will:
        """A connection is about to be tried; return its will."""
        return self.session.connecting(self.now())

    def connected(self) -> None:
        """The broker took us in; `subscriptions` says what to ask it for."""
        self._clear()
        self._carry_out(self.session.connected(self.now()))

    def subscribed(self) -> None:
        """It granted them."""
        self._carry_out(self.session.subscribed(self.now()))

    def message(self, message: Message) -> None:
        """A message arrived."""
        self._carry_out(self.session.message(message, self.now()))
        self._look_for_step()

    def link_lost(self) -> None:
        """The link is gone, or was left."""
        self._carry_out(self.session.link_lost(self.now()))
        self._clear()

    def spool_state(self, fault: bool) -> None:
        """The spool's fault came or went."""
        self._carry_out(self.session.spool_state(fault, self.now()))

    def tick(self) -> None:
        """Some time has passed."""
        self._look_for_step()
        now = self.now()
        self._carry_out(self.session.clock_state(self.clock.synced, self.clock.offset_ms, now))
        self._carry_out(self.session.tick(now))
        self._say_blocked()
        if self.live:
            self.news.set()
            self.room.set()

    def stop(self) -> None:
        """End the session on purpose; what is queued still goes."""
        self._carry_out(self.session.stop(self.now()))

    # ---- for the uplink ------------------------------------------------------------------------------------

    def next_message(self) -> Publish | Disconnect | None:
        """Return the next message to publish: live first, then one block that is due; None if nothing is.

        A stream's births wait for its first frame to be synced: a gateway must never know a stream of which an
        edge killed in this moment would remember nothing, for it would take the edge's disk for a restored one.
        """
        if self._opens():
            return None  # nor a block: sequence numbers were given to the births first
        if self.outgoing:
            message = self.outgoing.popleft()
            if isinstance(message, Publish):
                self._outgoing_bytes -= len(message.payload)
            return message
        if self.live:
            block = self.backlog.due(self._monotonic())
            if block is not None:
                return self.session.block(block.payload, self.now())
        return None

    def _opens(self) -> bool:
        """Whether the next message is a new stream's birth that waits for the disk.

        A disk that fails holds nothing up, one that dawdles nothing beyond the limit.
        """
        while self._openings and self._openings[0].at <= self._queued - len(self.outgoing):
            opening = self._openings[0]
            if not opening.over and not self.spool.fault and self.spool.waits(opening.stream, 1):
                return True
            self._end(self._openings.popleft())
        return False

    def _open(self, stream: int, at: int) -> None:
        """Let the messages from the `at`-th on wait for the stream's first frame."""
        opening = _Opening(stream, at)
        opening.timer = asyncio.get_running_loop().call_later(OPENING_S_MAX, self._end, opening)
        self._openings.append(opening)

    def _end(self, opening: _Opening) -> None:
        opening.over = True
        if opening.timer is not None:
            opening.timer.cancel()
        self.news.set()

    # ---- commands ------------------------------------------------------------------------------------------

    def _carry_out(self, commands: Sequence[Command]) -> None:
        before = self._queued
        for command in commands:
            if isinstance(command, Publish):
                self._send(command)
            elif isinstance(command, Store):
                self.spool.append(command.frame)
                if self.live and command.frame.sequence == 1:
                    self._open(command.frame.stream, before)
                self._stored()
            elif isinstance(command, Forget):
                self._forget(command)
            elif isinstance(command, Seal):
                log.info("stream %016x sealed: %s", command.stream, command.reason)
                self.spool.seal(command.stream)
                self.room.set()
            elif isinstance(command, Subscribe):
                self.subscriptions, self.audited = command.filters, command.audited
            elif isinstance(command, HostTime):
                self.clock.host_time(command.utc_ms)
            elif isinstance(command, Refused):
                self._refuse(command)
            else:
                self._queue(command)

    def _send(self, message: Publish) -> None:
        self._queue(message)
        self._outgoing_bytes += len(message.payload)
        if len(self.outgoing) > OUTGOING_MESSAGES_MAX or self._outgoing_bytes > OUTGOING_BYTES_MAX:
            self.jammed.set()

    def _queue(self, message: Publish | Disconnect) -> None:
        self.outgoing.append(message)
        self._queued += 1
        self.news.set()

    def _forget(self, command: Forget) -> None:
        self.acks += 1
        now_s = self._monotonic()
        self.spool.acked(command.stream, command.upto, now_s)
        if self.backlog.acked(command.stream, command.upto, now_s):
            self.room.set()

    def _refuse(self, command: Refused) -> None:
        """Write the audit line; of a storm of commands, so many a minute and the number of the rest."""
        self.refused += 1
        now_s = self._monotonic()
        if now_s - self._refusals_from_s >= REFUSALS_WINDOW_S:
            if self._refusals_unsaid:
                log.warning("refused, nothing was done: %d more commands", self._refusals_unsaid)
            self._refusals_from_s, self._refusals_said, self._refusals_unsaid = now_s, 0, 0
        if self._refusals_said >= REFUSALS_LOGGED_MAX:
            self._refusals_unsaid += 1
            return
        self._refusals_said += 1
        what = ", ".join(name[:80] for name in command.what[:10])
        log.warning("refused, nothing was done: %s", ascii(what))

    def _say_blocked(self) -> None:
        """Log once when acknowledgements stop coming, and once when they come again."""
        blocked = self.session.blocked_since_ms is not None
        if blocked != self._blocked_said:
            self._blocked_said = blocked
            if blocked:
                log.error("transport blocked: frames are published and not acknowledged; they are kept until they are")
            else:
                log.warning("acknowledgements come again")

    def _clear(self) -> None:
        self.outgoing.clear()
        self._outgoing_bytes = 0
        for opening in self._openings:
            if opening.timer is not None:
                opening.timer.cancel()
        self._openings.clear()
        self.backlog.clear()
        self.jammed.clear()

    def _look_for_step(self) -> None:
        step_ms = self.clock.step()
        if step_ms:
            log.warning("clock moved by %d ms; the stream is sealed", step_ms)
            self._carry_out(self.session.clock_stepped(step_ms, self.clock.synced, self.clock.offset_ms, self.now()))
