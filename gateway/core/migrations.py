"""How a ledger of an older schema version becomes one of this version.

Each migration is one transaction that also moves `schema_version` on: one that was interrupted left nothing behind, and
the next run begins with it again. Core never migrates by itself: a person decides it, with a backup at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from gateway.core.errors import LedgerFormatError, LedgerVersionError
from gateway.core.reader import connect
from gateway.core.schema import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Migration:
    """One schema version to the next. `told` says in a few words what changes."""

    to: int
    told: str
    statements: tuple[str, ...]


MIGRATIONS: Final = (
    Migration(
        2,
        "log rows tell which of their frames are late or new, and which tags were refused",
        (
            "ALTER TABLE log ADD COLUMN late_upto INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE log ADD COLUMN fresh TEXT",
            "ALTER TABLE log ADD COLUMN refused TEXT",
            "CREATE INDEX log_historical ON log (pos) WHERE kind = 'H'",
        ),
    ),
)


def schema_version(path: Path) -> int:
    """Return a ledger's schema version.

    Raises:
        LedgerFormatError: there is no ledger.
    """
    if not path.is_file():
        raise LedgerFormatError(path, "there is no such file")
    try:
        db = connect(path, read_only=True)
        try:
            return _version(db, path)
        finally:
            db.close()
    except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
        raise LedgerFormatError(path, f"not a readable ledger ({error})") from error


def upgrade_ledger(path: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> list[str]:
    """Bring a ledger that nobody else has open to this version; one that is there already is left alone.

    Returns:
        What was done, a line for each migration.

    Raises:
        LedgerFormatError: there is no ledger.
        LedgerVersionError: it is of a newer version, and nothing was changed.
        apsw.Error: the disk refused; what is listed before it is done, and another run goes on from there.
    """
    found = schema_version(path)
    if found > SCHEMA_VERSION:
        raise LedgerVersionError(path, str(found), SCHEMA_VERSION)
    done: list[str] = []
    db = connect(path, read_only=False)
    try:
        for migration in migrations:
            if migration.to > found and _apply(db, path, migration):
                done.append(f"ledger schema {migration.to - 1} → {migration.to}: {migration.told}")
    finally:
        db.close()
    return done


def _apply(db: apsw.Connection, path: Path, migration: Migration) -> bool:
    """Do one migration in one transaction; False if somebody else has done it meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db, path) != migration.to - 1:
            db.execute("ROLLBACK")
            return False
        for statement in migration.statements:
            db.execute(statement)
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(migration.to),))
        db.execute("COMMIT")
    except BaseException:
        if not db.getautocommit():
            db.execute("ROLLBACK")
        raise
    return True


def _version(db: apsw.Connection, path: Path) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None or not str(row[0]).isdecimal():
        raise LedgerFormatError(path, "it names no schema version")
    return int(row[0])
