"""What feeding keeps on the disk: the cursors of each store, and the samples that a store would not take."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gateway.historian.feed import Cursors
from gateway.historian.segments.durable import make_folder, sync_file, sync_folder, write_durably
from gateway.historian.store import Rejected

log = logging.getLogger(__name__)

FEEDS: Final = "feeds"  # in the historian's folder
QUARANTINE_BYTES_MAX: Final = 16 * 1024 * 1024
LINES_AT_ONCE: Final = 500
REASON_CHARS_MAX: Final = 1_000
CURSOR_BYTES_MAX: Final = 1024 * 1024


def load(folder: Path, store: str) -> Cursors | None:
    """Return a store's cursors; None: it was never fed, or the file cannot be read and feeding begins anew (no harm)."""
    path = folder / f"{store}.json"
    try:
        if path.stat().st_size > CURSOR_BYTES_MAX:
            raise ValueError("too large")
        return Cursors.of_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: %s; the store is fed from the beginning, which does no harm", path, error)
        return None


def save(folder: Path, store: str, cursors: Cursors) -> None:
    """Keep a store's cursors durably. Raises OSError."""
    make_folder(folder)
    write_durably(folder / f"{store}.json", cursors.to_text())


class Quarantine:
    """Samples that a store would not take, as JSON lines, the newest 16 MiB at most: two files, the older one goes."""

    def __init__(self, folder: Path, store: str) -> None:
        self.path = folder / f"{store}.quarantine.jsonl"
        self._older = folder / f"{store}.quarantine.1.jsonl"
        self.count = sum(map(_lines, (self.path, self._older)))

    def add(self, rejected: Sequence[Rejected], at_ms: int) -> None:
        """Append samples; they are on the disk before a cursor passes them. Raises OSError."""
        if not rejected:
            return
        make_folder(self.path.parent)
        for at in range(0, len(rejected), LINES_AT_ONCE):
            lines = [json.dumps(_told(each, at_ms), allow_nan=False) for each in rejected[at : at + LINES_AT_ONCE]]
            self._append("".join(f"{line}\n" for line in lines).encode())
            self.count += len(lines)
        sync_file(self.path)
        sync_folder(self.path.parent)

    def _append(self, text: bytes) -> None:
        if self.path.exists() and self.path.stat().st_size + len(text) > QUARANTINE_BYTES_MAX // 2:
            sync_file(self.path)
            self.path.replace(self._older)
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else b"\n" + text  # a full disk cut the last line short
            file.write(text)


def _told(rejected: Rejected, at_ms: int) -> dict[str, Any]:
    """Return the sample as it was, as JSON can have it: a number that is none is a text, `inf`."""
    numbers = {
        name: number if number is None or math.isfinite(number) else repr(number)
        for name, number in (("value", rejected.value), ("raw", rejected.raw))
    }
    return {
        "at_ms": at_ms, "tag": rejected.tag, "source_ms": rejected.source_ms, "code": rejected.code, **numbers,
        "reason": rejected.reason[:REASON_CHARS_MAX],
    }  # fmt: skip


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0
