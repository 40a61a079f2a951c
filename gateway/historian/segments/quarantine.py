"""Rows of the log that cannot be read any more: put aside as they are before their range counts as sealed.

A file holds one line of JSON, what the log's columns say of the row, and then the body, byte for byte. There are bounds
on what is put aside; the manifest names every such row all the same, and so does the status until retention passes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.historian.segments.durable import aside, make_folder, publish, step, sync_file
from gateway.historian.segments.folder import Problem
from gateway.historian.segments.manifest import WHY_CHARS, Manifest, Torn, bounded
from gateway.historian.segments.names import ASIDE, day_of

if TYPE_CHECKING:
    from gateway.historian.segments.seal import TornRow

log = logging.getLogger(__name__)

QUARANTINE: Final = "quarantine"
FILES_MAX: Final = 1_000
BYTES_MAX: Final = 64 * 1024 * 1024


def quarantine_name(ledger_id: str, pos: int) -> str:
    """Return where a row is put, below the historian's folder."""
    return f"{QUARANTINE}/{ledger_id}-{pos:016d}"


def put_aside(folder: Path, ledger_id: str, torn: Sequence[TornRow]) -> None:
    """Keep rows as they are, as far as there is room for them; doing it again is the same.

    Raises:
        OSError: the disk would not.
    """
    if not torn:
        return
    make_folder(folder / QUARANTINE)
    held: dict[str, int] = {}
    for path in sorted((folder / QUARANTINE).iterdir()):
        if path.name.endswith(ASIDE):
            path.unlink(missing_ok=True)
        else:
            held[path.name] = path.stat().st_size
    for one in torn:
        path = folder / quarantine_name(ledger_id, one.row.pos)
        log.error("log position %d of %s: %s; put aside as %s", one.row.pos, ledger_id, one.why, path.name)
        raw = _raw(one)
        others = held.keys() - {path.name}
        if len(others) >= FILES_MAX or sum(held[name] for name in others) + len(raw) > BYTES_MAX:
            log.error("historian: %s is full: log position %d is named and not kept", QUARANTINE, one.row.pos)
            continue
        held[path.name] = len(raw)
        written = aside(path)
        with step(f"write {path.name}"):
            written.write_bytes(raw)
        sync_file(written)
        publish(written, path)


def named(torn: Sequence[TornRow]) -> tuple[Torn, ...]:
    """Return what a manifest says of rows."""
    return bounded([
        Torn(one.row.pos, one.row.pos, 1, one.row.received_ms, one.row.received_ms, one.why[:WHY_CHARS]) for one in torn
    ])  # fmt: skip


def torn_problems(folder: Path, manifests: Iterable[Manifest], kept_from: str = "") -> Iterator[Problem]:
    """Yield what manifests name as torn, until the day such a row was received has gone."""
    for manifest in manifests:
        for torn in manifest.torn:
            if day_of(torn.to_ms) < kept_from:
                continue
            name = quarantine_name(manifest.stem.owner, torn.first)
            if torn.rows > 1:
                where, kept = f"{torn.rows} rows among log positions {torn.first} to {torn.last}", "as far as there was room"
            else:
                where = f"log position {torn.first}"
                kept = "kept aside as it is" if (folder / name).is_file() else "not kept: there was no room"
            yield Problem(name, day_of(torn.from_ms), torn.from_ms, torn.to_ms, f"{where}: {torn.why}; {kept}")


def _raw(one: TornRow) -> bytes:
    row = one.row
    facts = {
        "pos": row.pos, "kind": row.kind, "received_ms": row.received_ms, "node": row.node, "stream": row.stream,
        "first": row.first, "late_upto": row.late_upto, "fresh": row.fresh, "refused": row.refused, "why": one.why,
    }  # fmt: skip
    return json.dumps(facts, ensure_ascii=False, sort_keys=True).encode() + b"\n" + row.body
