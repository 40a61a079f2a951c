"""What a spool file looks like: checksummed records, each saying which frames of which stream it holds.

A journal file begins with a schema record (the points, so that the file can be read without the edge's own file)
and a checkpoint, then takes one journal record per stream and sync. A block file holds the wire blocks that the
unacknowledged part of one journal file was rewritten into. Nothing here decides what is kept; that is `spool`.

    record   header (80 bytes, little-endian) + body
    header   magic 4s, kind u8, version u8, spare u16, body length u32, body checksum u32, stream u64, first u64,
             last u64, predecessor u64, predecessor's last u64, samples u32, spare u64, header checksum u32
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError
from edge.numbering import NumberedFrame
from edge.points import PointTable

MAGIC: Final = b"HGSR"
VERSION: Final = 1
RECORD_BYTES_MAX: Final = 64 * 1024 * 1024
_FIELDS: Final = Struct("<4sBBHIIQQQQQIQ")
_CHECKSUM: Final = Struct("<I")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size
_COUNTS: Final = Struct("<II")


class Kind(IntEnum):
    """What a record's body holds."""

    SCHEMA = 1
    JOURNAL = 2
    BLOCK = 3
    DROPPED = 4
    CHECKPOINT = 5


class SpoolFormatError(EdgeError):
    """A spool file of a format this program does not know: another version wrote it."""

    def __init__(self, name: str, version: int) -> None:
        self.name, self.version, self.known = name, version, VERSION
        super().__init__(
            f"{name}: spool format {version}, this program reads {VERSION}; start the version that "
            "wrote it until its backlog is delivered, or move the spool folder aside"
        )


class BadRecordError(EdgeError):
    """Bytes that are not a whole, unchanged record. Expected after a power cut: the file is cut there."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset, self.reason = offset, reason
        super().__init__(f"bad record at byte {offset}: {reason}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record's header, and where its body lies in the file."""

    kind: Kind
    stream: int
    first: int
    last: int
    predecessor: int
    predecessor_last: int
    samples: int
    body_offset: int
    body_length: int
    body_checksum: int

    @property
    def end(self) -> int:
        """Offset of the byte after the record."""
        return self.body_offset + self.body_length


@dataclass(frozen=True, slots=True, eq=False)
class JournalFrames:
    """The frames of one journal record in columns.

    `sequence`, `point`, `bits`, `code` and `source_ms` have a row per sample, in frame order; `rows` holds how many
    samples each frame has.
    """

    sequence: NDArray[np.int64]
    point: NDArray[np.int32]
    bits: NDArray[np.uint64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    rows: NDArray[np.uint32]


def pack_record(
    kind: Kind,
    body: bytes,
    *,
    stream: int = 0,
    first: int = 0,
    last: int = 0,
    predecessor: int = 0,
    predecessor_last: int = 0,
    samples: int = 0,
) -> bytes:
    """Return header and body of one record."""
    fields = _FIELDS.pack(
        MAGIC,
        kind,
        VERSION,
        0,
        len(body),
        zlib.crc32(body),
        stream,
        first,
        last,
        predecessor,
        predecessor_last,
        samples,
        0,
    )
    return fields + _CHECKSUM.pack(zlib.crc32(fields)) + body


def unpack_header(content: bytes | memoryview, base: int, name: str) -> Record:
    """Read the header that `content` begins with; it lies at offset `base` of the file `name`.

    Raises:
        BadRecordError: torn, changed, or not a record at all.
        SpoolFormatError: a whole record of another format version.
    """
    if len(content) < HEADER_BYTES:
        raise BadRecordError(base, "the file ends inside a header")
    fields = bytes(content[: _FIELDS.size])
    (checksum,) = _CHECKSUM.unpack_from(content, _FIELDS.size)
    if zlib.crc32(fields) != checksum:
        raise BadRecordError(base, "header checksum")
    (
        magic,
        kind,
        version,
        _,
        length,
        body_checksum,
        stream,
        first,
        last,
        predecessor,
        predecessor_last,
        samples,
        _,
    ) = _FIELDS.unpack(fields)
    if magic != MAGIC:
        raise BadRecordError(base, "no record begins here")
    if version != VERSION or kind not in _KINDS:
        raise SpoolFormatError(name, version)
    if length > RECORD_BYTES_MAX:
        raise BadRecordError(base, "length over the cap")
    return Record(
        Kind(kind),
        stream,
        first,
        last,
        predecessor,
        predecessor_last,
        samples,
        base + HEADER_BYTES,
        length,
        body_checksum,
    )


def checked_body(record: Record, body: bytes) -> bytes:
    """Return the body if it is whole and unchanged.

    Raises:
        BadRecordError: it is not.
    """
    if len(body) < record.body_length:
        raise BadRecordError(record.body_offset, "the file ends inside a record")
    if zlib.crc32(body) != record.body_checksum:
        raise BadRecordError(record.body_offset, "body checksum")
    return body


def walk(content: bytes, name: str, *, past_damage: bool = False) -> Iterator[tuple[Record, memoryview | None]]:
    """Yield every record of a whole file with its checked body.

    Args:
        content: the file.
        name: of the file, for messages.
        past_damage: of a record whose header is sound and whose body is not, yield None for the body and go on.
            Only for files that were synced before they got their name: elsewhere it is a torn tail.

    Raises:
        BadRecordError: at the first record that is torn or changed; everything yielded before it is sound.
    """
    view, offset = memoryview(content), 0
    while offset < len(view):
        record = unpack_header(view[offset : offset + HEADER_BYTES], offset, name)
        body = view[record.body_offset : record.end]
        if len(body) < record.body_length:
            raise BadRecordError(offset, "the file ends inside a record")
        sound = zlib.crc32(body) == record.body_checksum
        if not sound and not past_damage:
            raise BadRecordError(offset, "body checksum")
        yield record, body if sound else None
        offset = record.end


def pack_frames(frames: Sequence[NumberedFrame]) -> bytes:
    """Return the journal record of frames that follow each other in one stream."""
    rows = np.array([len(frame) for frame in frames], np.uint32)
    columns = (
        rows,
        np.concatenate([frame.point for frame in frames]).astype("<i4", copy=False),
        np.concatenate([frame.bits for frame in frames]).astype("<u8", copy=False),
        np.concatenate([frame.code for frame in frames]),
        np.concatenate([frame.source_ms for frame in frames]).astype("<i8", copy=False),
    )
    samples = int(rows.sum())
    body = _COUNTS.pack(len(frames), samples) + b"".join(column.tobytes() for column in columns)
    head, tail = frames[0], frames[-1]
    return pack_record(
        Kind.JOURNAL,
        body,
        stream=head.stream,
        first=head.sequence,
        last=tail.sequence,
        predecessor=head.predecessor,
        predecessor_last=head.predecessor_last,
        samples=samples,
    )


def unpack_frames(record: Record, body: bytes | memoryview) -> JournalFrames:
    """Read back what `pack_frames` wrote.

    Raises:
        BadRecordError: the columns do not fill the body, though its checksum held.
    """
    frames, samples = _COUNTS.unpack_from(body)
    if frames != record.last - record.first + 1 or len(body) != _COUNTS.size + 4 * frames + 21 * samples:
        raise BadRecordError(record.body_offset, "columns do not fill the record")
    offset = _COUNTS.size
    columns = []
    for dtype, count in (
        ("<u4", frames),
        ("<i4", samples),
        ("<u8", samples),
        ("u1", samples),
        ("<i8", samples),
    ):
        columns.append(np.frombuffer(body, dtype, count, offset))
        offset += columns[-1].nbytes
    rows, point, bits, code, source_ms = columns
    if int(rows.sum()) != samples:
        raise BadRecordError(record.body_offset, "frames and samples do not add up")
    sequence = np.repeat(np.arange(record.first, record.last + 1, dtype=np.int64), rows)
    return JournalFrames(
        sequence,
        point.astype(np.int32),
        bits.astype(np.uint64),
        code.astype(np.uint8),
        source_ms.astype(np.int64),
        rows.astype(np.uint32),
    )


def pack_schema(node: str, table: PointTable) -> bytes:
    """Return the record that makes a file readable by itself."""
    schema = {"node": node, **table.as_json()}
    return pack_record(Kind.SCHEMA, zlib.compress(json.dumps(schema, ensure_ascii=False).encode()))


def unpack_schema(body: bytes | memoryview, cap: int = RECORD_BYTES_MAX) -> tuple[str, PointTable]:
    """Read back what `pack_schema` wrote: the node and its points."""
    schema = json.loads(zlib.decompressobj().decompress(bytes(body), cap))
    return schema["node"], PointTable.from_json(schema)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What has been acknowledged, and the figures that must survive a restart.

    Attributes:
        acked: (stream, highest number up to which all is acknowledged); a checkpoint overrules earlier ones only
            for the streams it names.
        newest: id, last number, predecessor and predecessor's last of the newest stream; zeros if none.
        samples_acked, frames_acked: samples and frames synced and acknowledged since the spool was made.
        samples_dropped, frames_dropped: given up for want of room, each range a record in its stream.
    """

    acked: tuple[tuple[int, int], ...] = ()
    newest: tuple[int, int, int, int] = (0, 0, 0, 0)
    samples_acked: int = 0
    frames_acked: int = 0
    samples_dropped: int = 0
    frames_dropped: int = 0


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the record of a checkpoint."""
    fields = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
    return pack_record(Kind.CHECKPOINT, json.dumps(fields, separators=(",", ":")).encode())


def unpack_checkpoint(body: bytes | memoryview) -> Checkpoint:
    """Read back what `pack_checkpoint` wrote."""
    fields = json.loads(bytes(body))
    fields["acked"] = tuple((int(stream), int(upto)) for stream, upto in fields["acked"])
    fields["newest"] = tuple(int(number) for number in fields["newest"])
    return Checkpoint(**fields)


_KINDS: Final = frozenset(Kind)
