"""Brings a data folder that an older program wrote to this program's versions, part by part, in order.

`upgrade.json` stands in the folder from before the first change until after the last: core and serve refuse to start
meanwhile, and the same command goes on where it was ended. Each part changes in one transaction or not at all. What has
been done stays in `upgrades.jsonl`. A part written by a newer program is refused before anything is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.care.disk import Disk, open_plain
from gateway.care.errors import CareError, NothingToBackUpError, TargetError, TooOldError
from gateway.care.listing import LEDGER_PATH, LISTING_NAME
from gateway.care.locks import cared_for, nothing_runs
from gateway.care.taking import Report, backup
from gateway.care.versions import LEDGER, Part, parts_of, refuse_newer
from gateway.core.migrations import upgrade_ledger
from gateway.unfinished import RESTORE_NOTE, RESTORING, UPGRADE_NOTE

RECORD_NAME: Final = "upgrades.jsonl"
BACKUP_PREFIX: Final = "before-upgrade-"
FORMAT: Final = 1

CONVERTERS: Final[dict[str, Callable[[Part], list[str]]]] = {LEDGER: lambda part: upgrade_ledger(part.place)}
"""What can be brought from an older version. Snapshots, manifests and the configuration have had one version so far."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was found and done.

    Attributes:
        parts: as they were found. done: what was changed, a line each.
        backup: made before the first change, and perhaps on a disk that is away by now; None if none was.
    """

    parts: tuple[Part, ...]
    done: tuple[str, ...]
    backup: Path | None


def plan(data: Path, site: Path | None = None) -> list[Part]:
    """Return every part with its version, found and wanted.

    Raises:
        CareError: there is no data, it is newer than this program, or there is no way from there.
    """
    if not (data / LEDGER_PATH).is_file():
        raise NothingToBackUpError(data)
    parts = parts_of(data, site)
    refuse_newer(parts)
    for part in parts:
        if part.older and part.name not in CONVERTERS:
            assert part.found is not None
            raise TooOldError(part.place, part.told, part.told_zh, part.found, part.wanted)
    return parts


def upgrade(
    data: Path, *, program: str, wall_ms: Callable[[], int], site: Path | None = None, backup_to: Path | None = None,
    with_backup: bool = True, disk: Disk | None = None, room_bytes: int | None = None,
    told: Callable[[str, int], None] = lambda _part, _bytes: None,
) -> Upgraded:  # fmt: skip
    """Bring `data` to this program's versions, or finish doing so; what is there already is left alone.

    Args:
        backup_to: where the backup before the first change goes; by default into the data folder itself. Where an
            upgrade was ended before that was made, this and `with_backup` are asked anew; afterwards neither is, and a
            backup that is away by then is only named.

    Raises:
        CareError: it cannot be done, and nothing has changed, or the same command goes on.
        OSError, apsw.Error: a disk refused; run the command again.
    """
    disk = disk or Disk()
    if (data / RESTORING / RESTORE_NOTE).exists():
        raise CareError(
            f"{data}: a restore was begun here and is not finished; run the same `hazardgate restore` again first",
            f"{data}：此处的恢复尚未完成；请先再执行一次相同的 hazardgate restore",
        )
    plan(data, site)
    with ExitStack() as held:
        held.enter_context(cared_for(data, alone=True))
        held.enter_context(nothing_runs(data))
        parts = plan(data, site)
        note = _noted(data / UPGRADE_NOTE)
        if note is None and not any(part.older for part in parts):
            return Upgraded(tuple(parts), (), None)
        if note is None:
            place = _place(data, backup_to, wall_ms()) if with_backup else None
            note = {
                "format": FORMAT, "program": program, "begun_ms": wall_ms(), "backup": None if place is None else str(place),
                "backed_up": False, "from": {part.name: part.found for part in parts if part.older}, "done": [],
            }  # fmt: skip
            disk.write(data / UPGRADE_NOTE, _text(note))
        made = None if note["backup"] is None else Path(note["backup"])
        if made is not None and not note["backed_up"]:
            finished = (made / LISTING_NAME).exists()
            if not finished and (backup_to is not None or not with_backup):  # the disk it was to go to may have refused
                made = _place(data, backup_to, wall_ms()) if with_backup else None
                note["backup"] = None if made is None else str(made)
                disk.write(data / UPGRADE_NOTE, _text(note))
            if not finished and made is not None:
                _backed_up(data, made, program, wall_ms, disk, told, room_bytes, site)
            note["backed_up"] = made is not None  # from here on the data changes: no other backup is one of before
            disk.write(data / UPGRADE_NOTE, _text(note))
        for part in parts:
            if part.older:
                disk.step(f"upgrade {part.name}")
                note["done"] += CONVERTERS[part.name](part)
                disk.write(data / UPGRADE_NOTE, _text(note))
        _record(data / RECORD_NAME, {**note, "ended_ms": wall_ms()}, disk)
        disk.remove(data / UPGRADE_NOTE)
        return Upgraded(tuple(parts), tuple(note["done"]), made)


def _place(data: Path, asked: Path | None, now_ms: int) -> Path:
    """Return where the backup goes: no folder with a finished one, which might be of any day."""
    place = (asked if asked is not None else data / f"{BACKUP_PREFIX}{now_ms}").absolute()
    if (place / LISTING_NAME).exists():
        raise TargetError(
            f"{place}: already holds a finished backup; name another folder with --backup DIR; nothing was upgraded",
            f"{place}：其中已有完成的备份；请用 --backup DIR 另指定目录；未升级",
        )
    return place


def _backed_up(
    data: Path, to: Path, program: str, wall_ms: Callable[[], int], disk: Disk, told: Callable[[str, int], None],
    room_bytes: int | None, site: Path | None,
) -> Report:  # fmt: skip
    """Make the backup; where it cannot be made, nothing has been changed yet, and the note goes."""
    try:
        return backup(
            data, to, program=program, wall_ms=wall_ms, site=site, disk=disk, told=told, locked=True, room_bytes=room_bytes
        )
    except CareError as error:
        disk.remove(data / UPGRADE_NOTE)
        raise CareError(
            f"{error}; nothing was upgraded (--backup DIR names another place, --no-backup makes none)",
            f"{error.message_zh}；未升级（--backup DIR 可另指定位置，--no-backup 则不备份）",
        ) from None


def _noted(path: Path) -> dict[str, Any] | None:
    try:
        with open_plain(path) as file:
            told = json.loads(file.read(1_000_000))
        if told["format"] != FORMAT or not isinstance(told["done"], list) or not isinstance(told["backup"], str | None):
            raise ValueError("not as this program writes it")
        if not isinstance(told.setdefault("backed_up", bool(told["done"])), bool):
            raise ValueError("not as this program writes it")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CareError(
            f"{path}: cannot be read ({error}); restore a backup, or finish with the version that began the upgrade",
            f"{path}：无法读取（{error}）；请恢复备份，或用开始升级的那个版本将其完成",
        ) from None
    return dict(told)


def _text(note: dict[str, Any]) -> bytes:
    return (json.dumps(note, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _record(path: Path, entry: dict[str, Any], disk: Disk) -> None:
    """Append an upgrade to the record; one that stands there already was ended just after this."""
    lines = path.read_bytes() if path.exists() else b""
    begun = [json.loads(line).get("begun_ms") for line in lines.splitlines() if line]
    if entry["begun_ms"] not in begun:
        disk.write(path, lines + _text(entry))
