"""`hazardgate alarms`, and the words for alarms that the commands and the demo's view share.

It reads the ledger as any bystander may: read-only, beside a running core or without one. Where core's heartbeat does not
show that the ledger has what is now, the list says so first and the command fails.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import apsw
from rich.cells import cell_len, set_cell_size

from alerting import zone_text
from cli.json_files import read_json_file
from cli.language import say
from cli.running import escaped, refuse
from config import Grade
from gateway.core import HEARTBEAT_NAME, LEDGER_NAME, LedgerReader

GRADES: Final = (Grade.RED, Grade.ORANGE, Grade.YELLOW, Grade.BLUE)
ALARMS_LISTED_MAX: Final = 1_000
EXIT_NOT_CURRENT: Final = 1
SILENT_MS_MAX: Final = 5_000  # as the API has it; core writes its heartbeat twice a second
STATES: Final = {
    "ACTIVE_UNACKED": ("报警中未确认", "standing, unacked"),
    "ACTIVE_ACKED": ("报警中已确认", "standing, acked"),
    "RETURNED_UNACKED": ("已恢复未确认", "returned, unacked"),
    "RETURNED_ACKED": ("已恢复已确认", "returned, acked"),
    "CLOSED": ("已销警", "closed"),
}
_STANDING: Final = "state IN ('ACTIVE_UNACKED', 'ACTIVE_ACKED')"
_OPEN: Final = "state IN ('ACTIVE_UNACKED', 'ACTIVE_ACKED', 'RETURNED_UNACKED', 'RETURNED_ACKED')"
_UNACKED: Final = "state IN ('ACTIVE_UNACKED', 'RETURNED_UNACKED')"
_ORDER: Final = f"{_OPEN} DESC, {_UNACKED} DESC, grade DESC, {_STANDING} DESC, start_ms DESC, id DESC"
"""The order of the API and of `hazardgate watch`, closed ones last."""


@dataclass(slots=True)
class Listing:
    """Alarms as the ledger has them: unless asked otherwise, what nobody has acknowledged first, then the gravest,
    what stands, the newest.

    `alarms` holds the first of `total`; `standing` counts all that stand, by grade; `start_values` has what they showed
    when they were raised, by id, where that is no longer what their record says.
    """

    alarms: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    standing: Counter[int] = field(default_factory=Counter)
    start_values: dict[str, float | None] = field(default_factory=dict)


def read_alarms(reader: LedgerReader, count_max: int, *, closed: bool = False, standing_first: bool = False) -> Listing:
    """Read the open alarms, with `closed` all of them, at most `count_max`.

    `standing_first` is for a view of a few lines, which must not be filled by what is over while something stands.
    """
    where, order = "1" if closed else _OPEN, f"{_STANDING} DESC, {_ORDER}" if standing_first else _ORDER
    rows = reader.rows(f"SELECT body FROM alarm WHERE {where} ORDER BY {order} LIMIT ?", (count_max,))  # noqa: S608 - our own constants
    ((total,),) = reader.rows(f"SELECT count(*) FROM alarm WHERE {where}")  # noqa: S608 - our own constants
    standing = reader.rows(f"SELECT grade, count(*) FROM alarm WHERE {_STANDING} GROUP BY grade")  # noqa: S608 - our own constants
    alarms = [json.loads(body) for (body,) in rows]
    counts = Counter({int(grade): int(count) for grade, count in standing})
    return Listing(alarms, int(total), counts, _start_values(reader, alarms))


def _start_values(reader: LedgerReader, alarms: list[dict[str, Any]]) -> dict[str, float | None]:
    """Read from the journal what those that have returned showed when they were raised."""
    returned = json.dumps([alarm["id"] for alarm in alarms if _has_returned(alarm)])
    rows = reader.rows(
        "SELECT alarm_id, body ->> '$.alarm.value' FROM transition"
        " WHERE kind = 'raised' AND alarm_id IN (SELECT value FROM json_each(?))", (returned,)
    )  # fmt: skip
    return {str(alarm_id): None if value is None else float(value) for alarm_id, value in rows}


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a list from the ledger is not what stands now; `reason` is the word that the API has for it in /health."""

    reason: str
    told: str


def wall_ms() -> int:
    """Return UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


def doubts_of(beat: Mapping[str, Any], now_ms: int) -> list[Doubt]:
    """Return what core's heartbeat leaves in doubt of its ledger; `beat` is empty where there is none to read."""
    age_ms = _age_ms(beat, now_ms)
    if age_ms is None:
        return [Doubt("core.never_started", say(
            "没有可读的核心心跳文件：此列表不是现在的，新报警不在其中；请检查核心是否运行、--data 是否正确",
            "there is no heartbeat of core to read: this list is not of now, new alarms are not in it; see that core runs and"
            " that --data is right",
        ))]  # fmt: skip
    if age_ms > SILENT_MS_MAX:
        return [Doubt("core.gone", say(
            f"核心无心跳 {age_ms // 1000} 秒：此列表不是现在的，新报警不在其中；请检查核心",
            f"core has sent no heartbeat for {age_ms // 1000} s: this list is not of now, new alarms are not in it; see to core",
        ))]  # fmt: skip
    if age_ms < -SILENT_MS_MAX:
        return [Doubt("core.gone", say(
            f"核心心跳的时间比本机超前 {-age_ms // 1000} 秒：无法判断此列表是不是现在的，新报警可能不在其中；请检查核心和时钟",
            f"core's heartbeat is stamped {-age_ms // 1000} s ahead of this machine's clock: whether this list is of now cannot"
            " be told, new alarms may not be in it; see to core and to the clock",
        ))]  # fmt: skip
    found = []
    if beat.get("unjournaled"):
        found.append(Doubt("unjournaled", say(
            "账本写不进：报警照常发出，但未入账，不在此列表中；请检查磁盘",
            "the ledger cannot be written: alarms go out unjournaled and are not in this list; see to the disk",
        )))  # fmt: skip
    if beat.get("overflow"):
        found.append(Doubt("overflow", say(
            "核心积压溢出：有数据未入账，新报警可能不在此列表中；请检查磁盘",
            "core overflows: not all data is entered, new alarms may not be in this list; see to the disk",
        )))  # fmt: skip
    return found


def _age_ms(beat: Mapping[str, Any], now_ms: int) -> int | None:
    at_ms = beat.get("at_ms")
    return now_ms - at_ms if isinstance(at_ms, int) else None


def alarms_command(data: Path, *, closed: bool, as_json: bool) -> bool:
    """Print the open alarms, with `closed` all of them; return whether they are what stands now."""
    # Looked at before the ledger: what core could not enter until then is not in it.
    beat, now_ms = read_json_file(data / "core" / HEARTBEAT_NAME), wall_ms()
    listing, doubts = _from_ledger(data / "core" / LEDGER_NAME, closed=closed), doubts_of(beat, now_ms)
    if as_json:
        print(json.dumps({
            "current": not doubts, "doubts": [doubt.reason for doubt in doubts], "heartbeat_age_ms": _age_ms(beat, now_ms),
            "total": listing.total, "alarms": listing.alarms,
        }, ensure_ascii=False))  # fmt: skip
    else:
        for doubt in doubts:
            print(doubt.told)
        _print(listing, site_zone(data))
    return not doubts


def _print(listing: Listing, zone: tzinfo | None) -> None:
    print(standing_in_words(listing.standing))
    titles = (say("编号", "id"), say("级别", "grade"), say("对象", "subject"), say("限值", "limit"),
              say("状态", "state"), say("开始", "start"), say("报警值", "value at start"), say("恢复值", "at return"),
              say("原因", "cause"))  # fmt: skip
    lines = [
        (alarm["id"], grade_name(Grade(alarm["grade"])), alarm["tag"], alarm["limit"], _state_marked(alarm),
         local_time(alarm["start_ms"], zone), *values_in_words(alarm, listing.start_values),
         say(alarm["cause_zh"], alarm["cause_en"]))
        for alarm in listing.alarms
    ]  # fmt: skip
    table = [tuple(escaped(cell) for cell in line) for line in (titles, *lines)] if lines else []
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(map(set_cell_size, line, widths)).rstrip())
    if listing.total > len(lines):
        print(more_in_words(listing.total - len(lines)))


def act_in_words(transition: dict[str, Any], zone: tzinfo | None) -> str:
    """Return an operator's act that core has done, as one line; None is the machine's own zone."""
    alarm = transition["alarm"]
    done = say("已销警", "closed") if transition["kind"] == "closed" else say("已确认", "acknowledged")
    grade = grade_name(Grade(alarm["grade"]))
    text = f"{alarm['tag']} {alarm['limit']} {grade} {transition['actor']} {local_time(transition['at_ms'], zone)}"
    return escaped(say(f"{done}：{text}", f"{done}: {text}"))


def state_in_words(state: str) -> str:
    """Return a state of the life of an alarm in words."""
    return say(*STATES.get(state, (state, state)))


def _state_marked(alarm: dict[str, Any]) -> str:
    """Return the state, marked where a run over history found the alarm: it never was a level of now."""
    state = state_in_words(alarm["state"])
    return say(f"{state}（迟）", f"{state} (late)") if alarm.get("late") else state


def grade_name(grade: Grade) -> str:
    """Return the word for a grade."""
    return say({4: "红", 3: "橙", 2: "黄", 1: "蓝"}[int(grade)], grade.word)


def standing_in_words(standing: Counter[int]) -> str:
    """Return how many alarms stand now, by grade."""
    counts = " ".join(f"{grade_name(grade)} {standing[int(grade)]}" for grade in GRADES)
    return say(f"报警中：{counts}", f"standing: {counts}")


def more_in_words(count: int) -> str:
    """Return the last line of a list that has `count` more than it shows."""
    return say(f"另有 {count} 条", f"{count} more")


def values_in_words(alarm: dict[str, Any], start_values: Mapping[str, float | None]) -> tuple[str, str]:
    """Return what an alarm showed when it was raised and when it returned; empty where it showed nothing or has not yet."""
    unit, value = alarm["unit"], alarm["value"]
    if _has_returned(alarm):
        return in_unit(start_values.get(alarm["id"]), unit), in_unit(value, unit)
    return in_unit(value, unit), ""


def in_unit(value: float | None, unit: str | None) -> str:
    """Return a value with its unit; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.0f} {unit or ''}".rstrip() if 1e4 <= abs(value) < 1e9 else f"{value:.4g} {unit or ''}".rstrip()


def _has_returned(alarm: dict[str, Any]) -> bool:
    return alarm["state"].startswith("RETURNED") or (alarm["state"] == "CLOSED" and alarm.get("returned_ms") is not None)


def local_time(at_ms: int, zone: tzinfo | None = None) -> str:
    """Return UTC epoch milliseconds as date and time of a zone, named; None is the machine's own."""
    return zone_text(datetime.fromtimestamp(at_ms // 1000, UTC), zone)


def site_zone(data: Path) -> tzinfo | None:
    """Return the zone of the site whose core has this data folder; None where core has never told it."""
    try:
        return ZoneInfo(str(read_json_file(data / "core" / HEARTBEAT_NAME)["timezone"]))
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return None


def _from_ledger(path: Path, *, closed: bool) -> Listing:
    if not path.is_file():
        raise refuse(say(
            f"{path}：没有账本；请用 --data 指定核心的数据目录",
            f"{path}: there is no ledger; name the core's data folder with --data",
        ))  # fmt: skip
    try:
        reader = LedgerReader.open(path)
        try:
            return read_alarms(reader, ALARMS_LISTED_MAX, closed=closed)
        finally:
            reader.close()
    except apsw.Error as error:
        raise refuse(say(
            f"{path}：账本读不出（{error}）；请检查文件和权限",
            f"{path}: the ledger cannot be read ({error}); check the file and its permissions",
        )) from None  # fmt: skip
