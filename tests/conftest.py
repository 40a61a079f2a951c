"""What every test shares: peers that only the distribution has, and the proof that nothing ever wrote to a plant."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from simulators import TALLY, WRITE_CODES

NO_SKIPS = "HAZARDGATE_NO_SKIPS"
SEED = "HAZARDGATE_SEED"

# How long an example takes says what else the machine does, and nothing of what is tested.
settings.register_profile("hazardgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("hazardgate"), max_examples=1_000)
settings.load_profile("hazardgate")


def pytest_configure(config: pytest.Config) -> None:
    """Every simulated instrument of this run, in this process or another, adds its function codes to one file."""
    if hasattr(config, "workerinput"):
        return  # one of several processes of a run: it has the name of the file from the first
    folder = config.rootpath / ".pytest_cache"
    folder.mkdir(exist_ok=True)
    tally = folder / f"request-tally-{os.getpid()}.txt"
    tally.unlink(missing_ok=True)
    os.environ[TALLY] = str(tally)
    # Drawn once, so that all processes of the run collect the same tests; the seed stands in the test's id.
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1_000_000)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip by name what needs a server that is not installed; fail instead where nothing may be skipped."""
    for mark in item.iter_markers("needs"):
        name = str(mark.args[0])
        if shutil.which(name) or Path(f"/usr/sbin/{name}").is_file():
            continue
        if os.environ.get(NO_SKIPS):
            pytest.fail(f"{name} is not installed, and nothing may be skipped in this run")
        pytest.skip(f"{name} is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """However a test skipped itself, it fails where nothing may be skipped."""
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and nothing may be skipped in this run: {report.longrepr}"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The whole run's proof that the gateway cannot write: count the function codes that reached an instrument."""
    if hasattr(session.config, "workerinput"):
        return
    counts = tallied(Path(os.environ[TALLY]))
    writes = sum(counts[code] for code in WRITE_CODES)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"instruments: {sum(counts.values())} requests seen, {writes} with a write function code")
    if writes:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def tallied(path: Path) -> Counter[int]:
    """Return how often each function code was seen."""
    counts: Counter[int] = Counter()
    if path.exists():
        for line in path.read_text("ascii").splitlines():
            code, count = line.split()
            counts[int(code)] += int(count)
    return counts
