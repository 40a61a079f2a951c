"""In which versions the parts of a data folder are written, and which ones this program knows.

Nothing is opened for writing here. A part that is not there is of this program's version: it will be made by it.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Final

import apsw

from gateway.care.errors import CareError, NewerDataError
from gateway.core.errors import LedgerFormatError
from gateway.core.migrations import schema_version
from gateway.core.schema import SCHEMA_VERSION
from gateway.core.snapshots import unpack_sections
from gateway.historian.segments.manifest import FORMAT as MANIFEST_FORMAT
from gateway.historian.segments.names import MANIFESTS, parse_manifest_name

SNAPSHOT_VERSION: Final = 2
STATE_VERSION: Final = 2
TOKENS_VERSION: Final = 1
CONFIG_VERSION: Final = 1
LEDGER: Final = "ledger"
LOOKED_AT: Final = 64  # manifests, before serve starts
_SNAPSHOT_MAGIC = re.compile(rb"HGSNAP([0-9])\n")
_STATE_MAGIC = re.compile(rb"HAZARDGATE-STATE-([0-9]{1,4})\n")
_SNAPSHOT_HEAD: Final = 8 + 8 + 4 + 32
_CONFIG = re.compile(r"^version:\s*([0-9]{1,6})\s*(#.*)?$", re.MULTILINE)
_MANIFEST_HEAD_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a data folder: `found` is None where there is none yet, 0 where nobody can tell."""

    name: str
    told: str
    told_zh: str
    place: Path
    found: int | None
    wanted: int

    @property
    def newer(self) -> bool:
        """Written by a newer program."""
        return self.found is not None and self.found > self.wanted

    @property
    def older(self) -> bool:
        """Written by an older program."""
        return self.found is not None and 0 < self.found < self.wanted


def current() -> dict[str, int]:
    """Return the versions that this program writes."""
    return {"ledger": SCHEMA_VERSION, "snapshot": SNAPSHOT_VERSION, "state": STATE_VERSION, "manifest": MANIFEST_FORMAT}


def parts_of(data: Path, site: Path | None = None) -> list[Part]:
    """Look at every part, in the order in which they are brought up to date.

    Raises:
        CareError: the ledger is none.
    """
    ledger = data / "core" / "ledger.sqlite3"
    try:
        schema = schema_version(ledger) if ledger.exists() else None
    except LedgerFormatError as error:
        raise CareError(str(error), str(error)) from None
    snapshots = list(_snapshots(data / "core"))
    files = _extreme([one for one, _ in snapshots], SNAPSHOT_VERSION)
    states = _extreme([two for _, two in snapshots], STATE_VERSION)
    manifests = _extreme(list(_manifests(data / "historian")), MANIFEST_FORMAT)
    tokens = data / "serve" / "tokens.json"
    parts = [
        Part(LEDGER, "the ledger's schema", "账本架构", ledger, schema, SCHEMA_VERSION),
        Part("snapshots", "snapshots", "快照", data / "core", files, SNAPSHOT_VERSION),
        Part("state", "the state in snapshots", "快照中的状态", data / "core", states, STATE_VERSION),
        Part("manifests", "the historian's manifests", "历史库清单", data / "historian", manifests, MANIFEST_FORMAT),
        Part("tokens", "the tokens", "令牌文件", tokens, _tokens(tokens), TOKENS_VERSION),
    ]
    if site is not None:
        parts.append(Part("config", "the site's configuration", "站点配置", site, _config(site), CONFIG_VERSION))
    return parts


def refuse_newer(parts: list[Part]) -> None:
    """Refuse what a newer program has written.

    Raises:
        NewerDataError: with both versions.
    """
    for part in parts:
        if part.newer:
            assert part.found is not None
            raise NewerDataError(part.place, part.told, part.told_zh, part.found, part.wanted)


def refuse_unreadable(data: Path) -> None:
    """Refuse, before anything is read or written, a data folder in which a newer program has gone on.

    Only what serve itself reads is looked at, and of the manifests the ones written last. What is damaged or away is not
    ours to judge here.

    Raises:
        NewerDataError: with both versions.
    """
    ledger = data / "core" / "ledger.sqlite3"
    with suppress(LedgerFormatError, apsw.Error, OSError):
        if ledger.exists():
            refuse_newer([Part(LEDGER, "the ledger's schema", "账本架构", ledger, schema_version(ledger), SCHEMA_VERSION)])
    found = _extreme([_format_of(path) for path in _written_last(data / "historian" / MANIFESTS)], MANIFEST_FORMAT)
    refuse_newer([Part("manifests", "the historian's manifests", "历史库清单", data / "historian", found, MANIFEST_FORMAT)])


def _written_last(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            ours = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if parse_manifest_name(entry.name)]
    except OSError:
        return []
    return [folder / name for _, name in nlargest(LOOKED_AT, ours)]


def _extreme(found: list[int], wanted: int) -> int | None:
    """Return the newest version if one is newer than wanted, else the oldest that somebody can read."""
    known = [one for one in found if one]
    if not known:
        return None
    return max(known) if max(known) > wanted else min(known)


def _snapshots(folder: Path) -> Iterator[tuple[int, int]]:
    """Yield the versions of each snapshot and of the oldest or newest state in it; 0 for what is damaged."""
    for path in sorted(folder.glob("snapshot-*.bin")):
        raw = path.read_bytes()
        magic = _SNAPSHOT_MAGIC.match(raw)
        version = int(magic[1]) if magic else 0
        states: list[int] = []
        if version == SNAPSHOT_VERSION and len(raw) > _SNAPSHOT_HEAD:
            try:
                sections = unpack_sections(raw[_SNAPSHOT_HEAD:], int.from_bytes(raw[16:20], "little"))
            except (ValueError, struct.error):
                sections = {}
            states = [int(found[1]) for found in map(_STATE_MAGIC.match, sections.values()) if found]
        yield version, _extreme(states, STATE_VERSION) or 0


def _manifests(folder: Path) -> Iterator[int]:
    try:
        names = sorted(path.name for path in (folder / MANIFESTS).iterdir() if parse_manifest_name(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        yield _format_of(folder / MANIFESTS / name)


def _tokens(path: Path) -> int | None:
    return _format_of(path) if path.exists() else None


def _format_of(path: Path) -> int:
    """Return the `format` of a JSON file of ours, 0 if nobody can tell: what is damaged is not ours to judge here."""
    try:
        if path.stat().st_size > _MANIFEST_HEAD_MAX:
            return 0
        told = json.loads(path.read_bytes())
        found = told["format"]
        return found if type(found) is int and found > 0 else 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0


def _config(site: Path) -> int:
    path = site / "site.yaml" if site.is_dir() else site
    try:
        found = _CONFIG.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise CareError(
            f"{path}: cannot be read ({error.strerror}); name the site file with --site",
            f"{path}：无法读取（{error.strerror}）；请用 --site 指定站点配置文件",
        ) from None
    return int(found[1]) if found else 0
