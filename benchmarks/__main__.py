"""`python -m benchmarks ID | all`: run, print the table, close with one JSON line; exit 0 only if the goal holds."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

from benchmarks.harness import BenchmarkError, Outcome, closing_line

MODULES: Final = {
    "B1": "benchmarks.b1_durable_ingest",
    "B2": "benchmarks.b2_alarm_latency",
    "B2-serve": "benchmarks.b2_with_serve",
    "B2-outage": "benchmarks.b2_with_outage",
    "B3": "benchmarks.b3_evaluator",
    "B10": "benchmarks.b10_storage",
}
EXIT_MISSED, EXIT_REFUSED = 1, 2


class Benchmark(Protocol):
    """What a benchmark's module offers."""

    def run(self, options: argparse.Namespace) -> Outcome:
        """Set up, measure, clean up.

        Raises:
            BenchmarkError: it could not be measured; the message says why.
        """


def arguments() -> argparse.ArgumentParser:
    """Return the parser: one id, and the options that shorten or move a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("id", help=f"{', '.join(MODULES)} or all")
    parser.add_argument("--steps", type=_at_least_one, help="how many events to measure, for a shorter or longer run")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random in the load")
    parser.add_argument("--limits", type=int, choices=(4, 8), default=4, help="B3: limits a tag has")
    parser.add_argument("--days", type=_at_least_one, default=30, help="B10: days of ours; 30 decide")
    parser.add_argument("--peer-hours", type=int, choices=range(1, 25), default=6, metavar="1..24", help="B10: hours that peers get")
    parser.add_argument("--fresh", action="store_true", help="B10: build the days anew")
    parser.add_argument("--data", type=Path, help="an empty folder on the disk to measure, kept after the run; B10: where its days are")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main(words: Sequence[str], modules: Mapping[str, str] = MODULES) -> int:
    """Run what the command line asks for; returns the exit code."""
    options = arguments().parse_args(words)
    wanted = list(modules) if options.id == "all" else [options.id]
    unknown = [name for name in wanted if name not in modules]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(modules)}, all", file=sys.stderr)
        return EXIT_REFUSED
    outcomes = []
    for name in wanted:
        try:
            outcome = cast(Benchmark, importlib.import_module(modules[name])).run(options)
        except BenchmarkError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return EXIT_REFUSED
        outcomes.append(outcome)
        print(outcome.text(), flush=True)
        if len(wanted) > 1:
            print(json.dumps(outcome.to_json(), ensure_ascii=False), flush=True)
        print()
    print(closing_line(outcomes), flush=True)
    return 0 if all(outcome.holds for outcome in outcomes) else EXIT_MISSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
