"""Reads the ledger that a run left behind, and holds its journal against its own input log.

The reading and the two runs over the log are those of `tests.system.oracle`, which judges real processes.
"""

from __future__ import annotations

from gateway.core import LedgerReader
from simulators.world import FaultBegan, FaultKind, Record
from tests.simulation.all_arrive import Step
from tests.simulation.facts import Violation
from tests.simulation.nothing_lost import FrameKey, Loss
from tests.simulation.oracle import Books
from tests.system.oracle import (
    BrokenChainError,
    Committed,
    Entry,
    Journalled,
    chains,
    committed,
    judge,
    read_journal,
    read_log,
)

ROWS_MAX = 100_000


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
        problems += _judged(record, reader, log, found, journal)
        frames: dict[FrameKey, dict[str, tuple[float, int, int]]] = {key: {} for key in found.frames}
        for (node, stream, number, tag), value in found.samples.items():
            frames[node, stream, number][tag] = value
        live = {(frame.node, frame.stream, frame.sequence) for entry in log if entry.kind == "F" for frame in entry.frames}
        losses = reader.rows("SELECT node, stream, first, last, cause FROM loss LIMIT ?", (ROWS_MAX,))
        return Books(frames, live, [Loss(*row) for row in losses], [_step(row) for row in journal], problems)
    finally:
        reader.close()


def _judged(
    record: Record, reader: LedgerReader, log: list[Entry], found: Committed, journal: list[Journalled]
) -> list[Violation]:
    """Run the plain rules over the log in both orders; where two boxes share an id there is no one order."""
    at_s = record.events[-1].at_s
    if _two_orders(record):
        return []
    try:
        verdict = judge(journal, log, found, chains(reader, found), record.site)
    except BrokenChainError as error:
        return [Violation("P1", at_s, str(error))]
    return [Violation("P2" if "returned" in line else "P3", at_s, line) for line in (*verdict.lost, *verdict.phantom)]


def _two_orders(record: Record) -> bool:
    """Whether a node's streams may fork: by a twin, or when its disk refused what it had sent before it was killed."""
    struck: dict[str, set[FaultKind]] = {}
    for event in record.of(FaultBegan):
        struck.setdefault(event.fault.part, set()).add(event.fault.kind)
    refusing = {FaultKind.DISK_FULL, FaultKind.SYNC_FAILS}
    nodes = {edge.id for edge in record.site.edges}
    return any(
        FaultKind.TWINS in kinds or (FaultKind.KILL in kinds and bool(kinds & refusing))
        for part, kinds in struck.items()
        if part in nodes
    )


def _step(row: Journalled) -> Step:
    return Step(row.id, row.alarm_id, row.revision, row.step.kind, row.step.tag, row.step.limit, row.category, row.grade)
