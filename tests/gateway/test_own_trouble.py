"""One fault of the gateway is one alarm: the edges' missing acknowledgements are not told again as blocked transports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.loop import HOUSEKEEPING_MS, HUNG_MS
from gateway.core.own_trouble import EXPLAINS_MS
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, Edge, Sent, address, flag, node_birth
from tests.gateway.test_intruders import node_data, raised
from tests.gateway.test_machine import assert_replays, born, play
from wire import TRANSPORT_BLOCKED, MessageKind

pytestmark = pytest.mark.fault("F31")

BLOCKED = ("EDGE.E1.TRANSPORT", "SYSTEM")
WRITE = ("CORE.LEDGER.WRITE", "SYSTEM")


def birth(edge: Edge, *, blocked: bool = True) -> list[Sent]:
    """The edge is born again within its stream, as it is when no acknowledgement comes."""
    edge.seq = 0
    payload = node_birth(0, edge.live, edge.streams[edge.live].last, extra=[flag(TRANSPORT_BLOCKED, blocked)])
    return [(address(MessageKind.NBIRTH, "E1"), payload)]


async def long_running(bench: Bench) -> Edge:
    """E1 is live, and core has been well for so long that nothing of it explains anything."""
    edge = await born(bench)
    await bench.wait(EXPLAINS_MS)
    return edge


TROUBLES: dict[str, Callable[[Bench], None]] = {
    "a ledger that fails": lambda bench: bench.loop.fact("CORE.LEDGER.WRITE", True, {"reason": "disk full"}),
    "a stalled loop": lambda bench: bench.loop.fact("CORE.EVALUATOR.STALLED", None, {"seconds": 4.0}),
    "our own link": lambda bench: bench.loop.link_up(),
    "no room to keep frames": lambda bench: setattr(bench.loop, "live_refused", True),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_block_that_our_own_trouble_explains_is_told_only_if_it_stands_on(tmp_path: Path, trouble: str) -> None:
    async def story(bench: Bench) -> None:
        edge = await long_running(bench)
        TROUBLES[trouble](bench)
        bench.deliver(birth(edge))
        await bench.cycle()
        bench.loop.live_refused = False
        await bench.wait(EXPLAINS_MS - 5_000)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        bench.deliver(birth(edge))
        await bench.cycle()
        assert BLOCKED not in bench.standing()
        await bench.wait(7_000)
        assert BLOCKED in bench.standing(), "the trouble is over, and nobody took it back"
        bench.deliver(node_data(edge, flag(TRANSPORT_BLOCKED, False)))
        await bench.cycle()
        assert BLOCKED not in bench.standing()

    bench = play(tmp_path, story)
    assert raised(bench, "EDGE.E1.TRANSPORT") == 1
    assert_replays(bench)


@pytest.mark.parametrize("how", ["state", "birth"])
def test_a_block_that_ends_with_our_own_trouble_is_not_told(tmp_path: Path, how: str) -> None:
    async def story(bench: Bench) -> None:
        edge = await long_running(bench)
        bench.loop.link_up()
        bench.deliver(birth(edge))
        await bench.cycle()
        over = birth(edge, blocked=False) if how == "birth" else node_data(edge, flag(TRANSPORT_BLOCKED, False))
        bench.deliver(over)
        await bench.cycle()
        await bench.wait(2 * EXPLAINS_MS)

    assert raised(play(tmp_path, story), "EDGE.E1.TRANSPORT") == 0


def test_a_core_that_has_just_started_explains_a_block_from_before(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(birth(edge))
        await bench.cycle()
        assert BLOCKED not in bench.standing()
        bench.deliver(node_data(edge, flag(TRANSPORT_BLOCKED, False)))
        await bench.wait(EXPLAINS_MS)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        bench.deliver(birth(edge))
        await bench.cycle()
        assert BLOCKED in bench.standing(), "a block of its own"

    play(tmp_path, story)


def test_our_own_trouble_lowers_no_block_that_stood_before_it(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await long_running(bench)
        bench.deliver(birth(edge))
        await bench.cycle()
        bench.loop.link_up()
        bench.deliver(birth(edge))
        await bench.cycle()
        assert BLOCKED in bench.standing()

    bench = play(tmp_path, story)
    assert raised(bench, "EDGE.E1.TRANSPORT") == 1
    assert_replays(bench)


@pytest.mark.fault("F58")
def test_a_commit_that_does_not_come_back_is_an_alarm_of_its_own_and_explains_the_blocks(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await long_running(bench)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        for _ in range(HUNG_MS // HOUSEKEEPING_MS + 2):
            assert WRITE not in bench.standing()
            await bench.cycle(HOUSEKEEPING_MS, commit=False)
        assert WRITE in bench.standing()
        bench.deliver(birth(edge))
        await bench.cycle(HOUSEKEEPING_MS)
        await bench.cycle(HOUSEKEEPING_MS)
        assert not {WRITE, BLOCKED} & bench.standing(), "committed: it is over"

    bench = play(tmp_path, story)
    assert raised(bench, "CORE.LEDGER.WRITE") == 1
    assert_replays(bench)


@pytest.mark.fault("F58")
def test_a_loop_that_stood_still_itself_does_not_blame_the_disk(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await long_running(bench)
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle(commit=False)
        await bench.cycle(10 * HUNG_MS)
        await bench.cycle(HOUSEKEEPING_MS)

    assert raised(play(tmp_path, story), "CORE.LEDGER.WRITE") == 0
