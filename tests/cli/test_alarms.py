"""`hazardgate alarms`, and what ack and close print: readable lines; the raw record with --json."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from alerting import AlarmState, Category, State
from cli import alarms
from cli.watch.answers import read_alarm
from cli.watch.model import Model
from gateway.core import LEDGER_NAME, LedgerReader
from gateway.core.schema import TABLES
from gateway.serve.answers import alarm_answer, json_of
from gateway.serve.models import AlarmView
from gateway.serve.view_heartbeat import SILENT_S_MAX
from tests.cli.invoking import run

HOUR_MS = 3_600_000
START_MS = 1_795_000_000_000
NOW_MS = START_MS + 5 * HOUR_MS


def state(number: int, grade: int, stands: State, start_ms: int, **more: Any) -> AlarmState:
    return AlarmState(
        **{
            "id": f"{number:032x}", "site": "S", "category": Category.PROCESS, "tag": "CL103.LEVEL", "limit": "H",
            "grade": grade, "state": stands, "value": 3.14159, "code": 192, "setpoint": 3.0, "unit": "m",
            "start_ms": start_ms, **more,
        }
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    monkeypatch.setattr(alarms, "wall_ms", lambda: NOW_MS)


def enter(data: Path, *states: AlarmState) -> None:
    """Enter alarms into a ledger of core's own making, as one that runs has it."""
    (data / "core").mkdir(parents=True, exist_ok=True)
    beat(data)
    db = sqlite3.connect(data / "core" / LEDGER_NAME, isolation_level=None)
    db.executescript(TABLES)
    for one in states:
        row = (one.id, str(one.state), one.grade, str(one.category), one.tag, one.limit, one.start_ms, 0)
        db.execute("INSERT INTO alarm VALUES (?,?,?,?,?,?,?,?,?)", (*row, json.dumps(one.to_json())))
    db.close()


def beat(data: Path, **more: Any) -> None:
    """Let core say that it lives."""
    said = {"at_ms": NOW_MS - 400, "timezone": "Asia/Shanghai", "unjournaled": False, "overflow": False, **more}
    (data / "core" / "heartbeat.json").write_text(json.dumps(said), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    enter(
        tmp_path,
        state(1, 2, State.ACTIVE_UNACKED, START_MS),
        state(2, 4, State.ACTIVE_ACKED, START_MS),
        state(3, 4, State.ACTIVE_UNACKED, START_MS + HOUR_MS),
        state(4, 4, State.RETURNED_UNACKED, START_MS + HOUR_MS, revision=2),
        state(5, 4, State.CLOSED, START_MS + 2 * HOUR_MS),
        state(6, 1, State.ACTIVE_UNACKED, START_MS, tag="EDGE.E1.OFFLINE", limit="SYSTEM", value=None, unit="",
              cause_zh="采集终端离线", cause_en="edge offline"),
    )
    raised = {"alarm": state(4, 4, State.ACTIVE_UNACKED, START_MS + HOUR_MS, value=9.5).to_json()}
    db = sqlite3.connect(tmp_path / "core" / LEDGER_NAME, isolation_level=None)
    db.execute(
        "INSERT INTO transition VALUES (1, 't', 1, ?, 1, 'raised', 0, 0, 0, NULL, ?, '', '')", (f"{4:032x}", json.dumps(raised))
    )
    db.close()
    return tmp_path


def ids(output: str) -> list[int]:
    return [int(line.split()[0], 16) for line in output.splitlines()[2:]]


def test_alarms_stand_in_the_order_of_the_screen(tmp_path: Path) -> None:
    """What a person finds in one place must be where he looks for it in the other."""
    kinds = itertools.product((stands for stands in State if stands is not State.CLOSED), (1, 4), (5_000, 7_000))
    alarms = [state(number, grade, stands, at_ms) for number, (stands, grade, at_ms) in enumerate(kinds, 1)]
    enter(tmp_path, *alarms, state(99, 4, State.CLOSED, 9_000))
    screen = Model()
    screen.alarms = {
        alarm.id: read_alarm(json.loads(json_of(alarm_answer(AlarmView(alarm, "", "", "", "", "", "", "", None)))))
        for alarm in alarms
    }
    order = [int(alarm.id, 16) for alarm in screen.in_order()]
    assert ids(run("alarms", "--data", tmp_path).output) == order
    assert ids(run("alarms", "--data", tmp_path, "--all").output) == [*order, 99]


def test_a_view_of_a_few_lines_has_what_stands_first(data: Path) -> None:
    reader = LedgerReader.open(data / "core" / LEDGER_NAME)
    try:
        listing = alarms.read_alarms(reader, 4, standing_first=True)
    finally:
        reader.close()
    assert [int(alarm["id"], 16) for alarm in listing.alarms] == [3, 1, 6, 2]
    assert listing.total == 5


def test_open_alarms_stand_in_order_of_weight(data: Path) -> None:
    result = run("alarms", "--data", data)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "standing: red 2 orange 0 yellow 1 blue 1"
    assert re.split(r"  +", lines[1]) == [
        "id", "grade", "subject", "limit", "state", "start", "value at start", "at return", "cause"
    ]  # fmt: skip
    assert ids(result.output) == [3, 4, 1, 6, 2]
    at = "2026-11-18 19:06:40 CST"
    assert lines[4] == f"{1:032x}  yellow  CL103.LEVEL      H       standing, unacked  {at}  3.142 m"
    assert lines[3].endswith("CST  9.5 m           3.142 m")  # started at 9.5, returned at 3.142
    assert lines[5].endswith(f"blue    EDGE.E1.OFFLINE  SYSTEM  standing, unacked  {at}{' ' * 29}edge offline")


def test_all_shows_closed_ones_too(data: Path) -> None:
    assert ids(run("alarms", "--data", data, "--all").output) == [3, 4, 1, 6, 2, 5]


def test_json_is_the_alarms_as_the_ledger_has_them(data: Path) -> None:
    told = json.loads(run("alarms", "--data", data, "--json").output)
    assert (told["current"], told["doubts"], told["heartbeat_age_ms"], told["total"]) == (True, [], 400, 5)
    assert [AlarmState.from_json(body).id for body in told["alarms"]] == [f"{number:032x}" for number in (3, 4, 1, 6, 2)]


def test_it_speaks_chinese(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    lines = run("alarms", "--data", data).output.splitlines()
    assert lines[0] == "报警中：红 2 橙 0 黄 1 蓝 1"
    assert lines[2].split()[1:5] == ["红", "CL103.LEVEL", "H", "报警中未确认"]


def _dead(data: Path) -> None:
    beat(data, at_ms=NOW_MS - 30_000)


def _ahead(data: Path) -> None:
    beat(data, at_ms=NOW_MS + 3_600_000)


def _never(data: Path) -> None:
    (data / "core" / "heartbeat.json").unlink()


def _half(data: Path) -> None:
    (data / "core" / "heartbeat.json").write_text('{"at_ms": 1', encoding="utf-8")


def _full_disk(data: Path) -> None:
    beat(data, unjournaled=True)


def _overflow(data: Path) -> None:
    beat(data, overflow=True)


@pytest.mark.parametrize(
    ("trouble", "reason", "zh", "en", "age_ms"),
    [
        (_dead, "core.gone", "核心无心跳 30 秒：此列表不是现在的，新报警不在其中",
         "core has sent no heartbeat for 30 s: this list is not of now, new alarms are not in it", 30_000),
        (_ahead, "core.gone", "核心心跳的时间比本机超前 3600 秒",
         "core's heartbeat is stamped 3600 s ahead of this machine's clock", -3_600_000),
        (_never, "core.never_started", "没有可读的核心心跳文件", "there is no heartbeat of core to read", None),
        (_half, "core.never_started", "没有可读的核心心跳文件", "there is no heartbeat of core to read", None),
        (_full_disk, "unjournaled", "账本写不进：报警照常发出，但未入账，不在此列表中",
         "the ledger cannot be written: alarms go out unjournaled and are not in this list", 400),
        (_overflow, "overflow", "核心积压溢出", "core overflows", 400),
    ],
)  # fmt: skip
def test_a_list_that_is_not_of_now_says_so_first_and_fails(
    data: Path, trouble, reason: str, zh: str, en: str, age_ms: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(data)
    for language, words in (("en", en), ("zh", zh)):
        monkeypatch.setenv("HAZARDGATE_LANG", language)
        result = run("alarms", "--data", data)
        assert result.exit_code == 1
        assert result.stdout.splitlines()[0].startswith(words)
        assert f"{1:032x}" in result.stdout, "what is known is listed all the same"
    result = run("alarms", "--data", data, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["current"], told["doubts"], told["heartbeat_age_ms"]) == (1, False, [reason], age_ms)
    assert len(told["alarms"]) == 5


def test_a_heartbeat_of_5_s_is_current(data: Path) -> None:
    beat(data, at_ms=NOW_MS - 5_000)
    assert run("alarms", "--data", data).exit_code == 0


def test_core_is_silent_here_when_it_is_for_the_api() -> None:
    assert alarms.SILENT_MS_MAX == SILENT_S_MAX * 1000


def test_what_came_late_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, state(1, 2, State.ACTIVE_UNACKED, START_MS, late=True), state(2, 1, State.ACTIVE_UNACKED, START_MS))
    lines = run("alarms", "--data", tmp_path).output.splitlines()
    assert ("standing, unacked (late)" in lines[2], "(late)" in lines[3]) == (True, False)
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    lines = run("alarms", "--data", tmp_path).output.splitlines()
    assert ("报警中未确认（迟）" in lines[2], "（迟）" in lines[3]) == (True, False)


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, ""), (3.14159, "3.142 t"), (18_372.4, "18372 t"), (-18_372.4, "-18372 t"), (2.5e12, "2.5e+12 t"), (0.00123, "0.00123 t")],
)
def test_a_value_is_a_number_that_people_read(value: float | None, told: str) -> None:
    assert alarms.in_unit(value, "t") == told


def test_what_is_left_out_is_counted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "ALARMS_LISTED_MAX", 2)
    assert run("alarms", "--data", data).output.splitlines()[-1] == "3 more"


def test_an_empty_ledger_has_no_table(tmp_path: Path) -> None:
    enter(tmp_path)
    assert run("alarms", "--data", tmp_path).output == "standing: red 0 orange 0 yellow 0 blue 0\n"


def test_it_reads_and_leaves_the_ledger_alone(data: Path) -> None:
    ledger = data / "core" / LEDGER_NAME
    before = ledger.read_bytes()
    run("alarms", "--data", data)
    assert ledger.read_bytes() == before


@pytest.mark.parametrize(("language", "words"), [("en", "there is no ledger; name the core's data"), ("zh", "没有账本；请用 --data")])
def test_no_ledger_is_one_sentence(tmp_path: Path, language: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    result = run("alarms", "--data", tmp_path)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "core").exists()


def test_what_is_no_ledger_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / LEDGER_NAME).write_text("no ledger " * 100, encoding="utf-8")
    result = run("alarms", "--data", tmp_path)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert "the ledger cannot be read" in result.output


# ------------------------------------------------------------------ ack and close

ACTED = {
    "acknowledged": ("ack", "1", "--actor", "王建国"),
    "closed": ("close", "1", "--actor", "王建国", "--reason", "r", "--measure", "m"),
}


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch):
    def answer(told: dict[str, Any]) -> None:
        async def send(*_: object) -> dict[str, Any]:
            return told

        monkeypatch.setattr("gateway.core.send_act", send)

    return answer


@pytest.mark.parametrize("kind", list(ACTED))
def test_an_act_that_is_done_is_one_line(kind: str, answered, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = state(1, 2, State.ACTIVE_ACKED, START_MS).to_json()
    transition = {"kind": kind, "alarm": alarm, "actor": "王建国", "at_ms": START_MS}
    answered({"ok": True, "transition": transition})
    at = alarms.local_time(START_MS)
    assert run(*ACTED[kind]).output == f"{kind}: CL103.LEVEL H yellow 王建国 {at}\n"
    assert json.loads(run(*ACTED[kind], "--json").output) == transition
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    word = {"acknowledged": "已确认", "closed": "已销警"}[kind]
    assert run(*ACTED[kind]).output == f"{word}：CL103.LEVEL H 黄 王建国 {at}\n"


@pytest.mark.parametrize("kind", list(ACTED))
@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_refused_act_says_where_the_alarms_are(kind, language, answered, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    answered({"ok": False, "error": "1: closed by Li (at 2026-11-22T19:03:23Z)"})
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "heartbeat.json").write_text('{"timezone": "Asia/Shanghai"}', encoding="utf-8")
    result = run(*ACTED[kind], "--data", tmp_path)
    assert result.exit_code == 2
    assert "1: closed by Li (at 2026-11-23 03:03:23 CST)" in result.output
    assert f"hazardgate alarms --data {tmp_path}" in result.output


def test_an_actor_cannot_steer_the_terminal() -> None:
    alarm = state(1, 2, State.ACTIVE_ACKED, START_MS).to_json()
    told = alarms.act_in_words({"kind": "acknowledged", "alarm": alarm, "actor": "a\x1b[2J\nb", "at_ms": START_MS}, None)
    assert told.isprintable()
