"""Housekeeping in the segment folder: cleaning up, packing, letting days go, mending. For who holds the folder's lock."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb

from config import HistorianConfig
from gateway.historian.segments.durable import make_folder, remove, sync_folder, write_durably
from gateway.historian.segments.evidence import NotGivenError, evidence_days, evidence_path, set_aside, spans_of
from gateway.historian.segments.files import by_day, write_again
from gateway.historian.segments.folder import Problem, SegmentFolder, Snapshot
from gateway.historian.segments.keep import Held, Kept, Pace, day_after, decide, evidence_leaves, limit_bytes
from gateway.historian.segments.leftover import is_old, orphans
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.lost import put_damaged_away
from gateway.historian.segments.names import EVIDENCE, KEPT_FROM_NAME, MANIFESTS, ROLLUPS, SAMPLES, Stem
from gateway.historian.segments.pack import DamagedSourceError, next_pack, pack
from gateway.historian.segments.scrub import Scrub
from gateway.historian.segments.seal import Places, samples_of

log = logging.getLogger(__name__)

MENDED_MAX: Final = 4


class House:
    """What `Owner` does when nothing is to be sealed, each piece of work for itself. For its thread."""

    def __init__(
        self, segments: SegmentFolder, ledger: LedgerLog, places: Places, config: HistorianConfig, wall_ms: Callable[[], int],
        monotonic: Callable[[], float], stopped: Callable[[], bool], database: Callable[[], duckdb.DuckDBPyConnection],
    ) -> None:  # fmt: skip
        """Join the parts; see `Owner`. `database` opens one, or returns the one that is open."""
        self._folder, self._ledger, self._places, self._config, self._wall_ms = segments.path, ledger, places, config, wall_ms
        self._monotonic, self._stopped, self._database = monotonic, stopped, database
        self._segments, self.scrub = segments, Scrub(segments.path)
        self._left_out: dict[Stem, Problem] = {}
        self.kept: Kept | None = None
        self._pace, self._evidence_pace, self._paced = Pace(), Pace(), False
        self.held_bytes = 0

    def problems(self) -> list[Problem]:
        """Return what was found damaged."""
        return [*self.scrub.problems(), *self._left_out.values()]

    def clean(self, taken: Snapshot) -> None:
        """Remove what nobody needs."""
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

    def pack(self, taken: Snapshot) -> bool:
        """Pack what is worth it most; returns whether something was packed."""
        left_out = self._left_out_now(taken)
        chosen = next_pack(taken, self._wall_ms(), left_out)
        if not chosen:
            return False
        try:
            made = pack(self._database(), self._folder, chosen, taken.kept, self._stopped)
        except DamagedSourceError as error:
            self._left_out[error.stem] = error.problem
            self.scrub.add(error.problem)
            log.error("historian: %s", error)
            return False
        if made is None:
            return False
        self.clean(self._segments.snapshot())
        return True

    def _left_out_now(self, taken: Snapshot) -> list[Stem]:
        """Return the stems that cannot be packed: those found damaged, while they are."""
        there = {manifest.stem for manifest in taken.manifests}
        told = self.scrub.told()
        self._left_out = {
            stem: problem for stem, problem in self._left_out.items()
            if stem in there and (problem.file in told or not self.scrub.has_seen(problem.file))
        }  # fmt: skip
        for problem in self._left_out.values():
            self.scrub.add(problem)
        return [*self._left_out]

    def let_go(self, taken: Snapshot) -> bool:
        """Remove the next day whose time has come; returns whether one went."""
        held, now_ms, passed_s = self._held(taken), self._wall_ms(), self._monotonic()
        disk = shutil.disk_usage(self._folder)
        limit = limit_bytes(self._config.space_max_bytes, held.bytes, disk.total, disk.free)
        kept = self.kept = decide(held, now_ms, self._config.keep_days, limit, taken.kept_from)
        self.held_bytes = held.bytes
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
        try:
            left_out = set_aside(self._database(), self._folder, kept.remove, lives, spans, self.scrub.told())
        except NotGivenError as error:
            for problem in error.problems:
                self.scrub.add(problem)
            raise
        put_damaged_away(self._folder, left_out)
        moved = taken.kept.moved(day_after(kept.remove), (manifest.stem for manifest in taken.manifests))
        write_durably(self._folder / KEPT_FROM_NAME, moved.text(kept.why, now_ms))
        if kept.why == "age":
            self._pace.took()
        for live in lives:
            remove(live.samples(self._folder))
            remove(live.rollup(self._folder))
        log.info("historian: %s went (%s); %d files", kept.remove, kept.why, len(lives))
        return True

    def withheld(self) -> dict[str, Any]:
        """Tell how many days the clock calls old that stay unexplained, and why: for want of newer days, or as one goes a day."""
        kept = self.kept
        if kept is None or not (kept.withheld or self._paced):
            return {"days": 0, "why": ""}
        return {"days": kept.due + kept.withheld, "why": "pace"} if self._paced else {"days": kept.withheld, "why": "clock"}

    def _held(self, taken: Snapshot) -> Held:
        days: dict[str, int] = {}
        for live in taken.files():
            days[live.file.leaves] = days.get(live.file.leaves, 0) + live.file.bytes + live.file.rollup_bytes
        other = sum(_size(path) for top in (EVIDENCE, MANIFESTS) for path in (self._folder / top).glob("*"))
        return Held(days, other)

    def mend(self, ledger_id: str) -> None:
        """Make damaged files of seals anew, where the ledger still holds the very same rows."""
        for live in self.scrub.damaged(self._segments.snapshot())[:MENDED_MAX]:
            stem = live.stem
            if stem.kind != "seal" or stem.owner != ledger_id or self._stopped():
                continue
            samples = samples_of(self._ledger.rows(stem.first, stem.last), self._ledger.tag_names(), self._places)
            part = dict(by_day(samples)).get(live.file.day) if len(samples) else None
            if part is not None and write_again(self._database(), self._folder, stem, live.file, part):
                log.warning("historian: %s of %s was damaged and is made anew from the ledger", stem, live.file.day)
                self.scrub.mended(live)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


