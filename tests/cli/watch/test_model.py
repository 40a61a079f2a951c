"""The picture: what REST answers and events make of it, and how long it counts as the present."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.watch import answers, model
from cli.watch.fields import AnswerError
from cli.watch.model import LOST_S, Model, Picture
from cli.watch.sse import SseEvent
from tests.cli.watch import fake_server as fake

SITE = fake.FakeGateway().site


def picture(alarms: list[dict[str, Any]], tags: list[dict[str, Any]] | None = None, **more: Any) -> Picture:
    return Picture(
        me=answers.read_me({"name": "zhang", "role": "operator", "expires_ms": 1}), site=answers.read_site(SITE),
        health=answers.read_health(more.pop("health", fake.health())), alarms=tuple(map(answers.read_alarm, alarms)),
        alarms_cut=more.pop("cut", False), tags=tuple(map(answers.read_tag, tags or [])),
        receivers=(), edges=tuple(map(answers.read_edge, more.pop("edges", []))),
    )  # fmt: skip


def event(name: str, body: Any, id_: str = "L1:1:0") -> SseEvent:
    return SseEvent(name, json.dumps(body), id_)


def loaded(alarms: list[dict[str, Any]], *more: Any, **named: Any) -> Model:
    made = Model()
    made.load(picture(alarms, *more, **named), 0.0)
    return made


def alarms_event(*items: dict[str, Any]) -> SseEvent:
    return event("alarms", {"items": items})


@pytest.mark.parametrize(
    ("begin", "events", "left"),
    [
        pytest.param([], [[fake.alarm("a")]], {"a": 1}, id="an alarm is raised"),
        pytest.param([fake.alarm("a")], [[fake.alarm("a", state="ACTIVE_ACKED", revision=2)]], {"a": 2}, id="a step"),
        pytest.param([fake.alarm("a", revision=3)], [[fake.alarm("a", revision=2)]], {"a": 3}, id="an older one changes nothing"),
        pytest.param([fake.alarm("a")], [[fake.alarm("a", state="CLOSED", revision=4)]], {}, id="closed, so removed"),
        pytest.param(
            [fake.alarm("a")], [[fake.alarm("a", state="CLOSED", revision=4)], [fake.alarm("a", revision=3)]], {},
            id="what comes late does not bring a closed alarm back",
        ),
        pytest.param([], [[fake.alarm("a", state="CLOSED", revision=4)], [fake.alarm("a")]], {}, id="nor one never seen open"),
        pytest.param([], [[fake.alarm("a"), fake.alarm("b")], [fake.alarm("a", revision=2)]], {"a": 2, "b": 1}, id="two alarms"),
        pytest.param([fake.alarm("a")], [[fake.alarm("a")], [fake.alarm("a")]], {"a": 1}, id="twice is once"),
    ],
)  # fmt: skip
def test_alarms_fold(begin: list[Any], events: list[list[Any]], left: dict[str, int]) -> None:
    made = loaded(begin)
    for items in events:
        made.fold(alarms_event(*items), 1.0)
    assert {id_: alarm.revision for id_, alarm in made.alarms.items()} == left
    assert [alarm.id for alarm in made.in_order()] == sorted(left, reverse=True)


def test_the_gravest_and_newest_unacknowledged_stands_first() -> None:
    order = [
        fake.alarm("red", grade=4), fake.alarm("red returned", grade=4, state="RETURNED_UNACKED"),
        fake.alarm("orange new", grade=3, start_ms=2), fake.alarm("orange old", grade=3, start_ms=1),
        fake.alarm("blue", grade=1), fake.alarm("red acked", grade=4, state="ACTIVE_ACKED"),
    ]  # fmt: skip
    made = loaded(order[::-1])
    assert [alarm.id for alarm in made.in_order()] == [item["id"] for item in order]


def test_an_act_shows_done_once_the_list_says_so() -> None:
    made = loaded([fake.alarm("a"), fake.alarm("b", state="RETURNED_ACKED")])
    asked = [("a", "acknowledge"), ("a", "close"), ("b", "acknowledge"), ("b", "close"), ("gone", "close")]
    assert [made.shows_done(*each) for each in asked] == [False, False, True, False, True]
    made.alarms_cut = True
    assert not made.shows_done("gone", "close")
    made.fold(alarms_event(fake.alarm("gone", state="CLOSED", revision=2)), 1.0)
    assert made.shows_done("gone", "close")


def test_two_edges_change_each_for_itself() -> None:
    made = loaded([], edges=[fake.edge("E1"), fake.edge("E2")])
    made.fold(event("edges", {"items": [fake.edge("E2", online=False)]}), 1.0)
    assert {edge.id: edge.online for edge in made.edges} == {"E1": True, "E2": False}
    assert made.offline() == ["E2"]
    made.fold(event("edges", {"items": [fake.edge("E1", online=None)]}), 1.0)
    assert made.offline() == ["E1", "E2"]


def test_a_receiver_of_which_nobody_knows_is_not_up() -> None:
    made = loaded([])
    items = [fake.receiver("A"), fake.receiver("B", down=True), fake.receiver("C", down=None)]
    made.fold(event("deliveries", {"items": items}), 1.0)
    assert made.down() == ["B", "C"]


@pytest.mark.parametrize(
    ("quality", "more", "missing"),
    [
        pytest.param("GOOD", {}, 0, id="good"),
        pytest.param("UNCERTAIN", {}, 0, id="uncertain still is a value"),
        pytest.param("BAD", {}, 1, id="bad, though the last value is there"),
        pytest.param("UNKNOWN", {"value": None}, 1, id="never heard of"),
        pytest.param("UNKNOWN", {"value": None, "planned": True}, 0, id="not read yet, by the site"),
    ],
)
def test_tags_without_valid_data_are_counted(quality: str, more: dict[str, Any], missing: int) -> None:
    made = loaded([], [fake.tag("T1"), fake.tag("T2", quality="BAD")])
    assert made.invalid == 1
    made.fold(event("values", {"items": [fake.tag("T1", quality=quality, **more)]}), 1.0)
    assert made.invalid == 1 + missing
    made.fold(event("values", {"items": [fake.tag("T1"), fake.tag("T2")]}), 1.0)
    assert made.invalid == 0


@pytest.mark.parametrize(
    ("health", "tags", "known"),
    [
        pytest.param({}, [], True, id="all is well"),
        pytest.param({"core": "gone"}, [], False, id="core is gone"),
        pytest.param({"degraded": True, "reasons": ["broker.disconnected"]}, [], False, id="the broker is gone"),
        pytest.param({}, [fake.tag("T", quality="BAD")], False, id="a tag has no value"),
    ],
)
def test_an_empty_list_is_calm_only_if_all_is_known(health: Any, tags: Any, known: bool) -> None:
    assert loaded([], tags, health=fake.health(**health)).calm_is_known is known


# ------------------------------------------------------------------ the present


def test_nothing_is_known_before_the_first_reload() -> None:
    made = Model()
    assert made.lost(0.0)
    made.fold(event("health", fake.health()), 1.0)
    assert made.lost(1.0)


def test_events_keep_the_picture_current() -> None:
    made = loaded([])
    for second in range(1, 20):
        made.fold(event("health", fake.health()), second)
        assert not made.lost(second + LOST_S)


def test_after_silence_only_a_reload_makes_it_current_again() -> None:
    made = loaded([fake.alarm("a")])
    assert not made.lost(LOST_S)
    assert made.lost(LOST_S + 0.1)
    made.fold(event("health", fake.health()), LOST_S + 0.2)
    assert made.lost(LOST_S + 0.2)
    assert not made.complete
    made.load(picture([]), LOST_S + 1)
    assert not made.lost(LOST_S + 1)
    assert not made.alarms


def test_silence_that_nobody_looked_at_counts_too() -> None:
    made = loaded([])
    made.fold(event("health", fake.health()), LOST_S + 5)  # a process that was stopped, a laptop that slept
    assert made.lost(LOST_S + 5)


def test_a_reset_asks_for_a_reload_and_the_picture_ages_from_there() -> None:
    made = loaded([], [])
    made.fold(event("health", fake.health(), "L1:5:5"), 1.0)
    assert made.position == "L1:5:5"
    made.fold(event("reset", {"cause": "ledger"}, "L2:0:6"), 2.0)
    assert not made.complete
    assert made.position is None
    made.fold(event("health", fake.health(), "L2:0:7"), 3.9)
    assert not made.lost(4.0)
    assert made.lost(4.1)


def test_a_list_that_differs_from_the_gateways_count_is_read_again_once_and_then_told() -> None:
    made = loaded([fake.alarm("a", grade=3), fake.alarm("late", grade=2, late=True)])
    for standing in ({"3": 1, "4": 0}, {"3": 2}, {"3": 2}, {"3": 1}, {"3": 2}, {"3": 2}):
        made.fold(event("health", fake.health(standing=standing)), 1.0)
        assert made.complete
    assert not made.calm_is_known
    made.fold(event("health", fake.health(standing={"3": 2})), 1.0)
    assert not made.complete
    assert not made.differs
    made.load(picture([fake.alarm("a", grade=3)]), 1.5)
    made.fold(event("health", fake.health(standing={"3": 2})), 2.0)
    assert made.complete
    assert made.differs
    made.fold(event("health", fake.health(standing={"3": 1})), 3.0)
    assert not made.differs


def test_the_clock_is_the_gateways() -> None:
    made = loaded([])
    assert made.now_ms(2.5) == fake.NOW_MS + 2_500


# ------------------------------------------------------------------ bounds


def test_more_alarms_than_fit_are_told_and_read_again_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ALARMS_MAX", 3)
    monkeypatch.setattr(model, "ALARMS_REFILL", 2)
    made = loaded([fake.alarm("a", grade=1), fake.alarm("b", grade=2), fake.alarm("c", grade=3)])
    made.fold(alarms_event(fake.alarm("d", grade=4)), 1.0)
    assert [alarm.id for alarm in made.in_order()] == ["d", "c", "b"]
    assert made.alarms_cut
    assert made.complete
    made.fold(alarms_event(*(fake.alarm(id_, state="CLOSED", revision=2) for id_ in "dc")), 1.0)
    assert not made.complete


def test_memory_of_closed_alarms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ENDED_MAX", 2)
    made = loaded([])
    made.fold(alarms_event(*(fake.alarm(f"a{at}", state="CLOSED", revision=2) for at in range(9))), 1.0)
    assert len(made._ended) == 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(SseEvent("alarms", "{", ""), id="no JSON"),
        pytest.param(SseEvent("alarms", "[" * 100_000, ""), id="JSON without a bottom"),
        pytest.param(event("alarms", []), id="no object"),
        pytest.param(event("alarms", {"items": None}), id="no list"),
        pytest.param(event("alarms", {"items": [{"id": "a"}]}), id="half an alarm"),
        pytest.param(event("alarms", {"items": [fake.alarm("a", grade=5)]}), id="a grade that does not exist"),
        pytest.param(event("alarms", {"items": [fake.alarm("a", acked="yes")]}), id="a text for true or false"),
        pytest.param(event("values", {"items": [fake.tag("T", value="1")]}), id="a text for a number"),
        pytest.param(SseEvent("values", json.dumps({"items": [fake.tag("T", value=float("inf"))]}), ""), id="infinity"),
        pytest.param(event("health", {"core": "running"}), id="half of health"),
    ],
)
def test_what_is_not_understood_is_refused_never_guessed(broken: SseEvent) -> None:
    with pytest.raises(AnswerError):
        loaded([]).fold(broken, 1.0)
