"""The demo's live view: health of the chain, values near their limits, alarms by colour, deliveries.

It reads what any bystander may: the ledger read-only, core's heartbeat and the edges' status files. Closing it
changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.language import language, say
from config import Grade, LimitRow, SiteConfig, TagConfig
from gateway.core import LEDGER_NAME, FrameValues, LedgerReader
from wire import Quality, describe, quality_of

PERIOD_S: Final = 0.5
PLAIN_PERIOD_S: Final = 5.0
ROWS_SHOWN: Final = 14
LOG_ROWS_READ: Final = 400
COLOURS: Final = {Grade.RED: "red", Grade.ORANGE: "dark_orange", Grade.YELLOW: "yellow", Grade.BLUE: "blue"}
STALE_HEARTBEAT_MS: Final = 3_000


@dataclass(slots=True)
class Seen:
    """One look at the chain."""

    heartbeat: dict[str, Any]
    edges: list[dict[str, Any]]
    alarms: list[dict[str, Any]]
    values: dict[str, tuple[float, int, int]]


class Bystander:
    """Looks at a running chain from outside."""

    def __init__(self, folder: Path, site: SiteConfig) -> None:
        self._folder, self._site = folder, site
        self._reader: LedgerReader | None = None
        self._values: FrameValues | None = None

    def look(self) -> Seen:
        """Take one look; parts that are not there yet show as absent."""
        if self._reader is None and (self._folder / "core" / LEDGER_NAME).exists():
            self._reader = LedgerReader.open(self._folder / "core" / LEDGER_NAME)
            self._values = FrameValues(self._reader)
        alarms: list[dict[str, Any]] = []
        values: dict[str, tuple[float, int, int]] = {}
        if self._reader is not None and self._values is not None:
            alarms = [
                json.loads(body)
                for (body,) in self._reader.rows(
                    "SELECT body FROM alarm WHERE state <> 'CLOSED' ORDER BY start_ms DESC LIMIT 500"
                )
            ]
            values = self._values.latest(LOG_ROWS_READ)
        edges = [_json(self._folder / "edges" / edge.id / "status.json") for edge in self._site.edges]
        return Seen(_json(self._folder / "core" / "heartbeat.json"), edges, alarms, values)

    def close(self) -> None:
        """Let go of the ledger."""
        if self._reader is not None:
            self._reader.close()


async def show(folder: Path, site: SiteConfig, scenario: str, *, plain: bool) -> None:
    """Show until cancelled: full screen on a terminal, a line every 5 s elsewhere."""
    bystander = Bystander(folder, site)
    console = Console(file=sys.stderr if plain else sys.stdout)
    try:
        if plain or not console.is_terminal:
            while True:
                await asyncio.sleep(PLAIN_PERIOD_S)
                console.print(_line(await asyncio.to_thread(bystander.look)), highlight=False, soft_wrap=True)
        began = time.monotonic()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                seen = await asyncio.to_thread(bystander.look)
                live.update(screen(seen, site, scenario, time.monotonic() - began), refresh=True)
                await asyncio.sleep(PERIOD_S)
    finally:
        bystander.close()


def _line(seen: Seen) -> str:
    counts = _standing(seen.alarms)
    words = " ".join(f"{_grade_name(grade)}{counts[int(grade)]}" for grade in COLOURS)
    beat = seen.heartbeat
    return say(
        f"已提交 {beat.get('samples_committed', 0)} 个样本；报警 {words}；已送达 {_accepted(beat)}",
        f"{beat.get('samples_committed', 0)} samples committed; alarms {words}; {_accepted(beat)} notices accepted",
    )


def screen(seen: Seen, site: SiteConfig, scenario: str, running_s: float) -> Layout:
    """Lay out one look as a full screen."""
    layout = Layout()
    layout.split_column(Layout(name="top", size=9), Layout(name="middle"), Layout(name="bottom", size=1))
    layout["top"].split_row(Layout(_chain(seen), name="chain", ratio=3), Layout(_deliveries(seen), ratio=2))
    layout["middle"].split_row(Layout(_alarms(seen, site), ratio=3), Layout(_values(seen, site), ratio=2))
    name = site.name.zh if language() == "zh" else site.name.en
    layout["bottom"].update(
        Text(
            say(f"{name}  场景 {scenario}  已运行 {running_s:.0f} 秒  Ctrl-C 结束",
                f"{name}  scenario {scenario}  running {running_s:.0f} s  Ctrl-C ends"),
            style="reverse",
        )
    )  # fmt: skip
    return layout


def _chain(seen: Seen) -> Panel:
    beat = seen.heartbeat
    now_ms = time.time() * 1000
    rows = Table(box=None, show_header=False, pad_edge=False)
    for edge in seen.edges:
        fresh = now_ms - edge.get("at_ms", 0) < STALE_HEARTBEAT_MS
        rows.add_row(
            say("采集终端", "edge") + f" {edge.get('edge', '?')}",
            _lamp(fresh and bool(edge.get("connected"))),
            say(f"已采集 {edge.get('samples_taken', 0)}", f"taken {edge.get('samples_taken', 0)}"),
            say(f"已确认 {edge.get('samples_acked', 0)}", f"acked {edge.get('samples_acked', 0)}"),
        )
    alive = now_ms - beat.get("at_ms", 0) < STALE_HEARTBEAT_MS
    rows.add_row(say("消息代理", "broker"), _lamp(alive and bool(beat.get("connected"))))
    rows.add_row(
        say("核心", "core"), _lamp(alive),
        say(f"已提交 {beat.get('samples_committed', 0)}", f"committed {beat.get('samples_committed', 0)}"),
        say(f"提交 {beat.get('commit_ms_p50') or 0:.1f} 毫秒", f"commit {beat.get('commit_ms_p50') or 0:.1f} ms"),
    )  # fmt: skip
    if beat.get("unjournaled"):
        rows.add_row(Text(say("账本写不进：报警标记为未入账", "ledger stalls: alarms go out unjournaled"), style="red"))
    return Panel(rows, title=say("链路", "Chain"), box=box.SQUARE)


def _deliveries(seen: Seen) -> Panel:
    rows = Table(box=None, pad_edge=False)
    for title in (say("接收方", "receiver"), "", say("已送达", "accepted"), say("待送", "due")):
        rows.add_column(title)
    for receiver, status in seen.heartbeat.get("deliveries", {}).items():
        rows.add_row(receiver, _lamp(not status["down"]), str(status["accepted"]), str(status["due"]))
    return Panel(rows, title=say("上报", "Deliveries"), box=box.SQUARE)


def _alarms(seen: Seen, site: SiteConfig) -> Panel:
    counts = _standing(seen.alarms)
    head = Text("  ").join(
        Text(f"{_grade_name(grade)} {counts[int(grade)]}", style=f"bold {colour}") for grade, colour in COLOURS.items()
    )
    rows = Table(box=None, pad_edge=False, expand=True)
    for title in (say("级别", "grade"), say("开始", "start"), say("对象", "subject"), say("限值", "limit"),
                  say("数值", "value"), say("状态", "state")):  # fmt: skip
        rows.add_column(title, no_wrap=True, overflow="ellipsis")
    order = sorted(seen.alarms, key=lambda alarm: ("ACTIVE" not in alarm["state"], -alarm["grade"], -alarm["start_ms"]))
    for alarm in order[:ROWS_SHOWN]:
        grade = Grade(alarm["grade"])
        style = COLOURS[grade] if "ACTIVE" in alarm["state"] else "dim"
        value = "" if alarm["value"] is None else f"{alarm['value']:.4g} {alarm['unit'] or ''}"
        at = time.strftime("%H:%M:%S", time.localtime(alarm["start_ms"] / 1000))
        subject = _subject(alarm, site)
        rows.add_row(_grade_name(grade), at, subject, alarm["limit"], value, _state(alarm["state"]), style=style)
    return Panel(Group(head, rows), title=say("报警", "Alarms"), box=box.SQUARE)


def _values(seen: Seen, site: SiteConfig) -> Panel:
    rows = Table(box=None, pad_edge=False, expand=True)
    for title in (say("测点", "tag"), say("数值", "value"), say("最近限值", "nearest limit"), say("质量", "quality")):
        rows.add_column(title, no_wrap=True, overflow="ellipsis")
    near = sorted(_nearness(seen, site), key=lambda item: item[0], reverse=True)
    for share, tag_id, text, limit, code in near[:ROWS_SHOWN]:
        good = int(quality_of(code)) == Quality.GOOD
        style = "red" if share >= 1 else "yellow" if share >= 0.8 else ("" if good else "magenta")
        rows.add_row(tag_id, text, limit, describe(code, "zh" if language() == "zh" else "en"), style=style)
    return Panel(rows, title=say("接近限值的测点", "Values near limits"), box=box.SQUARE)


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


def _state(state: str) -> str:
    zh = {"ACTIVE_UNACKED": "报警中", "ACTIVE_ACKED": "已确认", "RETURNED_UNACKED": "已恢复未确认",
          "RETURNED_ACKED": "已恢复", "CLOSED": "已销警"}  # fmt: skip
    return say(zh.get(state, state), state.lower().replace("_", " "))


def _grade_name(grade: Grade) -> str:
    return say({4: "红", 3: "橙", 2: "黄", 1: "蓝"}[int(grade)], grade.word)


def _standing(alarms: list[dict[str, Any]]) -> Counter[int]:
    return Counter(int(alarm["grade"]) for alarm in alarms if "ACTIVE" in alarm["state"])


def _accepted(beat: dict[str, Any]) -> int:
    return sum(int(status["accepted"]) for status in beat.get("deliveries", {}).values())


def _lamp(good: bool) -> Text:
    return Text(say("正常", "up"), style="green") if good else Text(say("中断", "down"), style="bold red")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
