"""What is stored and cannot be read is told in every answer: by no bound on answers, and by no way round."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.copy import copy_store
from gateway.historian.memory import MemoryHistorian
from gateway.historian.samples import DAY_MS
from gateway.historian.segments.evidence import evidence_path
from gateway.historian.segments.files import write_samples
from gateway.historian.segments.missing import Missing, stretches_of
from gateway.historian.segments.names import KEPT_FROM_NAME, Stem, day_of, manifest_path, rollup_path, samples_path
from gateway.historian.segments.seal import sorted_samples
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import SegmentDamagedError
from tests.historian.reference import Row, rows_of, samples_of
from tests.historian.test_embedded import T0, put, writer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedHistorian]:
    with closing(EmbeddedHistorian(tmp_path / "historian")) as store:
        yield store


def days_of_one_sample(store: EmbeddedHistorian, days: int) -> list[Stem]:
    stems = [Stem("one", at + 1, at + 1, "seal") for at in range(days)]
    for at, stem in enumerate(stems):
        put(store.folder, stem, [Row("T", T0 + at * DAY_MS, float(at), stream=1, sequence=at + 1)], T0 + at * DAY_MS)
    return stems


@pytest.mark.fault("F73")
def test_however_many_files_are_damaged_each_is_told(store: EmbeddedHistorian) -> None:
    stems = days_of_one_sample(store, 120)
    for at, stem in enumerate(stems):
        samples_path(store.folder, stem, day_of(T0 + at * DAY_MS)).write_bytes(b"torn")
    found, missing = store.segments.samples(store.segments.taken(), "T", T0, T0 + 200 * DAY_MS, 9, time.monotonic() + 30)
    assert len(found) == 0
    assert sorted(each.from_ms for each in missing) == [T0 + at * DAY_MS for at in range(120)]


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["manifest", "rollup"])
def test_the_newest_is_not_told_where_a_newer_one_cannot_be_read(store: EmbeddedHistorian, harm: str) -> None:
    stems = days_of_one_sample(store, 3)

    def tear(at: int) -> None:
        path = rollup_path(store.folder, stems[at], day_of(T0 + at * DAY_MS))
        path = path if harm == "rollup" else manifest_path(store.folder, stems[at])
        path.write_bytes(path.read_bytes()[:40])

    tear(0)
    assert rows_of(store.latest(["T"]))[0].value == 2.0, "older damage does not matter"
    tear(2)
    with pytest.raises(SegmentDamagedError, match=r"2026-01-03"):
        store.latest(["T"])


def test_evidence_of_days_that_are_gone_is_copied(store: EmbeddedHistorian) -> None:
    put(store.folder, Stem("one", 1, 9, "seal"), [Row("T", T0 + DAY_MS, 2.0, stream=1, sequence=9)], T0 + DAY_MS)
    path = evidence_path(store.folder, "2026-01-01")
    path.parent.mkdir(parents=True)
    rows = [Row("T", T0 + at, 7.0, stream=1, sequence=at) for at in (1, 400_000)]
    rows.append(Row("S", T0 - 9 * DAY_MS, 1.0, late=True, stream=1))
    write_samples(writer(), path, sorted_samples(samples_of(rows)))
    (store.folder / KEPT_FROM_NAME).write_text(json.dumps({"day": "2026-01-02", "why": "age", "at_ms": 1}))
    assert list(store.days()) == [T0 - 9 * DAY_MS, T0, T0 + DAY_MS]
    target = MemoryHistorian("target")
    assert copy_store(store, target).verified
    assert target.range("T", T0, T0 + 2 * DAY_MS).value.tolist() == [7.0, 7.0, 2.0]
    assert target.range("S", T0 - 9 * DAY_MS, T0).value.tolist() == [1.0]
    path.write_bytes(b"torn")
    done = copy_store(store, MemoryHistorian("again"))
    assert [(day.day_ms, day.verified) for day in done.days] == [(T0 - 9 * DAY_MS, False), (T0, False), (T0 + DAY_MS, True)]


def test_a_time_that_no_manifest_can_name_is_refused_and_the_rest_is_kept(store: EmbeddedHistorian) -> None:
    written = store.write(samples_of([Row("T", at, 1.0) for at in (-(1 << 63), T0, 1 << 53, (1 << 63) - 1)]))
    assert (written.rows, [each.source_ms for each in written.rejected]) == (2, [-(1 << 63), (1 << 63) - 1])
    assert [row.source_ms for row in rows_of(store.range("T", T0, T0 + 1))] == [T0]
    assert rows_of(store.latest(["T"]))[0].source_ms == 1 << 53


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=12))
def test_stretches_are_the_moments_of_what_is_missing_joined(drawn: list[tuple[int, int]]) -> None:
    found = stretches_of([Missing(lo, lo + length, "f", "w") for lo, length in drawn])
    assert {at for lo, hi in found for at in range(lo, hi)} == {at for lo, length in drawn for at in range(lo, lo + length)}
    assert all(one[1] < two[0] for one, two in pairwise(found))
