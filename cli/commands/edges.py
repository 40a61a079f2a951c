"""`hazardgate edge`: the agent on an industrial box, and its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, DataPath, SitePath, Verbose, connector_of, loaded_site
from cli.running import refuse, run_until_stopped, set_up_logging, unusable

edge_app = typer.Typer(no_args_is_help=True, help=say("采集终端：运行、导出配置", "edge agent: run it, export its file"))


@edge_app.command("run", help=say(
    "运行采集终端：读仪表、落盘、发 MQTT。它不能向仪表写入",
    "Run one edge agent: instruments to spool to MQTT. It cannot write to an instrument.",
))  # fmt: skip
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
        raise refuse(error) from None
    connector = connector_of(edge_file.broker, file.parent)
    try:
        run_until_stopped(lambda stop: run_edge(edge_file, data, stop, connector))
    except EdgeError as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(unusable(data, error)) from None


@edge_app.command("check", help=say(
    "检查采集终端自己的配置文件", "Check an edge's own file: every error at once."
))  # fmt: skip
def edge_check(file: Annotated[Path, typer.Argument(help=say("终端配置文件", "the edge's own file"))]) -> None:
    """Check an edge's own file: every error at once."""
    from config import ConfigError, edge_hash, load_edge

    try:
        found = load_edge(file)
    except ConfigError as error:
        raise refuse(error) from None
    typer.echo(say(
        f"{found.edge.id}：可用，{len(found.tags)} 个测点，sha256 {edge_hash(found)}",
        f"{found.edge.id}: usable, {len(found.tags)} tags, sha256 {edge_hash(found)}",
    ))  # fmt: skip


@edge_app.command("export", help=say(
    "导出一个采集终端自己的配置，不含接收方和密钥", "Write one edge's own file. It holds no receiver and no secret."
))  # fmt: skip
def edge_export(
    site: SitePath,
    edge: Annotated[str, typer.Argument(help=say("终端编号", "id of the edge"))],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=say("写入此文件", "file to write instead of the screen"))
    ] = None,
) -> None:
    """Write one edge's own file. It holds no receiver and no secret."""
    from config import ConfigError, dump_edge, edge_hash, export_edge

    loaded = loaded_site(site)
    try:
        edge_file = export_edge(loaded, edge)
    except ConfigError as error:
        raise refuse(error) from None
    text = dump_edge(edge_file)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise refuse(unusable(output, error)) from None
    typer.echo(f"{output}  sha256 {edge_hash(edge_file)}", err=True)
