"""B2 while a store is away and then catches up with all it has missed: does the historian's work reach the alarms?

One chain as in B2, whose ledger begins with a day of history. In turns: B2's steps without serve, and B2's steps beside a
serve that seals and feeds an InfluxDB on the same cores: for the first half of its steps InfluxDB is down, then it comes up
and is sent the whole day at full pace. Each pair begins with the other half, and each time InfluxDB begins empty. Judged:
the median over the pairs of (p50 with) / (p50 without), p99 of all steps with, and that the store really was away and
really caught up at the pace it is configured for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
from benchmarks.b2_with_serve import PAIRS, start_serve
from benchmarks.chain import Chain, cpu_s, read_json
from benchmarks.harness import BenchmarkError, Outcome, data_folder, spread, spread_cells
from benchmarks.ports import free_port
from benchmarks.receiver import missing_sequences
from benchmarks.stored_history import FRAME_TAGS, write_history
from benchmarks.stores import INFLUXD, StoreServer
from config import SiteConfig, dump_site
from gateway.core import LEDGER_NAME
from gateway.historian.feed_files import FEEDS
from gateway.historian.segments.names import FOLDER_NAME, STATUS_NAME
from simulators import synthetic_tag

P50_RATIO: Final = 1.10
STORE: Final = "INFLUX"
ROWS_PER_S: Final = 50_000  # what a site has when it configures nothing
PACE_SHARE: Final = 0.8  # of it is really sent, at least: the plant, the alarms and InfluxDB itself share two cores
HISTORY_S: Final = 90.0  # of full pace: more than the steps take
STATE_S_MAX: Final = 150.0
DATABASE: Final = "hazardgate"


@dataclass(slots=True)
class Pair:
    """B2's steps without and with serve; `away` and `behind` are the two halves of those with."""

    without: Measured = field(default_factory=Measured)
    away: Measured = field(default_factory=Measured)
    behind: Measured = field(default_factory=Measured)
    sent_per_s: float = 0.0
    behind_at_end: bool = False
    serve_cpu_percent: float = 0.0
    influx_cpu_percent: float = 0.0

    @property
    def beside(self) -> list[float]:
        """All steps with serve."""
        return self.away.ours + self.behind.ours

    @property
    def ratio(self) -> float:
        """p50 with serve to p50 without."""
        return spread(self.beside).p50 / spread(self.without.ours).p50


def run(options: argparse.Namespace) -> Outcome:
    """Measure and judge; `--steps` is the number of steps a half has, over all pairs."""
    steps = max(2, (options.steps or STEPS) // PAIRS)
    with (
        data_folder(options.data, "hazardgate-b2-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        pairs, gaps = runner.run(_measure(folder, steps, random.Random(options.seed)))
    return judge(pairs, steps, gaps)


def judge(pairs: list[Pair], steps: int, gaps: int) -> Outcome:
    """Turn the pairs into table, figures and verdict."""
    if any(not half.ours for pair in pairs for half in (pair.without, pair.away, pair.behind)):
        raise BenchmarkError("a half without one webhook cannot be compared")
    without = spread([value for pair in pairs for value in pair.without.ours])
    beside = spread([value for pair in pairs for value in pair.beside])
    ratios = [pair.ratio for pair in pairs]
    lost = [what for pair in pairs for half in (pair.without, pair.away, pair.behind) for what in half.lost]
    slowest = min(pair.sent_per_s for pair in pairs)
    outcome = Outcome(
        "B2-outage", f"alarm latency while a store is away and catches up, {len(pairs)} pairs of {steps} steps (ms)", DURABILITY
    )
    outcome.figures = {
        "without_ms": without.to_json(), "with_ms": beside.to_json(),
        "away_ms": spread([value for pair in pairs for value in pair.away.ours]).to_json(),
        "catching_up_ms": spread([value for pair in pairs for value in pair.behind.ours]).to_json(),
        "pair_ratios": [round(ratio, 3) for ratio in ratios], "sent_rows_per_s": [round(pair.sent_per_s) for pair in pairs],
        "serve_cpu_percent": [round(pair.serve_cpu_percent, 1) for pair in pairs],
        "influxdb_cpu_percent": [round(pair.influx_cpu_percent, 1) for pair in pairs],
        "steps_without_webhook": len(lost), "sequence_gaps": gaps,
    }  # fmt: skip
    outcome.ratios = {"with_to_without_p50": round(statistics.median(ratios), 3)}
    outcome.goal = {
        "with_to_without_p50": P50_RATIO, "p99_ms": P99_MS, "steps_without_webhook": 0,
        "catching_up": f"to the last step, at {PACE_SHARE:.0%} of {ROWS_PER_S} rows/s or more",
    }  # fmt: skip
    outcome.held = {
        "with_to_without_p50": statistics.median(ratios) <= P50_RATIO, "p99_ms": beside.p99 <= P99_MS,
        "steps_without_webhook": not lost and not gaps,
        "catching_up": slowest >= PACE_SHARE * ROWS_PER_S and all(pair.behind_at_end for pair in pairs),
    }  # fmt: skip
    rows: list[Sequence[str]] = [["", "count", "p50", "p99", "max"]]
    for number, pair in enumerate(pairs, 1):
        rows.append([f"pair {number} without serve", *spread_cells(spread(pair.without.ours))])
        rows.append([f"pair {number} store away", *spread_cells(spread(pair.away.ours))])
        rows.append([f"pair {number} store catching up", *spread_cells(spread(pair.behind.ours))])
    rows += [["all without", *spread_cells(without)], ["all with", *spread_cells(beside)]]
    outcome.rows = rows
    outcome.notes = [
        f"while it caught up: {', '.join(f'{pair.sent_per_s:.0f}' for pair in pairs)} rows/s sent; CPU of a core: serve "
        f"{', '.join(f'{pair.serve_cpu_percent:.0f} %' for pair in pairs)}, InfluxDB "
        f"{', '.join(f'{pair.influx_cpu_percent:.0f} %' for pair in pairs)}",
        *(f"lost: {what}" for what in lost[:10]),
    ]
    return outcome


async def _measure(folder: Path, steps: int, chance: random.Random) -> tuple[list[Pair], int]:
    pairs: list[Pair] = []
    async with AsyncExitStack() as ends:
        chain, bare, disk = await set_up(folder, chance, ends)
        server = StoreServer(INFLUXD, folder / "influxd")
        ends.callback(server.stop)
        site = _with_store(chain, server.url)
        history = await asyncio.to_thread(
            write_history, folder / "core" / LEDGER_NAME, site.site, [synthetic_tag(number) for number in range(TAGS)],
            int(HISTORY_S * ROWS_PER_S), time.time_ns() // 1_000_000,
        )  # fmt: skip
        await chain.start_ours()
        await first_webhook(chain)
        for number in range(PAIRS):
            pair = Pair()
            for with_serve in (number % 2 == 0, number % 2 == 1):
                if not with_serve:
                    await asyncio.sleep(SETTLE_S)
                    await side_by_side(chain, bare, disk, steps, chance, pair.without)
                    continue
                async with AsyncExitStack() as serve_ends:
                    outage = await _Outage.begin(chain, server, history, serve_ends)
                    await asyncio.sleep(SETTLE_S)
                    await side_by_side(chain, bare, disk, steps // 2, chance, pair.away)
                    await outage.end()
                    await side_by_side(chain, bare, disk, steps - steps // 2, chance, pair.behind)
                    await outage.tell(pair)
            failed = chain.dead()
            if failed is not None:
                raise BenchmarkError(failed)
            pairs.append(pair)
            print(f"pair {number + 1} of {PAIRS}: {pair.ratio:.3f}", file=sys.stderr, flush=True)
        gaps = missing_sequences(chain.receiver.lines)
    return pairs, gaps


def _with_store(chain: Chain, url: str) -> SiteConfig:
    """Write the chain's site anew, with the store in it."""
    plain = chain.site.model_dump(mode="json", exclude_unset=True)
    plain["storage"] = {
        "stores": [{
            "id": STORE, "kind": "influxdb1", "url": url, "database": DATABASE, "catch_up_rows_per_s": ROWS_PER_S,
        }],
    }  # fmt: skip
    site = SiteConfig.model_validate(plain)
    (chain.folder / "site.yaml").write_text(dump_site(site), encoding="utf-8")
    return site


class _Outage:
    """A serve whose store is down, and then is not."""

    def __init__(self, chain: Chain, server: StoreServer, serve_pid: int, history: int) -> None:
        self._chain, self._server, self._serve_pid, self._history = chain, server, serve_pid, history
        self._began: tuple[float, int, float, float] = (0.0, 0, 0.0, 0.0)

    @classmethod
    async def begin(cls, chain: Chain, server: StoreServer, history: int, ends: AsyncExitStack) -> _Outage:
        """Start serve with an empty store that is down; returns once the history is sealed and the store known to be away."""
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
        historian = chain.folder / FOLDER_NAME
        (historian / FEEDS / f"{STORE}.json").unlink(missing_ok=True)  # as for a store that was just configured
        (historian / STATUS_NAME).unlink(missing_ok=True)
        serve = await start_serve(chain, free_port(), ends)
        ends.callback(server.stop)
        assert serve.process is not None
        try:
            await _until(lambda: _away_and_sealed(historian, history // FRAME_TAGS), "away, or the history not sealed,")
        except BenchmarkError as error:  # the folder goes with the run: what it says must be in the message
            raise BenchmarkError(f"{error}; {STATUS_NAME}: {read_json(historian / STATUS_NAME)}; {serve.last_lines(10)}") from None
        return cls(chain, server, serve.process.pid, history)

    async def end(self) -> None:
        """Let the store come up; returns once it is being sent what it has missed."""
        await asyncio.to_thread(self._server.start)
        query = urllib.parse.urlencode({"q": f'CREATE DATABASE "{DATABASE}"'}).encode()
        await asyncio.to_thread(lambda: urllib.request.urlopen(self._server.url + "/query", query, timeout=10.0).read())
        await _until(lambda: points_written(self._server.url) > ROWS_PER_S, "sent what it has missed")
        self._began = await self._now()

    async def tell(self, pair: Pair) -> None:
        """Write down how fast it caught up, and whether there was more to catch up with to the end."""
        began, now = self._began, await self._now()
        took_s, points, serve_s, influx_s = (after - before for before, after in zip(began, now, strict=True))
        pair.sent_per_s = points / took_s
        pair.behind_at_end = now[1] < self._history
        pair.serve_cpu_percent, pair.influx_cpu_percent = 100 * serve_s / took_s, 100 * influx_s / took_s

    async def _now(self) -> tuple[float, int, float, float]:
        points = await asyncio.to_thread(points_written, self._server.url)
        return time.monotonic(), points, cpu_s(self._serve_pid), self._server.cpu_s()


def points_written(url: str) -> int:
    """Return how many samples InfluxDB says that it has taken since it came up."""
    with urllib.request.urlopen(url + "/debug/vars", timeout=10.0) as answer:
        said = json.loads(answer.read())
    parts = [part for part in said.values() if isinstance(part, dict) and part.get("name") == "httpd"]
    return sum(int(part["values"].get("pointsWrittenOK", 0)) for part in parts)


def _away_and_sealed(historian: Path, positions: int) -> bool:
    """Whether serve says that the store is away, and that the history is in segments."""
    status = read_json(historian / STATUS_NAME) or {"cursor": 0, "stores": []}
    store = next((store for store in status["stores"] if store["id"] == STORE), None)
    return store is not None and store["state"] == "away" and status["cursor"] >= positions


async def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + STATE_S_MAX
    while not await asyncio.to_thread(reached):
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the store was not {what} within {STATE_S_MAX:g} s")
        await asyncio.sleep(0.2)
