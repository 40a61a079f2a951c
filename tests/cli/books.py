"""Hand-made books of a finished demo: one crossing, one alarm, its notices, all of it delivered. Tests tear pages out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alerting import AlarmState, Category, State, Transition, TransitionKind
from alerting.delivery import NoticePlanner
from cli.demo_report import account
from config import parse_site
from tests.config.documents import SOUND

ENDED_MS = 1_000_000
SAMPLES = 3

TABLES = """
CREATE TABLE log (pos INTEGER PRIMARY KEY, kind, node, stream, first, samples, body);
CREATE TABLE transition (row INTEGER PRIMARY KEY, id, alarm_id, revision, kind, body);
CREATE TABLE alarm (id TEXT PRIMARY KEY, start_ms, body);
CREATE TABLE outbox (row INTEGER PRIMARY KEY, notice_id, transition_id, receiver, state, lane, sequence);
CREATE TABLE loss (node, stream, first, last, cause);
"""


class HandMadeBooks:
    """A demo's data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, parse_site(SOUND)
        for name in ("core", "edges/E1", "plant", "platform"):
            (folder / name).mkdir(parents=True)
        self.db = sqlite3.connect(folder / "core" / "ledger.sqlite3", isolation_level=None)
        self.db.executescript(TABLES)
        self.db.execute("INSERT INTO log VALUES (1, 'F', 'E1', 7, 1, ?, x'')", (SAMPLES,))
        _write(folder / "edges" / "E1" / "status.json", {"samples_taken": SAMPLES, "samples_acked": SAMPLES})
        _write(folder / "core" / "heartbeat.json", {"duplicates_dropped": 0})
        self.changes: list[dict[str, Any]] = []
        self.reads: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.cross("H", at_ms=10_000)
        self.alarm("a1", "H", at_ms=10_000)

    def cross(self, limit: str, *, at_ms: float, over: bool = True) -> None:
        """Let the plant show a crossing, and a reader read it at once."""
        number = len(self.changes) + 1
        self.changes.append(
            {"number": number, "tag": "T101.LEVEL", "limit": limit, "over": over, "holds": over,
             "value": 9.5 if over else 5.0, "at_ms": at_ms, "on_delay_s": 0.0}
        )  # fmt: skip
        self.reads.append({"number": number, "read_ms": at_ms + 1})

    def alarm(self, alarm_id: str, limit: str, *, at_ms: int) -> None:
        """Enter an alarm: its row, the journal, the outbox, and what the platform got."""
        state = AlarmState(
            id=alarm_id, site="TEST", category=Category.PROCESS, tag="T101.LEVEL", limit=limit, grade=2,
            state=State.ACTIVE_UNACKED, value=9.5, code=192, setpoint=9.0, unit="m", start_ms=at_ms,
        )  # fmt: skip
        step = Transition(
            id=alarm_id, alarm_id=alarm_id, revision=1, kind=TransitionKind.RAISED, alarm=state, engine_ms=at_ms, at_ms=at_ms
        )
        self.db.execute("INSERT INTO alarm VALUES (?, ?, ?)", (alarm_id, at_ms, json.dumps(state.to_json())))
        self.db.execute(
            "INSERT INTO transition (id, alarm_id, revision, kind, body) VALUES (?, ?, 1, 'raised', ?)",
            (step.id, alarm_id, json.dumps(step.to_json())),
        )
        for notice in NoticePlanner.compile(self.site).plan([step], 0):
            sequence = len(self.received) + 1
            self.db.execute(
                "INSERT INTO outbox (notice_id, transition_id, receiver, state, lane, sequence) VALUES (?,?,?,?,?,?)",
                (notice.id, step.id, notice.receiver, "accepted", notice.lane, sequence),
            )
            self.received.append(
                {"id": notice.id, "receiver": notice.receiver, "type": "alarm.raised", "lane": notice.lane,
                 "ledger": "L", "sequence": sequence, "duplicate": False, "late": False, "tag": "T101.LEVEL",
                 "limit": limit, "received_ms": at_ms + 20.0}
            )  # fmt: skip

    def missing(self, **restarts: int) -> list[str]:
        """Draw up the account; return what it misses."""
        return list(self.report(**restarts)["missing"])

    def report(self, **restarts: int) -> dict[str, Any]:
        """Draw up the account."""
        _lines(self.folder / "plant" / "register-changes.jsonl", self.changes)
        _lines(self.folder / "plant" / "register-reads.jsonl", self.reads)
        _lines(self.folder / "platform" / "received.jsonl", self.received)
        return account(self.site, self.folder, scenario="x", ran_s=1.0, ended_ms=ENDED_MS, restarts=restarts)


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")


def _lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


