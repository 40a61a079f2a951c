"""B3: samples per second that one core evaluates, beside a bare numpy check of the same batches.

The path is the one core calls: `AlarmEngine.samples` of an engine made from a checked site (`SiteConfig`, compiled
to a `LimitTable`), fed with `Observed` columns as core lays frames end to end. 10 000 and 100 000 tags with LL, L, H
and HH each; every limit has a deadband, L and HH an on- and an off-delay. A frame holds 40 samples of neighbouring
tags, as one device sends them; frames come in random order, a scan holds every tag once, scans are a second apart.
1 % of the tags stand BAD with their fault raised, 1 % of the samples are UNCERTAIN. Per batch

- quiet: nothing can change (the levels and faults that stand, stand on);
- 0.5 % not quiet: half of them go below L and start its on-delay, half come back before it is over;
- 5 % transitions: half of them raise H at once, half return it. Each makes its alarm record and transition.

Beside each, in the same slices of time and on the same columns (int32 tags, float64 values, uint8 codes):

    over = (value >= high[tag]) | (value <= low[tag])
    (over & (code >= GOOD)).any()

the bare two-limit check, as numpy users write it: no state, no deadband, no delay, no last value. A batch is written
anew just before it is evaluated, as core does when it lays frames end to end, for the bare check too; that is not
counted, everything else is: in the end of a slice engine and evaluator are asked for the last value of every tag,
which is when samples that still wait are laid into the columns of last values.

B3's subject is the evaluator: samples in, levels and steps out. Where nearly every sample is quiet the engine around it
costs nothing, and the engine is judged. Of 5 % transitions the engine makes 50 000 alarm records and transitions a
million samples, with ids and life cycle, and they cost far more than finding them: the flood of records is B6's
subject. Those cells are judged on the evaluator alone; the engine's figure stands beside it, for information.

CPU time of the one thread is measured, not the clock on the wall, so that neighbours on the machine take less part in
it. A round is a few slices of engine, bare evaluator (`Evaluator.samples`, without engine) and bare check in turn, the
best of each; figures are medians of five rounds, ratios too, each of one round. The goal's ratio is judged on quiet
data: its other two figures are far below half of the bare check by themselves.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alerting import AlarmEngine, FrameKey, LimitTable, Observed
from benchmarks.harness import BenchmarkError, Outcome, percentile
from config import SiteConfig
from simulators import synthetic_site
from wire import Quality, Reason, quality_code

TAGS: Final = (10_000, 100_000)
BATCHES: Final = (1_000, 10_000, 100_000)
FRAME: Final = 40
SCAN_MS: Final = 1_000
ROUNDS: Final = 5
SLICES: Final = 4  # of bare, engine and evaluator each, in turn, the best of them counts
QUIET, ROUGH, MOVING = "quiet", "0.5 % not quiet", "5 % transitions"
SHARE: Final = {QUIET: 0.0, ROUGH: 0.005, MOVING: 0.05}
SLICE_SAMPLES: Final = {QUIET: 1_000_000, ROUGH: 1_000_000, MOVING: 400_000}
MSPS: Final = {QUIET: 50.0, ROUGH: 25.0, MOVING: 5.0}
BARE_RATIO: Final = 0.5
LIMITS: Final = (4, 8)
SETPOINTS: Final = {"LL": 10.0, "L": 20.0, "H": 80.0, "HH": 90.0}
DELAYED_S: Final = {"L": (5.0, 5.0), "HH": (5.0, 5.0)}
UNDER_L, OVER_H = 15.0, 85.0
BAD_SHARE = UNCERTAIN_SHARE = 0.01
GOOD: Final = quality_code(Quality.GOOD)
UNCERTAIN: Final = quality_code(Quality.UNCERTAIN, Reason.RANGE)
BAD: Final = quality_code(Quality.BAD, Reason.COMM)
DURABILITY: Final = "none in any column: rules and records in memory, one core; the ledger is B1's and B2's"


@dataclass(slots=True)
class Cell:
    """What was measured of one input, a figure per round, in million samples per CPU second."""

    tags: int
    batch: int
    kind: str
    engine: list[float] = field(default_factory=list)
    evaluator: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The cell as it is named in figures and goals."""
        return f"{self.tags // 1000}k tags, batch {self.batch // 1000}k, {self.kind}"

    @property
    def judged(self) -> float:
        """What the goal is held against: the evaluator alone where most of the engine's work is records, else the engine."""
        return _median(self.evaluator if self.kind == MOVING else self.engine)

    @property
    def ratio(self) -> float:
        """Engine to bare check: the median of the rounds' ratios."""
        return _median([ours / bare for ours, bare in zip(self.engine, self.bare, strict=True)])


def run(options: argparse.Namespace) -> Outcome:
    """Measure every cell and judge. `options.limits` is the number of limits a tag has."""
    limits, rounds = options.limits, options.steps or ROUNDS
    cells = list(measure(limits, TAGS, BATCHES, rounds, options.seed))
    other = [number for number in LIMITS if number != limits]
    aside = {number: list(measure(number, TAGS, BATCHES[-1:], 1, options.seed, (QUIET,))) for number in other}
    return judge(cells, limits, aside)


def judge(cells: Sequence[Cell], limits: int, aside: dict[int, list[Cell]]) -> Outcome:
    """Turn what was measured into table, figures and verdict."""
    if not cells:
        raise BenchmarkError("no cell was measured")
    outcome = Outcome("B3", f"evaluator, {limits} limits a tag (million samples per CPU second)", DURABILITY)
    outcome.rows = [["tags", "batch", "data", "engine", "evaluator", "bare numpy", "engine/bare", "goal"]]
    for cell in cells:
        engine, evaluator, bare = (_median(found) for found in (cell.engine, cell.evaluator, cell.bare))
        outcome.figures[cell.name] = {"engine": round(engine, 1), "evaluator": round(evaluator, 1), "bare": round(bare, 1),
                                      "judged": "evaluator" if cell.kind == MOVING else "engine"}  # fmt: skip
        outcome.ratios[cell.name] = round(cell.ratio, 2)
        goal = f"evaluator >= {MSPS[cell.kind]:g}" if cell.kind == MOVING else f"engine >= {MSPS[cell.kind]:g}"
        outcome.goal[cell.name] = MSPS[cell.kind]
        outcome.held[cell.name] = cell.judged >= MSPS[cell.kind]
        if cell.kind == QUIET:
            goal += f", ratio >= {BARE_RATIO:g}"
            outcome.goal[f"{cell.name}: to bare"] = BARE_RATIO
            outcome.held[f"{cell.name}: to bare"] = cell.ratio >= BARE_RATIO
        outcome.rows.append([f"{cell.tags}", f"{cell.batch}", cell.kind, f"{engine:.1f}", f"{evaluator:.1f}", f"{bare:.1f}",
                             f"{cell.ratio:.2f}", goal])  # fmt: skip
    for number, found in aside.items():
        told = ", ".join(f"{cell.tags} tags {_median(cell.engine):.1f} ({cell.ratio:.2f} of bare)" for cell in found)
        outcome.notes.append(f"with {number} limits a tag, quiet, batches of {BATCHES[-1]}, not judged: {told}")
    if any(cell.kind == MOVING for cell in cells):
        outcome.notes.append(f"{MOVING} are judged on the evaluator alone, the engine's figure there is information: it is the"
                             " book making records, which B6 measures")  # fmt: skip
    outcome.notes.append(f"median of {len(cells[0].engine)} rounds, each the best of {SLICES} slices; thread CPU time")
    return outcome


# -- what is evaluated -----------------------------------------------------------------------------------------


def checked_site(tags: int) -> SiteConfig:
    """Return a site of `tags` tags, each with LL, L, H and HH; no edges, since nothing is polled here."""
    limits = {}
    for name, setpoint in SETPOINTS.items():
        on_s, off_s = DELAYED_S.get(name, (0.0, 0.0))
        limits[name] = {"setpoint": setpoint, "deadband": 2.0, "on_delay_s": on_s, "off_delay_s": off_s,
                        "grade": "orange", "guidance": "Benchmark tag: nothing to do."}  # fmt: skip
    plain = synthetic_site(tags, 1)
    return SiteConfig.model_validate({
        **plain, "edges": [], "tags": [{**tag, "limits": limits} for tag in plain["tags"]],
    })  # fmt: skip


def doubled(table: LimitTable) -> LimitTable:
    """Return the table with a second limit a little outside each; the configuration knows four kinds a tag."""
    twice = {
        name: np.repeat(getattr(table, name), 2)
        for name in ("row_tag", "side", "setpoint", "deadband", "on_delay_ms", "off_delay_ms", "grade")
    }
    twice["setpoint"][1::2] += twice["side"][1::2]
    changed: dict[str, Any] = {**twice, "limit": tuple(name + far for name in table.limit for far in ("", "2"))}
    return replace(table, **changed)


class Load:
    """Scans of a site of `tags` tags, cut into batches; each scan is new and continues the one before."""

    def __init__(self, tags: int, batch: int, kind: str, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._tags, self._batch, self._moved = tags, batch, round(tags * SHARE[kind] / 2)
        self._value = OVER_H if kind == MOVING else UNDER_L
        chosen = self._random.permutation(tags)
        self._bad = chosen[: round(tags * BAD_SHARE)]
        self._movable = chosen[len(self._bad) :]
        self._scans, self._frames = count(), count(1)

    def batches(self, samples: int) -> list[Observed]:
        """Return the next batches: at least `samples` samples, in whole scans and whole batches."""
        scans = -(-max(samples, self._batch) // self._tags)
        columns = [np.concatenate(parts) for parts in zip(*(self._scan() for _ in range(scans)), strict=True)]
        return [self._cut([column[at : at + self._batch] for column in columns])
                for at in range(0, scans * self._tags, self._batch)]  # fmt: skip

    def _scan(self) -> tuple[NDArray[Any], ...]:
        number, random, tags = next(self._scans), self._random, self._tags
        value, code = random.uniform(30.0, 70.0, tags), np.full(tags, GOOD, np.uint8)
        code[random.random(tags) < UNCERTAIN_SHARE] = UNCERTAIN
        value[self._bad], code[self._bad] = np.nan, BAD
        if self._moved:
            # This group goes over; the one of the scan before comes back, which only GOOD samples do.
            for group in (number - 1, number):
                places = np.arange(group * self._moved, (group + 1) * self._moved) % len(self._movable)
                code[self._movable[places]] = GOOD
            value[self._movable[places]] = self._value
        order = (random.permutation(tags // FRAME)[:, None] * FRAME + np.arange(FRAME)).ravel().astype(np.int32)
        return order, value[order], code[order], np.full(tags, (number + 1) * SCAN_MS, np.int64)

    def _cut(self, columns: list[NDArray[Any]]) -> Observed:
        frames = len(columns[0]) // FRAME
        keys = tuple(FrameKey(1, next(self._frames)) for _ in range(frames))
        tag, value, code, source_ms = (column.copy() for column in columns)
        return Observed(tag, value, code, source_ms, np.repeat(np.arange(frames, dtype=np.int32), FRAME), keys)


# -- how it is measured ----------------------------------------------------------------------------------------


def measure(limits: int, tags: Sequence[int], batches: Sequence[int], rounds: int, seed: int,
            kinds: Sequence[str] = tuple(SHARE)) -> Iterator[Cell]:  # fmt: skip
    """Yield every cell, measured; what is not quiet is measured at the largest batch alone."""
    for number in tags:
        table = LimitTable.compile(checked_site(number))
        table = table if limits == len(SETPOINTS) else doubled(table)
        for kind in kinds:
            for batch in batches if kind == QUIET else batches[-1:]:
                yield _cell(table, Cell(number, batch, kind), rounds, seed)


def _cell(table: LimitTable, cell: Cell, rounds: int, seed: int) -> Cell:
    slice_samples = max(SLICE_SAMPLES[cell.kind], 2 * cell.batch)
    low, high = np.full(cell.tags, SETPOINTS["L"]), np.full(cell.tags, SETPOINTS["H"])
    # Each with a load of its own: what one raises the same one returns.
    engines = [_Engine(table, Load(cell.tags, cell.batch, cell.kind, seed), alone) for alone in (False, True)]
    gc.collect()
    for _ in range(rounds):
        best = [0.0, 0.0, 0.0]
        for _ in range(SLICES):
            found = [engine.slice(slice_samples) for engine in engines]
            same = engines[0].told
            found.append(_msps(same, lambda batch: bare_check(batch, low, high)))
            best = [max(pair) for pair in zip(best, found, strict=True)]
        cell.engine.append(best[0])
        cell.evaluator.append(best[1])
        cell.bare.append(best[2])
    return cell


def bare_check(batch: Observed, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """The bare two-limit check of a batch: is any GOOD value at or beyond a limit of its tag?"""
    over = (batch.value >= high[batch.tag]) | (batch.value <= low[batch.tag])
    return bool((over & (batch.code >= GOOD)).any())


class _Engine:
    """An engine, or its evaluator alone, that a load is told to."""

    def __init__(self, table: LimitTable, load: Load, alone: bool) -> None:
        self._engine, self._load = AlarmEngine(table), load
        self._samples: Callable[[int, Observed], object]
        self._samples = self._engine._evaluator.samples if alone else self._engine.samples
        self._now_ms = count(SCAN_MS)
        self.told: list[Observed] = []
        # Every tag known, the standing faults raised after their delay, the first group over.
        self.slice((int(table.fault_delay_ms.max()) // SCAN_MS + 3) * table.tags)

    def slice(self, samples: int) -> float:
        """Tell the next batches and return million samples per CPU second."""
        self.told = self._load.batches(samples)
        return _msps(self.told, lambda batch: self._samples(next(self._now_ms), batch), self._engine.tag_states)


def _msps(batches: Sequence[Observed], work: Callable[[Observed], object], last: Callable[[], object] | None = None) -> float:
    """Return million samples per CPU second of `work` on these batches, and `last` at the end."""
    spent_ns = 0
    for batch in batches:
        fresh = _laid(batch)
        began_ns = time.thread_time_ns()
        work(fresh)
        spent_ns += time.thread_time_ns() - began_ns
    if last is not None:
        began_ns = time.thread_time_ns()
        last()
        spent_ns += time.thread_time_ns() - began_ns
    return sum(len(batch) for batch in batches) * 1e3 / spent_ns


def _laid(batch: Observed) -> Observed:
    """Return the batch in columns just written, as core hands it over when it has laid frames end to end."""
    return Observed(batch.tag.copy(), batch.value.copy(), batch.code.copy(), batch.source_ms.copy(), batch.frame.copy(),
                    batch.frames)  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return percentile(sorted(values), 0.5)
