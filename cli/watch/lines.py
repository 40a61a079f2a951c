"""The lines that are always in sight: head, banner, tabs, keys; and the screen without contact. Pure: model in, text out."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len
from rich.text import Text as Drawn

from cli.language import say
from cli.watch import words
from cli.watch.model import Model
from cli.watch.rows import fitted
from cli.watch.tables import BAD, DIM, TABLES, WARN, Line, Look
from cli.watch.words import plain

ALERT: Final = "bold #ffffff on #b00020"
CAUTION: Final = "bold #000000 on #ffd166"
WHO_CELLS_MAX: Final = 24
EXPIRY_TOLD_MS: Final = 7 * 86_400_000
EXPIRY_WARNED_MS: Final = 2 * 3_600_000
SMALLEST: Final = (80, 24)
GAP: Final = "  "
_PIECE: Final = re.compile(r"[^\s\u2e80-\uffef]+\s*|\S[，。；：）、]*\s*|\s+")


def drawn(cells: Line) -> Drawn:
    """Join cells to one line; no markup is read in them."""
    text = Drawn()
    for cell in cells:
        text.append(cell.text, cell.style or None)
    return text


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines: between words, and between any two Chinese characters; a longer word is not cut."""
    broken = [""]
    for piece in _PIECE.findall(text):
        if broken[-1] and cell_len(broken[-1]) + cell_len(piece.rstrip()) > width:
            broken.append("")
        broken[-1] += piece
    return broken


def head(look: Look, silence_s: float | None, silent_s: float, size: tuple[int, int]) -> Drawn:
    """Return the three lines at the top, for a screen of this size."""
    model, (width, height) = look.model, size
    site = plain(model.site.name) if model.site else "hazardgate"
    who = f"{plain(model.me.name)}/{words.role(model.me.role)}" if model.me else ""
    who = fitted(who, min(cell_len(who), WHO_CELLS_MAX))
    clock = look.times.clock(look.now_ms)
    bell = say(f" 铃声静音 {silent_s:.0f} 秒 ", f" bell silent {silent_s:.0f} s ") if silent_s > 0 else ""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        told = say(
            f" 窗口太小（{width}×{height}），请放大到 80×24 以上 ",
            f" window {width}×{height} is too small: needs 80×24 ",
        )
        first = Drawn(told, CAUTION).append(bell, CAUTION)
        return Drawn("\n").join([first, _counts(model), _chain(model, silence_s)])
    room = width - sum(map(cell_len, (bell, who, clock))) - 6
    first = Drawn(f" {fitted(site, max(0, room))} ", style="bold")
    first.append(bell, CAUTION)
    first.append(f" {who}  {clock} ")
    return Drawn("\n").join([first, _counts(model), _chain(model, silence_s)])


def _counts(model: Model) -> Drawn:
    """Say of each grade how many stand, and how many wait to be acknowledged: what is gone may still wait."""
    standing, unacked = model.by_grade()
    line = Drawn(say(" 报警中/未确认 ", " stand/unack "))
    for number in words.GRADES:
        text = f" {words.grade_long(number)} {standing[number]}/{unacked[number]} "
        line.append(text, words.GRADE_STYLES[number] if standing[number] or unacked[number] else DIM)
        line.append(" ")
    if model.alarms_cut:
        line.append(say(" 未列全", " not all listed"), BAD)
    if model.invalid:
        line.append(say(f" {model.invalid} 点位无效", f" {model.invalid} tags invalid"), BAD)
    return line


def _chain(model: Model, silence_s: float | None) -> Drawn:
    line = Drawn(" ")
    health = model.health
    if health is not None:
        _state(line, say("核心", "core"), words.core(health), health.core == "running")
        # What core said last of others is worth nothing once it says nothing.
        connected = health.connected if model.values_hold else None
        told = {True: say("通", "up"), False: say("断", "DOWN"), None: say("不明", "?")}[connected]
        _state(line, say("消息代理", "broker"), told, connected is True)
    for what, count in (
        (say("接收方断", "recv. down"), len(model.down())), (say("终端离线", "edges off"), len(model.offline()))
    ):  # fmt: skip
        _state(line, what, str(count) if model.values_hold else say("不明", "?"), model.values_hold and count == 0)
    alive = silence_s is not None and silence_s < 2
    _state(line, say("数据流", "stream"), say("通", "up") if alive else f"{silence_s or 0:.0f} s", alive)
    return line


def _state(line: Drawn, what: str, how: str, good: bool) -> None:
    line.append(f"{what} ")
    line.append(how, "bold #7fd18b" if good else BAD)
    line.append(GAP)


def banner(look: Look) -> Drawn | None:
    """Return the full-width line for what makes values or lists doubtful, or soon will; None where nothing does."""
    model = look.model
    health = model.health
    if health is None:
        return None
    if model.values_hold and model.differs:
        told = say(
            "报警列表与网关的计数不一致：请到其他途径核实",
            "the list and the gateway's count of alarms differ: check otherwise",
        )
        return Drawn(f" {told}", style=ALERT)
    if model.values_hold and not health.degraded:
        return _expiry(look)
    reasons = say("，", ", ").join(map(words.reason, health.reasons))
    if model.values_hold:
        return Drawn(" " + say(f"注意：{reasons}", f"Note: {reasons}"), style=CAUTION)
    age = health.heartbeat_age_ms
    since = (
        ""
        if age is None
        else say(f"，最近心跳 {words.lasting(age / 1000)}前", f", last heartbeat {words.lasting(age / 1000)} ago")
    )
    return Drawn(
        " " + say(f"核心{words.core(health)}{since}：没有新的报警判断，数值均已失效",
                  f"core is {words.core(health)}{since}: nothing judged, values stale"),
        style=ALERT,
    )  # fmt: skip


def _expiry(look: Look) -> Drawn | None:
    """Return a warning shortly before the token ends, and the screen with it."""
    told = _ends(look, EXPIRY_WARNED_MS)
    return Drawn(f" {told}", style=CAUTION) if told else None


def who(look: Look) -> Drawn:
    """Say whose token this is, and some days before that it ends."""
    me = look.model.me
    line = Drawn(say("令牌：", "Token: ") + (f"{plain(me.name)} / {words.role(me.role)}" if me else "-"))
    told = _ends(look, EXPIRY_TOLD_MS)
    return line.append(f"\n{told}", WARN) if told else line


def _ends(look: Look, within_ms: int) -> str:
    expires_ms = look.model.me.expires_ms if look.model.me else None
    if expires_ms is None or expires_ms - look.now_ms > within_ms:
        return ""
    at = look.times.full(expires_ms)
    return say(
        f"本令牌 {at} 到期，到期后此画面不再可用；请及时换新",
        f"this token ends at {at}, and this screen with it: get a new one",
    )


def tabs(model: Model, here: int, wanted: str, shown: int) -> Drawn:
    """Return the line of tabs, with this list's filter."""
    counts = (len(model.alarms), len(model.tags), len(model.edges), len(model.receivers))
    line = Drawn(" ")
    for at, (table, count) in enumerate(zip(TABLES, counts, strict=True)):
        more = "+" if at == 0 and model.alarms_cut else ""
        line.append(f" {at + 1} {table.title()} {count}{more} ", "bold #000000 on #c8d0d8" if at == here else DIM)
    if wanted and here == 0:
        line.append(say(f"  /{plain(wanted)} 及未确认的", f"  /{plain(wanted)} and unacked"), WARN)
    elif wanted:
        line.append(say(f"  {shown} 行符合 /{plain(wanted)}", f"  {shown} match /{plain(wanted)}"), WARN)
    return line


def keys(here: int, may_act: bool) -> Drawn:
    """Return the line of keys."""
    acts = say("a 确认  c 销警  ", "a ack  c close  ") if here == 0 and may_act else ""
    return Drawn(" " + acts + say("m 静音  / 筛选  1-4 切换  Home 最前  ? 帮助  q 退出",
                                  "m silence  / filter  1-4 tabs  Home top  ? help  q quit"))  # fmt: skip


def empty(look: Look, here: int, filtered: bool) -> tuple[str, str]:
    """Return what an empty list says; only the whole truth may sound calm."""
    model = look.model
    if filtered:
        return say("没有符合筛选条件的行（Esc 清除筛选）", "no row matches the filter (Esc clears it)"), WARN
    if here != 0:
        return say("没有", "none"), DIM
    health = model.health
    at = look.times.of_day(health.at_ms if health else look.now_ms)
    if model.calm_is_known:
        return say(f"没有未结束的报警（截至 {at}）", f"no open alarms (as of {at})"), "bold #7fd18b"
    why = "\n".join(map(words.reason, health.reasons)) if health else ""
    if model.invalid:
        missing = say(f"{model.invalid} 个点位无有效数据", f"{model.invalid} tags without valid data")
        why = "\n".join(filter(None, (why, missing)))
    return say(
        f"列表为空（截至 {at}），但不能断定一切正常：\n{why}",
        f"the list is empty (as of {at}), but that does not mean that all is well:\n{why}",
    ), BAD  # fmt: skip


def lost(model: Model, silence_s: float | None, url: str, silent_s: float) -> Drawn:
    """Return the screen without contact."""
    if model.refused:
        title = say("网关有回答，但拿不到报警和数值", "THE GATEWAY ANSWERS, BUT DOES NOT GIVE ALARMS AND VALUES")
    elif silence_s is None:
        title = say("还没有连上网关", "NOT YET IN CONTACT WITH THE GATEWAY")
    else:
        title = say("与网关失去联系", "NO CONTACT WITH THE GATEWAY")
    lasting = words.lasting(silence_s or 0)
    since = "" if silence_s is None else say(f"已 {lasting}", f"for {lasting}")
    lines = [
        title, since, "",
        say("画面上的数值不是现在的，已隐藏。报警可能正在发生。",
            "The values shown are not the present, and are hidden. Alarms may be standing."),
        say("请到现场仪表、DCS 或其他途径核实，直到联系恢复。",
            "Check by the instruments on site, the DCS or otherwise until contact is back."),
        "", say(f"网关 {plain(url)}", f"gateway {plain(url)}"),
        say(f"原因：{plain(model.failure)}", f"cause: {plain(model.failure)}") if model.failure
        else say("正在连接……", "connecting …"),
        "", say("m 铃声静音 60 秒   q 退出", "m silence the bell for 60 s   q quit"),
        say(f"铃声静音 {silent_s:.0f} 秒", f"bell silent {silent_s:.0f} s") if silent_s > 0 else "",
    ]  # fmt: skip
    return Drawn("\n".join(lines), justify="center")
