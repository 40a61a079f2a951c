"""The demo site is sound, says where its set points come from, and can be moved to other addresses."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise

import pytest
from pydantic import ValidationError

import config
from config import DEMO_SITE, Grade, LimitKind, check_site, export_edge, load_site, parse_site, rebind, site_schema_text
from config.schema import SCHEMA_FILE
from tests.config.documents import SOUND


def test_the_demo_site_loads_without_a_warning():
    check = check_site(DEMO_SITE)
    assert (check.errors, check.warnings) == ((), ())
    assert load_site(DEMO_SITE.parent) == check.site


def test_it_has_what_a_demo_needs():
    site = load_site(DEMO_SITE)
    assert 55 <= len(site.tags) <= 75
    assert [edge.id for edge in site.edges] == ["E1", "E2"]
    assert all(len(edge.devices) >= 3 for edge in site.edges)
    points = [point for edge in site.edges for device in edge.devices for point in device.points]
    orders = {device.word_order for edge in site.edges for device in edge.devices}
    assert orders == {"ABCD", "CDAB", "BADC", "DCBA"}
    assert {point.table for point in points} == {"holding", "input", "coil", "discrete"}
    assert {point.type for point in points} >= {"bit", "u16", "i16", "u32", "i32", "u64", "f32", "f64"}
    grades = Counter(row.grade for tag in site.tags for row in tag.limit_rows())
    assert set(grades) == set(Grade)
    assert [receiver.id for receiver in site.receivers] == ["CITY", "PARK"]
    assert [receiver.regulator for receiver in site.receivers] == [True, False]
    assert any(tag.planned for tag in site.tags)


def test_its_texts_can_be_shown_on_a_gbk_terminal():
    DEMO_SITE.read_text(encoding="utf-8").encode("gbk")


# GB/T 50493-2019 with the tabled occupational limits; GB 50072-2021 7.4.1, 7.4.3; GB 50116-2013 9.2.3 note.
LAWFUL_MAX = {
    ("CLG", "mg/m3"): {LimitKind.H: 1, LimitKind.HH: 2},
    ("AMG", "mg/m3"): {LimitKind.H: 20, LimitKind.HH: 40},
    ("LPG", "%LEL"): {LimitKind.H: 25, LimitKind.HH: 50},
    ("AMG", "%LEL"): {LimitKind.H: 25},
    ("AMG", "ppm"): {LimitKind.H: 150},
}


def test_gas_set_points_keep_to_the_standards_named_beside_them():
    seen = set()
    for tag in load_site(DEMO_SITE).tags:
        if tag.quantity not in ("toxic_gas", "combustible_gas"):
            continue
        key = (tag.id[:3], str(tag.unit))
        seen.add(key)
        setpoints = {row.kind: row.setpoint for row in tag.limit_rows()}
        for kind, most in LAWFUL_MAX[key].items():
            assert setpoints[kind] <= most, tag.id
        assert tag.safety_critical
    assert seen == set(LAWFUL_MAX)


def test_every_block_of_limits_names_its_source():
    lines = DEMO_SITE.read_text(encoding="utf-8").splitlines()
    blocks = [line for line in lines if line.startswith("    limits:") and "*" not in line]
    analog = [line for line, after in pairwise(lines) if line in blocks and "state:" not in after]
    assert analog
    assert all("[plant]" in line or "[50" in line for line in analog)


def test_a_state_limit_becomes_a_limit_at_one_half():
    tags = {tag.id: tag for tag in load_site(DEMO_SITE).tags}
    (supply,) = tags["CLSCRUB.SUPPLY"].limit_rows()
    (flame,) = tags["LPGAS.FLAME"].limit_rows()
    assert (supply.kind, supply.setpoint, supply.on_delay_s) == (LimitKind.L, 0.5, 1.0)
    assert (flame.kind, flame.setpoint, flame.grade) == (LimitKind.H, 0.5, Grade.RED)
    assert supply.setpoint + supply.deadband < 1
    assert flame.setpoint - flame.deadband > 0


def test_grades_have_their_words():
    assert [(grade.word, grade.zh, int(grade)) for grade in Grade] == [
        ("blue", "蓝", 1), ("yellow", "黄", 2), ("orange", "橙", 3), ("red", "红", 4),
    ]  # fmt: skip
    assert Grade.of("红色") is Grade.of("RED") is Grade.of("红") is Grade.RED
    limit = parse_site(SOUND.replace("grade: red", "grade: 红")).tags[0].limits.HH
    assert limit is not None
    assert limit.grade is Grade.RED


def test_default_fault_grades():
    tags = {tag.id: tag for tag in load_site(DEMO_SITE).tags}
    assert tags["CLG01.CL2"].fault_alarm_grade() is Grade.YELLOW
    assert tags["CLWS.HUMIDITY"].fault_alarm_grade() is Grade.BLUE


def test_system_alarm_grades_go_by_the_last_word():
    alarms = load_site(DEMO_SITE).system_alarms
    assert alarms.grade_of("EDGE.E1.OFFLINE") is Grade.ORANGE
    assert alarms.grade_of("RECEIVER.CITY.DOWN") is Grade.ORANGE
    assert alarms.grade_of("LEDGER.HALF_FULL") is Grade.YELLOW


# ------------------------------------------------------------------ other addresses


def test_rebind_moves_what_is_named_and_nothing_else():
    site = load_site(DEMO_SITE)
    moved = rebind(
        site, {("E2", "LP-NET"): ("127.0.0.2", 4001)}, ("127.0.0.1", 4002), {"PARK": "http://127.0.0.1:4003/hooks/PARK"}
    )
    assert moved.edge("E2").buses[0].port == 4001
    assert moved.edge("E2").buses[1:] == site.edge("E2").buses[1:]
    assert moved.edge("E1") == site.edge("E1")
    assert (moved.broker.host, moved.broker.port) == ("127.0.0.1", 4002)
    assert moved.receiver("PARK").url.startswith("http://127.0.0.1:4003/")
    assert moved.receiver("CITY") == site.receiver("CITY")
    assert moved.tags == site.tags
    assert rebind(site) == site
    assert parse_site(config.dump_site(moved)) == moved


def test_rebind_to_loopback_needs_no_range_in_the_file():
    site = parse_site(SOUND)
    assert site.receivers[0].plain_http_ranges == ()
    moved = rebind(site, receiver_urls={"CITY": "http://127.0.0.1:1/x"})
    assert moved.receivers[0].plain_http_ranges == ("127.0.0.0/8",)
    assert moved.receivers[0].private_ranges == ()
    encrypted = rebind(site, receiver_urls={"CITY": "https://127.0.0.1:1/x"}).receivers[0]
    assert (encrypted.plain_http_ranges, encrypted.private_ranges) == ((), ("127.0.0.0/8",))
    with pytest.raises(ValidationError):
        rebind(site, receiver_urls={"CITY": "http://8.8.8.8/x"})


def test_rebind_carries_no_looked_up_table_along():
    site = parse_site(SOUND)
    assert site.edge_of == {"T101.LEVEL": "E1", "T101.TEMPERATURE": "E1", "T101.INLET_OPEN": "E1"}
    moved = rebind(site, {("E1", "B1"): ("h", 1)})
    assert "edge_of" not in vars(moved)
    assert export_edge(moved, "E1").edge.buses[0].host == "h"


@pytest.mark.parametrize(
    "changes",
    [{"bus_addresses": {("E9", "B1"): ("h", 1)}}, {"receiver_urls": {"NOBODY": "https://x.example/"}}],
)
def test_rebind_refuses_names_that_do_not_exist(changes):
    with pytest.raises(KeyError, match="has no"):
        rebind(parse_site(SOUND), **changes)


def test_rebind_refuses_a_port_that_is_none():
    with pytest.raises(ValidationError):
        rebind(parse_site(SOUND), {("E1", "B1"): ("h", 0)})


# ------------------------------------------------------------------ schema, face, size


def test_the_schema_file_is_up_to_date():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == site_schema_text(), "write site_schema_text() to the file"


def test_the_schema_describes_every_key_a_person_types():
    schema = json.loads(site_schema_text())
    tag = schema["$defs"]["TagConfig"]
    assert tag["additionalProperties"] is False
    assert set(tag["required"]) == {"id", "name", "equipment", "quantity"}
    assert schema["$defs"]["LimitConfig"]["properties"]["grade"]["enum"] == ["blue", "yellow", "orange", "red"]
    assert {branch["type"] for branch in schema["$defs"]["Names"]["anyOf"]} == {"string", "object"}


def test_the_public_face_is_complete_and_sorted():
    assert sorted(config.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)) == list(config.__all__)
    for name in config.__all__:
        assert getattr(config, name) is not None


def test_two_thousand_tags_load_in_time():
    begin = SOUND.index("tags:\n")
    middle, edges = SOUND.index("receivers:\n"), SOUND.index("        points:\n")
    limits = SOUND[SOUND.index("    limits:\n      L: {") : SOUND.index("  - id: T101.TEMPERATURE")]
    tags = "".join(
        f"  - id: T{n}.LEVEL\n    label: LT-{n}\n    name: {{zh: 液位, en: Level {n}}}\n    equipment: T101\n"
        f"    quantity: level\n    unit: m\n    range: {{low: 0, high: 12}}\n{limits}"
        for n in range(2000)
    )
    points = "".join(
        f"          - {{tag: T{n}.LEVEL, table: holding, address: {2 * n}, type: f32}}\n" for n in range(2000)
    )
    text = SOUND[:begin] + "tags:\n" + tags + SOUND[middle:edges] + "        points:\n" + points
    start = time.process_time()
    site = parse_site(text)
    assert time.process_time() - start < 20  # about 3 s on two free cores; a slip to quadratic would take minutes
    assert len(site.tags) == 2000
