"""An outage is history too: what an edge kept while nobody listened is run by the same rules, from where we stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from alerting import Transition
from gateway.core.arrivals import Arrived
from gateway.core.machine import Machine
from tests.system.site import restless_site
from wire import SampleBatch

TAG = "E1D1.WAVE"  # H 75, deadband 2
BEFORE, AWAY, AFTER, LOST = 11, 22, 33, 44


class Node:
    """Edge E1 with one tag, and a gateway that keeps what arrived."""

    def __init__(self) -> None:
        self.site = restless_site()
        self.machine = Machine(self.site)
        self.kept: dict[tuple[int, int], Arrived] = {}
        self.engine_ms = 1_000
        self.source_ms = 1_700_000_000_000

    def frames(self, stream: int, first: int, values: Sequence[float]) -> list[Arrived]:
        made = []
        for number, value in enumerate(values, first):
            self.source_ms += 200
            column = np.array([self.source_ms])
            batch = SampleBatch(
                np.array([self.site.tag_index[TAG]], np.int32), np.array([value], np.float64), np.array([192], np.uint8), column
            )
            made.append(self.machine.conditioned("E1", "E1D1", stream, number, batch))
            self.kept[stream, number] = made[-1]
        return made

    def live(self, stream: int, first: int, values: Sequence[float]) -> list[Transition]:
        self.engine_ms += 200 * len(values)
        return self.machine.frames(self.engine_ms, self.frames(stream, first, values))[1]

    def backlog(self, stream: int, frames: Sequence[Arrived]) -> None:
        first, last = frames[0].sequence, frames[-1].sequence
        self.machine.block(self.engine_ms, "E1", stream, first, last, frames)

    def born(self, live: int, *spans: tuple[int, int, int, int, int]) -> None:
        facts: dict[str, Any] = {
            "live": live, "spans": list(spans), "config_wrong": False, "spool_fault": False, "clock_synced": True,
            "unmarked_stream": -99,
        }  # fmt: skip
        self.machine.born(self.engine_ms, self.source_ms, "E1", facts)

    def catch_up(self) -> list[Transition]:
        """Run history as core's loop does, as far as what is kept allows."""
        found: list[Transition] = []
        while (want := self.machine.late_want("E1")) is not None:
            found += self.machine.late("E1", [self.kept[want.stream, want.number]], want.number)
        return found


def words(transitions: Sequence[Transition]) -> list[tuple[str, bool]]:
    return [(f"{transition.alarm.limit} {transition.kind}", transition.late) for transition in transitions]


@pytest.mark.fault("F25")
@pytest.mark.parametrize("quiet", [pytest.param(True, id="our link"), pytest.param(False, id="the edge's session")])
def test_an_excursion_inside_an_outage_is_found_when_its_backlog_comes(quiet: bool) -> None:
    node = Node()
    node.born(BEFORE, (BEFORE, 1, 0, 0, 0))
    assert node.live(BEFORE, 1, [50, 50]) == []
    node.machine.died(node.engine_ms, node.source_ms, "E1", "", quiet=quiet)
    assert node.catch_up() == []  # the loop looks after every commit, also before anybody comes back
    away = node.frames(AWAY, 1, [80, 80, 50])
    node.born(AFTER, (AWAY, 1, 3, BEFORE, 2), (AFTER, 1, 0, AWAY, 3))
    assert words([t for t in node.live(AFTER, 1, [50, 50]) if t.alarm.limit == "H"]) == []
    assert node.catch_up() == []
    node.backlog(AWAY, away)
    assert words(node.catch_up()) == [("H raised", True), ("H returned", True)]


@pytest.mark.fault("F25")
def test_what_an_edge_kept_before_the_gateway_ever_heard_of_it_is_history_too() -> None:
    node = Node()
    away = node.frames(BEFORE, 1, [50, 80, 80, 50])
    node.born(AFTER, (BEFORE, 1, 4, 0, 0), (AFTER, 1, 0, BEFORE, 4))
    assert node.live(AFTER, 1, [50, 50]) == []
    node.backlog(BEFORE, away)
    assert words(node.catch_up()) == [("H raised", True), ("H returned", True)]


@pytest.mark.fault("F25")
@pytest.mark.parametrize("run", [True, False], ids=["caught up", "not yet run"])
def test_history_goes_on_from_a_stream_that_a_power_cut_took_off_the_edges_disk(*, run: bool) -> None:
    """The newest stream was heard here and never synced there: what the edge took after the cut follows the one before."""
    node = Node()
    node.born(BEFORE, (BEFORE, 1, 0, 0, 0))
    assert node.live(BEFORE, 1, [50, 50]) == []
    node.born(LOST, (BEFORE, 1, 2, 0, 0), (LOST, 1, 0, BEFORE, 2))
    assert node.live(LOST, 1, [50]) == []
    if run:
        assert node.catch_up() == []
    node.machine.died(node.engine_ms, node.source_ms, "E1", "", quiet=False)
    away = node.frames(AWAY, 1, [80, 80, 50])
    node.born(AFTER, (AWAY, 1, 3, BEFORE, 2), (AFTER, 1, 0, AWAY, 3))
    node.live(AFTER, 1, [50, 50])
    node.backlog(AWAY, away)
    assert words(node.catch_up()) == [("H raised", True), ("H returned", True)]


def test_a_history_run_ends_once_it_has_caught_up_with_the_present() -> None:
    node = Node()
    node.born(BEFORE, (BEFORE, 1, 0, 0, 0))
    node.live(BEFORE, 1, [50, 50])
    node.machine.died(node.engine_ms, node.source_ms, "E1", "", quiet=True)
    node.born(AFTER, (BEFORE, 1, 2, 0, 0), (AFTER, 1, 0, BEFORE, 2))
    node.live(AFTER, 1, [50, 80])
    assert node.catch_up() == []
    assert node.machine.history_position("E1") is None
