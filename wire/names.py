"""The metric names that both ends agree on, and the caps of what they carry.

Names outside `Spool/` and `Edge/` are Sparkplug's own (chapter 6 of the 3.0 specification); the rest are
ordinary metrics of ours, declared in every NBIRTH, that any other Sparkplug host may show or ignore.
"""

from __future__ import annotations

from typing import Final

BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"

SPOOL_PREFIX: Final = "Spool/"
SPOOL_STREAM: Final = "Spool/Stream"  # Int64
SPOOL_SEQUENCE: Final = "Spool/Sequence"  # Int64
SPOOL_PREDECESSOR: Final = "Spool/Predecessor"  # Int64
SPOOL_PREDECESSOR_LAST: Final = "Spool/Predecessor Last"  # Int64
SPOOL_UNFINISHED: Final = "Spool/Unfinished"  # DataSet: stream, first, last, predecessor, predecessor_last
SPOOL_ACKNOWLEDGE: Final = "Spool/Acknowledge"  # DataSet: stream, upto
SPOOL_BLOCK: Final = "Spool/Block"  # Bytes

CONFIG_HASH: Final = "Edge/Config Hash"  # String
EDGE_VERSION: Final = "Edge/Version"  # String
SPOOL_FAULT: Final = "Edge/Spool Fault"  # Boolean
CLOCK_OFFSET: Final = "Edge/Clock Offset"  # Int64, milliseconds
CLOCK_SYNCED: Final = "Edge/Clock Synced"  # Boolean
TRANSPORT_BLOCKED: Final = "Edge/Transport Blocked"  # Boolean: frames go out, no acknowledgement comes
COMMANDS_REFUSED: Final = "Edge/Commands Refused"  # Int64: since the edge's start

QUALITY_PROPERTY: Final = "Quality"  # Int32: 0, 192 or 500, as the specification demands
QUALITY_DETAIL_PROPERTY: Final = "QualityDetail"  # Int32: our own quality code, where 0 says too little

UNFINISHED_ROWS_MAX: Final = 256
ACKNOWLEDGE_ROWS_MAX: Final = 64
BLOCK_BYTES_MAX: Final = 128 * 1024
