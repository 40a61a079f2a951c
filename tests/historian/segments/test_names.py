"""Names of the segment folder: what is made can be read back, and nothing else can be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.segments.names import (
    DAY_MAX,
    DAY_MIN,
    POS_MAX,
    Stem,
    day_ms,
    day_of,
    is_month,
    manifest_path,
    parse_data_name,
    parse_manifest_name,
    parse_stem,
    samples_path,
)

LEDGERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


@given(LEDGERS, st.integers(1, POS_MAX), st.integers(0, 10**6), st.sampled_from(["seal", "pack"]))
def test_a_name_says_what_it_was_made_of(ledger: str, first: int, more: int, kind: str) -> None:
    stem = Stem(ledger, first, min(first + more, POS_MAX), kind)  # type: ignore[arg-type]
    assert parse_manifest_name(stem.manifest_name) == stem
    assert parse_data_name(stem.data_name) == stem


def test_a_part_of_a_load_has_a_name() -> None:
    stem = Stem("influx2", 12, 12, "load")
    assert str(stem) == "load-influx2-00000012"
    assert parse_stem(str(stem)) == stem


@pytest.mark.fault("F51")
@pytest.mark.parametrize("owner", ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a\x00", "-a", "%2e%2e", "a.b", "罐", "a\n", "x" * 65])
def test_an_id_that_could_lead_out_of_the_folder_names_nothing(owner: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        Stem(owner, 1, 1, "seal")
    with pytest.raises(ValueError, match="cannot name"):
        Stem(owner, 1, 1, "load")


@pytest.mark.fault("F51")
@given(st.text(max_size=80))
def test_whatever_is_read_as_a_name_is_written_the_same(text: str) -> None:
    stem = parse_stem(text)
    assert stem is None or str(stem) == text


@pytest.mark.fault("F51")
@pytest.mark.parametrize("day", ["..", "2025-6-1", "2025-02-30", "2025-01-01/..", "", "/etc", "２０２５-01-01"])
def test_no_path_is_made_of_what_is_no_day(day: str) -> None:
    with pytest.raises(ValueError, match="not a day"):
        samples_path(Path("/h"), Stem("a", 1, 1, "seal"), day)


@pytest.mark.parametrize(
    "name",
    [
        "seal-a-0000000000000001-0000000000000000", "seal-a-0000000000000000-0000000000000001", "seal-a-1-2",
        "seal-a-00000000000000001-0000000000000002", "load-A-00000001", "pack-a", "seal-a-000000000000000１-0000000000000002",
    ],
)  # fmt: skip
def test_a_stranger_is_left_alone(name: str) -> None:
    assert parse_stem(name) is None


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (Stem("a", 3, 4, "seal"), Stem("a", 1, 9, "pack"), True),
        (Stem("a", 1, 9, "seal"), Stem("a", 1, 9, "pack"), True),
        (Stem("a", 1, 4, "pack"), Stem("a", 1, 9, "pack"), True),
        (Stem("a", 1, 9, "pack"), Stem("a", 1, 9, "pack"), False),
        (Stem("a", 3, 10, "seal"), Stem("a", 1, 9, "pack"), False),
        (Stem("b", 3, 4, "seal"), Stem("a", 1, 9, "pack"), False),
        (Stem("a", 3, 4, "seal"), Stem("a", 1, 9, "seal"), False),
        (Stem("a", 3, 3, "load"), Stem("a", 1, 9, "pack"), False),
    ],
)
def test_what_lies_inside_a_pack(inner: Stem, outer: Stem, expected: bool) -> None:
    assert inner.inside(outer) is expected


@given(st.integers(-(1 << 62), 1 << 62))
def test_every_time_has_a_day(source_ms: int) -> None:
    day = day_of(source_ms)
    begin = day_ms(day)
    assert day in (DAY_MIN, DAY_MAX) or begin <= source_ms < begin + 86_400_000


def test_paths_and_months() -> None:
    assert manifest_path(Path("/h"), Stem("a", 1, 2, "seal")) == Path("/h/manifests/seal-a-0000000000000001-0000000000000002.json")
    assert is_month("2025-06")
    assert not is_month("2025-13")
