"""The same promises on a broker of another make: mosquitto instead of the embedded nats-server."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from edge import SpooledSample
from tests.system.books import nothing_missing, settle, stop_edges
from tests.system.chain import running_chain, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.mark.needs("mosquitto")
@pytest.mark.fault("F30")
def test_mosquitto_carries_the_chain_through_one_kill_of_each_part(tmp_path: Path) -> None:
    taken: dict[str, list[SpooledSample]] = defaultdict(list)
    with running_chain(tmp_path / "chain", broker="mosquitto") as chain:
        wait_until(lambda: chain.heartbeat()["frames_committed"] >= 60, "frames are committed")
        chain.broker.kill()
        chain.broker.start()
        chain.wait_healed()
        chain.core.kill()
        chain.core.start()
        chain.wait_healed()
        chain.edges["E1"].kill()
        taken["E1"] = chain.spool("E1")
        chain.edges["E1"].start()
        chain.wait_healed()
        stop_edges(chain)
        books = settle(chain)
        chain.core.stop()
        chain.plant.stop()
        nothing_missing(chain, books, taken)
