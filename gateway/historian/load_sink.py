"""Import and copy, the way into our own store: parts of a load, committed each by the rename of its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.historian.samples import Samples
from gateway.historian.segments.files import connect
from gateway.historian.segments.load import part_of, write_part


class SegmentSink:
    """The parts of one load in a segment folder. One process at a time writes a load."""

    def __init__(self, folder: Path, load_id: str, wall_ms: Callable[[], int]) -> None:
        """`folder` is `<data>/historian`."""
        self._folder, self._load_id, self._wall_ms = folder, load_id, wall_ms
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = connect(folder)

    def has(self, part: int) -> bool:
        """Return whether it is committed; raises ManifestError where it is and is damaged."""
        return part_of(self._folder, self._load_id, part) is not None

    def write(self, part: int, samples: Samples) -> None:
        """Commit it."""
        write_part(self._connection, self._folder, self._load_id, part, samples, self._wall_ms())

    def close(self) -> None:
        """Let go of DuckDB."""
        self._connection.close()
