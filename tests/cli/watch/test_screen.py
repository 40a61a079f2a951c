"""The whole screen in front of a gateway: keys in, acts out, and never more calm than is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rich.cells import cell_len

from cli.running import EXIT_REFUSED
from cli.watch.dialogs import help_text
from cli.watch.screens import LOOK_S, LostScreen
from tests.cli.watch import fake_server as fake
from tests.cli.watch.fake_server import FakeGateway
from tests.cli.watch.screens import Watched, watching

CORE_SLOW = (
    503, "core did not answer in time; the act may still be done: look at the alarm before sending it again",
    "核心未及时应答；该操作可能仍会执行：重发前请先查看报警状态",
)  # fmt: skip
Story = Callable[[Watched], Awaitable[None]]


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")


def play(story: Story, gateway: FakeGateway | None = None, **how: object) -> None:
    """Run one story."""

    async def run() -> None:
        async with watching(gateway or FakeGateway(), **how) as watched:  # type: ignore[arg-type]
            await story(watched)

    asyncio.run(run())


# ------------------------------------------------------------------ what is shown


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "en",
            (
                "stand/unack  red 1/1",
                "ALARM UNACK",
                "HH 2.3",
                "2.35 m",
                "GOOD",
                "Do first: Stop filling",
                "core running",
                "broker up",
                "10:1",
            ),
        ),
        (
            "zh",
            (
                "报警中/未确认  红 1/1",
                "报警中 未确认",
                "HH 2.3",
                "2.35 m",
                "有效",
                "先做：停止进料",
                "核心 运行",
                "消息代理 通",
                "操作员",
            ),
        ),
    ],
)
def test_an_alarm_with_all_that_counts(
    lang: str, words: tuple[str, ...], size, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)

    async def story(seen: Watched) -> None:
        await seen.shows(*words, "CL101.LEVEL", "zhang")
        assert [cell_len(line) for line in seen.text.split("\n")] == [size[0]] * size[1]

    play(story, size=size)


def test_the_columns_stand_under_their_titles_with_wide_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    gateway = FakeGateway()
    gateway.alarms = [
        fake.alarm("a1"),
        fake.alarm("a2", tag="罐区.液位", tag_name_zh="很长很长很长很长很长很长很长的名称很长很长很长"),
    ]

    async def story(seen: Watched) -> None:
        await seen.shows("很长很长", "1号液氯储槽液位")
        lines = seen.text.split("\n")
        head = next(line for line in lines if "级别" in line)
        rows = [line for line in lines if "报警中 未确认" in line]
        assert len(rows) == 2
        for row in rows:
            assert cell_len(row[: row.index("HH 2.3")]) == cell_len(head[: head.index("限值")])
            assert cell_len(row[: row.index("液氯库")]) == cell_len(head[: head.index("重大危险源")])

    play(story, gateway, size=(160, 24))


@pytest.mark.parametrize("size", [(1, 1), (40, 10), (300, 90)])
def test_it_draws_at_any_size(size: tuple[int, int]) -> None:
    async def story(seen: Watched) -> None:
        for key in ("2", "1", "a", "n"):
            await seen.press(key)
        await seen.pilot.resize_terminal(80, 24)
        await seen.shows("CL101.LEVEL", "Do first")

    play(story, size=size)


@pytest.mark.fault("F50")
@pytest.mark.fault("F57")
def test_text_from_outside_is_text() -> None:
    evil = "[red]x[/red][@click=app.quit]y[/][/\x1b[2J\x07a\nb\u2028\u202ec\x9b"
    gateway = FakeGateway()
    gateway.site["name"] = {"zh": evil, "en": evil}
    gateway.me["name"] = evil
    gateway.alarms = [fake.alarm("a1", tag_name_en=evil, guidance_en=evil, unit=evil, limit=evil, cause_en=evil)]
    gateway.tags = [fake.tag("CL101.LEVEL", name_en=evil, unit=evil)]
    gateway.edges = [fake.edge("E1", name_en=evil, conditions=[evil])]
    gateway.receivers = [fake.receiver("CITY", name_en=evil, detail=evil, last_detail=evil, last_outcome=evil)]
    plain = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in evil)

    async def story(seen: Watched) -> None:
        for key in "1234":
            await seen.press(key)
            await seen.shows(plain)
            assert all(char.isprintable() or char == "\n" for char in seen.text)
        assert len(seen.text.split("\n")) == 24

    play(story, gateway, size=(160, 24))


@pytest.mark.parametrize(
    ("change", "told", "not_told"),
    [
        pytest.param({}, ("no open alarms (as of 10:13:2",), "does not mean", id="all is known"),
        pytest.param({"health": fake.health(core="gone", degraded=True, reasons=["core.gone"], heartbeat_age_ms=9_000)},
                     ("core is GONE, last heartbeat 9 s ago", "does not mean that all is well"), "no open alarms",
                     id="core is gone"),
        pytest.param({"health": fake.health(connected=False, degraded=True, reasons=["broker.disconnected"])},
                     ("Note: the broker is disconnected", "broker DOWN", "does not mean"), "no open alarms", id="no broker"),
        pytest.param({"tags": [fake.tag("T1", quality="UNKNOWN", value=None), fake.tag("T2", quality="BAD", reason="STALE")]},
                     ("2 tags without valid data", "does not mean"), "no open alarms", id="tags without data"),
    ],
)  # fmt: skip
def test_an_empty_list_is_not_calm_by_itself(change: dict, told: tuple[str, ...], not_told: str) -> None:
    gateway = FakeGateway()
    gateway.alarms = []
    vars(gateway).update(change)

    async def story(seen: Watched) -> None:
        await seen.shows(*told)
        assert not_told not in seen.text

    play(story, gateway)


@pytest.mark.parametrize(
    ("hours", "at", "warned", "told"),
    [(1, "2025-11-13 11:13:20", True, True), (3, "2025-11-13 13:13:20", False, True),
     (6 * 24, "2025-11-19 10:13:20", False, True), (8 * 24, "2025-11-21 10:13:20", False, False)],
)  # fmt: skip
def test_a_token_that_ends_is_told_in_the_help_for_days_and_over_the_list_in_its_last_hours(
    hours: int, at: str, warned: bool, told: bool
) -> None:
    gateway = FakeGateway()
    gateway.me["expires_ms"] = fake.NOW_MS + hours * 3_600_000
    ends = f"this token ends at {at}"

    async def story(seen: Watched) -> None:
        await seen.shows("CL101.LEVEL", "zhang", *([ends] if warned else []))
        assert (ends in seen.text) is warned
        assert seen.app._main.query_one("#banner").display is warned
        await seen.press("question_mark")
        await seen.shows("Token: zhang / operator", "Any key returns", *([ends] if told else []))
        assert told or "this token ends" not in seen.text

    play(story, gateway)


def test_the_counts_tell_what_stands_from_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = FakeGateway()
    gateway.tags = [fake.tag(f"T{at}", quality="BAD", value=None) for at in range(69)]
    gateway.alarms = [
        *(fake.alarm(f"r{at}", grade=4, state="RETURNED_UNACKED") for at in range(3)),
        fake.alarm("o", grade=3, state="RETURNED_ACKED"), fake.alarm("y", grade=2, state="ACTIVE_ACKED"),
        *(fake.alarm(f"b{at}", grade=1, state="RETURNED_UNACKED") for at in range(10)),
    ]  # fmt: skip

    async def story(seen: Watched) -> None:
        await seen.shows("stand/unack  red 0/3   orange 0/0   yellow 1/0   blue 0/10   69 tags invalid")
        monkeypatch.setenv("HAZARDGATE_LANG", "zh")
        await seen.shows("报警中/未确认  红 0/3   橙 0/0   黄 1/0   蓝 0/10   69 点位无效")

    play(story, gateway)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_why_values_are_stale_fits_80_cells(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    gateway = FakeGateway()
    gateway.health = fake.health(
        core="stalled", degraded=True, reasons=["core.stalled"], heartbeat_age_ms=86_399_000, connected=False
    )

    async def story(seen: Watched) -> None:
        await seen.shows(
            {
                "en": "23 h 59 min ago: nothing judged, values stale",
                "zh": "23 小时 59 分前：没有新的报警判断，数值均已失效",
            }[lang]
        )

    play(story, gateway)


def test_a_system_alarm_is_told_apart_in_the_narrowest_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    system = {"limit": "SYSTEM", "category": "system", "setpoint": None, "value_at_start": None, "unit": "", "cause_zh": ""}
    gateway = FakeGateway()
    gateway.alarms = [
        fake.alarm("a1", tag="CORE.STORE-INFLUX.REFUSED", tag_name_zh="时序库拒绝写入：请按说明检查地址", **system),
        fake.alarm("a2", tag="CORE.STORE-INFLUX.BEHIND", tag_name_zh="时序库写入滞后：数据保存在本机", **system),
    ]

    async def story(seen: Watched) -> None:
        await seen.shows("…RE-INFLUX.REFUSED", "…ORE-INFLUX.BEHIND", "时序库拒绝写 …", "时序库写入滞 …")
        assert [cell_len(line) for line in seen.text.split("\n")] == [80] * 24
        await seen.pilot.resize_terminal(160, 24)
        await seen.until(lambda: seen.text.count("CORE.STORE-INFLUX.BEHIND") == 2)  # the row, and the details below
        assert "时序库写入滞 …" not in seen.text, "the name has a column of its own"

    play(story, gateway)


def test_a_fault_of_an_instrument_says_what_to_do_and_names_no_limit() -> None:
    gateway = FakeGateway()
    gateway.alarms = [
        fake.alarm("a1", limit="FAULT", category="fault", grade=2, setpoint=None, value_at_start=None, guidance_zh="",
                   guidance_en="", cause_en="bad/no communication"),
    ]  # fmt: skip
    gateway.tags = [fake.tag("CL101.LEVEL", value=None, quality="BAD", reason="COMM", code=0)]

    async def story(seen: Watched) -> None:
        await seen.shows("Do first: check on site or by other instruments", "at start no value, now no value BAD")
        assert "limit fault" not in seen.text

    play(story, gateway)


def test_two_boxes_under_one_id_are_told_as_such_and_until_when() -> None:
    gateway = FakeGateway()
    cause = "two boxes use one edge id: all its tags stay UNCERTAIN until a person has settled it and closes this alarm"
    gateway.alarms = [
        fake.alarm("a1", tag="EDGE.E1.IDENTITY", tag_name_en=cause, cause_en=cause, limit="SYSTEM", category="system",
                   setpoint=None, value_at_start=None, guidance_zh="", guidance_en="", equipment="", hazard_source=""),
    ]  # fmt: skip
    gateway.tags = [fake.tag("CL101.LEVEL", quality="UNCERTAIN", reason="CONFIG", code=68)]
    gateway.edges = [fake.edge("E1", conditions=["IDENTITY"])]
    gateway.health = fake.health(degraded=True, reasons=["edge.doubted"])

    async def story(seen: Watched) -> None:
        await seen.shows("Note: two boxes use one edge id: its tags are doubted", "red  two boxes use one edge id", "closes this alarm")
        assert seen.text.count("closes this alarm") == 1
        assert "Do first" not in seen.text
        await seen.press("2")
        await seen.shows("2.35 m UNCER two boxes")
        assert "configuration error" not in seen.text

    play(story, gateway)


def test_all_the_reasons_fit_two_lines() -> None:
    gateway = FakeGateway()
    gateway.health = fake.health(degraded=True, reasons=["broker.disconnected", "unjournaled", "receiver.down"])

    async def story(seen: Watched) -> None:
        await seen.shows("Note: the broker is disconnected, the ledger stalls", "a receiver is down", "CL101.LEVEL")

    play(story, gateway)


def test_a_window_that_is_too_small_says_so() -> None:
    async def story(seen: Watched) -> None:
        await seen.shows("window 79×24 is too small: needs 80×24")
        await seen.pilot.resize_terminal(80, 24)
        await seen.shows("Wangchao Chemical Park", "zhang/operator")
        assert "too small" not in seen.text
        await seen.pilot.resize_terminal(80, 23)
        await seen.shows("window 80×23 is too small")

    play(story, size=(79, 24))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_help_fits_80_by_24(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    lines = help_text().split("\n")
    assert len(lines) <= 24 - 2 - 2
    assert max(map(cell_len, lines)) <= 80 - 2 - 2
    assert {"en": "closed unacknowledged: that acknowledges nothing", "zh": "销警不等于确认"}[lang] in help_text()


def test_without_a_core_that_turns_no_value_is_good() -> None:
    async def story(seen: Watched) -> None:
        await seen.shows("GOOD")
        await seen.gateway.send("health", fake.health(core="stalled", degraded=True, reasons=["core.stalled"]))
        await seen.shows("core is STALLED", "STALE")
        assert "GOOD" not in seen.text

    play(story)


def test_late_and_held_are_marked_and_explained() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm("a1", late=True)]
    gateway.tags = [fake.tag("CL101.LEVEL", quality="BAD", reason="COMM", code=1, held=True)]

    async def story(seen: Watched) -> None:
        await seen.shows("L+H", "late: found in data", "held: there is no valid value", "BAD")

    play(story, gateway, size=(120, 36))


def test_edges_and_deliveries() -> None:
    gateway = FakeGateway()
    gateway.edges.append(fake.edge("E2", online=False, backlog_frames=320, conditions=["OFFLINE"]))
    gateway.edges.append(fake.edge("E3", backlog_frames=None))
    gateway.receivers.append(fake.receiver("PARK", down=True, due=3, last_outcome="retry", last_detail="refused"))

    async def story(seen: Watched) -> None:
        await seen.shows("recv. down 1", "edges off 1")
        await seen.press("3", "down")
        await seen.shows("E2", "OFFLINE", "320", "standing conditions: offline")
        assert "unknown" in next(line for line in seen.text.splitlines() if " E3 " in line)
        await seen.press("4")
        await seen.shows("CITY", "PARK", "DOWN", "to retry refused", "red lane: due 0, parked 0, sequence up to 7")

    play(story, gateway)


def test_the_newest_frame_of_an_edge_goes_on() -> None:
    async def story(seen: Watched) -> None:
        await seen.press("3")
        await seen.shows("newest frame 2025-11-13 10:13:19")
        for at in (5, 10):
            newer = fake.edge("E1", last_frame_ms=fake.NOW_MS + at * 1_000)
            await seen.gateway.send("edges", {"items": [newer]})
            time = f"10:13:{20 + at}"
            await seen.until(lambda time=time: seen.text.count(time) >= 2)  # type: ignore[misc]  # the row, and the details below
            await seen.shows(f"newest frame 2025-11-13 {time}")

    play(story)


def test_many_tags_are_filtered_and_only_those_in_sight_are_drawn() -> None:
    gateway = FakeGateway()
    gateway.tags = [fake.tag(f"T{at:05}.PRESSURE") for at in range(2_000)]

    async def story(seen: Watched) -> None:
        await seen.press("2")
        await seen.shows("2 values 2000", "T00000.PRESSURE")
        assert "T00020" not in seen.text
        await seen.press("end")
        await seen.shows("T01999.PRESSURE")
        await seen.press("slash", *"321")
        await seen.shows("2 match /321", "T01321")
        await seen.press("enter", "escape")
        await seen.shows("T00000")

    play(story, gateway)


def test_a_filter_never_hides_what_is_not_acknowledged() -> None:
    gateway = FakeGateway()
    gateway.alarms = [
        fake.alarm("a1", tag="UNACKED.ONE"), fake.alarm("a2", tag="ACKED.ONE", state="ACTIVE_ACKED"),
        fake.alarm("a3", tag="WANTED.ONE", state="ACTIVE_ACKED"),
    ]  # fmt: skip

    async def story(seen: Watched) -> None:
        await seen.press("slash", *"wan", "enter")
        await seen.shows("/wan and unacked", "UNACKED.ONE")
        assert " ACKED.ONE" not in seen.text
        assert seen.text.index("WANTED.ONE") < seen.text.index("UNACKED.ONE")

    play(story, gateway)


# ------------------------------------------------------------------ acts


def test_a_red_alarm_is_acknowledged_after_a_question_and_shows_when_the_gateway_has_done_it() -> None:
    async def story(seen: Watched) -> None:
        await seen.press("a")
        await seen.shows("Acknowledge this red alarm?")
        assert seen.gateway.acts == []
        await seen.press("y")
        await seen.shows("ALARM acked", "the gateway has done it", "acked by zhang")
        assert seen.gateway.acts == [("a1", "acknowledge", {})]

    play(story)


def test_no_is_no() -> None:
    async def story(seen: Watched) -> None:
        for key in ("n", "escape", "q"):
            await seen.press("a", key)
            await seen.shows("ALARM UNACK")
        assert seen.gateway.acts == []

    play(story)


def test_other_grades_are_acknowledged_by_one_key() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm("a1", grade=3)]

    async def story(seen: Watched) -> None:
        await seen.press("a")
        await seen.shows("ALARM acked")
        await seen.press("a")
        await seen.shows("already acknowledged")
        assert len(seen.gateway.acts) == 1

    play(story, gateway)


def test_a_refusal_shows_in_the_gateways_words_and_changes_nothing() -> None:
    gateway = FakeGateway()
    gateway.refuse["/acknowledge"] = (409, "alarm a1 is [b]not[/b] open\x1b[2J", "…")

    async def story(seen: Watched) -> None:
        await seen.press("a", "y")
        await seen.shows("not done. alarm a1 is [b]not[/b] open\\x1b[2J (409)", "ALARM UNACK")

    play(story, gateway, size=(160, 24))


@pytest.mark.parametrize(
    ("lang", "told", "words", "settled"),
    [
        ("en", CORE_SLOW, ("not known whether done", "again (503)"), "the list shows it done"),
        ("zh", CORE_SLOW, ("结果未知", "请先查看报警状态 (503)"), "列表显示已执行"),
        ("en", (502, "Bad gateway", "…"), ("not known whether done", "Bad gateway"), "the list shows it done"),
    ],
)
def test_an_act_that_may_still_be_done_is_not_called_undone(
    lang: str, told: tuple[int, str, str], words: tuple[str, ...], settled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    gateway = FakeGateway()
    gateway.refuse["/acknowledge"] = told

    async def story(seen: Watched) -> None:
        await seen.press("a", "y")
        await seen.shows(*words, "CL101.LEVEL")
        for said in ("not done", "没有执行"):
            assert said not in seen.text
        await seen.gateway.send("alarms", {"items": [fake.alarm("a1", state="ACTIVE_ACKED", revision=2)]})
        await seen.shows(settled)
        assert words[0] not in seen.text

    play(story, gateway)


def test_an_act_shed_as_too_many_is_known_not_to_be_done() -> None:
    gateway = FakeGateway()
    gateway.refuse["/acknowledge"] = (503, "too many acts wait", "…")
    gateway.refusal_kind = "urn:hazardgate:problem:busy"

    async def story(seen: Watched) -> None:
        await seen.press("a", "y")
        await seen.shows("not done. too many acts wait (503)")

    play(story, gateway)


def test_the_cursor_goes_on_to_the_next_that_waits_and_the_top_stays_in_sight() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm(f"r{at}", tag=f"RED.{at}", start_ms=9 - at) for at in range(3)]
    gateway.alarms += [fake.alarm(f"b{at:02}", grade=1, tag=f"BLUE.{at:02}", start_ms=99 - at) for at in range(15)]

    def chosen(seen: Watched) -> str | None:
        return seen.app._main.list.chosen

    async def story(seen: Watched) -> None:
        await seen.press("down", "a", "y")
        await seen.until(lambda: chosen(seen) == "r2")
        await seen.shows("RED.0", "RED.2", "BLUE.00", "the gateway has done it")
        seen.now[0] += LOOK_S
        await seen.press("a", "y")
        await seen.until(lambda: chosen(seen) == "b00")
        seen.now[0] += LOOK_S
        await seen.press("up", "a", "y")
        await seen.until(lambda: chosen(seen) == "b00")
        assert {alarm.id for alarm in seen.app.model.alarms.values() if alarm.acked} == {"r0", "r1", "r2"}
        assert seen.app._main.list.keys_in_sight[0] == "b00"

    play(story, gateway)


def test_a_key_held_down_acknowledges_one_alarm() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm(f"b{at}", grade=1) for at in range(5)]

    async def story(seen: Watched) -> None:
        await seen.press("a")
        await seen.until(lambda: seen.app._main.list.chosen == "b3")
        for _ in range(6):
            seen.now[0] += LOOK_S / 2
            await seen.press("a")
        await seen.shows("has just gone to the next alarm")
        assert seen.gateway.acts == [("b4", "acknowledge", {})]
        seen.now[0] += LOOK_S
        await seen.press("a")
        await seen.until(lambda: len(seen.gateway.acts) == 2)

    play(story, gateway)


def test_the_cursor_goes_on_after_a_close() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm(f"a{at}", state="RETURNED_ACKED", start_ms=9 - at) for at in range(3)]

    async def story(seen: Watched) -> None:
        for chosen, left in (("a2", ["a0", "a2"]), ("a0", ["a0"]), (None, [])):
            if seen.gateway.acts == []:
                await seen.press("down")
            await seen.press("c", "x", "enter", "y", "enter")
            await seen.until(lambda left=left: [alarm.id for alarm in seen.app.model.in_order()] == left)  # type: ignore[misc]
            await seen.until(lambda chosen=chosen: seen.app._main.list.chosen == chosen)  # type: ignore[misc]
            seen.now[0] += LOOK_S

    play(story, gateway)


def test_closing_needs_reason_and_measure() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm("a1", state="RETURNED_ACKED")]

    async def story(seen: Watched) -> None:
        await seen.press("c")
        await seen.shows("Close this alarm")
        await seen.press("enter")
        await seen.shows("both reason and measure are needed")
        await seen.press("x", "enter", "enter")
        await seen.shows("both reason and measure are needed")
        assert seen.gateway.acts == []
        await seen.press("y", "enter")
        await seen.shows("the gateway has done it", "no open alarms")
        assert seen.gateway.acts == [("a1", "close", {"reason": "x", "measure": "y"})]

    play(story, gateway)


def test_a_viewer_is_told_why_not() -> None:
    gateway = FakeGateway()
    gateway.me["role"] = "viewer"

    async def story(seen: Watched) -> None:
        assert "a ack" not in seen.text
        for key in ("a", "c"):
            seen.app._main.say("-")
            await seen.press(key)
            await seen.shows("this token may only look")
        assert seen.gateway.acts == []

    play(story, gateway)


def test_the_cursor_stays_with_its_alarm_and_goes_when_it_goes() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm("a1", grade=1)]

    async def story(seen: Watched) -> None:
        await seen.gateway.send("alarms", {"items": [fake.alarm("a2", grade=4)]})
        await seen.shows("red 1")
        assert seen.app._main.list.chosen == "a1"
        await seen.gateway.send("alarms", {"items": [fake.alarm("a1", state="CLOSED", revision=2)]})
        await seen.shows("no row is chosen")
        await seen.press("a")
        await seen.shows("choose an alarm with Up/Down first")
        assert seen.gateway.acts == []
        await seen.press("down")
        assert seen.app._main.list.chosen == "a2"

    play(story, gateway)


def test_a_list_that_loses_a_line_stays_at_its_top_where_the_cursor_is_out_of_sight() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm(f"b{at:02}", grade=1, start_ms=99 - at) for at in range(20)]

    async def story(seen: Watched) -> None:
        rows = seen.app._main.list
        acked = fake.alarm("b00", grade=1, start_ms=99, state="ACTIVE_ACKED", acked_by="li", revision=2)
        await seen.gateway.send("alarms", {"items": [acked]})
        await seen.until(lambda: rows.keys_in_sight[0] == "b01")
        assert rows.chosen == "b00"
        height = rows.size.height
        await seen.gateway.send("health", fake.health(degraded=True, reasons=["receiver.down"], standing={"1": 20}))
        await seen.until(lambda: rows.size.height < height)
        await seen.shows("Note: a receiver is down")
        assert rows.keys_in_sight[0] == "b01"

    play(story, gateway)


def test_an_alarm_out_of_sight_is_shown_before_it_is_acted_on() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm("a1", grade=1)]

    async def story(seen: Watched) -> None:
        await seen.gateway.send("alarms", {"items": [fake.alarm(f"b{at}", grade=4) for at in range(30)]})
        await seen.shows("red 30")
        await seen.press("a")
        await seen.shows("was out of sight")
        assert seen.gateway.acts == []
        await seen.press("a")
        await seen.until(lambda: seen.gateway.acts == [("a1", "acknowledge", {})])

    play(story, gateway)


def test_quitting_is_asked_about_and_says_what_is_left() -> None:
    async def story(seen: Watched) -> None:
        await seen.press("q")
        await seen.shows("Leave the screen?", "1 alarms are not acknowledged")
        await seen.press("n")
        assert seen.app.is_running
        await seen.press("ctrl+c")
        await seen.shows("Leave the screen?")
        await seen.press("y")
        assert seen.app._exit

    play(story)


# ------------------------------------------------------------------ the bell


def test_the_bell_rings_until_acknowledged_and_silence_is_in_sight() -> None:
    async def alive(seen: Watched, seconds: int) -> None:
        for _ in range(seconds):
            seen.now[0] += 1
            await seen.gateway.send("health", fake.health())
            await seen.until(lambda: seen.app.model.silence_s(seen.now[0]) == 0)

    async def story(seen: Watched) -> None:
        assert seen.rings == [1_000.0]
        await alive(seen, 6)
        assert seen.rings == [1_000.0, 1_003.0, 1_006.0]
        await seen.press("m")
        await seen.shows("bell silent 60 s")
        await alive(seen, 7)
        assert len(seen.rings) == 3
        await seen.shows("bell silent 53 s")
        await seen.gateway.send("alarms", {"items": [fake.alarm("a2", grade=3)]})
        await seen.until(lambda: len(seen.rings) == 4)
        assert "bell silent" not in seen.text

    play(story)


# ------------------------------------------------------------------ contact


def test_silence_covers_everything_within_5_s_and_rings() -> None:
    async def story(seen: Watched) -> None:
        seen.rings.clear()
        await seen.pass_s(3)
        await seen.shows("CL101.LEVEL")
        before = len(seen.rings)
        await seen.pass_s(1)
        assert seen.now[0] - 1_000 <= 5
        await seen.shows("NO CONTACT WITH THE GATEWAY", "4 s", "not the present")
        for hidden in ("CL101", "2.35", "UNACK"):
            assert hidden not in seen.text
        assert len(seen.rings) > before
        await seen.press("a", "c", "2", "slash")
        assert isinstance(seen.app.screen, LostScreen)
        assert seen.gateway.acts == []
        await seen.press("m")
        count = len(seen.rings)
        await seen.pass_s(6)
        assert len(seen.rings) == count
        await seen.shows("bell silent 54 s", "10 s")

    play(story)


def test_it_comes_back_only_after_everything_is_read_again() -> None:
    async def story(seen: Watched) -> None:
        await seen.press("c")  # a form is open when contact is lost, and is there again afterwards
        await seen.pass_s(4)
        await seen.shows("NO CONTACT")
        seen.gateway.alarms = [fake.alarm("b1", tag="NEW.ONE")]
        seen.gateway.refuse["/alarms"] = (503, "busy", "忙")
        loads = seen.app.model.loads
        await seen.gateway.send("health", fake.health())  # life, but not the picture
        await seen.shows("DOES NOT GIVE ALARMS AND VALUES", "busy (503)")
        assert seen.app.model.loads == loads
        seen.gateway.refuse.clear()
        await seen.shows("Close this alarm")
        assert seen.app.model.loads == loads + 1
        await seen.press("escape")
        await seen.shows("NEW.ONE")
        assert "CL101.LEVEL " not in seen.text.split("NEW.ONE")[0]

    play(story)


def test_a_short_break_resumes_where_the_stream_ended() -> None:
    async def story(seen: Watched) -> None:
        await seen.gateway.send("values", {"items": [fake.tag("CL101.LEVEL", value=2.41)]}, id_="L1:77:3")
        await seen.shows("2.41 m")
        loads = seen.app.model.loads
        await seen.gateway.cut()
        await seen.until(lambda: len(seen.gateway.resumed) == 2)
        assert seen.gateway.resumed == [None, "L1:77:3"]
        await seen.gateway.send("values", {"items": [fake.tag("CL101.LEVEL", value=2.52)]})
        await seen.shows("2.52 m")
        assert seen.app.model.loads == loads

    play(story)


def test_a_reset_reads_everything_again() -> None:
    async def story(seen: Watched) -> None:
        seen.gateway.alarms = [fake.alarm("b1", tag="NEW.ONE", grade=2)]
        await seen.gateway.send("reset", {"cause": "ledger"})
        await seen.shows("NEW.ONE", "yellow 1")
        assert seen.app.model.loads == 2
        assert seen.gateway.resumed == [None, None]

    play(story)


@pytest.mark.parametrize(
    ("how", "change", "told"),
    [
        pytest.param({}, {"health": {"status": "ok"}}, "is not understood (core is missing)", id="another version"),
        pytest.param({}, {"refuse": {"/stream": (503, "too many", "满")}}, "too many (503)", id="no room for one more"),
    ],
)
def test_what_never_comes_into_contact_says_why(how: dict, change: dict, told: str) -> None:
    gateway = FakeGateway()
    vars(gateway).update(change)

    async def story(seen: Watched) -> None:
        await seen.shows("GATEWAY", told)
        assert seen.rings == []
        await seen.pass_s(4)
        assert seen.rings

    play(story, gateway, wait=False, **how)


TOKEN_ENDED = "this token was revoked, has ended or is wrong; get a new one"


def test_a_token_that_is_refused_from_the_start_ends_the_program() -> None:
    async def story(seen: Watched) -> None:
        await seen.until(lambda: seen.app._exit)
        assert seen.app.return_code == EXIT_REFUSED
        assert TOKEN_ENDED in seen.app.model.failure
        assert "Bearer" not in seen.app.model.failure

    play(story, wait=False, token="hg1_wrong")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_token_that_ends_while_the_screen_runs_is_told_in_an_operators_words(
    lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    told = {"en": TOKEN_ENDED, "zh": "本令牌已被吊销、已到期或不正确；请向网关管理员领取新令牌"}[lang]

    async def story(seen: Watched) -> None:
        seen.gateway.refuse["/acknowledge"] = seen.gateway.refuse["/stream"] = (401, "send Bearer", "附上 Bearer")
        await seen.press("a", "y")
        await seen.shows(
            *({"en": ("this token was revoked", "get a new one"), "zh": ("本令牌已被吊销", "领取新令牌")}[lang])
        )
        await seen.gateway.cut()
        await seen.until(lambda: seen.app.model.token_refused)
        await seen.pass_s(4)
        await seen.shows(told)
        assert "Bearer" not in seen.text
        assert not seen.app._exit

    play(story)


def test_without_contact_the_second_q_quits() -> None:
    async def story(seen: Watched) -> None:
        await seen.pass_s(4)
        await seen.press("q")
        await seen.shows("press q again")
        await seen.press("q")
        assert seen.app._exit

    play(story)


def test_it_asks_for_all_pages() -> None:
    gateway = FakeGateway()
    gateway.alarms = [fake.alarm(f"a{at}") for at in range(12)]
    gateway.page = 5

    async def story(seen: Watched) -> None:
        await seen.shows("red 12")
        assert seen.gateway.asked.count("/api/v1/alarms") == 3

    play(story, gateway)
