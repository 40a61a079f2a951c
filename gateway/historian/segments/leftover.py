"""What is left over in the segment folder: of what died, of what was packed or removed, of manifests that were lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.folder import Snapshot, names_in, through
from gateway.historian.segments.names import (
    ASIDE,
    BEGUN,
    DAY_MAX,
    DAY_MIN,
    EVIDENCE,
    MANIFESTS,
    ROLLUPS,
    SAMPLES,
    Stem,
    begun_path,
    is_day,
    manifest_path,
    parse_data_name,
    parse_stem,
)

ORPHAN_LOAD_MS: Final = DAY_MS  # so long a part of a load may wait for its manifest


def orphans(folder: Path, taken: Snapshot, now_ms: int) -> Iterator[Path]:
    """Yield what provably nobody needs: files left aside, manifests inside a pack, data that counts elsewhere or was removed.

    In the order in which it may be removed: a kill in between leaves less of the same. Only for who holds the lock.
    """
    yield from _aside(folder, now_ms)
    yield from (folder / MANIFESTS / gone.manifest_name for gone in taken.superseded)
    unnamed = [*_unnamed(folder, taken)]
    yield from (path for path, stem, day in unnamed if _counts_elsewhere(taken, stem, day))
    yield from _begun(folder, {stem for _, stem, _ in unnamed}, now_ms)


def strays(folder: Path, taken: Snapshot, now_ms: int) -> Iterator[tuple[Path, Stem]]:
    """Yield data that no manifest names and that may be all there is of it: its manifest was lost, or never written.

    Of loads only parts that were cut short: those that were whole stay where readers find them (`unnamed_parts`).
    """
    for path, stem, day in _unnamed(folder, taken):
        waits = stem.kind == "load" and not (begun_path(folder, stem).exists() and is_old(path, now_ms))
        if not waits and not _counts_elsewhere(taken, stem, day) and not _of_a_hole(taken, stem):
            yield path, stem


def unnamed_parts(folder: Path, taken: Snapshot, first: str = DAY_MIN, last: str = DAY_MAX) -> list[tuple[Stem, str]]:
    """Return the parts of loads, and their day from `first` to `last`, whose samples are there and whose manifest was lost.

    Not those that are being written beside, or were cut short: they have never counted.

    Raises:
        OSError: the folder cannot be read.
    """
    known = {manifest.stem for manifest in taken.manifests} | {stem for stem, _ in taken.unreadable}
    found = [
        (stem, day)
        for day in sorted(names_in(folder / SAMPLES)) if is_day(day) and first <= day <= last
        for name in sorted(names_in(folder / SAMPLES / day)) if name.startswith("load-")
        if (stem := parse_data_name(name)) is not None and stem not in known
    ]  # fmt: skip
    # First the mark: what had one when the snapshot was taken, and has none now, has its manifest.
    return [each for each in found if not begun_path(folder, each[0]).exists() and not manifest_path(folder, each[0]).exists()]


def why_unnamed(stem: Stem) -> str:
    """Return what to say of such a part."""
    return (
        f"the samples of part {stem.first} of load {stem.owner} are there and its manifest is not; restore it from a backup,"
        " import the same file again, or keep the samples elsewhere"
    )


def _unnamed(folder: Path, taken: Snapshot) -> Iterator[tuple[Path, Stem, str]]:
    named = {(live.stem, live.file.day) for live in taken.files()}
    untouched = {stem for stem, _ in taken.unreadable}
    for top in (SAMPLES, ROLLUPS):
        for day in sorted(names_in(folder / top)):
            for name in sorted(names_in(folder / top / day)) if is_day(day) else ():
                stem = parse_data_name(name)
                if stem is not None and stem not in untouched and (stem, day) not in named:
                    yield folder / top / day / name, stem, day


def _counts_elsewhere(taken: Snapshot, stem: Stem, day: str) -> bool:
    """Whether what a file holds is in others that count, or was removed on purpose."""
    if any(manifest.stem == stem for manifest in taken.manifests):
        return True  # it has a manifest, which names other days, or this one as removed
    if stem.kind == "load":
        return False
    reached = through([m for m in taken.chain(stem.owner) if m.stem.last >= stem.first], stem.first - 1)
    return reached >= stem.last


def _of_a_hole(taken: Snapshot, stem: Stem) -> bool:
    """Whether a range is one that the chain misses: that is told of already, and its data waits where it is."""
    return stem.kind != "load" and any(m.stem.first > stem.last for m in taken.chain(stem.owner))


def _begun(folder: Path, unnamed: set[Stem], now_ms: int) -> Iterator[Path]:
    """Yield the marks of parts that were committed all the same, or of which no files are left."""
    for name in sorted(names_in(folder / MANIFESTS)):
        stem = parse_stem(name.removesuffix(BEGUN)) if name.endswith(BEGUN) else None
        if stem is not None:
            path = folder / MANIFESTS / name
            if manifest_path(folder, stem).exists() or (stem not in unnamed and is_old(path, now_ms)):
                yield path


def _aside(folder: Path, now_ms: int) -> Iterator[Path]:
    yield from (path for path in sorted(folder.glob(f"*{ASIDE}")) if path.is_file())
    days = [folder / top / day for top in (SAMPLES, ROLLUPS) for day in sorted(names_in(folder / top)) if is_day(day)]
    for place in (folder / MANIFESTS, folder / EVIDENCE, *days):
        for name in sorted(names_in(place)):
            if name.endswith(ASIDE) and (not name.startswith("load-") or is_old(place / name, now_ms)):
                yield place / name


def is_old(path: Path, now_ms: int) -> bool:
    """Whether a load that is under way has nothing to do with a file or folder any more."""
    try:
        return now_ms - path.stat().st_mtime_ns // 1_000_000 > ORPHAN_LOAD_MS
    except OSError:
        return False
