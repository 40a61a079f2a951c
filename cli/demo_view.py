"""The demo's live view: health of the chain, values near their limits, alarms by colour, deliveries.

It reads what any bystander may: the ledger read-only, core's heartbeat and the edges' status files. Closing it
changes nothing.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.alarms import (
    Listing,
    grade_name,
    in_unit,
    more_in_words,
    read_alarms,
    standing_in_words,
    state_in_words,
    values_in_words,
)
from cli.children import PartNow
from cli.json_files import read_json_file
from cli.language import language, say
from config import Grade, LimitRow, SiteConfig, TagConfig
from gateway.core import LEDGER_NAME, FrameValues, LedgerReader
from wire import Quality, describe, quality_of

PERIOD_S: Final = 0.5
PLAIN_PERIOD_S: Final = 5.0
ALARMS_READ: Final = 200
NARROW_WIDTH: Final = 110
"""Up to here the values stand below the alarms, and the receivers are one row of the chain."""
WIDE_ALARMS: Final = 96
"""From here the alarms have room for what they showed at start and return beside what they show now."""
FRAME_WIDTH: Final = 4
FRAME_HEIGHT: Final = 2
SHORTEST_CELL: Final = 6
LOG_ROWS_READ: Final = 400
COLOURS: Final = {Grade.RED: "red", Grade.ORANGE: "dark_orange", Grade.YELLOW: "yellow", Grade.BLUE: "blue"}
STALE_HEARTBEAT_MS: Final = 3_000


@dataclass(slots=True)
class Seen:
    """One look at the chain. `parts` are its processes, by name; empty where whoever looks does not run them."""

    heartbeat: dict[str, Any]
    edges: list[dict[str, Any]]
    alarms: Listing
    values: dict[str, tuple[float, int, int]]
    parts: Mapping[str, PartNow] = field(default_factory=dict)


def no_parts() -> Mapping[str, PartNow]:
    """Tell of no process: the view looks at a chain that others run."""
    return {}


class Bystander:
    """Looks at a running chain from outside."""

    def __init__(self, folder: Path, site: SiteConfig, parts: Callable[[], Mapping[str, PartNow]] = no_parts) -> None:
        self._folder, self._site, self._parts = folder, site, parts
        self._reader: LedgerReader | None = None
        self._values: FrameValues | None = None

    def look(self) -> Seen:
        """Take one look; parts that are not there yet show as absent."""
        if self._reader is None and (self._folder / "core" / LEDGER_NAME).exists():
            self._reader = LedgerReader.open(self._folder / "core" / LEDGER_NAME)
            self._values = FrameValues(self._reader)
        alarms = Listing()
        values: dict[str, tuple[float, int, int]] = {}
        if self._reader is not None and self._values is not None:
            alarms = read_alarms(self._reader, ALARMS_READ, standing_first=True)
            values = self._values.latest(LOG_ROWS_READ)
        edges = [read_json_file(self._folder / "edges" / edge.id / "status.json") for edge in self._site.edges]
        return Seen(read_json_file(self._folder / "core" / "heartbeat.json"), edges, alarms, values, self._parts())

    def close(self) -> None:
        """Let go of the ledger."""
        if self._reader is not None:
            self._reader.close()


async def show(
    folder: Path, site: SiteConfig, scenario: str, *, plain: bool, how_to_look: str = "",
    parts: Callable[[], Mapping[str, PartNow]] = no_parts,
) -> None:  # fmt: skip
    """Show until cancelled: full screen on a terminal, a line every 5 s elsewhere. `how_to_look` tells of other ways."""
    bystander = Bystander(folder, site, parts)
    console = Console(file=sys.stderr if plain else sys.stdout)
    try:
        if plain or not console.is_terminal:
            if how_to_look:
                console.print(how_to_look, highlight=False, soft_wrap=True)
            while True:
                await asyncio.sleep(PLAIN_PERIOD_S)
                console.print(_line(await asyncio.to_thread(bystander.look)), highlight=False, soft_wrap=True)
        began = time.monotonic()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                seen = await asyncio.to_thread(bystander.look)
                size = (console.width, console.height)
                live.update(screen(seen, site, scenario, time.monotonic() - began, size, how_to_look), refresh=True)
                await asyncio.sleep(PERIOD_S)
    finally:
        bystander.close()


def _line(seen: Seen) -> str:
    beat, standing = seen.heartbeat, standing_in_words(seen.alarms.standing)
    return say(
        f"已提交 {beat.get('samples_committed', 0)} 个样本；{standing}；已送达 {_accepted(beat)}",
        f"{beat.get('samples_committed', 0)} samples committed; {standing}; {_accepted(beat)} notices accepted",
    )


def screen(
    seen: Seen, site: SiteConfig, scenario: str, running_s: float, size: tuple[int, int], how_to_look: str = ""
) -> Layout:
    """Lay out one look as a full screen of `size` (columns, lines). `how_to_look` stands whole above the last line."""
    width, height = size
    narrow = width <= NARROW_WIDTH
    chain, deliveries = _chain(seen, narrow=narrow), _deliveries(seen)
    top = FRAME_HEIGHT + (chain.row_count if narrow else max(chain.row_count, deliveries.row_count + 1))
    top = min(top, height // 2)
    look_lines = [
        line
        for told in how_to_look.splitlines()  # a command stands on a line of its own, so that it can be copied whole
        for line in Text(told).wrap(Console(width=width), width, overflow="fold")
    ]
    bottom = 1 + len(look_lines)
    rest = max(2, height - top - bottom)
    layout = Layout()
    layout.split_column(
        Layout(name="top", size=top), Layout(name="middle", size=rest), Layout(name="bottom", size=bottom)
    )
    chain_panel = Panel(chain, title=say("链路", "Chain"), box=box.SQUARE)
    if seen.heartbeat.get("unjournaled"):
        stall = say("账本写不进：报警标记为未入账", "ledger stalls: alarms go out unjournaled")
        chain_panel.subtitle = Text(stall, style="bold red")
    if narrow:
        layout["top"].update(chain_panel)
        below = max(1, rest * 2 // 5)
        layout["middle"].split_column(
            Layout(_alarms(seen, site, width, rest - below), size=rest - below),
            Layout(_values(seen, site, width, below), size=below),
        )
    else:
        left = width * 3 // 5
        receivers = Panel(deliveries, title=say("上报", "Deliveries"), box=box.SQUARE)
        layout["top"].split_row(Layout(chain_panel, size=left), Layout(receivers))
        layout["middle"].split_row(
            Layout(_alarms(seen, site, left, rest), size=left), Layout(_values(seen, site, width - left, rest))
        )
    name = site.name.zh if language() == "zh" else site.name.en
    ending = Text(
        say(f"Ctrl-C 结束  已运行 {running_s:.0f} 秒  场景 {scenario}  {name}",
            f"Ctrl-C ends  running {running_s:.0f} s  scenario {scenario}  {name}"),
        style="reverse", no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    layout["bottom"].update(Group(*look_lines, ending))
    return layout


def _grid(titles: Sequence[str], lines: Sequence[tuple[Sequence[str], str]], width: int, shrinks: Sequence[int]) -> Table:
    """Build a table of (cells, style) in which only the columns `shrinks`, in this order, give way to `width`."""
    widths = [max(cell_len(line[at]) for line in (titles, *(cells for cells, _ in lines))) for at in range(len(titles))]
    over = sum(widths) + len(widths) - 1 - width
    for at in shrinks:
        cut = max(0, min(over, widths[at] - SHORTEST_CELL))
        widths[at] -= cut
        over -= cut
    rows = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title, cells in zip(titles, widths, strict=True):
        rows.add_column(title, no_wrap=True, overflow="ellipsis", width=cells, min_width=cells)
    for line, style in lines:
        rows.add_row(*line, style=style)
    return rows


def _rows_shown(total: int, space: int) -> int:
    """How many of `total` rows to show in `space` lines, one of which tells of the others if they do not fit."""
    return total if total <= space else max(0, space - 1)


def _chain(seen: Seen, *, narrow: bool) -> Table:
    beat = seen.heartbeat
    now_ms = time.time() * 1000
    rows = Table(box=None, show_header=False, pad_edge=False)
    core = _standing(seen.parts.get("core"), beat, now_ms)
    for edge in seen.edges:
        name = str(edge.get("edge", "?"))
        standing = _standing(seen.parts.get(f"edge-{name}"), edge, now_ms)
        if standing == "up" and not edge.get("connected"):
            standing = "down" if core == "up" else "waits"
        rows.add_row(
            say("采集终端", "edge") + f" {name}", _lamp_of(standing),
            say(f"已采集 {edge.get('samples_taken', 0)}", f"taken {edge.get('samples_taken', 0)}"),
            say(f"已确认 {edge.get('samples_acked', 0)}", f"acked {edge.get('samples_acked', 0)}"),
            _restarts(seen, f"edge-{name}"),
        )
    broker = seen.parts.get("broker")
    rows.add_row(
        say("消息代理", "broker"),
        _lamp(core == "up" and bool(beat.get("connected"))) if broker is None else _lamp_of(_running(broker)),
        "", "", _restarts(seen, "broker"),
    )  # fmt: skip
    rows.add_row(
        say("核心", "core"), _lamp_of(core),
        say(f"已提交 {beat.get('samples_committed', 0)}", f"committed {beat.get('samples_committed', 0)}"),
        say(f"提交 {beat.get('commit_ms_p50') or 0:.1f} 毫秒", f"commit {beat.get('commit_ms_p50') or 0:.1f} ms"),
        _restarts(seen, "core"),
    )  # fmt: skip
    if "serve" in seen.parts:
        rows.add_row(say("查询服务", "serve"), _lamp_of(_running(seen.parts["serve"])), "", "", _restarts(seen, "serve"))
    for name, words in (("plant", say("仿真工厂", "plant")), ("platform", say("仿真平台", "platform"))):
        part = seen.parts.get(name)
        if part is not None and (part.pid is None or part.restarts):
            rows.add_row(words, _lamp_of(_running(part)), "", "", _restarts(seen, name))
    if narrow:
        receivers = beat.get("deliveries", {}).values()
        due = sum(int(status["due"]) for status in receivers)
        rows.add_row(
            say("上报", "deliveries"), _lamp(not any(status["down"] for status in receivers)),
            say(f"已送达 {_accepted(beat)}", f"accepted {_accepted(beat)}"), say(f"待送 {due}", f"due {due}"),
        )  # fmt: skip
    return rows


def _running(part: PartNow) -> str:
    return "restarting" if part.pid is None else "up"


def _standing(part: PartNow | None, said: Mapping[str, Any], now_ms: float) -> str:
    """How a part stands that tells of itself: what a process that is gone has said counts no more."""
    fresh = now_ms - said.get("at_ms", 0) < STALE_HEARTBEAT_MS
    if part is None:
        return "up" if fresh else "down"
    if part.pid is None:
        return "restarting"
    if said.get("pid") != part.pid:
        return "starting"
    return "up" if fresh else "down"


def _restarts(seen: Seen, name: str) -> Text:
    part = seen.parts.get(name)
    if part is None:
        return Text("")
    told = say(f"重启 {part.restarts}", f"restarts {part.restarts}")
    return Text(told, style="bold yellow" if part.restarts else "dim")


def _deliveries(seen: Seen) -> Table:
    rows = Table(box=None, pad_edge=False)
    for title in (say("接收方", "receiver"), "", say("已送达", "accepted"), say("待送", "due")):
        rows.add_column(title)
    for receiver, status in seen.heartbeat.get("deliveries", {}).items():
        rows.add_row(receiver, _lamp(not status["down"]), str(status["accepted"]), str(status["due"]))
    return rows


def _alarms(seen: Seen, site: SiteConfig, width: int, height: int) -> Panel:
    standing = seen.alarms.standing
    head = Text(say("报警中：", "standing: "), no_wrap=True)
    for grade, colour in COLOURS.items():
        head.append(f"{grade_name(grade)} {standing[int(grade)]}  ", style=f"bold {colour}")
    zone = ZoneInfo(site.timezone)
    wide = width >= WIDE_ALARMS
    then = (say("报警值", "at start"), say("恢复值", "at return")) if wide else ()
    titles = (say("级别", "grade"), say("开始", "start"), say("对象", "subject"), say("限值", "limit"),
              *then, say("现值", "now"), say("状态", "state"))  # fmt: skip
    space = height - FRAME_HEIGHT - 2  # heading and titles
    shown = seen.alarms.alarms[: _rows_shown(seen.alarms.total, space)]
    lines = []
    for alarm in shown:
        grade = Grade(alarm["grade"])
        style = COLOURS[grade] if "ACTIVE" in alarm["state"] else "dim"
        at = datetime.fromtimestamp(alarm["start_ms"] // 1000, UTC).astimezone(zone).strftime("%H:%M:%S")
        values = values_in_words(alarm, seen.alarms.start_values) if wide else ()
        cells = (grade_name(grade), at, _subject(alarm, site), alarm["limit"], *values, _present(seen, alarm),
                 state_in_words(alarm["state"]))  # fmt: skip
        lines.append((cells, style))
    rows = _grid(titles, lines, width - FRAME_WIDTH, shrinks=(2,))
    more = seen.alarms.total - len(shown)
    named = datetime.now(zone).strftime("%Z")
    title = say(f"报警（时间 {named}）", f"Alarms (times {named})")
    return Panel(_with_more((head, rows), more), title=title, box=box.SQUARE)


def _present(seen: Seen, alarm: dict[str, Any]) -> str:
    """What the alarm's tag shows now; `--` where that is not known, `?` behind what is not good."""
    found = seen.values.get(alarm["tag"])
    if found is None:
        return ""
    value, code, _ = found
    if math.isnan(value) or _standing(seen.parts.get("core"), seen.heartbeat, time.time() * 1000) != "up":
        return "--"
    return in_unit(value, alarm["unit"]) + ("" if quality_of(code) == Quality.GOOD else " ?")


def _values(seen: Seen, site: SiteConfig, width: int, height: int) -> Panel:
    titles = (say("测点", "tag"), say("数值", "value"), say("最近限值", "limit"), say("质量", "quality"))
    near = sorted(_nearness(seen, site), key=lambda item: item[0], reverse=True)
    shown = near[: _rows_shown(len(near), height - FRAME_HEIGHT - 1)]
    lines = []
    for share, tag_id, text, limit, code in shown:
        good = int(quality_of(code)) == Quality.GOOD
        style = "red" if share >= 1 else "yellow" if share >= 0.8 else ("" if good else "magenta")
        lines.append(((tag_id, text, limit, describe(code, "zh" if language() == "zh" else "en")), style))
    rows = _grid(titles, lines, width - FRAME_WIDTH, shrinks=(3, 0))
    title = say("接近限值的测点", "Values near limits")
    return Panel(_with_more((rows,), len(near) - len(shown)), title=title, box=box.SQUARE)


def _with_more(parts: Sequence[Text | Table], more: int) -> Group:
    return Group(*parts, Text(more_in_words(more), style="bold")) if more > 0 else Group(*parts)


def _nearness(seen: Seen, site: SiteConfig) -> Iterable[tuple[float, str, str, str, int]]:
    """Yield (share of the way to the nearest limit, tag, value, limit, quality code) for tags with limits; 1 is on it."""
    for tag in site.tags:
        found = seen.values.get(tag.id)
        limits = tag.limit_rows()
        if found is None or not limits:
            continue
        value, code, _ = found
        if math.isnan(value):
            yield math.inf, tag.id, "--", "", code
            continue
        share, row = max(((_share(tag, row, value), row) for row in limits), key=lambda item: item[0])
        yield share, tag.id, f"{value:.4g} {tag.unit or ''}", f"{row.kind} {row.setpoint:g}", code


def _share(tag: TagConfig, row: LimitRow, value: float) -> float:
    """How far a value has come towards a limit, from the innermost limit of the other side or the end of the range."""
    opposite = [other.setpoint for other in tag.limit_rows() if other.kind.high_side is not row.kind.high_side]
    span = tag.span()
    calm = max(opposite, default=span.low) if row.kind.high_side else min(opposite, default=span.high)
    return (value - calm) / (row.setpoint - calm) if row.setpoint != calm else 0.0


def _subject(alarm: dict[str, Any], site: SiteConfig) -> str:
    index = site.tag_index.get(alarm["tag"])
    if index is None:
        return str(alarm["tag"])
    tag = site.tags[index]
    return f"{tag.id} {tag.name.zh if language() == 'zh' else tag.name.en}"


def _accepted(beat: dict[str, Any]) -> int:
    return sum(int(status["accepted"]) for status in beat.get("deliveries", {}).values())


def _lamp_of(standing: str) -> Text:
    if standing in ("up", "down"):
        return _lamp(standing == "up")
    words = {
        "restarting": ("已中断，重启中", "restarting"), "starting": ("启动中", "starting"), "waits": ("等待核心", "waits for core"),
    }  # fmt: skip
    return Text(say(*words[standing]), style="bold red" if standing == "restarting" else "bold yellow")


def _lamp(good: bool) -> Text:
    return Text(say("正常", "up"), style="green") if good else Text(say("中断", "down"), style="bold red")
