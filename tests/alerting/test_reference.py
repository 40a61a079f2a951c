"""The engine against the plain rules, over random histories, however they are cut into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerting import AlarmEngine, Transition, waves
from tests.alerting.plant import COMM, GOOD, RANGE, Limit, Sent, Tag, batch, table
from tests.alerting.reference import ReferenceEngine, Seen

TAGS = [
    Tag("T1.A", (Limit("LL", 2), Limit("L", 4, on_ms=1000), Limit("H", 10), Limit("HH", 20, off_ms=2000)),
        fault_ms=2000, stale_ms=5000),
    Tag("T2.B", (Limit("H", 10, deadband=2, on_ms=3000, off_ms=3000),), stale_ms=8000),
    Tag("T3.C", (Limit("L", 0, off_ms=1000),), fault_ms=1000, stale_ms=4000),
    Tag("T4.D", (), stale_ms=5000),
    Tag("T5.E", (Limit("H", 10),), in_service=False),
]
EDGES = [-60.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 8.5, 9.0, 9.5, 10.0, 15.0, 19.0, 20.0, 25.0]


@dataclass(frozen=True)
class Samples:
    """Frames that arrive together."""

    sent: tuple[Sent, ...]


@dataclass(frozen=True)
class Wait:
    """Engine time passes; `tick` says whether anybody looks."""

    ms: int
    tick: bool


@dataclass(frozen=True)
class Death:
    """The node of some tags dies."""

    tags: tuple[int, ...]


@dataclass(frozen=True)
class Down:
    """The gateway was down."""

    ms: int


@dataclass(frozen=True)
class Doubt:
    """It becomes unclear, or clear, whose the samples of a tag are."""

    tag: int
    on: bool


@dataclass(frozen=True)
class Excuse:
    """The gateway did not listen: silence is no fault for a while."""

    ms: int


@dataclass(frozen=True)
class Asked:
    """The node of some tags is born again: their excuse ends soon."""

    tags: tuple[int, ...]
    ms: int


Happening = Samples | Wait | Death | Down | Doubt | Excuse | Asked

QUALITIES = st.sampled_from([GOOD] * 6 + [RANGE, RANGE, COMM])


@st.composite
def histories(draw: st.DrawFn) -> list[Happening]:
    """Return what happens at a site: source time mostly keeps pace, streams change now and then."""
    happenings: list[Happening] = []
    source_ms, stream, sequence = 1_000_000, 1, 0
    kinds = st.sampled_from(["samples"] * 6 + ["wait"] * 3 + ["death", "down", "doubt", "stream", "excuse", "asked"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=14)):
        if kind == "samples":
            sent = []
            for _ in range(draw(st.integers(1, 4))):
                sequence += 1
                for tag in draw(st.lists(st.integers(0, len(TAGS) - 1), min_size=1, max_size=4)):
                    source_ms += draw(st.sampled_from([0, 0, 400, 1000, 2500]))
                    code = draw(QUALITIES)
                    value = math.nan if code == COMM else draw(st.sampled_from(EDGES))
                    sent.append(Sent(tag, value, code, source_ms, stream, sequence))
            happenings.append(Samples(tuple(sent)))
        elif kind == "wait":
            ms = draw(st.sampled_from([0, 100, 999, 1000, 2000, 5000]))
            source_ms += ms
            happenings.append(Wait(ms, draw(st.booleans())))
        elif kind == "stream":
            stream, sequence = stream + 1, 0
            source_ms += draw(st.sampled_from([0, -3_600_000, 3_600_000]))
        elif kind == "death":
            happenings.append(Death(tuple(draw(st.sets(st.integers(0, len(TAGS) - 1), min_size=1)))))
        elif kind == "down":
            happenings.append(Down(draw(st.sampled_from([500, 4000]))))
        elif kind == "excuse":
            happenings.append(Excuse(draw(st.sampled_from([0, 3000, 9000]))))
        elif kind == "asked":
            happenings.append(Asked(tuple(draw(st.sets(st.integers(0, len(TAGS) - 1)))), draw(st.sampled_from([0, 2000]))))
        else:
            happenings.append(Doubt(draw(st.integers(0, 2)), draw(st.booleans())))
    return happenings


def rules_say(history: list[Happening]) -> list[Seen]:
    """Run a history through the plain rules."""
    rules, now_ms, seen = ReferenceEngine(TAGS, 500_000), 500_000, []
    for happening in history:
        match happening:
            case Samples(sent):
                seen += [found for one in sent for found in rules.sample(now_ms, one)]
            case Wait(ms, tick):
                now_ms += ms
                seen += rules.tick(now_ms) if tick else []
            case Death(tags):
                seen += rules.death(now_ms, list(tags))
            case Down(ms):
                now_ms += ms
                rules.downtime(ms)
            case Excuse(ms):
                rules.excuse(now_ms, ms)
            case Asked(tags, ms):
                rules.excuse_ends(list(tags), now_ms + ms)
            case Doubt(tag, on):
                (rules.only_raise.add if on else rules.only_raise.discard)(tag)
    return seen


class Run:
    """A history on its way through the engine."""

    def __init__(self, engine: AlarmEngine, now_ms: int = 500_000) -> None:
        self.engine, self.now_ms = engine, now_ms

    def happen(self, happening: Happening, cuts: list[int] | None = None) -> list[Transition]:
        """Tell the engine one thing; `cuts` split its samples into batches."""
        match happening:
            case Samples(sent):
                places = [0, *sorted({cut % (len(sent) + 1) for cut in cuts or []}), len(sent)]
                parts = [sent[start:end] for start, end in pairwise(places)]
                return [made for part in parts for made in self.engine.samples(self.now_ms, batch(part))]
            case Wait(ms, tick):
                self.now_ms += ms
                return self.engine.tick(self.now_ms) if tick else []
            case Death(tags):
                return self.engine.stale(self.now_ms, tags)
            case Down(ms):
                self.now_ms += ms
                self.engine.downtime(ms)
                return []
            case Excuse(ms):
                self.engine.excuse(self.now_ms, range(len(TAGS)), self.now_ms + ms)
                return []
            case Asked(tags, ms):
                self.engine.excuse_ends(self.now_ms, tags, self.now_ms + ms)
                return []
            case Doubt(tag, on):
                self.engine.raise_only([tag], on)
                return []


def engine_says(history: list[Happening], cuts: list[int] | None = None) -> tuple[list[Transition], bytes]:
    """Run a history through a fresh engine; returns the transitions and the dump at the end."""
    run = Run(AlarmEngine(table(*TAGS), 500_000))
    transitions = [made for happening in history for made in run.happen(happening, cuts)]
    return transitions, run.engine.dump()


@pytest.mark.fault("F01")
@pytest.mark.fault("F27")
@settings(max_examples=400, deadline=None)
@given(histories(), st.sampled_from([1, 2, waves.BULK_MIN]))
def test_the_engine_follows_the_plain_rules(history: list[Happening], bulk_min: int) -> None:
    """Bad values, clock steps of an hour between streams, deaths and downtime included."""
    with mock.patch.object(waves, "BULK_MIN", bulk_min):
        transitions, _ = engine_says(history)
    seen = [Seen(made.alarm.tag, made.alarm.limit, str(made.kind), made.at_ms) for made in transitions]
    assert seen == rules_say(history)


@settings(max_examples=200, deadline=None)
@given(histories(), st.lists(st.integers(0, 50), max_size=6))
def test_it_does_not_matter_how_samples_are_cut_into_batches(history: list[Happening], cuts: list[int]) -> None:
    with mock.patch.object(waves, "BULK_MIN", 1):
        cut = engine_says(history, cuts)
    assert cut == engine_says(history)


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_a_restart_in_the_middle_changes_nothing(history: list[Happening], data: st.DataObject) -> None:
    whole, at_the_end = engine_says(history)
    stop = data.draw(st.integers(0, len(history)))
    run = Run(AlarmEngine(table(*TAGS), 500_000))
    transitions = [made for happening in history[:stop] for made in run.happen(happening)]
    dump = run.engine.dump()
    again = Run(AlarmEngine.restore(table(*TAGS), dump), run.now_ms)
    assert again.engine.dump() == dump
    transitions += [made for happening in history[stop:] for made in again.happen(happening)]
    assert (transitions, again.engine.dump()) == (whole, at_the_end)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_tick_that_changed_nothing_need_not_be_kept(history: list[Happening]) -> None:
    run = Run(AlarmEngine(table(*TAGS), 500_000))
    kept: list[Happening] = []
    transitions: list[Transition] = []
    for happening in history:
        before = run.engine.changes
        transitions += run.happen(happening)
        if isinstance(happening, Wait) and run.engine.changes == before:
            happening = Wait(happening.ms, False)
        kept.append(happening)
    assert engine_says(kept) == (transitions, run.engine.dump())


@settings(max_examples=200, deadline=None)
@given(histories())
def test_nothing_ends_before_it_began(history: list[Happening]) -> None:
    """Though a silence is dated by our clock, and the sample that ends it by one that may be an hour behind."""
    for made in engine_says(history)[0]:
        assert made.at_ms >= made.alarm.start_ms
        assert made.alarm.returned_ms is None or made.alarm.returned_ms >= made.alarm.start_ms


@settings(max_examples=100, deadline=None)
@given(histories())
def test_no_id_is_used_twice(history: list[Happening]) -> None:
    transitions, _ = engine_says(history)
    assert len({made.id for made in transitions}) == len(transitions)
