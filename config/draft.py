"""A site that may still be faulty: the parts that are sound, each with its path in the document.

Cross checks run on this, so that a typo in one tag does not hide the contradiction in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from config.edges import EdgeConfig
from config.problems import Severity
from config.receivers import ReceiverConfig
from config.site import HazardSourceConfig, RegionPath, SiteConfig
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


@dataclass(slots=True)
class Draft:
    """The sound parts of a site document, and every id in it."""

    region: RegionPath | None = None
    hazard_sources: list[Placed[HazardSourceConfig]] = field(default_factory=list)
    tags: list[Placed[TagConfig]] = field(default_factory=list)
    receivers: list[Placed[ReceiverConfig]] = field(default_factory=list)
    edges: list[Placed[EdgeConfig]] = field(default_factory=list)
    ids: list[PlacedId] = field(default_factory=list)
    complete: bool = True  # False: parts are missing, so "nobody reads this tag" cannot be said

    def known(self, kind: str, scope: str | None = None) -> set[str]:
        """Return every id of a kind, of faulty parts too: one typo must not cause two complaints."""
        return {item.id for item in self.ids if item.kind == kind and (scope is None or item.scope == scope)}


def draft_of_site(site: SiteConfig) -> Draft:
    """Return the draft of a sound site."""
    draft = Draft(region=site.region)
    draft.hazard_sources = [Placed(("hazard_sources", i), part) for i, part in enumerate(site.hazard_sources)]
    draft.tags = [Placed(("tags", i), part) for i, part in enumerate(site.tags)]
    draft.receivers = [Placed(("receivers", i), part) for i, part in enumerate(site.receivers)]
    draft.edges = [Placed(("edges", i), part) for i, part in enumerate(site.edges)]
    draft.ids = list(
        _ids(
            {
                name: [part.model_dump(include=_ID_FIELDS[name]) for part in parts]
                for name, parts in (
                    ("hazard_sources", site.hazard_sources),
                    ("tags", site.tags),
                    ("receivers", site.receivers),
                    ("edges", site.edges),
                )
            }
        )
    )
    return draft


_ID_FIELDS: dict[str, Any] = {
    "hazard_sources": {"id": True, "equipment": {"__all__": {"id": True}}},
    "tags": {"id": True},
    "receivers": {"id": True},
    "edges": {"id": True, "buses": {"__all__": {"id": True}}, "devices": {"__all__": {"id": True}}},
}


def draft_of_document(document: dict[str, Any]) -> Draft:
    """Return what is sound in a document that did not validate as a whole."""
    draft = Draft(complete=False)
    draft.ids = list(_ids(document))
    draft.region = _sound(RegionPath, document.get("region"))
    draft.hazard_sources = list(_sound_items(HazardSourceConfig, "hazard_sources", document))
    draft.tags = list(_sound_items(TagConfig, "tags", document))
    draft.receivers = list(_sound_items(ReceiverConfig, "receivers", document))
    draft.edges = list(_sound_items(EdgeConfig, "edges", document))
    edges = document.get("edges")
    draft.complete = isinstance(edges, list) and len(draft.edges) == len(edges)
    return draft


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
    def id_of(item: Any, path: DocumentPath, kind: str, scope: str = "") -> Iterator[PlacedId]:
        given = item.get("id") if isinstance(item, dict) else None
        if isinstance(given, str):
            yield PlacedId((*path, "id"), given, kind, scope)

    for index, tag in _items(document, "tags"):
        yield from id_of(tag, ("tags", index), "tag")
    for index, receiver in _items(document, "receivers"):
        yield from id_of(receiver, ("receivers", index), "receiver")
    for index, source in _items(document, "hazard_sources"):
        yield from id_of(source, ("hazard_sources", index), "hazard source")
        for number, equipment in _items(source, "equipment"):
            yield from id_of(equipment, ("hazard_sources", index, "equipment", number), "equipment")
    for index, edge in _items(document, "edges"):
        yield from id_of(edge, ("edges", index), "edge")
        for name, kind in (("buses", "bus"), ("devices", "device")):
            for number, item in _items(edge, name):
                yield from id_of(item, ("edges", index, name, number), kind, str(index))
