"""Times that tests pass in."""

from __future__ import annotations

from datetime import UTC, datetime

NOW_S = 1_767_225_600.0


def at_s(seconds: float) -> datetime:
    """Return UTC epoch seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)
