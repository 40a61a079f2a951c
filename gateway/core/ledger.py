"""The ledger: one SQLite file, one writer, one transaction for everything a batch of frames caused.

Only the writer thread calls `commit`; anybody may read through `LedgerReader`. WAL with `synchronous=FULL`: when
`commit` returns, the batch survives the loss of power. No clock: times come in with the batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from alerting import AlarmState, Transition
from alerting.delivery import Attempt, Notice, OutboxRow
from gateway.core.books import Loss
from gateway.core.entries import PASSING_KINDS, Entry
from gateway.core.errors import LedgerFormatError, LedgerVersionError
from gateway.core.reader import LedgerReader, connect, numbered
from gateway.core.retention import Removable
from gateway.core.schema import SCHEMA_VERSION, TABLES
from gateway.historian.segments.gone import PRUNED_FROM_MS, PRUNED_POS, PRUNED_TO_MS

log = logging.getLogger(__name__)

GENESIS_HASH: Final = "0" * 64
ANCESTORS_MAX: Final = 64  # restores that a ledger remembers
DELETE_ROWS_MAX: Final = 2_000  # frame rows a retention step may remove, so that no commit waits for it
WAL_PAGES_FOLDED: Final = 2_000  # 8 MiB: what one folding has to do, some milliseconds
WAL_PAGES_MAX: Final = 4_000  # folded in behind a commit when there is no quiet moment; more would hold that commit up for long
WAL_PAGES_MORE: Final = 1_000  # folded in whole, but readers keep it from beginning anew
WAL_PAGES_AGAIN: Final = 100  # readers were in the way: trying again costs nothing where they still are

# Measured, rounded up: what Python takes for them beside the bytes they hold.
BATCH_BYTES: Final = 1_280
ENTRY_BYTES: Final = 320
TRANSITION_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One line of the `stream` table."""

    node: str
    stream: int
    upto: int
    intervals: str
    last: int | None
    predecessor: int
    predecessor_last: int
    last_source_ms: int


@dataclass(slots=True)
class Batch:
    """What one transaction holds. `acks` is not stored: it is what may be sent once the batch is safe."""

    entries: list[Entry] = field(default_factory=list)
    transitions: list[tuple[int, Transition]] = field(default_factory=list)  # (log position, transition)
    notices: list[Notice] = field(default_factory=list)
    streams: dict[tuple[str, int], StreamRow] = field(default_factory=dict)
    losses: list[tuple[int, str, Loss]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    acks: dict[tuple[str, int], int] = field(default_factory=dict)
    backlog_nodes: set[str] = field(default_factory=set)
    engine_ms: int = 0
    wall_ms: int = 0
    frames: int = 0
    samples: int = 0
    removable: Removable | None = None  # rows that no longer need to be here

    @property
    def bytes(self) -> int:
        """Roughly what the batch weighs in memory while it waits; of a batch with one small frame most is its own."""
        rows = sum(len(entry.body) + ENTRY_BYTES for entry in self.entries)
        told = sum(len(notice.body) + ENTRY_BYTES for notice in self.notices) + TRANSITION_BYTES * len(self.transitions)
        return BATCH_BYTES + rows + told + ENTRY_BYTES * (2 * len(self.streams) + len(self.attempts))

    @property
    def empty(self) -> bool:
        """Nothing to write."""
        return not (self.entries or self.transitions or self.attempts or self.streams or self.losses or self.removable)


@dataclass(frozen=True, slots=True)
class Committed:
    """What the transaction settled: rows with their sequence numbers, and which transitions were new."""

    outbox: tuple[OutboxRow, ...]
    fresh_transitions: frozenset[str]
    last_pos: int
    pruned: int


class Ledger:
    """The one writing connection."""

    def __init__(self, path: Path, site: str) -> None:
        """Open or create the ledger of `site`.

        Raises:
            LedgerFormatError: not a ledger, another site's, or of a schema this version does not know.
        """
        self.path = path
        try:
            self._db = connect(path, read_only=False)
            if not self._has_tables():
                self._create(site)
            elif not self._has_tables("meta"):
                raise LedgerFormatError(path, "a database of another program")
            version, owner = self._meta("schema_version"), self._meta("site")
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise LedgerFormatError(path, f"not a readable SQLite file ({error})") from error
        if version != str(SCHEMA_VERSION):
            raise LedgerVersionError(path, version, SCHEMA_VERSION)
        if owner != site:
            raise LedgerFormatError(path, f"belongs to site {owner}, not {site}")
        self._wal_pages, self._fold_at = 0, WAL_PAGES_FOLDED
        self._db.set_wal_hook(self._wal_grown)
        self.reader = LedgerReader(self._db)
        opened = path.stat()
        self._file = (opened.st_dev, opened.st_ino)
        self.ledger_id = self._meta("ledger_id")
        row = self._db.execute("SELECT hash FROM transition ORDER BY row DESC LIMIT 1").fetchone()
        self._chain = row[0] if row else GENESIS_HASH
        self._tags: dict[str, int] = dict(self._db.execute("SELECT name, id FROM tag"))

    def gone(self) -> str:
        """Return why this ledger is no longer the file at its path; empty while it is. Cheap, from any thread."""
        try:
            now = self.path.stat()
        except OSError as error:
            return f"{self.path}: the ledger was removed under core ({error.strerror})"
        if (now.st_dev, now.st_ino) != self._file:
            return f"{self.path}: another file stands in the ledger's place"
        return ""

    def _wal_grown(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        """Count, in the place of SQLite's own checkpoint: that one holds up the commit it comes behind."""
        if pages < self._wal_pages:  # begun anew
            self._fold_at = WAL_PAGES_FOLDED
        self._wal_pages = pages
        if pages >= WAL_PAGES_MAX and self.fold_due:  # there was no quiet moment
            self.fold()
        return apsw.SQLITE_OK

    @property
    def fold_due(self) -> bool:
        """The write-ahead log has grown enough to be folded in, at a moment when nothing waits."""
        return self._wal_pages >= self._fold_at

    def fold(self) -> None:
        """Fold the write-ahead log into the file, as far as no reader is in the way. Waits for the disk, not for readers."""
        folded = 0
        try:
            _, folded = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:  # a disk that refuses is told of by the next commit
            log.debug("checkpoint: %s", error)
        self._fold_at = self._wal_pages + (WAL_PAGES_MORE if folded >= self._wal_pages else WAL_PAGES_AGAIN)

    def close(self) -> None:
        """Close the file; a clean close also folds the WAL in."""
        self._db.close()

    def tag_numbers(self, names: Sequence[str]) -> list[int]:
        """Return the ledger's number of every tag, drawing numbers for new ones."""
        missing = [name for name in names if name not in self._tags]
        if missing:
            with self._db:
                for name in missing:
                    self._db.execute("INSERT INTO tag (name) VALUES (?)", (name,))
                    self._tags[name] = self._db.last_insert_rowid()
        return [self._tags[name] for name in names]

    def renew_id(self, ledger_id: str) -> str:
        """Give a restored ledger a new id, and number what is still due anew under it. Returns the old id.

        The lost part of the old ledger may already have used the numbers that follow here, so continuing them
        would show a receiver one number twice. What the historian had sealed of the old one up to the newest log
        position of now is this one's too: `ancestor_id` and `ancestor_pos` say so, `ancestry` all that came before.
        """
        old, pos = self.ledger_id, self.reader.last_pos()
        ancestry = [(old, pos), *self.reader.ancestry()][:ANCESTORS_MAX]
        with self._db:
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'ledger_id'", (ledger_id,))
            self._set_meta("ancestor_id", old)
            self._set_meta("ancestor_pos", str(pos))
            self._set_meta("ancestry", json.dumps(ancestry, separators=(",", ":")))
            due = list(self._db.execute(
                "SELECT row, receiver, lane FROM outbox WHERE state <> 'accepted' ORDER BY row"
            ))
            for row, receiver, lane in due:
                self._db.execute(
                    "UPDATE outbox SET ledger_id = ?, sequence = ?, attempts = 0, next_ms = NULL, state = 'due' WHERE row = ?",
                    (ledger_id, self._next_sequence(ledger_id, receiver, lane), row),
                )
        self.ledger_id = ledger_id
        return old

    def commit(self, batches: Sequence[Batch]) -> Committed:
        """Write the batches in one transaction.

        Raises:
            apsw.Error: nothing was written; the caller keeps the batches and tries again.
        """
        chain = self._chain
        outbox: list[OutboxRow] = []
        fresh: set[str] = set()
        pruned = 0
        last_pos = 0
        try:
            with self._db:
                for batch in batches:
                    if batch.entries:
                        self._write_entries(batch.entries)
                        last_pos = batch.entries[-1].pos
                    for pos, transition in batch.transitions:
                        if self._write_transition(pos, transition):
                            fresh.add(transition.id)
                    for notice in batch.notices:
                        if notice.transition_id in fresh:
                            outbox.append(self._write_notice(notice))
                    self._write_streams(batch.streams.values(), batch.wall_ms)
                    self._write_losses(batch.losses, batch.wall_ms)
                    self._write_attempts(batch.attempts)
                    if batch.removable is not None:
                        pruned += self._remove(batch.removable)
                    if batch.engine_ms:
                        self._set_meta("engine_ms", str(batch.engine_ms))
                        self._set_meta("wall_ms", str(batch.wall_ms))
        except BaseException:  # whatever ended it was rolled back: the chain of hashes goes back with it
            self._chain = chain
            raise
        return Committed(tuple(outbox), frozenset(fresh), last_pos, pruned)

    # -- rows --

    def _write_entries(self, entries: Iterable[Entry]) -> None:
        self._db.executemany(
            "INSERT INTO log (pos, kind, engine_ms, received_ms, node, device, stream, first, last, samples, body,"
            " late_upto, fresh, refused) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                (
                    e.pos, str(e.kind), e.engine_ms, e.received_ms, e.node, e.device, e.stream, e.first, e.last, e.samples,
                    e.body, e.late_upto, None if e.fresh is None else json.dumps(e.fresh, separators=(",", ":")),
                    None if e.refused is None else json.dumps(e.refused, ensure_ascii=False, separators=(",", ":")),
                )
                for e in entries
            ],
        )

    def _write_transition(self, pos: int, transition: Transition) -> bool:
        """Append to the journal; an id that stands there already is the same event found again."""
        if self._db.execute("SELECT 1 FROM transition WHERE id = ?", (transition.id,)).fetchone():
            return False
        body = json.dumps(transition.to_json(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        digest = hashlib.sha256(f"{self._chain}\n{transition.id}\n{body}".encode()).hexdigest()
        self._db.execute(
            "INSERT INTO transition (id, pos, alarm_id, revision, kind, at_ms, engine_ms, late, actor, body, prev_hash, hash)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                transition.id, pos, transition.alarm_id, transition.revision, str(transition.kind), transition.at_ms,
                transition.engine_ms, int(transition.late), transition.actor, body, self._chain, digest,
            ),
        )
        self._chain = digest
        self._write_alarm(transition.alarm)
        return True

    def _write_alarm(self, alarm: AlarmState) -> None:
        self._db.execute(
            "INSERT INTO alarm (id, state, grade, category, subject, kind, start_ms, late, body)"
            " VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
            " grade = excluded.grade, body = excluded.body",
            (
                alarm.id, str(alarm.state), int(alarm.grade), str(alarm.category), alarm.tag, str(alarm.limit),
                alarm.start_ms, int(alarm.late),
                json.dumps(alarm.to_json(), ensure_ascii=False, separators=(",", ":"), sort_keys=True),
            ),
        )

    def _write_notice(self, notice: Notice) -> OutboxRow:
        sequence = self._next_sequence(self.ledger_id, notice.receiver, notice.lane)
        row = numbered(notice, self.ledger_id, sequence)
        self._db.execute(
            "INSERT INTO outbox (notice_id, transition_id, alarm_id, receiver, lane, ledger_id, sequence, revision,"
            " created_ms, state, attempts, next_ms, body) VALUES (?,?,?,?,?,?,?,?,?,'due',0,NULL,?)",
            (
                notice.id, notice.transition_id, notice.alarm_id, notice.receiver, str(notice.lane), self.ledger_id,
                sequence, notice.revision, notice.created_ms, notice.body,
            ),
        )
        return row

    def _next_sequence(self, ledger_id: str, receiver: str, lane: str) -> int:
        """Count inside the transaction: a number that was not committed was never used."""
        row = self._db.execute(
            "INSERT INTO sequence (ledger_id, receiver, lane, last) VALUES (?,?,?,1)"
            " ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last",
            (ledger_id, receiver, str(lane)),
        ).fetchone()
        assert row is not None, "RETURNING answers with the row"
        return int(row[0])

    def _write_streams(self, rows: Iterable[StreamRow], wall_ms: int) -> None:
        self._db.executemany(
            "INSERT INTO stream (node, stream, upto, intervals, last, predecessor, predecessor_last, last_source_ms,"
            " touched_ms) VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (node, stream) DO UPDATE SET upto = excluded.upto,"
            " intervals = excluded.intervals, last = excluded.last, predecessor = excluded.predecessor,"
            " predecessor_last = excluded.predecessor_last, last_source_ms = excluded.last_source_ms,"
            " touched_ms = excluded.touched_ms",
            [
                (r.node, r.stream, r.upto, r.intervals, r.last, r.predecessor, r.predecessor_last, r.last_source_ms, wall_ms)
                for r in rows
            ],
        )

    def _write_losses(self, losses: Iterable[tuple[int, str, Loss]], wall_ms: int) -> None:
        self._db.executemany(
            "INSERT INTO loss (pos, node, stream, first, last, cause, at_ms) VALUES (?,?,?,?,?,?,?)",
            [(pos, node, loss.stream, loss.first, loss.last, loss.cause, wall_ms) for pos, node, loss in losses],
        )

    def _write_attempts(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self._db.execute(
                "INSERT INTO attempt (notice_id, attempt, at_ms, outcome, status, detail) VALUES (?,?,?,?,?,?)",
                (attempt.notice_id, attempt.attempt, attempt.at_ms, str(attempt.outcome), attempt.status, attempt.detail),
            )
            if attempt.unjournaled:
                continue  # its row is sent all the same
            state = "accepted" if attempt.accepted else "parked" if attempt.parked else "due"
            self._db.execute(
                "UPDATE outbox SET state = ?, attempts = max(attempts, ?), next_ms = ?"
                " WHERE notice_id = ? AND state <> 'accepted'",
                (state, attempt.attempt, attempt.next_ms, attempt.notice_id),
            )

    def _remove(self, removable: Removable) -> int:
        """Remove the oldest rows of frames that may go, a bounded number at a time."""
        gone: list[tuple[Any, ...]] = self._db.execute(
            "DELETE FROM log WHERE pos IN (SELECT pos FROM log WHERE pos >= ? AND pos < ? AND kind IN (?, ?, ?, ?)"
            " ORDER BY pos LIMIT ?) RETURNING pos, received_ms",
            (removable.first, removable.before, *map(str, PASSING_KINDS), DELETE_ROWS_MAX),
        ).fetchall()
        if gone:  # so that nobody takes a historian for whole that has lost them
            times = [int(received_ms) for _, received_ms in gone]
            known = {key: int(self._meta(key) or 0) for key in (PRUNED_POS, PRUNED_FROM_MS, PRUNED_TO_MS)}
            self._set_meta(PRUNED_POS, str(max(known[PRUNED_POS], *(int(pos) for pos, _ in gone))))
            self._set_meta(PRUNED_FROM_MS, str(min(known[PRUNED_FROM_MS] or min(times), *times)))
            self._set_meta(PRUNED_TO_MS, str(max(known[PRUNED_TO_MS], *times)))
        return len(gone)

    # -- meta --

    def _has_tables(self, name: str = "%") -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name LIKE ?", (name,)).fetchone() is not None

    def _create(self, site: str) -> None:
        with self._db:
            self._db.execute(TABLES)
            for key, value in (("schema_version", str(SCHEMA_VERSION)), ("site", site), ("ledger_id", "")):
                self._set_meta(key, value)

    def set_id(self, ledger_id: str) -> None:
        """Name a new ledger; only once, before its first notice."""
        with self._db:
            self._set_meta("ledger_id", ledger_id)
        self.ledger_id = ledger_id

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )
