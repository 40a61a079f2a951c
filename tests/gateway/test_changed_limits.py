"""A configuration changed while core was down: nothing is raised in silence, nothing is cleared by it."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerting import Act, ActKind, State
from config import SiteConfig
from gateway.core.entries import EntryKind
from gateway.core.ledger import Ledger
from gateway.core.recover import recover
from gateway.core.revision import UnreadableRevisionError, revision_of, site_of
from gateway.core.snapshots import Snapshot, write_snapshot
from tests.gateway.bench import LEDGER_NAME, Bench, words
from tests.gateway.field import LEVEL, PRESSURE, Edge, address, node_birth, node_death, site
from tests.gateway.history import World
from tests.gateway.test_replay import assert_journal_is_sound
from wire import MessageKind, Quality, Reason, quality_code

pytestmark = pytest.mark.fault("F48")


def changed(change: Callable[[dict[str, Any]], None]) -> SiteConfig:
    """Return the test site after a person has edited it."""
    body = site().model_dump(mode="json")
    change(body)
    return SiteConfig.model_validate(body)


def with_h(setpoint: float, tag: str = LEVEL) -> SiteConfig:
    def change(body: dict[str, Any]) -> None:
        (found,) = [each for each in body["tags"] if each["id"] == tag]
        found["limits"]["H"]["setpoint"] = setpoint

    return changed(change)


def without_e2(body: dict[str, Any]) -> None:
    body["edges"] = [edge for edge in body["edges"] if edge["id"] != "E2"]
    body["tags"] = [tag for tag in body["tags"] if tag["id"] != "P1.TEMP"]


def restarted(bench: Bench, config: SiteConfig, *, down_s: float = 1, snapshot: bool = False) -> Bench:
    """Kill core, or stop it, and start it under another configuration."""
    pos, sections = bench.loop.state_bytes()
    bench.close()
    if snapshot:
        write_snapshot(bench.folder, Snapshot(pos, sections))
    return Bench(bench.folder, config=config, now_s=bench.now_s + down_s)


async def running(folder: Path, value: float, tag: str = LEVEL) -> tuple[Bench, Edge]:
    bench, edge = Bench(folder / "core"), Edge()
    bench.deliver(edge.born())
    await bench.cycle()
    bench.deliver(edge.scan({tag: value}))
    await bench.cycle()
    return bench, edge


async def again(bench: Bench, edge: Edge) -> None:
    """The edge notices the restart and is born again."""
    edge.session_lost()
    bench.deliver(edge.born())
    await bench.cycle()


async def scans(bench: Bench, edge: Edge, *values: float, tag: str = LEVEL) -> None:
    for value in values:
        bench.deliver(edge.scan({tag: value}))
        await bench.cycle()


async def close(bench: Bench, alarm_id: str) -> None:
    act = Act(ActKind.CLOSE, alarm_id, "li", bench.wall_ms(), "limit changed from 10 to 15", "none needed")
    task = asyncio.ensure_future(bench.loop.act(act, None))
    await asyncio.sleep(0)
    await bench.cycle()
    assert (await task).alarm.state is State.CLOSED


def assert_told(bench: Bench) -> None:
    """Every step in the journal went to the receiver, and what stands in memory stands in the ledger."""
    sent = {row.transition_id for row in bench.said.rows}
    steps = {step.id for step in bench.journal()}
    kept = {row[0] for row in bench.ledger.reader.rows("SELECT transition_id FROM outbox")}
    assert sent <= steps == kept
    stored = {alarm.id: alarm for alarm in bench.ledger.reader.open_alarms()}
    assert {alarm.id: alarm for alarm in bench.alarms()} == stored


def assert_comes_back(bench: Bench) -> None:
    """A kill now finds the very same state."""
    found = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
    assert (found.differences, found.revision, found.detached) == ((), None, ())
    assert found.machine.dump() == bench.loop.state_bytes()[1]


# -- lowered under a value ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_limit_lowered_under_a_standing_value_raises_with_a_notice(tmp_path: Path, snapshot: bool) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 7.0)
        bench = restarted(bench, with_h(5), snapshot=snapshot)
        assert bench.recovered.differences == ()
        assert bench.standing() == set(), "an alarm nobody was told of is none"
        await bench.cycle()
        assert words(bench.journal()) == ["T1.LEVEL H raised"]
        assert [row.lane for row in bench.said.rows] == ["yellow"]
        assert_told(bench)
        assert_comes_back(bench)
        await again(bench, edge)
        await scans(bench, edge, 7.5, 7.5)
        assert words(bench.journal()) == ["T1.LEVEL H raised"]
        await scans(bench, edge, 3.0)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL H returned"]

    asyncio.run(story())


@pytest.mark.parametrize("committed", [False, True])
def test_a_second_kill_right_after_changes_nothing(tmp_path: Path, committed: bool) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 7.0)
        bench = restarted(bench, with_h(5))
        await bench.cycle(commit=committed)
        bench = bench.crash()
        await bench.cycle()
        assert words(bench.journal()) == ["T1.LEVEL H raised"]
        assert_comes_back(bench)
        bench = bench.crash()
        await again(bench, edge)
        await scans(bench, edge, 7.5, 3.0)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL H returned"]
        assert_told(bench)
        assert len(bench.ledger.reader.rows("SELECT 1 FROM log WHERE kind = 'C'")) == 2

    asyncio.run(story())


def test_an_on_delay_begins_when_the_new_limit_holds_and_downtime_does_not_count(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 0.9, PRESSURE)
        bench = restarted(bench, with_h(0.5, PRESSURE), down_s=9)
        await bench.cycle()
        await bench.cycle(1_900)
        assert bench.journal() == []
        assert_comes_back(bench)
        await bench.cycle(200)
        assert words(bench.journal()) == ["T1.PRESSURE H raised"]
        assert_comes_back(bench)

    asyncio.run(story())


def test_a_value_from_before_a_long_downtime_raises_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 7.0)
        bench = restarted(bench, with_h(5), down_s=3_600)
        await bench.cycle()
        await bench.cycle()
        assert bench.machine.engine.tag_states().code[bench.site.tag_index[LEVEL]] == quality_code(Quality.BAD, Reason.STALE)
        assert [step for step in bench.journal() if step.alarm.tag == LEVEL] == []
        await again(bench, edge)
        assert ("T1.LEVEL H raised") in words(bench.journal())

    asyncio.run(story())


# -- raised over a value ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_limit_raised_over_a_standing_value_clears_nothing(tmp_path: Path, snapshot: bool) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 12.0)
        (alarm,) = [each for each in bench.alarms() if each.limit == "H"]
        bench = restarted(bench, with_h(15), snapshot=snapshot)
        assert bench.recovered.detached == ("T1.LEVEL H",)
        await again(bench, edge)
        await scans(bench, edge, 12.0, 16.0, 3.0)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL H raised", "T1.LEVEL H returned"]
        assert alarm in bench.alarms()
        assert (LEVEL, "H") in bench.standing()
        bench.loop._housekeeping(bench.loop._clock.now())
        assert bench.loop.counters.alarms["yellow"] == 1, "it still counts as standing"
        assert_told(bench)
        assert_comes_back(bench)
        bench = bench.crash()
        await bench.cycle()
        await close(bench, alarm.id)
        last = bench.journal()[-1]
        assert (last.alarm_id, str(last.kind), last.actor, last.alarm.reason) == (
            alarm.id, "closed", "li", "limit changed from 10 to 15",
        )  # fmt: skip

    asyncio.run(story())


def test_the_change_itself_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 12.0)
        bench = restarted(bench, with_h(15))
        await bench.cycle()
        (told,) = [step.alarm for step in bench.journal() if step.alarm.tag == "CORE.CONFIG.CHANGED"][:1]
        assert told.facts == {"count": 1, "what": "T1.LEVEL H"}
        bench = restarted(bench, with_h(16))
        await bench.cycle()
        assert len([1 for step in bench.journal() if step.alarm.tag == "CORE.CONFIG.CHANGED"]) == 2, "told once"

    asyncio.run(story())


def test_an_edge_that_leaves_the_site_leaves_its_alarm_to_a_person(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 3.0)
        bench.deliver([(address(MessageKind.NBIRTH, "E2"), node_birth(1)), (address(MessageKind.NDEATH, "E2"), node_death(1))])
        await bench.cycle()
        (offline,) = [each for each in bench.alarms() if each.tag == "EDGE.E2.OFFLINE"]
        bench = restarted(bench, changed(without_e2))
        await bench.cycle()
        assert offline in bench.alarms()
        await close(bench, offline.id)
        assert_comes_back(bench)

    asyncio.run(story())


def test_a_change_that_touches_no_limit_leaves_every_alarm_bound(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 12.0)
        bench = restarted(bench, changed(lambda body: body["storage"].update(frames_days=3)))
        assert bench.recovered.detached == ()
        await again(bench, edge)
        await scans(bench, edge, 3.0)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL H returned"]
        assert_comes_back(bench)

    asyncio.run(story())


# -- revisions in the log -----------------------------------------------------------------------------------------------


def test_a_start_under_the_same_configuration_logs_no_revision(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 7.0)
        bench = bench.crash()
        await bench.cycle()
        assert [body for (body,) in bench.ledger.reader.rows("SELECT body FROM log WHERE kind = 'C'")] == [
            revision_of(bench.site)
        ]

    asyncio.run(story())


def test_a_revision_is_the_site_and_a_damaged_one_is_none() -> None:
    body = revision_of(with_h(5))
    assert site_of(body) == with_h(5)
    for damaged in (b"", b"x", body[:-9], body[:20] + bytes([body[20] ^ 1]) + body[21:], zlib.compress(b"{}")):
        with pytest.raises(UnreadableRevisionError):
            site_of(damaged)


@pytest.mark.parametrize("lost", ["DELETE FROM log WHERE kind = 'C'", "UPDATE log SET body = x'00' WHERE kind = 'C'"])
@pytest.mark.parametrize(("setpoint", "value"), [(5, 7.0), (15, 12.0)])
def test_without_the_former_configuration_the_ledger_still_decides(
    tmp_path: Path, lost: str, setpoint: float, value: float
) -> None:
    """A log of another version: replay under the present limits finds what nobody was told, or misses what was."""

    async def story() -> None:
        bench, edge = await running(tmp_path, value)
        before = words(bench.journal())
        bench.ledger._db.execute(lost)
        bench = restarted(bench, with_h(setpoint))
        assert bench.recovered.differences
        await bench.cycle()
        assert words(bench.journal()) == ["T1.LEVEL H raised"]
        assert_told(bench)
        assert_comes_back(bench)
        await again(bench, edge)
        await scans(bench, edge, value, 3.0)
        returned = [step for step in bench.journal() if step.kind == "returned" and step.alarm.tag == LEVEL]
        assert len(returned) == (0 if before else 1), "a limit that is another one now returns nothing"
        assert_told(bench)

    asyncio.run(story())


# -- the journal wins, both ways ----------------------------------------------------------------------------------------


def test_a_frame_lost_from_the_log_leaves_its_alarm_to_the_next_calm_value(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = await running(tmp_path, 12.0)
        bench.ledger._db.execute("DELETE FROM log WHERE kind = 'F'")
        bench = bench.crash()
        assert bench.standing(late=False) >= {(LEVEL, "H")}
        await bench.cycle()
        assert_comes_back(bench)
        assert_told(bench)
        await again(bench, edge)
        await scans(bench, edge, 12.0, 3.0)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL H returned"]

    asyncio.run(story())


def test_an_alarm_lost_from_the_journal_is_raised_and_told_again(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 12.0)
        for table in ("transition", "alarm", "outbox"):
            bench.ledger._db.execute(f"DELETE FROM {table}")
        bench = bench.crash()
        assert bench.recovered.differences
        assert bench.standing() == set()
        await bench.cycle()
        assert words(bench.journal()) == ["T1.LEVEL H raised"]
        assert len([row for row in bench.said.rows if row.lane == "yellow"]) >= 1
        assert_comes_back(bench)

    asyncio.run(story())


def test_a_snapshot_that_says_otherwise_than_the_ledger_does_not_stand(tmp_path: Path) -> None:
    async def story() -> None:
        bench, _ = await running(tmp_path, 12.0)
        pos, sections = bench.loop.state_bytes()
        other, _ = await running(tmp_path / "other", 3.0)
        write_snapshot(bench.folder, Snapshot(pos, {**sections, "engine": other.loop.state_bytes()[1]["engine"]}))
        bench = bench.crash()
        assert bench.recovered.differences
        assert (LEVEL, "H") in bench.standing()
        await bench.cycle()
        assert_comes_back(bench)

    (tmp_path / "other").mkdir()
    asyncio.run(story())


# -- random histories ---------------------------------------------------------------------------------------------------

SITES = [site(), with_h(5), with_h(15), with_h(0.5, PRESSURE), changed(without_e2)]


class RestlessWorld(World):
    """A world in which every restart finds another configuration."""

    async def _crash(self) -> None:
        self.bench.site = random.Random(self.random.random()).choice(SITES)
        await super()._crash()


@pytest.mark.fault("F32")
@pytest.mark.parametrize("seed", range(300, 312))
def test_kills_and_changes_in_any_order_leave_ledger_and_memory_at_one(seed: int, tmp_path: Path) -> None:
    async def story() -> RestlessWorld:
        world = RestlessWorld(seed, tmp_path, crashes=True, copies=True)
        for at in range(90):
            await world.step()
            if at % 15 == 14:
                await world._crash()
                assert world.bench.recovered.differences == ()
        return world

    world = asyncio.run(story())
    bench = world.bench
    reader = bench.ledger.reader
    assert_journal_is_sound(reader)
    assert len(reader.rows("SELECT 1 FROM log WHERE kind = ?", (str(EntryKind.CONFIG),))) >= 2
    returned = [step for step in bench.journal() if step.kind == "returned" and step.alarm.category == "process"]
    for step in returned:
        assert step.alarm.value is not None
        assert step.alarm.setpoint is not None
        assert step.alarm.value < step.alarm.setpoint, "only a value below its own limit returns an alarm"
    bench.close()
    for copy in world.copies or ():
        ledger = Ledger(copy / LEDGER_NAME, bench.site.site)
        found = recover(bench.site, copy, ledger.reader, restored=False)
        stored = {alarm.id: alarm for alarm in ledger.reader.open_alarms()}
        ledger.close()
        assert found.differences == (), copy.name
        assert {alarm.id: alarm for alarm in found.machine.engine.alarms()} == stored, copy.name
        if found.revision is None and found.last_pos in world.states:
            assert found.machine.dump() == world.states[found.last_pos], copy.name
