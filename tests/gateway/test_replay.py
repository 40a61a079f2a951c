"""Random histories: core's state is a function of its log alone, whatever is killed and whenever."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from alerting import LATE_REVISION_FIRST, Act, ActKind, State
from gateway.core.entries import EntryKind
from gateway.core.errors import LedgerOlderError
from gateway.core.ledger import GENESIS_HASH, Ledger
from gateway.core.reader import LedgerReader
from gateway.core.recover import recover
from gateway.core.snapshots import Snapshot, newest_position, write_snapshot
from tests.gateway.bench import LEDGER_NAME, copy_ledger
from tests.gateway.field import site
from tests.gateway.history import World
from wire import decode_block

STEPS = 120


def played(seed: int, folder: Path, *, crashes: bool, copies: bool = False, steps: int = STEPS) -> World:
    async def story() -> World:
        world = World(seed, folder, crashes=crashes, copies=copies)
        for _ in range(steps):
            await world.step()
        await world.heal()
        return world

    return asyncio.run(story())


@pytest.mark.fault("F32")
@pytest.mark.parametrize("seed", range(6))
def test_killed_after_any_commit_core_comes_back_to_the_same_state(seed: int, tmp_path: Path) -> None:
    world = played(seed, tmp_path, crashes=False, copies=True, steps=60)
    world.bench.close()
    assert world.copies
    assert len(world.copies) >= 8
    for copy in world.copies:
        ledger = Ledger(copy / LEDGER_NAME, world.bench.site.site)
        found = recover(site(), copy, ledger.reader, restored=False)
        ledger.close()
        assert found.differences == (), copy.name
        assert found.machine.dump() == world.states[found.last_pos], copy.name


@pytest.mark.fault("F32")
@pytest.mark.fault("F23")
@pytest.mark.parametrize("seed", range(100, 112))
def test_kills_on_the_way_lose_nothing_and_double_nothing(seed: int, tmp_path: Path) -> None:
    world = played(seed, tmp_path, crashes=True)
    reader = world.bench.ledger.reader
    assert world.edge.settled, "everything taken was acknowledged in the end"
    stored, doubled = stored_frames(reader)
    lost = {(stream, n) for stream, lo, hi in reader.rows("SELECT stream, first, last FROM loss") for n in range(lo, hi + 1)}
    assert {(frame.stream, frame.sequence) for frame in world.edge.taken} == stored
    assert not lost, "nothing that arrived in the end may be called lost"
    assert not doubled
    assert_journal_is_sound(reader)
    assert_every_excursion_is_on_record(world)
    assert world.bench.recovered.differences == ()
    assert {tag for tag, limit in world.bench.standing(late=False) if limit != "SYSTEM"} == set()


@pytest.mark.fault("F32")
@pytest.mark.parametrize("seed", range(200, 204))
def test_a_snapshot_and_the_log_after_it_give_what_the_whole_log_gives(seed: int, tmp_path: Path) -> None:
    world = played(seed, tmp_path, crashes=False)
    bare = copy_ledger(world.bench.folder, tmp_path / "bare")
    ledger = Ledger(bare / LEDGER_NAME, world.bench.site.site)
    whole = recover(site(), bare, ledger.reader, restored=False)
    with_snapshot = recover(site(), world.bench.folder, ledger.reader, restored=False)
    assert whole.machine.dump() == with_snapshot.machine.dump()
    assert (whole.differences, with_snapshot.differences) == ((), ())


def stored_frames(reader: LedgerReader) -> tuple[set[tuple[int, int]], list[tuple[int, int]]]:
    """Frame numbers of E1 that the ledger holds, and those that stand in more than one FRAME row."""
    live: dict[tuple[int, int], int] = {}
    stored: set[tuple[int, int]] = set()
    for kind, stream, first, body in reader.rows(
        "SELECT kind, stream, first, body FROM log WHERE kind IN ('F', 'B') AND node = 'E1' ORDER BY pos"
    ):
        if kind == EntryKind.FRAME:
            live[stream, first] = live.get((stream, first), 0) + 1
        else:
            block = decode_block(body)
            stored |= {(stream, int(n)) for column in block.columns for n in column.sequence}
    return stored | live.keys(), [key for key, count in live.items() if count > 1]


def assert_journal_is_sound(reader: LedgerReader) -> None:
    """Hash chain, revisions, and that no alarm is raised or returned twice."""
    before = GENESIS_HASH
    steps: dict[str, list[tuple[int, str]]] = {}
    for row_id, alarm, revision, kind, body, prev, digest in reader.rows(
        "SELECT id, alarm_id, revision, kind, body, prev_hash, hash FROM transition ORDER BY row"
    ):
        assert prev == before
        assert digest == hashlib.sha256(f"{prev}\n{row_id}\n{body}".encode()).hexdigest()
        before = digest
        steps.setdefault(alarm, []).append((revision, kind))
    for alarm, told in steps.items():
        first = told[0][0]
        assert first in (1, LATE_REVISION_FIRST), alarm
        assert [revision for revision, _ in told] == list(range(first, first + len(told))), alarm
        kinds = [kind for _, kind in told]
        assert kinds[0] == "raised"
        assert all(kinds.count(kind) <= 1 for kind in set(kinds)), (alarm, kinds)


def assert_every_excursion_is_on_record(world: World) -> None:
    """Every frame of E1 beyond an undelayed limit lies within an alarm of that limit; every alarm began at one."""
    limits = {("T1.LEVEL", "H"): 10.0, ("T1.LEVEL", "HH"): 20.0, ("G1.CL2", "H"): 1.0}
    spans: dict[tuple[str, str], list[tuple[int, float]]] = {key: [] for key in limits}
    for (body,) in world.bench.ledger.reader.rows("SELECT body FROM alarm"):
        alarm = json.loads(body)
        if (alarm["tag"], alarm["limit"]) in spans:
            end = alarm["returned_ms"] if alarm["returned_ms"] is not None else float("inf")
            spans[alarm["tag"], alarm["limit"]].append((alarm["start_ms"], end))
    for (tag, limit), setpoint in limits.items():
        over = {f.source_ms for f in world.edge.taken for name, value in f.values if name == tag and value >= setpoint}
        unseen = [at for at in over if not any(start <= at <= end for start, end in spans[tag, limit])]
        assert not unseen, (tag, limit, unseen)
        phantom = [start for start, _ in spans[tag, limit] if start not in over]
        assert not phantom, (tag, limit, phantom)


# -- the journal wins ---------------------------------------------------------------------------------------------------


def acknowledged_story(folder: Path) -> tuple[World, str]:
    """An alarm that stands and was acknowledged; all committed."""

    async def story() -> tuple[World, str]:
        world = World(1, folder)
        bench, edge = world.bench, world.edge
        bench.deliver(edge.born())
        bench.deliver(edge.scan({"T1.LEVEL": 12.0}))
        await bench.cycle()
        (alarm,) = [alarm for alarm in bench.alarms() if alarm.limit == "H"]
        task = asyncio.ensure_future(bench.loop.act(Act(ActKind.ACKNOWLEDGE, alarm.id, "li", bench.wall_ms()), None))
        await asyncio.sleep(0)
        await bench.cycle()
        await task
        return world, alarm.id

    return asyncio.run(story())


def test_an_act_that_the_log_has_lost_stands_because_the_journal_has_it(tmp_path: Path) -> None:
    world, alarm_id = acknowledged_story(tmp_path)
    world.bench.ledger._db.execute("DELETE FROM log WHERE kind = 'A'")
    found = recover(site(), world.bench.folder, world.bench.ledger.reader, restored=False)
    assert len(found.differences) == 1
    assert found.machine.engine.book.alarms[alarm_id].state is State.ACTIVE_ACKED
    assert alarm_id in found.machine.engine.book.row_alarm.values(), "the next calm value still returns it"


def test_an_alarm_whose_frame_the_log_has_lost_waits_for_a_person(tmp_path: Path) -> None:
    world, alarm_id = acknowledged_story(tmp_path)
    world.bench.ledger._db.execute("DELETE FROM log WHERE kind IN ('A', 'F')")
    found = recover(site(), world.bench.folder, world.bench.ledger.reader, restored=False)
    assert found.differences
    assert found.machine.engine.book.alarms[alarm_id].state is State.ACTIVE_ACKED


def test_a_difference_between_replay_and_journal_is_an_alarm(tmp_path: Path) -> None:
    world, _ = acknowledged_story(tmp_path)
    world.bench.ledger._db.execute("DELETE FROM log WHERE kind = 'A'")

    async def story() -> None:
        bench = world.bench.crash()
        await bench.cycle()
        assert "CORE.REPLAY.DIFFERS" in {alarm.tag for alarm in bench.alarms()}

    world.states.clear()
    asyncio.run(story())


def test_more_open_alarms_than_memory_holds_do_not_change_the_state_at_a_restart(tmp_path: Path) -> None:
    """What left memory long ago is in the ledger; bringing it back would push out what is newer."""
    world, alarm_id = acknowledged_story(tmp_path)
    stored = world.bench.ledger.reader.alarm(alarm_id)
    assert stored is not None
    old = replace(stored, id="0" * 32, state=State.RETURNED_UNACKED)
    world.bench.ledger._write_alarm(old)
    found = recover(site(), world.bench.folder, world.bench.ledger.reader, restored=False)
    assert found.differences == ()
    assert found.machine.dump() == world.states[found.last_pos]


# -- restores of the gateway ---------------------------------------------------------------------------------------------


def test_a_ledger_older_than_its_snapshots_is_refused_unless_said_to_be_restored(tmp_path: Path) -> None:
    world, _ = acknowledged_story(tmp_path)
    bench = world.bench
    last_pos = bench.ledger.reader.last_pos()
    write_snapshot(bench.folder, Snapshot(last_pos + 5, world.states[last_pos]))
    with pytest.raises(LedgerOlderError, match="--restored"):
        recover(site(), bench.folder, bench.ledger.reader, restored=False)
    found = recover(site(), bench.folder, bench.ledger.reader, restored=True)
    assert found.machine.dump() == world.states[last_pos]
    assert newest_position(bench.folder) == 0


def test_both_snapshots_damaged_the_whole_log_is_replayed(tmp_path: Path) -> None:
    world, _ = acknowledged_story(tmp_path)
    bench = world.bench
    last_pos = bench.ledger.reader.last_pos()
    for pos in (last_pos - 1, last_pos):
        path = write_snapshot(bench.folder, Snapshot(pos, world.states[last_pos]))
        path.write_bytes(path.read_bytes()[:-1])
    found = recover(site(), bench.folder, bench.ledger.reader, restored=False)
    assert found.replayed == last_pos
    assert found.machine.dump() == world.states[last_pos]
