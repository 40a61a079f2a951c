"""`hazardgate core`, `serve` and `openapi`: what runs on the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, DataPath, SitePath, Verbose, base_dir_of, connector_of, loaded_site
from cli.running import refuse, run_until_stopped, set_up_logging, unusable

gateway_app = typer.Typer()
openapi_app = typer.Typer()


@gateway_app.command(help=say(
    "运行核心：接收 MQTT，判断、入账、确认、上报", "Run the core: MQTT in, evaluated, committed, acknowledged, delivered."
))  # fmt: skip
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
    import apsw

    from alerting.delivery import DeliveryError
    from config import SecretError, read_secret
    from gateway.core import CoreError, run_core

    set_up_logging(verbose=verbose)
    loaded, base_dir = loaded_site(site), base_dir_of(site)
    connector = connector_of(loaded.broker, base_dir)
    try:
        secrets = {receiver.id: read_secret(receiver, base_dir) for receiver in loaded.receivers}
        run_until_stopped(
            lambda stop: run_core(
                loaded, data, stop, connector=connector, secrets=secrets, base_dir=base_dir, restored=restored
            )
        )
    except (CoreError, SecretError, DeliveryError) as error:
        raise refuse(error) from None
    except OSError as error:  # at start: what fails while it runs comes in a group
        raise refuse(unusable(data, error)) from None
    except apsw.Error as error:
        raise refuse(say(
            f"{data}：账本打不开（{error}）；请检查磁盘、权限和剩余空间",
            f"{data}: the ledger cannot be opened ({error}); check the disk, the permissions and the space left",
        )) from None  # fmt: skip


@gateway_app.command(help=say(
    "运行查询服务：在本机提供 HTTP 接口（测点、报警、历史、实时流），确认和销警经核心执行",
    "Serve the HTTP API beside core: tags, alarms, history, live stream; acts go through core.",
))  # fmt: skip
def serve(
    site: SitePath,
    data: DataPath = DEFAULT_DATA,
    host: Annotated[
        str, typer.Option("--host", help=say("监听地址；非本机回环须配 TLS", "address; beyond loopback only with TLS"))
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help=say("端口，0 为任取", "port, 0 picks a free one"))] = 8580,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help=say("证书（PEM）", "certificate (PEM)"))] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help=say("证书私钥（PEM）", "its key (PEM)"))] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help=say("客户端使用的其他主机名， 可多次", "further host name clients use; repeatable")),
    ] = None,
    recent_mb: Annotated[
        int,
        typer.Option("--recent-mb", min=1, max=4096, help=say(
            "最新数据的内存上限（MB）； 更早的历史从账本读取",
            "MB of memory for the newest data; older history is read from the ledger",
        )),
    ] = 128,
    wait: Annotated[
        bool, typer.Option("--wait", help=say("核心首次启动之前， 也先运行", "start even where no core has run yet"))
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Serve the HTTP API beside core: tags, alarms, history, live stream; acts go through core."""
    from cli.serve import serve_command
    from gateway.serve import ServeSettings

    set_up_logging(verbose=verbose)
    settings = ServeSettings(host, port, tls_cert, tls_key, tuple(name or ()), recent_mb * 2**20)
    serve_command(loaded_site(site), data, settings, base_dir_of(site), wait=wait)


@openapi_app.command(help=say("输出接口的 OpenAPI 文档", "Print the OpenAPI document of the API."))
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from gateway.serve import openapi_document

    typer.echo(openapi_document(), nl=False)
