"""B10's plant as our own segments: the real writer and the real pack, into a folder that is kept and built day by day.

A day is sealed device by device in a working folder, packed there, and moved; its manifest comes last, so that a build
that was stopped goes on with the first day that is not whole. Two processes take every other day.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import b10_plant
from benchmarks.b10_plant import DAYS_MAX, DEVICES, FIRST_DAY_MS, Plant
from benchmarks.harness import BenchmarkError
from gateway.historian import windows
from gateway.historian.samples import DAY_MS
from gateway.historian.segments import files, merge
from gateway.historian.segments.files import connect
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.manifest import Manifest
from gateway.historian.segments.names import Stem, day_of, manifest_path, rollup_path, samples_path
from gateway.historian.segments.pack import pack
from gateway.historian.segments.seal import seal, sorted_samples

LEDGER: Final = "b10"
BUILT_BY: Final = "built-by"
SOURCES: Final = (b10_plant, files, merge, windows)
SEAL_S: Final = 600
BYTES_A_DAY: Final = 320_000_000
WORKING_BYTES: Final = 1_500_000_000
PROCESSES: Final = 2


@dataclass(frozen=True, slots=True)
class Built:
    """How long a build took; `seal_s` and `pack_s` are of all processes together, 0 of what was there already."""

    rows: int
    seal_s: float
    pack_s: float


def sources() -> str:
    """Return a checksum of the code that decides what the days hold and weigh."""
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in SOURCES)
    return hashlib.sha256(text).hexdigest()


def of_other_sources(folder: Path, days: int) -> list[int]:
    """Return the days that were built by other code than there is now."""
    now, notes = sources(), [_built_by(folder, day) for day in range(days)]
    return [day for day, note in enumerate(notes) if not note.exists() or note.read_text("ascii") != now]


def _built_by(folder: Path, day: int) -> Path:
    return folder / BUILT_BY / f"{day:03}"


def day_stem(day: int) -> Stem:
    """What the packed files of a day are called."""
    return Stem(LEDGER, day * DEVICES + 1, (day + 1) * DEVICES, "pack")


def build_days(folder: Path, days: int, seed: int, said: Callable[[str], None]) -> Built:
    """Make the first `days` days where they are not yet.

    Raises:
        BenchmarkError: no room on the disk, or a process failed.
    """
    if not 1 <= days <= DAYS_MAX:
        raise BenchmarkError(f"{days} days; the plant has 1 to {DAYS_MAX}")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [day for day in range(days) if not manifest_path(folder, day_stem(day)).exists()]
    free, needed = shutil.disk_usage(folder).free, len(missing) * BYTES_A_DAY + WORKING_BYTES
    if missing and free < needed:
        raise BenchmarkError(f"{folder}: {free} bytes free, {len(missing)} days need {needed}; give another --data, or fewer --days")
    done = [Built(0, 0.0, 0.0)]
    with multiprocessing.get_context("spawn").Pool(min(PROCESSES, max(1, len(missing)))) as processes:
        for day, built in processes.imap_unordered(_build_day, [(folder, day, seed) for day in missing]):
            done.append(built)
            said(f"day {day + 1} of {days}: {built.rows} rows, sealed in {built.seal_s:.0f} s, packed in {built.pack_s:.0f} s")
    return Built(sum(b.rows for b in done), sum(b.seal_s for b in done), sum(b.pack_s for b in done))


def _build_day(what: tuple[Path, int, int]) -> tuple[int, Built]:
    folder, day, seed = what
    working = folder / f"working-{day:02}"
    shutil.rmtree(working, ignore_errors=True)
    plant, stem, at = Plant(seed), day_stem(day), FIRST_DAY_MS + day * DAY_MS
    db = connect(working)
    seals: list[Manifest] = []
    began = time.perf_counter()
    for number, device in enumerate(plant.day(day)):
        own = Stem(LEDGER, stem.first + number, stem.first + number, "seal")
        seals.append(seal(db, working, own, seals[-1].hash if seals else "", device.by_tag(), at + DAY_MS))
    sealed = time.perf_counter()
    packed = pack(db, working, seals)
    ended = time.perf_counter()
    db.close()
    if packed is None or [file.day for file in packed.files] != [day_of(at)]:
        raise BenchmarkError(f"day {day} was not packed into one day's files")
    for path_of in (samples_path, rollup_path):
        target = path_of(folder, stem, day_of(at))
        target.parent.mkdir(parents=True, exist_ok=True)
        path_of(working, stem, day_of(at)).rename(target)
    _built_by(folder, day).parent.mkdir(exist_ok=True)
    _built_by(folder, day).write_text(sources(), "ascii")
    target = manifest_path(folder, stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest_path(working, stem).rename(target)
    shutil.rmtree(working)
    return day, Built(packed.rows, sealed - began, ended - sealed)


def build_hours(folder: Path, hours: int, seed: int) -> Built:
    """Make the first `hours` anew as serve does: a seal every ten minutes of what arrived, then one pack of them all."""
    shutil.rmtree(folder, ignore_errors=True)
    db = connect(folder)
    seals: list[Manifest] = []
    seal_s = 0.0
    for number, piece in enumerate(Plant(seed).pieces(hours, SEAL_S), 1):
        began = time.perf_counter()
        stem = Stem(LEDGER, number, number, "seal")
        sealed_ms = FIRST_DAY_MS + number * SEAL_S * 1_000
        seals.append(seal(db, folder, stem, seals[-1].hash if seals else "", sorted_samples(piece), sealed_ms))
        seal_s += time.perf_counter() - began
    began = time.perf_counter()
    while len(seals) > 1:
        packed = pack(db, folder, seals[:64])
        assert packed is not None, "nobody stops it"
        seals[:64] = [packed]
    pack_s = time.perf_counter() - began
    db.close()
    _remove_superseded(folder)
    return Built(seals[0].rows, seal_s, pack_s)


def _remove_superseded(folder: Path) -> None:
    """As the owner does after a pack."""
    taken = SegmentFolder(folder).snapshot()
    for stem in taken.superseded:
        manifest_path(folder, stem).unlink()
        for part in ("samples", "rollups"):
            for path in (folder / part).glob(f"*/{stem.data_name}"):
                path.unlink()

