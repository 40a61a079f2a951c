"""The exact rules for one sample each of many tags at once.

What is left to the one-by-one rules: BAD samples, and tags with a fault, silence or doubt. The rest — a limit crossed
or cleared, at once or after its delay, a first GOOD sample — is most of a flood and all of a cold start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerting.observed import FrameKey
from alerting.phases import ACTIVE, ENTERING, GOOD_FROM, LEAVING, NORMAL, UNCERTAIN_FROM, VALUE_MAX

if TYPE_CHECKING:
    from alerting.evaluator import Evaluator
    from alerting.limits import LimitTable


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A table's limits as the rules compare them, mirrored for the low side.

    Attributes:
        side: float64[rows], +1 or -1.
        over: a row is over when side * value >= over.
        clear: and clear when side * value < clear.
        edge_normal, edge_active: the outermost value a row stays as it is at, normal or active.
        on_ms: int64[rows + tags], on-delays, then fault delays.
        off_ms: int64[rows].
    """

    side: NDArray[np.float64]
    over: NDArray[np.float64]
    clear: NDArray[np.float64]
    edge_normal: NDArray[np.float64]
    edge_active: NDArray[np.float64]
    on_ms: NDArray[np.int64]
    off_ms: NDArray[np.int64]

    @staticmethod
    def of(limits: LimitTable) -> Rules:
        """Return the rules of a table."""
        side = limits.side.astype(np.float64)
        return Rules(
            side=side, over=side * limits.setpoint, clear=side * limits.setpoint - limits.deadband,
            edge_normal=np.nextafter(limits.setpoint, -side * np.inf),
            edge_active=limits.setpoint - side * limits.deadband,
            on_ms=np.concatenate([limits.on_delay_ms, limits.fault_delay_ms]), off_ms=limits.off_delay_ms)


class Samples(NamedTuple):
    """n samples in the order they are to be evaluated, no two of one tag where `run_bulk` takes them.

    Attributes:
        tag: intp[n]; value: float64[n], NaN where BAD; code: uint8[n]; source_ms: int64[n].
        frame: int32[n], index into `frames`.
    """

    tag: NDArray[np.intp]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    frame: NDArray[np.int32]
    frames: tuple[FrameKey, ...]

    def of(self, places: NDArray[Any]) -> Samples:
        """Return the samples at some places."""
        return Samples(self.tag[places], self.value[places], self.code[places], self.source_ms[places],
                       self.frame[places], self.frames)


class Crossed(NamedTuple):
    """Rows that were raised or have returned, in the order of samples and rows: the sample's place, row, raised."""

    sample: NDArray[Any]
    row: NDArray[Any]
    raised: NDArray[np.bool_]


class _Rows(NamedTuple):
    """All rows of some tags in order: their numbers, the index of the tag each belongs to, where each tag begins."""

    row: NDArray[Any]
    owner: NDArray[Any]
    first: NDArray[Any]


def run_bulk(evaluator: Evaluator, engine_ms: int, samples: Samples) -> tuple[NDArray[np.bool_], Crossed]:
    """Apply the samples that are not left to the one-by-one rules, and settle their tags.

    Returns:
        done: bool[n], the samples applied; the others are untouched.
        crossed: what they did.
    """
    limits, tag, code = evaluator.limits, samples.tag, samples.code
    done = (code >= UNCERTAIN_FROM) & ~evaluator.only_raise[tag] & ~evaluator.silent[tag]
    done &= (evaluator.phase[limits.rows + tag] == NORMAL) & (limits.row_start[tag + 1] > limits.row_start[tag])
    at = np.flatnonzero(done)
    if not len(at):
        return done, Crossed(at, at, done[:0])
    mine = samples.of(at)
    rows = _rows_of(limits, mine.tag)
    now, after, crossing = _advance(evaluator, engine_ms, mine, rows)
    evaluator.phase[rows.row] = after
    began, ended = (after == ENTERING) & (now != ENTERING), (now == ENTERING) & (after != ENTERING)
    evaluator.entered(rows.row[began].tolist(), engine_ms)
    evaluator.entering.difference_update(rows.row[ended].tolist())
    evaluator.heard[mine.tag] = True
    evaluator.known[mine.tag[mine.code >= GOOD_FROM]] = True
    _settle(evaluator, mine.tag, rows, after)
    return done, Crossed(at[rows.owner[crossing]], rows.row[crossing], now[crossing] < ACTIVE)


def _advance(evaluator: Evaluator, engine_ms: int, samples: Samples, rows: _Rows
             ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[Any]]:
    """Return every row's phase before and after its sample, and which rows crossed; starts the clocks of delays."""
    rules, row, owner = evaluator.rules, rows.row, rows.owner
    now, sided = evaluator.phase[row], rules.side[row] * samples.value[owner]
    trusted = (samples.code >= GOOD_FROM)[owner]
    idle = now < ACTIVE
    over = idle & (sided >= rules.over[row])
    clear = ~idle & trusted & (sided < rules.clear[row])
    after = now.copy()
    after[(now == ENTERING) & trusted & ~over] = NORMAL
    after[(now == LEAVING) & ~clear] = ACTIVE
    pending = np.flatnonzero(over | clear)
    delay_ms = np.where(idle[pending], rules.on_ms[row[pending]], rules.off_ms[row[pending]])
    crossing, timed = pending[delay_ms <= 0], pending[delay_ms > 0]
    if len(timed):
        ripe = _ripe(evaluator, engine_ms, samples, row[timed], owner[timed], now[timed], delay_ms[delay_ms > 0])
        after[timed] = np.where(idle[timed], ENTERING, LEAVING)
        crossing = np.sort(np.concatenate([crossing, timed[ripe]]))
    after[crossing] = np.where(idle[crossing], ACTIVE, NORMAL)
    return now, after, crossing


def _ripe(evaluator: Evaluator, engine_ms: int, samples: Samples, row: NDArray[Any], owner: NDArray[Any],
          now: NDArray[np.uint8], delay_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which delays are over; starts the clocks of those that were not running. See `Evaluator._ripe`."""
    source_ms = samples.source_ms[owner]
    stream = np.array([samples.frames[at].stream for at in samples.frame[owner].tolist()], np.int64)
    running = (now == ENTERING) | (now == LEAVING)
    begun = row[~running]
    evaluator.since_source_ms[begun] = source_ms[~running]
    evaluator.since_stream[begun] = stream[~running]
    evaluator.since_engine_ms[begun] = engine_ms
    by_source = source_ms - evaluator.since_source_ms[row]
    by_engine = engine_ms - evaluator.since_engine_ms[row]
    own_clock = (stream == evaluator.since_stream[row]) | evaluator.history
    ripe: NDArray[np.bool_] = running & (np.where(own_clock, by_source, by_engine) >= delay_ms)
    return ripe


def _rows_of(limits: LimitTable, tag: NDArray[np.intp]) -> _Rows:
    start = limits.row_start[tag].astype(np.intp)
    count = limits.row_start[tag + 1] - start
    first = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(tag)), count)
    return _Rows(np.arange(len(owner)) - first[owner] + start[owner], owner, first)


def _settle(evaluator: Evaluator, tag: NDArray[np.intp], rows: _Rows, phase: NDArray[np.uint8]) -> None:
    """Work out the quiet bands of tags that are heard, not silent and have no fault; `phase` is their rows'."""
    rules, bands, row = evaluator.rules, evaluator.bands, rows.row
    normal, running = phase == NORMAL, (phase == ENTERING) | (phase == LEAVING)
    edge = np.where(normal, rules.edge_normal[row], rules.edge_active[row])
    from_below = normal == (rules.side[row] < 0)
    low = np.maximum.reduceat(np.where(from_below, edge, -VALUE_MAX), rows.first)
    high = np.minimum.reduceat(np.where(from_below, VALUE_MAX, edge), rows.first)
    quiet = evaluator.known[tag] & ~np.logical_or.reduceat(running, rows.first)
    bands.low[tag], bands.high[tag] = np.where(quiet, low, np.inf), np.where(quiet, high, -np.inf)
    bands.held[tag] = ~evaluator.limits.in_service[tag] & ~np.logical_or.reduceat(phase == LEAVING, rows.first)
