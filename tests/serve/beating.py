"""A heartbeat and a view for the random histories of `tests.gateway.history`."""

from __future__ import annotations

import json

from gateway.serve.view import LedgerView
from tests.gateway.history import World


def view_of(world: World) -> LedgerView:
    """A serve process beside the world's core, on its clock."""
    return LedgerView(world.bench.site, world.bench.folder, lambda: world.bench.wall_ms(), lambda: world.bench.now_s)


def beat(world: World) -> None:
    """Write the heartbeat as core's watchdog does."""
    counters = world.bench.loop.counters
    said = {
        "pid": id(world.bench), "at_ms": world.bench.wall_ms(), "ledger": world.bench.ledger.ledger_id, "connected": True,
        "cycles": counters.cycles, "engine_ms": counters.engine_ms, "nodes": counters.nodes,
    }  # fmt: skip
    (world.bench.folder / "heartbeat.json").write_text(json.dumps(said), "utf-8")
