"""`hazardgate demo` and `simulate`: a plant and a platform to try the chain on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, DataPath, SitePath, Verbose, base_dir_of, loaded_site
from cli.running import set_up_logging

demo_app = typer.Typer()
simulate_app = typer.Typer(no_args_is_help=True, help=say("仿真：工厂、市级平台", "simulators: a plant, a municipal platform"))

Seed = Annotated[int, typer.Option("--seed", help=say("随机种子", "seed of everything random"))]
SCENARIO_HELP = say("场景", "scenario") + ": quiet-day, chlorine-leak, overfill, sensor-fault, instrument-dead"


@simulate_app.command("plant", help=say(
    "在本机运行仿真工厂，前面是真实的 Modbus TCP 服务",
    "Run a simulated plant behind real Modbus TCP servers, on loopback.",
))  # fmt: skip
def simulate_plant(
    site: SitePath,
    scenario: Annotated[str, typer.Option("--scenario", help=SCENARIO_HELP)] = "quiet-day",
    data: DataPath = DEFAULT_DATA,
    seed: Seed = 1,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help=say("不用配置的端口，任取空闲端口", "ignore the configured ports"))
    ] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help=say("场景等待 begin 指令", "the scenario waits for `begin`"))
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run a simulated plant behind real Modbus TCP servers, on loopback."""
    from cli.simulate import plant_command

    set_up_logging(verbose=verbose)
    raise SystemExit(plant_command(loaded_site(site), scenario, data, seed, free_ports=free_ports, hold=hold))


@simulate_app.command("platform", help=say(
    "在本机运行仿真市级平台，逐条验签", "Run a simulated municipal platform that verifies every webhook, on loopback."
))  # fmt: skip
def simulate_platform(
    site: SitePath,
    data: DataPath = DEFAULT_DATA,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help=say(
            "端口，0 为任取； 默认为站点接收方 在本机的端口",
            "port, 0 picks a free one; by default that of the site's receivers on loopback",
        )),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run a simulated municipal platform that verifies every webhook, on loopback."""
    from cli.simulate import platform_command

    set_up_logging(verbose=verbose)
    raise SystemExit(platform_command(loaded_site(site), base_dir_of(site), data, port))


def _some_time(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise typer.BadParameter(say("应大于 0", "must be more than 0"))
    return seconds


@demo_app.command(help=say(
    "在本机运行整条链路：工厂、采集终端、消息代理、核心、市级平台",
    "Run the whole chain on this machine: plant, edges, broker, core, municipal platform.",
))  # fmt: skip
def demo(
    scenario: Annotated[str, typer.Option("--scenario", help=SCENARIO_HELP)] = "chlorine-leak",
    seconds: Annotated[
        float | None, typer.Option("--for", help=say("运行秒数", "seconds to run"), callback=_some_time)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("只输出一行 JSON", "print one JSON object at the end"))] = False,
    seed: Seed = 1,
    data: Annotated[Path | None, typer.Option("--data", help=say("数据目录", "data folder"))] = None,
) -> None:
    """Run the whole chain on this machine: plant, edges, broker, core, municipal platform."""
    from cli.demo import demo_command

    raise SystemExit(demo_command(scenario, seconds, as_json=as_json, seed=seed, data=data))
