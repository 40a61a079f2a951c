"""Rewrites what a closed journal still holds as wire blocks, under the same number, a block at a time.

Blocks are a tenth of the size, and are ready to be sent when the gateway comes back. Until the block file has its
name and is synced, the journal holds everything; whatever goes wrong before that, the next turn begins again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from edge.blocks import BlockCutter, WireBlock
from edge.disk import AppendFile
from edge.entries import Chain, Entry, Stretch
from edge.shelf import BLOCKS_SUFFIX, DAMAGED, JOURNAL_SUFFIX, PART_SUFFIX, Shelf, SpoolFile
from edge.spool_file import BadRecordError, Kind, pack_record, unpack_header

REWRITE_AFTER_S: Final = 60.0


class _DamageError(Exception):
    """The file holds less than it did when its rewriting began."""


class Rewriter:
    """One file at a time. Belongs to the disk thread.

    Args:
        shelf: the files and their book.
        cutter: makes the blocks.
    """

    def __init__(self, shelf: Shelf, cutter: BlockCutter) -> None:
        self._shelf, self._cutter = shelf, cutter
        self._steps: Generator[None] | None = None
        self.number = 0
        """Of the file that is being rewritten; 0 for none."""

    def due(self, now_s: float, writer: SpoolFile | None) -> SpoolFile | None:
        """Return the oldest journal that is to be rewritten, if any; never the one that is being written."""
        shelf = self._shelf
        with shelf.lock:
            for number, file in sorted(shelf.files.items()):
                if (
                    file.suffix == JOURNAL_SUFFIX
                    and file is not writer
                    and number not in shelf.doomed
                    and now_s - file.synced_s >= REWRITE_AFTER_S
                    and any(entry.record for _, entry in shelf.holdings.entries_of(number))
                ):
                    return file
        return None

    def begin(self, file: SpoolFile) -> None:
        """Take a file in hand."""
        self._steps, self.number = self._rewrite(file), file.number

    def step(self) -> bool:
        """Write one more block, or finish; False when the disk refuses and the file is left as it was."""
        assert self._steps is not None
        try:
            next(self._steps)
        except (StopIteration, _DamageError):
            self._steps, self.number = None, 0
        except OSError:
            self._steps, self.number = None, 0
            return False
        return True

    def abandon(self) -> None:
        """Leave the file as it was."""
        if self._steps is not None:
            self._steps.close()
        self._steps, self.number = None, 0

    def _rewrite(self, file: SpoolFile) -> Generator[None]:
        shelf = self._shelf
        target = SpoolFile(file.number, BLOCKS_SUFFIX, None, synced_s=file.synced_s)
        made: dict[int, list[Entry]] = {}
        part = target.name + PART_SUFFIX
        append = shelf.disk.create(part)
        done = False
        try:
            for chain, block in self._blocks(file):
                made.setdefault(chain.stream, []).append(_write(append, chain, block, target))
                yield
            append.sync()
            append.close()
            shelf.disk.rename(part, target.name)
            shelf.disk.sync_folder()
            done = True
        finally:
            append.close()
            if not done:
                shelf.remove(part)
        with shelf.lock:
            for stream, entries in made.items():
                shelf.holdings.replace(file.number, stream, entries)
            shelf.files[file.number] = target
        shelf.remove(file.name)

    def _blocks(self, file: SpoolFile) -> Generator[tuple[Chain, WireBlock]]:
        """Yield blocks of all that the file holds.

        Raises:
            _DamageError: a record is damaged and has been given up: to begin again without it.
        """
        with self._shelf.lock:
            work = self._shelf.holdings.journalled(file.number)
        for whole in work:
            chain = whole.chain
            stretch: Stretch | None = whole
            while stretch is not None:
                try:
                    table, frames, last = self._shelf.gather(stretch)
                except BadRecordError as error:
                    self._shelf.state_dropped(chain, stretch.first, stretch.pieces[0].last, DAMAGED)
                    raise _DamageError from error
                for block in self._cutter.cut(chain, table, frames, stretch.first, last):
                    yield chain, block
                stretch = stretch.above(last)


def _write(append: AppendFile, chain: Chain, block: WireBlock, target: SpoolFile) -> Entry:
    """Append a block to a file that grows by it; return its entry."""
    packed = pack_record(
        Kind.BLOCK,
        block.payload,
        stream=chain.stream,
        first=block.first,
        last=block.last,
        predecessor=chain.predecessor,
        predecessor_last=chain.predecessor_last,
        samples=block.samples,
    )
    record = unpack_header(packed, target.size, target.name)
    append.write(packed)
    target.size += len(packed)
    return Entry(target.number, block.first, block.last, block.samples, target.synced_s, record)
