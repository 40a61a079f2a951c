"""Packing: what is put together when, that nothing changes by it, and that it fits in memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.samples import Samples
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder, Snapshot
from gateway.historian.segments.kept import KeptFrom
from gateway.historian.segments.manifest import DayFile, Link, Manifest, combined
from gateway.historian.segments.merge import merge, once
from gateway.historian.segments.names import Stem, day_of
from gateway.historian.segments.pack import LATE_FILES_MIN, DamagedSourceError, NoRoomError, next_pack, pack
from gateway.historian.segments.seal import seal, sorted_samples
from tests.historian.reference import Row, rows_of, samples_of
from tests.historian.segments.journal import DAY_MS, T0_MS, rows_in

HOUR_MS = 3_600_000
SHA = "ab" * 32


@pytest.fixture
def db(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    made = connect(tmp_path)
    yield made
    made.close()


# -- what is packed -------------------------------------------------------------------------------------------------


def manifest(
    first: int, sealed_ms: int, kind: str = "seal", days: tuple[str, ...] = (), rows: int = 10, owner: str = "led"
) -> Manifest:
    stem = Stem(owner, first, first + 9, kind)  # type: ignore[arg-type]
    files = tuple(DayFile(day, rows, 1, 5, SHA, 5, SHA, 0, 1, day) for day in days or (day_of(sealed_ms),))
    digest, total = combined([file.digest for file in files]), rows * len(files)
    links = (Link(first, first + 9, SHA, total, digest),) if kind == "pack" else ()
    return Manifest(stem, sealed_ms, total, digest, "", files, links)


def taken(*manifests: Manifest, kept_from: str = "") -> Snapshot:
    return Snapshot(manifests, (), (), KeptFrom().moved(kept_from, (each.stem for each in manifests)))


def chosen(snapshot: Snapshot, now_ms: int) -> list[int]:
    return [each.stem.first for each in next_pack(snapshot, now_ms)]


SIX = [manifest(1 + 10 * at, T0_MS + at * 600_000) for at in range(6)]


def test_the_seals_of_an_hour_go_together_once_it_is_over() -> None:
    assert chosen(taken(*SIX), T0_MS + HOUR_MS) == []
    assert chosen(taken(*SIX), T0_MS + HOUR_MS + 600_000) == [1, 11, 21, 31, 41, 51]
    assert chosen(taken(*SIX[:5]), T0_MS + 2 * HOUR_MS) == []


def test_a_day_goes_together_an_hour_after_midnight() -> None:
    packs = [manifest(1 + 10 * at, T0_MS + at * HOUR_MS, "pack") for at in range(3)]
    assert chosen(taken(*packs), T0_MS + DAY_MS) == []
    assert chosen(taken(*packs), T0_MS + DAY_MS + HOUR_MS) == [1, 11, 21]
    assert chosen(taken(packs[0]), T0_MS + DAY_MS + HOUR_MS) == []


def test_what_does_not_follow_is_not_put_together() -> None:
    gap = [*SIX[:3], *(manifest(1 + 10 * at, T0_MS + at * 600_000) for at in range(4, 8))]
    assert chosen(taken(*gap), T0_MS + 2 * HOUR_MS) == []
    other = [*SIX[:3], *(manifest(31 + 10 * at, T0_MS + at * 600_000, owner="other") for at in range(3))]
    assert chosen(taken(*other), T0_MS + 2 * HOUR_MS) == []


def test_a_damaged_seal_keeps_its_neighbours_apart() -> None:
    now_ms = T0_MS + 2 * HOUR_MS
    assert next_pack(taken(*SIX), now_ms, [SIX[3].stem]) == ()


def test_days_with_late_pieces_of_one_old_day_go_together() -> None:
    begins = [T0_MS + at * DAY_MS for at in range(LATE_FILES_MIN)]
    days = [manifest(1 + 10 * at, begin, "pack", ("1970-01-01", day_of(begin))) for at, begin in enumerate(begins)]
    now_ms = T0_MS + 20 * DAY_MS
    assert chosen(taken(*days[:-1]), now_ms) == []
    assert chosen(taken(*days), now_ms) == [each.stem.first for each in days]


def test_manifests_of_which_nothing_is_left_are_put_together() -> None:
    old = [manifest(1 + 10 * at, T0_MS + at * DAY_MS, "pack") for at in range(40)]
    assert chosen(taken(*old, kept_from=day_of(T0_MS + 31 * DAY_MS)), T0_MS + 400 * DAY_MS) == []
    assert len(chosen(taken(*old, kept_from=day_of(T0_MS + 35 * DAY_MS)), T0_MS + 400 * DAY_MS)) == 35


@given(
    st.lists(st.tuples(st.integers(0, 200_000_000), st.sampled_from(["seal", "pack"]), st.booleans()), max_size=60),
    st.integers(0, 300_000_000),
)
def test_packing_always_comes_to_an_end_and_only_ever_joins_neighbours(parts: list[tuple[int, str, bool]], later_ms: int) -> None:
    chain, pos = [], 1
    for step_ms, kind, hole in sorted(parts):
        pos += 10 if hole else 0
        chain.append(manifest(pos, T0_MS + step_ms, kind))
        pos += 10
    for _ in range(len(chain) + 1):
        group = next_pack(taken(*chain), T0_MS + later_ms)
        if not group:
            return
        assert len(group) >= 2
        assert all(after.stem.first == before.stem.last + 1 for before, after in pairwise(group))
        at = chain.index(group[0])
        stem = Stem("led", group[0].stem.first, group[-1].stem.last, "pack")
        links = tuple(link for each in group for link in each.as_links())
        chain[at : at + len(group)] = [Manifest(stem, max(m.sealed_ms for m in group), 0, 0, "", (), links)]
    raise AssertionError("it never ends")


# -- what becomes of it ---------------------------------------------------------------------------------------------


def random_rows(seed: int, count: int, tags: int = 5) -> list[Row]:
    dice = random.Random(seed)
    values = [dice.choice([1.5, float("nan"), dice.random()]) for _ in range(count)]
    return [
        Row(f"T{dice.randrange(tags)}.X", T0_MS + dice.randrange(50_000_000), value, 192 if value == value else 6,
            float("nan"), dice.random() < 0.1, dice.randrange(3), at)
        for at, value in enumerate(values)
    ]  # fmt: skip


def made_of(db: duckdb.DuckDBPyConnection, folder: Path, pos: int, rows: list[Row], prev: str = "") -> Manifest:
    """Seal rows as the log position `pos`."""
    return seal(db, folder, Stem("led", pos, pos, "seal"), prev, sorted_samples(samples_of(rows)), T0_MS)


def comparable(rows: list[Row]) -> Counter[str]:
    return Counter(map(repr, rows))


@pytest.mark.parametrize("piece_rows", [50, 700, 100_000])
def test_merged_in_pieces_of_any_size_it_is_the_same(tmp_path: Path, db: duckdb.DuckDBPyConnection, piece_rows: int) -> None:
    rows = random_rows(1, 3000)
    sealed = [made_of(db, tmp_path, at + 1, rows[at::3]) for at in range(3)]
    paths = [tmp_path / "samples" / "2025-06-16" / each.stem.data_name for each in sealed]
    assert all(len(each.files) == 1 for each in sealed)
    (tmp_path / "out").mkdir()
    done = merge(db, tmp_path, paths, (tmp_path / "out" / "s", tmp_path / "out" / "r"), piece_rows=piece_rows)
    assert done is not None
    assert (done.rows, done.dropped_rows) == (3000, 0)
    assert done.digest == samples_of(rows).digest()
    assert rows_in([done.samples]) == rows_in(paths)
    order = db.execute("SELECT tag, source_ms FROM read_parquet($1)", [str(done.samples)]).fetchall()
    assert order == sorted(order)
    whole = merge(db, tmp_path, paths, (tmp_path / "out" / "s2", tmp_path / "out" / "r2"))
    assert whole is not None
    one, other = (db.execute("SELECT * FROM read_parquet($1)", [str(path)]).fetchall() for path in (done.rollups, whole.rollups))
    assert one == other
    assert not [*(tmp_path / "temporary").iterdir()]


def test_what_stands_twice_is_kept_once_and_told_of(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    rows = random_rows(2, 200)
    first = seal(db, tmp_path, Stem("led", 1, 9, "seal"), "", sorted_samples(samples_of(rows)), T0_MS)
    second = seal(db, tmp_path, Stem("led", 10, 19, "seal"), first.hash, sorted_samples(samples_of(rows[:50])), T0_MS)
    made = pack(db, tmp_path, [first, second])
    assert made is not None
    assert (made.rows, made.dropped_rows) == (200, 50)
    assert made.digest == samples_of(rows).digest()
    assert made.dropped_digest == samples_of(rows[:50]).digest()
    live = list(SegmentFolder(tmp_path).snapshot().files())
    assert [each.stem.kind for each in live] == ["pack"]
    assert sum(rows_in(each.samples(tmp_path) for each in live).values()) == 200


def test_a_pack_of_packs_still_proves_every_seal(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    prev, made = "", []
    for at in range(6):
        made.append(made_of(db, tmp_path, at + 1, random_rows(at, 20), prev))
        prev = made[-1].hash
    left, right = pack(db, tmp_path, made[:3]), pack(db, tmp_path, made[3:5])
    assert left is not None
    assert right is not None
    for name in [each.stem.manifest_name for each in made[:5]]:
        (tmp_path / "manifests" / name).unlink()
    assert SegmentFolder(tmp_path).verified("led").cursor == 6
    whole = pack(db, tmp_path, [left, right])
    assert whole is not None
    assert [link.hash for link in whole.links] == [each.hash for each in made[:5]]
    found = SegmentFolder(tmp_path).verified("led")
    assert (found.cursor, found.problems) == (6, ())


@pytest.mark.fault("F73")
def test_a_damaged_source_is_never_packed(tmp_path: Path, db: duckdb.DuckDBPyConnection) -> None:
    made = [made_of(db, tmp_path, at, random_rows(at, 300)) for at in (1, 2)]
    victim = tmp_path / "samples" / "2025-06-16" / made[1].stem.data_name
    raw = bytearray(victim.read_bytes())
    raw[50] ^= 1
    victim.write_bytes(raw)
    with pytest.raises(DamagedSourceError) as caught:
        pack(db, tmp_path, made)
    assert caught.value.stem == made[1].stem
    assert [m.stem.kind for m in SegmentFolder(tmp_path).snapshot().manifests] == ["seal", "seal"]


def test_without_room_nothing_is_packed(tmp_path: Path, db: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [made_of(db, tmp_path, at, random_rows(at, 30)) for at in (1, 2)]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(NoRoomError, match="packing needs"):
        pack(db, tmp_path, made)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from([1.0, 2.0, float("nan")]), st.integers(0, 2)), max_size=40
    )
)
def test_once_keeps_one_of_each(parts: list[tuple[int, int, float, int]]) -> None:
    rows = [Row(f"T{tag}", at, value, stream=stream) for tag, at, value, stream in parts]
    samples = sorted_samples(samples_of(rows))
    kept, copies = once(samples)
    assert comparable([*rows_of(kept), *rows_of(copies)]) == comparable(rows)
    assert set(comparable(rows_of(kept))) == set(comparable(rows))
    assert isinstance(kept, Samples)
    assert np.all(np.diff(kept.source_ms)[np.diff(kept.tag) == 0] >= 0)
