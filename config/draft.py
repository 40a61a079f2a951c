"""A site that may still be faulty: the parts that are sound, each with its path in the document.

Cross checks run on this, so that a typo in one tag does not hide the contradiction in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from config.edges import BusConfig, DeviceConfig, PointConfig
from config.problems import Severity, nearest
from config.receivers import ReceiverConfig
from config.site import BrokerConfig, HazardSourceConfig, RegionPath, SiteConfig
from config.storage import TimeSeriesStoreConfig
from config.tags import TagConfig

DocumentPath = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Placed(Generic[Model]):
    """A sound part and where it stands."""

    path: DocumentPath
    part: Model


@dataclass(frozen=True, slots=True)
class PlacedId:
    """An id as it was typed, sound or not, and where it stands. `scope` parts ids that may repeat."""

    path: DocumentPath
    id: str
    kind: str
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a cross check found. `other` is the second place when two parts contradict each other."""

    path: DocumentPath
    message: str
    message_zh: str = ""
    hint: str = ""
    severity: Severity = Severity.ERROR
    other: DocumentPath | None = None

    def as_warning(self) -> Finding:
        """Return the same finding as a warning."""
        return replace(self, severity=Severity.WARNING)


@dataclass(frozen=True, slots=True)
class PlacedDevice:
    """A sound device, its points apart; `edge` is the position of its edge."""

    path: DocumentPath
    edge: int
    device: DeviceConfig


@dataclass(frozen=True, slots=True)
class PlacedPoint:
    """A sound point; `device` is None when the device around it is faulty."""

    path: DocumentPath
    edge: int
    device: DeviceConfig | None
    point: PointConfig


@dataclass(slots=True)
class Draft:
    """The sound parts of a site document, and every id in it."""

    region: RegionPath | None = None
    broker: BrokerConfig | None = None
    hazard_sources: list[Placed[HazardSourceConfig]] = field(default_factory=list)
    tags: list[Placed[TagConfig]] = field(default_factory=list)
    receivers: list[Placed[ReceiverConfig]] = field(default_factory=list)
    stores: list[Placed[TimeSeriesStoreConfig]] = field(default_factory=list)
    buses: dict[tuple[int, str], BusConfig] = field(default_factory=dict)  # by position of the edge, and id
    devices: list[PlacedDevice] = field(default_factory=list)
    points: list[PlacedPoint] = field(default_factory=list)
    ids: list[PlacedId] = field(default_factory=list)
    lost_equipment: list[tuple[DocumentPath, str]] = field(default_factory=list)  # named by tags too faulty to keep
    all_points: bool = True  # False: points may be missing here, so "nobody reads this tag" cannot be said
    all_receivers: bool = True

    def known(self, kind: str, scope: str | None = None) -> set[str]:
        """Return every id of a kind, of faulty parts too: one typo must not cause two complaints."""
        return {item.id for item in self.ids if item.kind == kind and (scope is None or item.scope == scope)}

    def line_of(self, edge: int, device: DeviceConfig) -> tuple[str, int] | str:
        """Return what tells one connection from another: host and port, or the bus id when the bus is faulty."""
        bus = self.buses.get((edge, device.bus))
        return (bus.host, bus.port) if bus is not None else device.bus


def draft_of_site(site: SiteConfig) -> Draft:
    """Return the draft of a sound site."""
    draft = Draft(region=site.region, broker=site.broker)
    draft.hazard_sources = [Placed(("hazard_sources", i), part) for i, part in enumerate(site.hazard_sources)]
    draft.tags = [Placed(("tags", i), part) for i, part in enumerate(site.tags)]
    draft.receivers = [Placed(("receivers", i), part) for i, part in enumerate(site.receivers)]
    draft.stores = [Placed((*_STORES, i), part) for i, part in enumerate(site.storage.stores)]
    for number, edge in enumerate(site.edges):
        draft.buses.update(((number, bus.id), bus) for bus in edge.buses)
        for index, device in enumerate(edge.devices):
            path = ("edges", number, "devices", index)
            draft.devices.append(PlacedDevice(path, number, device))
            for place, point in enumerate(device.points):
                draft.points.append(PlacedPoint((*path, "points", place), number, device, point))
    draft.ids = list(_ids(site.model_dump(include=_ID_FIELDS)))
    return draft


_STORES = ("storage", "stores")
_ID = {"id": True}
_ID_FIELDS: dict[str, Any] = {
    "hazard_sources": {"__all__": {"id": True, "equipment": {"__all__": _ID}}},
    "tags": {"__all__": _ID},
    "receivers": {"__all__": _ID},
    "storage": {"stores": {"__all__": _ID}},
    "edges": {"__all__": {"id": True, "buses": {"__all__": _ID}, "devices": {"__all__": _ID}}},
}


def draft_of_document(document: dict[str, Any], error: ValidationError) -> Draft:
    """Return what is sound in a document that did not validate as a whole, for the reasons in `error`."""
    draft = Draft(all_points=not _points_may_be_lost(document, error))
    draft.ids = list(_ids(document))
    draft.region = _sound(RegionPath, document.get("region"))
    draft.broker = _sound(BrokerConfig, document.get("broker", {}))
    draft.hazard_sources = list(_sound_items(HazardSourceConfig, "hazard_sources", document))
    draft.receivers = list(_sound_items(ReceiverConfig, "receivers", document))
    draft.all_receivers = len(draft.receivers) == len(list(_items(document, "receivers")))
    for index, given in _items(document.get("storage"), "stores"):
        store = _sound(TimeSeriesStoreConfig, given)
        if store is not None:
            draft.stores.append(Placed((*_STORES, index), store))
    for index, given in _items(document, "tags"):
        tag = _salvaged_tag(given)
        if tag is not None:
            draft.tags.append(Placed(("tags", index), tag))
        elif isinstance(given, dict) and isinstance(given.get("equipment"), str):
            draft.lost_equipment.append((("tags", index, "equipment"), given["equipment"]))
    for number, edge in _items(document, "edges"):
        for _, given in _items(edge, "buses"):
            bus = _sound(BusConfig, given)
            if bus is not None:
                draft.buses[number, bus.id] = bus
        for index, given in _items(edge, "devices"):
            _salvage_device(draft, number, ("edges", number, "devices", index), given)
    return draft


def _salvage_device(draft: Draft, edge: int, path: DocumentPath, given: object) -> None:
    """Take the device without its points, then each of its sound points."""
    device = _sound(DeviceConfig, {**given, "points": []}) if isinstance(given, dict) else None
    if device is not None:
        draft.devices.append(PlacedDevice(path, edge, device))
    for place, item in _items(given, "points"):
        point = _sound(PointConfig, item)
        if point is not None:
            draft.points.append(PlacedPoint((*path, "points", place), edge, device, point))


_SHAPE_FAULTS = frozenset(
    {"extra_forbidden", "missing", "tuple_type", "model_type", "model_attributes_type", "too_long"}
)


def _points_may_be_lost(document: dict[str, Any], error: ValidationError) -> bool:
    """Whether a key, a list or a tag id is so wrong that points may stand in the file unseen."""
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        path, kind = fault["loc"], fault["type"]
        if path[0] == "edges" and (kind in _SHAPE_FAULTS or path[-1] == "tag"):
            return True
        if len(path) == 1 and kind == "extra_forbidden" and nearest(path[0], ("edges",)):
            return True
    return not isinstance(document.get("edges", []), list)


# Faults in these keys leave the rest of a tag worth checking.
_SIDE_KEYS = frozenset({"label", "fault_grade", "fault_delay_s", "safety_critical"})
# A misspelt one of these would make the rest of the tag look wrong.
_MAIN_KEYS = ("unit", "range", "state", "stale_after_s", "longest_silence_s")


def _salvaged_tag(given: object) -> TagConfig | None:
    """Return the tag, or what is left of it without its faulty limits and side keys; None when that says little."""
    try:
        return TagConfig.model_validate(given)
    except ValidationError as error:
        if not isinstance(given, dict):
            return None
        left = dict(given)
        limits = dict(given["limits"]) if isinstance(given.get("limits"), dict) else {}
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            path = fault["loc"]
            key = str(path[0])
            if key == "name":
                left["name"] = "?"
            elif key == "limits":
                limits = {kind: limit for kind, limit in limits.items() if len(path) > 1 and kind != path[1]}
            elif fault["type"] == "default_factory_not_called":
                continue  # follows from another fault
            elif key in _SIDE_KEYS or (fault["type"] == "extra_forbidden" and not nearest(key, _MAIN_KEYS)):
                left.pop(key, None)
            else:
                return None
        return _sound(TagConfig, {**left, "limits": limits})


def _sound(model: type[Model], given: object) -> Model | None:
    try:
        return model.model_validate(given)
    except ValidationError:
        return None  # its problems are reported from the whole document


def _sound_items(model: type[Model], name: str, document: dict[str, Any]) -> Iterator[Placed[Model]]:
    for index, given in _items(document, name):
        part = _sound(model, given)
        if part is not None:
            yield Placed((name, index), part)


def _items(parent: object, name: str) -> Iterator[tuple[int, Any]]:
    items = parent.get(name) if isinstance(parent, dict) else None
    yield from enumerate(items if isinstance(items, list | tuple) else ())


def _ids(document: dict[str, Any]) -> Iterator[PlacedId]:
    """Every id that is text, whatever else is wrong around it."""

    def id_of(item: Any, path: DocumentPath, kind: str, scope: str = "") -> Iterator[PlacedId]:
        given = item.get("id") if isinstance(item, dict) else None
        if isinstance(given, str):
            yield PlacedId((*path, "id"), given, kind, scope)

    for index, tag in _items(document, "tags"):
        yield from id_of(tag, ("tags", index), "tag")
    for index, receiver in _items(document, "receivers"):
        yield from id_of(receiver, ("receivers", index), "receiver")
    for index, store in _items(document.get("storage"), "stores"):
        yield from id_of(store, (*_STORES, index), "store")
    for index, source in _items(document, "hazard_sources"):
        yield from id_of(source, ("hazard_sources", index), "hazard source")
        for number, equipment in _items(source, "equipment"):
            yield from id_of(equipment, ("hazard_sources", index, "equipment", number), "equipment")
    for index, edge in _items(document, "edges"):
        yield from id_of(edge, ("edges", index), "edge")
        for name, kind in (("buses", "bus"), ("devices", "device")):
            for number, item in _items(edge, name):
                yield from id_of(item, ("edges", index, name, number), kind, str(index))
