"""F45: a slip in the file is told with its line, what is wrong, and the nearest word that would be right."""

from __future__ import annotations

import pytest

from config import ConfigErrors, parse_site
from tests.config.documents import FILE, SOUND, line_of, problems_of, sound_site, spoiled


def test_the_sound_document_loads():
    site = sound_site()
    assert [tag.id for tag in site.tags] == ["T101.LEVEL", "T101.TEMPERATURE", "T101.INLET_OPEN"]
    assert site.tag_index["T101.TEMPERATURE"] == 1
    assert site.region.path == "990000/990100/990101/990101001"


SLIPS = [
    # what stood, what was typed, place of the complaint, words of message or hint
    ("    quantity: level\n", "    quantty: level\n", "tags[T101.LEVEL].quantty", "unknown key 'quantty'; did you mean 'quantity'?"),
    ("deadband: 0.2, grade: red", "dedband: 0.2, grade: red", "tags[T101.LEVEL].limits.HH.dedband", "did you mean 'deadband'?"),
    ("      HH:", "      HHH:", "tags[T101.LEVEL].limits.HHH", "did you mean 'HH'?"),
    ("        unit: 1\n", "        unti: 1\n", "edges[E1].devices[D1].unti", "did you mean 'unit'?"),
    ("address: 2, type", "adress: 2, type", "edges[E1].devices[D1].points[T101.TEMPERATURE].adress", "did you mean 'address'?"),
    ("receivers:", "recievers:", "recievers", "did you mean 'receivers'?"),
    ("quantity: level", "quantity: levle", "tags[T101.LEVEL].quantity", "did you mean 'level'?"),
    ("unit: °C", "unit: ℃", "tags[T101.TEMPERATURE].unit", "did you mean '°C'?"),
    ("unit: m\n", "unit: mpa\n", "tags[T101.LEVEL].unit", "did you mean 'MPa'?"),
    ("grade: blue", "grade: bleu", "tags[T101.LEVEL].limits.L.grade", "did you mean 'blue'?"),
    ("grade: blue", "grade: 1", "tags[T101.LEVEL].limits.L.grade", "valid here: blue, yellow, orange, red"),
    ("kind: storage", "kind: storge", "hazard_sources[HS1].kind", "did you mean 'storage'?"),
    ("type: f32", "type: float32", "edges[E1].devices[D1].points[T101.LEVEL].type", "one of the valid words"),
    ("setpoint: 9,", "setpoint: nine,", "tags[T101.LEVEL].limits.H.setpoint", "'nine' is not a number"),
    ("setpoint: 9,", "setpoint: true,", "tags[T101.LEVEL].limits.H.setpoint", "True is not a number"),
    ("setpoint: 9,", "setpoint: '9',", "tags[T101.LEVEL].limits.H.setpoint", "without quotes"),
    ("address: 2,", "address: 2.5,", "edges[E1].devices[D1].points[T101.TEMPERATURE].address", "whole number"),
    ("address: 2,", "address: 65536,", "edges[E1].devices[D1].points[T101.TEMPERATURE].address", "65535"),
    ("regulator: true", "regulator: yes", "receivers[CITY].regulator", "write true or false"),
    ('code: "990100"', "code: 990100", "region.county.code", "put it in quotes"),
    ("guidance: Stop the pump first.", "guidance: Stop!", "tags[T101.LEVEL].limits.L.guidance", "at least 10 characters"),
    ("id: T101.LEVEL", "id: t101.level", "tags[t101.level].id", "write capitals"),
    ("id: T101.LEVEL", 'id: "T101.LEVEL\\n"', "tags[T101.LEVEL\\n].id", "pattern"),
    ("deadband: 0.2, grade: blue", "deadband: 0, grade: blue", "tags[T101.LEVEL].limits.L.deadband", "greater than 0"),
    ("    range: {low: 0, high: 12}", "    range: 12", "tags[T101.LEVEL].range", "mapping"),
    ("name: Test site", "name: {zh: 甲, 乙, en: A}", "name.乙", "put the text in quotes"),
    ("version: 1", "version: 1\ntimezone: Asia/Peking", "timezone", "Asia/Shanghai"),
]  # fmt: skip


@pytest.mark.fault("F45")
@pytest.mark.parametrize(("old", "new", "place", "words"), SLIPS)
def test_a_slip_is_told_with_place_and_remedy(old, new, place, words):
    text = spoiled(old, new)
    (problem,) = [p for p in problems_of(text) if p.place == place]
    assert words in str(problem)
    typed_on = line_of(text, new.strip("\n").splitlines()[-1])
    assert str(problem).startswith(f"{FILE}:{typed_on}:{problem.column}: {place}: ")
    assert problem.column > 0
    assert problem.message_zh or "value_error" in str(problem) or place == "timezone" or "65535" in words


@pytest.mark.fault("F45")
def test_the_column_is_that_of_the_slip():
    text = spoiled("deadband: 0.2, grade: red", "dedband: 0.2, grade: red")
    line = text.splitlines()[line_of(text, "dedband") - 1]
    columns = {problem.place.rsplit(".", 1)[-1]: problem.column for problem in problems_of(text)}
    assert columns["dedband"] == line.index("dedband") + 1
    text = spoiled("setpoint: 9,", "setpoint: nine,")
    line = text.splitlines()[line_of(text, "nine") - 1]
    assert problems_of(text)[0].column == line.index("nine") + 1


@pytest.mark.fault("F45")
def test_a_missing_key_is_told_at_its_parent():
    text = spoiled("    name: Temperature\n", "")
    (problem,) = problems_of(text)
    assert problem.place == "tags[T101.TEMPERATURE].name"
    assert problem.line == line_of(text, "id: T101.TEMPERATURE")
    assert "missing" in problem.message


@pytest.mark.fault("F45")
def test_all_slips_are_told_at_once_in_the_order_of_the_file():
    text = SOUND
    for old, new in (
        ("kind: storage", "kind: storge"),
        ("unit: °C", "unit: Cels"),
        ("setpoint: 9,", "setpoint: .nan,"),
        ("bus: B1", "bus: B2"),
        ("tag: T101.INLET_OPEN", "tag: T101.INLET_OPN"),
    ):
        text = spoiled(old, new, text)
    problems = problems_of(text)
    assert [p.place for p in problems] == [
        "hazard_sources[HS1].kind",
        "tags[T101.LEVEL].limits.H.setpoint",
        "tags[T101.TEMPERATURE].unit",
        "tags[T101.INLET_OPEN].id",
        "edges[E1].devices[D1].bus",
        "edges[E1].devices[D1].points[T101.INLET_OPN].tag",
    ]
    with pytest.raises(ConfigErrors) as caught:
        parse_site(text, FILE)
    assert len(str(caught.value).splitlines()) == 6


@pytest.mark.fault("F45")
def test_a_slip_in_one_tag_does_not_hide_a_contradiction_in_another():
    text = spoiled("unit: °C", "unit: Cels")
    text = spoiled("setpoint: 10,", "setpoint: 8,", text)
    assert {p.place for p in problems_of(text)} >= {
        "tags[T101.TEMPERATURE].unit",
        "tags[T101.LEVEL].limits.HH.setpoint",
    }


@pytest.mark.fault("F45")
def test_a_slip_in_a_tag_or_a_device_does_not_hide_contradictions_in_the_same_one():
    text = spoiled("    name: Level\n", "    nmae: Level\n")
    text = spoiled("setpoint: 10,", "setpoint: 8,", text)
    text = spoiled("deadband: 0.2, grade: blue", "deadband: 0.2, grade: bleu", text)
    text = spoiled("    unit: m\n", "    unit: MPa\n", text)
    text = spoiled("        bus: B1\n", "        bus: B2\n        timeout: 1\n", text)
    text = spoiled("address: 2, type: i16", "address: 1, type: i16", text)
    text = spoiled("table: coil, address: 0", "tabel: coil, address: 0", text)
    assert [p.place.replace("edges[E1].devices[D1]", "D1") for p in problems_of(text)] == [
        "tags[T101.LEVEL].name",
        "tags[T101.LEVEL].nmae",
        "tags[T101.LEVEL].unit",
        "tags[T101.LEVEL].limits.L.grade",
        "tags[T101.LEVEL].limits.HH.setpoint",
        "D1.timeout",
        "D1.points[T101.INLET_OPEN].table",
        "D1.points[T101.INLET_OPEN].tabel",
    ]
    (overlap,) = [p for p in problems_of(spoiled("        timeout: 1\n", "", text)) if "overlaps" in p.message]
    assert overlap.place.endswith("points[T101.TEMPERATURE].address")


@pytest.mark.fault("F45")
def test_a_faulty_tag_or_edge_causes_no_second_complaint():
    assert len(problems_of(spoiled("unit: °C", "unit: Cels"))) == 1
    assert len(problems_of(spoiled("host: 10.0.0.5", "hots: 10.0.0.5"))) == 2  # unknown key, missing key


@pytest.mark.parametrize("text", ["[]", "12", "a", "[{version: 1}]"])
def test_a_document_that_is_no_mapping_is_refused(text):
    (problem,) = problems_of(text)
    assert "version: 1" in problem.hint


def test_a_wrong_shape_anywhere_is_a_problem_and_no_crash():
    for key in ("tags", "edges", "receivers", "hazard_sources", "region", "broker", "storage", "system_alarms", "name"):
        for value in ("null", "12", "text", "[1, [2]]", "{a: {b: 1}}", "[{id: 5}]", "[{id: [1]}]", "true"):
            text = f"version: 1\nsite: TEST\n{key}: {value}\n"
            assert problems_of(text), text


@pytest.mark.fault("F57")
def test_text_from_the_file_cannot_forge_a_line_of_the_message():
    evil = '"x\\r\\n2026 ALL CLEAR\\e[2J\\u2028\\u202e\\0"'
    for text in (
        spoiled("bus: B1", f"bus: {evil}"),
        spoiled("kind: storage", f"{evil}: 1"),
        spoiled("id: CITY", f"id: {evil}"),
    ):
        problems = problems_of(text)
        assert problems
        for problem in problems:
            for told in (str(problem), problem.describe("zh")):
                assert len(told.splitlines()) == 1
                assert not set(told) & set("\r\n\x1b\u2028\u202e\0")
