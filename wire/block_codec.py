"""Spool blocks as bytes: strict both ways, small, and safe to read whoever wrote them.

    "HGSB"  version  method  checksum[8]  body bytes[4]  body (stored, or zlib)

The checksum (BLAKE2b) covers every other byte of the block. The body lists devices with their frame numbers,
*clocks* (the times of a device's frames as seen by one group of tags: tags read in one request share theirs),
then the columns. A column that has a sample in each frame of its device and one quality throughout costs its
name, its type and its register bits, nothing more. Limits are checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

from wire.block import BlockTooLargeError, CorruptBlockError, SpoolBlock
from wire.block_reader import unpack
from wire.block_writer import pack
from wire.names import BLOCK_BYTES_MAX

MAGIC: Final = b"HGSB"
VERSION: Final = 1
HEADER_BYTES: Final = 18
BODY_BYTES_MAX: Final = 2 * 1024 * 1024
BODY_RATIO_MAX: Final = 20  # body bytes per byte on the wire; a block that would shrink more is stored

_STORED, _ZLIB = 0, 1


def encode_block(block: SpoolBlock) -> bytes:
    """Return the block as at most `BLOCK_BYTES_MAX` bytes.

    Raises:
        BlockTooLargeError: it does not fit, in bytes or by a count; nothing is cut off silently.
        InvalidBlockError: a column is out of order, two columns share a tag, a frame has two devices …
    """
    body = pack(block)
    if len(body) > BODY_BYTES_MAX:
        raise BlockTooLargeError("bytes before compression", len(body), BODY_BYTES_MAX)
    method, packed = _ZLIB, zlib.compress(body, 6)
    if len(packed) >= len(body) or len(body) > BODY_RATIO_MAX * len(packed):
        method, packed = _STORED, body
    size = HEADER_BYTES + len(packed)
    if size > BLOCK_BYTES_MAX:
        raise BlockTooLargeError("bytes", size, BLOCK_BYTES_MAX)
    head, tail = MAGIC + bytes((VERSION, method)), len(body).to_bytes(4, "little") + packed
    return head + _checksum(head, tail) + tail


def decode_block(encoded: bytes) -> SpoolBlock:
    """Return the block that these bytes hold.

    Raises:
        CorruptBlockError: for whatever is wrong with them, and no other error.
    """
    if not HEADER_BYTES <= len(encoded) <= BLOCK_BYTES_MAX:
        raise CorruptBlockError(f"{len(encoded)} bytes, expected {HEADER_BYTES} to {BLOCK_BYTES_MAX}")
    if encoded[:4] != MAGIC:
        raise CorruptBlockError("does not begin as a spool block")
    if _checksum(encoded[:6], encoded[14:]) != encoded[6:14]:
        raise CorruptBlockError("checksum differs")
    if encoded[4] != VERSION:
        raise CorruptBlockError(f"format version {encoded[4]}, but this reader knows {VERSION}: update it")
    return unpack(_inflate(encoded[5], int.from_bytes(encoded[14:18], "little"), encoded[HEADER_BYTES:]))


def _checksum(head: bytes, tail: bytes) -> bytes:
    digest = hashlib.blake2b(head, digest_size=8)
    digest.update(tail)
    return digest.digest()


def _inflate(method: int, body_bytes: int, packed: bytes) -> bytes:
    if method == _STORED:
        if body_bytes != len(packed):
            raise CorruptBlockError("stored body of another length than stated")
        return packed
    if method != _ZLIB:
        raise CorruptBlockError(f"unknown method {method}")
    if body_bytes > min(BODY_BYTES_MAX, BODY_RATIO_MAX * len(packed)):
        raise CorruptBlockError(f"body of {body_bytes} bytes in {len(packed)}: over the cap")
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(packed, body_bytes + 1)
    except zlib.error:
        raise CorruptBlockError("body does not decompress") from None
    if len(body) != body_bytes or not inflater.eof or inflater.unused_data:
        raise CorruptBlockError("body of another length than stated")
    return body
