"""Serve as a process beside a real core: acts reach the journal, and nothing that happens to serve happens to core."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.serve import Role
from tests.patience import GUARD_S, fair_clock
from tests.serve.processes import Station, client, station
from tests.system.chain import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    with station(tmp_path_factory.mktemp("station")) as made:
        yield made


class Listener:
    """A client of the live stream, in a thread."""

    def __init__(self, url: str, token: str, after: str | None = None) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.ended = threading.Event()
        self._client = client(url, token)
        self._headers = {} if after is None else {"Last-Event-ID": after}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            with self._client.stream("GET", "/api/v1/stream", headers=self._headers) as answer:
                told: dict[str, str] = {}
                for line in answer.iter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        told[name] = value
                    elif told:
                        self.events.append((told["event"], told["id"], json.loads(told["data"])))
                        told = {}
        except Exception as error:
            self.events.append(("error", "", repr(error)))
        self.ended.set()

    def wait(self, kind: str) -> tuple[str, str, Any]:
        return wait_until(lambda: next((one for one in self.events if one[0] == kind), None), f"a {kind} event")  # type: ignore[no-any-return]


@pytest.mark.fault("F67")
def test_a_day_of_serve_beside_core(stand: Station) -> None:
    """Told as one story, because every part needs the processes of the one before."""
    _, operator = stand.token("李工", Role.OPERATOR)
    viewer_id, viewer = stand.token("大屏", Role.VIEWER)
    url = stand.start_serve()

    # What the ledger has is seen; the level is held, because no edge is there.
    with client(url, viewer) as http:
        wait_until(lambda: http.get("/healthz").status_code == 200, "serve has looked at the ledger")
        (alarm,) = [one for one in http.get("/api/v1/alarms").json()["items"] if one["id"] == stand.alarm_id]
        assert (alarm["state"], alarm["active"]) == ("ACTIVE_UNACKED", True)
        tag = http.get(f"/api/v1/tags/{alarm['tag']}").json()
        assert (tag["held"], tag["quality"]) == (True, "BAD")
        assert http.post(f"/api/v1/alarms/{stand.alarm_id}/acknowledge", json={}).status_code == 403

    # An act over HTTP is in core's journal under the token's name, and the stream tells of it.
    listener = Listener(url, viewer)
    listener.wait("hello")
    with client(url, operator) as http, ThreadPoolExecutor(4) as consoles:
        path = f"/api/v1/alarms/{stand.alarm_id}/acknowledge"
        answers = sorted(consoles.map(lambda _: http.post(path, json={}), range(4)), key=lambda one: one.status_code)
        assert [one.status_code for one in answers] == [200, 409, 409, 409], "one wins, however many press at once"
        assert all(one.json()["detail_zh"].startswith("已由 李工 确认") for one in answers[1:])
        answer = answers[0]
        closing = http.post(f"/api/v1/alarms/{stand.alarm_id}/close", json={"reason": "r", "measure": "m"})
        assert closing.status_code == 409
    steps = stand.journal()
    assert [(step["kind"], step["actor"]) for step in steps] == [("raised", None), ("acknowledged", "李工")]
    assert answer.json()["transition"]["id"] == steps[-1]["id"]
    _, place, told = listener.wait("alarms")
    assert [(one["id"], one["acked_by"]) for one in told["items"]] == [(stand.alarm_id, "李工")]
    listener.wait("health")

    # A client that lost its connection goes on where it was.
    resumed = Listener(url, viewer, after=place)
    resumed.wait("health")
    assert [kind for kind, _, _ in resumed.events if kind in ("reset", "alarms", "error")] == []

    # A revoked token ends its streams within a second, and nobody else's.
    keeper = Listener(url, operator)
    keeper.wait("hello")
    with fair_clock() as now_s:
        stand.revoke(viewer_id)
        assert listener.ended.wait(GUARD_S)
        assert resumed.ended.wait(GUARD_S)
        assert now_s() < 1.5, "a second, and what the way to here takes"
    assert not keeper.ended.is_set()
    with client(url, viewer) as http:
        assert http.get("/api/v1/me").status_code == 401

    # It yields the processor to core, and stops in time with a stream open.
    assert os.getpriority(os.PRIO_PROCESS, stand.serve.pid) >= 10
    assert os.sched_getscheduler(stand.serve.pid) == os.SCHED_BATCH
    with fair_clock() as now_s:
        stand.serve.stop()
        assert now_s() < 3
    assert keeper.ended.wait(GUARD_S)


def test_killed_at_any_moment_core_never_notices(stand: Station) -> None:
    _, operator = stand.token("王工", Role.OPERATOR)
    core_pid = stand.core.pid
    acked = json.dumps(stand.journal())
    for delay_s in (0.0, 0.3):
        url = stand.start_serve()
        busy = [Listener(url, operator) for _ in range(3)]
        with client(url, operator) as http:
            wait_until(lambda http=http: http.get("/api/v1/me").status_code == 200, "serve answers")  # type: ignore[misc]
        time.sleep(delay_s)
        stand.serve.kill()
        assert all(one.ended.wait(GUARD_S) for one in busy)
    cycles = stand.heartbeat()["cycles"]
    wait_until(lambda: stand.heartbeat()["cycles"] > cycles + 5, "core turns on")
    assert stand.core.pid == core_pid
    assert stand.core.alive
    assert json.dumps(stand.journal()) == acked
    assert stand.heartbeat()["unjournaled"] is False


def test_core_away_is_said_and_nothing_looks_calm(stand: Station) -> None:
    _, operator = stand.token("赵工", Role.OPERATOR)
    url = stand.start_serve()
    with client(url, operator) as http:
        wait_until(lambda: http.get("/healthz").status_code == 200, "serve has looked at the ledger")
        stand.core.kill()
        answer = http.post(f"/api/v1/alarms/{stand.alarm_id}/acknowledge", json={})
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:hazardgate:problem:core-not-there")
        wait_until(lambda: http.get("/healthz").status_code == 503, "the silence of core is noticed")
        assert http.get("/api/v1/health").json()["core"] == "gone"
        assert {tag["quality"] for tag in http.get("/api/v1/tags").json()["items"]} <= {"BAD", "UNKNOWN"}
        stand.core.start()
        wait_until(lambda: http.get("/healthz").status_code == 200, "core is back")
    stand.serve.stop()
