"""Scenarios: what happens in the simulated plant, second by second. A closed YAML schema."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict
from pydantic import Field as PydanticField

from simulators.dispersion import GASES
from simulators.errors import ScenarioError, UnknownScenarioError
from simulators.field import Field
from simulators.instrument_faults import DELAY_S_MAX, FaultKind
from simulators.layout import HERE, parse_model

SCENARIOS = HERE / "scenarios"
STEPS_MAX = 1000
RATE_G_S_MAX = 100_000.0


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Text(_Closed):
    """A text in both languages."""

    zh: str
    en: str


class _Step(_Closed):
    at_s: float = PydanticField(0.0, ge=0, le=86_400, description="seconds after the start")


class WindStep(_Step):
    """Turn the wind."""

    do: Literal["wind"]
    speed_m_s: float = PydanticField(ge=0.3, le=60)
    from_deg: float = PydanticField(ge=0, le=360, description="where it comes from, clockwise from north")
    over_s: float = PydanticField(8.0, ge=0, le=3600)


class LeakStep(_Step):
    """Start a leak, or change its rate (0 stops it)."""

    do: Literal["leak"]
    equipment: str
    gas: str
    rate_g_s: float = PydanticField(ge=0, le=RATE_G_S_MAX)
    ramp_s: float = PydanticField(2.0, ge=0, le=3600)


class FillStep(_Step):
    """Fill a tank (negative: empty it; 0: stop). The level stays where the flow left it."""

    do: Literal["fill"]
    equipment: str
    percent_per_s: float = PydanticField(ge=-100, le=100, description="of the level instrument's range")


class SetStep(_Step):
    """Drive one tag to a value, whatever the model says."""

    do: Literal["set"]
    tag: str
    value: float
    ramp_s: float = PydanticField(0.0, ge=0, le=3600)


class ReleaseStep(_Step):
    """Give a driven tag back to the model."""

    do: Literal["release"]
    tag: str
    ramp_s: float = PydanticField(0.0, ge=0, le=3600)


class SensorStep(_Step):
    """Break a sensor; the instrument keeps answering. `ok` repairs it."""

    do: Literal["sensor"]
    tag: str
    fault: Literal["ok", "nan", "stuck", "offset", "noise", "drift", "over_range", "under_range"]
    value: float = PydanticField(0.0, description="offset, noise: in the tag's unit; drift: per second")


class InstrumentStep(_Step):
    """Break an instrument's line. `ok` repairs it."""

    do: Literal["instrument"]
    device: str
    fault: FaultKind | Literal["ok"]
    code: int = PydanticField(4, ge=1, le=255, description="exception code")
    delay_s: float = PydanticField(1.0, ge=0, le=DELAY_S_MAX)
    first: int | None = PydanticField(None, ge=0, le=65535, description="only reads that touch first…last")
    last: int | None = PydanticField(None, ge=0, le=65535)


PlantStep = WindStep | LeakStep | FillStep | SetStep | ReleaseStep | SensorStep
Step = Annotated[PlantStep | InstrumentStep, PydanticField(discriminator="do")]


class Scenario(_Closed):
    """A named course of events."""

    version: Literal[1]
    name: str = PydanticField(pattern=r"^[a-z][a-z0-9-]{1,31}$")
    title: Text
    steps: tuple[Step, ...] = PydanticField((), max_length=STEPS_MAX)

    def timed(self) -> tuple[PlantStep | InstrumentStep, ...]:
        """The steps by time; steps of one moment in the order written."""
        return tuple(sorted(self.steps, key=lambda step: step.at_s))

    def check(self, field: Field) -> None:
        """Raise `ScenarioError` naming everything that this site does not have."""
        tags = [tag.id for tag in field.tags]
        problems: list[str] = []
        for i, step in enumerate(self.steps):
            for word, known in (
                ("tag", tags),
                ("equipment", field.equipment),
                ("device", field.devices),
                ("gas", GASES),
            ):
                name = getattr(step, word, None)
                if name is not None and name not in known:
                    problems.append(f"steps.{i}: no {word} {name!r}{_nearest(name, known)}")
        if problems:
            raise ScenarioError(f"scenario {self.name} does not fit site {field.site}: " + "; ".join(problems))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def scenario_names() -> tuple[str, ...]:
    """The scenarios that come with the simulators."""
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.yaml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Load a scenario by name, or from a `.yaml` file.

    Raises:
        ScenarioError: no such scenario, or the file is not one; says which there are.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        name = str(name_or_path)
        if name not in scenario_names():
            hint = _nearest(name, scenario_names())
            raise UnknownScenarioError(name, hint, scenario_names())
        path = SCENARIOS / f"{name}.yaml"
    return parse_model(Scenario, path)
