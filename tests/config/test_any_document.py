"""Whatever is typed in place of whatever: the answer is a site or problems with places, never a crash."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import SiteConfig, check_text
from config.yaml_text import dump_yaml
from config.yaml_tree import parse_tree
from tests.config.documents import FILE, SOUND

WORDS = [
    "T101.LEVEL",
    "T101.level",
    "E1",
    "B1",
    "CITY",
    "HH",
    "red",
    "planned",
    "bit",
    "f64",
    "%LEL",
    "http://127.0.0.1/",
    "\x1b[2J",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(WORDS), st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "tag", "unit", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places_of(item, (*path, key)))]


PLACES = places_of(parse_tree(SOUND.encode(), FILE).plain())[1:]


def changed(place: tuple[str | int, ...], value: Any, document: Any) -> None:
    *parents, last = place
    for part in parents:
        if not isinstance(document, dict | list) or (isinstance(document, list) != isinstance(part, int)):
            return
        if part not in document if isinstance(document, dict) else int(part) >= len(document):
            return
        document = document[part]  # type: ignore[index]
    if isinstance(document, dict) == isinstance(last, str) and isinstance(document, dict | list):
        if isinstance(document, list) and int(last) >= len(document):
            return
        document[last] = value  # type: ignore[index]


@pytest.mark.fault("F45")
@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_change_gives_a_site_or_problems_with_places(changes):
    document = parse_tree(SOUND.encode(), FILE).plain()
    assert isinstance(document, dict)
    for place, value in changes:
        changed(place, value, document)
    text = dump_yaml(document).replace(": nan", ": .nan").replace(": inf", ": .inf").replace(": -inf", ": -.inf")
    check = check_text(text, FILE)
    assert (check.site is None) == bool(check.errors)
    assert isinstance(check.site, SiteConfig | None)
    lines = text.count("\n") + 1
    for problem in (*check.errors, *check.warnings):
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        for told in (str(problem), problem.describe("zh")):
            assert told.isprintable() or "\u3000" in told
            assert len(told) < 1500
