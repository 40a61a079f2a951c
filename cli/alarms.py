"""`hazardgate alarms`, and the words for alarms that the commands and the demo's view share.

It reads the ledger as any bystander may: read-only, beside a running core or without one.
"""

from __future__ import annotations

import json
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


def alarms_command(data: Path, *, closed: bool, as_json: bool) -> None:
    """Print the open alarms, with `closed` all of them."""
    listing = _from_ledger(data / "core" / LEDGER_NAME, closed=closed)
    zone = site_zone(data)
    if as_json:
        print(json.dumps(listing.alarms, ensure_ascii=False))
        return
    print(standing_in_words(listing.standing))
    titles = (say("编号", "id"), say("级别", "grade"), say("对象", "subject"), say("限值", "limit"),
              say("状态", "state"), say("开始", "start"), say("报警值", "value at start"), say("恢复值", "at return"),
              say("原因", "cause"))  # fmt: skip
    lines = [
        (alarm["id"], grade_name(Grade(alarm["grade"])), alarm["tag"], alarm["limit"], state_in_words(alarm["state"]),
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
