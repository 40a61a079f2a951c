"""What is too long for `make test`: thousands of seeds of the virtual world, then flat memory over real processes.

    python -m tests.soak [--seeds 2000] [--first 0] [--minutes 10] [--only seeds|memory]

A failing seed prints its timeline and the command that replays it; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

SEEDS = 2_000
MINUTES = 10.0
PROCESSES = 2
QUEUED_MAX = 8
SAID_EVERY_S = 10.0
TIMELINES_MAX = 5


def run_one(seed: int) -> str:
    """Run a seed in this process; return its timeline if it fails, else nothing."""
    from tests.simulation.running import run_seed

    with tempfile.TemporaryDirectory(prefix="hazardgate-soak-") as folder:
        try:
            outcome = run_seed(seed, Path(folder))
        except Exception:  # a run that ends by an error is a finding like any other: the next seed runs on
            return f"seed {seed} ended by an error\n{traceback.format_exc()}"
        return str(outcome) if outcome.violations else ""


def soak_seeds(
    seeds: Sequence[int], run: Callable[[int], str] = run_one, say: Callable[[str], None] = print
) -> bool:
    """Run every seed in two processes and say how it goes; return whether all of them passed."""
    started_s = said_s = time.monotonic()
    done, failing = 0, list[int]()
    for seed, told in _results(seeds, run):
        done += 1
        if told:
            failing.append(seed)
            say(told if len(failing) <= TIMELINES_MAX else f"seed {seed} fails too")
        if time.monotonic() - said_s >= SAID_EVERY_S:
            said_s = time.monotonic()
            say(f"seeds: {done} of {len(seeds)}, {len(failing)} failing, {said_s - started_s:.0f} s")
    again = f": {','.join(map(str, sorted(failing)[:50]))}" if failing else ""
    say(f"seeds: {done} run in {time.monotonic() - started_s:.0f} s, {len(failing)} failing{again}")
    return not failing and done == len(seeds)


def _results(seeds: Sequence[int], run: Callable[[int], str]) -> Iterator[tuple[int, str]]:
    """Yield every seed with what it said, as they end. Few wait at once, so that an end by hand comes soon."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        running: dict[Future[str], int] = {}
        waiting = iter(seeds)
        while True:
            while len(running) < QUEUED_MAX and (seed := next(waiting, None)) is not None:
                running[pool.submit(run, seed)] = seed
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def soak_memory(minutes: float) -> bool:
    """Run 1 000 tags at 1 Hz over real processes; return whether their memory stayed flat."""
    try:
        watch = importlib.import_module("tests.soak_memory")
    except ModuleNotFoundError as error:
        print(f"soak, memory: {error}; run the other part alone with --only seeds")
        return False
    return bool(watch.run(minutes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, one part after the other; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds of the virtual world")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long memory is watched")
    parser.add_argument("--only", choices=("seeds", "memory"), help="run one part alone")
    wanted = parser.parse_args(arguments)
    parts: dict[str, Callable[[], bool]] = {
        "seeds": lambda: soak_seeds(range(wanted.first, wanted.first + wanted.seeds)),
        "memory": lambda: soak_memory(wanted.minutes),
    }
    passed = {name: part() for name, part in parts.items() if wanted.only in (None, name)}
    for name, well in passed.items():
        print(f"soak, {name}: {'passed' if well else 'FAILED'}", flush=True)
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
