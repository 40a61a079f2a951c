"""Export as Parquet: every piece a small file beside, then one file of them, in their order and in bounded memory."""

from __future__ import annotations

from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.historian.export import ExportError, Piece
from gateway.historian.export_columns import rows_of

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

MEMORY_LIMIT: Final = "512MB"
PART_ROWS: Final = 1_000_000
_PIECE: Final = "piece"


class ParquetExport:
    """Writes `folder`/export.parquet; the folder is its own, and nobody else's."""

    def __init__(self, folder: Path, zone: tzinfo) -> None:
        import numpy as np

        from gateway.historian.samples import Samples, concatenated

        self._np, self._concatenated, self._folder, self._zone = np, concatenated, folder, zone
        self._connection = _connect(folder)
        self._waiting: list[tuple[Piece, Samples, NDArray[Any]]] = []
        self._waiting_rows = 0
        self._parts: list[str] = []

    def add(self, piece: Piece) -> None:
        """Take the next piece."""
        samples, words = rows_of(piece, self._zone)
        if not len(samples):
            return
        self._waiting.append((piece, samples, words))
        self._waiting_rows += len(samples)
        if self._waiting_rows >= PART_ROWS:
            self._flush()

    def finish(self) -> Path:
        """Join the parts."""
        if self._waiting or not self._parts:
            self._flush()
        path = self._folder / "export.parquet"
        self._copy(
            "COPY (SELECT * FROM read_parquet($parts)) TO $path (FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd)",
            {"parts": self._parts, "path": str(path)},
        )
        return path

    def close(self) -> None:
        """Let go of DuckDB."""
        self._connection.close()

    def _flush(self) -> None:
        np, waiting = self._np, self._waiting
        samples = self._concatenated([each for _, each, _ in waiting])
        counts = [len(each) for _, each, _ in waiting]
        texts = np.array([(each.tag.id, each.tag.name_zh, each.tag.unit) for each, _, _ in waiting], object).reshape(-1, 3)
        tag, name, unit = (np.repeat(texts[:, at], counts) for at in range(3))
        self._connection.register(_PIECE, {
            "utc_ms": samples.source_ms, "tag": tag, "name_zh": name, "value": samples.value, "unit": unit,
            "quality": np.concatenate([np.empty(0, object), *(words for _, _, words in waiting)]),
            "code": samples.code, "raw": samples.raw, "late": samples.late,
        })  # fmt: skip
        path = str(self._folder / f"part-{len(self._parts):08}.parquet")
        self._copy(
            "COPY (SELECT make_timestamptz(utc_ms * 1000) AS time, utc_ms, tag::VARCHAR AS tag, name_zh::VARCHAR AS name_zh,"
            " CASE WHEN isnan(value) THEN NULL ELSE value END AS value, unit::VARCHAR AS unit, quality::VARCHAR AS quality,"
            " code, CASE WHEN isnan(raw) THEN NULL ELSE raw END AS raw, late FROM piece)"
            " TO $path (FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd)",
            {"path": path},
        )
        self._connection.unregister(_PIECE)
        self._parts.append(path)
        self._waiting, self._waiting_rows = [], 0


    def _copy(self, sql: str, values: dict[str, Any]) -> None:
        """Write a file; what the database says where the disk refuses it becomes one sentence."""
        import duckdb

        try:
            self._connection.execute(sql, values).fetchall()
        except duckdb.Error as error:
            cause = str(error).partition("\n")[0][:300]
            raise ExportError(
                f"{self._folder}: the export cannot be written ({cause}); free some space or see to the disk, then try again",
                f"{self._folder}：导出无法写入（{cause}）；请腾出空间或检查磁盘，然后重试",
            ) from error


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:", config={
        "threads": "1", "memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "spill"),
        "autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "preserve_insertion_order": "true",
    })  # fmt: skip
    connection.execute("SET enable_progress_bar = false").fetchall()  # it would go to our standard output
    return connection
