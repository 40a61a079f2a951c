"""Planning reads: cheapest by brute force on small maps, and never outside the limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import PlanError
from edge.plan import PlanLimits, Span, Table, halves, plan_reads


def holding(*places, table=Table.HOLDING):
    return [Span(row, table, address, width, f"T.P{row}") for row, (address, width) in enumerate(places)]


def shape(blocks):
    return [(block.address, block.count) for block in blocks]


def cost_of(blocks, limits):
    return sum(limits.request_cost + block.count for block in blocks)


def brute_force(spans, limits):
    """The least cost over all ways to cut the sorted points into runs that obey the limits."""
    ordered = sorted(spans, key=lambda span: span.address)
    best = float("inf")
    for cuts in range(2 ** (len(ordered) - 1)):
        runs, run = [], [ordered[0]]
        for i, span in enumerate(ordered[1:]):
            if cuts >> i & 1:
                runs.append(run)
                run = []
            run.append(span)
        runs.append(run)
        cost, covered, legal = 0.0, set(), True
        for run in runs:
            start, end = run[0].address, max(span.address + span.width for span in run)
            reach = start
            for span in run:
                if limits.gap_max is not None and span.address - reach > limits.gap_max:
                    legal = False
                reach = max(reach, span.address + span.width)
            # One register in two requests would be read twice: overlapping points share a request.
            legal = legal and end - start <= limits.registers_max and start not in covered
            covered |= set(range(start, end))
            cost += limits.request_cost + end - start
        if legal:
            best = min(best, cost)
    return best


WORKED = holding((0, 2), (2, 2), (6, 2), (20, 2))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(PlanLimits(registers_max=8, request_cost=10), [(0, 8), (20, 2)], id="as in the docstring"),
        pytest.param(PlanLimits(registers_max=7, request_cost=10), [(0, 4), (6, 2), (20, 2)], id="a little less"),
        pytest.param(PlanLimits(), [(0, 22)], id="over TCP one request is cheapest"),
        pytest.param(PlanLimits(gap_max=2), [(0, 8), (20, 2)], id="a gap over gap_max is never read"),
        pytest.param(PlanLimits(gap_max=0), [(0, 4), (6, 2), (20, 2)], id="no gap at all"),
        pytest.param(PlanLimits(request_cost=1), [(0, 4), (6, 2), (20, 2)], id="requests almost free"),
    ],
)
def test_worked_examples(limits, expected):
    assert shape(plan_reads(WORKED, limits)) == expected


def test_a_thousand_contiguous_floats_take_the_least_possible_reads():
    blocks = plan_reads(holding(*((2 * i, 2) for i in range(1000))), PlanLimits())
    assert len(blocks) == 17  # 62 floats in each: a 125th register would hold half of one
    assert sum(block.count for block in blocks) == 2000


def test_tables_are_never_mixed_and_coils_may_be_many():
    spans = [Span(row, table, row % 1000, 1) for row, table in enumerate(t for t in Table for _ in range(1000))]
    blocks = plan_reads(spans, PlanLimits())
    assert [block.count for block in blocks if block.table.is_bits] == [1000, 1000]
    assert [block.count for block in blocks if not block.table.is_bits] == [125] * 16


def test_a_word_and_its_bits_are_one_read_of_one_register():
    [block] = plan_reads(holding((5, 1), (5, 1), (5, 1)), PlanLimits())
    assert (block.address, block.count, sorted(block.rows)) == (5, 1, [0, 1, 2])


def test_a_value_wider_than_the_device_allows_is_refused_with_its_tag():
    with pytest.raises(PlanError, match=r"T\.P1: takes 4 registers") as caught:
        plan_reads(holding((0, 1), (8, 4)), PlanLimits(registers_max=2))
    assert caught.value.tag == "T.P1"


places = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 2, 4])), min_size=1, max_size=8)
limits = st.builds(
    PlanLimits,
    registers_max=st.integers(8, 20),
    gap_max=st.none() | st.integers(0, 10),
    request_cost=st.sampled_from([0.5, 3.0, 10.0, 12.6, 1000.0]),
)


def disjoint(places):
    taken, kept = set(), []
    for address, width in places:
        span = set(range(address, address + width))
        if not taken & span:
            taken |= span
            kept.append((address, width))
    return kept


@given(places=places.map(disjoint), limits=limits)
def test_no_other_plan_is_cheaper(places, limits):
    spans = holding(*places)
    assert cost_of(plan_reads(spans, limits), limits) == pytest.approx(brute_force(spans, limits))


@given(places=places, limits=limits)
def test_every_point_is_read_whole_in_exactly_one_request_within_the_limits(places, limits):
    spans = holding(*places)
    try:
        blocks = plan_reads(spans, limits)
    except PlanError:  # a chain of overlaps longer than one request
        return
    homes = {row: block for block in blocks for row in block.rows}
    assert sorted(row for block in blocks for row in block.rows) == list(range(len(spans)))
    for span in spans:
        home = homes[span.row]
        assert home.address <= span.address
        assert span.address + span.width <= home.address + home.count
    for block in blocks:
        assert block.count <= limits.registers_max
        if limits.gap_max is not None:
            ends = [atom.end for atom in block.atoms]
            starts = [atom.start for atom in block.atoms]
            assert all(b - a <= limits.gap_max for a, b in zip(ends, starts[1:], strict=False))


@given(places=places.map(disjoint).filter(lambda places: len(places) > 1))
def test_halves_hold_the_same_points(places):
    [block] = plan_reads(holding(*places), PlanLimits())
    left, right = halves(block)
    assert left.atoms + right.atoms == block.atoms
    assert abs(len(left.atoms) - len(right.atoms)) <= 1
