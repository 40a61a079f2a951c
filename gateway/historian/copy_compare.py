"""Copy, the comparison: one day of two stores, tag by tag, row by row. Neither is ever held as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gateway.historian.samples import Samples, concatenated


@dataclass(frozen=True, slots=True, eq=False)
class TagDifference:
    """What a target lacks of one tag's day.

    Attributes:
        rows, digest: of the source. missing: rows that the target lacks. different: the source's rows where the target
            has another value, quality or raw value at that moment. extra: how many moments only the target has.
    """

    tag: str
    rows: int
    digest: int
    missing: Samples
    different: Samples
    extra: int

    def wanted(self) -> Samples:
        """Return what must be written so that the target holds the source's rows."""
        return concatenated([self.missing, self.different]) if len(self.different) else self.missing


def compared(source: Iterable[Samples], target: Iterable[Samples], tolerance: float = 0.0) -> Iterator[TagDifference]:
    """Compare two days as `Historian.day` yields them: whole tags, in the order of their ids, one row a tag and ms.

    Args:
        tolerance: values count as the same if they differ by at most this share of the largest of that tag that day: for
            stores that keep fewer than 17 digits. 0: they must be the same number.
    """
    there = _by_tag(target)
    other = next(there, None)
    for own in _by_tag(source):
        name = own.names[0]
        while other is not None and other.names[0] < name:
            yield _only_extra(other)
            other = next(there, None)
        if other is not None and other.names[0] == name:
            yield _difference(own, other, tolerance)
            other = next(there, None)
        else:
            yield _difference(own, Samples.empty((name,)), tolerance)
    while other is not None:
        yield _only_extra(other)
        other = next(there, None)


def _by_tag(pieces: Iterable[Samples]) -> Iterator[Samples]:
    """Yield the samples tag by tag, each in order of time; a store may give a tag in several pieces."""
    for _, parts in groupby(_runs(pieces), key=lambda part: part.names[0]):
        first, *rest = parts
        yield concatenated([first, *rest]).in_order() if rest else first


def _runs(pieces: Iterable[Samples]) -> Iterator[Samples]:
    for piece in pieces:
        if not len(piece):
            continue
        starts = np.flatnonzero(np.diff(piece.tag, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(piece)], strict=True):
            run = piece.take(slice(start, end))
            yield replace(run, names=(piece.names[int(run.tag[0])],), tag=np.zeros(len(run), np.int32))


def _difference(own: Samples, other: Samples, tolerance: float) -> TagDifference:
    place = np.searchsorted(other.source_ms, own.source_ms)
    there = place < len(other)
    there[there] = other.source_ms[place[there]] == own.source_ms[there]
    at = place[there]
    mine = own.take(there)
    same = (
        (mine.code == other.code[at]) & _same(mine.value, other.value[at], tolerance) & _same(mine.raw, other.raw[at], tolerance)
    )
    return TagDifference(
        own.names[0], len(own), own.digest(), own.take(~there), mine.take(~same), len(other) - int(there.sum())
    )


def _only_extra(other: Samples) -> TagDifference:
    none = Samples.empty(other.names)
    return TagDifference(other.names[0], 0, 0, none, none, len(other))


def _same(one: NDArray[np.float64], two: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (one == two) | (np.isnan(one) & np.isnan(two))
    if tolerance and not same.all():
        largest = np.max(np.abs(one[np.isfinite(one)]), initial=0.0)  # of an infinite one every difference would be a small share
        with np.errstate(invalid="ignore", over="ignore"):
            same = same | (np.abs(one - two) <= tolerance * largest)
    return same
