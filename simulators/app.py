"""A simulated plant that runs: model, instruments, scenario and control port, joined."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from config import SiteConfig
from simulators.bank import InstrumentBank
from simulators.changes import Change
from simulators.control import serve_control
from simulators.errors import ControlRefusedError
from simulators.field import field_of
from simulators.instrument_faults import FaultKind, InstrumentFault
from simulators.jsonlines import JsonLines, write_json
from simulators.layout import Layout, load_layout
from simulators.plant import Plant
from simulators.scenario import InstrumentStep, PlantStep, Scenario, Step, Text

PLANT_FILE = "plant.json"
STEPS_FILE = "steps.jsonl"
LATE_S_MAX = 5.0
_STEP: TypeAdapter[PlantStep | InstrumentStep] = TypeAdapter(Step)


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """How a plant runs.

    `directory` gets the logs (see `InstrumentBank`), `steps.jsonl` and `plant.json`; None keeps no files.
    `ports`: (edge id, bus id) → port instead of the configured one, 0 for a free one.
    `hold`: the scenario's clock waits for `begin()`.
    """

    directory: Path | None = None
    seed: int = 1
    step_s: float = 0.5
    ports: Mapping[tuple[str, str], int] | None = None
    control_port: int = 0
    hold: bool = False


class SimulatedPlant:
    """`async with SimulatedPlant(…) as plant:` listens; `await plant.run(stop)` lets time pass.

    Without `run`, the caller moves time with `step(dt)`.
    """

    def __init__(
        self, site: SiteConfig, scenario: Scenario, settings: SimulationSettings, layout: Layout | None = None
    ) -> None:
        """Join the parts.

        Raises:
            ScenarioError: the scenario names something that the site does not have.
        """
        self.field = field_of(site, settings.ports)
        scenario.check(self.field)
        self._settings = settings
        self.plant = Plant(self.field.tags, layout or load_layout(site.site), settings.seed)
        self.bank = InstrumentBank(self.field, settings.directory, settings.seed)
        self._steps = list(scenario.timed())
        self._scenario_name = scenario.name
        self._began_s: float | None = None if settings.hold else 0.0
        self._steps_file = None if settings.directory is None else JsonLines(settings.directory / STEPS_FILE)
        self._control: asyncio.Server | None = None
        self.control_port = 0
        self.bank.write(self.plant.value)

    async def __aenter__(self) -> SimulatedPlant:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the instruments and the control port, and say where in `plant.json`."""
        await self.bank.start()
        self._control = await serve_control(self.obey, self._settings.control_port)
        self.control_port = self._control.sockets[0].getsockname()[1]
        if self._settings.directory is not None:
            write_json(
                self._settings.directory / PLANT_FILE,
                {
                    "pid": os.getpid(),
                    "control_port": self.control_port,
                    "scenario": self._scenario_name,
                    "seed": self._settings.seed,
                    "addresses": {name: list(address) for name, address in self.bank.addresses.items()},
                },
            )

    async def stop(self) -> None:
        """Close everything; safe to call twice."""
        if self._control is not None:
            self._control.close()
            self._control = None
        await self.bank.stop()
        if self._steps_file is not None:
            self._steps_file.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Let time pass at its own pace until `stop` is set."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            self.step(self._settings.step_s)
            self.bank.flush()
            due += self._settings.step_s
            if loop.time() - due > LATE_S_MAX:  # the machine slept: go on from here, do not rush after it
                due = loop.time()
            try:
                async with asyncio.timeout_at(due):
                    await stop.wait()
            except TimeoutError:
                continue

    def begin(self) -> None:
        """Start the scenario's clock when it was held."""
        if self._began_s is None:
            self._began_s = self.plant.time_s

    def step(self, dt: float) -> list[Change]:
        """Advance plant and scenario by `dt` seconds, and show the result to all readers at once."""
        while self._began_s is not None and self._steps and self._steps[0].at_s <= self.plant.time_s - self._began_s:
            self.apply(self._steps.pop(0))
        return self.bank.write(self.plant.step(dt))

    def apply(self, step: PlantStep | InstrumentStep) -> None:
        """Let a scenario step happen now."""
        if isinstance(step, InstrumentStep):
            self.bank.set_fault(step.device, _fault_of(step))
        else:
            self.plant.apply(step)
        if self._steps_file is not None:
            self._steps_file.write({"at_ms": time.time() * 1000, **step.model_dump(mode="json")}, flush=True)

    def obey(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Do one control request (see `simulators.control`).

        Raises:
            ControlRefusedError, ScenarioError: not a step, or it names what is not there.
        """
        match wanted.get("do"):
            case "begin":
                self.begin()
            case "drop_connections":
                self.bank.drop_connections()
            case "status":
                self.bank.flush()
            case _:
                self._apply_wanted(wanted)
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Where the plant is: its time, steps left, request and change counts."""
        return {
            "time_s": self.plant.time_s,
            "scenario": self._scenario_name,
            "steps_left": len(self._steps),
            **self.bank.summary(),
        }

    def _apply_wanted(self, wanted: dict[str, Any]) -> None:
        try:
            step = _STEP.validate_json(json.dumps(wanted))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ControlRefusedError(f"not a scenario step: {problems}") from error
        Scenario(version=1, name="control", title=Text(zh="-", en="-"), steps=(step,)).check(self.field)
        self.apply(step)


def _fault_of(step: InstrumentStep) -> InstrumentFault | None:
    if step.fault == "ok":
        return None
    return InstrumentFault(FaultKind(step.fault), step.code, step.delay_s, step.first, step.last)


async def run_simulation(
    site: SiteConfig,
    scenario: Scenario,
    settings: SimulationSettings,
    stop: asyncio.Event,
    started: asyncio.Future[SimulatedPlant] | None = None,
) -> dict[str, Any]:
    """Run a plant until `stop` is set and return its last summary.

    Raises:
        NotLoopbackError, PortTakenError, ScenarioError: it cannot start.
    """
    async with SimulatedPlant(site, scenario, settings) as plant:
        if started is not None and not started.done():
            started.set_result(plant)
        await plant.run(stop)
        return plant.summary()
