"""No false calm on the screen: what a tag looks like when nobody knows any more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.field import GAS, LEVEL, PRESSURE, T0_MS, TEMP, address, block, block_message
from tests.serve.chain import Chain
from wire import MessageKind, encode_payload


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path)
    chain.view.refresh()
    yield chain
    chain.close()


def born(chain: Chain) -> None:
    chain.born()


def never_good(chain: Chain) -> None:
    chain.edge.present[LEVEL] = math.nan
    chain.born()


def good_then_bad(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.scan({LEVEL: math.nan})


def beyond_the_range(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 45.0})


def silent(chain: Chain) -> None:
    chain.born()
    for _ in range(16):
        chain.run(after_ms=2_000)


def just_not_silent(chain: Chain) -> None:
    chain.born()
    for _ in range(14):
        chain.run(after_ms=2_000)


def node_died(chain: Chain) -> None:
    chain.born()
    chain.run(chain.edge.death())


def node_died_and_came_back(chain: Chain) -> None:
    node_died(chain)
    chain.edge.session_lost()
    chain.born()


def device_died(chain: Chain) -> None:
    chain.born()
    chain.run([(address(MessageKind.DDEATH, "E1", "TANK"), encode_payload(T0_MS, chain.edge._seq(), []))])


def other_device_died(chain: Chain) -> None:
    chain.born()
    chain.run([(address(MessageKind.DDEATH, "E1", "GAS"), encode_payload(T0_MS, chain.edge._seq(), []))])


def our_link_lost(chain: Chain) -> None:
    chain.born()
    chain.bench.loop.link_lost()
    chain.run()


def two_boxes(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.bench.loop.fact("EDGE.E1.IDENTITY", True)
    chain.run()


def core_gone(chain: Chain) -> None:
    chain.born()
    chain.bench.now_s += 5.2
    chain.view.refresh()


def core_back(chain: Chain) -> None:
    core_gone(chain)
    chain.beat()
    chain.scan({LEVEL: 3.0})


def core_stalled(chain: Chain) -> None:
    chain.born()
    for _ in range(12):
        chain.bench.now_s += 0.5
        chain.beat()
        chain.view.refresh()


def core_of_another_ledger(chain: Chain) -> None:
    chain.born()
    chain.beat(ledger="another")
    chain.view.refresh()


def core_cannot_write(chain: Chain, seconds: float = 6.0) -> None:
    """Its loop turns and evaluates, but the ledger does not get to hold what it knows."""
    chain.born()
    for _ in range(int(seconds / 0.5)):
        chain.bench.now_s += 0.5
        chain.bench.loop.counters.cycles += 1
        chain.beat(unjournaled=True)
        chain.view.refresh()


def core_cannot_write_for_a_moment(chain: Chain) -> None:
    core_cannot_write(chain, 2.0)


def ledger_left_behind(chain: Chain) -> None:
    chain.born()
    for _ in range(12):
        chain.bench.now_s += 0.5
        chain.bench.loop.counters.cycles += 1
        chain.beat(committed_pos=1_000)
        chain.view.refresh()


def ledger_removed(chain: Chain) -> None:
    chain.born()
    (chain.folder / "ledger.sqlite3").unlink()
    chain.view.refresh()


def nobody_refreshes(chain: Chain) -> None:
    chain.born()
    chain.bench.now_s += 5.2


def late_data_only(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.outage([25.0, 26.0])
    chain.scan({LEVEL: 4.0})


@pytest.mark.fault("F25")
@pytest.mark.parametrize(
    ("what", "quality", "reason", "cause"),
    [
        pytest.param(lambda chain: None, "UNKNOWN", "", "", id="a tag never heard is unknown"),
        pytest.param(born, "GOOD", "", "", id="a birth value counts"),
        pytest.param(never_good, "UNKNOWN", "RANGE", "", id="heard, but never GOOD, is unknown"),
        pytest.param(good_then_bad, "BAD", "RANGE", "", id="a bad sample is bad"),
        pytest.param(beyond_the_range, "UNCERTAIN", "RANGE", "", id="beyond the range is uncertain"),
        pytest.param(just_not_silent, "GOOD", "", "", id="28 s of silence are within its limit of 30"),
        pytest.param(silent, "BAD", "STALE", "silent", id="silence beyond its limit"),
        pytest.param(node_died, "BAD", "STALE", "node_dead", id="NDEATH"),
        pytest.param(node_died_and_came_back, "GOOD", "", "", id="NDEATH, then a new birth"),
        pytest.param(device_died, "BAD", "STALE", "device_dead", id="DDEATH of its device"),
        pytest.param(other_device_died, "GOOD", "", "", id="DDEATH of another device"),
        pytest.param(our_link_lost, "BAD", "STALE", "node_dead", id="core lost the broker: nothing vouches for the value"),
        pytest.param(two_boxes, "UNCERTAIN", "CONFIG", "", id="two boxes under one edge id"),
        pytest.param(core_gone, "BAD", "STALE", "core", id="no heartbeat for 5 s"),
        pytest.param(core_back, "GOOD", "", "", id="the heartbeat is back"),
        pytest.param(core_stalled, "BAD", "STALE", "core", id="heartbeats, but the loop stands still"),
        pytest.param(core_of_another_ledger, "BAD", "STALE", "core", id="a heartbeat of another ledger vouches for nothing"),
        pytest.param(core_cannot_write, "BAD", "STALE", "ledger", id="core cannot write: what stands in the ledger is the past"),
        pytest.param(core_cannot_write_for_a_moment, "GOOD", "", "", id="a slow write is no more than that"),
        pytest.param(ledger_left_behind, "BAD", "STALE", "ledger", id="core has committed more than can be read"),
        pytest.param(ledger_removed, "BAD", "STALE", "ledger", id="the ledger was removed"),
        pytest.param(nobody_refreshes, "BAD", "STALE", "ledger", id="the view itself stands still"),
        pytest.param(late_data_only, "GOOD", "", "", id="late data are history"),
    ],
)
def test_what_a_tag_is(
    chain: Chain, what: Callable[[Chain], None], quality: str, reason: str, cause: str
) -> None:
    what(chain)
    now = chain.tag()
    assert (now.quality, now.reason, now.stale_cause) == (quality, reason, cause)
    assert [each for each in chain.view.tags() if each.tag == LEVEL] == [now]


def test_a_stale_value_stays_with_its_age(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.5})
    received_ms = chain.tag().received_ms
    assert received_ms is not None
    for _ in range(16):
        chain.run(after_ms=2_000)
    now = chain.tag()
    assert (now.value, now.last_good_value, now.received_ms) == (3.5, 3.5, received_ms)
    assert now.age_ms == chain.bench.wall_ms() - received_ms
    assert now.age_ms > 30_000


def test_a_bad_sample_has_no_value_but_the_last_good_one_is_told(chain: Chain) -> None:
    good_then_bad(chain)
    now = chain.tag()
    assert (now.value, now.last_good_value) == (None, 3.0)
    assert (now.source_ms, now.last_good_ms) == (chain.edge.source_ms, chain.edge.source_ms - 100)


def test_a_clamped_value_keeps_what_was_measured(chain: Chain) -> None:
    beyond_the_range(chain)
    now = chain.tag()
    assert (now.value, now.raw, now.last_good_value) == (30.0, 45.0, 0.0)


@pytest.mark.fault("F25")
def test_late_data_do_not_show_as_now(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.run(chain.edge.death())
    chain.edge.session_lost()
    chain.edge._open()
    for level in (25.0, 26.0):
        chain.edge.offline_scan({LEVEL: level})
    chain.edge.session_lost()
    chain.edge.present[LEVEL] = 4.0
    chain.born()
    changes = chain.run(chain.edge.backlog())
    assert LEVEL not in changes.tags
    assert (chain.tag().value, chain.tag().alarms) == (4.0, ())
    late = [view for view in chain.view.alarms(state="all").items if view.alarm.late]
    assert {view.alarm.limit for view in late if view.alarm.tag == LEVEL} == {"H", "HH"}


def test_a_level_that_stands_on_a_bad_value_is_held(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 25.0})
    now = chain.tag()
    assert (now.held, now.worst_grade, len(now.alarms)) == (False, 4, 2)
    changes = chain.scan({LEVEL: math.nan})
    now = chain.tag()
    assert (now.held, now.quality, now.worst_grade) == (True, "BAD", 4)
    assert LEVEL in changes.tags
    chain.run(chain.edge.death())
    assert chain.tag().held
    chain.edge.present[LEVEL] = 3.0
    chain.edge.session_lost()
    chain.born()
    assert not chain.tag().held
    assert chain.tag().alarms == ()


def test_a_fault_alarm_alone_holds_no_level(chain: Chain) -> None:
    chain.born()
    chain.scan({GAS: math.nan})
    chain.run(after_ms=1_000)
    now = chain.tag(GAS)
    assert [view.alarm.limit for view in chain.view.alarms(tag=GAS).items] == ["FAULT"]
    assert (len(now.alarms), now.held) == (1, False)


def test_a_wall_clock_set_back_hides_no_dead_core(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.view._heartbeat._wall_ms = lambda: chain.bench.wall_ms() - 3_600_000
    chain.born()
    chain.scan({LEVEL: 3.0})
    assert chain.tag().quality == "GOOD"
    chain.bench.now_s += 5.2
    chain.view.refresh()
    assert (chain.tag().quality, chain.view.health().core) == ("BAD", "gone")
    chain.close()


def test_a_view_that_starts_beside_a_dead_core_says_so_at_once(chain: Chain) -> None:
    chain.born()
    chain.bench.now_s += 6
    fresh = chain.new_view()
    fresh.refresh()
    assert fresh.health().core == "gone"
    assert {now.quality for now in fresh.tags()} == {"BAD", "UNKNOWN"}
    fresh.close()


def test_a_live_stream_may_come_in_blocks(chain: Chain) -> None:
    """An edge on a metered link: its blocks are the present, not history."""
    chain.born()
    taken = [chain.edge._take("TANK", ((LEVEL, level),)) for level in (3.0, 7.5)]
    chain.run([(address(MessageKind.NDATA, "E1"), block_message(chain.edge._seq(), block("E1", taken)))])
    assert (chain.tag().value, chain.tag().quality) == (7.5, "GOOD")
    fresh = chain.new_view()
    fresh.refresh()
    assert fresh.tags() == chain.view.tags()
    fresh.close()
    for memory in (True, False):
        found = chain.history(memory=memory)
        assert [(point.value, point.late) for point in found.points] == [(0.0, False), (3.0, False), (7.5, False)]


def test_a_frame_that_comes_after_a_higher_number_is_not_the_present(chain: Chain) -> None:
    chain.born()
    overtaken = chain.edge.scan({LEVEL: 3.0})
    chain.scan({LEVEL: 4.0})
    changes = chain.run(overtaken)
    assert LEVEL not in changes.tags
    assert chain.tag().value == 4.0
    assert [(point.value, point.late) for point in chain.history().points] == [(0.0, False), (3.0, True), (4.0, False)]


def test_a_block_does_not_bring_back_what_a_later_frame_has_replaced(chain: Chain) -> None:
    chain.born()
    replaced = chain.edge._take("TANK", ((LEVEL, 3.0),))
    chain.scan({LEVEL: 4.0})
    newest = chain.edge._take("GAS", ((GAS, 0.3),))
    body = block("E1", [replaced, newest], first=replaced.sequence, last=newest.sequence)
    chain.run([(address(MessageKind.NDATA, "E1"), block_message(chain.edge._seq(), body))])
    assert (chain.tag().value, chain.tag(GAS).value) == (4.0, 0.3)
    fresh = chain.new_view()
    fresh.refresh()
    assert [(now.tag, now.value) for now in fresh.tags()] == [(now.tag, now.value) for now in chain.view.tags()]
    fresh.close()


def test_changes_name_what_changed_by_samples_and_by_time_alone(chain: Chain) -> None:
    assert chain.born().tags == {LEVEL, PRESSURE, GAS}
    assert chain.scan({GAS: 0.2}).tags == {GAS}
    assert not chain.view.refresh().any
    chain.bench.now_s += 5.2
    assert chain.view.refresh().tags == {LEVEL, PRESSURE, GAS}
    assert not chain.view.refresh().any


def test_foreign_nodes_have_a_present_too(chain: Chain) -> None:
    chain.foreign_born(20.0)
    chain.foreign(21.5)
    assert (chain.tag(TEMP).value, chain.tag(TEMP).quality) == (21.5, "GOOD")
    (edge,) = (each for each in chain.view.edges() if each.edge == "E2")
    assert (edge.online, edge.ours, edge.config_matches) == (True, False, None)
    fresh = chain.new_view()
    fresh.refresh()
    assert fresh.tags() == chain.view.tags()


def test_a_tag_that_is_not_of_the_site_is_nothing(chain: Chain) -> None:
    assert chain.view.tag("T9.LEVEL") is None


@pytest.mark.parametrize("seed", range(3))
def test_a_view_that_starts_now_sees_what_one_that_followed_sees(tmp_path: Path, seed: int) -> None:
    """Histories with lost, doubled and late frames, deaths, crashes: followed step by step, and read backwards."""
    from tests.gateway.history import World
    from tests.serve.beating import beat, view_of

    async def scenario() -> None:
        world = World(seed, tmp_path)
        followed = view_of(world)
        for step in range(120):
            await world.step()
            beat(world)
            followed.refresh()
            if step % 30 == 29:
                await world._settle()
                beat(world)
                followed.refresh()
                fresh = view_of(world)
                fresh.refresh()
                assert [facts(each) for each in fresh.tags()] == [facts(each) for each in followed.tags()]
                shown = {alarm for each in fresh.tags() for alarm in each.alarms}
                standing = {alarm.id for alarm in world.bench.alarms() if alarm.state.active and not alarm.late}
                assert shown == standing & {alarm.id for alarm in world.bench.alarms() if alarm.category != "system"}
                fresh.close()
        followed.close()
        world.bench.close()

    asyncio.run(scenario())


def facts(now: object) -> tuple[object, ...]:
    return tuple(getattr(now, name) for name in ("tag", "value", "quality", "reason", "source_ms", "held", "alarms", "last_good_value"))
