"""The one process that seals, packs and removes: it holds the folder's lock.

`Owner.round` does what is due, most urgent first: seal, clean up behind packs, pack, let days go, look at old files. What is
due is decided by pure functions; here the disk is asked and told. No thread of its own: whoever calls `round` waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import duckdb

from config import HistorianConfig
from gateway.historian.samples import Samples
from gateway.historian.segments.board import Board
from gateway.historian.segments.durable import make_folder, remove, sync_folder, write_durably
from gateway.historian.segments.evidence import evidence_days, evidence_path, set_aside, spans_of
from gateway.historian.segments.files import by_day, write_again
from gateway.historian.segments.folder import Ancestor, Problem, SegmentFolder, Snapshot, is_old, orphans, strays
from gateway.historian.segments.gone import gone, pruned_pos
from gateway.historian.segments.keep import Held, Kept, Pace, day_after, decide, evidence_leaves, limit_bytes, received
from gateway.historian.segments.log import READ_ROWS, Due, LedgerGoneError, LedgerLog
from gateway.historian.segments.lost import lost_problems, put_away, put_damaged_away
from gateway.historian.segments.manifest import Manifest, is_newer
from gateway.historian.segments.merge import MergeError
from gateway.historian.segments.names import (
    EVIDENCE,
    KEPT_FROM_NAME,
    LOCK_NAME,
    MANIFESTS,
    POS_MAX,
    ROLLUPS,
    SAMPLES,
    STATUS_NAME,
    TEMPORARY,
    Stem,
    is_ledger_id,
)
from gateway.historian.segments.pack import DamagedSourceError, NoRoomError, next_pack, pack
from gateway.historian.segments.quarantine import torn_problems
from gateway.historian.segments.scrub import Scrub
from gateway.historian.segments.seal import Places, samples_of, seal, taken_from
from gateway.historian.segments.spill import clear, open_database

log = logging.getLogger(__name__)

SEAL_SAMPLES: Final = 1_000_000  # measured: 0.45 s of one core and 150 MB while it lasts
SEAL_ROWS: Final = 200_000
SEALS_A_ROUND: Final = 32
MENDED_MAX: Final = 4
HOUSE_MS: Final = 60_000  # between two looks at what to pack and what may go
STATUS_MS: Final = 20_000
TOLD_MS: Final = 5_000  # in memory; to the disk when something has changed, too
DAMAGED_MAX: Final = 100
WHY_CHARS: Final = 200
BACK_OFF_S: Final = (5.0, 300.0)
IDLE_S: Final = 1.0
HOUR_MS: Final = 3_600_000
DiskTrouble = (OSError, duckdb.Error, MergeError)


class FolderBusyError(Exception):
    """Another process seals here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another process seals here (it holds {LOCK_NAME}); stop it, or wait until it ends")
        self.message_zh = f"{folder}：另一进程正在此封存（持有 {LOCK_NAME}）；请停止它或等待其结束"


@dataclass(frozen=True, slots=True)
class Piece:
    """The range of log positions to seal next, and when its newest row was received."""

    first: int
    last: int
    sealed_ms: int
    whole: bool  # it is as large as a piece may be: more may wait


def next_piece(cursor: int, due: Sequence[Due], now_ms: int, seal_ms: int, samples_max: int = SEAL_SAMPLES) -> Piece | None:
    """Return what to seal of the rows after `cursor`, None while none is due.

    Due is a full piece, or anything once the oldest row has waited `seal_ms` (or claims to come from the future). A piece
    ends with the hour its rows were received in, so that hours can be packed.
    """
    if not due:
        return None
    samples, upto = 0, 0
    for row in due[:SEAL_ROWS]:
        if upto and samples + row.samples > samples_max:
            break
        samples, upto = samples + row.samples, upto + 1
    whole = upto < len(due) or upto >= SEAL_ROWS
    hour = due[0].received_ms // HOUR_MS
    within = next((at for at in range(1, upto) if due[at].received_ms // HOUR_MS != hour), upto)
    waited_ms = now_ms - due[0].received_ms
    if within == upto and not whole and 0 <= waited_ms < seal_ms:
        return None
    taken = due[:within]
    return Piece(cursor + 1, taken[-1].pos, max(row.received_ms for row in taken), whole or within < upto)


def open_lock(folder: Path) -> IO[str]:
    """Take the folder's lock, held for as long as the file stays open; the kernel lets go when the process dies.

    Raises:
        FolderBusyError: another process has it.
    """
    make_folder(folder)
    lock = (folder / LOCK_NAME).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise FolderBusyError(folder) from None
    return lock


class Owner:
    """Seals one ledger into one folder. For one thread."""

    def __init__(
        self, folder: Path, ledger: LedgerLog, places: Places, config: HistorianConfig, wall_ms: Callable[[], int],
        stores: Callable[[], list[dict[str, Any]]] = list, stopped: Callable[[], bool] = lambda: False,
        samples_max: int = SEAL_SAMPLES, monotonic: Callable[[], float] = time.monotonic, board: Board | None = None,
    ) -> None:  # fmt: skip
        """Join the parts; `begin` takes the folder.

        Args:
            stores: how the stores stand that are fed beside, for status.json.
            stopped: whether to end soon: what is under way is given up where that loses nothing.
            monotonic: seconds that really pass.
            board: where readers of this process put what they find, and look for the status.
        """
        self._folder, self._ledger, self._places, self._config, self._wall_ms = folder, ledger, places, config, wall_ms
        self._stores, self._stopped, self._samples_max, self._monotonic = stores, stopped, samples_max, monotonic
        self._segments, self._scrub = SegmentFolder(folder), Scrub(folder)
        self._lock: IO[str] | None = None
        self._db: duckdb.DuckDBPyConnection | None = None
        self._due: list[Due] = []
        self._of: tuple[str, int] = ("", 0)  # the ledger and the position that `_due` goes on from
        self._house_ms = self._status_ms = 0
        self._again_ms: dict[str, tuple[int, float]] = {}  # by work that failed: not before, and how long it waits then
        self._left_out: dict[Stem, Problem] = {}
        self._kept: Kept | None = None
        self._pace, self._evidence_pace, self._paced = Pace(), Pace(), False
        self._sorted_out: tuple[str, int] = ("", 0)  # of this ledger, sealed so far when nothing lay about any more
        self._refused: list[Problem] = []
        self._held_bytes = 0
        self._board, self._told_ms = board or Board(), 0
        self._known: dict[str, Problem] = {}
        self._written: dict[str, Any] = {}
        self.trouble = ""

    def begin(self) -> None:
        """Take the folder and remove what a crash left over.

        Raises:
            FolderBusyError: another process has it. OSError: it cannot be written.
        """
        self._lock = open_lock(self._folder)
        clear(self._folder / TEMPORARY)
        self._clean(self._segments.snapshot())

    def close(self) -> None:
        """Let go. What is not sealed stays in the ledger and is sealed after the next start."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._ledger.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def round(self) -> float:
        """Do what is due; returns in how many seconds to come again. Errors of the disk are told, never raised.

        Raises:
            FolderBusyError, OSError: somebody exchanged the folder, and the one that stands there now cannot be taken.
        """
        wait_s = IDLE_S
        if self._lock is not None and not _stands(self._lock, self._folder / LOCK_NAME):
            log.error("historian: %s is another folder than before; it is taken anew", self._folder)
            self.close()
            self.begin()
        try:
            ledger_id, ancestry = self._ledger.identity()
            if not is_ledger_id(ledger_id):
                raise LedgerGoneError(f"the ledger's id {ledger_id[:80]!r} cannot name a file")
        except LedgerGoneError as error:
            self.trouble = str(error)
            return IDLE_S
        more = bool(self._try("seal", lambda: self._seal(ledger_id, ancestry)))
        now_ms = self._wall_ms()
        if not more and not self._stopped() and abs(now_ms - self._house_ms) >= HOUSE_MS:
            if not self._try("house", lambda: self._keep_house(ledger_id)):
                self._house_ms = now_ms
            more = True
        found = self._board.take()
        for problem in found:
            self._scrub.add(problem)
        if more or found or abs(now_ms - self._told_ms) >= TOLD_MS:
            self._try("look", lambda: self._tell(ledger_id, ancestry))
        return 0.0 if more and not self._stopped() else wait_s

    # -- sealing --

    def _seal(self, ledger_id: str, ancestry: Sequence[Ancestor]) -> bool:
        """Seal pieces that are due; returns whether more may wait."""
        taken = self._segments.snapshot()
        chain = taken.chain(ledger_id)
        # Names are the cursor, also of manifests that were lost or cannot be read: behind them it goes on, never inside.
        # A hole is told of, and stays the cursor's end.
        # Rows that have left the ledger and are in no manifest are a hole, too: no piece may claim to hold them.
        pruned = pruned_pos(self._ledger.rows_of)
        claimed = [stem.last for stem, _ in taken.unreadable if stem.owner == ledger_id and stem.kind != "load"]
        cursor = max([taken.cursor(ledger_id, ancestry), pruned, *claimed, *(manifest.stem.last for manifest in chain[-1:])])
        prev = chain[-1].last_seal if chain and chain[-1].stem.last == cursor else ""
        if not self._in_order(ledger_id, cursor):
            return False
        self._sort_out(ledger_id, cursor, taken)
        if self._seal_anew(ledger_id, ancestry, taken):
            return True
        for _ in range(SEALS_A_ROUND):
            if self._stopped():
                return False
            self._look_ahead(ledger_id, cursor)
            piece = next_piece(cursor, self._due, self._wall_ms(), int(self._config.seal_s * 1000), self._samples_max)
            if piece is None:
                return False
            rows = self._ledger.rows(piece.first, piece.last)
            # After the rows: a number that one of them has is in the table by then.
            found = taken_from(rows, self._ledger.tag_names(), self._places)
            stem = Stem(ledger_id, piece.first, piece.last, "seal")
            aged_ms = _aged_ms(self._segments.snapshot(), ancestry, stem, piece.sealed_ms, found.samples)
            done = seal(self._database(), self._folder, stem, prev, found.samples, piece.sealed_ms, found.torn, aged_ms)
            prev, cursor = done.hash, piece.last
            self._sorted_out = (ledger_id, cursor)
            self._of = (ledger_id, cursor)
            self._due = [row for row in self._due if row.pos > cursor]
        return True

    def _in_order(self, ledger_id: str, cursor: int) -> bool:
        """Whether the ledger has come as far as the folder says; one that has lost its end uses positions again."""
        last = self._ledger.last_pos()
        self._refused = []
        if self._due and self._due[-1].pos > last:  # an older copy took its place: what it knew of is not there yet
            self._due = []
        if cursor > last:
            why = (
                f"manifests hold log positions of {ledger_id} up to {cursor}, and the ledger ends at {last}: it is older than the"
                " historian, and nothing is sealed; restore it, or start core once with --restored"
            )
            self._refused = [Problem(MANIFESTS, "", 0, 0, why)]
        return not self._refused

    def _sort_out(self, ledger_id: str, cursor: int, taken: Snapshot) -> None:
        """Before anything is sealed: of data that no manifest names, remove what the ledger still holds, put away the rest."""
        known, before = self._sorted_out
        if known == ledger_id and before <= cursor:
            return
        found = [*strays(self._folder, taken, self._wall_ms())]
        again = {
            stem for stem in {stem for _, stem in found}
            if stem.owner == ledger_id and stem.kind == "seal" and stem.first > cursor
            and self._ledger.held(stem.first, stem.last) is not None
        }  # fmt: skip
        put_away(self._folder, [(path, stem) for path, stem in found if stem not in again])
        for path, stem in found:
            if stem in again:
                remove(path)
        self._sorted_out = (ledger_id, cursor)

    def _seal_anew(self, ledger_id: str, ancestry: Sequence[Ancestor], taken: Snapshot) -> bool:
        """Seal a range again whose manifest is damaged, if the ledger still holds all of it: rows make the same again."""
        for stem, why in taken.unreadable:
            if stem.owner != ledger_id or stem.kind != "seal" or is_newer(why) or self._stopped():
                continue
            sealed_ms = self._ledger.held(stem.first, stem.last)
            if sealed_ms is None:
                continue
            found = taken_from(self._ledger.rows(stem.first, stem.last), self._ledger.tag_names(), self._places)
            prev = next((m.last_seal for m in taken.chain(ledger_id) if m.stem.last == stem.first - 1), "")
            aged_ms = _aged_ms(taken, ancestry, stem, sealed_ms, found.samples)
            seal(self._database(), self._folder, stem, prev, found.samples, sealed_ms, found.torn, aged_ms)
            log.warning("historian: %s was damaged and is made anew from the ledger", stem.manifest_name)
            return True
        return False

    def _look_ahead(self, ledger_id: str, cursor: int) -> None:
        """Read what waits in short, until there is enough for a piece."""
        if self._of != (ledger_id, cursor):
            self._of, self._due = (ledger_id, cursor), []
        samples = sum(row.samples for row in self._due)
        while samples <= self._samples_max and len(self._due) < SEAL_ROWS:
            found = self._ledger.due_after(self._due[-1].pos if self._due else cursor)
            self._due += found
            samples += sum(row.samples for row in found)
            if len(found) < READ_ROWS:
                return

    # -- keeping house --

    def _keep_house(self, ledger_id: str) -> bool:
        """Clean up, pack, let days go, look at old files; returns whether there is more of it to do at once."""
        taken = self._segments.snapshot()
        if not self._again_ms:  # while the disk fails, what failed stays: its blocks are not to be used again
            self._clean(taken)
        more = bool(self._try("pack", lambda: self._pack(taken)))
        more = bool(self._try("retention", lambda: self._let_go(taken))) or more
        self._scrub.look(self._segments.snapshot(), self._wall_ms())
        self._try("mend", lambda: self._mend(ledger_id))
        return more

    def _mend(self, ledger_id: str) -> None:
        """Make damaged files of seals anew, where the ledger still holds the very same rows."""
        for live in self._scrub.damaged(self._segments.snapshot())[:MENDED_MAX]:
            stem = live.stem
            if stem.kind != "seal" or stem.owner != ledger_id or self._stopped():
                continue
            samples = samples_of(self._ledger.rows(stem.first, stem.last), self._ledger.tag_names(), self._places)
            part = dict(by_day(samples)).get(live.file.day) if len(samples) else None
            if part is not None and write_again(self._database(), self._folder, stem, live.file, part):
                log.warning("historian: %s of %s was damaged and is made anew from the ledger", stem, live.file.day)
                self._scrub.mended(live)

    def _clean(self, taken: Snapshot) -> None:
        gone = [*orphans(self._folder, taken, self._wall_ms())]
        if gone:  # who gave the names that replace it may have died before they were on the disk
            sync_folder(self._folder)
            make_folder(self._folder / MANIFESTS)
            sync_folder(self._folder / MANIFESTS)
        for path in gone:
            remove(path)
        if taken.superseded:
            sync_folder(self._folder / MANIFESTS)
            for path in orphans(self._folder, self._segments.snapshot(), self._wall_ms()):
                remove(path)
        for top in (SAMPLES, ROLLUPS):
            for day in (self._folder / top).glob("????-??-??"):
                with contextlib.suppress(OSError):  # a load may have just begun there
                    if is_old(day, self._wall_ms()) and not any(day.iterdir()):
                        day.rmdir()

    def _pack(self, taken: Snapshot) -> bool:
        left_out = self._left_out_now(taken)
        chosen = next_pack(taken, self._wall_ms(), left_out)
        if not chosen:
            return False
        try:
            made = pack(self._database(), self._folder, chosen, taken.kept, self._stopped)
        except DamagedSourceError as error:
            self._left_out[error.stem] = error.problem
            self._scrub.add(error.problem)
            log.error("historian: %s", error)
            return False
        if made is None:
            return False
        self._clean(self._segments.snapshot())
        return True

    def _left_out_now(self, taken: Snapshot) -> list[Stem]:
        """Return the stems that cannot be packed: those found damaged, while they are."""
        there = {manifest.stem for manifest in taken.manifests}
        told = {problem.file for problem in self._scrub.problems()}
        self._left_out = {
            stem: problem for stem, problem in self._left_out.items()
            if stem in there and (problem.file in told or not self._scrub.has_seen(problem.file))
        }  # fmt: skip
        for problem in self._left_out.values():
            self._scrub.add(problem)
        return [*self._left_out]

    def _let_go(self, taken: Snapshot) -> bool:
        """Remove the next day whose time has come; returns whether one went."""
        held, now_ms, passed_s = self._held(taken), self._wall_ms(), self._monotonic()
        disk = shutil.disk_usage(self._folder)
        limit = limit_bytes(self._config.space_max_bytes, held.bytes, disk.total, disk.free)
        kept = self._kept = decide(held, now_ms, self._config.keep_days, limit, taken.kept_from)
        self._held_bytes = held.bytes
        evidence = evidence_leaves(evidence_days(self._folder), now_ms, sorted(held.days), self._config.evidence_days)
        if self._evidence_pace.allows(len(evidence), passed_s) and evidence:
            remove(evidence_path(self._folder, evidence[0]))
            self._evidence_pace.took()
        self._paced = not self._pace.allows(kept.due, passed_s) and kept.why == "age" and bool(kept.remove)
        if not kept.remove or self._paced:
            return False
        lives = [live for live in taken.files() if live.file.leaves <= kept.remove]
        margin_ms = int(self._config.evidence_margin_s * 1000)
        from_ms, to_ms = min(live.file.from_ms for live in lives), max(live.file.to_ms for live in lives)
        spans = spans_of(self._ledger.alarms(from_ms - margin_ms, to_ms + margin_ms + 1), margin_ms)
        told = {problem.file for problem in self._scrub.problems()}
        put_damaged_away(self._folder, set_aside(self._database(), self._folder, kept.remove, lives, spans, told))
        moved = taken.kept.moved(day_after(kept.remove), (manifest.stem for manifest in taken.manifests))
        write_durably(self._folder / KEPT_FROM_NAME, moved.text(kept.why, now_ms))
        if kept.why == "age":
            self._pace.took()
        for live in lives:
            remove(live.samples(self._folder))
            remove(live.rollup(self._folder))
        log.info("historian: %s went (%s); %d files", kept.remove, kept.why, len(lives))
        return True

    def _withheld(self) -> dict[str, Any]:
        """Tell how many days the clock calls old that stay, and why: for want of newer days, or as one goes a day."""
        kept = self._kept
        if kept is None or not (kept.withheld or self._paced):
            return {"days": 0, "why": ""}
        return {"days": kept.due + kept.withheld, "why": "pace"} if self._paced else {"days": kept.withheld, "why": "clock"}

    def _held(self, taken: Snapshot) -> Held:
        days: dict[str, int] = {}
        for live in taken.files():
            days[live.file.leaves] = days.get(live.file.leaves, 0) + live.file.bytes + live.file.rollup_bytes
        other = sum(_size(path) for top in (EVIDENCE, MANIFESTS) for path in (self._folder / top).glob("*"))
        return Held(days, other)

    # -- telling --

    def _tell(self, ledger_id: str, ancestry: Sequence[Ancestor]) -> None:
        pruned = pruned_pos(self._ledger.rows_of)
        taken = self._segments.snapshot()
        kept = self._kept
        problems = [*self._refused, *gone(taken, ledger_id, ancestry, self._ledger.rows_of, pruned)]
        problems += [*holes(taken, ledger_id, ancestry, pruned), *holes_of_others(taken, ledger_id, ancestry)]
        problems += [*self._scrub.problems(), *self._left_out.values()]
        problems += lost_problems(self._folder, taken)
        problems += [Problem(stem.manifest_name, "", 0, 0, why) for stem, why in taken.unreadable]
        problems += torn_problems(self._folder, taken.manifests, taken.kept_from)
        distinct = list({(problem.file, problem.from_ms): problem for problem in problems}.values())
        now_ms = self._wall_ms()
        status = {
            "at_ms": now_ms,
            "cursor": taken.cursor(ledger_id, ancestry, pruned),
            "damaged": [_told(problem) for problem in distinct[:DAMAGED_MAX]],
            "space": {
                "bytes": self._held_bytes, "days_held": kept.days_held if kept else 0,
                "projected_days": kept.projected_days if kept else None, "limit_bytes": kept.limit_bytes if kept else 0,
            },
            "withheld": self._withheld(),
            "stores": self._stores(),
            "trouble": self.trouble[:WHY_CHARS],
        }  # fmt: skip
        self._log_changes(distinct)
        self._board.tell(status)
        self._told_ms = now_ms
        news = {key: status[key] for key in ("cursor", "damaged", "trouble")}
        if news != self._written or abs(now_ms - self._status_ms) >= STATUS_MS:
            self._try("status", lambda: self._write(status))

    def _write(self, status: dict[str, Any]) -> None:
        write_durably(self._folder / STATUS_NAME, json.dumps(status, ensure_ascii=False, sort_keys=True) + "\n")
        self._written = {key: status[key] for key in ("cursor", "damaged", "trouble")}
        self._status_ms = status["at_ms"]

    def _log_changes(self, problems: Sequence[Problem]) -> None:
        now = {problem.file: problem for problem in problems[:DAMAGED_MAX]}
        for file, problem in now.items():
            if file not in self._known:
                log.error("historian: %s is damaged: %s", file, problem.why)
        for file in self._known:
            if file not in now:
                log.warning("historian: %s is whole again, or gone", file)
        self._known = now

    def _try(self, work: str, do: Callable[[], bool | None]) -> bool | None:
        """Do some work unless it failed a moment ago; a failure is told of and tried again later, ever less often."""
        not_before_ms, wait_s = self._again_ms.get(work, (0, BACK_OFF_S[0]))
        now_ms = self._wall_ms()
        if not_before_ms - int(BACK_OFF_S[1] * 1000) <= now_ms < not_before_ms:
            return None
        try:
            done = do()
        except LedgerGoneError as error:
            self.trouble = str(error)
            return None
        except (*DiskTrouble, NoRoomError) as error:
            self._again_ms[work] = (now_ms + int(wait_s * 1000), min(2 * wait_s, BACK_OFF_S[1]))
            self.trouble = f"{work}: {type(error).__name__}: {error}"
            log.error("historian: %s; tried again in %g s", self.trouble, wait_s)
            if isinstance(error, duckdb.Error) and self._db is not None:  # it may refuse everything from now on
                self._db.close()
                self._db = None
            return None
        self._again_ms.pop(work, None)
        if work not in ("status", "look") and not self._again_ms:
            self.trouble = ""
        return done

    def _database(self) -> duckdb.DuckDBPyConnection:
        if self._db is None:
            self._db = open_database(self._folder)
        return self._db


def holes(taken: Snapshot, ledger_id: str, ancestry: Sequence[Ancestor], pruned: int) -> list[Problem]:
    """Return what the chain of a ledger misses behind `pruned`: a stretch without a manifest, or one that does not follow."""
    problems = []
    chain = taken.chain(ledger_id)
    before: Manifest | None = None
    for manifest in chain:
        stem = manifest.stem
        if before is not None and stem.first > before.stem.last + 1:
            if stem.first > pruned + 1:
                why = f"no manifest holds log positions {before.stem.last + 1} to {stem.first - 1}; restore it from a backup"
                problems.append(Problem(f"{MANIFESTS} before {stem.manifest_name}", "", 0, 0, why))
        elif before is not None and not manifest.follows(before):
            problems.append(Problem(stem.manifest_name, "", 0, 0, f"does not follow {before.stem.manifest_name}"))
        before = manifest
    if chain and chain[0].stem.first > max(taken.cursor("", ancestry), pruned) + 1:
        why = f"no manifest holds log positions {taken.cursor('', ancestry) + 1} to {chain[0].stem.first - 1}"
        problems.append(Problem(f"{MANIFESTS} before {chain[0].stem.manifest_name}", "", 0, 0, why))
    return problems


def holes_of_others(taken: Snapshot, ledger_id: str, ancestry: Sequence[Ancestor]) -> list[Problem]:
    """Return what the chains of loads and of other ledgers miss inside: a stretch without a manifest, readable or not.

    What the heirs of a ledger took over and sealed, or what `gone` tells, is left out, and what retention has removed.
    """
    taken_over, limit = {ledger_id: POS_MAX}, POS_MAX
    for each in ancestry:
        limit = taken_over[each.ledger_id] = min(limit, each.pos)
    held: dict[tuple[str, bool], list[Stem]] = {}
    for stem in sorted([*(manifest.stem for manifest in taken.manifests), *(stem for stem, _ in taken.unreadable)]):
        held.setdefault((stem.owner, stem.kind == "load"), []).append(stem)
    left = {live.stem.owner for live in taken.files()}
    problems = []
    for (owner, is_load), stems in held.items():
        at = 0 if is_load else max(stems[0].first, taken_over.get(owner, 0) + 1)
        for stem in stems:
            if stem.first > at and owner in left:
                parts = f"part {at}" if at == stem.first - 1 else f"parts {at} to {stem.first - 1}"
                what = f"{parts} of load {owner}" if is_load else f"log positions {at} to {stem.first - 1} of {owner}"
                why = f"no manifest holds {what}; restore the historian from a backup{', or import the file again' * is_load}"
                problems.append(Problem(f"{MANIFESTS} before {stem.manifest_name}", "", 0, 0, why))
            at = max(at, stem.last + 1)
    return problems


def _aged_ms(taken: Snapshot, ancestry: Sequence[Ancestor], stem: Stem, sealed_ms: int, samples: Samples) -> int:
    """Return when retention takes a range for received; what was sealed behind it has no say, so that sealing again is the same."""
    owners = {stem.owner, *(each.ledger_id for each in ancestry)}
    days = {
        live.file.leaves for live in taken.files()
        if live.stem.kind != "load" and live.stem.owner in owners and (live.stem.owner != stem.owner or live.stem.last < stem.first)
    }  # fmt: skip
    return received(sorted(days), sealed_ms, int(samples.source_ms.max()) if len(samples) else sealed_ms)


def _stands(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        found, mine = path.stat(), os.fstat(file.fileno())
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _told(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file, "day": problem.day, "tags": list(problem.tags) if problem.tags else None,
        "from_ms": problem.from_ms, "to_ms": problem.to_ms, "why": problem.why[:WHY_CHARS],
    }  # fmt: skip


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


