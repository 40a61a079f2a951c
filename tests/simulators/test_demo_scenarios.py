"""The five scenarios on the demo site do what their titles say, whatever the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from config import DEMO_SITE, Grade, SiteConfig, load_site
from simulators import Change, SimulatedPlant, SimulationSettings, load_scenario, scenario_names

SEEDS = range(5)
STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    at_s: float
    change: Change


@pytest.fixture(scope="module")
def site() -> SiteConfig:
    return load_site(DEMO_SITE)


def play(site: SiteConfig, name: str, seed: int, seconds: float = 60.0) -> tuple[SimulatedPlant, list[Seen]]:
    plant = SimulatedPlant(site, load_scenario(name), SimulationSettings(seed=seed))
    seen = [Seen(plant.plant.time_s, change) for _ in range(round(seconds / STEP_S)) for change in plant.step(STEP_S)]
    return plant, seen


def crossings(seen: list[Seen]) -> list[tuple[str, str, bool]]:
    """Tag, limit and direction of every crossing; dips below a setpoint that stay in the deadband are none."""
    over: dict[tuple[str, str], bool] = {}
    found = []
    for change in (s.change for s in seen):
        if over.get((change.tag, change.limit), False) != change.over:
            over[change.tag, change.limit] = change.over
            found.append((change.tag, change.limit, change.over))
    return found


def raised(seen: list[Seen], limit: str) -> set[str]:
    return {s.change.tag for s in seen if s.change.over and s.change.limit == limit}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quiet_day_crosses_no_limit_for_ten_minutes(site: SiteConfig, seed: int) -> None:
    plant, seen = play(site, "quiet-day", seed, seconds=600)
    assert seen == []
    assert not any(math.isnan(v) for v in plant.plant.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_chlorine_leak_raises_three_grades_and_some_return_by_45_s(site: SiteConfig, seed: int) -> None:
    _, seen = play(site, "chlorine-leak", seed)
    detectors = {tag for tag in raised(seen, "H") if tag.endswith(".CL2")}
    assert len(detectors) >= 2
    assert any(tag.endswith(".CL2") for tag in raised(seen, "HH"))
    rows = {(tag.id, row.kind.value): row for tag in site.tags for row in tag.limit_rows()}
    grades = {rows[s.change.tag, s.change.limit].grade for s in seen if s.change.over}
    assert grades >= {Grade.YELLOW, Grade.ORANGE, Grade.RED}
    # the yellow one stands long enough to pass its on-delay
    yellow = [s for s in seen if s.change.over and rows[s.change.tag, s.change.limit].grade is Grade.YELLOW]
    assert all(s.at_s + s.change.on_delay_s < 45 for s in yellow)
    back = {
        (s.change.tag, s.change.limit)
        for s in seen
        if not s.change.over and s.at_s + rows[s.change.tag, s.change.limit].off_delay_s < 45
    }
    assert len(back) >= 3
    assert not any(s.at_s < 5 for s in seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_leak_never_drives_a_detector_past_its_range(site: SiteConfig, seed: int) -> None:
    plant = SimulatedPlant(site, load_scenario("chlorine-leak"), SimulationSettings(seed=seed))
    for _ in range(120):
        plant.step(STEP_S)
        for tag, value in zip(plant.field.tags, plant.bank.image.value[: len(plant.field.tags)], strict=False):
            if tag.quantity == "toxic_gas":
                assert value <= tag.high


@pytest.mark.parametrize("seed", SEEDS)
def test_overfilling_passes_high_then_high_high_and_comes_back(site: SiteConfig, seed: int) -> None:
    _, seen = play(site, "overfill", seed)
    assert crossings(seen) == [
        ("LP201.LEVEL", "H", True),
        ("LP201.LEVEL", "HH", True),
        ("LP201.LEVEL", "HH", False),
        ("LP201.LEVEL", "H", False),
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_broken_sensors_show_nan_while_they_are_broken_and_the_one_past_its_range_alarms(
    site: SiteConfig, seed: int
) -> None:
    plant = SimulatedPlant(site, load_scenario("sensor-fault"), SimulationSettings(seed=seed))
    nan_tags = [plant.plant.index[tag] for tag in ("CL101.TEMPERATURE", "CLVAP.PRESSURE")]
    changes = [change for _ in range(40) for change in plant.step(STEP_S)]
    assert all(math.isnan(plant.plant.value[i]) for i in nan_tags)
    assert ("CLG05.CL2", "HH") in {(c.tag, c.limit) for c in changes}
    for _ in range(80):
        plant.step(STEP_S)
    assert not any(math.isnan(v) for v in plant.plant.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_instruments_cross_no_limit_and_all_come_back(site: SiteConfig, seed: int) -> None:
    plant, seen = play(site, "instrument-dead", seed)
    assert seen == []
    assert plant.summary()["steps_left"] == 0


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_fits_the_demo_site_and_ends_within_a_minute(site: SiteConfig, name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    SimulatedPlant(site, scenario, SimulationSettings())
    assert all(step.at_s < 60 for step in scenario.steps)
