"""A new configuration: what stood is returned by the same limit or by a person, and what is over is raised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alerting import Act, ActKind, ActRefusedError, AlarmEngine, LimitTable, State, SystemCondition
from tests.alerting.plant import COMM, GOOD, RANGE, Bench, Limit, Tag, bench, table, words

pytestmark = pytest.mark.fault("F48")

H10 = Tag("T1.PRESSURE", (Limit("H", 10),))


def renewed(site: Bench, limits: LimitTable) -> Bench:
    """Restart the engine under other limits."""
    site.engine = AlarmEngine.restore(limits, site.engine.dump())
    return site


def close(site: Bench, alarm_id: str, reason: str | None = "limit changed") -> str:
    (made,) = site.engine.act(site.now_ms, Act(ActKind.CLOSE, alarm_id, "li", site.now_ms, reason, "none needed"))
    return str(made.alarm.state)


def without_unit(limits: LimitTable) -> LimitTable:
    return replace(limits, unit=("kPa",) * limits.tags)


CHANGED = [
    pytest.param(table(Tag("T1.PRESSURE", (Limit("H", 15),))), id="a higher setpoint"),
    pytest.param(table(Tag("T1.PRESSURE", (Limit("H", 11),))), id="one that the value is still over"),
    pytest.param(table(Tag("T1.PRESSURE", (Limit("H", 10, deadband=0.1),))), id="a smaller deadband"),
    pytest.param(table(Tag("T1.PRESSURE", (Limit("HH", 10),))), id="another name"),
    pytest.param(table(Tag("T1.PRESSURE")), id="removed"),
    pytest.param(table(Tag("T2.OTHER", (Limit("H", 10),))), id="the tag removed"),
]


class TestStanding:
    @pytest.mark.parametrize("limits", CHANGED)
    def test_an_alarm_of_another_limit_stands_until_a_person_closes_it(self, limits: LimitTable) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        renewed(site, limits)
        told = site.send(3) + site.send(12) + site.send(3) + site.tick(60_000)
        assert raised.alarm_id not in {made.alarm_id for made in told}
        assert raised.alarm in site.engine.alarms()
        with pytest.raises(ActRefusedError, match="reason"):
            close(site, raised.alarm_id, None)
        assert close(site, raised.alarm_id) == State.CLOSED

    def test_a_change_of_unit_is_a_change_of_the_limit(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        renewed(site, without_unit(site.engine.limits))
        assert site.engine.review(site.now_ms, "revision") == [], "12 was said in another unit"
        site.send(3)
        assert raised.alarm in site.engine.alarms()

    @pytest.mark.parametrize("limit", [
        pytest.param(Limit("H", 10, off_ms=5_000), id="off-delay"), pytest.param(Limit("H", 10, on_ms=9), id="on-delay"),
        pytest.param(Limit("H", 10, grade=1), id="grade")])
    def test_what_only_times_or_grades_it_leaves_it_the_same_limit(self, limit: Limit) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        renewed(site, table(Tag("T1.PRESSURE", (limit,))))
        assert site.engine.alarms() == [raised.alarm]
        told = site.send(3) + site.send(3, after_ms=6_000)
        assert [(made.kind, made.alarm_id) for made in told] == [("returned", raised.alarm_id)]

    def test_an_off_delay_that_runs_ends_nothing_any_more(self) -> None:
        site = bench(Tag("T1.PRESSURE", (Limit("H", 10, off_ms=5_000),)))
        (raised,) = site.send(12)
        site.send(3)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 15, off_ms=5_000),))))
        assert site.send(3, after_ms=9_000) == []
        assert site.engine.alarms() == [raised.alarm]

    def test_it_is_never_pushed_out_of_memory_by_records(self) -> None:
        site = Bench(AlarmEngine(table(H10), 1_000_000))
        (raised,) = site.send(12)
        dump = site.engine.dump()
        site.engine = AlarmEngine.restore(table(Tag("T1.PRESSURE", (Limit("H", 15),))), dump, records_max=2)
        for value in (20, 5) * 5:
            site.send(value)
        assert raised.alarm in site.engine.alarms()
        assert len(site.engine.alarms()) == 3

    def test_and_is_still_there_after_the_next_restart(self) -> None:
        site = bench(H10)
        (raised,) = site.send(12)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 15),))))
        dump = site.engine.dump()
        assert renewed(site, site.engine.limits).engine.dump() == dump
        renewed(site, table(H10))
        site.send(3)
        assert raised.alarm in site.engine.alarms(), "the old limit back does not make it its alarm again"
        assert close(site, raised.alarm_id) == State.CLOSED

    def test_a_late_alarm_linked_to_it_waits_as_well(self) -> None:
        site = bench(H10)
        fork = site.engine.fork([0])
        (live,) = site.send(12)
        late = replace(live.alarm, id="late", late=True, linked=live.alarm_id)
        site.engine.book.link(late, live.alarm_id)
        site.engine.book.enter(late, site.now_ms)
        fork.finish()
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 15),))))
        assert [close(site, alarm_id) for alarm_id in (live.alarm_id, "late")] == [State.CLOSED] * 2

    def test_a_fault_of_a_tag_taken_out_of_service_waits_for_a_person(self) -> None:
        site = bench(H10)
        (fault,) = site.send(0, COMM)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 10),), in_service=False)))
        assert site.send(3) == []
        assert site.engine.alarms() == [fault.alarm]
        assert close(site, fault.alarm_id) == State.CLOSED

    def test_a_condition_nobody_reports_on_any_more_waits_for_a_person(self) -> None:
        site = bench(H10)
        (raised,) = site.engine.condition(site.now_ms, 5, SystemCondition("EDGE.E9.OFFLINE", True))
        site.engine.let_go_condition("EDGE.E9.OFFLINE")
        site.engine.let_go_condition("EDGE.E8.OFFLINE")
        assert site.engine.alarms() == [raised.alarm]
        assert close(site, raised.alarm_id) == State.CLOSED
        assert words(site.engine.condition(site.now_ms, 6, SystemCondition("EDGE.E9.OFFLINE", True))) == ["SYSTEM raised"]


class TestReview:
    def test_a_value_over_the_new_limit_is_raised_once_without_a_new_sample(self) -> None:
        site = bench(H10)
        site.send(7)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 5),))))
        (raised,) = site.engine.review(site.now_ms, "revision")
        assert (raised.kind, raised.alarm.value, raised.alarm.setpoint, raised.at_ms) == ("raised", 7.0, 5.0, site.now_ms)
        assert site.engine.review(site.now_ms, "revision 2") == []
        assert site.send(7.5) == []
        assert [made.alarm_id for made in site.send(3)] == [raised.alarm_id]

    def test_a_limit_changed_under_its_alarm_raises_another_occurrence(self) -> None:
        site = bench(H10)
        (old,) = site.send(12)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 11),))))
        (new,) = site.engine.review(site.now_ms, "revision")
        renewed(site, table(H10))
        (newest,) = site.engine.review(site.now_ms, "revision 2")
        assert len({old.alarm_id, new.alarm_id, newest.alarm_id}) == 3
        assert [alarm.id for alarm in site.engine.alarms()] == [old.alarm_id, new.alarm_id, newest.alarm_id]

    def test_an_on_delay_begins_with_the_new_limit(self) -> None:
        site = bench(Tag("T1.PRESSURE", (Limit("H", 10, on_ms=5_000),)))
        site.send(7)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 5, on_ms=5_000),))))
        assert site.engine.review(site.now_ms, "revision") == []
        assert site.tick(4_999) == []
        assert words(site.tick(1)) == ["H raised"]

    def test_a_delay_that_ran_under_the_old_limit_raises_nothing_under_the_new(self) -> None:
        site = bench(Tag("T1.PRESSURE", (Limit("H", 10, on_ms=5_000),)))
        site.send(12)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 15, on_ms=5_000),))))
        assert site.engine.review(site.now_ms, "revision") == []
        assert site.tick(20_000) == []

    @pytest.mark.parametrize(("code", "raises"), [(GOOD, True), (RANGE, True), (COMM, False)])
    def test_quality_counts_as_for_a_sample(self, code: int, raises: bool) -> None:
        site = bench(replace(H10, fault_ms=60_000))
        site.send(7, code)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 5),), fault_ms=60_000)))
        assert words(site.engine.review(site.now_ms, "revision")) == ["H raised"] * raises

    def test_what_is_too_old_to_be_true_raises_nothing(self) -> None:
        site = bench(H10)
        site.send(7)
        renewed(site, table(Tag("T1.PRESSURE", (Limit("H", 5),))))
        assert site.engine.review(site.now_ms + 30_000, "revision") == []

    def test_a_silent_or_bad_tag_put_into_service_is_a_fault(self) -> None:
        planned = [Tag(name, in_service=False) for name in ("T1.SILENT", "T2.BAD", "T3.UNHEARD")]
        site = bench(*planned)
        site.send(7)
        site.send(0, COMM, tag=1)
        site.engine.stale(site.now_ms, [0])
        renewed(site, table(*(replace(tag, in_service=True) for tag in planned)))
        assert [made.alarm.tag for made in site.engine.review(site.now_ms, "revision")] == ["T2.BAD"]
        assert [made.alarm.tag for made in site.tick(40_000)] == ["T1.SILENT", "T3.UNHEARD"]
