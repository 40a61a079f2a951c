"""The routes of history on a hand-made historian: what they ask it, what they tell, what they refuse."""

from __future__ import annotations

from pathlib import Path

from gateway.serve.answers import historian_answer
from tests.serve.fakes import ALARM_ID, NOW_MS, SITE, TAG, Served
from tests.serve.test_api import problem, run

RANGE = {"from_ms": 0, "to_ms": 1000}


def test_windows_are_told_as_columns_and_nan_is_null(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            one = await client.get(f"/api/v1/tags/{TAG}/windows", params={**RANGE, "width_ms": 100, "column": ["samples", "mean"]})
            assert one.status_code == 200, one.text
            (told,) = one.json()["items"]
            assert (told["tag"], told["start_ms"], told["samples"], told["mean"], told["good_share"]) == (TAG, [0], [7], [None], [])
            assert told["damaged"] == [[1, 2]]
            tags = [tag.id for tag in SITE.tags[:3]]
            many = await client.get("/api/v1/windows", params={**RANGE, "width_ms": 100, "tag": [*tags, tags[0]]})
            assert [each["tag"] for each in many.json()["items"]] == tags
            assert many.json()["items"][0]["good_share"] == [0.5]

    run(tmp_path, story)


def test_windows_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            path = f"/api/v1/tags/{TAG}/windows"
            told = problem(await client.get(path, params={"from_ms": 0, "to_ms": 10_000_000, "width_ms": 1}), 422, "invalid")
            assert "at least 5000" in told["detail"]
            assert "至少为 5000" in told["detail_zh"]
            problem(await client.get(path, params={**RANGE, "width_ms": 0}), 422, "invalid")
            problem(await client.get(path, params={"from_ms": 5, "to_ms": 5, "width_ms": 1}), 422, "invalid")
            problem(await client.get(path, params={**RANGE, "width_ms": 9, "column": "median"}), 422, "invalid")
            problem(await client.get(path, params={"from_ms": 0, "to_ms": 10**12, "width_ms": 10**10}), 422, "invalid")
            problem(await client.get("/api/v1/windows", params={**RANGE, "width_ms": 9}), 422, "invalid")
            problem(await client.get("/api/v1/windows", params={**RANGE, "width_ms": 9, "tag": [TAG] * 51}), 422, "invalid")
            problem(await client.get("/api/v1/windows", params={**RANGE, "width_ms": 9, "tag": "a/../b"}), 422, "invalid")
            problem(await client.get("/api/v1/windows", params={**RANGE, "width_ms": 9, "tag": "NO.SUCH"}), 404, "not-found")

    run(tmp_path, story)


def test_steps_of_alarms_are_annotations(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            (told,) = (await client.get("/api/v1/annotations", params=RANGE)).json()["items"]
            assert (told["alarm_id"], told["tag"], told["kind"], told["grade"], told["at_ms"]) == (ALARM_ID, TAG, "raised", 4, 0)
            assert (await client.get("/api/v1/annotations", params={**RANGE, "tag": "OTHER"})).json() == {"items": []}
            problem(await client.get("/api/v1/annotations", params={"from_ms": 9, "to_ms": 1}), 422, "invalid")

    run(tmp_path, story)


def test_a_parameter_that_a_route_does_not_have_is_refused_on_every_route(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client("operator") as client:
            for path in (
                "/api/v1/me", "/api/v1/tags", f"/api/v1/tags/{TAG}", "/api/v1/alarms", "/api/v1/edges", "/api/v1/historian",
                "/api/v1/stream",
            ):  # fmt: skip
                told = problem(await client.get(path, params={"grad": "4"}), 422, "invalid")
                assert [each["where"] for each in told["errors"]] == ["query.grad"]
            problem(await client.post(f"/api/v1/alarms/{ALARM_ID}/acknowledge?actor=boss", json={}), 422, "invalid")
            assert served.core.sent == []
            assert (await client.get("/api/v1/alarms", params={"grade": "4"})).status_code == 200

    run(tmp_path, story)


def test_what_the_keeper_of_the_stores_says_is_told_and_its_silence_too(tmp_path: Path) -> None:
    said = {
        "at_ms": NOW_MS - 1_000, "cursor": 77,
        "damaged": [{"file": "samples/x", "day": "2026-01-01", "tags": None, "from_ms": 1, "to_ms": 2, "why": "its checksum"}],
        "space": {"bytes": 5, "days_held": 3, "projected_days": 700.5, "limit_bytes": 9},
        "stores": [{"id": "MAIN", "kind": "influxdb1", "state": "away", "lag_rows": 4, "lag_ms": 9, "cursor": 3, "quarantined": 1,
                    "detail": "no answer", "detail_zh": "无应答"}],
    }  # fmt: skip

    async def story(served: Served) -> None:
        async with served.client() as client:
            assert (await client.get("/api/v1/historian")).json()["state"] == "unknown"
            served.historian.said = said
            told = (await client.get("/api/v1/historian")).json()
            assert (told["state"], told["cursor"], told["damaged"][0]["why"]) == ("running", 77, "its checksum")
            assert (told["stores"][0]["state"], told["space"]["projected_days"]) == ("away", 700.5)

    run(tmp_path, story)
    assert historian_answer(said, NOW_MS + 200_000).state == "silent"
    assert historian_answer({**said, "stores": 7}, NOW_MS).state == "unknown"
    assert historian_answer({}, NOW_MS).state == "unknown"
