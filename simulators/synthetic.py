"""Plants of any size for benchmarks and load tests: a site as a plain mapping, and obedient instruments.

Every tag wanders a little each step, so report by exception has no easy day; one tag can be put over its
limit at an exact moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import SiteConfig
from simulators.bank import InstrumentBank
from simulators.changes import Change
from simulators.errors import SimulatorError
from simulators.field import field_of

SETPOINT, DEADBAND, CALM, OVER = 80.0, 1.0, 50.0, 90.0
CALM_SPREAD = 2.0
REGISTERS_PER_TAG = 2


def synthetic_tag(index: int) -> str:
    """The id of tag number `index`."""
    return f"S{index:06d}.PRESSURE"


def synthetic_site(
    tags: int = 2000,
    devices: int = 20,
    *,
    period_s: float = 1.0,
    first_port: int = 15000,
    stride: int = 0,
    grade: str = "red",
    receivers: Sequence[Mapping[str, Any]] = (),
    broker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a site with `tags` tags on `devices` devices of one edge EDGE1, each on a bus of its own.

    Args:
        tags: float32 holding registers with one H limit each (setpoint 80, deadband 1, no delay).
        devices: Modbus units, at ports `first_port` … `first_port + devices - 1` of 127.0.0.1.
        period_s: poll period of every device.
        stride: unused registers between two tags (0: contiguous).
        grade: grade of every limit.
        receivers, broker: taken into the site as they are.
    """
    limit = {
        "setpoint": SETPOINT,
        "deadband": DEADBAND,
        "grade": grade,
        "guidance": "Benchmark tag: nothing to do.",
    }
    shares = np.array_split(np.arange(tags), devices)
    return {
        "version": 1,
        "site": "SYNTHETIC",
        "name": {"zh": "合成站点", "en": "Synthetic site"},
        "region": {
            level: {"code": f"00{i}", "name": {"zh": "合成", "en": "Synthetic"}}
            for i, level in enumerate(("city", "county", "park", "enterprise"))
        },
        "hazard_sources": [
            {
                "id": "HS1",
                "name": {"zh": "合成源", "en": "Synthetic source"},
                "kind": "production",
                "equipment": [{"id": "EQ1", "name": {"zh": "合成设备", "en": "Synthetic equipment"}, "kind": "other"}],
            }
        ],
        "tags": [
            {
                "id": synthetic_tag(i),
                "name": {"zh": f"压力{i}", "en": f"Pressure {i}"},
                "equipment": "EQ1",
                "quantity": "pressure",
                "unit": "kPa",
                "range": {"low": 0.0, "high": 100.0},
                "limits": {"H": limit},
            }
            for i in range(tags)
        ],
        "receivers": [dict(receiver) for receiver in receivers],
        "edges": [
            {
                "id": "EDGE1",
                "buses": [
                    {"id": f"BUS{d}", "kind": "modbus_tcp", "host": "127.0.0.1", "port": first_port + d}
                    for d in range(devices)
                ],
                "devices": [
                    {
                        "id": f"DEV{d}",
                        "bus": f"BUS{d}",
                        "unit": 1,
                        "period_s": period_s,
                        "points": [
                            {
                                "tag": synthetic_tag(int(i)),
                                "table": "holding",
                                "type": "f32",
                                "address": place * (REGISTERS_PER_TAG + stride),
                            }
                            for place, i in enumerate(share)
                        ],
                    }
                    for d, share in enumerate(shares)
                ],
            }
        ],
        **({"broker": dict(broker)} if broker is not None else {}),
    }


class SyntheticPlant:
    """Instruments of a synthetic site. `async with` opens them; `run` wanders all tags once per `step_s`."""

    def __init__(
        self,
        site: SiteConfig,
        seed: int = 1,
        directory: Path | None = None,
        ports: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self.bank = InstrumentBank(field_of(site, ports), directory, seed, self._read)
        self._index = {tag.id: i for i, tag in enumerate(self.bank.field.tags)}
        self._random = np.random.default_rng(seed)
        self._value: NDArray[np.float64] = np.full(len(self._index), CALM)
        self._held: set[int] = set()
        self._reads: dict[int, asyncio.Future[float]] = {}
        self.bank.write(self._value)

    async def __aenter__(self) -> SyntheticPlant:
        await self.bank.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bank.stop()

    def wander(self) -> None:
        """Move every tag that is not held to a new value within 50 ± 2."""
        held = {i: self._value[i] for i in self._held}
        self._value = CALM + CALM_SPREAD * (2.0 * self._random.random(len(self._value)) - 1.0)
        for i, value in held.items():
            self._value[i] = value
        self.bank.write(self._value)

    async def run(self, stop: asyncio.Event, step_s: float = 1.0) -> None:
        """Wander once per `step_s` until `stop` is set."""
        while not stop.is_set():
            self.wander()
            self.bank.flush()
            try:
                async with asyncio.timeout(step_s):
                    await stop.wait()
            except TimeoutError:
                continue

    def step_over(self, tag: str) -> Change:
        """Put one tag over its limit now, and hold it there; the change's `at_ms` is this moment.

        Raises:
            SimulatorError: the tag is over already (or unknown).
        """
        return self._move(tag, OVER)

    def step_back(self, tag: str) -> Change:
        """Put one tag back to normal now and let it wander again."""
        change = self._move(tag, CALM)
        self._held.discard(self._index[tag])
        return change

    async def read_ms(self, change: Change, timeout_s: float = 10.0) -> float:
        """Wait until the changed register has left in an answer and return when (UTC epoch ms)."""
        async with asyncio.timeout(timeout_s):
            try:
                return await self._reads[change.number]
            finally:
                self._reads.pop(change.number, None)

    def _move(self, tag: str, value: float) -> Change:
        index = self._index.get(tag)
        if index is None:
            raise SimulatorError(f"no tag {tag!r} in this synthetic plant")
        self._held.add(index)
        self._value[index] = value
        changes = [change for change in self.bank.write(self._value) if change.tag == tag]
        if not changes:
            raise SimulatorError(f"{tag} did not cross a limit: it stood there already")
        self._reads[changes[0].number] = asyncio.get_running_loop().create_future()
        return changes[0]

    def _read(self, change: Change, read_ms: float) -> None:
        waiting = self._reads.get(change.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(read_ms)
