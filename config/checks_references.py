"""Cross checks of names: ids that stand twice, references to nothing, tags that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator

from config.draft import DocumentPath, Draft, Finding, PlacedId
from config.problems import Severity, did_you_mean

_ZH = {
    "tag": "测点", "receiver": "接收方", "hazard source": "危险源", "equipment": "设备",
    "edge": "采集终端", "bus": "总线", "device": "仪表", "store": "时序库",
}  # fmt: skip


def check_ids(draft: Draft) -> Iterator[Finding]:
    """F46: two ids of one kind that are equal, or equal but for capitals (Sparkplug forbids both)."""
    seen: dict[tuple[str, str, str], PlacedId] = {}
    for item in draft.ids:
        first = seen.setdefault((item.kind, item.scope, item.id.casefold()), item)
        if first is item:
            continue
        if first.id == item.id:
            message, message_zh = (
                f"{item.kind} id {item.id!r} stands twice",
                f"{_ZH[item.kind]}编号 {item.id!r} 重复",
            )
        else:
            message = f"{item.kind} id {item.id!r} differs from {first.id!r} only in capitals"
            message_zh = f"{_ZH[item.kind]}编号 {item.id!r} 与 {first.id!r} 只有大小写不同"
        yield Finding(item.path, message, message_zh, "rename one of them", other=first.path)


def check_references(draft: Draft) -> Iterator[Finding]:
    """Every reference names something that exists."""
    equipment, tags = draft.known("equipment"), draft.known("tag")
    for tag in draft.tags:
        if tag.part.equipment not in equipment:
            yield _unknown((*tag.path, "equipment"), "equipment", tag.part.equipment, equipment, tag.part.planned)
    for path, word in draft.lost_equipment:
        if word not in equipment:
            yield _unknown(path, "equipment", word, equipment)
    buses_of = {edge: draft.known("bus", str(edge)) for edge in {placed.edge for placed in draft.devices}}
    for placed in draft.devices:
        buses = buses_of[placed.edge]
        if placed.device.bus not in buses:
            yield _unknown((*placed.path, "bus"), "bus", placed.device.bus, buses)
    for point in draft.points:
        if point.point.tag not in tags:
            yield _unknown((*point.path, "tag"), "tag", point.point.tag, tags)
    for receiver in draft.receivers:
        region = receiver.part.region
        if region is not None and draft.region is not None:
            codes = draft.region.path.split("/")
            prefixes = ["/".join(codes[: n + 1]) for n in range(len(codes))]
            if region not in prefixes:
                yield _unknown((*receiver.path, "region"), "region of this site", region, prefixes)


def _unknown(
    path: DocumentPath, kind: str, word: str, candidates: set[str] | list[str], planned: bool = False
) -> Finding:
    zh = f"找不到{_ZH.get(kind, '区域')} {word!r}"
    severity = Severity.WARNING if planned else Severity.ERROR
    return Finding(path, f"there is no {kind} {word!r}", zh, did_you_mean(word, sorted(candidates)), severity)


def check_readers(draft: Draft) -> Iterator[Finding]:
    """Every in-service tag is read by exactly one point. A planned one may have none."""
    first: dict[str, DocumentPath] = {}
    planned = {tag.part.id for tag in draft.tags if tag.part.planned}
    for placed in draft.points:
        tag = placed.point.tag
        earlier = first.setdefault(tag, placed.path)
        if earlier is not placed.path:
            yield Finding(
                (*placed.path, "tag"),
                f"tag {tag} is already read by another point",
                f"测点 {tag} 已由另一处采集",
                "keep one point per tag",
                Severity.WARNING if tag in planned else Severity.ERROR,
                earlier,
            )
    if not draft.all_points:
        return
    for item in draft.tags:
        tag = item.part.id
        if tag not in first and not item.part.planned:
            yield Finding(
                (*item.path, "id"),
                f"no point of any edge reads tag {tag}",
                f"没有任何采集终端采集测点 {tag}",
                "add it under edges: devices: points:, or set state: planned",
            )
