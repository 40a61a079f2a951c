"""What a store would not take: kept as it was, within a bound, on the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gateway.historian import feed_files
from gateway.historian.feed_files import QUARANTINE_BYTES_MAX, Quarantine
from gateway.historian.samples import Samples
from gateway.historian.store import Rejected, Written, rejected_of
from tests.historian.feeding import T0, Store, done, gateway, turn


def test_samples_a_store_will_not_take_are_kept_aside_and_told(tmp_path: Path) -> None:
    class Picky(Store):
        def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
            first = rejected_of(samples, 0, "not that one")
            written = super().write(samples.take(slice(1, None)))
            return Written(written.rows, (first,))

    with gateway(tmp_path) as made:
        made.frames(1)
        store = Picky()
        feed = made.feed(lambda: store)
        turn(feed, made.clock, done(feed, made))
        assert feed.status()["quarantined"] == 1
        kept = (made.historian / "feeds" / "plant.quarantine.jsonl").read_text().splitlines()
        (line,) = map(json.loads, kept)
        sample = made.written[0]
        assert line == {
            "at_ms": made.clock.now_ms, "tag": made.names[0], "source_ms": T0 + 1_000, "reason": "not that one",
            "value": sample.value[0], "code": sample.code[0], "raw": None,
        }  # fmt: skip
        feed.close()
        again = made.feed(lambda: store)
        made.clock.now_s += again.round()
        assert again.status()["quarantined"] == 1, "counted after a start, too"
        again.close()


def test_a_sample_kept_aside_is_as_it_was_whatever_it_holds(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    whole, bad, odd = Rejected("T", 1, "no", 1.5, 69, 99.5), Rejected("T", 2, "no", None, 1), Rejected("T", 3, "no", math.inf, 192)
    kept.add([whole, bad, odd], T0)
    lines = [json.loads(line) for line in kept.path.read_text().splitlines()]
    assert [(line["value"], line["code"], line["raw"]) for line in lines] == [(1.5, 69, 99.5), (None, 1, None), ("inf", 192, None)]


def test_the_quarantine_never_outgrows_its_bound(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    rejected = [Rejected("T" * 500, at, "x" * 500) for at in range(1_000)]
    for _ in range(40):
        kept.add(rejected, T0)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert QUARANTINE_BYTES_MAX // 2 < size <= QUARANTINE_BYTES_MAX


def test_one_batch_of_many_does_not_make_the_quarantine_outgrow_it(tmp_path: Path) -> None:
    """A hole's batch has up to 200 000 samples."""
    kept = Quarantine(tmp_path, "plant")
    kept.add([Rejected("T" * 500, at, "x" * 500) for at in range(40_000)], T0)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert QUARANTINE_BYTES_MAX // 2 < size <= QUARANTINE_BYTES_MAX
    assert json.loads(kept.path.read_text().splitlines()[-1])["source_ms"] == 39_999, "the newest stay"


def test_a_line_that_a_full_disk_cut_short_costs_the_next_one_nothing(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, "plant")
    kept.add([Rejected("T", 1, "no")], T0)
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole + whole[:20])
    kept.add([Rejected("T", 2, "no")], T0)
    first, torn, second = kept.path.read_text().splitlines()
    assert (json.loads(first)["source_ms"], json.loads(second)["source_ms"]) == (1, 2)
    assert torn == whole[:20].decode()


def test_every_file_of_a_batch_is_on_the_disk_before_a_cursor_passes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that became the older one within the batch, and both names."""
    monkeypatch.setattr(feed_files, "QUARANTINE_BYTES_MAX", 400_000)
    synced: dict[int, int] = {}
    folders: list[set[str]] = []
    monkeypatch.setattr(feed_files, "sync_file", lambda path: synced.update({path.stat().st_ino: path.stat().st_size}))
    monkeypatch.setattr(feed_files, "sync_folder", lambda path: folders.append({each.name for each in path.iterdir()}))
    Quarantine(tmp_path, "plant").add([Rejected("T", at, "x" * 100) for at in range(1_000)], T0)
    there = {path.stat().st_ino: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(there) == 2, "the batch is to fill more than one file"
    assert there.items() <= synced.items()
    assert folders[-1] == {path.name for path in tmp_path.iterdir()}
