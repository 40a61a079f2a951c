"""Plans of faults: bounded, healed, the same for a seed, and every kind often enough to find something."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.world import BROKER, CORE, FaultKind, Parts, draw_plan
from simulators.world.faults import FAULTS_MAX, FAULTS_MIN, FOR_S_MIN, QUIET_S

PARTS = Parts(("E1", "E2"), ("E1D1", "E1D2", "E2D1"), ("CITY", "PARK"))
seeds = st.integers(0, 2**63)


@given(seeds, st.floats(30, 10_000))
def test_a_plan_is_bounded_and_every_fault_ends_before_the_world_heals(seed: int, faulty_s: float) -> None:
    plan = draw_plan(seed, PARTS, faulty_s)
    assert FAULTS_MIN <= len(plan.faults) <= FAULTS_MAX
    assert plan.heal_s == faulty_s
    for fault in plan.faults:
        assert fault.at_s >= QUIET_S
        assert fault.for_s >= FOR_S_MIN
        assert fault.ends_s <= plan.heal_s + 1e-6


@given(seeds)
def test_a_seed_draws_the_same_plan_again(seed: int) -> None:
    assert draw_plan(seed, PARTS) == draw_plan(seed, PARTS)


@given(seeds)
def test_faults_are_numbered_in_the_order_they_begin_and_strike_parts_that_there_are(seed: int) -> None:
    faults = draw_plan(seed, PARTS).faults
    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert {fault.part for fault in faults} <= {*PARTS.edges, *PARTS.devices, *PARTS.receivers, CORE, BROKER}


@given(seeds)
def test_one_kind_of_fault_never_strikes_one_part_twice_at_once(seed: int) -> None:
    open_until: dict[tuple[FaultKind, str], float] = {}
    for fault in draw_plan(seed, PARTS).faults:
        assert fault.at_s > open_until.get((fault.kind, fault.part), 0.0)
        open_until[fault.kind, fault.part] = fault.ends_s


def test_every_kind_strikes_often_in_fifty_seeds_and_every_part_is_killed() -> None:
    plans = [draw_plan(seed, PARTS) for seed in range(50)]
    seeds_with = Counter(kind for plan in plans for kind in {fault.kind for fault in plan.faults})
    assert {kind: count for kind, count in seeds_with.items() if count < 5} == {}
    assert set(seeds_with) == set(FaultKind)
    killed = {fault.part for plan in plans for fault in plan.faults if fault.kind is FaultKind.KILL}
    assert killed == {*PARTS.edges, *PARTS.receivers, CORE, BROKER}


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_fault_reads_as_a_sentence(kind: FaultKind) -> None:
    fault = next(fault for seed in range(50) for fault in draw_plan(seed, PARTS).faults if fault.kind is kind)
    assert str(fault).startswith(f"{kind} {fault.part}")
    assert str(fault).endswith(f"for {fault.for_s:g} s")
