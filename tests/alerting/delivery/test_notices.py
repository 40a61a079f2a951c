"""Who is told, and what the message says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting import AlarmState, Category, State, Transition, TransitionKind
from alerting.delivery import NoticePlanner, SiteWords, number, plan, render
from config import DEMO_SITE, Grade, SiteConfig, load_site
from wire import Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
AT_MS = 1_780_000_000_123  # 2026-05-29 04:26:40.123 +08:00
SITE = load_site(DEMO_SITE)
WORDS = SiteWords.compile(SITE)


def alarm(**more: Any) -> AlarmState:
    known: dict[str, Any] = {
        "id": "ab" * 16, "site": SITE.site, "category": Category.PROCESS, "tag": "CLG01.CL2", "limit": "HH",
        "grade": 4, "state": State.ACTIVE_UNACKED, "value": 3.25, "code": GOOD, "setpoint": 3.0, "unit": "ppm",
        "start_ms": AT_MS,
    }  # fmt: skip
    return AlarmState(**(known | more))


def step(kind: TransitionKind = TransitionKind.RAISED, of: AlarmState | None = None, **more: Any) -> Transition:
    found = of or alarm()
    known: dict[str, Any] = {
        "id": "cd" * 16, "alarm_id": found.id, "revision": found.revision, "kind": kind, "alarm": found,
        "engine_ms": 5, "at_ms": AT_MS, "late": found.late,
    }  # fmt: skip
    return Transition(**(known | more))


def lines(transition: Transition) -> tuple[str, str]:
    text = WORDS.lines(transition)
    return text["zh"], text["en"]


def site_with(*receivers: dict[str, Any]) -> SiteConfig:
    body = SITE.model_dump(mode="json")
    body["receivers"] = [
        {"name": "x", "url": "https://platform.example/", "secret_env": "X", **receiver} for receiver in receivers
    ]
    return SiteConfig.model_validate(body)


# who


@pytest.mark.parametrize(
    ("subscription", "told"),
    [
        pytest.param({}, True, id="everything by default"),
        pytest.param({"grades": ["red"]}, True, id="its grade"),
        pytest.param({"grades": ["orange", "blue"]}, False, id="other grades"),
        pytest.param({"kinds": ["process"]}, True, id="its category"),
        pytest.param({"kinds": ["fault", "system"]}, False, id="other categories"),
        pytest.param({"region": "990000"}, True, id="its city"),
        pytest.param({"region": "990000/990100/990101"}, True, id="its park"),
        pytest.param({"region": "990000/990200"}, False, id="another county"),
        pytest.param({"region": "99"}, False, id="a code is whole or nothing"),
    ],
)
def test_a_receiver_gets_what_it_subscribed_to(subscription: dict[str, Any], told: bool) -> None:
    notices = plan([step()], site_with({"id": "A", **subscription}), AT_MS)
    assert [found.receiver for found in notices] == (["A"] if told else [])


@pytest.mark.parametrize("grade", list(Grade))
def test_the_lane_is_the_grade(grade: Grade) -> None:
    (found,) = plan([step(of=alarm(grade=int(grade)))], site_with({"id": "A"}), AT_MS)
    assert found.lane == grade.word


def test_a_notice_is_the_same_however_often_it_is_planned_and_apart_per_receiver() -> None:
    planner = NoticePlanner.compile(SITE)
    first, again = planner.plan([step()], AT_MS), NoticePlanner.compile(SITE).plan([step()], AT_MS)
    assert first == again
    assert len({found.id for found in first}) == len(SITE.receivers) == 2
    assert first[0].body is first[1].body, "built once for all receivers"


# what


def test_the_whole_message_of_a_raise() -> None:
    rows, _ = number(NoticePlanner.compile(SITE).plan([step()], AT_MS), "L9", {})
    sent = render(rows[0], "not this ledger")
    message = json.loads(sent)
    body = message.pop("data")
    assert message == {"type": "alarm.raised", "timestamp": "2026-05-29T04:26:40.123+08:00"}
    found, text = body.pop("alarm"), body.pop("text")
    assert body == {
        "site": SITE.site, "ledger": "L9", "receiver": "CITY", "lane": "red", "sequence": 1, "unjournaled": False,
        "late": False, "notice": rows[0].id, "transition": "cd" * 16, "revision": 1, "at_ms": AT_MS, "actor": None,
    }  # fmt: skip
    assert AlarmState.from_json(found) == alarm()
    assert (found["grade_word"], found["start_at"], found["end_at"]) == ("red", "2026-05-29T04:26:40.123+08:00", None)
    assert set(text) == {"zh", "en"}
    assert "液氯" in sent.decode(), "Chinese goes as itself, not as escapes"


def test_an_unjournaled_notice_says_so_and_has_no_number() -> None:
    found = NoticePlanner.compile(SITE).plan([step()], AT_MS)[0]
    body = json.loads(render(found, "L9"))["data"]
    assert (body["unjournaled"], body["sequence"], body["ledger"]) == (True, None, "L9")


def test_the_lines_of_a_raise() -> None:
    zh, en = lines(step())
    tag = SITE.tags[SITE.tag_index["CLG01.CL2"]]
    assert zh.startswith("【红色报警】液氯库气体探测器组 CLG01.CL2（"), "the source is not named twice"
    assert "【红色报警】液氯库 1号液氯储槽 CL101.LEVEL（" in lines(step(of=alarm(tag="CL101.LEVEL", limit="HH")))[0]
    assert f"CLG01.CL2（{tag.label}） {tag.name.zh} 高高 3.25 ppm，限值 3 ppm，2026-05-29 04:26:40.123。处置：" in zh
    assert en.startswith("[RED ALARM] ")
    assert f"CLG01.CL2 ({tag.label}) {tag.name.en} HH 3.25 ppm, setpoint 3 ppm, 2026-05-29 04:26:40.123. Action: " in en


@pytest.mark.parametrize(
    ("kind", "more", "zh_head", "zh_tail", "en_tail"),
    [
        (TransitionKind.RETURNED, {}, "【红色销警】", "04:26:40.123。", "04:26:40.123."),
        (TransitionKind.ACKNOWLEDGED, {"actor": "王工"}, "【红色已确认】", "操作人：王工。", "By: 王工."),
        (TransitionKind.CLOSED, {"actor": "王工"}, "【红色已结案】", "操作人：王工。原因：阀门泄漏。措施：更换垫片。",
         "By: 王工. Cause: 阀门泄漏. Measure: 更换垫片."),
    ],
)  # fmt: skip
def test_the_lines_of_later_steps(
    kind: TransitionKind, more: dict[str, Any], zh_head: str, zh_tail: str, en_tail: str
) -> None:
    zh, en = lines(step(kind, alarm(reason="阀门泄漏", measure="更换垫片", revision=2), **more))
    assert zh.startswith(zh_head)
    assert zh.endswith(zh_tail)
    assert en.endswith(en_tail)
    assert "处置" not in zh


def test_an_uncertain_value_says_so() -> None:
    zh, en = lines(step(of=alarm(code=quality_code(Quality.UNCERTAIN, Reason.RANGE))))
    assert "3.25 ppm（可疑/超出量程），限值 3 ppm" in zh
    assert "3.25 ppm (uncertain/beyond range), setpoint 3 ppm" in en


def test_an_instrument_fault_names_its_cause() -> None:
    bad = quality_code(Quality.BAD, Reason.COMM)
    fault = alarm(category=Category.FAULT, limit="FAULT", value=None, setpoint=None, code=bad, grade=2)
    assert "【黄色报警】" in lines(step(of=fault))[0]
    assert "仪表故障：坏值/通信中断" in lines(step(of=fault))[0]
    assert "仪表故障：断线" in lines(step(of=replace(fault, cause_zh="断线")))[0]


def test_a_system_alarm_names_its_condition() -> None:
    system = alarm(category=Category.SYSTEM, tag="EDGE.E1.OFFLINE", limit="SYSTEM", value=None, setpoint=None, grade=3)
    zh, en = lines(step(of=system))
    assert "【橙色报警】" in zh
    assert "监测系统 EDGE.E1.OFFLINE" in zh
    assert "[ORANGE ALARM]" in en


def test_a_late_record_says_so_in_words_and_in_its_field() -> None:
    late = step(of=alarm(late=True))
    assert "（补报）" in lines(late)[0]
    assert "(late report)" in lines(late)[1]
    assert json.loads(NoticePlanner.compile(SITE).plan([late], 1)[0].body)["data"]["late"] is True


def test_a_tag_that_left_the_configuration_is_still_told() -> None:
    assert "GONE.TAG 高高 3.25 ppm" in lines(step(of=alarm(tag="GONE.TAG")))[0]


@given(text=st.text(max_size=80))
def test_free_text_can_neither_break_the_json_nor_start_a_line(text: str) -> None:
    closed = step(TransitionKind.CLOSED, alarm(reason=text, measure=text), actor=text)
    found = NoticePlanner.compile(SITE).plan([closed], AT_MS)[0]
    body = json.loads(render(found, "L1"))["data"]
    assert body["alarm"]["reason"] == text
    assert body["lane"] == "red"
    assert all(line.isprintable() for line in body["text"].values())


@pytest.mark.parametrize("hostile", ['"data":{', '","data":{"lane":"blue', "\ud800", "\u2028\r\n\x1b[31m"])
def test_hostile_text_stays_text(hostile: str) -> None:
    closed = step(TransitionKind.CLOSED, alarm(reason=hostile, tag=hostile), actor=hostile)
    found = NoticePlanner.compile(SITE).plan([closed], AT_MS)[0]
    body = json.loads(render(found, "L1"))["data"]
    assert (body["alarm"]["reason"], body["actor"], body["lane"]) == (hostile, hostile, "red")


@given(at_ms=st.integers(0, 4_102_444_800_000))
def test_times_keep_their_milliseconds(at_ms: int) -> None:
    local = WORDS.local(at_ms)
    assert round(local.timestamp() * 1000) == at_ms
    assert WORDS.iso(at_ms).endswith(("+08:00", "+09:00"))
