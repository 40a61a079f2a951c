"""What tags show follows from the log alone: not from how its rows were cut, and as a plain reading of them says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.entries import Columns, EntryKind, pack_columns, pack_json, unpack_columns
from gateway.serve.recent import RecentFrames
from gateway.serve.tail import NEVER, LogRow, Tail, read_rows
from tests.gateway.field import Taken, block, site
from wire import Quality

SITE = site()
TAGS = [tag.id for tag in SITE.tags]
NUMBERS = {at + 3: name for at, name in enumerate([*TAGS, "GONE.TAG"])}  # as the ledger numbers them
LIVE, SEALED, UNMARKED = 7, 8, -5
GOOD = int(Quality.GOOD)
EDGES = [edge.id for edge in SITE.edges]

Drawn = tuple[EntryKind, str, int, int, list[Any]]

samples = st.lists(
    st.tuples(st.sampled_from(sorted(NUMBERS)), st.floats(0, 10), st.sampled_from([GOOD, GOOD, 69, 1]), st.integers(1, 9)),
    max_size=5,
)
frames: st.SearchStrategy[Drawn] = st.tuples(
    st.just(EntryKind.FRAME), st.sampled_from([*EDGES, "STRANGER"]), st.sampled_from([LIVE, LIVE, SEALED, UNMARKED]),
    st.integers(1, 30), samples,
)  # fmt: skip
others: st.SearchStrategy[Drawn] = st.tuples(
    st.sampled_from([EntryKind.BORN, EntryKind.DIED, EntryKind.BLOCK, EntryKind.TICK]), st.sampled_from(EDGES), st.just(LIVE),
    st.integers(1, 30), st.just([]),
)  # fmt: skip


def body_of(kind: EntryKind, number: int, rows: list[Any]) -> bytes:
    if kind is EntryKind.FRAME:
        tag, value, code, source_ms = zip(*rows, strict=True) if rows else ((), (), (), ())
        raw = [each if quality == 69 else np.nan for each, quality in zip(value, code, strict=True)]
        return pack_columns(
            Columns(np.array(tag, np.int32), np.array(value, np.float64), np.array(code, np.uint8),
                    np.array(source_ms, np.int64), np.array(raw, np.float64))
        )  # fmt: skip
    if kind is EntryKind.BORN:
        return pack_json({"live": LIVE, "unmarked_stream": UNMARKED, "config_wrong": False, "clock_offset_ms": 0})
    return block(EDGES[0], [Taken(LIVE, number, "TANK", ((TAGS[0], 1.0),), 5)]) if kind is EntryKind.BLOCK else b""


@st.composite
def logs(draw: st.DrawFn) -> list[LogRow]:
    drawn = draw(st.lists(st.one_of(frames, frames, frames, others), max_size=40))
    first: list[Drawn] = [(EntryKind.BORN, edge, LIVE, 1, []) for edge in EDGES]
    return [
        LogRow(pos, str(kind), 10 * pos, 1_000 + pos, node, "TANK", stream, number, number, body_of(kind, number, rows))
        for pos, (kind, node, stream, number, rows) in enumerate([*first, *drawn], 1)
    ]


def tail_of(rows: list[LogRow], cuts: list[int]) -> Tail:
    tail = Tail(SITE, RecentFrames())
    tail.begin("L", 0)
    tail.use_tag_names(NUMBERS)
    at = turn = 0
    while at < len(rows):
        read = read_rows(rows[at : at + cuts[turn % len(cuts)]])
        assert tail.knows_tags_of(read)
        tail.take_all(read)
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    return tail


def shown(tail: Tail) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in vars(tail.tags).items()}


@given(rows=logs(), cuts=st.lists(st.integers(1, 12), min_size=1, max_size=6))
@settings(max_examples=120, deadline=None)
def test_tags_show_the_same_however_the_log_is_cut(rows: list[LogRow], cuts: list[int]) -> None:
    one_by_one, cut = tail_of(rows, [1]), tail_of(rows, cuts)
    assert str(shown(cut)) == str(shown(one_by_one))  # as text: nan is nan
    assert (cut.pos, cut.nodes) == (one_by_one.pos, one_by_one.nodes)
    for edge in EDGES:
        assert cut._recent.of("L", edge, "TANK") == one_by_one._recent.of("L", edge, "TANK")


@given(rows=logs())
@settings(max_examples=120, deadline=None)
def test_tags_show_what_the_newest_current_frame_says(rows: list[LogRow]) -> None:
    plain = [row for row in rows if row.kind in (EntryKind.FRAME, EntryKind.BORN)]
    evaluated = dict.fromkeys(EDGES, 0)
    newest: dict[str, tuple[int, float, int, int]] = {}
    good: dict[str, tuple[int, float, int]] = {}
    for row in plain:
        current = row.stream == UNMARKED or (row.stream == LIVE and row.first > evaluated.get(row.node, 0))
        if row.kind != EntryKind.FRAME or row.node not in evaluated or not current:
            continue
        if row.stream == LIVE:
            evaluated[row.node] = row.first
        columns = unpack_columns(row.body)
        each = (columns.tag.tolist(), columns.value.tolist(), columns.code.tolist(), columns.source_ms.tolist())
        for number, value, code, source_ms in zip(*each, strict=True):
            newest[NUMBERS[number]] = row.pos, value, code, source_ms
            if code == GOOD:
                good[NUMBERS[number]] = row.pos, value, source_ms
    tags = tail_of(plain, [9]).tags
    for at, name in enumerate(TAGS):
        pos = int(tags.pos[at])
        assert (newest.get(name) is None) == (pos == NEVER)
        if name in newest:
            assert newest[name] == (pos, tags.value[at], tags.code[at], tags.source_ms[at])
            assert (tags.received_ms[at], tags.engine_ms[at]) == (1_000 + pos, 10 * pos)
        if name in good:
            assert good[name] == (tags.good_pos[at], tags.good_value[at], tags.good_ms[at])


@pytest.mark.parametrize(("refused", "shown"), [(None, True), (f'["{TAGS[0]}"]', False), ("[torn", False)])
def test_a_block_shows_nothing_of_a_tag_that_core_refused_it(refused: str | None, shown: bool) -> None:
    born, late = (
        LogRow(pos, kind, pos, pos, EDGES[0], "TANK", LIVE, 5, 5, body_of(EntryKind(kind), 5, []), refused=each)
        for pos, kind, each in ((1, "N", None), (2, "B", refused))
    )
    assert (tail_of([born, late], [1]).tags.pos[0] == 2) == shown


@pytest.mark.fault("F73")
@pytest.mark.parametrize(
    "body", [b"", b"\x02", body_of(EntryKind.FRAME, 6, [(1, 9.0, GOOD, 1)])[:-1], body_of(EntryKind.FRAME, 6, [(-3, 9.0, GOOD, 1)]),
             body_of(EntryKind.FRAME, 6, [(9_999, 9.0, GOOD, 1)])],
    ids=["nothing", "one byte", "cut short", "a tag number below zero", "a tag number nobody drew"],
)  # fmt: skip
def test_a_torn_frame_shows_nothing_and_stops_nothing(body: bytes) -> None:
    number = next(iter(NUMBERS))
    rows = [
        LogRow(1, "N", 1, 1, EDGES[0], "TANK", LIVE, 0, 0, body_of(EntryKind.BORN, 0, [])),
        LogRow(2, "F", 2, 2, EDGES[0], "TANK", LIVE, 6, 6, body),
        LogRow(3, "F", 3, 3, EDGES[0], "TANK", LIVE, 7, 7, body_of(EntryKind.FRAME, 7, [(number, 4.0, GOOD, 1)])),
    ]
    tail = Tail(SITE, RecentFrames())
    tail.begin("L", 0)
    tail.use_tag_names(NUMBERS)
    tail.take_all(read_rows(rows))
    assert tail.pos == 3
    assert [pos for pos in tail.tags.pos.tolist() if pos != NEVER] == [3]


def test_a_tag_number_that_is_new_is_noticed() -> None:
    tail = tail_of([], [1])
    row = LogRow(1, "F", 1, 1, EDGES[0], "TANK", LIVE, 1, 1, body_of(EntryKind.FRAME, 1, [(99, 1.0, GOOD, 1)]))
    assert not tail.knows_tags_of(read_rows([row]))
    assert tail.knows_tags_of(read_rows([]))
