"""What of a site's configuration the simulated field needs: tags as signals, points as registers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from config import SiteConfig
from simulators.registers import BIT_TABLES, PointSpec


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit of one tag; `high_side` for H and HH. In the tag's unit."""

    tag: str
    kind: str
    high_side: bool
    setpoint: float
    deadband: float
    on_delay_s: float


@dataclass(frozen=True, slots=True)
class TagSpec:
    """One tag as the plant needs it. `unit` is "" and low/high are 0/1 for a discrete tag."""

    id: str
    equipment: str
    quantity: str
    unit: str
    low: float
    high: float
    discrete: bool
    limits: tuple[LimitSpec, ...]

    def calm_band(self) -> tuple[float, float]:
        """Lowest and highest value at which nothing alarms and everything has cleared."""
        low = max((x.setpoint + x.deadband for x in self.limits if not x.high_side), default=self.low)
        high = min((x.setpoint - x.deadband for x in self.limits if x.high_side), default=self.high)
        return max(low, self.low), min(high, self.high)


@dataclass(frozen=True, slots=True)
class Listener:
    """One host and port, and the buses that meet there."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Field:
    """The field side of a site."""

    site: str
    tags: tuple[TagSpec, ...]  # those that some edge reads, in the site's order
    points: tuple[PointSpec, ...]
    listeners: tuple[Listener, ...]
    devices: Mapping[str, tuple[str, int]]  # device id → (listener name, unit)
    equipment: frozenset[str]

    def point_tags(self) -> list[int]:
        """For each point, the position of its tag in `tags`."""
        index = {tag.id: i for i, tag in enumerate(self.tags)}
        return [index[point.tag] for point in self.points]


def field_of(site: SiteConfig, ports: Mapping[tuple[str, str], int] | None = None) -> Field:
    """Read the field side out of a site.

    Args:
        site: checked configuration.
        ports: (edge id, bus id) → port to listen on instead of the configured one; 0 picks a free one.
    """
    listeners: dict[tuple[str, int], Listener] = {}
    bus_listener: dict[tuple[str, str], str] = {}
    for edge in site.edges:
        for bus in edge.buses:
            port = (ports or {}).get((edge.id, bus.id), bus.port)
            name = f"{edge.id}/{bus.id}"
            # port 0 means "any": every bus then gets a listener of its own
            key = (bus.host, port) if port else (name, 0)
            bus_listener[edge.id, bus.id] = listeners.setdefault(key, Listener(name, bus.host, port)).name
    points: list[PointSpec] = []
    devices: dict[str, tuple[str, int]] = {}
    for edge in site.edges:
        for device in edge.devices:
            server = bus_listener[edge.id, device.bus]
            devices[device.id] = (server, device.unit)
            devices[f"{edge.id}/{device.id}"] = (server, device.unit)
            points.extend(
                PointSpec(
                    tag=point.tag,
                    device=device.id,
                    server=server,
                    unit=device.unit,
                    table=point.table,
                    address=point.address,
                    native="bit" if point.table in BIT_TABLES else point.type,
                    bit=point.bit,
                    word_order=point.word_order or device.word_order,
                    scale=point.scale,
                    offset=point.offset,
                )
                for point in device.points
            )
    read = {point.tag for point in points}
    tags = tuple(_tag_spec(site, i) for i, tag in enumerate(site.tags) if tag.id in read)
    equipment = frozenset(item.id for source in site.hazard_sources for item in source.equipment)
    return Field(site.site, tags, tuple(points), tuple(listeners.values()), devices, equipment)


def _tag_spec(site: SiteConfig, index: int) -> TagSpec:
    tag = site.tags[index]
    span = tag.span()
    limits = tuple(
        LimitSpec(tag.id, row.kind.value, row.kind.high_side, row.setpoint, row.deadband, row.on_delay_s)
        for row in tag.limit_rows()
    )
    return TagSpec(tag.id, tag.equipment, tag.quantity.value, tag.unit or "", span.low, span.high, tag.discrete, limits)
