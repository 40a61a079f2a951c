"""A spool whose folder or files are taken away under a running edge: told within seconds, and what is gone by name."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from edge.disk import OsDisk
from edge.numbering import Numbering
from edge.recovery import open_spool
from edge.shelf import GONE
from edge.spool import FOLDER_LOOKED_AT_EVERY_S, RETRY_S_MIN, Spool
from tests.edge.fakes import START_MS, scan_of, small_numbering, small_table, virtual
from tests.edge.test_spool_promises import drain
from tests.edge.test_uplink import site_at
from wire import SPOOL_FAULT, MessageKind, decode_block

TABLE = small_table()


def put(spool: Spool, numbering: Numbering, *values: int) -> None:
    for value in values:
        spool.append(numbering.number(scan_of(TABLE, 0, [value], START_MS + 1000 * value)))


def opened(folder: Path) -> Spool:
    return open_spool(OsDisk(folder), "E1", TABLE, 10**9)


def test_a_frame_written_into_a_removed_file_is_not_taken_and_goes_into_another(tmp_path: Path) -> None:
    spool, numbering = opened(tmp_path), small_numbering(TABLE)
    put(spool, numbering, 1)
    assert spool.sync(0.0)
    next(tmp_path.iterdir()).unlink()
    put(spool, numbering, 2)
    assert not spool.sync(0.1), "nobody would find it there again"
    assert "No such file" in spool.fault
    assert spool.counters().frames_taken == 1
    assert spool.waits(101, 2)
    assert spool.sync(0.1 + RETRY_S_MIN)
    assert spool.fault == ""
    spool.seal(101)
    for held in (spool, opened(tmp_path)):
        found, lost = drain(held)
        assert {number for _, number, _ in found} == {2}
        assert lost == {(101, 1)}, "what the file held is told as gone"
    first = spool.next_block({})
    assert first is not None
    assert [gone.reason for gone in decode_block(first.payload).dropped] == [GONE]


def test_a_file_put_in_the_place_of_the_spools_own_is_left_alone(tmp_path: Path) -> None:
    spool, numbering = opened(tmp_path), small_numbering(TABLE)
    put(spool, numbering, 1)
    assert spool.sync(0.0)
    name = next(tmp_path.iterdir())
    name.rename(tmp_path / "aside")
    name.write_bytes(b"x" * 100_000)
    put(spool, numbering, 2)
    assert not spool.sync(0.1)
    assert spool.fault
    assert name.stat().st_size == 100_000


def test_an_idle_spool_notices_that_its_folder_is_gone_and_takes_it_up_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool, numbering = opened(folder), small_numbering(TABLE)
    put(spool, numbering, 1)
    assert spool.sync(0.0)
    folder.rename(tmp_path / "away")
    assert not spool.sync(FOLDER_LOOKED_AT_EVERY_S)
    assert str(folder) in spool.fault
    assert not spool.sync(FOLDER_LOOKED_AT_EVERY_S + RETRY_S_MIN)
    (tmp_path / "away").rename(folder)
    assert spool.sync(100.0)
    assert spool.fault == ""
    spool.seal(101)
    found, lost = drain(spool)
    assert {number for _, number, _ in found} == {1}, "a disk that was only unmounted has lost nothing"
    assert not lost


def test_the_last_sync_keeps_what_it_can_whatever_is_gone(tmp_path: Path) -> None:
    before, numbering = opened(tmp_path), small_numbering(TABLE)
    put(before, numbering, 1)
    assert before.close(0.0)
    spool = opened(tmp_path)
    later = small_numbering(TABLE, 2, spool.newest())
    put(spool, later, 2)
    assert spool.sync(0.0)
    min(tmp_path.iterdir()).unlink()
    put(spool, later, 3)
    assert spool.close(FOLDER_LOOKED_AT_EVERY_S)
    found, _ = drain(opened(tmp_path))
    assert {number for stream, number, _ in found if stream != 101} == {1, 2}


def test_an_older_file_that_is_gone_is_a_fault_and_its_frames_are_given_up_by_name(tmp_path: Path) -> None:
    before, numbering = opened(tmp_path), small_numbering(TABLE)
    put(before, numbering, 1, 2)
    assert before.close(0.0)
    spool = opened(tmp_path)
    later = small_numbering(TABLE, 2, spool.newest())
    put(spool, later, 3)
    assert spool.sync(0.0)
    min(tmp_path.iterdir()).unlink()
    assert not spool.sync(FOLDER_LOOKED_AT_EVERY_S)
    assert "gone" in spool.fault
    assert spool.sync(FOLDER_LOOKED_AT_EVERY_S + RETRY_S_MIN)
    assert spool.fault == ""
    assert spool.sync(100.0), "told once"
    found, lost = drain(opened(tmp_path))
    assert lost == {(101, 1), (101, 2)}
    assert {number for stream, number, _ in found if stream != 101} == {1}


def test_a_running_edge_tells_the_gateway_that_its_data_folder_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(5)

            def told() -> list[object]:
                return [metric.value for payload in site.gateway.of_kind(MessageKind.NDATA)
                        for metric in payload.metrics if metric.name == SPOOL_FAULT]  # fmt: skip

            shutil.rmtree(tmp_path / "edge")
            await site.sample(5, 10)
            assert told() == [True]
            (tmp_path / "edge" / "spool").mkdir(parents=True)
            await site.sample(40, 20)
            await asyncio.sleep(5)
            assert site.status()["spool_fault"] == ""
            assert site.status()["unfinished"] == []
            await site.stop_edge()

    virtual(scenario)
