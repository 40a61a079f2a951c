"""2.x and 3 Core, which no server here can show: the requests and answers that their documentation prints, recorded.

Sources: InfluxDB OSS 2.7 API (GET/POST/PATCH /api/v2/buckets, GET /api/v2/orgs, GET /health), InfluxDB 3 Core API
(GET/POST /api/v3/configure/database, POST /api/v2/write, GET /query). Not run against a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from config import TimeSeriesStoreConfig
from gateway.historian.influx import health, open_store, set_up
from gateway.historian.store import StoreAwayError, StoreRefusedError
from tests.historian.influx.test_http import peer, says
from tests.historian.reference import Row, samples_of

Asked = list[tuple[str, str, bytes]]
BUCKET = {
    "id": "0a1b2c3d4e5f6071", "orgID": "c0ffee0000000001", "name": "points",
    "retentionRules": [{"type": "expire", "everySeconds": 34_560_000}],
}  # fmt: skip


@contextmanager
def recorded(kind: str, answers: dict[tuple[str, str], tuple[str, object]]) -> Iterator[tuple[Callable[..., object], Asked]]:
    """A server that answers as recorded; a request that was not is a 404."""
    asked: Asked = []

    def serve(line: object, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        asked.append((method, target, body))
        status, answer = answers.get((method, target), ("404 Not Found", {"code": "not found", "message": "no such thing"}))
        says(status, json.dumps(answer).encode() if answer is not None else b"")(line, request)  # type: ignore[arg-type]

    with peer(serve) as (url, _):
        def opened(**more: object) -> object:
            config = {"id": "plant", "kind": kind, "url": url, "database": "points", "org": "works", **more}
            return open_store(TimeSeriesStoreConfig.model_validate(config), "demo")

        yield opened, asked


ORGS = ("GET", "/api/v2/orgs?org=works"), ("200 OK", {"orgs": [{"id": "c0ffee0000000001", "name": "works"}]})
LIST = ("GET", "/api/v2/buckets?name=points&org=works")


def test_2x_a_bucket_that_is_missing_is_made() -> None:
    answers = dict([ORGS, (LIST, ("200 OK", {"buckets": []})), (("POST", "/api/v2/buckets"), ("201 Created", BUCKET))])
    with recorded("influxdb2", answers) as (opened, asked):
        (done,) = set_up(opened())
    assert done.changed
    assert [(method, target) for method, target, _ in asked] == [LIST, ORGS[0], ("POST", "/api/v2/buckets")]
    assert json.loads(asked[-1][2]) == {
        "orgID": "c0ffee0000000001", "name": "points", "retentionRules": [{"type": "expire", "everySeconds": 34_560_000}],
    }  # fmt: skip


def test_2x_a_bucket_that_is_there_stays_and_only_its_period_is_set() -> None:
    answers = {LIST: ("200 OK", {"buckets": [BUCKET]}), ("PATCH", f"/api/v2/buckets/{BUCKET['id']}"): ("200 OK", BUCKET)}
    with recorded("influxdb2", answers) as (opened, asked):
        assert [done.changed for done in set_up(opened())] == [False]
        assert [done.changed for done in set_up(opened(retention_days=7.0))] == [True]
    assert json.loads(asked[-1][2]) == {"retentionRules": [{"type": "expire", "everySeconds": 604_800}]}


def test_2x_an_organisation_that_is_not_one_is_refused() -> None:
    answers = {LIST: ("200 OK", {"buckets": []}), ORGS[0]: ("200 OK", {"orgs": []})}
    with recorded("influxdb2", answers) as (opened, _), pytest.raises(StoreRefusedError, match="org"):
        set_up(opened())


def test_2x_health_tells_the_version_and_the_bucket() -> None:
    healthy = ("200 OK", {"name": "influxdb", "message": "ready", "status": "pass", "checks": [], "version": "v2.7.11"})
    with recorded("influxdb2", {("GET", "/health"): healthy, LIST: ("200 OK", {"buckets": [BUCKET]})}) as (opened, _):
        found = health(opened())
    assert (found.version, found.database) == ("v2.7.11", True)


DATABASES = ("GET", "/api/v3/configure/database?format=json")


def test_3_a_database_that_is_missing_is_made_with_its_period() -> None:
    answers = {
        DATABASES: ("200 OK", [{"iox::database": "_internal", "deleted": False}]),
        ("POST", "/api/v3/configure/database"): ("200 OK", None),
    }  # fmt: skip
    with recorded("influxdb3", answers) as (opened, asked):
        assert [done.changed for done in set_up(opened())] == [True]
    assert json.loads(asked[-1][2]) == {"db": "points", "retention_period": "9600h"}
    with recorded("influxdb3", {DATABASES: ("200 OK", [{"iox::database": "points"}])}) as (opened, asked):
        assert [done.changed for done in set_up(opened())] == [False]
    assert len(asked) == 1


def test_3_lines_that_it_counts_are_the_ones_left_out() -> None:
    """Its 400 names lines by number; the others are stored (`accept_partial` is its default)."""
    partial = {
        "error": "partial write of line protocol occurred",
        "data": [{"original_line": "hazard_sample,…", "line_number": 2, "error_message": "invalid column type"}],
    }  # fmt: skip
    answers = iter([("400 Bad Request", partial), ("204 No Content", None)])
    with peer(lambda line, request: _next(answers)(line, request)) as (url, requests):
        store = open_store(TimeSeriesStoreConfig(id="plant", kind="influxdb3", url=url, database="points"), "demo")
        written = store.write(samples_of([Row("T1", 1, 1.0), Row("T2", 2, 2.0), Row("T3", 3, 3.0)]))
        store.close()
    assert [(each.tag, each.source_ms) for each in written.rejected] == [("T2", 2)]
    assert written.rows == 2
    assert b"point=T2" not in requests[-1]
    assert b"point=T1" in requests[-1]


def _next(answers: Iterator[tuple[str, object]]) -> Callable[..., None]:
    status, answer = next(answers)
    return says(status, json.dumps(answer).encode() if answer is not None else b"")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        ("401 Unauthorized", {"code": "unauthorized", "message": "unauthorized access"}, StoreRefusedError),
        ("404 Not Found", {"code": "not found", "message": "bucket \"points\" not found"}, StoreRefusedError),
        ("503 Service Unavailable", {"code": "unavailable", "message": "busy"}, StoreAwayError),
        ("429 Too Many Requests", {"code": "too many requests", "message": "slow down"}, StoreAwayError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["influxdb2", "influxdb3"])
def test_a_refused_write_says_what_to_do(kind: str, status: str, body: object, error: type) -> None:
    with peer(says(status, json.dumps(body).encode(), "Retry-After: 3")) as (url, _):
        store = open_store(TimeSeriesStoreConfig(id="plant", kind=kind, url=url), "demo")  # type: ignore[arg-type]
        with pytest.raises(error) as raised:
            store.write(samples_of([Row("T1", 1, 1.0)]))
        store.close()
    assert raised.value.message_zh
    assert getattr(raised.value, "retry_after_s", 3.0) == 3.0


def test_reads_ask_query_with_influxql() -> None:
    """`/query` with a token: 1.x's answer, which 2.x (DBRP mapping) and 3 document as theirs."""
    answer = {"results": [{"statement_id": 0, "series": [
        {"name": "hazard_sample", "tags": {"point": "T1"}, "columns": ["time", "value", "quality", "raw", "late"],
         "values": [[1000, 1.5, 192, None, None], [2000, None, 1, None, 1]]}]}]}  # fmt: skip
    for kind in ("influxdb2", "influxdb3"):
        with peer(says("200 OK", json.dumps(answer).encode())) as (url, requests):
            store = open_store(TimeSeriesStoreConfig(id="plant", kind=kind, url=url), "demo")  # type: ignore[arg-type]
            found = store.range("T1", 0, 5_000)
            store.close()
        assert found.source_ms.tolist() == [1000, 2000]
        assert found.code.tolist() == [192, 1]
        assert requests[0].startswith(b"POST /query HTTP/1.1")
        assert b"epoch=ms" in requests[0]
