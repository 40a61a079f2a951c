"""Opens a spool folder: finds what an earlier run left, whatever moment that run ended at.

Every stream found is sealed, because its numbers may only be used by the run that began it. Torn tails are cut off
and reported; numbers missing in the middle become dropped ranges, so the gateway hears of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edge.disk import Disk, OsDisk
from edge.entries import Entry
from edge.points import Point, PointTable
from edge.shelf import BLOCKS_SUFFIX, DAMAGED, JOURNAL_SUFFIX, PART_SUFFIX, Cut, Shelf, SpoolFile
from edge.spool import Spool
from edge.spool_file import (
    HEADER_BYTES,
    BadRecordError,
    JournalFrames,
    Kind,
    Record,
    unpack_checkpoint,
    unpack_frames,
    unpack_header,
    unpack_schema,
    walk,
)
from wire import CorruptBlockError, Quality, decode_block, native_value, quality_of

BEFORE_THIS_RUN: Final = float("-inf")
SPOOL_SUFFIXES: Final = (JOURNAL_SUFFIX, BLOCKS_SUFFIX)


class SpooledSample(NamedTuple):
    """One sample as the disk holds it; `bits` is the register pattern, `code` the quality code."""

    stream: int
    sequence: int
    tag: str
    bits: int
    code: int
    source_ms: int


class SpooledFrame(NamedTuple):
    """One numbered frame as a journal holds it; `samples` are in the order of the edge's points."""

    stream: int
    sequence: int
    predecessor: int
    predecessor_last: int
    samples: tuple[SpooledSample, ...]


class JournalReader:
    """Reads one journal file as it grows, for whoever looks on from outside. Reads only."""

    def __init__(self) -> None:
        self._file = SpoolFile(0, JOURNAL_SUFFIX, None)
        self._points: dict[str, Point] = {}

    def frames(self, content: bytes) -> list[SpooledFrame]:
        """Return the frames of the next whole records of the file, in order.

        Raises:
            BadRecordError: these bytes are not whole records.
        """
        found: list[SpooledFrame] = []
        for record, body in walk(content, self._file.name):
            if body is None:
                continue
            if record.kind is Kind.SCHEMA:
                self._file.table = unpack_schema(body)[1]
            for sequence, samples in groupby(_samples(self._file, record, body), lambda sample: sample.sequence):
                chain = (record.predecessor, record.predecessor_last)
                found.append(SpooledFrame(record.stream, sequence, *chain, tuple(samples)))
        return found

    def value(self, sample: SpooledSample) -> float:
        """Return a sample's value in its tag's unit, NaN where its quality is BAD."""
        assert self._file.table is not None
        if quality_of(sample.code) == Quality.BAD:
            return float("nan")
        if not self._points:
            self._points.update((point.tag, point) for point in self._file.table.points)
        point = self._points[sample.tag]
        return float(native_value(point.native, np.array([sample.bits], np.uint64), point.scale, point.offset)[0])


def open_spool(disk: Disk, node: str, table: PointTable, max_bytes: int) -> Spool:
    """Return a spool that holds what the folder holds.

    Args:
        disk: the folder; what cannot be read whole in it is cut off.
        node: Sparkplug edge node id.
        table: the points of this run; files of earlier runs bring their own.
        max_bytes: what the files may take.

    Raises:
        SpoolFormatError: a file of another version.
        OSError: the folder cannot be read.
    """
    shelf = Shelf(disk)
    cuts: list[Cut] = []
    for number, suffix in _spool_files(disk):
        file = SpoolFile(number, suffix, None)
        shelf.next_number = number + 1
        shelf.files[number] = file
        try:
            if suffix == BLOCKS_SUFFIX:
                _restore_blocks(shelf, file)
            else:
                _restore_journal(shelf, file)
        except BadRecordError as error:
            cuts.append(Cut(file.name, file.size, disk.size(file.name) - file.size, error.reason))
            disk.truncate(file.name, file.size)
    for held, first, last in shelf.holdings.settle():
        shelf.state_dropped(held.chain, first, last, DAMAGED)
    return Spool(shelf, node, table, max_bytes, cuts)


def read_spool(folder: Path) -> list[SpooledSample]:
    """Return every sample that is on the disk of a stopped edge, each once, in the order of the files.

    Reads only: nothing is cut or removed. Acknowledged samples are among them until their file goes.
    """
    if not folder.is_dir():
        return []
    disk = OsDisk(folder)
    found: dict[tuple[int, int, str], SpooledSample] = {}
    for number, suffix in _spool_files(disk, tidy=False):
        file = SpoolFile(number, suffix, None)
        try:
            for record, body in walk(disk.read(file.name), file.name, past_damage=suffix == BLOCKS_SUFFIX):
                if body is None:
                    continue
                if record.kind is Kind.SCHEMA:
                    file.table = unpack_schema(body)[1]
                for sample in _samples(file, record, body):
                    found.setdefault((sample.stream, sample.sequence, sample.tag), sample)
        except BadRecordError:
            continue  # a torn tail was never synced
    return list(found.values())


def _spool_files(disk: Disk, *, tidy: bool = True) -> list[tuple[int, str]]:
    """Return number and suffix of the spool's files by number; of a journal and its blocks only the blocks."""
    found: dict[int, str] = {}
    for name in disk.names():
        stem, dot, suffix = name.partition(".")
        if name.endswith(PART_SUFFIX) and tidy:
            disk.unlink(name)  # a rewrite that did not come to its end; its journal is whole
        if not stem.isdigit() or dot + suffix not in SPOOL_SUFFIXES:
            continue
        number = int(stem)
        if tidy and number in found:
            disk.unlink(SpoolFile(number, JOURNAL_SUFFIX, None).name)
        found[number] = BLOCKS_SUFFIX if number in found else dot + suffix
    return sorted(found.items())


def _restore_journal(shelf: Shelf, file: SpoolFile) -> None:
    for record, body in walk(shelf.disk.read(file.name), file.name):
        assert body is not None
        _restore(shelf, file, record, body)
        file.size = record.end


def _restore_blocks(shelf: Shelf, file: SpoolFile) -> None:
    """Read the headers alone: three days of backlog must not delay the start. Bodies are checked when sent."""
    whole = shelf.disk.size(file.name)
    while file.size < whole:
        record = unpack_header(shelf.disk.read(file.name, file.size, HEADER_BYTES), file.size, file.name)
        if record.end > whole:
            raise BadRecordError(file.size, "the file ends inside a record")
        _restore(shelf, file, record, memoryview(b""))
        file.size = record.end


def _restore(shelf: Shelf, file: SpoolFile, record: Record, body: memoryview) -> None:
    holdings = shelf.holdings
    chain = (record.stream, record.predecessor, record.predecessor_last)
    if record.kind is Kind.SCHEMA:
        file.table = unpack_schema(body)[1]
    elif record.kind is Kind.CHECKPOINT:
        file.checkpointed = True
        checkpoint = unpack_checkpoint(body)
        for stream, upto in checkpoint.acked:
            holdings.restore_ack(stream, upto)
        holdings.newest = checkpoint.newest
        holdings.samples_acked, holdings.frames_acked = checkpoint.samples_acked, checkpoint.frames_acked
        holdings.samples_dropped, holdings.frames_dropped = (
            checkpoint.samples_dropped,
            checkpoint.frames_dropped,
        )
    elif record.kind is Kind.DROPPED:
        reason = bytes(body).decode(errors="replace")
        holdings.drop(Entry(file.number, record.first, record.last, 0, BEFORE_THIS_RUN, dropped=reason), *chain)
    else:
        rows = unpack_frames(record, body).rows if record.kind is Kind.JOURNAL else None
        entry = Entry(file.number, record.first, record.last, record.samples, BEFORE_THIS_RUN, record, rows)
        if holdings.add(entry, *chain):
            holdings.number(record.stream, record.last, record.predecessor, record.predecessor_last)


def _samples(file: SpoolFile, record: Record, body: memoryview) -> Iterator[SpooledSample]:
    if record.kind is Kind.JOURNAL and file.table is not None:
        frames: JournalFrames = unpack_frames(record, body)
        points = file.table.points
        for sequence, point, bits, code, source_ms in zip(
            frames.sequence.tolist(),
            frames.point.tolist(),
            frames.bits.tolist(),
            frames.code.tolist(),
            frames.source_ms.tolist(),
            strict=True,
        ):
            yield SpooledSample(record.stream, sequence, points[point].tag, bits, code, source_ms)
    elif record.kind is Kind.BLOCK:
        try:
            block = decode_block(bytes(body))
        except CorruptBlockError:
            return
        for column in block.columns:
            for sequence, bits, code, source_ms in zip(
                column.sequence.tolist(),
                column.bits.astype(np.uint64).tolist(),
                column.code.tolist(),
                column.source_ms.tolist(),
                strict=True,
            ):
                yield SpooledSample(block.stream, sequence, column.tag, bits, code, source_ms)
