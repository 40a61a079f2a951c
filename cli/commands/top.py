"""The one command: its subcommands in the order in which `--help` lists them. No rule of the system lives here."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.care import care_app
from cli.commands.edges import edge_app
from cli.commands.gateway import gateway_app, openapi_app
from cli.commands.history import history_app
from cli.commands.operators import operators_app
from cli.commands.simulators import demo_app, simulate_app
from cli.commands.site import site_app
from cli.commands.tokens import token_app
from cli.language import make_output_safe, say
from cli.running import program_version, refuse

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help=say("重大危险源监测网关", "Monitoring gateway for major hazard sources"),
)  # fmt: skip
app.add_typer(demo_app)
app.add_typer(site_app)
app.add_typer(gateway_app)
app.add_typer(edge_app, name="edge")
app.add_typer(token_app, name="token")
app.add_typer(operators_app)
app.add_typer(history_app)
app.add_typer(care_app)
app.add_typer(simulate_app, name="simulate")
app.add_typer(openapi_app)

EXTRA_OF = {
    "aiohttp": "gateway", "apsw": "gateway", "fastapi": "gateway", "standardwebhooks": "gateway",
    "starlette": "gateway", "uvicorn": "gateway", "textual": "watch", "pymodbus": "simulators",
    "h11": "gateway", "duckdb": "gateway", "influxdb_client": "gateway", "openpyxl": "gateway", "urllib3": "gateway",
}  # fmt: skip


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hazardgate {program_version()}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[bool, typer.Option(
        "--version", callback=_tell_version, is_eager=True, help=say("显示版本", "show the version"))] = False,
) -> None:  # fmt: skip
    """Take what stands before every subcommand."""


def main() -> None:
    """Entry point."""
    make_output_safe()
    try:
        app()
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise refuse(say(
            f"此安装不含所需的软件包（{error.name}）；请安装 hazardgate[{extra}]",
            f"this installation lacks {error.name}; install hazardgate[{extra}]",
        )) from None  # fmt: skip
