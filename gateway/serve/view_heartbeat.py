"""Core's heartbeat file: is its loop turning, and what did it say last.

A clock that jumps must not make a dead core look alive: what counts is whether the file and the count of cycles move
by our own steady clock. The file's own stamp only judges the first look.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway.serve.models import CoreState

SILENT_S_MAX: Final = 5.0
BYTES_MAX: Final = 4_000_000  # 2 000 nodes are 200 kB


class Heartbeat:
    """Looks at the file again and again. Used by one thread."""

    def __init__(self, path: Path, wall_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._path, self._wall_ms, self._monotonic = path, wall_ms, monotonic
        self.said: dict[str, Any] = {}
        self.state: CoreState = "never_started"
        self._nodes: dict[str, dict[str, Any]] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._moved_s = 0.0  # when the file, and when its cycles, moved last
        self._turned_s = 0.0
        self._said_s = 0.0

    def look(self) -> None:
        """Read the file if it is another than before, and judge."""
        now = self._monotonic()
        try:
            stamp = self._stat()
            if stamp != self._stamp and stamp[2] <= BYTES_MAX:
                said = json.loads(self._path.read_text("utf-8"))
                # Core writes over the file before the one in place: one that was changed meanwhile may be half of each.
                if self._stat() == stamp:
                    self._take(said, now)
                    self._stamp = stamp
        except FileNotFoundError:
            if not self.said:
                self.state = "never_started"
                return
        except (OSError, ValueError, TypeError):
            pass  # half a file, or none to read: silence tells
        if not self.said:
            self.state = "never_started"
        elif now - self._moved_s > SILENT_S_MAX:
            self.state = "gone"
        elif now - self._turned_s > SILENT_S_MAX:
            self.state = "stalled"
        else:
            self.state = "running"

    def _stat(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _take(self, said: Any, now: float) -> None:
        if not isinstance(said, dict) or not isinstance(said.get("at_ms"), int):
            raise TypeError("no heartbeat")
        first = not self.said
        if said != self.said:
            # At the first look nobody has seen it move: its own stamp says how old it is, a stamp ahead of us nothing.
            age_s = abs(self._wall_ms() - said["at_ms"]) / 1000 if first else 0.0
            self._moved_s = now - age_s
            if first or said.get("cycles") != self.said.get("cycles") or said.get("pid") != self.said.get("pid"):
                self._turned_s = now - age_s
        self.said, self._said_s = said, now
        lines = said.get("nodes")
        self._nodes = {
            str(line.get("node")): line for line in (lines if isinstance(lines, list) else ()) if isinstance(line, dict)
        }

    def age_ms(self) -> int | None:
        """Return how old the last heartbeat is by its own stamp, None without one."""
        return max(0, self._wall_ms() - int(self.said["at_ms"])) if self.said else None

    def engine_ms(self) -> int:
        """Return core's engine time now: as it said last, and what has passed since."""
        return self.number("engine_ms") + int((self._monotonic() - self._said_s) * 1000)

    def number(self, key: str) -> int:
        """Return a whole number it said, 0 without one."""
        found = self.said.get(key)
        return int(found) if isinstance(found, int | float) else 0

    def optional(self, key: str, kind: type) -> Any:
        """Return what it said under a key if that is of this type (a float may be whole), else None."""
        found = self.said.get(key)
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            return float(found)
        return found if isinstance(found, kind) else None

    def node(self, name: str) -> dict[str, Any]:
        """Return its line about a node, empty without one."""
        return self._nodes.get(name, {})

    def receiver(self, name: str) -> dict[str, Any]:
        """Return its line about a receiver, empty without one."""
        lines = self.said.get("deliveries")
        line = lines.get(name) if isinstance(lines, dict) else None
        return line if isinstance(line, dict) else {}
