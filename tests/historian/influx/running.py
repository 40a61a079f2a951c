"""InfluxDB 1.6 and VictoriaMetrics as the contract runs on them: one server a module, a site of its own a test."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.historian.influx import open_store
from gateway.historian.influx.victoria import VictoriaHistorian
from gateway.historian.samples import Samples
from gateway.historian.store import AlarmEvent, Historian, Written
from tests.stores import INFLUXD, VICTORIA, StoreServer, ask, running_store, store_config

if TYPE_CHECKING:
    from tests.historian.contract.stores import Make

VICTORIA_CANNOT = frozenset({
    "exact",  # it keeps about 15 digits
    "digest",  # and so has another digest
    "replace",  # it keeps both
})  # fmt: skip


class FlushedVictoria(VictoriaHistorian):
    """Shows at once what was written: the server is asked to, in the place of waiting the second it takes."""

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        written = super().write(samples, deadline_s)
        flush(self.config.url)
        return written

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        super().write_events(events, deadline_s)
        flush(self.config.url)


def flush(url: str) -> None:
    """Let VictoriaMetrics show what it holds."""
    with urllib.request.urlopen(f"{url}/internal/force_flush", timeout=10.0) as answer:
        answer.read()


@contextmanager
def influxdb(folder: Path) -> Iterator[Make]:
    """A server with a database."""
    with running_store(INFLUXD, folder) as server:
        ask(server, 'CREATE DATABASE "hazardgate"')
        yield _sites(server)


@contextmanager
def victoria(folder: Path) -> Iterator[Make]:
    """A server; it needs no database."""
    with running_store(VICTORIA, folder) as server:
        yield _sites(server)


def _sites(server: StoreServer) -> Make:
    numbers = itertools.count()

    def make() -> AbstractContextManager[Historian]:
        return _opened(server, f"site {next(numbers)}")

    return make


@contextmanager
def _opened(server: StoreServer, site: str) -> Iterator[Historian]:
    config = store_config(server)
    store = open_store(config, site) if server.kind == INFLUXD else FlushedVictoria(config, site)
    try:
        yield store
    finally:
        store.close()
