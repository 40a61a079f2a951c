"""Snapshots: a damaged one is put aside, never believed and never in the way."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.core.snapshots import (
    Snapshot,
    newest_position,
    oldest_kept,
    pack_sections,
    read_snapshots,
    set_aside_after,
    unpack_sections,
    write_snapshot,
)

SECTIONS = {"engine": bytes(range(64)), "nodes": '{"E1":"氯"}'.encode(), "empty": b""}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_snapshot(tmp_path, Snapshot(7, SECTIONS))
    assert read_snapshots(tmp_path) == [Snapshot(7, SECTIONS)]
    assert unpack_sections(pack_sections(SECTIONS), len(SECTIONS)) == SECTIONS


def test_the_newest_two_are_kept_newest_first(tmp_path: Path) -> None:
    assert (newest_position(tmp_path), oldest_kept(tmp_path)) == (0, 0)
    for pos in (9, 10, 11, 100):
        write_snapshot(tmp_path, Snapshot(pos, SECTIONS))
    assert [snapshot.pos for snapshot in read_snapshots(tmp_path)] == [100, 11]
    assert (newest_position(tmp_path), oldest_kept(tmp_path)) == (100, 11)


def test_while_there_is_only_one_nothing_may_be_removed_for_it(tmp_path: Path) -> None:
    write_snapshot(tmp_path, Snapshot(9, SECTIONS))
    assert oldest_kept(tmp_path) == 0


@pytest.mark.fault("F73")
def test_no_single_flipped_bit_is_believed(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path, Snapshot(7, SECTIONS))
    whole = path.read_bytes()
    head = range(8 * 52)  # every bit of it; the rest hangs on one digest
    for bit in [*head, *range(8 * 52, 8 * len(whole), 41)]:
        torn = bytearray(whole)
        torn[bit // 8] ^= 1 << bit % 8
        path.write_bytes(torn)
        assert read_snapshots(tmp_path) == [], f"bit {bit}"
        path.with_suffix(".damaged").rename(path)
    path.write_bytes(whole)
    assert read_snapshots(tmp_path) == [Snapshot(7, SECTIONS)]


@pytest.mark.fault("F73")
def test_no_torn_file_is_believed_and_the_older_one_stands_in(tmp_path: Path) -> None:
    write_snapshot(tmp_path, Snapshot(7, SECTIONS))
    path = write_snapshot(tmp_path, Snapshot(8, SECTIONS))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert [snapshot.pos for snapshot in read_snapshots(tmp_path)] == [7]
        path.with_suffix(".damaged").unlink()


def test_random_bytes_are_no_snapshot(tmp_path: Path) -> None:
    draw = random.Random(1)
    for size in (0, 1, 51, 52, 53, 4_000):
        (tmp_path / f"snapshot-{5:020d}.bin").write_bytes(draw.randbytes(size))
        assert read_snapshots(tmp_path) == []


def test_a_snapshot_under_another_name_is_not_believed(tmp_path: Path) -> None:
    """Renamed to a later position it would skip the log between."""
    path = write_snapshot(tmp_path, Snapshot(7, SECTIONS))
    path.rename(path.with_name(f"snapshot-{9:020d}.bin"))
    assert read_snapshots(tmp_path) == []


def test_one_left_half_written_by_a_crash_is_passed_over_and_removed(tmp_path: Path) -> None:
    (tmp_path / f"snapshot-{5:020d}.tmp").write_bytes(b"half")
    assert newest_position(tmp_path) == 0
    write_snapshot(tmp_path, Snapshot(7, SECTIONS))
    assert [path.name for path in tmp_path.iterdir()] == [f"snapshot-{7:020d}.bin"]


def test_snapshots_after_a_restored_ledger_are_put_aside(tmp_path: Path) -> None:
    for pos in (7, 8):
        write_snapshot(tmp_path, Snapshot(pos, SECTIONS))
    assert [path.suffix for path in set_aside_after(tmp_path, 7)] == [".superseded"]
    assert [snapshot.pos for snapshot in read_snapshots(tmp_path)] == [7]


