"""A backup to read from: a folder, or a single `.tar`. Only what its listing names is ever opened, and never a link."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from gateway.care.disk import Disk, open_plain
from gateway.care.errors import NewerDataError, NotABackupError
from gateway.care.listing import FORMAT, LISTING_BYTES_MAX, LISTING_NAME, Filed, Listing, ListingError, parse_listing

PART_NAME: Final = "backup.part.jsonl"  # stands in a folder for as long as the backup in it is unfinished
PROBLEMS_MAX: Final = 100


class Source(Protocol):
    """A finished backup."""

    @property
    def place(self) -> Path:
        """Where it is, for messages."""

    @property
    def listing(self) -> Listing:
        """What it holds."""

    def open(self, path: str) -> BinaryIO:
        """Open a file of the listing.

        Raises:
            OSError: it is not there, or not a plain file.
        """

    def file(self, path: str) -> Path | None:
        """Where a file of the listing lies on its own; None inside an archive."""


class FolderSource:
    """A backup folder."""

    def __init__(self, place: Path) -> None:
        """Read the listing.

        Raises:
            NotABackupError, NewerDataError: there is none that can be used.
        """
        self.place = place
        if not (place / LISTING_NAME).exists():
            if (place / PART_NAME).exists():
                raise NotABackupError(place, "unfinished: run the same `hazardgate backup` again to finish it",
                                      "尚未完成：请再执行一次相同的 hazardgate backup")  # fmt: skip
            raise NotABackupError(place, f"it has no {LISTING_NAME}", f"没有 {LISTING_NAME}")
        try:
            with open_plain(place / LISTING_NAME) as file:
                self.listing = read_listing(place, file)
        except OSError as error:
            raise NotABackupError(place, f"{LISTING_NAME}: {error.strerror}", f"{LISTING_NAME}：{error.strerror}") from None

    def open(self, path: str) -> BinaryIO:
        """Open a file of the listing."""
        self._no_links(path)
        return open_plain(self.place / path)

    def file(self, path: str) -> Path | None:
        """Where a file of the listing lies."""
        self._no_links(path)
        return self.place / path

    def _no_links(self, path: str) -> None:
        """Refuse a path that leads through a link: what it names may be anywhere."""
        for folder in (self.place / path).parents:
            if folder == self.place:
                return
            if folder.is_symlink():
                raise OSError(0, "a link, and a backup has none", str(folder))


class TarSource:
    """A backup in one file, not compressed."""

    def __init__(self, place: Path) -> None:
        """Read the archive's table and the listing.

        Raises:
            NotABackupError, NewerDataError: there is none that can be used.
        """
        self.place = place
        self._tar: tarfile.TarFile | None = None
        try:
            self._tar = tarfile.open(place, "r:")  # noqa: SIM115 - `close` ends it
            members = self._tar.getmembers()
            names = [member.name for member in members]
            odd = [member.name for member in members if not member.isreg()]
            if odd or len(set(names)) != len(names):
                raise ListingError(f"{(odd or ['a name twice'])[0]!a}: a backup holds plain files, each once")
            self._members = dict(zip(names, members, strict=True))
            if LISTING_NAME not in self._members:
                raise ListingError(f"it has no {LISTING_NAME}")
            self.listing = read_listing(place, self._extract(LISTING_NAME))
            strangers = self._members.keys() - self.listing.by_path.keys() - {LISTING_NAME}
            if strangers:
                raise ListingError(f"{min(strangers)[:120]!a} is not in its listing")
        except (OSError, tarfile.TarError, ListingError) as error:
            self.close()
            raise NotABackupError(place, str(error)[:300], str(error)[:300]) from None

    def _extract(self, path: str) -> BinaryIO:
        assert self._tar is not None
        member = self._members.get(path)
        file = None if member is None else self._tar.extractfile(member)
        if file is None:
            raise FileNotFoundError(2, "not in the archive", path)
        return file  # type: ignore[return-value]  # a BufferedReader, read only

    def open(self, path: str) -> BinaryIO:
        """Open a file of the listing."""
        return self._extract(path)

    def file(self, path: str) -> Path | None:
        """Nothing lies on its own."""
        return None

    def close(self) -> None:
        """Close the archive."""
        if self._tar is not None:
            self._tar.close()


@contextmanager
def opened(place: Path) -> Iterator[Source]:
    """Open a backup, folder or file.

    Raises:
        NotABackupError, NewerDataError: it is none that can be used.
    """
    if place.is_dir():
        yield FolderSource(place)
    elif place.exists():
        source = TarSource(place)
        try:
            yield source
        finally:
            source.close()
    else:
        raise NotABackupError(place, "there is no such folder or file", "没有这个目录或文件")


def read_listing(place: Path, file: BinaryIO) -> Listing:
    """Read a listing; of a newer format it says so."""
    body = file.read(LISTING_BYTES_MAX + 1)
    try:
        if len(body) > LISTING_BYTES_MAX:
            raise ListingError(f"{LISTING_NAME} is larger than {LISTING_BYTES_MAX} bytes")
        text = body.decode("utf-8")
        newer = _newer(text)
        if newer is not None:
            raise NewerDataError(place, "the backup", "备份格式", newer, FORMAT)
        return parse_listing(text)
    except (ListingError, UnicodeDecodeError) as error:
        raise NotABackupError(place, str(error)[:300], str(error)[:300]) from None


def _newer(text: str) -> int | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = told.get("format") if isinstance(told, dict) else None
    return found if type(found) is int and found > FORMAT else None


def problem_of(source: Source, one: Filed, disk: Disk) -> str:
    """Return what is wrong with a file of a backup, empty if it is what was written."""
    try:
        with source.open(one.path) as file:
            size, sha256 = disk.hash_of(file)
    except OSError as error:
        return f"{one.path}: {error.strerror or error}"
    if size != one.bytes:
        return f"{one.path}: {size} bytes, {one.bytes} were written"
    return "" if sha256 == one.sha256 else f"{one.path}: its checksum differs from what was written"


def problems_of(source: Source, disk: Disk) -> list[str]:
    """Read every file of a backup; returns what is wrong, by file."""
    found = []
    for one in source.listing.files:
        problem = problem_of(source, one, disk)
        if problem:
            found.append(problem)
        if len(found) >= PROBLEMS_MAX:
            break
    return found
