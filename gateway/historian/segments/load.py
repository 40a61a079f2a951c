"""Imported or copied history: parts of a load, each committed as a seal is, known by name, so that a load can go on."""

from __future__ import annotations

from pathlib import Path

import duckdb

from gateway.historian.samples import Samples
from gateway.historian.segments.manifest import Manifest, ManifestError, parse_manifest
from gateway.historian.segments.names import Stem, manifest_path
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


def write_part(
    db: duckdb.DuckDBPyConnection, folder: Path, load_id: str, part: int, samples: Samples, now_ms: int
) -> Manifest:
    """Commit a part of a load; one that is committed already is left as it is, whatever `samples` are.

    Safe beside a running owner, which leaves the files of a load alone for a day. Parts are written in order, by one
    process at a time.

    Args:
        db: of `files.connect`. load_id: [a-z0-9]{1,32}. samples: in any order; bounded by the caller (some millions).
        now_ms: retention counts stamps far in the past from here.

    Raises:
        ValueError: the id or the part cannot be a name. ManifestError: this part or the one before is damaged.
        OSError, duckdb.Error: the disk would not; do it again.
    """
    found = part_of(folder, load_id, part)
    if found is not None:
        return found
    before = part_of(folder, load_id, part - 1) if part > 0 else None
    stem = Stem(load_id, part, part, "load")
    return seal(db, folder, stem, before.hash if before is not None else "", sorted_samples(sound(samples)), now_ms)
