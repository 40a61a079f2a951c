"""Export: what comes out is what the store holds, no spreadsheet runs it, and nothing half-done is left."""

from __future__ import annotations

import csv
import io
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.historian import export_file as files
from gateway.historian.export import ExportError, ExportTag, chosen, pieces
from gateway.historian.export_aside import folder_aside
from gateway.historian.export_columns import HEADER, QUALITY_WORDS, neutral, plain, times
from gateway.historian.export_csv import csv_stream
from gateway.historian.export_file import ExportProgress, check_place, format_of, write_export
from gateway.historian.export_xlsx import XlsxExport
from gateway.historian.memory import MemoryHistorian
from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.missing import Missing, within
from gateway.historian.store import QueryTimeError, StoreAwayError
from tests.historian.move.samples import (
    BAD,
    GOOD,
    RANGE,
    SHANGHAI,
    T0_MS,
    Row,
    many,
    order,
    rows_of,
    samples_of,
    sound_samples,
)

ROWS: list[Row] = [
    ("A.X", T0_MS, -1.5, GOOD, None, False),
    ("A.X", T0_MS + 250, None, BAD, None, False),
    ("A.X", T0_MS + 1000, 10.0, RANGE, 12.25, True),
    ("B.Y", T0_MS + 5, 1e-300, GOOD, None, False),
]


def held(samples: Samples) -> MemoryHistorian:
    store = MemoryHistorian()
    store.write(samples)
    return store


def parsed(stream: Iterator[bytes]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(stream).decode("utf-8-sig"), newline=""), strict=True))


def values_of_csv(lines: list[list[str]]) -> list[Row]:
    """Read our columns as another program would: by the header."""
    assert tuple(lines[0]) == HEADER
    rows = [dict(zip(HEADER, line, strict=True)) for line in lines[1:]]
    return sorted(
        (plain(row["tag"]), int(row["utc_ms"]), float(row["value"]) if row["value"] else None, int(row["code"]),
         float(row["raw"]) if row["raw"] else None, row["late"] == "true") for row in rows
    )  # fmt: skip


# ------------------------------------------------------------------ reading


def test_pieces_are_bounded_in_order_and_miss_nothing() -> None:
    store = held(many(["A.X", "B.Y", "C.Z"], 2_000, step_ms=30_000))
    found = list(pieces(store, order(["C.Z", "A.X"]), piece_rows_max=300))
    assert max(len(piece.samples) for piece in found) <= 300
    assert [tag for tag, _ in _runs(found)] == ["C.Z", "A.X"]
    rows = [row for piece in found for row in rows_of(piece.samples)]
    assert sorted(rows) == [row for row in rows_of(store._held) if row[0] != "B.Y"]
    assert [piece.done for piece in found] == sorted(piece.done for piece in found)
    assert found[-1].done == 1.0


def _runs(found: list[Any]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for piece in (each for each in found if len(each.samples)):
        if runs and runs[-1][0] == piece.tag.id:
            assert runs[-1][1] < int(piece.samples.source_ms[0])
            runs[-1] = (piece.tag.id, int(piece.samples.source_ms[-1]))
        else:
            runs.append((piece.tag.id, int(piece.samples.source_ms[-1])))
    return runs


class Slow(MemoryHistorian):
    """Has no time for more than an hour, and never any for a tag it cannot read."""

    def range(self, tag: str, from_ms: int, to_ms: int, rows_max: int = 1, deadline_s: float = 5.0) -> Samples:
        if to_ms - from_ms > 3_600_000 or tag == "NO.TIME":
            raise QueryTimeError("slow", "慢")
        return super().range(tag, from_ms, to_ms, rows_max, deadline_s)


def test_a_slow_store_is_asked_for_less_and_a_hopeless_one_ends_it() -> None:
    store = Slow()
    store.write(many(["A.X"], 500, step_ms=60_000))
    assert sum(len(piece.samples) for piece in pieces(store, order(["A.X"]))) == 500
    with pytest.raises(QueryTimeError):
        list(pieces(store, order(["NO.TIME"])))


def test_more_rows_than_allowed_are_refused() -> None:
    store = held(many(["A.X"], 1_000))
    assert sum(len(each.samples) for each in pieces(store, order(["A.X"], rows_max=1_000))) == 1_000
    with pytest.raises(ExportError, match="more than 999 rows"):
        list(pieces(store, order(["A.X"], rows_max=999)))


def test_an_order_that_makes_no_sense_is_refused_and_unknown_tags_are_named() -> None:
    known = [ExportTag("A.X"), ExportTag("B.Y")]
    assert [tag.id for tag in chosen(known, ["B.Y", "A.X", "B.Y"])] == ["B.Y", "A.X"]
    with pytest.raises(ExportError, match=r"no tag 'A\.Q', 'Z\.Z'"):
        chosen(known, ["A.Q", "A.X", "Z.Z"])
    for wrong in ({"tags": ()}, {"to_ms": T0_MS}, {"to_ms": T0_MS + 3_661 * DAY_MS}):
        with pytest.raises(ExportError):
            replace(order(["A.X"]), **wrong)


# ------------------------------------------------------------------ past damage


class Torn(MemoryHistorian):
    """Of some stretches (file, from, to) it cannot read what it holds."""

    def __init__(self, torn: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.torn = torn

    def readable(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = 1, deadline_s: float = 5.0
    ) -> tuple[Samples, list[Missing]]:
        found = self.range(tag, from_ms, to_ms, rows_max, deadline_s)
        lost = np.zeros(len(found), np.bool_)
        for _, lo, hi in self.torn:
            lost |= (found.source_ms >= lo) & (found.source_ms < hi)
        return found.take(~lost), within([Missing(lo, hi, name, "bit rot") for name, lo, hi in self.torn], from_ms, to_ms)


@pytest.mark.fault("F73")
@settings(deadline=None, max_examples=60)
@given(
    sound_samples(),
    st.lists(st.tuples(st.integers(-DAY_MS, 3 * DAY_MS), st.integers(1, 2 * DAY_MS)), max_size=4), st.integers(2, 9),
)  # fmt: skip
def test_an_export_goes_past_damage_and_tells_every_stretch_once_where_it_begins(
    samples: Samples, drawn: list[tuple[int, int]], piece_rows: int
) -> None:
    torn = [(f"{at}.parquet", T0_MS + lo, T0_MS + lo + length) for at, (lo, length) in enumerate(drawn)]
    store = Torn(torn)
    store.write(samples)
    ordered = order(["A.X", "B.Y"], to_ms=T0_MS + 3 * DAY_MS)
    lines = parsed(csv_stream(pieces(store, ordered, piece_rows), SHANGHAI, bom=False))
    told = [dict(zip(HEADER, line, strict=True)) for line in lines[1:]]
    harmed = [row for row in told if row["quality"].startswith("BAD/DAMAGED")]
    inside = [(max(lo, T0_MS), min(hi, ordered.to_ms)) for _, lo, hi in torn if lo < ordered.to_ms and hi > T0_MS]
    for tag in ("A.X", "B.Y"):
        mine = [row for row in harmed if row["tag"] == tag]
        assert sorted((int(row["utc_ms"]), end_of(row["quality"])) for row in mine) == sorted(inside)
        moments = [int(row["utc_ms"]) for row in told if row["tag"] == tag]
        assert moments == sorted(moments)
    assert {(row["value"], row["raw"], row["code"], row["late"]) for row in harmed} <= {("", "", "0", "false")}
    kept = [row for row in rows_of(samples) if not any(lo <= row[1] < hi for _, lo, hi in torn)]
    assert values_of_csv([lines[0], *(line for line, row in zip(lines[1:], told, strict=True) if row not in harmed)]) == kept


def end_of(word: str) -> int:
    return round(datetime.fromisoformat(word.removeprefix("BAD/DAMAGED until ")).timestamp() * 1000)


@pytest.mark.fault("F73")
@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_in_every_format_a_damaged_stretch_is_a_row_and_the_account_names_it(tmp_path: Path, ending: str) -> None:
    store = Torn([("one.parquet", T0_MS + 100, T0_MS + 900), ("two.parquet", T0_MS - 9, T0_MS - 3)])
    store.write(samples_of(ROWS))
    path = tmp_path / f"out.{ending}"
    done = write_export(store, order(["A.X", "B.Y", "C.Z"]), path)
    assert (done.rows, done.tags_empty, done.tags_damaged) == (3, 0, 3)
    assert [(each.file, each.from_ms, each.to_ms, each.why) for each in done.damaged] == [
        ("one.parquet", T0_MS + 100, T0_MS + 900, "bit rot")
    ]
    if ending == "csv":
        listed = [tuple(line) for line in csv.reader(path.read_text("utf-8-sig").splitlines())][1:]
    elif ending == "parquet":
        listed = [tuple(map(str, row)) for row in read_parquet(path)[1]]
    else:
        listed = [tuple(map(str, row)) for row in openpyxl.load_workbook(path).active.iter_rows(min_row=2, values_only=True)]
    until = f"BAD/DAMAGED until {times(np.array([T0_MS + 900]), SHANGHAI)[0]}"
    assert [(int(row[1]), row[2], row[6], row[7]) for row in listed] == [
        (T0_MS, "A.X", "GOOD", "192"), (T0_MS + 100, "A.X", until, "0"), (T0_MS + 1000, "A.X", "UNCERTAIN/RANGE", "69"),
        (T0_MS + 5, "B.Y", "GOOD", "192"), (T0_MS + 100, "B.Y", until, "0"), (T0_MS + 100, "C.Z", until, "0"),
    ]  # fmt: skip


# ------------------------------------------------------------------ texts and times


@given(st.text())
def test_neutralising_is_undone_and_leaves_nothing_that_begins_a_formula(text: str) -> None:
    safe = neutral(text)
    assert plain(safe) == text
    assert not safe.startswith(tuple("=+-@\t\r\n＝＋－＠"))


@given(st.lists(st.integers(0, 253_402_000_000_000), max_size=20),
       st.sampled_from(["Asia/Shanghai", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "UTC"]))  # fmt: skip
def test_times_name_their_moment_in_the_sites_zone(at_ms: list[int], zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    told = times(np.array(at_ms, np.int64), zone)
    for text, ms in zip(told, at_ms, strict=True):
        moment = datetime.fromisoformat(text)
        assert round(moment.timestamp() * 1000) == ms
        if ms < 2_000_000_000_000:  # far in the future zoneinfo and its cache of rules are not at stake
            assert moment.utcoffset() == moment.astimezone(zone).utcoffset()


def test_the_words_of_quality() -> None:
    assert (QUALITY_WORDS[GOOD], QUALITY_WORDS[RANGE], QUALITY_WORDS[BAD]) == ("GOOD", "UNCERTAIN/RANGE", "BAD/COMM")
    assert QUALITY_WORDS[0x85] == "133"


# ------------------------------------------------------------------ CSV


@settings(deadline=None)
@given(sound_samples())
def test_csv_holds_exactly_what_the_store_holds(samples: Samples) -> None:
    ordered = order(["A.X", "B.Y"], to_ms=T0_MS + 3 * DAY_MS)
    lines = parsed(csv_stream(pieces(held(samples), ordered, 7), SHANGHAI, bom=True))
    assert values_of_csv(lines) == rows_of(samples)


@pytest.mark.fault("F52")
@settings(deadline=None)
@given(st.text(min_size=1), st.text())
def test_no_text_becomes_a_formula_or_breaks_out_of_its_cell(name: str, unit: str) -> None:
    name, unit = (text.encode("utf-8", "replace").decode() for text in (name, unit))
    ordered = order([ExportTag("A.X", name, unit)])
    lines = parsed(csv_stream(pieces(held(samples_of(ROWS)), ordered), SHANGHAI, bom=False))
    assert len(lines) == 4
    for line in lines[1:]:
        row = dict(zip(HEADER, line, strict=True))
        assert (plain(row["name_zh"]), plain(row["unit"])) == (name, unit)
        assert not row["name_zh"].startswith(tuple("=+-@\t\r\n＝＋－＠"))


@pytest.mark.fault("F52")
def test_a_negative_number_stays_a_number_and_an_infinite_one_is_no_formula() -> None:
    rows: list[Row] = [("A.X", T0_MS, -1.5, GOOD, None, False), ("A.X", T0_MS + 1, 0.0, RANGE, float("-inf"), False)]
    lines = parsed(csv_stream(pieces(held(samples_of(rows)), order(["A.X"])), SHANGHAI, bom=False))
    assert [line[HEADER.index("value")] for line in lines[1:]] == ["-1.5", "0.0"]
    assert lines[2][HEADER.index("raw")] == "'-inf"


def test_lines_as_rfc_4180_has_them_and_times_of_the_site() -> None:
    text = b"".join(csv_stream(pieces(held(samples_of(ROWS)), order(["A.X"])), SHANGHAI, bom=True))
    assert text.startswith(b"\xef\xbb\xbftime,utc_ms,")
    assert text.count(b"\r\n") == text.count(b"\n") == 4
    assert f"{datetime.fromtimestamp(T0_MS / 1000, SHANGHAI):%Y-%m-%dT%H}:00:00.000+08:00,{T0_MS},A.X," in text.decode()


# ------------------------------------------------------------------ files


def read_parquet(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    connection = duckdb.connect()
    names = [row[0] for row in connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()]
    rows = connection.execute("SELECT * REPLACE (epoch_ms(time) AS time) FROM read_parquet(?)", [str(path)]).fetchall()
    return names, rows


@pytest.mark.parametrize("size", [0, 3, 2_500])
def test_parquet_has_types_and_the_order_of_the_export(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.historian.export_parquet.PART_ROWS", 700)
    samples = many(["A.X", "B.Y"], size) if size else Samples.empty(("A.X", "B.Y"))
    path = tmp_path / "out.parquet"
    done = write_export(held(samples), order(["B.Y", "A.X"]), path)
    columns, rows = read_parquet(path)
    assert tuple(columns) == HEADER
    assert done.rows == len(rows) == 2 * size
    assert sorted((row[2], row[1], row[4], row[7], row[8], row[9]) for row in rows) == rows_of(samples)
    assert [(row[2] != "B.Y", row[1]) for row in rows] == sorted((row[2] != "B.Y", row[1]) for row in rows)
    assert all(row[0] == row[1] for row in rows)


def test_a_workbook_has_as_many_sheets_as_it_needs_and_runs_nothing(tmp_path: Path) -> None:
    evil = '=HYPERLINK("http://evil","x")'
    store = held(samples_of(ROWS))
    ordered = order([ExportTag("A.X", evil, "+1\x00"), ExportTag("B.Y", "乙", "")])
    writer = XlsxExport(tmp_path, SHANGHAI, sheet_rows_max=3)
    for piece in pieces(store, ordered):
        writer.add(piece)
    book = openpyxl.load_workbook(writer.finish())
    assert book.sheetnames == ["samples", "samples 2"]
    rows = []
    for sheet in book:
        listed = list(sheet.iter_rows())
        assert [cell.value for cell in listed[0]] == ["time (Asia/Shanghai)", *HEADER[1:]]
        rows += listed[1:]
    assert [row[1].value for row in rows] == [row[1] for row in ROWS]
    assert [row[4].value for row in rows] == [row[2] for row in ROWS]
    assert [row[9].value for row in rows] == [row[5] for row in ROWS]
    for row in rows[:3]:
        assert (row[3].data_type, row[3].value) == ("s", evil)
        assert (row[5].data_type, row[5].value) == ("s", "+1\ufffd")
    at = datetime.fromtimestamp(ROWS[1][1] / 1000, SHANGHAI).replace(tzinfo=None)
    assert abs((rows[1][0].value - at).total_seconds()) < 0.001


@settings(max_examples=30, deadline=None)
@given(sound_samples(rows_max=12))
def test_a_workbook_holds_exactly_what_the_store_holds(tmp_path_factory: pytest.TempPathFactory, samples: Samples) -> None:
    path = tmp_path_factory.mktemp("xlsx") / "out.xlsx"
    write_export(held(samples), order(["A.X", "B.Y"], to_ms=T0_MS + 3 * DAY_MS), path)
    (sheet,) = openpyxl.load_workbook(path)
    rows = list(sheet.iter_rows(min_row=2, values_only=True))
    assert sorted((row[2], row[1], row[4], row[7], row[8], row[9]) for row in rows) == rows_of(samples)


def test_progress_is_told_and_empty_tags_are_counted(tmp_path: Path) -> None:
    told: list[ExportProgress] = []
    done = write_export(held(samples_of(ROWS)), order(["A.X", "NONE.HERE"]), tmp_path / "x.csv", progress=told.append)
    assert (done.rows, done.tags_empty, done.bytes) == (3, 1, (tmp_path / "x.csv").stat().st_size)
    assert told[-1] == ExportProgress(1.0, 3)


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_nothing_is_overwritten_unasked_and_nothing_half_done_is_left(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"[o]ut *?'.{ending}"
    write_export(held(samples_of(ROWS)), order(["A.X"]), path)
    before = path.read_bytes()
    with pytest.raises(ExportError, match="not overwritten"):
        write_export(held(samples_of(ROWS)), order(["A.X"]), path)

    class Dies(MemoryHistorian):
        asked = 0

        def range(self, *a: Any, **b: Any) -> Samples:
            self.asked += 1
            if self.asked > 1:
                raise StoreAwayError("gone", "没了")
            return super().range(*a, **b)

    dying = Dies()
    dying.write(samples_of(ROWS))
    with pytest.raises(StoreAwayError):
        write_export(dying, order(["A.X", "B.Y"]), path, force=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_export(held(samples_of(ROWS[:1])), order(["A.X"]), path, force=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def test_what_came_in_the_last_moment_is_not_overwritten_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"

    def finish(self: files.CsvExport) -> Path:
        path.write_text("somebody else's")
        return original(self)

    original = files.CsvExport.finish
    monkeypatch.setattr(files.CsvExport, "finish", finish)
    with pytest.raises(ExportError, match="not overwritten"):
        write_export(held(samples_of(ROWS)), order(["A.X"]), path)
    assert path.read_text() == "somebody else's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_links_gets_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    path = tmp_path / "out.csv"
    write_export(held(samples_of(ROWS)), order(["A.X"]), path)
    with pytest.raises(ExportError, match="not overwritten"):
        files._give_name(path, path, force=False)


@pytest.mark.fault("F51")
def test_no_export_lands_among_the_gateways_own_files(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "historian" / "samples", data / "core", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "way").symlink_to(data / "historian" / "samples", target_is_directory=True)
    (data / "core" / "ledger.db").write_text("the ledger")
    (elsewhere / "link.csv").symlink_to(data / "core" / "ledger.db")
    for wrong in (data / "core" / "x.csv", data / "historian" / "samples" / "x.csv", elsewhere / "way" / "x.csv",
                  data / "exports" / ".." / "core" / "x.csv", elsewhere / ".." / "data" / "core" / "x.csv"):  # fmt: skip
        with pytest.raises(ExportError):
            check_place(wrong, data, force=True)
    with pytest.raises(ExportError, match="no such folder"):
        check_place(tmp_path / "none" / "x.csv", data, force=True)
    (elsewhere / "folder.csv").mkdir()
    os.mkfifo(elsewhere / "pipe.csv")
    for wrong in (elsewhere / "folder.csv", elsewhere / "pipe.csv"):
        with pytest.raises(ExportError, match="no ordinary file"):
            check_place(wrong, data, force=True)
    with pytest.raises(ExportError, match="not overwritten"):
        check_place(elsewhere / "link.csv", data, force=False)
    write_export(held(samples_of(ROWS)), order(["A.X"]), elsewhere / "link.csv", force=True, data=data)
    assert (data / "core" / "ledger.db").read_text() == "the ledger"
    assert not (elsewhere / "link.csv").is_symlink()


def test_the_format_is_that_of_the_name() -> None:
    assert [format_of(Path(f"x.{end}")) for end in ("csv", "CSV", "parquet", "xlsx")] == ["csv", "csv", "parquet", "xlsx"]
    for wrong in ("x", "x.txt", "x.xls", ".csv"):
        with pytest.raises(ExportError):
            format_of(Path(wrong))


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_the_file_has_the_rights_that_the_users_files_have(tmp_path: Path) -> None:
    with _umask(0o022):
        for ending in ("csv", "parquet", "xlsx"):
            write_export(held(samples_of(ROWS)), order(["A.X"]), tmp_path / f"x.{ending}")
            assert stat.S_IMODE((tmp_path / f"x.{ending}").stat().st_mode) == 0o644


def test_what_a_killed_export_left_goes_at_the_next_and_what_another_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    child = os.fork()
    if child == 0:
        writer = pieces

        def dying(*given: Any) -> Iterator[Any]:
            yield from writer(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            files.pieces = dying
            write_export(held(samples_of(ROWS)), order(["A.X"]), path)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    with folder_aside(tmp_path, ".out.csv.") as other:
        assert list(tmp_path.iterdir()) == [other]
        write_export(held(samples_of(ROWS)), order(["A.X"]), path)
        assert sorted(tmp_path.iterdir()) == sorted([other, path])
    assert list(tmp_path.iterdir()) == [path]
