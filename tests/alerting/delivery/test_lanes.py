"""The order, bounds, parking and probing of one receiver's lanes, as tables of steps."""

from __future__ import annotations

from typing import Any

import pytest

from alerting.delivery.lanes import Entry, ReceiverLanes, Settled
from alerting.delivery.outbox import OutboxRow
from alerting.delivery.schedule import Outcome, Verdict
from tests.alerting.delivery.senders import notice, row

OK = Verdict(Outcome.ACCEPTED, "ok", 200)
FAIL = Verdict(Outcome.RETRY, "HTTP 500", 500)
NO = Verdict(Outcome.REFUSED, "HTTP 422", 422)


class Desk:
    """A receiver's lanes with a clock at hand."""

    def __init__(self, regulator: bool = False, **more: int) -> None:
        self.lanes, self.now_ms = ReceiverLanes(regulator=regulator, **more), 0

    def offer(self, *rows: OutboxRow) -> list[bool]:
        return [self.lanes.offer(r, self.now_ms, self.now_ms) for r in rows]

    def take(self, lane: str = "red") -> list[Entry]:
        return self.lanes.take(lane, self.now_ms)

    def names(self, lane: str = "red") -> list[str]:
        return [f"{entry.notice.alarm_id}/{entry.notice.revision}" for entry in self.take(lane)]

    def settle(self, entry: Entry, verdict: Verdict = OK) -> Settled:
        return self.lanes.settle(entry, verdict, self.now_ms, 0.0)

    def after(self, ms: int) -> Desk:
        self.now_ms += ms
        return self


def test_a_later_revision_waits_for_the_earlier_one() -> None:
    desk = Desk()
    desk.offer(row(1, "a", 1), row(2, "a", 2), row(3, "b", 1), row(4, "a", 3))
    (a1, b1) = desk.take()
    assert (a1.notice.revision, b1.notice.alarm_id) == (1, "b")
    desk.settle(b1)
    assert desk.names() == []
    desk.settle(a1)
    assert desk.names() == ["a/2"]


def test_a_failed_notice_holds_its_own_alarm_back_and_no_other() -> None:
    desk = Desk()
    desk.offer(row(1, "a", 1), row(2, "a", 2))
    (a1,) = desk.take()
    desk.settle(a1, FAIL)
    desk.offer(row(3, "b", 1))
    assert desk.names() == ["b/1"]
    assert desk.after(999).names() == []
    assert desk.after(1).names() == ["a/1"]


def test_at_most_eight_are_in_flight_per_lane_and_lanes_do_not_share() -> None:
    desk = Desk()
    desk.offer(*(row(n, lane="blue") for n in range(1, 21)), row(21, lane="red"))
    flying = desk.take("blue")
    assert len(flying) == 8
    assert desk.take("blue") == []
    assert desk.names("red") == ["a21/1"]
    desk.settle(flying[0])
    assert len(desk.take("blue")) == 1


def test_rows_go_in_the_order_of_their_sequences() -> None:
    desk = Desk()
    desk.offer(*(row(n) for n in range(1, 7)))
    assert desk.names() == [f"a{n}/1" for n in range(1, 7)]


def test_three_definite_refusals_park_a_notice_and_free_its_alarm() -> None:
    desk = Desk()
    desk.offer(row(1, "a", 1), row(2, "a", 2))
    for wait_ms in (1_000, 2_000):
        (entry,) = desk.take()
        assert not desk.settle(entry, NO).parked
        desk.after(wait_ms)
    (entry,) = desk.take()
    assert desk.settle(entry, NO) == Settled(3, 60_000, accepted=False, parked=True)
    assert desk.names() == ["a/2"]
    assert desk.lanes.refused_count == 1
    assert desk.after(59_999).names() == []
    (entry,) = desk.after(1).take()
    assert desk.settle(entry).accepted
    assert desk.lanes.refused_count == 0


def test_failures_between_refusals_do_not_count_as_refusals() -> None:
    desk = Desk()
    desk.offer(row(1))
    for verdict in (NO, FAIL, FAIL, NO, FAIL):
        (entry,) = desk.take()
        assert not desk.settle(entry, verdict).parked
        desk.after(60_000)
    (entry,) = desk.take()
    assert desk.settle(entry, NO).parked


def test_a_parked_notice_is_tried_for_ever() -> None:
    desk = Desk()
    desk.offer(row(1, parked=True, attempts=3))
    for attempt in range(4, 1004):
        (entry,) = desk.take()
        assert desk.settle(entry, NO) == Settled(attempt, 60_000, accepted=False, parked=True)
        desk.after(60_000)


def test_parked_notices_leave_the_lane_to_fresh_ones() -> None:
    desk = Desk()
    desk.offer(*(row(n, parked=True) for n in range(1, 30)))
    assert len(desk.take()) == 1
    desk.offer(*(row(n) for n in range(30, 60)))
    assert len(desk.take()) == 7


def test_a_regulators_notice_is_never_parked_but_frees_its_alarm_too() -> None:
    desk = Desk(regulator=True)
    desk.offer(row(1, "a", 1, lane="blue"), row(2, "a", 2, lane="blue"))
    for _ in range(3):
        (entry,) = desk.take("blue")
        assert not desk.settle(entry, NO).parked
        desk.after(300_000)
    assert desk.names("blue") == ["a/2", "a/1"]
    assert desk.lanes.refused_count == 1


def test_a_refused_notice_of_a_regulator_comes_again_after_60_s_not_by_the_patient_table() -> None:
    desk = Desk(regulator=True)
    desk.offer(row(1, lane="blue"))
    for _ in range(3):
        (entry,) = desk.take("blue")
        settled = desk.settle(entry, NO)
        desk.after(300_000)
    assert settled.next_delay_ms == 60_000


def test_a_row_already_here_is_passed_over() -> None:
    desk = Desk()
    assert desk.offer(row(1), row(1)) == [True, True]
    assert len(desk.take()) == 1
    assert desk.offer(row(1)) == [True]
    assert desk.take() == []


def test_an_unjournaled_notice_accepted_before_its_commit_goes_again_with_its_number() -> None:
    desk = Desk()
    assert desk.lanes.offer_unjournaled(notice("a"), 0)
    (early,) = desk.take()
    assert early.unjournaled
    assert desk.settle(early).accepted
    desk.offer(row(1, "a"))
    (late,) = desk.take()
    assert not late.unjournaled
    assert late.notice.id == early.notice.id


def test_a_row_replaces_its_waiting_unjournaled_notice() -> None:
    desk = Desk()
    desk.lanes.offer_unjournaled(notice("a"), 0)
    desk.lanes.offer_unjournaled(notice("a"), 0)
    desk.offer(row(1, "a"))
    assert [entry.unjournaled for entry in desk.take()] == [False]
    desk.lanes.offer_unjournaled(notice("a"), 0)
    assert desk.take() == []


@pytest.mark.parametrize("verdict", [OK, FAIL, NO])
def test_a_row_waits_for_its_unjournaled_notice_on_the_wire_and_then_goes(verdict: Verdict) -> None:
    desk = Desk()
    desk.lanes.offer_unjournaled(notice("a"), 0)
    (early,) = desk.take()
    desk.offer(row(1, "a"))
    assert desk.take() == []
    assert desk.settle(early, verdict).next_delay_ms is None
    (late,) = desk.after(1_000).take()
    assert not late.unjournaled
    assert desk.settle(late).accepted
    assert desk.lanes.due_count == 0


def test_a_row_that_comes_late_still_goes_before_later_revisions() -> None:
    desk = Desk()
    desk.lanes.offer_unjournaled(notice("a", 2), 0)
    desk.offer(row(1, "a", 1))
    assert desk.names() == ["a/1"]


def test_an_earlier_revision_overtakes_a_later_one_that_failed() -> None:
    desk = Desk()
    desk.lanes.offer_unjournaled(notice("a", 2), 0)
    (second,) = desk.take()
    desk.offer(row(1, "a", 1))
    desk.settle(second, FAIL)
    assert desk.after(1_000).names() == ["a/1"]


def test_a_full_lane_takes_nothing_until_the_first_missing_row_is_back() -> None:
    desk = Desk(entries_max=4)
    assert desk.offer(*(row(n) for n in range(1, 8))) == [True] * 4 + [False] * 3
    assert desk.lanes.shortfall("red") is None
    for entry in desk.take():
        desk.settle(entry)
    assert desk.offer(row(7)) == [False]
    missing = desk.lanes.shortfall("red")
    assert missing is not None
    assert missing.sequence == 5
    assert desk.offer(row(5), row(6), row(7)) == [True] * 3
    assert desk.names() == ["a5/1", "a6/1", "a7/1"]
    assert desk.lanes.shortfall("red") is None


def test_a_full_lane_leaves_other_lanes_alone() -> None:
    desk = Desk(entries_max=1)
    assert desk.offer(row(1, lane="blue"), row(2, lane="blue"), row(1, lane="red")) == [True, False, True]


# a receiver that is down


def down_desk(*rows: OutboxRow) -> Desk:
    """A receiver found down after 30 s of failures of these rows."""
    desk = Desk()
    desk.offer(*rows)
    for lane in ("red", "orange", "yellow", "blue"):
        for entry in desk.take(lane):
            desk.settle(entry, FAIL)
    assert not desk.after(29_999).lanes.check_down(desk.now_ms)
    assert desk.after(1).lanes.check_down(desk.now_ms)
    return desk


def test_nothing_accepted_for_30_s_means_down() -> None:
    assert down_desk(row(1)).lanes.down


def test_one_accepted_notice_means_not_down() -> None:
    desk = Desk()
    desk.offer(row(1), row(2))
    first, second = desk.take()
    desk.settle(first, FAIL)
    desk.settle(second)
    assert not desk.after(60_000).lanes.check_down(desk.now_ms)


def test_a_receiver_that_refuses_a_notice_for_good_is_not_down() -> None:
    desk = Desk()
    desk.offer(row(1))
    for _ in range(3):
        (entry,) = desk.take()
        desk.settle(entry, NO)
        desk.after(5_000)
    assert not desk.after(60_000).lanes.check_down(desk.now_ms)


def test_a_receiver_that_is_down_is_probed_by_one_notice() -> None:
    desk = down_desk(*(row(n) for n in range(1, 6)))
    (probe,) = desk.take()
    assert desk.take() == []
    desk.settle(probe, FAIL)
    assert desk.take() == []
    assert len(desk.after(1_000).take()) == 1


def test_a_fresh_red_notice_does_not_wait_for_the_next_probe() -> None:
    desk = down_desk(row(1))
    desk.settle(desk.take()[0], FAIL)
    desk.offer(row(2))
    assert desk.names() == ["a2/1"]


def test_a_red_probe_does_not_wait_for_a_blue_one_on_the_wire() -> None:
    desk = down_desk(row(1, lane="blue"))
    (blue,) = desk.take("blue")
    desk.offer(row(2, lane="red"))
    assert desk.names("red") == ["a2/1"]
    desk.offer(row(3, lane="blue"))
    desk.settle(blue, FAIL)
    assert desk.after(60_000).names("blue") == []


def test_the_first_accepted_notice_ends_it_and_everything_goes() -> None:
    often: dict[str, Any] = {"attempts": 6}  # their next turn by the schedule is far off
    desk = down_desk(row(1), *(row(n, **often) for n in range(2, 6)), *(row(n, lane="blue", **often) for n in (6, 7, 8)))
    (probe,) = desk.take()
    desk.settle(probe)
    assert not desk.lanes.down
    assert len(desk.take("red")) == 4
    assert len(desk.take("blue")) == 3


def test_failing_heartbeats_alone_find_it_down_and_a_good_one_ends_it() -> None:
    desk = Desk()
    desk.lanes.beat(False, 0)
    assert desk.after(30_000).lanes.check_down(desk.now_ms)
    desk.lanes.beat(True, desk.now_ms)
    assert not desk.lanes.down


def test_a_good_heartbeat_does_not_hide_notices_that_fail_but_hastens_the_probe() -> None:
    desk = down_desk(row(1, lane="blue"))
    (probe,) = desk.take("blue")
    desk.settle(probe, FAIL)
    assert desk.names("blue") == []
    desk.lanes.beat(True, desk.now_ms)
    assert desk.lanes.down
    assert desk.names("blue") == ["a1/1"]


def test_wake_time_is_the_next_due_time() -> None:
    desk = Desk()
    assert desk.lanes.wake_ms("red", 0) is None
    desk.offer(row(1))
    assert desk.lanes.wake_ms("red", 0) == 0
    (entry,) = desk.take()
    assert desk.lanes.wake_ms("red", 0) is None
    desk.after(5).settle(entry, FAIL)
    assert desk.lanes.wake_ms("red", desk.now_ms) == 1_005
