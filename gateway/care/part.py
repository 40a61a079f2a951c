"""A backup folder while it is being filled: which files of it are whole is noted line by line.

The notes say what may be kept when the backup is taken up again; they are believed only where the file still has the
noted size and checksum. A torn last line is a file that is done once more.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.care.disk import Disk, open_plain
from gateway.care.errors import TargetError
from gateway.care.listing import LISTING_NAME, Filed, is_path_of_ours
from gateway.care.source import PART_NAME


class PartFolder:
    """The folder, and what is noted of it."""

    def __init__(self, place: Path, disk: Disk, ledger_id: str, now_ms: int) -> None:
        """Make the folder, or go on with an unfinished one of the same ledger.

        Raises:
            TargetError: it holds something else.
        """
        self.place, self._disk, self._notes = place, disk, place / PART_NAME
        check_target(place)
        self.started_ms = now_ms
        self._known: dict[str, Filed] = {}
        self._done: dict[str, Filed] = {}
        head, self._known = self._read()
        if head is None:
            disk.make_folder(place)
            disk.write(self._notes, (json.dumps({"ledger": ledger_id, "started_ms": now_ms}) + "\n").encode())
        elif head["ledger"] != ledger_id:
            raise TargetError(
                f"{place}: holds an unfinished backup of another ledger; name another folder, or remove it",
                f"{place}：其中有另一个账本的未完成备份；请换一个目录，或将其删除",
            )
        else:
            self.started_ms = int(head["started_ms"])

    @property
    def done(self) -> tuple[Filed, ...]:
        """Every file that is whole, by path."""
        return tuple(self._done[path] for path in sorted(self._done))

    def path(self, path: str) -> Path:
        """Where a file goes; its folder is made."""
        assert is_path_of_ours(path), path
        target = self.place / path
        self._disk.make_folder(target.parent)
        return target

    def has(self, path: str) -> bool:
        """Whether a file is whole since this run began."""
        return path in self._done

    def kept(self, path: str) -> Filed | None:
        """Return what an earlier run noted of a file, if it is still so; it counts as done then."""
        noted = self._known.pop(path, None)
        if noted is None:
            return None
        try:
            with open_plain(self.place / path) as file:
                same = os.fstat(file.fileno()).st_size == noted.bytes and self._disk.hash_of(file) == (noted.bytes, noted.sha256)
        except OSError:
            return None
        if not same:
            return None
        self._done[path] = noted
        return noted

    def note(self, path: str, size: int, sha256: str) -> None:
        """A file is whole and synced."""
        self._disk.step(f"note {path}")
        one = Filed(path, size, sha256)
        with self._notes.open("ab") as file:
            file.write((json.dumps(asdict(one)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self._done[path] = one

    def drop(self, path: str) -> None:
        """A file does not belong to the backup any more."""
        self._done.pop(path, None)
        self._known.pop(path, None)
        self._disk.remove(self.place / path)

    def finish(self, text: str) -> None:
        """Write the listing: from its rename on, this is a backup."""
        self._disk.write(self.place / LISTING_NAME, text.encode())
        self._disk.remove(self._notes)

    def strangers(self, wanted: set[str]) -> list[str]:
        """Return the files in the folder that are not wanted: left by a run that was ended, or since packed away."""
        found = [path.relative_to(self.place).as_posix() for path in sorted(self.place.rglob("*")) if not path.is_dir()]
        return [path for path in found if path not in wanted and path not in (PART_NAME, LISTING_NAME)]

    def _read(self) -> tuple[dict[str, Any] | None, dict[str, Filed]]:
        try:
            lines = self._notes.read_text(encoding="utf-8").split("\n")
            head = json.loads(lines[0])
            if not isinstance(head["ledger"], str) or type(head["started_ms"]) is not int:
                return None, {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None, {}
        known = {}
        for line in lines[1:-1]:
            try:
                one = Filed(**json.loads(line))
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(one.path, str) and is_path_of_ours(one.path):
                known[one.path] = one
        if lines[-1]:  # the next note must not go on in a torn line
            with self._notes.open("ab") as file:
                file.write(b"\n")
        return head, known


def check_target(place: Path) -> None:
    """Refuse a place that holds something else than an unfinished backup.

    Raises:
        TargetError: it does.
    """
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise TargetError(f"{place}: is no folder; name a new folder with --to", f"{place}：不是目录；请用 --to 指定新目录")
    if (place / LISTING_NAME).exists() and not (place / PART_NAME).exists():
        raise TargetError(
            f"{place}: already holds a finished backup, and is not changed any more; name another folder, beside it for "
            f"files that did not change to be linked",
            f"{place}：其中已有完成的备份，不再改动；请换一个目录（与它并列，则未变化的文件以硬链接复用）",
        )
    if place.is_dir() and not (place / PART_NAME).exists() and any(place.iterdir()):
        left = [path.name for path in place.iterdir()]
        if left != [PART_NAME + ".tmp"]:
            raise TargetError(
                f"{place}: is not empty; name a new folder with --to", f"{place}：不是空目录；请用 --to 指定新目录"
            )
