"""B10: what a stored sample weighs and how long questions take, beside InfluxDB 1.6, VictoriaMetrics and a DuckDB table.

Two runs of one seeded plant (`b10_plant`). Hours: peers and ours get the same first hours and are asked the same. Days: ours
alone, built once by the real writer and the real pack, kept, and asked what the goal asks; first with nothing of it in
the machine's memory (cold), then at random (warm).
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from benchmarks.b10_build import Built, build_days, build_hours, of_other_sources
from benchmarks.b10_ours import Ours, Size, forget_pages, sizes
from benchmarks.b10_peers import Peer, peers
from benchmarks.b10_plant import DEVICES, FIRST_DAY_MS, TAGS, Plant, information_bytes, is_counts
from benchmarks.harness import BenchmarkError, Outcome, percentile
from gateway.historian.samples import DAY_MS

DAYS: Final = 30
PEER_HOURS: Final = 6
HOUR_MS: Final = 3_600_000
POINTS: Final = 1_000
DASHBOARD: Final = 50
COLD: Final = 5
WARM_ONE, WARM_MANY = 100, 20
PEER_TIMES: Final = 7
COUNTS_BYTES, FLOAT_BYTES, ONE_MS, MANY_MS = 2.5, 3.3, 100.0, 500.0
GORILLA: Final = "Gorilla's own figure is 1.37 B/sample (not re-read, another load)"
KEPT: Final = Path("build") / "b10"
MANY: Final = ("50 tags x last hour, raw", "50 tags x 1 day, 5 min windows", "50 tags x all days, 1000 windows")
ONE: Final = "1 tag x 1 day -> 1000 points"


class Asked(Protocol):
    """What can be asked: ours or a peer."""

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """Aggregates by window."""

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """The samples themselves."""


Question = Callable[[Asked, random.Random], int]


@dataclass(slots=True)
class Beside:
    """A store's figures of the hours."""

    name: str
    durability: str
    counts: float
    float32: float
    rows_per_s: float
    question_ms: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """All that was measured."""

    hours: int
    days: int
    built: Built
    size: dict[str, Size]
    beside: list[Beside] = field(default_factory=list)
    cold_ms: dict[str, list[float]] = field(default_factory=dict)
    warm_ms: dict[str, list[float]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    bound: dict[str, float] = field(default_factory=dict)
    stale_days: int = 0


def run(options: argparse.Namespace) -> Outcome:
    """Build what is not there, measure, judge. `--data` is where the days are kept."""
    kept: Path = options.data or KEPT / f"seed-{options.seed}"
    if options.fresh:
        shutil.rmtree(kept, ignore_errors=True)
    built = build_days(kept, options.days, options.seed, lambda text: print(text, file=sys.stderr, flush=True))
    plant = Plant(options.seed)
    found = Found(options.peer_hours, options.days, built, sizes(kept))
    found.stale_days = len(of_other_sources(kept, options.days))
    found.bound = {kind: information_bytes(plant, kind) for kind in ("counts", "float32")}
    with tempfile.TemporaryDirectory(prefix="hazardgate-b10-", dir=kept) as folder:
        _hours(Path(folder), plant, options, found)
    _days(kept, plant, random.Random(options.seed), found)
    return judge(found)


# -- hours: side by side --


def _hours(folder: Path, plant: Plant, options: argparse.Namespace, found: Found) -> None:
    hours: int = options.peer_hours
    built = build_hours(folder / "ours", hours, options.seed)
    size = sizes(folder / "ours")
    ours = Beside(
        "ours", Ours.durability, size["counts"].a_sample, size["float32"].a_sample, built.rows / (built.seal_s + built.pack_s)
    )
    with closing(Ours(folder / "ours")) as store:
        ours.question_ms = _asked(store, plant, hours, options.seed)
    found.beside.append(ours)
    with ExitStack() as ends:
        there, found.missing = peers(folder, ends)
        for peer in there:
            found.beside.append(_beside(peer, plant, hours, options.seed))
            peer.close()


def _beside(peer: Peer, plant: Plant, hours: int, seed: int) -> Beside:
    """Load the counts, weigh, load the rest, weigh again: the difference is theirs. Then ask."""
    rows, took_s, weights = 0, 0.0, [0]
    a_sample = []
    for part in (range(DEVICES // 2), range(DEVICES // 2, DEVICES)):
        pieces = plant.pieces(hours, 600, part)
        loaded = 0
        for piece in pieces:  # making them is not the peer's time
            began = time.perf_counter()
            loaded += peer.load([piece])
            took_s += time.perf_counter() - began
        weights.append(peer.rest())
        a_sample.append((weights[-1] - weights[-2]) / loaded)
        rows += loaded
        print(f"{peer.name}: {rows} rows, {rows / took_s:.0f} rows/s", file=sys.stderr, flush=True)
        gc.collect()
    beside = Beside(peer.name, peer.durability, a_sample[0], a_sample[1], rows / took_s)
    beside.question_ms = _asked(peer, plant, hours, seed)
    return beside


def _asked(store: Asked, plant: Plant, hours: int, seed: int) -> dict[str, list[float]]:
    end_ms, names = FIRST_DAY_MS + hours * HOUR_MS, plant.names
    questions: dict[str, Question] = {
        f"1 tag x {hours} h -> {POINTS} points": lambda at, chance: at.windows(
            [chance.choice(names)], FIRST_DAY_MS, end_ms, hours * HOUR_MS // POINTS
        ),
        "50 tags x last hour, raw": lambda at, chance: at.raw(some(names, chance), end_ms - HOUR_MS, end_ms),
        f"50 tags x {hours} h, 5 min windows": lambda at, chance: at.windows(some(names, chance), FIRST_DAY_MS, end_ms, 300_000),
    }  # fmt: skip
    chance = random.Random(seed)
    return {name: [_timed(store, ask, chance) for _ in range(PEER_TIMES)] for name, ask in questions.items()}


# -- days: ours --


def questions_of(days: int, names: Sequence[str]) -> dict[str, Question]:
    """Return what the goal asks of `days` days."""
    end_ms = FIRST_DAY_MS + days * DAY_MS
    width_ms = max(1, round(days * DAY_MS / POINTS / 300_000)) * 300_000

    def day(chance: random.Random) -> int:
        return FIRST_DAY_MS + chance.randrange(days) * DAY_MS

    def one(at: Asked, chance: random.Random) -> int:
        begin = day(chance)
        return at.windows([chance.choice(names)], begin, begin + DAY_MS, DAY_MS // POINTS)

    def of_a_day(at: Asked, chance: random.Random) -> int:
        begin = day(chance)
        return at.windows(some(names, chance), begin, begin + DAY_MS, 300_000)

    return {
        ONE: one,
        MANY[0]: lambda at, chance: at.raw(some(names, chance), end_ms - HOUR_MS, end_ms),
        MANY[1]: of_a_day,
        MANY[2]: lambda at, chance: at.windows(some(names, chance), FIRST_DAY_MS, end_ms, width_ms),
    }


def some(names: Sequence[str], chance: random.Random) -> list[str]:
    """Draw a dashboard's tags, half of each kind."""
    half = len(names) // 2
    return chance.sample(names[:half], DASHBOARD // 2) + chance.sample(names[half:], DASHBOARD // 2)


def _days(kept: Path, plant: Plant, chance: random.Random, found: Found) -> None:
    questions = questions_of(found.days, plant.names)
    for name, ask in questions.items():
        found.cold_ms[name] = []
        for _ in range(COLD):
            forget_pages(kept)
            with closing(Ours(kept)) as store:
                found.cold_ms[name].append(_timed(store, ask, chance))
    with closing(Ours(kept)) as store:
        for name, ask in questions.items():
            _timed(store, ask, chance)
            found.warm_ms[name] = [_timed(store, ask, chance) for _ in range(WARM_ONE if name == ONE else WARM_MANY)]


def _timed(store: Asked, ask: Question, chance: random.Random) -> float:
    began = time.perf_counter()
    if not ask(store, chance):
        raise BenchmarkError("a question was answered with nothing")
    return (time.perf_counter() - began) * 1_000


# -- the verdict --


def judge(found: Found) -> Outcome:
    """Turn what was measured into table, figures and verdict."""
    outcome = Outcome(
        "B10", f"storage and queries, {TAGS} tags at 1 Hz: {found.days} days of ours, {found.hours} h beside peers",
        "; ".join(f"{one.name}: {one.durability}" for one in found.beside),
    )  # fmt: skip
    counts, float32 = (found.size[kind].a_sample for kind in ("counts", "float32"))
    warm, cold = (
        {name: percentile(sorted(taken), 0.95) for name, taken in which.items()} for which in (found.warm_ms, found.cold_ms)
    )
    worst = max(warm[name] for name in MANY)
    outcome.goal = {
        "counts_bytes": COUNTS_BYTES, "float32_bytes": FLOAT_BYTES, "one_tag_p95_ms": ONE_MS, "dashboard_p95_ms": MANY_MS,
        "days": f"{DAYS}, all built by the code there is",
    }  # fmt: skip
    outcome.held = {
        "counts_bytes": counts <= COUNTS_BYTES, "float32_bytes": float32 <= FLOAT_BYTES, "one_tag_p95_ms": warm[ONE] <= ONE_MS,
        "dashboard_p95_ms": worst <= MANY_MS, "days": found.days >= DAYS and not found.stale_days,
    }  # fmt: skip
    outcome.figures = {
        "counts_bytes": round(counts, 3), "float32_bytes": round(float32, 3),
        "rollups_bytes": round(sum(s.rollups for s in found.size.values()) / sum(s.rows for s in found.size.values()), 3),
        "rows": sum(size.rows for size in found.size.values()), "days": found.days,
        "warm_p95_ms": {name: round(value, 1) for name, value in warm.items()},
        "cold_p95_ms": {name: round(value, 1) for name, value in cold.items()},
        "information_bytes": {kind: round(value, 3) for kind, value in found.bound.items()},
        "hours": {
            one.name: {
                "counts_bytes": round(one.counts, 3), "float32_bytes": round(one.float32, 3), "rows_per_s": round(one.rows_per_s),
                "p50_ms": {name: round(percentile(sorted(taken), 0.5), 1) for name, taken in one.question_ms.items()},
            }
            for one in found.beside
        },
    }  # fmt: skip
    own, *others = found.beside
    for other in others:
        outcome.ratios[f"counts_bytes_to_{other.name}"] = round(own.counts / other.counts, 2)
        outcome.ratios[f"float32_bytes_to_{other.name}"] = round(own.float32 / other.float32, 2)
    for kind, value in (("counts", counts), ("float32", float32)):
        outcome.ratios[f"{kind}_bytes_to_information"] = round(value / found.bound[kind], 2)
    outcome.rows = _rows(found, counts, float32)
    outcome.missing = list(found.missing)
    outcome.notes = _notes(found)
    return outcome


def _rows(found: Found, counts: float, float32: float) -> list[Sequence[str]]:
    asked = list(found.beside[0].question_ms)
    rows: list[Sequence[str]] = [["", "counts B", "float32 B", "rows/s in", *(f"{name} (ms)" for name in asked)]]
    for one in found.beside:
        times = [percentile(sorted(one.question_ms[name]), 0.5) for name in asked]
        rows.append([f"{one.name}, {found.hours} h", f"{one.counts:.2f}", f"{one.float32:.2f}", f"{one.rows_per_s:.0f}",
                     *(f"{value:.1f}" for value in times)])  # fmt: skip
    rows.append([f"ours, {found.days} days", f"{counts:.2f}", f"{float32:.2f}"])
    rows.append(["the noise itself (the limit)", f"{found.bound['counts']:.2f}", f"{found.bound['float32']:.2f}"])
    return rows


def _notes(found: Found) -> list[str]:
    notes = [GORILLA, "B = bytes a sample with rollups, manifests and indexes; ms = median; sizes at rest"]
    for name, taken in found.warm_ms.items():
        warm, cold = sorted(taken), sorted(found.cold_ms[name])
        notes.append(
            f"{found.days} days, {name}: warm p50 {percentile(warm, 0.5):.1f}, p95 {percentile(warm, 0.95):.1f}, max {warm[-1]:.1f}"
            f" of {len(warm)}; cold p50 {percentile(cold, 0.5):.1f}, max {cold[-1]:.1f} of {len(cold)} (ms)"
        )
    for kind, size in found.size.items():
        notes.append(
            f"{kind}: {size.rows} rows; samples {size.samples / size.rows:.3f}, rollups {size.rollups / size.rows:.3f}, "
            f"manifests {size.manifests / size.rows:.5f} B a sample"
        )
    if found.stale_days:
        notes.append(f"{found.stale_days} of the days were built by code that has changed since; `--fresh` builds them anew")
    if found.built.rows:
        spent_s = found.built.seal_s + found.built.pack_s
        notes.append(f"built {found.built.rows} rows now: {found.built.rows / spent_s:.0f} rows/s a process, generator included")
    return notes


assert is_counts(0), "a dashboard's first half is of counts"
