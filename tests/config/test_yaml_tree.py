"""Only plain, bounded YAML comes in, and what is refused is explained with its line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import ConfigErrors
from config.yaml_tree import DEPTH_MAX, FILE_BYTES_MAX, parse_tree, read_tree


def refusal(raw: bytes | str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        parse_tree(raw if isinstance(raw, bytes) else raw.encode(), "f.yaml")
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("+7", 7),
        ("0x6000", 24576),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e-05", 1e-05),
        ("1.", 1.0),
        ("true", True),
        ("~", None),
        ("null", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("yes", "yes"),
        ("off", "off"),
        ("0755", "0755"),
        ("007.5", 7.5),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"),
        ("-", [None]),
        ("9" * 41, "9" * 41),
    ],
)
def test_plain_words_are_read_by_the_core_schema_of_yaml_1_2(text, value):
    found = parse_tree(text.encode(), "f.yaml").plain()
    assert found == value
    assert type(found) is type(value)


def test_nan_and_infinity_are_numbers_here_and_refused_by_the_models():
    found = parse_tree(b".nan", "f.yaml").plain()
    assert isinstance(found, float)
    assert math.isnan(found)
    assert parse_tree(b"-.inf", "f.yaml").plain() == -math.inf
    assert parse_tree(b"1e400", "f.yaml").plain() == math.inf


def test_places_count_from_one():
    root = parse_tree("a: 1\nb:\n  - x\n  - 液: 2\n".encode(), "f.yaml")
    listed = (root.entries or {})["b"].node.items
    assert listed is not None
    entry = (listed[1].entries or {})["液"]
    assert (entry.line, entry.column) == (4, 5)
    assert (entry.node.line, entry.node.column) == (4, 8)


@pytest.mark.fault("F45")
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a:\n\tb: 1\n", "f.yaml:2:1"),
        ("a:\n  b: 1\n\tc: 2\n", "f.yaml:3:1"),
        ("a:\n  - b: 1\n  \tc: 2\n", "f.yaml:3:3"),
    ],
)
def test_a_tab_is_explained_where_it_stands(text, where):
    told = refusal(text)
    assert told.startswith(f"{where}: ")
    assert "tab" in told
    assert "spaces" in told


def test_a_tab_inside_quotes_is_text_and_elsewhere_is_explained():
    assert parse_tree(b'a: "x\ty" # \t', "f.yaml").plain() == {"a": "x\ty"}
    assert refusal("a: x\ty").startswith("f.yaml:1:5: a tab stands where YAML wants a space")


def test_a_key_that_stands_twice_is_refused_with_both_places():
    told = refusal("a: 1\nb: 2\na: 3\n")
    assert told.startswith("f.yaml:3:1: ")
    assert "f.yaml:1:1" in told


def test_every_double_key_is_told_at_once():
    assert len(refusal("a: 1\na: 2\nb: {c: 1, c: 2}\n").splitlines()) == 2


@pytest.mark.fault("F53")
@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['true']",
        "!!python/object/new:type [x]",
        "a: !!binary aGk=",
        "a: !mine 1",
        "a: !!set {x, y}",
        "- !!timestamp 2026-01-01",
    ],
)
def test_tags_are_refused_and_build_nothing(text):
    assert "tag" in refusal(text)


@pytest.mark.fault("F53")
def test_billion_laughs_stops_at_the_limit():
    lines = ['a0: &a0 ["ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha"]']
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "grows beyond" in refusal("\n".join(lines))


@pytest.mark.fault("F53")
def test_an_alias_into_itself_is_refused():
    assert "no finished anchor" in refusal("a: &a [*a]")


@pytest.mark.fault("F53")
@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_depth_is_limited(opening):
    assert "nested deeper" in refusal(opening * 100_000)
    assert parse_tree(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, "f.yaml").items is not None


def test_aliases_repeat_a_value():
    assert parse_tree(b"a: &x {b: 1}\nc: *x\n", "f.yaml").plain() == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"a: 1\n---\nb: 2\n", "second YAML document"),
        ("a: 液氯\n".encode("gbk"), "GBK"),
        (b"a: \x00\n", "control character"),
        (b'a: "\\ud800"\n', "surrogate"),
        (b"a: [1, 2\n", "not valid YAML"),
        (b"? [a]\n: 1\n", "cannot be a key"),
        (b"<<: {a: 1}\n", "merge keys"),
        (b"a: *b\n", "anchor"),
        (b"a: 'x\n", "not valid YAML"),
    ],
)
def test_what_is_refused_is_named(raw, words):
    assert words in refusal(raw)


def test_a_byte_order_mark_is_no_matter():
    assert parse_tree(b"\xef\xbb\xbfa: 1", "f.yaml").plain() == {"a": 1}


def test_size_is_limited(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigErrors, match="larger than"):
        read_tree(path)


def test_a_missing_file_and_a_folder_are_explained(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigErrors, match="cannot be read"):
            read_tree(path)


YAML_BITS = st.sampled_from(
    ["a", ":", " ", "\n", "\t", "-", "[", "]", "{", "}", ",", "&", "*", "!", "|", ">", "'", '"', "%", "@", "#", "<<",
     "---", "...", "?", "0x", ".nan", "1e9", "\\", "\u2028", "液", "\x00", "\x85", "\ufeff", "!!python/name:os.system"]
)  # fmt: skip


@pytest.mark.fault("F53")
@given(st.one_of(st.binary(max_size=60), st.lists(YAML_BITS, max_size=40).map(lambda bits: "".join(bits).encode())))
def test_any_bytes_give_plain_values_or_a_refusal(raw):
    try:
        value = parse_tree(raw, "f.yaml").plain()
    except ConfigErrors as errors:
        told = [str(problem) for problem in errors.problems]
        value = None
    else:
        told = ["none"]
    assert told
    assert all(len(line.splitlines()) == 1 for line in told)
    assert isinstance(value, None | bool | int | float | str | list | dict)
