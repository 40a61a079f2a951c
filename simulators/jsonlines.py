"""Append-only JSON-lines files with a cap. For logs that tests and the demo read back, not for logging."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simulators.errors import NotLoopbackError

LOG_BYTES_MAX = 64 * 1024 * 1024
BUFFERED_LINES_MAX = 256
TORN_LINE_BYTES_MAX = 1024 * 1024


class JsonLines:
    """One JSON object per line. Past `bytes_max` one closing record is written and lines are only counted."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._bytes_max = path, bytes_max
        self._file = path.open("ab", buffering=0)
        self._bytes = self._file.tell()
        self._lines: list[bytes] = []
        self.dropped = 0

    def write(self, record: Mapping[str, Any], *, flush: bool = False) -> None:
        """Append `record`; with `flush` it reaches the file at once, else within 256 lines."""
        if self._bytes >= self._bytes_max:
            self.dropped += 1
            if self.dropped > 1:
                return
            record = {"truncated": True, "bytes_max": self._bytes_max}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._bytes += len(line)
        self._lines.append(line)
        if flush or len(self._lines) >= BUFFERED_LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand everything buffered to the operating system."""
        if self._lines:
            waiting = memoryview(b"".join(self._lines))
            self._lines.clear()
            while waiting:
                waiting = waiting[self._file.write(waiting) :]

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a torn last line (the writer was killed) is left out."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            record = json.loads(line)
            if not isinstance(record, dict):
                raise TypeError(f"{path}: a line is not an object")
            yield record


def cut_torn_line(path: Path) -> int:
    """Cut a torn last line off and return how many bytes went, so that appending starts on a fresh line."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(size - TORN_LINE_BYTES_MAX, 0)
        file.seek(start)
        kept = start + file.read().rfind(b"\n") + 1
        if kept < size:
            file.truncate(kept)
    return size - kept


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replace `path` atomically, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)


def check_loopback(host: str) -> None:
    """Raise `NotLoopbackError` unless `host` is a loopback address (or the name localhost)."""
    if host == "localhost":
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise NotLoopbackError(host) from None
    if not address.is_loopback:
        raise NotLoopbackError(host)
