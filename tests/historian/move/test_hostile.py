"""Import of files that somebody made to do harm: refused in words, in bounded memory, and nothing is loaded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from config import HistoryMapping
from gateway.historian.load import LoadRefusedError, load_file
from gateway.historian.load_files import FileRead, read_csv, read_parquet
from gateway.historian.load_rows import Problems
from tests.historian.move.test_load import LONG, MID, NOW_MS, SITE, A, Kept, mapping, refused

WANTED = ("when", "point", "value")


class Endless(io.RawIOBase):
    """A file whose bytes go on: it counts how many were asked for."""

    def __init__(self, head: bytes, again: bytes) -> None:
        self._bytes, self.given = self._made(head, again), 0

    @staticmethod
    def _made(head: bytes, again: bytes) -> Iterator[bytes]:
        yield head
        while True:
            yield again * (4096 // len(again))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = next(self._bytes)
        self.given += len(piece)
        if self.given > 60_000_000:
            raise AssertionError("it would have been read for ever")
        buffer[: len(piece)] = piece
        return len(piece)

    def fileno(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("head", "again"),
    [
        pytest.param(b"when,point,value\r\n", b"x", id="a line without end"),
        pytest.param(b"when,", b"x", id="a header without end"),
        pytest.param(b"when,point,value\r\n", b'"\n",', id="a row of cells on many lines"),
        pytest.param(b'when,point,value\r\n"', b"ab\n", id="a cell without end"),
    ],
)
def test_a_row_without_end_is_no_csv_and_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, again: bytes
) -> None:
    endless = Endless(head, again)
    monkeypatch.setattr(Path, "open", lambda *_, **__: endless)
    monkeypatch.setattr(os, "fstat", lambda _: type("Stat", (), {"st_size": 1})())
    problems = Problems()
    assert sum(len(lines) for lines, _ in read_csv(tmp_path / "x.csv", mapping_of(), WANTED, problems, FileRead())) == 0
    assert problems.count == 1
    assert "no sound CSV" in problems.told[0].message
    assert endless.given < 30_000_000


def mapping_of() -> HistoryMapping:
    return HistoryMapping.model_validate({
        "version": 1, "layout": "long", "time": {"column": "when"}, "tag_column": "point", "value_column": "value",
        "unlisted": "same",
    })  # fmt: skip


def test_wide_rows_are_taken_some_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    filler = "x" * 50_000
    path.write_text("when,point,value,more\n" + f"2025-10-09,T,1,{filler}\n" * 300, "utf-8")
    problems = Problems()
    chunks = [len(lines) for lines, _ in read_csv(path, mapping_of(), WANTED, problems, FileRead())]
    assert (sum(chunks), problems.count) == (300, 0)
    assert max(chunks) < 100, "some millions of characters at once, not all of them"


def made(folder: Path, sql: str) -> Path:
    path = folder / "x.parquet"
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
    return path


@pytest.mark.parametrize(
    "columns",
    [
        "'2025-10-09' AS \"when\", 'TI-1' AS point, [1.0, 2.0] AS value",
        "'2025-10-09' AS \"when\", 'TI-1' AS point, {'a': 1} AS value",
        "'2025-10-09' AS \"when\", 'TI-1' AS point, MAP {'a': 1} AS value",
        "'2025-10-09' AS \"when\", 'TI-1' AS point, '1'::BLOB AS value",
        "'2025-10-09' AS \"when\", ['TI-1'] AS point, 1.0 AS value",
        "['2025-10-09'] AS \"when\", 'TI-1' AS point, 1.0 AS value",
    ],
)
def test_columns_of_lists_structs_and_bytes_are_refused_in_words(tmp_path: Path, columns: str) -> None:
    told = wrong(tmp_path, made(tmp_path, f"SELECT {columns}"))
    assert "is of type" in told.problems[0].message
    assert told.count == 1


@pytest.mark.parametrize(
    "column",
    [
        "'infinity'::TIMESTAMP", "'-infinity'::TIMESTAMPTZ", "'infinity'::DATE", "'12:00'::TIME", "INTERVAL 1 DAY",
        "uuid()", "repeat('9', 5000)", "'NaN'::DOUBLE", "170141183460469231731687303715884105727::HUGEINT", "true",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["iso", "epoch_ms", "excel"])
def test_odd_types_of_time_are_told_with_their_row(tmp_path: Path, column: str, form: str) -> None:
    path = made(tmp_path, f"SELECT {column} AS \"when\", 'TI-1' AS point, 1.0 AS value")
    assert wrong(tmp_path, path, LONG.replace("{column: when}", f"{{column: when, format: '{form}'}}")).count == 1


def test_cells_larger_than_any_cell_are_cut_before_they_are_many(tmp_path: Path) -> None:
    """A small file may hold one text of megabytes for every one of its rows."""
    path = made(tmp_path, "SELECT '2025-10-09' AS \"when\", repeat('x', 200_000) AS point, 1.0 AS value FROM range(3000)")
    assert path.stat().st_size < 1_000_000
    _, rows = read_parquet(path, WANTED, "when", Problems(), FileRead())
    assert {len(cell) for _, cells in rows() for cell in cells["point"]} == {1_000}
    (told,) = wrong(tmp_path, path).problems
    assert len(told.message) < 400


def wrong(folder: Path, path: Path, told: str = LONG) -> LoadRefusedError:
    kept = Kept()
    with pytest.raises(LoadRefusedError) as caught:
        load_file(path, mapping(told, folder), SITE, folder, kept.open, NOW_MS)
    assert not kept.parts
    assert all(any("\u4e00" <= char <= "\u9fff" for char in each.message_zh) for each in caught.value.problems)
    return caught.value


def test_a_text_of_many_lines_in_a_cell_is_still_one_row(tmp_path: Path) -> None:
    told = refused(tmp_path, f'when,point,value\r\n"2025-10-09\r\n",TI-1,{MID[A]}\r\nnever,TI-1,1\r\n', LONG)
    assert [each.line for each in told.problems] == [3, 4]


@pytest.mark.parametrize("row", ["1e300,1", "1,1e300", "-1e300,1"])
def test_a_value_that_its_scale_makes_infinite_is_refused_the_measured_one_too(tmp_path: Path, row: str) -> None:
    told = LONG.replace("}\n  - {source: \u4e59", ", scale: 1.0e+20}\n  - {source: \u4e59").replace(
        "series:", "raw_column: raw\nquality: {column: state, words: {R: UNCERTAIN/RANGE}}\nseries:"
    )
    problems = refused(tmp_path, f"when,point,value,raw,state\r\n2025-10-09,TI-1,{row},R\r\n", told).problems
    assert [(each.line, "becomes too large" in each.message) for each in problems] == [(2, True)]
