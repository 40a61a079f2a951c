"""What crosses the network between an edge and the gateway: samples, streams, payloads, topics, links.

The only package both ends share. It decides nothing about alarms and stores nothing.
"""

from wire.batch import Frame, SampleBatch
from wire.errors import (
    IntervalsFullError,
    MalformedPayloadError,
    MalformedReceivedError,
    MalformedStateError,
    MalformedTopicError,
    OversizePayloadError,
    ShapeMismatchError,
    WireError,
)
from wire.names import (
    ACKNOWLEDGE_ROWS_MAX,
    BDSEQ,
    BLOCK_BYTES_MAX,
    CLOCK_OFFSET,
    CLOCK_SYNCED,
    CONFIG_HASH,
    EDGE_VERSION,
    QUALITY_DETAIL_PROPERTY,
    QUALITY_PROPERTY,
    REBIRTH,
    SPOOL_ACKNOWLEDGE,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_PREFIX,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    UNFINISHED_ROWS_MAX,
)
from wire.quality import (
    Language,
    Quality,
    Reason,
    describe,
    is_quality_code,
    quality_code,
    quality_of,
    reason_of,
)
from wire.streams import INTERVALS_MAX, Received, StreamSpan, new_stream_id

__all__ = [
    "ACKNOWLEDGE_ROWS_MAX",
    "BDSEQ",
    "BLOCK_BYTES_MAX",
    "CLOCK_OFFSET",
    "CLOCK_SYNCED",
    "CONFIG_HASH",
    "EDGE_VERSION",
    "INTERVALS_MAX",
    "QUALITY_DETAIL_PROPERTY",
    "QUALITY_PROPERTY",
    "REBIRTH",
    "SPOOL_ACKNOWLEDGE",
    "SPOOL_BLOCK",
    "SPOOL_FAULT",
    "SPOOL_PREDECESSOR",
    "SPOOL_PREDECESSOR_LAST",
    "SPOOL_PREFIX",
    "SPOOL_SEQUENCE",
    "SPOOL_STREAM",
    "SPOOL_UNFINISHED",
    "UNFINISHED_ROWS_MAX",
    "Frame",
    "IntervalsFullError",
    "Language",
    "MalformedPayloadError",
    "MalformedReceivedError",
    "MalformedStateError",
    "MalformedTopicError",
    "OversizePayloadError",
    "Quality",
    "Reason",
    "Received",
    "SampleBatch",
    "ShapeMismatchError",
    "StreamSpan",
    "WireError",
    "describe",
    "is_quality_code",
    "new_stream_id",
    "quality_code",
    "quality_of",
    "reason_of",
]

# Spool blocks and the MQTT link.
__all__ += []
