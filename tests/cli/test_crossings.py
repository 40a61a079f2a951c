"""How many alarms the plant's log demands: never more than must be, never fewer than were shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cli.crossings import Shown, demands, least_alarms
from config import LimitKind, LimitRow, SiteConfig, parse_site
from tests.config.documents import SOUND

UNTIL_MS = 100_000.0
RANGE = (0.0, 12.0)
T = True
F = False


def row(**delays: Any) -> LimitRow:
    high = next(row for row in parse_site(SOUND).tags[0].limit_rows() if row.kind is LimitKind.H)
    return replace(high, **delays)


def shown(*changes: tuple[float, bool, bool] | tuple[float, bool, bool, float]) -> list[Shown]:
    return [Shown(at_s * 1000, over, holds, value[0] if value else 5.0) for at_s, over, holds, *value in changes]


@pytest.mark.parametrize(
    ("changes", "delays", "count"),
    [
        pytest.param([], {}, 0, id="nothing was shown"),
        pytest.param([(1, T, T)], {}, 1, id="one crossing is one alarm"),
        pytest.param([(1, T, T), (2, F, F), (3, T, T)], {}, 2, id="back and over again are two"),
        pytest.param([(1, T, T), (3, T, T)], {}, 1, id="a way back that nobody was shown is none"),
        pytest.param([(1, F, F), (3, F, F)], {}, 0, id="back from what nobody was shown"),
        pytest.param([(1, T, T), (2, F, F, -3.0), (3, T, T)], {}, 1, id="a value past the range lowers nothing"),
        pytest.param([(1, T, T), (2, F, F), (3, T, T)], {"off_delay_s": 5.0}, 1, id="an off-delay may join two"),
        pytest.param([(1, T, T), (9, F, F)], {"on_delay_s": 5.0}, 1, id="held longer than the on-delay"),
        pytest.param([(1, T, T), (3, F, F)], {"on_delay_s": 5.0}, 0, id="held shorter than the on-delay"),
        pytest.param([(1, T, T), (6.5, F, F)], {"on_delay_s": 5.0}, 0, id="held about as long: cannot be told"),
        pytest.param([(1, T, T), (4, T, F), (5, T, T), (9, F, F)], {"on_delay_s": 5.0}, 0, id="a dip ends the delay"),
        pytest.param([(1, T, T), (9, T, F), (10, T, T), (20, F, F)], {"on_delay_s": 5.0}, 1, id="a dip afterwards not"),
        pytest.param([(1, T, T)], {"on_delay_s": 5.0}, 1, id="held to the end"),
        pytest.param([(96, T, T)], {"on_delay_s": 5.0}, 0, id="too near the end"),
        pytest.param(
            [(1, T, T), (9, F, F), (11, T, T), (20, F, F)], {"on_delay_s": 5.0}, 2, id="two long holds are two"
        ),
    ],
)
def test_how_many_alarms_must_be(changes, delays, count) -> None:
    assert least_alarms(shown(*changes), row(**delays), RANGE, UNTIL_MS) == count


def line(number: int, over: bool, limit: str = "H") -> dict[str, Any]:
    return {"number": number, "tag": "T101.LEVEL", "limit": limit, "over": over, "holds": over, "value": 5.0}


@pytest.fixture
def site() -> SiteConfig:
    return parse_site(SOUND)


def test_a_crossing_between_two_polls_demands_nothing_but_permits_one(site: SiteConfig) -> None:
    changes = [line(1, T), line(2, F)]
    reads: list[Any] = [{"number": 1, "read_ms": None}, {"number": 2, "read_ms": 5_000.0}]
    demand = demands(site, changes, reads, UNTIL_MS)["T101.LEVEL", "H"]
    assert (demand.least, demand.most) == (0, 1)


def test_what_was_read_at_the_very_end_is_not_demanded_yet(site: SiteConfig) -> None:
    demand = demands(site, [line(1, T)], [{"number": 1, "read_ms": UNTIL_MS + 1}], UNTIL_MS)["T101.LEVEL", "H"]
    assert (demand.least, demand.most) == (0, 1)


def test_a_limit_that_was_never_crossed_permits_no_alarm(site: SiteConfig) -> None:
    found = demands(site, [line(1, T)], [{"number": 1, "read_ms": 1.0}], UNTIL_MS)
    assert (found["T101.LEVEL", "HH"].least, found["T101.LEVEL", "HH"].most) == (0, 0)
    assert found["T101.LEVEL", "H"].least == 1
