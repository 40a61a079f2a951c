"""The four lists as columns and cells, and the lines that tell more of the chosen row. Pure: model in, text out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cli.language import say
from cli.watch import words
from cli.watch.answers import Alarm, Receiver, Tag
from cli.watch.model import Model
from cli.watch.rows import Cell, Column
from cli.watch.words import Times, plain

WIDE: Final = 110
WIDER: Final = 140
DIM: Final = "#8a939c"
BAD: Final = "bold #ff6b6b"
WARN: Final = "bold #ffd166"
GOOD: Final = "bold #7fd18b"
STRONG: Final = "bold"


@dataclass(frozen=True, slots=True)
class Look:
    """What drawing needs beside the row: the picture, the site's clock, and the time now (UTC epoch ms)."""

    model: Model
    times: Times
    now_ms: int


Line = Sequence[Cell]


def alarm_columns() -> list[Column]:
    """Return the columns of the alarm list; 80 cells hold what counts."""
    return [
        Column(say("级别", "grd"), 4),
        Column(say("状态", "state"), 13),
        Column(say("位号", "tag"), 18, 2),
        Column(say("名称", "name"), 16, 4, WIDE),
        Column(say("限值", "limit"), 8),
        Column(say("现值", "value now"), 13, 1, until_width=WIDE - 1, right=True),
        Column(say("现值", "value now"), 13, 1, from_width=WIDE, right=True),
        Column(say("质量", "qual."), 5),
        Column(say("开始", "since"), 5, until_width=WIDE - 1),
        Column(say("开始", "since"), 11, from_width=WIDE),
        Column(say("重大危险源", "hazard source"), 14, 3, WIDER),
        Column(say("标记", "mark"), 4),
    ]


def alarm_cells(look: Look, id_: str) -> Line:
    """Return one alarm's row; nothing for one that has just gone (a terminal may ask for it before the list is new)."""
    alarm = look.model.alarms.get(id_)
    if alarm is None:
        return ()
    tag = look.model.tags.get(alarm.tag)
    body = DIM if alarm.acked else STRONG
    system = alarm.category == "system"  # of no tag: the last word of its subject says what it is
    now = Cell("" if tag is None else words.amount(tag.value, tag.unit), _trust(look, tag))
    return [
        Cell(_middle(words.grade(alarm.grade)), words.GRADE_STYLES[alarm.grade]),
        Cell(f"{words.standing(alarm)} {words.taken(alarm)}", body),
        Cell(plain(alarm.tag), body, keep_end=system),
        Cell(plain(alarm.tag_name), body),
        Cell(words.limit(alarm), body),
        Cell(plain(alarm.tag_name), body) if system else now,  # where there is no room for names
        now,
        Cell("" if tag is None else words.quality(tag, core_turns=look.model.values_hold), _trust(look, tag)),
        Cell(look.times.shortest(alarm.start_ms, look.now_ms), body),
        Cell(look.times.short(alarm.start_ms, look.now_ms), body),
        Cell(_source(look, alarm.hazard_source), body),
        Cell("".join(_marks(alarm, tag)), WARN),
    ]


def alarm_details(look: Look, id_: str) -> list[Line]:
    """Return what the operator needs to know of the chosen alarm; what to do first stands first."""
    alarm = look.model.alarms[id_]
    tag = look.model.tags.get(alarm.tag)
    lines: list[Line] = [
        [Cell(f" {words.grade_long(alarm.grade)} ", words.GRADE_STYLES[alarm.grade]),
         Cell(f" {plain(alarm.tag_name)}  {plain(alarm.tag)}", STRONG)],
    ]  # fmt: skip
    guidance = _guidance(alarm)
    if guidance:
        lines.append([Cell(say("先做：", "Do first: "), WARN), Cell(guidance, STRONG)])
    if tag is not None:
        began = words.amount(alarm.value, alarm.unit) or say("无值", "no value")
        before = say(f"报警时 {began}，现在 ", f"at start {began}, now ")
        if alarm.setpoint is not None:
            crossed = f"{words.limit_in_full(alarm)} {plain(alarm.unit)}".rstrip()
            before = say(f"限值 {crossed}，", f"limit {crossed}, ") + before
        lines.append([Cell(before), Cell(value_in_full(look, tag), _trust(look, tag))])
    lines.append([Cell(_times_of(look, alarm))])
    if plain(alarm.cause) not in ("", plain(alarm.tag_name)):
        lines.append([Cell(say("原因：", "Cause: ")), Cell(plain(alarm.cause))])
    if alarm.late:
        lines.append([Cell(say(
            "迟：由补传的历史数据发现，不代表现在", "late: found in data that came afterwards; it says nothing of now",
        ), WARN)])  # fmt: skip
    if tag is not None and tag.held:
        lines.append([Cell(say(
            "持：没有有效值，报警级别保持，不是测得的", "held: there is no valid value; the level is held, not measured"
        ), WARN)])  # fmt: skip
    place = " / ".join(filter(None, (_source(look, alarm.hazard_source), _equipment(look, alarm.equipment))))
    lines.append([Cell(" ".join(filter(None, (place, plain(alarm.id)))), DIM)])
    return lines


def _guidance(alarm: Alarm) -> str:
    """Say what to do first; empty where the name says it already: that of a system's condition is a sentence."""
    if plain(alarm.guidance) or alarm.category == "system":
        return plain(alarm.guidance)
    if alarm.category == "fault":  # of the instrument, so no limit of the configuration speaks of it
        return say("到现场或用其他仪表核实：此点位没有可信的值",
                   "check on site or by other instruments: this tag has no value to rely on")  # fmt: skip
    return say("（配置中没有）", "(none in the configuration)")


def _times_of(look: Look, alarm: Alarm) -> str:
    text = say(f"开始 {look.times.full(alarm.start_ms)}", f"since {look.times.full(alarm.start_ms)}")
    if alarm.active:
        lasting = words.lasting(max(0, look.now_ms - alarm.start_ms) / 1000)
        text += say(f"（已 {lasting}）", f" ({lasting})")
    if alarm.returned_ms is not None:
        text += say(f"，恢复 {look.times.full(alarm.returned_ms)}", f", normal {look.times.full(alarm.returned_ms)}")
    if alarm.acked_by:
        at = look.times.short(alarm.acked_ms, look.now_ms)
        text += say(f"，{plain(alarm.acked_by)} {at} 确认", f", acked by {plain(alarm.acked_by)} {at}")
    return text


def tag_columns() -> list[Column]:
    """Return the columns of the values."""
    return [
        Column(say("级别", "grd"), 4),
        Column(say("位号", "tag"), 20, 2),
        Column(say("名称", "name"), 17, 4),
        Column(say("现值", "value"), 13, 1, right=True),
        Column(say("质量", "qual."), 7),
        Column(say("距今", "age"), 11),
        Column(say("原因", "reason"), 12, 1, WIDE),
        Column(say("重大危险源", "hazard source"), 14, 3, WIDER),
    ]


def tag_cells(look: Look, id_: str) -> Line:
    """Return one tag's row."""
    tag = look.model.tags.get(id_)
    if tag is None:
        return ()
    trust = _trust(look, tag)
    mark = (
        Cell(_middle(words.grade(tag.grade)), words.GRADE_STYLES[tag.grade]) if tag.grade in words.GRADES else Cell("")
    )
    return [
        mark,
        Cell(plain(tag.id)),
        Cell(plain(tag.name)),
        Cell(words.amount(tag.value, tag.unit) or say("无", "none"), trust),
        Cell(words.quality(tag, core_turns=look.model.values_hold), trust),
        Cell(_age(look, tag), trust or DIM),
        Cell(_why(look, tag), trust),
        Cell(_source(look, tag.hazard_source), DIM),
    ]


def tag_details(look: Look, id_: str) -> list[Line]:
    """Return more of the chosen tag."""
    tag = look.model.tags[id_]
    lines: list[Line] = [
        [Cell(f"{plain(tag.name)}  {plain(tag.id)}  ", STRONG), Cell(_source(look, tag.hazard_source), DIM)],
        [Cell(say("现在 ", "now ")), Cell(value_in_full(look, tag), _trust(look, tag))],
        [Cell(say(f"仪表时间 {look.times.full(tag.source_ms)}，采集终端 {plain(tag.edge)}",
                  f"source time {look.times.full(tag.source_ms)}, edge {plain(tag.edge)}"))],
    ]  # fmt: skip
    if tag.quality != "GOOD":
        last = words.amount(tag.last_good, tag.unit) or say("无", "none")
        at = look.times.full(tag.last_good_ms)
        lines.append([Cell(say(f"最近的有效值 {last}（{at}）", f"last good value {last} ({at})"))])
    if tag.held:
        lines.append([Cell(say(
            "持：没有有效值，报警级别保持，不是测得的", "held: there is no valid value; the level is held, not measured"
        ), WARN)])  # fmt: skip
    return lines


def value_in_full(look: Look, tag: Tag) -> str:
    """Return a tag's value, its quality, why, and how old it is."""
    value = words.amount(tag.value, tag.unit) or say("无值", "no value")
    why = _why(look, tag)
    reason = f" {why}" if why else ""
    age = _age(look, tag)
    return f"{value} {words.quality(tag, core_turns=look.model.values_hold)}{reason}" + (
        say(f"（{age}前）", f" ({age} ago)") if age else ""
    )


def edge_columns() -> list[Column]:
    """Return the columns of the edges."""
    return [
        Column(say("终端", "edge"), 8, 1),
        Column(say("名称", "name"), 14, 4, WIDE),
        Column(say("会话", "session"), 8),
        Column(say("自", "since"), 8),
        Column(say("补传", "backlog"), 9, 1, right=True),
        Column(say("最近一帧", "newest frame"), 12),
        Column(say("配置一致", "config ok"), 9),
        Column(say("时钟同步", "clock ok"), 8),
        Column(say("丢失", "losses"), 6, right=True),
    ]


def edge_cells(look: Look, id_: str) -> Line:
    """Return one edge's row."""
    edge = next((edge for edge in look.model.edges if edge.id == id_), None)
    if edge is None:
        return ()
    return [
        Cell(plain(edge.id), STRONG),
        Cell(plain(edge.name)),
        Cell(say("不明", "unknown") if edge.online is None else say("在线", "online") if edge.online else say("离线", "OFFLINE"),
             "" if edge.online else BAD),
        Cell(look.times.short(edge.since_ms, look.now_ms)),
        Cell(say("不明", "unknown") if edge.backlog is None else str(edge.backlog), "" if edge.backlog == 0 else WARN),
        Cell(look.times.short(edge.last_frame_ms, look.now_ms)),
        Cell(words.yes_no(edge.config_matches), "" if edge.config_matches else WARN),
        Cell(words.yes_no(edge.clock_synced), "" if edge.clock_synced else WARN),
        Cell(str(edge.losses), WARN if edge.losses else ""),
    ]  # fmt: skip


def edge_details(look: Look, id_: str) -> list[Line]:
    """Return more of the chosen edge."""
    edge = next((edge for edge in look.model.edges if edge.id == id_), None)
    if edge is None:
        return []
    lines: list[Line] = [
        [Cell(f"{plain(edge.id)}  {plain(edge.name)}", STRONG)],
        [Cell(say(f"最近一帧 {look.times.full(edge.last_frame_ms)}，点位 {edge.tags} 个",
                  f"newest frame {look.times.full(edge.last_frame_ms)}, {edge.tags} tags"))],
    ]  # fmt: skip
    if edge.conditions:
        listed = say("、", ", ").join(map(words.condition, edge.conditions))
        lines.append([Cell(say(f"未消除的状况：{listed}", f"standing conditions: {listed}"), WARN)])
    return lines


def receiver_columns() -> list[Column]:
    """Return the columns of the deliveries."""
    return [
        Column(say("接收方", "receiver"), 12, 1),
        Column(say("名称", "name"), 14, 3, WIDE),
        Column(say("状态", "state"), 8),
        Column(say("待送", "due"), 6, right=True),
        Column(say("搁置", "parked"), 6, right=True),
        Column(say("已送达", "accepted"), 8, right=True),
        Column(say("最近送达", "last accepted"), 13),
        Column(say("最近一次尝试", "last attempt"), 17, 4),
    ]


def receiver_cells(look: Look, id_: str) -> Line:
    """Return one receiver's row."""
    receiver = _receiver(look, id_)
    if receiver is None:
        return ()
    return [
        Cell(plain(receiver.id), STRONG),
        Cell(plain(receiver.name)),
        Cell(_link(receiver), "" if receiver.down is False else BAD),
        Cell(str(receiver.due), WARN if receiver.due else ""),
        Cell(str(receiver.parked), BAD if receiver.parked else ""),
        Cell("" if receiver.accepted is None else str(receiver.accepted)),
        Cell(look.times.short(receiver.accepted_ms, look.now_ms)),
        Cell(_attempt(receiver)),
    ]


def receiver_details(look: Look, id_: str) -> list[Line]:
    """Return more of the chosen receiver: its lanes."""
    receiver = _receiver(look, id_)
    if receiver is None:
        return []
    lines: list[Line] = [
        [Cell(f"{plain(receiver.id)}  {plain(receiver.name)}  ", STRONG), Cell(_attempt(receiver), DIM)]
    ]
    for lane in receiver.lanes:
        oldest = "" if lane.oldest_due_ms is None else say(
            f"，最早的待送 {look.times.full(lane.oldest_due_ms)}", f", oldest due {look.times.full(lane.oldest_due_ms)}"
        )  # fmt: skip
        lines.append([Cell(words.lane(lane.name) + say(
            f" 通道：待送 {lane.due}，搁置 {lane.parked}，序号至 {lane.sequence}{oldest}",
            f" lane: due {lane.due}, parked {lane.parked}, sequence up to {lane.sequence}{oldest}",
        ), WARN if lane.due or lane.parked else "")])  # fmt: skip
    return lines


@dataclass(frozen=True, slots=True)
class Table:
    """One tab: its words and how its rows are drawn."""

    name: str
    title: Callable[[], str]
    columns: Callable[[], list[Column]]
    cells: Callable[[Look, str], Line]
    details: Callable[[Look, str], list[Line]]


TABLES: Final = (
    Table("alarms", lambda: say("报警", "alarms"), alarm_columns, alarm_cells, alarm_details),
    Table("tags", lambda: say("点位", "values"), tag_columns, tag_cells, tag_details),
    Table("edges", lambda: say("采集终端", "edges"), edge_columns, edge_cells, edge_details),
    Table("receivers", lambda: say("上报", "deliveries"), receiver_columns, receiver_cells, receiver_details),
)


def _receiver(look: Look, id_: str) -> Receiver | None:
    return next((receiver for receiver in look.model.receivers if receiver.id == id_), None)


def _link(receiver: Receiver) -> str:
    if receiver.down is None:
        return say("不明", "unknown")
    return say("断开", "DOWN") if receiver.down else say("正常", "up")


def _attempt(receiver: Receiver) -> str:
    told = receiver.attempt_detail or receiver.detail
    return (
        words.outcome(receiver.outcome)
        if told == receiver.outcome
        else f"{words.outcome(receiver.outcome)} {plain(told)}".strip()
    )


def _marks(alarm: Alarm, tag: Tag | None) -> list[str]:
    late, held = alarm.late, tag is not None and tag.held
    if late and held:
        return [say("迟持", "L+H")]
    return [say("迟", "late")] if late else [say("持", "held")] if held else []


def _middle(text: str) -> str:
    return f" {text} " if len(text) == 1 else text


def _trust(look: Look, tag: Tag | None) -> str:
    if tag is None or (tag.quality == "GOOD" and look.model.values_hold):
        return ""
    return WARN if tag.quality == "UNCERTAIN" and look.model.values_hold else BAD


def _why(look: Look, tag: Tag) -> str:
    """Say why a value is not good; what two boxes under one id bring into doubt is no fault of a configuration."""
    doubted = tag.quality == "UNCERTAIN" and any(
        edge.id == tag.edge and "IDENTITY" in edge.conditions for edge in look.model.edges
    )
    return say("编号冲突", "two boxes") if doubted else words.why(tag)


def _age(look: Look, tag: Tag) -> str:
    return "" if tag.received_ms is None else words.lasting(max(0, look.now_ms - tag.received_ms) / 1000)


def _source(look: Look, id_: str) -> str:
    site = look.model.site
    return plain(site.hazard_sources.get(id_, id_) if site else id_)


def _equipment(look: Look, id_: str) -> str:
    site = look.model.site
    return plain(site.equipment.get(id_, id_) if site else id_)
