"""Runs the feeds of a site's time-series stores: a thread each, beside everything else that serve does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import SiteConfig, TimeSeriesStoreConfig
from gateway.historian.feed_files import FEEDS
from gateway.historian.feed_run import CLOSE_S_MAX, Clocks, Feed
from gateway.historian.feed_source import FeedSource, LogSource, Reading
from gateway.historian.store import Historian
from gateway.serve.sealing import timely


class Feeding:
    """The feeds of all enabled stores; without one it does nothing and loads nothing."""

    def __init__(
        self, site: SiteConfig, ledger: Path, historian: Path, base_dir: Path, wall_ms: Callable[[], int], reading: Reading
    ) -> None:
        """Nothing runs yet.

        Args:
            ledger: core's file. historian: the folder of the segments. base_dir: that relative secret files start from.
            reading: entered around every read of the ledger, with the moment to give up in seconds of `time.monotonic`.
        """

        def source() -> FeedSource:
            return LogSource(ledger, historian, site, timely(reading))

        clocks = Clocks(wall_ms, time.monotonic)
        self._feeds = [
            Feed(config, _opener(config, site.site, base_dir), source, historian / FEEDS, clocks)
            for config in site.storage.stores if config.enabled
        ]  # fmt: skip

    def start(self) -> None:
        """Begin to feed."""
        for feed in self._feeds:
            feed.start()

    def close(self) -> None:
        """End the threads. Blocks for a moment, for all of them together."""
        for feed in self._feeds:
            feed.stop()
        by = time.monotonic() + CLOSE_S_MAX
        for feed in self._feeds:
            feed.close(by - time.monotonic())

    def status(self) -> list[dict[str, Any]]:
        """Return where each store stands: `stores` of status.json. From any thread, at once."""
        return [feed.status() for feed in self._feeds]


def _opener(config: TimeSeriesStoreConfig, site: str, base_dir: Path) -> Callable[[], Historian]:
    """Return what opens a store: with the secret as it is then, and influxdb-client loaded only then."""

    def opened() -> Historian:
        from gateway.historian.influx import open_store

        return open_store(config, site, base_dir)

    return opened
