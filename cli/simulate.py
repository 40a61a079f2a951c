"""`hazardgate simulate`: the simulated plant and the simulated municipal platform as processes of their own."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from cli.language import say
from cli.running import refuse, run_until_stopped, unusable
from config import SecretError, SiteConfig, read_secret
from simulators import (
    PlatformSettings,
    SimulatedPlant,
    SimulationSettings,
    SimulatorError,
    load_scenario,
    run_platform,
    run_simulation,
)

HTTP_PORT = 80


def plant_command(site: SiteConfig, scenario: str, data: Path, seed: int, *, free_ports: bool, hold: bool) -> int:
    """Run a plant until stopped; its logs and addresses stand in the data folder."""
    folder = _folder(data, "plant")
    ports = {(edge.id, bus.id): 0 for edge in site.edges for bus in edge.buses} if free_ports else None
    settings = SimulationSettings(directory=folder, seed=seed, ports=ports, hold=hold)
    try:
        wanted = load_scenario(scenario)

        async def serve(stop: asyncio.Event) -> None:
            started: asyncio.Future[SimulatedPlant] = asyncio.get_running_loop().create_future()
            started.add_done_callback(lambda plant: print(_plant_line(plant.result()), flush=True))
            await run_simulation(site, wanted, settings, stop, started)

        run_until_stopped(serve)
    except SimulatorError as error:
        raise refuse(error) from None
    return 0


def platform_command(site: SiteConfig, base_dir: Path, data: Path, port: int | None) -> int:
    """Run the platform until stopped; what it received stands in the data folder.

    Without a port it listens where the site's receivers are sought, if that is on loopback; port 0 is a free one.
    """
    folder = _folder(data, "platform")
    try:
        secrets = {receiver.id: (read_secret(receiver, base_dir),) for receiver in site.receivers}
        settings = PlatformSettings(secrets=secrets, directory=folder, port=receiver_port(site) if port is None else port)

        async def serve(stop: asyncio.Event) -> None:
            started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            started.add_done_callback(lambda url: print(_platform_line(url.result()), flush=True))
            await run_platform(settings, stop, started)

        run_until_stopped(serve)
    except (SimulatorError, SecretError) as error:
        raise refuse(error) from None
    return 0


def receiver_port(site: SiteConfig) -> int:
    """Return the port of the first receiver that is sought over plain http on IPv4 loopback, else 0."""
    for receiver in site.receivers:
        url = urlsplit(receiver.url)
        if url.scheme == "http" and _on_loopback(url.hostname or ""):
            return url.port or HTTP_PORT
    return 0


def _on_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _plant_line(plant: SimulatedPlant) -> str:
    places = ", ".join(f"{bus} {host}:{port}" for bus, (host, port) in plant.bank.addresses.items())
    return say(f"仿真工厂：{places}", f"simulated plant: {places}")


def _platform_line(url: str) -> str:
    return say(
        f"仿真平台：{url}，通知发到 {url}/hooks/接收方编号，统计见 {url}/summary",
        f"simulated platform: {url}, notices go to {url}/hooks/RECEIVER, counts are at {url}/summary",
    )


def _folder(data: Path, name: str) -> Path:
    folder = data / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse(unusable(folder, error)) from None
    return folder
