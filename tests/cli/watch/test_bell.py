"""When the bell rings: times in, rings out. Each row is a story: what is open at which second, and which seconds ring."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cli.watch.bell import SILENCE_S, Bell

RED, ORANGE, YELLOW, BLUE = 4, 3, 2, 1


@dataclass(frozen=True)
class One:
    id: str
    grade: int
    acked: bool = False
    late: bool = False


def rings(story: dict[int, list[One]], silenced_at: int | None = None, until: int = 32) -> list[int]:
    bell, opened, heard = Bell(), [], []
    for second in range(until):
        opened = story.get(second, opened)
        if second == silenced_at:
            bell.silence(second)
        if bell.due(opened, second):
            heard.append(second)
    return heard


@pytest.mark.parametrize(
    ("story", "heard"),
    [
        pytest.param({}, [], id="nothing open, nothing heard"),
        pytest.param({2: [One("a", RED)]}, list(range(2, 32, 3)), id="red rings every 3 s"),
        pytest.param({2: [One("a", ORANGE)]}, list(range(2, 32, 3)), id="orange too"),
        pytest.param({2: [One("a", YELLOW)]}, [2, 17], id="yellow every 15 s"),
        pytest.param({2: [One("a", BLUE)]}, [2], id="blue once"),
        pytest.param({2: [One("a", RED, acked=True)]}, [], id="what is acknowledged is silent"),
        pytest.param({0: [One("a", RED)], 4: [One("a", RED, acked=True)]}, [0, 3], id="acknowledging ends it"),
        pytest.param({0: [One("a", RED)], 4: []}, [0, 3], id="closing ends it"),
        pytest.param({2: [One("a", RED, late=True)]}, [2], id="what a late run found rings once"),
        pytest.param({0: [One("a", BLUE)], 5: [One("a", BLUE), One("b", BLUE)]}, [0, 5], id="each new one is heard"),
        pytest.param({0: [One("a", BLUE)], 5: [One("a", RED)]}, [0, *range(5, 32, 3)], id="a raised grade is new"),
        pytest.param({0: [One("a", YELLOW), One("b", ORANGE)]}, list(range(0, 32, 3)), id="the gravest sets the pace"),
    ],
)
def test_rings(story: dict[int, list[One]], heard: list[int]) -> None:
    assert rings(story) == heard


def test_silence_lasts_60_seconds_and_no_longer() -> None:
    heard = rings({0: [One("a", RED)]}, silenced_at=1, until=80)
    assert heard[:2] == [0, 61]
    assert heard[1:] == list(range(61, 80, 3))


@pytest.mark.parametrize(
    ("grade", "heard"),
    [
        pytest.param(BLUE, [0, 5], id="a new blue one is heard once, the silence stays"),
        pytest.param(ORANGE, [0, *range(5, 32, 3)], id="a new orange one ends the silence"),
    ],
)
def test_silence_is_not_for_what_is_new(grade: int, heard: list[int]) -> None:
    assert rings({0: [One("a", RED)], 5: [One("a", RED), One("b", grade)]}, silenced_at=1) == heard


def test_lost_contact_rings_every_3_s_and_ends_a_silence() -> None:
    bell = Bell()
    bell.silence(0)
    assert [second for second in range(1, 12) if bell.due_lost(second, first=second == 1)] == [1, 4, 7, 10]
    bell.silence(12)
    assert bell.silent_s(12) == SILENCE_S
    assert not any(bell.due_lost(second, first=False) for second in range(12, 72))
    assert bell.due_lost(72, first=False)
