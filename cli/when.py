"""Times as people type them on the command line: ISO dates in the site's zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo

import typer

from cli.language import say


def typed_time(text: str, zone: tzinfo, *, end: bool = False) -> int:
    """Return UTC epoch ms of `2026-03-01`, `2026-03-01T08:00` or `2026-03-01T08:00:00+08:00`.

    Args:
        zone: of times that name none. end: the end of what is meant; a date alone then includes that day.

    Raises:
        typer.BadParameter: it is none of these, or the zone's clocks never showed it.
    """
    try:
        if len(text) == 10:
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            at = datetime(day.year, day.month, day.day, tzinfo=zone)
        else:
            at = datetime.fromisoformat(text)
            if at.tzinfo is None:
                at = at.replace(tzinfo=zone)
                if at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at.replace(tzinfo=None):
                    raise ValueError
        return round(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise typer.BadParameter(say(
            f"{text!r} 不是时间；请写 2026-03-01 或 2026-03-01T08:00（{zone} 时区）",
            f"{text!r} is no time; write 2026-03-01 or 2026-03-01T08:00, in the zone {zone}",
        )) from None  # fmt: skip
