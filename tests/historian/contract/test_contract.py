"""What every historian promises, on every store we have: the port's docstrings, one test a sentence."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.store import AlarmEvent, Historian, QueryTimeError, QueryTooLargeError, Written
from tests.historian.contract.stores import STORES, Make, Store
from tests.historian.reference import Row, plain, reference_windows, rows_of, same_means, samples_of, told
from wire import Quality, Reason, quality_code

T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
G = quality_code(Quality.GOOD)
U = quality_code(Quality.UNCERTAIN, Reason.RANGE)
B = quality_code(Quality.BAD, Reason.COMM)
A = "T101.LEVEL"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on the stores that can keep its part of the contract."""
    if "running" not in metafunc.fixturenames:
        return
    asked = {mark.args[0] for mark in metafunc.definition.iter_markers("part")}
    stores = [
        pytest.param(store, id=store.name, marks=[pytest.mark.needs(store.needs)] if store.needs else [])
        for store in STORES if asked <= store.parts
    ]  # fmt: skip
    metafunc.parametrize("running", stores, indirect=True, scope="module")


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Make]]:
    store: Store = request.param
    with store.run(tmp_path_factory.mktemp(store.name)) as make:
        yield store, make


@pytest.fixture
def store(running: tuple[Store, Make]) -> Iterator[Historian]:
    opened: AbstractContextManager[Historian] = running[1]()
    with opened as historian:
        yield historian


part = pytest.mark.part


def put(store: Historian, rows: Sequence[Row]) -> None:
    written = store.write(samples_of(rows))
    assert written.rows == len(rows)
    assert written.rejected == ()


def key(samples: Samples) -> list[tuple[str, int, float | None, int]]:
    """What every store can keep of a sample, in the order it came."""
    return [(row.tag, row.source_ms, plain(row.value), row.code) for row in rows_of(samples)]


def asked(store: Historian, tag: str = A, from_ms: int = T0, to_ms: int = T0 + DAY_MS) -> list[tuple[int, float | None, int]]:
    """A range of one tag, which holds nothing of another."""
    found = store.range(tag, from_ms, to_ms)
    assert {name for name, *_ in key(found)} <= {tag}
    return [(at - T0, value, code) for _, at, value, code in key(found)]


# -- writing --


def test_what_was_written_is_read_in_order_of_source_time(store: Historian) -> None:
    """Out of order within a write and between writes."""
    put(store, [Row(A, T0 + 3_000, 3.0), Row("T102.LEVEL", T0 + 1_000, 9.0), Row(A, T0 + 1_000, 1.0)])
    put(store, [Row(A, T0 + 2_000, 2.0), Row(A, T0, 0.0)])
    assert asked(store) == [(0, 0.0, G), (1_000, 1.0, G), (2_000, 2.0, G), (3_000, 3.0, G)]
    assert asked(store, "T102.LEVEL") == [(1_000, 9.0, G)]


def test_a_write_that_is_repeated_is_a_write_that_was_done_once(store: Historian) -> None:
    rows = [Row(A, T0 + 1_000 * at, float(at % 7), G if at % 5 else B)._replace(value=math.nan if at % 5 == 0 else float(at % 7))
            for at in range(50)]  # fmt: skip
    put(store, rows)
    once = asked(store)
    put(store, rows)
    put(store, rows[10:20])
    assert asked(store) == once
    assert len(once) == 50
    assert sum(map(len, store.day(T0))) == 50
    windows = store.windows(A, T0, T0 + DAY_MS, DAY_MS)
    assert (windows.good + windows.bad).tolist() == [50]


@part("replace")
def test_of_two_writes_at_one_moment_the_later_counts(store: Historian) -> None:
    put(store, [Row(A, T0, 1.0), Row(A, T0 + 1, 5.0)])
    put(store, [Row(A, T0, 2.0)])
    assert asked(store) == [(0, 2.0, G), (1, 5.0, G)]
    assert store.windows(A, T0, T0 + 1_000, 1_000).max.tolist() == [5.0]
    assert store.windows(A, T0, T0 + 1_000, 1_000).min.tolist() == [2.0]


def test_nothing_is_written_and_nothing_is_found(store: Historian) -> None:
    assert store.write(Samples.empty()) == Written(0, durable=store.write(Samples.empty()).durable)
    assert asked(store) == []
    assert asked(store, "NO.SUCH") == []
    assert len(store.windows("NO.SUCH", T0, T0 + 1_000, 10)) == 0
    assert len(store.latest(["NO.SUCH"])) == len(store.latest([])) == 0
    assert list(store.days()) == []
    assert list(store.day(T0)) == []
    assert list(store.events(T0, T0 + DAY_MS)) == []


# -- ranges --


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "found"),
    [
        pytest.param(0, 1_000, [0], id="the end is not in it"),
        pytest.param(0, 1_001, [0, 1_000], id="what lies just before the end is"),
        pytest.param(1, 1_000, [], id="what lies just before the beginning is not"),
        pytest.param(1_000, 1_000, [], id="an empty range"),
        pytest.param(2_000, 1_000, [], id="a range that runs back"),
        pytest.param(-DAY_MS, 3 * DAY_MS, [0, 1_000, DAY_MS - 1, DAY_MS, 2 * DAY_MS], id="several days"),
        pytest.param(DAY_MS - 1, DAY_MS, [DAY_MS - 1], id="the last millisecond of a day"),
        pytest.param(DAY_MS, DAY_MS + 1, [DAY_MS], id="the first millisecond of a day"),
    ],
)
def test_a_range_holds_its_beginning_and_not_its_end(store: Historian, from_ms: int, to_ms: int, found: list[int]) -> None:
    put(store, [Row(A, T0 + at, 1.0) for at in (0, 1_000, DAY_MS - 1, DAY_MS, 2 * DAY_MS)])
    assert [at for at, _, _ in asked(store, A, T0 + from_ms, T0 + to_ms)] == found
    counts = store.windows(A, T0 + from_ms, T0 + to_ms, 250_000)
    assert int(counts.good.sum()) == len(found)


@part("bad")
def test_a_bad_sample_is_kept_as_one_without_a_value(store: Historian) -> None:
    put(store, [Row(A, T0, 1.5), Row(A, T0 + 1, math.nan, B), Row(A, T0 + 2, 20.0, U, 31.5)])
    assert asked(store) == [(0, 1.5, G), (1, None, B), (2, 20.0, U)]


@part("raw")
def test_the_value_before_clamping_is_kept(store: Historian) -> None:
    put(store, [Row(A, T0, 1.5), Row(A, T0 + 2, 20.0, U, 31.5)])
    assert [plain(raw) for raw in store.range(A, T0, T0 + 9).raw.tolist()] == [None, 31.5]


@part("late")
def test_what_came_late_is_marked(store: Historian) -> None:
    put(store, [Row(A, T0, 1.5, late=True), Row(A, T0 + 2, 2.5)])
    assert store.range(A, T0, T0 + 9).late.tolist() == [True, False]
    assert store.windows(A, T0, T0 + 9, 9).late.tolist() == [1]


FLOATS = [
    0.1, 1 / 3, -1e-300, 5e-324, sys.float_info.max, -sys.float_info.max, 2.0**53 + 2, 123456.789012345678, math.pi, 1e22, -0.0,
]  # fmt: skip


@part("exact")
def test_a_value_comes_back_bit_by_bit(store: Historian) -> None:
    drawn = random.Random(5)
    values = FLOATS + [drawn.uniform(-1, 1) * 10.0 ** drawn.randint(-30, 30) for _ in range(200)]
    put(store, [Row(A, T0 + at, value) for at, value in enumerate(values)])
    assert store.range(A, T0, T0 + DAY_MS).value.tolist() == values


NAMES = [
    "T101.LEVEL", "a b", "a,b", "a=b", 'a"b', "a'b", "a\\b", "a\\", "\\", "a\nb", "a\tb", "液位.一号罐", "a;DROP TABLE x--", "%s{}$1",
    "*", "[a]", "a/../b", "ⅷ", "e\u0301", "é", "🛢", "T101.level", " a", "a ", "#a", "null", "NaN", "a\\nb", "a\\,b", "/x/",
]  # fmt: skip


@part("names")
@pytest.mark.fault("F49")
def test_any_name_of_a_tag_comes_back_byte_by_byte_and_is_found_by_it(store: Historian) -> None:
    put(store, [Row(name, T0 + at, float(at)) for at, name in enumerate(NAMES)])
    for at, name in enumerate(NAMES):
        assert asked(store, name) == [(at, float(at), G)]
        assert store.windows(name, T0, T0 + 1_000, 1_000).max.tolist() == [float(at)]
    assert sorted(row.tag.encode() for row in rows_of(store.latest(NAMES))) == sorted(name.encode() for name in NAMES)
    assert sorted(row.tag.encode() for piece in store.day(T0) for row in rows_of(piece)) == sorted(name.encode() for name in NAMES)


# -- newest --


@part("latest")
def test_the_newest_of_many_tags_comes_in_the_order_asked(store: Historian) -> None:
    tags = [f"T{number}.LEVEL" for number in range(300)]
    put(store, [Row(tag, T0 + 1_000 * step + at, float(step)) for step in (2, 0, 3, 1) for at, tag in enumerate(tags)])
    put(store, [Row(tags[7], T0 + DAY_MS, math.nan, B), Row(tags[9], T0 - DAY_MS, 7.0, late=True)])
    wanted = [tags[9], "NO.SUCH", tags[7], tags[200]]
    assert key(store.latest(wanted)) == [
        (tags[9], T0 + 3_009, 3.0, G), (tags[7], T0 + DAY_MS, None, B), (tags[200], T0 + 3_200, 3.0, G),
    ]  # fmt: skip
    assert len(store.latest(tags)) == 300


# -- windows --


def plant(seed: int) -> list[Row]:
    """A few tags over a few days, as plants are: steps, noise, holes, bad stretches; no two samples at one moment."""
    drawn = random.Random(seed)
    rows = []
    for tag in ("T1.LEVEL", "T2.LEVEL"):
        at, value = T0 + drawn.randrange(5_000), 5.0
        for _ in range(drawn.randint(0, 400)):
            at += drawn.choice((1, 900, 1_000, 1_000, 60_000, 300_000, 7_200_000))
            value = drawn.choice((value, value, 0.0, 9.5, round(drawn.uniform(0, 10), 2)))
            code = drawn.choices((G, U, B), (8, 1, 1))[0]
            rows.append(Row(tag, at, math.nan if code == B else value, code, late=drawn.random() < 0.1))
    drawn.shuffle(rows)
    return rows


@part("windows")
@pytest.mark.parametrize("seed", range(6))
def test_windows_say_what_a_plain_count_says(running: tuple[Store, Make], store: Historian, seed: int) -> None:
    rows = plant(seed)
    drawn = random.Random(seed)
    cuts = sorted(drawn.randrange(len(rows) + 1) for _ in range(3))
    for lo, hi in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        if lo < hi:
            put(store, rows[lo:hi])
    for _ in range(6):
        width_ms = drawn.choice((300_000, 600_000, 3_600_000, 86_400_000, 1_000, 77_777))
        from_ms = T0 + drawn.choice((0, 300_000 * drawn.randrange(500), drawn.randrange(DAY_MS)))
        to_ms = from_ms + min(90_000 * width_ms, drawn.choice((1, width_ms, 7 * width_ms + 13, 3 * DAY_MS, 9 * DAY_MS)))
        for tag in ("T1.LEVEL", "T2.LEVEL"):
            said, means = told(store.windows(tag, from_ms, to_ms, width_ms))
            wanted, wanted_means = reference_windows(rows, tag, from_ms, to_ms, width_ms)
            if "silence" not in running[0].parts:
                said, wanted = ([row._replace(silence_ms=0) for row in each] for each in (said, wanted))
            if "late" not in running[0].parts:
                said, wanted = ([row._replace(late=0) for row in each] for each in (said, wanted))
            assert said == wanted
            assert same_means(means, wanted_means)


# -- days --


@part("digest")
def test_a_day_has_the_rows_and_the_digest_of_what_was_written(store: Historian) -> None:
    rows = plant(3)
    put(store, rows)
    put(store, rows[: len(rows) // 2])
    days = sorted({row.source_ms // DAY_MS * DAY_MS for row in rows})
    assert list(store.days()) == days
    for day in days:
        wanted = samples_of([row for row in rows if day <= row.source_ms < day + DAY_MS])
        pieces = list(store.day(day))
        found = concatenated(pieces)
        assert (len(found), found.digest()) == (len(wanted), wanted.digest())
        order = [(row.tag, row.source_ms) for piece in pieces for row in rows_of(piece)]
        assert order == sorted(order)
        assert all(
            not {row.tag for row in rows_of(one)} & {row.tag for row in rows_of(other)}
            for at, one in enumerate(pieces) for other in pieces[at + 1 :]
        )  # fmt: skip


# -- events --


def event(number: int, **more: Any) -> AlarmEvent:
    fields = {
        "id": f"{number:032x}", "alarm_id": f"{number // 2:032x}", "tag": A, "kind": "raised", "limit": "HH", "grade": 4,
        "at_ms": T0 + 1_000 * number,
    }  # fmt: skip
    return AlarmEvent(**{**fields, **more})


@part("events")
def test_events_are_written_once_and_come_oldest_first(store: Historian) -> None:
    one, two = event(1), event(2, kind="returned", late=True)
    other = event(3, tag='储罐 "1", a=b\\', at_ms=T0 + 1_500)
    store.write_events([two, other])
    store.write_events([one, two])
    store.write_events([])
    assert list(store.events(T0, T0 + DAY_MS)) == [one, other, two]
    assert list(store.events(T0, T0 + DAY_MS, tag=A)) == [one, two]
    assert list(store.events(one.at_ms, other.at_ms)) == [one]
    assert list(store.events(T0, T0 + DAY_MS, tag="NO.SUCH")) == []
    with pytest.raises(QueryTooLargeError):
        store.events(T0, T0 + DAY_MS, rows_max=2)


# -- limits --


@part("limits")
def test_a_question_beyond_the_limits_is_refused_in_two_languages(store: Historian) -> None:
    put(store, [Row(A, T0 + at, 1.0) for at in range(20)])
    assert len(store.range(A, T0, T0 + 20, rows_max=20)) == 20
    questions = [
        lambda: store.range(A, T0, T0 + 20, rows_max=19), lambda: store.range(A, T0, T0 + 401 * DAY_MS),
        lambda: store.windows(A, T0, T0 + 401 * DAY_MS, DAY_MS), lambda: store.windows(A, T0, T0 + 400 * DAY_MS, 1),
        lambda: store.windows(A, T0, T0 + 1_000, 0), lambda: store.latest(["T"] * 10_001),
    ]  # fmt: skip
    for question in questions:
        with pytest.raises(QueryTooLargeError) as refused:
            question()
        assert any("\u4e00" <= char <= "\u9fff" for char in refused.value.message_zh)
        assert str(refused.value)


@part("deadline")
def test_a_question_without_time_is_not_answered(store: Historian) -> None:
    put(store, [Row(A, T0 + at, 1.0) for at in range(20)])
    with pytest.raises(QueryTimeError):
        store.range(A, T0, T0 + 20, deadline_s=0.0)
    with pytest.raises(QueryTimeError):
        store.windows(A, T0, T0 + 20, 10, deadline_s=0.0)
    assert len(store.range(A, T0, T0 + 20)) == 20, "and the next one is"
