"""The marks of the tests, the list of statements and the list of exceptions hold together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conformance import EXCEPTIONS_FILE, ConformanceFileError, read_exceptions, read_ids

TESTS = Path(__file__).parent
DECISIONS = EXCEPTIONS_FILE.parent / "decisions"
MARK = re.compile(r'mark\.spec\(\s*"([a-z0-9-]*)"')
IDS = {"tck-id-a": "edge", "tck-id-a-b": "host", "tck-id-c": "edge"}
REASON = "Because nobody has ever seen a need for it, nor will."


def marked() -> set[str]:
    """Every id that some test claims to prove."""
    return {name for path in TESTS.rglob("*.py") for name in MARK.findall(path.read_text("utf-8"))}


def test_every_mark_names_a_statement_of_the_specification() -> None:
    assert marked() - set(read_ids()) == set()


def test_no_statement_is_both_proven_and_excepted() -> None:
    assert marked() & set(read_exceptions(read_ids())) == set()


def test_every_statement_is_proven_or_excepted() -> None:
    ids = read_ids()
    assert len(ids) == 299
    assert set(ids) - marked() - set(read_exceptions(ids)) == set()


def test_a_decision_that_an_exception_names_is_there() -> None:
    for excepted in read_exceptions(read_ids()).values():
        assert not excepted.decision or list(DECISIONS.glob(f"{excepted.decision}-*.md"))


def written(folder: Path, *groups: tuple[list[str], str]) -> Path:
    path = folder / "exceptions.toml"
    path.write_text("".join(f'[[exception]]\nids = {ids}\nreason = "{reason}"\n' for ids, reason in groups), "utf-8")
    return path


def test_a_star_stands_for_all_ids_that_begin_so(tmp_path: Path) -> None:
    assert set(read_exceptions(IDS, written(tmp_path, (["tck-id-a*"], REASON)))) == {"tck-id-a", "tck-id-a-b"}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        pytest.param([(["tck-id-x"], REASON)], "no statement", id="an unknown id"),
        pytest.param([(["tck-id-x*"], REASON)], "no statement", id="a star for nothing"),
        pytest.param([(["tck-id-a*"], REASON), (["tck-id-a-b"], REASON)], "twice", id="one id with two reasons"),
        pytest.param([(["tck-id-c"], "Later.")], "reason", id="a reason that is none"),
    ],
)
def test_a_list_of_exceptions_that_cannot_be_is_refused(
    tmp_path: Path, groups: list[tuple[list[str], str]], words: str
) -> None:
    with pytest.raises(ConformanceFileError, match=words):
        read_exceptions(IDS, written(tmp_path, *groups))
