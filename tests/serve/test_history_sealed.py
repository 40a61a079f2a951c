"""A past that is partly in segments is the same past: at every cut, whether core has removed what was sealed or not."""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import apsw
import numpy as np
import pytest

from config import SiteConfig
from gateway.core import LEDGER_NAME
from gateway.core.ledger import Batch, Ledger
from gateway.core.retention import Removable
from gateway.core.revision import revision_of
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.names import Stem, rollup_path, samples_path
from gateway.historian.segments.seal import Places, samples_of, seal
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import SegmentDamagedError
from gateway.historian.windows import ROLLUP_MS
from gateway.serve.history import HistoryReader
from gateway.serve.history_answers import WINDOW_COLUMNS
from gateway.serve.models import History, WindowList
from gateway.serve.recent import RecentFrames
from gateway.serve.view_errors import OutOfTimeError, UnknownTagError
from tests.gateway.bench import copy_ledger
from tests.gateway.field import GAS, LEVEL, PRESSURE, T0_MS, TEMP, address
from tests.gateway.history import World
from tests.historian.reference import Row, reference_windows, same_means
from tests.patience import GUARD_S
from tests.serve.beating import beat, view_of
from tests.serve.chain import Chain
from wire import MessageKind, Metric, Quality, encode_payload, quality_of, sample_metric

TAGS = (LEVEL, PRESSURE, GAS, TEMP)
BEGIN, END = T0_MS - 60_000, T0_MS + 7_200_000


def seal_up_to(site: SiteConfig, ledger: Path, folder: Path, cuts: Sequence[int]) -> None:
    """Seal the log in pieces that end at these positions."""
    log = LedgerLog(ledger, site.site)
    ledger_id, _ = log.identity()
    names, places = log.tag_names(), Places(site)
    with closing(connect(folder)) as db:
        prev, first = "", 1
        for last in cuts:
            rows = log.rows(first, last)
            sealed = samples_of(rows, names, places)
            prev = seal(db, folder, Stem(ledger_id, first, last, "seal"), prev, sealed, T0_MS + last).hash
            first = last + 1
    log.close()


def remove_sealed(ledger: Path, upto: int) -> None:
    """By the library that the readers use: another one in the same process would let go of their locks."""
    with closing(apsw.Connection(str(ledger))) as db, db:
        db.execute("DELETE FROM log WHERE pos <= ? AND kind IN ('F', 'B', 'H')", (upto,))
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('pruned_pos', ?)", (str(upto),))


def same(history: History) -> History:
    """All but what may differ: copies are counted only where they are still seen, and what was removed is removed."""
    return replace(history, duplicates=0, oldest_kept_ms=None)


def answers(reader: HistoryReader, tag: str) -> tuple[History, History, WindowList, WindowList]:
    """One by one, as buckets out of rollups, and as windows of both kinds."""
    return (
        same(reader.history(tag, BEGIN, END, 10_000, GUARD_S)), same(reader.history(tag, BEGIN, END, 20, GUARD_S)),
        rounded(reader.windows([tag], BEGIN, END, ROLLUP_MS, WINDOW_COLUMNS, GUARD_S)),
        rounded(reader.windows([tag], BEGIN, BEGIN + 600_000, 7_000, WINDOW_COLUMNS, GUARD_S)),
    )  # fmt: skip


def rounded(windows: WindowList) -> WindowList:
    """A mean's last digits depend on the order of its sum; NaN is None, so that it equals itself."""
    items = [
        replace(tag, **{  # type: ignore[arg-type]
            name: [None if math.isnan(each) else round(each, 9) for each in getattr(tag, name)]
            for name in ("mean", "first", "last", "min", "max")
        })
        for tag in windows.items
    ]  # fmt: skip
    return replace(windows, items=tuple(items))


def plain_rows(history: History) -> list[Row]:
    return [
        Row(history.tag, each.source_ms, math.nan if each.value is None else each.value, each.code, math.nan, each.late)
        for each in history.points
    ]


def check_against_a_plain_count(told: tuple[History, History, WindowList, WindowList]) -> None:
    """The samples one by one are the model of everything else that was answered."""
    whole, few, *windows = told
    rows = plain_rows(whole)
    if few.buckets:
        wanted, _ = reference_windows(rows, whole.tag, BEGIN, END, few.bucket_ms, BEGIN // ROLLUP_MS * ROLLUP_MS)
        assert [(b.good, b.uncertain, b.bad, b.late, b.first, b.first_ms or 0, b.max, b.max_ms or 0) for b in few.buckets] \
            == [(w.good, w.uncertain, w.bad, w.late, w.first, w.first_ms, w.max, w.max_ms) for w in wanted]  # fmt: skip
        assert few.gaps == whole.gaps
    for each in windows:
        (tag,) = each.items
        wanted, means = reference_windows(rows, whole.tag, BEGIN, each.to_ms, each.width_ms, each.from_ms)
        assert list(zip(tag.start_ms, tag.samples, tag.min_ms, tag.last_ms, tag.silence_ms, strict=True)) == [
            (w.start_ms, w.good + w.uncertain + w.bad, w.min_ms, w.last_ms, w.silence_ms) for w in wanted
        ]  # fmt: skip
        assert same_means(tag.mean, means)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path)
    chain.view.refresh()
    yield chain
    chain.close()


def eventful(chain: Chain) -> None:
    """Live frames, a foreign node, an outage with its backlog, a frame that was lost and brought again."""
    chain.born()
    chain.foreign_born(20.0)
    chain.scan({LEVEL: 3.0})
    chain.scan({LEVEL: 45.0}, 310_000)
    chain.outage([25.0, 26.0, math.nan])
    chain.foreign(21.5)
    chain.scan({LEVEL: 4.0}, 640_000)
    chain.edge.scan({LEVEL: 4.5}, 100)  # lost on the way
    sent = chain.edge.scan({LEVEL: 5.0}, 100)
    chain.run(sent)
    chain.edge.session_lost()
    chain.born()
    chain.run(chain.edge.backlog())
    chain.run([(address(MessageKind.DDATA, "E2", "PUMP"), stored_before(chain.seq + 1, 18.0))])
    chain.scan({LEVEL: 6.0}, 100)


def stored_before(seq: int, value: float) -> bytes:
    """What a foreign node had stored while nobody listened, beside nothing current."""
    old = sample_metric(None, 1, T0_MS + 1_500, value, 192, None)
    return encode_payload(T0_MS, seq, [Metric(**{**{name: getattr(old, name) for name in old.__slots__}, "is_historical": True})])


@pytest.mark.fault("F23")
@pytest.mark.fault("F25")
def test_at_every_cut_the_answer_is_that_of_the_ledger_alone(chain: Chain, tmp_path: Path) -> None:
    eventful(chain)
    site, wall_ms = chain.bench.site, chain.bench.wall_ms
    alone = HistoryReader(site, chain.folder, None, wall_ms, historian=tmp_path / "none")
    wanted = {tag: answers(alone, tag) for tag in (LEVEL, TEMP)}
    alone.close()
    assert len(wanted[LEVEL][0].points) >= 10
    assert wanted[LEVEL][1].bucket_ms >= ROLLUP_MS
    assert any(point.late for point in wanted[LEVEL][0].points)
    assert [(point.source_ms, point.value) for point in wanted[TEMP][0].points if point.late] == [(T0_MS + 1_500, 18.0)]
    for told in wanted.values():
        check_against_a_plain_count(told)
    last = chain.bench.loop.counters.committed_pos
    assert last > 10
    drawn = random.Random(7)
    for cut in range(1, last + 1):
        folder = tmp_path / f"historian-{cut}"
        cuts = sorted({cut, *(drawn.randint(1, cut) for _ in range(drawn.randint(0, 3)))})
        seal_up_to(site, chain.folder / LEDGER_NAME, folder, cuts)
        remove_sealed(copy_ledger(chain.folder, tmp_path / f"core-{cut}") / LEDGER_NAME, cut)
        for core, recent in ((chain.folder, chain.view.recent), (chain.folder, None), (tmp_path / f"core-{cut}", None)):
            reader = HistoryReader(site, core, recent, wall_ms, historian=folder)
            for tag in wanted:
                assert answers(reader, tag) == wanted[tag], (cut, cuts, core, recent is not None)
            reader.close()


def test_what_was_exported_and_is_imported_again_over_the_same_samples_changes_no_answer(chain: Chain, tmp_path: Path) -> None:
    """Sealed or not: where a live sample stands at an imported one's moment, that one counts."""
    eventful(chain)
    site, wall_ms = chain.bench.site, chain.bench.wall_ms
    alone = HistoryReader(site, chain.folder, None, wall_ms, historian=tmp_path / "none")
    wanted = {tag: answers(alone, tag) for tag in (LEVEL, TEMP)}
    exported = {tag: alone.range(tag, BEGIN, END) for tag in wanted}
    alone.close()
    last = chain.bench.loop.counters.committed_pos
    for cut in (0, 1, last // 2, last):
        folder = tmp_path / f"historian-{cut}"
        with closing(EmbeddedHistorian(folder)) as store:
            for found in exported.values():
                none = np.zeros(len(found), np.int64)
                store.write(replace(found, late=np.ones(len(found), np.bool_), stream=none, sequence=none))
        if cut:
            seal_up_to(site, chain.folder / LEDGER_NAME, folder, [cut])
        for recent in (chain.view.recent, None):
            reader = HistoryReader(site, chain.folder, recent, wall_ms, historian=folder)
            for tag in wanted:
                assert answers(reader, tag) == wanted[tag], (cut, recent is not None)
                assert reader.range(tag, BEGIN, END).digest() == exported[tag].digest()
            reader.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_are_the_same_partly_sealed(tmp_path: Path, seed: int) -> None:
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
        bench = world.bench
        alone = HistoryReader(bench.site, bench.folder, None, bench.wall_ms, historian=tmp_path / "none")
        wanted = {tag: answers(alone, tag) for tag in TAGS}
        alone.close()
        for told in wanted.values():
            check_against_a_plain_count(told)
        last = bench.loop.counters.committed_pos
        drawn = random.Random(seed)
        for number in range(6):
            folder = tmp_path / f"historian-{number}"
            cuts = sorted({drawn.randint(1, last) for _ in range(drawn.randint(1, 9))})
            seal_up_to(bench.site, bench.folder / LEDGER_NAME, folder, cuts)
            recent = drawn.choice((view.recent, None, RecentFrames()))
            reader = HistoryReader(bench.site, bench.folder, recent, bench.wall_ms, historian=folder)
            for tag in TAGS:
                assert answers(reader, tag) == wanted[tag], (cuts, recent)
            reader.close()
        view.close()
        bench.close()

    asyncio.run(scenario())


def test_a_tag_that_the_configuration_has_no_more_is_still_shown(chain: Chain, tmp_path: Path) -> None:
    eventful(chain)
    full = chain.bench.site
    bare = cast(SiteConfig, SimpleNamespace(site=full.site, timezone=full.timezone, tags=(), tag_index={}, silence_s={}, edges=()))
    last = chain.bench.loop.counters.committed_pos
    for cut in (0, last // 2, last):
        folder = tmp_path / f"historian-{cut}"
        if cut:
            seal_up_to(full, chain.folder / LEDGER_NAME, folder, [cut])
        with closing(HistoryReader(full, chain.folder, None, chain.bench.wall_ms, historian=folder)) as before:
            wanted = {tag: [(p.source_ms, p.late) for p in before.history(tag, BEGIN, END, 10_000, GUARD_S).points] for tag in TAGS}
        with closing(HistoryReader(bare, chain.folder, None, chain.bench.wall_ms, historian=folder)) as after:
            for tag in TAGS:
                found = after.history(tag, BEGIN, END, 10_000, GUARD_S)
                assert [(p.source_ms, p.late) for p in found.points] == wanted[tag], (tag, cut)
                assert (found.unit, after.knows(tag), len(after.range(tag, BEGIN, END))) == ("", True, len(wanted[tag]))
                (window,) = after.windows([tag], BEGIN, END, ROLLUP_MS, ["samples"], GUARD_S).items
                assert sum(window.samples or ()) == len(wanted[tag]) > 0
            assert not after.knows("NO.SUCH")
            with pytest.raises(UnknownTagError):
                after.history("NO.SUCH", BEGIN, END, 10_000, GUARD_S)


@pytest.mark.parametrize("memory", [True, False])
def test_a_tag_that_moved_to_another_device_has_its_past_before_it_is_sealed_too(chain: Chain, tmp_path: Path, memory: bool) -> None:
    chain.born()
    for value in (3.0, 4.0, math.nan):
        chain.scan({LEVEL: value})
    chain.outage([25.0, 26.0])
    site = chain.bench.site
    with closing(HistoryReader(site, chain.folder, None, chain.bench.wall_ms)) as before:
        wanted = {tag: answers(before, tag) for tag in (LEVEL, PRESSURE)}
    last = chain.bench.loop.counters.committed_pos
    there = moved(site, LEVEL, "POND")
    with closing(apsw.Connection(str(chain.folder / LEDGER_NAME))) as db, db:
        columns = "pos, kind, engine_ms, received_ms, node, device, stream, first, last, samples, body"
        row = (last + 1, "C", 1, chain.bench.wall_ms(), "", "", 0, 0, 0, 0, revision_of(there))
        db.execute(f"INSERT INTO log ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    recent = chain.view.recent if memory else None
    for cut in (0, last // 2, last, last + 1):
        folder = tmp_path / f"historian-{cut}"
        if cut:
            seal_up_to(site, chain.folder / LEDGER_NAME, folder, [cut])
        with closing(HistoryReader(there, chain.folder, recent, chain.bench.wall_ms, historian=folder)) as after:
            assert {tag: answers(after, tag) for tag in wanted} == wanted, cut
    with closing(apsw.Connection(str(chain.folder / LEDGER_NAME))) as db, db:
        db.execute("UPDATE log SET body = 'torn' WHERE kind = 'C' AND pos <= ?", (last,))
    with closing(HistoryReader(there, chain.folder, None, chain.bench.wall_ms, historian=tmp_path / "none")) as after:
        assert after.history(PRESSURE, BEGIN, END, 10_000, GUARD_S).samples == len(wanted[PRESSURE][0].points)


def moved(site: SiteConfig, tag: str, device: str) -> SiteConfig:
    """The same site, one of its points at another device of its edge."""
    edges = []
    for edge in site.edges:
        points = [point for each in edge.devices for point in each.points if point.tag == tag]
        devices = [each.model_copy(update={"points": tuple(p for p in each.points if p.tag != tag)}) for each in edge.devices]
        if points:
            devices.append(devices[0].model_copy(update={"id": device, "points": tuple(points)}))
        edges.append(edge.model_copy(update={"devices": tuple(devices)}))
    return site.model_copy(update={"edges": tuple(edges)})


@pytest.mark.fault("F33")
def test_rows_that_are_sealed_and_removed_while_a_question_is_asked_are_not_missed(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventful(chain)
    site, folder, ledger = chain.bench.site, tmp_path / "historian", tmp_path / "pruned" / LEDGER_NAME
    last = chain.bench.loop.counters.committed_pos
    copy_ledger(chain.folder, tmp_path / "pruned")
    reader = HistoryReader(site, tmp_path / "pruned", None, chain.bench.wall_ms, historian=folder)
    whole = same(reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S))
    asked: list[int] = []
    taken = reader._segments.taken

    def then_sealed() -> object:
        found = taken()
        asked.append(1)
        if len(asked) == 1:  # right after the set of segments was taken
            seal_up_to(site, ledger, folder, [last])
            remove_sealed(ledger, last)
        return found

    monkeypatch.setattr(reader._segments, "taken", then_sealed)
    assert same(reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)) == whole
    assert len(whole.points) > 5
    reader.close()


@pytest.mark.fault("F33")
def test_no_answer_is_given_where_rows_leave_faster_than_they_are_read(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing alone, however fast, hinders nobody: what is sealed is in the ledger still."""
    eventful(chain)
    site, folder, ledger = chain.bench.site, tmp_path / "historian", tmp_path / "pruned" / LEDGER_NAME
    copy_ledger(chain.folder, tmp_path / "pruned")
    reader = HistoryReader(site, tmp_path / "pruned", None, chain.bench.wall_ms, historian=folder)
    whole = same(reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S))
    taken, upto, leaving = reader._segments.taken, [0], [False]

    def then_sealed() -> object:
        found = taken()
        upto[0] += 1
        seal_up_to(site, chain.folder / LEDGER_NAME, folder, range(1, upto[0] + 1))
        if leaving[0]:
            remove_sealed(ledger, upto[0])
        return found

    monkeypatch.setattr(reader._segments, "taken", then_sealed)
    assert same(reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)) == whole
    assert upto[0] == 1, "asked once"
    leaving[0] = True
    with pytest.raises(OutOfTimeError):
        reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)
    reader.close()


@pytest.mark.fault("F73")
def test_a_bad_stretch_does_not_go_with_the_samples_that_tell_where_it_begins(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollups of a file are whole and say that something was bad; its samples would say when."""
    chain.born()
    for at in range(12):
        chain.scan({LEVEL: math.nan if at == 6 else 3.0}, 100_000)
    folder = tmp_path / "historian"
    seal_up_to(chain.bench.site, chain.folder / LEDGER_NAME, folder, [chain.bench.loop.counters.committed_pos])
    (live,) = SegmentFolder(folder).snapshot().files()
    samples_path(folder, live.stem, live.file.day).write_bytes(b"torn")
    monkeypatch.setattr(HistoryReader, "_silence_ms", lambda *_: 3_600_000)
    with closing(HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms, historian=folder)) as reader:
        told = reader.history(LEVEL, BEGIN, END, 3, GUARD_S)
    assert sum(bucket.bad for bucket in told.buckets) == 1
    assert {"bad", "damaged"} <= {gap.kind for gap in told.gaps}
    assert any(gap.kind == "bad" and gap.from_ms <= T0_MS + 700_000 <= gap.to_ms for gap in told.gaps)


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["gone", "torn", "flipped head", "rollup gone", "manifest torn"])
def test_a_damaged_piece_is_named_with_its_stretch_and_the_rest_is_told(chain: Chain, tmp_path: Path, harm: str) -> None:
    eventful(chain)
    site, folder = chain.bench.site, tmp_path / "historian"
    last = chain.bench.loop.counters.committed_pos
    seal_up_to(site, chain.folder / LEDGER_NAME, folder, [last // 2, last])
    copy_ledger(chain.folder, tmp_path / "pruned")
    remove_sealed(tmp_path / "pruned" / LEDGER_NAME, last)
    reader = HistoryReader(site, tmp_path / "pruned", None, chain.bench.wall_ms, historian=folder)
    whole = reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)
    buckets = reader.history(LEVEL, BEGIN, END, 20, GUARD_S)
    live = next(SegmentFolder(folder).snapshot().files())
    path = (rollup_path if harm == "rollup gone" else samples_path)(folder, live.stem, live.file.day)
    if harm == "manifest torn":
        path = folder / "manifests" / live.stem.manifest_name
    content = path.read_bytes()
    if harm in ("gone", "rollup gone"):
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if "torn" in harm else b"XXXX" + content[4:-4] + b"XXXX")
    harmed = reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)
    rolled = reader.history(LEVEL, BEGIN, END, 20, GUARD_S)
    if harm == "rollup gone":  # its samples say the same
        assert (harmed, rolled) == (whole, buckets)
    elif harm == "manifest torn":  # how far it is sealed is not known any more: the ledger is asked, and it has nothing
        assert [gap.kind for gap in harmed.gaps].count("damaged") == 1
        assert not {point.source_ms for point in harmed.points} - {point.source_ms for point in whole.points}
    else:
        (damaged,) = [gap for gap in harmed.gaps if gap.kind == "damaged"]
        assert (damaged.from_ms, damaged.to_ms) == (live.file.from_ms, live.file.to_ms + 1)
        assert not any(
            gap.kind == "no_data" and gap.from_ms < damaged.to_ms and damaged.from_ms < gap.to_ms for gap in harmed.gaps
        ), "what cannot be read must not look like silence"
        other = {point for point in whole.points if point.source_ms > live.file.to_ms}
        assert other <= set(harmed.points) < set(whole.points)
        assert rolled.buckets == buckets.buckets, "rollups that are whole still answer"
        (window,) = reader.windows([LEVEL], BEGIN, END, 60_000, ["samples"], GUARD_S).items
        assert window.damaged == [(live.file.from_ms, live.file.to_ms + 1)]
    reader.close()


def test_what_the_scrub_calls_damaged_is_not_read(chain: Chain, tmp_path: Path) -> None:
    """A flipped bit that decodes is worse than one that does not."""
    eventful(chain)
    site, folder = chain.bench.site, tmp_path / "historian"
    last = chain.bench.loop.counters.committed_pos
    seal_up_to(site, chain.folder / LEDGER_NAME, folder, [last])
    reader = HistoryReader(site, chain.folder, None, chain.bench.wall_ms, historian=folder)
    (live,) = SegmentFolder(folder).snapshot().files()
    name = str(live.samples(folder).relative_to(folder))
    for tags, hit in ((None, True), ([LEVEL, LEVEL], True), (["A", "B"], False)):
        told = [{"file": name, "day": live.file.day, "tags": tags, "from_ms": 0, "to_ms": 0, "why": "its checksum differs"}]
        (folder / "status.tmp").write_text(json.dumps({"at_ms": 1, "damaged": told}), "utf-8")
        (folder / "status.tmp").replace(folder / "status.json")
        found = reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)
        assert ([gap.kind for gap in found.gaps].count("damaged"), found.samples == 0) == (int(hit), hit)
    reader.close()


def test_quality_is_kept_through_the_segments(chain: Chain, tmp_path: Path) -> None:
    eventful(chain)
    folder = tmp_path / "historian"
    seal_up_to(chain.bench.site, chain.folder / LEDGER_NAME, folder, [chain.bench.loop.counters.committed_pos])
    reader = HistoryReader(chain.bench.site, chain.folder, None, chain.bench.wall_ms, historian=folder)
    points = reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S).points
    assert [(point.value, point.raw) for point in points if point.raw is not None] == [(30.0, 45.0)]
    assert all((point.value is None) == (quality_of(point.code) == Quality.BAD) for point in points)
    reader.close()


@pytest.mark.fault("F73")
def test_a_historian_taken_away_is_damage_and_no_calm(chain: Chain, tmp_path: Path) -> None:
    eventful(chain)
    site, folder = chain.bench.site, tmp_path / "historian"
    last = chain.bench.loop.counters.committed_pos
    seal_up_to(site, chain.folder / LEDGER_NAME, folder, [last])
    copy_ledger(chain.folder, tmp_path / "pruned")
    ledger = Ledger(tmp_path / "pruned" / LEDGER_NAME, site.site)
    ledger.commit([Batch(removable=Removable(1, last + 1))])
    ledger.close()
    reader = HistoryReader(site, tmp_path / "pruned", None, chain.bench.wall_ms, historian=folder)
    whole = reader.history(LEVEL, BEGIN, END, 10_000, GUARD_S)
    assert whole.samples > 0
    assert "damaged" not in {gap.kind for gap in whole.gaps}
    shutil.rmtree(folder)
    for points_max in (10_000, 20):
        found = reader.history(LEVEL, BEGIN, END, points_max, GUARD_S)
        (damaged,) = [gap for gap in found.gaps if gap.kind == "damaged"]
        assert not any(
            gap.kind == "no_data" and gap.from_ms < damaged.to_ms and damaged.from_ms < gap.to_ms for gap in found.gaps
        )
    (window,) = reader.windows([LEVEL], BEGIN, END, 60_000, ["samples"], GUARD_S).items
    assert window.damaged == [(damaged.from_ms, damaged.to_ms)]
    with pytest.raises(SegmentDamagedError, match="have left the ledger and no manifest holds them"):
        reader.range(LEVEL, BEGIN, END)
    reader.close()
