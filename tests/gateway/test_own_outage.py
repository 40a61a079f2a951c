"""Core's own absence is no fault of the instruments: they go stale, and only who stays silent is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.core.batching import NODE_GRACE_MS
from gateway.core.recover import recover
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, PRESSURE, Edge

pytestmark = pytest.mark.fault("F32")

CALM = {LEVEL: 3.0, PRESSURE: 0.5}
BAD_BELOW = 64


def told(bench: Bench, limit: str = "FAULT") -> set[str]:
    return {step.alarm.tag for step in bench.journal() if step.alarm.limit == limit}


def silent(bench: Bench) -> bool:
    return bool(bench.machine.engine.tag_states().code[bench.site.tag_index[LEVEL]] < BAD_BELOW)


def silence_ms(bench: Bench) -> int:
    return max(int(1000 * tag.stale_after_s) for tag in bench.site.tags)


async def turning(bench: Bench, ms: int) -> None:
    """The loop turns as it should, for so long."""
    for _ in range(ms // 500):
        await bench.cycle(500)


async def back(bench: Bench, edge: Edge) -> None:
    edge.session_lost()
    bench.deliver([*edge.born(), *edge.scan(CALM)])
    await bench.cycle()


async def killed(bench: Bench) -> Bench:
    bench.now_s += silence_ms(bench) / 1000
    return bench.crash()


async def stopped(bench: Bench) -> Bench:
    await bench.cycle(silence_ms(bench) + 1_000)
    return bench


async def deaf(bench: Bench) -> Bench:
    """The silence is nearly over when core loses its link."""
    await turning(bench, silence_ms(bench) - 5_000)
    bench.loop.link_lost()
    await turning(bench, 6_000)
    return bench


OUTAGES = {"killed": killed, "stopped": stopped, "deaf": deaf}


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("outage", OUTAGES.values(), ids=list(OUTAGES))
def test_only_who_stays_silent_has_a_fault(
    outage: Callable[[Bench], Awaitable[Bench]], comes_back: bool, tmp_path: Path
) -> None:
    async def story() -> None:
        bench, edge = Bench(tmp_path / "core"), Edge()
        await back(bench, edge)
        bench = await outage(bench)
        await bench.cycle()
        assert silent(bench), "no false calm meanwhile"
        assert LEVEL not in told(bench)
        if comes_back:
            await back(bench, edge)
            assert not silent(bench)
        for _ in range(NODE_GRACE_MS // 5_000 + 1):
            await turning(bench, 5_000)
            if comes_back:
                bench.deliver(edge.scan(CALM))
        assert (LEVEL in told(bench)) is not comes_back
        state = bench.machine.dump()
        found = recover(bench.site, bench.folder, bench.ledger.reader, restored=False)
        assert found.differences == ()
        assert found.machine.dump() == state
        bench.close()

    asyncio.run(story())


def test_a_birth_that_leaves_a_tag_out_ends_its_excuse_soon(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = Bench(tmp_path / "core"), Edge()
        await back(bench, edge)
        bench = await killed(bench)
        await bench.cycle()
        edge.session_lost()
        bench.deliver(edge.born()[:1])  # the node, and none of its devices
        await bench.cycle()
        await turning(bench, 4_000)
        assert LEVEL not in told(bench)
        await turning(bench, 2_000)
        assert LEVEL in told(bench)
        bench.close()

    asyncio.run(story())


def test_a_loop_that_stalls_again_and_again_hides_no_silence(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = Bench(tmp_path / "core"), Edge()
        await back(bench, edge)
        bench = await stopped(bench)
        for _ in range(NODE_GRACE_MS // 2_000 + 1):
            await bench.cycle(2_000)
        assert LEVEL in told(bench)
        bench.close()

    asyncio.run(story())


def test_the_outage_itself_is_one_alarm(tmp_path: Path) -> None:
    async def story() -> None:
        bench, edge = Bench(tmp_path / "core"), Edge()
        await back(bench, edge)
        bench = await stopped(bench)
        bench = await killed(bench)
        await bench.cycle()
        system = [step.alarm for step in bench.journal() if step.alarm.limit == "SYSTEM" and step.kind == "raised"]
        system = [alarm for alarm in system if alarm.tag.startswith("CORE.")]
        assert [alarm.tag for alarm in system] == ["CORE.EVALUATOR.STALLED", "CORE.PROCESS.AWAY"]
        away = system[1].facts
        assert int(str(away["to_ms"])) - int(str(away["from_ms"])) >= silence_ms(bench)
        assert "core was away" in system[1].cause_en
        bench.close()

    asyncio.run(story())
