"""Import, staging: converted samples wait in a database of their own until the whole file has proved sound.

Then they leave it in parts that follow from the samples alone, so that a load that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.load_rows import LoadColumns
from gateway.historian.samples import DAY_MS, Samples

MEMORY_LIMIT: Final = "256MB"
PART_ROWS: Final = 1_000_000
_PIECE: Final = "piece"
_COLUMNS: Final = "tag, source_ms, value, code, raw, line"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: the tags lo to hi (both included, by their numbers) of [from_ms, to_ms)."""

    number: int
    tag_lo: int
    tag_hi: int
    from_ms: int
    to_ms: int
    rows: int


class Stage:
    """A DuckDB file in `folder`, which is its own. Of several rows of one tag and moment the last in the file counts."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        import duckdb

        self._names = names
        self._connection = duckdb.connect(str(folder / "staged.duckdb"), config={
            "threads": "1", "memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "spill"),
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
        })  # fmt: skip
        self._run("SET enable_progress_bar = false")  # it would go to our standard output
        self._run("CREATE TABLE staged (tag INTEGER, source_ms BIGINT, value DOUBLE, code UTINYINT, raw DOUBLE, line BIGINT)")

    def add(self, columns: LoadColumns) -> None:
        """Take converted samples."""
        if not len(columns.tag):
            return
        self._connection.register(_PIECE, {name: getattr(columns, name) for name in _COLUMNS.split(", ")})
        self._run(f"INSERT INTO staged SELECT {_COLUMNS} FROM {_PIECE}")  # noqa: S608 - our own constants
        self._connection.unregister(_PIECE)

    def counted(self) -> list[tuple[int, int, int, int, int]]:
        """Return tag, rows, distinct moments, first and last source time, by tag."""
        return self._run(
            "SELECT tag, count(*), count(DISTINCT source_ms), min(source_ms), max(source_ms) FROM staged GROUP BY tag ORDER BY tag"
        )

    def qualities(self) -> dict[int, int]:
        """Return how many samples have which code; of several rows of one tag and moment the last counts."""
        return {int(code): int(count) for code, count in self._run(
            "SELECT code, count(*) FROM (SELECT arg_max(code, line) AS code FROM staged GROUP BY tag, source_ms) GROUP BY code"
        )}  # fmt: skip

    def parts(self, part_rows: int = PART_ROWS) -> list[Part]:
        """Return the parts: day after day, in a day tags by id, a tag of too many rows by stretches of time."""
        groups = self._run(
            f"SELECT source_ms // {DAY_MS} AS day, tag, count(DISTINCT source_ms) FROM staged GROUP BY day, tag ORDER BY day, tag"  # noqa: S608
        )
        parts: list[Part] = []
        for day, tag, rows in groups:
            from_ms = day * DAY_MS
            last = parts[-1] if parts else None
            if rows > part_rows:
                count = -(-rows // part_rows)
                edges = [from_ms + DAY_MS * at // count for at in range(count + 1)]
                parts += [
                    Part(len(parts) + at, tag, tag, edges[at], edges[at + 1], part_rows) for at in range(count)
                ]  # fmt: skip
            elif last is not None and last.from_ms == from_ms and last.to_ms == from_ms + DAY_MS and last.rows + rows <= part_rows:
                parts[-1] = Part(last.number, last.tag_lo, tag, from_ms, last.to_ms, last.rows + rows)
            else:
                parts.append(Part(len(parts), tag, tag, from_ms, from_ms + DAY_MS, rows))
        return parts

    def samples(self, part: Part) -> Samples:
        """Return a part's samples in order: imported, hence late and of no stream."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM staged WHERE source_ms >= $from_ms AND source_ms < $to_ms AND tag >= $lo AND tag <= $hi"  # noqa: S608
            " QUALIFY row_number() OVER (PARTITION BY tag, source_ms ORDER BY line DESC) = 1 ORDER BY tag, source_ms",
            {"from_ms": part.from_ms, "to_ms": part.to_ms, "lo": part.tag_lo, "hi": part.tag_hi},
        ).fetchnumpy()
        tag = np.asarray(found["tag"], np.int64)
        used, where = np.unique(tag, return_inverse=True)
        none = np.zeros(len(tag), np.int64)
        return Samples(
            tuple(self._names[at] for at in used.tolist()), where.astype(np.int32), np.asarray(found["source_ms"], np.int64),
            _floats(found["value"]), np.asarray(found["code"], np.uint8), _floats(found["raw"]), np.ones(len(tag), np.bool_),
            none, none.copy(),
        )  # fmt: skip

    def all_parts(self) -> Iterator[tuple[Part, Samples]]:
        """Yield every part with its samples."""
        for part in self.parts():
            yield part, self.samples(part)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _run(self, sql: str) -> list[Any]:
        rows: list[Any] = self._connection.execute(sql).fetchall()
        return rows


def _floats(column: NDArray[Any]) -> NDArray[np.float64]:
    if isinstance(column, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(column), np.nan, column.data).astype(np.float64)
    return np.asarray(column, np.float64)
