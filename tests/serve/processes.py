"""A real core on a real ledger, and a real serve beside it, as processes; no broker: core waits for one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.ports import free_port
from config import SiteConfig, dump_site
from gateway.core import HEARTBEAT_NAME, LEDGER_NAME, LedgerReader
from gateway.serve import SERVE_FOLDER, WHERE_NAME, Role, TokenStore
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, Edge, site
from tests.patience import GUARD_S
from tests.system.chain import CLI, Part, read_beat, read_json, wait_until

SECRET = "whsec_" + "A" * 40


@dataclass
class Station:
    """One data folder with its parts."""

    folder: Path
    site: SiteConfig
    core: Part
    serve: Part
    alarm_id: str

    def start_serve(self) -> str:
        """Start serve and return where it listens."""
        where = self.folder / SERVE_FOLDER / WHERE_NAME
        where.unlink(missing_ok=True)
        self.serve.start()
        told = wait_until(lambda: read_json(where), "serve says where it is")
        return str(told["url"])

    def heartbeat(self) -> dict[str, Any]:
        return read_beat(self.folder / "core" / HEARTBEAT_NAME)

    def token(self, name: str, role: Role) -> tuple[str, str]:
        """Make a token; returns its id and what its holder sends."""
        store = TokenStore(self.folder / SERVE_FOLDER, now_ms)
        made, sent = store.new(name, role, 1)
        return made.id, sent

    def revoke(self, token_id: str) -> None:
        TokenStore(self.folder / SERVE_FOLDER, now_ms).revoke(token_id)

    def journal(self) -> list[dict[str, Any]]:
        """Every journalled step of the alarm, read beside core."""
        reader = LedgerReader.open(self.folder / "core" / LEDGER_NAME)
        try:
            rows = reader.rows("SELECT body FROM transition WHERE alarm_id = ? ORDER BY revision", (self.alarm_id,))
            return [json.loads(body) for (body,) in rows]
        finally:
            reader.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def client(url: str, token: str | None) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=GUARD_S, trust_env=False)


@contextmanager
def station(folder: Path) -> Iterator[Station]:
    """A folder whose ledger has one standing alarm; core runs, serve does not yet."""
    config = site()
    bench = Bench(folder / "core", config=config)

    async def one_alarm() -> None:
        edge = Edge()
        bench.deliver(edge.born())
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.settle(3)

    asyncio.run(one_alarm())
    alarm_id = next(alarm.id for alarm in bench.alarms() if alarm.limit == "H")
    bench.close()
    config = config.model_copy(update={"broker": config.broker.model_copy(update={"port": free_port()})})
    (folder / "site.yaml").write_text(dump_site(config), encoding="utf-8")
    secrets = {receiver.secret_env: SECRET for receiver in config.receivers if receiver.secret_env}
    place = [str(folder / "site.yaml"), "--data", str(folder)]
    core = Part("core", [*CLI, "core", *place], folder / "core.log", secrets)
    serve = Part("serve", [*CLI, "serve", *place, "--port", "0"], folder / "serve.log", {})
    made = Station(folder, config, core, serve, alarm_id)
    core.start()
    try:
        wait_until(made.heartbeat, "core's heartbeat")
        yield made
    finally:
        for part in (serve, core):
            if part.alive:
                part.kill()
