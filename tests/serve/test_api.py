"""The API on a hand-made read model: what each route answers, and what it refuses how."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serve import answers, openapi_document
from gateway.serve.audit_rate import LINES_A_MINUTE
from gateway.serve.bodies import BODY_BYTES_MAX
from gateway.serve.models import Health
from gateway.serve.problems import busy
from gateway.serve.view_errors import AWAY, LedgerAwayError, OutOfTimeError
from tests.patience import GUARD_S
from tests.serve.fakes import ALARM_ID, NOW_MS, SITE, TAG, Served, alarm_state, serving, tag_now

Story = Callable[[Served], Coroutine[Any, Any, None]]
AT_5 = "1970-01-01 08:00:05 CST"  # in the site's zone, whatever the machine's
JSON = {"Content-Type": "application/json"}
ROOT = Path(__file__).parents[2]


def run(folder: Path, story: Story) -> None:
    async def main() -> None:
        async with asyncio.timeout(GUARD_S), serving(folder) as served:
            await story(served)

    asyncio.run(main())


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is a problem of this kind, in both languages."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:hazardgate:problem:{slug}"
    assert told["status"] == status
    for field in ("title_zh", "detail_zh"):
        assert any("\u4e00" <= char <= "\u9fff" for char in told[field]) or "errors" in told[field]
    for fault in told["errors"]:
        assert any("\u4e00" <= char <= "\u9fff" for char in fault["message_zh"]), fault
        assert "无效（" not in fault["message_zh"], f"this kind has no words: {fault}"
    assert "无效（" not in told["detail_zh"], f"this reason has no words: {told['detail_zh']}"
    return told


def test_every_reading_route_answers_what_the_view_says(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.view.now = [tag_now(tag.id) for tag in SITE.tags]
        served.view.now[0] = tag_now(TAG, value=None, quality="BAD", reason="STALE", held=True, alarms=(ALARM_ID,), worst_grade=4)
        async with served.client() as client:
            me = (await client.get("/api/v1/me")).json()
            assert me == {"name": "viewer甲", "role": "viewer", "expires_ms": NOW_MS + 90 * 86_400_000}
            health = (await client.get("/api/v1/health")).json()
            assert (health["core"], health["position"]) == ("running", {"ledger_id": "ledger-one", "pos": 41})
            assert health["serve"] == {"streams": 0, "queries_waiting": 0, "audit_lines_lost": 0}
            site = (await client.get("/api/v1/site")).json()
            assert [tag["tag"] for tag in site["tags"]] == [tag.id for tag in SITE.tags]
            tags = (await client.get("/api/v1/tags")).json()
            assert (tags["total"], tags["items"][0]["held"], tags["items"][0]["value"]) == (len(SITE.tags), True, None)
            part = (await client.get("/api/v1/tags", params={"prefix": TAG, "limit": 1})).json()
            assert [tag["tag"] for tag in part["items"]] == [TAG]
            assert (await client.get(f"/api/v1/tags/{TAG}")).json()["reason"] == "STALE"
            history = await client.get(f"/api/v1/tags/{TAG}/history", params={"from_ms": 0, "to_ms": 1000})
            assert history.json()["gaps"][0]["kind"] == "no_data"
            (alarm,) = (await client.get("/api/v1/alarms")).json()["items"]
            assert (alarm["grade_zh"], alarm["active"], alarm["acked"], alarm["rtn_ms"]) == ("红", True, False, None)
            assert alarm["guidance_zh"] == "撤离"
            one = (await client.get(f"/api/v1/alarms/{ALARM_ID}")).json()
            assert [step["kind"] for step in one["transitions"]] == ["raised"]
            (receiver,) = (await client.get("/api/v1/deliveries")).json()["items"]
            assert (receiver["due"], receiver["parked"], receiver["lanes"][0]["last_sequence"]) == (2, 1, 7)
            assert (await client.get("/api/v1/deliveries/notices")).json()["items"][0]["notice_id"] == "n1"
            assert (await client.get("/api/v1/edges")).json()["items"][0]["stream"] == 2**62

    run(tmp_path, story)


def test_every_answer_is_private_and_nothing_is_shared_across_origins(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            for path in ("/api/v1/me", "/api/v1/none", "/healthz"):
                answer = await client.get(path, headers={"Origin": "http://evil.example"})
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert not [name for name in answer.headers if name.startswith("access-control")]

    run(tmp_path, story)


def test_no_secret_and_no_address_leaves_by_the_site(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            told = (await client.get("/api/v1/site")).text
        for receiver in SITE.receivers:
            assert receiver.url not in told
            assert (receiver.secret_env or "-") not in told

    run(tmp_path, story)


# ------------------------------------------------------------------ acts


def test_an_act_is_the_tokens_name_and_nobody_elses(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            path = f"/api/v1/alarms/{ALARM_ID}/acknowledge"
            problem(await client.post(path, json={"actor": "boss"}), 422, "invalid")
            assert served.core.sent == []
            answer = await client.post(path, json={})
            assert answer.status_code == 200
            assert answer.json()["transition"]["actor"] == "operator甲"
            assert answer.json()["alarm"]["acked_by"] == "operator甲"
            assert answer.json()["alarm"]["guidance_zh"] == "撤离"
        assert served.core.sent == [{"act": "acknowledge", "alarm": ALARM_ID, "actor": "operator甲"}]

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("said", "status", "slug", "zh"),
    [
        ("T still stands; close it after it has returned to normal", 409, "refused", "T 仍在报警；恢复正常后才能销警"),
        ("already acknowledged by 李工 (at 1970-01-01T00:00:05Z)", 409, "refused", f"已由 李工 确认（{AT_5}）"),
        ("closed by {0} %s (at 1970-01-01T00:00:05Z)", 409, "refused", "已由 {0} %s 销警（" + AT_5 + "）"),
        ("closed by A (at an unknown time)", 409, "refused", "已由 A 销警（an unknown time）"),
        ("closed by A (at 9999-99-99T00:00:05Z)", 409, "refused", "已由 A 销警（9999-99-99T00:00:05Z）"),
        ("too many acts wait; try again in a moment", 503, "busy", "操作排队过多；请稍后再试"),
        ("something new", 409, "refused", "核心没有执行：something new"),
        ("no open alarm has this id (it may be closed already); see the list", 409, "refused",
         "没有此编号的未结束报警（可能已经销警）；请查看报警列表"),
    ],
)  # fmt: skip
def test_what_core_refuses_is_told_in_both_languages(tmp_path: Path, said: str, status: int, slug: str, zh: str) -> None:
    async def story(served: Served) -> None:
        served.core.refuses = said
        async with served.client("operator") as client:
            answer = await client.post(f"/api/v1/alarms/{ALARM_ID}/close", json={"reason": "阀门", "measure": "更换"})
        told = problem(answer, status, slug)
        assert told["detail"] == said.replace("1970-01-01T00:00:05Z", AT_5)
        assert told["detail_zh"] == zh

    run(tmp_path, story)


def test_an_unknown_alarm_is_not_there(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            problem(await client.post(f"/api/v1/alarms/{'f' * 32}/acknowledge", json={}), 404, "not-found")
            problem(await client.get(f"/api/v1/alarms/{'f' * 32}"), 404, "not-found")
            problem(await client.get("/api/v1/alarms/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), 404, "not-found")
            problem(await client.get("/api/v1/alarms/%00"), 422, "invalid")
            for path in ("tags/NO.SUCH", "tags/NO.SUCH/history?from_ms=0&to_ms=5", "export?tag=NO.SUCH&from_ms=0&to_ms=5"):
                told = problem(await client.get(f"/api/v1/{path}"), 404, "not-found")
                assert "no tag NO.SUCH" in told["detail"]
                assert "没有测点 NO.SUCH" in told["detail_zh"]

    run(tmp_path, story)


def test_core_that_is_gone_is_said_and_may_be_tried_again(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.core.gone = True
        async with served.client("operator") as client:
            answer = await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})
        problem(answer, 503, "core-not-there")
        assert answer.headers["retry-after"] == "2"

    run(tmp_path, story)


def test_core_that_hangs_is_not_waited_for_and_the_doubt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.acts.ACT_S_MAX", 0.05)

    async def story(served: Served) -> None:
        async def hang(_: dict[str, str]) -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

        served.parts.acts._send = hang
        async with served.client("operator") as client:
            told = problem(await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={}), 503, "core-not-there")
        assert "may still be done" in told["detail"]

    run(tmp_path, story)


@pytest.mark.parametrize("trouble", ["away", "hangs", "full"])
def test_an_act_that_is_done_is_told_as_done_whatever_the_ledger_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr("gateway.serve.api_acts.WORDS_S_MAX", 0.05)
    held = threading.Event()

    async def story(served: Served) -> None:
        def away(_: str) -> None:
            raise OutOfTimeError

        async def full(_: object) -> None:
            raise busy()

        def hangs(_: str) -> None:
            held.wait(GUARD_S)

        if trouble == "full":
            monkeypatch.setattr(served.parts.reads, "run", full)
        else:
            monkeypatch.setattr(served.view, "alarm", {"away": away, "hangs": hangs}[trouble])
        async with served.client("operator") as client:
            answer = await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})
        held.set()
        assert answer.status_code == 200
        assert (answer.json()["alarm"]["state"], answer.json()["transition"]["actor"]) == ("ACTIVE_ACKED", "operator甲")

    run(tmp_path, story)


# ------------------------------------------------------------------ bodies


HOSTILE = [
    pytest.param(b"[" * 10_000 + b"]" * 6_000, 400, id="ten thousand deep"),
    pytest.param(b'{"a":' * 1_500 + b"1" + b"}" * 1_500, 400, id="objects in objects"),
    pytest.param(b'{"reason":"a","reason":"b","measure":"m"}', 400, id="a key twice"),
    pytest.param(b'{"reason":NaN,"measure":"m"}', 400, id="NaN"),
    pytest.param(b'{"reason":-Infinity,"measure":"m"}', 400, id="Infinity"),
    pytest.param(b'{"reason":"\\ud800","measure":"m"}', 400, id="half a surrogate pair"),
    pytest.param(b'{"reason":1e400,"measure":"m"}', 400, id="1e400"),
    pytest.param(b'{"reason":' + b"9" * 200 + b',"measure":"m"}', 400, id="200 digits"),
    pytest.param(b'{"reason":' + b"9" * 16_000 + b"}", 400, id="16 000 digits"),
    pytest.param(b"\xff\xfe{}", 400, id="no UTF-8"),
    pytest.param(b"\xef\xbb\xbf{}", 400, id="a byte order mark"),
    pytest.param(b"[]", 400, id="no object"),
    pytest.param(b"", 400, id="nothing"),
    pytest.param(b"{", 400, id="half an object"),
    pytest.param(b'{"reason":"r","measure":"m"} {}', 400, id="two objects"),
    pytest.param(b" " * (BODY_BYTES_MAX + 1), 413, id="too long"),
    pytest.param(b'{"reason":"a\\u0000b","measure":"m"}', 422, id="NUL"),
    pytest.param(b'{"reason":"a\\u001b[31m","measure":"m"}', 422, id="an escape sequence"),
    pytest.param(b'{"reason":"a\\u2028b","measure":"m"}', 422, id="a line separator"),
    pytest.param(b'{"reason":"a\\u202eb","measure":"m"}', 422, id="a change of direction"),
    pytest.param(b'{"reason":"a\\nb","measure":"m"}', 422, id="a line end"),
    pytest.param(b'{"reason":7,"measure":"m"}', 422, id="a number for a text"),
    pytest.param(b'{"reason":true,"measure":null}', 422, id="no texts"),
    pytest.param(b'{"reason":"  ","measure":"m"}', 422, id="blanks"),
    pytest.param(b'{"reason":"' + b"r" * 501 + b'","measure":"m"}', 422, id="501 characters"),
    pytest.param(b'{"reason":"r","measure":"m","actor":"boss"}', 422, id="another actor"),
]


@pytest.mark.fault("F54")
@pytest.mark.parametrize(("body", "status"), HOSTILE)
def test_a_hostile_body_is_refused_at_once_and_never_reaches_core(tmp_path: Path, body: bytes, status: int) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            path = f"/api/v1/alarms/{ALARM_ID}/close"
            await client.post(path, content=b"{}", headers=JSON)  # warm
            loop = asyncio.get_running_loop()
            took = []
            for _ in range(3):  # the machine is shared: the best of three is the cost
                began = loop.time()
                answer = await client.post(path, content=body, headers=JSON)
                took.append(loop.time() - began)
                assert answer.status_code == status, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
            assert min(took) < 0.05
        assert served.core.sent == []

    run(tmp_path, story)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "*/*"])
def test_only_json_is_a_body(tmp_path: Path, media: str) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            answer = await client.post(
                f"/api/v1/alarms/{ALARM_ID}/acknowledge", content=b"{}", headers={"Content-Type": media}
            )
            problem(answer, 415, "unsupported-media-type")
        assert served.core.sent == []

    run(tmp_path, story)


def test_a_body_that_dribbles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.bodies.BODY_S_MAX", 0.05)

    async def story(served: Served) -> None:
        async def dribble() -> Any:
            yield b"{"
            await asyncio.sleep(60)

        async with served.client("operator") as client:
            answer = await client.post(
                f"/api/v1/alarms/{ALARM_ID}/acknowledge", content=dribble(), headers={"Content-Type": "application/json"}
            )
            problem(answer, 408, "request-timeout")

    run(tmp_path, story)


# ------------------------------------------------------------------ who asks


@pytest.mark.parametrize(
    "credentials",
    [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer hg1_0000000000_" + "A" * 43, "Bearer \xff", "bearer x" * 900],
)
def test_whoever_has_no_token_gets_one_answer_and_learns_nothing(tmp_path: Path, credentials: str | None) -> None:
    async def story(served: Served) -> None:
        async with served.client(None) as client:
            headers = {} if credentials is None else {"Authorization": credentials.encode("latin-1")}
            texts = set()
            for path in ("/api/v1/me", "/api/v1/tags/NO.SUCH", "/api/v1/none", "/docs", "/", "/openapi.json"):
                answer = await client.get(path, headers=headers)  # type: ignore[arg-type]
                problem(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"].startswith("Bearer")
                texts.add(answer.text.replace(path, ""))
            assert len({json.dumps({**json.loads(text), "instance": ""}) for text in texts}) == 1

    run(tmp_path, story)


def test_too_many_failures_are_throttled_but_a_valid_token_is_let_in(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client(None) as client:
            statuses = [(await client.get("/api/v1/me")).status_code for _ in range(25)]
        assert statuses == [401] * 20 + [429] * 5
        async with served.client(None, address=("10.0.0.9", 5)) as client:
            assert (await client.get("/api/v1/me")).status_code == 401, "another address has its own count"
        async with served.client("viewer") as client:
            assert (await client.get("/api/v1/me")).status_code == 200
        audit = await served.audit()
        assert audit.count('"auth_failed"') == 21
        assert audit.count('"auth_throttled"') == 1, "a flood of failures does not flood the audit"

    run(tmp_path, story)


def test_another_host_name_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            for host in ("evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil", "[::2]:80"):
                problem(await client.get("/api/v1/me", headers={"Host": host}), 421, "wrong-host")
            for host in ("127.0.0.1", "127.0.0.1:1", "LOCALHOST:8580"):
                assert (await client.get("/api/v1/me", headers={"Host": host})).status_code == 200

    run(tmp_path, story)


def test_health_without_a_token_is_one_word(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client(None) as client:
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()) == (503, {"status": "degraded"}), "nothing has been looked at yet"
            served.parts.refresher.round(0.0)
            answer = await client.get("/healthz")
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            served.view.core = "gone"
            served.parts.refresher.round(10.0)
            assert (await client.get("/healthz")).status_code == 503

    run(tmp_path, story)


# ------------------------------------------------------------------ writes


@pytest.mark.fault("F61")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/api/v1/tags/{TAG}", b'{"value": 1}'),
        ("PUT", f"/api/v1/tags/{TAG}", b'{"value": 1}'),
        ("PATCH", f"/api/v1/tags/{TAG}/value", b'{"value": 1}'),
        ("DELETE", f"/api/v1/alarms/{ALARM_ID}", b""),
        ("POST", "/api/v1/edges/E1/command", b'{"command": "DCMD"}'),
        ("POST", "/api/v1/devices/D1/registers/40001", b'{"value": 1}'),
        ("POST", "/api/v1/modbus/write", b'{"function": 6}'),
        ("POST", f"/api/v1/alarms/{ALARM_ID}/shelve", b"{}"),
        ("PROPFIND", "/api/v1/tags", b""),
    ],
)  # fmt: skip
def test_a_write_is_not_there_for_anybody_and_its_try_is_audited(tmp_path: Path, method: str, path: str, body: bytes) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            answer = await client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"
        assert served.core.sent == []
        (line,) = (await served.audit()).splitlines()
        told = json.loads(line)
        assert (told["event"], told["name"], told["method"], told["path"]) == ("write_attempt", "operator甲", method, path)

    run(tmp_path, story)


@pytest.mark.fault("F61")
def test_a_token_that_floods_the_audit_with_tries_pushes_no_act_out_of_it(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client("viewer") as client:
            for _ in range(LINES_A_MINUTE + 7):
                assert (await client.put("/api/v1/tags")).status_code == 405
                assert (await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})).status_code == 403
        async with served.client("operator") as client:
            for _ in range(LINES_A_MINUTE + 7):
                await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})
        told = [json.loads(line) for line in (await served.audit()).splitlines()]
        assert Counter(line["event"] for line in told) == {
            "write_attempt": LINES_A_MINUTE, "forbidden": LINES_A_MINUTE, "act": LINES_A_MINUTE + 7, "held_back": 2,
        }  # fmt: skip
        assert {(line["of"], line["name"], line["count"]) for line in told if line["event"] == "held_back"} == {
            ("write_attempt", "viewer甲", 7), ("forbidden", "viewer甲", 7),
        }  # fmt: skip

    run(tmp_path, story)


@pytest.mark.fault("F61")
@pytest.mark.fault("F57")
def test_acts_refused_acts_and_failures_are_lines_that_nobody_can_forge(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})
            served.core.refuses = 'x\n{"event": "act", "name": "boss"}\x1b[2J\u2028'
            await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})
            await client.put("/api/v1/%0a%7b%22event%22%3a%22act%22%7d%1b%5b31m%e2%80%ae", content=b"")
        async with served.client("viewer") as client:
            problem(await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={}), 403, "forbidden")
        text = await served.audit()
        lines = text.split("\n")
        assert lines.pop() == ""
        assert all(line.isprintable() for line in lines)
        told = [json.loads(line) for line in lines]
        assert [one["event"] for one in told] == ["act", "act_refused", "write_attempt", "forbidden"]
        assert [one["name"] for one in told] == ["operator甲"] * 3 + ["viewer甲"]
        assert {one["remote"] for one in told} == {"127.0.0.1"}
        assert (told[0]["alarm"], told[0]["act"], told[0]["status"]) == (ALARM_ID, "acknowledge", 200)
        for secret in served.sent.values():
            assert secret.split("_", 2)[2] not in text

    run(tmp_path, story)


# ------------------------------------------------------------------ load


@pytest.mark.fault("F70")
def test_history_is_shed_first_and_nothing_else_waits_for_it(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.historian.hold = threading.Event()
        url = f"/api/v1/tags/{TAG}/history?from_ms=0&to_ms=1000"
        async with served.client("operator") as client:
            asked = [asyncio.create_task(client.get(url)) for _ in range(2)]
            while served.historian.asked < 2:  # before the 16 that may wait come: else the last of them find no place
                await asyncio.sleep(0.005)
            asked += [asyncio.create_task(client.get(url)) for _ in range(16)]
            while served.parts.histories.waiting < 16:
                await asyncio.sleep(0.005)
            for _ in range(30):
                answer = await client.get(url)
                problem(answer, 503, "busy")
                assert answer.headers["retry-after"]
            assert (await client.get("/api/v1/tags")).status_code == 200
            assert (await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge", json={})).status_code == 200
            assert served.historian.asked == 2
            served.historian.hold.set()
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}

    run(tmp_path, story)


@pytest.mark.fault("F70")
def test_a_question_nobody_waits_for_any_more_is_not_asked(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.historian.hold = threading.Event()
        async with served.client() as client:
            url = f"/api/v1/tags/{TAG}/history?from_ms=0&to_ms=1000"
            asked = [asyncio.create_task(client.get(url)) for _ in range(10)]
            while served.historian.asked < 2 or served.parts.histories.waiting < 8:
                await asyncio.sleep(0.005)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            served.historian.hold.set()
            assert (await client.get(url)).status_code == 200
            assert served.historian.asked == 3

    run(tmp_path, story)


def test_a_read_that_hangs_is_answered_in_time_and_does_not_hold_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serve.gate.REQUEST_S_MAX", 0.1)

    async def story(served: Served) -> None:
        served.view.hold = threading.Event()
        async with served.client() as client:
            problem(await client.get("/api/v1/tags"), 503, "too-slow")
            monkeypatch.setattr("gateway.serve.gate.REQUEST_S_MAX", GUARD_S)
            assert (await client.get("/api/v1/me")).status_code == 200
        served.view.hold.set()

    run(tmp_path, story)


def test_a_ledger_that_is_away_is_said(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            for state, (detail, detail_zh) in AWAY.items():
                served.view.fail = LedgerAwayError(state, "/secret/place/ledger.sqlite3", found="THEIRS", wanted="OURS")
                told = problem(await client.get("/api/v1/alarms"), 503, "ledger-away")
                assert told["detail"] == f"{state}: {detail.format(found='THEIRS', wanted='OURS')}"
                assert told["detail_zh"] == f"{state}：{detail_zh.format(found='THEIRS', wanted='OURS')}"
                assert "/secret" not in json.dumps(told)

    run(tmp_path, story)


def test_a_bug_is_loud_in_the_log_and_silent_to_the_client(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.view.fail = RuntimeError("SELECT secret FROM place")
        async with served.client() as client:
            told = problem(await client.get("/api/v1/tags"), 500, "internal")
        assert "SELECT" not in json.dumps(told)

    run(tmp_path, story)


# ------------------------------------------------------------------ the document


def test_the_openapi_document_is_the_one_checked_in() -> None:
    checked_in = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    assert openapi_document() == checked_in, "run `hazardgate openapi > docs/openapi.json`"


def test_the_document_is_served_with_a_token_and_nowhere_else(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            assert (await client.get("/api/v1/openapi.json")).json() == json.loads(openapi_document())
            for path in ("/docs", "/redoc", "/openapi.json"):
                assert (await client.get(path)).status_code == 404

    run(tmp_path, story)


def test_answers_name_every_field_of_an_alarm() -> None:
    told = set(answers.AlarmAnswer.model_fields)
    ours = set(alarm_state().to_json()) - {"returned_ms"} | {"rtn_ms"}
    assert ours <= told
    assert set(Health.__dataclass_fields__) <= set(answers.HealthAnswer.__dataclass_fields__)
