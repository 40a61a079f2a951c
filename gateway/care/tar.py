"""A backup as one file: a plain `.tar` of the folder, its listing first."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Final

from gateway.care.disk import ASIDE, Disk, open_plain
from gateway.care.errors import TargetError
from gateway.care.listing import LISTING_NAME, Listing
from gateway.care.source import FolderSource
from gateway.care.taking import Report, backup

PARTS: Final = ".parts"  # ends the name of the folder in which it is gathered


def backup_into_file(data: Path, place: Path, *, disk: Disk, **rest: Any) -> Report:
    """Make a backup as `backup` does (`rest` is for it), and write it into one file.

    Raises:
        CareError: it cannot be made; what has been gathered is kept for the next run.
    """
    check_tar_target(place)
    folder = place.with_name(place.name + PARTS)
    if (folder / LISTING_NAME).exists():  # ended while the file was written
        report = Report(place, FolderSource(folder).listing)
    else:
        report = backup(data, folder, disk=disk, **rest)
    assert report.listing is not None
    pack(folder, report.listing, place, disk)
    report.place = place
    # What the folder shared, or had from a run before, was copied into the file all the same.
    report.copied, report.copied_bytes = len(report.listing.files), report.listing.bytes
    report.linked = report.reused = report.kept = 0
    return report


class _Paced:
    """Reads a file no faster than the pace allows."""

    def __init__(self, file: BinaryIO, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        body = self._file.read(size)
        self._disk.pace.gave(len(body))
        return body


def check_tar_target(place: Path) -> None:
    """Refuse to write over a file.

    Raises:
        TargetError: there is one.
    """
    if place.exists() or place.is_symlink():
        raise TargetError(
            f"{place}: exists and is not overwritten; name another file", f"{place}：文件已存在，不会覆盖；请换一个文件名"
        )


def pack(folder: Path, listing: Listing, place: Path, disk: Disk) -> None:
    """Write a finished backup's folder into one file, aside and renamed, then remove the folder."""
    check_tar_target(place)
    aside = place.with_name(place.name + ASIDE)
    disk.step("write the archive")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            for path in (LISTING_NAME, *(one.path for one in listing.files)):
                with open_plain(folder / path) as file:
                    entry = tarfile.TarInfo(path)
                    entry.size, entry.mtime, entry.mode = os.fstat(file.fileno()).st_size, listing.made_ms // 1000, 0o600
                    tar.addfile(entry, _Paced(file, disk))
        out.flush()
        os.fsync(out.fileno())
    disk.rename(aside, place)
    disk.remove_folder(folder)
