"""A small, restless site: two edges, six devices, thirty-six tags that cross their limits all the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.ports import free_port
from config import SiteConfig, rebind

EDGES = ("E1", "E2")
DEVICES_PER_EDGE = 3
RECEIVERS = {"CITY": "HAZARDGATE_SYSTEM_CITY", "PARK": "HAZARDGATE_SYSTEM_PARK"}
PERIOD_S = 0.2
GUIDANCE = "Look at the tank before anything else."
NAME = {"zh": "甲", "en": "A"}


def _limit(setpoint: float, deadband: float, grade: str, **more: Any) -> dict[str, Any]:
    return {"setpoint": setpoint, "deadband": deadband, "grade": grade, "guidance": GUIDANCE, **more}


def _tag(tag: str, quantity: str, unit: str | None, limits: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    made = {"id": tag, "name": NAME, "equipment": "V1", "quantity": quantity, "limits": dict(limits), **more}
    if unit is not None:
        made |= {"unit": unit, "range": {"low": 0, "high": 100}}
    return made


def _device(edge: str, number: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return six tags and the device that carries them: every table, several native types and word orders."""
    stem = f"{edge}D{number}"
    tags = [
        _tag(f"{stem}.WAVE", "pressure", "kPa",
             {"L": _limit(20, 2, "blue"), "H": _limit(75, 2, "yellow"), "HH": _limit(90, 2, "red")}),
        _tag(f"{stem}.COUNTER", "level", "%", {"H": _limit(50, 1, "yellow"), "HH": _limit(80, 1, "orange")}),
        _tag(f"{stem}.WALK", "temperature", "°C",
             {"LL": _limit(15, 2, "orange"), "L": _limit(35, 2, "blue"), "H": _limit(65, 2, "yellow"),
              "HH": _limit(85, 2, "red")}),
        # Leaves its range at the top of every wave, and is no number now and then.
        _tag(f"{stem}.GAS", "combustible_gas", "%LEL", {"H": _limit(60, 2, "orange"), "HH": _limit(85, 2, "red")},
             fault_delay_s=0, safety_critical=True),
        _tag(f"{stem}.SLOW", "level", "%", {"H": _limit(60, 1, "yellow", on_delay_s=1, off_delay_s=1)}),
        _tag(f"{stem}.DOOR", "door_state", None, {"state": {"alarm_value": 1, "grade": "blue", "guidance": GUIDANCE}}),
    ]  # fmt: skip
    points = [
        {"tag": f"{stem}.WAVE", "table": "holding", "address": 0, "type": "f32"},
        {"tag": f"{stem}.COUNTER", "table": "holding", "address": 2, "type": "u16", "scale": 0.01},
        {"tag": f"{stem}.WALK", "table": "input", "address": 0, "type": "i32", "scale": 0.001, "word_order": "CDAB"},
        {"tag": f"{stem}.GAS", "table": "holding", "address": 3, "type": "f32", "word_order": "DCBA"},
        {"tag": f"{stem}.SLOW", "table": "holding", "address": 5, "type": "u32", "scale": 0.0001},
        {"tag": f"{stem}.DOOR", "table": "discrete", "address": 3, "type": "bit"},
    ]
    device = {"id": stem, "bus": f"B{number}", "unit": number, "period_s": PERIOD_S, "timeout_s": 0.5, "points": points}
    return tags, device


def restless_site() -> SiteConfig:
    """Return the site; its ports are free ones of this moment, the platform's is set by `bound`."""
    tags: list[dict[str, Any]] = []
    edges = []
    for edge in EDGES:
        devices = []
        for number in range(1, DEVICES_PER_EDGE + 1):
            more, device = _device(edge, number)
            tags += more
            devices.append(device)
        buses = [
            {"id": f"B{number}", "host": "127.0.0.1", "port": free_port(), "connect_timeout_s": 1}
            for number in range(1, DEVICES_PER_EDGE + 1)
        ]
        edges.append({"id": edge, "buses": buses, "devices": devices})
    equipment = [{"id": "V1", "name": NAME, "kind": "tank"}]
    return SiteConfig.model_validate(
        {
            "version": 1,
            "site": "RESTLESS",
            "name": NAME,
            "region": {level: {"code": "1", "name": NAME} for level in ("city", "county", "park", "enterprise")},
            "hazard_sources": [{"id": "H1", "name": NAME, "kind": "storage", "equipment": equipment}],
            "tags": tags,
            "receivers": [
                {
                    "id": receiver, "name": NAME, "url": f"http://127.0.0.1:1/hooks/{receiver}",
                    "secret_env": variable, "plain_http_ranges": ["127.0.0.0/8"], "regulator": receiver == "CITY",
                    "grades": ["red", "orange", "yellow", "blue"] if receiver == "CITY" else ["red", "orange"],
                }
                for receiver, variable in RECEIVERS.items()
            ],
            "edges": edges,
        }
    )  # fmt: skip


def bound(site: SiteConfig, broker_port: int, platform_port: int) -> SiteConfig:
    """Return the site with the ports at which its broker and its receivers are."""
    buses = {(edge.id, bus.id): (bus.host, bus.port) for edge in site.edges for bus in edge.buses}
    urls = {receiver.id: f"http://127.0.0.1:{platform_port}/hooks/{receiver.id}" for receiver in site.receivers}
    return rebind(site, buses, ("127.0.0.1", broker_port), urls)
