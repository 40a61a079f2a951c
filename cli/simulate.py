"""`hazardgate simulate`: the simulated plant and the simulated municipal platform as processes of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cli.running import refuse, run_until_stopped, unusable
from config import SecretError, SiteConfig, read_secret
from simulators import (
    PlatformSettings,
    SimulationSettings,
    SimulatorError,
    load_scenario,
    run_platform,
    run_simulation,
)


def plant_command(site: SiteConfig, scenario: str, data: Path, seed: int, *, free_ports: bool, hold: bool) -> int:
    """Run a plant until stopped; its logs and addresses stand in the data folder."""
    folder = _folder(data, "plant")
    ports = {(edge.id, bus.id): 0 for edge in site.edges for bus in edge.buses} if free_ports else None
    settings = SimulationSettings(directory=folder, seed=seed, ports=ports, hold=hold)
    try:
        wanted = load_scenario(scenario)
        run_until_stopped(lambda stop: run_simulation(site, wanted, settings, stop))
    except SimulatorError as error:
        raise refuse(error) from None
    return 0


def platform_command(site: SiteConfig, base_dir: Path, data: Path, port: int) -> int:
    """Run the platform until stopped; what it received stands in the data folder."""
    folder = _folder(data, "platform")
    try:
        secrets = {receiver.id: (read_secret(receiver, base_dir),) for receiver in site.receivers}
        settings = PlatformSettings(secrets=secrets, directory=folder, port=port)

        async def serve(stop: asyncio.Event) -> None:
            await run_platform(settings, stop)

        run_until_stopped(serve)
    except (SimulatorError, SecretError) as error:
        raise refuse(error) from None
    return 0


def _folder(data: Path, name: str) -> Path:
    folder = data / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse(unusable(folder, error)) from None
    return folder
