"""Runs over history: what a node's frames that came late would have raised, had they come in time.

Where frames are missing, a fork of the node's rows stays behind and follows them in stream order, hole by hole, until it
has caught up with the present. Pure, as the machine is that these runs belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from alerting import AlarmEngine, Transition
from gateway.core.arrivals import Arrived, observed
from gateway.core.books import NodeBook
from gateway.core.nodes import HistoryRun, NodeState
from wire import StreamSpan

LATE_FRAMES_MAX: Final = 1_000  # frames one late run may take, so that a cycle stays short


@dataclass(frozen=True, slots=True)
class LateWant:
    """The next frame a history fork needs. `last` ends the stretch of numbers that had arrived by then."""

    node: str
    stream: int
    number: int
    last: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the ledger holds of what a fork needs: frames in order, and the number up to which that is all."""

    frames: list[Arrived]
    upto: int


class HistoryRuns:
    """The nodes of a site and their runs over history."""

    engine: AlarmEngine
    nodes: dict[str, NodeState]

    def node(self, name: str) -> NodeState:
        """Return a node's state; a node that no edge of the site is may exist, but owns no tags."""
        if name not in self.nodes:
            self.nodes[name] = NodeState(np.empty(0, np.int32))
        return self.nodes[name]

    @staticmethod
    def _evaluated(node: NodeState, stream: int) -> int:
        state = node.book.streams.get(stream)
        return 0 if state is None else state.evaluated

    def _fork(self, node: NodeState, stream: int, evaluated: int) -> None:
        """Remember the node's rows as they are now, unless an earlier fork still runs."""
        if node.history is None and len(node.tags):
            node.history = HistoryRun(self.engine.fork(node.tags), stream, evaluated)

    def _fork_at_first(self, node: NodeState, spans: Sequence[StreamSpan]) -> None:
        """A node heard for the first time may hold streams from before: history begins at the first of them."""
        told = {span.stream: span for span in spans}
        first = told.get(node.book.live)
        while first is not None and first.predecessor in told:
            first = told.pop(first.predecessor)
        if first is not None and first.stream != node.book.live:
            self._fork(node, first.stream, first.first - 1)

    @staticmethod
    def _end_history(node: NodeState) -> None:
        if node.history is not None:
            node.history.fork.finish()
            node.history = None

    def _follow_chain(self, node: NodeState) -> None:
        """See that a chain of streams leads a fork on to the live one.

        A power cut may take streams off the edge's disk that were heard here: then history goes on with what followed in
        their place. Without such a chain its future was lost, and journalled so: the fork is dropped.
        """
        run, book = node.history, node.book
        if run is None or self._leads_on(book, run.stream):
            return
        stream, steps = run.stream, 0
        while stream in book.streams and steps <= len(book.streams):
            stream, steps = book.streams[stream].predecessor, steps + 1
            if stream in book.streams and self._leads_on(book, stream):
                state = book.streams[stream]
                run.stream, run.number = stream, state.received.highest if state.last is None else state.last
                run.seen = None
                return
        self._end_history(node)

    @staticmethod
    def _leads_on(book: NodeBook, stream: int) -> bool:
        """Tell whether the successors of a stream lead to the live one."""
        steps = 0
        while stream and stream != book.live and steps <= len(book.streams):
            stream, steps = book.successor(stream), steps + 1
        return bool(stream) and stream == book.live

    def history_position(self, node_name: str) -> tuple[int, int] | None:
        """Return where a node's fork stands, None without one."""
        run = self.node(node_name).history
        return None if run is None else (run.stream, run.number)

    def pending(self) -> dict[str, dict[int, int]]:
        """Return what runs over history may still come to: node to stream to the number above which frames are needed.

        Besides what follows a run's place: streams that no birth has told of, because nobody knows yet what they follow.
        """
        found: dict[str, dict[int, int]] = {}
        for name, node in self.nodes.items():
            needed = dict.fromkeys(node.book.untold(), 0)
            if node.history is not None:
                needed |= dict.fromkeys(node.book.following(node.history.stream), 0)
                needed[node.history.stream] = node.history.number
            if needed:
                found[name] = needed
        return found

    def late_want(self, node_name: str) -> LateWant | None:
        """Return the frame that a node's fork needs next, or None: no fork, caught up, or it must wait.

        Moves the fork over lost numbers and from a finished stream to its successor on the way.
        """
        node = self.node(node_name)
        run = node.history
        while run is not None:
            state = node.book.streams.get(run.stream)
            if state is None:
                self._end_history(node)
                return None
            following = run.number + 1
            lost = next((hi for lo, hi in state.lost if lo <= following <= hi), None)
            if lost is not None:
                run.number = lost
            elif following in state.received:
                if run.stream == node.book.live and run.number >= state.evaluated and not run.fork.waits(run.stream):
                    self._end_history(node)
                    return None
                return LateWant(node_name, run.stream, following, state.received.end_of(following))
            elif run.stream == node.book.live:
                # Between sessions it waits: the next birth may tell of streams that lie in between.
                if node.online and run.number >= state.evaluated and not run.fork.waits(run.stream):
                    self._end_history(node)
                return None
            elif state.last is not None and run.number >= state.last:
                successor = node.book.successor(run.stream)
                if not successor:
                    return None
                run.stream, run.number, run.seen = successor, 0, None
            else:
                return None
        return None

    def late(self, node_name: str, frames: Sequence[Arrived], upto: int) -> list[Transition]:
        """Run frames through a node's fork; numbers up to `upto` that are not among them are no longer kept.

        Returns:
            Late transitions; those whose id is in the journal already are the same events found again.
        """
        node = self.node(node_name)
        run = node.history
        assert run is not None, "a late run needs a fork"
        live = run.stream == node.book.live
        # The present is always a few frames ahead where they come all the time: with what it had when the run was last
        # fed, the run has caught up.
        caught_up = live and run.seen is not None and upto >= run.seen
        evaluated = self._evaluated(node, run.stream)
        run.number, run.seen = upto, evaluated if live else None
        transitions = run.fork.samples(observed(frames), caught_up=caught_up) if frames else []
        # A hole behind it is this run's, too: nobody forks twice.
        whole = upto >= evaluated or node.book.streams[run.stream].received.end_of(upto + 1) >= evaluated
        if caught_up and whole and node.online and not run.fork.waits(run.stream):
            self._end_history(node)
        return transitions
