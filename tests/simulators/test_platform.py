"""The municipal platform: what it verifies, keeps, notices as missing, and how it fails when told to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from simulators import NotLoopbackError, PlatformSettings, PortTakenError, run_platform
from tests.patience import GUARD_S
from tests.simulators.small_site import real_loop

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another-secret-of-24-byt").decode()


def notice(
    sequence: int | None = 1, *, lane: str = "red", kind: str = "alarm.raised", revision: int = 1, **more: Any
) -> dict[str, Any]:
    return {
        "type": kind,
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {
            "site": "DEMO",
            "ledger": "L1",
            "receiver": "city",
            "lane": lane,
            "sequence": sequence,
            "revision": revision,
            "alarm": {"id": "A1", "grade": lane},
            **more,
        },
    }


def signed(body: bytes, notice_id: str, secret: str = SECRET, age_s: float = 0.0) -> dict[str, str]:
    at = datetime.fromtimestamp(int(time.time() - age_s), UTC)
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(notice_id, at, body.decode()),
        "content-type": "application/json",
    }


class Sender:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def send(self, message: dict[str, Any], notice_id: str, receiver: str = "city", **how: Any) -> httpx.Response:
        body = json.dumps(message).encode()
        return await self.client.post(f"/hooks/{receiver}", content=body, headers=signed(body, notice_id, **how))

    async def summary(self) -> dict[str, Any]:
        return dict((await self.client.get("/summary")).json())

    async def received(self, query: str = "") -> list[dict[str, Any]]:
        return list((await self.client.get(f"/received{query}")).json())

    async def fail(self, **failure: Any) -> None:
        (await self.client.post("/control", json={"fail": failure})).raise_for_status()


@contextlib.asynccontextmanager
async def platform(directory: Path, secrets: tuple[str, ...] = (SECRET,)) -> AsyncIterator[Sender]:
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    settings = PlatformSettings({"city": secrets}, directory)
    serving = asyncio.create_task(run_platform(settings, stop, started), name="platform")
    url = await started
    try:
        async with httpx.AsyncClient(base_url=url, timeout=GUARD_S) as client:
            yield Sender(client)
    finally:
        stop.set()
        await serving


def test_a_signed_notice_is_booked_once_and_its_repeat_is_a_duplicate(tmp_path: Path) -> None:
    async def scenario() -> None:
        before_ms = time.time() * 1000
        async with platform(tmp_path) as sender:
            first = await sender.send(notice(), "n1")
            again = await sender.send(notice(), "n1")
            assert (first.status_code, first.json()) == (200, {"ok": True, "id": "n1", "duplicate": False})
            assert again.json()["duplicate"] is True
            summary = await sender.summary()
            assert (summary["verified"], summary["unique"], summary["duplicates"], summary["gaps"]) == (2, 1, 1, 0)
            event = (await sender.received())[0]
            assert event["verified"] is True
            assert before_ms <= event["received_ms"] <= time.time() * 1000
            assert {
                k: event[k]
                for k in (
                    "id",
                    "receiver",
                    "lane",
                    "sequence",
                    "ledger",
                    "type",
                    "alarm",
                    "revision",
                    "transition",
                    "duplicate",
                )
            } == {
                "id": "n1",
                "receiver": "city",
                "lane": "red",
                "sequence": 1,
                "ledger": "L1",
                "type": "alarm.raised",
                "alarm": "A1",
                "revision": 1,
                "transition": "raised",
                "duplicate": False,
            }

    real_loop(scenario)


def test_what_is_not_provably_from_the_sender_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            body = json.dumps(notice()).encode()
            bad = signed(body, "n1")
            cases = [
                (await sender.send(notice(), "n1", secret=OTHER), 401),
                (await sender.send(notice(), "n1", age_s=600), 401),
                (await sender.send(notice(), "n1", age_s=-600), 401),
                (await sender.send(notice(), "n1", receiver="nobody"), 404),
                (await sender.client.post("/hooks/city", content=body), 401),
                (await sender.client.post("/hooks/city", content=body + b" ", headers=bad), 401),
                (await sender.client.post("/hooks/city", content=body, headers={**bad, "webhook-id": "n2"}), 401),
                (
                    await sender.client.post("/hooks/city", content=body, headers={**bad, "webhook-signature": "v1"}),
                    401,
                ),
                (await sender.client.post("/hooks/city", content=b"\xff", headers=bad), 401),
            ]
            assert [answer.status_code for answer, _ in cases] == [status for _, status in cases]
            not_json = b"[1]"
            answer = await sender.client.post("/hooks/city", content=not_json, headers=signed(not_json, "n3"))
            assert answer.status_code == 400
            summary = await sender.summary()
            assert (summary["verified"], summary["rejected"]) == (0, 10)

    real_loop(scenario)


def test_either_of_two_secrets_is_accepted_while_one_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path, (SECRET, OTHER)) as sender:
            assert (await sender.send(notice(1), "n1")).status_code == 200
            assert (await sender.send(notice(2), "n2", secret=OTHER)).status_code == 200

    real_loop(scenario)


def test_gaps_conflicts_and_order_are_seen(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.send(notice(1), "n1")
            await sender.send(notice(4, revision=3), "n4")
            await sender.send(notice(2, lane="blue"), "b2")
            await sender.send(notice(None, revision=2, unjournaled=True), "n5")
            assert (await sender.summary())["gaps"] == 3
            await sender.send(notice(3, revision=2), "n3")
            await sender.send(notice(3), "impostor")
            summary = await sender.summary()
            lanes = {lane["lane"]: lane["missing"] for lane in summary["lanes"]}
            assert lanes == {"red": [2], "blue": [1]}
            assert summary["sequence_conflicts"] == 1
            assert summary["out_of_order"] >= 1
            await sender.send(notice(None, kind="heartbeat", released=[2]), "h1")
            summary = await sender.summary()
            assert (summary["gaps"], summary["heartbeats"]) == (1, 1)
            assert all(event["type"] != "heartbeat" for event in await sender.received())

    real_loop(scenario)


def test_a_restart_continues_ids_and_sequences_even_after_a_torn_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.send(notice(1), "n1")
            await sender.send(notice(3), "n3")
            await sender.send(notice(1), "x", secret=OTHER)
        with (tmp_path / "received.jsonl").open("ab") as file:
            file.write(b'{"id": "torn')
        async with platform(tmp_path) as sender:
            assert (await sender.send(notice(1), "n1")).json()["duplicate"] is True
            await sender.send(notice(2), "n2")
            summary = await sender.summary()
            assert (summary["unique"], summary["duplicates"], summary["rejected"], summary["gaps"]) == (3, 1, 1, 0)
        async with platform(tmp_path) as sender:
            assert (await sender.summary())["unique"] == 3

    real_loop(scenario)


def test_status_with_retry_after_for_a_number_of_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.fail(status=503, retry_after=7, times=2)
            answers = [await sender.send(notice(), "n1") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [503, 503, 200]
            assert answers[0].headers["retry-after"] == "7"
            assert (await sender.summary())["verified"] == 1

    real_loop(scenario)


def test_a_failure_ends_after_its_time_and_spares_other_receivers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.fail(status=500, for_s=1.0)
            assert (await sender.send(notice(), "n1")).status_code == 500
            async with asyncio.timeout(GUARD_S):
                while (await sender.send(notice(), "n1")).status_code != 200:
                    await asyncio.sleep(0.02)
            await sender.fail(status=500, receiver="province")
            assert (await sender.send(notice(), "n1")).status_code == 200

    real_loop(scenario)


@pytest.mark.parametrize("keep", [False, True])
def test_a_dropped_connection_may_or_may_not_have_been_booked(tmp_path: Path, keep: bool) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.fail(drop=True, keep=keep, times=1)
            with pytest.raises(httpx.RemoteProtocolError):
                await sender.send(notice(), "n1")
            assert (await sender.summary())["verified"] == int(keep)
            assert (await sender.send(notice(), "n1")).json()["duplicate"] is keep

    real_loop(scenario)


def test_a_body_cut_short_a_slow_answer_and_a_code_in_the_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.fail(cut_body=True, times=1)
            with pytest.raises(httpx.RemoteProtocolError):
                await sender.send(notice(), "n1")
            await sender.fail(delay_s=0.2, times=1)
            began = time.monotonic()
            assert (await sender.send(notice(), "n1")).status_code == 200
            assert time.monotonic() - began >= 0.2
            await sender.fail(body='{"code": 5}', times=1)
            answer = await sender.send(notice(), "n1")
            assert (answer.status_code, answer.json()) == (200, {"code": 5})
            await sender.fail(status=302, location="http://127.0.0.1:1/", times=1)
            assert (await sender.send(notice(), "n1")).headers["location"] == "http://127.0.0.1:1/"
            await sender.fail(status=200, body_bytes=100_000, times=1)
            assert len((await sender.send(notice(), "n1")).content) == 100_000

    real_loop(scenario)


def test_a_wrong_clock_refuses_good_signatures_until_it_is_set(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.client.post("/control", json={"clock_offset_s": 600})
            assert (await sender.send(notice(), "n1")).status_code == 401
            await sender.client.post("/control", json={"clock_offset_s": 0})
            assert (await sender.send(notice(), "n1")).status_code == 200
            assert (await sender.client.post("/control", json={"fial": {}})).status_code == 422

    real_loop(scenario)


def test_it_stops_with_an_open_idle_connection_and_says_where_it_listened(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with platform(tmp_path) as sender:
            await sender.send(notice(), "n1")
            where = json.loads((tmp_path / "platform.json").read_text())
            with pytest.raises(PortTakenError):
                await run_platform(PlatformSettings({}, tmp_path, port=where["port"]), asyncio.Event())
            with pytest.raises(NotLoopbackError):
                await run_platform(PlatformSettings({}, tmp_path, host="10.0.0.1"), asyncio.Event())
            assert str(sender.client.base_url).startswith(where["url"])

    real_loop(scenario, timeout_s=5)
