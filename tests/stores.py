"""Real time-series servers for tests, on loopback: Debian's InfluxDB 1.6 and VictoriaMetrics.

A test that starts one is marked `needs(INFLUXD)` or `needs(VICTORIA)`: skipped by name where it is not installed, failed
where nothing may be skipped. The servers are those of the benchmarks; here stands what only tests do with them.
"""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.stores import INFLUXD, VICTORIA, StoreServer, running_store
from config import TimeSeriesStoreConfig

__all__ = ["INFLUXD", "VICTORIA", "StoreServer", "ask", "needs_influxd", "needs_victoria", "running_store", "store_config",
           "with_users"]

needs_influxd = pytest.mark.needs(INFLUXD)
needs_victoria = pytest.mark.needs(VICTORIA)
_KIND = {INFLUXD: "influxdb1", VICTORIA: "victoriametrics"}


def store_config(server: StoreServer, **more: object) -> TimeSeriesStoreConfig:
    """Return the configuration of this server; `more` are its other keys."""
    return TimeSeriesStoreConfig.model_validate({"id": "store", "kind": _KIND[server.kind], "url": server.url, **more})


def ask(server: StoreServer, query: str, **parameters: str) -> bytes:
    """Send InfluxQL by means of the standard library alone, and return the answer."""
    body = urllib.parse.urlencode({"q": query, **parameters}).encode()
    with urllib.request.urlopen(server.url + "/query", body, timeout=30.0) as answer:
        return bytes(answer.read())


@contextmanager
def with_users(folder: Path, users: Mapping[str, str]) -> Iterator[StoreServer]:
    """InfluxDB that asks for passwords; the first user is its administrator, the others may do nothing yet."""
    server = StoreServer(INFLUXD, folder)
    server.start()
    try:
        for index, (name, password) in enumerate(users.items()):
            ask(server, f"CREATE USER \"{name}\" WITH PASSWORD '{password}'" + (" WITH ALL PRIVILEGES" if not index else ""))
        server.stop()
        server.extra["HTTP_AUTH_ENABLED"] = "true"
        server.start()
        yield server
    finally:
        server.stop()
