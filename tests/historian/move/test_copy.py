"""Copy between stores: whatever ends it, running it again completes it; a day counts as copied only row for row."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from gateway.historian.copy import Copied, CopyError, CopyProgress, CopyRules, copy_store
from gateway.historian.copy_compare import compared
from gateway.historian.memory import MemoryHistorian, in_pieces
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.segments.durable import hook_steps
from gateway.historian.segments.missing import Missing
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import (
    AlarmEvent,
    Historian,
    Rejected,
    SegmentDamagedError,
    StoreAwayError,
    StoreRefusedError,
    Written,
)
from tests.historian.contract.stores import STORES
from tests.historian.move.samples import GOOD, RANGE, T0_MS, Row, many, rows_of, samples_of, sound_samples
from tests.patience import killed_if_it_hangs

TAGS = ["A.X", "B.Y", "名称,= .\"Z"]


def no_wait(_: float) -> None:
    """Time passes at once."""


def event(number: int, at_ms: int = T0_MS) -> AlarmEvent:
    return AlarmEvent(f"{number:032x}", f"{number // 2:032x}", "A.X", "raised", "HH", 4, at_ms + number)


def filled(samples: Samples, events: Sequence[AlarmEvent] = (), name: str = "source") -> MemoryHistorian:
    store = MemoryHistorian(name)
    store.write(samples)
    store.write_events(events)
    return store


def held(store: Historian) -> list[Row]:
    """Everything a store shows, but for the mark `late`, which a digest does not cover either."""
    parts = [piece for day in store.days() for piece in store.day(day)]
    return [(*row[:5], False) for row in rows_of(concatenated(parts))] if parts else []


def three_days(seed: int = 1) -> Samples:
    return many(TAGS, 800, step_ms=300_000, seed=seed)


# ------------------------------------------------------------------ comparing


@settings(deadline=None)
@given(sound_samples(), sound_samples())
def test_a_comparison_finds_exactly_what_is_missing_and_different(one: Samples, two: Samples) -> None:
    rows, there = ({row[:2]: row[2:5] for row in rows_of(each)} for each in (one, two))
    found = list(compared(in_pieces(one.in_order(), 3), in_pieces(two.in_order(), 5)))
    missing = {row[:2]: row[2:5] for each in found for row in rows_of(each.missing)}
    different = {row[:2]: row[2:5] for each in found for row in rows_of(each.different)}
    assert missing == {key: row for key, row in rows.items() if key not in there}
    assert different == {key: row for key, row in rows.items() if key in there and there[key] != row}
    assert sum(each.extra for each in found) == len(there.keys() - rows.keys())
    assert sum(each.rows for each in found) == len(one)
    assert sum(each.digest for each in found) % 2**64 == one.digest()
    wanted = {row[:2]: row[2:5] for each in found for row in rows_of(each.wanted())}
    assert wanted == missing | different


def test_a_tolerance_is_a_share_of_the_largest_value_of_the_day() -> None:
    rows: list[Row] = [("A.X", T0_MS, 1000.0, GOOD, None, False), ("A.X", T0_MS + 1, 1.0, GOOD, None, False)]
    near = samples_of([rows[0], ("A.X", T0_MS + 1, 1.0 + 5e-10, GOOD, None, False)])
    far = samples_of([rows[0], ("A.X", T0_MS + 1, 1.0 + 5e-9, GOOD, None, False)])
    own = samples_of(rows)
    assert [len(each.different) for each in compared([own], [near], 1e-12)] == [0]
    assert [len(each.different) for each in compared([own], [far], 1e-12)] == [1]
    assert [len(each.different) for each in compared([own], [near])] == [1]


@pytest.mark.parametrize("infinite", [float("inf"), float("-inf")])
def test_beside_an_infinite_value_a_difference_is_still_one(infinite: float) -> None:
    def two(raw: float) -> Samples:
        return samples_of([("A.X", T0_MS, 1.0, RANGE, infinite, False), ("A.X", T0_MS + 1, 1.0, RANGE, raw, False)])

    assert [len(each.different) for each in compared([two(5.0)], [two(9.0)], 1e-12)] == [1]
    assert [len(each.different) for each in compared([two(5.0)], [two(5.0 + 1e-15)], 1e-12)] == [0]


# ------------------------------------------------------------------ copying


def test_everything_is_there_afterwards_and_a_second_run_writes_nothing() -> None:
    source, target = filled(three_days(), [event(at) for at in range(5)]), MemoryHistorian("target")
    told: list[CopyProgress] = []
    done = copy_store(source, target, progress=told.append)
    assert done.verified
    assert all(day.by_digest for day in done.days)
    assert held(target) == held(source)
    assert (sum(day.written for day in done.days), done.events) == (2_400, 5)
    assert list(target.events(0, 2**62)) == list(source.events(0, 2**62))
    assert (told[0].day, told[-1].day, told[-1].days, told[-1].written) == (0, 3, 3, 2_400)
    again = copy_store(source, target)
    assert again.verified
    assert (sum(day.written for day in again.days), again.events) == (0, 0)


def test_only_what_is_missing_or_different_is_written_and_what_is_more_stays() -> None:
    samples = three_days()
    source, target = filled(samples), MemoryHistorian("target")
    target.write(samples.take(slice(0, 1_500)))
    other = samples.take(slice(10, 20))
    target.write(replace(other, value=np.full(10, 4321.0), code=np.full(10, GOOD, np.uint8), raw=np.full(10, np.nan)))
    target.write(samples_of([("A.X", T0_MS + 7, 1.0, GOOD, None, False)]))
    done = copy_store(source, target)
    assert done.verified
    assert sum(day.written for day in done.days) == 900 + 10
    assert [(day.extra, day.by_digest) for day in done.days] == [(1, False), (0, True), (0, True)]
    assert {row for row in held(target) if row[1] != T0_MS + 7} == set(held(source))


def test_a_range_of_days_is_copied_alone() -> None:
    source, target = filled(three_days()), MemoryHistorian("target")
    copy_store(source, target, from_ms=T0_MS + DAY_MS, to_ms=T0_MS + 2 * DAY_MS)
    assert target.days() == [T0_MS + DAY_MS]


def test_a_store_is_not_copied_onto_itself() -> None:
    with pytest.raises(CopyError, match="onto itself"):
        copy_store(filled(three_days()), MemoryHistorian("source"))


class Lossy(MemoryHistorian):
    """Accepts, and does not keep a row in a hundred; refuses one tag."""

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        refused = np.array([name == "B.Y" for name in samples.names])[samples.tag]
        keep = ~refused & (np.arange(len(samples)) % 100 != 0)
        super().write(samples.take(keep))
        told = tuple(Rejected("B.Y", int(at), "no such") for at in samples.source_ms[refused])
        return Written(len(samples) - len(told), told)


def test_what_the_target_did_not_keep_is_told_and_no_day_passes_for_copied() -> None:
    done = copy_store(filled(three_days()), Lossy("target"), wait=no_wait)
    assert not done.verified
    assert [day.verified for day in done.days] == [False, False, False]
    assert sum(day.missing for day in done.days) == 800 + sum(-(-day_rows // 100) for day_rows in (864, 864, 672)) - 8
    assert sum(day.rejected for day in done.days) == 800
    assert len(done.rejected) == 100, "so many are told"


class Away(MemoryHistorian):
    """Away for some writes."""

    def __init__(self, name: str, failures: int) -> None:
        super().__init__(name)
        self.failures = failures

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        if self.failures:
            self.failures -= 1
            raise StoreAwayError("away", "不在", retry_after_s=3.0)
        return super().write(samples)


def test_a_store_that_is_away_for_a_while_is_waited_for_and_one_that_stays_away_ends_the_copy() -> None:
    waited: list[float] = []
    source, target = filled(three_days()), Away("target", 3)
    assert copy_store(source, target, wait=waited.append).verified
    assert waited == [3.0, 3.0, 5.0]
    with pytest.raises(StoreAwayError):
        copy_store(source, Away("gone", 99), wait=no_wait)


class Slow(MemoryHistorian):
    """Shows what it took only when it has been waited for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.taken: list[Samples] = []

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        self.taken.append(samples)
        return Written(len(samples))

    def wait(self, _: float) -> None:
        if self.taken:
            super().write(self.taken.pop(0))


def test_a_store_that_shows_late_is_looked_at_again() -> None:
    source, target = filled(three_days()), Slow("target")
    done = copy_store(source, target, CopyRules(batch_rows=250, visible_after_s=2.0), wait=target.wait)
    assert done.verified
    assert held(target) == held(source)


def test_what_is_equal_but_for_lost_digits_is_not_written_over_what_is_exact() -> None:
    exact = three_days()
    source = filled(replace(exact, value=exact.value * (1 + 1e-14), raw=exact.raw * (1 - 1e-14)))
    target = filled(exact, name="target")
    done = copy_store(source, target, CopyRules(tolerance=1e-12))
    assert (done.verified, sum(day.written for day in done.days)) == (True, 0)
    assert held(target) == [(*row[:5], False) for row in rows_of(exact)]


# ------------------------------------------------------------------ ended at every step


class Killed(BaseException):
    """The process is gone: nothing after it runs."""


class Mortal:
    """A store whose every call may be the last thing its process did, before or after it took effect."""

    def __init__(self, store: Historian, kill_at: int) -> None:
        self.store, self.kill_at, self.step = store, kill_at, 0

    @property
    def name(self) -> str:
        return self.store.name

    def _maybe(self) -> None:
        self.step += 1
        if self.step > self.kill_at:
            raise Killed

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name == "holes":
            raise AttributeError(name)

        def call(*given: object, **more: object) -> object:
            self._maybe()
            found = getattr(self.store, name)(*given, **more)
            if name == "day":
                return self._pieces(found)
            self._maybe()
            return found

        return call

    def _pieces(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        for piece in pieces:
            self._maybe()
            yield piece


def test_a_day_is_written_in_whole_batches_and_one_rest() -> None:
    """Our own store keeps a file for every write: a tag more or less must not make two of one."""

    class Counts(MemoryHistorian):
        def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
            rows.append(len(samples))
            return super().write(samples, deadline_s)

    rows: list[int] = []
    source = filled(many([f"A.X{at:02}" for at in range(10)], 60, step_ms=1_000))
    target = Counts("target")
    assert copy_store(source, target, CopyRules(batch_rows=100)).verified
    assert rows == [100] * 6
    rows.clear()
    assert copy_store(source, Counts("other"), CopyRules(batch_rows=250)).verified
    assert rows == [250, 250, 100]


def test_ended_at_every_call_the_next_run_completes_it_and_doubles_nothing() -> None:
    events = [event(at) for at in range(3)]
    source = filled(many(TAGS, 40, step_ms=7_000_000), events)
    number, ended = 0, True
    while ended:
        target = MemoryHistorian("target")
        try:
            copy_store(Mortal(source, number), Mortal(target, number), CopyRules(batch_rows=30))  # type: ignore[arg-type]
            ended = False
        except Killed:
            number += 1
        assert copy_store(source, target).verified
        assert held(target) == held(source)
        assert list(target.events(0, 2**62)) == events
    assert number > 24


@pytest.mark.timeout(900)
def test_killed_at_every_step_on_the_disk_the_next_run_completes_it(tmp_path: Path) -> None:
    source = filled(many(TAGS[:2], 20, step_ms=3_000_000), [event(1)])
    expected = held(source)
    number = 0
    while True:
        folder = tmp_path / str(number)
        died = _killed_at(number, source, folder)
        with closing(EmbeddedHistorian(folder)) as target:
            done = copy_store(source, target, CopyRules(batch_rows=20))
            assert done.verified
            assert held(target) == expected
            assert [each.id for each in target.events(0, 2**62)] == [event(1).id]
        if not died:
            break
        number += 1
    assert number > 40
    assert not sum(day.written for day in done.days), "the run that nothing ended had done it all"


def _killed_at(number: int, source: Historian, folder: Path) -> bool:
    child = os.fork()
    if child == 0:
        killed_if_it_hangs()
        seen = 0

        def count(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen > number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            hook_steps(count)
            copy_store(source, EmbeddedHistorian(folder), CopyRules(batch_rows=20))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


# ------------------------------------------------------------------ the real stores, both ways


@pytest.mark.parametrize(
    "name", [pytest.param(each.name, marks=[pytest.mark.needs(each.needs)] if each.needs else []) for each in STORES]
)
def test_from_memory_to_every_store_and_back_into_the_embedded_one(tmp_path: Path, name: str) -> None:
    (spec,) = (each for each in STORES if each.name == name)
    rules = CopyRules() if "exact" in spec.parts else CopyRules(tolerance=1e-12)
    source = filled(three_days(), [event(at) for at in range(5)])
    with spec.run(tmp_path / "server") as make, make() as store, closing(EmbeddedHistorian(tmp_path / "back")) as back:
        there = copy_store(source, store, rules, wait=no_wait)
        assert there.verified, there.days
        assert (sum(day.written for day in there.days), there.rejected) == (2_400, [])
        if name != "embedded":
            home = copy_store(store, back, rules, wait=no_wait)
            assert home.verified, home.days
            if rules.tolerance:
                assert [row[:2] + row[3:4] for row in held(back)] == [row[:2] + row[3:4] for row in held(source)]
                for mine, theirs in zip(held(back), held(source), strict=True):
                    assert mine[2] == pytest.approx(theirs[2], rel=1e-12, abs=1e-10) if theirs[2] is not None else mine[2] is None
            else:
                assert held(back) == held(source)
            assert [each.id for each in back.events(0, 2**62)] == [event(at).id for at in range(5)]
        again = copy_store(source, store, rules, wait=no_wait)
        assert again.verified
        assert sum(day.written for day in again.days) == 0


def test_a_store_that_refuses_ends_it_and_says_why() -> None:
    class Refuses(MemoryHistorian):
        def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
            raise StoreRefusedError("no database", "没有数据库")

    with pytest.raises(StoreRefusedError, match="no database"):
        copy_store(filled(three_days()), Refuses("target"), wait=no_wait)


def test_a_report_of_nothing_is_verified() -> None:
    assert copy_store(MemoryHistorian("empty"), MemoryHistorian("target")) == Copied()


# ------------------------------------------------------------------ damage


class Torn(MemoryHistorian):
    """One of its days cannot be read."""

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        if day_ms == T0_MS + DAY_MS:
            raise SegmentDamagedError("a.parquet: torn", "a.parquet：损坏")
        yield from super().day(day_ms, deadline_s)


@pytest.mark.fault("F73")
def test_a_day_that_is_damaged_is_told_and_the_others_are_copied() -> None:
    source, target = Torn("source"), MemoryHistorian("target")
    source.write(three_days())
    source.write_events([event(at, T0_MS + 2 * DAY_MS) for at in range(3)])
    done = copy_store(source, target, wait=no_wait)
    assert [(day.verified, day.damaged) for day in done.days] == [(True, ""), (False, "a.parquet: torn"), (True, "")]
    assert (done.verified, done.days[1].damaged_zh, done.events) == (False, "a.parquet：损坏", 3)
    assert list(target.days()) == [T0_MS, T0_MS + 2 * DAY_MS]


@pytest.mark.fault("F73")
def test_of_a_damaged_day_all_that_can_be_read_is_copied_and_once_it_is_mended_the_rest(tmp_path: Path) -> None:
    target = MemoryHistorian("target")
    with closing(EmbeddedHistorian(tmp_path / "historian")) as source:
        parts = [many([tag], 50) for tag in TAGS]
        for part in parts:
            source.write(part)
        path = sorted((tmp_path / "historian/samples").glob("*/*.parquet"))[0]
        sound = path.read_bytes()
        path.write_bytes(sound[:100])
        (day,) = copy_store(source, target, wait=no_wait).days
        assert (day.verified, day.written, path.name in day.damaged) == (False, 100, True)
        assert held(target) == [row for row in held_of(parts) if row[0] != TAGS[0]]
        path.write_bytes(sound)
        (day,) = copy_store(source, target, wait=no_wait).days
    assert (day.verified, day.written) == (True, 50)
    assert held(target) == held_of(parts)


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["torn", "hole"])
def test_a_target_that_lost_something_gets_it_back_by_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    parts = [many([tag], 50) for tag in TAGS]
    source = filled(concatenated(parts))
    with closing(EmbeddedHistorian(tmp_path / "historian")) as target:
        for part in parts:
            target.write(part)
        first, *_ = sorted((tmp_path / "historian/manifests").iterdir())
        path = tmp_path / "historian/samples/2025-10-09" / f"{first.stem}.parquet"
        if harm == "torn":
            path.write_bytes(path.read_bytes()[:100])
        else:
            first.unlink()
            hole = Missing(T0_MS, T0_MS + 9_000, "manifests of 1 to 9", "have left the ledger")
            monkeypatch.setattr(target, "holes", lambda: (hole,))
        with pytest.raises(SegmentDamagedError):
            list(target.day(T0_MS))
        (day,) = copy_store(source, target, wait=no_wait).days
        assert (day.verified, day.written, day.rows) == (True, 50, 150)
        assert copy_store(source, target, wait=no_wait).days[0].written == 0
        monkeypatch.setattr("gateway.historian.segments.store.refuse_missing", lambda *_: None)
        assert held(target) == held(source), "and all of it is there"


def held_of(parts: Sequence[Samples]) -> list[Row]:
    return [(*row[:5], False) for row in rows_of(concatenated(parts))]


def test_events_of_days_without_samples_are_copied_and_no_lost_clock_makes_it_long() -> None:
    """An alarm that everything is silent stands where there are no samples; a stamp of the year 9999 is one day, not millions."""
    asked: list[tuple[int, int]] = []

    class Counts(MemoryHistorian):
        def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = 10_000) -> Sequence[AlarmEvent]:
            asked.append((from_ms, to_ms))
            return super().events(from_ms, to_ms, tag, rows_max)

    source, target = Counts("source"), MemoryHistorian("target")
    source.write(samples_of([("A.X", at, 1.0, GOOD, None, False) for at in (0, T0_MS, 253_402_300_799_999)]))
    events = [event(1, T0_MS - 9 * DAY_MS), event(2, T0_MS), event(3, T0_MS + 9 * DAY_MS)]
    source.write_events(events)
    done = copy_store(source, target)
    assert (done.verified, done.events, len(asked) < 20) == (True, 3, True)
    assert list(target.events(0, 2**62)) == events
    some = MemoryHistorian("some")
    copy_store(source, some, from_ms=T0_MS, to_ms=T0_MS + DAY_MS)
    assert list(some.events(0, 2**62)) == events[1:2]


def test_more_events_than_one_answer_holds_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.historian.copy.EVENTS_MAX", 3)
    events = [event(at, T0_MS + at * 1_000_000) for at in range(25)]
    source, target = filled(three_days(), events), MemoryHistorian("target")
    target.write_events(events[5:9])
    done = copy_store(source, target)
    assert (done.verified, done.events) == (True, 21)
    assert list(target.events(0, 2**62)) == events


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["manifest", "samples"])
def test_a_copy_of_a_folder_with_damage_is_not_verified(tmp_path: Path, harm: str) -> None:
    with closing(EmbeddedHistorian(tmp_path / "historian")) as source:
        samples = three_days()
        source.write(samples)
        source.write(samples.take(samples.source_ms < T0_MS + DAY_MS))
        (path,) = (tmp_path / "historian/samples").glob("2025-10-10/*.parquet")
        if harm == "manifest":
            path = tmp_path / "historian/manifests" / f"{path.stem}.json"
        path.write_bytes(path.read_bytes()[:100])
        done = copy_store(source, MemoryHistorian("target"), wait=no_wait)
    assert not done.verified
    (told,) = [day.damaged for day in done.days if day.day_ms == T0_MS + DAY_MS]
    assert "2025-10-10T00:0" in told
    assert "Error:" not in told, "no words of the database"
