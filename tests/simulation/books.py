"""Reads the ledger that a run left behind, and holds its journal against its own input log.

The reading and the run over the log are those of `tests.system.oracle`, which judges real processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gateway.core import LedgerReader
from simulators.world import Record
from tests.simulation.all_arrive import Step
from tests.simulation.facts import Violation
from tests.simulation.nothing_lost import FrameKey, Loss
from tests.simulation.oracle import Books
from tests.system.oracle import (
    Committed,
    Journalled,
    committed,
    present_steps,
    read_journal,
    read_log,
)
from tests.system.oracle import Step as SystemStep

ROWS_MAX = 100_000
STEPS = ("raised", "returned")


def read_books(record: Record) -> Books:
    """Return what the ledger holds; what cannot be read of it is a problem in the books."""
    at_s = record.events[-1].at_s
    reader = LedgerReader.open(record.ledger)
    try:
        problems: list[Violation] = []
        log = read_log(reader, record.site)
        found, journal = Committed(), list[Journalled]()
        try:
            found = committed(log, record.site)
        except AssertionError as error:
            problems.append(Violation("P1", at_s, str(error)))
        try:
            journal = read_journal(reader)
        except AssertionError as error:
            problems.append(Violation("P3", at_s, str(error)))
        expected, current = present_steps(log, record.site)
        problems += _present(at_s, expected, journal)
        frames: dict[FrameKey, dict[str, tuple[float, int, int]]] = {key: {} for key in found.frames}
        for (node, stream, number, tag), value in found.samples.items():
            frames[node, stream, number][tag] = value
        losses = reader.rows("SELECT node, stream, first, last, cause FROM loss LIMIT ?", (ROWS_MAX,))
        return Books(frames, current, [Loss(*row) for row in losses], [_step(row) for row in journal], problems)
    finally:
        reader.close()


def _present(at_s: float, expected: Sequence[SystemStep], journal: list[Journalled]) -> Iterator[Violation]:
    """What the plain rules ask for, run over the log in its order, must be the journal's present, step by step.

    Not where two boxes were seen under one id: from there on samples of that id may not lower anything.
    """
    if any(row.step.tag.endswith(".IDENTITY") for row in journal):
        return
    due = Counter(expected)
    told = Counter(row.step for row in journal if not row.late and row.category != "system" and row.step.kind in STEPS)
    for step in due - told:
        yield Violation("P3", at_s, f"present {step} is missing")
    for step in told - due:
        yield Violation("P2" if step.kind == "returned" else "P3", at_s, f"present {step} was never due")


def _step(row: Journalled) -> Step:
    return Step(row.id, row.alarm_id, row.revision, row.step.kind, row.step.tag, row.step.limit, row.category, row.grade)
