"""What must hold when births are lost, lists are cut, and frames travel as blocks: nothing stays unevaluated or unseen."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config import SiteConfig
from gateway.core.books import NodeBook
from gateway.core.facts import RebirthWanted
from gateway.core.host import NodeSession
from gateway.core.retention import Removable
from gateway.core.writer import Ballast
from tests.gateway.bench import Bench
from tests.gateway.field import (
    LEVEL,
    T0_MS,
    Edge,
    Taken,
    address,
    block,
    block_message,
    device_birth,
    device_frame,
    node_birth,
    site,
    topic,
)
from wire import PAYLOAD_LIMITS, MessageKind, StreamSpan

MANY = 256  # rows a list of unfinished streams can have


def born_session(stream: int = 7) -> NodeSession:
    session = NodeSession({LEVEL: 0}, PAYLOAD_LIMITS, 2_000)
    session.message(topic(MessageKind.NBIRTH, "E1"), node_birth(0, stream), 0)
    session.message(topic(MessageKind.DBIRTH, "E1", "TANK"), device_birth(1, {LEVEL: 1.0}, stream, 1), 0)
    return session


@pytest.mark.fault("F26")
@pytest.mark.parametrize("seq", [2, 3, 1, 200])
def test_a_frame_of_a_stream_no_birth_told_of_asks_for_a_birth_at_once(seq: int) -> None:
    session = born_session()
    told = session.message(topic(MessageKind.DDATA, "E1", "TANK"), device_frame(seq, [(1, 25.0)], 8, 2), 10)
    assert any(isinstance(fact, RebirthWanted) for fact in told)


@pytest.mark.fault("F26")
@pytest.mark.parametrize("lost", [1, 5, 127, 128, 200, 253])
def test_a_hole_of_any_length_asks_for_a_birth(lost: int) -> None:
    session = born_session()
    seq = (2 + lost) % 256
    session.message(topic(MessageKind.DDATA, "E1", "TANK"), device_frame(seq, [(1, 1.0)], 7, 2 + lost), 10)
    assert any(isinstance(fact, RebirthWanted) for fact in session.poll(5_000))


def test_a_repeat_is_no_hole() -> None:
    session = born_session()
    frame = device_frame(2, [(1, 1.0)], 7, 2)
    session.message(topic(MessageKind.DDATA, "E1", "TANK"), frame, 10)
    session.message(topic(MessageKind.DDATA, "E1", "TANK"), frame, 20)
    assert session.poll(5_000) == []


def test_a_full_list_of_streams_concludes_nothing_about_those_it_leaves_out() -> None:
    """Else the frames of a stream that was only cut from the list would be acknowledged unseen."""
    book = NodeBook()
    spans = [StreamSpan(100 + at, 1, 10, 99 + at, 10) for at in range(MANY - 1)]
    live = StreamSpan(9_000, 1, 0, 8_000, 600)  # its predecessor did not fit into the list
    findings = book.born(9_000, [*spans, live])
    assert findings.losses == ()
    assert book.streams[8_000].received.upto == 0


def test_blocks_of_a_stream_that_no_birth_listed_ask_for_a_birth_and_are_acknowledged_after_it(tmp_path: Path) -> None:
    """A list holds 256 streams: of an edge that has more, the rest would stay on its disk for as long as its session lasts."""
    kept = [StreamSpan(100 + at, 1, 10, 99 + at, 10) for at in range(MANY - 1)]
    live, cut_off = StreamSpan(9_000, 1, 0, 8_000, 3), StreamSpan(8_000, 1, 3, 354, 10)

    async def story(bench: Bench) -> None:
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 9_000, 0, (8_000, 3), [*kept, live]))])
        await bench.cycle()
        body = block("E1", [Taken(8_000, number, "TANK", ((LEVEL, 1.0),), T0_MS) for number in (1, 2, 3)])
        bench.deliver([(address(MessageKind.NDATA, "E1"), block_message(1, body))])
        await bench.cycle()
        assert (bench.loop.acks["E1", 8_000], list(bench.loop.rebirths)) == (0, ["E1"])
        bench.deliver([(address(MessageKind.NDATA, "E1"), block_message(2, body))])
        await bench.cycle()
        assert list(bench.loop.rebirths) == ["E1"]  # not with every block
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 9_000, 0, (8_000, 3), [cut_off, live]))])
        await bench.cycle()
        bench.deliver([(address(MessageKind.NDATA, "E1"), block_message(1, body))])
        await bench.cycle(120_000)

    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench))
    assert (bench.loop.acks["E1", 8_000], list(bench.loop.rebirths)) == (3, ["E1"])


def test_a_torn_stream_behind_a_listed_one_is_no_restored_disk() -> None:
    book = NodeBook()
    book.born(1, [StreamSpan(1, 1, 0, 0, 0)])
    for sequence in range(1, 100):
        book.arrive(1, sequence)
        book.time(1, sequence, T0_MS + 1_000 * sequence)
    book.born(2, [StreamSpan(1, 100, 99, 0, 0), StreamSpan(2, 1, 0, 1, 99)])
    book.arrive(2, 1)
    book.time(2, 1, T0_MS + 99_500)
    # Killed before stream 2 was synced: the edge knows 1 (and lists it, as it has not heard of its last ack) and 3.
    findings = book.born(3, [StreamSpan(1, 99, 99, 0, 0), StreamSpan(3, 1, 0, 1, 99)])
    assert not findings.restored_disk
    assert findings.losses == ()


def test_a_torn_stream_that_nothing_follows_is_finished_for_people_too(tmp_path: Path) -> None:
    """Else it would stand among what is still to come for ever."""

    async def story(bench: Bench) -> None:
        for live, predecessor in ((1, (0, 0)), (2, (1, 3)), (3, (1, 3))):
            bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, live, 0, predecessor))])
            await bench.settle(2)

    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench))
    assert bench.ledger.reader.rows("SELECT stream, last FROM stream ORDER BY stream") == [(1, 3), (2, 0), (3, None)]


def block_site() -> SiteConfig:
    plain = site()
    edges = tuple(
        edge.model_copy(update={"encoding": "block"}) if edge.id == "E1" else edge for edge in plain.edges
    )
    return plain.model_copy(update={"edges": edges})


@pytest.mark.fault("F58")
@pytest.mark.parametrize("refused", ["nothing", "backlog", "live"])
def test_live_frames_that_travel_as_blocks_wait_for_no_backlog_and_no_room(tmp_path: Path, refused: str) -> None:
    async def story(bench: Bench) -> None:
        bench.deliver([(address(MessageKind.NBIRTH, "E1"), node_birth(0, 7))])
        await bench.cycle()
        bench.loop.backlog_refused = refused != "nothing"
        bench.loop.live_refused = refused == "live"
        body = block("E1", [Taken(7, 1, "TANK", ((LEVEL, 25.0),), T0_MS)])
        bench.deliver([(address(MessageKind.NDATA, "E1"), block_message(1, body))])
        await bench.cycle()

    bench = Bench(tmp_path / "core", config=block_site())
    asyncio.run(story(bench))
    assert {(LEVEL, "H"), (LEVEL, "HH")} <= bench.standing()
    assert ("E1", 7) not in bench.loop.acks or refused != "live" or bench.loop.acks["E1", 7] == 0


def test_retention_goes_on_while_there_is_more_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.ledger.DELETE_ROWS_MAX", 5)
    monkeypatch.setattr("gateway.core.loop.DELETE_ROWS_MAX", 5)

    async def story(bench: Bench) -> None:
        edge = Edge()
        bench.deliver(edge.born())
        await bench.settle(3)
        for value in range(40):
            bench.deliver(edge.scan({LEVEL: value % 5}))
            await bench.cycle()
        bench.loop.removable = Removable(1, bench.loop.counters.committed_pos)
        await bench.settle(14)

    bench = Bench(tmp_path / "core")
    asyncio.run(story(bench))
    assert bench.ledger.reader.rows("SELECT count(*) FROM log WHERE kind = 'F'")[0][0] <= 1


def test_ballast_is_laid_and_can_be_freed(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", 100_000)
    assert (ballast.laid, ballast.drop()) == (False, False)
    ballast.fill()
    assert ballast.laid
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 100_000
    assert (ballast.drop(), ballast.laid) == (True, False)
