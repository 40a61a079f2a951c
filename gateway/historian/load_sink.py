"""Import and copy, the way into our own store: parts of a load, committed each by the rename of its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb

from gateway.historian.load import LoadError
from gateway.historian.samples import Samples
from gateway.historian.segments.load import harmed, part_of, write_part
from gateway.historian.segments.manifest import ManifestError
from gateway.historian.segments.spill import open_database


class SegmentSink:
    """The parts of one load in a segment folder. One process at a time writes a load."""

    def __init__(self, folder: Path, load_id: str, wall_ms: Callable[[], int]) -> None:
        """`folder` is `<data>/historian`."""
        self._folder, self._load_id, self._wall_ms = folder, load_id, wall_ms
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = open_database(folder)

    def has(self, part: int) -> bool:
        """Return whether it is committed and whole; raises LoadError where what it holds cannot be known."""
        try:
            found = part_of(self._folder, self._load_id, part)
            return found is not None and not harmed(self._folder, found)
        except (OSError, ManifestError) as error:
            raise self._failed(part, error) from error

    def write(self, part: int, samples: Samples) -> None:
        """Commit it; raises LoadError where the disk would not."""
        try:
            write_part(self._connection, self._folder, self._load_id, part, samples, self._wall_ms())
        except (OSError, duckdb.Error, ManifestError) as error:
            raise self._failed(part, error) from error

    def _failed(self, part: int, error: Exception) -> LoadError:
        cause = str(error).partition("\n")[0][:300]
        return LoadError(
            f"{self._folder}: part {part} of load {self._load_id} cannot be written ({cause}); see to the disk, then do the same again",
            f"{self._folder}：编号 {self._load_id} 的第 {part} 部分无法写入（{cause}）；请检查磁盘，然后再次执行",
        )

    def close(self) -> None:
        """Let go of DuckDB."""
        self._connection.close()
