"""Follows the ledger's log: what every tag showed last, which nodes and devices live, what is new since last time.

Rows go in as the ledger has them, in log order; nothing here reads a file or a clock. What counts as current is what
core counts as current: a frame of the node's live stream numbered above all before it, or one without numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerting import condition
from config import SiteConfig
from gateway.core.entries import (
    Columns,
    EntryKind,
    pack_columns,
    torn_frames,
    unpack_columns,
    unpack_frames,
    unpack_json,
)
from gateway.serve.recent import RecentFrames, StoredFrame
from gateway.serve.stored import newest_source_ms, refused_tags
from wire import BlockError, Quality, decode_block, frames_of, quality_of

NEVER: Final = -1
_GOOD: Final = np.uint8(Quality.GOOD)
_NO_SAMPLES: Final = pack_columns(
    Columns(np.empty(0, np.int32), np.empty(0), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0))
)


class LogRow(NamedTuple):
    """A row of the log; `body` is empty for kinds that the tail does not read."""

    pos: int
    kind: str
    engine_ms: int
    received_ms: int
    node: str
    device: str
    stream: int
    first: int
    last: int
    body: bytes
    late_upto: int = 0
    fresh: str | None = None
    refused: str | None = None


class FrameColumns(NamedTuple):
    """A frame's samples. tag: int32[n], position in the site's tags, negative where it has none of that name."""

    number: int
    tag: NDArray[np.int32]
    columns: Columns
    row: LogRow


class _Frame(NamedTuple):
    """A FRAME row, and where its samples lie among those read with it."""

    row: LogRow
    start: int
    end: int


READ_KINDS: Final = tuple(
    str(kind) for kind in (EntryKind.FRAME, EntryKind.BLOCK, EntryKind.HISTORICAL, EntryKind.BORN, EntryKind.DIED, EntryKind.CONFIG)
)


def stored_frame(row: LogRow) -> StoredFrame:
    """Return a row as history reads it. What a foreign node had stored has no stream: its place in the log is its number."""
    if row.kind == EntryKind.BLOCK:
        return StoredFrame(row.pos, row.stream, row.first, row.body, 0, True, row.late_upto, row.fresh, row.refused)
    last_ms = newest_source_ms(row.body)
    if row.kind == EntryKind.HISTORICAL:
        return StoredFrame(row.pos, 0, row.pos, row.body, last_ms, late_upto=row.pos)
    return StoredFrame(row.pos, row.stream, row.first, row.body, last_ms, late_upto=row.late_upto)


@dataclass(slots=True)
class NodeNow:
    """One edge node. `dead_pos`: log position of the last thing that ended its session, NEVER without one."""

    online: bool | None = None
    since_ms: int | None = None
    live: int = 0
    unmarked: int = 0
    evaluated: int = 0
    dead_pos: int = NEVER
    last_frame_ms: int | None = None
    config_wrong: bool | None = None
    clock_offset_ms: int | None = None
    device_dead_pos: dict[str, int] = field(default_factory=dict)

    def is_current(self, stream: int, number: int) -> bool:
        """Whether a frame with this number would be evaluated as the present."""
        return stream == self.unmarked or (stream == self.live and number > self.evaluated)


class TagColumns:
    """The newest current sample of every tag, in the site's order. Positions are NEVER before the first."""

    def __init__(self, count: int) -> None:
        self.pos = np.full(count, NEVER, np.int64)
        self.value = np.full(count, np.nan)
        self.raw = np.full(count, np.nan)
        self.code = np.zeros(count, np.uint8)
        self.source_ms = np.zeros(count, np.int64)
        self.received_ms = np.zeros(count, np.int64)
        self.engine_ms = np.zeros(count, np.int64)
        self.good_pos = np.full(count, NEVER, np.int64)
        self.good_value = np.full(count, np.nan)
        self.good_ms = np.zeros(count, np.int64)

    def take(self, tag: NDArray[np.int32], columns: Columns, row: LogRow) -> None:
        """Take samples of these tags as the newest, in their order; negative tags are none of ours."""
        self.take_all(tag, columns, [row], [len(tag)])

    def take_all(self, tag: NDArray[np.int32], columns: Columns, rows: Sequence[LogRow], samples: Sequence[int]) -> None:
        """Take the samples of rows that follow each other; of several of one tag the last stays.

        Args:
            tag, columns: of all rows, end to end. samples: how many each row has.
        """
        marks = np.array([(row.pos, row.received_ms, row.engine_ms) for row in rows], np.int64)
        pos, received_ms, engine_ms = marks.repeat(samples, axis=0).T
        ours = tag >= 0
        if not ours.all():
            tag, pos, received_ms, engine_ms = tag[ours], pos[ours], received_ms[ours], engine_ms[ours]
            columns = Columns(tag, columns.value[ours], columns.code[ours], columns.source_ms[ours], columns.raw[ours])
        self.pos[tag], self.received_ms[tag], self.engine_ms[tag] = pos, received_ms, engine_ms
        self.value[tag], self.raw[tag], self.code[tag] = columns.value, columns.raw, columns.code
        self.source_ms[tag] = columns.source_ms
        good = quality_of(columns.code) == _GOOD
        value, source_ms = columns.value, columns.source_ms
        if not good.all():
            tag, pos, value, source_ms = tag[good], pos[good], value[good], source_ms[good]
        self.good_pos[tag], self.good_value[tag], self.good_ms[tag] = pos, value, source_ms


class ReadRows(NamedTuple):
    """Rows of the log in order, and the samples of those among them that are frames, end to end.

    Attributes:
        columns: tag holds numbers of the ledger's tag table. ends: where each frame ends.
    """

    rows: Sequence[LogRow]
    columns: Columns
    ends: list[int]


def whole_rows(rows: Sequence[LogRow]) -> Sequence[LogRow]:
    """Let frames that are not whole hold no samples: core had written them, the disk has damaged them since."""
    frames = [at for at, row in enumerate(rows) if row.kind in (EntryKind.FRAME, EntryKind.HISTORICAL)]
    torn = {frames[at] for at in torn_frames([rows[at].body for at in frames])}
    return [row._replace(body=_NO_SAMPLES) if at in torn else row for at, row in enumerate(rows)] if torn else rows


def read_rows(rows: Sequence[LogRow]) -> ReadRows:
    """Unpack the frames among rows, all together."""
    rows = whole_rows(rows)
    return ReadRows(rows, *unpack_frames([row.body for row in rows if row.kind == EntryKind.FRAME]))


class Tail:
    """What the log says, up to `pos`. Begin with `begin`, then give rows with `take_all`."""

    def __init__(self, site: SiteConfig, recent: RecentFrames) -> None:
        self._site, self._recent = site, recent
        self._low = np.array([tag.span().low for tag in site.tags], np.float64)
        self._high = np.array([tag.span().high for tag in site.tags], np.float64)
        self._owned: dict[str, dict[str, int]] = {edge.id: {} for edge in site.edges}
        for tag, edge in site.edge_of.items():
            self._owned[edge][tag] = site.tag_index[tag]
        self._site_tag = np.empty(0, np.int32)
        self.begin("", 0)

    def begin(self, ledger_id: str, pos: int) -> None:
        """Forget everything; rows after `pos` of this ledger come next."""
        self.pos, self._ledger_id = pos, ledger_id
        self.watched_from = 0  # births and deaths up to here were not looked at
        self.tags = TagColumns(len(self._site.tags))
        self.nodes = {edge.id: NodeNow() for edge in self._site.edges}
        self.revision: bytes | None = None
        self._recent.begin(ledger_id, pos)

    def use_tag_names(self, names: dict[int, str]) -> None:
        """Give the ledger's tag table."""
        self._site_tag = np.full(max(names, default=0) + 1, -1, np.int32)
        for number, name in names.items():
            self._site_tag[number] = self._site.tag_index.get(name, -1)

    def _places(self, tag: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the positions in the site's tags of numbers of the tag table; numbers that it does not have have none."""
        if not len(tag) or (tag.min() >= 0 and tag.max() < len(self._site_tag)):
            return self._site_tag[tag]
        known = (tag >= 0) & (tag < len(self._site_tag))
        places = np.full(len(tag), -1, np.int32)
        places[known] = self._site_tag[tag[known]]
        return places

    def knows_tags_of(self, read: ReadRows) -> bool:
        """Whether every tag number of the frames is in the tag table given: core may have drawn new ones."""
        tag = read.columns.tag
        return not len(tag) or int(tag.max()) < len(self._site_tag)

    # -- the log --

    def take_all(self, read: ReadRows) -> None:
        """Take the next rows of the log. Frames between two other rows are taken together."""
        frames: list[_Frame] = []
        start, ends = 0, iter(read.ends)
        for row in read.rows:
            self.pos = row.pos
            if row.kind == EntryKind.FRAME:
                end = next(ends)
                if self._frame(row):
                    frames.append(_Frame(row, start, end))
                start = end
                continue
            self._show(read.columns, frames)
            frames.clear()
            self._take(row)
        self._show(read.columns, frames)

    def _take(self, row: LogRow) -> None:
        match row.kind:
            case EntryKind.BLOCK:
                self._block(row)
            case EntryKind.HISTORICAL:
                self._keep(row)
            case EntryKind.BORN:
                self.born(row)
            case EntryKind.DIED:
                self.died(row)
            case EntryKind.CONFIG:
                self.revision = row.body

    def _frame(self, row: LogRow) -> bool:
        """Note a frame; tell whether it is current."""
        node = self.nodes.get(row.node)
        self._keep(row)
        if node is None:
            return False
        node.last_frame_ms = row.received_ms
        if not node.is_current(row.stream, row.first):
            return False
        if row.stream == node.live:
            node.evaluated = row.first
        return True

    def _show(self, columns: Columns, frames: Sequence[_Frame]) -> None:
        """Let the samples of current frames be what their tags show."""
        if not frames:
            return
        samples = [frame.end - frame.start for frame in frames]
        start, end = frames[0].start, frames[-1].end
        own: slice | NDArray[np.int64] = slice(start, end)
        if end - start != sum(samples):  # frames that are not current lie between them
            own = np.concatenate([np.arange(frame.start, frame.end) for frame in frames])
        columns = Columns(columns.tag[own], columns.value[own], columns.code[own], columns.source_ms[own], columns.raw[own])
        self.tags.take_all(self._places(columns.tag), columns, [frame.row for frame in frames], samples)

    def _block(self, row: LogRow) -> None:
        self._keep(row)
        node = self.nodes.get(row.node)
        if node is None:
            return
        node.last_frame_ms = row.received_ms
        if node.is_current(row.stream, row.last):
            for frame in self._block_frames(row):
                if frame.number > node.evaluated:
                    self.tags.take(frame.tag, frame.columns, row)
            node.evaluated = row.last

    def _keep(self, row: LogRow) -> None:
        self._recent.add(row.node, row.device, stored_frame(row))

    def warm(self, after_pos: int, rows: Sequence[LogRow]) -> None:
        """Keep in memory what was logged after a position and up to `pos`."""
        self._recent.begin(self._ledger_id, after_pos)
        for row in rows:
            self._keep(row)

    def born(self, row: LogRow) -> None:
        """A node's session began."""
        node = self.nodes.get(row.node)
        if node is None:
            return
        facts = unpack_json(row.body)
        node.online, node.since_ms = True, row.received_ms
        node.unmarked = facts["unmarked_stream"]
        if facts["live"] and facts["live"] != node.live:
            node.live, node.evaluated = facts["live"], 0
        node.config_wrong = facts["config_wrong"]
        node.clock_offset_ms = facts["clock_offset_ms"]

    def died(self, row: LogRow) -> None:
        """A node's or a device's session ended, for the node or only for our link: nothing holds until it is heard again."""
        node = self.nodes.get(row.node)
        if node is None:
            return
        if row.device:
            node.device_dead_pos[row.device] = row.pos
            return
        if node.online is not False:
            node.since_ms = row.received_ms
        node.online, node.dead_pos = False, row.pos

    # -- what was before the first row taken --

    def frames(self, row: LogRow) -> Iterator[FrameColumns]:
        """Yield the frames of a FRAME or BLOCK row, highest number first."""
        if row.kind == EntryKind.FRAME:
            columns = unpack_columns(row.body)
            yield FrameColumns(row.first, self._places(columns.tag), columns, row)
        else:
            yield from reversed(self._block_frames(row))

    def _block_frames(self, row: LogRow) -> list[FrameColumns]:
        try:
            owned = self._owned.get(row.node, {})
            refused = refused_tags(row.refused)
            frames, _unknown = frames_of(decode_block(row.body), {tag: at for tag, at in owned.items() if tag not in refused})
        except (BlockError, ValueError):  # core had read it: a ledger that was damaged since; silence will tell
            return []
        found = []
        for frame in frames:
            batch = frame.batch
            value, code, raw = condition(batch, self._low, self._high)
            columns = Columns(batch.tag, value, code, batch.source_ms, raw)
            found.append(FrameColumns(frame.sequence, batch.tag, columns, row))
        return found

    def remember(self, frame: FrameColumns) -> bool:
        """Take from a frame before `pos`, newest frames first, what tags show that nothing newer spoke for.

        Returns:
            Whether the frame told anything.
        """
        tags, (_, tag, columns, row) = self.tags, frame
        known = tags.pos[tag] != NEVER
        good = quality_of(columns.code) == Quality.GOOD
        fresh = (tag >= 0) & ~known
        past_good = (tag >= 0) & known & good & (tags.good_pos[tag] == NEVER)
        if fresh.any():
            tags.take(
                tag[fresh],
                Columns(tag[fresh], columns.value[fresh], columns.code[fresh], columns.source_ms[fresh], columns.raw[fresh]),
                row,
            )
        old = tag[past_good]
        tags.good_pos[old], tags.good_value[old] = row.pos, columns.value[past_good]
        tags.good_ms[old] = columns.source_ms[past_good]
        return bool(fresh.any() or past_good.any())

    def unheard(self, node: str) -> bool:
        """Whether a node still has tags of which nothing is known, or nothing GOOD."""
        owned = np.array(list(self._owned.get(node, {}).values()), np.int64)
        return bool((self.tags.good_pos[owned] == NEVER).any())
