"""The world itself: one seed is one run, every kind of fault really strikes, and the dead do nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from simulators.world import (
    BROKER,
    CORE,
    Committed,
    Event,
    Fault,
    FaultKind,
    FaultPlan,
    Healed,
    Heartbeat,
    Noticed,
    PartEnded,
    PartStarted,
    Record,
    Refused,
    Settled,
    Taken,
)
from simulators.world.clock import VirtualLoop
from simulators.world.process import Killed, Process, own_tasks
from simulators.world.world import World

HEAL_S = 45.0
AT_S, FOR_S = 12.0, 20.0


def play(folder: Path, seed: int, *faults: Fault) -> tuple[Record, Counter[FaultKind]]:
    """Run a short world with these faults."""

    async def run() -> tuple[Record, Counter[FaultKind]]:
        async with World(seed, folder, FaultPlan(faults, HEAL_S)) as world:
            return await world.run(), world.applied

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def one(kind: FaultKind, part: str, strength: float = 0.0, mode: str = "") -> Fault:
    return Fault(0, kind, AT_S, FOR_S, part, strength, mode)


def during(record: Record, kind: type[Event]) -> list[Event]:
    return [event for event in record.of(kind) if AT_S < event.at_s < AT_S + FOR_S]


def killed(part: str) -> Callable[[Record], bool]:
    def lives_twice(record: Record) -> bool:
        ended = [event for event in record.of(PartEnded) if event.part == part and event.cause == "killed"]
        started = [event.run for event in record.of(PartStarted) if event.part == part]
        return len(ended) == 1 and started == [1, 2]

    return lives_twice


def told_as(status: int | None, *, kept: bool) -> Callable[[Record], bool]:
    return lambda record: any(
        isinstance(event, Noticed) and event.receiver == "CITY" and (event.status, event.kept) == (status, kept)
        for event in during(record, Noticed)
    )


def stamps_jump(node: str) -> Callable[[Record], bool]:
    """Samples read during the fault are stamped an hour ahead."""

    def jumped(record: Record) -> bool:
        return any(
            event.node == node and event.samples and event.samples[0].source_ms - record.start_ms > 3_000_000
            for event in record.of(Taken)
        )

    return jumped


def always(record: Record) -> bool:
    return True


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        pytest.param(one(FaultKind.LOSS, "E1", 0.5), always, id="a line loses"),
        pytest.param(one(FaultKind.DELAY, CORE, 2.0), always, id="a line delays"),
        pytest.param(one(FaultKind.DUPLICATE, "E2", 0.6), always, id="a line repeats"),
        pytest.param(one(FaultKind.REORDER, "E1", 0.5), always, id="a line lets messages overtake"),
        pytest.param(one(FaultKind.PARTITION, "E1", mode="closed"), always, id="a line is cut"),
        pytest.param(one(FaultKind.PARTITION, CORE, mode="silent"), always, id="a line is dead"),
        pytest.param(one(FaultKind.KILL, CORE, mode="now"), killed(CORE), id="core dies"),
        pytest.param(one(FaultKind.KILL, CORE, mode="behind_sync"), killed(CORE), id="core dies behind a commit"),
        pytest.param(one(FaultKind.KILL, "E1", mode="now"), killed("E1"), id="an edge dies"),
        pytest.param(one(FaultKind.KILL, "E2", mode="behind_sync"), killed("E2"), id="an edge dies behind a sync"),
        pytest.param(one(FaultKind.KILL, BROKER, mode="now"), killed(BROKER), id="the broker dies"),
        pytest.param(one(FaultKind.KILL, "CITY", mode="now"), killed("CITY"), id="a receiver dies"),
        pytest.param(one(FaultKind.DISK_FULL, CORE), always, id="core's disk is full"),
        pytest.param(one(FaultKind.DISK_FULL, "E1"), always, id="an edge's disk is full"),
        pytest.param(one(FaultKind.SYNC_FAILS, CORE), always, id="core's disk does not sync"),
        pytest.param(one(FaultKind.SYNC_FAILS, "E2"), always, id="an edge's disk does not sync"),
        pytest.param(one(FaultKind.CLOCK_STEP, "E1", 3600.0), stamps_jump("E1"), id="an edge's clock jumps"),
        pytest.param(
            one(FaultKind.CLOCK_STEP, CORE, 3600.0), lambda record: bool(during(record, Refused)), id="core's clock jumps"
        ),
        pytest.param(
            one(FaultKind.TWINS, "E1"), lambda record: any(event.box == 1 for event in record.of(Taken)), id="two boxes"
        ),
        pytest.param(
            one(FaultKind.INSTRUMENT_DEAD, "TANK", mode="comm"),
            lambda record: any(sample.code == 1 for event in record.of(Taken) for sample in event.samples),
            id="a device is dead",
        ),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="500"), told_as(500, kept=False), id="500"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="429"), told_as(429, kept=False), id="429"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="302"), told_as(302, kept=False), id="redirect"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="drop"), told_as(None, kept=False), id="dropped"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="silent"), told_as(None, kept=True), id="no answer"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="cut"), told_as(None, kept=True), id="cut body"),
        pytest.param(one(FaultKind.RECEIVER_ERRORS, "CITY", mode="kept"), told_as(500, kept=True), id="kept, then 500"),
    ],
)
def test_a_fault_strikes_and_the_world_heals(tmp_path: Path, fault: Fault, seen: Callable[[Record], bool]) -> None:
    record, applied = play(tmp_path, 6, fault)
    assert applied[fault.kind] > 0, "a fault that never strikes tries nothing"
    assert set(applied) == {fault.kind}
    assert seen(record)
    settled = record.events[-1]
    assert isinstance(settled, Settled)
    assert settled.in_time, settled.waiting


def test_a_world_without_faults_is_seen_whole(tmp_path: Path) -> None:
    record, applied = play(tmp_path, 3)
    assert not applied
    assert {event.part for event in record.of(PartStarted)} == {CORE, BROKER, "E1", "E2", "CITY", "COUNTY"}
    (healed,) = record.of(Healed)
    assert healed.at_s == HEAL_S
    assert {event.cause for event in record.of(PartEnded)} == {"stopped"}
    assert list(record.of(Refused)) == []
    assert {event.receiver for event in record.of(Heartbeat)} == {"CITY", "COUNTY"}
    taken = {(event.node, event.stream, event.sequence) for event in record.of(Taken)}
    held = {
        (event.node, event.stream, number)
        for event in record.of(Committed)
        for number in range(event.first, event.last + 1)
    }
    assert taken
    assert taken <= held


DIGESTS = """
    import hashlib, sys, tempfile
    from pathlib import Path
    from simulators.world.world import run_world
    for seed in (2, 5):
        with tempfile.TemporaryDirectory() as folder:
            record = run_world(seed, Path(folder))
        print(hashlib.sha256("\\n".join(map(repr, record.events)).encode()).hexdigest())
"""


def test_a_seed_is_the_same_run_in_every_process() -> None:
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DIGESTS)], stdout=subprocess.PIPE, text=True, cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone},
        )
        for hash_seed, zone in (("1", "UTC"), ("2", "Asia/Shanghai"))
    ]  # fmt: skip
    first, second = (process.communicate(timeout=100)[0].split() for process in running)
    assert len(first) == 2
    assert first == second


# -- what a world is made of --


def test_time_jumps_to_the_next_timer_and_no_timer_rings_early() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 1 / 3
        rings = 0
        while loop.time() < until_s:
            rings += 1
            await asyncio.sleep(until_s - loop.time())
        assert rings == 1
        await asyncio.sleep(1_000_000)
        return loop.time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(scenario()) == pytest.approx(1_000_000.333334)


def test_a_dead_process_runs_no_further_whatever_it_catches() -> None:
    async def scenario() -> None:
        own_tasks(asyncio.get_running_loop())
        process = Process("E1", 1)
        done: list[str] = []

        async def stubborn() -> None:
            asyncio.get_running_loop().create_task(child())
            while True:
                try:
                    await asyncio.sleep(1)
                    done.append("a second")
                finally:
                    process.check()
                    done.append("cleaned up")

        async def child() -> None:
            await asyncio.sleep(5)
            done.append("a child's work")

        process.spawn(stubborn(), "stubborn")
        await asyncio.sleep(2.5)
        assert done == ["a second", "cleaned up"] * 2
        process.die()
        await process.buried()
        with pytest.raises(Killed):
            process.check()
        await asyncio.sleep(10)
        assert done == ["a second", "cleaned up"] * 2

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())
