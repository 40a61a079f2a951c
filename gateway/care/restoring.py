"""Puts a backup back, so that at every moment the data folder is the old one, the new one, or says that it is neither.

Everything is gathered in `<data>/.restoring/new` first, checked, and given its new ledger id there. Then whole rooms
(`core`, `serve`, `historian`) are renamed into their places, the old ones into `<data>/before-restore-…`. From the first
change to the last `restore.json` stands in `.restoring`: core and serve refuse to start, and the same command goes on
where it was ended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.care.disk import Disk, open_plain, size_told
from gateway.care.errors import CareError, DamagedBackupError, NewerDataError, TargetError
from gateway.care.ledger_check import LedgerDamagedError, facts_of
from gateway.care.listing import LEDGER_PATH, Filed, Listing
from gateway.care.locks import CARE_LOCK_NAME, cared_for, nothing_runs
from gateway.care.source import Source, opened, problems_of
from gateway.care.versions import current
from gateway.core.ledger import Ledger
from gateway.core.migrations import upgrade_ledger
from gateway.unfinished import RESTORE_NOTE, RESTORING

ROOMS: Final = ("core", "serve", "historian")
ASIDE_PREFIX: Final = "before-restore-"
FORMAT: Final = 1
ROOM_BYTES: Final = 64 * 1024 * 1024
GATHERING: Final = "gathering"  # the old data is untouched: another backup may be taken instead
READY: Final = "ready"  # the new one is whole: only renames are left

Told = Callable[[str, int], None]
_NAMES: Final = {
    "ledger": ("the ledger's schema", "账本架构"), "snapshot": ("snapshots", "快照"),
    "state": ("the state in snapshots", "快照中的状态"), "manifest": ("the historian's manifests", "历史库清单"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done.

    Attributes:
        aside: where the data that was there before lies now; None if there was none.
        upgraded: what was brought from an older version to this program's.
    """

    data: Path
    listing: Listing
    old_id: str
    new_id: str
    aside: Path | None
    upgraded: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class _Note:
    """`restore.json`."""

    backup: str  # hash of the listing's text
    phase: str
    aside: str
    rooms: tuple[str, ...]
    old_id: str = ""
    new_id: str = ""
    upgraded: tuple[str, ...] = ()

    def text(self) -> bytes:
        told = {name: getattr(self, name) for name in ("backup", "phase", "aside", "rooms", "old_id", "new_id", "upgraded")}
        return json.dumps({"format": FORMAT, **told}, sort_keys=True).encode()


def restore(
    place: Path, data: Path, *, wall_ms: Callable[[], int], replace: bool = False, keep_historian: bool = False,
    disk: Disk | None = None, new_id: Callable[[], str] = lambda: uuid.uuid4().hex, told: Told = lambda _part, _bytes: None,
) -> Restored:  # fmt: skip
    """Put the backup at `place` into `data`, or finish doing so.

    Args:
        replace: what is there is moved aside, not removed. keep_historian: the segments that are there stay: they hold
            all that those of the backup do, and what the restored ledger has lost.

    Raises:
        CareError: it cannot be done. Before the first rename nothing of the old data has changed.
        OSError: a disk refused; run the command again.
    """
    began = time.monotonic()
    disk, fresh = disk or Disk(), not data.exists()
    with ExitStack() as held:
        if fresh:
            held.callback(_leave_nothing, data)
        source = held.enter_context(opened(place))
        disk.make_folder(data)
        held.enter_context(cared_for(data, alone=True))
        held.enter_context(nothing_runs(data))
        work = _Restore(source, data, disk, wall_ms, told)
        note = work.begin(ROOMS[:2] if keep_historian else ROOMS, replace=replace)
        if note.phase == GATHERING:
            work.gather(note, new_id)
        aside = work.swap(note)
        return Restored(
            data, source.listing, note.old_id, note.new_id, aside, note.upgraded, time.monotonic() - began
        )


class _Restore:
    """One restore in the making."""

    def __init__(self, source: Source, data: Path, disk: Disk, wall_ms: Callable[[], int], told: Told) -> None:
        self._source, self._data, self._disk, self._wall_ms, self._told = source, data, disk, wall_ms, told
        self._folder = data / RESTORING
        self._new = self._folder / "new"
        self._path = self._folder / RESTORE_NOTE

    def begin(self, rooms: tuple[str, ...], *, replace: bool) -> _Note:
        """Check what can be checked without a change; go on with what an earlier run noted, or note the beginning."""
        name = _name_of(self._source.listing)
        note = self._noted()
        if note is not None and note.phase == READY:
            if note.backup != name:
                raise TargetError(
                    f"{self._data}: a restore from another backup was ended just before its last step; finish it first, "
                    f"with the same --from",
                    f"{self._data}：另一个备份的恢复在最后一步前中断；请先用当时的 --from 将其完成",
                )
            return note
        if note is not None and note.backup == name and note.rooms == rooms:
            self._check()
            return note
        if not replace and any(_holds_something(self._data / room) for room in ROOMS):
            raise TargetError(
                f"{self._data}: holds data already; give --replace to move it aside (it is kept), or name an empty folder",
                f"{self._data}：其中已有数据；请给出 --replace 将其移到一旁（会保留），或指定空目录",
            )
        if not replace and rooms != ROOMS:
            raise TargetError(
                f"{self._data}: --keep-historian is for a folder that has one; give --replace too",
                f"{self._data}：--keep-historian 用于已有历史库的目录；请同时给出 --replace",
            )
        self._check()
        if note is not None:  # of another backup, and nothing but copies was made
            self._disk.remove(self._path)
        self._disk.remove_folder(self._new)
        note = _Note(name, GATHERING, self._free_name(), rooms)
        self._disk.make_folder(self._folder)
        self._disk.write(self._path, note.text())
        return note

    def _free_name(self) -> str:
        """Return a name under which nothing was moved aside before."""
        stamp = self._wall_ms()
        while (self._data / f"{ASIDE_PREFIX}{stamp}").exists():
            stamp += 1
        return f"{ASIDE_PREFIX}{stamp}"

    def _check(self) -> None:
        """Refuse a backup that is damaged, or newer than this program.

        Raises:
            NewerDataError, DamagedBackupError: it is.
        """
        listing, known = self._source.listing, current()
        for part, found in {**listing.versions, "ledger": listing.ledger.schema}.items():
            if found > known.get(part, 0):
                raise NewerDataError(self._source.place, *_NAMES.get(part, (part, part)), found, known.get(part, 0))
        problems = problems_of(self._source, self._disk)
        if problems:
            raise DamagedBackupError(self._source.place, problems)

    def _noted(self) -> _Note | None:
        try:
            with open_plain(self._path) as file:
                told: Any = json.loads(file.read(1_000_000))
            return _Note(
                str(told["backup"]), str(told["phase"]), _aside_name(told["aside"]),
                tuple(room for room in ROOMS if room in told["rooms"]), str(told["old_id"]), str(told["new_id"]),
                tuple(map(str, told["upgraded"])),
            )  # fmt: skip
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CareError(
                f"{self._path}: cannot be read ({error}); if {self._data} is as it was before, remove the folder {self._folder}",
                f"{self._path}：无法读取（{error}）；若 {self._data} 仍是原样，请删除目录 {self._folder}",
            ) from None

    # -- gathering --

    def gather(self, note: _Note, new_id: Callable[[], str]) -> None:
        """Lay the new data beside the old, whole and under its new ledger id."""
        files = [one for one in self._source.listing.files if one.path.split("/")[0] in note.rooms]
        try:
            self._check_room(files)
        except TargetError:
            if not self._new.exists():  # nothing was begun: core and serve may start as before
                self._disk.remove(self._path)
                self._disk.remove_folder(self._folder)
            raise
        for room in note.rooms:
            self._disk.make_folder(self._new / room)
        for one in files:
            self._lay(one)
            self._told(one.path, one.bytes)
        note.upgraded = tuple(self._upgrade())
        note.old_id, note.new_id = self._renew(new_id())
        note.phase = READY
        self._disk.write(self._path, note.text())

    def _check_room(self, files: list[Filed]) -> None:
        needed = sum(one.bytes for one in files if self._source.file(one.path) is None or not _unchanging(one.path))
        needed -= sum(path.stat().st_size for path in self._new.rglob("*") if path.is_file())
        free = shutil.disk_usage(self._data).free
        if free < needed + ROOM_BYTES:
            raise TargetError(
                f"{self._data}: {size_told(free)} are free and {size_told(needed + ROOM_BYTES)} are needed; make room first",
                f"{self._data}：可用空间 {size_told(free)}，需要 {size_told(needed + ROOM_BYTES)}；请先腾出空间",
            )

    def _lay(self, one: Filed) -> None:
        """Lay one file; one that an earlier run has laid is kept if it is what was written."""
        target = self._new / one.path
        if _unchanging(one.path) and _is_whole(target, one, self._disk):
            return
        self._disk.make_folder(target.parent)
        for left in target.parent.glob(f"{target.name}-*"):  # of a ledger that an earlier run had opened
            self._disk.remove(left)
        own = self._source.file(one.path)
        if _unchanging(one.path) and own is not None and self._disk.link(own, target):
            return
        with self._source.open(one.path) as file:
            if self._disk.copy(file, target) != (one.bytes, one.sha256):
                raise DamagedBackupError(self._source.place, [f"{one.path}: changed while it was read"])

    def _upgrade(self) -> list[str]:
        """Bring a ledger of an older schema to this program's."""
        self._disk.step("upgrade the restored ledger")
        return upgrade_ledger(self._new / LEDGER_PATH)

    def _renew(self, new_id: str) -> tuple[str, str]:
        """Give the restored ledger a new id: the lost part of the old one may have used the numbers that follow."""
        path, facts = self._new / LEDGER_PATH, self._source.listing.ledger
        try:
            found, _ = facts_of(path)
        except LedgerDamagedError as error:
            raise DamagedBackupError(self._source.place, [f"{LEDGER_PATH}: {error}"]) from None
        if (found.id, found.site, found.pos, found.journal_hash) != (facts.id, facts.site, facts.pos, facts.journal_hash):
            raise DamagedBackupError(self._source.place, [f"{LEDGER_PATH}: it is not the ledger that the listing describes"])
        self._disk.step("renew the ledger's id")
        ledger = Ledger(path, facts.site)
        try:
            old = ledger.renew_id(new_id) if ledger.ledger_id else ""
        finally:
            ledger.close()
        self._disk.step("the ledger's id is renewed")
        return old, new_id if old else ""

    # -- the renames --

    def swap(self, note: _Note) -> Path | None:
        """Rename the old rooms aside and the new ones into their places; each rename may be the last before a kill."""
        aside = self._data / note.aside
        for room in note.rooms:
            ours, place = self._new / room, self._data / room
            if not ours.exists():
                continue  # in its place already
            if place.exists() and (_holds_something(place) or place.is_symlink()):
                self._disk.make_folder(aside)
                self._disk.rename(place, aside / room)
            elif place.exists():
                self._disk.remove_folder(place)
            self._disk.rename(ours, place)
        self._disk.remove(self._path)
        self._disk.remove_folder(self._folder)
        return aside if aside.exists() else None


def _leave_nothing(data: Path) -> None:
    """Remove a folder that this run made and then put nothing into: what was refused leaves no trace."""
    try:
        left = {path.name for path in data.iterdir()}
    except OSError:
        return
    if left <= {CARE_LOCK_NAME}:
        shutil.rmtree(data, ignore_errors=True)


def _holds_something(folder: Path) -> bool:
    """Whether there is more in a room than the locks that any command leaves."""
    return folder.is_dir() and any(not path.name.endswith(".lock") for path in folder.iterdir())


def _unchanging(path: str) -> bool:
    """Whether nobody ever writes this file again: then the backup and the data folder may share it."""
    return path.startswith(("historian/samples/", "historian/rollups/", "historian/manifests/"))


def _is_whole(path: Path, one: Filed, disk: Disk) -> bool:
    try:
        with open_plain(path) as file:
            return disk.hash_of(file) == (one.bytes, one.sha256)
    except OSError:
        return False


def _aside_name(told: Any) -> str:
    if not isinstance(told, str) or not told.removeprefix(ASIDE_PREFIX).isdecimal() or not told.startswith(ASIDE_PREFIX):
        raise ValueError("a folder that is none of ours")
    return told


def _name_of(listing: Listing) -> str:
    return hashlib.sha256(listing.text().encode()).hexdigest()


def verify(place: Path, disk: Disk | None = None) -> tuple[Listing, list[str]]:
    """Read a whole backup; returns its listing and what is wrong with it.

    Raises:
        CareError: it is no finished backup of ours.
    """
    disk = disk or Disk()
    with opened(place) as source:
        problems = problems_of(source, disk)
        ledger = source.file(LEDGER_PATH)
        if ledger is not None and not any(problem.startswith(LEDGER_PATH) for problem in problems):
            problems += _ledger_problems(source.listing, ledger)
        return source.listing, problems


def _ledger_problems(listing: Listing, path: Path) -> list[str]:
    try:
        found, broken = facts_of(path)
    except LedgerDamagedError as error:
        return [f"{LEDGER_PATH}: {error}"]
    if found != listing.ledger:
        return [f"{LEDGER_PATH}: it is not the ledger that the listing describes"]
    told = f"{LEDGER_PATH}: {broken}"
    return [told] if broken and told not in listing.damaged else []
