"""A tag's past: segments up to where they are sealed, memory and ledger from there on, each sample once.

The set of segments is taken first and says up to which log position it goes; then the ledger is asked for what was
logged after it. Samples come as they are where they are few, as buckets where they are many, and over long ranges out
of the rollups that are kept beside the samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from gateway.historian.events import events_of_ledger
from gateway.historian.limits import out_of_time, too_many
from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments.missing import Missing, refuse_missing, stretches_of, within
from gateway.historian.segments.moments import together
from gateway.historian.segments.names import STATUS_NAME, day_ms
from gateway.historian.segments.store import windows_in
from gateway.historian.store import AlarmEvent, QueryTooLargeError, StoreAwayError
from gateway.historian.windows import ROLLUP_MS, Rollups, between, combined
from gateway.serve.downsample import (
    bucket_width_ms,
    bucketed,
    buckets_of,
    longest,
    stretches,
    stretches_of_rows,
    unclear,
    with_damaged,
)
from gateway.serve.history_answers import cut_to, points_of, tag_windows
from gateway.serve.history_ledger import Unsealed
from gateway.serve.history_state import DEADLINE_S_MAX, StateReader, Taken
from gateway.serve.models import History, HistoryStretch, TagWindows, WindowList
from gateway.serve.view_errors import HistoryTooLargeError, LedgerAwayError, OutOfTimeError

RANGE_MS_MAX: Final = 400 * 86_400_000
POINTS_MAX: Final = 10_000
RAW_ROWS_MAX: Final = 1_000_000  # beyond this the picture comes from rollups
GAP_ROWS_MAX: Final = 200_000  # samples read to tell exactly where gaps over a long range begin and end
OPENED_ROWS_MAX: Final = 2_500_000_000  # in files opened to show a few samples of a long range one by one
GAPS_MAX: Final = 1_000
UNSEALED_ROWS_MAX: Final = 4_000_000  # of all tags of one question; each has a bound of its own
UNKNOWN_SILENCE_MS: Final = 60_000  # of a tag that the site has no more
STATUS_BYTES_MAX: Final = 1_000_000


class HistoryReader(StateReader):
    """Answers questions about the past, at most two at a time. Any thread may ask."""

    # -- questions --

    def history(self, tag_id: str, from_ms: int, to_ms: int, points_max: int, deadline_s: float) -> History:
        """Return what is known of a tag in [from_ms, to_ms) of source time.

        Args:
            points_max: 1..10 000; more samples than that come as so many buckets.
            deadline_s: at most 5 s are spent, the wait for a turn included.

        Raises:
            UnknownTagError: neither the site nor the ledger has such a tag.
            HistoryTooLargeError: the range is over 400 days.
            LedgerAwayError: there is no ledger to read.
            OutOfTimeError: not even the newest part was read in time.
        """
        self._check(from_ms, to_ms)
        points_max, to_ms = max(1, min(points_max, POINTS_MAX)), max(from_ms, to_ms)
        return self._of_one_state(deadline_s, lambda taken: self._history(taken, tag_id, from_ms, to_ms, points_max))

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = RAW_ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return every sample of a tag in [from_ms, to_ms), as `Historian.range` of the historian's port does.

        Raises:
            QueryTooLargeError, QueryTimeError: not all could be read: ask for a shorter range.
            StoreAwayError: there is no ledger to read. SegmentDamagedError: some samples are stored and cannot be read.
        """
        found, missing = self.readable(tag, from_ms, to_ms, rows_max, deadline_s)
        refuse_missing(missing, self._zone)
        return found

    def readable(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = RAW_ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> tuple[Samples, Sequence[Missing]]:
        """Return what `range` does, but for what cannot be read, and these stretches."""

        def ask(taken: Taken) -> tuple[Samples, Sequence[Missing]]:
            unsealed = self._unsealed(taken, tag, from_ms, to_ms)
            if unsealed.cut:
                raise out_of_time("ledger", deadline_s) if unsealed.cut == "time" else too_many(rows_max)
            sealed, missing = self._segments.samples(taken.segments, tag, from_ms, to_ms, rows_max, taken.give_up_at)
            found = _together(sealed, unsealed.samples)
            if len(found) > rows_max:
                raise too_many(rows_max)
            return found, [*missing, *within(taken.gone, from_ms, to_ms)]

        with self._as_the_port_says(rows_max, deadline_s):
            self._check(from_ms, to_ms)
            return self._of_one_state(deadline_s, ask)

    def holds(self, tag: str, deadline_s: float = DEADLINE_S_MAX) -> bool:
        """Return what `knows` does. Raises what `range` does."""
        with self._as_the_port_says(RAW_ROWS_MAX, deadline_s):
            return self.knows(tag, deadline_s)

    @staticmethod
    @contextmanager
    def _as_the_port_says(rows_max: int, deadline_s: float) -> Iterator[None]:
        """Turn what a view raises into what a historian raises."""
        try:
            yield
        except OutOfTimeError:
            raise out_of_time("ledger", deadline_s) from None
        except HistoryTooLargeError:
            raise too_many(rows_max) from None
        except LedgerAwayError as error:
            raise StoreAwayError(f"{error.state}: {error.told}", f"{error.state}：{error.told_zh}") from None

    def windows(
        self, tag_ids: Sequence[str], from_ms: int, to_ms: int, width_ms: int, columns: Sequence[str], deadline_s: float
    ) -> WindowList:
        """Return the windows of up to 50 tags; from 5 min on they begin at multiples of 5 min and come from rollups.

        Raises:
            UnknownTagError, HistoryTooLargeError, LedgerAwayError, OutOfTimeError; QueryTooLargeError: too many samples.
        """
        self._check(from_ms, to_ms)
        if width_ms >= ROLLUP_MS:
            from_ms, width_ms = from_ms // ROLLUP_MS * ROLLUP_MS, -(-width_ms // ROLLUP_MS) * ROLLUP_MS

        def ask(taken: Taken) -> WindowList:
            unsealed, held = list[Unsealed](), 0
            for tag in tag_ids:
                unsealed.append(self._unsealed(taken, tag, from_ms, to_ms))
                held += len(unsealed[-1].samples)
                if held > UNSEALED_ROWS_MAX:
                    raise too_many(UNSEALED_ROWS_MAX)
            more = concatenated([each.samples for each in unsealed])
            found, missing = windows_in(
                self._segments, taken.segments, tag_ids, from_ms, to_ms, width_ms, taken.give_up_at, more, columns
            )
            damaged = stretches_of([*missing, *within(taken.gone, from_ms, to_ms)])
            items: list[TagWindows] = [
                tag_windows(tag, self._tag(taken.file, tag).unit, found[tag], columns, damaged)
                for tag in dict.fromkeys(tag_ids)
            ]
            return WindowList(from_ms, to_ms, width_ms, any(each.cut for each in unsealed), tuple(items))

        return self._of_one_state(deadline_s, ask)

    def events(self, from_ms: int, to_ms: int, tag: str | None, rows_max: int, deadline_s: float) -> list[AlarmEvent]:
        """Return the transitions of alarms of [from_ms, to_ms), oldest first.

        Raises:
            LedgerAwayError, OutOfTimeError, HistoryTooLargeError; QueryTooLargeError: more than `rows_max`.
        """
        if to_ms - from_ms > RANGE_MS_MAX:
            raise HistoryTooLargeError(to_ms - from_ms, RANGE_MS_MAX)
        with self._pool.lend(min(deadline_s, DEADLINE_S_MAX)) as file:
            return events_of_ledger(file.rows, from_ms, to_ms, tag, rows_max)

    def status(self) -> dict[str, Any] | None:
        """Return what the keeper of the segments wrote last; None: it has not, or it cannot be read."""
        if (told := self._board.status()) is not None:
            return told
        try:
            with (self._folder / STATUS_NAME).open("rb") as file:
                loaded = json.loads(file.read(STATUS_BYTES_MAX))
        except (OSError, ValueError, RecursionError):
            return None
        return loaded if isinstance(loaded, dict) else None

    @staticmethod
    def _check(from_ms: int, to_ms: int) -> None:
        if to_ms - from_ms > RANGE_MS_MAX:
            raise HistoryTooLargeError(to_ms - from_ms, RANGE_MS_MAX)

    # -- history --

    def _history(self, taken: Taken, tag_id: str, from_ms: int, to_ms: int, points_max: int) -> History:
        unsealed = self._unsealed(taken, tag_id, from_ms, to_ms)
        from_rollups = bucket_width_ms(from_ms, to_ms, points_max) >= ROLLUP_MS
        if not from_rollups:
            try:
                return self._from_samples(taken, tag_id, from_ms, to_ms, points_max, unsealed)
            except QueryTooLargeError:
                pass  # so many samples that a picture of them needs no more than their rollups
        try:
            return self._from_rollups(taken, tag_id, from_ms, to_ms, points_max, unsealed)
        except QueryTooLargeError:
            raise OutOfTimeError from None

    def _from_samples(
        self, taken: Taken, tag_id: str, from_ms: int, to_ms: int, points_max: int, unsealed: Unsealed
    ) -> History:
        begin = unsealed.covered_ms
        sealed, missing = self._segments.samples(taken.segments, tag_id, begin, to_ms, RAW_ROWS_MAX, taken.give_up_at)
        missing += within(taken.gone, begin, to_ms)
        samples = _together(sealed, unsealed.samples)
        until_ms = self._until(to_ms, int(samples.source_ms[-1]) if len(samples) else from_ms)
        found = stretches(samples, begin, until_ms, self._silence_ms(tag_id))
        few, width_ms = len(samples) <= points_max, bucket_width_ms(from_ms, to_ms, points_max)
        return self._told(
            taken, tag_id, from_ms, to_ms, unsealed, with_damaged(found, stretches_of(missing)),
            points=points_of(samples) if few else (), buckets=() if few else bucketed(samples, from_ms, width_ms),
            bucket_ms=width_ms, samples=len(samples), late_samples=int(samples.late.sum()),
        )  # fmt: skip

    def _from_rollups(
        self, taken: Taken, tag_id: str, from_ms: int, to_ms: int, points_max: int, unsealed: Unsealed
    ) -> History:
        begin, silence_ms = unsealed.covered_ms, self._silence_ms(tag_id)
        rows, missing = self._segments.rollups(taken.segments, (tag_id,), begin, to_ms, taken.give_up_at, unsealed.samples)
        missing += within(taken.gone, begin, to_ms)
        count = int(rows.samples.sum())
        if count <= points_max and self._segments.weight(taken.segments, begin, to_ms) <= OPENED_ROWS_MAX:
            return self._from_samples(taken, tag_id, from_ms, to_ms, points_max, unsealed)
        origin = from_ms // ROLLUP_MS * ROLLUP_MS
        width_ms = -(-bucket_width_ms(origin, to_ms, points_max) // ROLLUP_MS) * ROLLUP_MS
        windows = combined(rows, width_ms, origin)
        until_ms = self._until(to_ms, int(rows.to_ms.max()) if count else from_ms)
        seen = self._unclear_samples(taken, tag_id, begin, to_ms, rows, unsealed, missing)
        found = stretches_of_rows(rows, seen, begin, until_ms, silence_ms)
        buckets = [bucket for each in windows.values() for bucket in buckets_of(each)]
        return self._told(
            taken, tag_id, from_ms, to_ms, unsealed, with_damaged(found, stretches_of(missing)),
            points=(), buckets=cut_to(buckets, from_ms, to_ms), bucket_ms=width_ms, samples=count,
            late_samples=int(rows.late.sum()), gaps_within_ms=0 if seen is not None else ROLLUP_MS,
        )  # fmt: skip

    def _unclear_samples(
        self, taken: Taken, tag_id: str, from_ms: int, to_ms: int, rows: Rollups, unsealed: Unsealed, missing: list[Missing]
    ) -> Samples | None:
        """Return the samples of the rows that alone do not tell where gaps begin and end, None if they are too many.

        Or if some of them cannot be read (`missing` says so then): their rows still tell the worst that they hold.
        """
        vague = rows.take(unclear(rows, self._silence_ms(tag_id)))
        if int(vague.samples.sum()) > GAP_ROWS_MAX:
            return None
        own, starts = unsealed.samples, sorted(set(vague.start_ms.tolist()))
        try:
            sealed, lost = self._segments.samples_in_windows(
                taken.segments, (tag_id,), [(0, start) for start in starts], (from_ms, to_ms), GAP_ROWS_MAX, taken.give_up_at
            )
        except QueryTooLargeError:
            return None
        if lost:
            missing += lost
            return None
        held = set(starts)
        mine = [start in held for start in (own.source_ms // ROLLUP_MS * ROLLUP_MS).tolist()]
        inside = between(own, from_ms, to_ms) if all(mine) else own.take([at for at, each in enumerate(mine) if each])  # type: ignore[arg-type]
        return _together(sealed, inside)

    def _told(
        self, taken: Taken, tag_id: str, from_ms: int, to_ms: int, unsealed: Unsealed, found: list[HistoryStretch], **more: Any
    ) -> History:
        gaps, left_out = longest(found, GAPS_MAX)
        unit = self._tag(taken.file, tag_id).unit
        return History(
            tag_id, unit, from_ms, to_ms, unsealed.covered_ms, truncated=unsealed.cut != "", truncated_by=unsealed.cut,
            oldest_kept_ms=self._oldest_ms(taken), gaps=gaps, gaps_left_out=left_out, duplicates=unsealed.duplicates, **more,
        )  # fmt: skip

    def _silence_ms(self, tag_id: str) -> int:
        silence_s = self._site.silence_s.get(tag_id)
        return UNKNOWN_SILENCE_MS if silence_s is None else int(silence_s * 1000)

    def _until(self, to_ms: int, newest_ms: int) -> int:
        """What is not yet is no gap; but an edge's clock may be ahead of ours."""
        return min(to_ms, max(newest_ms, self._wall_ms()))

    def _oldest_ms(self, taken: Taken) -> int | None:
        if taken.segments.kept_from:
            return day_ms(taken.segments.kept_from)
        oldest = self._ledger.oldest_frame(taken.file, taken.ledger_id)
        begins = [file.from_ms for each in taken.segments.manifests for file in each.files]
        return min([*begins, *([] if oldest is None else [oldest])], default=None)


def _together(sealed: Samples, unsealed: Samples) -> Samples:
    return together([sealed, unsealed]) if len(unsealed) else sealed
