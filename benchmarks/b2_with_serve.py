"""B2 beside a busy serve: does the console's load reach the alarms?

One chain as in B2. In turns, so that the machine's moods fall on both: B2's steps without serve running at all, and B2's
steps while serve runs under 20 live streams and 50 history queries a second, load generator on the same cores. Each pair
begins with the other half. Judged: the median over the pairs of (p50 with) / (p50 without), and p99 of all steps with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.b2_alarm_latency import (
    DURABILITY,
    P99_MS,
    SETTLE_S,
    STEPS,
    TAGS,
    Measured,
    first_webhook,
    set_up,
    side_by_side,
)
from benchmarks.chain import POLL_S, Chain, Helper, answers, cpu_s, stop_child
from benchmarks.harness import BenchmarkError, Outcome, data_folder, spread, spread_cells
from benchmarks.ports import free_port
from benchmarks.receiver import missing_sequences
from cli.children import Child

PAIRS: Final = 5
STREAMS: Final = 20
QUERIES_PER_S: Final = 50.0
P50_RATIO: Final = 1.10
SERVE_START_S_MAX: Final = 30.0


@dataclass(slots=True)
class Pair:
    """B2's steps without and with serve, one after the other."""

    without: Measured = field(default_factory=Measured)
    beside: Measured = field(default_factory=Measured)
    load: dict[str, Any] = field(default_factory=dict)
    serve_cpu_s: float = 0.0

    @property
    def ratio(self) -> float:
        """p50 with serve to p50 without."""
        return spread(self.beside.ours).p50 / spread(self.without.ours).p50


def run(options: argparse.Namespace) -> Outcome:
    """Measure and judge; `--steps` is the number of steps a half has, over all pairs."""
    steps = max(1, (options.steps or STEPS) // PAIRS)
    with (
        data_folder(options.data, "hazardgate-b2-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        pairs, gaps = runner.run(_measure(folder, steps, random.Random(options.seed)))
    return judge(pairs, steps, gaps)


def judge(pairs: list[Pair], steps: int, gaps: int) -> Outcome:
    """Turn the pairs into table, figures and verdict."""
    if any(not half.ours for pair in pairs for half in (pair.without, pair.beside)):
        raise BenchmarkError("a half without one webhook cannot be compared")
    without = spread([value for pair in pairs for value in pair.without.ours])
    beside = spread([value for pair in pairs for value in pair.beside.ours])
    ratios = [pair.ratio for pair in pairs]
    asked = sum(_count(pair, "query ") for pair in pairs)
    answered = sum(_count(pair, "query 200") for pair in pairs)
    faults = {
        name: count
        for pair in pairs
        for name, count in pair.load["counts"].items()
        if name.startswith(("query ", "stream ")) and not name.endswith((" 200", " 503", "bytes", "events"))
    }
    loaded_s = sum(pair.load["seconds"] for pair in pairs)
    lost = [what for pair in pairs for half in (pair.without, pair.beside) for what in half.lost]
    outcome = Outcome(
        "B2-serve", f"alarm latency with and without a busy serve, {len(pairs)} pairs of {steps} steps (ms)", DURABILITY
    )
    outcome.figures = {
        "without_ms": without.to_json(), "with_ms": beside.to_json(), "pair_ratios": [round(ratio, 3) for ratio in ratios],
        "queries_per_s": round(asked / loaded_s, 1), "answered_share": round(answered / asked, 3) if asked else 0.0,
        "query_ms": [pair.load["query_ms"] for pair in pairs], "faults": faults,
        "stream_events_per_s": round(sum(_count(pair, "stream events") for pair in pairs) / loaded_s, 1),
        "serve_cpu_percent": round(100 * sum(pair.serve_cpu_s for pair in pairs) / loaded_s, 1),
        "steps_without_webhook": len(lost), "sequence_gaps": gaps,
    }  # fmt: skip
    outcome.ratios = {"with_to_without_p50": round(statistics.median(ratios), 3)}
    outcome.goal = {
        "with_to_without_p50": P50_RATIO, "p99_ms": P99_MS, "steps_without_webhook": 0,
        "load": f"{STREAMS} streams, {QUERIES_PER_S:g} queries/s, none failed",
    }  # fmt: skip
    outcome.held = {
        "with_to_without_p50": statistics.median(ratios) <= P50_RATIO, "p99_ms": beside.p99 <= P99_MS,
        "steps_without_webhook": not lost and not gaps,
        "load": not faults and asked / loaded_s >= 0.9 * QUERIES_PER_S
        and all(pair.load["counts"].get("stream 200", 0) >= STREAMS for pair in pairs),
    }  # fmt: skip
    rows: list[Sequence[str]] = [["", "count", "p50", "p99", "max"]]
    for number, pair in enumerate(pairs, 1):
        rows.append([f"pair {number} without", *spread_cells(spread(pair.without.ours))])
        rows.append([f"pair {number} with", *spread_cells(spread(pair.beside.ours))])
    rows += [["all without", *spread_cells(without)], ["all with", *spread_cells(beside)]]
    outcome.rows = rows
    outcome.notes = [
        f"queries: {asked} asked, {answered} answered, {asked - answered} shed or failed; serve used "
        f"{outcome.figures['serve_cpu_percent']} % of a core",
        *(f"lost: {what}" for what in lost[:10]),
    ]
    return outcome


def _count(pair: Pair, prefix: str) -> int:
    return sum(
        count for name, count in pair.load["counts"].items() if name.startswith(prefix) and name != "query bytes"
    )


async def _measure(folder: Path, steps: int, chance: random.Random) -> tuple[list[Pair], int]:
    pairs: list[Pair] = []
    async with AsyncExitStack() as ends:
        chain, bare, disk = await set_up(folder, chance, ends)
        await chain.start_ours()
        await first_webhook(chain)
        token = await make_token(folder)
        for number in range(PAIRS):
            pair = Pair()
            for with_serve in (number % 2 == 0, number % 2 == 1):
                if with_serve:
                    async with busy_serve(chain, token, pair):
                        await asyncio.sleep(SETTLE_S)
                        await side_by_side(chain, bare, disk, steps, chance, pair.beside)
                else:
                    await asyncio.sleep(SETTLE_S)
                    await side_by_side(chain, bare, disk, steps, chance, pair.without)
            failed = chain.dead()
            if failed is not None:
                raise BenchmarkError(failed)
            pairs.append(pair)
            print(f"pair {number + 1} of {PAIRS}: {pair.ratio:.3f}", file=sys.stderr, flush=True)
        gaps = missing_sequences(chain.receiver.lines)
    return pairs, gaps


async def make_token(folder: Path) -> str:
    """Have the command line make a viewer's token, as a person would."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "token", "new", "load", "--role", "viewer", "--days", "1", "--data", str(folder),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkError(f"hazardgate token ended with code {process.returncode}")
    return said.decode().split()[-1]


@asynccontextmanager
async def busy_serve(chain: Chain, token: str, pair: Pair) -> AsyncIterator[None]:
    """Run serve and the load on it; afterwards the pair holds what the load counted."""
    port = free_port()
    async with AsyncExitStack() as ends:
        serve = await start_serve(chain, port, ends)
        load = await Helper.start(
            "benchmarks.serve_load", f"http://127.0.0.1:{port}", TAGS, STREAMS, QUERIES_PER_S,
            environment={"HAZARDGATE_TOKEN": token},
        )  # fmt: skip
        ends.push_async_callback(load.stop)
        await load.read()
        assert serve.process is not None
        before_s = cpu_s(serve.process.pid)  # what its start took is not what the load takes
        yield
        load.end_input()
        pair.load = json.loads(await load.read())
        pair.serve_cpu_s = cpu_s(serve.process.pid) - before_s


async def start_serve(chain: Chain, port: int, ends: AsyncExitStack, *options: str) -> Child:
    """Start serve on the chain's folder; it ends with `ends`. Raises BenchmarkError when it does not answer."""
    serve = Child(
        "serve",
        [sys.executable, "-m", "cli", "serve", str(chain.folder / "site.yaml"), "--data", str(chain.folder), "--port", str(port),
         *options],
        chain.folder / "logs" / "serve.log", chain.environment,
    )  # fmt: skip
    serve.start()
    ends.push_async_callback(stop_child, serve)
    deadline = time.monotonic() + SERVE_START_S_MAX
    while not answers(port):
        if not serve.alive or time.monotonic() > deadline:
            raise BenchmarkError(f"serve did not come up: {serve.last_lines(10)}")
        await asyncio.sleep(POLL_S)
    return serve
