"""The field side as one piece: all buses and devices of an edge file, joined and run.

It turns what people typed into plans, decoders and pollers, and gives out scans: samples that changed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config import DeviceConfig, EdgeFile, PointConfig
from edge.bus import BusAddress, TcpBus
from edge.decode import RegisterPoint, WordOrder
from edge.gather import Gather
from edge.plan import PlanLimits, Table, plan_reads
from edge.poll import DevicePoller, DeviceTiming, Sink
from edge.reads import DeviceReads
from edge.report import ReportRules
from wire import Native


@dataclass(frozen=True, slots=True)
class FieldCounts:
    """Sums over all devices and buses since the start."""

    polls: int
    polls_failed: int
    """Polls in which at least one point had no value."""
    polls_skipped: int
    """Poll moments that passed while an earlier poll of the device was still under way."""
    requests: int
    timeouts: int
    connects: int
    connects_failed: int
    resets: int
    discarded: int
    """Answers that were not of the request that was out: dropped."""
    late: int
    """Answers that came after their deadline: dropped."""


class FieldSide:
    """Reads every point of one edge file. Build it, `run` it, cancel it."""

    def __init__(
        self,
        edge_file: EdgeFile,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        random: random.Random,
        spread_phases: bool = True,
    ) -> None:
        """
        Args:
            edge_file: checked configuration.
            now_ms: UTC epoch milliseconds, for source times.
            monotonic: seconds that never jump, for schedules and deadlines.
            random: for back-off and phases.
            spread_phases: after a first poll at once, devices of one period are polled at different moments;
                false keeps all of them together (benchmarks).

        Raises:
            PlanError: a value is wider than its device lets us read at once.
        """
        edge = edge_file.edge
        self._now_ms = now_ms
        units_on = Counter(device.bus for device in edge.devices if device.points)
        self._buses = {
            bus.id: TcpBus(
                BusAddress(bus.id, bus.host, bus.port, bus.connect_timeout_s),
                monotonic=monotonic,
                rng=random,
                units=max(1, units_on[bus.id]),
            )
            for bus in edge.buses
        }
        self._pollers: list[DevicePoller] = []
        first_point = 0
        for position, device in enumerate(edge.devices):
            if device.points:
                shared = units_on[device.bus] > 1
                phase_s = random.random() * device.period_s if spread_phases else 0.0
                points = [_register_point(edge_file, device, point) for point in device.points]
                blocks = plan_reads(
                    (point.span(row) for row, point in enumerate(points)),
                    PlanLimits(registers_max=device.registers_max, gap_max=device.gap_max),
                )
                rules = _report_rules(edge_file, device)
                self._pollers.append(
                    DevicePoller(
                        _timing(device, shared, phase_s),
                        self._buses[device.bus],
                        DeviceReads(device.unit, blocks, period_s=device.period_s, shared=shared),
                        Gather(position, first_point, points, blocks, rules, now_ms()),
                        now_ms=now_ms,
                        monotonic=monotonic,
                    )
                )
            first_point += len(device.points)

    async def run(self, sink: Sink) -> None:
        """Poll all devices until cancelled; scans worth sending go to `sink`, one at a time per device.

        If `sink` returns an awaitable, the device waits for it: a full queue slows polling down, and polls
        that are missed meanwhile are skipped. Faults of the field become qualities; anything else raises.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for poller in self._pollers:
                    tasks.create_task(poller.run(sink), name=f"poll-{poller.timing.name}")
        finally:
            for bus in self._buses.values():
                bus.close()

    def latest(
        self,
    ) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int64]]:
        """Return bits, value, code and source_ms of every point as last read, reported or not.

        In the order of the edge file's flat point list. A point never read is BAD/UNKNOWN with value NaN.
        """
        gathers = [poller.gather for poller in self._pollers]
        if not gathers:
            return np.empty(0, np.uint64), np.empty(0), np.empty(0, np.uint8), np.empty(0, np.int64)
        return (
            np.concatenate([gather.bits for gather in gathers]),
            np.concatenate([gather.value for gather in gathers]),
            np.concatenate([gather.code for gather in gathers]),
            np.concatenate([gather.source_ms for gather in gathers]),
        )

    @property
    def faults(self) -> dict[str, str]:
        """Device id to what is wrong with it at present, in words; devices that answer are left out."""
        return {poller.timing.name: poller.fault for poller in self._pollers if poller.fault is not None}

    @property
    def counts(self) -> FieldCounts:
        polls = [poller.counts for poller in self._pollers]
        buses = [bus.counts for bus in self._buses.values()]
        return FieldCounts(
            polls=sum(each.polls for each in polls),
            polls_failed=sum(each.polls_failed for each in polls),
            polls_skipped=sum(each.polls_skipped for each in polls),
            requests=sum(each.requests for each in buses),
            timeouts=sum(each.timeouts for each in buses),
            connects=sum(each.connects for each in buses),
            connects_failed=sum(each.connects_failed for each in buses),
            resets=sum(each.resets for each in buses),
            discarded=sum(each.links.discarded + each.links.framing_lost for each in buses),
            late=sum(each.links.late for each in buses),
        )


def _timing(device: DeviceConfig, shared: bool, phase_s: float) -> DeviceTiming:
    return DeviceTiming(
        name=device.id,
        period_s=device.period_s,
        timeout_s=device.timeout_s,
        match_transaction=device.transaction_id == "match",
        pause_s=device.pause_ms / 1000,
        phase_s=phase_s,
        shared=shared,
    )


def _register_point(edge_file: EdgeFile, device: DeviceConfig, point: PointConfig) -> RegisterPoint:
    tag = edge_file.tag_of[point.tag]
    return RegisterPoint(
        tag=point.tag,
        table=Table(point.table),
        address=point.address,
        native=Native[point.type.upper()],
        bit=point.bit,
        order=WordOrder(point.word_order or device.word_order),
        scale=point.scale,
        offset=point.offset,
        low=tag.range.low,
        high=tag.range.high,
    )


def _report_rules(edge_file: EdgeFile, device: DeviceConfig) -> ReportRules:
    tags = [edge_file.tag_of[point.tag] for point in device.points]
    return ReportRules(
        every_change=np.array([tag.has_limit for tag in tags], dtype=np.bool_),
        deadband=np.array([tag.report_deadband for tag in tags], dtype=np.float64),
        longest_silence_ms=np.array([round(tag.longest_silence_s * 1000) for tag in tags], dtype=np.int64),
        period_ms=round(device.period_s * 1000),
    )
