"""Export into a file: written aside, synced, and only then given its name; what is there is not overwritten unasked.

On failure nothing is left. A name is refused that would put the file where the gateway keeps its own (F51).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, get_args

from gateway.historian.export import ExportError, ExportOrder, Format, Piece, RangeReader, pieces
from gateway.historian.export_aside import folder_aside
from gateway.historian.export_csv import csv_header, csv_lines
from gateway.historian.segments.missing import Missing

OWN_FOLDERS: Final = ("core", "serve", "historian", "edge")
_NAME_CHARS: Final = 40


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is: 0 to 1, and the rows written."""

    done: float
    rows: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote. `rows`: of samples. `tags_empty`: tags without a sample in the range, and without damage.

    `damaged`: what of the range is stored and cannot be read, each file's stretch once; `tags_damaged`: tags it may be of.
    """

    rows: int
    bytes: int
    tags_empty: int
    tags_damaged: int = 0
    damaged: tuple[Missing, ...] = ()


class _Writer(Protocol):
    def add(self, piece: Piece) -> None: ...
    def finish(self) -> Path: ...
    def close(self) -> None: ...


def format_of(path: Path) -> Format:
    """Return the format that a file's name asks for; raises ExportError on any other."""
    word = path.suffix.lower().removeprefix(".")
    for known in get_args(Format):
        if word == known:
            return known  # type: ignore[no-any-return]
    raise ExportError(
        f"{path}: write the name with .csv, .parquet or .xlsx at its end", f"{path}：文件名须以 .csv、.parquet 或 .xlsx 结尾"
    )


def check_place(path: Path, data: Path | None, *, force: bool) -> None:
    """Refuse a place that is none for an export.

    Raises:
        ExportError: no such folder, something is there already, or it is among the gateway's own files.
    """
    parent = Path(os.path.realpath(path.parent))
    if not parent.is_dir():
        raise ExportError(f"{path.parent}: there is no such folder; make it first", f"{path.parent}：没有此文件夹；请先创建")
    if data is not None:
        for name in ("", *OWN_FOLDERS):  # each of these may be a link to another disk
            own = Path(os.path.realpath(data / name))
            if parent == own or own in parent.parents:
                raise ExportError(
                    f"{path}: {own} holds the gateway's own files; export to another folder",
                    f"{path}：{own} 存放网关自己的文件；请导出到其他文件夹",
                )
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise ExportError(f"{path}: is no ordinary file; give another name", f"{path}：不是普通文件；请换一个文件名")
    if os.path.lexists(path) and not force:
        raise _exists(path)


def write_export(
    historian: RangeReader, order: ExportOrder, path: Path, *, bom: bool = True, force: bool = False, data: Path | None = None,
    progress: Callable[[ExportProgress], None] = lambda _: None,
) -> Exported:  # fmt: skip
    """Write what is ordered to `path`, in the format its name asks for.

    Args:
        bom: CSV begins with a byte order mark, for Excel.
        force: an existing file is replaced, as a whole and at the very end.
        data: the gateway's data folder, whose own files are out of bounds.

    What is damaged is gone past: a row stands where it begins, and what is returned says so.

    Raises:
        ExportError: nothing was written. HistorianError: the store could not be read; nothing was written.
        OSError: the disk is full, the folder is read-only …; nothing was written.
    """
    kind = format_of(path)
    check_place(path, data, force=force)
    with folder_aside(path.parent, f".{path.name[:_NAME_CHARS]}.") as folder:
        writer = _writer(kind, folder, order, bom=bom)
        rows, filled, harmed, last = 0, set(), set(), ""
        damaged: dict[Missing, None] = {}
        try:
            for piece in pieces(historian, order):
                writer.add(piece)
                rows += len(piece.samples)
                if len(piece.samples) and piece.tag.id != last:
                    last = piece.tag.id
                    filled.add(last)
                if piece.damaged:
                    harmed.add(piece.tag.id)
                    damaged.update(dict.fromkeys(piece.damaged))
                progress(ExportProgress(piece.done, rows))
            made = writer.finish()
        finally:
            writer.close()
        size = made.stat().st_size
        _give_name(made, path, force=force)
    told = tuple(sorted(damaged, key=lambda each: (each.from_ms, each.to_ms, each.file)))
    return Exported(rows, size, len(order.tags) - len(filled | harmed), len(harmed), told)


class CsvExport:
    """Writes `folder`/export.csv."""

    def __init__(self, folder: Path, order: ExportOrder, *, bom: bool) -> None:
        self._path, self._zone = folder / "export.csv", order.zone
        self._file = self._path.open("xb")
        self._file.write(csv_header(bom=bom))

    def add(self, piece: Piece) -> None:
        """Take the next piece."""
        self._file.write(csv_lines(piece, self._zone))

    def finish(self) -> Path:
        """Write what is still in memory."""
        self._file.flush()
        return self._path

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _writer(kind: Format, folder: Path, order: ExportOrder, *, bom: bool) -> _Writer:
    if kind == "csv":
        return CsvExport(folder, order, bom=bom)
    if kind == "parquet":
        from gateway.historian.export_parquet import ParquetExport

        return ParquetExport(folder, order.zone)
    from gateway.historian.export_xlsx import XlsxExport

    return XlsxExport(folder, order.zone)


def _give_name(made: Path, path: Path, *, force: bool) -> None:
    """Sync the file and give it its name at once; a link never overwrites, not even what came in the last moment."""
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    if force:
        made.replace(path)
    else:
        try:
            path.hardlink_to(made)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise
            if os.path.lexists(path):  # a disk without links, such as FAT: the best that can be done there
                raise _exists(path) from None
            made.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> ExportError:
    return ExportError(f"{path}: exists and is not overwritten; --force replaces it", f"{path}：文件已存在，不会覆盖；--force 可替换")
