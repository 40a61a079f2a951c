"""Commands to an edge node, and the two tables of streams: what a node still holds, what the gateway has.

An edge of ours obeys exactly two commands, neither of which can touch the plant: send your births again, and
forget what is committed. Everything else in a command is named back to the caller as refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wire.datatypes import DataType
from wire.errors import MalformedPayloadError, OversizePayloadError
from wire.names import ACKNOWLEDGE_ROWS_MAX, REBIRTH, SPOOL_ACKNOWLEDGE, UNFINISHED_ROWS_MAX
from wire.payload import (
    PAYLOAD_LIMITS,
    DataSet,
    Metric,
    PayloadLimits,
    decode_payload,
    encode_payload,
)
from wire.streams import NUMBER_MAX, StreamSpan

ACKNOWLEDGE_COLUMNS: Final = ("stream", "upto")
UNFINISHED_COLUMNS: Final = ("stream", "first", "last", "predecessor", "predecessor_last")


@dataclass(frozen=True, slots=True)
class Command:
    """A decoded NCMD.

    Attributes:
        timestamp_ms: when the host sent it, UTC epoch milliseconds; a clockless edge takes UTC from it.
        rebirth: send NBIRTH and all DBIRTHs again.
        acknowledged: (stream, highest number up to which all is committed) pairs.
        refused: names (or `alias N`) of what else was asked for.
    """

    timestamp_ms: int
    rebirth: bool
    acknowledged: tuple[tuple[int, int], ...]
    refused: tuple[str, ...]


def encode_acknowledge(timestamp_ms: int, positions: Sequence[tuple[int, int]]) -> bytes:
    """Return an NCMD that says: of each of these streams all up to this number is committed.

    Raises:
        OversizePayloadError: more than `ACKNOWLEDGE_ROWS_MAX` streams; send several commands.
        MalformedPayloadError: a stream id or number out of range.
    """
    if len(positions) > ACKNOWLEDGE_ROWS_MAX:
        raise OversizePayloadError("acknowledged streams", len(positions), ACKNOWLEDGE_ROWS_MAX)
    for stream, upto in positions:
        if not 0 < stream <= NUMBER_MAX or not 0 <= upto <= NUMBER_MAX:
            raise MalformedPayloadError(f"stream {stream} up to {upto} cannot be acknowledged")
    return encode_payload(timestamp_ms, None, (acknowledge_metric(timestamp_ms, positions),))


def acknowledge_metric(timestamp_ms: int, positions: Sequence[tuple[int, int]] = ()) -> Metric:
    """Return `Spool/Acknowledge`; without positions as births declare it.

    An empty table and not null: widespread decoders refuse a whole birth for one data set that is null.
    """
    table = DataSet(ACKNOWLEDGE_COLUMNS, (DataType.INT64,) * len(ACKNOWLEDGE_COLUMNS), tuple(positions))
    return Metric(SPOOL_ACKNOWLEDGE, timestamp_ms=timestamp_ms, datatype=DataType.DATASET, value=table)


def encode_rebirth(timestamp_ms: int) -> bytes:
    """Return an NCMD that asks a node for its births."""
    metric = Metric(REBIRTH, timestamp_ms=timestamp_ms, datatype=DataType.BOOLEAN, value=True)
    return encode_payload(timestamp_ms, None, (metric,))


def decode_command(payload: bytes, limits: PayloadLimits = PAYLOAD_LIMITS) -> Command:
    """Read an NCMD or DCMD.

    Raises:
        MalformedPayloadError: as `decode_payload`; also no timestamp, or a command of ours of another shape.
        OversizePayloadError: over a cap, or more than `ACKNOWLEDGE_ROWS_MAX` streams.
    """
    decoded = decode_payload(payload, limits)
    if decoded.timestamp_ms is None:
        raise MalformedPayloadError("a command without timestamp")
    rebirth = False
    acknowledged: list[tuple[int, int]] = []
    refused: list[str] = []
    for metric in decoded.metrics:
        if metric.name == REBIRTH:
            if type(metric.value) is not bool:
                raise MalformedPayloadError("a rebirth request is not a Boolean")
            rebirth = rebirth or metric.value
        elif metric.name == SPOOL_ACKNOWLEDGE:
            acknowledged += _positions(metric.value)
        else:
            refused.append(metric.name if metric.name is not None else f"alias {metric.alias}")
    if len(acknowledged) > ACKNOWLEDGE_ROWS_MAX:
        raise OversizePayloadError("acknowledged streams", len(acknowledged), ACKNOWLEDGE_ROWS_MAX)
    return Command(decoded.timestamp_ms, rebirth, tuple(acknowledged), tuple(refused))


def unfinished_table(spans: Sequence[StreamSpan]) -> DataSet:
    """Return the streams a node still holds, oldest first, as the data set its births carry.

    Raises:
        OversizePayloadError: more than `UNFINISHED_ROWS_MAX`; a birth lists the oldest that many.
    """
    if len(spans) > UNFINISHED_ROWS_MAX:
        raise OversizePayloadError("unfinished streams", len(spans), UNFINISHED_ROWS_MAX)
    return DataSet(
        UNFINISHED_COLUMNS, (DataType.INT64,) * len(UNFINISHED_COLUMNS),
        tuple([(span.stream, span.first, span.last, span.predecessor, span.predecessor_last)
               for span in spans]),
    )


def read_unfinished(value: object) -> tuple[StreamSpan, ...]:
    """Read back what `unfinished_table` wrote, from a metric's value.

    Raises:
        MalformedPayloadError: not that table, or a row that cannot be true of a stream.
        OversizePayloadError: more than `UNFINISHED_ROWS_MAX` rows.
    """
    spans: list[StreamSpan] = []
    seen: set[int] = set()
    for row in _rows(value, UNFINISHED_COLUMNS, UNFINISHED_ROWS_MAX):
        stream, first, last, predecessor, predecessor_last = row
        if min(stream, first) < 1 or min(last, predecessor, predecessor_last) < 0 or first > last + 1 \
                or stream == predecessor or stream in seen:
            raise MalformedPayloadError("a row of unfinished streams contradicts itself")
        seen.add(stream)
        spans.append(StreamSpan(stream, first, last, predecessor, predecessor_last))
    return tuple(spans)


def _positions(value: object) -> list[tuple[int, int]]:
    positions: list[tuple[int, int]] = []
    for stream, upto in _rows(value, ACKNOWLEDGE_COLUMNS, ACKNOWLEDGE_ROWS_MAX):
        if stream < 1 or upto < 0:
            raise MalformedPayloadError("an acknowledged stream or number is out of range")
        positions.append((stream, upto))
    return positions


def _rows(value: object, columns: tuple[str, ...], rows_max: int) -> list[list[int]]:
    """Return the rows of a table of Int64 columns with exactly these names."""
    if not isinstance(value, DataSet) or value.columns != columns \
            or any(datatype is not DataType.INT64 for datatype in value.types):
        raise MalformedPayloadError(f"not a table of {', '.join(columns)}")
    if len(value.rows) > rows_max:
        raise OversizePayloadError("rows", len(value.rows), rows_max)
    rows: list[list[int]] = []
    for row in value.rows:
        cells = [cell for cell in row if type(cell) is int]
        if len(cells) != len(columns):
            raise MalformedPayloadError("a cell of a stream table is null")
        rows.append(cells)
    return rows
