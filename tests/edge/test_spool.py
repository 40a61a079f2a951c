"""The spool's promises one by one, on a disk that does as it is told."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import numpy as np
import pytest

from edge.blocks import BLOCK_SPAN_MS_MAX
from edge.disk import OsDisk
from edge.numbering import Numbering
from edge.points import Point, PointTable
from edge.recovery import open_spool, read_spool
from edge.scan import Scan
from edge.shelf import DAMAGED, NO_ROOM
from edge.spool import RETRY_S_MIN, Spool
from edge.spool_file import HEADER_BYTES, SpoolFormatError, unpack_header
from tests.edge.fakes import START_MS, scan_of, small_numbering, small_table
from tests.edge.memory_disk import MemoryDisk
from tests.edge.test_spool_promises import drain, samples_of
from wire import BLOCK_BYTES_MAX, Native, StreamSpan, decode_block

TABLE = small_table()


def filled(disk: MemoryDisk, frames: int, numbering: Numbering | None = None, sync_each: bool = True) -> Spool:
    """A spool with one stream of frames, one a second, synced."""
    spool = open_spool(disk, "E1", TABLE, 10**9)
    numbering = numbering or small_numbering(TABLE)
    for number in range(frames):
        spool.append(numbering.number(scan_of(TABLE, number % 2, [number], START_MS + 1000 * number)))
        if sync_each:
            assert spool.sync(float(number))
    assert spool.sync(float(frames))
    return spool


def test_a_torn_tail_is_cut_at_the_first_bad_record_wherever_the_power_went() -> None:
    whole = MemoryDisk()
    filled(whole, 3)
    (name,) = whole.names()
    content = bytes(whole.files[name].content)
    ends, at = [], 0
    while at < len(content):
        at = unpack_header(content[at : at + HEADER_BYTES], at, name).end
        ends.append(at)
    held_at = {end: max(0, records - 2) for records, end in enumerate(ends, 1)}  # schema and checkpoint come first
    for size in range(len(content) + 1):
        disk = MemoryDisk()
        disk.create(name).write(content[:size])
        spool = open_spool(disk, "E1", TABLE, 10**9)
        sound = max((end for end in ends if end <= size), default=0)
        assert spool.counters().frames_taken == (held_at[sound] if sound else 0), f"cut at byte {size}"
        if sound == size:
            assert spool.cuts == ()
        else:
            assert [(cut.name, cut.offset, cut.bytes_cut) for cut in spool.cuts] == [(name, sound, size - sound)]
            assert disk.size(name) == sound


def test_a_flipped_bit_anywhere_never_becomes_a_sample() -> None:
    whole = MemoryDisk()
    spool = filled(whole, 2)
    spool.seal(101)
    written, _ = drain(spool)
    (name,) = whole.names()
    content = bytes(whole.files[name].content)
    for at in range(0, len(content), 7):
        disk = MemoryDisk()
        disk.create(name).write(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        found, _ = drain(open_spool(disk, "E1", TABLE, 10**9))
        assert found.items() <= written.items()


@pytest.mark.fault("F72")
def test_a_failed_sync_fences_its_file_and_the_frames_go_into_another() -> None:
    disk = MemoryDisk()
    numbering = small_numbering(TABLE)
    spool = filled(disk, 2, numbering)
    fenced = dict(disk.files)
    disk.fail_syncs = 1
    frame = numbering.number(scan_of(TABLE, 0, [7], START_MS))
    spool.append(frame)
    assert not spool.sync(10.0)
    assert "Input/output error" in spool.fault
    assert spool.counters().frames_taken == 2, "nothing counts as taken that was not synced"
    assert not spool.sync(10.0 + RETRY_S_MIN / 2), "not before the retry is due"
    size = {name: len(file.content) for name, file in fenced.items()}
    assert spool.sync(10.0 + RETRY_S_MIN)
    assert spool.fault == ""
    assert spool.counters().frames_taken == 3
    assert {name: len(disk.files[name].content) for name in fenced} == size, "the fenced file is left alone"
    spool.seal(101)
    found, lost = drain(open_spool(disk.after_power_cut(0.0, folder_survives=False), "E1", TABLE, 10**9))
    assert samples_of(frame).items() <= found.items()
    assert not lost


def test_a_full_disk_is_tried_again_ever_more_slowly_and_leaves_no_litter() -> None:
    disk = MemoryDisk()
    spool = open_spool(disk, "E1", TABLE, 10**9)
    spool.append(small_numbering(TABLE).number(scan_of(TABLE, 0, [1], START_MS)))
    disk.error, disk.fail_writes_after = errno.ENOSPC, 10
    tries = [second for second in range(100) if not spool.sync(float(second)) and disk.steps > 0
             and (steps := disk.steps) and steps != getattr(disk, "seen", 0) and setattr(disk, "seen", steps) is None]
    assert tries == [0, 1, 3, 7, 15, 31, 61, 91]
    assert disk.names() == []
    disk.fail_writes_after = None
    assert spool.sync(121.0)
    assert spool.counters().frames_taken == 1


def test_acknowledged_files_go_and_the_newest_stream_is_remembered() -> None:
    disk = MemoryDisk()
    numbering = small_numbering(TABLE)
    spool = filled(disk, 4, numbering)
    spool.seal(numbering.begin())
    spool.acked(101, 4, 10.0)
    spool.append(numbering.number(scan_of(TABLE, 0, [1], START_MS)))
    spool.sync(11.0)
    assert spool.spans() == [StreamSpan(102, 1, 1, 101, 4)]
    spool.acked(102, 1, 12.0)
    spool.close(13.0)
    again = open_spool(disk, "E1", TABLE, 10**9)
    assert again.spans() == []
    assert again.newest() == (102, 1)
    assert again.counters().samples_taken == again.counters().samples_acked


def test_what_stays_unacked_for_a_minute_becomes_blocks_under_the_same_numbers() -> None:
    disk = MemoryDisk()
    numbering = small_numbering(TABLE)
    spool = filled(disk, 200, numbering)
    spool.acked(101, 30, 200.0)
    for now_s in (200.0, 261.0, 322.0):
        spool.sync(now_s)
        while spool.tend(now_s):
            pass
    assert all(name.endswith(".blocks") or disk.size(name) < 1000 for name in disk.names()), disk.names()
    before = spool.counters()
    assert (before.frames_taken, before.frames_acked) == (200, 30)
    spool.seal(101)
    after: dict[int, int] = {}
    reached = 30
    while (wire := spool.next_block(after)) is not None:
        after[101] = wire.last
        block = decode_block(wire.payload)
        assert block.first == reached + 1
        stamps = np.concatenate([column.source_ms for column in block.columns])
        assert int(stamps.max() - stamps.min()) <= BLOCK_SPAN_MS_MAX
        assert len(wire.payload) <= BLOCK_BYTES_MAX
        reached = block.last
    assert reached == 200
    again = open_spool(disk, "E1", TABLE, 10**9)
    assert again.counters() == before
    assert drain(again) == drain(spool)


def test_a_crash_at_every_step_of_rewriting_keeps_every_frame() -> None:
    def rewriting(power_off_after: int | None) -> tuple[MemoryDisk, bool]:
        disk = MemoryDisk()
        spool = filled(disk, 10)
        disk.power_off_at = None if power_off_after is None else disk.steps + power_off_after
        try:
            for now_s in (71.0, 132.0, 193.0):
                spool.sync(now_s)
                while spool.tend(now_s):
                    pass
        except Exception:
            return disk, False
        return disk, True

    written = drain(open_spool(rewriting(None)[0], "E1", TABLE, 10**9))
    for steps in range(100):
        disk, finished = rewriting(steps)
        for folder_survives in (False, True):
            found = open_spool(disk.after_power_cut(0.5, folder_survives=folder_survives), "E1", TABLE, 10**9)
            assert drain(found) == written, f"power cut after step {steps}"
        if finished:
            return
    raise AssertionError("rewriting never finished")


def test_a_full_spool_gives_up_the_oldest_and_says_so_in_the_stream() -> None:
    disk = MemoryDisk()
    table = PointTable.of([("D1", [Point(f"T.P{at}", Native.F64) for at in range(1000)])])
    numbering = small_numbering(table)
    spool = open_spool(disk, "E1", table, 1_000_000)
    bits = np.random.default_rng(5)
    point = np.arange(1000, dtype=np.int32)
    for number in range(100):
        scan = Scan(0, point, bits.integers(0, 2**63, 1000).astype(np.uint64), np.zeros(1000),
                    np.full(1000, 192, np.uint8), np.full(1000, START_MS + 1000 * number, np.int64))
        spool.append(numbering.number(scan))
        assert spool.sync(float(number))
        while spool.tend(float(number)):
            pass
        assert spool.size_bytes <= 1_000_000 + 30_000
    spool.seal(101)
    counters = spool.counters()
    assert counters.frames_taken == 100
    assert counters.frames_dropped > 0
    for held in (spool, open_spool(disk.after_power_cut(), "E1", table, 1_000_000)):
        assert held.counters() == counters
        found, lost = drain(held)
        assert {number for _, number, _ in found} | {number for _, number in lost} == set(range(1, 101))
        assert lost == {(101, number) for number in range(1, counters.frames_dropped + 1)}
        first = held.next_block({})
        assert first is not None
        assert [gone.reason for gone in decode_block(first.payload).dropped] == [NO_ROOM]
    spool.acked(101, 100, 200.0)
    spool.close(201.0)
    assert open_spool(disk, "E1", table, 1_000_000).spans() == []


def test_a_block_damaged_on_the_disk_is_given_up_by_name_and_the_rest_is_sent() -> None:
    disk = MemoryDisk()
    numbering = small_numbering(TABLE)
    spool = filled(disk, 3, numbering)
    for now_s in (100.0, 200.0):
        spool.append(numbering.number(scan_of(TABLE, 0, [9], START_MS + round(now_s * 1000))))
        spool.sync(now_s)
        while spool.tend(now_s):
            pass
    name = next(name for name in disk.names() if name.endswith(".blocks"))
    disk.files[name].content[HEADER_BYTES + 25] ^= 1
    spool.seal(101)
    found, lost = drain(spool)
    assert lost
    assert {number for _, number, _ in found} | {number for _, number in lost} == {1, 2, 3, 4, 5}
    block = spool.next_block({})
    assert block is not None
    assert [gone.reason for gone in decode_block(block.payload).dropped] == [DAMAGED]
    assert spool.sync(300.0)
    assert drain(open_spool(disk, "E1", TABLE, 10**9)) == (found, lost)


def test_a_spool_of_another_format_version_is_refused_with_the_next_step() -> None:
    disk = MemoryDisk()
    filled(disk, 1)
    (name,) = disk.names()
    content = disk.files[name].content
    content[5] = 9
    content[HEADER_BYTES - 4 : HEADER_BYTES] = zlib.crc32(bytes(content[: HEADER_BYTES - 4])).to_bytes(4, "little")
    with pytest.raises(SpoolFormatError, match=r"spool format 9.*move the spool folder aside"):
        open_spool(disk, "E1", TABLE, 10**9)


def test_more_samples_than_memory_may_hold_count_as_a_disk_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.spool.PENDING_SAMPLES_MAX", 3)
    spool = open_spool(MemoryDisk(), "E1", TABLE, 10**9)
    numbering = small_numbering(TABLE)
    for value in range(4):
        spool.append(numbering.number(scan_of(TABLE, 0, [value], START_MS)))
    assert "wait for the disk" in spool.fault
    assert spool.sync(0.0)
    assert spool.fault == ""


def test_another_programs_point_list_reads_back_the_frames_of_an_earlier_one() -> None:
    disk = MemoryDisk()
    spool = filled(disk, 4)
    written = drain(open_spool(disk, "E1", TABLE, 10**9))
    spool.close(5.0)
    other = PointTable.of([("D9", [Point("X.Y", Native.F32, 2.0, 1.0)])])
    assert drain(open_spool(disk, "E1", other, 10**9)) == written


def test_read_spool_lists_what_is_on_the_disk_and_touches_nothing(tmp_path: Path) -> None:
    spool = open_spool(OsDisk(tmp_path / "spool"), "E1", TABLE, 10**9)
    numbering = small_numbering(TABLE)
    for number in range(3):
        spool.append(numbering.number(scan_of(TABLE, 0, [number, 5], START_MS + number)))
        spool.sync(float(number))
    spool.append(numbering.number(scan_of(TABLE, 1, [77], START_MS)))  # not synced
    (file,) = (tmp_path / "spool").iterdir()
    with file.open("ab") as tail:
        tail.write(b"torn")
    size = file.stat().st_size
    samples = read_spool(tmp_path / "spool")
    assert [(each.stream, each.sequence, each.tag, each.bits) for each in samples] == [
        (101, 1, "T1.P1", 0), (101, 1, "T1.P2", 5), (101, 2, "T1.P1", 1), (101, 2, "T1.P2", 5),
        (101, 3, "T1.P1", 2), (101, 3, "T1.P2", 5),
    ]
    assert [each.source_ms for each in samples[::2]] == [START_MS, START_MS + 1, START_MS + 2]
    assert file.stat().st_size == size
    assert read_spool(tmp_path / "nothing") == []
