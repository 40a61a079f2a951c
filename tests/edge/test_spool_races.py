"""The loop acknowledges, appends and seals while the disk thread is anywhere in its work: every moment is tried."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
import pytest

from edge.numbering import Numbering
from edge.points import Point, PointTable
from edge.recovery import open_spool
from edge.scan import Scan
from edge.spool import Spool
from tests.edge.fakes import START_MS, scan_of, small_numbering, small_table
from tests.edge.memory_disk import MemoryDisk
from tests.edge.test_spool_promises import Held, drain, samples_of
from wire import decode_block

TABLE = small_table()
FRAMES = 8
MOMENTS_MAX = 400


class Moments:
    """Counts the moments at which another thread may act, and acts at one of them."""

    def __init__(self, act: Callable[[], object], at: int) -> None:
        self._act, self._at = act, at
        self.count = 0
        self._acting = False

    @property
    def over(self) -> bool:
        """Whether the work ended before the moment came."""
        return self.count <= self._at

    def __call__(self) -> None:
        if self._acting:
            return
        self.count += 1
        if self.count - 1 == self._at:
            self._acting = True
            self._act()
            self._acting = False


class WatchedLock:
    """A lock after whose every release there is a moment."""

    def __init__(self, moments: Moments) -> None:
        self._lock, self._moments = threading.Lock(), moments

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()
        if kind is None:
            self._moments()


class WatchedDisk(MemoryDisk):
    """A disk with a moment before each change and on both sides of each read."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self.on_step is not None:
            self.on_step()
        content = super().read(name, offset, length)
        if self.on_step is not None:
            self.on_step()
        return content


def watch(spool: Spool, disk: MemoryDisk, moments: Moments) -> None:
    """From here on `moments` are met."""
    disk.on_step = moments
    spool.shelf.lock = WatchedLock(moments)  # type: ignore[assignment]


def filled(disk: MemoryDisk, frames: int = FRAMES, groups_of: int = 1) -> tuple[Spool, Numbering, Held]:
    """A spool with one stream, one frame a second, `groups_of` frames to a journal record."""
    spool, numbering, written = open_spool(disk, "E1", TABLE, 10**9), small_numbering(TABLE), Held()
    for number in range(frames):
        frame = numbering.number(scan_of(TABLE, number % 2, [number, number], START_MS + 1000 * number))
        spool.append(frame)
        written |= samples_of(frame)
        if number % groups_of == groups_of - 1:
            assert spool.sync(float(number))
    assert spool.sync(float(frames))
    return spool, numbering, written


def above(written: Held, upto: int) -> Held:
    return {key: sample for key, sample in written.items() if key[1] > upto}


def check_book(spool: Spool) -> None:
    """What the book says must make sense at any moment the disk thread rests."""
    for held in spool.shelf.holdings.streams.values():
        reach = 0
        for entry in held.entries:
            assert reach < entry.first <= entry.last
            reach = entry.last
        assert not held.finished
    held_samples = sum(entry.samples for held in spool.shelf.holdings.streams.values() for entry in held.entries)
    assert spool.shelf.holdings.samples_unacked == held_samples
    assert min(spool.shelf.holdings.samples_unacked, spool.shelf.holdings.frames_unacked) >= 0
    assert all(count > 0 for count in spool.shelf.holdings.in_use.values())


def each_moment(build: Callable[[int], Moments]) -> Iterator[int]:
    """Run `build` with the act at moment 0, 1, 2 … until the work ends before it."""
    for at in range(MOMENTS_MAX):
        if build(at).over:
            assert at >= 2, "the work must have moments"
            return
        yield at
    raise AssertionError("the work never ends")


@pytest.mark.parametrize("groups_of", [1, 3, 8])
@pytest.mark.parametrize("upto", [1, 4, 7, 8])
def test_an_ack_at_any_moment_of_reading_a_block_leaves_a_sound_block(upto: int, groups_of: int) -> None:
    def run(at: int) -> Moments:
        disk = WatchedDisk()
        spool, numbering, written = filled(disk, groups_of=groups_of)
        spool.seal(numbering.stream)
        moments = Moments(lambda: bool(spool.acked(numbering.stream, upto, 11.0)) or None, at)
        watch(spool, disk, moments)
        wire = spool.next_block({})
        if wire is not None:
            block = decode_block(wire.payload)
            assert (wire.first, wire.last) == (block.first, block.last)
        check_book(spool)
        if not moments.over:
            found, lost = drain(spool)
            assert above(found, upto) == above(written, upto)
            assert not lost
            assert spool.counters().frames_acked == upto
        return moments

    assert list(each_moment(run))


@pytest.mark.parametrize("groups_of", [1, 3, 8])
@pytest.mark.parametrize("upto", [1, 4, 8])
def test_an_ack_at_any_moment_of_rewriting_loses_nothing_above_it(upto: int, groups_of: int) -> None:
    def run(at: int) -> Moments:
        disk = WatchedDisk()
        spool, numbering, written = filled(disk, groups_of=groups_of)
        spool.seal(numbering.stream)
        moments = Moments(lambda: bool(spool.acked(numbering.stream, upto, 11.0)) or None, at)
        watch(spool, disk, moments)
        for now_s in (200.0, 261.0, 322.0):
            spool.sync(now_s)
            while spool.tend(now_s):
                check_book(spool)
        check_book(spool)
        if not moments.over:
            assert spool.sync(400.0)
            for held in (spool, open_spool(disk.after_power_cut(), "E1", TABLE, 10**9)):
                found, lost = drain(held)
                assert above(found, upto) == above(written, upto)
                assert not lost
        return moments

    assert list(each_moment(run))


@pytest.mark.parametrize("upto", [1, 4, 8])
def test_an_ack_at_any_moment_of_finding_damage_gives_up_only_what_is_still_held(upto: int) -> None:
    def run(at: int) -> Moments:
        disk = WatchedDisk()
        spool, numbering, _ = filled(disk, groups_of=FRAMES)
        spool.seal(numbering.stream)
        (name,) = disk.names()
        disk.files[name].content[-1] ^= 1
        moments = Moments(lambda: bool(spool.acked(numbering.stream, upto, 11.0)) or None, at)
        watch(spool, disk, moments)
        spool.next_block({})
        check_book(spool)
        found, lost = drain(spool)
        assert not found
        assert spool.sync(20.0)
        check_book(spool)
        if not moments.over:
            assert lost >= {(numbering.stream, number) for number in range(upto + 1, FRAMES + 1)}
            counters = spool.counters()
            assert counters.frames_acked + counters.frames_dropped == FRAMES
            spool.acked(numbering.stream, FRAMES, 30.0)
            assert spool.close(31.0)
            assert spool.shelf.holdings.streams == {}
            assert open_spool(disk, "E1", TABLE, 10**9).spans() == []
        return moments

    assert list(each_moment(run))


@pytest.mark.parametrize("upto", [1, 9])
def test_an_ack_at_any_moment_of_making_room_gives_up_only_what_is_still_held(upto: int) -> None:
    table = PointTable.of([("D1", [Point(f"T.P{at}", TABLE.points[0].native) for at in range(20)])])
    point = np.arange(20, dtype=np.int32)

    def run(at: int) -> Moments:
        disk = WatchedDisk()
        spool, numbering = open_spool(disk, "E1", table, 5_000), small_numbering(table)
        moments = Moments(lambda: bool(spool.acked(numbering.stream, upto, 11.0)) or None, at)
        for number in range(12):
            bits = np.full(20, number, np.uint64)
            stamps = np.full(20, START_MS + 1000 * number, np.int64)
            frame = Scan(0, point, bits, np.zeros(20), np.full(20, 192, np.uint8), stamps)
            spool.append(numbering.number(frame))
            if number == 8:
                watch(spool, disk, moments)
            assert spool.sync(float(number))
            spool.tend(float(number))
            check_book(spool)
        over, disk.on_step = moments.over, None
        spool.shelf.lock = threading.Lock()
        spool.seal(numbering.stream)
        assert spool.close(50.0)
        check_book(spool)
        counters = spool.counters()
        assert counters.frames_taken == 12
        held = open_spool(disk.after_power_cut(), "E1", table, 5_000)
        _, lost = drain(spool)
        assert held.spans() == spool.spans()
        assert drain(held)[1] == lost
        assert over or counters.frames_dropped > 0 or upto == 9
        return moments

    assert list(each_moment(run))


def test_an_ack_during_a_write_that_fails_is_written_down_with_the_retry() -> None:
    disk = WatchedDisk()
    spool, numbering, _ = filled(disk)
    spool.append(numbering.number(scan_of(TABLE, 0, [7], START_MS)))
    disk.fail_syncs = 1
    disk.on_step = Moments(lambda: bool(spool.acked(numbering.stream, 4, 20.0)) or None, 0)
    assert not spool.sync(20.0)
    assert spool._acks_since_s == 20.0
    assert spool.sync(30.0)
    assert open_spool(disk.after_power_cut(), "E1", TABLE, 10**9).spans()[0].first == 5


def test_damage_gives_up_its_own_record_and_no_sound_one_before_it() -> None:
    disk = MemoryDisk()
    spool, numbering, written = filled(disk)
    spool.seal(numbering.stream)
    (name,) = disk.names()
    disk.files[name].content[-1] ^= 1  # in the body of the last frame's record
    found, lost = drain(spool)
    assert lost == {(numbering.stream, FRAMES)}
    assert found == {key: sample for key, sample in written.items() if key[1] < FRAMES}


def test_damage_found_while_rewriting_gives_up_its_own_record_alone() -> None:
    disk = MemoryDisk()
    spool, numbering, written = filled(disk)
    (name,) = disk.names()
    disk.files[name].content[-1] ^= 1
    for now_s in (200.0, 261.0):
        spool.sync(now_s)
        while spool.tend(now_s):
            check_book(spool)
    assert not any(name.endswith(".journal") and disk.size(name) > 1000 for name in disk.names()), "it is rewritten"
    spool.seal(numbering.stream)
    found, lost = drain(spool)
    assert lost == {(numbering.stream, FRAMES)}
    assert found == {key: sample for key, sample in written.items() if key[1] < FRAMES}


def test_a_frame_appended_and_its_stream_sealed_at_any_moment_of_the_disks_work_is_kept() -> None:
    def run(at: int) -> Moments:
        disk = WatchedDisk()
        spool, numbering, written = filled(disk)

        def act() -> None:
            frame = numbering.number(scan_of(TABLE, 0, [99, 98], START_MS + 90_000))
            spool.append(frame)
            written.update(samples_of(frame))
            spool.seal(numbering.stream)

        moments = Moments(act, at)
        watch(spool, disk, moments)
        for now_s in (200.0, 261.0, 322.0):
            spool.sync(now_s)
            spool.next_block({})
            while spool.tend(now_s):
                check_book(spool)
        if not moments.over:
            assert spool.sync(400.0)
            for held in (spool, open_spool(disk.after_power_cut(), "E1", TABLE, 10**9)):
                assert drain(held) == (written, set())
        return moments

    assert list(each_moment(run))
