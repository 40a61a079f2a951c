"""The table of limits: compiled from the configuration, refused when it contradicts itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import alerting
from alerting import AlarmEngine, LimitTable, LimitTableError
from alerting.ids import event_id, timed_id
from config import DEMO_SITE, SiteConfig, load_site
from tests.alerting.plant import GOOD, TWO_SIDED, Limit, Sent, Tag, batch, table, words


@pytest.fixture(scope="module")
def demo() -> SiteConfig:
    """The site that ships."""
    return load_site(DEMO_SITE)


def changed(limits: LimitTable, **columns: Any) -> LimitTable:
    """Return a table with some columns replaced."""
    kept = {entry.name: getattr(limits, entry.name) for entry in fields(limits) if entry.init}
    return LimitTable(**(kept | columns))


class TestCompiled:
    def test_every_tag_and_limit_of_the_site_is_there(self, demo: SiteConfig) -> None:
        limits = LimitTable.compile(demo)
        assert limits.tag_id == tuple(tag.id for tag in demo.tags)
        listed = [(limits.tag_id[tag], limit) for tag, limit in zip(limits.row_tag, limits.limit, strict=True)]
        assert listed == [(tag.id, str(row.kind)) for tag in demo.tags for row in tag.limit_rows()]

    def test_each_row_says_what_the_configuration_says(self, demo: SiteConfig) -> None:
        limits = LimitTable.compile(demo)
        rows = [row for tag in demo.tags for row in tag.limit_rows()]
        assert limits.setpoint.tolist() == [row.setpoint for row in rows]
        assert limits.deadband.tolist() == [row.deadband for row in rows]
        assert limits.on_delay_ms.tolist() == [row.on_delay_s * 1000 for row in rows]
        assert limits.grade.tolist() == [int(row.grade) for row in rows]
        assert limits.side.tolist() == [1 if row.kind in ("H", "HH") else -1 for row in rows]
        assert limits.stale_after_ms.tolist() == [tag.stale_after_s * 1000 for tag in demo.tags]

    def test_an_engine_takes_the_site_itself(self, demo: SiteConfig) -> None:
        engine = AlarmEngine(demo)
        index, row = next((at, tag.limit_rows()[0]) for at, tag in enumerate(demo.tags)
                          if tag.limits.H is not None and tag.limits.H.on_delay_s == 0)
        highest = max(limit.setpoint for limit in demo.tags[index].limit_rows())
        told = engine.samples(0, batch([Sent(index, highest, GOOD, 1, 1, 1)]))
        assert f"{row.kind} raised" in words(told)
        assert AlarmEngine.restore(demo, engine.dump()).dump() == engine.dump()

    def test_a_system_condition_takes_its_grade_from_the_last_word(self, demo: SiteConfig) -> None:
        limits = LimitTable.compile(demo)
        for key in ("EDGE.E1.OFFLINE", "CLOCK.E1.STEPPED"):
            assert limits.grade_of_condition(key) == int(demo.system_alarms.grade_of(key))

    def test_the_state_limit_of_a_contact_alarms_on_its_value(self, demo: SiteConfig) -> None:
        engine = AlarmEngine(demo)
        index, tag = next((at, tag) for at, tag in enumerate(demo.tags) if tag.limits.state is not None)
        assert tag.limits.state is not None
        alarming, other = float(tag.limits.state.alarm_value), float(1 - tag.limits.state.alarm_value)
        later_ms = round(tag.limits.state.on_delay_s * 1000)
        sent = [Sent(index, value, GOOD, at_ms, 1, number)
                for number, (value, at_ms) in enumerate([(other, 0), (alarming, 1), (alarming, 1 + later_ms)], 1)]
        assert len(engine.samples(0, batch(sent))) == 1


class TestRefused:
    @pytest.mark.parametrize("columns", [
        pytest.param({"setpoint": np.array([2.0, np.nan, 10, 20])}, id="a setpoint that is no number",
                     marks=pytest.mark.fault("F47")),
        pytest.param({"setpoint": np.zeros(3)}, id="a column too short"),
        pytest.param({"grade": np.zeros(4, np.int64)}, id="a column of another type"),
        pytest.param({"deadband": np.array([1.0, 1, -1, 1])}, id="a deadband below zero"),
        pytest.param({"on_delay_ms": np.array([0, 0, -1, 0], np.int64)}, id="a delay below zero"),
        pytest.param({"stale_after_ms": np.zeros(1, np.int64)}, id="no time to fall stale"),
        pytest.param({"row_tag": np.array([0, 0, 0, 1], np.int32)}, id="a tag that is not there"),
        pytest.param({"limit": ("LL", "L", "H", "H")}, id="one limit twice"),
        pytest.param({"side": np.array([1, 0, 1, 1], np.int8)}, id="a limit on no side"),
        pytest.param({"unit": ()}, id="a tag without a unit"),
    ])
    def test_a_table_that_contradicts_itself(self, columns: dict[str, Any]) -> None:
        with pytest.raises(LimitTableError):
            changed(table(TWO_SIDED), **columns)

    def test_rows_out_of_order(self) -> None:
        limits = table(TWO_SIDED, Tag("T2.B", (Limit("H", 1),)))
        with pytest.raises(LimitTableError):
            changed(limits, row_tag=limits.row_tag[::-1].copy())


def test_a_subset_keeps_each_tags_limits() -> None:
    limits = table(TWO_SIDED, Tag("T2.NONE"), Tag("T3.C", (Limit("H", 7),)))
    part, rows = limits.subset(np.array([2, 0], np.int32))
    assert (part.tag_id, part.limit, part.row_tag.tolist()) == (
        ("T3.C", "T1.LEVEL"), ("H", "LL", "L", "H", "HH"), [0, 1, 1, 1, 1])
    assert rows.tolist() == [4, 0, 1, 2, 3]


class TestIds:
    BASE = ("SITE1", "T1.A", "H", 7, 9, 0, "raised")

    def test_an_id_never_changes(self) -> None:
        """Ledgers and receivers hold these: another value here breaks deduplication after an upgrade."""
        assert event_id(*self.BASE) == "3e4bad21138daa8f8cf6b18dc6ed0c33"
        assert timed_id(*self.BASE, "x") == "3f36015db641cdd15903269bf803d616"

    @pytest.mark.parametrize("place", range(7))
    def test_everything_that_tells_steps_apart_is_in_it(self, place: int) -> None:
        other = list(self.BASE)
        other[place] = other[place] + (1 if isinstance(other[place], int) else "X")  # type: ignore[operator]
        assert event_id(*other) != event_id(*self.BASE)  # type: ignore[arg-type]

    def test_no_text_runs_into_the_next(self) -> None:
        assert event_id("A", "BC", "H", 1, 1, 0, "raised") != event_id("AB", "C", "H", 1, 1, 0, "raised")
        assert event_id("A", "B", "H", 1, 11, 0, "raised") != event_id("A", "B", "H", 11, 1, 0, "raised")


def test_the_public_face_is_exactly_this() -> None:
    assert sorted(alerting.__all__) == sorted({
        "ACT_TEXT_MAX", "FAULT_LIMIT", "LATE_REVISION_FIRST", "NEXT", "SYSTEM_LIMIT", "Act", "ActKind", "ActRefusedError",
        "AlarmEngine", "AlarmState", "AlertingError", "Category", "CorruptDumpError", "Event", "Fact", "FrameKey", "HistoryFork",
        "LimitTable", "LimitTableError", "Observed", "State", "SystemCondition", "TagStates", "Transition",
        "TransitionKind", "UnknownAlarmError", "condition", "in_zone", "next_state", "utc_text",
        "zone_text"})
    assert all(hasattr(alerting, name) for name in alerting.__all__)
