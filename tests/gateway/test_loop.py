"""Core's loop when the disk is slow, fails, or has no room: acks stop, alarms do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from alerting import Act, ActKind, ActRefusedError, Transition
from gateway.core import loop as loop_file
from gateway.core.loop import ACTS_WAITING_MAX, INBOX_MESSAGES_MAX, STALL_MS
from gateway.core.recover import recover
from gateway.core.snapshots import Snapshot, newest_position, write_snapshot
from tests.gateway.bench import Bench, words
from tests.gateway.field import GAS, LEVEL, TEMP, Edge, address, device_birth, device_frame, node_birth
from tests.gateway.test_replay import assert_journal_is_sound, stored_frames
from tests.patience import GUARD_S
from wire import MessageKind

Story = Callable[[Bench], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story) -> Bench:
    bench = Bench(folder / "core")
    asyncio.run(story(bench))
    return bench


async def born(bench: Bench) -> Edge:
    edge = Edge()
    bench.deliver(edge.born())
    await bench.settle(2)
    bench.loop.acks.clear()
    bench.said.rows.clear()
    return edge


def notice_ids(bench: Bench) -> list[str]:
    return [notice for (notice,) in bench.ledger.reader.rows("SELECT notice_id FROM outbox ORDER BY row")]


def unjournaled(bench: Bench) -> bool:
    """What the heartbeat says."""
    return bench.loop.counters.unjournaled


# -- a disk that stalls -------------------------------------------------------------------------------------------


@pytest.mark.fault("F58")
def test_while_a_commit_stalls_acks_stop_and_alarms_go_out_from_memory(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(commit=False)
        await bench.cycle(STALL_MS - 10, commit=False)
        assert bench.said.unjournaled == []
        assert unjournaled(bench) is False
        await bench.cycle(20, commit=False)
        (early,) = bench.said.unjournaled
        assert unjournaled(bench) is True
        assert bench.loop.acks == {}
        for _ in range(20):
            await bench.cycle(200, commit=False)
        assert bench.said.unjournaled.count(early) == 1, "once is enough: the courier keeps trying"
        bench.writer.commit(bench.loop)
        assert [row.id for row in bench.said.rows if row.lane == "yellow"].count(early) == 1, "again, now with a sequence"
        assert all(row.sequence >= 1 for row in bench.said.rows)
        assert bench.loop.acks[edge.node, edge.live] == 3
        await bench.cycle()
        assert unjournaled(bench) is False

    play(tmp_path, story)


@pytest.mark.fault("F58")
def test_once_the_disk_is_known_to_stall_the_next_alarm_does_not_wait_for_it_to_stall_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle(commit=False)
        await bench.cycle(STALL_MS, commit=False)
        bench.deliver(edge.scan({GAS: 2.0}))
        await bench.cycle(10, commit=False)
        assert len(bench.said.unjournaled) == 1

    play(tmp_path, story)


@pytest.mark.fault("F58")
def test_that_an_alarm_has_ended_is_told_only_once_it_is_safe(tmp_path: Path) -> None:
    """Killed before it could commit, core finds the alarm standing: it would tell nobody of the next excursion."""
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(commit=False)
        await bench.cycle(STALL_MS, commit=False)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle(100, commit=False)
        await bench.cycle(STALL_MS, commit=False)
        assert (LEVEL, "H") not in bench.standing()
        (told,) = bench.said.from_memory
        assert told.transition_id == told.alarm_id
        bench.writer.commit(bench.loop)
        assert [row.revision for row in bench.said.rows if row.alarm_id == told.alarm_id] == [1, 2]

    play(tmp_path, story)


def test_a_quick_commit_sends_nothing_unjournaled(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        for value in (12.0, 3.0, 22.0, 3.0):
            bench.deliver(edge.scan({LEVEL: value}))
            await bench.cycle(100)
        assert bench.said.unjournaled == []
        assert len(bench.said.rows) == 6

    play(tmp_path, story)


def test_what_is_acknowledged_is_committed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        for at in range(30):
            bench.deliver(edge.scan({LEVEL: 3.0}))
            await bench.cycle(commit=False)
            if at % 4 == 0:
                bench.writer.commit(bench.loop, 2)
            stored, _ = stored_frames(bench.ledger.reader)
            upto = bench.loop.acks.get((edge.node, edge.live), 0)
            assert all((edge.live, number) in stored for number in range(1, upto + 1))

    play(tmp_path, story)


def test_duplicates_are_acknowledged_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        sent = edge.scan({LEVEL: 3.0})
        bench.deliver(sent)
        await bench.cycle()
        bench.loop.acks.clear()
        bench.deliver(sent)
        await bench.cycle()
        assert bench.loop.acks == {(edge.node, edge.live): 3}

    play(tmp_path, story)


# -- no room ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_file, "UNCOMMITTED_BYTES_MAX", 4_000)


async def overflow(bench: Bench, edge: Edge) -> None:
    """Scan until the retry buffer is full; no commit succeeds."""
    for _ in range(100):
        bench.deliver(edge.scan({GAS: 0.1}))
        await bench.cycle(commit=False)
        if bench.loop.counters.overflow:
            return
    raise AssertionError("the buffer never filled")


@pytest.mark.fault("F58")
@pytest.mark.usefixtures("small_buffer")
def test_with_the_buffer_full_frames_are_still_evaluated_and_the_alarm_goes_out_at_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await overflow(bench, edge)
        waiting = len(bench.writer.waiting)
        bench.deliver(edge.scan({LEVEL: 22.0}))
        await bench.cycle(10, commit=False)
        assert (LEVEL, "HH") in bench.standing()
        assert len(bench.said.unjournaled) == 2
        assert len(bench.writer.waiting) == waiting, "what has no room in memory is not piled up"
        assert bench.loop.counters.unjournaled

    play(tmp_path, story)


@pytest.mark.fault("F58")
@pytest.mark.usefixtures("small_buffer")
def test_after_an_overflow_the_log_goes_on_from_a_state_record(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await overflow(bench, edge)
        bench.deliver(edge.scan({LEVEL: 22.0}))
        await bench.cycle(commit=False)
        await bench.cycle(1_000, commit=False)
        bench.writer.commit(bench.loop)
        await bench.cycle(1_000, commit=False)
        bench.writer.commit(bench.loop)
        await bench.cycle()
        assert not bench.loop.counters.overflow
        kinds = "".join(kind for (kind,) in bench.ledger.reader.rows("SELECT kind FROM log ORDER BY pos"))
        assert "X" in kinds
        bench.deliver(edge.scan({LEVEL: 24.0}))
        await bench.settle(3)
        found = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
        assert found.differences == ()
        assert found.machine.dump() == bench.machine.dump()
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL HH raised"]
        assert sorted(set(bench.said.unjournaled)) == sorted(notice_ids(bench)), "again, under the same ids"

    play(tmp_path, story)


@pytest.mark.fault("F58")
@pytest.mark.fault("F32")
@pytest.mark.usefixtures("small_buffer")
@pytest.mark.parametrize("commits", [0, 3, 1_000])
def test_killed_around_an_overflow_nothing_is_lost_and_what_was_told_stays_or_is_told_as_late(tmp_path: Path, commits: int) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await overflow(bench, edge)
        for value in (22.0, 5.0, 12.0):
            bench.deliver(edge.scan({LEVEL: value}))
            await bench.cycle(commit=False)
        early = {(notice.transition_id, notice.receiver): notice for notice in bench.said.from_memory}
        bench.writer.commit(bench.loop, commits)
        again = bench.crash()
        assert again.recovered.differences == ()
        edge.session_lost()
        edge.source_ms += 1_000
        again.deliver(edge.born())
        await again.settle(3)
        for _ in range(3):
            again.deliver(edge.backlog())
            await again.settle()
        stored, doubled = stored_frames(again.ledger.reader)
        assert {(frame.stream, frame.sequence) for frame in edge.taken} == stored
        assert not doubled
        assert_journal_is_sound(again.ledger.reader)
        rows = again.ledger.reader.rows(
            "SELECT transition_id, receiver, notice_id, outbox.revision, late FROM outbox JOIN transition ON id = transition_id"
        )
        kept = {(step, receiver): facts for step, receiver, *facts in rows}
        assert early.keys() <= kept.keys(), "every step that went out from memory is in the ledger under its own id"
        for step, told in early.items():
            notice, revision, late = kept[step]
            if late:
                assert notice != told.id, "a repetition is passed over, and this is news"
                assert revision > max(each.revision for each in early.values() if each.alarm_id == told.alarm_id)
            else:
                assert (notice, revision) == (told.id, told.revision), "again, under the same id"
        assert (LEVEL, "H") in again.standing()

    play(tmp_path, story)


@pytest.mark.usefixtures("small_buffer")
def test_a_hole_met_during_an_overflow_is_history_all_the_same(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await overflow(bench, edge)
        edge.scan({LEVEL: 12.0})  # lost
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle(commit=False)
        for _ in range(3):
            bench.writer.commit(bench.loop)
            await bench.cycle(1_000, commit=False)
        edge.session_lost()
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        await bench.settle(20)

    bench = play(tmp_path, story)
    late = [step for step in bench.journal() if step.late]
    assert words(late) == ["late T1.LEVEL H raised", "late T1.LEVEL H returned"]


@pytest.mark.usefixtures("small_buffer")
def test_unmarked_frames_keep_their_numbers_apart_through_an_overflow(tmp_path: Path) -> None:
    """Numbers used twice would give two alarms one id, and the second would never be told."""

    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, {TEMP: 20.0})),
        ])  # fmt: skip
        await bench.cycle()
        await overflow(bench, edge)
        for seq, value in enumerate((70.0, 20.0, 71.0), start=2):
            bench.deliver([(address(MessageKind.DDATA, "E2", "PUMP"), device_frame(seq, [(1, value)]))])
            await bench.cycle(commit=False)
        for _ in range(3):
            bench.writer.commit(bench.loop)
            await bench.cycle(1_000, commit=False)
        bench.deliver([(address(MessageKind.DDATA, "E2", "PUMP"), device_frame(5, [(1, 20.0)]))])
        await bench.settle(3)

    bench = play(tmp_path, story)
    told = [step for step in bench.journal() if step.alarm.tag == TEMP]
    assert words(told) == ["P1.TEMP H raised", "P1.TEMP H returned"] * 2


@pytest.mark.usefixtures("small_buffer")
def test_no_state_is_offered_for_a_snapshot_while_frames_are_not_kept(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        assert bench.loop.settled_state() is not None
        await overflow(bench, edge)
        assert bench.loop.settled_state() is None

    play(tmp_path, story)


@pytest.mark.fault("F58")
def test_at_the_cap_of_the_ledger_live_frames_are_evaluated_unkept_and_their_alarms_journalled(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.loop.live_refused = True
        frames_before = bench.ledger.reader.rows("SELECT count(*) FROM log WHERE kind = 'F'")
        bench.deliver(edge.scan({LEVEL: 22.0}))
        await bench.cycle(10)
        assert len(bench.said.unjournaled) == 2
        for _ in range(3):
            await bench.cycle(1_000)
        assert words(bench.journal()) == ["T1.LEVEL H raised", "T1.LEVEL HH raised"]
        assert bench.ledger.reader.rows("SELECT count(*) FROM log WHERE kind = 'F'") == frames_before
        assert bench.loop.acks.get((edge.node, edge.live), 2) == 2, "not acknowledged: the edge keeps it"
        again = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
        assert again.differences == ()
        assert again.machine.dump()["engine"] == bench.machine.dump()["engine"]
        bench.loop.live_refused = False
        for _ in range(3):
            await bench.cycle(1_000)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        assert (LEVEL, "HH") not in bench.standing()

    play(tmp_path, story)


def test_messages_over_the_cap_are_dropped_counted_and_said(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for _ in range(INBOX_MESSAGES_MAX + 5):
            bench.loop.message("t", b"")
        assert bench.loop.counters.messages_dropped == 5
        await bench.cycle(600)
        assert "CORE.INBOX.DROPPED" in {alarm.tag for alarm in bench.alarms()}

    play(tmp_path, story)


# -- acts ---------------------------------------------------------------------------------------------------------


async def standing_alarm(bench: Bench) -> str:
    edge = await born(bench)
    bench.deliver(edge.scan({LEVEL: 12.0}))
    await bench.cycle()
    return next(alarm.id for alarm in bench.alarms() if alarm.limit == "H")


async def act(bench: Bench, alarm_id: str, kind: ActKind = ActKind.ACKNOWLEDGE) -> asyncio.Future[Transition]:
    task = asyncio.ensure_future(bench.loop.act(Act(kind, alarm_id, "li", bench.wall_ms(), "r", "m"), None))
    await asyncio.sleep(0)
    return task


def test_an_act_is_answered_only_once_it_is_committed(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        task = await act(bench, await standing_alarm(bench))
        for _ in range(5):
            await bench.cycle(commit=False)
            await asyncio.sleep(0)
            assert not task.done()
        bench.writer.commit(bench.loop)
        assert (await task).alarm.acked_by == "li"

    play(tmp_path, story)


def test_a_refused_act_is_answered_at_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        task = await act(bench, await standing_alarm(bench), ActKind.CLOSE)
        await bench.cycle(commit=False)
        with pytest.raises(ActRefusedError, match="still stands"):
            await task

    play(tmp_path, story)


@pytest.mark.fault("F67")
def test_of_two_acknowledgements_in_one_cycle_one_wins(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        alarm = await standing_alarm(bench)
        first, second = await act(bench, alarm), await act(bench, alarm)
        await bench.cycle()
        assert (await first).kind == "acknowledged"
        with pytest.raises(ActRefusedError, match="already acknowledged by li"):
            await second

    bench = play(tmp_path, story)
    assert [step.kind for step in bench.journal() if step.alarm.limit == "H"] == ["raised", "acknowledged"]


def test_too_many_waiting_acts_are_refused(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        tasks = [await act(bench, "x") for _ in range(ACTS_WAITING_MAX + 1)]
        with pytest.raises(ActRefusedError, match="too many"):
            await tasks[-1]
        await bench.cycle()
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), ActRefusedError) for task in tasks)

    play(tmp_path, story)


def test_an_act_whose_asker_has_gone_is_done_all_the_same(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        alarm = await standing_alarm(bench)
        task = await act(bench, alarm)
        task.cancel()
        await asyncio.sleep(0)
        await bench.cycle()
        await bench.cycle()
        assert bench.machine.engine.book.alarms[alarm].acked_by == "li"

    play(tmp_path, story)


# -- running ------------------------------------------------------------------------------------------------------


def test_whatever_arrives_wakes_the_loop(tmp_path: Path) -> None:
    """Every way in but that of delivery results sets the one event the loop sleeps on: none waits for a tick."""

    async def story(bench: Bench) -> None:
        loop = bench.loop
        ways: list[Callable[[], object]] = [
            lambda: loop.message("t", b""), lambda: loop.fact("RECEIVER.CITY0.DOWN", True),
            loop.link_lost, lambda: asyncio.ensure_future(loop.act(Act(ActKind.CLOSE, "x", "li", 1), None)),
        ]  # fmt: skip
        for way in ways:
            loop.wake.clear()
            way()
            await asyncio.sleep(0)
            assert loop.wake.is_set()
        await bench.cycle()

    play(tmp_path, story)


def test_a_commit_hands_its_notices_over_before_it_wakes_anybody(tmp_path: Path) -> None:
    """Whatever is woken first runs first, and an alarm would wait for it."""

    async def story(bench: Bench) -> None:
        edge = await born(bench)
        loop, woken = bench.loop, []
        loop.acks_wake.clear()
        loop.wake.clear()
        loop.on_rows = lambda rows: woken.append((len(rows), loop.acks_wake.is_set(), loop.wake.is_set()))
        bench.deliver(edge.scan({LEVEL: 12.0}))
        loop.wake.clear()
        await bench.cycle()
        assert woken == [(1, False, False)]
        assert loop.acks_wake.is_set()
        assert loop.wake.is_set()

    play(tmp_path, story)


def test_an_alarm_is_logged_at_the_next_tick_and_its_notice_does_not_wait_for_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await bench.cycle()
        caplog.set_level("INFO", "gateway.core.loop")
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(1)
        assert len(bench.said.rows) == 1
        assert not caplog.messages
        await bench.cycle()
        await bench.cycle()
        (line,) = caplog.messages
        assert "T1.LEVEL H raised" in line

    play(tmp_path, story)


def test_what_was_not_logged_yet_is_logged_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await bench.cycle()
        caplog.set_level("INFO", "gateway.core.loop")
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(1)
        stop = asyncio.Event()
        stop.set()
        await bench.loop.run(stop)
        assert sum("T1.LEVEL H raised" in line for line in caplog.messages) == 1

    play(tmp_path, story)


def test_acks_are_told_once_until_they_are_taken(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        loop = bench.loop

        async def told(**values: float) -> bool:
            loop.acks_wake.clear()
            bench.deliver(edge.scan({LEVEL: values["level"]}))
            await bench.cycle()
            return loop.acks_wake.is_set()

        assert await told(level=5.0)
        assert not await told(level=6.0), "whoever waits for the second to end needs no second call"
        loop.acks.clear()  # sent
        assert await told(level=7.0)
        loop.urgent_nodes.add(edge.node)  # backlog does not wait for the second to end
        assert await told(level=8.0)

    play(tmp_path, story)


def test_the_loop_cycles_at_least_every_tick_and_stops_when_told(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        stop = asyncio.Event()
        task = asyncio.ensure_future(bench.loop.run(stop))
        before = bench.loop.counters.cycles
        async with asyncio.timeout(GUARD_S):
            while bench.loop.counters.cycles < before + 3:
                await asyncio.sleep(0.01)
        stop.set()
        await task

    play(tmp_path, story)


def test_a_bug_in_the_history_fetch_is_loud(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)

        def broken(*_: Any) -> Any:
            raise IndexError("a bug")

        bench.loop._fetch_late = broken
        lost = edge.scan({LEVEL: 3.0})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(lost)
        with pytest.raises(IndexError):
            await bench.settle()

    play(tmp_path, story)


def test_a_history_fetch_that_could_not_read_is_tried_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        real, asked = bench.loop._fetch_late, []

        def sometimes(*wanted: Any) -> Any:
            asked.append(wanted)
            return None if len(asked) < 3 else real(*wanted)

        bench.loop._fetch_late = sometimes
        lost = edge.scan({LEVEL: 12.0})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(lost)
        for _ in range(10):
            await bench.cycle(100)
            bench.deliver(edge.scan({GAS: 0.1}))
        await bench.settle()
        assert len(asked) >= 3

    bench = play(tmp_path, story)
    assert words([step for step in bench.journal() if step.late]) == ["late T1.LEVEL H raised", "late T1.LEVEL H returned"]


def test_a_history_fetch_that_failed_does_not_wait_for_the_next_commit(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        real, asked = bench.loop._fetch_late, []

        def once_not(*wanted: Any) -> Any:
            asked.append(wanted)
            return None if len(asked) == 1 else real(*wanted)

        bench.loop._fetch_late = once_not
        lost = edge.scan({LEVEL: 12.0})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(lost)
        await bench.settle()
        assert len(asked) >= 2

    play(tmp_path, story)


def test_a_snapshot_of_what_is_committed_is_not_ahead_of_its_ledger(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(commit=False)
        state = bench.loop.settled_state()
        assert state is not None
        pos, sections = state
        assert pos > bench.loop.counters.committed_pos, "to be written once the ledger has caught up"
        bench.writer.commit(bench.loop)
        assert bench.loop.counters.committed_pos >= pos
        write_snapshot(bench.folder, Snapshot(pos, sections))
        assert newest_position(bench.folder) <= bench.ledger.reader.last_pos()
        found = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
        assert (found.replayed, found.differences) == (0, ())

    play(tmp_path, story)


def test_a_commit_that_fails_leaves_the_loop_as_it_was(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle(commit=False)
        bench.ledger._db.execute("CREATE TRIGGER no BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'no'); END")
        kept = list(bench.writer.waiting)
        with pytest.raises(apsw.ConstraintError):
            bench.writer.commit(bench.loop)
        assert bench.loop.acks == {}
        assert bench.said.rows == []
        bench.writer.waiting = kept
        bench.ledger._db.execute("DROP TRIGGER no")
        bench.writer.commit(bench.loop)
        assert bench.loop.acks[edge.node, edge.live] == 3
        assert len(bench.said.rows) == 1

    play(tmp_path, story)
