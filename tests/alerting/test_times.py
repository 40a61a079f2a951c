"""Times in refusals: UTC with a Z as core writes them, the reader's zone by name as they are told."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from alerting import in_zone, utc_text

AT_MS = 1_795_374_203_563


def test_a_time_is_written_in_utc() -> None:
    assert utc_text(AT_MS) == "2026-11-22T19:03:23Z"


def test_it_is_told_in_the_readers_zone() -> None:
    said = f"closed by Li (at {utc_text(AT_MS)})"
    assert in_zone(said, ZoneInfo("Asia/Shanghai")) == "closed by Li (at 2026-11-23 03:03:23 CST)"
    assert in_zone(said, UTC) == "closed by Li (at 2026-11-22 19:03:23 UTC)"
    local = datetime.fromtimestamp(AT_MS // 1000, UTC).astimezone()
    assert in_zone(said, None) == f"closed by Li (at {local:%Y-%m-%d %H:%M:%S %Z})"


@pytest.mark.parametrize("text", ["closed by A (at 2026-13-45T00:00:00Z)", "closed by A", "(at 5 ms)", "2026-11-22T19:03:23Z"])
def test_what_is_no_time_of_ours_stays(text: str) -> None:
    assert in_zone(text, UTC) == text
