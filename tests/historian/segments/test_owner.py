"""Whatever is logged, however it is sealed, packed and restarted: every sample stands in the folder exactly once."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.historian.segments.folder import Ancestor, SegmentFolder
from gateway.historian.segments.lock import FolderBusyError
from gateway.historian.segments.log import Due
from gateway.historian.segments.names import DAY_MAX
from gateway.historian.segments.piece import Piece, next_piece
from tests.historian.segments.journal import (
    DAY_MS,
    SITE,
    T0_MS,
    TAGS,
    Journal,
    everything,
    owner_of,
    rows_in,
    run,
    status_of,
)

HOUR_MS = 3_600_000


# -- what is due ----------------------------------------------------------------------------------------------------


def due(*rows: tuple[int, int, int]) -> list[Due]:
    return [Due(*row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "now_ms", "piece"),
    [
        pytest.param(due(), 10**6, None, id="nothing waits"),
        pytest.param(due((6, 5, 1000), (7, 5, 2000)), 10_999, None, id="too young and too few"),
        pytest.param(due((6, 5, 1000), (7, 5, 2000)), 11_000, Piece(6, 7, 2000, False), id="old enough: all of it"),
        pytest.param(due((6, 60, 1000), (8, 60, 2000)), 2000, Piece(6, 6, 1000, True), id="more than a piece: a piece"),
        pytest.param(due((6, 500, 1000), (8, 1, 2000)), 2000, Piece(6, 6, 1000, True), id="one row above the bound goes alone"),
        pytest.param(due((6, 1, 5000)), 4000, Piece(6, 6, 5000, False), id="a clock put back does not stop it"),
        pytest.param(
            due((6, 1, HOUR_MS - 1), (7, 1, HOUR_MS), (8, 1, HOUR_MS)), HOUR_MS, Piece(6, 6, HOUR_MS - 1, True), id="ends with the hour"
        ),
        pytest.param(due((9, 0, 1000)), 11_000, Piece(6, 9, 1000, False), id="rows without samples are sealed, too"),
    ],
)
def test_what_is_sealed_next(rows: list[Due], now_ms: int, piece: Piece | None) -> None:
    assert next_piece(5, rows, now_ms, 10_000, 100) == piece


# -- what lies there ------------------------------------------------------------------------------------------------


@pytest.mark.fault("F01")
def test_a_sensor_without_a_value_is_null_with_its_reason(tmp_path: Path, journal: Journal) -> None:
    journal.frame(T0_MS, [(TAGS[0], T0_MS, math.nan, 6), (TAGS[1], T0_MS, 2.5, 192)])
    run(tmp_path / "h", journal, T0_MS + 5000)
    found = everything(tmp_path / "h")
    assert found == journal.rows
    assert {row[2:4] for row in found} == {(None, 6), (2.5, 192)}
    db = duckdb.connect()
    path = str(next((tmp_path / "h").glob("samples/*/*.parquet")))
    assert db.execute("SELECT count(*) FROM read_parquet($1) WHERE isnan(value) OR isnan(raw)", [path]).fetchall() == [(0,)]
    types = dict(row[:2] for row in db.execute("DESCRIBE SELECT * FROM read_parquet($1)", [path]).fetchall())
    assert types == {
        "tag": "VARCHAR", "source_ms": "BIGINT", "value": "DOUBLE", "code": "UTINYINT", "raw": "DOUBLE", "late": "BOOLEAN",
        "stream": "BIGINT", "sequence": "BIGINT",
    }  # fmt: skip
    db.close()


@pytest.mark.parametrize("samples_max", [3, 1000])
def test_frames_blocks_and_stored_history_are_all_there(tmp_path: Path, journal: Journal, samples_max: int) -> None:
    journal.frame(T0_MS, [(TAGS[0], T0_MS, 1.0, 192), (TAGS[3], T0_MS, 100.0, 69)], number=1)
    journal.frame(T0_MS + 1, [(TAGS[3], T0_MS + 1, 100.0, 69), (TAGS[0], T0_MS + 1, 1.0, 192)], number=2, raw=250.0)
    journal.frame(T0_MS + 2, [(TAGS[0], T0_MS - 50, 1.0, 192), (TAGS[2], T0_MS - 49, 7.0, 192)], number=3, late=True)
    journal.frame(T0_MS + 3, [(TAGS[0], T0_MS, 9.0, 192)], historical=True)
    journal.frame(T0_MS + 4, [(TAGS[4], T0_MS, 9.0, 192)], stream=-4)
    times = [T0_MS + at for at in range(10, 16)]
    journal.block(T0_MS + 5, times, [1, 2, 3, 400, 5, 6], first=11, late_upto=12, fresh=[(11, 13), (15, 15)])
    journal.block(T0_MS + 6, [T0_MS + 20], [1], first=30, fresh=[])
    journal.block(T0_MS + 7, [T0_MS + 21, T0_MS + 22], [1, 2], first=31)
    run(tmp_path / "h", journal, T0_MS + 5000, samples_max=samples_max)
    assert everything(tmp_path / "h") == journal.rows
    assert len(journal.rows) == 14, "two of the block's frames were here before, and all of the next block's"


@pytest.mark.fault("F01")
def test_a_row_that_contradicts_itself_is_bad_and_stops_nothing(tmp_path: Path, journal: Journal) -> None:
    journal.frame(T0_MS, [(TAGS[0], T0_MS, math.nan, 192), (TAGS[1], T0_MS, math.inf, 192), (TAGS[2], T0_MS, 5.0, 1)])
    run(tmp_path / "h", journal, T0_MS + 5000)
    assert {row[:5] for row in everything(tmp_path / "h")} == {
        (TAGS[0], T0_MS, None, 6, None), (TAGS[1], T0_MS, None, 6, None), (TAGS[2], T0_MS, None, 1, None),
    }  # fmt: skip


def test_of_a_block_everything_is_stored_but_what_core_refused_whatever_the_site_says_today(tmp_path: Path, journal: Journal) -> None:
    """The site moved T9.OTHER to another node and lost T9.NEVER_HEARD_OF since the blocks were committed."""
    journal.block(T0_MS, [T0_MS], [300], first=1, tag="T9.OTHER")
    journal.block(T0_MS, [T0_MS], [300], first=2, tag="T9.NEVER_HEARD_OF")
    journal.block(T0_MS, [T0_MS], [1], first=3, tag="T9.OTHER", refused=["T9.OTHER"])
    run(tmp_path / "h", journal, T0_MS + 5000)
    assert {row[:5] for row in everything(tmp_path / "h")} == {
        ("T9.OTHER", T0_MS, 100.0, 69, 150.0), ("T9.NEVER_HEARD_OF", T0_MS, 150.0, 192, None),
    }  # fmt: skip
    assert SegmentFolder(tmp_path / "h").snapshot().cursor("ledger-one") == 3


def test_a_block_of_a_tag_the_site_has_given_up_keeps_its_name(tmp_path: Path, journal: Journal) -> None:
    journal.ledger.tag_numbers(["T0.GONE"])
    journal.block(T0_MS, [T0_MS], [300], first=1, tag="T0.GONE")
    run(tmp_path / "h", journal, T0_MS + 5000)
    assert [row[:5] for row in everything(tmp_path / "h")] == [("T0.GONE", T0_MS, 150.0, 192, None)]


def test_stamps_of_lost_clocks_make_no_files_without_end_and_are_kept(tmp_path: Path, journal: Journal) -> None:
    for at in range(100):
        journal.frame(T0_MS, [(TAGS[0], at * 40 * DAY_MS, 1.0 * at, 192), (TAGS[1], T0_MS, 2.0, 192)])
    journal.frame(T0_MS, [(TAGS[0], 1 << 52, 1.0, 192)])
    run(tmp_path / "h", journal, T0_MS + 5000, keep_days=1.0)
    assert everything(tmp_path / "h") == journal.rows
    manifest = SegmentFolder(tmp_path / "h").snapshot().manifests[0]
    assert len(manifest.files) <= 66
    assert {file.leaves for file in manifest.files} == {"2025-06-16"}
    last = next(file for file in manifest.files if file.day == DAY_MAX)
    assert last.to_ms == 1 << 52


def test_sealing_again_makes_the_same_bytes(tmp_path: Path, journal: Journal) -> None:
    for at in range(500):
        journal.frame(T0_MS + at, [(TAGS[at % 5], T0_MS + at * 7, at / 3, 192)], late=at % 7 == 0)
    run(tmp_path / "a", journal, T0_MS + 5000, samples_max=100)
    run(tmp_path / "b", journal, T0_MS + 9 * HOUR_MS + 10**6, samples_max=100, seal_s=3600)
    first, second = (SegmentFolder(tmp_path / name).snapshot().chain("ledger-one") for name in "ab")
    assert len(first) == 5
    assert [link.hash for manifest in first for link in manifest.as_links()] == [
        link.hash for manifest in second for link in manifest.as_links()
    ]


# -- any history ----------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(0, 4), st.sampled_from([0, 1, 3_600_000, 20_000_000]), st.booleans()),
        st.tuples(st.just("block"), st.integers(0, 4), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("stored"), st.integers(0, 4), st.integers(0, 90_000_000), st.booleans()),
        st.tuples(st.just("tick"), st.just(0), st.just(0), st.booleans()),
        st.tuples(st.just("owner"), st.integers(1, 30), st.sampled_from([0, 3_000_000, 30_000_000, 90_000_000]), st.booleans()),
    ),
    min_size=5, max_size=40,
)  # fmt: skip


@settings(max_examples=25)
@given(STEPS)
def test_any_order_of_logging_sealing_and_packing_keeps_every_sample_once(steps: list[tuple[str, int, int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        journal, folder = Journal(Path(place) / "ledger.sqlite3"), Path(place) / "h"
        now_ms = T0_MS
        number = 0
        for kind, which, more, flag in steps:
            now_ms += 1000
            number += 5
            if kind == "frame":
                journal.frame(now_ms, [(TAGS[which], now_ms - more, which * 1.5, 192), (TAGS[(which + 1) % 5], now_ms, math.nan, 1)],
                              number=number, late=flag)  # fmt: skip
            elif kind == "block":
                fresh = [(number + 1, number + more)] if flag and more else [] if flag else None
                journal.block(now_ms, [now_ms + at for at in range(4)], [which, 1, 399, 2], first=number, tag=TAGS[which], fresh=fresh,
                              late_upto=number + more)  # fmt: skip
            elif kind == "stored":
                journal.frame(now_ms, [(TAGS[which], now_ms - more, 3.25, 192)], historical=True)
            elif kind == "tick":
                journal.tick(now_ms)
            else:
                now_ms += more
                run(folder, journal, now_ms, samples_max=which)
        run(folder, journal, now_ms + 10 * DAY_MS, samples_max=20)
        try:
            assert everything(folder) == journal.rows
            taken = SegmentFolder(folder).snapshot()
            assert rows_in(live.samples(folder) for live in taken.files()) == journal.rows
            assert taken.cursor("ledger-one") == journal.pos
            assert SegmentFolder(folder).verified("ledger-one").cursor == journal.pos
            assert status_of(folder)["damaged"] == []
        finally:
            journal.close()


# -- who owns it ----------------------------------------------------------------------------------------------------


def test_two_cannot_seal_in_one_folder(tmp_path: Path, journal: Journal) -> None:
    first = owner_of(tmp_path / "h", journal.path, T0_MS)
    first.begin()
    second = owner_of(tmp_path / "h", journal.path, T0_MS)
    with pytest.raises(FolderBusyError, match="another process seals here") as caught:
        second.begin()
    assert "另一进程" in caught.value.message_zh
    first.close()
    second.begin()
    second.close()


def test_without_a_ledger_it_waits(tmp_path: Path) -> None:
    owner = owner_of(tmp_path / "h", tmp_path / "none.sqlite3", T0_MS)
    owner.begin()
    assert owner.round() > 0
    assert "none.sqlite3" in owner.trouble
    owner.close()
    assert not (tmp_path / "none.sqlite3").exists()


def test_a_restored_ledger_goes_on_where_its_ancestor_was_sealed(tmp_path: Path, journal: Journal) -> None:
    for at in range(4):
        journal.frame(T0_MS + at, [(TAGS[0], T0_MS + at, 1.0, 192)])
    run(tmp_path / "h", journal, T0_MS + 5000)
    journal.ledger.renew_id("ledger-two")
    journal.frame(T0_MS + 6000, [(TAGS[0], T0_MS + 6000, 2.0, 192)])
    run(tmp_path / "h", journal, T0_MS + 9000)
    assert everything(tmp_path / "h") == journal.rows
    taken = SegmentFolder(tmp_path / "h").snapshot()
    ancestry = (Ancestor("ledger-one", 4),)
    assert [str(m.stem) for m in taken.chain("ledger-two")] == ["seal-ledger-two-0000000000000005-0000000000000005"]
    assert taken.cursor("ledger-two", ancestry) == 5
    assert taken.cursor("ledger-two", (Ancestor("ledger-one", 2),)) == 2
    assert taken.cursor("ledger-three", (Ancestor("ledger-two", 9), *ancestry)) == 5
    assert SegmentFolder(tmp_path / "h").verified("ledger-two", ancestry).cursor == 5
    assert SITE == "PARK1"
