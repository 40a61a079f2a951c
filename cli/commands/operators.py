"""`hazardgate watch`, `alarms`, `ack` and `close`: the control room's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath
from cli.running import refuse

operators_app = typer.Typer()

Actor = Annotated[str, typer.Option("--actor", help=say("操作人", "who acts"))]


@operators_app.command(help=say(
    "值班画面：报警、点位、采集终端和上报，可确认和销警； 令牌来自文件或 HAZARDGATE_TOKEN",
    "The control room's screen: alarms, values, edges, deliveries. Token from a file or HAZARDGATE_TOKEN.",
))  # fmt: skip
def watch(
    url: Annotated[str, typer.Option("--url", help=say("网关服务的地址", "address of the gateway's serve process"))]
    = "http://127.0.0.1:8580",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help=say("存放令牌的文件", "file that holds the token"))
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help=say("https 的 CA 证书", "CA certificate for https"))] = None,
) -> None:  # fmt: skip
    """The control room's screen: alarms, values, edges, deliveries. Token from a file or HAZARDGATE_TOKEN."""
    from cli.watch import watch_command

    raise SystemExit(watch_command(url, token_file, ca))


@operators_app.command(help=say(
    "列出未结束的报警（只读账本）：未确认的在前，再按级别和时间， 与值班画面同序",
    "List the open alarms, from the ledger: unacknowledged first, then the gravest and newest, as watch does.",
))  # fmt: skip
def alarms(
    data: DataPath = DEFAULT_DATA,
    closed: Annotated[bool, typer.Option("--all", help=say("也列出已销警的", "closed alarms too"))] = False,
    as_json: AsJson = False,
) -> None:
    """List the open alarms, from the ledger: unacknowledged first, then the gravest and newest, as watch does."""
    from cli.alarms import EXIT_NOT_CURRENT, alarms_command

    raise SystemExit(0 if alarms_command(data, closed=closed, as_json=as_json) else EXIT_NOT_CURRENT)


def _act(data: Path, request: dict[str, str], *, as_json: bool) -> None:
    """Send one operator act to core; prints what it did."""
    import asyncio

    from alerting import in_zone
    from cli.alarms import act_in_words, site_zone
    from gateway.core import ACTS_NAME, ActsSocketError, send_act

    try:
        answer: dict[str, Any] = asyncio.run(send_act(data / "core" / ACTS_NAME, request))
    except ActsSocketError as error:
        raise refuse(error) from None
    if not answer.get("ok"):
        told = in_zone(str(answer.get("error")), site_zone(data))
        listed = f"hazardgate alarms --data {data}"
        raise refuse(say(f"核心没有执行：{told}（{listed} 列出未结束的报警）", f"{told} ({listed} lists the open alarms)"))
    done = answer["transition"]
    typer.echo(json.dumps(done, ensure_ascii=False) if as_json else act_in_words(done, site_zone(data)))


@operators_app.command(help=say("确认报警：某人已知悉", "Acknowledge an alarm: a named person has taken notice."))
def ack(
    alarm: Annotated[str, typer.Argument(help=say("报警编号", "id of the alarm"))],
    actor: Actor,
    data: DataPath = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an alarm: a named person has taken notice."""
    _act(data, {"act": "acknowledge", "alarm": alarm, "actor": actor}, as_json=as_json)


@operators_app.command(help=say(
    "销警：报警已恢复正常，记下原因和处置措施",
    "End an alarm that has returned to normal, with its reason and the measure taken.",
))  # fmt: skip
def close(
    alarm: Annotated[str, typer.Argument(help=say("报警编号", "id of the alarm"))],
    actor: Actor,
    reason: Annotated[str, typer.Option("--reason", help=say("原因", "why it happened"))],
    measure: Annotated[str, typer.Option("--measure", help=say("处置措施", "what was done"))],
    data: DataPath = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """End an alarm that has returned to normal, with its reason and the measure taken."""
    _act(data, {"act": "close", "alarm": alarm, "actor": actor, "reason": reason, "measure": measure}, as_json=as_json)
