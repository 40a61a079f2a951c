"""Hypothesis looks for an order of appends, syncs, faults and power cuts that loses a taken frame."""

from __future__ import annotations

import errno

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.numbering import NumberedFrame
from edge.recovery import open_spool
from edge.spool import Spool
from tests.edge.fakes import START_MS, scan_of, small_numbering, small_table
from tests.edge.memory_disk import MemoryDisk, PowerCut
from wire import decode_block

TABLE = small_table((2, 1, 3))
Held = dict[tuple[int, int, str], tuple[int, int, int]]


def samples_of(frame: NumberedFrame) -> Held:
    return {
        (frame.stream, frame.sequence, TABLE.points[point].tag): (bits, code, source_ms)
        for point, bits, code, source_ms in zip(
            frame.point.tolist(), frame.bits.tolist(), frame.code.tolist(), frame.source_ms.tolist(), strict=True
        )
    }


def drain(spool: Spool) -> tuple[Held, set[tuple[int, int]]]:
    """Everything the spool would send: samples, and the (stream, number) pairs it gives up."""
    found: Held = {}
    lost: set[tuple[int, int]] = set()
    after: dict[int, int] = {}
    while (wire := spool.next_block(after)) is not None:
        assert wire.last > after.get(wire.stream, 0), "the same stretch came twice"
        after[wire.stream] = wire.last
        block = decode_block(wire.payload)
        assert (block.stream, block.first, block.last) == (wire.stream, wire.first, wire.last)
        for gone in block.dropped:
            lost |= {(block.stream, number) for number in range(gone.first, gone.last + 1)}
        for column in block.columns:
            for number, bits, code, source_ms in zip(
                column.sequence.tolist(), column.bits.tolist(), column.code.tolist(), column.source_ms.tolist(),
                strict=True,
            ):
                found[block.stream, number, column.tag] = (bits, code, source_ms)
    return found, lost


class SpoolPromises(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryDisk()
        self.now_s = 0.0
        self.runs = 0
        self.failed = False
        self.written: Held = {}  # every sample ever appended
        self.taken: dict[int, int] = {}  # stream -> highest number that a sync promised
        self.acked: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        self.runs += 1
        self.spool = open_spool(self.disk, "E1", TABLE, 10**9)
        self.numbering = small_numbering(TABLE, self.runs, self.spool.newest())
        self.used = {span.stream: span.last for span in self.spool.spans()}

    def the_power_returns(self, torn: float, folder_survives: bool) -> None:
        self.disk = self.disk.after_power_cut(torn, folder_survives=folder_survives)
        self.start()
        self.a_restart_holds_all_that_was_taken()

    def a_restart_holds_all_that_was_taken(self) -> None:
        found, lost = drain(self.spool)
        assert not lost
        for (stream, number, tag), sample in self.written.items():
            if self.acked.get(stream, 0) < number <= self.taken.get(stream, 0):
                assert found.get((stream, number, tag)) == sample, f"lost {stream}/{number}/{tag}"
        for key, sample in found.items():
            assert self.written.get(key) == sample, f"never written: {key}"

    def synced(self, done: bool) -> None:
        if done:
            self.taken |= self.used

    @rule(
        devices=st.lists(st.integers(0, 2), min_size=1, max_size=9),
        bits=st.lists(st.integers(0, 65535), min_size=1, max_size=3),
    )
    def frames(self, devices: list[int], bits: list[int]) -> None:
        for device in devices:
            frame = self.numbering.number(scan_of(TABLE, device, bits, START_MS + round(self.now_s * 1000)))
            self.written |= samples_of(frame)
            self.used[frame.stream] = frame.sequence
            self.spool.append(frame)

    @rule()
    def sync(self) -> None:
        self.synced(self.spool.sync(self.now_s))

    @rule(seconds=st.sampled_from([0.5, 20.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.synced(self.spool.sync(self.now_s))
        for _ in range(1000):
            if not self.spool.tend(self.now_s):
                return
        raise AssertionError("housekeeping never ends")

    @rule()
    def next_stream(self) -> None:
        sealed = self.numbering.begin()
        if sealed:
            self.spool.seal(sealed)

    @precondition(lambda self: self.used)
    @rule(draw=st.data())
    def ack(self, draw: st.DataObject) -> None:
        stream = draw.draw(st.sampled_from(sorted(self.used)))
        upto = draw.draw(st.integers(0, self.used[stream]))
        self.spool.acked(stream, upto, self.now_s)
        self.acked[stream] = max(self.acked.get(stream, 0), upto)

    @rule(count=st.integers(1, 2), error=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def syncs_will_fail(self, count: int, error: int) -> None:
        self.disk.fail_syncs, self.disk.error, self.failed = count, error, True

    @rule(room=st.integers(0, 400))
    def a_write_will_be_short(self, room: int) -> None:
        self.disk.fail_writes_after, self.disk.error, self.failed = room, errno.ENOSPC, True
        self.synced(self.spool.sync(self.now_s))
        self.disk.fail_writes_after = None

    @rule(steps=st.integers(0, 12), torn=st.floats(0, 1), folder_survives=st.booleans(), how=st.sampled_from("sat"))
    def power_cut(self, steps: int, torn: float, folder_survives: bool, how: str) -> None:
        self.disk.power_off_at = self.disk.steps + steps
        try:
            if how == "t":
                self.time_passes(61.0)
            elif how == "a":
                self.spool.close(self.now_s)
            self.synced(self.spool.sync(self.now_s))
        except PowerCut:
            pass
        self.the_power_returns(torn, folder_survives)

    @rule()
    def killed(self) -> None:
        """SIGKILL: the page cache survives, whatever was written is there."""
        self.the_power_returns(1.0, True)

    @rule()
    def restart(self) -> None:
        self.disk.fail_syncs = 0
        assert self.spool.close(self.now_s)
        self.synced(True)
        before = self.spool.counters()
        self.start()
        assert self.spool.counters() == before
        assert self.failed or self.spool.cuts == (), "only a write that failed leaves a tail"
        self.a_restart_holds_all_that_was_taken()

    @invariant()
    def the_book_adds_up(self) -> None:
        counters = self.spool.counters()
        assert counters.samples_taken == counters.samples_acked + counters.samples_dropped + (
            self.spool.shelf.holdings.samples_unacked)
        assert min(self.spool.shelf.holdings.samples_unacked, self.spool.shelf.holdings.frames_unacked) >= 0
        assert self.spool.shelf.holdings.samples_unacked == sum(
            entry.samples for held in self.spool.shelf.holdings.streams.values() for entry in held.entries)
        assert all(count > 0 for count in self.spool.shelf.holdings.in_use.values())


TestSpoolPromises = pytest.mark.fault("F72")(SpoolPromises.TestCase)
TestSpoolPromises.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
