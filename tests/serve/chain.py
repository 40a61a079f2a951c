"""A running core for the read model's tests: the real loop on a bench, its heartbeat file, and a view beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import SiteConfig
from gateway.serve.history import HistoryReader
from gateway.serve.models import Changes, History, TagNow
from gateway.serve.view import LedgerView
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, T0_MS, TEMP, Edge, Sent, address, device_birth, device_frame, node_birth
from wire import MessageKind


class Chain:
    """Times are the test's: `bench.now_s` is every clock there is, for core and for the view."""

    def __init__(self, folder: Path, *, config: SiteConfig | None = None, started: bool = True) -> None:
        self.folder = folder / "core"
        self.folder.mkdir(parents=True)
        self.bench = Bench(self.folder, config=config)
        self.edge = Edge()
        self.view = self.new_view()
        self.seq = 0
        if started:
            self.beat()

    def new_view(self) -> LedgerView:
        """One more serve process."""
        return LedgerView(self.bench.site, self.folder, self.bench.wall_ms, lambda: self.bench.now_s)

    def beat(self, **more: Any) -> None:
        """Write the heartbeat as core's watchdog does."""
        counters = self.bench.loop.counters
        said = {
            "pid": 1, "at_ms": self.bench.wall_ms(), "ledger": self.bench.ledger.ledger_id, "connected": True,
            "cycles": counters.cycles, "engine_ms": counters.engine_ms, "nodes": counters.nodes,
            "committed_pos": counters.committed_pos, "unjournaled": False, "overflow": False, "deliveries": {}, **more,
        }  # fmt: skip
        (self.folder / "heartbeat.json").write_text(json.dumps(said), "utf-8")

    def run(self, sent: list[Sent] | None = None, after_ms: float = 100) -> Changes:
        """Deliver, let core take it and commit, beat, and refresh the view."""

        async def turn() -> None:
            self.bench.deliver(sent or [])
            await self.bench.cycle(after_ms)
            await self.bench.settle(4)

        asyncio.run(turn())
        self.beat()
        return self.view.refresh()

    def born(self) -> Changes:
        """The edge's session begins; every tag of it reports."""
        return self.run(self.edge.born())

    def scan(self, values: Mapping[str, float], after_ms: int = 100) -> Changes:
        return self.run(self.edge.scan(values, after_ms), after_ms)

    def foreign_born(self, value: float = 20.0) -> Changes:
        """The pump's node, which is not ours, begins its session."""
        self.seq = 1
        return self.run([
            (address(MessageKind.NBIRTH, "E2"), node_birth(0)),
            (address(MessageKind.DBIRTH, "E2", "PUMP"), device_birth(1, {TEMP: value}, source_ms=self.edge.source_ms)),
        ])  # fmt: skip

    def foreign(self, value: float) -> Changes:
        self.seq += 1
        payload = device_frame(self.seq, [(1, value)], source_ms=self.edge.source_ms)
        return self.run([(address(MessageKind.DDATA, "E2", "PUMP"), payload)])

    def outage(self, levels: list[float]) -> None:
        """The session ends, values are taken with nobody to send them to, a new session begins and sends the backlog."""
        self.run(self.edge.death())
        self.edge.session_lost()
        self.edge._open()
        for level in levels:
            self.edge.offline_scan({LEVEL: level})
        self.edge.session_lost()
        self.born()
        self.run(self.edge.backlog())

    def tag(self, tag_id: str = LEVEL) -> TagNow:
        found = self.view.tag(tag_id)
        assert found is not None
        return found

    def history(self, tag_id: str = LEVEL, *, memory: bool = True, points_max: int = 1_000) -> History:
        """All of a tag's past, from the view's memory or from the ledger alone."""
        reader = HistoryReader(self.bench.site, self.folder, self.view.recent if memory else None, self.bench.wall_ms)
        try:
            return reader.history(tag_id, T0_MS - 60_000, T0_MS + 3_600_000, points_max, 5.0)
        finally:
            reader.close()

    def close(self) -> None:
        self.view.close()
        self.bench.close()
