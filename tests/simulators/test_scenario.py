"""Scenario files are closed, checked against the site, and explain themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators import ScenarioError, field_of, load_scenario, scenario_names
from tests.simulators.small_site import small_site

GOOD = """
version: 1
name: drill
title: {zh: 演练, en: Drill}
steps:
  - {at_s: 5, do: set, tag: V1.TEMP, value: 50}
  - {at_s: 1, do: wind, speed_m_s: 2, from_deg: 90}
  - {at_s: 5, do: instrument, device: E1/GAS, fault: no_answer}
"""


def load(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "drill.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_scenario(path)


def test_steps_happen_by_time_and_then_as_written(tmp_path: Path) -> None:
    path = tmp_path / "drill.yaml"
    path.write_text(GOOD, encoding="utf-8")
    scenario = load_scenario(path)
    assert [step.do for step in scenario.timed()] == ["wind", "set", "instrument"]
    scenario.check(field_of(small_site()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(("value: 50", "value: 50, valeu: 1"), "valeu", id="unknown key"),
        pytest.param(("do: set", "do: sett"), "sett", id="unknown step"),
        pytest.param(("at_s: 5", "at_s: -5"), "at_s", id="before the start"),
        pytest.param(("value: 50", "value: .nan"), "finite", id="not a number"),
        pytest.param(("version: 1", "version: 2"), "version", id="another version"),
        pytest.param(("name: drill", "name: drill\nname: again"), "duplicate", id="a key twice"),
        pytest.param(("{zh: 演练, en: Drill}", "&a {zh: 演练, en: Drill}\nx: *a"), "aliases", id="an alias"),
        pytest.param(("fault: no_answer", "fault: explode"), "fault", id="unknown fault"),
        pytest.param(("steps:", "\tsteps:"), "drill.yaml", id="a tab"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        load(tmp_path, GOOD.replace(*change, 1))


def test_not_text_not_there_and_too_large(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="UTF-8"):
        load(tmp_path, b"\xff\xfe")
    with pytest.raises(ScenarioError, match="larger"):
        load(tmp_path, b"#" * 300_000)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "none.yaml")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'quiet-day'"):
        load_scenario("quiet-dya")


def test_what_the_site_does_not_have_is_named_all_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("V1.TEMP", "V1.TEPM").replace("E1/GAS", "E1/GAZ")
    path = tmp_path / "drill.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"V1\.TEPM.*V1\.TEMP.*E1/GAZ"):
        load_scenario(path).check(field_of(small_site()))


def test_the_five_scenarios_are_there() -> None:
    assert set(scenario_names()) >= {"quiet-day", "chlorine-leak", "overfill", "sensor-fault", "instrument-dead"}
