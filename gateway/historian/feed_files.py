"""What feeding keeps on the disk: the cursors of each store, and the samples that a store would not take."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.historian.feed import Cursors
from gateway.historian.segments.durable import make_folder, write_durably
from gateway.historian.store import Rejected

log = logging.getLogger(__name__)

FEEDS: Final = "feeds"  # in the historian's folder
QUARANTINE_BYTES_MAX: Final = 16 * 1024 * 1024
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
        """Append samples. Raises OSError."""
        if not rejected:
            return
        make_folder(self.path.parent)
        lines = [
            json.dumps({"at_ms": at_ms, "tag": each.tag, "source_ms": each.source_ms, "reason": each.reason}) for each in rejected
        ]
        if self.path.exists() and self.path.stat().st_size > QUARANTINE_BYTES_MAX // 2:
            self.path.replace(self._older)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.count += len(lines)


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0
