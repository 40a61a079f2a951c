"""What may go from the ledger and what may not: sealed, older than both snapshots, and needed by no run over history."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import StorageConfig
from gateway.core.books import NodeBook, StreamState
from gateway.core.entries import Entry, EntryKind
from gateway.core.keeper import LedgerKeeper
from gateway.core.ledger import Batch, Ledger
from gateway.core.reader import LedgerReader
from gateway.core.retention import DAY_MS, KeptRow, Pending, Room, first_needed, removable_before, room
from gateway.core.sealed import Sealed
from gateway.core.snapshots import Snapshot, oldest_kept, write_snapshot
from tests.gateway.bench import LEDGER_NAME, Bench, words
from tests.gateway.field import LEVEL, Edge
from tests.gateway.history import World

NOW_MS, CAP = 100 * DAY_MS, 1_000
DISK_BYTES = 1 << 40


class SealedUpTo:
    """A historian that holds everything up to a position."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor

    def look(self, _reader: LedgerReader, _gone: int, _now_ms: int, _standing: Sequence[str]) -> Sealed:
        return Sealed(self.cursor, ())


def keeper(reader: LedgerReader, folder: Path, sealed_pos: int, **storage: Any) -> LedgerKeeper:
    return LedgerKeeper(reader, folder, StorageConfig(**storage), SealedUpTo(sealed_pos))  # type: ignore[arg-type]


# -- the decision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("used", "wal", "found"), [
    pytest.param(500, 0, Room(False, False, False, False), id="half"),
    pytest.param(501, 0, Room(True, True, False, False), id="over half: history gives up its claims"),
    pytest.param(400, 101, Room(False, True, False, False), id="over half with the write-ahead log: told, nothing more"),
    pytest.param(400, 5_000, Room(False, True, False, False), id="a write-ahead log of any size refuses nothing"),
    pytest.param(1_000, 0, Room(True, True, True, False), id="at the cap: no backlog"),
    pytest.param(1_050, 0, Room(True, True, True, True), id="over the cap: nothing"),
])  # fmt: skip
def test_the_write_ahead_log_counts_towards_the_alarm_and_not_towards_refusing(used: int, wal: int, found: Room) -> None:
    assert room(used, wal, CAP) == found


@pytest.mark.parametrize(("sealed_pos", "snapshot_pos", "before"), [
    pytest.param(0, 50, 1, id="nothing is sealed"),
    pytest.param(50, 0, 0, id="there are not two snapshots"),
    pytest.param(20, 50, 21, id="up to what is sealed"),
    pytest.param(50, 20, 20, id="up to the older snapshot"),
])  # fmt: skip
def test_nothing_goes_that_is_not_sealed_or_that_replay_begins_with(sealed_pos: int, snapshot_pos: int, before: int) -> None:
    assert removable_before(sealed_pos, snapshot_pos) == before


ROWS = [KeptRow(1, "E1", 7, 4, 10), KeptRow(2, "E2", 7, 5, 20), KeptRow(3, "E1", 8, 9, 30)]


@pytest.mark.parametrize(("pending", "aged_ms", "needed"), [
    pytest.param({}, 0, None, id="no history is pending"),
    pytest.param({"E1": {7: 3}}, 0, 1, id="a frame above the run's place"),
    pytest.param({"E1": {7: 4}}, 0, None, id="the run has passed it"),
    pytest.param({"E1": {8: 0}}, 0, 3, id="a stream that follows"),
    pytest.param({"E1": {9: 0}}, 0, None, id="other streams"),
    pytest.param({"E1": {7: 0, 8: 0}}, 11, 3, id="too old to be claimed"),
    pytest.param({"E2": {7: 4}}, 20, 2, id="just young enough"),
])  # fmt: skip
def test_history_claims_what_it_may_still_come_to(pending: Pending, aged_ms: int, needed: int | None) -> None:
    assert first_needed(ROWS, pending, aged_ms) == needed


@dataclass(frozen=True)
class Kept:
    """A row of a ledger in a drawn world."""

    pos: int
    kind: EntryKind
    stream: int
    number: int
    age_days: int


KINDS = st.sampled_from([EntryKind.FRAME, EntryKind.BLOCK, EntryKind.HISTORICAL, EntryKind.STATE, EntryKind.TICK, EntryKind.BORN])
LEDGERS = st.lists(st.tuples(KINDS, st.integers(1, 3), st.integers(1, 9), st.integers(0, 10)), max_size=25).map(
    lambda rows: [Kept(pos, *row) for pos, row in enumerate(rows, 1)]
)
DAYS = 5


@given(
    LEDGERS, st.integers(0, 30), st.integers(0, 30), st.dictionaries(st.integers(1, 3), st.integers(0, 9), max_size=3),
    st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_what_goes_may_go_and_what_stays_must_stay(
    rows: list[Kept], sealed_pos: int, snapshot_pos: int, needed: dict[int, int], crowded: bool, known: bool
) -> None:
    passing = {EntryKind.FRAME, EntryKind.BLOCK, EntryKind.HISTORICAL, EntryKind.STATE}

    def claimed(row: Kept) -> bool:
        framed = row.kind in (EntryKind.FRAME, EntryKind.BLOCK)
        return framed and not crowded and row.age_days <= DAYS and row.number > needed.get(row.stream, 99)

    def may_go(row: Kept) -> bool:
        return row.pos <= sealed_pos and row.pos < snapshot_pos and (known or crowded) and not claimed(row)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = Ledger(folder / LEDGER_NAME, "PARK1")
        ledger.commit([Batch(entries=[
            Entry(row.pos, row.kind, 1, NOW_MS - row.age_days * DAY_MS, b"", "E1", "", row.stream, row.number, row.number)
            for row in rows
        ])])  # fmt: skip
        for pos in {snapshot_pos, 40} if snapshot_pos else {40}:
            write_snapshot(folder, Snapshot(pos, {}))
        looker = keeper(ledger.reader, folder, sealed_pos, frames_days=DAYS, ledger_max_bytes=10_000_000)
        look = looker.look(1 if crowded else DISK_BYTES, NOW_MS, {snapshot_pos: {"E1": needed}} if known else {})
        if look.removable is not None:
            ledger.commit([Batch(removable=look.removable)])
        left = {pos for (pos,) in ledger.reader.rows("SELECT pos FROM log")}
        ledger.close()
    gone = [row for row in rows if row.pos not in left]
    assert all(row.kind in passing and may_go(row) for row in gone)
    first = next((row for row in rows if row.kind in passing and row.pos in left), None)
    assert first is None or not may_go(first), "the oldest row that stays has a reason to"


def test_a_look_while_history_is_pending_reads_a_bounded_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.keeper.LOOKED_ROWS_MAX", 5)
    monkeypatch.setattr("gateway.core.reader.READ_ROWS_MAX", 2)
    ledger = Ledger(tmp_path / LEDGER_NAME, "PARK1")
    ledger.commit([Batch(entries=[Entry(pos, EntryKind.FRAME, 1, NOW_MS, b"", "E1", "", 7, pos, pos) for pos in range(1, 21)])])
    for pos in (30, 40):
        write_snapshot(tmp_path, Snapshot(pos, {}))
    looker = keeper(ledger.reader, tmp_path, 25)
    for before in (6, 11, 13, 13):
        look = looker.look(DISK_BYTES, NOW_MS, {30: {"E1": {7: 12}}})
        assert look.removable is None or look.removable.before == before
        if look.removable is not None:
            ledger.commit([Batch(removable=look.removable)])
    assert ledger.reader.rows("SELECT min(pos) FROM log") == [(13,)]
    ledger.close()


def test_without_a_historian_nothing_goes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER_NAME, "PARK1")
    ledger.commit([Batch(entries=[Entry(1, EntryKind.FRAME, 1, 0, b"", "E1", "", 7, 1, 1)])])
    for pos in (30, 40):
        write_snapshot(tmp_path, Snapshot(pos, {}))
    look = LedgerKeeper(ledger.reader, tmp_path, StorageConfig(), None).look(1, NOW_MS, {30: {}})
    assert (look.removable, look.sealed, look.room.over_full) == (None, None, True)
    ledger.close()


# -- what history may still come to ------------------------------------------------------------------------------------


def book(*streams: tuple[int, int]) -> NodeBook:
    """Streams and their predecessors."""
    made = NodeBook()
    made.streams = {stream: StreamState(predecessor=predecessor, told=True) for stream, predecessor in streams}
    return made


@pytest.mark.parametrize(("known", "stream", "following"), [
    pytest.param(book((1, 0), (2, 1), (3, 2)), 2, [3], id="what comes after, not what comes before"),
    pytest.param(book((1, 0), (2, 1), (3, 1), (4, 3)), 2, [3, 4], id="another branch from a stream before"),
    pytest.param(book((1, 0), (2, 0), (3, 2)), 1, [], id="another chain"),
    pytest.param(book((1, 3), (2, 1), (3, 2)), 1, [], id="a circle"),
    pytest.param(book((1, 0), (2, 3), (3, 2)), 1, [], id="a circle elsewhere"),
    pytest.param(book((2, 1)), 9, [], id="a stream nobody knows"),
])  # fmt: skip
def test_streams_that_follow(known: NodeBook, stream: int, following: list[int]) -> None:
    assert known.following(stream) == following


CHAINS = st.lists(st.integers(0, 8), min_size=8, max_size=8)


@given(CHAINS, st.integers(1, 8))
def test_streams_that_follow_are_those_whose_predecessors_lead_here(predecessors: list[int], stream: int) -> None:
    def before(at: int) -> set[int]:
        passed: set[int] = set()
        while at in range(1, 9) and at not in passed:
            passed.add(at)
            at = predecessors[at - 1]
        return passed

    known = book(*enumerate(predecessors, 1))
    trunk = before(stream)
    assert set(known.following(stream)) == {each for each in range(1, 9) if each not in trunk and before(each) & trunk}


def test_a_stream_no_birth_has_told_of_is_needed_whatever_it_follows(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())
        await bench.settle(3)
        edge.session_lost()
        edge.offline_scan({LEVEL: 3.0})
        edge.session_lost()
        bench.deliver(edge.backlog())
        await bench.settle(3)

    edge, bench = Edge(), Bench(tmp_path / "core")
    asyncio.run(story(bench, edge))
    assert bench.machine.pending() == {"E1": {edge.live - 1: 0}}


@pytest.mark.fault("F25")
def test_a_hole_holds_what_follows_it_and_nothing_before_until_history_has_passed(tmp_path: Path) -> None:
    def take(bench: Bench) -> Pending:
        pos, sections = bench.loop.state_bytes()
        write_snapshot(bench.folder, Snapshot(pos, sections))
        return bench.machine.pending()

    async def remove(bench: Bench, edge: Edge) -> list[tuple[int, int]]:
        """Two snapshots, and all that may go goes; return the frames that stay."""
        pending = take(bench)
        pos = bench.loop.last_pos
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        take(bench)
        reader = bench.ledger.reader
        look = keeper(reader, bench.folder, reader.last_pos()).look(DISK_BYTES, bench.wall_ms(), {pos: pending})
        if look.removable is not None:
            bench.ledger.commit([Batch(removable=look.removable)])
        return [(stream - 1_000, first) for stream, first in reader.rows("SELECT stream, first FROM log WHERE kind = 'F' ORDER BY pos")]

    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())  # stream 1: frames 1 and 2
        await bench.settle(3)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        edge.scan({LEVEL: 12.0})  # 4: over H, and lost on the way
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(edge.death())
        edge.session_lost()
        bench.deliver(edge.born())  # stream 2: frames 1 and 2
        await bench.settle(3)
        assert await remove(bench, edge) == [(1, 5), (2, 1), (2, 2), (2, 3)]
        assert await remove(bench, edge) == [(1, 5), (2, 1), (2, 2), (2, 3), (2, 4)]
        assert [step for step in bench.journal() if step.alarm.limit == "H"] == []
        bench.deliver(edge.backlog())
        await bench.settle()
        assert words([step for step in bench.journal() if step.alarm.limit == "H"]) == [
            "late T1.LEVEL H raised", "late T1.LEVEL H returned"
        ]  # fmt: skip
        assert await remove(bench, edge) == [(2, 5)], "history has passed: only the newest stays, behind the older snapshot"

    asyncio.run(story(Bench(tmp_path / "core"), Edge()))


# -- history over a ledger that is kept short ----------------------------------------------------------------------------


class ShortWorld(World):
    """A random history with a snapshot every few steps; with `removes`, everything that may go goes at every commit."""

    def __init__(self, seed: int, folder: Path, *, removes: bool) -> None:
        self.removes, self.removed, self.claimed = removes, 0, 0
        self._pending_at: dict[int, Pending] = {}
        self._bench_of: Bench | None = None
        folder.mkdir(exist_ok=True)
        super().__init__(seed, folder)

    async def _turn(self) -> None:
        await super()._turn()
        self._commit()
        await self._snapshot()
        self._remove()

    async def _snapshot(self) -> None:
        if self.bench is not self._bench_of:  # another process: it knows nothing of the snapshots before it
            self._bench_of, self._pending_at = self.bench, {}
        pos, sections = self.bench.loop.state_bytes()
        if self.bench.loop.counters.committed_pos >= pos > 0 and pos % 3 == 0:
            write_snapshot(self.bench.folder, Snapshot(pos, sections))
            self._pending_at[pos] = self.bench.machine.pending()

    def _remove(self) -> None:
        if not self.removes:
            return
        reader = self.bench.ledger.reader
        sealed = reader.last_pos()
        look = keeper(reader, self.bench.folder, sealed).look(DISK_BYTES, self.bench.wall_ms(), self._pending_at)
        if look.removable is not None:
            self.removed += self.bench.ledger.commit([Batch(removable=look.removable)]).pruned
            self.claimed += look.removable.before < removable_before(sealed, oldest_kept(self.bench.folder))


def told(folder: Path, seed: int, *, removes: bool) -> tuple[ShortWorld, list[tuple[Any, ...]]]:
    async def story() -> ShortWorld:
        world = ShortWorld(seed, folder, removes=removes)
        for _ in range(120):
            await world.step()
            assert world.bench.recovered.differences == ()
        await world.heal()
        return world

    world = asyncio.run(story())
    rows = world.bench.ledger.reader.rows("SELECT pos, id, kind, late, body FROM transition ORDER BY row")
    world.bench.close()
    return world, rows


@pytest.mark.fault("F25")
@pytest.mark.parametrize("seed", range(300, 308))
def test_history_finds_the_same_whether_or_not_the_ledger_is_kept_short(seed: int, tmp_path: Path) -> None:
    short, found = told(tmp_path / "short", seed, removes=True)
    whole, meant = told(tmp_path / "whole", seed, removes=False)
    assert found == meant
    assert short.states == whole.states
    assert short.edge.settled
    assert short.removed > 0, "rows did go"
    assert short.claimed > 0, "claims did hold rows back"
    assert sum(row[3] for row in meant) > 0, "late alarms were found"
