"""Cross checks of the field side: registers that overlap, types too narrow for the range, poll periods."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from config.draft import DocumentPath, Draft, Finding
from config.edges import DeviceConfig, PointConfig
from config.problems import Severity
from config.tags import TagConfig

COARSE_STEP_SHARE = 0.05  # of the range; one raw step beyond it is usually a slip of the scale
ROUNDING_SHARE = 1e-6  # of the range; a range of 655.35 and a register that ends at 655.35000001 agree


def check_edges(draft: Draft) -> Iterator[Finding]:
    """All checks of points against their device, their tag and each other."""
    tags = {tag.part.id: tag.part for tag in draft.tags}
    planned = {tag.id for tag in tags.values() if tag.planned}
    yield from _check_units(draft)
    yield from _check_overlaps(draft, planned)
    for placed in draft.points:
        for finding in _check_point(placed.path, placed.device, placed.point, tags.get(placed.point.tag)):
            yield finding.as_warning() if placed.point.tag in planned else finding


def _check_point(
    path: DocumentPath, device: DeviceConfig | None, point: PointConfig, tag: TagConfig | None
) -> Iterator[Finding]:
    in_bits = point.table in ("coil", "discrete")
    if in_bits and point.type != "bit":
        yield Finding(
            (*path, "type"),
            f"a {point.table} holds single bits, not {point.type}",
            f"{point.table} 是单个位, 不能是 {point.type}",
            "write type: bit, or table: holding / input",
        )
    elif in_bits and point.bit is not None:
        yield Finding((*path, "bit"), f"a {point.table} is one bit already", f"{point.table} 本身就是一个位", "remove bit")
    elif not in_bits and point.type == "bit" and point.bit is None:
        yield Finding(
            path,
            f"which bit of the {point.table} register?",
            f"缺少位号 bit: {point.table} 寄存器的第几位?",
            "add bit: 0 ... 15, 0 is the lowest",
        )
    elif not in_bits and point.type != "bit" and point.bit is not None:
        yield Finding(
            (*path, "bit"),
            f"a {point.type} uses the whole register",
            f"{point.type} 占整个寄存器",
            "remove bit, or write type: bit",
        )
    width = 1 if in_bits else point.registers
    if point.address + width > 65536:
        yield Finding(
            (*path, "address"),
            f"a {point.type} at {point.address} reaches beyond address 65535",
            f"{point.type} 在地址 {point.address} 处超出 65535",
            "check the address: on the wire it counts from 0",
        )
    if device is not None and not in_bits and width > device.registers_max:
        yield Finding(
            (*path, "type"),
            f"a {point.type} takes {width} registers, and registers_max is {device.registers_max}",
            f"{point.type} 占 {width} 个寄存器, 而 registers_max 为 {device.registers_max}",
            "raise the device's registers_max: a value is never read in two halves",
        )
    if tag is not None and not (in_bits and point.type != "bit"):
        yield from _check_tag_fit(path, device, point, tag)


def _check_tag_fit(
    path: DocumentPath, device: DeviceConfig | None, point: PointConfig, tag: TagConfig
) -> Iterator[Finding]:
    if tag.discrete != (point.type == "bit"):
        if tag.discrete:
            yield Finding(
                (*path, "type"),
                f"{tag.id} is a {tag.quantity}, 0 or 1, but the point is {point.type}",
                f"{tag.id} 是 {tag.quantity}, 为 0 或 1, 而采集点为 {point.type}",
                "write type: bit and which bit",
            )
        else:
            yield Finding(
                (*path, "type"),
                f"{tag.id} is a {tag.quantity}, a number, but the point is a bit",
                f"{tag.id} 是 {tag.quantity}, 为数值, 而采集点为一个位",
                "write u16, i16, u32, i32, u64, i64, f32 or f64",
            )
    elif tag.discrete:
        if point.value_span() != (0.0, 1.0):
            yield Finding(
                (*path, "scale"),
                f"scale and offset take the bit of {tag.id} away from 0 and 1",
                f"{tag.id} 换算后不再是 0 或 1",
                "leave them out, or invert by scale: -1, offset: 1",
            )
    elif tag.range is not None and tag.range.low < tag.range.high:
        yield from _check_expressible(path, point, tag)
    if device is not None and device.period_s > tag.stale_after_s / 2:
        yield Finding(
            (*path, "tag"),
            f"{device.id} is polled every {device.period_s:g} s, "
            f"more than half of the {tag.stale_after_s:g} s after which {tag.id} is stale",
            f"{device.id} 每 {device.period_s:g} 秒采集一次, 超过 {tag.id} 失效时间 {tag.stale_after_s:g} 秒的一半",
            "poll faster, or raise stale_after_s",
        )


def _check_expressible(path: DocumentPath, point: PointConfig, tag: TagConfig) -> Iterator[Finding]:
    """F07: what type, scale and offset can express must cover the range, else part of it is never seen."""
    span = point.value_span()
    if span is None:
        return
    low, high = tag.span().low, tag.span().high
    slack = ROUNDING_SHARE * (high - low)
    told = (
        f"{point.type} with scale {point.scale:g} and offset {point.offset:g} "
        f"gives {span[0]:g} to {span[1]:g} {tag.unit or ''}"
    )
    told_zh = (
        f"{point.type} 按 scale {point.scale:g}, offset {point.offset:g} 换算只有 "
        f"{span[0]:g} 至 {span[1]:g} {tag.unit or ''}"
    )
    if span[0] > low + slack or span[1] < high - slack:
        signed = "i" + point.type[1:] if point.type.startswith("u") and low < span[0] else ""
        hint = f"is the register signed? then type: {signed}; else " if signed else ""
        yield Finding(
            (*path, "type" if signed else "scale"),
            f"{tag.id} ranges from {low:g} to {high:g}, but {told}: the rest could never be seen",
            f"{tag.id} 的量程为 {low:g} 至 {high:g}, 而 {told_zh}: 其余部分永远看不到",
            hint + "check type, scale and offset against the range",
        )
    elif abs(point.scale) > COARSE_STEP_SHARE * (high - low):
        yield Finding(
            (*path, "scale"),
            f"one raw step moves {tag.id} by {abs(point.scale):g}, more than {COARSE_STEP_SHARE:.0%} of its range",
            f"原始值每变一步 {tag.id} 变化 {abs(point.scale):g}, 超过其量程的 {COARSE_STEP_SHARE:.0%}",
            "check the scale against the range",
            Severity.WARNING,
        )


def _check_units(draft: Draft) -> Iterator[Finding]:
    """Two entries for one Modbus unit: allowed (two periods), but usually a slip of the unit id."""
    first: dict[object, DocumentPath] = {}
    for placed in draft.devices:
        path = (*placed.path, "unit")
        unit = placed.device.unit
        earlier = first.setdefault((placed.edge, draft.line_of(placed.edge, placed.device), unit), path)
        if earlier is not path:
            yield Finding(
                path,
                f"unit {unit} on this connection is listed twice",
                f"同一连接上单元号 {unit} 出现两次",
                "right only if one instrument is polled at two periods",
                Severity.WARNING,
                earlier,
            )


@dataclass(frozen=True, slots=True, order=True)
class _Stretch:
    """The registers one point takes, in one table of one unit."""

    first: int
    last: int
    order: str
    path: DocumentPath
    point: PointConfig

    def agrees_with(self, other: _Stretch) -> bool:
        """Whether both may stand: the same register as word and as bits, or twice with one type."""
        one, two = self.point, other.point
        if one.registers == two.registers == 1:
            return one.type == two.type or "bit" in (one.type, two.type)
        return (self.first, one.type, self.order) == (other.first, two.type, other.order)


def _check_overlaps(draft: Draft, planned: set[str]) -> Iterator[Finding]:
    """F46: each register has one meaning. Checked per connection, unit and table over all devices."""
    stretches: defaultdict[object, list[_Stretch]] = defaultdict(list)
    for placed in draft.points:
        point, device = placed.point, placed.device
        if device is None or point.table in ("coil", "discrete"):
            continue  # one bit has only one meaning
        where = (placed.edge, draft.line_of(placed.edge, device), device.unit, point.table)
        order = point.word_order or device.word_order
        last = point.address + point.registers - 1
        stretches[where].append(_Stretch(point.address, last, order, placed.path, point))
    for group in stretches.values():
        yield from _overlaps_in(group, planned)


def _overlaps_in(group: list[_Stretch], planned: set[str]) -> Iterator[Finding]:
    reaching: list[_Stretch] = []
    for stretch in sorted(group, key=lambda s: (s.first, s.last, s.path)):
        reaching = [earlier for earlier in reaching if earlier.last >= stretch.first]
        for earlier in reaching:
            if not earlier.agrees_with(stretch):
                early, late = sorted((earlier, stretch), key=lambda s: s.path)
                severity = Severity.WARNING if {early.point.tag, late.point.tag} & planned else Severity.ERROR
                yield Finding(
                    (*late.path, "address"),
                    f"{_told(late)} overlaps {_told(early)}",
                    f"寄存器地址重叠: {_told(late)} 与 {_told(early)}",
                    "one register has one meaning: correct an address or a type",
                    severity,
                    early.path,
                )
                break  # one complaint a point is enough
        insort(reaching, stretch, key=lambda s: s.last)


def _told(stretch: _Stretch) -> str:
    point = stretch.point
    registers = f"{stretch.first}" if stretch.first == stretch.last else f"{stretch.first}-{stretch.last}"
    bit = f" bit {point.bit}" if point.bit is not None else ""
    return f"{point.tag} ({point.type} at {point.table} {registers}{bit})"
