"""One state of segments and ledger, for one question about the past: what is sealed, and the ledger from there on.

The set of segments is taken first and says up to which log position it goes; then the ledger is asked for what was
logged after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from config import SiteConfig
from gateway.core import LEDGER_NAME
from gateway.historian.segments.board import Board
from gateway.historian.segments.folder import Snapshot
from gateway.historian.segments.gone import ancestry_of, gone, pruned_pos
from gateway.historian.segments.missing import Missing, of_hole
from gateway.historian.segments.names import FOLDER_NAME, TEMPORARY
from gateway.historian.segments.query import ParquetReader
from gateway.historian.segments.reading import SegmentReader
from gateway.historian.segments.reading_files import MovedError
from gateway.historian.store import QueryTimeError
from gateway.serve.history_ledger import LedgerPast, Subject, Unsealed, joined_parts
from gateway.serve.history_places import Places
from gateway.serve.recent import RecentFrames
from gateway.serve.turnstile import Turnstile
from gateway.serve.view_errors import OutOfTimeError, UnknownTagError
from gateway.serve.view_ledger import LedgerFile, LedgerPool, log_of

DEADLINE_S_MAX: Final = 5.0
AT_ONCE: Final = 2
TRIES: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken:
    """What one question is asked of: the segments, and the ledger from where they end."""

    segments: Snapshot
    file: LedgerFile
    ledger_id: str
    cursor: int
    give_up_at: float
    gone: tuple[Missing, ...] = ()  # neither in the ledger any more nor in the segments


@dataclass(frozen=True, slots=True)
class Tag:
    """What is known of a tag; of one that the site has no more, its name. number: in the ledger, -1: not there."""

    unit: str
    low: float
    high: float
    number: int


class StateReader:
    """Holds what every question needs, at most two at a time. Any thread may ask."""

    def __init__(
        self, site: SiteConfig, core_folder: Path, recent: RecentFrames | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, turnstile: Turnstile | None = None,
        historian: Path | None = None, board: Board | None = None,
    ) -> None:  # fmt: skip
        """`recent` is the view's, so that the newest minutes cost no disk; without it all comes from the ledger.

        `turnstile` is the view's too, who opens and closes it. `historian` is the folder of segments, by default beside core's.
        `board` is the keeper's of this process.
        """
        path = core_folder / LEDGER_NAME
        gate = Turnstile(log_of(path)) if turnstile is None else turnstile
        self._site, self._wall_ms, self._zone = site, wall_ms, ZoneInfo(site.timezone)
        self._pool = LedgerPool(lambda: LedgerFile(path, site.site, gate), AT_ONCE)
        self._places = Places(site)
        self._ledger = LedgerPast(recent or RecentFrames())
        self._board = board or Board()
        self._folder = historian or core_folder.parent / FOLDER_NAME
        self._parquet = ParquetReader(self._folder / TEMPORARY)
        self._segments = SegmentReader(self._folder, self._parquet, board)

    def close(self) -> None:
        """Let go of the ledger and the segments."""
        self._pool.close()
        self._parquet.close()

    def knows(self, tag_id: str, deadline_s: float = DEADLINE_S_MAX) -> bool:
        """Whether the site has a tag, or the ledger has had it.

        Raises:
            LedgerAwayError, OutOfTimeError.
        """
        if tag_id in self._site.tag_index:
            return True
        with self._pool.lend(min(deadline_s, DEADLINE_S_MAX)) as file:
            return _tag_number(file, tag_id) >= 0

    def _tag(self, file: LedgerFile, tag_id: str) -> Tag:
        at, number = self._site.tag_index.get(tag_id), _tag_number(file, tag_id)
        if at is None and number < 0:
            raise UnknownTagError(tag_id)
        if at is None:
            return Tag("", -math.inf, math.inf, number)
        config = self._site.tags[at]
        span = config.span()
        return Tag(config.unit or "", span.low, span.high, number)

    def _of_one_state(self, deadline_s: float, ask: Callable[[Taken], T]) -> T:
        """Ask; once more if core has removed rows meanwhile that were sealed after the segments were taken.

        Raises:
            OutOfTimeError: that did not end, or there was no time.
        """
        deadline_s = min(deadline_s, DEADLINE_S_MAX)
        give_up_at = time.monotonic() + deadline_s
        with self._pool.lend(deadline_s) as file:
            ledger_id, ancestry = file.ledger_id(), ancestry_of(file.rows)
            for _ in range(TRIES):
                pruned = pruned_pos(file.rows)  # first: what leaves later is in the segments taken
                segments = self._segments.taken()
                cursor = segments.cursor(ledger_id, ancestry, pruned)
                lost = tuple(map(of_hole, gone(segments, ledger_id, ancestry, file.rows, pruned)))
                try:
                    answer = ask(Taken(segments, file, ledger_id, cursor, give_up_at, lost))
                except QueryTimeError:
                    raise OutOfTimeError from None
                except MovedError:
                    continue
                if pruned_pos(file.rows) <= cursor:
                    return answer
        raise OutOfTimeError

    def _unsealed(self, taken: Taken, tag_id: str, from_ms: int, to_ms: int) -> Unsealed:
        tag = self._tag(taken.file, tag_id)
        parts = [
            self._ledger.samples(
                taken.file, taken.ledger_id, Subject(tag_id, tag.low, tag.high, *place, tag.number), from_ms, to_ms, taken.cursor,
                taken.give_up_at,
            )
            for place in self._places.of(taken.file, taken.ledger_id, tag_id, taken.cursor)
        ]  # fmt: skip
        return parts[0] if len(parts) == 1 else joined_parts(parts)


def _tag_number(file: LedgerFile, tag: str) -> int:
    rows = file.rows("SELECT id FROM tag WHERE name = ?", (tag,))
    return int(rows[0][0]) if rows else -1
