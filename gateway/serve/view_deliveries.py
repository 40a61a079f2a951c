"""Deliveries: what waits for each receiver, and every notice with its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from alerting.delivery import LANES
from config import SiteConfig
from gateway.serve.models import (
    AttemptView,
    LaneNow,
    NoticePage,
    NoticeState,
    NoticeView,
    ReceiverNow,
)
from gateway.serve.view_errors import BadCursorError
from gateway.serve.view_heartbeat import Heartbeat
from gateway.serve.view_ledger import LedgerFile

PAGE_MAX: Final = 200
ATTEMPTS_SHOWN_MAX: Final = 50
ATTEMPTS_BACK_MAX: Final = 5_000
SLICE_ROWS: Final = 2_000
_NOTICE: Final = (
    "notice_id", "alarm_id", "transition_id", "receiver", "lane", "ledger_id", "sequence", "revision", "created_ms", "state",
    "attempts", "next_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The newest attempt of a receiver, and when one was last accepted."""

    at_ms: int
    outcome: str
    status: int | None
    detail: str
    accepted_ms: int | None


class Attempts:
    """Follows the attempts of each receiver."""

    def __init__(self) -> None:
        self.row = 0
        self.outbox_row = 0
        self.last: dict[str, LastAttempt] = {}

    def begin(self, file: LedgerFile) -> None:
        """Start with the newest attempts on record."""
        self.last.clear()
        ((newest,),) = file.rows("SELECT coalesce(max(row), 0) FROM attempt")
        self.row = max(0, newest - ATTEMPTS_BACK_MAX)
        ((self.outbox_row,),) = file.rows("SELECT coalesce(max(row), 0) FROM outbox")
        while self.follow(file) and self.row < newest:
            pass

    def follow(self, file: LedgerFile) -> bool:
        """Read what is new, a slice of it; return whether there was anything."""
        ((outbox_row,),) = file.rows("SELECT coalesce(max(row), 0) FROM outbox")
        rows = file.rows(
            "SELECT a.row, o.receiver, a.at_ms, a.outcome, a.status, a.detail FROM attempt a"
            " LEFT JOIN outbox o ON o.notice_id = a.notice_id WHERE a.row > ? ORDER BY a.row LIMIT ?",
            (self.row, SLICE_ROWS),
        )
        new = bool(rows) or outbox_row != self.outbox_row
        self.outbox_row = outbox_row
        for row, receiver, at_ms, outcome, status, detail in rows:
            self.row = row
            if receiver is None:
                continue
            before = self.last.get(receiver)
            accepted_ms = at_ms if outcome == "accepted" else None if before is None else before.accepted_ms
            self.last[receiver] = LastAttempt(at_ms, outcome, status, detail, accepted_ms)
        return new


def read_receivers(
    file: LedgerFile, site: SiteConfig, heartbeat: Heartbeat, last: Mapping[str, LastAttempt]
) -> tuple[ReceiverNow, ...]:
    """Return how delivery to every receiver of the site stands."""
    waiting: dict[tuple[str, str, str], tuple[int, int]] = {}
    for receiver, lane, state, count, oldest_ms in file.rows(
        "SELECT receiver, lane, state, count(*), min(created_ms) FROM outbox WHERE state <> 'accepted'"
        " GROUP BY receiver, lane, state"
    ):
        waiting[receiver, lane, state] = (count, oldest_ms)
    sequences: dict[tuple[str, str], int] = {}
    for receiver, lane, newest in file.rows(
        "SELECT receiver, lane, last FROM sequence WHERE ledger_id = (SELECT value FROM meta WHERE key = 'ledger_id')"
    ):
        sequences[receiver, lane] = newest

    def lane_now(receiver: str, lane: str) -> LaneNow:
        due, parked = (waiting.get((receiver, lane, state), (0, None)) for state in ("due", "parked"))
        oldest = [oldest_ms for _, oldest_ms in (due, parked) if oldest_ms is not None]
        return LaneNow(lane, due[0], parked[0], sequences.get((receiver, lane), 0), min(oldest, default=None))

    found = []
    for config in site.receivers:
        said = heartbeat.receiver(config.id) if heartbeat.state == "running" else {}
        attempt = last.get(config.id)
        found.append(
            ReceiverNow(
                config.id, config.name.zh, config.name.en, config.regulator,
                down=bool(said["down"]) if "down" in said else None,
                detail=str(said.get("detail", "")),
                accepted=int(said["accepted"]) if "accepted" in said else None,
                lanes=tuple(lane_now(config.id, lane) for lane in LANES),
                last_accepted_ms=None if attempt is None else attempt.accepted_ms,
                last_attempt_ms=None if attempt is None else attempt.at_ms,
                last_outcome="" if attempt is None else attempt.outcome,
                last_status=None if attempt is None else attempt.status,
                last_detail="" if attempt is None else attempt.detail,
            )
        )  # fmt: skip
    return tuple(found)


def read_notices(
    file: LedgerFile, *, receiver: str | None, state: NoticeState | None, before: str | None, limit: int
) -> NoticePage:
    """Read one page of notices, newest first."""
    limit = max(1, min(limit, PAGE_MAX))
    where, parameters = ["1"], list[Any]()
    if before is not None:
        if not before.isdecimal() or len(before) > 18:
            raise BadCursorError(before[:200])
        where, parameters = ["row < ?"], [int(before)]
    if receiver is not None:
        where.append("receiver = ?")
        parameters.append(receiver)
    if state is not None:
        # With a '+' the order by row stays cheap for accepted ones, which no index knows.
        where.append("state <> 'accepted' AND +state = ?" if state != "accepted" else "+state = ?")
        parameters.append(state)
    sql = f"SELECT row, {', '.join(_NOTICE)} FROM outbox WHERE {' AND '.join(where)} ORDER BY row DESC LIMIT ?"  # noqa: S608 - bound values
    rows = file.rows(sql, (*parameters, limit + 1))
    items = tuple(
        NoticeView(**dict(zip(_NOTICE, row[1:], strict=True)), attempt_list=_attempts(file, row[1])) for row in rows[:limit]
    )
    return NoticePage(items, str(rows[limit - 1][0]) if len(rows) > limit else None)


def _attempts(file: LedgerFile, notice_id: str) -> tuple[AttemptView, ...]:
    newest = file.rows(
        "SELECT attempt, at_ms, outcome, status, detail FROM attempt WHERE notice_id = ? ORDER BY row DESC LIMIT ?",
        (notice_id, ATTEMPTS_SHOWN_MAX),
    )
    return tuple(AttemptView(*row) for row in reversed(newest))
