"""InfluxDB and what speaks its line protocol: fed beside our own store, read through the same port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from config import TimeSeriesStoreConfig, read_store_secret
from gateway.historian.store import HistorianError

if TYPE_CHECKING:
    from gateway.historian.influx.setup import Done, Health
    from gateway.historian.influx.store import InfluxHistorian

__all__ = ["HistorianError", "InfluxHistorian", "health", "open_store", "set_up"]


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


def set_up(store: InfluxHistorian) -> list[Done]:
    """Make what a store needs before the first write; see `setup.set_up`."""
    from gateway.historian.influx.setup import set_up

    return set_up(store)


def health(store: InfluxHistorian) -> Health:
    """Ask a store how it is; see `setup.health`."""
    from gateway.historian.influx.setup import health

    return health(store)
