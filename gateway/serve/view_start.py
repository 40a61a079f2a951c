"""The first look at a ledger that may hold a week: what every tag showed last, without reading all of it.

A node's newest values are the highest numbers of its live stream, so they are read from there backwards through the
index, until every tag is found or a bound is met. What lies beyond the bounds is not known, and shows so.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

from gateway.core.entries import EntryKind
from gateway.serve.tail import READ_KINDS, FrameColumns, LogRow, NodeNow, Tail, whole_rows
from gateway.serve.view_errors import OutOfTimeError
from gateway.serve.view_heartbeat import Heartbeat
from gateway.serve.view_ledger import LedgerFile

START_S_MAX: Final = 3.0
NODE_ROWS_MAX: Final = 20_000
SLICE_ROWS: Final = 200
SESSION_ROWS_MAX: Final = 50_000  # how far back births and deaths are looked for, in log positions
SESSION_SLICE: Final = 5_000
STREAMS_BACK_MAX: Final = 4
WARM_ROWS: Final = 20_000  # the newest log positions whose frames are taken into memory
WARM_SLICE: Final = 2_000
UNMARKED_STREAMS_MAX: Final = 256

_kinds: Final = ", ".join(f"'{kind}'" for kind in READ_KINDS)
COLUMNS: Final = (
    "pos, kind, engine_ms, received_ms, node, device, stream, first, last,"
    f" CASE WHEN kind IN ({_kinds}) THEN body ELSE x'' END, late_upto, fresh, refused"
)


def begin(tail: Tail, file: LedgerFile, ledger_id: str, heartbeat: Heartbeat) -> None:
    """Let the tail begin at the end of the log, knowing what stands before it.

    Raises:
        LedgerAwayError: the ledger could not be read.
    """
    ((last_pos,),) = file.rows("SELECT coalesce(max(pos), 0) FROM log")
    tail.begin(ledger_id, last_pos)
    tail.use_tag_names(dict(file.rows("SELECT id, name FROM tag")))
    revision = file.rows("SELECT body FROM log WHERE kind = 'C' ORDER BY pos DESC LIMIT 1")
    tail.revision = revision[0][0] if revision else None
    file.give_up_after(START_S_MAX)
    try:
        _sessions(tail, file, last_pos)
        trusted = heartbeat if heartbeat.said.get("ledger") == ledger_id else None
        for name, node in tail.nodes.items():
            _settle(name, node, file, last_pos, trusted)
        give_up_at = time.monotonic() + START_S_MAX
        for name, node in tail.nodes.items():
            _values(tail, name, node, file, last_pos, give_up_at)
        _warm(tail, file, last_pos)
    except OutOfTimeError:
        pass  # the rest is unknown until it is heard
    finally:
        file.give_up_after(START_S_MAX)


def _warm(tail: Tail, file: LedgerFile, last_pos: int) -> None:
    """Take the newest frames into memory: questions are mostly about them."""
    rows: list[LogRow] = []
    begin = max(0, last_pos - WARM_ROWS)
    for lo in range(begin, last_pos, WARM_SLICE):
        sql = f"SELECT {COLUMNS} FROM log WHERE pos > ? AND pos <= ? AND kind IN ('F', 'B', 'H') ORDER BY pos"  # noqa: S608
        rows += whole_rows([LogRow(*row) for row in file.rows(sql, (lo, min(lo + WARM_SLICE, last_pos)))])
    tail.warm(begin, rows)


def _sessions(tail: Tail, file: LedgerFile, last_pos: int) -> None:
    """Take the newest births and deaths in. Of a tag last heard before them nobody knows what ended since."""
    begin, tail.watched_from = max(0, last_pos - SESSION_ROWS_MAX), last_pos
    for lo in range(begin, last_pos, SESSION_SLICE):
        sql = f"SELECT {COLUMNS} FROM log WHERE pos > ? AND pos <= ? AND kind IN ('N', 'D') ORDER BY pos"  # noqa: S608
        for row in file.rows(sql, (lo, min(lo + SESSION_SLICE, last_pos))):
            entry = LogRow(*row)
            if entry.kind == EntryKind.BORN:
                tail.born(entry)
            else:
                tail.died(entry)
    tail.watched_from = begin


def _settle(name: str, node: NodeNow, file: LedgerFile, last_pos: int, heartbeat: Heartbeat | None) -> None:
    """Find out which stream is live and whether the node is there, where births and deaths lie too far back."""
    line = {} if heartbeat is None else heartbeat.node(name)
    if node.online is None and isinstance(line.get("online"), bool):
        node.online = line["online"]
    if not node.live and isinstance(line.get("stream"), int):
        node.live = line["stream"]
    if not node.live:
        # The live stream is the one whose end nobody has told of yet.
        newest = file.rows(
            "SELECT stream FROM stream WHERE node = ? AND last IS NULL ORDER BY touched_ms DESC LIMIT 1", (name,)
        )
        node.live = newest[0][0] if newest else 0
    if not node.unmarked:
        node.unmarked = _newest_unmarked(name, file)
    if node.live:
        for kind, column in (("F", "first"), ("B", "last")):
            ends = file.rows(
                f"SELECT {column} FROM log WHERE kind = '{kind}' AND node = ? AND stream = ? AND +pos <= ?"  # noqa: S608
                f" ORDER BY {column} DESC LIMIT 1",
                (name, node.live, last_pos),
            )
            node.evaluated = max(node.evaluated, ends[0][0] if ends else 0)


def _newest_unmarked(name: str, file: LedgerFile) -> int:
    """Return the newest stream of frames that the gateway numbered itself (a foreign node's), 0 without one."""
    newest, found, stream = 0, 0, 0
    for _ in range(UNMARKED_STREAMS_MAX):
        following = file.rows(
            "SELECT stream FROM log WHERE kind = 'F' AND node = ? AND stream < ? ORDER BY stream DESC LIMIT 1", (name, stream)
        )
        if not following:
            break
        stream = following[0][0]
        ((pos,),) = file.rows(
            "SELECT pos FROM log WHERE kind = 'F' AND node = ? AND stream = ? ORDER BY first DESC LIMIT 1", (name, stream)
        )
        if pos > newest:
            newest, found = pos, stream
    return found


def _values(tail: Tail, name: str, node: NodeNow, file: LedgerFile, last_pos: int, give_up_at: float) -> None:
    """Read a node's streams backwards until all its tags are found."""
    left = NODE_ROWS_MAX
    for frame in _backwards(tail, name, node, file, last_pos):
        left -= 1
        if node.last_frame_ms is None:
            node.last_frame_ms = frame.row.received_ms
        if tail.remember(frame) and not tail.unheard(name):
            return
        if left <= 0 or time.monotonic() > give_up_at:
            return


def _backwards(tail: Tail, name: str, node: NodeNow, file: LedgerFile, last_pos: int) -> Iterator[FrameColumns]:
    """Yield the frames of the newest streams, highest number first."""
    streams = [stream for stream in (node.live, node.unmarked) if stream]
    streams.sort(key=lambda stream: _last_pos(name, stream, file), reverse=True)
    before = node.live
    for _ in range(STREAMS_BACK_MAX):
        rows = file.rows("SELECT predecessor FROM stream WHERE node = ? AND stream = ?", (name, before))
        before = rows[0][0] if rows else 0
        if not before or before in streams:
            break
        streams.append(before)
    for stream in streams:
        kinds = (_numbers_down(name, stream, kind, file, last_pos) for kind in ("F", "B"))
        frames = (chain.from_iterable(map(tail.frames, rows)) for rows in kinds)
        yield from heapq.merge(*frames, key=lambda frame: -frame.number)  # a live stream may have both


def _numbers_down(name: str, stream: int, kind: str, file: LedgerFile, last_pos: int) -> Iterator[LogRow]:
    """Yield one kind of rows of a stream, highest number first."""
    column = "first" if kind == "F" else "last"
    number = 2**63 - 1
    while True:
        rows = file.rows(
            f"SELECT {COLUMNS} FROM log WHERE kind = '{kind}' AND node = ? AND stream = ? AND {column} <= ?"  # noqa: S608
            f" AND +pos <= ? ORDER BY {column} DESC LIMIT {SLICE_ROWS}",
            (name, stream, number, last_pos),
        )
        yield from whole_rows([LogRow(*row) for row in rows])
        if len(rows) < SLICE_ROWS:
            return
        number = int(rows[-1][8]) - 1


def _last_pos(name: str, stream: int, file: LedgerFile) -> int:
    rows = file.rows(
        "SELECT pos FROM log WHERE kind = 'F' AND node = ? AND stream = ? ORDER BY first DESC LIMIT 1", (name, stream)
    )
    return int(rows[0][0]) if rows else 0
