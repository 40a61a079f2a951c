"""One tag's past, out of the ledger: live frames and late blocks in order of source time, each sample once.

The newest rows come from memory (`recent`), older ones are looked up by stream: within a stream source time does not
run back, so the numbers of a range of time are found by halving. Reads are slices; what does not fit the bounds is left
out from the oldest end and said so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from config import SiteConfig, TagConfig
from gateway.core import LEDGER_NAME
from gateway.serve.downsample import Series, bucket_width_ms, bucketed, longest, stretches
from gateway.serve.history_blocks import BlockCache
from gateway.serve.history_streams import NEVER_POS, Finder, KnownStreams, StreamPart
from gateway.serve.models import History, HistoryPoint, QualityWord
from gateway.serve.recent import RecentFrames, StoredFrame
from gateway.serve.stored import TagRows, none_found, tag_of_block, tag_of_frames
from gateway.serve.turnstile import Turnstile
from gateway.serve.view_errors import HistoryTooLargeError, LedgerAwayError, OutOfTimeError, UnknownTagError
from gateway.serve.view_ledger import LedgerFile, LedgerPool, log_of
from wire import Quality, quality_of

RANGE_MS_MAX: Final = 400 * 86_400_000
POINTS_MAX: Final = 10_000
SAMPLES_MAX: Final = 2_000_000
DEADLINE_S_MAX: Final = 5.0
AT_ONCE: Final = 2
GAPS_MAX: Final = 1_000
SLICE_ROWS: Final = 2_000
WINDOW_MS: Final = 600_000  # what is read in one piece, so that a cut leaves whole pieces
WINDOWS_MAX: Final = 256

_WORDS: Final[dict[int, QualityWord]] = {Quality.GOOD: "GOOD", Quality.UNCERTAIN: "UNCERTAIN", Quality.BAD: "BAD"}
_Cut = Literal["", "time", "samples", "ledger"]


@dataclass(frozen=True, slots=True)
class _Subject:
    """The tag asked for, and where its samples are."""

    config: TagConfig
    node: str
    device: str
    number: int  # in the ledger's tag table, -1 if the ledger does not know it


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Samples in any order: their rows, and of each the log position of its entry and the stream."""

    rows: TagRows
    pos: NDArray[np.int64]
    stream: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pos)


class HistoryReader:
    """Answers questions about the past, at most two at a time. Any thread may ask."""

    def __init__(
        self, site: SiteConfig, core_folder: Path, recent: RecentFrames | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000, turnstile: Turnstile | None = None,
    ) -> None:  # fmt: skip
        """`recent` is the view's, so that the newest minutes cost no disk; without it all comes from the ledger.

        `turnstile` is the view's too, who opens and closes it.
        """
        path = core_folder / LEDGER_NAME
        gate = Turnstile(log_of(path)) if turnstile is None else turnstile
        self._site, self._recent, self._wall_ms = site, recent or RecentFrames(), wall_ms
        self._pool = LedgerPool(lambda: LedgerFile(path, site.site, gate), AT_ONCE)
        self._place = {
            point.tag: (edge.id, device.id) for edge in site.edges for device in edge.devices for point in device.points
        }
        self._known = KnownStreams()
        self._blocks = BlockCache()

    def history(self, tag_id: str, from_ms: int, to_ms: int, points_max: int, deadline_s: float) -> History:
        """Return what the ledger holds of a tag in [from_ms, to_ms) of source time.

        Args:
            points_max: 1..10 000; more samples than that come as so many buckets.
            deadline_s: at most 5 s are spent, the wait for a turn included.

        Raises:
            UnknownTagError: the site has no such tag.
            HistoryTooLargeError: the range is over 400 days.
            LedgerAwayError: there is no ledger to read.
            OutOfTimeError: not even the newest part was read in time.
        """
        at = self._site.tag_index.get(tag_id)
        if at is None:
            raise UnknownTagError(tag_id)
        if to_ms - from_ms > RANGE_MS_MAX:
            raise HistoryTooLargeError(to_ms - from_ms, RANGE_MS_MAX)
        points_max = max(1, min(points_max, POINTS_MAX))
        tag, to_ms = self._site.tags[at], max(from_ms, to_ms)
        deadline_s = min(deadline_s, DEADLINE_S_MAX)
        give_up_at = time.monotonic() + deadline_s
        with self._pool.lend(deadline_s) as file:
            node, device = self._place.get(tag_id, ("", ""))
            subject = _Subject(tag, node, device, _tag_number(file, tag_id))
            ledger_id = file.ledger_id()
            self._known.begin(ledger_id)
            oldest_ms = self._known.oldest_frame(file)
            found, sealed, covered_ms, cut = self._found(file, ledger_id, subject, from_ms, to_ms, give_up_at)
        series, duplicates = merged(found, sealed)
        series = series.between(covered_ms, to_ms)
        # What is not yet is no gap; but an edge's clock may be ahead of ours.
        newest_ms = int(series.source_ms[-1]) if len(series) else from_ms
        until_ms = min(to_ms, max(newest_ms, self._wall_ms()))
        gaps, left_out = longest(stretches(series, covered_ms, until_ms, int(tag.stale_after_s * 1000)), GAPS_MAX)
        few = len(series) <= points_max
        width_ms = bucket_width_ms(from_ms, to_ms, points_max)
        return History(
            tag_id, tag.unit or "", from_ms, to_ms, covered_ms,
            truncated=cut != "", truncated_by=cut, oldest_kept_ms=oldest_ms,
            points=_points(series) if few else (), buckets=() if few else bucketed(series, from_ms, width_ms), bucket_ms=width_ms,
            gaps=gaps, gaps_left_out=left_out,
            samples=len(series), late_samples=int(series.late.sum()), duplicates=duplicates,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the ledger."""
        self._pool.close()

    # -- reading --

    def _found(
        self, file: LedgerFile, ledger_id: str, subject: _Subject, from_ms: int, to_ms: int, give_up_at: float
    ) -> tuple[list[Found], dict[int, int], int, _Cut]:
        """Read windows from the newest to the oldest.

        Returns:
            The samples, the position from which on each stream's are late, the start of what is covered, what cut it.
        """
        found: list[Found] = []
        if subject.number < 0 or not subject.node:
            return found, {}, from_ms, ""
        held = self._recent.of(ledger_id, subject.node, subject.device)
        sealed: dict[int, int] = {}
        cut: _Cut = ""
        width_ms, hi_ms = max(WINDOW_MS, -((from_ms - to_ms) // WINDOWS_MAX)), to_ms
        try:
            finder = Finder(file, self._known, self._blocks, subject.node, subject.device, held.after_pos if held else NEVER_POS)
            if held is not None:
                wanted = [frame for frame in held.frames if frame.is_block or frame.last_ms >= from_ms]
                found += self._read(subject, wanted, from_ms, to_ms)
            while hi_ms > from_ms and not cut:
                lo_ms = max(from_ms, hi_ms - width_ms)
                window: list[Found] = []
                for part in finder.parts(lo_ms, hi_ms):
                    for frames in self._slices(file, subject, part, finder.pos_max):
                        window += self._read(subject, frames, lo_ms, hi_ms)
                if sum(map(len, found)) + sum(map(len, window)) > SAMPLES_MAX:
                    cut = "samples"
                elif time.monotonic() > give_up_at:
                    cut = "time"
                else:
                    found += window
                    hi_ms = lo_ms
            sealed = {stream: finder.sealed_pos(stream) for stream in {int(s) for each in found for s in np.unique(each.stream)}}
        except OutOfTimeError:
            cut = "time"
        except LedgerAwayError:
            if hi_ms >= to_ms:
                raise
            cut = "ledger"
        if cut and hi_ms >= to_ms > from_ms:
            raise OutOfTimeError
        return found, sealed, hi_ms if cut else from_ms, cut

    @staticmethod
    def _slices(file: LedgerFile, subject: _Subject, part: StreamPart, pos_max: int) -> Iterator[list[StoredFrame]]:
        """Read the rows of a part, a slice at a time."""
        number = "first" if part.kind == "F" else "last"
        device = "AND device = ?" if part.kind == "F" else ""
        lo = part.lo
        while lo <= part.hi:
            rows = file.rows(
                f"SELECT pos, stream, first, body, {number} FROM log WHERE kind = '{part.kind}' AND node = ? AND stream = ?"  # noqa: S608
                f" AND {number} >= ? AND {number} <= ? AND +pos <= ? {device} ORDER BY {number} LIMIT {SLICE_ROWS}",
                (subject.node, part.stream, lo, part.hi, pos_max, *([subject.device] if device else [])),
            )
            yield [StoredFrame(pos, stream, first, body, 0, part.kind == "B") for pos, stream, first, body, _ in rows]
            if len(rows) < SLICE_ROWS:
                return
            lo = rows[-1][4] + 1

    def _read(self, subject: _Subject, frames: Sequence[StoredFrame], from_ms: int, to_ms: int) -> list[Found]:
        """Take one tag's samples of [from_ms, to_ms) out of rows."""
        plain = [frame for frame in frames if not frame.is_block]
        firsts = np.array([frame.first for frame in plain], np.int64)
        parts = [(plain, tag_of_frames([frame.body for frame in plain], firsts, subject.number))]
        blocks = [frame for frame in frames if frame.is_block]
        parts += [(blocks, self._of_block(subject, frame, at)) for at, frame in enumerate(blocks)]
        found = []
        for source, rows in parts:
            rows = rows.take((rows.source_ms >= from_ms) & (rows.source_ms < to_ms))
            if len(rows.row):
                pos, stream = (np.array([frame[at] for frame in source], np.int64)[rows.row] for at in (0, 1))
                found.append(Found(rows, pos, stream))
        return found

    def _of_block(self, subject: _Subject, frame: StoredFrame, at: int) -> TagRows:
        column = self._blocks.columns(frame.pos, frame.body).of_tag.get(subject.config.id)
        span = subject.config.span()
        return none_found() if column is None else tag_of_block(column, at, span.low, span.high)


def merged(found: Sequence[Found], sealed_pos: Mapping[int, int]) -> tuple[Series, int]:
    """Put samples in order of source time, each frame's once (the copy that came first), and mark the late ones.

    A sample is late if its row came after a later stream had begun, or after a higher number of its own.

    Args:
        sealed_pos: by stream, the log position from which on its rows are late.

    Returns:
        The series, and how many copies were left out.
    """
    if not found:
        rows = none_found()
        return Series(rows.source_ms, rows.value, rows.code, rows.raw, np.empty(0, np.bool_)), 0
    pos = np.concatenate([each.pos for each in found])
    stream = np.concatenate([each.stream for each in found])
    sequence, value, code, source_ms, raw = (
        np.concatenate([getattr(each.rows, name) for each in found]) for name in ("sequence", "value", "code", "source_ms", "raw")
    )
    order = np.lexsort((pos, sequence, stream))
    new_frame = np.append(True, (np.diff(stream[order]) != 0) | (np.diff(sequence[order]) != 0))
    first_pos = pos[order][new_frame][np.cumsum(new_frame) - 1]
    kept = order[pos[order] == first_pos]  # a frame of a foreign node may hold several samples of one tag
    late = np.zeros(len(kept), np.bool_)
    for each in np.unique(stream[kept]).tolist():
        own = np.flatnonzero(stream[kept] == each)
        own_pos = pos[kept[own]]
        from_here_on = np.minimum.accumulate(own_pos[::-1])[::-1]
        late[own] = (own_pos > from_here_on) | (own_pos > sealed_pos.get(each, NEVER_POS))
    in_time = np.lexsort((pos[kept], ~late, source_ms[kept]))  # of one moment, what was late is the older
    rows_in_time = kept[in_time]
    series = Series(source_ms[rows_in_time], value[rows_in_time], code[rows_in_time], raw[rows_in_time], late[in_time])
    return series, len(order) - len(kept)


def _points(series: Series) -> tuple[HistoryPoint, ...]:
    return tuple(
        HistoryPoint(
            source_ms, None if value != value else value, _WORDS.get(quality_of(code), "BAD"), code,
            None if raw != raw else raw, late,
        )
        for source_ms, value, code, raw, late in zip(
            series.source_ms.tolist(), series.value.tolist(), series.code.tolist(), series.raw.tolist(), series.late.tolist(),
            strict=True,
        )
    )  # fmt: skip


def _tag_number(file: LedgerFile, tag: str) -> int:
    rows = file.rows("SELECT id FROM tag WHERE name = ?", (tag,))
    return int(rows[0][0]) if rows else -1
