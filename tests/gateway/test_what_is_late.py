"""The log tells which frames of a row were late and which are new: a sealer that keeps no state stores each once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.entries import Entry, EntryKind
from gateway.historian.segments.seal import LogRow, Places, samples_of
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, Edge, Sent, Taken, address, block, block_message
from tests.gateway.history import World
from wire import INTERVALS_MAX, MessageKind


def rows(bench: Bench) -> list[Entry]:
    return [entry for entry in bench.ledger.reader.entries_after(0) if entry.kind in (EntryKind.FRAME, EntryKind.BLOCK)]


def as_block(edge: Edge, frames: list[Taken]) -> list[Sent]:
    return [(address(MessageKind.NDATA, edge.node), block_message(edge._seq(), block(edge.node, frames)))]


def told(bench: Bench, stream: int) -> list[tuple[str, int, int, int, tuple[tuple[int, int], ...] | None]]:
    return [(e.kind.value, e.first, e.last, e.late_upto, e.fresh) for e in rows(bench) if e.stream == stream]


def test_a_frame_behind_the_newest_is_late_and_the_newest_is_not(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())
        await bench.settle(3)
        behind = edge.scan({LEVEL: 1.0})
        bench.deliver(edge.scan({LEVEL: 2.0}))
        bench.deliver(behind)
        bench.deliver(behind)
        await bench.settle(3)

    edge = Edge()
    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench, edge))
    assert told(bench, edge.live) == [
        ("F", 1, 1, 0, None), ("F", 2, 2, 0, None), ("F", 4, 4, 0, None), ("F", 3, 3, 3, None),
    ]  # fmt: skip


def test_blocks_of_a_sealed_stream_are_late_whole_and_name_what_is_new(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())
        await bench.settle(3)
        edge.scan({LEVEL: 1.0})  # 3: lost
        bench.deliver(edge.scan({LEVEL: 2.0}))  # 4
        edge.scan({LEVEL: 3.0})  # 5: lost
        bench.deliver(edge.death())
        edge.session_lost()
        bench.deliver(edge.born())
        await bench.settle(3)
        bench.deliver(edge.backlog())
        await bench.settle()

    edge = Edge()
    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench, edge))
    sealed = edge.live - 1
    assert told(bench, sealed)[-1] == ("B", 1, 5, 5, ((3, 3), (5, 5)))


def test_a_block_of_the_live_stream_is_late_as_far_as_the_present_had_come(tmp_path: Path) -> None:
    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())
        await bench.settle(3)
        for at in range(6):
            edge.scan({LEVEL: float(at)})
        frames = edge.streams[edge.live].frames
        bench.deliver(as_block(edge, [frames[number] for number in (1, 2, 3, 4)]))
        await bench.settle(3)
        bench.deliver(as_block(edge, [frames[number] for number in (5, 6)]))
        await bench.settle(3)

    edge = Edge()
    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench, edge))
    assert told(bench, edge.live)[-2:] == [("B", 1, 4, 2, ((3, 4),)), ("B", 5, 6, 0, None)]


def test_frames_kept_without_being_counted_are_not_new_a_second_time(tmp_path: Path) -> None:
    count = INTERVALS_MAX + 3

    async def story(bench: Bench, edge: Edge) -> None:
        bench.deliver(edge.born())
        await bench.settle(3)
        for _ in range(count):
            edge.scan({LEVEL: 1.0})  # every other one is lost
            bench.deliver(edge.scan({LEVEL: 2.0}))
        await bench.settle(4)
        frames = edge.streams[edge.live].frames
        bench.deliver(as_block(edge, list(frames.values())))
        await bench.settle(3)

    edge = Edge()
    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench, edge))
    assert new_numbers(bench, edge.live) == list(range(1, 2 * count + 3))


def new_numbers(bench: Bench, stream: int) -> list[int]:
    """The frame numbers of a stream as a sealer takes them from the log."""
    found: list[int] = []
    for entry in rows(bench):
        if entry.stream == stream:
            ranges = ((entry.first, entry.last),) if entry.fresh is None else entry.fresh
            found += [number for lo, hi in ranges for number in range(lo, hi + 1)]
    return sorted(found)


PARTS = st.lists(st.tuples(st.booleans(), st.integers(3, 20), st.integers(1, 8)), min_size=1, max_size=12)


@given(PARTS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_whatever_comes_twice_or_in_parts_each_frame_is_new_once(parts: list[tuple[bool, int, int]], sealed: bool) -> None:
    """`parts`: as a block or as frames, from which number, how many."""

    async def story(bench: Bench, edge: Edge) -> set[int]:
        bench.deliver(edge.born())
        await bench.settle(3)
        sent = {number: edge.scan({LEVEL: float(number)}) for number in range(3, 28)}
        frames, stream = edge.streams[edge.live].frames, edge.live
        if sealed:
            bench.deliver(edge.death())
            edge.session_lost()
            bench.deliver(edge.born())
            await bench.settle(3)
        given = {1, 2}
        for whole, first, length in parts:
            numbers = range(first, first + length)
            if whole:
                bench.deliver(as_block(edge, [frames[number] for number in numbers]))
            elif stream == edge.live:
                for number in numbers:
                    bench.deliver(sent[number])
            else:
                continue
            given |= set(numbers)
            await bench.cycle()
        await bench.settle()
        return given

    with tempfile.TemporaryDirectory() as folder:
        edge, bench = Edge(), Bench(Path(folder) / "core")
        given_numbers = asyncio.run(story(bench, edge))
        assert new_numbers(bench, edge.live - sealed) == sorted(given_numbers)
        bench.close()


@pytest.mark.fault("F23")
@pytest.mark.parametrize("seed", [401, 402, 403, 405, 406, 407])
def test_over_a_random_history_with_kills_a_sealer_finds_every_sample_once(seed: int, tmp_path: Path) -> None:
    async def story() -> World:
        world = World(seed, tmp_path)
        for _ in range(120):
            await world.step()
        await world.heal()
        return world

    world = asyncio.run(story())
    reader = world.bench.ledger.reader
    log = [
        LogRow(*row)
        for row in reader.rows(
            "SELECT pos, kind, received_ms, node, stream, first, body, late_upto, fresh FROM log WHERE kind IN ('F', 'B', 'H')"
        )
    ]
    found = samples_of(log, reader.tag_names(), Places(world.bench.site))
    own = [
        (found.names[tag], stream, number)
        for tag, stream, number in zip(found.tag.tolist(), found.stream.tolist(), found.sequence.tolist(), strict=True)
        if stream in world.edge.streams
    ]
    assert sorted(own) == sorted((tag, frame.stream, frame.sequence) for frame in world.edge.taken for tag, _ in frame.values)
    assert any(row.kind == "B" and row.fresh is not None for row in log), "some came in parts"
    world.bench.close()
