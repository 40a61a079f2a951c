"""Makes a backup beside a running core and serve.

Order matters. The segments go first (they are many and never change), then the ledger, then the segments again: what
left the ledger while it was copied was sealed before, so it is in the second set. Segments beyond the ledger's position
stay: a restored ledger goes on where it ended, and they hold what it lost.
Secrets are not part of it: they are not in the data folder, and files that a site file names as secret are left out.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import apsw

from gateway.care.disk import Disk, open_plain, size_told
from gateway.care.errors import CareError, NotABackupError, NothingToBackUpError, SourceChangedError, TargetError
from gateway.care.ledger_check import LedgerDamagedError, facts_of
from gateway.care.ledger_copy import LedgerCopy
from gateway.care.listing import LEDGER_PATH, LISTING_NAME, LedgerFacts, Listing, is_path_of_ours
from gateway.care.locks import cared_for
from gateway.care.part import PartFolder, check_target
from gateway.care.source import PART_NAME, FolderSource
from gateway.care.versions import current, parts_of, refuse_newer
from gateway.core.reader import LedgerReader
from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.names import EVIDENCE, KEPT_FROM_NAME, MANIFESTS, ROLLUPS, SAMPLES
from gateway.historian.segments.quarantine import QUARANTINE

ROOM_BYTES: Final = 1 << 30  # left free on core's own disk
ROOM_BYTES_MIN: Final = 64 * 1024 * 1024
TRIES: Final = 10
SIBLINGS_MAX: Final = 100
SITE_FILE_BYTES_MAX: Final = 4 * 1024 * 1024
SITE_FILES_MAX: Final = 100
FEEDS: Final = "historian/feeds"
OWN_ROOMS: Final = ("core", "serve", "historian")
_NAMED_SECRET = re.compile(
    r"^\s*-?\s*(?:[a-z_]*(?:secret|password|key)[a-z_]*|token)_file:\s*['\"]?([^'\"#\n]+)", re.MULTILINE
)

Told = Callable[[str, int], None]
"""Told which part is at work and how many bytes more of it are done."""


@dataclass(slots=True)
class Report:
    """What was done.

    Attributes:
        linked: files that share the disk's blocks with the data folder. reused: with an earlier backup beside this one.
        kept: were there already from a run that was ended. left_out: of the site's folder, because they are secret.
    """

    place: Path
    listing: Listing | None = None
    copied: int = 0
    linked: int = 0
    reused: int = 0
    kept: int = 0
    copied_bytes: int = 0
    longest_read_s: float = 0.0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)


def backup(
    data: Path, to: Path, *, program: str, wall_ms: Callable[[], int], site: Path | None = None, disk: Disk | None = None,
    told: Told = lambda _part, _bytes: None, locked: bool = False, room_bytes: int | None = None, copies: bool = False,
) -> Report:  # fmt: skip
    """Make a backup of `data` in the folder `to`, or go on with an unfinished one there.

    Args:
        program: version of this program. locked: the caller holds the data folder's lock already.
        copies: nothing is shared with the data folder or another backup: what spoils a file in its place spoils one only.

    Raises:
        CareError: it cannot be made; the message says why.
        OSError: a disk refused.
    """
    began = time.monotonic()
    disk = disk or Disk()
    if not data.is_dir():
        raise CareError(
            f"{data}: there is no such folder; name core's data folder with --data",
            f"{data}：没有这个目录；请用 --data 指定核心的数据目录",
        )
    _outside(data, to, within=locked)
    check_target(to)
    if (to / LISTING_NAME).exists():  # ended between its last two steps
        disk.remove(to / PART_NAME)
        return Report(to, FolderSource(to).listing)
    fresh = not to.exists()
    with ExitStack() as held:
        if not locked:
            held.enter_context(cared_for(data, alone=False))
        parts = parts_of(data)
        refuse_newer(parts)
        work = held.enter_context(_Backup(data, to, disk, wall_ms(), told, copies=copies))
        try:
            work.check_room(room_bytes)
        except TargetError:
            if fresh:  # nothing is in it that a next run could use
                disk.remove_folder(to)
            raise
        work.site(site)
        work.serve()
        work.segments()
        facts = work.ledger()
        work.segments()
        work.tidy()
        found = {_VERSION_OF[part.name]: part.found for part in parts if part.name in _VERSION_OF and part.found}
        listing = Listing(
            program, work.part.started_ms, wall_ms(), {**current(), **found}, facts, work.part.done, tuple(sorted(work.damaged))
        )
        work.part.finish(listing.text())
        work.report.listing = listing
        work.report.seconds = time.monotonic() - began
        return work.report


_VERSION_OF: Final = {"ledger": "ledger", "snapshots": "snapshot", "state": "state", "manifests": "manifest"}


class _Backup:
    """One backup in the making."""

    def __init__(self, data: Path, to: Path, disk: Disk, now_ms: int, told: Told, *, copies: bool = False) -> None:
        self._data, self._disk, self._told, self._copies = data, disk, told, copies
        self.report = Report(to)
        self.damaged: set[str] = set()
        self._aside = to / (LEDGER_PATH + ".part")
        self._to = to
        self._snapshots: list[tuple[str, BinaryIO]] = []
        self._copy: LedgerCopy | None = None
        self.part = PartFolder(to, disk, _ledger_id(data / LEDGER_PATH), now_ms)
        self._before = _newest_sibling(to)

    def __enter__(self) -> _Backup:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_snapshots()
        if self._copy is not None:
            self._copy.close()

    # -- room --

    def check_room(self, room_bytes: int | None) -> None:
        """Refuse to fill a disk, core's own above all: of that so many bytes are left free, by default as many as fit the data.

        Raises:
            TargetError: there is too little room.
        """
        same_disk = self._data.stat().st_dev == self._to.stat().st_dev
        needed = (self._data / LEDGER_PATH).stat().st_size
        if not same_disk or self._copies:
            taken = SegmentFolder(self._data / "historian").snapshot()
            needed += sum(live.file.bytes + live.file.rollup_bytes for live in taken.files())
        needed -= sum(path.stat().st_size for path in self._to.rglob("*") if path.is_file())
        # A small backup takes nothing from core that matters: then ten times its size is enough to leave.
        fitting = min(ROOM_BYTES, max(ROOM_BYTES_MIN, 10 * needed)) if room_bytes is None else room_bytes
        left = fitting if same_disk else 0
        free = shutil.disk_usage(self._to).free
        if free < needed + left:
            told, told_left = size_told(needed), size_told(left)
            raise TargetError(
                f"{self._to}: {size_told(free)} are free; {told} are needed, and {told_left} are left to core; name a folder on "
                f"another disk",
                f"{self._to}：可用空间 {size_told(free)}；需要 {told}，另为核心保留 {told_left}；请指定另一块磁盘上的目录",
            )

    # -- small files --

    def site(self, site: Path | None) -> None:
        """Take the site's YAML files; what they name as secret is left out."""
        if site is None:
            return
        paths = sorted(path for path in site.iterdir() if path.suffix in (".yaml", ".yml")) if site.is_dir() else [site]
        texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in paths[:SITE_FILES_MAX]
                 if path.is_file() and not path.is_symlink() and path.stat().st_size <= SITE_FILE_BYTES_MAX}  # fmt: skip
        secret = {Path(found.strip()).name for text in texts.values() for found in _NAMED_SECRET.findall(text)}
        for path in paths:
            name = f"site/{path.name}"
            if path not in texts or path.name in secret or not is_path_of_ours(name):
                self.report.left_out.append(path.name)
            else:
                self._copy_anew(path, name)

    def serve(self) -> None:
        """Take serve's tokens (hashes of them), its audit, and how far it has fed other stores."""
        folder = self._data / "serve"
        for path in [*sorted(folder.glob("audit*.jsonl")), folder / "tokens.json", *sorted(self._data.glob(f"{FEEDS}/*.json*"))]:
            name = path.relative_to(self._data).as_posix()
            if is_path_of_ours(name) and path.is_file():
                with suppress(FileNotFoundError):  # turned over meanwhile: its lines are in the next one
                    self._copy_anew(path, name)

    def _copy_anew(self, source: Path, name: str) -> None:
        with open_plain(source) as file:
            size, sha256 = self._disk.copy(file, self.part.path(name))
        self._took("copied", size)
        self.part.note(name, size, sha256)

    # -- the ledger --

    def ledger(self) -> LedgerFacts:
        """Copy the ledger and the snapshots that fit to it; returns what the copy holds."""
        kept = self.part.kept(LEDGER_PATH)
        if kept is not None:
            self._took("kept", 0)
            for path in sorted(self._to.glob("core/snapshot-*.bin")):
                self.part.kept(f"core/{path.name}")
        else:
            self._copy_ledger()
        try:
            facts, broken = facts_of(self._to / LEDGER_PATH)
        except LedgerDamagedError as error:
            self.part.drop(LEDGER_PATH)
            raise SourceChangedError(
                self._to / LEDGER_PATH, f"the copy failed its check ({error})", f"副本未通过检查（{error}）"
            ) from None
        if broken:
            self.damaged.add(f"{LEDGER_PATH}: {broken}")
        return facts

    def _copy_ledger(self) -> None:
        self.part.path(LEDGER_PATH)
        for path in self._to.glob("core/snapshot-*"):  # of a run that was ended: they fit to another moment
            self.part.drop(f"core/{path.name}")
        self._copy = copy = LedgerCopy(
            self._data / LEDGER_PATH, self._aside, self._disk.pace, self._disk.step, lambda size: self._told("ledger", size)
        )
        copied = copy.run(self._open_snapshots, self._same_snapshots)
        self.report.longest_read_s = copied.longest_read_s
        for name, file in self._snapshots:
            size, sha256 = self._disk.copy(file, self.part.path(f"core/{name}"))
            self._took("copied", size)
            self.part.note(f"core/{name}", size, sha256)
        self._close_snapshots()
        copy.finish()
        copy.close()
        self._copy = None
        self._disk.rename(self._aside, self._to / LEDGER_PATH)
        with open_plain(self._to / LEDGER_PATH) as file:
            size, sha256 = self._disk.hash_of(file)
        self._took("copied", size)
        self.part.note(LEDGER_PATH, size, sha256)

    def _open_snapshots(self) -> None:
        """Hold the present snapshots open; one that is there now is of a position that is committed now."""
        names = self._snapshot_names()
        if names == [name for name, _ in self._snapshots]:
            return
        self._close_snapshots()
        for name in names:
            with suppress(FileNotFoundError):
                self._snapshots.append((name, open_plain(self._data / "core" / name)))

    def _same_snapshots(self) -> bool:
        """No snapshot came in between: so nothing that replay from these needs has left the ledger."""
        return self._snapshot_names() == [name for name, _ in self._snapshots]

    def _snapshot_names(self) -> list[str]:
        names = (path.name for path in (self._data / "core").iterdir())
        return sorted(name for name in names if name.endswith(".bin") and is_path_of_ours(f"core/{name}"))

    def _close_snapshots(self) -> None:
        for _, file in self._snapshots:
            file.close()
        self._snapshots = []

    # -- the historian --

    def segments(self) -> None:
        """Take the segments as they are named at one moment; a second call takes what came since and drops what went."""
        folder = self._data / "historian"
        if not folder.is_dir():
            return
        gone: set[str] = set()
        for _ in range(TRIES):
            wanted = dict(self._wanted(folder))
            try:
                for path, expected in wanted.items():
                    if path not in gone:
                        self._take(path, expected)
            except FileNotFoundError as error:
                missing = Path(str(error.filename)).relative_to(self._data).as_posix()
                if missing in dict(self._wanted(folder)):  # still named: it is not packed, it is lost
                    gone.add(missing)
                continue
            break
        else:
            raise SourceChangedError(folder, "its files come and go faster than they can be taken", "历史库文件变化太快")
        self.damaged = {one for one in self.damaged if one.split(":")[0] in wanted}
        self.damaged |= {f"{path}: missing" for path in gone if path in wanted}
        for path in [one.path for one in self.part.done if _is_segment(one.path) and one.path not in wanted]:
            self.part.drop(path)

    def _wanted(self, folder: Path) -> Iterator[tuple[str, tuple[int, str] | None]]:
        """Yield every file that the manifests of this moment name, with its size and checksum where they say so."""
        taken = SegmentFolder(folder).snapshot()
        if (folder / KEPT_FROM_NAME).is_file():
            yield f"historian/{KEPT_FROM_NAME}", None
        for live in taken.files():
            file = live.file
            yield f"historian/{SAMPLES}/{file.day}/{live.stem.data_name}", (file.bytes, file.sha256)
            yield f"historian/{ROLLUPS}/{file.day}/{live.stem.data_name}", (file.rollup_bytes, file.rollup_sha256)
        for stem, why in taken.unreadable:
            self.damaged.add(f"historian/{MANIFESTS}/{stem.manifest_name}: {why}")
            for path in sorted(folder.glob(f"*/*/{stem.data_name}")):
                yield f"historian/{path.relative_to(folder).as_posix()}", None
        for path in sorted([*folder.glob(f"{EVIDENCE}/*"), *folder.glob(f"{QUARANTINE}/*")]):
            name = f"historian/{path.parent.name}/{path.name}"
            if is_path_of_ours(name):
                yield name, None
        for stem in [manifest.stem for manifest in taken.manifests] + [stem for stem, _ in taken.unreadable]:
            yield f"historian/{MANIFESTS}/{stem.manifest_name}", None

    def _take(self, path: str, expected: tuple[int, str] | None) -> None:
        """Take one file: keep it, link it, or copy it. What a manifest names never changes under its name."""
        changes = expected is None and not path.startswith(f"historian/{MANIFESTS}/")
        if self.part.has(path) and not changes:
            return
        source = self._data / path
        if expected is not None:
            kept = self.part.kept(path)
            if kept is not None and (kept.bytes, kept.sha256) == expected:
                self._took("kept", kept.bytes)
                return
            if not self._copies and self._reuse(path, expected):
                return
        with open_plain(source) as file:
            # The second name is made first, then read: what is read is what the backup has, whatever happens to the source.
            if not changes and not self._copies and self._disk.link(source, self.part.path(path)):
                self._disk.step(f"read {path}")
                size, sha256 = self._disk.hash_of(file)
                self._took("linked", size)
            else:
                size, sha256 = self._disk.copy(file, self.part.path(path))
                self._took("copied", size)
        if expected is not None and (size, sha256) != expected:
            self.damaged.add(f"{path}: not what its manifest says")
        self.part.note(path, size, sha256)

    def _reuse(self, path: str, expected: tuple[int, str]) -> bool:
        """Link a file of the backup before this one, which has been read and checked then."""
        known = self._before and self._before.listing.by_path.get(path)
        if not known or not self._before or (known.bytes, known.sha256) != expected:
            return False
        try:
            found = self._before.file(path)
            if found is None or not found.is_file() or found.stat().st_size != known.bytes:
                return False
            if not self._disk.link(found, self.part.path(path)):
                return False
        except OSError:
            return False
        self._took("reused", known.bytes)
        self.part.note(path, known.bytes, known.sha256)
        return True

    # -- the end --

    def tidy(self) -> None:
        """Remove what a run that was ended has left and this one did not take."""
        for path in self.part.strangers({one.path for one in self.part.done}):
            self._disk.remove(self._to / path)

    def _took(self, how: str, size: int) -> None:
        setattr(self.report, how, getattr(self.report, how) + 1)
        if how == "copied":
            self.report.copied_bytes += size
        self._told("files", size)


def _ledger_id(path: Path) -> str:
    if not path.is_file():
        raise NothingToBackUpError(path.parent.parent)
    reader = LedgerReader.open(path)
    try:
        return reader.meta("ledger_id")
    except apsw.SQLError:  # empty, or another program's: the copy says so
        return ""
    finally:
        reader.close()


def _is_segment(path: str) -> bool:
    return path.startswith("historian/") and not path.startswith(FEEDS)


def _outside(data: Path, to: Path, *, within: bool) -> None:
    """Refuse a target in the data folder; `within`: only among the files that are backed up.

    Raises:
        TargetError: it lies there.
    """
    resolved, own = to.resolve(), data.resolve()
    rooms = [own / room for room in OWN_ROOMS] if within else [own]
    if resolved == own or any(resolved.is_relative_to(room) for room in rooms):
        raise TargetError(
            f"{to}: lies in the data folder that is backed up, and is lost with it; name a folder elsewhere, best on another disk",
            f"{to}：位于被备份的数据目录之中，会随之一起丢失；请指定别处的目录，最好在另一块磁盘上",
        )


def _newest_sibling(to: Path) -> FolderSource | None:
    """Return the newest finished backup beside this one."""
    found: list[FolderSource] = []
    try:
        folders = sorted(path for path in to.parent.iterdir() if path.is_dir() and not path.is_symlink() and path != to)
    except OSError:
        return None
    for folder in folders[-SIBLINGS_MAX:]:
        if (folder / LISTING_NAME).is_file():
            with suppress(NotABackupError, CareError, OSError):
                found.append(FolderSource(folder))
    return max(found, key=lambda one: one.listing.made_ms, default=None)
