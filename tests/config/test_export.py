"""An edge's file holds what its box needs and no more, and comes back exactly as it went out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from config import (
    DEMO_SITE,
    ConfigErrors,
    EdgeFile,
    SiteConfig,
    UnknownEdgeError,
    dump_edge,
    dump_site,
    edge_hash,
    export_edge,
    load_edge,
    load_site,
    parse_site,
)
from config.yaml_text import dump_yaml
from config.yaml_tree import parse_tree
from tests.config.documents import SOUND, sound_site, spoiled


def loaded(edge_file: EdgeFile, path) -> EdgeFile:
    path.write_text(dump_edge(edge_file), encoding="utf-8")
    return load_edge(path)


def test_an_edge_file_holds_its_own_part_of_the_site(tmp_path):
    site = load_site(DEMO_SITE)
    files = {edge.id: export_edge(site, edge.id) for edge in site.edges}
    for edge in site.edges:
        points = [point.tag for device in edge.devices for point in device.points]
        assert [tag.id for tag in files[edge.id].tags] == points
        assert [point.tag for _, point in files[edge.id].points] == points
        assert loaded(files[edge.id], tmp_path / "edge.yaml") == files[edge.id]
    read = {tag.id for file in files.values() for tag in file.tags}
    assert read == {tag.id for tag in site.tags if not tag.planned}


def test_an_edge_file_knows_nothing_of_receivers_and_alarms():
    site = load_site(DEMO_SITE)
    for edge in site.edges:
        text = dump_edge(export_edge(site, edge.id))
        for receiver in site.receivers:
            assert receiver.id not in text.split()
            assert receiver.url not in text
            assert str(receiver.secret_env) not in text
        for word in ("receivers", "guidance", "setpoint", "secret", "grade"):
            assert word not in text


def test_what_the_edge_must_know_of_a_tag():
    file = export_edge(sound_site(), "E1")
    level, temperature, inlet = file.tags
    assert (level.has_limit, level.unit, level.range.high) == (True, "m", 12.0)
    assert (temperature.has_limit, temperature.report_deadband) == (False, 0.5)
    assert (inlet.discrete, inlet.has_limit, inlet.unit) == (True, True, None)
    assert (inlet.range.low, inlet.range.high) == (0.0, 1.0)


def test_points_of_planned_tags_stay_at_home():
    site = parse_site(spoiled("    quantity: temperature\n", "    quantity: temperature\n    state: planned\n"))
    assert [tag.id for tag in export_edge(site, "E1").tags] == ["T101.LEVEL", "T101.INLET_OPEN"]


def test_an_unknown_edge_is_named_with_the_nearest():
    with pytest.raises(UnknownEdgeError, match="did you mean 'E1'"):
        export_edge(sound_site(), "E11")


# ------------------------------------------------------------------ the hash


def test_the_hash_does_not_see_comments_order_and_defaults():
    same = parse_site("# a comment\n" + spoiled("        unit: 1\n", "        unit: 1\n        timeout_s: 1\n"))
    turned = parse_site(spoiled("{tag: T101.LEVEL, table: holding,", "{table: holding, tag: T101.LEVEL,"))
    digest = edge_hash(export_edge(sound_site(), "E1"))
    assert edge_hash(export_edge(same, "E1")) == digest
    assert edge_hash(export_edge(turned, "E1")) == digest
    assert len(digest) == 64


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("address: 2,", "address: 3,", True),
        ("scale: 0.1", "scale: 0.2", True),
        ("host: 10.0.0.5", "host: 10.0.0.6", True),
        ("high: 12", "high: 13", True),
        ("site: TEST", "site: TEST2", True),
        ("    report_deadband: 0.5\n", "", True),
        ("setpoint: 9,", "setpoint: 9.5,", False),
        ("id: CITY", "id: PARK", False),
        ("name: Level", "name: Height", False),
    ],
)
def test_the_hash_sees_what_the_edge_acts_on_and_nothing_else(old, new, changes):
    digest = edge_hash(export_edge(sound_site(), "E1"))
    assert (edge_hash(export_edge(parse_site(spoiled(old, new)), "E1")) != digest) == changes


def test_the_hash_survives_the_file(tmp_path):
    file = export_edge(load_site(DEMO_SITE), "E1")
    assert edge_hash(loaded(file, tmp_path / "e.yaml")) == edge_hash(file)


# ------------------------------------------------------------------ text round-trips


NASTY = st.one_of(
    st.sampled_from(
        ["null", "~", "true", "Yes", "off", "0755", "0x1F", "0o7", "1e5", ".5", "-.inf", ".NaN", "1_000", "12:30:00", "=", "<<",
         "2026-11-22", "", " ", "a: b", "- a", "# c", "a #b", "'", '"', "\\", "a\nb: c", "a\r\nb", "\t", "\x85", "\u2028", "\ufeff",
         "%TAG", "&a", "*a", "!!python/name:os.system", "|", ">", "{a: 1}", "[1]", "T,a=b c\\ \"q\" 1", "液氯", "\U0001f525", "?", ":"]
    ),
    st.text(max_size=40),
)  # fmt: skip


@pytest.mark.fault("F49")
@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        NASTY, st.one_of(NASTY, st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63))
    )
)
def test_any_text_and_number_written_comes_back_equal(document):
    document = {**document, "nested": [document, list(document.values())]}
    text = dump_yaml(document)
    back = parse_tree(text.encode(), "f.yaml").plain()
    assert back == document
    assert isinstance(back, dict)
    assert [type(value) for value in back.values()] == [type(value) for value in document.values()]
    assert YAML(typ="safe", pure=True).load(text) == document


@pytest.mark.fault("F49")
@settings(max_examples=40, deadline=None)
@given(NASTY.filter(bool))
def test_a_name_can_be_any_text_and_round_trips(name):
    site = sound_site()
    document = site.model_dump(mode="json", exclude_none=True)
    document["tags"][0]["name"] = {"zh": name, "en": name}
    document["tags"][0]["label"] = name
    document["broker"]["username"] = name
    named = SiteConfig.model_validate(document)
    assert parse_site(dump_site(named)) == named


def test_the_demo_site_survives_a_dump():
    site = load_site(DEMO_SITE)
    assert parse_site(dump_site(site)) == site


# ------------------------------------------------------------------ a file that was edited by hand


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("bus: B1\n", "bus: B2\n", "edge.devices[D1].bus", "no bus"),
        ("- {tag: T101.LEVEL,", "- {tag: T101.OTHER,", "edge.devices[D1].points[T101.OTHER].tag", "no tag"),
        (
            "- {tag: T101.LEVEL,",
            "- {tag: T101.TEMPERATURE,",
            "edge.devices[D1].points[T101.TEMPERATURE].tag",
            "already read",
        ),
        ("unit: m\n", "unti: m\n", "tags[T101.LEVEL].unti", "did you mean 'unit'?"),
        ("high: 12.0", "hihg: 12.0", "tags[T101.LEVEL].range.hihg", "did you mean 'high'?"),
    ],
)
def test_a_spoiled_edge_file_is_refused_with_places(tmp_path, old, new, place, words):
    text = dump_edge(export_edge(sound_site(), "E1"))
    path = tmp_path / "e1.yaml"
    path.write_text(spoiled(old, new, text), encoding="utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load_edge(path)
    told = [str(problem) for problem in caught.value.problems if problem.place == place]
    assert told
    assert words in told[0]
    assert told[0].startswith(f"{path}:")


def test_a_whole_site_is_no_edge_file(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(SOUND, encoding="utf-8")
    with pytest.raises(ConfigErrors, match="unknown key 'receivers'"):
        load_edge(path)
