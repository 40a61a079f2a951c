"""InfluxDB and what speaks its line protocol: fed beside our own store, read through the same port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from config import TimeSeriesStoreConfig, read_store_secret

if TYPE_CHECKING:
    from gateway.historian.influx.store import InfluxHistorian

__all__ = ["open_store"]


def open_store(config: TimeSeriesStoreConfig, site: str, base_dir: Path = Path()) -> InfluxHistorian:
    """Return the store of a configuration; nothing is connected yet.

    Args:
        site: whose samples. base_dir: folder that a relative `secret_file` or `ca_file` starts from.

    Raises:
        SecretError: its secret cannot be read. StoreRefusedError: its `ca_file` cannot be used.
    """
    from gateway.historian.influx.store import InfluxHistorian
    from gateway.historian.influx.victoria import VictoriaHistorian

    kind = VictoriaHistorian if config.kind == "victoriametrics" else InfluxHistorian
    return kind(config, site, read_store_secret(config, base_dir), base_dir)
