"""Cross checks of one tag: unit, range, limits, deadbands, grades and times."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from config.draft import Draft, Finding, Placed
from config.limits import LimitConfig, LimitKind
from config.problems import Severity, did_you_mean
from config.tags import TagConfig
from config.units import UNITS_OF

DEADBAND_SHARE_MAX = 0.25  # of the range; more than that is usually a slip of the decimal point


def check_tags(draft: Draft) -> Iterator[Finding]:
    """F47 and its neighbours. What is wrong with a planned tag only warns."""
    for tag in draft.tags:
        for finding in _check_tag(tag):
            yield finding.as_warning() if tag.part.planned else finding


def _check_tag(tag: Placed[TagConfig]) -> Iterator[Finding]:
    yield from _check_times(tag)
    yield from (_check_discrete(tag) if tag.part.discrete else _check_measured(tag))


def _check_times(tag: Placed[TagConfig]) -> Iterator[Finding]:
    part = tag.part
    if part.longest_silence_s > part.stale_after_s / 2:
        yield Finding(
            (*tag.path, "longest_silence_s"),
            f"longest_silence_s {part.longest_silence_s:g} is more than half of stale_after_s "
            f"{part.stale_after_s:g}: one lost frame would make the tag stale",
            f"longest_silence_s {part.longest_silence_s:g} 超过 stale_after_s {part.stale_after_s:g} 的一半, 丢一帧就会误报失效",
            f"set it to {part.stale_after_s / 2:g} or less, or raise stale_after_s",
        )
    if part.report_deadband > 0 and part.limit_rows():
        yield Finding(
            (*tag.path, "report_deadband"),
            "a tag with limits is sent on every change, so it has no report_deadband",
            "有限值的测点每次变化都要上报, 不能设上报死区",
            "remove report_deadband, or the limits",
        )


def _check_discrete(tag: Placed[TagConfig]) -> Iterator[Finding]:
    part = tag.part
    for name in ("unit", "range"):
        if getattr(part, name) is not None:
            yield Finding(
                (*tag.path, name),
                f"a {part.quantity} is 0 or 1 and has no {name}",
                f"{part.quantity} 为 0 或 1, 不需要 {name}",
                f"remove {name}",
            )
    for kind, _ in part.limits.given():
        yield Finding(
            (*tag.path, "limits", kind.value),
            f"a {part.quantity} is 0 or 1 and has no {kind.value}",
            f"{part.quantity} 为 0 或 1, 没有 {kind.value} 限值",
            "write limits: {state: {alarm_value: 1, ...}}",
        )


def _check_measured(tag: Placed[TagConfig]) -> Iterator[Finding]:
    part = tag.part
    units = UNITS_OF[part.quantity]
    if part.unit is None:
        yield Finding(tag.path, f"a {part.quantity} needs a unit", f"{part.quantity} 缺少单位", "valid here: " + ", ".join(units))
    elif part.unit not in units:
        yield Finding(
            (*tag.path, "unit"),
            f"{part.unit!r} is no unit of {part.quantity}",
            f"{part.unit!r} 不是 {part.quantity} 的单位",
            did_you_mean(part.unit, units),
        )
    if part.limits.state is not None:
        yield Finding(
            (*tag.path, "limits", "state"),
            f"a {part.quantity} is a number and has no state limit",
            f"{part.quantity} 是数值, 没有 state 限值",
            "use LL, L, H, HH",
        )
    if part.range is None:
        yield Finding(
            tag.path,
            f"a {part.quantity} needs a range: what the instrument can show",
            f"{part.quantity} 缺少量程: 仪表能显示的范围",
            "write range: {low: ..., high: ...}",
        )
    elif part.range.low >= part.range.high:
        yield Finding(
            (*tag.path, "range"),
            f"range low {part.range.low:g} is not below high {part.range.high:g}",
            f"量程下限 {part.range.low:g} 不小于上限 {part.range.high:g}",
            "swap them",
        )
    else:
        for kind, limit in part.limits.given():
            yield from _check_against_range(tag, kind, limit)
    yield from _check_order(tag)
    yield from _check_deadbands(tag)
    yield from _check_grades(tag)


def _check_against_range(tag: Placed[TagConfig], kind: LimitKind, limit: LimitConfig) -> Iterator[Finding]:
    span = tag.part.span()
    path = (*tag.path, "limits", kind.value)
    unit = tag.part.unit or ""
    if not span.low <= limit.setpoint <= span.high:
        yield Finding(
            (*path, "setpoint"),
            f"{kind} {limit.setpoint:g} is outside the range {span.low:g} to {span.high:g} {unit}",
            f"{kind} 设定值 {limit.setpoint:g} 超出量程 {span.low:g} 至 {span.high:g} {unit}",
            "the instrument can never reach it: correct the setpoint or the range",
        )
        return
    clears = _clears(kind, limit)
    never = clears <= span.low if kind.high_side else clears >= span.high
    if never:
        word, word_zh = ("below", "低于") if kind.high_side else ("above", "高于")
        yield Finding(
            (*path, "deadband"),
            f"{kind} could never clear: it clears {word} {clears:g}, "
            f"and the range is {span.low:g} to {span.high:g} {unit}",
            f"{kind} 永远无法恢复: 要{word_zh} {clears:g} 才恢复, 而量程为 {span.low:g} 至 {span.high:g} {unit}",
            "make the deadband smaller",
        )
    elif limit.deadband > DEADBAND_SHARE_MAX * (span.high - span.low):
        yield Finding(
            (*path, "deadband"),
            f"the deadband {limit.deadband:g} is more than {DEADBAND_SHARE_MAX:.0%} of the range",
            f"死区 {limit.deadband:g} 超过量程的 {DEADBAND_SHARE_MAX:.0%}",
            "check the decimal point",
            Severity.WARNING,
        )


def _check_order(tag: Placed[TagConfig]) -> Iterator[Finding]:
    given = tag.part.limits.given()
    for (lower_kind, lower), (upper_kind, upper) in pairwise(given):
        path = (*tag.path, "limits", upper_kind.value, "setpoint")
        other = (*tag.path, "limits", lower_kind.value, "setpoint")
        if upper.setpoint < lower.setpoint:
            yield Finding(
                path,
                f"{upper_kind} {upper.setpoint:g} is below {lower_kind} {lower.setpoint:g}",
                f"{upper_kind} {upper.setpoint:g} 低于 {lower_kind} {lower.setpoint:g}",
                "limits go LL < L < H < HH",
                other=other,
            )
        elif upper.setpoint == lower.setpoint:
            always = not lower_kind.high_side and upper_kind.high_side
            yield Finding(
                path,
                f"{upper_kind} and {lower_kind} are both {upper.setpoint:g}"
                + ("; every value alarms" if always else "; the milder one adds nothing"),
                f"{upper_kind} 与 {lower_kind} 都是 {upper.setpoint:g}"
                + (", 任何值都会报警" if always else ", 较轻的一个不起作用"),
                "part them, or drop one",
                Severity.WARNING,
                other,
            )


def _check_deadbands(tag: Placed[TagConfig]) -> Iterator[Finding]:
    """A limit must be able to clear while no other limit stands."""
    given = tag.part.limits.given()
    lows = [(kind, limit) for kind, limit in given if not kind.high_side]
    highs = [(kind, limit) for kind, limit in given if kind.high_side]
    if lows and highs:
        (low_kind, low), (high_kind, high) = lows[-1], highs[0]
        if low.setpoint < high.setpoint:
            for kind, limit in given:
                clears = _clears(kind, limit)
                if tag.part.range is not None and not tag.part.range.low < clears < tag.part.range.high:
                    continue  # told already: it could never clear at all
                if clears <= low.setpoint if kind.high_side else clears >= high.setpoint:
                    opposite = low_kind if kind.high_side else high_kind
                    yield Finding(
                        (*tag.path, "limits", kind.value, "deadband"),
                        f"{kind} clears only at {clears:g}, where {opposite} alarms",
                        f"{kind} 到 {clears:g} 才恢复, 而那里 {opposite} 已报警",
                        "make the deadband smaller",
                    )
    for near, far in ((LimitKind.H, LimitKind.HH), (LimitKind.L, LimitKind.LL)):
        limits = dict(given)
        if near not in limits or far not in limits:
            continue
        near_clears, far_clears = _clears(near, limits[near]), _clears(far, limits[far])
        if far_clears < near_clears if near.high_side else far_clears > near_clears:
            yield Finding(
                (*tag.path, "limits", far.value, "deadband"),
                f"{far} clears at {far_clears:g}, only after {near}, which clears at {near_clears:g}",
                f"{far} 到 {far_clears:g} 才恢复, 晚于在 {near_clears:g} 恢复的 {near}",
                "make its deadband smaller",
                Severity.WARNING,
            )


def _clears(kind: LimitKind, limit: LimitConfig) -> float:
    """The value beyond which the limit clears."""
    return limit.setpoint - limit.deadband if kind.high_side else limit.setpoint + limit.deadband


def _check_grades(tag: Placed[TagConfig]) -> Iterator[Finding]:
    """The farther limit is at least as grave: a blue limit above a red one contradicts itself."""
    limits = dict(tag.part.limits.given())
    for mild, grave in ((LimitKind.H, LimitKind.HH), (LimitKind.L, LimitKind.LL)):
        near, far = limits.get(mild), limits.get(grave)
        if near is not None and far is not None and far.grade < near.grade:
            yield Finding(
                (*tag.path, "limits", grave.value, "grade"),
                f"{grave} is {far.grade.word} but {mild}, which comes first, is {near.grade.word}",
                f"{grave} 为{far.grade.zh}色, 却轻于先到的 {mild} ({near.grade.zh}色)",
                f"{grave} must be at least as grave as {mild}",
                other=(*tag.path, "limits", mild.value, "grade"),
            )
