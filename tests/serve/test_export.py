"""The export route: what is read is what is sent, nobody starves anybody, and a cut answer cannot pass for a whole file."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.historian.samples import Samples
from gateway.historian.segments.missing import Missing, within
from gateway.historian.store import SegmentDamagedError
from gateway.serve import api_export
from gateway.serve.app import _Server, _uvicorn_config
from gateway.serve.listening import ServeSettings, listen
from gateway.serve.tokens import Role
from gateway.serve.view_errors import HistoryTooLargeError
from tests.serve.fakes import SITE, TAG, Served, serving

T0_MS = 1_759_968_000_000
ROWS = 50_000
QUERY = {"tag": TAG, "from_ms": str(T0_MS), "to_ms": str(T0_MS + ROWS * 1000)}
Story = Callable[[Served], Coroutine[Any, Any, None]]


def run(folder: Path, story: Story) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), serving(folder) as served:
            none = np.zeros(ROWS, np.int64)
            served.historian.kept.write(Samples(
                (TAG,), none.astype(np.int32), T0_MS + np.arange(ROWS, dtype=np.int64) * 1000, np.arange(ROWS) / 4,
                np.full(ROWS, 192, np.uint8), np.full(ROWS, np.nan), none.astype(np.bool_), none, none,
            ))  # fmt: skip
            await story(served)

    asyncio.run(main())


def parsed(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))


def test_an_export_is_every_sample_in_order_and_is_audited(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            answer = await client.get("/api/v1/export", params=QUERY)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/csv")
        name = f'attachment; filename="hazardgate-{SITE.site}-{T0_MS}-{T0_MS + ROWS * 1000}.csv"'
        assert answer.headers["content-disposition"] == name
        rows = parsed(answer.content)
        assert [int(row["utc_ms"]) for row in rows] == list(range(T0_MS, T0_MS + ROWS * 1000, 1000))
        assert [float(row["value"]) for row in rows] == [at / 4 for at in range(ROWS)]
        assert {row["name_zh"] for row in rows} == {SITE.tags[0].name.zh}
        assert rows[0]["time"] == "2025-10-09T08:00:00.000+08:00"
        (line,) = [json.loads(each) for each in (await served.audit()).splitlines() if '"export"' in each]
        assert (line["event"], line["name"], line["status"], line["ended"]) == ("export", "viewer甲", 200, "whole")
        assert line["bytes"] == len(answer.content)

    run(tmp_path, story)


@pytest.mark.fault("F51")
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"tag": "../../etc/passwd"}, 422), ({"tag": "..%2F..%2Fetc"}, 422), ({"tag": "\\\\host\\share"}, 422),
        ({"tag": "A.B\x00"}, 422),
        ({"tag": "T999.NONE"}, 404), ({"format": "../x.csv"}, 422), ({"format": "parquet"}, 422), ({"out": "/etc/passwd"}, 422),
        ({"to_ms": str(T0_MS)}, 422), ({"from_ms": "0"}, 422), ({"from_ms": "-1"}, 422), ({"tag": []}, 422),
    ],
)  # fmt: skip
def test_nothing_asked_for_reaches_a_file(tmp_path: Path, changed: dict[str, Any], status: int) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            answer = await client.get("/api/v1/export", params={**QUERY, **changed})
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"

    run(tmp_path, story)


@pytest.mark.fault("F52")
def test_no_cell_that_is_sent_is_taken_for_a_formula(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        tag = SITE.tags[0]
        evil = tag.model_copy(update={"name": tag.name.model_copy(update={"zh": "=cmd|' /C calc'!A0"}), "unit": "@SUM(1)"})
        object.__setattr__(served.parts, "site", SITE.model_copy(update={"tags": (evil, *SITE.tags[1:])}))
        served.historian.kept.write(Samples(
            (TAG,), np.zeros(2, np.int32), np.array([T0_MS, T0_MS + 1]), np.array([-1.5, np.nan]), np.array([69, 1], np.uint8),
            np.array([-np.inf, np.nan]), np.zeros(2, np.bool_), np.zeros(2, np.int64), np.zeros(2, np.int64),
        ))  # fmt: skip
        async with served.client() as client:
            answer = await client.get("/api/v1/export", params={**QUERY, "to_ms": str(T0_MS + 2)})
        clamped, bad = parsed(answer.content)
        assert (clamped["name_zh"], clamped["unit"]) == ("'=cmd|' /C calc'!A0", "'@SUM(1)")
        assert (clamped["value"], clamped["raw"], bad["value"]) == ("-1.5", "'-inf", ""), "a number stays one"
        for row in (clamped, bad):
            assert not any(cell.startswith(tuple("=+@\t\r")) for cell in row.values())

    run(tmp_path, story)


def test_two_exports_at_once_a_third_is_told_when_to_come_back_and_histories_go_on(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.historian.hold = threading.Event()
        served.sent["third"] = served.tokens.new("third", Role.VIEWER, 90)[1]
        served.tokens.reload()
        async with served.client() as client, served.client("operator") as other, served.client("third") as another:
            two = [asyncio.create_task(each.get("/api/v1/export", params=QUERY)) for each in (client, other)]
            while len(served.parts.exports._running) < 2:
                await asyncio.sleep(0)
            third = await another.get("/api/v1/export", params=QUERY)
            assert (third.status_code, third.headers["retry-after"]) == (503, "30")
            hold, served.historian.hold = served.historian.hold, None
            history = await client.get(f"/api/v1/tags/{TAG}/history", params={"from_ms": 0, "to_ms": 1000})
            assert history.status_code == 200, "one thread of the two is left to them"
            hold.set()
            for answer in await asyncio.gather(*two):
                assert len(parsed(answer.content)) == ROWS
            assert (await another.get("/api/v1/export", params=QUERY)).status_code == 200, "places come free again"

    run(tmp_path, story)


def test_one_caller_holds_one_place_however_slowly_it_reads(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        served.historian.hold = threading.Event()
        async with served.client() as slow, served.client("operator") as other:
            one = asyncio.create_task(slow.get("/api/v1/export", params=QUERY))
            while not served.parts.exports._running:
                await asyncio.sleep(0)
            again = await slow.get("/api/v1/export", params=QUERY)
            assert (again.status_code, again.headers["retry-after"]) == (503, "30")
            others = asyncio.create_task(other.get("/api/v1/export", params=QUERY))
            while len(served.parts.exports._running) < 2:
                await asyncio.sleep(0)
            served.historian.hold.set()
            served.historian.hold = None
            assert [answer.status_code for answer in await asyncio.gather(one, others)] == [200, 200]
            assert (await slow.get("/api/v1/export", params=QUERY)).status_code == 200, "its place comes free again"

    run(tmp_path, story)


def fails_after(served: Served, asked: int) -> None:
    before = served.historian.range

    def failing(*given: Any, **more: Any) -> Samples:
        if served.historian.asked >= asked:
            raise SegmentDamagedError("a.parquet: bit rot", "a.parquet：损坏")
        return before(*given, **more)

    served.historian.range = failing  # type: ignore[method-assign]


@pytest.mark.fault("F73")
def test_what_is_damaged_is_gone_past_with_a_row_and_audited(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        def readable(tag: str, from_ms: int, to_ms: int, rows_max: int, deadline_s: float) -> tuple[Samples, list[Missing]]:
            found = served.historian.range(tag, from_ms, to_ms, rows_max, deadline_s)
            lost = (found.source_ms >= T0_MS + 5_000) & (found.source_ms < T0_MS + 9_000)
            return found.take(~lost), within([Missing(T0_MS + 5_000, T0_MS + 9_000, "a.parquet", "bit rot")], from_ms, to_ms)

        served.historian.readable = readable  # type: ignore[attr-defined]
        async with served.client() as client:
            answer = await client.get("/api/v1/export", params=QUERY)
        rows = parsed(answer.content)
        assert (answer.status_code, len(rows)) == (200, ROWS - 4 + 1)
        assert [row["quality"] for row in rows[4:7]] == ["GOOD", "BAD/DAMAGED until 2025-10-09T08:00:09.000+08:00", "GOOD"]
        assert (rows[5]["utc_ms"], rows[5]["value"], rows[6]["utc_ms"]) == (str(T0_MS + 5_000), "", str(T0_MS + 9_000))
        (line,) = [json.loads(each) for each in (await served.audit()).splitlines() if '"export"' in each]
        assert (line["ended"], line["damaged"]) == ("whole", 1)

    run(tmp_path, story)


def test_what_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        fails_after(served, 0)
        async with served.client() as client:
            answer = await client.get("/api/v1/export", params=QUERY)
            assert answer.status_code == 503
            assert "bit rot" in answer.json()["detail"]

    run(tmp_path, story)


async def over_the_wire(served: Served, version: str = "1.1") -> bytes:
    """Ask a real server, and return every byte that came until it closed."""
    settings = ServeSettings("127.0.0.1", 0)
    socket = listen(settings)
    server = _Server(_uvicorn_config(served.gate, settings))
    serving_ = asyncio.create_task(server.serve(sockets=[socket]))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", socket.getsockname()[1])
        query = str(httpx.QueryParams(QUERY))
        writer.write((
            f"GET /api/v1/export?{query} HTTP/{version}\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {served.sent['viewer']}\r\n\r\n"
        ).encode())  # fmt: skip
        came = await reader.read(-1)
        writer.close()
        return came
    finally:
        server.should_exit = True
        await serving_
        socket.close()


def test_a_whole_answer_has_its_last_chunk_and_a_cut_one_has_not(tmp_path: Path) -> None:
    async def whole(served: Served) -> None:
        came = await over_the_wire(served)
        assert b"transfer-encoding: chunked" in came.lower()
        assert came.endswith(b"0\r\n\r\n")

    async def cut(served: Served) -> None:
        fails_after(served, 4)
        came = await over_the_wire(served)
        assert came.startswith(b"HTTP/1.1 200")
        assert b",GOOD,192," in came
        assert not came.endswith(b"0\r\n\r\n"), "a client must notice"
        assert '"ended": "cut"' in await served.audit()

    run(tmp_path / "whole", whole)
    run(tmp_path / "cut", cut)


def test_more_rows_than_allowed_cut_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_export, "ROWS_MAX", 30_000)

    async def story(served: Served) -> None:
        assert not (await over_the_wire(served)).endswith(b"0\r\n\r\n")

    run(tmp_path, story)


def test_the_longest_range_is_told_in_days(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        async with served.client() as client:
            told = (await client.get("/api/v1/export", params={**QUERY, "from_ms": "0"})).json()
            assert (told["detail"], told["detail_zh"]) == ("at most 400 days at once", "一次最多 400 天")

    assert str(HistoryTooLargeError(401 * 86_400_000, 400 * 86_400_000)) == "a range of 401 days; ask for at most 400 days at once"
    run(tmp_path, story)


def test_http_1_0_that_knows_no_chunks_is_refused(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        came = await over_the_wire(served, "1.0")
        assert b" 400 " in came.split(b"\r\n")[0]
        assert b"needs HTTP/1.1" in came

    run(tmp_path, story)
