"""A tag's past: from memory and from the ledger alike, each sample once, late ones marked, holes shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.core.entries import EntryKind
from gateway.core.recover import FrameReader
from gateway.historian.store import QueryTooLargeError
from gateway.serve import history as module
from gateway.serve import history_ledger
from gateway.serve.history import HistoryReader
from gateway.serve.models import History, HistoryPoint
from gateway.serve.recent import RecentFrames, StoredFrame
from gateway.serve.view_errors import HistoryTooLargeError, LedgerAwayError, OutOfTimeError, UnknownTagError
from tests.gateway.field import GAS, LEVEL, PRESSURE, T0_MS, TEMP
from tests.gateway.history import World
from tests.patience import GUARD_S
from tests.serve.beating import beat, view_of
from tests.serve.chain import Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path)
    chain.view.refresh()
    yield chain
    chain.close()


def told(history: History) -> list[tuple[int, float | None, bool]]:
    return [(point.source_ms - T0_MS, point.value, point.late) for point in history.points]


@pytest.mark.parametrize("memory", [True, False])
def test_few_samples_come_as_they_are(chain: Chain, memory: bool) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.scan({LEVEL: 45.0})
    chain.scan({LEVEL: math.nan})
    found = chain.history(memory=memory)
    assert told(found) == [(0, 0.0, False), (100, 3.0, False), (200, 30.0, False), (300, None, False)]
    assert [(point.quality, point.raw) for point in found.points[2:]] == [("UNCERTAIN", 45.0), ("BAD", None)]
    assert (found.truncated, found.covered_from_ms, found.buckets) == (False, found.from_ms, ())
    kinds = [(gap.kind, gap.from_ms - T0_MS, gap.to_ms - T0_MS) for gap in found.gaps]
    now = chain.bench.wall_ms() - T0_MS
    assert kinds == [
        ("no_data", -60_000, 0), ("uncertain", 200, 300), ("bad", 300, 300), ("no_data", 300, now),
    ]  # fmt: skip


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.fault("F25")
def test_late_data_stand_where_they_were_taken_and_say_that_they_were_late(chain: Chain, memory: bool) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.outage([25.0, 26.0])
    chain.scan({LEVEL: 4.0})
    found = chain.history(memory=memory)
    assert told(found) == [
        (0, 0.0, False), (100, 3.0, False), (200, 25.0, True), (300, 26.0, True), (300, 26.0, False), (400, 4.0, False),
    ]  # fmt: skip
    assert found.late_samples == 2


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("refused", ['["T1.OTHER"]', f'["T1.OTHER","{LEVEL}"]', "[torn"], ids=["another", "this", "unreadable"])
def test_what_core_refused_of_a_block_is_nobodys_past_even_if_the_tag_has_moved_to_its_node(
    chain: Chain, memory: bool, refused: str
) -> None:
    chain.born()
    chain.outage([25.0, 26.0])
    db = apsw.Connection(str(chain.folder / "ledger.sqlite3"))
    db.execute("UPDATE log SET refused = ? WHERE kind = 'B'", (refused,))
    db.close()
    view = chain.new_view()
    view.refresh()
    reader = HistoryReader(chain.bench.site, chain.folder, view.recent if memory else None, chain.bench.wall_ms)
    found = reader.history(LEVEL, T0_MS - 60_000, T0_MS + 3_600_000, 1_000, GUARD_S)
    reader.close()
    view.close()
    late = [value for _, value, late in told(found) if late]
    assert late == ([25.0, 26.0] if refused == '["T1.OTHER"]' else [])


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.fault("F23")
def test_what_came_twice_is_shown_once(chain: Chain, memory: bool) -> None:
    """A frame was committed live, and the block that brings its lost neighbour brings it again."""
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.edge.scan({LEVEL: 4.0}, 100)  # lost on the way
    sent = chain.edge.scan({LEVEL: 5.0}, 100)
    chain.run(sent)
    chain.run(sent)
    chain.edge.session_lost()
    chain.born()
    chain.run(chain.edge.backlog())
    found = chain.history(memory=memory)
    assert [value for _, value, _ in told(found)] == [0.0, 3.0, 4.0, 5.0, 5.0]  # the last is the new birth's
    assert [late for _, _, late in told(found)] == [False, False, True, False, False]
    assert found.duplicates >= 1


def test_many_samples_come_as_buckets_that_keep_the_extremes(chain: Chain) -> None:
    chain.born()
    for at in range(60):
        chain.scan({LEVEL: 9.0 if at == 31 else float(at % 5)}, 100)
    whole, few = chain.history(), chain.history(points_max=4)
    assert (len(whole.points), few.points) == (61, ())
    assert 1 <= len(few.buckets) <= 4
    assert sum(bucket.good for bucket in few.buckets) == few.samples == 61
    peak = max(few.buckets, key=lambda bucket: bucket.max or 0.0)
    assert (peak.max, peak.max_ms) == (9.0, T0_MS + 3_200)


def test_a_foreign_node_has_a_past(chain: Chain) -> None:
    chain.foreign_born(20.0)
    chain.edge.source_ms += 1_000
    chain.foreign(21.5)
    for memory in (True, False):
        found = chain.history(TEMP, memory=memory)
        assert told(found) == [(0, 20.0, False), (1_000, 21.5, False)]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_ledger_holds_whichever_way_it_is_read(tmp_path: Path, seed: int) -> None:
    """Random histories: each stored sample of the range once, the same from memory, from the disk, and from both."""

    async def scenario() -> None:
        world = World(seed, tmp_path)
        view = view_of(world)
        for step in range(150):
            await world.step()
            if step % 10 == 0:
                beat(world)
                view.refresh()
        await world._settle()
        view.refresh()
        little = RecentFrames(bytes_max=3_000)
        for recent in (view.recent, None, little):
            if recent is little:
                copy_newest(view.recent, little)
            reader = HistoryReader(world.bench.site, world.bench.folder, recent, world.bench.wall_ms)
            for tag in (LEVEL, GAS, TEMP):
                found = reader.history(tag, T0_MS - 1, T0_MS + 86_400_000, 10_000, GUARD_S)
                assert sorted((point.source_ms, point.value is None, point.value or 0.0, point.code) for point in found.points) \
                    == stored(world, tag)  # fmt: skip
            reader.close()
        view.close()
        world.bench.close()

    asyncio.run(scenario())


def copy_newest(whole: RecentFrames, little: RecentFrames) -> None:
    """Let `little` follow what `whole` has seen: it keeps only the newest."""
    little.begin(whole._ledger_id, whole._from_pos)
    rows = [(frame, key) for key, device in whole._devices.items() for frame in device.frames]
    for frame, (node, device) in sorted(rows, key=lambda row: row[0].pos):
        little.add(node, device, frame)
    assert 0 < little.bytes <= 3_000


def stored(world: World, tag: str) -> list[tuple[int, bool, float, int]]:
    """Every stored sample once, by the log's own reader, row by row."""
    index, reader = world.bench.site.tag_index[tag], world.bench.ledger.reader
    frames_of = FrameReader(world.bench.machine, reader.tag_names())
    found: dict[tuple[int, int], tuple[int, bool, float, int]] = {}
    for entry in reader.entries_after(0):
        if entry.kind not in (EntryKind.FRAME, EntryKind.BLOCK):
            continue
        for frame in frames_of.frames(entry):
            for at in (frame.tag == index).nonzero()[0].tolist():
                value = float(frame.value[at])
                row = (int(frame.source_ms[at]), math.isnan(value), 0.0 if math.isnan(value) else value, int(frame.code[at]))
                found.setdefault((frame.stream, frame.sequence), row)
    return sorted(found.values())


# -- bounds --


def test_a_question_is_bounded(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.born()
    for at in range(20):
        chain.scan({LEVEL: float(at % 5)}, 60_000)
    reader = HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms)
    with pytest.raises(UnknownTagError):
        reader.history("T9.LEVEL", 0, 1, 10, GUARD_S)
    with pytest.raises(HistoryTooLargeError) as refused:
        reader.history(LEVEL, 0, T0_MS, 10, GUARD_S)
    assert refused.value.fits_ms == module.RANGE_MS_MAX
    with pytest.raises(OutOfTimeError):
        reader.history(LEVEL, T0_MS, T0_MS + 1_000, 10, 0.0)
    monkeypatch.setattr(history_ledger, "SAMPLES_MAX", 12)
    end_ms = T0_MS + 1_200_001
    found = reader.history(LEVEL, T0_MS, end_ms, 10_000, GUARD_S)
    assert (found.truncated, found.truncated_by, found.covered_from_ms) == (True, "samples", end_ms - history_ledger.WINDOW_MS)
    assert [point.source_ms for point in found.points] == [T0_MS + 60_000 * at for at in range(11, 21)]
    assert all(gap.from_ms >= found.covered_from_ms for gap in found.gaps)
    reader.close()


def test_many_tags_together_are_bounded_too_where_nothing_is_sealed(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.born()
    for at in range(10):
        chain.scan({LEVEL: float(at), PRESSURE: float(at)}, 1_000)
    with closing(HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms)) as reader:
        asked = (T0_MS, T0_MS + 60_000, 60_000, ["samples"], 5.0)
        told = reader.windows([LEVEL, PRESSURE], *asked)
        assert [sum(each.samples) for each in told.items] == [11, 11]
        monkeypatch.setattr(module, "UNSEALED_ROWS_MAX", 21)
        assert sum(reader.windows([LEVEL], *asked).items[0].samples) == 11
        with pytest.raises(QueryTooLargeError, match="more than 21 rows"):
            reader.windows([LEVEL, PRESSURE], *asked)


def test_an_empty_range_and_a_tag_nobody_heard(chain: Chain) -> None:
    chain.born()
    reader = HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms)
    assert reader.history(LEVEL, T0_MS + 9, T0_MS + 5, 10, GUARD_S).gaps == ()
    found = reader.history(TEMP, T0_MS, T0_MS + 50_000, 10, GUARD_S)
    assert (found.samples, [gap.kind for gap in found.gaps]) == (0, ["no_data"])
    future = reader.history(LEVEL, chain.bench.wall_ms() + 1, chain.bench.wall_ms() + 9_000, 10, GUARD_S)
    assert (future.samples, future.gaps) == (0, ())
    reader.close()


def test_an_edge_whose_clock_is_ahead_has_a_past_too(chain: Chain) -> None:
    chain.born()
    chain.run(chain.edge.scan({LEVEL: math.nan}, 600_000))
    found = chain.history()
    assert found.points[-1].source_ms == T0_MS + 600_000 > chain.bench.wall_ms()
    assert [(gap.kind, gap.from_ms - T0_MS, gap.to_ms - T0_MS) for gap in found.gaps] == [
        ("no_data", -60_000, 0), ("no_data", 0, 600_000), ("bad", 600_000, 600_000),
    ]  # fmt: skip


def test_without_a_ledger_it_says_so(chain: Chain) -> None:
    (chain.folder / "ledger.sqlite3").unlink()
    reader = HistoryReader(chain.bench.site, chain.folder, chain.view.recent, chain.bench.wall_ms)
    with pytest.raises(LedgerAwayError):
        reader.history(LEVEL, T0_MS, T0_MS + 1, 10, GUARD_S)
    reader.close()


def test_memory_of_recent_frames_is_bounded_and_complete_from_a_position_on() -> None:
    recent = RecentFrames(bytes_max=3_000)
    recent.begin("one", 0)
    for pos in range(1, 31):
        recent.add("E1", f"D{pos % 2}", StoredFrame(pos, 7, pos, b"x" * 40, pos))
    held = recent.of("one", "E1", "D0")
    assert held is not None
    assert recent.bytes <= 3_000
    assert [frame.pos for frame in held.frames] == [pos for pos in range(2, 31, 2) if pos > held.after_pos]
    assert held.frames
    assert recent.of("two", "E1", "D0") is None
    recent.begin("two", 90)
    other = recent.of("two", "E1", "D0")
    assert (other, recent.bytes) == (([], 90), 0)


def test_a_point_is_what_api_and_screen_expect() -> None:
    assert HistoryPoint(1, None, "BAD", 0).late is False


@pytest.mark.parametrize("memory", [True, False])
def test_samples_that_must_have_come_and_did_not_are_a_gap_though_the_tag_was_not_stale(chain: Chain, memory: bool) -> None:
    tag = chain.bench.site.tags[chain.bench.site.tag_index[LEVEL]]
    chain.born()
    for _ in range(3):  # as late as a steady value comes from a slow bus
        chain.scan({LEVEL: 1.0}, round(1000 * tag.longest_silence_s) + 2_000)
    last = chain.edge.source_ms
    chain.scan({LEVEL: 2.0}, 27_000)
    assert tag.stale_after_s > 27
    found = chain.history(memory=memory)
    gaps = [(gap.kind, gap.from_ms, gap.to_ms) for gap in found.gaps if T0_MS <= gap.from_ms <= last]
    assert gaps == [("no_data", last, last + 27_000)]
    with closing(HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms)) as reader:
        (told,) = reader.windows([LEVEL], T0_MS - 60_000, T0_MS + 300_000, 60_000, ["silence_ms"], 5.0).items
        assert max(told.silence_ms) == 27_000
