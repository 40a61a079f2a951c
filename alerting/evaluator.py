"""The rules: samples, silence and time against every limit of every tag.

Columnar. A batch is compared with the quiet bands in one pass, and almost every sample leaves there; the rest goes
through the exact rules, many tags at once (`waves`, `bulk`) or one by one, as here. The result is the same whatever
way samples are cut into batches.

A level falls only on a GOOD sample. Ticks, deaths, BAD and UNCERTAIN samples may raise, never lower.
This module decides *that* a limit was crossed; ids, occurrences and the life cycle are the callers'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerting.bulk import Rules, Samples
from alerting.lastsamples import Columns, LastSamples
from alerting.limits import LimitTable
from alerting.observed import FrameKey, Observed
from alerting.phases import (
    ACTIVE,
    CODE_NOT_A_NUMBER,
    CODE_UNHEARD,
    ENTERING,
    GOOD_FROM,
    LEAVING,
    NORMAL,
    UNCERTAIN_FROM,
    VALUE_MAX,
)
from alerting.quiet import QuietBands
from alerting.step import Step
from alerting.waves import Waves

NEVER_MS = int(np.iinfo(np.int64).max)

TAGS_NOTED_MIN = 1_024

# The columns a dump holds, in its order.
TAG_STATE: dict[str, Any] = {
    "value": np.float64, "code": np.uint8, "source_ms": np.int64, "heard": np.bool_, "known": np.bool_,
    "silent": np.bool_, "only_raise": np.bool_, "seen_engine_ms": np.int64, "last_stream": np.int64,
    "last_sequence": np.int64, "excused_ms": np.int64,
}
ROW_STATE: dict[str, Any] = {
    "phase": np.uint8, "since_source_ms": np.int64, "since_stream": np.int64, "since_engine_ms": np.int64,
    "step_stream": np.int64, "step_sequence": np.int64, "step_count": np.int32,
}
LAST_STATE = ("value", "code", "source_ms", "last_stream", "last_sequence", "seen_engine_ms")


class Evaluator:
    """State of all rows of one table.

    Args:
        limits: the table; rows 0 … limits.rows - 1 are limits, then follows one fault row per tag.
        engine_ms: engine time from which the silence of tags never heard is counted.
        history: run delays on source time alone: what is evaluated lies in the past.
    """

    def __init__(self, limits: LimitTable, engine_ms: int, *, history: bool = False) -> None:
        self.limits, self.history = limits, history
        tags, rows = limits.tags, limits.rows + limits.tags
        self.fault_row = limits.rows
        self.last = LastSamples(tags, engine_ms)
        self.heard, self.known, self.silent, self.only_raise = (np.zeros(tags, np.bool_) for _ in range(4))
        self.excused_ms = np.zeros(tags, np.int64)  # until then silence is not the tag's fault; 0 is never
        self.phase = np.zeros(rows, np.uint8)
        self.since_source_ms, self.since_stream = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.since_engine_ms = np.zeros(rows, np.int64)
        self.step_stream, self.step_sequence = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self.step_count = np.zeros(rows, np.int32)
        # Derived, never stored.
        self.rules = Rules.of(limits)
        self.bands = QuietBands(tags)
        self.entering: set[int] = set()
        self._tag = np.empty(TAGS_NOTED_MIN, np.intp)
        self._waves = Waves(self)
        self._entering_due_ms = self._stale_due_ms = NEVER_MS
        self._compile()
        self._watch_silence()

    def _compile(self) -> None:
        """Build what the exact rules read."""
        limits, rules = self.limits, self.rules
        self._side, self._raise, self._clear = _view(rules.side), _view(rules.over), _view(rules.clear)
        self._on_ms, self._off_ms = _view(rules.on_ms), _view(rules.off_ms)
        self._edge_normal, self._edge_active = _view(rules.edge_normal), _view(rules.edge_active)
        self._row_start = _view(limits.row_start)
        self._in_service = _view(limits.in_service)
        self._stale_after_ms = _view(limits.stale_after_ms)
        self._phase_at, self._step_count_at = _view(self.phase), _view(self.step_count)
        self._since_source_ms_at = _view(self.since_source_ms)
        self._since_stream_at = _view(self.since_stream)
        self._since_engine_ms_at = _view(self.since_engine_ms)
        self._step_stream_at = _view(self.step_stream)
        self._step_sequence_at = _view(self.step_sequence)
        self._heard_at, self._known_at = _view(self.heard), _view(self.known)
        self._silent_at, self._only_raise_at = _view(self.silent), _view(self.only_raise)

    # -- facts in ----------------------------------------------------------------------------------------

    def samples(self, engine_ms: int, observed: Observed) -> list[Step]:
        """Evaluate samples in order and return the steps they caused, in the same order.

        Raises:
            IndexError: a sample of no tag; nothing has changed.
        """
        count, value, code = len(observed.tag), observed.value, observed.code
        if not count:
            return []
        # Read as unsigned, a tag below 0 is beyond the last.
        if count > len(self._tag):
            self._tag = np.empty(count, np.intp)
        tag = self._tag[:count]
        np.copyto(tag, observed.tag.view(np.uint32))
        rough, bad = self.bands.outside(tag, value, code)
        if rough is None:
            self.last.note(engine_ms, observed, value, code)
            return []
        if bad is not None and np.count_nonzero(np.isnan(value[bad])) < len(bad):
            value = value.copy()
            value[bad] = np.nan
        strange = rough[~np.isfinite(value[rough]) & (code[rough] >= UNCERTAIN_FROM)]
        if len(strange):
            # A number that is none is BAD, whatever it came marked as.
            value, code = value.copy(), code.copy()
            value[strange], code[strange] = np.nan, CODE_NOT_A_NUMBER
        self.last.note(engine_ms, observed, value, code)
        samples = Samples(tag, value, code, observed.source_ms, observed.frame, observed.frames)
        return self._waves.run(engine_ms, samples, rough)

    def tick(self, engine_ms: int, at_ms: int | None = None) -> tuple[bool, list[Step]]:
        """Let time pass: on-delays ripen, silent tags become stale. Returns (anything changed, steps).

        Args:
            at_ms: UTC now, used only for tags that were never heard.
        """
        steps: list[Step] = []
        changed = False
        if engine_ms >= self._entering_due_ms:
            for row in sorted(self.entering):
                since_ms = self._since_engine_ms_at[row]
                if engine_ms - since_ms >= self._on_ms[row]:
                    self.entering.discard(row)
                    self._phase_at[row] = ACTIVE
                    at = self._since_source_ms_at[row] + engine_ms - since_ms
                    tag = self._tag_of(row)
                    steps.append(self._timed_step(row, tag, at))
                    self.settle(tag)
                    changed = True
            self._watch_entering()
        if engine_ms >= self._stale_due_ms:
            ripe = np.flatnonzero(self._stale_at() <= engine_ms).tolist()
            for tag in ripe:  # fallen silent just now, or the time it was excused for is over
                self._go_stale(tag, engine_ms, at_ms, steps)
            changed = changed or bool(ripe)
            self._watch_silence()
        return changed, steps

    def stale(self, engine_ms: int, tags: Iterable[int], at_ms: int | None = None) -> tuple[bool, list[Step]]:
        """Make tags stale at once: the node or device that brought them has died. Returns as `tick` does.

        The death is an alarm of its own, so the tags' faults wait for their delay: a node that is back within it
        does not fill the list with one fault for each of its tags.
        """
        steps: list[Step] = []
        fresh = [tag for tag in tags if not self._silent_at[tag]]
        for tag in fresh:
            self._go_stale(tag, engine_ms, at_ms, steps, died=True)
        return bool(fresh), steps

    def downtime(self, ms: int) -> None:
        """Shift running delays by a time in which nobody watched; silence keeps its own count."""
        running = (self.phase == ENTERING) | (self.phase == LEAVING)
        self.since_engine_ms[running] += ms
        if self.entering:
            self._entering_due_ms += ms
        self.excused_ms[self.silent & (self.excused_ms > 0)] += ms
        self._watch_silence()

    def excuse(self, engine_ms: int, tags: Iterable[int], until_ms: int) -> bool:
        """Until then the silence of these tags is not held against them: they go stale, and raise no fault for it.

        A tag that is silent already gets no more time, or one excuse after the other would hide it for ever.
        """
        fresh = [tag for tag in tags if not self._silent_at[tag] and until_ms > max(engine_ms, self.excused_ms[tag])]
        self.excused_ms[fresh] = until_ms
        return bool(fresh)

    def excuse_ends(self, tags: Iterable[int], until_ms: int) -> bool:
        """No excuse of these tags lasts longer than until then. Tells whether one would have."""
        shorter = [tag for tag in tags if self.excused_ms[tag] > until_ms]
        self.excused_ms[shorter] = until_ms
        self._watch_silence()
        return bool(shorter)

    def review(self, engine_ms: int, cause: str) -> tuple[bool, list[Step]]:
        """Hold what is known of every tag against rows that are normal. Returns as `tick` does.

        Rows a new configuration or the ledger has set back meet the present this way: a value that is over is
        not made again by a sensor that reports changes only. May raise, never lowers; delays begin now.
        """
        steps: list[Step] = []
        limits, table_rows, seen_ms = self.limits, self.limits.rows, self.last.seen_engine_ms()
        value, code, source_ms = self.last.value, self.last.code, self.last.source_ms
        measured = (code >= UNCERTAIN_FROM) & (engine_ms - seen_ms < limits.stale_after_ms) & ~self.silent
        owner = limits.row_tag
        over = self.rules.side * value[owner] >= self.rules.over
        found = np.flatnonzero(over & measured[owner] & (self.phase[:table_rows] == NORMAL)).tolist()
        untold = (self.phase[table_rows:] == NORMAL) & self.heard & limits.in_service
        untold &= (code < UNCERTAIN_FROM) & (code != CODE_UNHEARD)
        found += (table_rows + np.flatnonzero(untold & ~self.silent)).tolist()
        for row in found:
            tag = self._tag_of(row)
            at_ms = int(source_ms[tag]) + engine_ms - int(seen_ms[tag])
            if self._ripe(row, False, self._on_ms[row], at_ms, self.last_frame(tag).stream, engine_ms):
                self._phase_at[row] = ACTIVE
                steps.append(self._timed_step(row, tag, at_ms, cause))
            else:
                self._enter(row)
            self.settle(tag)
        silent = np.flatnonzero(untold & self.silent)
        self.silent[silent] = False  # the next tick finds them silent, and says so
        self._watch_silence()
        return bool(found) or bool(len(silent)), steps

    def put(self, row: int, phase: int) -> None:
        """Set a row to NORMAL or ACTIVE, because the ledger says so."""
        assert phase in (NORMAL, ACTIVE), "delays are never dictated"
        self._phase_at[row] = phase
        self.entering.discard(row)
        tag = self._tag_of(row)
        if row >= self.fault_row:
            self.excused_ms[tag] = 0
        self.settle(tag)

    # -- facts out ---------------------------------------------------------------------------------------

    def last_frame(self, tag: int) -> FrameKey:
        """Return the frame a tag was last in; (0, 0) when it was never heard."""
        return self.last.key(tag)

    def columns(self) -> tuple[Columns, Columns]:
        """Return the whole state, copies: tag columns as in TAG_STATE, row columns as in ROW_STATE."""
        last = self.last.columns()
        tags = {name: last[name] if name in last else getattr(self, name).copy() for name in TAG_STATE}
        rows = {name: getattr(self, name).copy() for name in ROW_STATE}
        running = (self.phase == ENTERING) | (self.phase == LEAVING)
        for name in ("since_source_ms", "since_stream", "since_engine_ms"):
            rows[name][~running] = 0  # left over from a delay that is over: no part of the state
        return tags, rows

    def load(self, tags: Columns, rows: Columns) -> None:
        """Replace the whole state by columns as `columns` returns them."""
        for name in TAG_STATE:
            if name not in LAST_STATE:
                getattr(self, name)[:] = tags[name]
        for name in ROW_STATE:
            getattr(self, name)[:] = rows[name]
        self.last.load(tags)
        for tag in range(self.limits.tags):
            self.settle(tag)
        self.entering = set(np.flatnonzero(self.phase == ENTERING).tolist())
        self._watch_entering()
        self._watch_silence()

    # -- the rules ---------------------------------------------------------------------------------------

    def sample(self, tag: int, value: float, code: int, source_ms: int, key: FrameKey, engine_ms: int,
                steps: list[Step]) -> None:
        """Apply one sample to all rows of its tag. `trusted` is what may lower: GOOD and not held back."""
        bad = code < UNCERTAIN_FROM
        trusted = code >= GOOD_FROM and not self._only_raise_at[tag]
        phase, stream = self._phase_at, key.stream
        self._heard_at[tag] = True
        if self._silent_at[tag]:
            self._silent_at[tag] = False
            self._stale_due_ms = min(self._stale_due_ms, engine_ms + self._stale_after_ms[tag])
        for row in range(self._row_start[tag], self._row_start[tag + 1]):
            now = phase[row]
            if bad:
                if now == LEAVING:
                    phase[row] = ACTIVE
                continue
            sided = self._side[row] * value
            if now < ACTIVE:
                if sided >= self._raise[row]:
                    if self._ripe(row, now == ENTERING, self._on_ms[row], source_ms, stream, engine_ms):
                        self.entering.discard(row)
                        phase[row] = ACTIVE
                        steps.append(self._step(row, tag, True, value, code, source_ms, key))
                    elif now == NORMAL:
                        self._enter(row)
                elif trusted and now == ENTERING:
                    phase[row] = NORMAL
                    self.entering.discard(row)
            elif trusted and sided < self._clear[row]:
                if self._ripe(row, now == LEAVING, self._off_ms[row], source_ms, stream, engine_ms):
                    phase[row] = NORMAL
                    steps.append(self._step(row, tag, False, value, code, source_ms, key))
                else:
                    phase[row] = LEAVING
            elif now == LEAVING:
                phase[row] = ACTIVE
        if self._in_service[tag]:
            self._fault(tag, bad, trusted, value, code, source_ms, key, engine_ms, steps)
        if trusted:
            self._known_at[tag] = True

    def _fault(self, tag: int, bad: bool, trusted: bool, value: float, code: int, source_ms: int,
               key: FrameKey, engine_ms: int, steps: list[Step]) -> None:
        """Apply one sample to the fault row of its tag: BAD raises, GOOD alone returns it."""
        row = self.fault_row + tag
        now = self._phase_at[row]
        if bad and now < ACTIVE:
            if self._ripe(row, now == ENTERING, self._on_ms[row], source_ms, key.stream, engine_ms):
                self.entering.discard(row)
                self._phase_at[row] = ACTIVE
                steps.append(self._step(row, tag, True, value, code, source_ms, key))
            elif now == NORMAL:
                self._enter(row)
        elif trusted and now == ENTERING:
            self._phase_at[row] = NORMAL
            self.entering.discard(row)
        elif trusted and now == ACTIVE:
            self._phase_at[row] = NORMAL
            steps.append(self._step(row, tag, False, value, code, source_ms, key))

    def _ripe(self, row: int, running: bool, delay_ms: int, source_ms: int, stream: int,
              engine_ms: int) -> bool:
        """Tell whether a delay is over; starts its clock when it was not running."""
        if delay_ms <= 0:
            return True
        if not running:
            self._since_source_ms_at[row] = source_ms
            self._since_stream_at[row] = stream
            self._since_engine_ms_at[row] = engine_ms
            return False
        if self.history or stream == self._since_stream_at[row]:
            return bool(source_ms - self._since_source_ms_at[row] >= delay_ms)
        # Two streams may have two clocks; between them only our own time counts.
        return bool(engine_ms - self._since_engine_ms_at[row] >= delay_ms)

    def entered(self, rows: list[int], engine_ms: int) -> None:
        """The on-delays of these rows have begun."""
        self.entering.update(rows)
        for delay_ms in {self._on_ms[row] for row in rows}:
            self._entering_due_ms = min(self._entering_due_ms, engine_ms + delay_ms)

    def _enter(self, row: int) -> None:
        self._phase_at[row] = ENTERING
        self.entering.add(row)
        self._entering_due_ms = min(self._entering_due_ms, self._since_engine_ms_at[row] + self._on_ms[row])

    def _go_stale(self, tag: int, engine_ms: int, at_ms: int | None, steps: list[Step], *, died: bool = False) -> None:
        """A tag has fallen silent: BAD/STALE, every level held, and a fault alarm, by and by if its node died."""
        self.last.silence(tag)
        self._silent_at[tag] = True
        for row in range(self._row_start[tag], self._row_start[tag + 1]):
            if self._phase_at[row] == LEAVING:
                self._phase_at[row] = ACTIVE
        row = self.fault_row + tag
        excused = not died and self._phase_at[row] == NORMAL and self.excused_ms[tag] > engine_ms
        if self._in_service[tag] and self._phase_at[row] != ACTIVE and not excused:
            self.excused_ms[tag] = 0
            if self._heard_at[tag]:
                at_ms = int(self.last.source_ms[tag]) + engine_ms - self.last.seen_ms(tag)
            elif at_ms is None:
                at_ms = engine_ms
            running = self._phase_at[row] == ENTERING
            delay_ms = self._on_ms[row] if died else 0
            if running and died:
                pass  # it was BAD before, and its delay runs on
            elif self._ripe(row, False, delay_ms, at_ms, self.last_frame(tag).stream, engine_ms):
                self.entering.discard(row)
                self._phase_at[row] = ACTIVE
                steps.append(self._timed_step(row, tag, at_ms))
            else:
                self._enter(row)
        self.settle(tag)

    # -- what follows from the state ---------------------------------------------------------------------

    def settle(self, tag: int) -> None:
        """Work out a tag's quiet band anew after its rows changed."""
        low, high, leaving = -VALUE_MAX, VALUE_MAX, False
        fault = self._phase_at[self.fault_row + tag]
        quiet = self._known_at[tag] and fault == NORMAL and not self._silent_at[tag]
        for row in range(self._row_start[tag], self._row_start[tag + 1]):
            now = self._phase_at[row]
            if now == NORMAL:
                edge, above = self._edge_normal[row], self._side[row] < 0
            elif now == ACTIVE:
                edge, above = self._edge_active[row], self._side[row] > 0
            else:
                quiet, leaving = False, leaving or now == LEAVING
                continue
            if above:
                low = max(low, edge)
            else:
                high = min(high, edge)
        self.bands.low[tag], self.bands.high[tag] = (low, high) if quiet else (math.inf, -math.inf)
        # While held, a BAD sample changes nothing either.
        calm = not leaving and not self._silent_at[tag] and self._heard_at[tag]
        self.bands.held[tag] = calm and (fault == ACTIVE or not self._in_service[tag])

    def _watch_entering(self) -> None:
        """Find the earliest time at which a running on-delay could ripen."""
        due = (self._since_engine_ms_at[row] + self._on_ms[row] for row in self.entering)
        self._entering_due_ms = min(due, default=NEVER_MS)

    def _watch_silence(self) -> None:
        """Find the earliest time at which a tag could fall stale; hearing it only makes that later."""
        due = self._stale_at()
        self._stale_due_ms = int(due.min()) if len(due) else NEVER_MS

    def _stale_at(self) -> NDArray[np.int64]:
        """Return int64[tags]: engine time at which silence makes each tag stale, or a fault where it was excused."""
        due = self.last.seen_engine_ms() + self.limits.stale_after_ms
        due[self.silent | ~self.limits.in_service] = NEVER_MS
        excused = self._excused()
        due[excused] = self.excused_ms[excused]
        return due

    def _excused(self) -> NDArray[np.bool_]:
        """Return bool[tags]: silent without a fault, for as long as the excuse lasts."""
        normal = self.phase[self.fault_row :] == NORMAL
        excused: NDArray[np.bool_] = self.silent & normal & self.limits.in_service & (self.excused_ms > 0)
        return excused

    def _tag_of(self, row: int) -> int:
        return row - self.fault_row if row >= self.fault_row else int(self.limits.row_tag[row])

    def _step(self, row: int, tag: int, raised: bool, value: float, code: int, at_ms: int,
              key: FrameKey) -> Step:
        again = self._step_stream_at[row] == key.stream and self._step_sequence_at[row] == key.sequence
        ordinal = self._step_count_at[row] if again else 0
        self._step_stream_at[row], self._step_sequence_at[row] = key
        self._step_count_at[row] = ordinal + 1
        return Step(row, tag, raised, value, code, at_ms, key.stream, key.sequence, ordinal)

    def _timed_step(self, row: int, tag: int, at_ms: int, cause: str = "") -> Step:
        key = self.last_frame(tag)
        return Step(row, tag, True, float(self.last.value[tag]), int(self.last.code[tag]), at_ms,
                    key.stream, key.sequence, None, cause)


def _view(column: NDArray[Any]) -> Any:
    """Return a view whose items are plain Python numbers, read at a third of the cost of numpy's own."""
    return memoryview(column)  # type: ignore[arg-type]  # the stubs do not know an array as a buffer
