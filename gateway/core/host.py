"""The host's side of a Sparkplug session with one edge node: messages in, facts about the node out.

Pure: no clock, no socket. Values pass through as they came; what they mean for alarms is decided elsewhere. A frame
of ours is handed on at once even past a hole (its own numbers say where it belongs); the messages of a node that
is not ours are put in order within the reorder timeout, as the specification asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import numpy as np

from gateway.core.declared import IGNORED_ALIAS, UNKNOWN_ALIAS, Declared
from gateway.core.facts import (
    BlockArrived,
    DeviceDied,
    Fact,
    FrameArrived,
    NodeBorn,
    NodeDied,
    NodeFact,
    RebirthWanted,
    Refused,
    Suspicion,
)
from wire import (
    BDSEQ,
    CLOCK_OFFSET,
    CLOCK_SYNCED,
    COMMANDS_REFUSED,
    CONFIG_HASH,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    TRANSPORT_BLOCKED,
    DataColumns,
    DataSet,
    MalformedPayloadError,
    MessageKind,
    Metric,
    Payload,
    PayloadLimits,
    ReorderBuffer,
    SampleBatch,
    StreamSpan,
    Topic,
    WireError,
    conform,
    decode_data,
    decode_payload,
    next_seq,
    read_unfinished,
)

REBIRTH_FIRST_MS: Final = 5_000
REBIRTH_MAX_MS: Final = 60_000
SEQ_END: Final = 256
RECENT_SEQS: Final = 16  # a repeat comes at once or not at all
TRESPASS_NAMED_MAX: Final = 8
BIRTHS_KNOWN_MAX: Final = 64  # births, and ends of streams, by which one that comes late is known again


class Place(Enum):
    """Where a message stands among those that came before it."""

    NEWEST = "newest"
    OVERTAKEN = "overtaken"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True, eq=False)
class _Message:
    """A decoded message of the session; the bytes are kept for quarantine."""

    topic: Topic
    payload: bytes
    birth: Payload | None
    columns: DataColumns | None

    @property
    def seq(self) -> int | None:
        decoded = self.columns if self.birth is None else self.birth
        return None if decoded is None else decoded.seq


class NodeSession:
    """One node's session. Times are milliseconds of a monotonic clock, passed in."""

    def __init__(
        self, tag_index: Mapping[str, int], limits: PayloadLimits, reorder_ms: int,
        site_tags: Collection[str] = frozenset(),
    ) -> None:  # fmt: skip
        """`tag_index` holds only the tags this node may report; every other name is ignored.

        `reorder_ms`: how long a missing message is waited for, the specification's reorder timeout.
        `site_tags`: all tags of the site; who names one that is not its own is suspected.
        """
        self._site_tags, self._commands_refused = site_tags, 0
        self._tag_index, self._limits, self._reorder_ms = tag_index, limits, reorder_ms
        self.online = False
        self.ours = False
        self._bdseq: int | None = None
        self._expected = 0
        self._missing: set[int] = set()
        self._recent: deque[int] = deque(maxlen=RECENT_SEQS)
        self._count = 0  # messages up to the newest in this session, lost ones too
        self._newest_at: dict[str, int] = {}  # device, or a state's metric -> which of them was its newest
        self._stream = 0
        self._spool_fault = False
        self._upto = 0  # highest frame number heard of it
        self._births: deque[int] = deque(maxlen=BIRTHS_KNOWN_MAX)  # digests
        self._sealed: dict[int, int] = {}  # stream -> where it ended, as a birth after it told
        self._gap_since_ms: int | None = None
        self._foreign: ReorderBuffer[_Message] = ReorderBuffer(reorder_ms)
        self._declared = Declared()
        self._devices: set[str] = set()
        self._rebirth_wanted: str | None = None
        self._rebirth_wait_ms = REBIRTH_FIRST_MS
        self._rebirth_after_ms: int | None = None

    # -- facts in --

    def message(self, topic: Topic, payload: bytes, now_ms: int, usual: DataColumns | None = None) -> list[Fact]:
        """Take one message of this node and return what it tells, in order.

        Args:
            usual: what `decode_usual` read of the payload.
        """
        if usual is not None:
            frame = self._next_frame(topic, usual)
            if frame is not None:
                return [frame]
        try:
            match topic.kind:
                case MessageKind.NBIRTH:
                    return self._node_birth(payload)
                case MessageKind.NDEATH:
                    return self._node_death(payload)
                case MessageKind.DBIRTH | MessageKind.DDEATH | MessageKind.NDATA | MessageKind.DDATA:
                    return self._in_session(topic, payload, now_ms)
                case _:
                    return []
        except WireError as error:
            return [Refused(str(topic), str(error), payload), *self._rebirth(f"unusable message: {error}", now_ms)]

    def poll(self, now_ms: int) -> list[Fact]:
        """Return what time alone brings: a hole that stayed open past the reorder timeout asks for a rebirth.

        A wish for one that came too soon after the last, or that nobody answered, is said again in its time.
        """
        facts = self._overdue(now_ms)
        if self._rebirth_wanted is not None and RebirthWanted(self._rebirth_wanted) not in facts:
            facts += self._rebirth(self._rebirth_wanted, now_ms)
        return facts

    def _overdue(self, now_ms: int) -> list[Fact]:
        if not self.ours:
            expired = self._foreign.expire(now_ms)
            if expired is None:
                return []
            facts = [fact for message in expired.held for fact in self._apply(message, now_ms)]
            return [*facts, *self._rebirth("a message is missing", now_ms)]
        if self._gap_since_ms is None or now_ms - self._gap_since_ms < self._reorder_ms:
            return []
        self._gap_since_ms = None
        self._missing.clear()
        return self._rebirth("a message is missing", now_ms)

    def unborn(self, now_ms: int) -> list[Fact]:
        """Core is there and the node has not been born: one that did not wait for its host must be asked."""
        return [] if self.online else self._rebirth("not born since core is there", now_ms)

    def unlisted(self, now_ms: int) -> list[Fact]:
        """The node sends what it still holds of a stream, and no birth has listed that stream."""
        return self._rebirth("a block of a stream that no birth lists", now_ms) if self.online else []

    def lost(self) -> list[Fact]:
        """Core's own link is gone, or core starts: nothing is known of the node until it is born again."""
        was_online = self.online
        self._forget()
        return [NodeDied()] if was_online else []

    # -- births and deaths --

    def _node_birth(self, payload: bytes) -> list[Fact]:
        birth = decode_payload(payload, self._limits)
        metrics = {metric.name: metric for metric in birth.metrics if metric.name is not None}
        bdseq = _integer(metrics.get(BDSEQ))
        if birth.seq != 0 or bdseq is None:
            raise MalformedPayloadError("NBIRTH without seq 0 or without bdSeq")
        live = _integer(metrics.get(SPOOL_STREAM)) or 0
        spans = _spans(metrics, live)
        if live and self._overtaken(payload, live, spans):
            return []
        self._forget()
        self.online, self._bdseq, self._expected = True, bdseq, 1
        self._upto = self._upto if live == self._stream else 0
        self.ours, self._stream = live > 0, live
        self._foreign.birth()
        self._declare(birth.metrics)
        self._spool_fault = bool(_boolean(metrics.get(SPOOL_FAULT)))
        born = NodeBorn(
            live=live,
            spans=spans,
            config_hash=_text(metrics.get(CONFIG_HASH)),
            spool_fault=self._spool_fault,
            clock_offset_ms=_integer(metrics.get(CLOCK_OFFSET)) or 0,
            clock_synced=_boolean(metrics.get(CLOCK_SYNCED)) is not False,
            transport_blocked=bool(_boolean(metrics.get(TRANSPORT_BLOCKED))),
            commands_refused=max(0, _integer(metrics.get(COMMANDS_REFUSED)) or 0),
        )
        facts: list[Fact] = [born, *self._refusals(metrics.get(COMMANDS_REFUSED), born=True)]
        if self.ours:
            facts += self._trespass(metrics)
        else:
            facts += self._values("", decode_data(payload, self._limits))
        return facts

    def _overtaken(self, payload: bytes, live: int, spans: Sequence[StreamSpan]) -> bool:
        """Tell whether a birth of a node of ours is from before what is known of it; if not, remember it.

        It is when it came before; when a later birth told that its stream ended where it says, or farther on (a second
        box that writes on in that stream is soon beyond this); and, of a session that is over, when frames with higher
        numbers have come. Nothing of it is believed: it would pass for a second box, or for the return of a dead one.
        """
        digest = hash(payload)
        last = max((span.last for span in spans if span.stream == live), default=0)
        if digest in self._births or last <= self._sealed.get(live, -1):
            return True
        if not self.online and live == self._stream and last < self._upto:
            return True
        self._births.append(digest)
        for span in spans:
            if span.predecessor:
                self._sealed.pop(span.predecessor, None)
                self._sealed[span.predecessor] = span.predecessor_last
        for stream in list(self._sealed)[:-BIRTHS_KNOWN_MAX]:
            del self._sealed[stream]
        return False

    def _node_death(self, payload: bytes) -> list[Fact]:
        """Only the death whose bdSeq is the birth's ends this session; another one is an old will."""
        death = decode_payload(payload, self._limits)
        bdseq = next((_integer(metric) for metric in death.metrics if metric.name == BDSEQ), None)
        if self.online and bdseq != self._bdseq:
            return []
        return self.lost()

    def _forget(self) -> None:
        self.online = False
        self._rebirth_wanted = None
        self._missing.clear()
        self._recent.clear()
        self._newest_at.clear()
        self._gap_since_ms = None
        self._foreign.death()
        self._declared = Declared()
        self._devices.clear()

    # -- order --

    def _next_frame(self, topic: Topic, columns: DataColumns) -> FrameArrived | None:
        """Take what nearly every message is, in short: the next one in order, a frame of the live stream of a node of ours.

        Returns:
            What `_in_session` would; None where it may be anything else, and nothing has been noted.
        """
        seq, device = columns.seq, topic.device
        if (
            topic.kind is not MessageKind.DDATA or device not in self._devices or not (self.online and self.ours)
            or seq != self._expected or self._missing or seq in self._recent
            or columns.stream != self._stream or not columns.stream
        ):  # fmt: skip
            return None
        tag = self._declared.tags_of_doubles(columns.alias)
        if tag is None:
            return None
        assert device is not None, "of a device"
        self._count += 1
        self._expected = next_seq(seq)
        self._recent.append(seq)
        self._gap_since_ms = None
        self._newest_at[device] = self._count
        self._upto = max(self._upto, columns.sequence)
        batch = SampleBatch(tag, columns.value, columns.code, columns.source_ms)
        return FrameArrived(device, columns.stream, columns.sequence, batch)

    def _in_session(self, topic: Topic, payload: bytes, now_ms: int) -> list[Fact]:
        if not self.online:
            return self._rebirth("data before birth", now_ms)
        message = self._decode(topic, payload)
        seq = message.seq
        if seq is None:
            raise MalformedPayloadError("no seq")
        if not self.ours:
            return [fact for ready in self._foreign.offer(seq, message, now_ms) for fact in self._apply(ready, now_ms)]
        order, at = self._check_order(seq, now_ms)
        place = self._place_of(topic.device or "", order, at)
        facts = self._apply(message, now_ms)
        return [told for fact in facts for told in self._in_its_place(fact, place, order, at, now_ms)]

    def _in_its_place(self, fact: Fact, place: Place, order: Place, at: int, now_ms: int) -> list[Fact]:
        """Keep what an overtaken or repeated message of a node of ours tells from passing for the present.

        Marked frames say themselves where they belong. Those without marks, which a node sends while its spool takes
        nothing, have only the message's own place: a repeat tells nothing, an overtaken one is stored and lowers nothing.
        So is one that comes while the node says its spool works: it is from before the birth that said so, or the word
        of the spool got lost; a birth tells which. A state of the node is told by the newest message that tells it.
        """
        if isinstance(fact, NodeFact):
            if self._place_of(fact.name, order, at) is not Place.NEWEST:
                return []
            if fact.name == SPOOL_FAULT:
                self._spool_fault = fact.value is True
            return [fact]
        if not isinstance(fact, FrameArrived) or fact.stream:
            return [fact]
        if not self._spool_fault and place is not Place.REPEAT:
            return [replace(fact, historical=True), *self._rebirth("a frame without marks, and its spool works", now_ms)]
        if place is Place.NEWEST:
            return [fact]
        return [] if place is Place.REPEAT else [replace(fact, historical=True)]

    def _place_of(self, what: str, order: Place, at: int) -> Place:
        """Overtaken by other messages alone, a message still tells the present of its own device, or of a state."""
        if order is Place.OVERTAKEN and at > self._newest_at.get(what, 0):
            order = Place.NEWEST
        if order is Place.NEWEST:
            self._newest_at[what] = at
        return order

    def _check_order(self, seq: int, now_ms: int) -> tuple[Place, int]:
        """Note holes in a node of ours: they delay nothing, but one that stays open asks for a rebirth.

        Returns:
            The message's place, and which of the session's messages it is, lost ones counted.
        """
        at = self._count - (self._expected - 1 - seq) % SEQ_END
        place = Place.REPEAT if seq in self._recent else Place.OVERTAKEN
        if seq in self._missing:  # arrived out of order, within the timeout
            self._missing.discard(seq)
        elif place is not Place.REPEAT:
            ahead = (seq - self._expected) % SEQ_END
            self._count += ahead + 1
            self._missing |= {(self._expected + step) % SEQ_END for step in range(ahead)}
            self._expected = next_seq(seq)
            if ahead < SEQ_END // 2:  # farther ahead may as well be behind, so that is what it passes for
                place, at = Place.NEWEST, self._count
        self._recent.append(seq)
        if not self._missing:
            self._gap_since_ms = None
        elif self._gap_since_ms is None:
            self._gap_since_ms = now_ms
        return place, at

    def _decode(self, topic: Topic, payload: bytes) -> _Message:
        if topic.kind in (MessageKind.DBIRTH, MessageKind.DDEATH):
            return _Message(topic, payload, decode_payload(payload, self._limits), None)
        return _Message(topic, payload, None, decode_data(payload, self._limits))

    def _apply(self, message: _Message, now_ms: int) -> list[Fact]:
        topic, device = message.topic, message.topic.device or ""
        if topic.kind is MessageKind.DDEATH:
            self._devices.discard(device)
            return [DeviceDied(device)]
        if message.birth is not None:
            self._devices.add(device)
            self._declare(message.birth.metrics)
            return self._frame(device, decode_data(message.payload, self._limits), message, now_ms)
        if topic.kind is MessageKind.DDATA and device not in self._devices:
            return [
                Refused(str(topic), "data of a device before its birth", message.payload),
                *self._rebirth("no DBIRTH", now_ms),
            ]
        assert message.columns is not None
        return self._frame(device, message.columns, message, now_ms)

    # -- values --

    def _declare(self, metrics: tuple[Metric, ...]) -> None:
        for metric in metrics:
            self._declared.declare(metric, self._tag_index.get(metric.name or "", IGNORED_ALIAS))

    def _frame(self, device: str, columns: DataColumns, message: _Message, now_ms: int) -> list[Fact]:
        facts: list[Fact] = []
        for metric in columns.others:
            if metric.name == SPOOL_BLOCK and isinstance(metric.value, bytes):
                facts.append(BlockArrived(metric.value))
            elif metric.name in (SPOOL_FAULT, CLOCK_SYNCED, TRANSPORT_BLOCKED) and isinstance(metric.value, bool):
                facts.append(NodeFact(metric.name, metric.value))
            elif metric.name == COMMANDS_REFUSED:
                facts += self._refusals(metric, born=False)
        if self.ours and columns.stream == self._stream:
            self._upto = max(self._upto, columns.sequence)
        elif self.ours and columns.stream:
            # Its birth was lost: until it is told again, nothing can say that these are the present values.
            facts += self._rebirth("a frame of a stream that no birth told of", now_ms)
        try:
            return facts + self._values(device, columns)
        except MalformedPayloadError as error:
            refused = Refused(str(message.topic), error.reason, message.payload)
            return [*facts, refused, *self._rebirth(error.reason, now_ms)]

    def _values(self, device: str, columns: DataColumns) -> list[Fact]:
        """Return the frame, or two when a foreign node mixes stored and current values.

        Raises:
            MalformedPayloadError: an alias no birth declared, or a value of another type than declared.
        """
        tag, datatype = self._declared.look_up(columns, self._tag_index)
        if bool((tag == UNKNOWN_ALIAS).any()):
            raise MalformedPayloadError("unknown alias")
        columns = conform(columns, datatype)
        marked = columns.stream > 0 and columns.sequence > 0
        frames: list[Fact] = []
        if len(tag) and int(tag.min()) >= 0 and not columns.historical.any():
            batch = SampleBatch(tag, columns.value, columns.code, columns.source_ms)
            return [FrameArrived(device, columns.stream, columns.sequence, batch, False)]
        if bool((tag == IGNORED_ALIAS).any()):
            frames += self._trespass(columns.names[row] for row in np.flatnonzero(tag == IGNORED_ALIAS).tolist())
        for historical in (False, True):
            rows = (tag >= 0) & (columns.historical == historical)
            if rows.any() or (marked and not historical):
                batch = SampleBatch(tag[rows], columns.value[rows], columns.code[rows], columns.source_ms[rows])
                frames.append(FrameArrived(device, columns.stream, columns.sequence, batch, historical))
        return frames

    def _trespass(self, names: Iterable[str | None]) -> list[Fact]:
        """Tell of tags that are another node's: they are ignored, and no node that is set up right names them."""
        claimed = sorted({name for name in names if name and name in self._site_tags and name not in self._tag_index})
        if not claimed:
            return []
        return [Suspicion("TRESPASS", {"tags": ", ".join(claimed[:TRESPASS_NAMED_MAX]), "count": len(claimed)})]

    def _refusals(self, metric: Metric | None, *, born: bool) -> list[Fact]:
        """Tell of commands that the node has refused since it last said how many; in a birth, a lower count is a new start."""
        count = _integer(metric)
        if count is None or count < 0 or count == self._commands_refused:
            return []
        fresh = count - self._commands_refused if count > self._commands_refused else count
        if count < self._commands_refused and not born:  # overtaken by a later one
            return []
        self._commands_refused = count
        return [Suspicion("COMMAND", {"refused": fresh, "since_start": count})] if fresh else []

    def _rebirth(self, reason: str, now_ms: int) -> list[Fact]:
        """Ask for a rebirth, or remember the wish if the last was asked for too recently.

        The period doubles while the wishes go on, births in between or not: a node that never learns is not
        asked as fast as the network can carry it. It begins anew after a quiet time.
        """
        self._rebirth_wanted = reason
        after_ms = self._rebirth_after_ms
        if after_ms is not None and now_ms < after_ms:
            return []
        if after_ms is None or now_ms - after_ms >= REBIRTH_MAX_MS:
            self._rebirth_wait_ms = REBIRTH_FIRST_MS
        self._rebirth_after_ms = now_ms + self._rebirth_wait_ms
        self._rebirth_wait_ms = min(2 * self._rebirth_wait_ms, REBIRTH_MAX_MS)
        return [RebirthWanted(reason)]


def _spans(metrics: Mapping[str, Metric], live: int) -> tuple[StreamSpan, ...]:
    """Return the listed streams; the live one is added from its own metrics when the list leaves it out."""
    listed = metrics.get(SPOOL_UNFINISHED)
    spans = () if listed is None or not isinstance(listed.value, DataSet) else tuple(read_unfinished(listed.value))
    if live and all(span.stream != live for span in spans):
        last = _integer(metrics.get(SPOOL_SEQUENCE)) or 0
        predecessor = _integer(metrics.get(SPOOL_PREDECESSOR)) or 0
        spans += (StreamSpan(live, 1, last, predecessor, _integer(metrics.get(SPOOL_PREDECESSOR_LAST)) or 0),)
    return spans


def _integer(metric: Metric | None) -> int | None:
    value = None if metric is None else metric.value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _boolean(metric: Metric | None) -> bool | None:
    value = None if metric is None else metric.value
    return value if isinstance(value, bool) else None


def _text(metric: Metric | None) -> str:
    value = None if metric is None else metric.value
    return value if isinstance(value, str) else ""
