"""The screen's words in both languages, and numbers and times as the control room reads them. Pure.

Everything that came from outside goes through `plain` before it is drawn: no control character, no direction mark, no
line end reaches the terminal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.language import language, say
from cli.running import escaped
from cli.watch.answers import Alarm, Health, Tag
from cli.watch.fields import Text
from wire import describe

GRADES: Final = (4, 3, 2, 1)
_GRADES: Final = {4: ("红", "RED"), 3: ("橙", "ORNG"), 2: ("黄", "YELW"), 1: ("蓝", "BLUE")}
_GRADES_LONG: Final = {4: ("红", "red"), 3: ("橙", "orange"), 2: ("黄", "yellow"), 1: ("蓝", "blue")}
GRADE_STYLES: Final = {
    4: "bold #ffffff on #c00000", 3: "bold #000000 on #ff8c1a", 2: "bold #000000 on #ffd900", 1: "bold #ffffff on #1f5fd6",
}  # fmt: skip
_CORE: Final = {
    "running": ("运行", "running"),
    "stalled": ("停滞", "STALLED"),
    "gone": ("无心跳", "GONE"),
    "never_started": ("从未启动", "NEVER STARTED"),
}
_LIMITS: Final = {"H": ">=", "HH": ">=", "L": "<=", "LL": "<="}
_QUALITY: Final = {
    "GOOD": ("有效", "GOOD"),
    "UNCERTAIN": ("存疑", "UNCER"),
    "BAD": ("无效", "BAD"),
    "UNKNOWN": ("未知", "UNKN"),
}
_REASONS: Final = {
    "core.gone": ("核心无心跳", "core sends no heartbeat"),
    "core.stalled": ("核心停滞", "core does not turn"),
    "core.never_started": ("核心从未启动", "core was never started"),
    "ledger.missing": ("账本不存在", "there is no ledger"),
    "ledger.starting": ("正在读取账本", "the ledger is being read"),
    "ledger.unreadable": ("账本读不出", "the ledger cannot be read"),
    "ledger.foreign": ("账本不是本程序的", "the ledger is another program's"),
    "ledger.other_schema": ("账本版本不符", "the ledger is of another version"),
    "ledger.other_site": ("账本属于另一站点", "the ledger is another site's"),
    "broker.disconnected": ("消息代理断开", "the broker is disconnected"),
    "unjournaled": ("账本写不进，报警未入账", "the ledger stalls: alarms go out unjournaled"),
    "overflow": ("核心积压溢出", "core overflows"),
    "config.differs": ("配置与核心不一致", "core has another configuration"),
    "heartbeat.other_ledger": ("心跳属于另一账本", "the heartbeat is another ledger's"),
    "receiver.down": ("有接收方断开", "a receiver is down"),
    "edge.offline": ("有采集终端离线", "an edge is offline"),
    "edge.unknown": ("有采集终端从未上线", "an edge was never heard"),
    "edge.doubted": ("终端编号冲突致点位存疑", "two boxes use one edge id: its tags are doubted"),
    "behind": ("读取落后于核心", "reading lags behind core"),
    "alarms.too_many": ("报警过多，未全部读入", "too many alarms to hold all"),
}
_CONDITIONS: Final = {
    "OFFLINE": ("离线", "offline"),
    "CONFIG": ("配置不一致", "another configuration"),
    "SPOOL": ("无法写入本地缓存", "spool cannot be written"),
    "CLOCK": ("时钟未同步", "clock not synchronised"),
    "LOSS": ("有数据丢失", "data lost"),
    "IDENTITY": ("两台设备同一编号，测点存疑（核实后销警）", "two boxes use its id, tags doubted (settle, then close)"),
    "TRANSPORT": ("传输受阻", "transport blocked"),
}
_OUTCOMES: Final = {
    "accepted": ("已接受", "accepted"),
    "retry": ("重试", "to retry"),
    "refused": ("被拒绝", "refused"),
}


def plain(text: str | Text | None) -> str:
    """Return a text from outside as one harmless line."""
    return "" if text is None else escaped(str(text).replace("\u3000", " "))


def grade(number: int) -> str:
    """Return the short word for a grade: one cell's worth of Chinese, four letters of English."""
    return say(*_GRADES[number])


def grade_long(number: int) -> str:
    """Return the word for a grade."""
    return say(*_GRADES_LONG[number])


def standing(alarm: Alarm) -> str:
    """Say whether the cause is still there."""
    return say("报警中", "ALARM") if alarm.active else say("已恢复", "normal")


def taken(alarm: Alarm) -> str:
    """Say whether somebody has taken notice."""
    return say("已确认", "acked") if alarm.acked else say("未确认", "UNACK")


def limit(alarm: Alarm) -> str:
    """Return what was crossed, as short as `HH 25`."""
    if alarm.setpoint is None:
        kind = {"FAULT": ("故障", "fault"), "SYSTEM": ("系统", "system")}.get(alarm.limit)
        return say(*kind) if kind else plain(alarm.limit)
    return f"{plain(alarm.limit)} {number(alarm.setpoint)}"


def limit_in_full(alarm: Alarm) -> str:
    """Return what was crossed, as `HH >= 25`."""
    sign = _LIMITS.get(alarm.limit)
    return limit(alarm) if alarm.setpoint is None or sign is None else f"{alarm.limit} {sign} {number(alarm.setpoint)}"


def number(value: float | None) -> str:
    """Return a number with five digits that count, large ones whole; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.0f}" if 1e5 <= abs(value) < 1e9 else f"{value:.5g}"


def amount(value: float | None, unit: str) -> str:
    """Return a number with its unit."""
    return f"{number(value)} {plain(unit)}".rstrip() if value is not None else ""


def quality(tag: Tag, *, core_turns: bool) -> str:
    """Say how good a tag's value is; without a core that turns none is."""
    if not core_turns and tag.quality != "UNKNOWN":
        return say("失效", "STALE")
    if tag.quality == "BAD" and tag.reason == "STALE":
        return say("失效", "STALE")
    return plain(say(*_QUALITY.get(tag.quality, (tag.quality, tag.quality))))


def why(tag: Tag) -> str:
    """Say why a tag's value is not good."""
    if tag.quality in ("GOOD", "UNKNOWN"):
        return ""
    return plain(describe(tag.code, "zh" if language() == "zh" else "en").rpartition("/")[2])


def core(health: Health) -> str:
    """Say how core does."""
    return plain(say(*_CORE.get(health.core, (health.core, health.core))))


def reason(word: str) -> str:
    """Say why the gateway calls itself degraded."""
    return plain(say(*_REASONS.get(word, (word, word))))


def condition(word: str) -> str:
    """Say what stands at an edge, by the last word of its alarm."""
    return plain(say(*_CONDITIONS.get(word, (word, word))))


def outcome(word: str) -> str:
    """Say how a delivery attempt went."""
    return plain(say(*_OUTCOMES.get(word, (word, word))))


def lane(name: str) -> str:
    """Return the word for a lane; each has a grade's name."""
    return plain(next((say(*both) for both in _GRADES_LONG.values() if both[1] == name), name))


def role(name: str) -> str:
    """Return the word for a role."""
    return plain(say(*{"viewer": ("查看", "viewer"), "operator": ("操作员", "operator")}.get(name, (name, name))))


def yes_no(known: bool | None) -> str:
    """Return yes, no, or that nobody knows."""
    return say("不明", "unknown") if known is None else say("是", "yes") if known else say("否", "NO")


def zone(name: str) -> ZoneInfo:
    """Return a time zone; UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


class Times:
    """Epoch milliseconds in the site's zone."""

    def __init__(self, name: str = "UTC") -> None:
        self.name = name
        self._zone = zone(name)

    def clock(self, at_ms: int) -> str:
        """Return date, time and zone."""
        return self._at(at_ms).strftime("%Y-%m-%d %H:%M:%S %Z")

    def full(self, at_ms: int | None) -> str:
        """Return date and time."""
        return say("无", "none") if at_ms is None else self._at(at_ms).strftime("%Y-%m-%d %H:%M:%S")

    def of_day(self, at_ms: int) -> str:
        """Return the time of the day."""
        return self._at(at_ms).strftime("%H:%M:%S")

    def shortest(self, at_ms: int, now_ms: int) -> str:
        """Return hour and minute today, else month and day."""
        at, now = self._at(at_ms), self._at(now_ms)
        return at.strftime("%H:%M" if at.date() == now.date() else "%m-%d")

    def short(self, at_ms: int | None, now_ms: int) -> str:
        """Return the time today, else the date and the time."""
        if at_ms is None:
            return say("无", "none")
        at, now = self._at(at_ms), self._at(now_ms)
        return at.strftime("%H:%M:%S" if at.date() == now.date() else "%m-%d %H:%M")

    def _at(self, at_ms: int) -> datetime:
        try:
            return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self._zone)
        except (OverflowError, ValueError, OSError):
            return datetime(1970, 1, 1, tzinfo=self._zone)


def lasting(seconds: float) -> str:
    """Return a length of time in words, in its two largest units."""
    whole = int(seconds)
    for size, big_zh, big_en, small, small_zh, small_en in (
        (86_400, "天", "d", 3_600, "小时", "h"), (3_600, "小时", "h", 60, "分", "min"), (60, "分", "min", 1, "秒", "s"),
    ):  # fmt: skip
        if whole >= size:
            first, rest = divmod(whole, size)
            return say(f"{first} {big_zh} {rest // small} {small_zh}", f"{first} {big_en} {rest // small} {small_en}")
    return say(f"{whole} 秒", f"{whole} s")
