"""Parts end in order and in time, and see only what is theirs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from cli import demo
from cli.children import Child
from cli.demo import HURRY_S_MAX, Ending, StartError
from tests.patience import GUARD_S

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def child(tmp_path: Path, program: str, **more: object) -> Child:
    return Child("part", [sys.executable, "-c", program], tmp_path / "part.log", {}, **more)  # type: ignore[arg-type]


async def until_up(part: Child) -> None:
    async with asyncio.timeout(GUARD_S):
        while "up" not in part.last_lines():
            await asyncio.sleep(0.01)


def test_without_a_hurry_a_step_has_its_own_limit() -> None:
    async def scenario() -> None:
        ending = Ending()
        before_s = time.monotonic()
        found_s = ending.within(10.0, 1.0)()
        assert before_s + 10.0 <= found_s <= time.monotonic() + 10.0

    asyncio.run(scenario())


def test_a_hurry_gives_all_steps_one_deadline_and_pressing_again_none_later() -> None:
    async def scenario() -> None:
        ending = Ending()
        step = ending.within(10.0, 1.5)  # begun before the hurry
        before_s = time.monotonic()
        ending.hurry()
        first_s = ending.end_s
        assert before_s + HURRY_S_MAX <= first_s <= time.monotonic() + HURRY_S_MAX
        assert step() == first_s - 1.5
        ending.hurry()
        assert ending.end_s == first_s

    asyncio.run(scenario())


def test_the_steps_of_a_hurry_leave_each_other_time() -> None:
    kept = [demo.AFTER_EDGES_S, demo.AFTER_DELIVERIES_S, demo.AFTER_CORE_S, demo.AFTER_FIELD_S, demo.AFTER_BROKER_S]
    assert kept[0] < HURRY_S_MAX
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] > 0


def test_a_part_that_hangs_is_killed_at_the_deadline_even_when_that_moves_closer(tmp_path: Path) -> None:
    async def scenario() -> None:
        part = child(tmp_path, DEAF)
        part.start()
        await until_up(part)
        ending = Ending()
        stopping = asyncio.create_task(part.stop(ending.within(10 * GUARD_S)))
        await asyncio.sleep(0.1)
        assert part.alive
        ending.end_s = time.monotonic() + 0.1
        async with asyncio.timeout(GUARD_S):
            await stopping
        assert part.exit_code == -signal.SIGKILL

    asyncio.run(scenario())


def test_a_part_does_not_see_what_it_must_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", "inherited")
    program = "import json, os; print(json.dumps(os.environ.get('SIGNING')), 'up', flush=True)"

    async def scenario(part: Child) -> object:
        part.start()
        await until_up(part)
        await part.stop(lambda: time.monotonic() + GUARD_S)
        return json.loads(part.last_lines(1).split()[0])

    assert asyncio.run(scenario(child(tmp_path, program, without=frozenset({"SIGNING"})))) is None
    os.truncate(tmp_path / "part.log", 0)
    assert asyncio.run(scenario(child(tmp_path, program))) == "inherited"


def test_ctrl_c_is_heard_while_starting() -> None:
    async def scenario() -> None:
        ending = Ending()
        begun = asyncio.Event()

        async def start() -> demo.Chain:
            begun.set()
            await asyncio.sleep(3600)
            raise AssertionError

        waiting = asyncio.create_task(demo._unless_ended(ending, start()))
        await begun.wait()
        ending.hurry()
        async with asyncio.timeout(GUARD_S):
            with pytest.raises(StartError):
                await waiting

    asyncio.run(scenario())


def test_an_account_that_hangs_does_not_hold_up_the_end() -> None:
    async def scenario() -> None:
        ending = Ending()
        ending.end_s = time.monotonic() + 0.2
        held = threading.Event()
        assert await demo._in_time(ending, lambda: {"hung": held.wait(GUARD_S)}) is None
        held.set()
        ending.end_s = float("inf")
        assert await demo._in_time(ending, lambda: {"missing": []}) == {"missing": []}
        with pytest.raises(ZeroDivisionError):
            await demo._in_time(ending, lambda: {"missing": 1 // 0})

    asyncio.run(scenario())
