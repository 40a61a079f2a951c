"""`hazardgate check` and `schema`: the file that people type."""

from __future__ import annotations

import typer

from cli.language import say
from cli.options import AsJson, SitePath

site_app = typer.Typer()


@site_app.command(help=say(
    "检查站点配置：一次列出全部错误，注明位置和最接近的正确写法",
    "Check a site file: every error at once, with its place and the nearest valid word.",
))  # fmt: skip
def check(
    site: SitePath,
    as_json: AsJson = False,
) -> None:
    """Check a site file: every error at once, with its place and the nearest valid word."""
    from cli.check import check_command

    raise SystemExit(check_command(site, as_json=as_json))


@site_app.command(help=say("输出站点配置的 JSON Schema，供编辑器使用", "Print the JSON Schema of the site file, for editors."))
def schema() -> None:
    """Print the JSON Schema of the site file, for editors."""
    from config import site_schema_text

    typer.echo(site_schema_text(), nl=False)
