"""The read model: what the ledger and core's heartbeat say of tags, alarms, deliveries and edges, kept up to date.

`refresh` is called by one thread and reads what is new; everything else may be called from any thread at any time. It
only reads, holds no transaction between calls, and says what it does not know: no tag looks normal here that is not
known to be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from config import SiteConfig
from gateway.core import HEARTBEAT_NAME, LEDGER_NAME
from gateway.core.revision import revision_of
from gateway.serve import view_alarms, view_start
from gateway.serve.models import (
    AlarmListing,
    AlarmPage,
    AlarmView,
    Changes,
    EdgeNow,
    Health,
    LedgerState,
    NoticePage,
    NoticeState,
    Position,
    ReceiverNow,
    TagNow,
)
from gateway.serve.recent import RecentFrames
from gateway.serve.tail import LogRow, ReadRows, Tail, read_rows
from gateway.serve.turnstile import Turnstile
from gateway.serve.view_deliveries import Attempts, read_notices, read_receivers
from gateway.serve.view_edges import Backlog, Losses, edge_now, read_backlog
from gateway.serve.view_errors import AWAY, LedgerAwayError, OutOfTimeError
from gateway.serve.view_heartbeat import SILENT_S_MAX, Heartbeat
from gateway.serve.view_ledger import LedgerFile, LedgerPool, log_of
from gateway.serve.view_tags import Judged, TagRows

log = logging.getLogger(__name__)

SLICE_ROWS: Final = 1_000
ROWS_A_REFRESH_MAX: Final = 5_000
BEHIND_ROWS_MAX: Final = 100_000  # further behind, the view begins anew at the end
TRANSITIONS_SLICE: Final = 2_000
REFRESH_S_MAX: Final = 2.0
FRAME_TOLD_MS: Final = 5_000  # how often a healthy edge is told of for its newest frame alone
QUESTION_S_MAX: Final = 4.0
QUESTIONS_AT_ONCE: Final = 3  # the API's two reading threads, and the refresher that tells of changes


class LedgerView:
    """Follows `core_folder`'s ledger and heartbeat for one site."""

    def __init__(
        self, site: SiteConfig, core_folder: Path, wall_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic, recent: RecentFrames | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:  # fmt: skip
        """Read nothing yet: `refresh` does.

        Args:
            wall_ms: UTC epoch milliseconds now.
            monotonic: seconds of a clock that never jumps; judges whether core lives.
            recent, turnstile: where the newest frames are kept, and what all reads pass; give both to `HistoryReader`.
        """
        self._site, self._path, self._wall_ms = site, core_folder / LEDGER_NAME, wall_ms
        self.recent = RecentFrames() if recent is None else recent
        self._lock = threading.RLock()  # guards everything below that `refresh` changes
        self.turnstile = Turnstile(log_of(self._path), monotonic) if turnstile is None else turnstile
        self._file = LedgerFile(self._path, site.site, self.turnstile)
        self._pool = LedgerPool(lambda: LedgerFile(self._path, site.site, self.turnstile), QUESTIONS_AT_ONCE)
        self._heartbeat = Heartbeat(core_folder / HEARTBEAT_NAME, wall_ms, monotonic)
        self._tail = Tail(site, self.recent)
        self._standing = view_alarms.Standing()
        self._words = view_alarms.AlarmWords(site)
        self._attempts, self._losses = Attempts(), Losses()
        self._rows = TagRows(site)
        self._revision = revision_of(site)
        self._ledger_id = ""
        self._transition_row = 0
        self._state: LedgerState = "starting"
        self._detail = f"{self._path}: not looked at yet"
        self._logged: LedgerState = "ok"
        self._why = AWAY["unreadable"][0]
        self._monotonic = monotonic
        self._read_s = self._refreshed_s = monotonic()  # when the ledger was read, and when it was tried, last
        self._current_s = monotonic()  # when it held, last, all that core had evaluated
        self._behind = False
        self._began = False
        self._judged = self._judge()
        self._edges_seen: dict[str, object] = {}
        self._receivers_seen: tuple[object, ...] = ()
        self._health_seen: tuple[object, ...] = ()

    # -- following --

    def refresh(self) -> Changes:
        """Read what is new since the last call. One thread's; bounded in rows and time."""
        self._heartbeat.look()
        self._refreshed_s = self._monotonic()
        alarms: list[str] = []
        deliveries = reset = False
        try:
            if self.turnstile.look():
                reset = self._open()
                if not reset:
                    alarms, deliveries = self._follow()
                self._state, self._detail, self._read_s = "ok", "", self._refreshed_s
        except LedgerAwayError as error:
            reset = self._away(error)
        except OutOfTimeError:
            self._state, self._detail = "unreadable", f"{self._path}: a read took over {REFRESH_S_MAX:g} s"
            self._why = AWAY["unreadable"][0]
        self._log_state()
        if not self._lags():
            self._current_s = self._refreshed_s
        with self._lock:
            before, self._judged = self._judged, self._judge()
            edges = self._changed_edges()
            tags = self._judged.tag_ids() if reset else self._judged.changed_since(before)
            deliveries |= self._receivers_changed() or reset
            health = self._health_changed()
            return Changes(
                self._position(), reset, tags, tuple(dict.fromkeys(alarms)), edges, deliveries, health, self._behind
            )

    def _open(self) -> bool:
        """Make sure that we follow the ledger that is there now; begin anew where it is another one."""
        opened = self._file.open()
        self._file.give_up_after(REFRESH_S_MAX)
        ledger_id = self._file.ledger_id()
        if not ledger_id:
            raise LedgerAwayError("missing", f"{self._path}: core has not named it yet")
        ((last_pos,),) = self._file.rows("SELECT coalesce(max(pos), 0) FROM log")
        goes_on = (
            self._began and not opened and ledger_id == self._ledger_id
            and self._tail.pos <= last_pos <= self._tail.pos + BEHIND_ROWS_MAX
        )  # fmt: skip
        if goes_on:
            return False
        self._begin(ledger_id)
        return True

    def _begin(self, ledger_id: str) -> None:
        """Look at a ledger for the first time."""
        self._began = False
        tail, attempts, losses = Tail(self._site, self.recent), Attempts(), Losses()
        view_start.begin(tail, self._file, ledger_id, self._heartbeat)
        self._file.give_up_after(REFRESH_S_MAX)
        ((transition_row,),) = self._file.rows("SELECT coalesce(max(row), 0) FROM transition")
        standing, too_many = view_alarms.read_standing(self._file)
        attempts.begin(self._file)
        losses.follow(self._file)
        with self._lock:
            self._tail, self._attempts, self._losses = tail, attempts, losses
            self._standing.load(standing, too_many=too_many)
            self._rows.know_alarms(self._standing)
            self._ledger_id, self._transition_row = ledger_id, transition_row
            self._began, self._behind = True, False

    def _away(self, error: LedgerAwayError) -> bool:
        """Note why there is nothing to read. What was read stays, as last known; only a file that went away ends it."""
        assert error.state in ("missing", "unreadable", "foreign", "other_schema", "other_site")
        changed = error.state != self._state
        self._state, self._detail = error.state, error.detail  # type: ignore[assignment]  # asserted above
        self._why = error.told
        if error.state != "unreadable":
            self._began = False
            return changed
        return False

    def _log_state(self) -> None:
        """Say once that the ledger is away, and once that it is back; a file that is busy for a moment is neither."""
        passing = self._state == "unreadable" and self._refreshed_s - self._read_s <= SILENT_S_MAX
        if self._state == self._logged or passing:
            return
        self._logged = self._state
        if self._state == "ok":
            log.info("the ledger is read: %s", self._path)
        else:
            log.warning("%s (%s: %s)", self._why, self._state, self._detail)

    def _follow(self) -> tuple[list[str], bool]:
        """Read the rows that came since; return ids of changed alarms and whether deliveries moved."""
        read, changed, moved = 0, list[str](), False
        while True:
            with self._file.at_once():
                rows = self._log_rows()
                frames = read_rows(rows)
                names = self._missing_names(frames)
                steps = self._file.rows(
                    f"SELECT row, alarm_id FROM transition WHERE row > ? ORDER BY row LIMIT {TRANSITIONS_SLICE}",  # noqa: S608 - our own constants
                    (self._transition_row,),
                )
                ids = dict.fromkeys(alarm_id for _, alarm_id in steps)
                alarms = view_alarms.read_alarm_states(self._file, ids)
                moved |= self._attempts.follow(self._file)
                self._losses.follow(self._file)
            with self._lock:
                if names:
                    self._tail.use_tag_names(names)
                self._tail.take_all(frames)
                for alarm in alarms:
                    self._standing.take(alarm)
                if alarms:
                    self._rows.know_alarms(self._standing)
                self._transition_row = steps[-1][0] if steps else self._transition_row
            changed += ids
            read += len(rows)
            self._behind = len(rows) == SLICE_ROWS or len(steps) == TRANSITIONS_SLICE
            if not self._behind or read >= ROWS_A_REFRESH_MAX or len(changed) >= TRANSITIONS_SLICE:
                return changed, moved

    def _log_rows(self) -> list[LogRow]:
        sql = f"SELECT {view_start.COLUMNS} FROM log WHERE pos > ? ORDER BY pos LIMIT {SLICE_ROWS}"  # noqa: S608 - our own
        return [LogRow(*row) for row in self._file.rows(sql, (self._tail.pos,))]

    def _missing_names(self, read: ReadRows) -> dict[int, str]:
        """Return the tag table if a frame speaks of a tag that is not in the one we have."""
        if self._tail.knows_tags_of(read):
            return {}
        return dict(self._file.rows("SELECT id, name FROM tag"))

    # -- what it means --

    def _lags(self) -> bool:
        """Whether core knows more than we have read: its disk is too slow for it, or ours is another file."""
        beat = self._heartbeat
        return bool(beat.said.get("unjournaled")) or beat.number("committed_pos") > self._tail.pos

    def _judge(self) -> Judged:
        now = self._monotonic()
        # A busy file is tried again; only if that goes on does nobody know any more what it says.
        readable = self._state == "ok" or (self._state == "unreadable" and now - self._read_s <= SILENT_S_MAX)
        ledger_ok = readable and now - min(self._refreshed_s, self._current_s) <= SILENT_S_MAX
        core_ok = self._heartbeat.state == "running" and self._heartbeat.said.get("ledger") == self._ledger_id
        return self._rows.judge(self._tail, self._heartbeat, core_ok=core_ok, ledger_ok=ledger_ok)

    def _judged_now(self) -> Judged:
        """Return the last judgement, or a new one where nobody has refreshed for too long."""
        too_old = self._monotonic() - self._refreshed_s > SILENT_S_MAX
        return self._judge() if too_old else self._judged

    def _changed_edges(self) -> frozenset[str]:
        changed = set()
        for name, node in self._tail.nodes.items():
            line = self._heartbeat.node(name)
            seen = (
                node.online, node.live, node.since_ms, node.config_wrong, self._heartbeat.state, line.get("unsettled"),
                self._losses.count.get(name), self._standing.conditions_of(name),
                None if node.last_frame_ms is None else node.last_frame_ms // FRAME_TOLD_MS,
            )  # fmt: skip
            if self._edges_seen.get(name) != seen:
                changed.add(name)
                self._edges_seen[name] = seen
        return frozenset(changed)

    def _receivers_changed(self) -> bool:
        """Whether core says something else of a receiver, or says nothing any more: no row of the ledger tells that."""
        running = self._heartbeat.state == "running"
        seen = tuple(
            (said.get("down"), said.get("detail"))
            for said in (self._heartbeat.receiver(each.id) if running else {} for each in self._site.receivers)
        )
        changed, self._receivers_seen = seen != self._receivers_seen, seen
        return changed

    def _health_changed(self) -> bool:
        said = self._heartbeat.said
        seen = (
            self._heartbeat.state, self._state, said.get("connected"), said.get("unjournaled"), said.get("overflow"),
            self._judged.counts(), tuple(self._standing.by_grade().values()),
        )  # fmt: skip
        changed, self._health_seen = seen != self._health_seen, seen
        return changed

    def _position(self) -> Position:
        return Position(self._ledger_id, self._tail.pos)

    # -- answers from memory --

    def health(self) -> Health:
        """Return how the chain stands."""
        with self._lock:
            beat = self._heartbeat
            good, uncertain, bad, unknown = self._judged_now().counts()
            reasons = self._reasons()
            return Health(
                at_ms=self._wall_ms(), core=beat.state, ledger=self._state, ledger_detail=self._detail,
                degraded=bool(reasons), reasons=reasons, heartbeat_age_ms=beat.age_ms(),
                cycles=beat.optional("cycles", int), engine_ms=beat.optional("engine_ms", int),
                connected=beat.optional("connected", bool), samples_committed=beat.optional("samples_committed", int),
                unjournaled=beat.optional("unjournaled", bool), overflow=beat.optional("overflow", bool),
                commit_ms_p50=beat.optional("commit_ms_p50", float), commit_ms_p99=beat.optional("commit_ms_p99", float),
                position=self._position(), committed_pos=beat.optional("committed_pos", int),
                ledger_bytes=self._bytes(), config_current=self._config_current(),
                tags_good=good, tags_uncertain=uncertain, tags_bad=bad, tags_unknown=unknown,
                standing=self._standing.by_grade(),
            )  # fmt: skip

    def _reasons(self) -> tuple[str, ...]:
        beat, said = self._heartbeat, self._heartbeat.said
        receivers = said.get("deliveries")
        offline = any(node.online is False for node in self._tail.nodes.values())
        known = {
            f"core.{beat.state}": beat.state != "running",
            f"ledger.{self._state}": self._state != "ok",
            "heartbeat.other_ledger": self._state == "ok" and bool(said) and said.get("ledger") != self._ledger_id,
            "broker.disconnected": said.get("connected") is False,
            "unjournaled": bool(said.get("unjournaled")),
            "overflow": bool(said.get("overflow")),
            "config.differs": self._config_current() is False,
            "receiver.down": any(bool(beat.receiver(each).get("down")) for each in receivers)
            if isinstance(receivers, dict) else False,
            "edge.offline": offline,
            "edge.unknown": any(node.online is None for node in self._tail.nodes.values()),
            "edge.doubted": any("IDENTITY" in self._standing.conditions_of(edge.id) for edge in self._site.edges),
            "behind": self._behind or self._monotonic() - self._current_s > SILENT_S_MAX,
            "alarms.too_many": self._standing.too_many,
        }  # fmt: skip
        return tuple(word for word, holds in known.items() if holds)

    def _config_current(self) -> bool | None:
        return None if self._tail.revision is None else self._tail.revision == self._revision

    def _bytes(self) -> int | None:
        try:
            size = self._path.stat().st_size
            log = log_of(self._path)
            return size + (log.stat().st_size if log.exists() else 0)
        except OSError:
            return None

    def tags(self, only: Collection[str] | None = None) -> Sequence[TagNow]:
        """Return every tag, or these of them, in the site's order."""
        index = self._site.tag_index
        places = range(len(self._site.tags)) if only is None else sorted(index[tag] for tag in only if tag in index)
        with self._lock:
            now_ms, judged = self._wall_ms(), self._judged_now()
            return self._rows.now(places, self._tail.tags, judged, now_ms)

    def tag(self, tag_id: str) -> TagNow | None:
        """Return one tag, None where the site has none of this id."""
        at = self._site.tag_index.get(tag_id)
        if at is None:
            return None
        with self._lock:
            return self._rows.now([at], self._tail.tags, self._judged_now(), self._wall_ms())[0]

    # -- answers from the ledger: LedgerAwayError where it cannot be read, OutOfTimeError where that takes too long --

    def alarms(
        self, *, state: AlarmListing = "open", grade_min: int = 1, tag: str | None = None, before: str | None = None,
        limit: int = 200,
    ) -> AlarmPage:  # fmt: skip
        """Return one page of alarms.

        Open ones: unacknowledged first, then the gravest, standing before returned, the newest. Others: newest first.

        Args:
            tag: only of this tag or system condition. before: `next` of the page before. limit: 1..500.

        Raises:
            BadCursorError, LedgerAwayError, OutOfTimeError.
        """
        with self._pool.lend(QUESTION_S_MAX) as file:
            position = self._position()
            return view_alarms.read_page(
                file, self._words, state=state, grade_min=grade_min, tag=tag, before=before, limit=limit, position=position
            )

    def alarm(self, alarm_id: str, within_s: float = QUESTION_S_MAX) -> AlarmView | None:
        """Return one alarm with its transitions, None where there is none of this id. Raises as `alarms`."""
        with self._pool.lend(within_s) as file:
            return view_alarms.read_alarm(file, self._words, alarm_id)

    def deliveries(self, within_s: float = QUESTION_S_MAX) -> Sequence[ReceiverNow]:
        """Return how delivery to every receiver of the site stands. Raises as `alarms`."""
        with self._pool.lend(within_s) as file:
            return read_receivers(file, self._site, self._heartbeat, dict(self._attempts.last))

    def notices(
        self, *, receiver: str | None = None, state: NoticeState | None = None, before: str | None = None, limit: int = 100
    ) -> NoticePage:
        """Return one page of notices with their attempts, newest first. limit: 1..200. Raises as `alarms`."""
        with self._pool.lend(QUESTION_S_MAX) as file:
            return read_notices(file, receiver=receiver, state=state, before=before, limit=limit)

    def edges(self, only: Collection[str] | None = None, within_s: float = QUESTION_S_MAX) -> Sequence[EdgeNow]:
        """Return every edge of the site, or these. Where the ledger cannot be read their backlog is not known."""
        edges = [edge for edge in self._site.edges if only is None or edge.id in only]
        backlog = dict[str, Backlog]()
        try:
            with self._pool.lend(within_s) as file:
                for edge in edges:
                    backlog[edge.id] = read_backlog(file, edge.id, self._tail.nodes[edge.id].live)
        except (LedgerAwayError, OutOfTimeError):
            pass
        with self._lock:
            return [
                edge_now(
                    edge, self._tail.nodes[edge.id], self._heartbeat, self._losses, self._standing.conditions_of(edge.id),
                    backlog.get(edge.id), self._rows.count_of(edge.id),
                )
                for edge in edges
            ]  # fmt: skip

    def close(self) -> None:
        """Let go of the ledger."""
        self._file.close()
        self._pool.close()
