"""Late data are history: dated records, never a current level, and the same ones in whatever order they came."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.bench import Bench, words
from tests.gateway.field import GAS, LEVEL, PRESSURE, Edge, address, block, block_message
from wire import MessageKind

Story = Callable[[Bench, Edge], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story) -> Bench:
    bench = Bench(folder / "core")
    asyncio.run(story(bench, Edge()))
    return bench


async def begin(bench: Bench, edge: Edge) -> None:
    bench.deliver(edge.born())
    await bench.settle(3)


@pytest.mark.fault("F25")
def test_a_hole_filled_later_gives_a_dated_late_alarm_and_moves_no_level(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        lost = edge.scan({LEVEL: 12.0})  # over H, never seen live
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        assert bench.standing() == set()
        bench.deliver(lost)
        await bench.settle()

    bench = play(tmp_path, story)
    told = [step for step in bench.journal() if step.alarm.tag == LEVEL]
    assert words(told) == ["late T1.LEVEL H raised", "late T1.LEVEL H returned"]
    assert bench.standing() == set()
    assert bench.machine.node("E1").history is None


@pytest.mark.fault("F25")
def test_what_an_offline_stream_held_is_found_and_the_present_stays(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        bench.deliver(edge.death())
        await bench.cycle()
        edge.session_lost()
        for value in (12.0, 22.0, 5.0):
            edge.offline_scan({LEVEL: value}, after_ms=1_000)
        bench.deliver(edge.born())
        await bench.settle(3)
        assert ("T1.LEVEL", "H") not in bench.standing()
        bench.deliver(edge.backlog())
        await bench.settle()

    bench = play(tmp_path, story)
    late = [step for step in bench.journal() if step.late]
    assert words(late) == [
        "late T1.LEVEL H raised", "late T1.LEVEL HH raised", "late T1.LEVEL H returned", "late T1.LEVEL HH returned",
    ]  # fmt: skip
    assert bench.standing() == set()


@pytest.mark.fault("F25")
def test_a_stream_sealed_within_a_session_is_run_as_history_too(tmp_path: Path) -> None:
    """The edge gave up waiting for acknowledgements and began another stream; no death was ever seen."""

    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        edge.scan({LEVEL: 12.0})  # lost on the way
        edge.scan({LEVEL: 3.0})  # lost on the way
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        await bench.settle()

    bench = play(tmp_path, story)
    assert words([step for step in bench.journal() if step.late]) == [
        "late T1.LEVEL H raised", "late T1.LEVEL H returned",
    ]  # fmt: skip


@pytest.mark.fault("F25")
def test_a_late_frame_is_not_passed_over_while_its_own_commit_is_on_the_way(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        lost = edge.scan({LEVEL: 12.0})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle(commit=False)
        bench.deliver(lost)
        # The commit of what came before lands in the very cycle that brings the missing frame.
        bench.writer.commit(bench.loop)
        await bench.cycle(commit=False)
        await bench.cycle(commit=False)
        await bench.settle()

    bench = play(tmp_path, story)
    assert words([step for step in bench.journal() if step.late]) == [
        "late T1.LEVEL H raised", "late T1.LEVEL H returned",
    ]  # fmt: skip


@pytest.mark.fault("F25")
def test_an_excursion_that_still_stands_links_the_late_record_to_the_live_alarm(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        bench.deliver(edge.death())
        edge.session_lost()
        edge.offline_scan({LEVEL: 12.0}, after_ms=1_000)
        edge.source_ms += 60_000
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        await bench.settle()
        live, late = sorted((a for a in bench.alarms() if a.limit == "H"), key=lambda a: a.late)
        assert late.linked == live.id
        assert late.start_ms < live.start_ms
        bench.deliver(edge.scan({LEVEL: 2.0}))
        await bench.settle()

    bench = play(tmp_path, story)
    assert {(a.late, a.state.active) for a in bench.alarms() if a.limit == "H"} == {(False, False), (True, False)}


@pytest.mark.fault("F25")
def test_two_orders_of_arrival_give_the_same_late_record(tmp_path: Path) -> None:
    def run(name: str, order: Callable[[list[Any]], list[Any]]) -> list[tuple[str, str, int]]:
        async def story(bench: Bench, edge: Edge) -> None:
            await begin(bench, edge)
            bench.deliver(edge.death())
            edge.session_lost()
            for value in (12.0, 3.0, 22.0, 4.0, 15.0, 5.0, 11.0, 1.0):
                edge.offline_scan({LEVEL: value}, after_ms=1_000)
                edge.offline_scan({GAS: value / 10}, after_ms=10)
            bench.deliver(edge.born())
            await bench.settle(3)
            for message in order(edge.backlog(frames_max=3)):
                bench.deliver([message])
                await bench.settle(4)
            await bench.settle()

        (tmp_path / name).mkdir()
        bench = play(tmp_path / name, story)
        # An alarm's id says which sample raised it; what it links to may differ with the order.
        return sorted((step.id, str(step.kind), step.at_ms) for step in bench.journal() if step.late)

    forward = run("forward", lambda sent: sent)
    assert len(forward) >= 14
    assert run("backward", lambda sent: sent[::-1]) == forward
    assert run("middle", lambda sent: sent[2:] + sent[:2]) == forward


@pytest.mark.fault("F25")
def test_a_late_on_delay_runs_on_source_time(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        bench.deliver(edge.death())
        edge.session_lost()
        for value in (1.2, 1.2, 1.2, 1.2, 0.2, 0.2, 0.2):
            edge.offline_scan({PRESSURE: value}, after_ms=800)
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        await bench.settle()

    bench = play(tmp_path, story)
    assert words([step for step in bench.journal() if step.late]) == [
        "late T1.PRESSURE H raised", "late T1.PRESSURE H returned",
    ]  # fmt: skip


@pytest.mark.fault("F25")
def test_a_late_good_value_never_lowers_a_standing_alarm(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        calm = edge.scan({LEVEL: 3.0})
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.settle(2)
        assert (LEVEL, "H") in bench.standing()
        bench.deliver(calm)
        await bench.settle()

    bench = play(tmp_path, story)
    assert (LEVEL, "H") in bench.standing(late=False)
    assert [step.kind for step in bench.journal() if step.alarm.tag == LEVEL] == ["raised"]


@pytest.mark.fault("F23")
def test_a_frame_that_comes_twice_is_stored_and_told_once(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        over = edge.scan({LEVEL: 12.0})
        for _ in range(3):
            bench.deliver(over)
            await bench.cycle()
        bench.deliver(over)
        bench.deliver(over)
        await bench.settle()
        edge.session_lost()
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        bench.deliver(edge.backlog())
        await bench.settle()

    bench = play(tmp_path, story)
    rows = bench.ledger.reader.rows("SELECT stream, first, count(*) FROM log WHERE kind = 'F' GROUP BY 1, 2")
    assert all(count == 1 for _, _, count in rows)
    assert [step.kind for step in bench.journal() if step.alarm.tag == LEVEL] == ["raised"]
    assert bench.loop.counters.duplicates_dropped >= 4


@pytest.mark.fault("F25")
def test_frames_that_retention_removed_are_passed_over_in_one_step(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        lost = edge.scan({LEVEL: 3.0})
        for _ in range(50):
            bench.deliver(edge.scan({LEVEL: 3.0}))
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.cycle()
        bench.ledger._db.execute("DELETE FROM log WHERE kind = 'F' AND first BETWEEN 10 AND 40")
        bench.deliver(lost)
        await bench.settle()
        assert bench.machine.node("E1").history is None, "history has caught up with the present"

    bench = play(tmp_path, story)
    assert len(bench.ledger.reader.rows("SELECT 1 FROM log WHERE kind = 'L'")) <= 4
    assert [step.kind for step in bench.journal() if step.alarm.limit == "H"] == ["raised"]


@pytest.mark.fault("F25")
def test_a_block_with_holes_of_its_own_does_not_stop_history(tmp_path: Path) -> None:
    """Numbers whose samples are all of tags that this site does not have stand in no frame."""

    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        bench.deliver(edge.death())
        edge.session_lost()
        sealed = edge.live
        for value in (3.0, 3.0, 3.0, 3.0, 12.0, 3.0):
            edge.offline_scan({LEVEL: value}, after_ms=1_000)
        frames = edge.streams[sealed].frames
        bench.deliver(edge.born())
        await bench.settle(3)
        body = block("E1", [frames[number] for number in (1, 4, 5, 6)], 1, 6)
        bench.deliver([(address(MessageKind.NDATA, "E1"), block_message(edge._seq(), body))])
        await bench.settle()

    bench = play(tmp_path, story)
    assert words([step for step in bench.journal() if step.late]) == [
        "late T1.LEVEL H raised", "late T1.LEVEL H returned",
    ]  # fmt: skip


@pytest.mark.fault("F25")
def test_a_delay_whose_first_sample_came_late_is_told_when_it_is_over(tmp_path: Path) -> None:
    """The present never saw the sample, and nothing changed after it: only history knows that the delay runs."""

    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        late = edge.scan({PRESSURE: 1.2})  # over H, which waits 2 s; overtaken by the next
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(late)
        await bench.settle()
        assert bench.standing() == set()
        bench.deliver(edge.scan({PRESSURE: 1.2}, after_ms=20_000))  # no change for so long: it is said again
        bench.deliver(edge.scan({PRESSURE: 0.5}, after_ms=1_000))
        await bench.settle()
        bench.deliver(edge.scan({PRESSURE: 0.5}, after_ms=20_000))
        await bench.settle()

    bench = play(tmp_path, story)
    told = [step for step in bench.journal() if step.alarm.tag == PRESSURE]
    assert words(told) == ["late T1.PRESSURE H raised", "late T1.PRESSURE H returned"]
    assert bench.standing() == set()
    assert bench.machine.node("E1").history is None


@pytest.mark.fault("F25")
@pytest.mark.parametrize("bad", [True, False], ids=["turned bad", "fell silent"])
def test_an_instrument_that_ends_within_its_delay_does_not_keep_history_open(tmp_path: Path, *, bad: bool) -> None:
    """Nothing can end the delay until the instrument is repaired, and till then every frame would be run twice."""

    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        late = edge.scan({PRESSURE: 1.2})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(late)
        await bench.settle()
        if bad:
            bench.deliver(edge.scan({PRESSURE: math.nan}))
        for _ in range(3):
            bench.deliver(edge.scan({LEVEL: 3.0}, after_ms=10_000))
            await bench.settle()
            assert bench.machine.node("E1").history is not None, "it may still be heard again"
        bench.deliver(edge.scan({LEVEL: 3.0}, after_ms=10_000))
        await bench.settle()
        assert bench.machine.node("E1").history is None

    play(tmp_path, story)


@pytest.mark.fault("F25")
def test_an_excursion_that_only_history_has_seen_is_told_through_a_bad_sample(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        await begin(bench, edge)
        late = edge.scan({PRESSURE: 1.2})
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        bench.deliver(late)
        await bench.settle()
        for value, after_ms in ((math.nan, 500), (1.2, 2_000), (0.2, 100), (0.2, 1_000)):
            bench.deliver(edge.scan({PRESSURE: value}, after_ms=after_ms))
            await bench.settle()

    bench = play(tmp_path, story)
    told = [step for step in bench.journal() if step.alarm.tag == PRESSURE and step.alarm.limit == "H"]
    assert words(told) == ["late T1.PRESSURE H raised", "late T1.PRESSURE H returned"]
    assert bench.machine.node("E1").history is None
