"""Rollups out of the segment folder: what is kept of whole windows, and samples where that would not be exact."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.historian.limits import too_many
from gateway.historian.samples import Samples
from gateway.historian.segments.folder import LiveFile, Snapshot
from gateway.historian.segments.missing import Missing, within
from gateway.historian.segments.moments import of_names, together
from gateway.historian.segments.names import ROLLUPS
from gateway.historian.segments.query import SUMMABLE, UnreadableError, by_halves
from gateway.historian.segments.reading_samples import SamplesReader
from gateway.historian.store import ROWS_MAX
from gateway.historian.windows import ROLLUP_COLUMNS, ROLLUP_MS, Rollups, in_time, interleaved, joined, rolled_up

ROLLUP_ROWS_MAX: Final = 1_000_000


class RollupsReader(SamplesReader):
    """Reads samples and rollups of one historian folder. Any thread may ask."""

    def rollups(
        self, taken: Snapshot, names: tuple[str, ...], from_ms: int, to_ms: int, give_up_at: float,
        more: Samples | None = None, columns: Collection[str] = ROLLUP_COLUMNS, width_ms: int = ROLLUP_MS,
    ) -> tuple[Rollups, list[Missing]]:  # fmt: skip
        """Return rows of 5 min of [from_ms, to_ms), exact at both ends; no two of a tag `interleaved`.

        With a longer width (5 min times a whole number, from such a `from_ms` on) there may be rows of such windows instead,
        where nothing asked for is lost by it: the database puts them together, and far fewer are carried here.

        Windows that lie whole in the range come from what is kept of them; the ends, and windows that several files
        hold mixed with each other, from their samples.

        Args:
            more: samples of these names that are not in any file yet; they count as if they were.
            columns: `windows.columns_for`; the others are left out.
        """
        if not SUMMABLE.issuperset(columns):
            width_ms = ROLLUP_MS
        lo_ms, hi_ms = -(-from_ms // ROLLUP_MS) * ROLLUP_MS, to_ms // ROLLUP_MS * ROLLUP_MS
        ends = [(from_ms, lo_ms), (hi_ms, to_ms)] if lo_ms < hi_ms else [(from_ms, to_ms)]
        parts: list[Rollups] = []
        missing: list[Missing] = []
        if lo_ms < hi_ms:
            parts, missing = self._kept(taken, names, lo_ms, hi_ms, columns, width_ms, give_up_at)
        spans = [(at, lo, hi) for lo, hi in ends if lo < hi for at in range(len(names))]
        if spans:
            found, lost = self.samples_of(taken, names, spans, ROWS_MAX, give_up_at)
            parts.append(rolled_up(found))
            missing += lost
        own = of_names(more, names, from_ms, to_ms) if more is not None else Samples.empty(names)
        parts.append(rolled_up(own))
        rows = joined(parts)
        order = in_time(rows)
        rows = rows if order is None else rows.take(order)
        mixed = interleaved(rows)
        if mixed.any() and width_ms > ROLLUP_MS:
            rows = self._finer(taken, rows, mixed, own, (from_ms, to_ms), columns, width_ms, give_up_at, missing)
        elif mixed.any():
            rows = self._unmixed(taken, rows, mixed, own, (from_ms, to_ms), give_up_at, missing)
        return rows, missing

    def _finer(
        self, taken: Snapshot, rows: Rollups, mixed: NDArray[np.bool_], more: Samples, within: tuple[int, int],
        columns: Collection[str], width_ms: int, give_up_at: float, missing: list[Missing],
    ) -> Rollups:  # fmt: skip
        """Replace long windows that several pieces hold mixed by their rows of 5 min."""
        origin = within[0]
        held = np.unique(_window_key(rows.take(mixed), width_ms, origin))
        parts = [rows.take(~np.isin(_window_key(rows, width_ms, origin), held))]
        place, tag = np.divmod(held, len(rows.names))
        lo_ms, hi_ms = origin + int(place.min()) * width_ms, min(within[1], origin + (int(place.max()) + 1) * width_ms)
        wanted, group = np.unique(tag).tolist(), max(1, ROLLUP_ROWS_MAX // max(1, (hi_ms - lo_ms) // ROLLUP_MS))
        for at in range(0, len(wanted), group):
            some = wanted[at : at + group]
            found, lost = self.rollups(taken, tuple(rows.names[each] for each in some), lo_ms, hi_ms, give_up_at, more, columns)
            missing += [each for each in lost if not any(
                each.file == told.file and told.from_ms <= each.from_ms and each.to_ms <= told.to_ms for told in missing
            )]  # fmt: skip
            found = replace(found, names=rows.names, tag=np.array(some, np.int32)[found.tag])
            parts.append(found.take(np.isin(_window_key(found, width_ms, origin), held)))
        return joined(parts)

    def _kept(
        self, taken: Snapshot, names: tuple[str, ...], lo_ms: int, hi_ms: int, columns: Collection[str], width_ms: int,
        give_up_at: float,
    ) -> tuple[list[Rollups], list[Missing]]:  # fmt: skip
        missing = self._manifests_missing(taken, lo_ms, hi_ms)
        broken: list[LiveFile] = []
        lost: list[Missing] = []
        files = self._files(taken, [(0, lo_ms, hi_ms)])
        sound = self._sound(files, "rollups", names, lost)
        broken += [file for file in files if not any(file is each for each in sound)]

        def unreadable(file: LiveFile, error: UnreadableError) -> None:
            self._unreadable(file, "rollups", error, lost)
            broken.append(file)

        def ask(some: Sequence[LiveFile]) -> Rollups:
            paths = self._paths(some, ROLLUPS)
            if width_ms > ROLLUP_MS:
                return self._parquet.summed_rollups(paths, names, lo_ms, hi_ms, width_ms, ROLLUP_ROWS_MAX, give_up_at, columns)
            return self._parquet.rollups(paths, names, lo_ms, hi_ms, ROLLUP_ROWS_MAX, give_up_at, columns)

        parts = by_halves(sound, ask, unreadable)
        for file in broken:  # its samples say the same, only slower
            one = replace(taken, manifests=tuple(m for m in taken.manifests if m.stem == file.stem), unreadable=())
            span = max(lo_ms, file.file.from_ms), min(hi_ms, file.file.to_ms + 1)
            found, gone = self.samples_of(one, names, [(at, *span) for at in range(len(names))], ROWS_MAX, give_up_at, evidence=False)
            parts.append(rolled_up(found))
            missing += gone
        if self._evidence(taken, lo_ms, hi_ms):
            only = replace(taken, manifests=(), unreadable=())
            found, gone = self.samples_of(only, names, [(at, lo_ms, hi_ms) for at in range(len(names))], ROWS_MAX, give_up_at)
            parts.append(rolled_up(found))
            missing += gone
        return parts, within(missing, lo_ms, hi_ms)

    def _unmixed(
        self, taken: Snapshot, rows: Rollups, mixed: NDArray[np.bool_], more: Samples, within: tuple[int, int],
        give_up_at: float, missing: list[Missing],
    ) -> Rollups:  # fmt: skip
        """Replace windows that several pieces hold mixed by what their samples say together."""
        windows = sorted(set(zip(rows.tag[mixed].tolist(), rows.start_ms[mixed].tolist(), strict=True)))
        again = np.isin(_window_key(rows), _window_key(rows.take(mixed)))
        if int(rows.samples[again].sum()) > ROWS_MAX:
            raise too_many(ROWS_MAX)
        found, lost = self.samples_in_windows(taken, rows.names, windows, within, ROWS_MAX, give_up_at)
        missing += [each for each in lost if each not in missing]
        inside = np.isin(more.source_ms // ROLLUP_MS * len(rows.names) + more.tag, _window_key(rows.take(again)))
        both = together([Samples.empty(rows.names), found, more.take(inside)])
        return joined([rows.take(~again), rolled_up(both)])


def _window_key(rows: Rollups, width_ms: int = ROLLUP_MS, origin_ms: int = 0) -> NDArray[np.int64]:
    """Return one number for each tag and window."""
    return (rows.start_ms - origin_ms) // width_ms * len(rows.names) + rows.tag
