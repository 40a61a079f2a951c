"""Checks a ledger that nobody writes, as far as it can be checked: its pages, its indexes, its journal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from gateway.care.listing import LedgerFacts


class LedgerDamagedError(Exception):
    """The ledger's pages or indexes contradict themselves."""


def facts_of(path: Path) -> tuple[LedgerFacts, str]:
    """Check it; returns what it holds, and where its journal contradicts itself (empty: nowhere).

    Raises:
        LedgerDamagedError: its pages or indexes do: nothing in it can be trusted.
    """
    db = apsw.Connection(f"file:{quote(str(path.absolute()))}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        told = [str(row[0]) for row in db.execute("PRAGMA integrity_check(10)")]
        if told != ["ok"]:
            raise LedgerDamagedError("; ".join(told)[:500])
        meta = dict(db.execute("SELECT key, value FROM meta"))
        pos: Any = db.execute("SELECT coalesce(max(pos), 0) FROM log").fetchall()[0][0]
        last: Any = db.execute("SELECT row, hash FROM transition ORDER BY row DESC LIMIT 1").fetchone() or (0, "")
        facts = LedgerFacts(
            str(meta.get("ledger_id", "")), str(meta["site"]), int(meta["schema_version"]), int(pos), int(last[0]), str(last[1])
        )
        return facts, _journal(db)
    except (apsw.Error, KeyError, ValueError) as error:
        raise LedgerDamagedError(f"{type(error).__name__}: {error}") from None
    finally:
        db.close()


def _journal(db: apsw.Connection) -> str:
    """Follow the journal's hash chain; returns where it breaks."""
    chain = ""
    for row, name, body, prev, digest in db.execute("SELECT row, id, body, prev_hash, hash FROM transition ORDER BY row"):
        if chain and prev != chain:
            return f"row {row} of the journal does not follow the one before"
        if hashlib.sha256(f"{prev}\n{name}\n{body}".encode()).hexdigest() != digest:
            return f"row {row} of the journal is not what was written"
        chain = str(digest)
    return ""
