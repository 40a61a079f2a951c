"""Imported or copied history: parts of a load, each committed as a seal is, known by name, so that a load can go on."""

from __future__ import annotations

from pathlib import Path

import duckdb

from gateway.historian.samples import Samples
from gateway.historian.segments.durable import make_folder, remove, write_durably
from gateway.historian.segments.files import by_day, write_again
from gateway.historian.segments.folder import LiveFile, check_file
from gateway.historian.segments.kept import KeptFrom
from gateway.historian.segments.manifest import DayFile, Manifest, ManifestError, parse_manifest
from gateway.historian.segments.names import Stem, begun_path, manifest_path
from gateway.historian.segments.seal import seal, sorted_samples, sound


def part_of(folder: Path, load_id: str, part: int) -> Manifest | None:
    """Return what is committed of a part, None if it is not.

    Raises:
        ManifestError: something is, and it is damaged.
    """
    stem = Stem(load_id, part, part, "load")
    try:
        text = manifest_path(folder, stem).read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ManifestError(stem.manifest_name, "not UTF-8: overwritten") from None
    return parse_manifest(stem, text)


def harmed(folder: Path, manifest: Manifest) -> list[DayFile]:
    """Return the files of a part that are not what was written; not those that retention removed.

    Raises:
        OSError: the disk does not say.
    """
    kept, found = KeptFrom.read(folder), []
    for file in manifest.files:
        if not kept.covers(manifest.stem, file.leaves):
            try:
                sound_file = check_file(folder, LiveFile(manifest.stem, manifest.sealed_ms, file)) is None
            except FileNotFoundError:
                sound_file = False
            if not sound_file:
                found.append(file)
    return found


def _mend(db: duckdb.DuckDBPyConnection, folder: Path, manifest: Manifest, samples: Samples) -> None:
    wanted = harmed(folder, manifest)
    if not wanted:
        return
    days = dict(by_day(sorted_samples(sound(samples))))
    for file in wanted:
        if file.day not in days or not write_again(db, folder, manifest.stem, file, days[file.day]):
            raise ManifestError(manifest.stem.manifest_name, f"what is there now of {file.day} is not what was loaded")


def write_part(
    db: duckdb.DuckDBPyConnection, folder: Path, load_id: str, part: int, samples: Samples, now_ms: int
) -> Manifest:
    """Commit a part of a load; of one that is committed already only files that are damaged or gone are made anew.

    Safe beside a running owner, which leaves a load that was begun alone for a day. Parts are written in order, by one
    process at a time.

    Args:
        db: of `files.connect`. load_id: [a-z0-9]{1,32}. samples: in any order; bounded by the caller (some millions).
        now_ms: retention counts stamps far in the past from here.

    Raises:
        ValueError: the id or the part cannot be a name. ManifestError: this part or the one before is damaged, or what is to
            be made anew would not be what it was.
        OSError, duckdb.Error: the disk would not; do it again.
    """
    found = part_of(folder, load_id, part)
    if found is not None:
        _mend(db, folder, found, samples)
        return found
    before = part_of(folder, load_id, part - 1) if part > 0 else None
    stem = Stem(load_id, part, part, "load")
    begun = begun_path(folder, stem)  # without it, files that no manifest names have lost theirs, and that is told
    make_folder(begun.parent)
    write_durably(begun, "")
    done = seal(db, folder, stem, before.hash if before is not None else "", sorted_samples(sound(samples)), now_ms)
    remove(begun)
    return done
