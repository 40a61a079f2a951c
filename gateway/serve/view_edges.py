"""Edges: who is there, what of them is still to come, what of them is lost."""

from __future__ import annotations

from typing import Final, NamedTuple

from config import EdgeConfig
from gateway.serve.models import EdgeNow, LossView
from gateway.serve.tail import NodeNow
from gateway.serve.view_heartbeat import Heartbeat
from gateway.serve.view_ledger import LedgerFile
from wire import Received

LOSSES_SHOWN_MAX: Final = 20
LOSSES_READ_MAX: Final = 100_000
STREAMS_READ_MAX: Final = 20_000


class Backlog(NamedTuple):
    """Up to which number the live stream is committed, how many sealed streams miss frames, and how many frames."""

    upto: int
    streams: int
    frames: int


class Losses:
    """Follows the ledger's table of losses."""

    def __init__(self) -> None:
        self._row = 0
        self.count: dict[str, int] = {}
        self.newest: dict[str, list[LossView]] = {}

    def follow(self, file: LedgerFile) -> set[str]:
        """Read what is new; return the nodes it is about."""
        nodes = set()
        for row, node, stream, first, last, cause, at_ms in file.rows(
            "SELECT row, node, stream, first, last, cause, at_ms FROM loss WHERE row > ? ORDER BY row LIMIT ?",
            (self._row, LOSSES_READ_MAX),
        ):
            self._row = row
            nodes.add(node)
            self.count[node] = self.count.get(node, 0) + 1
            newest = self.newest.setdefault(node, [])
            newest.insert(0, LossView(stream, first, last, cause, at_ms))
            del newest[LOSSES_SHOWN_MAX:]
        return nodes


def read_backlog(file: LedgerFile, node: str, live: int) -> Backlog:
    """Return what of a node is still to come."""
    rows = file.rows(
        "SELECT stream, upto, intervals, last, predecessor, predecessor_last FROM stream WHERE node = ? LIMIT ?",
        (node, STREAMS_READ_MAX),
    )
    # Where a stream ends is told by itself or by the one that follows it.
    told = {predecessor: predecessor_last for *_, predecessor, predecessor_last in rows}
    upto = streams = frames = 0
    for stream, settled, intervals, own_last, _, _ in rows:
        last = own_last if own_last is not None else told.get(stream)
        if stream == live:
            upto = settled
        elif last is None or settled < last:
            held = sum(hi - lo + 1 for lo, hi in Received.from_json(intervals).intervals)
            streams += 1
            frames += 0 if last is None else max(0, last - settled - held)
    return Backlog(upto, streams, frames)


def edge_now(
    edge: EdgeConfig, node: NodeNow, heartbeat: Heartbeat, losses: Losses, conditions: tuple[str, ...],
    backlog: Backlog | None, tags: int,
) -> EdgeNow:  # fmt: skip
    """Put together what is known of an edge. While core does not run, nobody knows whether an edge is there."""
    running = heartbeat.state == "running"
    heard = bool(node.live or node.unmarked)
    upto, streams, frames = backlog or (None, None, None)
    return EdgeNow(
        edge.id, edge.name.zh if edge.name else "", edge.name.en if edge.name else "",
        online=node.online if running else None,
        since_ms=node.since_ms,
        ours=node.live > 0 if heard else None,
        stream=node.live, upto=upto, backlog_streams=streams, backlog_frames=frames,
        last_frame_ms=node.last_frame_ms,
        config_matches=False if "CONFIG" in conditions else None if not heard or node.live == 0 else not node.config_wrong,
        clock_synced=False if "CLOCK" in conditions else None if not heard or node.live == 0 else True,
        clock_offset_ms=node.clock_offset_ms,
        conditions=conditions, losses=losses.count.get(edge.id, 0), last_losses=tuple(losses.newest.get(edge.id, ())),
        tags=tags,
    )  # fmt: skip
