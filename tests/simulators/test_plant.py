"""The plant model: calm unless told otherwise, the same for the same seed, and obedient to scenario steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators import Plant, field_of
from simulators.dispersion import GASES, Leak, Wind, concentration
from simulators.layout import Detector, Layout, Position
from simulators.scenario import FillStep, LeakStep, PlantStep, ReleaseStep, SensorStep, SetStep, WindStep
from tests.simulators.small_site import small_site

FIELD = field_of(small_site())
LAYOUT = Layout(
    sources={"V1": Position(x_m=0, y_m=0)},
    detectors={"CL2.A1": Detector(x_m=0, y_m=12, gas="chlorine")},
)


def plant(seed: int = 1) -> Plant:
    return Plant(FIELD.tags, LAYOUT, seed)


def course(model: Plant, tag: str, seconds: float, dt: float = 0.5) -> list[float]:
    i = model.index[tag]
    return [float(model.step(dt)[i]) for _ in range(round(seconds / dt))]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 2.0]))
def test_left_alone_nothing_alarms(seed: int, dt: float) -> None:
    model = plant(seed)
    for _ in range(200):
        value = model.step(dt)
        for tag, shown in zip(FIELD.tags, value, strict=True):
            assert tag.low <= shown <= tag.high
            for limit in tag.limits:
                over = shown >= limit.setpoint if limit.high_side else shown <= limit.setpoint
                assert not over, (tag.id, limit.kind, shown)


def test_the_seed_decides_everything() -> None:
    def walk(seed: int) -> list[float]:
        model = plant(seed)
        model.apply(LeakStep(do="leak", equipment="V1", gas="chlorine", rate_g_s=1))
        return [v for _ in range(50) for v in model.step(0.5).tolist()]

    assert walk(7) == walk(7)
    assert walk(7) != walk(8)


def test_values_move_and_sit_on_the_converter_steps() -> None:
    model = plant()
    tag = FIELD.tags[model.index["V1.PRESSURE"]]
    seen = course(model, tag.id, 30)
    assert len(set(seen)) > 10
    lsb = (tag.high - tag.low) / 2**LAYOUT.adc_bits
    assert all(abs((v - tag.low) / lsb - round((v - tag.low) / lsb)) < 1e-6 for v in seen)


def test_a_leak_is_seen_down_wind_after_the_cloud_has_travelled_and_goes_when_it_stops() -> None:
    model = plant()
    model.apply(WindStep(do="wind", speed_m_s=3, from_deg=180, over_s=0))
    course(model, "CL2.A1", 5)
    model.apply(LeakStep(do="leak", equipment="V1", gas="chlorine", rate_g_s=2, ramp_s=0))
    first = course(model, "CL2.A1", 2.5)
    assert max(first) < 1.0, "12 m at 3 m/s take 4 s"
    assert max(course(model, "CL2.A1", 20)) > 2.0
    model.apply(LeakStep(do="leak", equipment="V1", gas="chlorine", rate_g_s=0, ramp_s=0))
    assert course(model, "CL2.A1", 40)[-1] < 0.9


def test_a_leak_is_not_seen_up_wind() -> None:
    model = plant()
    model.apply(WindStep(do="wind", speed_m_s=3, from_deg=0, over_s=0))
    course(model, "CL2.A1", 2)
    model.apply(LeakStep(do="leak", equipment="V1", gas="chlorine", rate_g_s=50, ramp_s=0))
    assert max(course(model, "CL2.A1", 30)) < 1.0


def test_filling_raises_the_level_to_the_top_and_emptying_lowers_it() -> None:
    model = plant()
    model.apply(FillStep(do="fill", equipment="V1", percent_per_s=10))
    rising = course(model, "V1.LEVEL", 3)
    assert rising[-1] > rising[0] + 1.5
    assert course(model, "V1.LEVEL", 20)[-1] >= 9.0
    model.apply(FillStep(do="fill", equipment="V1", percent_per_s=-10))
    assert course(model, "V1.LEVEL", 20)[-1] < 1.0


def test_a_driven_tag_ramps_holds_and_comes_back() -> None:
    model = plant()
    start = course(model, "V1.TEMP", 1)[-1]
    model.apply(SetStep(do="set", tag="V1.TEMP", value=50, ramp_s=10))
    half = course(model, "V1.TEMP", 5)[-1]
    assert half == pytest.approx((start + 50) / 2, abs=1)
    assert course(model, "V1.TEMP", 10)[-1] == pytest.approx(50, abs=0.01)
    model.apply(ReleaseStep(do="release", tag="V1.TEMP", ramp_s=2))
    assert course(model, "V1.TEMP", 5)[-1] < 39


def test_a_contact_shows_only_0_and_1_and_rests_outside_its_alarm_state() -> None:
    model = plant()
    assert set(course(model, "V1.DOOR", 5)) == {0.0}
    assert set(course(model, "V1.SUPPLY", 5)) == {1.0}
    model.apply(SetStep(do="set", tag="V1.DOOR", value=1))
    assert set(course(model, "V1.DOOR", 5)) == {1.0}


@pytest.mark.parametrize(
    ("fault", "value", "holds"),
    [
        ("nan", 0.0, lambda seen: all(map(math.isnan, seen))),
        ("stuck", 0.0, lambda seen: len(set(seen)) == 1),
        ("offset", 0.5, lambda seen: min(seen) > 0.7),
        ("over_range", 0.0, lambda seen: min(seen) > 1.6),
        ("under_range", 0.0, lambda seen: max(seen) < 0.0),
        ("drift", 0.1, lambda seen: seen[-1] > seen[0] + 0.8),
        ("noise", 0.2, lambda seen: max(seen) - min(seen) > 0.3),
    ],
)
def test_sensor_faults_show_and_heal(fault: str, value: float, holds: object) -> None:
    model = plant()
    course(model, "V1.PRESSURE", 5)
    model.apply(SensorStep.model_validate({"do": "sensor", "tag": "V1.PRESSURE", "fault": fault, "value": value}))
    assert holds(course(model, "V1.PRESSURE", 10))  # type: ignore[operator]
    model.apply(SensorStep(do="sensor", tag="V1.PRESSURE", fault="ok"))
    healed = course(model, "V1.PRESSURE", 10)
    assert 0.0 < min(healed) <= max(healed) < 0.9
    assert len(set(healed)) > 1


def test_wind_turns_the_short_way_and_is_what_its_instruments_show() -> None:
    model = plant()
    model.apply(WindStep(do="wind", speed_m_s=6, from_deg=350, over_s=0))
    course(model, "WIND.FROM", 2)
    model.apply(WindStep(do="wind", speed_m_s=6, from_deg=20, over_s=2))
    seen = course(model, "WIND.FROM", 10)
    assert all(v > 300 or v < 60 for v in seen)
    assert course(model, "WIND.SPEED", 5)[-1] == pytest.approx(6, abs=2.5)


@given(st.floats(1, 100), st.floats(0.5, 20), st.floats(1, 500))
def test_concentration_grows_with_the_rate_and_falls_beside_the_axis(rate: float, speed: float, along: float) -> None:
    wind = Wind(speed_m_s=speed, from_deg=180.0)

    def at(x: float, y: float, rate_g_s: float) -> float:
        leak = Leak("chlorine", 0, 0)
        leak.past.append((0.0, rate_g_s))
        return concentration(leak, wind, x, y, 10_000.0)

    axis = at(0, along, rate)
    assert axis > 0
    assert at(0, along, 2 * rate) == pytest.approx(2 * axis)
    assert at(5, along, rate) < axis
    assert at(0, -along, rate) == 0


@pytest.mark.parametrize(
    ("gas", "mg_m3", "unit", "expected"),
    [
        ("chlorine", 2.9, "ppm", 1.0),
        ("ammonia", 104.48, "ppm", 150.0),
        ("chlorine", 5.0, "mg/m3", 5.0),
        ("ammonia", 5.0, "ug/m3", 5000.0),
        ("lpg", 1.9e4 * 48.0 / 24.45, "%LEL", 100.0),
        ("ammonia", 1e4 * 17.03 / 24.45, "%VOL", 1.0),
    ],
)
def test_units_of_detectors(gas: str, mg_m3: float, unit: str, expected: float) -> None:
    assert GASES[gas].to_unit(mg_m3, unit) == pytest.approx(expected, rel=1e-3)


def test_a_unit_without_a_conversion_is_refused() -> None:
    with pytest.raises(ValueError, match="LEL"):
        GASES["chlorine"].to_unit(1.0, "%LEL")


def test_a_site_without_a_layout_is_quiet_too() -> None:
    model = Plant(FIELD.tags, Layout(), 3)
    steps: Sequence[PlantStep] = [WindStep(do="wind", speed_m_s=2, from_deg=10)]
    for step in steps:
        model.apply(step)
    assert all(np.isfinite(model.step(0.5)).all() for _ in range(50))
