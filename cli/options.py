"""What several subcommands share: options of one name and meaning, and how a site file is loaded or refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.language import say
from cli.running import refuse

if TYPE_CHECKING:
    from config import BrokerConfig, SiteConfig
    from wire import AioMqttConnector

SitePath = Annotated[Path, typer.Argument(help=say("站点配置文件或目录", "site file, or its folder"))]
DataPath = Annotated[Path, typer.Option("--data", help=say("数据目录", "data folder"))]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=say("详细日志", "more log"))]
AsJson = Annotated[bool, typer.Option("--json", help=say("输出 JSON", "print JSON"))]
DEFAULT_DATA = Path("hazardgate-data")


def loaded_site(path: Path) -> SiteConfig:
    from config import ConfigError, load_site

    try:
        return load_site(path)
    except ConfigError as error:
        raise refuse(error) from None


def base_dir_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def connector_of(broker: BrokerConfig, base_dir: Path) -> AioMqttConnector:
    from config import ConfigError, broker_address
    from wire import AioMqttConnector

    try:
        return AioMqttConnector(broker_address(broker, base_dir))
    except ConfigError as error:
        raise refuse(error) from None
