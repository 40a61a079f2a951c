"""`hazardgate token`: who may use the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath

token_app = typer.Typer(no_args_is_help=True, help=say("访问令牌：创建、列出、吊销", "tokens of the API: make, list, revoke"))


@token_app.command("new", help=say(
    "创建令牌：一人一令牌，姓名即其所有操作的操作人；只显示一次",
    "Make a token for one person: its name is the actor of every act done with it. Shown once.",
))  # fmt: skip
def token_new(
    name: Annotated[str, typer.Argument(help=say("姓名", "the person's name"))],
    role: Annotated[
        Literal["viewer", "operator"],
        typer.Option("--role", help=say("viewer 只读，operator 可确认和销警", "viewer reads, operator acts too")),
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=366, help=say("有效天数", "valid for so many days"))] = 90,
    data: DataPath = DEFAULT_DATA,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=say(
            "把令牌写入此新文件（权限 0600），不显示在屏幕上", "new file (mode 0600) for the token, instead of the screen"
        )),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token for one person: its name is the actor of every act done with it. Shown once."""
    from cli.serve import new_token
    from gateway.serve import Role

    new_token(data, name, Role(role), days, output, as_json=as_json)


@token_app.command("list", help=say("列出令牌，不含密文", "List the tokens, without their secrets."))
def token_list(data: DataPath = DEFAULT_DATA, as_json: AsJson = False) -> None:
    """List the tokens, without their secrets."""
    from cli.serve import list_tokens

    list_tokens(data, as_json=as_json)


@token_app.command("revoke", help=say(
    "吊销令牌：运行中的服务一秒内生效", "Revoke a token: a running serve obeys within a second."
))  # fmt: skip
def token_revoke(
    name_or_id: Annotated[str, typer.Argument(help=say("令牌编号，或姓名（其全部令牌）", "its id, or a name: all of that name"))],
    data: DataPath = DEFAULT_DATA,
) -> None:
    """Revoke a token: a running serve obeys within a second."""
    from cli.serve import revoke_token

    revoke_token(data, name_or_id)
