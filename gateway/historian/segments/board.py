"""What the keeper of a folder and its readers tell each other within one process, past the disk: it may be full."""

from __future__ import annotations

import threading
from typing import Any, Final

from gateway.historian.segments.folder import Problem

FOUND_MAX: Final = 100


class Board:
    """Findings go to the keeper, its status to whoever asks. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Problem] = {}
        self._status: dict[str, Any] | None = None

    def found(self, problem: Problem) -> None:
        """Note damage that a reader came upon; each file once until the keeper has taken it."""
        with self._lock:
            if len(self._found) < FOUND_MAX:
                self._found.setdefault(problem.file, problem)

    def take(self) -> list[Problem]:
        """Return what was found since it was taken last."""
        with self._lock:
            found, self._found = [*self._found.values()], {}
        return found

    def tell(self, status: dict[str, Any] | None) -> None:
        """Set what the keeper says now; None: there is no keeper here."""
        with self._lock:
            self._status = status

    def status(self) -> dict[str, Any] | None:
        """Return what the keeper said last, None if there is none here."""
        with self._lock:
            return self._status
