"""The subcommands: they parse what was typed, load what they need, and hand over. No rule of the system lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.language import make_output_safe, say
from cli.running import refuse, run_until_stopped, set_up_logging

if TYPE_CHECKING:
    from config import BrokerConfig, SiteConfig
    from wire import AioMqttConnector

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help=say("重大危险源监测网关", "Monitoring gateway for major hazard sources"),
)  # fmt: skip
edge_app = typer.Typer(no_args_is_help=True, help=say("采集终端：运行、导出配置", "edge agent: run it, export its file"))
simulate_app = typer.Typer(no_args_is_help=True, help=say("仿真：工厂、市级平台", "simulators: a plant, a municipal platform"))
app.add_typer(edge_app, name="edge")
app.add_typer(simulate_app, name="simulate")

SitePath = Annotated[Path, typer.Argument(help=say("站点配置文件或目录", "site file, or its folder"))]
DataPath = Annotated[Path, typer.Option("--data", help=say("数据目录", "data folder"))]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=say("详细日志", "more log"))]
DEFAULT_DATA = Path("hazardgate-data")


def main() -> None:
    """Entry point."""
    make_output_safe()
    app()


def _site(path: Path) -> SiteConfig:
    from config import ConfigError, load_site

    try:
        return load_site(path)
    except ConfigError as error:
        raise refuse(str(error)) from None


def _base_dir(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _connector(broker: BrokerConfig, base_dir: Path) -> AioMqttConnector:
    import ssl

    from config import SecretError, read_broker_password
    from wire import AioMqttConnector, BrokerAddress

    try:
        password = read_broker_password(broker, base_dir)
        tls = None
        if broker.tls is not None:
            tls = ssl.create_default_context(cafile=str(base_dir / broker.tls.ca_file))
            if broker.tls.cert_file is not None:
                key = None if broker.tls.key_file is None else str(base_dir / broker.tls.key_file)
                tls.load_cert_chain(str(base_dir / broker.tls.cert_file), key)
    except SecretError as error:
        raise refuse(str(error)) from None
    except OSError as error:  # ssl.SSLError is one
        raise refuse(f"broker.tls: {error}; check ca_file, cert_file and key_file") from None
    return AioMqttConnector(
        BrokerAddress(broker.host, broker.port, broker.username, password, tls, keepalive_s=broker.keepalive_s)
    )


@app.command()
def check(site: SitePath, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Check a site file: every error at once, with its place and the nearest valid word."""
    from cli.check import check_command

    raise SystemExit(check_command(site, as_json=as_json))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the site file, for editors."""
    from config import site_schema_text

    typer.echo(site_schema_text(), nl=False)


@app.command()
def core(
    site: SitePath,
    data: DataPath = DEFAULT_DATA,
    restored: Annotated[
        bool,
        typer.Option("--restored", help=say("账本由备份恢复：换用新编号", "the ledger was restored: renew its id")),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run the core: MQTT in, evaluated, committed, acknowledged, delivered."""
    from alerting.delivery import DeliveryError
    from config import SecretError, read_secret
    from gateway.core import CoreError, run_core

    set_up_logging(verbose=verbose)
    loaded, base_dir = _site(site), _base_dir(site)
    connector = _connector(loaded.broker, base_dir)
    try:
        secrets = {receiver.id: read_secret(receiver, base_dir) for receiver in loaded.receivers}
        run_until_stopped(
            lambda stop: run_core(
                loaded, data, stop, connector=connector, secrets=secrets, base_dir=base_dir, restored=restored
            )
        )
    except (CoreError, SecretError, DeliveryError) as error:
        raise refuse(str(error)) from None


@edge_app.command("run")
def edge_run(
    file: Annotated[Path, typer.Argument(help=say("终端配置文件", "the edge's own file"))],
    data: DataPath = DEFAULT_DATA,
    verbose: Verbose = False,
) -> None:
    """Run one edge agent: instruments to spool to MQTT. It cannot write to an instrument."""
    from config import ConfigError, load_edge
    from edge import EdgeError, run_edge

    set_up_logging(verbose=verbose)
    try:
        edge_file = load_edge(file)
    except ConfigError as error:
        raise refuse(str(error)) from None
    connector = _connector(edge_file.broker, file.parent)
    try:
        run_until_stopped(lambda stop: run_edge(edge_file, data, stop, connector))
    except EdgeError as error:
        raise refuse(str(error)) from None


@edge_app.command("export")
def edge_export(
    site: SitePath,
    edge: Annotated[str, typer.Argument(help=say("终端编号", "id of the edge"))],
    output: Annotated[Path | None, typer.Option("--output", "-o")] = None,
) -> None:
    """Write one edge's own file. It holds no receiver and no secret."""
    from config import ConfigError, dump_edge, edge_hash, export_edge

    loaded = _site(site)
    try:
        edge_file = export_edge(loaded, edge)
    except ConfigError as error:
        raise refuse(str(error)) from None
    text = dump_edge(edge_file)
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    typer.echo(f"{output}  sha256 {edge_hash(edge_file)}", err=True)


@simulate_app.command("plant")
def simulate_plant(
    site: SitePath,
    scenario: Annotated[str, typer.Option("--scenario")] = "quiet-day",
    data: DataPath = DEFAULT_DATA,
    seed: Annotated[int, typer.Option("--seed")] = 1,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="ignore the configured ports")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="the scenario waits for `begin`")] = False,
    verbose: Verbose = False,
) -> None:
    """Run a simulated plant behind real Modbus TCP servers, on loopback."""
    from cli.simulate import plant_command

    set_up_logging(verbose=verbose)
    raise SystemExit(plant_command(_site(site), scenario, data, seed, free_ports=free_ports, hold=hold))


@simulate_app.command("platform")
def simulate_platform(
    site: SitePath,
    data: DataPath = DEFAULT_DATA,
    port: Annotated[int, typer.Option("--port")] = 0,
    verbose: Verbose = False,
) -> None:
    """Run a simulated municipal platform that verifies every webhook, on loopback."""
    from cli.simulate import platform_command

    set_up_logging(verbose=verbose)
    raise SystemExit(platform_command(_site(site), _base_dir(site), data, port))


def _act(data: Path, request: dict[str, str]) -> None:
    import asyncio

    from gateway.core import ACTS_NAME, ActsSocketError, send_act

    try:
        answer: dict[str, Any] = asyncio.run(send_act(data / "core" / ACTS_NAME, request))
    except ActsSocketError as error:
        raise refuse(str(error)) from None
    if not answer.get("ok"):
        raise refuse(str(answer.get("error")))
    typer.echo(json.dumps(answer["transition"], ensure_ascii=False))


Actor = Annotated[str, typer.Option("--actor", help=say("操作人", "who acts"))]


@app.command()
def ack(
    alarm: Annotated[str, typer.Argument(help=say("报警编号", "id of the alarm"))],
    actor: Actor,
    data: DataPath = DEFAULT_DATA,
) -> None:
    """Acknowledge an alarm: a named person has taken notice."""
    _act(data, {"act": "acknowledge", "alarm": alarm, "actor": actor})


@app.command()
def close(
    alarm: Annotated[str, typer.Argument(help=say("报警编号", "id of the alarm"))],
    actor: Actor,
    reason: Annotated[str, typer.Option("--reason", help=say("原因", "why it happened"))],
    measure: Annotated[str, typer.Option("--measure", help=say("处置措施", "what was done"))],
    data: DataPath = DEFAULT_DATA,
) -> None:
    """End an alarm that has returned to normal, with its reason and the measure taken."""
    _act(data, {"act": "close", "alarm": alarm, "actor": actor, "reason": reason, "measure": measure})


@app.command()
def demo(
    scenario: Annotated[str, typer.Option("--scenario", help="quiet-day, chlorine-leak, overfill, …")] = "chlorine-leak",
    seconds: Annotated[float | None, typer.Option("--for", help=say("运行秒数", "seconds to run"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("只输出一行 JSON", "print one JSON object at the end"))] = False,
    seed: Annotated[int, typer.Option("--seed")] = 1,
    data: Annotated[Path | None, typer.Option("--data", help=say("数据目录", "data folder"))] = None,
) -> None:
    """Run the whole chain on this machine: plant, edges, broker, core, municipal platform."""
    from cli.demo import demo_command

    raise SystemExit(demo_command(scenario, seconds, as_json=as_json, seed=seed, data=data))
