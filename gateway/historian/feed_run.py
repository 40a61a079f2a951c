"""Feeds one store: a thread that sends what is new, fills holes at a pace, and keeps its cursors behind what the store keeps.

The thread and what it holds (one piece of a few MB) are bounded, and nobody waits for it. A store that is away costs lag.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config import TimeSeriesStoreConfig
from gateway.historian import feed_files
from gateway.historian.feed import (
    LIVE_FRESH_MS,
    Cursors,
    Pace,
    begun,
    filled,
    is_behind,
    left_behind,
    put_off,
    renewed,
    sent,
    tried_again,
    wait_after,
)  # fmt: skip
from gateway.historian.feed_source import FeedSource, Head, Piece, SourceBusyError
from gateway.historian.feed_witness import BEFORE_MS, Witnesses, believed, shows
from gateway.historian.samples import DAY_MS
from gateway.historian.store import Historian, HistorianError, StoreAwayError, StoreRefusedError

log = logging.getLogger(__name__)

NICE: Final = 12
IDLE_S: Final = 0.5
HOLE_BATCHES: Final = 4
"""Of a hole so many batches are read at once: looking into a segment costs the same for few rows as for many."""
NO_LEDGER_S: Final = 1.0
SAVE_S: Final = 1.0
CLOSE_S_MAX: Final = 2.0
AGAIN_S: Final = 300.0
"""What of our own could not be read is left so long, then tried again; it costs the store nothing."""
TROUBLE_S: Final = 10.0
VICTORIA_SETTLE_S: Final = 10.0
"""VictoriaMetrics has lost all of what it had answered for within some seconds of a kill; it syncs every five."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """UTC epoch milliseconds, and seconds that never run back."""

    wall_ms: Callable[[], int]
    monotonic: Callable[[], float]


class Feed:
    """One store's feeding. `start` and `close` from outside, `status` from any thread; the rest is the thread's own."""

    def __init__(
        self, config: TimeSeriesStoreConfig, open_store: Callable[[], Historian], open_source: Callable[[], FeedSource],
        folder: Path, clocks: Clocks,
    ) -> None:  # fmt: skip
        """Nothing is opened yet.

        Args:
            open_store: may raise what says that a person must act (HistorianError, or an error with `message_zh`).
            folder: of cursors and quarantine, `<data>/historian/feeds`.
        """
        self.config = config
        self._open_store, self._open_source, self._folder, self._clocks = open_store, open_source, folder, clocks
        victoria = config.kind == "victoriametrics"
        self._settle_s = max(config.settle_s, VICTORIA_SETTLE_S) if victoria else config.settle_s
        self._store: Historian | None = None
        self._source: FeedSource | None = None
        self._cursors: Cursors | None = None
        self._kept: Cursors | None = None
        self._settling: deque[tuple[float, Cursors]] = deque()
        self._restarted: Callable[[], bool] | None = None  # tells whether the store's process is another one
        self._quarantine: feed_files.Quarantine | None = None
        self._witnesses = Witnesses()
        self._lacks = False  # what it has shown, so soon after it was fed from the beginning that it is not again
        self._pace = Pace(config.catch_up_rows_per_s)
        self._failures, self._not_before_s, self._saved_s = 0, 0.0, -SAVE_S
        self._again_s, self._unread = 0.0, ""  # when to try what was put off, and the newest of the reasons
        self._told: tuple[str, str, str] = ("catching up", "", "")
        self._head: Head | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{config.id}", daemon=True)
        self._lock = threading.Lock()
        self._status = self._status_now()

    # -- from outside --

    def start(self) -> None:
        """Begin to feed."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after what it does now."""
        self._stop.set()

    def close(self, within_s: float = CLOSE_S_MAX) -> None:
        """End the thread; what it sends just now is sent again after the next start."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(max(0.0, within_s))

    def status(self) -> dict[str, Any]:
        """Return where the store stands, as `status.json` has it."""
        with self._lock:
            return dict(self._status)

    # -- the thread --

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # a courtesy to the rest of serve, not a need
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._stop.is_set():
            self._stop.wait(self.round())
        with suppress(OSError, HistorianError):
            self._keep(self._clocks.monotonic(), last=True)
        if self._store is not None:
            self._store.close()
        if self._source is not None:
            self._source.close()

    def round(self) -> float:
        """Do one piece of work; return how long to rest in seconds. Nothing is raised."""
        try:
            rest = self._work()
        except (StoreAwayError, StoreRefusedError) as error:
            rest = self._failed(error)
        except SourceBusyError as error:
            log.debug("feeding store %s: %s", self.config.id, error)
            rest = NO_LEDGER_S
        except Exception as error:  # nothing here may end serve; a person reads it in the status, and it goes on
            told, told_zh = _in_words(error, self._folder)
            if told != self._told[1]:
                expected = hasattr(error, "message_zh") or isinstance(error, OSError)
                log.error("feeding store %s: %s", self.config.id, told, exc_info=not expected)
            self._told = ("refused" if hasattr(error, "message_zh") else "away", told, told_zh)
            self._forget()
            rest = TROUBLE_S
        status = self._status_now()
        with self._lock:
            self._status = status
        return rest

    def _work(self) -> float:
        now_s = self._clocks.monotonic()
        if now_s < self._not_before_s:
            return self._not_before_s - now_s
        if self._source is None:
            self._source = self._open_source()
        if self._quarantine is None:
            self._quarantine = feed_files.Quarantine(self._folder, self.config.id)
        source = self._source
        if not self._stand(source):
            return NO_LEDGER_S
        if self._store is None:
            self._store = self._open_store()
            self._restarted = getattr(self._store, "restarted", None) if self._settle_s else None
            if self._restarted is not None:
                self._restarted()  # from now on it knows
        self._ask_for_witnesses(source, self._store)
        did = self._send_live(source, self._store)
        did = self._send_events(source, self._store) or did
        try:
            wait_s = self._fill(source, self._store)
        except SourceBusyError as error:  # the present goes on, and so does what is written down of it
            log.debug("feeding store %s: %s", self.config.id, error)
            wait_s = NO_LEDGER_S
        assert self._cursors is not None
        self._keep(self._clocks.monotonic())
        if not self._failures:
            self._told = ("catching up" if self._cursors.holes else "live", *self._told_besides())
        if did:
            return 0.0
        return IDLE_S if wait_s is None else min(IDLE_S, wait_s)

    def _stand(self, source: FeedSource) -> bool:
        """Bring the cursors to the ledger that is there; returns whether there is one."""
        if self._cursors is None:
            self._cursors = self._kept = feed_files.load(self._folder, self.config.id)
        after = 0 if self._cursors is None else self._cursors.live
        head = self._head = source.head(after)
        if head is None or not head.ledger:
            return False
        now_ms = self._clocks.wall_ms()
        if self._cursors is None:
            self._cursors = begun(head.ledger, head.ancestry, head.pos, source.sealed(), now_ms)
        elif self._cursors.ledger != head.ledger:
            self._cursors = renewed(self._cursors, head.ledger, head.ancestry, head.pos, source.sealed(), now_ms)
            self._head = head = source.head(self._cursors.live) or head
        if head.oldest_ms is not None and is_behind(head.oldest_ms, now_ms):
            upto = min(head.pos, source.upto(self._cursors.live, now_ms - LIVE_FRESH_MS))
            self._cursors = left_behind(self._cursors, upto, head.oldest_ms)
        return True

    def _ask_for_witnesses(self, source: FeedSource, store: Historian) -> None:
        """When it is time, ask a store for what it has shown before: without it, feed it from the beginning; else renew it."""
        now_s, now_ms = self._clocks.monotonic(), self._clocks.wall_ms()
        if not self._witnesses.due(now_s):
            return
        cursors = self._cursors
        assert cursors is not None
        before_ms = BEFORE_MS if self.config.kind == "victoriametrics" else 0
        known = believed(cursors.witnesses, self.config.retention_days, now_ms)
        found = shows(store, known, before_ms) if known else True
        if found is None:
            self._witnesses.later(now_s)
        elif found:
            self._lacks = False
            new = self._witnesses.shown(store, now_s, before_ms)
            if new:
                self._moved(replace(cursors, witnesses=new))
        elif 0 <= now_ms - cursors.anew_ms < DAY_MS:  # a store that loses it again and again is not sent everything for ever
            if not self._lacks:
                log.warning("store %s: %s", self.config.id, _lacks(self.config.id, cursors.anew_ms)[0])
            self._lacks = True
            self._witnesses.later(now_s)
        else:
            self._begin_anew(source, now_ms)

    def _begin_anew(self, source: FeedSource, now_ms: int) -> None:
        """Feed a store from the beginning. On the disk at once, or a kill of the store would lead back to what it lost."""
        cursors, head = self._cursors, self._head
        assert cursors is not None
        assert head is not None
        anew = replace(begun(head.ledger, head.ancestry, head.pos, source.sealed(), now_ms), anew_ms=now_ms)
        feed_files.save(self._folder, self.config.id, anew)
        log.warning(
            "store %s does not show what it has shown before (%s): it was emptied or restored, or another one answers; it is fed from"
            " the beginning", self.config.id, cursors.witnesses,
        )  # fmt: skip
        self._settling.clear()
        self._cursors = self._kept = anew
        self._witnesses, self._lacks = Witnesses(), False

    def _send_live(self, source: FeedSource, store: Historian) -> bool:
        cursors, head = self._cursors, self._head
        assert cursors is not None
        assert head is not None
        if head.pos <= cursors.live:
            return False
        piece = source.live(cursors.live + 1, head.pos, self.config.batch_rows)
        if piece.stem or piece.unread or piece.upto <= cursors.live:  # it has left the ledger: no present any more
            since_ms = self._clocks.wall_ms() if head.oldest_ms is None else head.oldest_ms
            self._moved(left_behind(cursors, head.pos, since_ms))
            return False
        self._write(store, piece)
        self._moved(sent(cursors, piece.upto))
        self._witnesses.sent(piece.samples, self._clocks.monotonic(), self._clocks.wall_ms())
        return len(piece.samples) > 0 or piece.upto < head.pos

    def _fill(self, source: FeedSource, store: Historian) -> float | None:
        """Send the next piece of the first hole when the pace allows; return how long the next has to wait, None: no hole."""
        cursors = self._cursors
        assert cursors is not None
        if not cursors.holes and cursors.parked and self._clocks.monotonic() >= self._again_s:
            cursors = self._cursors = tried_again(cursors)
        if not cursors.holes:
            return None
        began_s = self._clocks.monotonic()  # what the write itself takes counts, or the pace is never reached
        wait_s = self._pace.wait_s(began_s)
        if wait_s > 0:
            return wait_s
        piece = source.hole(cursors.holes[0], HOLE_BATCHES * self.config.batch_rows)
        self._write(store, piece)
        self._pace.took(len(piece.samples), began_s)
        if piece.unread is not None:
            if piece.why != self._unread:
                log.error("feeding store %s: %s; its samples are sent once it can be read", self.config.id, piece.why)
            self._unread, self._again_s = piece.why, self._clocks.monotonic() + AGAIN_S
            cursors = put_off(cursors, piece.unread)
        self._moved(filled(cursors, piece.upto, piece.stem, piece.row))
        return self._pace.wait_s(self._clocks.monotonic())

    def _send_events(self, source: FeedSource, store: Historian) -> bool:
        cursors = self._cursors
        assert cursors is not None
        events, upto = source.transitions(cursors.transition)
        if events:
            store.write_events(events, self.config.timeout_s)
            self._answered()
        if upto > cursors.transition:
            self._moved(replace(cursors, transition=upto))
        return bool(events)

    def _write(self, store: Historian, piece: Piece) -> None:
        if not len(piece.samples):
            return
        written = store.write(piece.samples, self.config.timeout_s * 4)
        self._answered()
        if written.rejected:
            assert self._quarantine is not None
            self._quarantine.add(written.rejected, self._clocks.wall_ms())
            log.warning(
                "store %s took all but %d of %d samples (%s); they are kept in %s", self.config.id, len(written.rejected),
                len(piece.samples), written.rejected[0].reason, self._quarantine.path,
            )  # fmt: skip

    # -- keeping --

    def _moved(self, cursors: Cursors) -> None:
        self._cursors = cursors
        if not self._settle_s:
            return
        now_s = self._clocks.monotonic()
        # Two in the same hundredth of the time are one, the later.
        if len(self._settling) > 1 and now_s - self._settling[-2][0] < self._settle_s / 100:
            self._settling.pop()
        self._settling.append((now_s, cursors))

    def _keep(self, now_s: float, *, last: bool = False) -> None:
        """Write down how far the store keeps what it was sent, at most once a second; seldom where it takes time to settle.

        Raises:
            OSError: it could not be written.
        """
        if now_s - self._saved_s < max(SAVE_S, self._settle_s / 4) and not last:
            return
        safe = self._cursors
        if self._settle_s:
            safe = self._kept
            if self._settling and now_s - self._settling[0][0] >= self._settle_s:
                if self._restarted is not None and self._restarted():
                    raise StoreAwayError(
                        f"storage.stores.{self.config.id}: it was started anew; what it had not on its disk is sent again",
                        f"storage.stores.{self.config.id}：已重新启动；其尚未落盘的数据将重新发送",
                    )
                while self._settling and now_s - self._settling[0][0] >= self._settle_s:
                    safe = self._settling.popleft()[1]
        if safe is None or safe == self._kept:
            return
        feed_files.save(self._folder, self.config.id, safe)
        self._kept, self._saved_s = safe, now_s

    def _forget(self) -> None:
        """Go back to what the store is known to keep: what it was sent since may be lost with it."""
        if self._settle_s:
            self._cursors = self._kept
            self._settling.clear()
        self._witnesses.connected()
        if self._store is not None:
            self._store.close()
        self._store = None

    # -- telling --

    def _answered(self) -> None:
        if self._failures:
            log.info("store %s answers again", self.config.id)
        self._failures = 0

    def _told_besides(self) -> tuple[str, str]:
        """Return what to tell of a store that is fed."""
        cursors = self._cursors
        assert cursors is not None
        if self._lacks:
            return _lacks(self.config.id, cursors.anew_ms)
        unread = self._told_of_unread()
        if unread[0] or not 0 <= self._clocks.wall_ms() - cursors.anew_ms < DAY_MS:
            return unread
        return (
            f"it did not show what it had shown before: it was emptied or restored, or another one answers, or it keeps less than"
            f" retention_days says; since {_utc(cursors.anew_ms)} it is fed from the beginning",
            f"该库查不到此前已查到的采样：已被清空、用旧备份恢复、换成另一个库，或其保留时间短于 retention_days；自"
            f" {_utc(cursors.anew_ms)} 起从头写入",
        )

    def _told_of_unread(self) -> tuple[str, str]:
        """Return what to tell of samples that the store lacks because our own segments cannot be read."""
        assert self._cursors is not None
        if not self._cursors.parked:
            if not self._cursors.holes:
                self._unread = ""
            return "", ""
        which = self._unread or "see CORE.HISTORIAN.DAMAGED"
        return (
            f"our own file cannot be read, the store lacks its samples ({which}); restore it from a backup: it is tried again every"
            f" {AGAIN_S / 60:.0f} min",
            f"自带历史库的文件无法读取，时序库缺少其中的采样（{which}）；请从备份恢复：每 {AGAIN_S / 60:.0f} 分钟重试一次",
        )

    def _failed(self, error: StoreAwayError | StoreRefusedError) -> float:
        state = "away" if isinstance(error, StoreAwayError) else "refused"
        if not self._failures or self._told[0] != state:
            log.warning("%s", error)
        self._failures += 1
        self._told = (state, str(error), error.message_zh)
        self._forget()
        wait_s = wait_after(self._failures, getattr(error, "retry_after_s", None))
        self._not_before_s = self._clocks.monotonic() + wait_s
        return wait_s

    def _status_now(self) -> dict[str, Any]:
        cursors, head, (state, detail, detail_zh) = self._cursors, self._head, self._told
        waiting = 0 if head is None else max(0, head.pos - (0 if cursors is None else cursors.live))
        missing = 0 if cursors is None else cursors.missing
        since = [hole.since_ms for hole in cursors.holes] if cursors is not None else []
        if waiting and head is not None and head.oldest_ms is not None:
            since.append(head.oldest_ms)
        return {
            "id": self.config.id, "kind": self.config.kind, "state": state, "lag_rows": waiting + missing,
            "lag_ms": max(0, self._clocks.wall_ms() - min(since)) if since else 0, "cursor": cursors.live if cursors else 0,
            "quarantined": self._quarantine.count if self._quarantine else 0, "detail": detail, "detail_zh": detail_zh,
        }  # fmt: skip


def _lacks(store: str, anew_ms: int) -> tuple[str, str]:
    copy = f"hazardgate store copy --from embedded --to {store}"
    return (
        f"it lacks again what it has shown, and was fed from the beginning at {_utc(anew_ms)}: see to its disk, url, database and"
        f" retention_days; it is fed from the beginning again a day after that, or at once by `{copy}`",
        f"该库再次查不到此前已查到的采样，而 {_utc(anew_ms)} 刚从头写入过：请检查其磁盘、url、database 与 retention_days；"
        f"一天后将再次从头写入，或立即运行 `{copy}`",
    )


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _in_words(error: Exception, folder: Path) -> tuple[str, str]:
    """Return what went wrong in English and Chinese; of a disk that refuses, where, and what to do."""
    if isinstance(error, OSError) and not hasattr(error, "message_zh"):
        where, cause = error.filename or folder, error.strerror or error
        return (
            f"{where}: cannot be used ({cause}); free some space or see to the disk: it is tried again every {TROUBLE_S:g} s",
            f"{where}：无法使用（{cause}）；请腾出空间或检查磁盘：每 {TROUBLE_S:g} 秒重试一次",
        )
    return str(error), getattr(error, "message_zh", f"出错：{error}")
