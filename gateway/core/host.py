"""The host's side of a Sparkplug session with one edge node: messages in, facts about the node out.

Pure: no clock, no socket. Values pass through as they came; what they mean for alarms is decided elsewhere. A frame
of ours is handed on at once even past a hole (its own numbers say where it belongs); the messages of a node that
is not ours are put in order within the reorder timeout, as the specification asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire import (
    BDSEQ,
    CLOCK_OFFSET,
    CLOCK_SYNCED,
    CONFIG_HASH,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    DataColumns,
    DataSet,
    MalformedPayloadError,
    MessageKind,
    Metric,
    Payload,
    PayloadLimits,
    SampleBatch,
    StreamSpan,
    Topic,
    WireError,
    decode_data,
    decode_payload,
    read_unfinished,
)

REORDER_TIMEOUT_MS: Final = 2_000
REORDER_MESSAGES_MAX: Final = 64
REBIRTH_FIRST_MS: Final = 5_000
REBIRTH_MAX_MS: Final = 60_000
SEQ_COUNT: Final = 256
ALIAS_TABLE_MAX: Final = 1 << 20  # larger aliases (foreign nodes) go through a dictionary
UNKNOWN_ALIAS: Final = -1
IGNORED_ALIAS: Final = -2  # declared in a birth, but no tag of this site


@dataclass(frozen=True, slots=True)
class NodeBorn:
    """A valid NBIRTH. `live` is 0 for a node that is not ours."""

    live: int
    spans: tuple[StreamSpan, ...]
    config_hash: str
    spool_fault: bool
    clock_offset_ms: int
    clock_synced: bool


@dataclass(frozen=True, slots=True, eq=False)
class FrameArrived:
    """Values of one device in the site's tag order. stream and sequence are 0 without marks."""

    device: str
    stream: int
    sequence: int
    batch: SampleBatch
    historical: bool = False


@dataclass(frozen=True, slots=True)
class BlockArrived:
    """A spool block, still packed."""

    body: bytes


@dataclass(frozen=True, slots=True)
class NodeDied:
    """NDEATH of the current session."""


@dataclass(frozen=True, slots=True)
class DeviceDied:
    """DDEATH."""

    device: str


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A node-level metric of ours changed."""

    name: str
    value: bool | int | str


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be used. `reason` is safe to log."""

    topic: str
    reason: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class RebirthWanted:
    """Ask the node to begin its session's births anew."""

    reason: str


Fact = NodeBorn | FrameArrived | BlockArrived | NodeDied | DeviceDied | NodeFact | Refused | RebirthWanted


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


@dataclass(slots=True)
class _Aliases:
    """Alias to tag index, as one array where the numbers allow it."""

    table: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    large: dict[int, int] = field(default_factory=dict)

    def declare(self, alias: int, tag: int) -> None:
        if alias >= ALIAS_TABLE_MAX:
            self.large[alias] = tag
            return
        if alias >= len(self.table):
            grown = np.full(max(64, 2 * alias), UNKNOWN_ALIAS, np.int32)
            grown[: len(self.table)] = self.table
            self.table = grown
        self.table[alias] = tag

    def tags(self, alias: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the tag index of every alias, UNKNOWN_ALIAS where none was declared."""
        found = np.full(len(alias), UNKNOWN_ALIAS, np.int32)
        small = (alias >= 0) & (alias < len(self.table))
        found[small] = self.table[alias[small]]
        if self.large:
            for row in np.flatnonzero(~small):
                found[row] = self.large.get(int(alias[row]), UNKNOWN_ALIAS)
        return found


class NodeSession:
    """One node's session. Times are milliseconds of a monotonic clock, passed in."""

    def __init__(self, tag_index: Mapping[str, int], limits: PayloadLimits) -> None:
        """`tag_index` holds only the tags this node may report; every other name is ignored."""
        self._tag_index, self._limits = tag_index, limits
        self.online = False
        self.ours = False
        self._bdseq: int | None = None
        self._expected = 0
        self._missing: set[int] = set()
        self._held: dict[int, _Message] = {}
        self._gap_since_ms: int | None = None
        self._aliases = _Aliases()
        self._devices: set[str] = set()
        self._rebirth_wait_ms = REBIRTH_FIRST_MS
        self._rebirth_after_ms: int | None = None

    # -- facts in --

    def message(self, topic: Topic, payload: bytes, now_ms: int) -> list[Fact]:
        """Take one message of this node and return what it tells, in order."""
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
        """Return what time alone brings: a hole that stayed open past the reorder timeout asks for a rebirth."""
        if self._gap_since_ms is None or now_ms - self._gap_since_ms < REORDER_TIMEOUT_MS:
            return []
        facts: list[Fact] = []
        self._gap_since_ms = None
        self._missing.clear()
        held, self._held = self._held, {}
        for seq in sorted(held, key=lambda seq: (seq - self._expected) % SEQ_COUNT):
            self._expected = (seq + 1) % SEQ_COUNT
            facts += self._apply(held[seq], now_ms)
        return [*facts, *self._rebirth("a message is missing", now_ms)]

    def lost(self) -> list[Fact]:
        """Core's own link is gone, or core starts: nothing is known of the node until it is born again."""
        if not self.online:
            return []
        self._forget()
        return [NodeDied()]

    # -- births and deaths --

    def _node_birth(self, payload: bytes) -> list[Fact]:
        birth = decode_payload(payload, self._limits)
        metrics = {metric.name: metric for metric in birth.metrics if metric.name is not None}
        bdseq = _integer(metrics.get(BDSEQ))
        if birth.seq != 0 or bdseq is None:
            raise MalformedPayloadError("NBIRTH without seq 0 or without bdSeq")
        self._forget()
        self.online, self._bdseq, self._expected = True, bdseq, 1
        live = _integer(metrics.get(SPOOL_STREAM)) or 0
        self.ours = live > 0
        self._rebirth_wait_ms, self._rebirth_after_ms = REBIRTH_FIRST_MS, None
        self._declare(birth.metrics)
        born = NodeBorn(
            live=live,
            spans=_spans(metrics, live),
            config_hash=_text(metrics.get(CONFIG_HASH)),
            spool_fault=bool(_boolean(metrics.get(SPOOL_FAULT))),
            clock_offset_ms=_integer(metrics.get(CLOCK_OFFSET)) or 0,
            clock_synced=_boolean(metrics.get(CLOCK_SYNCED)) is not False,
        )
        facts: list[Fact] = [born]
        if not self.ours:
            batch = self._batch(decode_data(payload, self._limits))
            if len(batch):
                facts.append(FrameArrived("", 0, 0, batch))
        return facts

    def _node_death(self, payload: bytes) -> list[Fact]:
        """Only the death whose bdSeq is the birth's ends this session; another one is an old will."""
        death = decode_payload(payload, self._limits)
        bdseq = next((_integer(metric) for metric in death.metrics if metric.name == BDSEQ), None)
        if not self.online or bdseq != self._bdseq:
            return []
        self._forget()
        return [NodeDied()]

    def _forget(self) -> None:
        self.online = False
        self._missing.clear()
        self._held.clear()
        self._gap_since_ms = None
        self._aliases = _Aliases()
        self._devices.clear()

    # -- order --

    def _in_session(self, topic: Topic, payload: bytes, now_ms: int) -> list[Fact]:
        if not self.online:
            return self._rebirth("data before birth", now_ms)
        message = self._decode(topic, payload)
        seq = message.seq
        if seq is None:
            raise MalformedPayloadError("no seq")
        ahead = (seq - self._expected) % SEQ_COUNT
        if ahead == 0:
            self._expected = (seq + 1) % SEQ_COUNT
            return [*self._apply(message, now_ms), *self._release(now_ms)]
        if seq in self._missing:  # arrived out of order, within the timeout
            self._missing.discard(seq)
            if not self._missing:
                self._gap_since_ms = None
            return self._apply(message, now_ms)
        if ahead >= SEQ_COUNT // 2:  # behind us and not missing: a repeat; our frames carry their own numbers
            return self._apply(message, now_ms) if self.ours else []
        if self._gap_since_ms is None:
            self._gap_since_ms = now_ms
        if self.ours:
            self._missing |= {(self._expected + step) % SEQ_COUNT for step in range(ahead)}
            self._expected = (seq + 1) % SEQ_COUNT
            return self._apply(message, now_ms)
        if len(self._held) < REORDER_MESSAGES_MAX:
            self._held[seq] = message
        return []

    def _decode(self, topic: Topic, payload: bytes) -> _Message:
        if topic.kind in (MessageKind.DBIRTH, MessageKind.DDEATH):
            return _Message(topic, payload, decode_payload(payload, self._limits), None)
        return _Message(topic, payload, None, decode_data(payload, self._limits))

    def _release(self, now_ms: int) -> list[Fact]:
        """Hand on what was held back behind the message that just came."""
        facts: list[Fact] = []
        while self._expected in self._held:
            message = self._held.pop(self._expected)
            self._expected = (self._expected + 1) % SEQ_COUNT
            facts += self._apply(message, now_ms)
        if not self._held and not self._missing:
            self._gap_since_ms = None
        return facts

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
            if metric.alias is not None and metric.name is not None:
                self._aliases.declare(metric.alias, self._tag_index.get(metric.name, IGNORED_ALIAS))

    def _frame(self, device: str, columns: DataColumns, message: _Message, now_ms: int) -> list[Fact]:
        facts: list[Fact] = []
        for metric in columns.others:
            if metric.name == SPOOL_BLOCK and isinstance(metric.value, bytes):
                facts.append(BlockArrived(metric.value))
            elif metric.name in (SPOOL_FAULT, CLOCK_SYNCED) and isinstance(metric.value, bool):
                facts.append(NodeFact(metric.name, metric.value))
        tag = self._tags(columns)
        if bool((tag == UNKNOWN_ALIAS).any()):
            refused = Refused(str(message.topic), "unknown alias", message.payload)
            return [*facts, refused, *self._rebirth("unknown alias", now_ms)]
        known = tag >= 0
        marked = columns.stream > 0 and columns.sequence > 0
        for historical in (False, True):
            rows = known & (columns.historical == historical)
            if rows.any() or (marked and not historical):
                batch = SampleBatch(
                    tag[rows], columns.value[rows], columns.code[rows], columns.source_ms[rows]
                )
                facts.append(FrameArrived(device, columns.stream, columns.sequence, batch, historical))
        return facts

    def _batch(self, columns: DataColumns) -> SampleBatch:
        tag = self._tags(columns)
        rows = tag >= 0
        return SampleBatch(tag[rows], columns.value[rows], columns.code[rows], columns.source_ms[rows])

    def _tags(self, columns: DataColumns) -> NDArray[np.int32]:
        """Return the tag index of every row: by alias where the row has one, else by name."""
        tag = self._aliases.tags(columns.alias)
        for row in np.flatnonzero(columns.alias < 0):
            tag[row] = self._tag_index.get(columns.names[row] or "", IGNORED_ALIAS)
        return tag

    def _rebirth(self, reason: str, now_ms: int) -> list[Fact]:
        """Ask for a rebirth, at most once a period that doubles while it goes unanswered."""
        if self._rebirth_after_ms is not None and now_ms < self._rebirth_after_ms:
            return []
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
