"""Others on the broker: nodes nobody knows, nodes that pose as another, and what a blocked transport looks like from here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from alerting import Act, ActKind, State
from gateway.core.batching import SUSPICION_EVERY_MS
from gateway.core.own_trouble import EXPLAINS_MS
from gateway.core.sessions import DEATHS_MAX, DEATHS_WITHIN_MS
from tests.gateway.bench import Bench
from tests.gateway.field import (
    DEVICE_OF,
    GAS,
    LEVEL,
    T0_MS,
    TEMP,
    Edge,
    Sent,
    Taken,
    address,
    block,
    device_birth,
    device_frame,
    flag,
    int64,
    node_birth,
    node_death,
)
from tests.gateway.test_machine import born, kinds, node_block, play
from wire import COMMANDS_REFUSED, TRANSPORT_BLOCKED, MessageKind, Metric, StreamSpan, encode_payload

pytestmark = pytest.mark.fault("F60")


def raised(bench: Bench, key: str) -> int:
    return sum(step.alarm.tag == key and step.kind == "raised" for step in bench.journal())


def node_data(edge: Edge, *metrics: Metric) -> list[Sent]:
    return [(address(MessageKind.NDATA, edge.node), encode_payload(T0_MS, edge._seq(), metrics))]


async def over_the_limit(bench: Bench) -> Edge:
    """E1 is live, and its level stands over H."""
    edge = await born(bench)
    bench.deliver(edge.scan({LEVEL: 12.0}))
    await bench.cycle()
    assert (LEVEL, "H") in bench.standing()
    return edge


# -- nodes and tags that are nobody's, or another's -----------------------------------------------------------------


def test_a_node_that_is_no_edge_of_the_site_is_a_security_alarm_and_nothing_else(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await over_the_limit(bench)
        before = kinds(bench)
        for at in range(100):
            bench.deliver([
                (address(MessageKind.NBIRTH, f"X{at}"), node_birth(0)),
                (address(MessageKind.DBIRTH, f"X{at}", "TANK"), device_birth(1, {LEVEL: 3.0})),
                ("spBv1.0/PARK2/NBIRTH/E1", node_birth(0)),
                ("spBv1.0/PARK2/DBIRTH/E1/TANK", device_birth(1, {LEVEL: 3.0})),
            ])  # fmt: skip
            await bench.cycle()
        assert (LEVEL, "H") in bench.standing()
        assert kinds(bench) == before + "S", "one entry: the alarm"

    bench = play(tmp_path, story)
    (alarm,) = [alarm for alarm in bench.alarms() if alarm.tag == "SECURITY.NODE.UNKNOWN"]
    assert alarm.facts["node"] == "X0"
    assert alarm.cause_zh
    assert set(bench.machine.nodes) == {"E1", "E2"}


@pytest.mark.parametrize("by", ["birth", "name", "alias"])
def test_an_edge_that_names_anothers_tag_changes_no_value_and_is_told_of(tmp_path: Path, by: str) -> None:
    async def story(bench: Bench) -> None:
        await over_the_limit(bench)
        claimed = {TEMP: 20.0} if by == "name" else {TEMP: 20.0, LEVEL: 3.0}
        bench.deliver([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, claimed)),
        ])  # fmt: skip
        if by == "name":
            spoken = Metric(LEVEL, timestamp_ms=T0_MS, value=3.0)
            bench.deliver([(address(MessageKind.DDATA, "E2", "PUMP"), encode_payload(T0_MS, 2, [spoken]))])
        elif by == "alias":
            bench.deliver([(address(MessageKind.DDATA, "E2", "PUMP"), device_frame(2, [(2, 3.0)]))])
        await bench.cycle()
        assert (LEVEL, "H") in bench.standing()

    bench = play(tmp_path, story)
    (alarm,) = [alarm for alarm in bench.alarms() if alarm.tag == "SECURITY.E2.TRESPASS"]
    assert alarm.facts == {"tags": LEVEL, "count": 1}


def test_a_node_birth_of_ours_that_names_anothers_tag_is_told_of(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        claim = Metric(TEMP, timestamp_ms=T0_MS, value=20.0)
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 7, extra=[claim]))])
        await bench.cycle()

    assert raised(play(tmp_path, story), "SECURITY.E1.TRESPASS") == 1


@pytest.mark.parametrize("made_by", ["E1", "E2"])
def test_a_block_with_anothers_tags_or_name_changes_no_value_and_is_told_of(tmp_path: Path, made_by: str) -> None:
    async def story(bench: Bench) -> None:
        edge = await over_the_limit(bench)
        tag = TEMP if made_by == "E1" else LEVEL
        for number in (7, 8):
            forged = Taken(edge.live, number, DEVICE_OF[tag], ((tag, 3.0),), T0_MS)
            bench.deliver(node_block(edge, block(made_by, [forged])))
            await bench.cycle()
        assert (LEVEL, "H") in bench.standing()

    bench = play(tmp_path, story)
    assert raised(bench, "SECURITY.E1.TRESPASS") == 1, "at most once a minute"


def test_what_was_refused_of_a_block_stands_beside_it_in_the_log(tmp_path: Path) -> None:
    """The site may give the tag to this node tomorrow: what it claimed today is not its to tell of even then."""
    async def story(bench: Bench) -> None:
        edge = await over_the_limit(bench)
        bench.deliver(node_block(edge, block("E1", [Taken(edge.live, 7, DEVICE_OF[TEMP], ((TEMP, 3.0),), T0_MS)])))
        bench.deliver(node_block(edge, block("E1", [Taken(edge.live, 8, DEVICE_OF[LEVEL], ((LEVEL, 3.0),), T0_MS)])))
        await bench.cycle()

    bench = play(tmp_path, story)
    found = [entry.refused for entry in bench.ledger.reader.entries_after(0) if entry.kind == "B"]
    assert found == [(TEMP,), None]


def test_a_minute_later_it_is_told_again(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for _ in range(3):
            bench.deliver([(address(MessageKind.NBIRTH, "X"), node_birth(0))])
            await bench.cycle(SUSPICION_EVERY_MS)

    assert raised(play(tmp_path, story), "SECURITY.NODE.UNKNOWN") == 3


# -- who poses as a node --------------------------------------------------------------------------------------------


def forged_birth(live: int, level: float) -> list[Sent]:
    """A birth of E1 by somebody else, with a calm level."""
    spans = [StreamSpan(live, 1, 0, 0, 0)] if live else []
    return [
        (address(MessageKind.NBIRTH, "E1"), node_birth(7, live, unfinished=spans)),
        (address(MessageKind.DBIRTH, "E1", "TANK"), device_birth(1, {LEVEL: level}, live, 1 if live else 0, T0_MS + 9_000)),
    ]


@pytest.mark.parametrize("live", [pytest.param(9_001, id="with streams of its own"), pytest.param(0, id="as plain Sparkplug")])
def test_a_birth_into_a_session_that_has_not_ended_raises_the_identity_alarm_and_lowers_nothing(
    tmp_path: Path, live: int
) -> None:
    async def story(bench: Bench) -> None:
        edge = await over_the_limit(bench)
        bench.deliver(forged_birth(live, 3.0))
        await bench.cycle()
        assert (LEVEL, "H") in bench.standing(late=False), "calm from somebody else is not to be believed"
        assert ("EDGE.E1.IDENTITY", "SYSTEM") in bench.standing()
        bench.deliver(edge.scan({GAS: 2.0}))
        bench.deliver(edge.born(new_stream=False))  # the true one, asked for its births
        await bench.cycle()
        assert (GAS, "H") in bench.standing(late=False), "either may raise"
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        assert (LEVEL, "H") in bench.standing(late=False), "nor from the true one, until a person says which that is"
        act = Act(ActKind.CLOSE, bench.machine.engine.book.system_alarm["EDGE.E1.IDENTITY"], "li", bench.wall_ms(),
                  "a stranger on the broker", "its account is closed")  # fmt: skip
        task = asyncio.ensure_future(bench.loop.act(act, None))
        await asyncio.sleep(0)
        await bench.cycle()
        assert (await task).alarm.state is State.CLOSED
        bench.deliver(edge.scan({LEVEL: 2.0}))
        await bench.cycle()
        assert (LEVEL, "H") not in bench.standing(late=False)

    play(tmp_path, story)


@pytest.mark.fault("F23")
@pytest.mark.parametrize("copy", [True, False], ids=["a copy", "overtaken"])
def test_a_birth_that_comes_after_a_later_one_is_no_second_box(tmp_path: Path, *, copy: bool) -> None:
    """Long after its stream was sealed and acknowledged, so that no other birth lists it."""

    async def story(bench: Bench) -> None:
        edge = await over_the_limit(bench)
        old = edge.born(new_stream=False)
        bench.deliver(old if copy else old[1:])
        for at in range(8):
            bench.deliver(edge.scan({LEVEL: 12.0 + at}))
        await bench.cycle(3_000)
        bench.deliver(edge.born())
        await bench.cycle(3_000)
        bench.deliver(old[:1])
        await bench.cycle()
        assert ("EDGE.E1.IDENTITY", "SYSTEM") not in bench.standing()
        bench.deliver(edge.scan({LEVEL: 3.0}))
        await bench.cycle()
        assert (LEVEL, "H") not in bench.standing(late=False)

    play(tmp_path, story)


def test_a_box_restored_in_order_is_no_identity_alarm(tmp_path: Path) -> None:
    """Its old session ended before the new one: the birth's unknown past is a loss on record, as before."""

    async def story(bench: Bench) -> None:
        edge = await over_the_limit(bench)
        bench.deliver(edge.death())
        bench.deliver(forged_birth(9_001, 3.0))
        await bench.cycle()
        assert ("EDGE.E1.IDENTITY", "SYSTEM") not in bench.standing()
        assert (LEVEL, "H") not in bench.standing(late=False)

    assert raised(play(tmp_path, story), "EDGE.E1.LOSS") == 1


def test_a_node_that_never_counted_may_stay_plain(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        for _ in range(3):
            bench.deliver([(address(MessageKind.NBIRTH, "E2"), node_birth(0))])
            await bench.cycle()

    assert not [key for key, _ in play(tmp_path, story).standing() if key == "EDGE.E2.IDENTITY"]


@pytest.mark.parametrize(("apart_ms", "alarms"), [(5_000, 1), (DEATHS_WITHIN_MS // (DEATHS_MAX - 1) + 1, 0)])
def test_sessions_that_break_off_again_and_again_are_told_of(tmp_path: Path, apart_ms: int, alarms: int) -> None:
    """Two clients with one id throw each other out: to core, deaths and births by turns."""

    async def story(bench: Bench) -> None:
        edge = Edge()
        for _ in range(DEATHS_MAX + 1):
            bench.deliver(edge.born())
            await bench.cycle(apart_ms / 2)
            bench.deliver(edge.death())
            edge.session_lost()
            await bench.cycle(apart_ms / 2)

    assert raised(play(tmp_path, story), "SECURITY.E1.TAKEOVER") == alarms


def test_a_death_by_somebody_else_lowers_nothing(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await over_the_limit(bench)
        for bdseq in range(256):
            bench.deliver([(address(MessageKind.NDEATH, "E1"), node_death(bdseq))])
        await bench.cycle()
        assert {(LEVEL, "H"), ("EDGE.E1.OFFLINE", "SYSTEM")} <= bench.standing()

    play(tmp_path, story)


# -- what edges tell ------------------------------------------------------------------------------------------------


@pytest.mark.fault("F61")
def test_commands_that_an_edge_refused_are_a_security_alarm(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        bench.deliver(node_data(edge, int64(COMMANDS_REFUSED, 3)))
        await bench.cycle(SUSPICION_EVERY_MS)
        bench.deliver(node_data(edge, int64(COMMANDS_REFUSED, 3)))
        await bench.cycle(SUSPICION_EVERY_MS)
        bench.deliver(node_data(edge, int64(COMMANDS_REFUSED, 10)))
        await bench.cycle(SUSPICION_EVERY_MS)
        birth = node_birth(0, edge.live, 4, extra=[int64(COMMANDS_REFUSED, 10)])
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), birth)])
        await bench.cycle(SUSPICION_EVERY_MS)
        birth = node_birth(0, edge.live, 4, extra=[int64(COMMANDS_REFUSED, 1)])
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), birth)])
        await bench.cycle(SUSPICION_EVERY_MS)

    bench = play(tmp_path, story)
    told = [step.alarm.facts["refused"] for step in bench.journal()
            if step.alarm.tag == "SECURITY.E1.COMMAND" and step.kind == "raised"]  # fmt: skip
    assert told == [3, 7, 1], "what is new each time; a lower count is that of a new start"


@pytest.mark.fault("F31")
def test_an_edge_whose_transport_was_blocked_is_a_standing_alarm_until_it_says_otherwise(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        edge = await born(bench)
        await bench.wait(EXPLAINS_MS)
        birth = node_birth(0, edge.live, 4, extra=[flag(TRANSPORT_BLOCKED, True)])
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), birth)])
        await bench.cycle()
        assert ("EDGE.E1.TRANSPORT", "SYSTEM") in bench.standing()
        edge.seq = 0
        bench.deliver(node_data(edge, flag(TRANSPORT_BLOCKED, False)))
        await bench.cycle()
        assert ("EDGE.E1.TRANSPORT", "SYSTEM") not in bench.standing()

    assert raised(play(tmp_path, story), "EDGE.E1.TRANSPORT") == 1


@pytest.mark.fault("F31")
def test_an_edge_of_which_nothing_comes_through_is_told_by_its_silence_and_lowers_nothing(tmp_path: Path) -> None:
    """Its link stands, so no death comes: what remains is that nobody hears it."""

    async def story(bench: Bench) -> None:
        await over_the_limit(bench)
        for _ in range(12):
            await bench.cycle(10_000)
        assert {(LEVEL, "H"), (LEVEL, "FAULT"), (GAS, "FAULT")} <= bench.standing()

    play(tmp_path, story)


@pytest.mark.fault("F61")
def test_commands_that_an_earlier_core_told_of_are_not_told_again_by_the_next(tmp_path: Path) -> None:
    """Else every restart of core would be a security alarm about the same commands, for as long as the edge runs."""

    async def story() -> Bench:
        bench = Bench(tmp_path / "core")
        for count in (3, 3, 5, 5, 0, 0, 5):
            for _ in range(2):
                bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 7, extra=[int64(COMMANDS_REFUSED, count)]))])
                await bench.settle(3)
            bench = bench.crash()
        return bench

    bench = asyncio.run(story())
    told = [step.alarm.facts["refused"] for step in bench.journal()
            if step.alarm.tag == "SECURITY.E1.COMMAND" and step.kind == "raised"]  # fmt: skip
    assert told == [3, 2, 5]
