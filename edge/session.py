"""The Sparkplug session of an edge node: facts in, commands out.

Pure: it holds no socket, no clock and no file. Whoever drives it tells it what happened (connected, a message,
a scan, time passed) and carries out the commands it returns, in order and before the next fact. Streams begin
and end here: at a session's start and end, at a step of the clock, when acknowledgements stall, and when a
spool that had failed works again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from edge.messages import Identity, Messages, NodeFacts
from edge.numbering import NumberedFrame, Numbering
from edge.points import PointTable
from edge.scan import Scan
from wire import (
    MalformedPayloadError,
    MalformedStateError,
    Message,
    OversizePayloadError,
    StreamSpan,
    Will,
    decode_command,
    decode_payload,
    decode_state,
    next_bdseq,
    next_seq,
)

ACK_STALL_S_MIN: Final = 5.0
ACK_STALL_S_MAX: Final = 300.0
REBIRTH_SPACING_S: Final = 2.0
"""Least time from one birth to the next that a host may ask for; a request within it is met at its end.

A deliberate exception to the specification, see docs/decisions/0008-rebirth-at-most-every-2-s.md.
"""
REFUSALS_TOLD_EVERY_S: Final = 60.0
COMMAND_QOS: Final = 1
DEATH_QOS: Final = 1


class Phase(Enum):
    """OFFLINE: no link. WAITING: connected, but the primary host is not there. LIVE: births are out."""

    OFFLINE = auto()
    WAITING = auto()
    LIVE = auto()


@dataclass(frozen=True, slots=True)
class Now:
    """One moment: `s` monotonic seconds for waiting, `ms` UTC epoch milliseconds for stamping."""

    s: float
    ms: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe these (filter, QoS) pairs before anything is published.

    Attributes:
        filters: without one of them there is no session.
        audited: what arrives there is refused and counted; a broker that lets nobody read it has done so already.
    """

    filters: tuple[tuple[str, int], ...]
    audited: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish, not retained. A frame goes at once; its sync runs beside it."""

    topic: str
    payload: bytes
    qos: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """Append the frame to the spool."""

    frame: NumberedFrame


@dataclass(frozen=True, slots=True)
class Seal:
    """No frame of this stream will follow; it is backlog from now on."""

    stream: int
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The gateway has committed the stream's frames up to this number."""

    stream: int
    upto: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Say goodbye to the broker: the session is over, another may begin."""

    reason: str


@dataclass(frozen=True, slots=True)
class HostTime:
    """The gateway's clock stood at `utc_ms` a moment ago."""

    utc_ms: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A command asked for something this node does not do; nothing was done."""

    what: tuple[str, ...]


Command: TypeAlias = Subscribe | Publish | Store | Seal | Forget | Disconnect | HostTime | Refused


class EdgeSession:
    """See the module.

    Args:
        identity: who the node is.
        table: its points.
        numbering: the book of streams; only the session moves it on.
        bdseq: the number of the last session, as saved; -1 if there was none.
        unfinished: asks the spool what it holds, oldest first.
    """

    def __init__(
        self,
        identity: Identity,
        table: PointTable,
        numbering: Numbering,
        bdseq: int,
        unfinished: Callable[[], Sequence[StreamSpan]],
    ) -> None:
        self._identity, self._numbering, self._unfinished = identity, numbering, unfinished
        self._messages = Messages(identity, table)
        self.bdseq = bdseq
        self.phase = Phase.OFFLINE
        self.births = 0
        """NBIRTHs sent since the start."""
        self._seq = 0
        self._host_ms: int | None = None
        self._born_s = 0.0
        self._rebirth_due = False
        self._acked = 0
        self._stall_since_s: float | None = None
        self._stall_s = ACK_STALL_S_MIN
        self.blocked_since_ms: int | None = None
        """UTC ms since when published frames have not been acknowledged; None while acknowledgements come.

        A lost link does not end it: only an acknowledgement does.
        """
        self.commands_refused = 0
        self._refusals_told = 0
        self._refusals_told_s: float | None = None
        self._spool_fault = False
        self._clock_synced, self._clock_offset_ms = True, 0

    @property
    def stream(self) -> int:
        """Id of the stream that frames go into now."""
        return self._numbering.stream

    # ---- the link ----------------------------------------------------------------------------------------

    def connecting(self, now: Now) -> Will:
        """Begin an attempt to connect; return the will that CONNECT must carry.

        `bdseq` has moved on: save it before the attempt, so that no number is used by two sessions.
        """
        self.bdseq = next_bdseq(self.bdseq)
        topic, payload = self._messages.death(self.bdseq, now.ms)
        return Will(topic, payload, qos=DEATH_QOS, retain=False)

    def connected(self, now: Now) -> list[Command]:
        """The broker took us in."""
        self.phase, self._host_ms = Phase.WAITING, None
        self._stall_s = ACK_STALL_S_MIN
        filters = [(self._messages.command_topic, COMMAND_QOS)]
        if self._identity.receipt:
            filters.append((self._messages.state_topic, COMMAND_QOS))
        return [Subscribe(tuple(filters), ((self._messages.device_command_filter, COMMAND_QOS),))]

    def subscribed(self, now: Now) -> list[Command]:
        """The broker granted the subscriptions; a node that needs no host is live with this."""
        if self.phase is not Phase.WAITING or self._identity.receipt:
            return []
        return self._begin_session(now)

    def link_lost(self, now: Now) -> list[Command]:
        """The link is gone, by fault or by our own goodbye."""
        was_live, self.phase = self.phase is Phase.LIVE, Phase.OFFLINE
        self._rebirth_due, self._stall_since_s = False, None
        return self._next_stream("session lost") if was_live else []

    def stop(self, now: Now) -> list[Command]:
        """End the session on purpose."""
        if self.phase is Phase.OFFLINE:
            return []
        return self._goodbye("stopping", now)

    def message(self, message: Message, now: Now) -> list[Command]:
        """Something arrived; what is not for this node, or cannot be read, changes nothing."""
        if message.topic == self._messages.state_topic:
            return self._state(message.payload, now)
        if message.topic == self._messages.command_topic:
            return [*self._command(message.payload, now), *self._tell_refusals(now)]
        if self._messages.is_device_command(message.topic):
            return [self._device_command(message), *self._tell_refusals(now)]
        return []

    # ---- samples -----------------------------------------------------------------------------------------

    def scan(self, scan: Scan, now: Now) -> list[Command]:
        """A device gave samples."""
        if len(scan) == 0:
            return []
        live = self.phase is Phase.LIVE
        if not self._takes:
            frame = self._numbering.unmarked(scan)
            return [self._data(frame, now)] if live else []
        if not live and self._numbering.last == 0:
            self._numbering.note(scan)
            return [Store(frame) for frame in self._numbering.present_frames(now.ms)]
        frame = self._numbering.number(scan)
        if not live:
            return [Store(frame)]
        self._await_ack(now)
        return [self._data(frame, now), Store(frame)]

    def block(self, payload: bytes, now: Now) -> Publish:
        """Return the message that carries a backlog block; only in a live session.

        It takes the next sequence number, so it must go out before anything asked for later.
        """
        assert self.phase is Phase.LIVE
        return Publish(*self._messages.block(payload, self._take_seq(), now.ms))

    # ---- everything else -----------------------------------------------------------------------------------

    def tick(self, now: Now) -> list[Command]:
        """Time has passed; at least once a second is soon enough."""
        if self.phase is not Phase.LIVE:
            return []
        if self._stalled(now):
            if self.blocked_since_ms is None and self._stall_since_s is not None:
                self.blocked_since_ms = now.ms - round(1000 * (now.s - self._stall_since_s))
            self._stall_s = min(ACK_STALL_S_MAX, 2 * self._stall_s)
            return [*self._next_stream("acknowledgements stalled"), *self._births(now)]
        if self._rebirth_due and now.s - self._born_s >= REBIRTH_SPACING_S:
            return self._births(now)
        return self._tell_refusals(now)

    def spool_state(self, fault: bool, now: Now) -> list[Command]:
        """The spool cannot take frames any more, or can again."""
        if fault == self._spool_fault or not self._identity.receipt:
            return []
        self._spool_fault = fault
        if fault:
            self._stall_since_s = None
            if self.phase is not Phase.LIVE:
                return []
            return [Publish(*self._messages.spool_state(fault, self._take_seq(), now.ms))]
        sealing = self._next_stream("spool works again")
        return [*sealing, *self._births(now)] if self.phase is Phase.LIVE else sealing

    def clock_stepped(self, step_ms: int, synced: bool, offset_ms: int, now: Now) -> list[Command]:
        """The wall clock moved by `step_ms` against the monotonic one; the rest is how it is after the step."""
        self._clock_synced, self._clock_offset_ms = synced, offset_ms
        sealing = self._next_stream("clock stepped")
        self._numbering.shift(step_ms)
        return [*sealing, *self._births(now)] if self.phase is Phase.LIVE else sealing

    def clock_state(self, synced: bool, offset_ms: int, now: Now) -> list[Command]:
        """How far stamps can be trusted has changed."""
        if (synced, offset_ms) == (self._clock_synced, self._clock_offset_ms):
            return []
        self._clock_synced, self._clock_offset_ms = synced, offset_ms
        if self.phase is not Phase.LIVE:
            return []
        return [Publish(*self._messages.clock_state(synced, offset_ms, self._take_seq(), now.ms))]

    # ---- inside ------------------------------------------------------------------------------------------

    @property
    def _takes(self) -> bool:
        return self._identity.receipt and not self._spool_fault

    def _state(self, payload: bytes, now: Now) -> list[Command]:
        if self.phase is Phase.OFFLINE or not self._identity.receipt:
            return []
        try:
            state = decode_state(payload)
        except MalformedStateError as error:
            return [Refused((str(error),))]
        if self._host_ms is not None and state.timestamp_ms < self._host_ms:
            return []
        self._host_ms = state.timestamp_ms
        if state.online and self.phase is Phase.WAITING:
            return self._begin_session(now)
        if not state.online and self.phase is Phase.LIVE:
            return self._goodbye("primary host offline", now)
        return []

    def _command(self, payload: bytes, now: Now) -> list[Command]:
        try:
            command = decode_command(payload)
        except (MalformedPayloadError, OversizePayloadError) as error:
            return [self._refuse((str(error),))]
        commands: list[Command] = []
        if command.acknowledged:
            commands.append(HostTime(command.timestamp_ms))
        for stream, upto in command.acknowledged:
            commands.append(Forget(stream, upto))
            if stream == self._numbering.stream and self.phase is Phase.LIVE:
                commands += self._progress(upto, now)
        if command.refused:
            commands.append(self._refuse(command.refused))
        if command.rebirth and self.phase is Phase.LIVE:
            if now.s - self._born_s >= REBIRTH_SPACING_S:
                commands += self._births(now)
            else:
                self._rebirth_due = True
        return commands

    def _device_command(self, message: Message) -> Refused:
        """A DCMD asks for a write, whatever its metrics are called: there is nothing here that could do it."""
        device = message.topic.rsplit("/", 1)[-1]
        try:
            metrics = decode_payload(message.payload).metrics
        except (MalformedPayloadError, OversizePayloadError) as error:
            return self._refuse((f"DCMD {device}: {error}",))
        return self._refuse(tuple(f"DCMD {device}: {metric.name or f'alias {metric.alias}'}" for metric in metrics))

    def _refuse(self, what: tuple[str, ...]) -> Refused:
        self.commands_refused += 1
        return Refused(what)

    def _tell_refusals(self, now: Now) -> list[Command]:
        """Tell the gateway that somebody gives commands; often enough for an alarm, never as often as they come."""
        told_s = self._refusals_told_s
        if self.phase is not Phase.LIVE or self.commands_refused == self._refusals_told:
            return []
        if told_s is not None and now.s - told_s < REFUSALS_TOLD_EVERY_S:
            return []
        self._refusals_told, self._refusals_told_s = self.commands_refused, now.s
        return [Publish(*self._messages.refusals(self.commands_refused, self._take_seq(), now.ms))]

    def _begin_session(self, now: Now) -> list[Command]:
        self.phase = Phase.LIVE
        return [*self._next_stream("session begins"), *self._births(now)]

    def _goodbye(self, reason: str, now: Now) -> list[Command]:
        topic, payload = self._messages.death(self.bdseq, now.ms)
        return [Publish(topic, payload, DEATH_QOS), *self.link_lost(now), Disconnect(reason)]

    def _next_stream(self, reason: str) -> list[Command]:
        sealed = self._numbering.begin()
        self._acked, self._stall_since_s = 0, None
        return [Seal(sealed, reason)] if sealed else []

    def _births(self, now: Now) -> list[Command]:
        """NBIRTH and every DBIRTH, each of these a frame of the stream."""
        self._rebirth_due, self._born_s = False, now.s
        self.births += 1
        book = self._numbering
        facts = NodeFacts(
            book.stream,
            book.last,
            book.predecessor,
            book.predecessor_last,
            self._unfinished(),
            self._spool_fault,
            self._clock_synced,
            self._clock_offset_ms,
            self.blocked_since_ms is not None,
            self.commands_refused,
        )
        commands: list[Command] = [Publish(*self._messages.node_birth(self.bdseq, facts, now.ms))]
        self._seq = 0
        frames = book.present_frames(now.ms) if self._takes else book.unmarked_frames(now.ms)
        for frame in frames:
            commands.append(Publish(*self._messages.device_birth(frame, self._take_seq(), now.ms)))
            if frame.stream:
                commands.append(Store(frame))
                self._await_ack(now)
        return commands

    def _data(self, frame: NumberedFrame, now: Now) -> Publish:
        return Publish(*self._messages.device_frame(frame, self._take_seq(), now.ms))

    def _take_seq(self) -> int:
        self._seq = next_seq(self._seq)
        return self._seq

    def _await_ack(self, now: Now) -> None:
        if self._stall_since_s is None:
            self._stall_since_s = now.s

    def _progress(self, upto: int, now: Now) -> list[Command]:
        upto = min(upto, self._numbering.last)
        if upto <= self._acked:
            return []
        self._acked, self._stall_s = upto, ACK_STALL_S_MIN
        self._stall_since_s = None if upto >= self._numbering.last else now.s
        if self.blocked_since_ms is None:
            return []
        self.blocked_since_ms = None
        return [Publish(*self._messages.transport_state(False, self._take_seq(), now.ms))]

    def _stalled(self, now: Now) -> bool:
        since_s = self._stall_since_s
        return self._takes and since_s is not None and now.s - since_s >= self._stall_s
