"""Questions to Parquet files through DuckDB: columns in, columns out. Knows files, not manifests and not days.

One database in memory for the process, a cursor a question. Every value is a bound parameter, paths too; nothing is
installed or loaded at run time. What cannot be read is told as `UnreadableError`: which of the files is at fault is
found by asking for halves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from gateway.historian.limits import out_of_time, too_many
from gateway.historian.samples import Samples
from gateway.historian.segments.spill import own_folder
from gateway.historian.store import QueryTooLargeError
from gateway.historian.windows import ROLLUP_COLUMNS, Rollups, left_out

THREADS: Final = 2
MEMORY_MB: Final = 384
SPILL_BYTES_MAX: Final = 2 << 30
SPILL_SHARE: Final = 0.1  # of what is free on that disk when the first question comes
STORE: Final = "embedded"

T = TypeVar("T")
Columns = Mapping[str, NDArray[Any]]

# hive_partitioning: a folder called a=b on the way would become a column.
_FROM: Final = "FROM read_parquet($files, hive_partitioning = false, union_by_name = false)"
_SAMPLES: Final = "source_ms, value, code, raw, late, stream, sequence, file_index"
_TAGS: Final = "JOIN (SELECT unnest($tags) AS tag, generate_subscripts($tags, 1) - 1 AS number) USING (tag)"
_SPANS: Final = (
    "JOIN (SELECT unnest($tags) AS tag, unnest($numbers) AS number, unnest($lo) AS lo, unnest($hi) AS hi) AS span"
    " USING (tag) WHERE source_ms >= span.lo AND source_ms < span.hi AND source_ms >= $from_ms AND source_ms < $to_ms"
)

# A double holds every millisecond of 285 000 years, and `//` would round times before 1970 the wrong way.
_WINDOWS: Final = (
    "JOIN (SELECT unnest($tags) AS tag, unnest($numbers) AS number) USING (tag)"
    " SEMI JOIN (SELECT unnest($windows) AS held) ON"
    " CAST(floor(source_ms / $width) AS BIGINT) * $names + number = held"
    " WHERE source_ms >= $from_ms AND source_ms < $to_ms"
)

# Of longer windows, a row a file: the file's own rows of a tag follow one another, what they say together is exact.
_SUMMED: Final = {
    "from_ms": "min(from_ms)", "to_ms": "max(to_ms)",
    **{name: f"CAST(sum(CAST({name} AS DOUBLE)) AS BIGINT)" for name in ("good", "uncertain", "bad", "late")},
    "first": "arg_min(first, start_ms)", "last": "arg_max(last, start_ms)", "min": "min(min)", "max": "max(max)", "sum": "sum(sum)",
}  # fmt: skip
SUMMABLE: Final = frozenset(("tag", "start_ms", *_SUMMED))
"""Columns of rollups that `summed_rollups` tells."""
_KEY: Final = "(file_index * $names + number) * $places + (start_ms - $origin_ms) // $width"


class UnreadableError(Exception):
    """One of the files asked for is not there, or not what it must be."""


class ParquetReader:
    """Reads from any thread. `close` interrupts nothing: what runs ends by its own deadline."""

    def __init__(self, temporary: Path | None = None, *, threads: int = THREADS, memory_mb: int = MEMORY_MB) -> None:
        """Below `temporary` DuckDB may spill, in a folder of this process; None: nowhere."""
        self._temporary = temporary
        self._settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads, "memory_limit": f"{memory_mb}MB", "temp_directory": "",
            "autoinstall_known_extensions": False, "autoload_known_extensions": False, "enable_external_file_cache": False,
            "preserve_insertion_order": True,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    # -- questions --

    def samples(
        self, files: Sequence[Path], tag: str, from_ms: int, to_ms: int, rows_max: int, give_up_at: float
    ) -> tuple[Samples, NDArray[np.int64]]:
        """Return one tag's samples of [from_ms, to_ms), file after file, and of each the index of its file.

        Raises:
            UnreadableError, QueryTooLargeError, QueryTimeError.
        """
        columns = self._ask(
            f"SELECT 0 AS number, {_SAMPLES} {_FROM} WHERE tag = $tag AND source_ms >= $from_ms AND source_ms < $to_ms LIMIT $rows",
            {"files": _globs(files), "tag": tag, "from_ms": from_ms, "to_ms": to_ms, "rows": rows_max + 1}, give_up_at,
        )  # fmt: skip
        return _samples((tag,), columns, rows_max)

    def samples_of(
        self, files: Sequence[Path], names: tuple[str, ...], spans: Spans, rows_max: int, give_up_at: float
    ) -> tuple[Samples, NDArray[np.int64]]:
        """Return the samples of many tags, each of its own spans of time, which do not overlap.

        Args:
            names: what the tags of the answer count in. spans: by index in `names`, (from, to) of each.
        """
        if not spans:
            return _samples(names, None, rows_max)
        numbers, lows, highs = (list(column) for column in zip(*spans, strict=True))
        parameters = {
            "files": _globs(files), "tags": [names[at] for at in numbers], "numbers": numbers, "lo": lows, "hi": highs,
            "from_ms": min(lows), "to_ms": max(highs), "rows": rows_max + 1,
        }  # fmt: skip
        columns = self._ask(f"SELECT number, {_SAMPLES} {_FROM} {_SPANS} LIMIT $rows", parameters, give_up_at)
        return _samples(names, columns, rows_max)

    def samples_in_windows(
        self, files: Sequence[Path], names: tuple[str, ...], windows: Sequence[tuple[int, int]], width_ms: int,
        within: tuple[int, int], rows_max: int, give_up_at: float,
    ) -> tuple[Samples, NDArray[np.int64]]:  # fmt: skip
        """Return the samples of many windows of many tags.

        Args:
            windows: (index in `names`, where it begins: a multiple of the width) of each. within: [from, to) cuts them.
        """
        if not windows:
            return _samples(names, None, rows_max)
        numbers = sorted({number for number, _ in windows})
        lo, hi = min(start for _, start in windows), max(start for _, start in windows) + width_ms
        parameters = {
            "files": _globs(files), "tags": [names[at] for at in numbers], "numbers": numbers, "width": width_ms,
            "windows": [start // width_ms * len(names) + number for number, start in windows],
            "from_ms": max(lo, within[0]), "to_ms": min(hi, within[1]), "names": len(names), "rows": rows_max + 1,
        }  # fmt: skip
        columns = self._ask(f"SELECT number, {_SAMPLES} {_FROM} {_WINDOWS} LIMIT $rows", parameters, give_up_at)
        return _samples(names, columns, rows_max)

    def rollups(
        self, files: Sequence[Path], names: tuple[str, ...], from_ms: int, to_ms: int, rows_max: int, give_up_at: float,
        columns: Collection[str] = ROLLUP_COLUMNS,
    ) -> Rollups:  # fmt: skip
        """Return the rollup rows of these tags whose windows begin in [from_ms, to_ms); the other columns are left out."""
        within = "start_ms >= $from_ms AND start_ms < $to_ms LIMIT $rows"
        parameters: dict[str, Any] = {"files": _globs(files), "from_ms": from_ms, "to_ms": to_ms, "rows": rows_max + 1}
        chosen = ", ".join(name for name in ROLLUP_COLUMNS[1:] if name in columns)
        if len(names) == 1:
            sql = f"SELECT 0 AS number, {chosen} {_FROM} WHERE tag = $tag AND {within}"
            parameters["tag"] = names[0]
        else:
            sql = f"SELECT number, {chosen} {_FROM} {_TAGS} WHERE {within}"
            parameters["tags"] = list(names)
        found = self._ask(sql, parameters, give_up_at)
        if len(found["number"]) > rows_max:
            raise too_many(rows_max)
        return Rollups(names, _ints(found["number"]).astype(np.int32), *_columns(found, ROLLUP_COLUMNS[1:], columns))

    def summed_rollups(
        self, files: Sequence[Path], names: tuple[str, ...], from_ms: int, to_ms: int, width_ms: int, rows_max: int,
        give_up_at: float, columns: Collection[str],
    ) -> Rollups:  # fmt: skip
        """Return what `rollups` does, put together to windows of `width_ms` from `from_ms` on: a row a file, tag and window.

        Args:
            columns: of `SUMMABLE`; the others are left out.
        """
        parameters = {
            "files": _globs(files), "tags": list(names), "names": len(names), "from_ms": from_ms, "to_ms": to_ms,
            "origin_ms": from_ms, "width": width_ms, "places": (places := -(-(to_ms - from_ms) // width_ms)), "rows": rows_max + 1,
        }  # fmt: skip
        chosen = ", ".join(f"{_SUMMED[name]} AS {name}" for name in ROLLUP_COLUMNS[2:] if name in columns)
        found = self._ask(
            f"SELECT {_KEY} AS key, {chosen} {_FROM} {_TAGS} WHERE start_ms >= $from_ms AND start_ms < $to_ms GROUP BY key LIMIT $rows",
            parameters, give_up_at,
        )  # fmt: skip
        if len(found["key"]) > rows_max:
            raise too_many(rows_max)
        row, place = np.divmod(_ints(found["key"]), places)
        taken: list[NDArray[Any]] = [(row % len(names)).astype(np.int32), from_ms + place * width_ms]
        return Rollups(names, *taken, *_columns(found, ROLLUP_COLUMNS[2:], columns))

    def newest(self, files: Sequence[Path], names: tuple[str, ...], give_up_at: float) -> dict[int, int]:
        """Return by index in `names` the source time of the newest sample, out of rollups; tags without one are left out."""
        columns = self._ask(
            f"SELECT number, max(to_ms) AS to_ms {_FROM} {_TAGS} GROUP BY number",
            {"files": _globs(files), "tags": list(names)}, give_up_at,
        )  # fmt: skip
        return dict(zip(columns["number"].tolist(), columns["to_ms"].tolist(), strict=True))

    def tags(self, files: Sequence[Path], give_up_at: float) -> list[tuple[str, int]]:
        """Return the tags of sample files in the order of their ids, and how many rows each has."""
        columns = self._ask(
            f"SELECT tag, count(*) AS rows {_FROM} GROUP BY tag ORDER BY tag", {"files": _globs(files)}, give_up_at
        )  # fmt: skip
        return list(zip(columns["tag"].tolist(), columns["rows"].tolist(), strict=True))

    def spans(self, files: Sequence[Path], give_up_at: float) -> list[tuple[int, int]]:
        """Return of each file the source times of its first and last sample; (0, -1) of one without samples."""
        columns = self._ask(
            f"SELECT file_index, min(source_ms) AS lo, max(source_ms) AS hi {_FROM} GROUP BY file_index",
            {"files": _globs(files)}, give_up_at,
        )  # fmt: skip
        found = {at: (lo, hi) for at, lo, hi in zip(*(columns[name].tolist() for name in ("file_index", "lo", "hi")), strict=True)}
        return [found.get(at, (0, -1)) for at in range(len(files))]

    def days(self, files: Sequence[Path], give_up_at: float) -> list[int]:
        """Return the numbers of the UTC days that sample files hold."""
        columns = self._ask(
            f"SELECT DISTINCT floor(source_ms / 86400000)::BIGINT AS day {_FROM}", {"files": _globs(files)}, give_up_at
        )  # fmt: skip
        return sorted(columns["day"].tolist())

    # -- DuckDB --

    def _ask(self, sql: str, parameters: Mapping[str, Any], give_up_at: float) -> Columns:
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            raise out_of_time(STORE, 0)
        with self._cursor() as cursor, _interrupted_after(cursor, left_s):
            try:
                found: Columns = cursor.execute(sql, parameters).fetchnumpy()
            except duckdb.InterruptException:
                raise out_of_time(STORE, left_s) from None
            except duckdb.OutOfMemoryException:
                raise QueryTooLargeError(
                    f"{STORE}: the question needs more than {self._settings['memory_limit']} of memory; ask for a shorter range",
                    f"{STORE}：该查询所需内存超过 {self._settings['memory_limit']}；请缩短范围",
                ) from None
            except (duckdb.FatalException, duckdb.InternalException) as error:
                self._forget()  # DuckDB answers nothing more after these
                raise UnreadableError(_first_line(error)) from error
            except duckdb.InvalidInputException as error:  # its words name paths and its own insides
                raise UnreadableError("it is cut short, or changed") from error
            except duckdb.IOException as error:
                raise UnreadableError(f"it cannot be read ({_first_line(error).rpartition(': ')[2]})") from error
            except duckdb.Error as error:
                raise UnreadableError(_first_line(error)) from error
            except (UnicodeDecodeError, LookupError, TypeError) as error:  # rubbish in a file's end makes any of these
                raise UnreadableError("it is cut short, or changed") from error
        if any(name != name.lower() for name in found):  # DuckDB takes Value for value, and answers with what the file says
            raise UnreadableError("it is cut short, or changed")
        return found

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            if self._database is None:
                self._database = duckdb.connect(":memory:", config={**self._settings, **self._spill()})
                self._database.execute("SET enable_progress_bar = false").fetchall()  # it would go to our standard output
            cursor = self._database.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def _spill(self) -> dict[str, str]:
        """Return where and how much may be spilled; nowhere if the folder cannot be written."""
        if self._temporary is None:
            return {}
        try:
            own = own_folder(self._temporary)
            limit = min(SPILL_BYTES_MAX, int(shutil.disk_usage(own).free * SPILL_SHARE))
        except OSError:
            return {}
        return {"temp_directory": str(own), "max_temp_directory_size": f"{max(limit, 1)}B"}

    def _forget(self) -> None:
        with self._lock:
            self._database = None


Spans = Sequence[tuple[int, int, int]]
"""(index of the tag, from, to) of each."""


def by_halves(
    files: Sequence[T], ask: Callable[[Sequence[T]], Any], unreadable: Callable[[T, UnreadableError], None]
) -> list[Any]:
    """Ask for all files at once, and where that fails for halves; files that fail alone are told to `unreadable`."""
    if not files:
        return []
    try:
        return [ask(files)]
    except UnreadableError as error:
        if len(files) == 1:
            unreadable(files[0], error)
            return []
    middle = len(files) // 2
    return [*by_halves(files[:middle], ask, unreadable), *by_halves(files[middle:], ask, unreadable)]


@contextlib.contextmanager
def _interrupted_after(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.name, timer.daemon = "historian-deadline", True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


_FLOATS: Final = frozenset(("first", "last", "min", "max", "sum"))


def _columns(found: Columns, names: Sequence[str], chosen: Collection[str]) -> list[NDArray[Any]]:
    """Return the columns of rollups that were chosen, in order; the others left out."""
    rows = len(next(iter(found.values())))
    return [
        left_out(name, rows) if name not in chosen else _floats(found[name]) if name in _FLOATS else _ints(found[name])
        for name in names
    ]


def _samples(
    names: tuple[str, ...], columns: Columns | None, rows_max: int
) -> tuple[Samples, NDArray[np.int64]]:
    if columns is None or not len(columns["number"]):
        return Samples.empty(names), np.empty(0, np.int64)
    if len(columns["number"]) > rows_max:
        raise too_many(rows_max)
    samples = Samples(
        names, _ints(columns["number"]).astype(np.int32), _ints(columns["source_ms"]), _floats(columns["value"]),
        _ints(columns["code"]).astype(np.uint8), _floats(columns["raw"]), np.asarray(columns["late"], np.bool_),
        _ints(columns["stream"]), _ints(columns["sequence"]),
    )  # fmt: skip
    return samples, _ints(columns["file_index"])


def _ints(column: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(column).astype(np.int64, copy=False)


def _floats(column: NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(column, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(column), np.nan, column.data).astype(np.float64)
    return np.asarray(column, np.float64)


def _globs(files: Sequence[Path]) -> list[str]:
    """Return paths as DuckDB takes them: it would take *, ? and [ for patterns."""
    return ["".join(f"[{char}]" if char in "*?[" else char for char in os.fspath(path)) for path in files]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
