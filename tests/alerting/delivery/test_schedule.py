"""What an answer means and when to try again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.delivery.schedule import (
    Answer,
    AnswerRule,
    BodyRule,
    Outcome,
    delay_ms,
    judge,
    longest_delay_ms,
    retry_after_ms,
)
from tests.patience import cpu_s

NOW_MS = 1_780_000_000_000
PLAIN = AnswerRule()
CODED = AnswerRule(body=BodyRule("result.code", frozenset({"0", "true"}), frozenset({"9001"})))
ACCEPTED, RETRY, REFUSED = Outcome.ACCEPTED, Outcome.RETRY, Outcome.REFUSED


def http_date(wall_ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(wall_ms / 1000, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, ACCEPTED), (202, ACCEPTED), (204, ACCEPTED), (299, ACCEPTED)]
    + [(status, RETRY) for status in (301, 302, 304, 307, 308, 401, 403, 408, 425, 429, 500, 502, 503, 504, 599, 101, 999)]
    + [(status, REFUSED) for status in (400, 402, 404, 405, 409, 410, 411, 413, 415, 422, 451, 499)],
)
def test_every_status_has_one_meaning(status: int, outcome: Outcome) -> None:
    assert judge(Answer(status), PLAIN, NOW_MS).outcome is outcome


def test_a_receiver_may_name_its_own_success_statuses() -> None:
    rule = AnswerRule(ok_statuses=frozenset({202}))
    assert judge(Answer(202), rule, NOW_MS).outcome is ACCEPTED
    assert judge(Answer(200), rule, NOW_MS).outcome is RETRY


@pytest.mark.fault("F54")
@pytest.mark.parametrize("body", [
    pytest.param(b"[" * 65_536, id="deep"),
    pytest.param(b'{"result":' * 5_000 + b"0" + b"}" * 5_000, id="deep objects"),
    pytest.param(b'{"result":{"code":9,"code":0}}', id="a key twice"),
    pytest.param(b'{"result":{"code":0,"cost":NaN}}', id="NaN"),
    pytest.param(b'{"result":{"code":0,"cost":1e400}}', id="1e400"),
    pytest.param(b'{"result":{"code":0,"id":' + b"9" * 200 + b"}}", id="200 digits"),
    pytest.param(b'{"result":{"code":0,"text":"\\ud800"}}', id="half a surrogate pair"),
    pytest.param(b'{"result":{"code":"\\udfff"}}', id="half a surrogate pair as the code"),
])  # fmt: skip
def test_hostile_json_in_an_answer_accepts_nothing_and_costs_nothing(body: bytes) -> None:
    verdict = judge(Answer(200, body), CODED, NOW_MS)
    assert cpu_s(lambda: judge(Answer(200, body), CODED, NOW_MS)) < 0.05
    assert verdict.outcome is RETRY
    assert "not JSON" in verdict.detail
    assert verdict.detail.encode().decode().isprintable()


@pytest.mark.fault("F36")
def test_a_redirect_is_a_failure_that_says_what_to_do() -> None:
    verdict = judge(Answer(302, headers={"location": "https://evil.example/\x1b[31m"}), PLAIN, NOW_MS)
    assert verdict.outcome is RETRY
    assert "https://evil.example/" in verdict.detail
    assert "not followed" in verdict.detail
    assert verdict.detail.isprintable()


@pytest.mark.fault("F76")
@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"result": {"code": 0}}, ACCEPTED),
        ({"result": {"code": "0"}}, ACCEPTED),
        ({"result": {"code": True}}, ACCEPTED),
        ({"result": {"code": 5001}}, RETRY),
        ({"result": {"code": None}}, RETRY),
        ({"result": {"code": 9001}}, REFUSED),
        ({"result": 0}, RETRY),
        ({"code": 0}, RETRY),
        ([0], RETRY),
    ],
)
def test_a_200_with_a_body_rule_succeeds_only_by_its_code(body: object, outcome: Outcome) -> None:
    assert judge(Answer(200, json.dumps(body).encode()), CODED, NOW_MS).outcome is outcome


@pytest.mark.fault("F76")
@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[" * 60_000, b'{"result":'])
def test_an_unreadable_body_is_no_success_under_a_body_rule(body: bytes) -> None:
    assert judge(Answer(200, body), CODED, NOW_MS).outcome is RETRY


@pytest.mark.fault("F38")
def test_a_body_too_long_to_read_is_no_success_under_a_body_rule() -> None:
    answer = Answer(200, b'{"result":{"code":0}}', truncated=True)
    assert judge(answer, CODED, NOW_MS).outcome is RETRY
    assert judge(answer, PLAIN, NOW_MS).outcome is ACCEPTED


@pytest.mark.fault("F42")
@pytest.mark.parametrize(("skew_s", "side"), [(600, "ahead of"), (-600, "behind")])
@pytest.mark.parametrize("status", [400, 401, 422])
def test_a_refusal_by_a_wrong_clock_is_retried_and_explained(status: int, skew_s: int, side: str) -> None:
    verdict = judge(Answer(status, headers={"date": http_date(NOW_MS + skew_s * 1000)}), PLAIN, NOW_MS)
    assert verdict.outcome is RETRY
    assert f"600 s {side} ours" in verdict.detail


def test_a_refusal_by_a_right_clock_is_definite() -> None:
    assert judge(Answer(400, headers={"date": http_date(NOW_MS + 60_000)}), PLAIN, NOW_MS).outcome is REFUSED


@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        pytest.param({"retry-after": "7"}, 7_000, id="seconds"),
        pytest.param({"retry-after": "0"}, 0, id="at once"),
        pytest.param({"retry-after": http_date(NOW_MS + 9_000)}, 9_000, id="a date by our clock"),
        pytest.param(
            {"retry-after": http_date(NOW_MS + 609_000), "date": http_date(NOW_MS + 600_000)}, 9_000,
            id="a date by the receiver's own wrong clock",
        ),
        pytest.param({"retry-after": http_date(NOW_MS - 9_000)}, 0, id="a date gone by"),
        pytest.param({"retry-after": "soon"}, None, id="garbage"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "１２"}, None, id="full-width digits"),
        pytest.param({"retry-after": "9" * 400}, 999_999_999_000, id="absurd, cut later"),
        pytest.param({}, None, id="absent"),
    ],
)
def test_retry_after(headers: dict[str, str], expected_ms: int | None) -> None:
    assert retry_after_ms(Answer(503, headers=headers), NOW_MS) == expected_ms


@pytest.mark.fault("F34")
def test_the_urgent_schedule() -> None:
    delays = [delay_ms(urgent=True, attempts=n, jitter=0.0) for n in range(1, 10)]
    assert delays == [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 60_000, 60_000, 60_000]


@pytest.mark.fault("F34")
def test_the_patient_schedule_is_the_table_of_standard_webhooks_and_never_ends() -> None:
    delays_s = [delay_ms(urgent=False, attempts=n, jitter=0.0) // 1000 for n in range(1, 12)]
    hours = [2, 5, 10, 14, 20, 24, 24, 24]
    assert delays_s == [5, 5 * 60, 30 * 60] + [h * 3600 for h in hours]


@pytest.mark.fault("F34")
@given(
    urgent=st.booleans(), attempts=st.integers(1, 10**6), jitter=st.floats(-1, 1),
    asked=st.none() | st.integers(0, 10**12), out=st.booleans(),
)  # fmt: skip
def test_every_delay_is_positive_bounded_and_no_shorter_than_asked(
    urgent: bool, attempts: int, jitter: float, asked: int | None, out: bool
) -> None:
    delay = delay_ms(urgent=urgent, attempts=attempts, jitter=jitter, retry_after_ms=asked, refused_out=out)
    cap = 60_000 if urgent else 86_400_000
    assert 800 <= delay <= max(longest_delay_ms(urgent=urgent, attempts=attempts, parked=out), min(asked or 0, cap))
    if asked is not None:
        assert delay >= min(asked, cap)


@pytest.mark.parametrize(("attempts", "jitter"), [(0, 0.0), (1, 1.1), (1, float("nan"))])
def test_nonsense_is_a_bug_not_a_delay(attempts: int, jitter: float) -> None:
    with pytest.raises(ValueError):
        delay_ms(urgent=True, attempts=attempts, jitter=jitter)
