"""Import, files: CSV and Parquet as chunks of rows, each with its line; and what file it was, by its content."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config import HistoryMapping
from gateway.historian.load_rows import Problems, missing_columns

CHUNK_ROWS: Final = 20_000
CHUNK_CELLS: Final = 400_000  # of Parquet
CHUNK_CHARS: Final = 4_000_000  # of CSV
ROW_CHARS_MAX: Final = 4_000_000
TEXT_CHARS: Final = 1_000  # of a cell of Parquet: no time, number, word or tag is longer, and a small file may hold large ones
FIELD_CHARS_MAX: Final = 65_536
COLUMNS_MAX: Final = 10_000
_FROM: Final = "FROM read_parquet(?, hive_partitioning = false)"
_READ_BYTES: Final = 1 << 20
_PLAIN_TYPE: Final = re.compile(r"(?!BLOB|BIT|INTERVAL)[A-Z][A-Z0-9_ ]*(\([0-9, ]+\))?|ENUM\(.*\)")

Chunk = tuple[Sequence[int], Mapping[str, Sequence[Any]]]


@dataclass(slots=True)
class FileRead:
    """How far the file is read (bytes of CSV, rows of Parquet), and once it is: the hash of its content."""

    whole: int = 0
    done: int = 0
    sha256: str = ""


def read_csv(
    path: Path, mapping: HistoryMapping, wanted: Sequence[str], problems: Problems, read: FileRead, optional: Sequence[str] = ()
) -> Iterator[Chunk]:
    """Yield the rows of a CSV file. What is wrong with a row is told; what is wrong with the file ends it.

    The columns `wanted` must be there; `optional` ones come with them where the file has them.

    The hash is that of the very bytes the rows came from.
    """
    with path.open("rb", buffering=0) as file:
        read.whole = os.fstat(file.fileno()).st_size
        hashing = _Hashing(file, read)
        text = io.TextIOWrapper(
            io.BufferedReader(hashing, _READ_BYTES), encoding="utf-8-sig" if mapping.encoding == "utf-8" else mapping.encoding,
            errors="strict", newline="",
        )  # fmt: skip
        line = 0
        try:
            for _ in range(mapping.header_line - 1):
                text.readline(FIELD_CHARS_MAX)
                line += 1
            bounded = _Lines(text)
            rows = csv.reader(bounded, delimiter=mapping.delimiter, strict=True)
            csv.field_size_limit(FIELD_CHARS_MAX)
            header = [name.strip() for name in next(rows, [])][:COLUMNS_MAX]
            if missing_columns(wanted, header, problems, line + 1):
                return
            wanted = [*wanted, *(name for name in optional if name in header)]
            places = [header.index(name) for name in wanted]
            lines: list[int] = []
            kept: list[list[str]] = []
            before, chars = line, 0
            for row in rows:
                line = before + rows.line_num
                chars += bounded.begin_row()
                if len(row) != len(header):
                    if row:
                        told = f"{len(row)} cells under {len(header)} columns", f"{len(row)} 个单元格，而表头有 {len(header)} 列"
                        problems.add(line, "", *told)
                    continue
                lines.append(line)
                kept.append(row)
                if len(kept) >= CHUNK_ROWS or chars >= CHUNK_CHARS:
                    yield lines, {name: [row[at] for row in kept] for name, at in zip(wanted, places, strict=True)}
                    lines, kept, chars = [], [], 0
            yield lines, {name: [row[at] for row in kept] for name, at in zip(wanted, places, strict=True)}
        except UnicodeDecodeError:
            problems.add(line + 1, "", f"from about here it is not {mapping.encoding}; name its encoding in a mapping (--mapping)",
                         f"从此行附近起不是 {mapping.encoding}；请用 --mapping 给出映射文件并写明 encoding")  # fmt: skip
        except csv.Error as error:
            problems.add(line + 1, "", f"no sound CSV ({error}); mend the quotes", f"不是正确的 CSV（{error}）；请检查引号")
        read.sha256 = hashing.sha256.hexdigest()


def read_parquet(
    path: Path, wanted: Sequence[str], time_column: str, problems: Problems, read: FileRead, optional: Sequence[str] = ()
) -> tuple[bool, Callable[[], Iterator[Chunk]]]:
    """Return whether the time column holds moments (with a zone) already, and what yields the rows; columns as `read_csv`."""
    import duckdb

    before = path.stat()
    read.sha256 = _sha256(path)
    connection = duckdb.connect(":memory:", config={
        "threads": "1", "memory_limit": "512MB", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false", "temp_directory": "",
    })  # fmt: skip
    connection.execute("SET enable_progress_bar = false").fetchall()  # it would go to our standard output
    try:
        ((read.whole,),) = connection.execute(f"SELECT count(*) {_FROM}", [_glob(path)]).fetchall()
        described = connection.execute(f"DESCRIBE SELECT * {_FROM}", [_glob(path)]).fetchall()
    except duckdb.Error as error:
        first = str(error).partition("\n")[0][:200]
        problems.add(0, "", f"no sound Parquet file ({first})", f"不是正确的 Parquet 文件（{first}）")
        described = []
    types = {str(row[0]): str(row[1]) for row in described}
    if not types or missing_columns(wanted, list(types), problems, 0):
        connection.close()
        return False, lambda: iter(())
    wanted = [*wanted, *(name for name in optional if name in types)]
    zoned = types[time_column] == "TIMESTAMP WITH TIME ZONE"
    before_types = problems.count
    for name in wanted:
        if not _PLAIN_TYPE.fullmatch(types[name]):
            told = types[name][:40]
            problems.add(
                0, name, f"the column is of type {told}: only texts, numbers and times can be read",
                f"该列类型为 {told}：只能读取文本、数字和时间",
            )  # fmt: skip
    if problems.count > before_types:
        connection.close()
        return False, lambda: iter(())
    asked = ", ".join(
        f"epoch_ms({_quoted(name)})" if name == time_column and zoned
        else f"left({_quoted(name)}, {TEXT_CHARS})" if types[name] == "VARCHAR" else _quoted(name)
        for name in wanted
    )  # fmt: skip
    at_once = max(1, min(CHUNK_ROWS, CHUNK_CELLS // len(wanted)))

    def rows() -> Iterator[Chunk]:
        try:
            connection.execute(f"SELECT {asked} {_FROM}", [_glob(path)])
            line = 0
            while found := connection.fetchmany(at_once):
                read.done += len(found)
                yield range(line + 1, line + len(found) + 1), dict(zip(wanted, zip(*found, strict=True), strict=True))
                line += len(found)
        except duckdb.Error as error:
            first = str(error).partition("\n")[0][:200]
            problems.add(0, "", f"the file cannot be read to its end ({first})", f"文件无法读完（{first}）")
        finally:
            connection.close()
        after = path.stat()
        if (before.st_mtime_ns, before.st_size, before.st_ino) != (after.st_mtime_ns, after.st_size, after.st_ino):
            problems.add(0, "", "the file changed while it was read; try again", "读取期间文件发生了变化；请重试")

    return zoned, rows


class _Lines:
    """The lines of a text, as long as a row of them has an end: what never ends must not be held in memory."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text, self._taken = text, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(ROW_CHARS_MAX - self._taken + 1)
        self._taken += len(line)
        if self._taken > ROW_CHARS_MAX:
            raise csv.Error(f"a row of more than {ROW_CHARS_MAX} characters")
        if not line:
            raise StopIteration
        return line

    def begin_row(self) -> int:
        """Return of how many characters the row was, and begin the next."""
        taken, self._taken = self._taken, 0
        return taken


class _Hashing(io.RawIOBase):
    """Passes bytes on and hashes them."""

    def __init__(self, file: Any, read: FileRead) -> None:
        self._file, self._read = file, read
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._file.readinto(buffer) or 0)
        self.sha256.update(memoryview(buffer)[:count])
        self._read.done += count
        return count


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _glob(path: Path) -> list[str]:
    """Return a path as DuckDB takes it: it would take *, ? and [ for patterns."""
    return ["".join(f"[{char}]" if char in "*?[" else char for char in os.fspath(path))]

