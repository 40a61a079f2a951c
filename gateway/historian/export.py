"""Export, the part that reads: tags one after the other, each in order of time, in pieces of bounded size.

It knows the port alone. How a piece becomes text, Parquet or a sheet is said in the other `export_*` files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from difflib import get_close_matches
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.missing import Missing
from gateway.historian.store import (
    RANGE_MS_MAX,
    HistorianError,
    QueryTimeError,
    QueryTooLargeError,
)

Format = Literal["csv", "parquet", "xlsx"]

PIECE_ROWS_MAX: Final = 100_000
SPAN_MS_MAX: Final = 3_660 * DAY_MS
TAGS_MAX: Final = 100_000
ROWS_MAX_OF: Final[dict[Format, int]] = {"csv": 2_000_000_000, "parquet": 2_000_000_000, "xlsx": 3_000_000}
"""Rows of one export; a workbook beyond three full sheets opens nowhere."""
STEP_MS_FIRST: Final = DAY_MS
STEP_MS_SLOWEST: Final = 60_000
"""A store that cannot read a minute of one tag in time is no store to export from."""
PIECE_S_MAX: Final = 30.0


class RangeReader(Protocol):
    """What an export needs of a historian: see `Historian.range`."""

    def range(self, tag: str, from_ms: int, to_ms: int, rows_max: int = ..., deadline_s: float = ...) -> Samples:
        """Return one tag's samples in order of source time."""
        ...


@runtime_checkable
class ReadsPastDamage(Protocol):
    """A store that can say what of a range cannot be read, and give the rest."""

    def readable(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ..., deadline_s: float = ...
    ) -> tuple[Samples, Sequence[Missing]]:
        """Return what `range` does, but for what cannot be read, and these stretches."""
        ...


class ExportError(HistorianError):
    """An export is not made; nothing is left where it was to go."""


@dataclass(frozen=True, slots=True)
class ExportTag:
    """A tag and what the export says of it beside its samples."""

    id: str
    name_zh: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What is to be exported: these tags, in this order, of [from_ms, to_ms) of source time; at most `rows_max` rows."""

    tags: tuple[ExportTag, ...]
    from_ms: int
    to_ms: int
    zone: tzinfo
    rows_max: int

    def __post_init__(self) -> None:
        if not self.tags:
            raise ExportError("no tag is asked for; name at least one", "没有指定测点；请至少指定一个")
        if len(self.tags) > TAGS_MAX:
            asked = len(self.tags)
            raise ExportError(f"{asked} tags are too many; at most {TAGS_MAX}", f"{asked} 个测点过多；最多 {TAGS_MAX} 个")
        if self.from_ms >= self.to_ms:
            raise ExportError("the range is empty: its begin must be before its end", "范围为空：起点必须早于终点")
        if self.to_ms - self.from_ms > SPAN_MS_MAX:
            days = SPAN_MS_MAX // DAY_MS
            raise ExportError(f"the range is longer than {days} days; ask for less", f"范围超过 {days} 天；请缩小范围")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some samples of one tag in order of source time, and how much of the order is done with it (0 to 1).

    `damaged`: stretches of the tag that cannot be read and begin here, cut to the order, not after the first of the samples.
    """

    tag: ExportTag
    samples: Samples
    done: float
    damaged: tuple[Missing, ...] = ()


def pieces(historian: RangeReader, order: ExportOrder, piece_rows_max: int = PIECE_ROWS_MAX) -> Iterator[Piece]:
    """Read what is ordered; pieces may be empty (a stretch without samples), for the progress they tell.

    Where a store can, it goes past what is damaged: every piece of it is told once of each tag.

    Raises:
        ExportError: there are more rows than the order allows.
        HistorianError: as the store says.
    """
    rows, step_ms = 0, STEP_MS_FIRST
    span_ms = order.to_ms - order.from_ms
    for number, tag in enumerate(order.tags):
        lo_ms = order.from_ms
        told: set[tuple[str, tuple[int, int] | None]] = set()
        while lo_ms < order.to_ms:
            hi_ms = min(lo_ms + step_ms, order.to_ms)
            try:
                found, missing = _read(historian, tag.id, lo_ms, hi_ms, piece_rows_max)
            except QueryTooLargeError:
                if hi_ms - lo_ms <= 1:
                    raise
                step_ms = max(1, (hi_ms - lo_ms) // 2)
                continue
            except QueryTimeError:
                if hi_ms - lo_ms <= STEP_MS_SLOWEST:
                    raise
                step_ms = max(STEP_MS_SLOWEST, (hi_ms - lo_ms) // 2)
                continue
            rows += len(found)
            if rows > order.rows_max:
                raise ExportError(
                    f"more than {order.rows_max} rows; ask for fewer tags or a shorter range",
                    f"超过 {order.rows_max} 行；请减少测点或缩短范围",
                )
            lo_ms = hi_ms
            new = [_cut(each, order) for each in missing if (each.file, each.whole) not in told]
            told |= {(each.file, each.whole) for each in missing}
            done = (number + (lo_ms - order.from_ms) / span_ms) / len(order.tags)
            yield from _in_order(Piece(tag, found, done), sorted(new, key=lambda each: (each.from_ms, each.to_ms, each.file)))
            if len(found) < piece_rows_max // 4:
                step_ms = min(step_ms * 2, RANGE_MS_MAX)


def _read(historian: RangeReader, tag: str, from_ms: int, to_ms: int, rows_max: int) -> tuple[Samples, Sequence[Missing]]:
    if isinstance(historian, ReadsPastDamage):
        return historian.readable(tag, from_ms, to_ms, rows_max=rows_max, deadline_s=PIECE_S_MAX)
    return historian.range(tag, from_ms, to_ms, rows_max=rows_max, deadline_s=PIECE_S_MAX), ()


def _cut(missing: Missing, order: ExportOrder) -> Missing:
    """Return the whole stretch, as far as it was ordered: how it was met depends on how it was read."""
    from_ms, to_ms = missing.whole or (missing.from_ms, missing.to_ms)
    return replace(missing, from_ms=max(from_ms, order.from_ms), to_ms=min(to_ms, order.to_ms))


def _in_order(piece: Piece, damaged: Sequence[Missing]) -> Iterator[Piece]:
    """Cut a piece where a stretch begins that cannot be read."""
    samples, waiting = piece.samples, list[Missing]()
    for each in damaged:
        at = int(np.searchsorted(samples.source_ms, each.from_ms))
        if at:
            yield replace(piece, samples=samples.take(slice(0, at)), damaged=tuple(waiting))
            samples, waiting = samples.take(slice(at, None)), []
        waiting.append(each)
    yield replace(piece, samples=samples, damaged=tuple(waiting))


def chosen(tags: Sequence[ExportTag], wanted: Sequence[str]) -> tuple[ExportTag, ...]:
    """Return the tags that are wanted, each once, in the order wanted.

    Raises:
        ExportError: some are unknown; says which.
    """
    by_id = {tag.id: tag for tag in tags}
    unknown = [word for word in wanted if word not in by_id]
    if unknown:
        listed = ", ".join(map(ascii, unknown[:10]))
        near = get_close_matches(unknown[0].upper(), by_id, n=1)
        meant, meant_zh = (f"; did you mean {near[0]}?", f"；是否为 {near[0]}？") if near else ("", "")
        raise ExportError(f"the site has no tag {listed}{meant}", f"站点没有测点 {listed}{meant_zh}")
    return tuple(by_id[word] for word in dict.fromkeys(wanted))
