"""The loop of one device: ask what is due, mark what failed, hand on what changed, and keep to the schedule.

Polls start at fixed moments. A poll that takes too long makes later ones be skipped, never queued.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edge.bus import TcpBus
from edge.errors import (
    BusDownError,
    ConnectionDroppedError,
    ExceptionReplyError,
    FieldLinkError,
    ReadTimeoutError,
)
from edge.gather import Gather
from edge.reads import BAD_BUSY, BAD_COMM, DeviceReads, Part, Refused, judge
from edge.scan import Scan

log = logging.getLogger(__name__)

MISSES_IN_A_ROW_MAX: Final = 2
"""Unanswered reads in one poll after which the rest of that poll is not worth the wait."""
BUSY_PAUSES_S: Final = (0.1, 0.2)
"""Pauses before a device that has just become busy is asked again in the same poll."""

Sink = Callable[[Scan], Awaitable[None] | None]


class Outcome(Enum):
    """What came of one question."""

    ANSWERED = "answered"
    REFUSED = "refused"
    BUSY = "has just become busy: worth asking again in this poll"
    MISSED = "no answer"
    OFFLINE = "the gateway says the unit is away"
    DOWN = "no connection"


@dataclass(frozen=True, slots=True)
class DeviceTiming:
    """How one device is to be asked. `phase_s` shifts all polls but the first, which comes at once."""

    name: str
    period_s: float
    timeout_s: float
    match_transaction: bool = True
    pause_s: float = 0.0
    phase_s: float = 0.0
    shared: bool = False
    """Other devices use the same bus."""


@dataclass(slots=True)
class PollCounts:
    """Of one device since the start."""

    polls: int = 0
    polls_failed: int = 0
    """Polls in which something had no value."""
    polls_skipped: int = 0
    """Poll moments that passed while an earlier poll was still under way."""
    samples_reported: int = 0


class DevicePoller:
    """Polls one device over its bus."""

    def __init__(
        self,
        timing: DeviceTiming,
        bus: TcpBus,
        reads: DeviceReads,
        gather: Gather,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.timing, self.bus, self.gather = timing, bus, gather
        self.counts = PollCounts()
        self.fault: str | None = None
        """What is wrong at present, in words; None when everything answers."""
        self._reads = reads
        self._now_ms, self._monotonic = now_ms, monotonic
        self._problem: str | None = None
        self._kind = self._kind_told = ""
        self._halves: tuple[Part, ...] = ()
        self._has_time = timing.period_s > 2 * sum(BUSY_PAUSES_S)
        self._answers = self._misses = self._misses_in_a_row = 0

    async def run(self, sink: Sink) -> None:
        """Poll until cancelled. `sink` gets every scan worth sending; while it waits, nothing is asked."""
        period_s, started = self.timing.period_s, self._monotonic()
        await self.poll(sink)
        origin, slot = started + self.timing.phase_s, 0 if self.timing.phase_s else 1
        while True:
            passed = math.floor((self._monotonic() - origin) / period_s)
            if passed > slot:
                # The newest moment that has passed is used at once, the older ones are lost.
                self.counts.polls_skipped += passed - slot
                slot = passed
            await asyncio.sleep(origin + slot * period_s - self._monotonic())
            await self.poll(sink)
            slot += 1

    async def poll(self, sink: Sink) -> None:
        """Ask everything that is due, once, and hand on what is worth sending."""
        self.counts.polls += 1
        self._problem = None
        self._answers = self._misses = self._misses_in_a_row = 0
        self._reads.begin_cycle()
        self.gather.begin()
        if self._reads.contacted:
            await self._ask_all(sink)
        else:
            await self._approach(sink)
        if self._misses and not self._answers:
            self._reads.silent(self._monotonic())
        await self._emit(sink)
        self._tell()

    async def _approach(self, sink: Sink) -> None:
        """Ask one thing of a unit that has not answered; if it does, ask the rest."""
        reads, bus, timing = self._reads, self.bus, self.timing
        if reads.silent_cycles and timing.shared:
            now = self._monotonic()
            if now < reads.probe_from or not self._take_turn():
                self._problem = self.fault
                self.gather.failed_rest(reads.silent_code, self._now_ms())
                return
        outcome = await self._ask(reads.probe())
        if outcome is Outcome.MISSED and not timing.shared and reads.sound:
            # One silent block must not pass for a silent unit where a second question holds up nobody else.
            outcome = await self._ask(reads.sound[0])
        if outcome in (Outcome.ANSWERED, Outcome.REFUSED):
            bus.turns.answered(self._monotonic())
            await self._ask_all(sink)
        else:
            code = reads.silent_code if outcome is Outcome.OFFLINE else BAD_COMM
            self.gather.failed_rest(code, self._now_ms())

    async def _ask_all(self, sink: Sink) -> None:
        """Ask the sound parts, then the suspects: what works does not wait for what does not."""
        reads, poll = self._reads, self.counts.polls
        busy: list[Part] = []
        for part in reads.sound:
            if part.asked_in == poll:
                continue
            outcome = await self._ask(part, patient=True)
            if outcome is Outcome.BUSY:
                busy.append(part)
            elif outcome is Outcome.MISSED:
                await self._emit(sink)
            if self._ends(outcome):
                return
        if not reads.suspect:
            return
        due = [part for part in reads.due(self._monotonic()) if part.asked_in != poll]
        asked_now = set(due)
        for part in reads.suspect:
            if part.asked_in != poll and part not in asked_now:
                self._leave(part)
        if due or busy:
            await self._emit(sink)
            await self._ask_suspects(due)
            await self._ask_busy(busy)

    async def _ask_suspects(self, due: list[Part]) -> None:
        due.reverse()
        while due:
            part = due.pop()
            if part.retired:
                continue
            if part.failed_code == BAD_COMM and self.timing.shared and not self._take_turn():
                self._leave(part)
                continue
            outcome = await self._ask(part)
            if self._ends(outcome):
                return
            due.extend(reversed(self._halves))

    async def _ask_busy(self, busy: list[Part]) -> None:
        """Ask again, a little later each time, what answered "busy" and is not marked BAD yet."""
        for pause_s in BUSY_PAUSES_S:
            if not busy:
                return
            await asyncio.sleep(pause_s)
            still_busy: list[Part] = []
            for part in busy:
                outcome = await self._ask(part)
                if self._ends(outcome):
                    return
                if part.failed_code == BAD_BUSY:
                    still_busy.append(part)
            busy = still_busy

    async def _ask(self, part: Part, *, patient: bool = False) -> Outcome:
        """Ask one thing and record what came. Samples of a part that is `patient`ly asked may stay open."""
        timing = self.timing
        part.asked_in = self.counts.polls
        self._halves = ()
        try:
            content = await self.bus.read(
                part.request,
                timeout_s=timing.timeout_s,
                match_transaction=timing.match_transaction,
                pause_s=timing.pause_s,
            )
        except ExceptionReplyError as error:
            return self._refused(part, error, patient)
        except (ReadTimeoutError, ConnectionDroppedError) as error:
            self._note(error, error.__class__.__name__)
            self._misses += 1
            self._misses_in_a_row += 1
            is_retry = self._reads.is_split_whole(part)
            self._reads.unanswered(part, self._monotonic())
            if not is_retry:
                self.gather.failed(part.rows, BAD_COMM, self._now_ms())
            return Outcome.MISSED
        except BusDownError as error:
            self._note(error, error.__class__.__name__)
            return Outcome.DOWN
        at_ms = self._now_ms()
        self._answers += 1
        self._misses_in_a_row = 0
        self._reads.answered(part)
        self.gather.answered(part.block, part.rows, content, at_ms)
        return Outcome.ANSWERED

    def _refused(self, part: Part, error: ExceptionReplyError, patient: bool) -> Outcome:
        self._note(error, f"exception {error.exception_code}")
        self._misses_in_a_row = 0
        refused, code = judge(error.exception_code)
        is_retry = self._reads.is_split_whole(part)
        self._halves = self._reads.refused(part, error.exception_code, self._monotonic())
        if refused is Refused.OFFLINE:
            return Outcome.OFFLINE
        self._answers += 1
        if refused is Refused.BUSY and patient and self._has_time:
            return Outcome.BUSY
        if not is_retry and not self._halves:
            self.gather.failed(part.rows, code, self._now_ms())
        return Outcome.REFUSED

    def _ends(self, outcome: Outcome) -> bool:
        """Tell whether the poll is over; if so, whatever was not heard of is BAD now."""
        if outcome is Outcome.OFFLINE:
            self.gather.failed_rest(self._reads.silent_code, self._now_ms())
        elif outcome is Outcome.DOWN or self._misses_in_a_row >= MISSES_IN_A_ROW_MAX:
            self.gather.failed_rest(BAD_COMM, self._now_ms())
        else:
            return False
        return True

    def _leave(self, part: Part) -> None:
        """Do not ask now: the points keep their fault."""
        self.gather.failed(part.rows, part.failed_code, self._now_ms())
        self._problem = self._problem or self.fault

    def _take_turn(self) -> bool:
        return self.bus.turns.take(self.timing.name, self._monotonic(), self.timing.timeout_s)

    async def _emit(self, sink: Sink) -> None:
        scan = self.gather.flush()
        if scan is not None:
            self.counts.samples_reported += len(scan)
            held = sink(scan)
            if held is not None:
                await held

    def _note(self, error: FieldLinkError, kind: str) -> None:
        self._problem, self._kind = str(error), kind

    def _tell(self) -> None:
        """Log when the kind of trouble changes, not at every poll."""
        if self._problem is None:
            if self.fault is not None:
                log.info("%s: answers again", self.timing.name)
        else:
            self.counts.polls_failed += 1
            if self.fault is None or self._kind != self._kind_told:
                log.warning("%s: %s", self.timing.name, self._problem)
                self._kind_told = self._kind
        self.fault = self._problem
