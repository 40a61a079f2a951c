"""Cells and words: exact widths whatever the script, times in the site's zone, whatever numbers come."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cli.watch import words
from cli.watch.lines import wrapped
from cli.watch.rows import Column, column_widths, fitted
from cli.watch.words import Times, lasting, number, plain
from gateway.serve.models import CoreState, Health, LedgerState

AT = 1_763_000_000_000  # 2025-11-13 02:13:20 UTC


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Mn", "Me"]), max_size=40),
    st.integers(0, 30),
    st.booleans(),
)
def test_a_cell_has_its_width(text: str, width: int, right: bool) -> None:
    assert cell_len(fitted(text, width, right=right)) == width
    assert cell_len(fitted(text, width, keep_end=right)) == width


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [("CORE.HISTORIAN.SPACE", 6, "…SPACE"), ("液位高", 4, "…高 "), ("ab", 2, "ab"), ("ab", 1, "…"), ("ab", 0, "")],
)
def test_what_is_cut_at_its_beginning_shows_it(text: str, width: int, cut: str) -> None:
    assert fitted(text, width, keep_end=True) == cut


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("液位", 4, "液位"),
        ("液位", 3, "液…"),
        ("液位高", 4, "液 …"),
        ("abc", 5, "abc  "),
        ("abcd", 3, "ab…"),
        ("x", 0, ""),
    ],
)
def test_what_is_cut_shows_it(text: str, width: int, cut: str) -> None:
    assert fitted(text, width) == cut


@given(st.text("ab 液位，。", max_size=60), st.integers(4, 30))
def test_a_wrapped_text_is_whole(text: str, width: int) -> None:
    broken = wrapped(text, width)
    assert "".join(broken) == text
    for line in broken:
        assert cell_len(line.rstrip()) <= width or not any(char in " 液位" for char in line.rstrip()[1:])


def test_chinese_breaks_anywhere_but_before_a_stop() -> None:
    assert wrapped("结果未知。请先查看 HH 2.3", 8) == ["结果未", "知。请先", "查看 HH ", "2.3"]


@given(st.text(max_size=60))
def test_no_text_steers_the_terminal(text: str) -> None:
    assert plain(text).isprintable()


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=12), st.integers(0, 300))
def test_columns_use_the_room_and_never_shrink(shapes: list[tuple[int, int]], spare: int) -> None:
    columns = [Column("", width, grow) for width, grow in shapes]
    width = 1 + sum(column.width + 1 for column in columns) + spare
    widths = column_widths(columns, width)
    assert all(wide >= column.width for wide, column in zip(widths, columns, strict=True))
    used = 1 + sum(wide + 1 for wide in widths)
    assert used == (width if any(column.grow for column in columns) else width - spare)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.0, "0"),
        (2.350001, "2.35"),
        (123456.4, "123456"),
        (99999.0, "99999"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
    ],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_times_are_the_sites() -> None:
    times = Times("Asia/Shanghai")
    assert times.clock(AT) == "2025-11-13 10:13:20 CST"
    assert times.short(AT, AT + 60_000) == "10:13:20"
    assert times.short(AT, AT + 86_400_000) == "11-13 10:13"
    assert times.shortest(AT, AT + 86_400_000) == "11-13"


@pytest.mark.parametrize("name", ["", "No/Where", "../../etc/passwd", "\x00"])
def test_an_unknown_zone_is_utc(name: str) -> None:
    assert Times(name).clock(AT) == "2025-11-13 02:13:20 UTC"


@pytest.mark.parametrize("at_ms", [-(2**63), 2**63, -1, 0])
def test_no_time_ends_the_screen(at_ms: int) -> None:
    assert Times("Asia/Shanghai").full(at_ms)


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [(0, "0 s", "0 秒"), (59, "59 s", "59 秒"), (61, "1 min 1 s", "1 分 1 秒"), (3_661, "1 h 1 min", "1 小时 1 分"),
     (90_000, "1 d 1 h", "1 天 1 小时")],
)  # fmt: skip
def test_lengths_of_time(seconds: int, en: str, zh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for lang, told in (("en", en), ("zh", zh)):
        monkeypatch.setenv("HAZARDGATE_LANG", lang)
        assert lasting(seconds) == told


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_words_the_gateway_may_learn_later_are_shown_as_they_are(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    for word in (words.reason, words.outcome, words.role, words.lane):
        assert word("new.word\n") == "new.word\\n"


NAMED = (Health.__doc__ or "").partition("degraded:")[2].partition("heartbeat_age_ms:")[0]
REASONS = {
    *(word for word in re.findall(r"`([a-z._]+)`", NAMED) if word != "reasons"),
    *(f"core.{state}" for state in get_args(CoreState) if state != "running"),
    *(f"ledger.{state}" for state in get_args(LedgerState) if state != "ok"),
}


@pytest.mark.parametrize("reason", sorted(REASONS))
@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_reason_of_the_gateway_has_words(reason: str, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", language)
    assert words.reason(reason) != reason
