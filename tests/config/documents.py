"""A small sound site, and a way to spoil one place of it."""

from __future__ import annotations

from config import ConfigErrors, ConfigProblem, SiteConfig, check_text, parse_site

FILE = "plant.yaml"

SOUND = """\
version: 1
site: TEST
name: Test site
region:
  city: {code: "990000", name: City}
  county: {code: "990100", name: County}
  park: {code: "990101", name: Park}
  enterprise: {code: "990101001", name: Enterprise}
hazard_sources:
  - id: HS1
    name: Tank farm
    kind: storage
    equipment:
      - {id: T101, name: Tank, kind: tank}
tags:
  - id: T101.LEVEL
    name: Level
    equipment: T101
    quantity: level
    unit: m
    range: {low: 0, high: 12}
    limits:
      L: {setpoint: 1, deadband: 0.2, grade: blue, guidance: Stop the pump first.}
      H: {setpoint: 9, deadband: 0.2, grade: yellow, guidance: Stop the filling first.}
      HH: {setpoint: 10, deadband: 0.2, grade: red, guidance: Close the inlet valve now.}
  - id: T101.TEMPERATURE
    name: Temperature
    equipment: T101
    quantity: temperature
    unit: °C
    range: {low: -40, high: 80}
    report_deadband: 0.5
  - id: T101.INLET_OPEN
    name: Inlet valve open
    equipment: T101
    quantity: valve_state
    limits:
      state: {alarm_value: 1, grade: orange, guidance: Close the inlet valve now.}
receivers:
  - id: CITY
    name: City platform
    url: https://city.example/hooks
    secret_env: CITY_SECRET
    regulator: true
edges:
  - id: E1
    buses:
      - {id: B1, host: 10.0.0.5}
    devices:
      - id: D1
        bus: B1
        unit: 1
        points:
          - {tag: T101.LEVEL, table: holding, address: 0, type: f32}
          - {tag: T101.TEMPERATURE, table: holding, address: 2, type: i16, scale: 0.1}
          - {tag: T101.INLET_OPEN, table: coil, address: 0, type: bit}
"""


def spoiled(old: str, new: str, text: str = SOUND) -> str:
    """Return `text` with `old`, which stands in it exactly once, replaced."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def sound_site() -> SiteConfig:
    return parse_site(SOUND, FILE)


def problems_of(text: str) -> tuple[ConfigProblem, ...]:
    """Return the errors of a document; empty when it loads."""
    try:
        parse_site(text, FILE)
    except ConfigErrors as errors:
        return errors.problems
    return ()


def warnings_of(text: str) -> tuple[ConfigProblem, ...]:
    """Return the warnings of a document that loads."""
    return check_text(text, FILE).warnings


def line_of(text: str, part: str) -> int:
    """Return the line, from 1, on which `part` first stands."""
    return text[: text.index(part)].count("\n") + 1
