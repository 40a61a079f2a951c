"""Late blocks, decoded once for many questions."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wire import BlockColumn, BlockError, decode_block

BLOCK_CACHE_BYTES_MAX: Final = 48 * 1024 * 1024
_SAMPLE_BYTES: Final = 25
_COLUMN_BYTES: Final = 600


@dataclass(frozen=True, slots=True, eq=False)
class BlockColumns:
    """A decoded block by tag. newest_ms: its newest source time, 0 where it holds no samples."""

    of_tag: Mapping[str, BlockColumn]
    newest_ms: int
    bytes: int


class BlockCache:
    """The blocks decoded last, by log position: the same ones are asked for again, tag after tag. Bounded in bytes."""

    def __init__(self, bytes_max: int = BLOCK_CACHE_BYTES_MAX) -> None:
        self._lock = threading.Lock()
        self._bytes_max, self._bytes = bytes_max, 0
        self._blocks: OrderedDict[int, tuple[bytes, BlockColumns]] = OrderedDict()

    def columns(self, pos: int, body: bytes) -> BlockColumns:
        """Return a block's columns; none for one that cannot be read, which core had read once."""
        checksum = body[:18]  # magic, version, method, checksum: another ledger has other blocks at a position
        with self._lock:
            held = self._blocks.get(pos)
            if held is not None and held[0] == checksum:
                self._blocks.move_to_end(pos)
                return held[1]
        try:
            columns = decode_block(body).columns
        except BlockError:
            columns = ()
        newest_ms = max((int(column.source_ms[-1]) for column in columns if len(column)), default=0)
        samples = sum(len(column) for column in columns)
        block = BlockColumns(
            {column.tag: column for column in columns}, newest_ms, _SAMPLE_BYTES * samples + _COLUMN_BYTES * len(columns)
        )
        with self._lock:
            gone = self._blocks.pop(pos, None)
            self._bytes += block.bytes - (gone[1].bytes if gone is not None else 0)
            self._blocks[pos] = (checksum, block)
            while self._bytes > self._bytes_max and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1][1].bytes
        return block
