"""2.x and 3 Core, which no server here can show: the requests and answers of their documentation and source, recorded.

Sources: InfluxDB OSS 2.7 API (docs-v2, api-docs/influxdb/v2/v2/ref.yml: GET/POST/PATCH /api/v2/buckets, GET /api/v2/orgs),
influxdb (2.x), tenant/service_bucket.go, tenant/service_org.go, http/health.go; InfluxDB 3 Core API (docs-v2,
api-docs/influxdb3/core/influxdb3-core-openapi.yaml: GET/POST /api/v3/configure/database, POST /api/v3/write_lp, POST /query, GET
/ping), influxdb, influxdb3_server/src/http.rs, influxdb3_write/src/write_buffer/validator.rs. Not run against a server.
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


@pytest.mark.parametrize(
    "missing",
    [
        ("404 Not Found", {"code": "not found", "message": "bucket \"points\" not found"}),
        ("200 OK", {"buckets": []}),
        # tenant/service_bucket.go adds the system's own to a list without any
        ("200 OK", {"buckets": [{"id": "000000000000000a", "name": "_tasks"}, {"id": "000000000000000b", "name": "_monitoring"}]}),
    ],
)
def test_2x_a_bucket_that_is_missing_is_made(missing: tuple[str, object]) -> None:
    answers = dict([ORGS, (LIST, missing), (("POST", "/api/v2/buckets"), ("201 Created", BUCKET))])
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
    missing = ("404 Not Found", {"code": "not found", "message": "organization name \"works\" not found"})
    with recorded("influxdb2", {LIST: missing, ORGS[0]: missing}) as (opened, _), pytest.raises(StoreRefusedError, match="fit org"):
        set_up(opened())


def test_2x_without_an_organisation_is_told_which_it_may_name() -> None:
    """http/write_handler.go asks for one: `Please provide either orgID or org`, 400. A bucket made without would stay empty."""
    orgs = ("200 OK", {"orgs": [{"id": "c0ffee0000000001", "name": "works"}, {"id": "c0ffee0000000002", "name": "old works"}]})
    with recorded("influxdb2", {("GET", "/api/v2/orgs"): orgs}) as (opened, asked):
        with pytest.raises(StoreRefusedError, match="works, old works") as refused:
            set_up(opened(org=""))
        assert [method for method, _, _ in asked] == ["GET"]
    assert "storage.stores.plant" in refused.value.message_zh
    assert "works, old works" in refused.value.message_zh
    no_org = b'{"code":"invalid","message":"Please provide either orgID or org"}'
    with peer(says("400 Bad Request", no_org)) as (url, _):
        store = open_store(TimeSeriesStoreConfig(id="plant", kind="influxdb2", url=url), "demo")
        with pytest.raises(StoreRefusedError, match="check kind, url, org and database"):
            store.write(samples_of([Row("T1", 1, 1.0)]))
        store.close()


def test_2x_a_token_that_may_not_make_buckets_is_told_from_one_that_is_wrong() -> None:
    """2.x answers 401 to both: authorizer/bucket.go, `write:orgs/…/buckets is unauthorized`."""
    denied = ("401 Unauthorized", {"code": "unauthorized", "message": "write:orgs/c0ffee0000000001/buckets is unauthorized"})
    answers = dict([ORGS, (LIST, ("200 OK", {"buckets": []})), (("POST", "/api/v2/buckets"), denied)])
    with recorded("influxdb2", answers) as (opened, _), pytest.raises(StoreRefusedError, match="may not do that") as refused:
        set_up(opened())
    assert "buckets is unauthorized" in refused.value.message_zh
    assert "权限不足" in refused.value.message_zh


def test_2x_health_tells_the_version_and_the_bucket() -> None:
    healthy = ("200 OK", {
        "name": "influxdb", "message": "ready for queries and writes", "status": "pass", "checks": [], "version": "v2.7.11",
        "commit": "fbf5d4ab5e",
    })
    with recorded("influxdb2", {("GET", "/health"): healthy, LIST: ("200 OK", {"buckets": [BUCKET]})}) as (opened, _):
        found = health(opened())
    assert (found.version, found.database) == ("v2.7.11", True)


# influxdb, influxdb3_catalog: CatalogError::InvalidColumnType
WRONG_TYPE = "invalid column type for column 'value', expected iox::column_type::field::integer, got iox::column_type::field::float"
DATABASES = ("GET", "/api/v3/configure/database?format=json")


def test_3_a_database_that_is_missing_is_made_with_its_period() -> None:
    answers = {
        DATABASES: ("200 OK", [{"iox::database": "_internal"}]),
        ("POST", "/api/v3/configure/database"): ("200 OK", None),
    }  # fmt: skip
    with recorded("influxdb3", answers) as (opened, asked):
        assert [done.changed for done in set_up(opened())] == [True]
    assert json.loads(asked[-1][2]) == {"db": "points", "retention_period": "9600h"}
    with recorded("influxdb3", {DATABASES: ("200 OK", [{"iox::database": "points"}])}) as (opened, asked):
        (done,) = set_up(opened())
    assert len(asked) == 1
    assert not done.changed
    assert "retention_days" in done.text, "nobody is to believe that it was set"
    assert "retention_days" in done.text_zh


def test_3_ping_tells_the_version_and_the_list_whether_our_database_is_there() -> None:
    """`/health` says OK and nothing else."""
    pong = ("200 OK", {"version": "3.11.7", "revision": "83b589b883", "process_id": "b756d9e0-cecd-4f72-b6d0-19e2d4f8cbb7"})
    with recorded("influxdb3", {("GET", "/ping"): pong, DATABASES: ("200 OK", [{"iox::database": "points"}])}) as (opened, _):
        found = health(opened())
        assert (found.version, found.database) == ("3.11.7", True)
        assert health(opened(database="other")).database is False, "its first write would make it, and keep it for ever"


@pytest.mark.parametrize(("kind", "days", "body"), [
    ("influxdb3", 0.01, {"db": "points", "retention_period": "1h"}), ("influxdb3", 0.0, {"db": "points"}),
    ("influxdb2", 0.01, {"orgID": "c0ffee0000000001", "name": "points", "retentionRules": [{"type": "expire", "everySeconds": 3600}]}),
])  # fmt: skip
def test_a_period_of_less_than_an_hour_is_one_and_not_for_ever(kind: str, days: float, body: object) -> None:
    answers = dict([
        ORGS, (LIST, ("200 OK", {"buckets": []})), (DATABASES, ("200 OK", [])), (("POST", "/api/v2/buckets"), ("201 Created", BUCKET)),
        (("POST", "/api/v3/configure/database"), ("200 OK", None)),
    ])  # fmt: skip
    with recorded(kind, answers) as (opened, asked):
        set_up(opened(retention_days=days))
    assert json.loads(asked[-1][2]) == body


def test_3_lines_that_it_counts_are_the_ones_left_out() -> None:
    """Its 400 names lines by number; the others are stored, as `accept_partial=true` asks."""
    partial = {
        "error": "partial write of line protocol occurred",
        "data": [{"original_line": "hazard_sample,…", "line_number": 2, "error_message": WRONG_TYPE}],
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


def test_3_a_database_whose_types_are_others_is_a_persons_matter() -> None:
    """Every line is named with a type that does not fit: nothing is given up."""
    partial = {
        "error": "partial write of line protocol occurred",
        "data": [{"original_line": "hazard_sample,…", "line_number": at, "error_message": WRONG_TYPE} for at in (1, 2, 3)],
    }  # fmt: skip
    with peer(says("400 Bad Request", json.dumps(partial).encode())) as (url, requests):
        store = open_store(TimeSeriesStoreConfig(id="plant", kind="influxdb3", url=url, database="points"), "demo")
        with pytest.raises(StoreRefusedError, match="database") as refused:
            store.write(samples_of([Row("T1", 1, 1.0), Row("T2", 2, 2.0), Row("T3", 3, 3.0)]))
        store.close()
    assert "database" in refused.value.message_zh
    assert len(requests) == 1


def _next(answers: Iterator[tuple[str, object]]) -> Callable[..., None]:
    status, answer = next(answers)
    return says(status, json.dumps(answer).encode() if answer is not None else b"")


@pytest.mark.parametrize(
    ("kind", "status", "body", "error"),
    [
        ("influxdb2", "401 Unauthorized", {"code": "unauthorized", "message": "unauthorized access"}, StoreRefusedError),
        ("influxdb2", "404 Not Found", {"code": "not found", "message": "bucket \"points\" not found"}, StoreRefusedError),
        ("influxdb2", "404 Not Found", {"code": "not found", "message": "organization name \"works\" not found"}, StoreRefusedError),
        ("influxdb2", "503 Service Unavailable", {"code": "unavailable", "message": "busy"}, StoreAwayError),
        ("influxdb2", "429 Too Many Requests", {"code": "too many requests", "message": "slow down"}, StoreAwayError),
        # 3 Core: a database that is missing is made by the first write: there is no 404. 401 and 403 have `error`, or no body.
        ("influxdb3", "401 Unauthorized", {"error": "the request was not authenticated"}, StoreRefusedError),
        ("influxdb3", "401 Unauthorized", None, StoreRefusedError),
        ("influxdb3", "403 Forbidden", None, StoreRefusedError),
        ("influxdb3", "400 Bad Request", {"error": "db name did not start with a number or letter"}, StoreRefusedError),
        ("influxdb3", "503 Service Unavailable", None, StoreAwayError),
        ("influxdb3", "429 Too Many Requests", None, StoreAwayError),
    ],
)  # fmt: skip
def test_a_refused_write_says_what_to_do(kind: str, status: str, body: object, error: type) -> None:
    with peer(says(status, b"" if body is None else json.dumps(body).encode(), "Retry-After: 3")) as (url, _):
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
