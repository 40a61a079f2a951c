"""All books of a chain read together: the ledger's, the edges', the platform's and the plant's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from alerting import AlarmEngine, AlarmState
from edge import SpooledSample
from gateway.core import LEDGER_NAME, Core, LedgerReader
from tests.system.chain import Chain, WaitedTooLongError, wait_until
from tests.system.oracle import (
    BrokenChainError,
    Committed,
    Entry,
    Journalled,
    Step,
    Verdict,
    chains,
    committed,
    holes,
    judge,
    missing_samples,
    read_journal,
    read_log,
    sequence_faults,
    undelivered,
    unknown_notices,
)
from tests.system.site import RECEIVERS
from wire import MemoryBroker, MemoryConnector

DRAIN_S_MAX = 90.0
SETTLE_S_MAX = 90.0
# What parts that are killed and frozen again and again rightly cause.
QUIET_SYSTEM_ALARMS = frozenset(
    f"{subject}.{edge}.{word}"
    for edge in ("E1", "E2") for subject, word in (("EDGE", "OFFLINE"), ("EDGE", "TRANSPORT"), ("SECURITY", "TAKEOVER"))
)
# What core rightly says of itself just after a slow machine kept it from running, or from turning, for so long, in ms.
AWAY, STALLED = "CORE.PROCESS.AWAY", "CORE.EVALUATOR.STALLED"
SILENCE_TOLD_MS = {AWAY: 10_000, STALLED: 3_000}
TOLD_AFTER_MS_MAX = 5_000


@dataclass(slots=True)
class Books:
    """What a ledger holds, judged."""

    log: list[Entry]
    journal: list[Journalled]
    found: Committed
    holes: list[str]
    verdict: Verdict
    losses: list[tuple[Any, ...]]

    def system_alarms(self) -> set[str]:
        """Keys of all system conditions that were ever raised."""
        return {row.step.tag for row in self.journal if row.category == "system"}

    def silence_told(self) -> set[str]:
        """Keys of the conditions that tell of a silence, where the log shows one before each of their alarms."""
        return rightly_told(self.log, [row.step for row in self.journal if row.category == "system"])

    def steps(self, key: str) -> list[str]:
        """Return what happened to a tag's or a condition's alarms, in journal order, as `H raised`."""
        return [f"{row.step.limit} {row.step.kind}" for row in self.journal if row.step.tag == key]


def rightly_told(log: Sequence[Entry], steps: Sequence[Step]) -> set[str]:
    """Keys of `SILENCE_TOLD_MS` whose every alarm in `steps` has its silence in the log."""
    facts = {(entry.facts["key"], entry.at_ms): entry.facts["facts"] for entry in log if entry.kind == "S"}
    silences = [(before, after) for before, after in pairwise(log) if after.at_ms - before.at_ms >= min(SILENCE_TOLD_MS.values())]
    raised = [step for step in steps if step.tag in SILENCE_TOLD_MS and step.kind == "raised"]
    wrong = {
        step.tag for step in raised
        if not any(_tells_of(step, facts.get((step.tag, step.at_ms)), before, after) for before, after in silences)
    }  # fmt: skip
    return {step.tag for step in raised} - wrong


def _tells_of(step: Step, facts: Any, before: Entry, after: Entry) -> bool:
    """Whether an alarm tells of the silence between two entries: one that a start ends was no stall, but for a noted one."""
    if facts is None or after.at_ms - before.at_ms < SILENCE_TOLD_MS[step.tag]:
        return False
    just_after, started = 0 <= step.at_ms - after.at_ms <= TOLD_AFTER_MS_MAX, after.kind == "W"
    if step.tag == AWAY:
        return just_after and started
    if not facts.get("restarted"):
        return just_after and not started
    noted_ms, seconds = facts.get("at_ms", 0), facts.get("seconds", 0)  # by the core that ended within this silence
    return started and bool(before.at_ms + 1_000 * (seconds - 1) <= noted_ms <= after.at_ms <= step.at_ms)


def read_books(chain: Chain) -> Books:
    """Read and judge the ledger, beside a running core or after it."""
    with chain.ledger() as reader:
        reader.rows("BEGIN")  # all of one moment: a journal read after the log may tell of frames that the log does not have yet
        log = read_log(reader, chain.site)
        journal = read_journal(reader)
        found = committed(log, chain.site)
        losses = reader.rows("SELECT node, stream, first, last, cause FROM loss LIMIT 1000")
        verdict = judge(journal, log, found, chains(reader, found), chain.site)
        return Books(log, journal, found, holes(reader, found), verdict, losses)


def drained(chain: Chain) -> bool:
    """Every edge is live and holds nothing but the end of its live stream."""
    for name in chain.edges:
        status = chain.edge_status(name)
        if not status.get("live") or [span for span in status["unfinished"] if span["stream"] != status["stream"]]:
            return False
    return True


def stop_edges(chain: Chain) -> None:
    """Let the backlog drain, end every edge in order, and hold its counters to their promise."""
    wait_until(lambda: drained(chain), "every edge's backlog is acknowledged", DRAIN_S_MAX)
    for name, edge in chain.edges.items():
        edge.stop()
        status = chain.edge_status(name)
        assert status["stopped"]
        assert status["unfinished"] == []
        assert status["samples_taken"] == status["samples_acked"] > 0
        assert status["samples_dropped"] == 0


def settle(chain: Chain) -> Books:
    """Wait until history has run to its end and nothing is due for delivery; return the books of then."""
    found = ""

    def complete() -> bool:
        nonlocal found
        try:
            books = read_books(chain)
        except BrokenChainError as error:
            found = str(error)
            return False
        found = f"{books.verdict} {books.holes}"
        return books.verdict.complete and not books.holes

    try:
        wait_until(complete, "the journal says what the frames say", SETTLE_S_MAX, every_s=0.5)
    except WaitedTooLongError:
        raise AssertionError(found) from None
    wait_deliveries(chain)
    return read_books(chain)


def wait_deliveries(chain: Chain, timeout_s: float = DRAIN_S_MAX) -> None:
    """Wait until core has nothing due for any receiver, in the ledger as in its own words."""

    def delivered() -> bool:
        beat = chain.heartbeat()
        fresh = time.time() * 1000 - beat.get("at_ms", 0) < 3_000
        idle = fresh and all(lane["due"] == 0 for lane in beat["deliveries"].values())
        return idle and chain.rows("SELECT count(*) FROM outbox WHERE state <> 'accepted'") == [(0,)]

    wait_until(delivered, "nothing is due for any receiver", timeout_s)


def nothing_missing(chain: Chain, books: Books, taken: Mapping[str, Sequence[SpooledSample]]) -> None:
    """Every promise that the books can show; for a chain whose core has stopped.

    Args:
        taken: what lay on the disks of dead edges.
    """
    assert books.verdict.lost == []
    assert books.verdict.phantom == []
    assert books.holes == []
    assert books.losses == []
    for node, samples in taken.items():
        missing = missing_samples(chain.site, node, samples, books.found)
        assert missing == [], f"{len(missing)} of {len(samples)} samples that {node} had taken are not in the ledger"
    delivered_all(chain, books)
    unexpected = books.system_alarms() - QUIET_SYSTEM_ALARMS - books.silence_told()
    assert not unexpected, unexpected
    assert chain.write_requests() == []


def delivered_all(chain: Chain, books: Books) -> None:
    """Everything wanted arrived verified, nothing arrived that was never journalled, no number is missing."""
    received = chain.received()
    assert undelivered(books.journal, received, chain.site) == []
    with chain.ledger() as reader:
        assert unknown_notices(reader, received) == []
    assert sequence_faults(received) == []
    assert chain.rejected() == []


def revived(chain: Chain, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Core, list[AlarmState]]:
    """Start a core on a copied folder as far as recovery; return it and what it had to take from the journal."""
    adopted: list[AlarmState] = []
    adopt = AlarmEngine.adopt

    def watched(engine: AlarmEngine, alarm: AlarmState) -> None:
        adopted.append(alarm)
        adopt(engine, alarm)

    secrets = {receiver: chain.environment[variable] for receiver, variable in RECEIVERS.items()}
    with monkeypatch.context() as patch:
        patch.setattr(AlarmEngine, "adopt", watched)
        core = Core(chain.site, folder, MemoryConnector(MemoryBroker()), secrets, chain.site_file.parent)
    return core, adopted


def same_alarms_after_restart(chain: Chain, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Recover from a dead core's folder, aside: engine, ledger and journal must agree. Return the open alarms."""
    folder = chain.copy(chain.core_folder, name)
    core, adopted = revived(chain, folder, monkeypatch)
    assert core.recovered.differences == ()
    assert adopted == [], "the engine had to be told of alarms by the ledger"
    reader = LedgerReader.open(folder / LEDGER_NAME)
    stored = {alarm.id: alarm for alarm in reader.open_alarms()}
    reader.close()
    assert {alarm.id: alarm for alarm in core.recovered.machine.engine.alarms()} == stored
    return len(stored)
