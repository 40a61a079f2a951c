"""The plant itself: what every tag truly shows, stepped by `dt`. Pure and seeded: same seed, same plant.

Left alone, every analogue tag wanders near its normal value well inside its limits and every contact rests,
so a quiet day is quiet by construction. Leaks, fillings, driven tags and broken sensors come from scenarios.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.dispersion import GASES, Leak, Wind, concentration
from simulators.field import TagSpec
from simulators.layout import Detector, Layout, Position
from simulators.scenario import (
    FillStep,
    LeakStep,
    PlantStep,
    ReleaseStep,
    SensorStep,
    SetStep,
    WindStep,
)

GAS_QUANTITIES = frozenset({"toxic_gas", "combustible_gas"})
WIND_QUANTITIES = frozenset({"wind_speed", "wind_direction"})
# shares of the room a tag has inside its limits; their sum stays below 1, or a quiet day would alarm
WANDER_SHARE, NOISE_SHARE, COUPLING_SHARE = 0.35, 0.08, 0.4
SPREAD_OF_SPAN, COUPLING_OF_SPAN = 0.02, 0.1
WANDER_S = 60.0
FLASH_S = 20.0
OVER_SPAN, UNDER_SPAN = 0.10, 0.05  # how far beyond its range an instrument still counts


@dataclass(slots=True)
class _Drive:
    """A tag led by hand from `start` to `value`; `release` leads back to the model."""

    start: float
    value: float
    began_s: float
    ramp_s: float
    release: bool = False

    def at(self, time_s: float, model: float) -> float:
        """The led value now."""
        share = 1.0 if self.ramp_s <= 0 else min((time_s - self.began_s) / self.ramp_s, 1.0)
        goal = model if self.release else self.value
        return self.start + share * (goal - self.start)

    def over(self, time_s: float) -> bool:
        """Whether a release has reached the model."""
        return self.release and time_s >= self.began_s + self.ramp_s


@dataclass(slots=True)
class _SensorFault:
    kind: str
    value: float
    began_s: float
    held: float


@dataclass(slots=True)
class _Nose:
    """A gas detector: place, gas, and the concentration its cell shows by now (in the tag's unit)."""

    index: int
    detector: Detector
    shown: float = 0.0


class Plant:
    """All tags of a site. `apply` takes scenario steps, `step` moves time and returns the values."""

    def __init__(self, tags: Sequence[TagSpec], layout: Layout, seed: int) -> None:
        """Set every tag to its normal value. `tags` fixes the order of all value arrays."""
        self.tags = tuple(tags)
        self.index = {tag.id: i for i, tag in enumerate(self.tags)}
        self.time_s = 0.0
        self.wind = Wind()
        self._layout = layout
        self._random = np.random.default_rng(seed)
        self._low = np.array([tag.low for tag in self.tags])
        self._high = np.array([tag.high for tag in self.tags])
        self._discrete = np.array([tag.discrete for tag in self.tags], bool)
        self._lsb = (self._high - self._low) / 2.0**layout.adc_bits
        self._nominal, self._spread, self._give = self._normal_values()
        self._wander = np.zeros(len(self.tags))
        self._coupled = np.zeros(len(self.tags))
        self._leaks: dict[str, Leak] = {}
        self._leak_began_s: dict[str, float] = {}
        self._fill_per_s: dict[str, float] = {}
        self._filled: dict[str, float] = {}
        self._noses = [self._nose(i) for i, tag in enumerate(self.tags) if self._smells(tag)]
        self._drives: dict[int, _Drive] = {}
        self._sensor_faults: dict[int, _SensorFault] = {}
        self.value = self._nominal.copy()

    def apply(self, step: PlantStep) -> None:
        """Let a scenario step happen now."""
        match step:
            case WindStep():
                self.wind.aim(step.speed_m_s, step.from_deg, step.over_s)
            case LeakStep():
                self._leak(step).aim(step.rate_g_s, step.ramp_s)
            case FillStep():
                self._fill_per_s[step.equipment] = step.percent_per_s / 100.0
            case SetStep():
                i = self.index[step.tag]
                self._drives[i] = _Drive(float(self.value[i]), step.value, self.time_s, step.ramp_s)
            case ReleaseStep():
                i = self.index[step.tag]
                self._drives[i] = _Drive(float(self.value[i]), 0.0, self.time_s, step.ramp_s, release=True)
            case SensorStep():
                self._break_sensor(step)

    def step(self, dt: float) -> NDArray[np.float64]:
        """Advance `dt` seconds (> 0) and return float64[n_tags] in tag units; NaN from a dead sensor."""
        self.time_s += dt
        self.wind.step(dt, self._random)
        for leak in self._leaks.values():
            leak.step(self.time_s, dt)
        value = self._nominal + self._wandering(dt) + self._couplings(dt)
        value += NOISE_SHARE * self._spread * np.clip(self._random.standard_normal(len(value)) / 3.0, -1.0, 1.0)
        self._take_wind(value)
        self._take_gas(value, dt)
        self._take_levels(value, dt)
        self._take_drives(value)
        value = self._measured(value)
        self._take_sensor_faults(value, dt)
        self.value = value
        return value.copy()

    def _normal_values(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Each tag's normal value, how far it may wander, and how far a leak or filling may push it."""
        nominal, spread, give = (np.zeros(len(self.tags)) for _ in range(3))
        for i, tag in enumerate(self.tags):
            if tag.discrete:
                # at rest: the state that no limit calls an alarm; without a limit, open or off
                rest = 1.0 if any(not limit.high_side for limit in tag.limits) else 0.0
                nominal[i] = self._layout.nominal.get(tag.id, rest)
                continue
            low, high = tag.calm_band()
            span = tag.high - tag.low
            middle = low + (0.05 if self._smells(tag) else 0.5) * (high - low)
            nominal[i] = min(max(self._layout.nominal.get(tag.id, middle), low), high)
            room = min(nominal[i] - low, high - nominal[i])
            spread[i] = min(room, self._layout.spread.get(tag.id, SPREAD_OF_SPAN * span))
            give[i] = min(room, COUPLING_OF_SPAN * span)
        return nominal, spread, give

    def _wandering(self, dt: float) -> NDArray[np.float64]:
        keep = math.exp(-dt / WANDER_S)
        push = math.sqrt(1.0 - keep * keep) * self._random.standard_normal(len(self.tags))
        self._wander = np.clip(keep * self._wander + 0.4 * push, -1.0, 1.0)
        return WANDER_SHARE * self._spread * self._wander

    def _couplings(self, dt: float) -> NDArray[np.float64]:
        """What leaks and fillings do to their own equipment's pressure and temperature, inside limits."""
        goal = np.zeros(len(self.tags))
        for i, tag in enumerate(self.tags):
            leak = self._leaks.get(tag.equipment)
            if tag.quantity in {"pressure", "temperature"} and leak is not None and leak.rate_g_s > 0:
                goal[i] = -1.0
            elif tag.quantity == "pressure" and self._fill_per_s.get(tag.equipment, 0.0) > 0:
                goal[i] = 1.0
        self._coupled += (1.0 - math.exp(-dt / FLASH_S)) * (goal - self._coupled)
        return COUPLING_SHARE * self._give * self._coupled

    def _take_wind(self, value: NDArray[np.float64]) -> None:
        for i, tag in enumerate(self.tags):
            if tag.quantity == "wind_speed":
                value[i] = self.wind.speed_m_s
            elif tag.quantity == "wind_direction":
                value[i] = self.wind.from_deg

    def _take_gas(self, value: NDArray[np.float64], dt: float) -> None:
        for nose in self._noses:
            place, unit = nose.detector, self.tags[nose.index].unit
            there = sum(
                GASES[leak.gas].to_unit(concentration(leak, self.wind, place.x_m, place.y_m, self.time_s), unit)
                for leak in self._leaks.values()
                if leak.gas == place.gas
            )
            nose.shown += (1.0 - math.exp(-dt / place.response_s)) * (there - nose.shown)
            value[nose.index] += nose.shown

    def _take_levels(self, value: NDArray[np.float64], dt: float) -> None:
        for i, tag in enumerate(self.tags):
            if tag.quantity != "level":
                continue
            span = tag.high - tag.low
            filled = self._filled.get(tag.id, 0.0) + self._fill_per_s.get(tag.equipment, 0.0) * dt * span
            room = (tag.low - self._nominal[i], tag.high - self._nominal[i])
            self._filled[tag.id] = min(max(filled, room[0]), room[1])
            value[i] += self._filled[tag.id]

    def _take_drives(self, value: NDArray[np.float64]) -> None:
        for i, drive in list(self._drives.items()):
            value[i] = drive.at(self.time_s, float(value[i]))
            if drive.over(self.time_s):
                del self._drives[i]

    def _measured(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pin to what the instrument can show and round to its converter's steps; contacts are 0 or 1."""
        span = self._high - self._low
        pinned = np.clip(value, self._low - UNDER_SPAN * span, self._high + OVER_SPAN * span)
        steps = np.rint((pinned - self._low) / self._lsb) * self._lsb + self._low
        measured: NDArray[np.float64] = np.where(self._discrete, value >= 0.5, steps)
        return measured

    def _break_sensor(self, step: SensorStep) -> None:
        i = self.index[step.tag]
        if step.fault == "ok":
            self._sensor_faults.pop(i, None)
        else:
            self._sensor_faults[i] = _SensorFault(step.fault, step.value, self.time_s, float(self.value[i]))

    def _take_sensor_faults(self, value: NDArray[np.float64], dt: float) -> None:
        for i, fault in self._sensor_faults.items():
            span = self._high[i] - self._low[i]
            match fault.kind:
                case "nan":
                    value[i] = math.nan
                case "stuck":
                    value[i] = fault.held
                case "offset":
                    value[i] += fault.value
                case "noise":
                    value[i] += fault.value * self._random.standard_normal()
                case "drift":
                    value[i] += fault.value * (self.time_s - fault.began_s)
                case "over_range":
                    value[i] = self._high[i] + OVER_SPAN * span
                case "under_range":
                    value[i] = self._low[i] - UNDER_SPAN * span

    def _leak(self, step: LeakStep) -> Leak:
        if step.equipment not in self._leaks:
            place = self._layout.sources.get(step.equipment) or _invented_position(step.equipment, 0.0)
            self._leaks[step.equipment] = Leak(step.gas, place.x_m, place.y_m)
        return self._leaks[step.equipment]

    def _smells(self, tag: TagSpec) -> bool:
        return tag.id in self._layout.detectors or tag.quantity in GAS_QUANTITIES

    def _nose(self, index: int) -> _Nose:
        tag = self.tags[index]
        detector = self._layout.detectors.get(tag.id)
        if detector is None:
            place = _invented_position(tag.id, 15.0)
            detector = Detector(x_m=place.x_m, y_m=place.y_m, gas=_likely_gas(tag), response_s=3.0)
        return _Nose(index, detector)


def _likely_gas(tag: TagSpec) -> str:
    for sign, gas in (("CL2", "chlorine"), ("NH3", "ammonia"), ("H2S", "hydrogen_sulfide")):
        if sign in tag.id:
            return gas
    return "lpg" if tag.quantity == "combustible_gas" else "chlorine"


def _invented_position(name: str, distance_m: float) -> Position:
    """A place for something that no layout mentions; the same name always gets the same one."""
    angle = 2.0 * math.pi * hashlib.sha256(name.encode()).digest()[0] / 256.0
    return Position(x_m=distance_m * math.sin(angle), y_m=distance_m * math.cos(angle))
