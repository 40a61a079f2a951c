"""Courier and the simulated municipal platform, two implementations that share no code, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from alerting.delivery import LANES, Notice, number
from simulators import PlatformSettings, run_platform
from tests.alerting.delivery.senders import SECRET, Running, notice, receiver, running, until
from tests.patience import GUARD_S


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true schedule is proven in virtual time."""
    monkeypatch.setattr("alerting.delivery.schedule.URGENT_DELAYS_MS", (50, 100, 200))


class Platform:
    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url, self._client = url, client

    async def control(self, **wanted: Any) -> None:
        (await self._client.post("/control", json=wanted)).raise_for_status()

    async def summary(self) -> dict[str, Any]:
        return dict((await self._client.get("/summary")).json())


@contextlib.asynccontextmanager
async def platform(directory: Path) -> AsyncIterator[Platform]:
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    settings = PlatformSettings({"CITY": (SECRET,)}, directory)
    serving = asyncio.create_task(run_platform(settings, stop, started), name="platform")
    url = await started
    try:
        async with httpx.AsyncClient(base_url=url, timeout=GUARD_S) as client:
            yield Platform(url, client)
    finally:
        stop.set()
        await serving


@contextlib.asynccontextmanager
async def both(directory: Path, **more: Any) -> AsyncIterator[tuple[Running, Platform]]:
    async with (
        platform(directory) as city,
        running(
            None, receiver(f"{city.url}/hooks/CITY", **more), wall_ms=lambda: time.time_ns() // 1_000_000,
            random=lambda: 0.0,
        ) as at_work,
    ):  # fmt: skip
        await until(lambda: at_work.courier.take_conditions())  # the first heartbeat was taken
        yield at_work, city


def a_mixed_hundred() -> list[Notice]:
    return [notice(f"a{n % 40}", 1 + n // 40, lane=LANES[n % 40 % 4]) for n in range(100)]


@pytest.mark.fault("F34")
@pytest.mark.fault("F36")
@pytest.mark.fault("F37")
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param({"status": 500, "times": 5}, id="500"),
        pytest.param({"status": 503, "retry_after": 1, "times": 3}, id="503 with Retry-After"),
        pytest.param({"status": 429, "retry_after": 1, "times": 3}, id="429 with Retry-After"),
        pytest.param({"status": 307, "location": "/hooks/OTHER", "times": 3}, id="redirect"),
        pytest.param({"drop": True, "times": 5}, id="cut"),
        pytest.param({"cut_body": True, "keep": True, "times": 5}, id="taken, then cut"),
        pytest.param({"body_bytes": 3_000_000, "keep": True, "times": 5}, id="huge answer"),
    ],
)
def test_whatever_fails_all_arrive_in_order_and_without_a_gap(failure: dict[str, Any], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (at_work, city):
            await city.control(fail=failure)
            # Patient lanes would wait 5 s for their second attempt: red and orange only.
            urgent = [found for found in a_mixed_hundred() if found.lane in ("red", "orange")]
            rows, _ = number(urgent, "L1", {})
            at_work.courier.offer(rows)
            await until(lambda: not at_work.courier.status()["CITY"].due)
            seen = await city.summary()
            assert (seen["unique"], seen["gaps"], seen["out_of_order"]) == (len(rows), 0, 0)
            assert (seen["rejected"], seen["sequence_conflicts"]) == (0, 0)
            assert seen["duplicates"] <= 5

    asyncio.run(scenario())


def test_all_lanes_at_once_arrive_without_a_gap(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (at_work, city):
            rows, _ = number(a_mixed_hundred(), "L1", {})
            at_work.courier.offer(rows)
            await until(lambda: not at_work.courier.status()["CITY"].due)
            seen = await city.summary()
            assert (seen["unique"], seen["gaps"], seen["out_of_order"], seen["duplicates"]) == (100, 0, 0, 0)
            assert seen["heartbeats"] == 1
            assert {lane["lane"]: lane["upto"] for lane in seen["lanes"]} == {
                lane: sum(found.lane == lane for found in a_mixed_hundred()) for lane in LANES
            }

    asyncio.run(scenario())


@pytest.mark.fault("F42")
def test_a_platform_with_a_wrong_clock_refuses_until_it_is_set_and_nothing_is_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (at_work, city):
            await city.control(clock_offset_s=600.0)
            rows, _ = number([notice()], "L1", {})
            at_work.courier.offer(rows)
            await until(lambda: at_work.gather().results)
            (refused,) = at_work.results
            assert (refused.outcome, refused.status, refused.parked) == ("retry", 401, False)
            assert "clock" in refused.detail
            await city.control(clock_offset_s=0.0)
            await until(lambda: not at_work.courier.status()["CITY"].due)
            assert (await city.summary())["unique"] == 1

    asyncio.run(scenario())


@pytest.mark.fault("F76")
def test_a_platform_that_answers_200_with_an_error_code_gets_it_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        rule = {"field": "ok", "accepted": [True]}
        async with both(tmp_path, body_rule=rule) as (at_work, city):
            await city.control(fail={"status": 200, "body": json.dumps({"ok": False, "error": "busy"}), "times": 1})
            rows, _ = number([notice()], "L1", {})
            at_work.courier.offer(rows)
            await until(lambda: not at_work.courier.status()["CITY"].due)
            first, second = at_work.gather().results
            assert (first.status, first.accepted, second.accepted) == (200, False, True)
            assert "busy" in first.detail

    asyncio.run(scenario())


@pytest.mark.fault("F58")
def test_a_notice_taken_unjournaled_closes_its_gap_when_it_comes_with_its_number(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with both(tmp_path) as (at_work, city):
            found = notice()
            at_work.courier.offer_unjournaled([found])
            await until(lambda: at_work.gather().results)
            rows, _ = number([found], "L1", {})
            at_work.courier.offer(rows)
            await until(lambda: len(at_work.gather().results) == 2)
            seen = await city.summary()
            assert (seen["unique"], seen["duplicates"], seen["lanes"][0]["upto"]) == (1, 1, 1)

    asyncio.run(scenario())
