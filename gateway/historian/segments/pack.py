"""Packing: many small seals become one set of day files, in three steps that go by when rows were received.

First the seals of a past hour, then what is left of a past day, then stretches of days over which late pieces of old days
have gathered. A pack holds the whole range of what it replaces; days of which there is one file only are linked, not
written again. `next_pack` decides and is pure; `pack` does it. Parts of a load are left as they are: each lies within one
day, so that nothing would be read faster for it, and whoever goes on with the load asks for them by name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import duckdb

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.durable import aside, make_folder, publish, step, sync_file
from gateway.historian.segments.files import finish_day
from gateway.historian.segments.folder import LiveFile, Problem, Snapshot, check_file
from gateway.historian.segments.kept import NOTHING_GONE, KeptFrom
from gateway.historian.segments.manifest import DayFile, Link, Manifest, bounded, combined, parse_manifest
from gateway.historian.segments.merge import MergeError, merge
from gateway.historian.segments.names import Stem, day_of, rollup_path, samples_path
from gateway.historian.segments.seal import commit

HOUR_MS: Final = 3_600_000
SETTLED_MS: Final = 600_000  # after an hour, before its seals are packed
DAY_SETTLED_MS: Final = HOUR_MS
HOUR_SEALS_MIN: Final = 6
TOGETHER_MAX: Final = 64  # manifests in one pack: more files than that are merged in two goes
HOUR_ROWS_MAX: Final = 64_000_000
DAY_ROWS_MAX: Final = 1_000_000_000
LATE_FILES_MIN: Final = 8  # files of one old day that are worth reading together
LATE_DAYS_MAX: Final = 30
REMOVED_MIN: Final = 32  # manifests of which nothing is left that are put together
LINKS_MAX: Final = 20_000
FREE_SHARE: Final = 2.5  # of the bytes to be merged, that must be free: the parts and the result
FREE_BYTES: Final = 64 * 1024 * 1024


class NoRoomError(Exception):
    """The disk has no room for a pack; it is tried again when there is."""


class DamagedSourceError(Exception):
    """A file to be packed is not what was written: it stays where it is."""

    def __init__(self, stem: Stem, problem: Problem) -> None:
        self.stem, self.problem = stem, problem
        super().__init__(f"{problem.file}: {problem.why}")


def next_pack(taken: Snapshot, now_ms: int, left_out: Iterable[Stem] = ()) -> tuple[Manifest, ...]:
    """Return what to pack next, empty if nothing is worth it. The oldest first, small steps before large ones.

    Args:
        left_out: stems that could not be packed, because a file of theirs is damaged.
    """
    out = frozenset(left_out)
    runs = [
        run
        for owner in sorted({m.stem.owner for m in taken.manifests if m.stem.kind != "load"})
        for run in _runs([m for m in taken.chain(owner) if m.stem not in out])
    ]
    for choose in (_hour, _day, _late, _removed):
        for run in runs:
            if chosen := choose(run, now_ms, taken.kept):
                return chosen
    return ()


def _runs(manifests: Sequence[Manifest]) -> list[list[Manifest]]:
    """Split a chain where it has a hole."""
    runs: list[list[Manifest]] = []
    for manifest in manifests:
        if runs and runs[-1][-1].stem.last + 1 == manifest.stem.first:
            runs[-1].append(manifest)
        else:
            runs.append([manifest])
    return runs


def _hour(run: Sequence[Manifest], now_ms: int, _kept: KeptFrom) -> tuple[Manifest, ...]:
    for (hour, kind), same in groupby(run, lambda m: (m.sealed_ms // HOUR_MS, m.stem.kind)):
        if kind == "seal" and (hour + 1) * HOUR_MS + SETTLED_MS <= now_ms:
            chosen = _bounded(list(same), HOUR_ROWS_MAX)
            if len(chosen) >= HOUR_SEALS_MIN:
                return chosen
    return ()


def _day(run: Sequence[Manifest], now_ms: int, _kept: KeptFrom) -> tuple[Manifest, ...]:
    for day, same in groupby(run, lambda m: m.sealed_ms // DAY_MS):
        together = list(same) if (day + 1) * DAY_MS + DAY_SETTLED_MS <= now_ms else []
        while together:
            chosen = _bounded(together, DAY_ROWS_MAX)
            if len(chosen) >= 2:
                return chosen
            together = together[len(chosen) :]
    return ()


def _removed(run: Sequence[Manifest], _now_ms: int, kept: KeptFrom) -> tuple[Manifest, ...]:
    """Choose manifests of which nothing is left: only the chain needs them."""
    for empty, same in groupby(run, lambda m: day_of(m.sealed_ms) < kept.day and _nothing_left(m, kept)):
        chosen = tuple(same)[: 8 * REMOVED_MIN]
        if empty and len(chosen) >= REMOVED_MIN:
            return chosen
    return ()


def _nothing_left(manifest: Manifest, kept: KeptFrom) -> bool:
    return all(kept.covers(manifest.stem, file.leaves) for file in manifest.files)


def _late(run: Sequence[Manifest], now_ms: int, kept: KeptFrom) -> tuple[Manifest, ...]:
    """Choose a stretch of whole days' packs in which some day has many files."""
    newest = (now_ms - DAY_SETTLED_MS) // DAY_MS
    old = [m for m in run if m.sealed_ms // DAY_MS < newest and day_of(m.sealed_ms) >= kept.day]  # from one place of the run on
    counts: Counter[str] = Counter()
    begin = 0
    for at, manifest in enumerate(old):
        if at and (manifest.sealed_ms - old[begin].sealed_ms > LATE_DAYS_MAX * DAY_MS or at - begin >= TOGETHER_MAX):
            begin, counts = at, Counter()
        counts.update(file.day for file in manifest.files if not kept.covers(manifest.stem, file.leaves))
        crowded = [day for day, files in counts.items() if files >= LATE_FILES_MIN]
        if crowded:
            chosen = tuple(old[begin : at + 1])
            first = next(i for i, m in enumerate(chosen) if any(file.day in crowded for file in m.files))
            chosen = chosen[first:]
            return chosen if sum(len(m.as_links()) for m in chosen) <= LINKS_MAX else ()
    return ()


def _bounded(together: Sequence[Manifest], rows_max: int) -> tuple[Manifest, ...]:
    """Take from the front as many as may go in one pack."""
    chosen: list[Manifest] = []
    rows = links = 0
    for manifest in together:
        rows, links = rows + manifest.rows, links + len(manifest.as_links())
        if chosen and (rows > rows_max or links > LINKS_MAX * 4 or len(chosen) >= TOGETHER_MAX):
            break
        chosen.append(manifest)
    return tuple(chosen)


def pack(
    db: duckdb.DuckDBPyConnection, folder: Path, chosen: Sequence[Manifest], kept: KeptFrom = NOTHING_GONE,
    stopped: Callable[[], bool] = lambda: False,
) -> Manifest | None:  # fmt: skip
    """Replace manifests that follow each other by one; None if it was stopped.

    What they held of days that retention has removed is counted as removed.

    Raises:
        NoRoomError: the disk has not the room. DamagedSourceError: a source is not what was written.
        MergeError, OSError, duckdb.Error: it did not work out. Nothing has changed in any of these cases.
    """
    stem = Stem(chosen[0].stem.owner, chosen[0].stem.first, chosen[-1].stem.last, "pack")
    sources: dict[str, list[LiveFile]] = {}
    gone: list[DayFile] = []
    for manifest in chosen:
        for file in manifest.files:
            if kept.covers(manifest.stem, file.leaves):
                gone.append(file)
            else:
                sources.setdefault(file.day, []).append(LiveFile(manifest.stem, manifest.sealed_ms, file))
    _check_room(folder, sum(live.file.bytes for lives in sources.values() if len(lives) > 1 for live in lives))
    files: list[DayFile] = []
    copies = [(manifest.dropped_rows, manifest.dropped_digest) for manifest in chosen]
    for day, lives in sorted(sources.items()):
        for live in lives:
            problem = check_file(folder, live)
            if problem is not None:
                raise DamagedSourceError(live.stem, problem)
        if len(lives) == 1:
            files.append(_linked(folder, stem, lives[0]))
            continue
        done = None if stopped() else _merged(db, folder, stem, day, lives, stopped)
        if done is None:
            return None
        files.append(done[0])
        copies.append(done[1])
    removed = [(file.rows, file.digest) for file in gone] + [(m.removed_rows, m.removed_digest) for m in chosen]
    links = tuple(link for manifest in chosen for link in manifest.as_links())
    if not files:  # nothing of it is left: of its seals the chain needs the last one's hash
        links = (Link(stem.first, stem.last, links[-1].hash, *_sums((link.rows, link.digest) for link in links)),)
    made = Manifest(
        stem, max(manifest.sealed_ms for manifest in chosen), *_sums((file.rows, file.digest) for file in files), chosen[0].prev,
        tuple(files), links, *_sums(copies), *_sums(removed),
        torn=bounded([torn for m in chosen for torn in m.torn]),
    )  # fmt: skip
    parse_manifest(stem, made.text())  # its sums hold, or it never counts
    commit(folder, made)
    return made


def _sums(parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Add up rows and digests."""
    rows, digests = tuple(zip(*parts, strict=True)) or ((), ())
    return sum(rows), combined(digests)


def _merged(
    db: duckdb.DuckDBPyConnection, folder: Path, stem: Stem, day: str, lives: Sequence[LiveFile], stopped: Callable[[], bool]
) -> tuple[DayFile, tuple[int, int]] | None:
    """Merge a day's files; returns the file and what was dropped, None if it was stopped."""
    targets = samples_path(folder, stem, day), rollup_path(folder, stem, day)
    for target in targets:
        make_folder(target.parent)
    merged = merge(db, folder, [live.samples(folder) for live in lives], targets, stopped)
    if merged is None:
        return None
    held = _sums((live.file.rows, live.file.digest) for live in lives)
    if _sums([(merged.rows, merged.digest), (merged.dropped_rows, merged.dropped_digest)]) != held:
        raise MergeError(f"{stem}: the files of {day} hold other samples than their manifests say; check the disk")
    leaves = max(live.file.leaves for live in lives)
    written = merged.samples, merged.rollups
    file = finish_day(folder, stem, day, written, merged.rows, merged.digest, merged.span, leaves)
    return file, (merged.dropped_rows, merged.dropped_digest)


def _linked(folder: Path, stem: Stem, live: LiveFile) -> DayFile:
    """Give the only file of a day its name under a new stem; where a file system knows no links, copy it."""
    day = live.file.day
    pairs = (live.samples(folder), samples_path(folder, stem, day)), (live.rollup(folder), rollup_path(folder, stem, day))
    for source, target in pairs:
        written = aside(target)
        with step(f"link {target.name}"):
            target.unlink(missing_ok=True)  # of a try that ended before its manifest: renaming one link to another does nothing
            try:
                written.hardlink_to(source)
            except (OSError, NotImplementedError):
                shutil.copyfile(source, written)
        sync_file(written)
        publish(written, target)
    return live.file


def _check_room(folder: Path, merged_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    needed = int(merged_bytes * FREE_SHARE) + FREE_BYTES
    if free < needed:
        raise NoRoomError(f"{folder}: {free} bytes free, packing needs {needed}")
