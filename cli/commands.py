"""The subcommands: they parse what was typed, load what they need, and hand over. No rule of the system lives here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import export as export_cli
from cli import importing as import_cli
from cli import store_copy as copy_cli
from cli.language import make_output_safe, say
from cli.running import program_version, refuse, run_until_stopped, set_up_logging, unusable
from cli.store import store_app

if TYPE_CHECKING:
    from config import BrokerConfig, SiteConfig
    from wire import AioMqttConnector

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help=say("重大危险源监测网关", "Monitoring gateway for major hazard sources"),
)  # fmt: skip
edge_app = typer.Typer(no_args_is_help=True, help=say("采集终端：运行、导出配置", "edge agent: run it, export its file"))
simulate_app = typer.Typer(no_args_is_help=True, help=say("仿真：工厂、市级平台", "simulators: a plant, a municipal platform"))
token_app = typer.Typer(no_args_is_help=True, help=say("访问令牌：创建、列出、吊销", "tokens of the API: make, list, revoke"))
app.add_typer(token_app, name="token")
app.add_typer(edge_app, name="edge")
app.add_typer(simulate_app, name="simulate")
app.add_typer(store_app, name="store")
store_app.command("copy", help=copy_cli.HELP)(copy_cli.copy_command)
app.command("export", help=export_cli.HELP)(export_cli.export_command)
app.command("import", help=import_cli.HELP)(import_cli.import_command)

SitePath = Annotated[Path, typer.Argument(help=say("站点配置文件或目录", "site file, or its folder"))]
DataPath = Annotated[Path, typer.Option("--data", help=say("数据目录", "data folder"))]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=say("详细日志", "more log"))]
Seed = Annotated[int, typer.Option("--seed", help=say("随机种子", "seed of everything random"))]
SCENARIO_HELP = say("场景", "scenario") + ": quiet-day, chlorine-leak, overfill, sensor-fault, instrument-dead"
AsJson = Annotated[bool, typer.Option("--json", help=say("输出 JSON", "print JSON"))]
DEFAULT_DATA = Path("hazardgate-data")


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


def _site(path: Path) -> SiteConfig:
    from config import ConfigError, load_site

    try:
        return load_site(path)
    except ConfigError as error:
        raise refuse(error) from None


def _base_dir(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _connector(broker: BrokerConfig, base_dir: Path) -> AioMqttConnector:
    from config import ConfigError, broker_address
    from wire import AioMqttConnector

    try:
        return AioMqttConnector(broker_address(broker, base_dir))
    except ConfigError as error:
        raise refuse(error) from None


@app.command(help=say(
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


@app.command(help=say("输出站点配置的 JSON Schema，供编辑器使用", "Print the JSON Schema of the site file, for editors."))
def schema() -> None:
    """Print the JSON Schema of the site file, for editors."""
    from config import site_schema_text

    typer.echo(site_schema_text(), nl=False)


@app.command(help=say(
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
        raise refuse(error) from None
    except OSError as error:  # at start: what fails while it runs comes in a group
        raise refuse(unusable(data, error)) from None
    except apsw.Error as error:
        raise refuse(say(
            f"{data}：账本打不开（{error}）；请检查磁盘、权限和剩余空间",
            f"{data}: the ledger cannot be opened ({error}); check the disk, the permissions and the space left",
        )) from None  # fmt: skip


@app.command(help=say(
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
        typer.Option("--name", help=say("客户端使用的其他主机名，可多次", "further host name clients use; repeatable")),
    ] = None,
    recent_mb: Annotated[
        int,
        typer.Option("--recent-mb", min=1, max=4096, help=say(
            "最新数据占用的内存上限（MB）；更早的历史从账本读取",
            "MB of memory for the newest data; older history is read from the ledger",
        )),
    ] = 128,
    verbose: Verbose = False,
) -> None:
    """Serve the HTTP API beside core: tags, alarms, history, live stream; acts go through core."""
    from cli.serve import serve_command
    from gateway.serve import ServeSettings

    set_up_logging(verbose=verbose)
    settings = ServeSettings(host, port, tls_cert, tls_key, tuple(name or ()), recent_mb * 2**20)
    serve_command(_site(site), data, settings, _base_dir(site))


@app.command(help=say("输出接口的 OpenAPI 文档", "Print the OpenAPI document of the API."))
def openapi() -> None:
    """Print the OpenAPI document of the API."""
    from gateway.serve import openapi_document

    typer.echo(openapi_document(), nl=False)


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
    connector = _connector(edge_file.broker, file.parent)
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

    loaded = _site(site)
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
    raise SystemExit(plant_command(_site(site), scenario, data, seed, free_ports=free_ports, hold=hold))


@simulate_app.command("platform", help=say(
    "在本机运行仿真市级平台，逐条验签", "Run a simulated municipal platform that verifies every webhook, on loopback."
))  # fmt: skip
def simulate_platform(
    site: SitePath,
    data: DataPath = DEFAULT_DATA,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help=say(
            "端口，0 为任取；默认为站点接收方在本机的端口",
            "port, 0 picks a free one; by default that of the site's receivers on loopback",
        )),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run a simulated municipal platform that verifies every webhook, on loopback."""
    from cli.simulate import platform_command

    set_up_logging(verbose=verbose)
    raise SystemExit(platform_command(_site(site), _base_dir(site), data, port))


@app.command(help=say(
    "列出未结束的报警：只读账本，报警中的在前，再按级别和时间",
    "List the open alarms: from the ledger, what stands first, then the gravest and newest.",
))  # fmt: skip
def alarms(
    data: DataPath = DEFAULT_DATA,
    closed: Annotated[bool, typer.Option("--all", help=say("也列出已销警的", "closed alarms too"))] = False,
    as_json: AsJson = False,
) -> None:
    """List the open alarms: from the ledger, what stands first, then the gravest and newest."""
    from cli.alarms import alarms_command

    alarms_command(data, closed=closed, as_json=as_json)


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


Actor = Annotated[str, typer.Option("--actor", help=say("操作人", "who acts"))]


@app.command(help=say("确认报警：某人已知悉", "Acknowledge an alarm: a named person has taken notice."))
def ack(
    alarm: Annotated[str, typer.Argument(help=say("报警编号", "id of the alarm"))],
    actor: Actor,
    data: DataPath = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an alarm: a named person has taken notice."""
    _act(data, {"act": "acknowledge", "alarm": alarm, "actor": actor}, as_json=as_json)


@app.command(help=say(
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


def _some_time(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise typer.BadParameter(say("应大于 0", "must be more than 0"))
    return seconds


@app.command(help=say(
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


@app.command(help=say(
    "值班画面：网关的报警、点位、采集终端和上报，可确认和销警；令牌来自文件或 HAZARDGATE_TOKEN",
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


@app.command("backup", help=say(
    "备份数据目录：在 core 和 serve 运行时即可，不妨碍它们；中断后再执行一次即可续做",
    "Back up a data folder, beside a running core and serve. Ended half-way, the same command goes on.",
))  # fmt: skip
def backup_(
    data: DataPath = DEFAULT_DATA,
    to: Annotated[
        Path | None, typer.Option("--to", help=say("新目录，或新的 .tar 文件", "new folder, or new .tar file"))
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help=say("一并备份站点配置（文件或目录）", "take the site file, or its folder, too"))
    ] = None,
    rate_mb: Annotated[
        int, typer.Option("--rate-mb", min=0, max=100_000, help=say("每秒最多 MB，0 不限", "MB a second at most, 0 is no bound"))
    ] = 64,
    copies: Annotated[
        bool, typer.Option("--copy", help=say("全部复制，不用硬链接共用", "copy everything, share nothing by hard links"))
    ] = False,
    check: Annotated[
        Path | None, typer.Option("--verify", help=say("检验此备份，不作备份", "check this backup instead of making one"))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up a data folder, beside a running core and serve. Ended half-way, the same command goes on."""
    from cli.care import backup_command, verify_command

    if (to is None) == (check is None):
        raise typer.BadParameter(say("--to 与 --verify 必须且只能给出一个", "give one of --to and --verify"))
    if check is not None:
        verify_command(check, as_json=as_json)
    elif to is not None:
        backup_command(data, to, site, rate_mb, copies=copies, as_json=as_json)


@app.command("restore", help=say(
    "恢复备份：先停止 core 和 serve；换用新的账本编号；中断后再执行一次即可续做",
    "Put a backup back, with core and serve stopped, under a new ledger id. Ended half-way, the same command goes on.",
))  # fmt: skip
def restore_(
    source: Annotated[Path, typer.Option("--from", help=say("备份目录或 .tar 文件", "backup: folder or .tar file"))],
    data: DataPath = DEFAULT_DATA,
    replace: Annotated[
        bool, typer.Option("--replace", help=say("把已有数据移到一旁（保留）", "move what is there aside (it is kept)"))
    ] = False,
    keep_historian: Annotated[
        bool, typer.Option("--keep-historian", help=say(
            "保留现有历史库，只恢复账本和令牌", "keep the segments that are there: restore the ledger and the tokens only"
        )),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, with core and serve stopped, under a new ledger id. Ended half-way, the same command goes on."""
    from cli.care import restore_command

    restore_command(source, data, replace=replace, keep_historian=keep_historian, as_json=as_json)


@app.command("upgrade", help=say(
    "把旧版本的数据目录升级到本程序的版本：先停止 core 和 serve；默认先备份；中断后再执行一次即可续做",
    "Bring an older data folder to this program's versions, with core and serve stopped, after a backup.",
))  # fmt: skip
def upgrade_(
    data: DataPath = DEFAULT_DATA,
    site: Annotated[
        Path | None, typer.Option("--site", help=say("也检查站点配置的版本", "look at the site file's version too"))
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--backup", help=say("升级前备份的位置；默认在数据目录内", "where the backup goes; default: the data folder")),
    ] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help=say("不备份", "make no backup"))] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=say("只列出将做什么", "only list what would be done"))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring an older data folder to this program's versions, with core and serve stopped, after a backup."""
    from cli.care import upgrade_command

    upgrade_command(data, site, to, with_backup=not no_backup, dry_run=dry_run, as_json=as_json)
