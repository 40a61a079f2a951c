"""Export as an Excel workbook: as many sheets as its rows need, written row by row.

The first column is a date of the site's wall clock, so that Excel can chart it; `utc_ms` says which moment that was.
Texts are typed as texts in the file: Excel runs none of them (F52).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final

from gateway.historian.export import Piece
from gateway.historian.export_columns import HEADER, numbers, offsets_ms, rows_of
from gateway.historian.samples import DAY_MS

SHEET_ROWS_MAX: Final = 1_048_576
"""Of Excel, the header's row included (Microsoft, Excel specifications and limits)."""
_TEXT_CHARS_MAX: Final = 32_767
_EPOCH_DAYS: Final = 25_569  # 1970-01-01 as Excel counts days
_WIDTHS: Final = {"time": 24, "utc_ms": 16, "tag": 22, "name_zh": 24, "value": 14, "unit": 10, "quality": 20, "raw": 14}
_TEXTS: Final = tuple(HEADER.index(name) for name in ("tag", "name_zh", "unit"))
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class XlsxExport:
    """Writes `folder`/export.xlsx; the folder is its own, and nobody else's."""

    def __init__(self, folder: Path, zone: tzinfo, sheet_rows_max: int = SHEET_ROWS_MAX) -> None:
        from openpyxl import Workbook

        self._folder, self._zone, self._sheet_rows_max = folder, zone, sheet_rows_max
        self._book = Workbook(write_only=True)
        self._sheet: Any = None
        self._rows = 0
        self._cells: tuple[Any, ...] = ()

    def add(self, piece: Piece) -> None:
        """Take the next piece."""
        samples, words = rows_of(piece, self._zone)
        columns = zip(
            ((samples.source_ms + offsets_ms(samples.source_ms, self._zone)) / DAY_MS + _EPOCH_DAYS).tolist(),
            samples.source_ms.tolist(), numbers(samples.value, str), samples.code.tolist(), numbers(samples.raw, str),
            samples.late.tolist(), words.tolist(), strict=True,
        )  # fmt: skip
        with _temporary_files_in(self._folder):
            self._append(piece, columns)

    def finish(self) -> Path:
        """Close the workbook."""
        path = self._folder / "export.xlsx"
        with _temporary_files_in(self._folder):
            if self._sheet is None:
                self._begin_sheet()
            self._book.save(path)
        self._sheet = None
        return path

    def close(self) -> None:
        """Leave no file of openpyxl open, whatever became of the workbook."""
        if self._sheet is not None:
            self._sheet.close()

    def _append(self, piece: Piece, columns: Iterator[tuple[Any, ...]]) -> None:
        if self._sheet is None:
            self._begin_sheet()
        texts = [_NOT_XML.sub("\ufffd", text)[:_TEXT_CHARS_MAX] for text in (piece.tag.id, piece.tag.name_zh, piece.tag.unit)]
        self._set_texts(texts)
        for serial, utc_ms, value, code, raw, late, word in columns:
            if self._rows >= self._sheet_rows_max:
                self._begin_sheet()
                self._set_texts(texts)
            # openpyxl writes a row at once, so that the same cells serve the next row too.
            cells = self._cells
            cells[0].value, cells[1].value, cells[6].value = serial, utc_ms, word
            cells[7].value, cells[9].value = code, late
            _set_number(cells[4], value)
            _set_number(cells[8], raw)
            for at in _TEXTS:
                cells[at].data_type = "s"  # whatever it begins with; and openpyxl resets it once the cell is written
            self._sheet.append(cells)
            self._rows += 1

    def _set_texts(self, texts: list[str]) -> None:
        for at, text in zip(_TEXTS, texts, strict=True):
            self._cells[at].value = text

    def _begin_sheet(self) -> None:
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.utils import get_column_letter

        if self._sheet is not None:
            self._sheet.close()
        number = len(self._book.worksheets) + 1
        sheet = self._book.create_sheet("samples" if number == 1 else f"samples {number}")
        sheet.freeze_panes = "A2"
        for at, name in enumerate(HEADER, 1):
            sheet.column_dimensions[get_column_letter(at)].width = _WIDTHS.get(name, 8)
        sheet.append((f"time ({self._zone})", *HEADER[1:]))
        cells = tuple(WriteOnlyCell(sheet) for _ in HEADER)
        cells[0].number_format, cells[1].number_format = "yyyy-mm-dd hh:mm:ss.000", "0"
        self._sheet, self._cells, self._rows = sheet, cells, 1


def _set_number(cell: Any, number: float | str | None) -> None:
    """Let a cell hold a number in as many digits as it has: openpyxl itself would write 16, which are not always enough."""
    if isinstance(number, float):
        cell.value = repr(number)
        cell.data_type = "n"
    else:
        cell.value = number


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let openpyxl keep its sheets beside the workbook: /tmp may be memory, and a sheet of a million rows is large."""
    import tempfile

    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
