"""What each answer to a write means. The bodies are those that servers gave (1.6.7) or that documents and source print.

Sources: influxdb, http/write_handler.go (2.x), influxdb3_server/src/http.rs (3 Core); docs-v2, "Troubleshoot issues writing data".
"""

from __future__ import annotations

from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.influx.answers import (
    RETRY_AFTER_S_MAX,
    Away,
    Partial,
    Refused,
    Stored,
    TooLarge,
    judged,
    retry_after_s,
)
from tests.historian.influx.times import NOW_S, at_s


def judge(status: int, body: str = "", **headers: str) -> object:
    return judged("plant", status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode(), NOW_S)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(204, "", Stored, id="stored"),
        pytest.param(413, '{"error":"Request Entity Too Large"}', TooLarge, id="too large"),
        pytest.param(500, '{"error":"timeout"}', Away, id="1.x: a write that took too long"),
        pytest.param(502, "<html>bad gateway</html>", Away, id="a proxy without its server"),
        pytest.param(408, "", Away, id="request timeout"),
        pytest.param(400, '{"error":"partial write: points beyond retention policy dropped=2"}', Stored, id="older than it keeps"),
        # 2.7.12 (docs-v2, "Troubleshoot issues writing data" of 2.x)
        pytest.param(422, '{"code":"unprocessable entity","message":"failure writing points to database: partial write: dropped 4 '
                     'points outside retention policy of duration 24h0m0s - oldest point home,room=Living\\\\ Room at '
                     '1970-01-01T00:00:01.541Z dropped because it violates a Retention Policy Lower Bound at 2025-05-20T19:06:17Z '
                     'dropped=4 for database: 9f282d63c7d3a5c0 for retention policy: autogen"}', Stored, id="2.x: older than it keeps"),
        # influxdb, influxdb3_server/src/http.rs: RequestSizeExceeded has no status of its own
        pytest.param(500, "max request size (10485760 bytes) exceeded", TooLarge, id="3 Core: too large"),
        pytest.param(401, "", Refused, id="3 Core: who are you, in no words"),
        # the same file: TooManyTables
        pytest.param(422, '{"error":"Update to schema would exceed number of tables limit of 2000 tables"}', Refused,
                     id="3 Core: its limit"),
        pytest.param(400, '{"error":"partial write: unable to parse \'m v=NaN 2\': invalid number dropped=0"}',
                     Partial, id="1.x: a line"),
        pytest.param(422, '{"code":"unprocessable entity","message":"failure writing points to database: partial write: field '
                     'type conflict: input field \\"v\\" on measurement \\"m\\" is type float, '
                     'already exists as type integer dropped=1"}',
                     Partial, id="2.x: another type"),
        pytest.param(400, '{"error":"bad precision"}', Refused, id="a request that is wrong as a whole is no fault of a line"),
        pytest.param(401, '{"error":"authorization failed"}', Refused, id="who are you"),
        pytest.param(403, '{"error":"\\"joe\\" user is not authorized to write"}', Refused, id="you may not"),
        pytest.param(404, '{"error":"database not found: \\"x\\""}', Refused, id="no database"),
        pytest.param(404, "404 page not found", Refused, id="1.6 has no /api/v2/write"),
        pytest.param(500, '{"error":"retention policy not found: zz"}', Refused, id="1.6 says 500 of a missing policy"),
        pytest.param(503, "upstream host not found", Away, id="a proxy whose store is away"),
        pytest.param(302, "", Refused, id="a redirect is not followed"),
        pytest.param(200, "<html>log in</html>", Refused, id="a page of somebody else is no receipt"),
        pytest.param(405, "", Refused, id="not a place to write"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_by_what_a_repetition_would_change(status: int, body: str, kind: type) -> None:
    assert isinstance(judge(status, body), kind)


@pytest.mark.parametrize(
    ("status", "body", "key"),
    [
        (401, "", "secret_file"), (403, "", "database"), (404, "database not found", "hazardgate store setup"),
        (404, "page not found", "kind"), (302, "", "url"), (200, "", "url"),
        (500, "retention policy not found: zz", "retention_policy"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_key_to_change_in_two_languages(status: int, body: str, key: str) -> None:
    refused = judge(status, body)
    assert isinstance(refused, Refused)
    for text in (refused.reason, refused.reason_zh):
        assert key in text
        assert "storage.stores.plant" in text
    assert any("\u4e00" <= char <= "\u9fff" for char in refused.reason_zh)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0.0), ("7", 7.0), ("999999999999", RETRY_AFTER_S_MAX), (format_datetime(at_s(NOW_S + 42), usegmt=True), 42.0),
        (format_datetime(at_s(NOW_S - 42), usegmt=True), 0.0), ("soon", None), ("-5", None), ("", None), ("1.5", None), ("٣", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_never_for_ever(header: str, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW_S) == wait_s
    for status in (429, 503):
        away = judge(status, retry_after=header)
        assert isinstance(away, Away)
        assert away.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("status", "body", "step", "step_zh"),
    [
        (500, '{"error":"engine: error writing WAL entry: write /w/_1.wal: no space left on device"}', "restart it", "重启该库"),
        (503, "cannot store metrics: the storage is in read-only mode; check -storage.minFreeDiskSpaceBytes", "free some", "请清理"),
        (500, '{"error":"engine: cache-max-memory-size exceeded"}', "see its log", "查看该库日志"),
        (503, "", "see its log", "查看该库日志"),
    ],
)  # fmt: skip
def test_one_that_is_away_is_told_with_place_cause_and_next_step(status: int, body: str, step: str, step_zh: str) -> None:
    """A full disk as InfluxDB 1.6.7 and VictoriaMetrics 1.79.5 tell of it; 1.6 goes on until it is started anew."""
    away = judge(status, body)
    assert isinstance(away, Away)
    for text, what in ((away.reason, step), (away.reason_zh, step_zh)):
        assert text.startswith("storage.stores.plant")
        assert str(status) in text
        assert what in text


def test_how_many_were_too_old_is_told() -> None:
    assert judge(400, '{"error":"partial write: points beyond retention policy dropped=2"}') == Stored(2)
    assert judge(422, '{"message":"partial write: dropped 4 points outside retention policy of duration 1h0m0s - … dropped=4 for '
                      'database: x"}') == Stored(4)  # fmt: skip
    assert judge(204) == Stored()


def test_the_lines_that_a_server_quotes_or_counts_are_known() -> None:
    quoted = judge(400, '{"error":"partial write: unable to parse \'m,a=b v=NaN 2\': invalid number\\nunable to parse \'m,a=b\': '
                        'missing fields dropped=0"}')  # fmt: skip
    assert isinstance(quoted, Partial)
    assert quoted.lines == ("m,a=b v=NaN 2", "m,a=b")
    counted = judge(400, '{"error":"partial write of line protocol occurred","data":[{"error_message":"bad","line_number":2,'
                         '"original_line":"x"},{"line_number":5},{"line_number":"no"},7]}')  # fmt: skip
    assert isinstance(counted, Partial)
    assert counted.numbers == (2, 5)
    assert counted.reason == "bad"
    # accept_partial=false, influxdb3_server/src/http.rs (ParseError): one object, the first wrong line; nothing is stored
    first = judge(400, '{"error":"parsing failed for write_lp endpoint","data":{"original_line":"x","line_number":3,'
                       '"error_message":"No fields were provided"}}')  # fmt: skip
    assert isinstance(first, Partial)
    assert (first.numbers, first.schema) == ((3,), False)
    conflict = judge(400, '{"error":"partial write: field type conflict: input field \\"v\\" … dropped=3"}')
    assert isinstance(conflict, Partial)
    assert (conflict.schema, conflict.dropped) == (True, 3)


BODIES = st.one_of(st.binary(max_size=200), st.binary(max_size=5).map(lambda part: part * 2_000))


@given(st.integers(100, 599), BODIES, st.one_of(st.none(), st.text(max_size=30)))
def test_no_answer_is_too_strange_to_be_judged(status: int, body: bytes, retry: str | None) -> None:
    decision = judged("plant", status, {} if retry is None else {"retry-after": retry}, body, NOW_S)
    assert isinstance(decision, Stored) == (status == 204 or b"beyond retention policy" in body)
    if isinstance(decision, Refused | Away):
        assert decision.reason.isprintable()
        assert len(decision.reason) < 1_000
