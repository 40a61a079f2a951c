"""Times inside sentences: written in UTC where nobody knows who reads them, told in the reader's zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Final

_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"
_AT: Final = re.compile(r"\(at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\)")


def utc_text(at_ms: int) -> str:
    """Return UTC epoch ms as ISO 8601 to the second, as 2026-11-22T19:02:29Z."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime(_FORM)


def zone_text(at: datetime, zone: tzinfo | None) -> str:
    """Return a time in `zone`, with the zone's name; None is the machine's own."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def in_zone(sentence: str, zone: tzinfo | None) -> str:
    """Return a sentence of this package with its `(at …)` told in `zone`, named."""

    def told(found: re.Match[str]) -> str:
        try:
            at = datetime.strptime(found[1], _FORM).replace(tzinfo=UTC)
            return f"(at {zone_text(at, zone)})"
        except (ValueError, OverflowError):  # no such day: it is somebody's name, not ours
            return found[0]

    return _AT.sub(told, sentence)
