"""Core's eyes on the historian's folder: what is sealed there, as far as core has checked it itself, and what serve says.

Reads names, manifests, checksums and `status.json`; never loads a database and never writes there. Waits for the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.core.historian_status import STATUS_BYTES_MAX, Seen, Status, Told, conditions, parse_status
from gateway.core.reader import LedgerReader
from gateway.historian.segments.durable import sync_folder
from gateway.historian.segments.folder import Ancestor, Problem, SegmentFolder
from gateway.historian.segments.gone import gone, pruned_pos
from gateway.historian.segments.names import MANIFESTS, STATUS_NAME, parse_manifest_name

log = logging.getLogger(__name__)

VERIFIED_BYTES_MAX: Final = 256 * 1024 * 1024  # in one look; at least one manifest's files are read whole


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the historian holds. `cursor`: everything up to this log position, as core has verified."""

    cursor: int
    told: tuple[Told, ...]


def newest_sealed(folder: Path, ledger_id: str) -> int:
    """Return the highest log position of a ledger that a manifest's name claims, 0 without one; readable or not."""
    try:
        stems = [parse_manifest_name(path.name) for path in (folder / MANIFESTS).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:  # core starts all the same; nothing leaves the ledger while the folder cannot be read
        log.error("historian: %s cannot be read (%s); whether the ledger has its end is not known", folder, error)
        return 0
    return max((stem.last for stem in stems if stem is not None and stem.kind != "load" and stem.owner == ledger_id), default=0)


class SealedSegments:
    """One historian folder, seen for one ledger. For one thread at a time."""

    def __init__(
        self, folder: Path, ledger_id: str, ancestry: Sequence[tuple[str, int]], seal_s: float, started_ms: int
    ) -> None:
        """Look at `folder`, which need not exist.

        Args:
            ancestry: what `LedgerReader.ancestry` returns.
            seal_s: how often serve seals at least.
            started_ms: when core started, UTC epoch milliseconds.
        """
        self._folder, self._ledger_id, self._seal_s, self._started_ms = folder, ledger_id, seal_s, started_ms
        self._ancestry = tuple(Ancestor(owner, pos) for owner, pos in ancestry)
        self._segments = SegmentFolder(folder)
        self._cursor = 0
        self._gone = 0  # up to here no frames were in the ledger when first looked

    def look(self, reader: LedgerReader, gone_upto: int, now_ms: int, standing: Sequence[str]) -> Sealed:
        """Check what is new in the folder.

        Args:
            gone_upto: up to this log position the ledger holds no frames any more.
            standing: keys of the system conditions that stand.
        """
        problems = self._verify(reader, gone_upto)
        waiting = reader.first_frames_from(self._cursor + 1, stored=True)
        status, wrong = self._status()
        seen = Seen(
            now_ms, self._started_ms, self._seal_s, self._cursor, None if waiting is None else waiting.received_ms,
            problems, status, wrong,
        )  # fmt: skip
        return Sealed(self._cursor, tuple(conditions(seen, standing)))

    def _verify(self, reader: LedgerReader, gone_upto: int) -> tuple[Problem, ...]:
        if not self._cursor:  # nothing of this run: what the ledger no longer has was verified by those before it
            self._cursor = self._gone = max(0, gone_upto)
        try:
            pruned = pruned_pos(reader.rows)
            taken = self._segments.snapshot()
            missing = tuple(gone(taken, self._ledger_id, self._ancestry, reader.rows, pruned))
            named = taken.cursor(self._ledger_id, self._ancestry, pruned)
            if named < self._cursor and self._cursor > self._gone:
                lost = Problem("manifests", "", 0, 0, f"log positions {named + 1} to {self._cursor} were sealed and are gone")
                self._cursor = max(named, self._gone)
                return (*missing, lost)
            found = self._segments.verified(self._ledger_id, self._ancestry, self._cursor, VERIFIED_BYTES_MAX, pruned)
            if found.cursor > self._cursor:  # whoever wrote the names may have died before they were on the disk
                sync_folder(self._folder / MANIFESTS)
        except OSError as error:
            log.error("historian: %s cannot be read or synced (%s); the ledger keeps what is not verified", self._folder, error)
            return (Problem(str(self._folder.name), "", 0, 0, f"cannot be read or synced ({error.strerror or error})"),)
        self._cursor = max(self._cursor, found.cursor)
        return (*missing, *found.problems)

    def _status(self) -> tuple[Status | None, str]:
        path = self._folder / STATUS_NAME
        try:
            with path.open("rb") as file:
                raw = file.read(STATUS_BYTES_MAX + 1)
            if len(raw) > STATUS_BYTES_MAX:
                raise ValueError(f"over {STATUS_BYTES_MAX // 1024} KiB")
            return parse_status(raw.decode()), ""
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError) as error:
            return None, f"{STATUS_NAME}: {error}"
