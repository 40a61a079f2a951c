"""The one process that seals, packs and removes: it holds the folder's lock.

`Owner.round` does what is due, most urgent first: seal, clean up behind packs, pack, let days go, look at old files. What is
due is decided by pure functions; here the disk is asked and told. No thread of its own: whoever calls `round` waits for it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

import duckdb

from config import HistorianConfig
from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.anew import rollup_anew
from gateway.historian.segments.board import Board
from gateway.historian.segments.durable import remove, write_durably
from gateway.historian.segments.folder import Ancestor, LiveFile, Problem, SegmentFolder, Snapshot
from gateway.historian.segments.gone import gone, pruned_pos
from gateway.historian.segments.holes import holes, holes_of_others
from gateway.historian.segments.house import House
from gateway.historian.segments.keep import received
from gateway.historian.segments.leftover import strays, unnamed_parts, why_unnamed
from gateway.historian.segments.lock import open_lock, stands
from gateway.historian.segments.log import READ_ROWS, Due, LedgerGoneError, LedgerLog
from gateway.historian.segments.lost import lost_problems, put_away
from gateway.historian.segments.manifest import is_newer
from gateway.historian.segments.merge import MergeError
from gateway.historian.segments.names import LOCK_NAME, MANIFESTS, STATUS_NAME, TEMPORARY, Stem, day_ms, is_ledger_id
from gateway.historian.segments.pack import NoRoomError
from gateway.historian.segments.piece import SEAL_ROWS, SEAL_SAMPLES, next_piece
from gateway.historian.segments.quarantine import torn_problems
from gateway.historian.segments.seal import Places, seal, taken_from
from gateway.historian.segments.spill import clear, open_database

log = logging.getLogger(__name__)

SEALS_A_ROUND: Final = 32
ROLLUPS_A_ROUND: Final = 8
HOUSE_MS: Final = 60_000  # between two looks at what to pack and what may go
STATUS_MS: Final = 20_000
TOLD_MS: Final = 5_000  # in memory; to the disk when something has changed, too
DAMAGED_MAX: Final = 100
WHY_CHARS: Final = 200
BACK_OFF_S: Final = (5.0, 300.0)
IDLE_S: Final = 1.0
DiskTrouble = (OSError, duckdb.Error, MergeError)


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
        self._stores, self._stopped, self._samples_max = stores, stopped, samples_max
        self._segments = SegmentFolder(folder)
        self._house = House(self._segments, ledger, places, config, wall_ms, monotonic, stopped, self._database)
        self._lock: IO[str] | None = None
        self._db: duckdb.DuckDBPyConnection | None = None
        self._due: list[Due] = []
        self._of: tuple[str, int] = ("", 0)  # the ledger and the position that `_due` goes on from
        self._house_ms = self._status_ms = 0
        self._again_ms: dict[str, tuple[int, float]] = {}  # by work that failed: not before, and how long it waits then
        self._sorted_out: tuple[str, int] = ("", 0)  # of this ledger, sealed so far when nothing lay about any more
        self._refused: list[Problem] = []
        self._other_now: set[Stem] = set()  # whose rows make something else now than they did
        self._in_vain: dict[LiveFile, list[tuple[int, int]]] = {}  # rollups that did not come out as they were, of such files
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
        self._house.clean(self._segments.snapshot())

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
        if self._lock is not None and not stands(self._lock, self._folder / LOCK_NAME):
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
            self._house.scrub.add(problem)
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
        """Seal a range again whose manifest is damaged, if the ledger still holds all of it: rows make the same again.

        Unless the site says something else of a tag than it did: then what follows in the chain tells, and all stays as it is.
        """
        for stem, why in taken.unreadable:
            if stem.owner != ledger_id or stem.kind != "seal" or is_newer(why) or stem in self._other_now or self._stopped():
                continue
            sealed_ms = self._ledger.held(stem.first, stem.last)
            if sealed_ms is None:
                continue
            found = taken_from(self._ledger.rows(stem.first, stem.last), self._ledger.tag_names(), self._places)
            chain = taken.chain(ledger_id)
            prev = next((m.last_seal for m in chain if m.stem.last == stem.first - 1), "")
            follows = next((m.prev for m in chain if m.stem.first == stem.last + 1), "")
            aged_ms = _aged_ms(taken, ancestry, stem, sealed_ms, found.samples)
            db = self._database()
            if follows:
                with TemporaryDirectory(prefix="process-", dir=self._folder / TEMPORARY) as place:
                    tried = seal(db, Path(place), stem, prev, found.samples, sealed_ms, found.torn, aged_ms)
                if tried.hash != follows:
                    log.error("historian: %s is damaged, and the ledger's rows do not make the same again", stem.manifest_name)
                    self._other_now.add(stem)
                    continue
            seal(db, self._folder, stem, prev, found.samples, sealed_ms, found.torn, aged_ms)
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
            self._house.clean(taken)
        more = bool(self._try("pack", lambda: self._house.pack(taken)))
        more = bool(self._try("retention", lambda: self._house.let_go(taken))) or more
        self._house.scrub.look(self._segments.snapshot(), self._wall_ms())
        more = bool(self._try("rollups", self._rollups_anew)) or more
        self._try("mend", lambda: self._house.mend(ledger_id))
        return more

    def _rollups_anew(self) -> bool:
        """Make damaged rollups anew from samples that are whole; returns whether there may be more of them."""
        damaged = self._house.scrub.damaged(self._segments.snapshot())
        self._in_vain = {live: marks for live, marks in self._in_vain.items() if live in damaged}
        made = 0
        for live in damaged:
            marks = [_mark(path) for path in (live.samples(self._folder), live.rollup(self._folder))]
            if made >= ROLLUPS_A_ROUND or self._stopped():
                return not self._stopped()
            if self._in_vain.get(live) == marks:
                continue
            if rollup_anew(self._database(), self._folder, live):
                log.warning("historian: rollups of %s of %s are made anew from their samples", live.stem, live.file.day)
                self._house.scrub.mended(live)
                made += 1
            else:
                self._in_vain[live] = marks
        return False

    # -- telling --

    def _tell(self, ledger_id: str, ancestry: Sequence[Ancestor]) -> None:
        pruned = pruned_pos(self._ledger.rows_of)
        taken = self._segments.snapshot()
        kept = self._house.kept
        problems = [*self._refused, *gone(taken, ledger_id, ancestry, self._ledger.rows_of, pruned)]
        problems += [*holes(taken, ledger_id, ancestry, pruned), *holes_of_others(taken, ledger_id, ancestry), *self._house.problems()]
        problems += lost_problems(self._folder, taken)
        problems += [Problem(stem.manifest_name, "", 0, 0, why) for stem, why in taken.unreadable]
        problems += [
            Problem(stem.manifest_name, day, day_ms(day), day_ms(day) + DAY_MS - 1, why_unnamed(stem))
            for stem, day in unnamed_parts(self._folder, taken)
        ]
        problems += torn_problems(self._folder, taken.manifests, taken.kept_from)
        distinct = list({(problem.file, problem.from_ms): problem for problem in problems}.values())
        now_ms = self._wall_ms()
        status = {
            "at_ms": now_ms,
            "cursor": taken.cursor(ledger_id, ancestry, pruned),
            "damaged": [_told(problem) for problem in distinct[:DAMAGED_MAX]],
            "space": {
                "bytes": self._house.held_bytes, "days_held": kept.days_held if kept else 0,
                "projected_days": kept.projected_days if kept else None, "limit_bytes": kept.limit_bytes if kept else 0,
            },
            "withheld": self._house.withheld(),
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


def _aged_ms(taken: Snapshot, ancestry: Sequence[Ancestor], stem: Stem, sealed_ms: int, samples: Samples) -> int:
    """Return when retention takes a range for received; what was sealed behind it has no say, so that sealing again is the same."""
    owners = {stem.owner, *(each.ledger_id for each in ancestry)}
    days = {
        live.file.leaves for live in taken.files()
        if live.stem.kind != "load" and live.stem.owner in owners and (live.stem.owner != stem.owner or live.stem.last < stem.first)
    }  # fmt: skip
    return received(sorted(days), sealed_ms, int(samples.source_ms.max()) if len(samples) else sealed_ms)


def _mark(path: Path) -> tuple[int, int]:
    """Return what tells whether a file was exchanged."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _told(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file, "day": problem.day, "tags": list(problem.tags) if problem.tags else None,
        "from_ms": problem.from_ms, "to_ms": problem.to_ms, "why": problem.why[:WHY_CHARS],
    }  # fmt: skip
