"""What the instruments show: calm values, excursions drawn from the seed, and calm again once the world is healed.

A course is a function of the time alone, so two boxes that read one instrument read the same.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np

from config import EdgeConfig, EdgeFile
from edge import Scan, Sink
from simulators.world.record import Read, Sample
from simulators.world.site import INSTRUMENTS, Instrument
from wire import Native, Quality, Reason, native_value, quality_code

GOOD: Final = quality_code(Quality.GOOD)
BAD_COMM: Final = quality_code(Quality.BAD, Reason.COMM)
BAD_SENSOR: Final = quality_code(Quality.BAD, Reason.SENSOR_FAULT)
UNCERTAIN_RANGE: Final = quality_code(Quality.UNCERTAIN, Reason.RANGE)
UNCERTAIN_FAULT: Final = quality_code(Quality.UNCERTAIN, Reason.DEVICE_FAULT)
PAUSE_S_MIN: Final = 3.0
PAUSE_S_MEAN: Final = 25.0
LONGEST_SILENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Excursion:
    """From `at_s` up to `peak` within `ramp_s`, there for `hold_s`, and back. `shape`: steady, chatter, bad, doubt."""

    at_s: float
    ramp_s: float
    hold_s: float
    peak: float
    shape: str

    @property
    def ends_s(self) -> float:
        """When it is over."""
        return self.at_s + 2 * self.ramp_s + self.hold_s


class Course:
    """One instrument's values over time."""

    def __init__(self, instrument: Instrument, random: Random, until_s: float) -> None:
        self._instrument = instrument
        self._excursions = list(self._draw(random, until_s))
        self._starts = [each.at_s for each in self._excursions]

    def _draw(self, random: Random, until_s: float) -> Iterator[Excursion]:
        at_s = PAUSE_S_MIN + random.expovariate(1 / PAUSE_S_MEAN)
        while at_s < until_s - PAUSE_S_MIN:
            whole = self._instrument.native == "bit"
            ramp_s = 0.0 if whole else random.choice((0.0, 0.0, 1.5, 4.0))
            hold_s = random.choice((0.0, 1.5, 4.0, 12.0, 30.0))
            shape = random.choices(("steady", "chatter", "bad", "doubt"), (6, 2, 1, 1))[0]
            hold_s = min(hold_s, max(0.0, until_s - at_s - 2 * ramp_s))
            each = Excursion(at_s, ramp_s, hold_s, random.choice(self._instrument.peaks), shape)
            if each.ends_s <= until_s:
                yield each
            at_s = each.ends_s + PAUSE_S_MIN + random.expovariate(1 / PAUSE_S_MEAN)

    def at(self, at_s: float) -> tuple[float, int]:
        """Return value and quality code; at a moment of BAD the value is what the instrument would show."""
        calm, found = self._instrument.calm, bisect_right(self._starts, at_s) - 1
        if found < 0 or at_s >= self._excursions[found].ends_s:
            return calm, GOOD
        each = self._excursions[found]
        into_s = at_s - each.at_s
        if into_s < each.ramp_s:
            return calm + (each.peak - calm) * into_s / each.ramp_s, GOOD
        if into_s > each.ramp_s + each.hold_s:
            left_s = each.ends_s - at_s
            return calm + (each.peak - calm) * left_s / each.ramp_s, GOOD
        holding_s = into_s - each.ramp_s
        if each.shape == "chatter" and int(holding_s) % 2:
            return calm + (each.peak - calm) * 0.8, GOOD
        if each.shape == "bad" and holding_s > each.hold_s / 3:
            return each.peak, BAD_SENSOR
        if each.shape == "doubt" and holding_s > each.hold_s / 3:
            return calm + (each.peak - calm) * 0.3, UNCERTAIN_FAULT
        return each.peak, GOOD


class Plant:
    """All instruments. `dead` holds the devices that do not answer, with the code their tags are read with."""

    def __init__(self, seed: int, until_s: float) -> None:
        self.dead: dict[str, int] = {}
        self._courses = {
            one.tag: Course(one, Random(f"plant {seed} {one.tag}"), until_s)
            for instruments in INSTRUMENTS.values()
            for one in instruments
        }

    def read(self, device: str, tag: str, at_s: float) -> tuple[float, int]:
        """Return what a tag shows, and with which quality code."""
        value, code = self._courses[tag].at(at_s)
        return value, self.dead.get(device, code)


class WorldField:
    """The field side of one box: polls its devices, reports what changed, and tells the record everything it read."""

    def __init__(
        self, edge_file: EdgeFile, plant: Plant, now_ms: Callable[[], int], random: Random,
        note: Callable[[Read], None], box: int,
    ) -> None:  # fmt: skip
        self._node, self._box, self._note = edge_file.edge.id, box, note
        self._now_ms = now_ms
        self._devices = list(_devices(edge_file.edge, plant))
        self._phases = [random.random() for _ in self._devices]

    async def run(self, sink: Sink) -> None:
        """Give scans to `sink` until cancelled."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for device in self._devices:
            self._poll(device, loop.time(), sink)
        turns = sorted((phase, at) for at, phase in enumerate(self._phases))
        second = 1
        while True:
            for phase, at in turns:
                await asyncio.sleep(max(0.0, began_s + second + phase - loop.time()))
                self._poll(self._devices[at], loop.time(), sink)
            second += 1

    def _poll(self, device: _Device, at_s: float, sink: Sink) -> None:
        source_ms = self._now_ms()
        samples, rows = device.read(at_s, source_ms)
        self._note(Read(at_s, self._node, self._box, device.name, samples))
        if rows:
            sink(device.scan(rows, source_ms))


class _Device:
    """One device: the present pattern of each point, and what was sent of it last."""

    def __init__(self, number: int, name: str, first_point: int, instruments: list[Instrument], plant: Plant) -> None:
        self.name, self._number, self._plant = name, number, plant
        self._points = [first_point + at for at in range(len(instruments))]
        self._instruments = instruments
        self._now: list[tuple[int, float, int]] = []
        self._steady: dict[str, tuple[tuple[float, int], tuple[int, float, int]]] = {}
        """Tag -> what it showed last and what became of it: most polls find nothing new."""
        self._sent: list[tuple[int, float, int] | None] = [None] * len(instruments)
        self._sent_s = [-math.inf] * len(instruments)

    def read(self, at_s: float, source_ms: int) -> tuple[tuple[Sample, ...], list[int]]:
        """Return every sample of this poll, and which rows changed or were silent for long."""
        self._now = [self._pattern(one, at_s) for one in self._instruments]
        rows = [
            at
            for at, shown in enumerate(self._now)
            if repr(shown) != repr(self._sent[at]) or at_s - self._sent_s[at] >= LONGEST_SILENCE_S - 0.5
        ]
        for at in rows:
            self._sent[at], self._sent_s[at] = self._now[at], at_s
        samples = tuple(
            Sample(one.tag, value, code, source_ms)
            for one, (_, value, code) in zip(self._instruments, self._now, strict=True)
        )
        return samples, rows

    def scan(self, rows: list[int], source_ms: int) -> Scan:
        """Return the scan of these rows."""
        return Scan(
            self._number,
            np.array([self._points[at] for at in rows], np.int32),
            np.array([self._now[at][0] for at in rows], np.uint64),
            np.array([self._now[at][1] for at in rows], np.float64),
            np.array([self._now[at][2] for at in rows], np.uint8),
            np.full(len(rows), source_ms, np.int64),
        )

    def _pattern(self, one: Instrument, at_s: float) -> tuple[int, float, int]:
        """Return register pattern, value and code, as decoding real registers would give them."""
        shown = self._plant.read(self.name, one.tag, at_s)
        before = self._steady.get(one.tag)
        if before is None or before[0] != shown:
            before = self._steady[one.tag] = shown, self._read_as(one, *shown)
        return before[1]

    def _read_as(self, one: Instrument, value: float, code: int) -> tuple[int, float, int]:
        if code < int(Quality.UNCERTAIN):
            return 0, math.nan, code
        native = Native[one.native.upper()]
        bits = _bits(native, value, one.scale)
        value = float(native_value(native, np.array([bits], np.uint64), one.scale, 0.0)[0])
        if code == GOOD and not 0 <= value <= one.high:
            code = UNCERTAIN_RANGE
        return bits, value, code


_FLOATS: Final = {Native.F32: (np.float32, np.uint32), Native.F64: (np.float64, np.uint64)}


def _bits(native: Native, value: float, scale: float) -> int:
    """Return the register pattern nearest to a value."""
    if native in _FLOATS:
        kind, unsigned = _FLOATS[native]
        return int(np.array([value / scale], kind).view(unsigned)[0])
    return max(0, round(value / scale))


def _devices(edge: EdgeConfig, plant: Plant) -> Iterator[_Device]:
    first = 0
    for number, device in enumerate(edge.devices):
        instruments = list(INSTRUMENTS[edge.id, device.id])
        yield _Device(number, device.id, first, instruments, plant)
        first += len(instruments)
