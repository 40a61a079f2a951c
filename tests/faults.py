"""`make faults`: which ids of the fault catalogue have a passing test, and which have none."""

from __future__ import annotations

import sys
from collections import defaultdict

import pytest

FAULTS = tuple(f"F{number:02}" for number in range(1, 78))


class Tally:
    """A pytest plugin: notes the outcome of every test that carries a fault's id."""

    def __init__(self) -> None:
        self.marks: dict[str, tuple[str, ...]] = {}
        self.outcomes: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.marks[item.nodeid] = tuple(str(mark.args[0]) for mark in item.iter_markers("fault"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            for fault in self.marks.get(report.nodeid, ()):
                self.outcomes[fault].append(report.outcome)


def main() -> int:
    """Run the marked tests and print a line for every id. Returns 1 when a marked test failed."""
    tally = Tally()
    marked = pytest.main(["-q", "-m", "fault", "--no-header", *sys.argv[1:]], plugins=[tally])
    unknown = sorted(set(tally.outcomes) - set(FAULTS))
    print()
    for fault in FAULTS:
        outcomes = tally.outcomes.get(fault, [])
        passed, failed = outcomes.count("passed"), outcomes.count("failed")
        print(f"{fault}  {'FAILED' if failed else 'proven' if passed else '-':7} {len(outcomes)} tests")
    proven = sum("passed" in tally.outcomes.get(fault, []) for fault in FAULTS)
    print(f"{proven} of {len(FAULTS)} faults have a passing test")
    if unknown:
        print(f"marks that are no fault of the catalogue: {', '.join(unknown)}", file=sys.stderr)
    return 1 if unknown or marked not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 0


if __name__ == "__main__":
    sys.exit(main())
