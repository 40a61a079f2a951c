"""The courier at work, in virtual time: schedules, fairness, conditions, heartbeats, stopping."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerting.delivery import Answer, NoAnswerError, SecretRefusedError
from alerting.delivery.courier import RESULTS_MAX
from tests.alerting.delivery.senders import (
    SECRET,
    START_WALL_MS,
    TwinPost,
    TwinRequest,
    answers,
    notice,
    receiver,
    row,
    running,
    virtual,
)


def test_a_row_is_sent_and_its_acceptance_handed_back() -> None:
    async def scenario() -> None:
        post = TwinPost(answers(200))
        async with running({"CITY": post}) as at_work:
            assert at_work.courier.offer([row(7)]) == []
            await at_work.courier.results_ready.wait()
            (result,) = at_work.gather().results
            assert (result.accepted, result.sequence, result.attempt, result.next_ms) == (True, 7, 1, None)
            assert (result.outcome, result.status, result.unjournaled) == ("accepted", 200, False)
            (sent,) = post.notices()
            assert sent.id == row(7).id == result.notice_id
            message = json.loads(sent.body)["data"]
            assert (message["sequence"], message["ledger"], message["lane"]) == (7, "L1", "red")
            assert at_work.courier.status()["CITY"].accepted == 1
        assert post.closed

    virtual(scenario())


@pytest.mark.fault("F34")
@pytest.mark.fault("F76")
@pytest.mark.parametrize(
    ("lane", "gaps_s"),
    [("red", [1, 2, 5, 10, 30, 60, 60, 60]), ("orange", [1, 2, 5, 10, 30, 60]), ("blue", [5, 300, 1800, 7200, 18000])],
)
@pytest.mark.parametrize("failure", [Answer(500), Answer(200, b'{"code": 17}')])
def test_a_failing_receiver_meets_the_schedule_of_its_lane(lane: str, gaps_s: list[int], failure: Answer) -> None:
    async def scenario() -> None:
        post = TwinPost(failing)
        rule = {"field": "code", "accepted": [0]}
        async with running({"CITY": post}, receiver(body_rule=rule)) as at_work:
            at_work.courier.offer([row(1, lane=lane)])
            await asyncio.sleep(sum(gaps_s) + 1)
            times_s = [request.at_s for request in post.notices()]
            gaps = [later - earlier for earlier, later in pairwise(times_s)]
            assert gaps == pytest.approx(gaps_s, abs=0.01)
            assert len({request.id for request in post.notices()}) == 1
            first, second = at_work.gather().results[:2]
            assert first.next_ms == pytest.approx(second.at_ms, abs=5)
            assert not first.accepted

    async def failing(request: TwinRequest) -> Answer:
        # Heartbeats fail too: a good one would hasten the probe of a receiver that is down.
        return failure

    virtual(scenario())


@pytest.mark.fault("F34")
@pytest.mark.parametrize(("asked_s", "waited_s"), [("20", 20), ("3600", 60)])
def test_retry_after_is_honoured_up_to_a_minute_for_red(asked_s: str, waited_s: int) -> None:
    async def scenario() -> None:
        post = TwinPost(answers(Answer(503, headers={"retry-after": asked_s})))
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(1)])
            await asyncio.sleep(100)
            first, second = (request.at_s for request in post.notices())
            assert second - first == pytest.approx(waited_s, abs=0.01)

    virtual(scenario())


def test_jitter_spreads_a_delay_by_a_fifth() -> None:
    async def scenario() -> None:
        for random, gap_s in ((0.0, 0.8), (0.999999, 1.2)):
            post = TwinPost(answers(500))
            async with running({"CITY": post}, random=partial(float, random)) as at_work:
                at_work.courier.offer([row(1)])
                await asyncio.sleep(2)
                first, second = (request.at_s for request in post.notices())
                assert second - first == pytest.approx(gap_s, abs=0.01)

    virtual(scenario())


@pytest.mark.fault("F42")
def test_every_attempt_is_signed_anew_under_the_same_id() -> None:
    async def scenario() -> None:
        post = TwinPost(answers(401, 401))
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(1)])
            await asyncio.sleep(10)
            assert len(post.notices()) == 3
            stamps = [int(request.headers["webhook-timestamp"]) for request in post.notices()]
            assert [stamp - stamps[0] for stamp in stamps] == [0, 1, 3]
            assert [result.accepted for result in at_work.gather().results] == [False, False, True]
            for request in post.notices():
                verify_at(request)

    virtual(scenario())


def verify_at(request: TwinRequest) -> None:
    """Verify by the independent package, which knows only the real clock: its key check, our stamp."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    expected = Webhook(SECRET).sign(request.id, at, request.body.decode())
    assert expected in request.headers["webhook-signature"].split(" ")


def test_an_old_signature_would_have_been_refused() -> None:
    from alerting.delivery import Signer, parse_secrets

    headers = Signer(parse_secrets("CITY", SECRET)).headers("ab", START_WALL_MS // 1000 - 10**7, b"{}")
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(b"{}", headers)


@pytest.mark.fault("F35")
def test_a_hanging_receiver_delays_no_other_and_blue_never_red() -> None:
    async def scenario() -> None:
        async def hang(request: TwinRequest) -> Answer:
            if b'"lane":"red"' in request.body:
                return Answer(200)
            await asyncio.sleep(3600)
            raise AssertionError

        slow, well = TwinPost(hang), TwinPost(answers())
        async with running({"SLOW": slow, "WELL": well}) as at_work:
            at_work.courier.offer([row(n, lane="blue", receiver="SLOW") for n in range(1, 101)])
            await asyncio.sleep(1)
            assert slow.in_flight == 8 + 1  # and the heartbeat
            began_s = asyncio.get_running_loop().time()
            at_work.courier.offer([row(1, lane="red", receiver="SLOW"), row(1, lane="blue", receiver="WELL")])
            await asyncio.sleep(0.001)
            taken = {(r.receiver, r.lane) for r in at_work.gather().results if r.accepted}
            assert taken == {("SLOW", "red"), ("WELL", "blue")}
            assert asyncio.get_running_loop().time() - began_s < 0.01
            await asyncio.sleep(14.1)
            timeouts = [r for r in at_work.gather().results if r.outcome == "retry"]
            assert len(timeouts) == 8
            assert all("timeout" in r.detail and 14_900 < r.duration_ms < 15_100 for r in timeouts)

    virtual(scenario())


def test_ten_thousand_rows_arrive_once_each_within_the_bound() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(n, lane="blue") for n in range(1, 10_001)])
            await asyncio.sleep(1)
            sent = [json.loads(request.body)["data"]["sequence"] for request in post.notices()]
            assert sent == list(range(1, 10_001))
            assert post.in_flight_most <= 9

    virtual(scenario())


# conditions


def test_a_receiver_down_for_30_s_raises_its_condition_and_the_first_acceptance_ends_it() -> None:
    async def scenario() -> None:
        down = True

        async def answer(request: TwinRequest) -> Answer:
            if down:
                raise NoAnswerError("connect", "refused")
            return Answer(200)

        post = TwinPost(answer)
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(1)])
            await asyncio.sleep(29.9)
            assert at_work.gather().conditions == []
            await asyncio.sleep(0.2)
            (told,) = at_work.courier.take_conditions()
            assert (told.key, told.standing) == ("RECEIVER.CITY.DOWN", True)
            assert told.facts["due"] == 1
            assert "refused" in str(told.facts["detail"])
            assert told.facts["since_ms"] == pytest.approx(START_WALL_MS, abs=5)
            assert post.forgotten == 1
            at_work.courier.offer([row(n) for n in range(2, 50)])
            down = False
            await asyncio.sleep(11)
            assert at_work.gather().conditions == [("RECEIVER.CITY.DOWN", False), ("RECEIVER.CITY.PARKED", False)]
            assert len({r.notice_id for r in at_work.results if r.accepted}) == 49

    virtual(scenario())


def test_failing_heartbeats_alone_find_a_dead_path_before_an_alarm_needs_it() -> None:
    async def scenario() -> None:
        async def dead(request: TwinRequest) -> Answer:
            raise NoAnswerError("dns", "no such name")

        async with running({"CITY": TwinPost(dead)}) as at_work:
            await asyncio.sleep(31)
            assert at_work.gather().conditions == [("RECEIVER.CITY.DOWN", True)]

    virtual(scenario())


def test_a_probe_that_is_accepted_sends_the_waiting_of_every_lane_at_once() -> None:
    async def scenario() -> None:
        down = True

        async def answer(request: TwinRequest) -> Answer:
            return Answer(500 if down else 200)

        post = TwinPost(answer)
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(n, lane=lane, attempts=6) for n, lane in enumerate(("yellow", "blue", "blue"), 1)])
            await asyncio.sleep(95)  # by their own schedule they would be hours off
            down = False
            at_work.courier.offer([row(1, lane="red")])
            await asyncio.sleep(0.01)
            assert at_work.courier.status()["CITY"].due == 0
            assert at_work.courier.status()["CITY"].accepted == 4

    virtual(scenario())


def test_a_failing_heartbeat_is_repeated_sooner_and_its_success_hastens_the_probe() -> None:
    async def scenario() -> None:
        down = True

        async def answer(request: TwinRequest) -> Answer:
            return Answer(500 if down else 200)

        post = TwinPost(answer)
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(1, lane="blue", attempts=6)])
            await asyncio.sleep(95)
            beats = [request.at_s for request in post.requests if request.heartbeat]
            assert [round(at_s - beats[0]) for at_s in beats] == list(range(0, 95, 10))
            down = False
            await asyncio.sleep(10)
            assert at_work.courier.status()["CITY"].accepted == 1
            downs = [standing for key, standing in at_work.gather().conditions if key == "RECEIVER.CITY.DOWN"]
            assert downs == [True, False]

    virtual(scenario())


def test_a_platform_without_use_for_heartbeats_is_not_down() -> None:
    async def scenario() -> None:
        async def picky(request: TwinRequest) -> Answer:
            return Answer(422 if request.heartbeat else 200)

        async with running({"CITY": TwinPost(picky)}) as at_work:
            await asyncio.sleep(120)
            assert not any(standing for _, standing in at_work.gather().conditions)

    virtual(scenario())


def test_a_receiver_that_flickers_is_not_down() -> None:
    async def scenario() -> None:
        post = TwinPost(answers(*[500, 200] * 100))
        async with running({"CITY": post}) as at_work:
            for n in range(1, 60):
                at_work.courier.offer([row(n)])
                await asyncio.sleep(2)
            assert not any(standing for _, standing in at_work.gather().conditions)

    virtual(scenario())


def test_three_refusals_park_the_notice_and_say_so_until_it_is_taken() -> None:
    async def scenario() -> None:
        post = TwinPost(answers(422, 422, 422, 422))
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([row(1)])
            await asyncio.sleep(4)
            assert at_work.gather().conditions == [
                ("RECEIVER.CITY.DOWN", False), ("RECEIVER.CITY.PARKED", False), ("RECEIVER.CITY.PARKED", True),
            ]  # fmt: skip
            assert [r.parked for r in at_work.results] == [False, False, True]
            await asyncio.sleep(125)
            assert at_work.gather().conditions[-1] == ("RECEIVER.CITY.PARKED", False)
            assert [(r.accepted, r.parked) for r in at_work.results[-2:]] == [(False, True), (True, False)]

    virtual(scenario())


def test_a_regulators_refused_notice_is_told_but_never_parked() -> None:
    async def scenario() -> None:
        post = TwinPost(answers(then=410))
        async with running({"CITY": post}, receiver(regulator=True)) as at_work:
            at_work.courier.offer([row(1, lane="blue")])
            await asyncio.sleep(3600)
            at_work.gather()
            assert ("RECEIVER.CITY.PARKED", True) in at_work.conditions
            assert not any(r.parked or r.next_ms is None for r in at_work.results)
            assert len(at_work.results) >= 3 + (3600 - 305) // 60 - 1

    virtual(scenario())


# restart


def test_after_a_restart_a_row_waits_only_for_what_is_left_of_its_delay() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            at_work.courier.offer([
                row(1, attempts=4, next_ms=START_WALL_MS + 9_000),
                row(2, attempts=4, next_ms=START_WALL_MS - 9_000),
                row(3, attempts=9, next_ms=START_WALL_MS + 10**9),  # our clock was set back meanwhile
                row(4, attempts=3, next_ms=START_WALL_MS + 5_000, parked=True),
            ])  # fmt: skip
            await asyncio.sleep(80)
            sent = {json.loads(r.body)["data"]["sequence"]: r.at_s for r in post.notices()}
            began_s = sent[2]
            assert {n: round(at_s - began_s) for n, at_s in sent.items()} == {1: 9, 2: 0, 3: 72, 4: 5}
            at_work.gather()
            assert {r.sequence: r.attempt for r in at_work.results} == {1: 5, 2: 5, 3: 10, 4: 4}
            assert at_work.conditions[-1] == ("RECEIVER.CITY.PARKED", False)

    virtual(scenario())


@pytest.mark.fault("F27")
@pytest.mark.parametrize(("attempts", "waited_s"), [(0, 6), (1, 6), (2, 360)])
def test_a_patient_row_whose_due_time_a_clock_ahead_has_stored_waits_no_longer_than_its_next_delay(
    attempts: int, waited_s: int
) -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            waiting = row(1, lane="yellow", attempts=attempts, next_ms=START_WALL_MS + 10**9)
            at_work.courier.offer([waiting, row(2, lane="yellow")])
            await asyncio.sleep(400)
            sent = {json.loads(r.body)["data"]["sequence"]: r.at_s for r in post.notices()}
            assert round(sent[1] - sent[2]) == waited_s

    virtual(scenario())


def test_a_parked_row_offered_after_a_restart_says_so_at_once() -> None:
    async def scenario() -> None:
        async with running({"CITY": TwinPost(answers())}) as at_work:
            at_work.courier.offer([row(1, parked=True, attempts=3, next_ms=START_WALL_MS + 60_000)])
            assert ("RECEIVER.CITY.PARKED", True) in at_work.gather().conditions

    virtual(scenario())


# unjournaled


@pytest.mark.fault("F58")
def test_while_a_commit_hangs_notices_go_unjournaled_and_again_with_their_numbers() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            assert at_work.courier.offer_unjournaled([notice("a1")]) == []
            await asyncio.sleep(0.01)
            (early,) = at_work.gather().results
            assert (early.accepted, early.unjournaled, early.sequence) == (True, True, None)
            at_work.courier.offer([row(1, "a1")])
            await asyncio.sleep(0.01)
            first, second = (json.loads(request.body)["data"] for request in post.notices())
            assert (first["unjournaled"], first["sequence"]) == (True, None)
            assert (second["unjournaled"], second["sequence"]) == (False, 1)
            assert len({request.id for request in post.notices()}) == 1

    virtual(scenario())


# heartbeats


def test_a_heartbeat_every_30_s_carries_the_callers_fields() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        fields = {"cycles": 0}

        def count(name: str) -> dict[str, Any]:
            fields["cycles"] += 1
            return {"cycles": fields["cycles"], "site": "cannot be changed", "for": name}

        async with running({"CITY": post}, heartbeat_fields=count) as at_work:
            at_work.courier.offer([row(5, parked=True, next_ms=START_WALL_MS + 59_000)])
            await asyncio.sleep(95)
            beats = [json.loads(request.body)["data"] for request in post.requests if request.heartbeat]
            assert [beat["cycles"] for beat in beats] == [1, 2, 3, 4]
            assert [beat["at_ms"] - beats[0]["at_ms"] for beat in beats] == pytest.approx([0, 30_000, 60_000, 90_000], abs=9)
            assert beats[0] | {"delivery": 0} == {
                "cycles": 1, "for": "CITY", "site": "DEMO", "ledger": "L1", "receiver": "CITY",
                "notice": post.requests[0].id, "at_ms": beats[0]["at_ms"], "delivery": 0,
            }  # fmt: skip
            assert beats[1]["delivery"]["refused_rows"] == [{"lane": "red", "ledger": "L1", "sequence": 5}]
            assert beats[2]["delivery"]["refused"] == 0
            assert len({request.id for request in post.requests if request.heartbeat}) == 4

    virtual(scenario())


# bounds and ends


def test_rows_of_an_unknown_receiver_come_back() -> None:
    async def scenario() -> None:
        async with running({"CITY": TwinPost(answers())}) as at_work:
            assert [r.sequence for r in at_work.courier.offer([row(1, receiver="GONE"), row(2)])] == [1]
            assert at_work.courier.offer_unjournaled([notice(receiver="GONE")]) != []

    virtual(scenario())


def test_a_receiver_without_a_secret_is_refused_by_name() -> None:
    async def scenario() -> None:
        from alerting.delivery import Courier
        from tests.alerting.delivery.senders import WORDS

        with pytest.raises(SecretRefusedError, match="CITY"):
            Courier([receiver()], {}, words=WORDS, ledger_id="L1", base_dir=__import__("pathlib").Path())

    virtual(scenario())


def test_results_that_nobody_takes_are_bounded_and_keep_the_newest_of_each_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerting.delivery.courier.RESULTS_MAX", 50)
    assert RESULTS_MAX == 50_000

    async def scenario() -> None:
        async with running({"CITY": TwinPost(answers(then=500))}) as at_work:
            at_work.courier.offer([row(n) for n in range(1, 6)])
            await asyncio.sleep(36_000)
            assert at_work.courier.status()["CITY"].due == 5
            results = at_work.courier.take_results()
            assert len(results) <= 51
            assert max(r.attempt for r in results) > 100
            assert {r.sequence for r in results} == {1, 2, 3, 4, 5}

    virtual(scenario())


def test_stopping_lets_what_is_on_the_wire_finish_and_breaks_off_the_rest() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        async def slow(request: TwinRequest) -> Answer:
            await asyncio.sleep(1.0 if b'"sequence":1,' in request.body else 10.0)
            return Answer(200)

        async with running({"CITY": TwinPost(slow)}) as at_work:
            at_work.courier.offer([row(1), row(2)])
            await asyncio.sleep(0.5)
            stopped_s = loop.time()
        assert 1.9 < loop.time() - stopped_s < 2.1
        assert [(r.sequence, r.accepted) for r in at_work.gather().results] == [(1, True)]

    virtual(scenario())


def test_an_offered_notice_is_on_the_wire_in_the_next_turn_of_the_loop() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            await asyncio.sleep(1)
            at_work.courier.offer([row(1)])
            await asyncio.sleep(0)
            assert len(post.notices()) == 1

    virtual(scenario())


def test_nothing_is_started_once_the_courier_is_to_stop() -> None:
    async def scenario() -> None:
        post = TwinPost(answers())
        async with running({"CITY": post}) as at_work:
            await asyncio.sleep(1)
        at_work.courier.offer([row(1)])
        await asyncio.sleep(1)
        assert not post.notices()

    virtual(scenario())


def test_tasks_are_named_after_receiver_and_lane() -> None:
    async def scenario() -> None:
        async with running({"CITY": TwinPost(answers())}):
            await asyncio.sleep(0)
            names = {task.get_name() for task in asyncio.all_tasks()}
            lanes = {f"courier:CITY:{lane}" for lane in ("red", "orange", "yellow", "blue", "heartbeat")}
            assert lanes <= names

    virtual(scenario())


def test_a_bug_in_the_way_out_ends_the_courier_loudly() -> None:
    async def scenario() -> None:
        async def broken(request: TwinRequest) -> Answer:
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as found:
            async with running({"CITY": TwinPost(broken)}):
                await asyncio.sleep(1)
        assert found.group_contains(ZeroDivisionError)

    virtual(scenario())


def test_the_callback_rings_with_every_result() -> None:
    async def scenario() -> None:
        rings: list[int] = []
        async with running({"CITY": TwinPost(answers(500))}, on_result=lambda: rings.append(1)) as at_work:
            await asyncio.sleep(0.5)
            rings.clear()
            at_work.gather()
            assert not at_work.courier.results_ready.is_set()
            at_work.courier.offer([row(1)])
            await asyncio.sleep(0.5)
            assert len(rings) == 1
            assert at_work.courier.results_ready.is_set()

    virtual(scenario())
