"""F46, F47, F07: parts that contradict each other are refused with both places; what is only odd warns."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import cross_check
from config.edges import REGISTERS_OF
from tests.config.documents import FILE, SOUND, line_of, problems_of, sound_site, spoiled, warnings_of

DEVICE = "edges[E1].devices[D1]."
COIL = "table: coil, address: 0, type: bit"
POINTS = "          - {tag: T101.LEVEL, table: holding, address: 0, type: f32}\n"


def the_problem(text, place):
    (problem,) = problems_of(text)
    assert problem.place == place
    return problem


# ------------------------------------------------------------------ F46: names


@pytest.mark.fault("F46")
def test_a_tag_id_that_stands_twice_is_refused_with_both_places():
    text = spoiled("id: T101.TEMPERATURE", "id: T101.LEVEL")
    text = spoiled("tag: T101.TEMPERATURE", "tag: T101.LEVEL", text)
    problem = next(p for p in problems_of(text) if p.place == "tags[T101.LEVEL].id")
    first = line_of(text, "id: T101.LEVEL")
    assert problem.line == line_of(text, "quantity: temperature") - 3
    assert f"{FILE}:{first}:" in problem.message


@pytest.mark.fault("F46")
@pytest.mark.spec("tck-id-case-sensitivity-metric-names")
def test_ids_that_differ_only_in_capitals_are_refused_with_both_places():
    text = SOUND.replace("T101.TEMPERATURE", "T101.Level")
    problem = next(p for p in problems_of(text) if "only in capitals" in p.message)
    assert problem.line == line_of(text, "id: T101.Level")
    assert f"{FILE}:{line_of(text, 'id: T101.LEVEL')}:" in problem.message


@pytest.mark.fault("F46")
@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("      - {id: T101,", "      - {id: t101, name: x, kind: tank}\n      - {id: T101,", "hazard_sources[HS1].equipment[T101].id"),
        ("    devices:\n", "      - {id: b1, host: 10.0.0.6}\n    devices:\n", "edges[E1].buses[b1].id"),
        ("edges:\n", "edges:\n  - {id: e1}\n", "edges[E1].id"),
        ("      - id: D1\n", "      - {id: d1, bus: B1, unit: 2}\n      - id: D1\n", "edges[E1].devices[D1].id"),
    ],
)  # fmt: skip
@pytest.mark.spec("tck-id-case-sensitivity-sparkplug-ids")
@pytest.mark.spec("tck-id-topic-structure-namespace-unique-device-id")
@pytest.mark.spec("tck-id-topic-structure-namespace-unique-edge-node-descriptor")
def test_other_ids_that_collide_are_refused(old, new, place):
    assert "only in capitals" in the_problem(spoiled(old, new), place).message


@pytest.mark.spec("tck-id-topic-structure-namespace-duplicate-device-id-across-edge-node")
def test_a_device_id_may_repeat_on_another_edge():
    text = SOUND + "  - id: E2\n    buses: [{id: B1, host: h}]\n    devices: [{id: D1, bus: B1, unit: 1}]\n"
    assert problems_of(text) == ()


# ------------------------------------------------------------------ F46: registers


def with_points(*points: str) -> str:
    """The sound site with a tag `A.N0` ... for each further point, written as "holding 50 bit, bit: 3"."""
    tags, lines = [], []
    for number, point in enumerate(points):
        table, address, kind = point.split(" ", 2)
        measured = "level, unit: m, range: {low: 0, high: 100}"
        quantity = "contact" if kind.startswith("bit") else measured
        tags.append(f"  - {{id: A.N{number}, name: x, equipment: T101, quantity: {quantity}}}\n")
        lines.append(f"          - {{tag: A.N{number}, table: {table}, address: {address}, type: {kind}}}\n")
    text = spoiled(POINTS, POINTS + "".join(lines))
    return spoiled("receivers:\n", "".join(tags) + "receivers:\n", text)


@pytest.mark.fault("F46")
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(["holding 50 u16", "holding 50 bit, bit: 3"], id="word and bit"),
        pytest.param(["holding 50 bit, bit: 3", "holding 50 bit, bit: 4"], id="two bits"),
        pytest.param(["holding 50 f32", "holding 50 f32, scale: 2"], id="one type twice"),
        pytest.param(["holding 50 u32", "input 51 u32"], id="two tables"),
        pytest.param(["holding 50 u32", "holding 52 u32"], id="neighbours"),
        pytest.param(["coil 50 bit", "coil 50 bit"], id="one coil twice"),
    ],
)  # fmt: skip
def test_registers_that_may_be_shared(points):
    assert problems_of(with_points(*points)) == ()


@pytest.mark.fault("F46")
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(["holding 50 u32", "holding 51 u16"], id="second half as word"),
        pytest.param(["holding 50 u32", "holding 50 u16"], id="first half as word"),
        pytest.param(["holding 50 f32", "holding 50 bit, bit: 0"], id="bit of a float"),
        pytest.param(["holding 50 f32", "holding 51 f32"], id="shifted by one"),
        pytest.param(["holding 50 f32", "holding 50 u32"], id="two types"),
        pytest.param(["holding 50 u16", "holding 50 i16"], id="two signs"),
        pytest.param(["holding 50 f32", "holding 50 f32, word_order: CDAB"], id="two orders"),
        pytest.param(["input 50 f64", "input 53 u16"], id="end of a double"),
    ],
)  # fmt: skip
def test_registers_that_overlap_are_refused_with_both_places(points):
    text = with_points(*points)
    problem = the_problem(text, DEVICE + "points[A.N1].address")
    assert problem.line == line_of(text, "{tag: A.N1")
    assert f"{FILE}:{line_of(text, '{tag: A.N0')}:" in problem.message
    assert "A.N0" in problem.message


@pytest.mark.fault("F46")
def test_an_overlap_is_found_across_two_entries_of_one_unit():
    text = with_points("holding 50 u32")
    text = spoiled(
        "        points:\n",
        "        points: []\n      - id: D2\n        bus: B1\n        unit: 1\n        points:\n",
        text,
    )
    text = text.replace(
        "points: []", "points: [{tag: T101.INLET_OPEN, table: holding, address: 51, type: bit, bit: 0}]"
    )
    text = spoiled("          - {tag: T101.INLET_OPEN, table: coil, address: 0, type: bit}\n", "", text)
    assert any("overlaps" in problem.message for problem in problems_of(text))


POINT = st.tuples(st.integers(0, 12), st.sampled_from(["bit", "u16", "i16", "u32", "f32", "f64"]))


@pytest.mark.fault("F46")
@settings(max_examples=60, deadline=None)
@given(st.lists(POINT, min_size=2, max_size=6))
def test_overlaps_are_found_exactly_where_two_points_disagree(drawn):
    def disagree(one, two):
        (first, kind), (second, other) = sorted([one, two])
        if first + REGISTERS_OF[kind] <= second:
            return False
        widths = {REGISTERS_OF[kind], REGISTERS_OF[other]}
        if widths == {1}:
            return kind != other and "bit" not in (kind, other)
        return (first, kind) != (second, other)

    points = [f"input {address} {kind}" + (", bit: 0" if kind == "bit" else "") for address, kind in drawn]
    expected = any(disagree(one, two) for i, one in enumerate(drawn) for two in drawn[:i])
    assert any("overlaps" in problem.message for problem in problems_of(with_points(*points))) == expected


# ------------------------------------------------------------------ F47: limits


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("setpoint: 10,", "setpoint: 8.5,", "limits.HH.setpoint", "HH 8.5 is below H 9"),
        ("setpoint: 1,", "setpoint: 9.5,", "limits.H.setpoint", "H 9 is below L 9.5"),
        ("grade: red", "grade: blue", "limits.HH.grade", "HH is blue but H, which comes first, is yellow"),
        ("setpoint: 9,", "setpoint: .nan,", "limits.H.setpoint", "not a finite number"),
        ("setpoint: 9,", "setpoint: .inf,", "limits.H.setpoint", "not a finite number"),
        ("setpoint: 9,", "setpoint: 1e400,", "limits.H.setpoint", "not a finite number"),
        ("setpoint: 10,", "setpoint: 13,", "limits.HH.setpoint", "outside the range 0 to 12 m"),
        ("setpoint: 1,", "setpoint: -1,", "limits.L.setpoint", "outside the range"),
        ("deadband: 0.2, grade: red", "deadband: 10, grade: red", "limits.HH.deadband", "could never clear"),
        ("deadband: 0.2, grade: blue", "deadband: 11, grade: blue", "limits.L.deadband", "could never clear"),
        ("range: {low: 0, high: 12}", "range: {low: 12, high: 0}", "range", "not below"),
    ],
)
def test_limits_that_contradict_are_refused(old, new, place, words):
    assert words in the_problem_at(spoiled(old, new), f"tags[T101.LEVEL].{place}").message


def the_problem_at(text, place):
    (problem,) = [p for p in problems_of(text) if p.place == place]
    return problem


@pytest.mark.fault("F47")
def test_an_order_that_is_upside_down_names_both_places():
    text = spoiled("setpoint: 10,", "setpoint: 8.5,")
    problem = the_problem(text, "tags[T101.LEVEL].limits.HH.setpoint")
    assert f"{FILE}:{line_of(text, '      H: {')}:" in problem.message


@pytest.mark.fault("F47")
def test_the_low_side_mirrors_the_high_side():
    text = spoiled(
        "      L: {", "      LL: {setpoint: 0.5, deadband: 0.1, grade: red, guidance: Stop the pump now.}\n      L: {"
    )
    assert problems_of(text) == ()
    upside_down = spoiled("setpoint: 0.5,", "setpoint: 1.5,", text)
    assert "L 1 is below LL 1.5" in the_problem(upside_down, "tags[T101.LEVEL].limits.L.setpoint").message
    milder = text.replace("0.1, grade: red", "0.1, grade: yellow").replace("0.2, grade: blue", "0.2, grade: orange")
    assert "LL is yellow" in the_problem(milder, "tags[T101.LEVEL].limits.LL.grade").message


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("deadband: 0.2, grade: blue", "deadband: 8, grade: blue", "L clears only at 9, where H alarms"),
        ("deadband: 0.2, grade: yellow", "deadband: 8, grade: yellow", "H clears only at 1, where L alarms"),
        ("deadband: 0.2, grade: red", "deadband: 9.1, grade: red", "HH clears only at 0.9, where L alarms"),
    ],
)
def test_a_deadband_that_reaches_the_opposite_limit_is_refused(old, new, words):
    assert words in [problem.message for problem in problems_of(spoiled(old, new))]


def test_a_farther_limit_that_clears_after_the_nearer_one_warns():
    (warning,) = warnings_of(spoiled("deadband: 0.2, grade: red", "deadband: 1.5, grade: red"))
    assert warning.message == "HH clears at 8.5, only after H, which clears at 8.8"


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("old", "new", "kind"), [("setpoint: 10,", "setpoint: 9,", "HH"), ("setpoint: 1,", "setpoint: 9,", "H")]
)
def test_equal_limits_warn_and_load(old, new, kind):
    text = spoiled(old, new)
    assert problems_of(text) == ()
    assert [w.place for w in warnings_of(text)] == [f"tags[T101.LEVEL].limits.{kind}.setpoint"]


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("line", "words"), [("    unit: m\n", "needs a unit"), ("    range: {low: 0, high: 12}\n", "needs a range")]
)
def test_a_measured_tag_needs_unit_and_range(line, words):
    assert words in the_problem(spoiled(line, ""), "tags[T101.LEVEL]").message


@pytest.mark.fault("F47")
def test_a_unit_of_another_quantity_is_refused_with_the_right_ones():
    problem = the_problem(spoiled("unit: m\n", "unit: MPa\n"), "tags[T101.LEVEL].unit")
    assert "no unit of level" in problem.message
    assert "mm" in problem.hint


@pytest.mark.fault("F47")
def test_a_discrete_tag_needs_no_unit_and_takes_none():
    assert sound_site().tags[2].unit is None
    text = spoiled("    quantity: valve_state\n", "    quantity: valve_state\n    unit: m\n")
    assert "has no unit" in the_problem(text, "tags[T101.INLET_OPEN].unit").message
    text = spoiled("state: {alarm_value: 1,", "H: {setpoint: 0.5, deadband: 0.1,")
    assert "has no H" in the_problem(text, "tags[T101.INLET_OPEN].limits.H").message


@pytest.mark.fault("F47")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    unit: °C\n", ""),
        ("    range: {low: -40, high: 80}\n", ""),
        ("    range: {low: -40, high: 80}\n", "    range: {low: 80, high: -40}\n"),
        ("unit: °C", "unit: MPa"),
        ("          - {tag: T101.TEMPERATURE, table: holding, address: 2, type: i16, scale: 0.1}\n", ""),
        ("type: i16, scale: 0.1", "type: u16, scale: 0.1"),
        ("address: 2, type: i16", "address: 1, type: i16"),
        (
            "    report_deadband: 0.5\n",
            "    limits: {H: {setpoint: 900, deadband: 1, grade: red, guidance: Do something now.}}\n",
        ),
        ("    report_deadband: 0.5\n", "    stale_after_s: 10\n    longest_silence_s: 9\n"),
    ],
)
def test_what_blocks_a_tag_in_service_only_warns_of_a_planned_one(old, new):
    text = spoiled(old, new)
    assert problems_of(text)
    planned = spoiled("    quantity: temperature\n", "    quantity: temperature\n    state: planned\n", text)
    assert problems_of(planned) == ()


SETPOINTS = st.sampled_from([2.0, 4.0, 6.0, 8.0])
GRADES = st.sampled_from(["blue", "yellow", "orange", "red"])
LIMITS = st.dictionaries(st.sampled_from(["LL", "L", "H", "HH"]), st.tuples(SETPOINTS, GRADES), min_size=1)
RANK = {"blue": 1, "yellow": 2, "orange": 3, "red": 4}


@pytest.mark.fault("F47")
@settings(max_examples=80, deadline=None)
@given(LIMITS)
def test_any_set_of_limits_is_refused_exactly_when_order_or_grades_contradict(limits):
    kinds = [kind for kind in ("LL", "L", "H", "HH") if kind in limits]
    points = [limits[kind][0] for kind in kinds]
    grades = {kind: RANK[limits[kind][1]] for kind in kinds}
    upside_down = any(low > high for low, high in pairwise(points))
    contradicting = grades.get("HH", 9) < grades.get("H", 0) or grades.get("LL", 9) < grades.get("L", 0)
    lines = "".join(
        f"      {kind}: {{setpoint: {limits[kind][0]}, deadband: 0.1, grade: {limits[kind][1]}, guidance: Do something now.}}\n"
        for kind in kinds
    )
    begin, end = SOUND.index("      L: {"), SOUND.index("  - id: T101.TEMPERATURE")
    text = SOUND[:begin] + lines + SOUND[end:]
    assert bool(problems_of(text)) == (upside_down or contradicting)


# ------------------------------------------------------------------ F07: registers against the range


@pytest.mark.fault("F07")
@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("type: u16, scale: 0.1", "type: i16"),
        ("type: i16, scale: 0.001", "check type, scale and offset"),
        ("type: u16, scale: 0.1, offset: -20", "the rest could never be seen"),
        ("type: i16, scale: -0.001", "the rest could never be seen"),
    ],
)
def test_a_register_that_cannot_express_the_range_is_refused(new, words):
    problem = next(iter(problems_of(spoiled("type: i16, scale: 0.1", new))))
    assert words in str(problem)
    assert "T101.TEMPERATURE ranges from -40 to 80" in problem.message


@pytest.mark.fault("F07")
@pytest.mark.parametrize(
    "new", ["type: f32", "type: i32, scale: 0.001", "type: u16, scale: 0.1, offset: -100", "type: i16, scale: -0.1"]
)
def test_a_register_that_expresses_the_range_is_accepted(new):
    assert problems_of(spoiled("type: i16, scale: 0.1", new)) == ()


@pytest.mark.fault("F07")
def test_a_coarse_scale_warns():
    (warning,) = warnings_of(spoiled("type: i16, scale: 0.1", "type: i16, scale: 10"))
    assert "one raw step" in warning.message


# ------------------------------------------------------------------ points, references, times


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("T101\n    quantity: level", "T102\n    quantity: level", "tags[T101.LEVEL].equipment", "did you mean 'T101'?"),
        ("bus: B1\n", "bus: B7\n", "@bus", "did you mean 'B1'?"),
        ("    regulator: true\n", "    regulator: true\n    region: 990000/990101\n", "receivers[CITY].region", "990000/990100"),
        ("type: i16, scale: 0.1", "type: bit", "@points[T101.TEMPERATURE]", "which bit"),
        (COIL, "table: coil, address: 0, type: u16", "@points[T101.INLET_OPEN].type", "single bits"),
        (COIL, "table: coil, address: 0, type: bit, bit: 1", "@points[T101.INLET_OPEN].bit", "one bit already"),
        (COIL, "table: coil, address: 0, type: bit, scale: 2", "@points[T101.INLET_OPEN].scale", "away from 0 and 1"),
        ("address: 0, type: f32", "address: 65535, type: f32", "@points[T101.LEVEL].address", "beyond address 65535"),
        ("type: i16, scale: 0.1", "type: i16, scale: 0.1, bit: 2", "@points[T101.TEMPERATURE].bit", "whole register"),
        ("    report_deadband: 0.5\n", "    longest_silence_s: 16\n", "tags[T101.TEMPERATURE].longest_silence_s", "half of"),
        ("    unit: m\n", "    unit: m\n    report_deadband: 1\n", "tags[T101.LEVEL].report_deadband", "every change"),
        ("        unit: 1\n", "        unit: 1\n        registers_max: 1\n", "@points[T101.LEVEL].type", "registers_max"),
        ("{tag: T101.LEVEL, table", "{tag: T101.LEVLE, table", "@points[T101.LEVLE].tag", "did you mean 'T101.LEVEL'?"),
    ],
)  # fmt: skip
def test_other_contradictions_are_refused(old, new, place, words):
    assert words in str(the_problem_at(spoiled(old, new), place.replace("@", DEVICE)))


def test_a_tag_in_service_that_nobody_reads_is_refused():
    problem = the_problem(spoiled(POINTS, ""), "tags[T101.LEVEL].id")
    assert "no point of any edge reads" in problem.message


def test_a_tag_read_twice_is_refused_with_both_places():
    text = spoiled(POINTS, POINTS + POINTS.replace("address: 0", "address: 40"))
    problem = the_problem(text, DEVICE + "points[T101.LEVEL].tag")
    assert f"{FILE}:{line_of(text, 'address: 0, type: f32')}:" in problem.message


def test_a_poll_slower_than_half_the_stale_time_is_refused():
    text = spoiled("        unit: 1\n", "        unit: 1\n        period_s: 16\n")
    assert len(problems_of(text)) == 3
    assert all("polled every 16 s" in problem.message for problem in problems_of(text))


def test_shortening_stale_after_alone_shortens_the_silence_too():
    text = spoiled("    report_deadband: 0.5\n", "    stale_after_s: 6\n")
    assert problems_of(text) == ()


@pytest.mark.parametrize(("r_value", "grade"), [(100, 1), (99.9, 2), (50, 2), (10, 3), (9.9, 4), (0.1, 4)])
def test_a_grade_that_contradicts_r_warns(r_value, grade):
    for given_grade in (1, 2, 3, 4):
        text = spoiled(
            "    kind: storage\n",
            f"    kind: storage\n    s_value: 2\n    r_value: {r_value}\n    grade: {given_grade}\n",
        )
        assert bool(warnings_of(text)) == (given_grade != grade)


def test_a_grade_without_s_of_one_warns():
    text = spoiled("    kind: storage\n", "    kind: storage\n    s_value: 0.9\n    grade: 4\n")
    assert "below 1" in warnings_of(text)[0].message


def test_a_colour_that_no_receiver_wants_warns():
    text = spoiled("    regulator: true\n", "    regulator: true\n    grades: [yellow, orange, red]\n")
    assert [w.message for w in warnings_of(text)] == ["no receiver wants blue alarms"]


def test_a_site_built_in_code_is_checked_the_same_way():
    site = sound_site()
    assert cross_check(site).errors == ()
    twice = site.model_copy(update={"tags": (*site.tags, site.tags[0])})
    (problem,) = cross_check(twice).errors
    assert problem.place == "tags[3].id"
    assert "tags[0].id" in problem.message
    assert problem.line == 0
