"""What waits for one receiver, and which of it may be sent now. Pure: times come in, no clock inside.

Four lanes, each with its own bound on what is in flight, so red never waits for blue. Inside a lane an
alarm's notices form a chain: a later revision is not sent before the earlier one was accepted, or was
definitely refused three times. Such a notice stands aside (parked; a regulator's keeps its place in the
schedule) and is still tried every 60 s. While a receiver is down, it is probed instead of flooded.

Times are milliseconds of one monotonic clock, never of the wall clock.
"""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass
from typing import Final

from alerting.delivery.outbox import LANES, Notice, OutboxRow
from alerting.delivery.schedule import REFUSALS_MAX, URGENT_LANES, Outcome, Verdict, delay_ms

IN_FLIGHT_MAX: Final = 8
PARKED_IN_FLIGHT_MAX: Final = 1
LANE_ENTRIES_MAX: Final = 50_000
DOWN_AFTER_MS: Final = 30_000
PROBE_GAP_MS: Final = 10_000
PROBE_GAP_URGENT_MS: Final = 1_000
"""Least time between two probes of a receiver that is down; a fresh red or orange notice waits for none."""


@dataclass(slots=True, eq=False)
class Entry:
    """One notice on its way. Mutable; owned by its lane."""

    notice: Notice
    order: int
    due_ms: int
    attempts: int = 0
    refusals: int = 0
    in_flight: bool = False
    parked: bool = False
    free: bool = False
    """Holds nothing back and is held back by nothing: parked, or a regulator's refused notice."""
    gone: bool = False
    version: int = 0

    @property
    def unjournaled(self) -> bool:
        return not isinstance(self.notice, OutboxRow)

    @property
    def key(self) -> str:
        return self.notice.id + ("~" if self.unjournaled else "")


@dataclass(frozen=True, slots=True)
class Settled:
    """What a verdict meant for an entry. `next_ms` None: accepted, or its own row takes over."""

    attempt: int
    next_delay_ms: int | None
    accepted: bool
    parked: bool


class _Queue:
    """Entries by due time; an entry pushed again makes its older place void."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Entry]] = []

    def push(self, entry: Entry) -> None:
        entry.version += 1
        heapq.heappush(self._heap, (entry.due_ms, entry.order, entry.version, entry))

    def first(self) -> Entry | None:
        while self._heap:
            _, _, version, entry = self._heap[0]
            if version == entry.version and not entry.gone and not entry.in_flight:
                return entry
            heapq.heappop(self._heap)
        return None

    def hasten(self, now_ms: int) -> None:
        """Make the first entry due."""
        entry = self.first()
        if entry is not None and entry.due_ms > now_ms:
            entry.due_ms = now_ms
            self.push(entry)

    def all_due(self, now_ms: int) -> None:
        """Make everything due, oldest first."""
        heap = []
        for _, _, version, entry in self._heap:
            if version == entry.version and not entry.gone and not entry.in_flight:
                entry.due_ms = min(entry.due_ms, now_ms)
                heap.append((entry.due_ms, entry.order, version, entry))
        heapq.heapify(heap)
        self._heap = heap


class _Lane:
    """One priority of one receiver: what is here, in which order, and how much of it is on the wire."""

    __slots__ = ("chains", "entries", "in_flight", "missing", "parked", "parked_in_flight", "ready", "urgent")

    def __init__(self, name: str) -> None:
        self.urgent = name in URGENT_LANES
        self.entries: dict[str, Entry] = {}
        self.chains: dict[str, list[Entry]] = {}
        self.ready, self.parked = _Queue(), _Queue()
        self.in_flight = self.parked_in_flight = 0
        self.missing: OutboxRow | None = None
        """The first row that did not fit: later ones must not overtake it."""

    def insert(self, entry: Entry) -> None:
        self.entries[entry.key] = entry
        if entry.parked:
            entry.free = True
            self.parked.push(entry)
            return
        chain = self.chains.setdefault(entry.notice.alarm_id, [])
        insort(chain, entry, key=_place)
        if chain[0] is entry:
            self.ready.push(entry)
            if len(chain) > 1:
                chain[1].version += 1  # it was the head: out of the queue until its turn comes again

    def requeue(self, entry: Entry) -> None:
        """Let a landed entry wait for its next attempt, behind any earlier revision that came meanwhile."""
        if entry.parked:
            self.parked.push(entry)
        elif entry.free:
            self.ready.push(entry)
        else:
            chain = self.chains[entry.notice.alarm_id]
            chain.sort(key=_place)
            self.ready.push(chain[0])

    def leave_chain(self, entry: Entry, now_ms: int) -> None:
        if entry.free:
            return
        chain = self.chains[entry.notice.alarm_id]
        was_head = chain[0] is entry
        chain.remove(entry)
        if not chain:
            del self.chains[entry.notice.alarm_id]
        elif was_head:
            chain[0].due_ms = max(chain[0].due_ms, now_ms)
            self.ready.push(chain[0])

    def drop(self, entry: Entry, now_ms: int) -> None:
        entry.gone = True
        del self.entries[entry.key]
        self.leave_chain(entry, now_ms)

    def next_due(self) -> Entry | None:
        """Return the entry to send next if there is room for it, whenever it may be due."""
        room = self.in_flight < IN_FLIGHT_MAX
        ready = self.ready.first() if room else None
        parked = self.parked.first() if room and self.parked_in_flight < PARKED_IN_FLIGHT_MAX else None
        if ready is None or parked is None:
            return ready or parked
        return ready if ready.due_ms <= parked.due_ms else parked


def _place(entry: Entry) -> tuple[bool, int, bool, int]:
    """Order inside a chain: what is on the wire, then by revision, the unjournaled notice before its row."""
    return (not entry.in_flight, entry.notice.revision, not entry.unjournaled, entry.order)


class ReceiverLanes:
    """Everything that waits for one receiver."""

    def __init__(self, *, regulator: bool, entries_max: int = LANE_ENTRIES_MAX) -> None:
        """Args: regulator: its notices are never parked. entries_max: bound per lane."""
        self._regulator, self._entries_max = regulator, entries_max
        self._lanes = {name: _Lane(name) for name in LANES}
        self._order = 0
        self.due_count = 0
        self.refused_count = 0
        """Notices that were definitely refused three times and are still here."""
        self._failed_since_ms: int | None = None
        self._beat_failed_since_ms: int | None = None
        self._last_probe_ms: int | None = None
        self.down = False

    # what comes in

    def offer(self, row: OutboxRow, now_ms: int, due_ms: int) -> bool:
        """Take on a committed row; rows come in the order of their sequences, one already here is passed by.

        Args:
            due_ms: when it may be tried.

        Returns:
            False: it does not fit. From this row on the lane takes none until this one is offered again
            (see `shortfall`), or an alarm's order could break.
        """
        lane = self._lanes[row.lane]
        if row.id in lane.entries:
            return True
        if lane.missing is not None and lane.missing.id != row.id:
            return False
        if len(lane.entries) >= self._entries_max:
            lane.missing = row
            return False
        lane.missing = None
        self._order += 1
        entry = Entry(row, self._order, due_ms, row.attempts, parked=row.parked)
        earlier = lane.entries.get(row.id + "~")
        if earlier is not None and not earlier.in_flight:
            entry.due_ms = max(due_ms, earlier.due_ms) if earlier.attempts else due_ms
            self._count(earlier, -1)
            lane.drop(earlier, now_ms)
        lane.insert(entry)
        self._count(entry, +1)
        return True

    def offer_unjournaled(self, notice: Notice, now_ms: int) -> bool:
        """Take on a notice that has no sequence yet; its row comes later, with the same id.

        Returns: False: it does not fit; its row will have to do.
        """
        lane = self._lanes[notice.lane]
        if notice.id in lane.entries or notice.id + "~" in lane.entries:
            return True
        if len(lane.entries) >= self._entries_max:
            return False
        self._order += 1
        entry = Entry(notice, self._order, now_ms)
        lane.insert(entry)
        self._count(entry, +1)
        return True

    def shortfall(self, name: str) -> OutboxRow | None:
        """Return the first row a lane has no room for and now could take, half empty as it is; else None."""
        lane = self._lanes[name]
        return lane.missing if len(lane.entries) <= self._entries_max // 2 else None

    # what goes out

    def take(self, name: str, now_ms: int) -> list[Entry]:
        """Return the entries of a lane to send now; they are in flight until `settle`."""
        lane, taken = self._lanes[name], []
        while (entry := lane.next_due()) is not None and self._may_send(name, entry, now_ms):
            entry.in_flight = True
            lane.in_flight += 1
            lane.parked_in_flight += entry.parked
            if self.down:
                self._last_probe_ms = now_ms
            taken.append(entry)
        return taken

    def settle(self, entry: Entry, verdict: Verdict, now_ms: int, jitter: float) -> Settled:
        """Book the verdict on an attempt and decide what becomes of its notice.

        Args:
            jitter: a random number in [-1, 1].
        """
        lane = self._land(entry)
        entry.attempts += 1
        if verdict.outcome is Outcome.ACCEPTED:
            self._count(entry, -1)
            lane.drop(entry, now_ms)
            self._accepted(now_ms)
            return Settled(entry.attempts, None, accepted=True, parked=False)
        if verdict.outcome is Outcome.REFUSED:
            entry.refusals += 1
        refused_out = entry.parked or entry.refusals >= REFUSALS_MAX
        delay = delay_ms(
            urgent=lane.urgent, attempts=entry.attempts, jitter=jitter,
            retry_after_ms=verdict.retry_after_ms, refused_out=refused_out,
        )  # fmt: skip
        entry.due_ms = now_ms + delay
        if not refused_out and self._failed_since_ms is None:
            self._failed_since_ms = now_ms
        row = lane.entries.get(entry.notice.id) if entry.unjournaled else None
        if row is not None:  # its row has come meanwhile and goes on in its stead
            self._count(entry, -1)
            row.due_ms = max(row.due_ms, entry.due_ms)
            lane.drop(entry, now_ms)
            return Settled(entry.attempts, None, accepted=False, parked=False)
        if refused_out and not entry.free:
            self._count(entry, -1)
            lane.leave_chain(entry, now_ms)
            entry.free, entry.parked = True, not self._regulator
            self._count(entry, +1)
            self._forget_failure_if_idle()
        lane.requeue(entry)
        return Settled(entry.attempts, delay, accepted=False, parked=entry.parked)

    def wake_ms(self, name: str, now_ms: int) -> int | None:
        """Return when to call `take` next if nothing else happens; None: not before something does."""
        lane = self._lanes[name]
        entry = lane.next_due()
        if entry is None:
            return None
        if not self.down:
            return entry.due_ms
        at_ms = max(entry.due_ms, self._probe_from_ms(lane, entry), now_ms)
        return None if self._probe_before(name, at_ms) else at_ms

    # health

    def beat(self, alive: bool, now_ms: int) -> None:
        """Book a heartbeat's result: it shows the path, not that notices are taken."""
        if not alive:
            if self._beat_failed_since_ms is None:
                self._beat_failed_since_ms = now_ms
            return
        self._beat_failed_since_ms = None
        if self.down:
            self._last_probe_ms = None
            for lane in self._lanes.values():
                lane.ready.hasten(now_ms)
            if self._failed_since_ms is None or self.due_count == 0:
                self.down, self._failed_since_ms = False, None

    def check_down(self, now_ms: int) -> bool:
        """Decide whether the receiver is down by now; once down, only an accepted message ends it."""
        since = self.failing_since_ms()
        if since is not None and now_ms - since >= DOWN_AFTER_MS:
            self.down = True
        return self.down

    def failing_since_ms(self) -> int | None:
        """Return since when nothing was accepted though something was due (None: all is well)."""
        notices = self._failed_since_ms if self.due_count else None
        known = [since for since in (notices, self._beat_failed_since_ms) if since is not None]
        return min(known, default=None)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return per lane how many notices wait (`due`) and how many stand aside (`refused`)."""
        counted = {}
        for name, lane in self._lanes.items():
            refused = sum(entry.free for entry in lane.entries.values()) if lane.entries else 0
            counted[name] = {"due": len(lane.entries) - refused, "refused": refused}
        return counted

    def refused_rows(self, most: int) -> list[OutboxRow]:
        """Return up to `most` rows that were definitely refused, most urgent lane first."""
        found = []
        for lane in self._lanes.values():
            for entry in lane.entries.values():
                if entry.free and isinstance(entry.notice, OutboxRow):
                    found.append(entry.notice)
                    if len(found) >= most:
                        return found
        return found

    def in_flight(self, name: str) -> int:
        """Return how many notices of a lane are on the wire."""
        return self._lanes[name].in_flight

    def _land(self, entry: Entry) -> _Lane:
        lane = self._lanes[entry.notice.lane]
        assert entry.in_flight, "only what was taken can be settled"
        entry.in_flight = False
        lane.in_flight -= 1
        lane.parked_in_flight -= entry.parked
        return lane

    def _accepted(self, now_ms: int) -> None:
        was_down, self.down = self.down, False
        self._failed_since_ms = self._beat_failed_since_ms = self._last_probe_ms = None
        if was_down:
            for lane in self._lanes.values():
                lane.ready.all_due(now_ms)

    def _count(self, entry: Entry, step: int) -> None:
        if entry.free:
            self.refused_count += step
        else:
            self.due_count += step

    def _forget_failure_if_idle(self) -> None:
        if self.due_count == 0 and not self.down:
            self._failed_since_ms = None

    def _may_send(self, name: str, entry: Entry, now_ms: int) -> bool:
        if entry.due_ms > now_ms or not self.down:
            return entry.due_ms <= now_ms
        return self._probe_from_ms(self._lanes[name], entry) <= now_ms and not self._probe_before(name, now_ms)

    def _probe_before(self, name: str, now_ms: int) -> bool:
        """Whether a lane as urgent as this one has a probe out, or a more urgent one wants the next."""
        for other, lane in self._lanes.items():
            if lane.in_flight:
                return True
            if other == name:
                return False
            waiting = lane.next_due()
            if waiting is not None and max(waiting.due_ms, self._probe_from_ms(lane, waiting)) <= now_ms:
                return True
        raise AssertionError(f"no such lane: {name}")

    def _probe_from_ms(self, lane: _Lane, entry: Entry) -> int:
        if self._last_probe_ms is None or (lane.urgent and entry.attempts == 0):
            return 0
        return self._last_probe_ms + (PROBE_GAP_URGENT_MS if lane.urgent else PROBE_GAP_MS)
