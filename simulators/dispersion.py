"""Wind, leaks and what a gas detector down-wind of them sees. Pure; for the looks, not to plan by.

A ground-level Gaussian plume with Briggs' (1973) open-country curves for neutral air (class D), widened at
the source so that a detector three metres away sees a cloud and not a needle.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from numpy.random import Generator

SOURCE_WIDTH_M = 3.0
WIND_M_S_MIN = 0.3
LITRE_PER_MOL_25C = 24.45
HISTORY_S = 120.0


@dataclass(frozen=True, slots=True)
class Gas:
    """What converts mass concentration to the units of detectors."""

    molar_mass: float  # g/mol
    lel_percent: float | None  # lower explosive limit in %VOL; None when it does not burn

    def to_unit(self, mg_m3: float, unit: str) -> float:
        """Concentration in `unit`: mg/m3, ug/m3, ppm, ppb, %VOL or %LEL, at 25 °C and 101.3 kPa.

        Raises:
            ValueError: the unit is not one of these, or %LEL of a gas that does not burn.
        """
        ppm = mg_m3 * LITRE_PER_MOL_25C / self.molar_mass
        match unit.lower():
            case "ug/m3":
                return 1000.0 * mg_m3
            case "ppb":
                return 1000.0 * ppm
            case "mg/m3":
                return mg_m3
            case "ppm":
                return ppm
            case "%vol":
                return ppm / 1e4
            case "%lel" if self.lel_percent is not None:
                return ppm / 1e4 / self.lel_percent * 100.0
        raise ValueError(f"no way from mg/m3 to {unit!r}")


GASES = {  # LEL: common handbook values, for the looks of the demo only
    "chlorine": Gas(70.9, None),
    "ammonia": Gas(17.03, 15.0),
    "lpg": Gas(48.0, 1.9),
    "hydrogen_sulfide": Gas(34.1, 4.0),
}


@dataclass(slots=True)
class Wind:
    """Wind that wanders around a target. `from_deg`: where it comes from, clockwise from north."""

    speed_m_s: float = 2.5
    from_deg: float = 90.0
    target_speed_m_s: float = 2.5
    target_from_deg: float = 90.0
    settle_s: float = 8.0

    def aim(self, speed_m_s: float, from_deg: float, settle_s: float) -> None:
        """Let the wind turn towards a new mean within about `settle_s`."""
        self.target_speed_m_s, self.target_from_deg = speed_m_s, from_deg % 360.0
        self.settle_s = max(settle_s, 0.01)

    def step(self, dt: float, random: Generator) -> None:
        """Advance `dt` seconds."""
        pull = 1.0 - math.exp(-dt / self.settle_s)
        turn = (self.target_from_deg - self.from_deg + 180.0) % 360.0 - 180.0
        self.from_deg = (self.from_deg + pull * turn + 1.5 * math.sqrt(dt) * random.standard_normal()) % 360.0
        gust = 0.04 * self.target_speed_m_s * math.sqrt(dt) * random.standard_normal()
        self.speed_m_s += pull * (self.target_speed_m_s - self.speed_m_s) + gust
        self.speed_m_s = max(self.speed_m_s, WIND_M_S_MIN)


@dataclass(slots=True)
class Leak:
    """A release at one place; the rate ramps, and its past is kept because a cloud takes time to travel."""

    gas: str
    x_m: float
    y_m: float
    rate_g_s: float = 0.0
    target_g_s: float = 0.0
    ramp_g_s2: float = 0.0
    past: deque[tuple[float, float]] = field(default_factory=deque)  # (time_s, rate_g_s)

    def aim(self, rate_g_s: float, ramp_s: float) -> None:
        """Let the rate go to `rate_g_s` within `ramp_s`."""
        self.target_g_s = rate_g_s
        self.ramp_g_s2 = abs(rate_g_s - self.rate_g_s) / max(ramp_s, 0.01)

    def step(self, time_s: float, dt: float) -> None:
        """Advance to `time_s`."""
        change = self.target_g_s - self.rate_g_s
        self.rate_g_s += math.copysign(min(abs(change), self.ramp_g_s2 * dt), change)
        self.past.append((time_s, self.rate_g_s))
        while self.past[0][0] < time_s - HISTORY_S:
            self.past.popleft()

    def rate_at(self, time_s: float) -> float:
        """The rate at an earlier moment, g/s; 0 before the leak began."""
        for moment, rate in reversed(self.past):
            if moment <= time_s:
                return rate
        return 0.0


def concentration(leak: Leak, wind: Wind, x_m: float, y_m: float, time_s: float) -> float:
    """mg/m3 that the leak makes at a place now; 0 up-wind of it."""
    towards = math.radians(wind.from_deg + 180.0)
    east, north = math.sin(towards), math.cos(towards)
    dx, dy = x_m - leak.x_m, y_m - leak.y_m
    along = dx * east + dy * north
    if along <= 0.0:
        return 0.0
    across = dx * north - dy * east
    sigma_y = SOURCE_WIDTH_M + 0.08 * along / math.sqrt(1.0 + 0.0001 * along)
    sigma_z = SOURCE_WIDTH_M / 2.0 + 0.06 * along / math.sqrt(1.0 + 0.0015 * along)
    rate_mg_s = 1000.0 * leak.rate_at(time_s - along / wind.speed_m_s)
    peak = rate_mg_s / (math.pi * wind.speed_m_s * sigma_y * sigma_z)
    return peak * math.exp(-0.5 * (across / sigma_y) ** 2)
