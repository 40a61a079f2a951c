"""The gateway's book about one edge node's streams: what arrived, what is current, what is lost.

Pure: births and frames go in stamped with what they carry, verdicts and losses come out. Nothing here knows a
clock; "a second" below is a difference of source times. Rules: architecture, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from wire import IntervalsFullError, Received, StreamSpan

# An edge killed between publishing a frame and syncing it knows less than we hold, by at most one sync. More than
# this much source time means that its disk was restored.
UNSYNCED_TAIL_MS_MAX: Final = 1_000
MARK_EVERY_MS: Final = 250
MARKS_MAX: Final = 32
UNFINISHED_LISTED_MAX: Final = 256  # a full list may hide the rest, so nothing is concluded from absence
STREAMS_KEPT_MAX: Final = 4_096  # finished streams a node; a duplicate of an older one is stored again, not lost
UNCOUNTED_RANGES_MAX: Final = 64
UNTOLD_PASSED_MAX: Final = 2  # births of new streams that leave out a stream no birth told of, until it is given up
TWO_BOXES_WITHIN_STREAMS: Final = 8  # a second wrong predecessor within so many streams is no restored disk


class Verdict(Enum):
    """What a frame is to the engine."""

    CURRENT = "current"  # evaluate
    LATE = "late"  # store, acknowledge, run as history
    DUPLICATE = "duplicate"  # acknowledge only
    UNCOUNTED = "uncounted"  # evaluate and store, but leave unacknowledged: its resend is a duplicate


@dataclass(frozen=True, slots=True)
class Loss:
    """Frame numbers that will never come, named in the journal. `last` is 0 where nobody can tell the end."""

    stream: int
    first: int
    last: int
    cause: str

    def __str__(self) -> str:
        if not (self.first or self.last):
            return f"{self.stream}: {self.cause}; which frames, if any, nobody can tell"
        return f"{self.stream}:{self.first or '?'}-{self.last or '?'} {self.cause}"


@dataclass(slots=True)
class StreamState:
    """One stream as the gateway knows it. `last` is None until somebody told where the stream ends."""

    received: Received = field(default_factory=Received)
    last: int | None = None
    predecessor: int = 0
    predecessor_last: int = 0
    evaluated: int = 0  # highest number evaluated as current
    last_source_ms: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)  # (number, source_ms), newest last
    lost: list[tuple[int, int]] = field(default_factory=list)
    uncounted: list[tuple[int, int]] = field(default_factory=list)  # stored while there was no interval left
    closed: list[tuple[int, int]] = field(default_factory=list)  # of `lost`: only because a birth did not list them
    told: bool = False  # by a birth: only then it is known what came before it
    passed: int = 0  # before that: births of new streams that left it out

    @property
    def finished(self) -> bool:
        """All of it is settled."""
        return self.last is not None and self.received.upto >= self.last

    @property
    def acknowledged(self) -> int:
        """Up to where an edge may forget.

        Never what is only closed, for another box of this id may hold it. And nothing of a stream whose births were all
        lost: once forgotten no birth would name it, and nobody would know where in history its frames belong.
        """
        return min([self.received.upto, *(lo - 1 for lo, _ in self.closed)]) if self.told else 0

    def withholds(self, number: int) -> bool:
        """All up to this frame is here, and only a birth that lists the stream will let its edge forget it."""
        return self.acknowledged < number <= self.received.upto

    def listed(self, first: int, last: int) -> None:
        """A birth lists the stream with numbers first..last: what was closed of these comes after all, what lies below never.

        Of what lies above the birth says nothing: it may be an old one that was overtaken, or the other box's.
        """
        still_closed: list[tuple[int, int]] = []
        for lo, hi in self.closed:
            held_lo, held_hi = max(lo, first), min(hi, last)
            if held_lo <= held_hi:
                self.received.reopen(held_lo, held_hi)
                self.lost = [part for known in self.lost for part in _outside(known, held_lo, held_hi)]
            above = max(lo, first, last + 1)
            if above <= hi:
                still_closed.append((above, hi))
        self.closed, self.told = still_closed, True

    def source_ms_beyond(self, number: int) -> int:
        """Source time, in ms, that we hold after frame `number`, to within `MARK_EVERY_MS`."""
        after = [source_ms for marked, source_ms in self.marks if marked >= number]
        if not after:
            return 0
        return self.last_source_ms - after[0] if self.marks[0][0] <= number else UNSYNCED_TAIL_MS_MAX + 1

    @property
    def highest_known(self) -> int:
        """The highest number that arrived or that a birth told of."""
        return max(self.received.highest, self.last or 0, *(hi for _, hi in self.uncounted))

    @property
    def length_ms(self) -> int:
        """Source time from the first mark kept to the newest frame; right as far as a second and beyond."""
        return self.last_source_ms - self.marks[0][1] if self.marks else 0

    def stored_uncounted(self, number: int) -> bool:
        """This frame came when there was no interval left, and is in the ledger."""
        return any(lo <= number <= hi for lo, hi in self.uncounted)

    def not_uncounted(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of frame ranges that are not in the ledger uncounted."""
        parts = list(ranges)
        for lo, hi in self.uncounted:
            parts = [part for known in parts for part in _outside(known, lo, hi)]
        return parts

    def note_uncounted(self, number: int) -> None:
        """Remember a frame that is stored but not counted; they come in ascending order."""
        if self.uncounted and self.uncounted[-1][1] == number - 1:
            self.uncounted[-1] = (self.uncounted[-1][0], number)
        else:
            self.uncounted = [*self.uncounted[1 - UNCOUNTED_RANGES_MAX :], (number, number)]


class Descent(Enum):
    """How the live stream of a birth comes from the one we took for live."""

    LEADS = "leads"  # stream by stream
    HIDDEN = "hidden"  # nobody can tell: the list is full
    BROKEN = "broken"  # through one of which we never heard enough to acknowledge it: a ledger newer than ours did
    STRANGE = "strange"  # not at all


@dataclass(frozen=True, slots=True)
class BirthFindings:
    """What a birth's list of streams told. `ended`: streams that nobody holds anything of any more."""

    losses: tuple[Loss, ...]
    new_stream: bool
    restored_disk: bool
    two_boxes: bool
    ended: tuple[int, ...] = ()


class NodeBook:
    """All streams of one node. Streams stand in the order the gateway learned of them."""

    def __init__(self) -> None:
        self.streams: dict[int, StreamState] = {}
        self.live = 0
        self.unproven = 0  # what was live before a full list hid how the present live stream comes from it
        self.strangers: list[int] = []  # positions (count of live streams) at which a wrong predecessor came
        self.live_count = 0

    # -- frames --

    def arrive(self, stream: int, sequence: int) -> Verdict:
        """Book one frame. A frame of an unknown stream opens it: its birth may come later, or be lost."""
        state = self.streams.setdefault(stream, StreamState())
        try:
            fresh = state.received.add(sequence, sequence)
        except IntervalsFullError:
            if stream == self.live and sequence > state.evaluated:
                state.evaluated = sequence
                state.note_uncounted(sequence)
                return Verdict.UNCOUNTED
            return Verdict.DUPLICATE  # not counted, so the edge sends it again when there is room
        if not fresh:
            return Verdict.DUPLICATE
        if stream == self.live and sequence > state.evaluated:
            state.evaluated = sequence
            return Verdict.CURRENT
        return Verdict.DUPLICATE if state.stored_uncounted(sequence) else Verdict.LATE

    def arrive_block(
        self, stream: int, first: int, last: int, dropped: Sequence[tuple[int, int, str]]
    ) -> tuple[list[tuple[int, int]], list[Loss]] | None:
        """Book a block's frames first..last, of which the edge had to drop some.

        Returns:
            The ranges not seen before (none: a duplicate) and the losses among them; None when there is no room
            to count it: nothing was booked, and it comes again.
        """
        state = self.streams.setdefault(stream, StreamState())
        try:
            fresh = state.received.add(first, last)
        except IntervalsFullError:
            return None
        losses = []
        for dropped_lo, dropped_hi, reason in dropped:
            for fresh_lo, fresh_hi in fresh:
                lo, hi = max(dropped_lo, fresh_lo), min(dropped_hi, fresh_hi)
                if lo <= hi:
                    state.lost.append((lo, hi))
                    losses.append(Loss(stream, lo, hi, f"dropped by the edge: {reason}"))
        return fresh, losses

    def time(self, stream: int, number: int, source_ms: int) -> None:
        """Note a frame's newest source time, for telling a restored disk from a torn tail."""
        state = self.streams[stream]
        if source_ms <= state.last_source_ms:
            return
        state.last_source_ms = source_ms
        if not state.marks or (source_ms - state.marks[-1][1] >= MARK_EVERY_MS and number > state.marks[-1][0]):
            state.marks = [*state.marks[1 - MARKS_MAX :], (number, source_ms)]

    # -- births --

    def born(
        self, live: int, spans: Sequence[StreamSpan], *, restored: bool = False, unended: bool = False
    ) -> BirthFindings:
        """Take in a birth.

        Args:
            live: the stream it opens or continues.
            spans: that stream and the unfinished ones.
            restored: this gateway was restored from a backup since the node's last birth, so it is the gateway
                that knows too little.
            unended: the node's last session has not ended: a box that was restored would have left it first.
        """
        told = {span.stream: span for span in spans}
        losses: list[Loss] = []
        ended: list[int] = []
        new_stream = live != self.live and live != 0
        cut = len(spans) >= UNFINISHED_LISTED_MAX
        known = self.unproven or self.live
        asked = known != 0 and (new_stream or self.unproven != 0)
        descent = self._descent(live, known, told, cut=cut) if asked else Descent.LEADS
        put_off = self.unproven != 0
        self.unproven = known if descent is Descent.HIDDEN else 0
        for span in spans:
            losses += self._learn(span, sealed=span.stream != live, cut=cut)
        if not cut:
            ended = self._unlisted(told, new_stream=new_stream)
            losses += [loss for stream in ended for loss in self._end(stream)]
        if new_stream:
            self.live = live
            self.live_count += 1
            self.streams.setdefault(live, StreamState())
        # While a list is full births follow each other within a session, and only the first of them tells two boxes.
        two_boxes = unended and not put_off and descent in (Descent.BROKEN, Descent.STRANGE)
        if descent is Descent.BROKEN or (descent is Descent.STRANGE and restored):
            # Neither the end of the stream we know nor the streams after it are told by anyone any more.
            cause = "gateway restored: all from here to this birth that it does not list, end unknown"
            losses.append(Loss(known, self.streams[known].highest_known + 1, 0, cause))
        elif descent is Descent.STRANGE:
            two_boxes = two_boxes or any(self.live_count - at <= TWO_BOXES_WITHIN_STREAMS for at in self.strangers)
            self.strangers = [*self.strangers[-7:], self.live_count]
            cause = "edge restored, or a second box under its id: its newest stream is not the one we know"
            losses.append(Loss(known, 0, 0, cause))
        restored = any(loss.cause.startswith("edge restored") for loss in losses)
        self._trim()
        return BirthFindings(tuple(losses), new_stream, restored, two_boxes, tuple(ended))

    def _descent(self, live: int, known: int, told: dict[int, StreamSpan], *, cut: bool) -> Descent:
        """Walk back from the live stream over predecessors that births listed; all must lead to the one we know.

        Only where full lists put the question off, streams count that former births listed: what followed the one we
        know has been acknowledged in part since, and that is not listed any more.
        """
        before = self._held_after_each(known)
        stream, seen = live, {live}
        while stream != known:
            state = self.streams.get(stream)
            if stream in told:
                stream = told[stream].predecessor
            elif self.unproven and state is not None and state.told:
                stream = state.predecessor
            elif state is not None and (state.told or state.closed):
                return Descent.STRANGE
            elif cut:
                return Descent.HIDDEN
            else:
                return Descent.BROKEN
            if stream in before:  # not the newest that we know: a torn tail, if what we hold after it is within a second
                return Descent.LEADS if before[stream] <= UNSYNCED_TAIL_MS_MAX else Descent.STRANGE
            if not stream or stream in seen:  # an empty disk, or a circle
                return Descent.STRANGE
            seen.add(stream)
        return Descent.LEADS

    def _held_after_each(self, stream: int) -> dict[int, int]:
        """Return a stream and those before it, with how much source time, in ms, the streams after each hold up to it."""
        held: dict[int, int] = {}
        after_ms = 0
        while stream in self.streams and stream not in held:
            held[stream] = after_ms
            state = self.streams[stream]
            stream, after_ms = state.predecessor, after_ms + state.length_ms
        return held

    def _learn(self, span: StreamSpan, *, sealed: bool, cut: bool) -> list[Loss]:
        """Take one listed stream in; what its edge no longer holds and we never got is lost.

        Args:
            cut: the list is full, so a predecessor that it leaves out may be held all the same.
        """
        losses: list[Loss] = []
        state = self.streams.setdefault(span.stream, StreamState())
        known = state.told and state.predecessor == span.predecessor
        state.listed(span.first, span.last)
        state.predecessor, state.predecessor_last = span.predecessor, span.predecessor_last
        if sealed:
            losses += self._seal(span.stream, span.last)
        losses += self._settle(span.stream, span.first - 1, "gateway restored: acknowledged before, unknown now")
        if span.predecessor and span.predecessor_last and (span.predecessor in self.streams or not known):  # else trimmed
            if span.predecessor not in self.streams and cut:
                self.streams[span.predecessor] = StreamState()
            elif span.predecessor not in self.streams:
                # Finished before we knew of it: either we were restored, or this gateway is new to the node.
                self.streams[span.predecessor] = StreamState()
                more = "" if self.live else " and all before it"
                cause = f"unknown predecessor{more}: acknowledged before, unknown now"
                losses += self._close(span.predecessor, span.predecessor_last, cause)
            losses += self._seal(span.predecessor, span.predecessor_last)
        return losses

    def _seal(self, stream: int, last: int) -> list[Loss]:
        """Note where a stream ends; an end well below what we hold means that the edge's disk was restored."""
        state = self.streams[stream]
        losses: list[Loss] = []
        if state.last is None or last > state.last:
            if state.received.highest > last and state.source_ms_beyond(last) > UNSYNCED_TAIL_MS_MAX:
                losses.append(Loss(stream, last + 1, state.received.highest, "edge restored: ends below what we hold"))
            state.last = max(last, state.received.highest)
        return losses

    def _unlisted(self, told: dict[int, StreamSpan], *, new_stream: bool) -> list[int]:
        """Return sealed streams that no birth lists any more: their holes will not be filled.

        A stream that none has listed yet is held by its edge, for nothing of it was acknowledged: the birth is older than
        what came of it. Only when others follow that leave it out as well, it was a disk's that is no more.
        """
        found: list[int] = []
        followed = {span.predecessor for span in told.values()}
        for stream, state in self.streams.items():
            if stream in told or state.finished:
                continue
            if not state.told and stream not in followed:
                state.passed += new_stream
                if state.passed < UNTOLD_PASSED_MAX:
                    continue
            found.append(stream)
        return found

    def _end(self, stream: int) -> list[Loss]:
        state = self.streams[stream]
        state.last = state.received.highest if state.last is None else state.last
        return self._close(stream, state.last, "no longer held by the edge")

    def _close(self, stream: int, upto: int, cause: str) -> list[Loss]:
        """Settle what no birth tells of; one that does, as of another box with this id, opens it again."""
        losses = self._settle(stream, upto, cause)
        self.streams[stream].closed += [(loss.first, loss.last) for loss in losses]
        return losses

    def _settle(self, stream: int, upto: int, cause: str) -> list[Loss]:
        state = self.streams[stream]
        missing = state.not_uncounted(state.received.close_gap(upto))  # those are in the ledger
        state.lost += missing
        return [Loss(stream, lo, hi, cause) for lo, hi in missing]

    def _trim(self) -> None:
        extra = len(self.streams) - STREAMS_KEPT_MAX
        if extra > 0:
            for stream in [s for s, state in self.streams.items() if state.finished and s not in (self.live, self.unproven)][:extra]:
                del self.streams[stream]

    def unsettled(self) -> list[int]:
        """Streams that still wait for frames, oldest knowledge first."""
        return [stream for stream, state in self.streams.items() if not state.finished and stream != self.live]

    def successor(self, stream: int) -> int:
        """Return the stream that names this one as its predecessor, or 0."""
        found = 0
        for candidate, state in self.streams.items():
            if state.predecessor == stream and candidate != stream:
                found = candidate
        return found

    def untold(self) -> list[int]:
        """Return the streams that frames came of, and no birth has told of yet."""
        return [stream for stream, state in self.streams.items() if not state.told and not state.finished]

    def following(self, stream: int) -> list[int]:
        """Return the streams that come after this one, or after one that it comes after itself."""
        before: dict[int, bool] = {}  # stream -> its predecessors lead here
        while stream in self.streams and stream not in before:
            before[stream] = True
            stream = self.streams[stream].predecessor
        leads = dict(before)
        for candidate in self.streams:
            path: list[int] = []
            while candidate in self.streams and candidate not in leads:
                leads[candidate] = False  # until it is known: a circle leads nowhere
                path.append(candidate)
                candidate = self.streams[candidate].predecessor
            for passed in path:
                leads[passed] = leads.get(candidate, False)
        return [each for each, leading in leads.items() if leading and each not in before]

    # -- persistence --

    def to_facts(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return {
            "live": self.live,
            "unproven": self.unproven,
            "live_count": self.live_count,
            "strangers": self.strangers,
            "streams": [
                [
                    stream, state.received.to_json(), state.last, state.predecessor, state.predecessor_last,
                    state.evaluated, state.last_source_ms, state.marks, state.lost, state.uncounted,
                    state.closed, state.told, state.passed,
                ]
                for stream, state in self.streams.items()
            ],
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> NodeBook:
        """Inverse of `to_facts`."""
        book = cls()
        book.live, book.live_count = facts["live"], facts["live_count"]
        book.unproven = facts.get("unproven", 0)  # not in a book from before there was this
        book.strangers = list(facts["strangers"])
        for (
            stream, received, last, predecessor, predecessor_last, evaluated, last_ms, marks, lost, uncounted, *more
        ) in facts["streams"]:  # fmt: skip
            closed, told = more[:2] or ([], True)  # of a book from before there were these
            passed = more[2] if len(more) > 2 else 0
            book.streams[stream] = StreamState(
                Received.from_json(received), last, predecessor, predecessor_last, evaluated, last_ms,
                [(number, at_ms) for number, at_ms in marks], [(lo, hi) for lo, hi in lost],
                [(lo, hi) for lo, hi in uncounted], [(lo, hi) for lo, hi in closed], told, passed,
            )
        return book


def _outside(known: tuple[int, int], lo: int, hi: int) -> list[tuple[int, int]]:
    """Return the parts of a range that lie outside of lo..hi."""
    parts = [(known[0], min(known[1], lo - 1)), (max(known[0], hi + 1), known[1])]
    return [(first, last) for first, last in parts if first <= last]
