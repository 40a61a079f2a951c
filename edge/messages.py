"""The Sparkplug messages of one edge node, as topics and bytes.

Pure: what is said comes in, nothing is remembered here but who says it. When to say it is `session`'s
business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.blocks import BlockCutter
from edge.entries import Chain
from edge.numbering import NumberedFrame
from edge.points import ALIAS_OF_FIRST_POINT, PointTable
from edge.spool_file import JournalFrames
from wire import (
    BDSEQ,
    CLOCK_OFFSET,
    CLOCK_SYNCED,
    COMMANDS_REFUSED,
    CONFIG_HASH,
    EDGE_VERSION,
    NAMESPACE,
    REBIRTH,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    TRANSPORT_BLOCKED,
    UNFINISHED_ROWS_MAX,
    DataType,
    MessageKind,
    Metric,
    StreamSpan,
    Topic,
    acknowledge_metric,
    build_topic,
    encode_data,
    encode_payload,
    sample_metric,
    state_topic,
    unfinished_table,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the edge node is and what its births say of it.

    Attributes:
        group, node: Sparkplug ids (the site's and the edge's).
        host_id: the primary host whose STATE decides about sessions.
        config_hash: hash of the edge's file; the gateway compares.
        version: of this program.
        receipt: whether a gateway must be there and acknowledge; without, the node is plain Sparkplug.
        blocks: send live frames as blocks, for a metered link.
    """

    group: str
    node: str
    host_id: str
    config_hash: str = ""
    version: str = ""
    receipt: bool = True
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What an NBIRTH says about the present.

    Attributes:
        stream, last, predecessor, predecessor_last: the stream that live frames are in, as numbering has it.
        unfinished: what the spool holds, oldest first.
        spool_fault: frames cannot be taken.
        clock_synced, clock_offset_ms: whether stamps are UTC, and by how much the box's clock was corrected.
        transport_blocked: frames were published for some time, and no acknowledgement came.
        commands_refused: commands since the start that asked for what this node does not do.
    """

    stream: int
    last: int
    predecessor: int
    predecessor_last: int
    unfinished: Sequence[StreamSpan]
    spool_fault: bool
    clock_synced: bool
    clock_offset_ms: int
    transport_blocked: bool = False
    commands_refused: int = 0


class Messages:
    """Builds every message the node sends."""

    def __init__(self, identity: Identity, table: PointTable) -> None:
        self._identity, self._table = identity, table
        self._cutter = BlockCutter(identity.node)
        group, node = identity.group, identity.node
        self._node_topic = {kind: build_topic(Topic(kind, group, node)) for kind in MessageKind if not kind.of_device}
        self._device_commands = f"{NAMESPACE}/{group}/{MessageKind.DCMD}/{node}/"
        self._birth_topic = [build_topic(Topic(MessageKind.DBIRTH, group, node, device)) for device in table.devices]
        self._data_topic = [build_topic(Topic(MessageKind.DDATA, group, node, device)) for device in table.devices]

    @property
    def command_topic(self) -> str:
        """Where the host's commands to this node arrive."""
        return self._node_topic[MessageKind.NCMD]

    @property
    def device_command_filter(self) -> str:
        """Covers commands to this node's devices: none is obeyed, each is refused aloud."""
        return f"{self._device_commands}+"

    def is_device_command(self, topic: str) -> bool:
        """Tell whether a topic is that of a command to a device of this node."""
        return topic.startswith(self._device_commands)

    @property
    def state_topic(self) -> str:
        """Where the primary host says whether it is there."""
        return state_topic(self._identity.host_id)

    def death(self, bdseq: int, now_ms: int) -> tuple[str, bytes]:
        """NDEATH: the will, and what precedes a planned goodbye."""
        return self._node_topic[MessageKind.NDEATH], encode_payload(now_ms, None, (_bdseq(bdseq, now_ms),))

    def node_birth(self, bdseq: int, facts: NodeFacts, now_ms: int) -> tuple[str, bytes]:
        """NBIRTH, sequence number 0. Lists the oldest unfinished streams, as many as a birth may."""
        table = unfinished_table(facts.unfinished[:UNFINISHED_ROWS_MAX])
        metrics = (
            _bdseq(bdseq, now_ms),
            Metric(REBIRTH, timestamp_ms=now_ms, datatype=DataType.BOOLEAN, value=False),
            *(
                (
                    _int64(SPOOL_STREAM, facts.stream, now_ms),
                    _int64(SPOOL_SEQUENCE, facts.last, now_ms),
                    _int64(SPOOL_PREDECESSOR, facts.predecessor, now_ms),
                    _int64(SPOOL_PREDECESSOR_LAST, facts.predecessor_last, now_ms),
                    Metric(SPOOL_UNFINISHED, timestamp_ms=now_ms, datatype=DataType.DATASET, value=table),
                    acknowledge_metric(now_ms),
                    Metric(SPOOL_BLOCK, timestamp_ms=now_ms, datatype=DataType.BYTES, is_null=True),
                    _flag(SPOOL_FAULT, facts.spool_fault, now_ms),
                    _flag(TRANSPORT_BLOCKED, facts.transport_blocked, now_ms),
                )
                if self._identity.receipt
                else ()
            ),
            _text(CONFIG_HASH, self._identity.config_hash, now_ms),
            _text(EDGE_VERSION, self._identity.version, now_ms),
            _int64(COMMANDS_REFUSED, facts.commands_refused, now_ms),
            *_clock(facts.clock_synced, facts.clock_offset_ms, now_ms),
        )
        return self._node_topic[MessageKind.NBIRTH], encode_payload(now_ms, 0, metrics)

    def device_birth(self, frame: NumberedFrame, seq: int, now_ms: int) -> tuple[str, bytes]:
        """DBIRTH: a frame that holds every point of its device, oldest value first."""
        frame = _oldest_first(frame)
        metrics = [
            sample_metric(self._table.points[point].tag, point + ALIAS_OF_FIRST_POINT, source_ms, value, code)
            for point, source_ms, value, code in zip(
                frame.point.tolist(), frame.source_ms.tolist(), frame.value.tolist(), frame.code.tolist(), strict=True
            )
        ]
        if frame.stream:
            metrics += [_int64(SPOOL_STREAM, frame.stream, now_ms), _int64(SPOOL_SEQUENCE, frame.sequence, now_ms)]
        return self._birth_topic[frame.device], encode_payload(now_ms, seq, metrics)

    def device_frame(self, frame: NumberedFrame, seq: int, now_ms: int) -> tuple[str, bytes]:
        """DDATA: a frame by aliases, oldest value first; marked unless its stream is 0. As a block in NDATA if so configured."""
        if self._identity.blocks and frame.stream:
            return self.block(self._as_block(frame), seq, now_ms)
        frame = _oldest_first(frame)
        payload = encode_data(
            now_ms,
            seq,
            frame.stream,
            frame.sequence,
            frame.point.astype(np.int64) + ALIAS_OF_FIRST_POINT,
            frame.value,
            frame.code,
            frame.source_ms,
        )
        return self._data_topic[frame.device], payload

    def block(self, block: bytes, seq: int, now_ms: int) -> tuple[str, bytes]:
        """NDATA with one spool block."""
        metric = Metric(SPOOL_BLOCK, timestamp_ms=now_ms, datatype=DataType.BYTES, value=block)
        return self._node_topic[MessageKind.NDATA], encode_payload(now_ms, seq, (metric,))

    def spool_state(self, fault: bool, seq: int, now_ms: int) -> tuple[str, bytes]:
        """NDATA that says whether frames can be taken."""
        return self._node_topic[MessageKind.NDATA], encode_payload(now_ms, seq, (_flag(SPOOL_FAULT, fault, now_ms),))

    def clock_state(self, synced: bool, offset_ms: int, seq: int, now_ms: int) -> tuple[str, bytes]:
        """NDATA that says how far the node's stamps can be trusted."""
        return self._node_topic[MessageKind.NDATA], encode_payload(now_ms, seq, _clock(synced, offset_ms, now_ms))

    def transport_state(self, blocked: bool, seq: int, now_ms: int) -> tuple[str, bytes]:
        """NDATA that says whether acknowledgements fail to come."""
        return self._node_topic[MessageKind.NDATA], encode_payload(now_ms, seq, (_flag(TRANSPORT_BLOCKED, blocked, now_ms),))

    def refusals(self, count: int, seq: int, now_ms: int) -> tuple[str, bytes]:
        """NDATA that says how many commands were refused since the start."""
        return self._node_topic[MessageKind.NDATA], encode_payload(now_ms, seq, (_int64(COMMANDS_REFUSED, count, now_ms),))

    def _as_block(self, frame: NumberedFrame) -> bytes:
        rows = len(frame)
        frames = JournalFrames(
            np.full(rows, frame.sequence, np.int64),
            frame.point,
            frame.bits,
            frame.code,
            frame.source_ms,
            np.array([rows], np.uint32),
        )
        chain = Chain(frame.stream, frame.predecessor, frame.predecessor_last)
        return next(self._cutter.cut(chain, self._table, frames, frame.sequence, frame.sequence)).payload


def _oldest_first(frame: NumberedFrame) -> NumberedFrame:
    """Return the frame with its rows in the order of their stamps, as the specification wants values that are not historical.

    A device that is read in several requests answers in another order than its points stand in the configuration.
    """
    if bool((frame.source_ms[1:] >= frame.source_ms[:-1]).all()):
        return frame
    order = np.argsort(frame.source_ms, kind="stable")
    return replace(
        frame,
        point=frame.point[order],
        bits=frame.bits[order],
        value=frame.value[order],
        code=frame.code[order],
        source_ms=frame.source_ms[order],
    )


def _bdseq(bdseq: int, now_ms: int) -> Metric:
    return _int64(BDSEQ, bdseq, now_ms)


def _int64(name: str, value: int, now_ms: int) -> Metric:
    return Metric(name, timestamp_ms=now_ms, datatype=DataType.INT64, value=value)


def _flag(name: str, value: bool, now_ms: int) -> Metric:
    return Metric(name, timestamp_ms=now_ms, datatype=DataType.BOOLEAN, value=value)


def _text(name: str, value: str, now_ms: int) -> Metric:
    return Metric(name, timestamp_ms=now_ms, datatype=DataType.STRING, value=value)


def _clock(synced: bool, offset_ms: int, now_ms: int) -> tuple[Metric, Metric]:
    return _flag(CLOCK_SYNCED, synced, now_ms), _int64(CLOCK_OFFSET, offset_ms, now_ms)
