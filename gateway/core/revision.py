"""Revisions of the configuration: each is an entry of the log, so replay knows what held when.

Replay runs every entry under the configuration it was written under, and finds what the journal holds. Where the
log has a revision, state is carried over to it: that is the only place where limits change.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Final

from pydantic import ValidationError

from config import SiteConfig
from gateway.core.machine import Machine
from gateway.core.reader import LedgerReader

REVISION_BYTES_MAX: Final = 256 * 1024 * 1024  # of text; a site file of 4 MiB stays far below


class UnreadableRevisionError(Exception):
    """A revision that this version cannot read: what was found under it cannot be found again by replay."""


def revision_of(site: SiteConfig) -> bytes:
    """Return a site as the body of a CONFIG entry; one meaning, one text, whatever the file looked like."""
    text = json.dumps(site.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return zlib.compress(text.encode())


def revision_hash(body: bytes) -> str:
    """Return a name for the change that this entry made: the SHA-256 (hex) of its bytes."""
    return hashlib.sha256(body).hexdigest()


def site_of(body: bytes) -> SiteConfig:
    """Inverse of `revision_of`.

    Raises:
        UnreadableRevisionError: damaged, or written by a version whose configuration this one does not accept.
    """
    try:
        return SiteConfig.model_validate_json(_text(body))
    except ValidationError as error:
        raise UnreadableRevisionError(f"{error.error_count()} fields are not accepted any more") from error


def _text(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(body, REVISION_BYTES_MAX)
    except zlib.error as error:
        raise UnreadableRevisionError(str(error)) from error
    if not unpacker.eof:
        raise UnreadableRevisionError("cut short, or too long")
    return text


def revision_at(reader: LedgerReader, pos: int) -> bytes | None:
    """Return the revision that held at a log position.

    Before the first one nothing had been evaluated, so that one will do; None when the log has none.
    """
    for sql in (
        "SELECT body FROM log WHERE kind = 'C' AND pos <= ? ORDER BY pos DESC LIMIT 1",
        "SELECT body FROM log WHERE kind = 'C' AND pos > ? ORDER BY pos LIMIT 1",
    ):
        rows = reader.rows(sql, (pos,))
        if rows:
            return bytes(rows[0][0])
    return None


def carried_over(machine: Machine, site: SiteConfig) -> tuple[Machine, tuple[str, ...]]:
    """Return the machine with its state under another configuration, and which alarms now wait for a person.

    No alarm returns by this. One whose limit was changed or removed, or whose edge or receiver has left, is
    detached: nothing that is measured from now on may say that its cause is over.
    """
    before = machine.engine.book.detached
    carried = Machine.restore(site, machine.dump())
    left = {f"EDGE.{edge.id}" for edge in machine.site.edges} - {f"EDGE.{edge.id}" for edge in site.edges}
    left |= {f"RECEIVER.{each.id}" for each in machine.site.receivers}
    left -= {f"RECEIVER.{each.id}" for each in site.receivers}
    book = carried.engine.book
    for key in sorted(key for key in book.system_alarm if key.rpartition(".")[0] in left):
        carried.engine.let_go_condition(key)
    fresh = [book.alarms[alarm_id] for alarm_id in book.detached if alarm_id not in before]
    return carried, tuple(f"{alarm.tag} {alarm.limit}" for alarm in fresh if not alarm.late)
