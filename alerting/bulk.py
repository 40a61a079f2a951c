"""The exact rules for many tags at once, for the cases that need no clock.

What is left here to the one-by-one rules: several samples of one tag, BAD samples, tags with a fault or
silence, and every delay. The rest — a limit crossed or cleared at once, a first GOOD sample — is most of a
flood and all of a cold start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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


def run_bulk(evaluator: Evaluator, tag: NDArray[np.intp], value: NDArray[np.float64],
             code: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], list[tuple[int, int, bool]]]:
    """Apply every sample that needs no clock and settle its tag.

    Returns:
        done: bool[n], the samples applied; the others are untouched.
        crossed: (sample, row, raised) in the order of samples and rows.
    """
    rules, limits, phase = evaluator.rules, evaluator.limits, evaluator.phase
    done = np.zeros(len(tag), np.bool_)
    sample = np.flatnonzero(
        _alone(evaluator, tag) & (code >= UNCERTAIN_FROM) & ~evaluator.only_raise[tag] & ~evaluator.silent[tag]
        & (phase[limits.rows + tag] == NORMAL) & (limits.row_start[tag + 1] > limits.row_start[tag]))
    if not len(sample):
        return done, []
    rows, owner, first = _rows_of(limits, tag[sample])
    now, sided = phase[rows], rules.side[rows] * value[sample][owner]
    raising = (now == NORMAL) & (sided >= rules.over[rows])
    returning = (now == ACTIVE) & (sided < rules.clear[rows]) & (code[sample] >= GOOD_FROM)[owner]
    timed = ((now == ENTERING) | (now == LEAVING) | (raising & (rules.on_ms[rows] > 0))
             | (returning & (rules.off_ms[rows] > 0)))
    plain = ~np.logical_or.reduceat(timed, first)
    done[sample[plain]] = True
    raising &= plain[owner]
    returning &= plain[owner]
    phase[rows[raising]], phase[rows[returning]] = ACTIVE, NORMAL
    applied = tag[sample[plain]]
    evaluator.heard[applied] = True
    evaluator.known[applied[code[sample[plain]] >= GOOD_FROM]] = True
    _settle(evaluator, tag[sample], rows, first, plain)
    crossed = np.flatnonzero(raising | returning)
    places = zip(sample[owner[crossed]].tolist(), rows[crossed].tolist(), raising[crossed].tolist(), strict=True)
    return done, list(places)


def _alone(evaluator: Evaluator, tag: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which samples are the only one of their tag: written forwards and backwards, they meet themselves."""
    place, order = evaluator.place, np.arange(len(tag), dtype=np.int32)
    place[tag] = order
    last = place[tag]
    place[tag[::-1]] = order[::-1]
    alone: NDArray[np.bool_] = (last == order) & (place[tag] == order)
    return alone


def _rows_of(limits: LimitTable, tag: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return (all rows of these tags in order, the index of the tag each belongs to, where each tag begins)."""
    start = limits.row_start[tag].astype(np.intp)
    count = limits.row_start[tag + 1] - start
    first = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(tag)), count)
    return np.arange(len(owner)) - first[owner] + start[owner], owner, first


def _settle(evaluator: Evaluator, tag: NDArray[np.intp], rows: NDArray[Any], first: NDArray[Any],
            plain: NDArray[np.bool_]) -> None:
    """Work out the quiet bands of tags none of whose delays run and which have no fault."""
    rules, normal = evaluator.rules, evaluator.phase[rows] == NORMAL
    edge = np.where(normal, rules.edge_normal[rows], rules.edge_active[rows])
    from_below = normal == (rules.side[rows] < 0)
    low = np.maximum.reduceat(np.where(from_below, edge, -VALUE_MAX), first)
    high = np.minimum.reduceat(np.where(from_below, VALUE_MAX, edge), first)
    settled, quiet = tag[plain], evaluator.known[tag[plain]]
    evaluator.band_low[settled] = np.where(quiet, low[plain], np.inf)
    evaluator.band_high[settled] = np.where(quiet, high[plain], -np.inf)
    evaluator.held[settled] = ~evaluator.limits.in_service[settled]
