"""What the watchdog leaves on the disk of a loop that stands still, so that the next core knows and tells it.

The stalled loop can raise nothing, and the watchdog ends it before it turns again: without this file the alarm would
end with the process.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from wire import JsonRefusedError, parse_json_object

log = logging.getLogger(__name__)

NOTE_BYTES_MAX: Final = 1_024


class StallNote:
    """The file, from being left to being told. Left by the watchdog's thread, read and dropped by the next core."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def leave(self, seconds: float, at_ms: int) -> None:
        """Say that the loop has not turned for so long. Not synced: it has to survive the process, not the power."""
        try:
            self._path.write_text(json.dumps({"seconds": round(seconds, 1), "at_ms": at_ms}), encoding="ascii")
        except OSError as error:
            log.error("%s: %s; the next start will not know of the stall", self._path, error)

    def found(self) -> dict[str, int | float] | None:
        """Return what an earlier core left: facts of the alarm, or None. A file that cannot be read was left too."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            return None
        try:
            left = parse_json_object(raw, NOTE_BYTES_MAX)
        except JsonRefusedError:
            left = {}
        return {name: fact for name in ("seconds", "at_ms") if type(fact := left.get(name)) in (int, float)}  # type: ignore[misc]

    def drop(self) -> None:
        """It is told, or the loop turns again."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s; the next start will tell of the stall again", self._path, error)
