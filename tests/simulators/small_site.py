"""A small site for simulator tests: two buses, all tables and word orders, gas, level, pressure, wind, a door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from config import SiteConfig
from tests.patience import GUARD_S

GUIDANCE = "Check the detector and the area around it."


def limit(setpoint: float, deadband: float, grade: str, **more: Any) -> dict[str, Any]:
    return {"setpoint": setpoint, "deadband": deadband, "grade": grade, "guidance": GUIDANCE, **more}


def _tag(name: str, quantity: str, unit: str | None, low: float = 0, high: float = 1, **limits: Any) -> dict[str, Any]:
    tag: dict[str, Any] = {"id": name, "name": name, "equipment": "V1", "quantity": quantity, "limits": limits}
    if unit is not None:
        tag |= {"unit": unit, "range": {"low": low, "high": high}}
    return tag


def small_site() -> SiteConfig:
    both = {"zh": "甲", "en": "A"}
    return SiteConfig.model_validate(
        {
            "version": 1,
            "site": "SMALL",
            "name": both,
            "region": {level: {"code": "1", "name": both} for level in ("city", "county", "park", "enterprise")},
            "hazard_sources": [
                {"id": "H1", "name": both, "kind": "storage", "equipment": [{"id": "V1", "name": both, "kind": "tank"}]}
            ],
            "tags": [
                _tag("CL2.A1", "toxic_gas", "mg/m3", 0, 10, H=limit(1, 0.1, "yellow"), HH=limit(2, 0.2, "red")),
                _tag(
                    "V1.LEVEL",
                    "level",
                    "m",
                    0,
                    10,
                    L=limit(1, 0.1, "blue"),
                    H=limit(8, 0.2, "orange"),
                    HH=limit(9, 0.2, "red", on_delay_s=2),
                ),
                _tag("V1.PRESSURE", "pressure", "MPa", 0, 1.6, H=limit(0.9, 0.02, "orange")),
                _tag("V1.TEMP", "temperature", "°C", -20, 60, L=limit(0, 1, "blue"), H=limit(40, 1, "yellow")),
                _tag("WIND.SPEED", "wind_speed", "m/s", 0, 60),
                _tag("WIND.FROM", "wind_direction", "deg", 0, 360),
                _tag("V1.DOOR", "door_state", None, state={"alarm_value": 1, "grade": "blue", "guidance": GUIDANCE}),
                _tag(
                    "V1.SUPPLY", "supply_state", None, state={"alarm_value": 0, "grade": "blue", "guidance": GUIDANCE}
                ),
            ],
            "edges": [
                {
                    "id": "E1",
                    "buses": [
                        {"id": "B1", "host": "127.0.0.1", "port": 15021},
                        {"id": "B2", "host": "127.0.0.1", "port": 15022},
                    ],
                    "devices": [
                        {
                            "id": "GAS",
                            "bus": "B1",
                            "unit": 1,
                            "points": [
                                {"tag": "CL2.A1", "table": "input", "address": 0, "type": "f32", "word_order": "CDAB"},
                                {"tag": "V1.DOOR", "table": "discrete", "address": 3, "type": "bit"},
                            ],
                        },
                        {
                            "id": "TANK",
                            "bus": "B2",
                            "unit": 7,
                            "points": [
                                {"tag": "V1.LEVEL", "table": "holding", "address": 100, "type": "u16", "scale": 0.001},
                                {
                                    "tag": "V1.PRESSURE",
                                    "table": "holding",
                                    "address": 102,
                                    "type": "i32",
                                    "scale": 1e-6,
                                    "word_order": "DCBA",
                                },
                                {"tag": "V1.TEMP", "table": "holding", "address": 104, "type": "i16", "scale": 0.01},
                                {"tag": "V1.SUPPLY", "table": "holding", "address": 105, "type": "bit", "bit": 9},
                            ],
                        },
                        {
                            "id": "WIND",
                            "bus": "B2",
                            "unit": 8,
                            "points": [
                                {
                                    "tag": "WIND.SPEED",
                                    "table": "holding",
                                    "address": 0,
                                    "type": "f64",
                                    "word_order": "BADC",
                                },
                                {"tag": "WIND.FROM", "table": "holding", "address": 4, "type": "u64", "scale": 0.001},
                            ],
                        },
                    ],
                }
            ],
        }
    )


FREE_PORTS = {("E1", "B1"): 0, ("E1", "B2"): 0}


def real_loop(scenario: Callable[[], Coroutine[Any, Any, None]], timeout_s: float = GUARD_S) -> None:
    """Run an async test on a real loop, with a deadline of its own."""

    async def within() -> None:
        async with asyncio.timeout(timeout_s):
            await scenario()

    asyncio.run(within())
