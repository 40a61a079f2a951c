"""The ledger's tables. The ledger is the store of record: everything else can be rebuilt from it.

`log` is the engine's input log: replaying it through the same engine gives the same state.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 2

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Tags keep their number for ever, so that a stored frame never changes its meaning.
CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- kind: see gateway.core.entries.EntryKind. first/last: frame numbers in the stream, 0 when not a frame.
-- late_upto: frames of the row numbered up to here were late. fresh: JSON [[lo, hi], ...] of the frames of a block that
-- were not here before, NULL: all are new. refused: JSON [tag, ...] of a block's tags that were another node's when it was
-- committed, NULL: none. All three are outputs: replay does not read them.
CREATE TABLE log (
  pos INTEGER PRIMARY KEY, kind TEXT NOT NULL, engine_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
  node TEXT NOT NULL, device TEXT NOT NULL, stream INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, samples INTEGER NOT NULL, body BLOB NOT NULL,
  late_upto INTEGER NOT NULL DEFAULT 0, fresh TEXT, refused TEXT
);
CREATE INDEX log_frames ON log (node, stream, first) WHERE kind = 'F';
CREATE INDEX log_blocks ON log (node, stream, last) WHERE kind = 'B';
CREATE INDEX log_revisions ON log (pos) WHERE kind = 'C';
CREATE INDEX log_historical ON log (pos) WHERE kind = 'H';

-- The journal: what happened to alarms, hash-chained in order of `row`.
CREATE TABLE transition (
  row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, pos INTEGER NOT NULL, alarm_id TEXT NOT NULL,
  revision INTEGER NOT NULL, kind TEXT NOT NULL, at_ms INTEGER NOT NULL, engine_ms INTEGER NOT NULL,
  late INTEGER NOT NULL, actor TEXT, body TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX transition_alarm ON transition (alarm_id, revision);

CREATE TABLE alarm (
  id TEXT PRIMARY KEY, state TEXT NOT NULL, grade INTEGER NOT NULL, category TEXT NOT NULL,
  subject TEXT NOT NULL, kind TEXT NOT NULL, start_ms INTEGER NOT NULL, late INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX alarm_state ON alarm (state, start_ms);

-- state: due | accepted | parked
CREATE TABLE outbox (
  row INTEGER PRIMARY KEY, notice_id TEXT NOT NULL UNIQUE, transition_id TEXT NOT NULL, alarm_id TEXT NOT NULL,
  receiver TEXT NOT NULL, lane TEXT NOT NULL, ledger_id TEXT NOT NULL, sequence INTEGER NOT NULL,
  revision INTEGER NOT NULL, created_ms INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
  next_ms INTEGER, body TEXT NOT NULL,
  UNIQUE (ledger_id, receiver, lane, sequence)
);
CREATE INDEX outbox_due ON outbox (state, receiver, lane, sequence) WHERE state <> 'accepted';

CREATE TABLE attempt (
  row INTEGER PRIMARY KEY, notice_id TEXT NOT NULL, attempt INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL, status INTEGER, detail TEXT NOT NULL
);
CREATE INDEX attempt_notice ON attempt (notice_id);

-- What is committed of each stream, for people and tests; core's own copy is rebuilt from snapshot and log.
CREATE TABLE stream (
  node TEXT NOT NULL, stream INTEGER NOT NULL, upto INTEGER NOT NULL, intervals TEXT NOT NULL,
  last INTEGER, predecessor INTEGER NOT NULL, predecessor_last INTEGER NOT NULL, last_source_ms INTEGER NOT NULL,
  touched_ms INTEGER NOT NULL, PRIMARY KEY (node, stream)
) WITHOUT ROWID;

CREATE TABLE loss (
  row INTEGER PRIMARY KEY, pos INTEGER NOT NULL, node TEXT NOT NULL, stream INTEGER NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, cause TEXT NOT NULL, at_ms INTEGER NOT NULL
);

CREATE TABLE sequence (
  ledger_id TEXT NOT NULL, receiver TEXT NOT NULL, lane TEXT NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (ledger_id, receiver, lane)
) WITHOUT ROWID;
"""
