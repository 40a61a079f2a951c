"""Core's deterministic heart, a rule at a time, through the batches that the loop builds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alerting import Act, ActKind, ActRefusedError, State
from gateway.core.entries import EntryKind
from gateway.core.machine import Machine
from gateway.core.recover import recover
from tests.gateway.bench import Bench, words
from tests.gateway.field import (
    GAS,
    LEVEL,
    PRESSURE,
    T0_MS,
    TEMP,
    Edge,
    address,
    block,
    block_message,
    device_birth,
    device_frame,
    flag,
    node_birth,
)
from tests.gateway.field import Taken as Kept
from wire import (
    INTERVALS_MAX,
    SPOOL_FAULT,
    MessageKind,
    Quality,
    Reason,
    StreamSpan,
    encode_payload,
    quality_code,
)

STALE = quality_code(Quality.BAD, Reason.STALE)
Story = Callable[[Bench], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story) -> Bench:
    bench = Bench(folder / "core")
    asyncio.run(story(bench))
    assert_replays(bench)
    return bench


def assert_replays(bench: Bench) -> None:
    """What was built live is what the log gives."""
    bench.writer.commit(bench.loop)
    found = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
    assert found.differences == ()
    assert found.machine.dump() == bench.machine.dump()


def kinds(bench: Bench) -> str:
    return "".join(kind for (kind,) in bench.ledger.reader.rows("SELECT kind FROM log ORDER BY pos"))


def node_block(edge: Edge, body: bytes) -> list[tuple[str, bytes]]:
    return [(address(MessageKind.NDATA, edge.node), block_message(edge._seq(), body))]


async def born(bench: Bench) -> Edge:
    edge = Edge()
    bench.deliver(edge.born())
    await bench.settle(2)
    return edge


# -- sessions -------------------------------------------------------------------------------------------------


@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale")
@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale")
def test_a_node_that_died_leaves_its_tags_stale_and_its_alarms_standing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 25.0}))
        await bench.cycle()
        bench.deliver(edge.death())
        await bench.cycle()
        offline = next(alarm for alarm in bench.alarms() if alarm.tag == "EDGE.E1.OFFLINE")
        assert offline.start_ms == bench.wall_ms(), "by the host's clock"

    bench = play(tmp_path, story)
    states = bench.machine.engine.tag_states()
    assert states.code[:3].tolist() == [STALE] * 3
    assert {(LEVEL, "H"), (LEVEL, "HH"), (LEVEL, "FAULT"), ("EDGE.E1.OFFLINE", "SYSTEM")} <= bench.standing()


def test_a_device_that_died_leaves_only_its_own_tags_stale(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver([(address(MessageKind.DDEATH, "E1", "GAS"), encode_payload(T0_MS, edge._seq(), []))])
        await bench.cycle()

    states = play(tmp_path, story).machine.engine.tag_states()
    assert (states.code[:3] == STALE).tolist() == [False, False, True]


def test_our_own_lost_link_says_nothing_of_the_node_until_its_grace_is_over(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 25.0}))
        await bench.cycle()
        bench.loop.link_lost()
        await bench.cycle()
        assert ("EDGE.E1.OFFLINE", "SYSTEM") not in bench.standing()
        assert bench.machine.engine.tag_states().code[0] != STALE
        await bench.cycle(31_000)
        await bench.cycle(600)
        assert ("EDGE.E1.OFFLINE", "SYSTEM") in bench.standing()

    assert (LEVEL, "HH") in play(tmp_path, story).standing()


def test_a_birth_right_after_our_link_came_back_is_not_undone_by_its_loss(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.loop.link_lost()
        edge.session_lost()
        bench.deliver(edge.born())
        await bench.cycle()
        assert bench.machine.node("E1").online

    play(tmp_path, story)


def test_birth_facts_become_conditions_that_end_with_the_next_birth(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.loop._builder.use_config_hashes({"E1": "right"})
        birth = node_birth(0, 7, config_hash="wrong", spool_fault=True)
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), birth)])
        await bench.cycle()
        assert {("EDGE.E1.CONFIG", "SYSTEM"), ("EDGE.E1.SPOOL", "SYSTEM")} <= bench.standing()
        bench.deliver([(address(MessageKind.NDATA, "E1"), encode_payload(T0_MS, 1, [flag(SPOOL_FAULT, False)]))])
        await bench.cycle()
        assert ("EDGE.E1.SPOOL", "SYSTEM") not in bench.standing()
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 7, config_hash="right"))])
        await bench.cycle()
        assert ("EDGE.E1.CONFIG", "SYSTEM") not in bench.standing()

    play(tmp_path, story)


# -- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("F01")
@pytest.mark.fault("F03")
def test_values_are_conditioned_before_they_meet_a_limit(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 500.0}))  # range ends at 30
        await bench.cycle()
        assert (LEVEL, "HH") in bench.standing()
        bench.deliver(edge.scan({LEVEL: -4.0}))  # beyond the range below: uncertain, so it lowers nothing
        bench.deliver(edge.scan({LEVEL: math.nan}))
        await bench.cycle()
        assert (LEVEL, "HH") in bench.standing()

    bench = play(tmp_path, story)
    (alarm,) = [alarm for alarm in bench.alarms() if alarm.limit == "HH"]
    assert alarm.value == 30.0


def test_frames_of_a_foreign_node_are_current_in_session_order(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, {TEMP: 20.0})),
            (address(MessageKind.DDATA, "E2", "PUMP"), device_frame(2, [(1, 70.0)])),
        ])  # fmt: skip
        await bench.cycle()
        assert (TEMP, "H") in bench.standing()
        bench.deliver([(address(MessageKind.DDATA, "E2", "PUMP"), device_frame(3, [(1, 20.0)], source_ms=T0_MS - 10**6))])
        await bench.cycle()
        assert (TEMP, "H") not in bench.standing(), "currentness is never a matter of clocks"

    bench = play(tmp_path, story)
    assert bench.loop.acks == {}, "there is nothing to acknowledge to a foreign node"


@pytest.mark.fault("F60")
def test_an_edge_cannot_speak_for_anothers_tags_not_even_in_a_block(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, {TEMP: 70.0})),
        ])  # fmt: skip
        await bench.cycle()
        assert (TEMP, "H") in bench.standing()
        forged = Kept(edge.live, 3, "PUMP", ((TEMP, 20.0),), T0_MS)
        bench.deliver(node_block(edge, block("E1", [forged])))
        await bench.cycle()
        assert (TEMP, "H") in bench.standing()

    play(tmp_path, story)


def test_a_block_made_by_another_node_is_quarantined(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(node_block(edge, block("E2", [Kept(9, 1, "TANK", ((LEVEL, 12.0),), T0_MS)])))
        await bench.cycle()

    bench = play(tmp_path, story)
    assert "Q" in kinds(bench)
    assert "B" not in kinds(bench)


@pytest.mark.fault("F55")
def test_rubbish_is_kept_and_said_once_a_minute(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await born(bench)
        for _ in range(50):
            bench.deliver([(address(MessageKind.DDATA, "E1", "TANK"), b"rubbish")])
            await bench.cycle(100)

    bench = play(tmp_path, story)
    rows = bench.ledger.reader.rows("SELECT body FROM log WHERE kind = 'Q'")
    assert rows == [(b"rubbish",)]
    assert sum(step.alarm.tag == "EDGE.E1.QUARANTINE" and step.kind == "raised" for step in bench.journal()) == 1


def test_a_block_encoded_live_stream_is_evaluated_as_current(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        live = edge.live
        bench.deliver(node_block(edge, block("E1", [Kept(live, 3, "TANK", ((LEVEL, 12.0),), T0_MS + 100)])))
        await bench.cycle()
        assert (LEVEL, "H") in bench.standing(late=False)
        bench.deliver(node_block(edge, block("E1", [Kept(live, 3, "TANK", ((LEVEL, 12.0),), T0_MS + 100)])))
        await bench.cycle()

    bench = play(tmp_path, story)
    assert kinds(bench).count("B") == 1
    assert [step.kind for step in bench.journal() if step.alarm.limit == "H"] == ["raised"]


def test_a_live_block_for_which_no_interval_is_left_raises_its_alarm_all_the_same(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        for _ in range(INTERVALS_MAX):
            edge.scan({LEVEL: 3.0})
            bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        over = Kept(edge.live, 1_000, "TANK", ((LEVEL, 12.0),), T0_MS + 100_000)
        bench.deliver(node_block(edge, block("E1", [over])))
        await bench.cycle()
        assert (LEVEL, "H") in bench.standing(late=False)
        assert bench.loop.acks[edge.node, edge.live] == 2

    bench = play(tmp_path, story)
    assert "T1.LEVEL H raised" in words(bench.journal())


def test_a_dropped_range_is_journalled_acknowledged_and_passed_over_by_history(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.death())
        edge.session_lost()
        sealed = edge.live
        for value in (12.0, 3.0, 15.0, 4.0):
            edge.offline_scan({LEVEL: value})
        bench.deliver(edge.born())
        await bench.settle(3)
        kept = [edge.streams[sealed].frames[number] for number in (1, 2, 4)]
        bench.deliver(node_block(edge, block("E1", kept, 1, 4, dropped=[(3, 3)])))
        await bench.settle()
        assert bench.loop.acks[edge.node, sealed] == 4

    bench = play(tmp_path, story)
    assert bench.ledger.reader.rows("SELECT first, last, cause FROM loss") == [(3, 3, "dropped by the edge: disk full")]
    assert ("EDGE.E1.LOSS", "raised") in [(step.alarm.tag, step.kind) for step in bench.journal()]
    assert words([step for step in bench.journal() if step.late]) == ["late T1.LEVEL H raised", "late T1.LEVEL H returned"]


# -- two boxes ---------------------------------------------------------------------------------------------------


async def two_boxes(bench: Bench) -> None:
    """A second box with E1's id: its streams do not descend from the ones known."""
    edge = await born(bench)
    bench.deliver(edge.scan({LEVEL: 12.0}))
    bench.deliver(edge.scan({GAS: 0.2}, after_ms=5_000))
    await bench.cycle()
    for live, values in ((9_001, {LEVEL: 11.0}), (9_002, {LEVEL: 3.0})):
        birth = node_birth(0, live, unfinished=[StreamSpan(live, 1, 0, 0, 0)])
        bench.deliver([
            (address(MessageKind.NBIRTH, "E1"), birth),
            (address(MessageKind.DBIRTH, "E1", "TANK"), device_birth(1, values, live, 1, T0_MS + 9_000)),
        ])  # fmt: skip
        await bench.cycle()


def identity_alarm(bench: Bench) -> str:
    return bench.machine.engine.book.system_alarm["EDGE.E1.IDENTITY"]


@pytest.mark.spec("tck-id-intro-edge-node-id-uniqueness")
@pytest.mark.spec("tck-id-payloads-nbirth-edge-node-descriptor")
def test_two_boxes_with_one_id_may_raise_and_never_lower(tmp_path: Path) -> None:
    bench = play(tmp_path, two_boxes)
    assert ("EDGE.E1.IDENTITY", "SYSTEM") in bench.standing()
    assert (LEVEL, "H") in bench.standing(late=False), "a calm value of one of two boxes is not to be believed"


def test_closing_the_identity_alarm_says_which_box_is_right(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await two_boxes(bench)
        act = Act(ActKind.CLOSE, identity_alarm(bench), "li", bench.wall_ms(), "the old box was left on", "switched off")
        task = asyncio.ensure_future(bench.loop.act(act, None))
        await asyncio.sleep(0)
        await bench.cycle()
        assert (await task).alarm.state is State.CLOSED
        bench.deliver([(address(MessageKind.DDATA, "E1", "TANK"), device_frame(2, [(1, 3.0)], 9_002, 2, T0_MS + 10_000))])
        await bench.cycle()

    assert (LEVEL, "H") not in play(tmp_path, story).standing(late=False)


def test_an_identity_alarm_closed_without_a_reason_changes_nothing_at_all(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await two_boxes(bench)
        act = Act(ActKind.CLOSE, identity_alarm(bench), "li", bench.wall_ms(), "", "")
        task = asyncio.ensure_future(bench.loop.act(act, None))
        await asyncio.sleep(0)
        await bench.cycle()
        with pytest.raises(ActRefusedError, match="reason"):
            await task
        assert ("EDGE.E1.IDENTITY", "SYSTEM") in bench.standing()
        bench.deliver([(address(MessageKind.DDATA, "E1", "TANK"), device_frame(2, [(1, 3.0)], 9_002, 2, T0_MS + 10_000))])
        await bench.cycle()

    assert (LEVEL, "H") in play(tmp_path, story).standing(late=False)


# -- acts ---------------------------------------------------------------------------------------------------------


def test_a_refused_act_on_an_old_alarm_leaves_no_state_that_replay_would_not_find(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 12.0}))
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        (alarm,) = [alarm for alarm in bench.alarms() if alarm.limit == "H"]
        old = replace(alarm, id="0" * 32, state=State.RETURNED_UNACKED)
        bench.ledger._write_alarm(old)
        for texts in (("", ""), ("calibration", "recalibrated")):
            act = Act(ActKind.CLOSE, old.id, "li", bench.wall_ms(), *texts)
            task = asyncio.ensure_future(bench.loop.act(act, old.to_json()))
            await asyncio.sleep(0)
            await bench.cycle()
            await asyncio.wait([task])
            assert (task.exception() is None) is bool(texts[0])
            assert_replays(bench)

    play(tmp_path, story)


# -- whole state ----------------------------------------------------------------------------------------------------


def test_a_dump_is_restored_to_the_same_dump_forks_included(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        edge.scan({LEVEL: 12.0})
        bench.deliver(edge.scan({PRESSURE: 1.4}))
        await bench.cycle()
        assert bench.machine.node("E1").history is not None

    bench = play(tmp_path, story)
    dump = bench.machine.dump()
    assert Machine.restore(bench.site, dump).dump() == dump


def test_every_kind_of_entry_replays(tmp_path: Path) -> None:
    """One story that writes most kinds of entry; `play` compares live and replay."""

    async def story(bench: Bench) -> None:
        edge = await born(bench)
        edge.scan({LEVEL: 12.0})
        bench.deliver(edge.scan({PRESSURE: 1.4}))
        bench.loop.fact("RECEIVER.CITY0.DOWN", True)
        await bench.cycle()
        await bench.cycle(31_000)
        bench.deliver(edge.death())
        edge.session_lost()
        edge.offline_scan({GAS: 2.0})
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        bench.deliver([(address(MessageKind.DDATA, "E1", "TANK"), b"x")])
        await bench.settle()
        alarm = bench.alarms()[0]
        task = asyncio.ensure_future(bench.loop.act(Act(ActKind.ACKNOWLEDGE, alarm.id, "li", bench.wall_ms()), None))
        await asyncio.sleep(0)
        await bench.cycle()
        await task

    assert set(kinds(play(tmp_path, story))) >= {EntryKind(kind) for kind in "WNFBDLTSQA"}


