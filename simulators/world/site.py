"""The site of the world: two boxes, five devices, limits of every kind, two receivers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from config import SiteConfig
from simulators.world.faults import Parts

GUIDANCE: Final = "Go and look from up wind, and call the shift leader."
SECRETS: Final = {
    name: "whsec_" + base64.b64encode(f"{name:-<24}".encode()).decode() for name in ("CITY", "COUNTY")
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tag: what it reads when all is calm, and the peaks its excursions may reach. `scale` is of its register."""

    tag: str
    quantity: str
    unit: str | None
    native: str
    scale: float
    high: float
    calm: float
    peaks: tuple[float, ...]
    limits: Mapping[str, Mapping[str, Any]]


def _limit(setpoint: float, deadband: float, grade: str, on_s: float = 0.0, off_s: float = 0.0) -> dict[str, Any]:
    return {
        "setpoint": setpoint, "deadband": deadband, "grade": grade, "guidance": GUIDANCE,
        "on_delay_s": on_s, "off_delay_s": off_s,
    }  # fmt: skip


INSTRUMENTS: Final[Mapping[tuple[str, str], tuple[Instrument, ...]]] = {
    ("E1", "TANK"): (
        Instrument("T1.LEVEL", "level", "m", "u16", 0.01, 30.0, 8.0, (11.0, 15.5, 21.0, 26.0, 35.0, 2.4, 0.8), {
            "LL": _limit(1, 0.3, "red"), "L": _limit(3, 0.3, "blue"),
            "H": _limit(10, 1, "yellow"), "HH": _limit(20, 1, "red"),
        }),
        Instrument("T1.PRESSURE", "pressure", "MPa", "f32", 1.0, 2.0, 0.5, (1.05, 1.2, 1.9, 2.5), {
            "H": _limit(1, 0.1, "orange", 2, 1), "HH": _limit(1.5, 0.1, "red", 0, 3),
        }),
    ),
    ("E1", "GAS"): (
        Instrument("G1.CL2", "toxic_gas", "mg/m3", "u16", 0.01, 10.0, 0.0, (1.0, 1.6, 4.0, 9.5, 14.0), {
            "H": _limit(1, 0.2, "orange"), "HH": _limit(3, 0.5, "red"),
        }),
        Instrument("G1.NH3", "toxic_gas", "mg/m3", "u16", 0.1, 100.0, 2.0, (21.0, 40.0, 90.0), {
            "H": _limit(20, 2, "red", 1, 2),
        }),
    ),
    ("E1", "DOOR"): (
        Instrument("D1.OPEN", "contact", None, "bit", 1.0, 1.0, 0.0, (1.0,), {
            "state": {"alarm_value": 1, "grade": "blue", "guidance": GUIDANCE, "off_delay_s": 2.0},
        }),
    ),
    ("E2", "PUMP"): (
        Instrument("P1.TEMP", "temperature", "°C", "i16", 0.1, 120.0, 40.0, (62.0, 75.0, 119.0, 130.0), {
            "H": _limit(60, 2, "blue"), "HH": _limit(80, 2, "orange", 3),
        }),
        Instrument("P1.VIBRATION", "vibration", "mm/s", "f64", 1.0, 20.0, 2.0, (7.5, 12.0, 19.0), {
            "H": _limit(7, 0.5, "yellow", 5, 3),
        }),
        Instrument("P1.CURRENT", "current", "A", "u16", 0.1, 100.0, 30.0, (45.0, 60.0), {}),
    ),
    ("E2", "FEED"): (
        Instrument("F1.FLOW", "flow", "m3/h", "u32", 0.001, 50.0, 20.0, (4.0, 1.0, 0.0), {
            "L": _limit(5, 0.5, "orange", 3, 1), "LL": _limit(1, 0.2, "red"),
        }),
        Instrument("F1.TILT", "tilt", "deg", "f32", 1.0, 10.0, 0.1, (2.5, 6.0, 9.0), {
            "H": _limit(2, 0.2, "yellow", 0, 5), "HH": _limit(5, 0.2, "red", 1),
        }),
    ),
}  # fmt: skip


def _tag(instrument: Instrument) -> dict[str, Any]:
    tag: dict[str, Any] = {
        "id": instrument.tag, "name": instrument.tag, "equipment": "V1", "quantity": instrument.quantity,
        "limits": {kind: dict(limit) for kind, limit in instrument.limits.items()}, "fault_delay_s": 2.0,
    }  # fmt: skip
    if instrument.unit is not None:
        tag |= {"unit": instrument.unit, "range": {"low": 0, "high": instrument.high}}
    if not instrument.limits:
        tag["report_deadband"] = 1.0
    return tag


def _device(name: str, unit: int, instruments: tuple[Instrument, ...]) -> dict[str, Any]:
    points = [
        {
            "tag": one.tag, "table": "discrete" if one.native == "bit" else "holding", "address": 4 * at,
            "type": one.native, "scale": one.scale,
        }
        for at, one in enumerate(instruments)
    ]  # fmt: skip
    return {"id": name, "bus": "B1", "unit": unit, "points": points}


@cache
def world_site(*, block_encoded: bool = False) -> SiteConfig:
    """Return the site. `block_encoded`: the live frames of E2 travel as blocks."""
    both = {"zh": "甲", "en": "A"}
    receiver = {"name": both, "secret_env": "HOOK_SECRET", "plain_http_ranges": ["127.0.0.0/8"], "timeout_s": 5.0}
    edges: dict[str, dict[str, Any]] = {}
    for unit, ((edge, device), instruments) in enumerate(INSTRUMENTS.items(), 1):
        empty = {"id": edge, "buses": [{"id": "B1", "host": "127.0.0.1", "port": 15020}], "devices": []}
        edges.setdefault(edge, empty)["devices"].append(_device(device, unit, instruments))
    if block_encoded:
        edges["E2"]["encoding"] = "block"
    return SiteConfig.model_validate(
        {
            "version": 1, "site": "WORLD", "name": both,
            "region": {level: {"code": "1", "name": both} for level in ("city", "county", "park", "enterprise")},
            "hazard_sources": [
                {"id": "H1", "name": both, "kind": "storage", "equipment": [{"id": "V1", "name": both, "kind": "tank"}]}
            ],
            "tags": [_tag(one) for instruments in INSTRUMENTS.values() for one in instruments],
            "receivers": [
                {"id": "CITY", "url": "http://127.0.0.1:9/hooks/CITY", **receiver},
                {"id": "COUNTY", "url": "http://127.0.0.1:9/hooks/COUNTY", **receiver,
                 "grades": ["orange", "red"], "regulator": True},
            ],
            "edges": list(edges.values()),
        }
    )  # fmt: skip


def parts_of(site: SiteConfig) -> Parts:
    """Return what can break, by id."""
    return Parts(
        tuple(edge.id for edge in site.edges),
        tuple(device.id for edge in site.edges for device in edge.devices),
        tuple(receiver.id for receiver in site.receivers),
    )
