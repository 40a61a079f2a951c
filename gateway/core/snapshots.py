"""Snapshots of the engine's state: checksummed files named by log position, written aside, two kept.

A snapshot only saves replay time. One that fails its checksum is put aside and the older one, or the whole log,
is used instead.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SNAPSHOTS_KEPT: Final = 2
_HEAD: Final = struct.Struct("<8sQI32s")  # magic, position, sections, digest of the rest
_MAGIC: Final = b"HGSNAP2\n"
_PREFIX: Final = "snapshot-"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after log position `pos`, as named sections of bytes."""

    pos: int
    sections: dict[str, bytes]


def write_snapshot(folder: Path, snapshot: Snapshot) -> Path:
    """Write aside, sync, rename, sync the folder; then drop all but the newest two. Returns the file."""
    body = pack_sections(snapshot.sections)
    head = _HEAD.pack(_MAGIC, snapshot.pos, len(snapshot.sections), _digest(snapshot.pos, len(snapshot.sections), body))
    path = folder / f"{_PREFIX}{snapshot.pos:020d}.bin"
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        file.write(head + body)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    _sync_folder(folder)
    for old in [*_files(folder)[SNAPSHOTS_KEPT:], *folder.glob(f"{_PREFIX}*.tmp")]:
        old.unlink()
    return path


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Return the readable snapshots, newest first; damaged ones are renamed aside."""
    found = []
    for path in _files(folder):
        snapshot = _read(path)
        if snapshot is None:
            path.rename(path.with_suffix(".damaged"))
        else:
            found.append(snapshot)
    return found


def newest_position(folder: Path) -> int:
    """Return the position of the newest snapshot by its name, 0 if there is none."""
    files = _files(folder)
    return _position(files[0]) if files else 0


def oldest_kept(folder: Path) -> int:
    """Return the position of the older of the two snapshots kept, 0 while there are not two."""
    files = _files(folder)
    return _position(files[-1]) if len(files) >= SNAPSHOTS_KEPT else 0


def set_aside_after(folder: Path, pos: int) -> list[Path]:
    """Put snapshots of positions after `pos` aside: they belong to a ledger that is no longer here."""
    moved = []
    for path in _files(folder):
        if _position(path) > pos:
            moved.append(path.rename(path.with_suffix(".superseded")))
    return moved


def _position(path: Path) -> int:
    return int(path.stem.removeprefix(_PREFIX))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_PREFIX}{'[0-9]' * 20}.bin"), reverse=True)


def _read(path: Path) -> Snapshot | None:
    raw = path.read_bytes()
    if len(raw) < _HEAD.size:
        return None
    magic, pos, count, digest = _HEAD.unpack_from(raw)
    body = raw[_HEAD.size :]
    if magic != _MAGIC or pos != _position(path) or digest != _digest(pos, count, body):
        return None
    return Snapshot(pos, unpack_sections(body, count))


def pack_sections(sections: dict[str, bytes]) -> bytes:
    """Lay named sections end to end."""
    return b"".join(
        struct.pack("<HQ", len(name.encode()), len(section)) + name.encode() + section
        for name, section in sorted(sections.items())
    )


def unpack_sections(body: bytes, count: int) -> dict[str, bytes]:
    """Inverse of `pack_sections`."""
    sections, at = {}, 0
    for _ in range(count):
        name_bytes, section_bytes = struct.unpack_from("<HQ", body, at)
        at += 10
        name = body[at : at + name_bytes].decode()
        sections[name] = body[at + name_bytes : at + name_bytes + section_bytes]
        at += name_bytes + section_bytes
    return sections


def _digest(pos: int, count: int, body: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<QI", pos, count) + body).digest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
