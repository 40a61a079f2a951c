"""B10's plant: 1 000 tags at 1 Hz with the stamps, the noise and the troubles that a real one has.

Twenty devices of fifty tags. Half of the devices answer with converter counts (12 to 14 bit steps over the tag's
range, a slow process and noise of 1 to 2 steps), half with float32 of their own (noise of 0.05 to 0.5 % of the range).
All tags of a frame share its source time, which jitters by some ms. A day has a few gaps, frames that came late, bad
stretches and values beyond the range. A device's day depends on seed, device and day alone, so any part of the plant can
be made again, in any order and by any process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import DAY_MS, Samples, concatenated
from wire import Quality, Reason, quality_code

DEVICES: Final = 20
TAGS_PER_DEVICE: Final = 50
TAGS: Final = DEVICES * TAGS_PER_DEVICE
PERIOD_MS: Final = 1_000
FRAMES_PER_DAY: Final = DAY_MS // PERIOD_MS
FIRST_DAY_MS: Final = 1_780_272_000_000  # 2026-06-01T00:00:00Z
DAYS_MAX: Final = 60

KNOT_S: Final = 600  # between two of them the slow process goes straight
RELAX_S: Final = 7_200.0  # how long it remembers
JITTER_MS: Final = 2.0
LONG_TURN_SHARE: Final = 0.001  # polls that a busy bus held up
GAPS_A_DAY: Final = 2.0
LATE_A_DAY: Final = 1.0
SILENT_DEVICE_A_DAY: Final = 0.5
BAD_TAG_A_DAY: Final = 0.3
BEYOND_A_DAY: Final = 0.05

GOOD: Final = quality_code(Quality.GOOD)
NO_ANSWER: Final = quality_code(Quality.BAD, Reason.COMM)
SENSOR_FAULT: Final = quality_code(Quality.BAD, Reason.SENSOR_FAULT)
BEYOND_RANGE: Final = quality_code(Quality.UNCERTAIN, Reason.RANGE)
_KINDS: Final = ("AT", "FT", "LT", "PT", "TT")


@dataclass(frozen=True, slots=True, eq=False)
class DeviceDay:
    """One device's frames of a UTC day, f of them, in order of time.

    Attributes:
        names: its 50 tags.
        source_ms, stream, sequence: int64[f]. late: bool[f].
        value, raw: float64[50, f] as in `Samples`. code: uint8[50, f].
    """

    names: tuple[str, ...]
    source_ms: NDArray[np.int64]
    stream: NDArray[np.int64]
    sequence: NDArray[np.int64]
    late: NDArray[np.bool_]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    raw: NDArray[np.float64]

    def between(self, from_ms: int, to_ms: int) -> DeviceDay:
        """Return the frames of [from_ms, to_ms), copied: a view would keep the whole day."""
        cut = slice(*np.searchsorted(self.source_ms, (from_ms, to_ms)))
        return DeviceDay(
            self.names, self.source_ms[cut], self.stream[cut], self.sequence[cut], self.late[cut], self.value[:, cut].copy(),
            self.code[:, cut].copy(), self.raw[:, cut].copy(),
        )  # fmt: skip

    def by_tag(self) -> Samples:
        """Return the samples, whole tags one after the other, each in order of time."""
        tags, frames = self.value.shape
        return Samples(
            self.names, np.repeat(np.arange(tags, dtype=np.int32), frames), np.tile(self.source_ms, tags), self.value.ravel(),
            self.code.ravel(), self.raw.ravel(), np.tile(self.late, tags), np.tile(self.stream, tags),
            np.tile(self.sequence, tags),
        )  # fmt: skip

    def by_frame(self) -> Samples:
        """Return the samples, frame by frame, as they arrive."""
        tags, frames = self.value.shape
        return Samples(
            self.names, np.tile(np.arange(tags, dtype=np.int32), frames), np.repeat(self.source_ms, tags),
            self.value.T.ravel(), self.code.T.ravel(), self.raw.T.ravel(), np.repeat(self.late, tags),
            np.repeat(self.stream, tags), np.repeat(self.sequence, tags),
        )  # fmt: skip


class Plant:
    """The plant of one seed."""

    def __init__(self, seed: int = 1) -> None:
        """Only draws what all its days share."""
        self._seed = seed
        self._devices = [_Device(seed, number) for number in range(DEVICES)]

    @property
    def names(self) -> tuple[str, ...]:
        """All tags, in the order of their ids."""
        return tuple(name for device in self._devices for name in device.names)

    def device(self, number: int, day: int) -> DeviceDay:
        """Return the frames of one device on one day; `day` counts from 0."""
        return self._devices[number].day(day)

    def devices_of(self, kind: str) -> list[_Device]:
        """Return the devices of a kind."""
        return [device for device in self._devices if is_counts(device.number) == (kind == "counts")]

    def day(self, day: int) -> Iterator[DeviceDay]:
        """Yield every device's day, in the order of their tags' ids."""
        for number in range(DEVICES):
            yield self.device(number, day)

    def pieces(self, hours: int, piece_s: int, devices: range = range(DEVICES)) -> Iterator[Samples]:
        """Yield the first `hours` (up to 24) of these devices, `piece_s` at a time, as they arrive: late ones behind."""
        end_ms = FIRST_DAY_MS + hours * 3_600_000
        held = [self.device(number, 0).between(FIRST_DAY_MS, end_ms) for number in devices]
        for from_ms in range(FIRST_DAY_MS, end_ms, piece_s * 1_000):
            piece = concatenated([part.between(from_ms, from_ms + piece_s * 1_000).by_frame() for part in held])
            yield piece.take(np.lexsort((piece.source_ms, piece.late)))


def is_counts(device: int) -> bool:
    """Whether a device answers with converter counts; the first half does, so that its tags stand together."""
    return device < DEVICES // 2


class _Device:
    """What stays the same of a device for ever: tags, ranges, how its process moves."""

    def __init__(self, seed: int, number: int) -> None:
        self.number, self._seed = number, seed
        draw = np.random.Generator(np.random.SFC64([seed, 1, number]))
        n = TAGS_PER_DEVICE
        self.names = tuple(f"D{number:02}.{_KINDS[i * len(_KINDS) // n]}{i:03}" for i in range(n))
        self._counts = is_counts(number)
        bits = draw.integers(12, 15, n)
        self._steps = np.exp2(bits) - 1
        span = draw.choice([1.6, 2.5, 10.0, 25.0, 100.0, 150.0, 400.0], n)
        # Half of the counts are 4-20 mA over a round range, half registers in decimal steps, as transmitters send them.
        decimal = np.arange(n) % 2 == 1
        self._step = np.where(decimal, 10.0 ** np.round(np.log10(span / self._steps)), span / self._steps)
        self._span = np.where(decimal, self._step * self._steps, span) if self._counts else span
        self._low = np.where(draw.random(n) < 0.2, -np.round(self._span / 5), 0.0)
        noise_steps, noise_share = draw.uniform(1.0, 2.0, n), 10 ** draw.uniform(np.log10(5e-4), np.log10(5e-3), n)
        self._noise = noise_steps * self._step if self._counts else noise_share * self._span
        self._phase_ms = int(draw.integers(0, PERIOD_MS))
        knots = DAYS_MAX * FRAMES_PER_DAY // KNOT_S + 1
        keep = np.exp(-KNOT_S / RELAX_S)
        walk = draw.standard_normal((knots, n)) * np.sqrt(1 - keep * keep)
        for i in range(1, knots):
            walk[i] += keep * walk[i - 1]
        hours = np.arange(knots) * KNOT_S / 3_600
        daily = np.sin(2 * np.pi * (hours[:, None] / 24 + draw.random(n)))
        moves = 10 ** draw.uniform(-2, -1, n)  # of the range, one standard deviation
        middle = draw.uniform(0.3, 0.7, n)
        self._knots = self._low + self._span * np.clip(middle + moves * (walk + daily), 0.02, 0.98)

    def information_bits(self) -> float:
        """Return the mean entropy of a sample's noise, and its share of the frame's jitter."""
        step = self._step if self._counts else np.spacing(np.abs(self._low + self._span / 2).astype(np.float32))
        of_values = np.log2(self._noise / step * np.sqrt(2 * np.pi * np.e))
        return float(of_values.mean()) + float(np.log2(JITTER_MS * np.sqrt(2 * np.pi * np.e))) / len(self.names)

    def day(self, day: int) -> DeviceDay:
        """Return its frames of a day."""
        if not 0 <= day < DAYS_MAX:
            raise ValueError(f"day {day} is not within 0 … {DAYS_MAX - 1}")
        draw = np.random.Generator(np.random.SFC64([self._seed, 2, self.number, day]))
        source_ms, sequence, late = self._stamps(day, draw)
        rows = (sequence - 1) % FRAMES_PER_DAY
        value = self._values(day, draw)
        code = np.full(value.shape, GOOD, np.uint8)
        raw = np.full(value.shape, np.nan)
        self._spoil(value, code, raw, draw)
        if len(rows) < FRAMES_PER_DAY:
            value, code, raw = value[:, rows], code[:, rows], raw[:, rows]
        stream = np.random.Generator(np.random.SFC64([self._seed, 3, self.number, day // 9])).integers(1, 1 << 62)
        return DeviceDay(
            self.names, source_ms, np.full(len(rows), stream, np.int64), sequence, late, value, code, raw
        )  # fmt: skip

    def _stamps(
        self, day: int, draw: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Source times, frame numbers and which came late; frames in a gap are left out."""
        jitter = np.clip(draw.standard_normal(FRAMES_PER_DAY, np.float32) * JITTER_MS, -20, 20)
        held_up = draw.random(FRAMES_PER_DAY, np.float32) < LONG_TURN_SHARE
        jitter[held_up] += draw.uniform(20, 200, int(held_up.sum()))
        at = np.arange(FRAMES_PER_DAY, dtype=np.int64)
        source_ms = at * PERIOD_MS + np.clip(self._phase_ms + jitter.astype(np.int64), 0, PERIOD_MS - 1)
        there, late = np.ones(FRAMES_PER_DAY, np.bool_), np.zeros(FRAMES_PER_DAY, np.bool_)
        for begins, ends in _stretches(draw, GAPS_A_DAY, 5, 300):
            there[begins:ends] = False
        for begins, ends in _stretches(draw, LATE_A_DAY, 30, 600):
            late[begins:ends] = True
        source_ms += FIRST_DAY_MS + day * DAY_MS
        return source_ms[there], (at + 1 + day % 9 * FRAMES_PER_DAY)[there], late[there]

    def _values(self, day: int, draw: np.random.Generator) -> NDArray[np.float64]:
        """What the instruments show, before trouble: float64[tags, frames]."""
        first = day * (FRAMES_PER_DAY // KNOT_S)
        knots = self._knots[first : first + FRAMES_PER_DAY // KNOT_S + 1].T
        share = np.arange(KNOT_S) / KNOT_S
        slow = knots[:, :-1, None] + (knots[:, 1:] - knots[:, :-1])[:, :, None] * share
        value: NDArray[np.float64] = slow.reshape(len(self.names), FRAMES_PER_DAY)
        value += draw.standard_normal(value.shape, np.float32) * self._noise[:, None]
        if not self._counts:
            return value.astype(np.float32).astype(np.float64)
        # As the edge decodes: counts * scale + offset.
        counts = np.clip(np.rint((value - self._low[:, None]) / self._step[:, None]), 0, self._steps[:, None])
        shown: NDArray[np.float64] = counts * self._step[:, None] + self._low[:, None]
        return shown

    def _spoil(
        self, value: NDArray[np.float64], code: NDArray[np.uint8], raw: NDArray[np.float64], draw: np.random.Generator
    ) -> None:
        for begins, ends in _stretches(draw, SILENT_DEVICE_A_DAY, 30, 300):
            value[:, begins:ends], code[:, begins:ends] = np.nan, NO_ANSWER
        for tag in range(len(self.names)):
            for begins, ends in _stretches(draw, BEYOND_A_DAY, 60, 900):
                was_bad = np.isnan(value[tag, begins:ends])
                over = 0.02 * self._span[tag] + value[tag, begins:ends] - value[tag, begins]
                high = self._low[tag] + self._span[tag]
                raw[tag, begins:ends] = np.where(was_bad, np.nan, high + np.abs(over))
                value[tag, begins:ends] = np.where(was_bad, np.nan, high)
                code[tag, begins:ends] = np.where(was_bad, code[tag, begins:ends], BEYOND_RANGE)
            for begins, ends in _stretches(draw, BAD_TAG_A_DAY, 60, 1_800):
                value[tag, begins:ends], raw[tag, begins:ends], code[tag, begins:ends] = np.nan, np.nan, SENSOR_FAULT


def _stretches(draw: np.random.Generator, a_day: float, shortest_s: int, longest_s: int) -> list[tuple[int, int]]:
    """Draw stretches of a day, in frames; how long they are is spread evenly over the orders of magnitude."""
    count = int(draw.poisson(a_day))
    begins = draw.integers(0, FRAMES_PER_DAY, count)
    lasts = np.exp(draw.uniform(np.log(shortest_s), np.log(longest_s), count)).astype(np.int64)
    return [(int(first), int(min(first + length, FRAMES_PER_DAY))) for first, length in zip(begins, lasts, strict=True)]


def information_bytes(plant: Plant, kind: str) -> float:
    """Return how many bytes a sample of this kind holds at least: the entropy of its noise, and its share of the jitter's.

    Of a normal distribution over steps of one unit: log2(deviation x sqrt(2 pi e)) bits.
    """
    return float(np.mean([device.information_bits() for device in plant.devices_of(kind)])) / 8
