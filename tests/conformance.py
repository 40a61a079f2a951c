"""`make conformance`: which normative statements of Sparkplug 3.0 a passing test proves, which are excepted, which are neither.

A test names its statements by `@pytest.mark.spec("tck-id-…")`. Statements we do not keep, or that do not bind us, stand
with their reasons in `docs/sparkplug-conformance.toml`.
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

IDS_FILE: Final = Path(__file__).with_name("sparkplug_tck_ids.txt")
EXCEPTIONS_FILE: Final = Path(__file__).parents[1] / "docs" / "sparkplug-conformance.toml"
REASON_CHARACTERS_MIN: Final = 40


class ConformanceFileError(Exception):
    """The list of exceptions contradicts itself or the list of ids."""


@dataclass(frozen=True, slots=True)
class Excepted:
    """Why a statement is not proven, and the decision record that says more, if there is one."""

    reason: str
    decision: str


def read_ids(path: Path = IDS_FILE) -> dict[str, str]:
    """Return every id, and whom it binds, in the specification's order of names."""
    lines = [line.split() for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return dict(lines)


def read_exceptions(ids: Mapping[str, str], path: Path = EXCEPTIONS_FILE) -> dict[str, Excepted]:
    """Return the excepted ids.

    An entry of `ids` may end in `*`, which stands for all ids that begin so.

    Raises:
        ConformanceFileError: an id that the specification does not have, one excepted twice, or a reason that is none.
    """
    found: dict[str, Excepted] = {}
    for group in tomllib.loads(path.read_text("utf-8"))["exception"]:
        reason = " ".join(str(group["reason"]).split())
        if len(reason) < REASON_CHARACTERS_MIN:
            raise ConformanceFileError(f"{path.name}: {group['ids']}: write the reason in a sentence, not {reason!r}")
        for pattern in group["ids"]:
            meant = [name for name in ids if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1]))]
            if not meant:
                raise ConformanceFileError(f"{path.name}: {pattern} is no statement of the specification; compare {IDS_FILE.name}")
            for name in meant:
                if name in found:
                    raise ConformanceFileError(f"{path.name}: {name} is excepted twice; leave one reason")
                found[name] = Excepted(reason, str(group.get("decision", "")))
    return found


class Tally:
    """A pytest plugin: notes the outcome of every test that carries a statement's id."""

    def __init__(self) -> None:
        self.marks: dict[str, tuple[str, ...]] = {}
        self.outcomes: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.marks[item.nodeid] = marks_of(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            for name in self.marks.get(report.nodeid, ()):
                self.outcomes[name].append(report.outcome)


def marks_of(item: pytest.Item) -> tuple[str, ...]:
    """Return the ids that a test claims to prove, each once."""
    return tuple(dict.fromkeys(str(mark.args[0]) for mark in item.iter_markers("spec")))


def main() -> int:
    """Run the marked tests and print a line for every id.

    Returns:
        1 when a marked test failed, a mark names no statement, or an excepted statement is marked as proven too.
    """
    ids = read_ids()
    excepted = read_exceptions(ids)
    tally = Tally()
    ended = pytest.main(["-q", "-m", "spec", "--no-header", *sys.argv[1:]], plugins=[tally])
    print()
    covered = 0
    width = max(map(len, ids))
    for name, bound in ids.items():
        outcomes = tally.outcomes.get(name, [])
        passed, failed = outcomes.count("passed"), outcomes.count("failed")
        covered += bool(passed and not failed)
        if name in excepted:
            why = excepted[name]
            print(f"{name:{width}}  excepted   {why.reason}" + (f" [{why.decision}]" if why.decision else ""))
        else:
            print(f"{name:{width}}  {'FAILED' if failed else 'covered' if passed else 'uncovered':9}  {bound}, {passed} tests")
    unknown = sorted(set(tally.outcomes) - set(ids))
    both = sorted(set(tally.outcomes) & set(excepted))
    if unknown:
        print(f"marks that name no statement: {', '.join(unknown)}", file=sys.stderr)
    if both:
        print(f"both excepted and marked as proven: {', '.join(both)}", file=sys.stderr)
    print(f"{covered} covered, {len(excepted)} excepted, {len(ids) - covered - len(excepted)} uncovered")
    return 1 if unknown or both or ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 0


if __name__ == "__main__":
    sys.exit(main())
