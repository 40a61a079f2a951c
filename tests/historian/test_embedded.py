"""The embedded store beyond the contract: what several files hold together, files that go away, days that are gone."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.historian.samples import DAY_MS, concatenated
from gateway.historian.segments.evidence import evidence_path
from gateway.historian.segments.files import connect, write_samples
from gateway.historian.segments.folder import SegmentFolder, Snapshot
from gateway.historian.segments.names import KEPT_FROM_NAME, Stem, manifest_path, samples_path
from gateway.historian.segments.query import SPILL_BYTES_MAX, ParquetReader
from gateway.historian.segments.reading import SegmentReader
from gateway.historian.segments.reading_files import MovedError
from gateway.historian.segments.seal import seal, sorted_samples
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import QueryTimeError, SegmentDamagedError
from tests.historian.reference import Row, reference_windows, rows_of, same_means, samples_of, told
from tests.patience import GUARD_S

T0 = 1_767_225_600_000  # 2026-01-01T00:00:00Z
TAGS = ("T1.LEVEL", "T2.LEVEL")


@cache
def writer() -> duckdb.DuckDBPyConnection:
    """One database for all folders: it only spills where it was opened, and nothing here is so large."""
    return connect(Path(tempfile.mkdtemp()))


def put(folder: Path, stem: Stem, rows: Sequence[Row], sealed_ms: int) -> None:
    seal(writer(), folder, stem, "", sorted_samples(samples_of(rows)), sealed_ms)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedHistorian]:
    with closing(EmbeddedHistorian(tmp_path / "historian")) as store:
        yield store


# Frames have a content of their own, so that a copy is a copy: value and time follow from stream and number.
frames = st.tuples(st.sampled_from(TAGS), st.integers(-1, 2).filter(bool), st.integers(1, 40))
loads = st.tuples(st.sampled_from(TAGS), st.integers(0, 40), st.integers(0, 9))
pieces = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.lists(frames, max_size=30, unique=True)),
        st.tuples(st.just("two"), st.lists(frames, max_size=30, unique=True)),
        st.tuples(st.just("load"), st.lists(loads, max_size=20, unique_by=lambda each: each[:2])),
    ),
    max_size=6,
)


def rows_of_piece(kind: str, drawn: Sequence[Any]) -> list[Row]:
    if kind == "load":
        return [Row(tag, T0 + 37_000 * at, float(value), late=True) for tag, at, value in drawn]
    return [
        Row(tag, T0 + 37_000 * number + 925_000 * stream, number / 4, late=number % 5 == 0, stream=stream, sequence=number)
        for tag, stream, number in drawn
    ]


@settings(max_examples=100, deadline=None)
@given(pieces, st.integers(0, 2_000_000), st.integers(1, 3_000_000), st.sampled_from((300_000, 600_000, 77_000)))
def test_copies_in_several_files_count_once_whatever_lies_in_each_other(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, list[Any]]], begin: int, length: int, width_ms: int
) -> None:
    """A ledger and the one restored from it hold the same frames; a load that is loaded again replaces what it held, and
    where a live sample stands at the moment of a loaded one, that one counts."""
    folder = tmp_path_factory.mktemp("h") / "historian"
    wanted: dict[tuple[Any, ...], Row] = {}
    for at, (kind, drawn) in enumerate(pieces):
        rows = rows_of_piece(kind, drawn)
        stem = Stem("x", at, at, "load") if kind == "load" else Stem(kind, 10 * at + 1, 10 * at + 9, "seal")
        put(folder, stem, rows, T0 + at)
        for row in rows:
            key = (row.tag, row.stream, row.sequence) if row.stream else (row.tag, 0, row.source_ms)
            if not row.stream or key not in wanted:
                wanted[key] = row
    live = {(row.tag, row.source_ms) for row in wanted.values() if row.stream}
    wanted = {key: row for key, row in wanted.items() if row.stream or (row.tag, row.source_ms) not in live}
    from_ms, to_ms = T0 + begin, T0 + begin + length
    if width_ms % 300_000 == 0:
        from_ms -= from_ms % 300_000
    with closing(EmbeddedHistorian(folder)) as store:
        for tag in TAGS:
            mine = sorted(
                (row for row in wanted.values() if row.tag == tag and from_ms <= row.source_ms < to_ms),
                key=lambda row: (row.source_ms, not row.late, row.stream, row.sequence),
            )
            found, missing = store.segments.samples(store.segments.taken(), tag, from_ms, to_ms, 1_000, time.monotonic() + GUARD_S)
            assert [each[:4] + each[5:] for each in rows_of(found)] == [each[:4] + each[5:] for each in mine]
            windows, _ = store.windows_of([tag, "NONE"], from_ms, to_ms, width_ms)
            said, means = told(windows[tag])
            model, model_means = reference_windows(mine, tag, from_ms, to_ms, width_ms)
            assert said == model
            assert same_means(means, model_means)
            assert (missing, len(windows["NONE"])) == ([], 0)


SUMMED = ("late", "first", "last", "min", "max", "mean")
spots = st.tuples(st.sampled_from(TAGS), st.integers(0, 60), st.sampled_from((192, 192, 64, 0)))
scattered = st.lists(st.lists(spots, min_size=10, max_size=40, unique_by=lambda each: each[:2]), min_size=1, max_size=3)


@settings(max_examples=20, deadline=None)
@given(scattered, st.integers(-5, 5), st.integers(3_000_000, 9_000_000), st.sampled_from((600_000, 900_000, 3_600_000)))
def test_long_windows_put_together_in_the_database_are_what_all_columns_tell(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[Any]], begin: int, length: int, width_ms: int
) -> None:
    folder = tmp_path_factory.mktemp("h") / "historian"
    for file, rows in enumerate(drawn):
        put(folder, Stem("one", file + 1, file + 1, "seal"), [
            Row(
                tag, T0 + 97_000 * at, float("nan") if code == 0 else at * 37 % 11 + file / 4, code, late=at % 3 == 0,
                stream=file + 1, sequence=at + 1,
            )
            for tag, at, code in rows
        ], T0 + file)  # fmt: skip
    from_ms = T0 + begin * 300_000
    with closing(EmbeddedHistorian(folder)) as store:
        for tags in ([*TAGS, "NONE"], TAGS[:1]):
            whole, none = store.windows_of(tags, from_ms, from_ms + length, width_ms)
            found, lost = store.windows_of(tags, from_ms, from_ms + length, width_ms, columns=SUMMED)
            assert (list(found), none, lost) == (tags if isinstance(tags, list) else list(tags), [], [])
            for tag in tags:
                for name in ("start_ms", "good", "uncertain", "bad", *SUMMED[:-1]):
                    np.testing.assert_array_equal(getattr(found[tag], name), getattr(whole[tag], name), f"{tag} {name}")
                np.testing.assert_allclose(found[tag].mean, whole[tag].mean, rtol=1e-12)


def test_times_before_1970_and_far_ahead_are_times_like_others(store: EmbeddedHistorian) -> None:
    rows = [Row("T", at, 1.0) for at in (-5_000_000_001, -1, 0, 253_402_300_799_999)]
    store.write(samples_of(rows))
    for row in rows:
        assert rows_of(store.range("T", row.source_ms, row.source_ms + 1)) == [row._replace(raw=pytest.approx(np.nan, nan_ok=True))]
    assert list(store.days()) == [-58 * DAY_MS, -DAY_MS, 0, 253_402_300_799_999 // DAY_MS * DAY_MS]
    assert store.windows("T", -300_000, 300_000, 300_000).start_ms.tolist() == [-300_000, 0]
    assert rows_of(store.latest(["T"]))[0].source_ms == 253_402_300_799_999


def test_where_a_live_sample_stands_at_a_loaded_ones_moment_it_alone_counts(store: EmbeddedHistorian) -> None:
    live = [Row("T", T0 + 1_000 * at, float(at), stream=-3, sequence=at) for at in (1, 2, 400)]
    live.append(Row("T", T0 + 2_000, 2.5, stream=-3, sequence=3))  # two of one moment are two
    put(store.folder, Stem("one", 1, 9, "seal"), live, T0)
    store.write(samples_of([Row("T", T0 + 1_000 * at, 50.0) for at in (1, 2, 3, 400)]))  # newer, and not late
    found, _ = store.segments.samples(store.segments.taken(), "T", T0, T0 + DAY_MS, 99, time.monotonic() + GUARD_S)
    assert found.value.tolist() == [1.0, 2.0, 2.5, 50.0, 400.0]
    assert store.range("T", T0, T0 + DAY_MS).value.tolist() == [1.0, 2.5, 50.0, 400.0]
    assert store.latest(["T"]).value.tolist() == [400.0]
    assert [piece.value.tolist() for piece in store.day(T0)] == [[1.0, 2.5, 50.0, 400.0]]
    for width_ms, good in ((300_000, [4, 1]), (600_000, [5]), (7_000, [4, 1])):
        assert store.windows("T", T0, T0 + 600_000, width_ms).good.tolist() == good
    told, _ = store.windows_of(["T"], T0, T0 + 600_000, 600_000, columns=SUMMED)
    assert (told["T"].good.tolist(), told["T"].max.tolist(), told["T"].last.tolist()) == ([5], [400.0], [400.0])


# -- files that go --


def test_a_file_that_is_packed_away_while_a_question_is_asked_is_looked_for_anew(store: EmbeddedHistorian) -> None:
    put(store.folder, Stem("one", 1, 9, "seal"), [Row("T", T0, 1.0, stream=1, sequence=1)], T0)
    taken: list[Snapshot] = []

    def ask(now: Snapshot) -> float:
        taken.append(now)
        if len(taken) == 1:  # between the snapshot and the question another pack takes its place
            stem = Stem("one", 1, 9, "seal")
            (live,) = now.files()
            live.samples(store.folder).unlink()
            manifest_path(store.folder, stem).unlink()
            put(store.folder, Stem("two", 1, 9, "seal"), [Row("T", T0, 1.0, stream=1, sequence=1)], T0)
        found, missing = store.segments.samples(now, "T", T0, T0 + 1, 9, time.monotonic() + GUARD_S)
        assert missing == []
        return float(found.value[0])

    assert (store.segments.of_one_snapshot(ask), len(taken)) == (1.0, 2)
    with pytest.raises(MovedError):
        store.segments.samples(taken[0], "T", T0, T0 + 1, 9, time.monotonic() + GUARD_S)


@pytest.mark.fault("F73")
def test_a_copy_of_a_damaged_day_is_refused_and_names_the_stretch(store: EmbeddedHistorian) -> None:
    put(store.folder, Stem("one", 1, 9, "seal"), [Row("T", T0 + 5, 1.0, stream=1, sequence=1)], T0)
    put(store.folder, Stem("one", 10, 19, "seal"), [Row("T", T0 + 900_000, 2.0, stream=1, sequence=2)], T0)
    path = samples_path(store.folder, Stem("one", 1, 9, "seal"), "2026-01-01")
    path.write_bytes(path.read_bytes()[:50])
    for question in (lambda: store.range("T", T0, T0 + DAY_MS), lambda: list(store.day(T0)), lambda: store.windows("T", T0, T0 + 9, 2)):
        with pytest.raises(SegmentDamagedError) as refused:
            question()
        told = "2026-01-01T00:00:00.005+00:00"
        assert f"{path.name}: it is cut short, or changed; samples from {told} until {told[:-7]}6+00:00" in str(refused.value)
        assert told in refused.value.message_zh
    found, (missing,) = store.segments.samples(store.segments.taken(), "T", T0, T0 + DAY_MS, 9, time.monotonic() + GUARD_S)
    assert (found.value.tolist(), missing.from_ms, missing.to_ms) == ([2.0], T0 + 5, T0 + 6)
    assert store.windows("T", T0, T0 + 300_000, 300_000).max.tolist() == [1.0], "its rollups are whole and still answer"


def test_of_a_day_that_is_gone_its_evidence_is_read(store: EmbeddedHistorian) -> None:
    put(store.folder, Stem("one", 1, 9, "seal"), [Row("T", T0 + DAY_MS, 2.0, stream=1, sequence=9)], T0 + DAY_MS)
    path = evidence_path(store.folder, "2026-01-01")
    path.parent.mkdir(parents=True)
    with closing(connect(store.folder)) as db:
        write_samples(db, path, sorted_samples(samples_of([Row("T", T0 + at, 7.0, stream=1, sequence=at) for at in (1, 400_000)])))
    assert [row.value for row in rows_of(store.range("T", T0, T0 + 2 * DAY_MS))] == [2.0], "the day itself still stands for it"
    (store.folder / KEPT_FROM_NAME).write_text(json.dumps({"day": "2026-01-02", "why": "age", "at_ms": 1}))
    assert [row.value for row in rows_of(store.range("T", T0, T0 + 2 * DAY_MS))] == [7.0, 7.0, 2.0]
    assert store.windows("T", T0, T0 + 2 * DAY_MS, 300_000).good.tolist() == [1, 1, 1]
    assert store.range("OTHER", T0, T0 + 2 * DAY_MS).value.tolist() == []


@pytest.mark.fault("F73")
def test_evidence_is_found_by_when_its_samples_were_taken_not_by_the_day_it_left_with(store: EmbeddedHistorian) -> None:
    """What came late leaves with the day it came; it is asked for by its own time."""
    put(store.folder, Stem("one", 1, 9, "seal"), [Row("T", T0 + 40 * DAY_MS, 2.0, stream=1, sequence=9)], T0 + 40 * DAY_MS)
    (store.folder / KEPT_FROM_NAME).write_text(json.dumps({"day": "2026-02-05", "why": "age", "at_ms": 1}))
    assert store.range("T", T0, T0 + DAY_MS).value.tolist() == []
    path = evidence_path(store.folder, "2026-02-04")
    path.parent.mkdir(parents=True)
    with closing(connect(store.folder)) as db:
        write_samples(db, path, sorted_samples(samples_of([Row("T", T0 + 7, 7.0, late=True, stream=1, sequence=1)])))
    assert store.range("T", T0, T0 + DAY_MS).value.tolist() == [7.0]
    assert store.windows("T", T0, T0 + DAY_MS, 300_000).late.tolist() == [1]
    assert store.range("T", T0 + DAY_MS, T0 + 39 * DAY_MS).value.tolist() == []


def test_what_a_foreign_node_had_stored_is_not_hidden_by_a_restored_ledgers_numbers(store: EmbeddedHistorian) -> None:
    """Such rows have no number but their log position, which a restored ledger gives anew."""
    first = [Row("T", T0 + at, 1.0, late=True, sequence=at) for at in range(1, 31)]
    again = [Row("T", T0 + 1_000 + at, 2.0, late=True, sequence=at) for at in range(21, 31)]
    put(store.folder, Stem("a", 1, 30, "seal"), first, T0)
    put(store.folder, Stem("b", 21, 30, "seal"), again, T0 + 1)
    put(store.folder, Stem("c", 1, 30, "seal"), first, T0 + 2)  # the same rows once more are copies
    found = store.range("T", T0, T0 + DAY_MS)
    assert found.value.tolist() == [1.0] * 30 + [2.0] * 10


def test_spilling_is_bounded_and_has_a_folder_of_the_process(store: EmbeddedHistorian) -> None:
    store.write(samples_of([Row("T", T0, 1.0)]))
    store.range("T", T0, T0 + 1)
    assert store._own is not None
    found = store._own._ask(
        "SELECT current_setting('temp_directory') AS folder, current_setting('max_temp_directory_size') AS most", {},
        time.monotonic() + GUARD_S,
    )  # fmt: skip
    assert Path(found["folder"][0]).parent == store.folder / "temporary"
    limit, unit = found["most"][0].split()
    assert float(limit) * {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit] <= SPILL_BYTES_MAX


# -- time --


def test_a_question_is_interrupted_when_its_time_is_over(tmp_path: Path) -> None:
    with closing(ParquetReader(tmp_path)) as reader:
        began = time.monotonic()
        with pytest.raises(QueryTimeError):
            reader._ask("SELECT count(*) AS number FROM range(1000000000000) WHERE range % 7 = 3", {}, began + 0.2)
        assert time.monotonic() - began < GUARD_S / 2
        assert reader._ask("SELECT 1 AS number", {}, time.monotonic() + GUARD_S)["number"].tolist() == [1]
        assert not [thread for thread in threading.enumerate() if thread.name == "historian-deadline"]


def test_many_threads_may_ask_at_once(store: EmbeddedHistorian) -> None:
    drawn = random.Random(1)
    rows = [Row(f"T{tag}", T0 + 1_000 * at, float(at)) for tag in range(8) for at in range(500)]
    drawn.shuffle(rows)
    store.write(samples_of(rows))
    wrong: list[str] = []

    def ask(tag: str) -> None:
        for _ in range(5):
            if store.range(tag, T0, T0 + DAY_MS).value.tolist() != [float(at) for at in range(500)]:
                wrong.append(tag)

    threads = [threading.Thread(target=ask, args=(f"T{tag}",)) for tag in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_day_comes_in_pieces_of_whole_tags(store: EmbeddedHistorian, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.historian.segments.store.DAY_PIECE_ROWS", 50)
    rows = [Row(f"T{tag:02d}", T0 + 1_000 * at, float(at)) for tag in range(20) for at in range(tag)]
    store.write(samples_of(rows))
    pieces = list(store.day(T0))
    assert len(pieces) > 3
    assert concatenated(pieces).digest() == samples_of(rows).digest()
    names = [name for piece in pieces for name in dict.fromkeys(row.tag for row in rows_of(piece))]
    assert names == [f"T{at:02d}" for at in range(1, 20)], "by id, none in two pieces"
    assert max(map(len, pieces)) <= 70


def test_the_folder_may_be_called_anything(tmp_path: Path) -> None:
    folder = tmp_path / "a=b [x]*? 液位" / "historian"
    with closing(EmbeddedHistorian(folder)) as store:
        store.write(samples_of([Row("T", T0, 1.0)]))
        assert store.range("T", T0, T0 + 1).value.tolist() == [1.0]
        assert SegmentReader(folder, ParquetReader()).taken() == SegmentFolder(folder).snapshot()
