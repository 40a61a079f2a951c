"""DuckDB tells how far it is on standard output, after two seconds: where JSON and CSV go. None of ours may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gateway.historian.export_parquet import ParquetExport
from gateway.historian.load_files import FileRead, read_parquet
from gateway.historian.load_rows import Problems
from gateway.historian.load_stage import Stage
from gateway.historian.segments.files import connect


def _export(folder: Path) -> Any:
    return ParquetExport(folder, UTC)._connection


def _stage(folder: Path) -> Any:
    return Stage(folder, ())._connection


def _read(folder: Path) -> Any:
    path = folder / "one.parquet"
    with closing(duckdb.connect()) as db:
        db.execute("COPY (SELECT 1 AS t, 2 AS v) TO $path (FORMAT parquet)", {"path": str(path)}).fetchall()
    read_parquet(path, ["t", "v"], "t", Problems(), FileRead())


@pytest.mark.parametrize("opened", [_export, _stage, _read, connect])
def test_no_database_of_ours_prints_how_far_it_is(
    tmp_path: Path, opened: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[duckdb.DuckDBPyConnection] = []
    real = duckdb.connect

    def noted(*given: Any, **more: Any) -> duckdb.DuckDBPyConnection:
        made.append(real(*given, **more))
        made[-1].execute("SET enable_progress_bar = true").fetchall()  # as DuckDB has it where it takes us for a terminal
        return made[-1]

    monkeypatch.setattr(duckdb, "connect", noted)
    opened(tmp_path)
    with closing(made[-1]) as last:
        assert last.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
