"""Import, rows: chunks of foreign rows become columns of ours, and everything wrong is told with its line.

A sample that enters the historian is what the gateway itself would have made of it: finite or BAD, within the tag's
range or UNCERTAIN with the measured value beside (see `alerting.condition`).
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import HistoryMapping, HistorySeries, HistoryTime, SiteConfig
from gateway.historian.load_cells import CellError, number_of, shown, time_reader
from wire import Quality, Reason, quality_code

PROBLEMS_TOLD_MAX: Final = 100
SKIPPED_WORDS_MAX: Final = 1000
_GOOD: Final = int(Quality.GOOD)
_BAD_UNKNOWN: Final = quality_code(Quality.BAD, Reason.UNKNOWN)
_RANGE: Final = quality_code(Quality.UNCERTAIN, Reason.RANGE)


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """One thing wrong. `line` counts from 1 (of Parquet: the row); 0 is the file as a whole."""

    line: int
    column: str
    message: str
    message_zh: str


class Problems:
    """The first of all that is wrong, and how many there are."""

    def __init__(self, told_max: int = PROBLEMS_TOLD_MAX) -> None:
        self._told_max = told_max
        self.told: list[LoadProblem] = []
        self.count = 0

    def add(self, line: int, column: str, message: str, message_zh: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.told) < self._told_max:
            self.told.append(LoadProblem(line, column, message, message_zh))


@dataclass(frozen=True, slots=True)
class Target:
    """The tag that a series becomes: its number among all of the site's in the order of their ids, and its range."""

    number: int
    id: str
    low: float
    high: float
    scale: float = 1.0
    offset: float = 0.0


@dataclass(slots=True)
class RowCounts:
    """What became of the rows."""

    rows: int = 0
    missing: int = 0
    unlisted: int = 0
    clamped: int = 0
    values_dropped: int = 0
    """Values that came with BAD: our samples have none then."""
    damaged: int = 0
    """Rows of an export of ours that say that samples could not be read: there is nothing to load."""
    skipped_words: set[str] = field(default_factory=set)
    """Series left out because the mapping says so; the first thousand."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadColumns:
    """n samples: `tag` counts in the site's tags sorted by id, `line` says where each stood; the rest as in Samples."""

    tag: NDArray[np.int32]
    source_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    raw: NDArray[np.float64]
    line: NDArray[np.int64]


class Converter:
    """Turns chunks into columns by one mapping. `columns` says which of the file's columns it wants to be given."""

    def __init__(self, mapping: HistoryMapping, site: SiteConfig, zone: tzinfo, now_ms: int, problems: Problems) -> None:
        """Whatever the mapping names that the site lacks is told at once, with the nearest that it has."""
        self._mapping, self._problems = mapping, problems
        self.names = tuple(sorted(tag.id for tag in site.tags))
        self.counts = RowCounts()
        self._site = site
        self._numbers = {name: at for at, name in enumerate(self.names)}
        self._zone, self._now_ms = zone, now_ms
        self._time_of = time_reader(mapping.time, zone, now_ms)
        self._missing = frozenset(mapping.missing)
        quality = mapping.quality
        self._codes: Mapping[str, int] = dict(quality.words) if quality else {}
        self._other = quality.other if quality else None
        self._targets: dict[str, Target | None] = {}
        for one in mapping.series:
            self._targets[one.source] = self._listed(one)
        self._out: list[tuple[int, int, float, int, float, int]] = []

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads, each once."""
        mapping = self._mapping
        named = [mapping.time.column]
        if mapping.layout == "long":
            named += [mapping.tag_column or "", mapping.value_column or ""]
            named += [mapping.quality.column or ""] if mapping.quality else []
            named += [mapping.raw_column] if mapping.raw_column else []
        else:
            named += [name for one in mapping.series for name in (one.source, one.quality_column) if name]
        return tuple(dict.fromkeys(named))

    def take_moments(self) -> None:
        """The time column holds moments already: UTC epoch milliseconds, whatever the mapping says."""
        moments = HistoryTime(column=self._mapping.time.column, format="epoch_ms")
        self._time_of = time_reader(moments, self._zone, self._now_ms)

    def convert(self, lines: Sequence[int], cells: Mapping[str, Sequence[Any]]) -> LoadColumns:
        """Return the samples of some rows; rows with something wrong are told and give none.

        Args:
            lines: of each row. cells: of each wanted column, one a row: text, or what Parquet holds.
        """
        self._out = []
        self.counts.rows += len(lines)
        times = self._times(lines, cells[self._mapping.time.column])
        if self._mapping.layout == "long":
            self._long(lines, times, cells)
        else:
            self._wide(lines, times, cells)
        return self._made()

    # -- rows --

    def _times(self, lines: Sequence[int], cells: Sequence[Any]) -> list[int | None]:
        times: list[int | None] = []
        for line, cell in zip(lines, cells, strict=True):
            try:
                times.append(self._time_of(cell))
            except CellError as error:
                self._problems.add(line, self._mapping.time.column, str(error), error.message_zh)
                times.append(None)
        return times

    def _long(self, lines: Sequence[int], times: Sequence[int | None], cells: Mapping[str, Sequence[Any]]) -> None:
        mapping = self._mapping
        none = [None] * len(lines)
        values, words = cells[mapping.value_column or ""], cells[mapping.tag_column or ""]
        qualities = cells[mapping.quality.column or ""] if mapping.quality else none
        raws = cells[mapping.raw_column] if mapping.raw_column else none
        targets = self._targets
        for line, at_ms, word, value, quality, raw in zip(lines, times, words, values, qualities, raws, strict=True):
            key = word if isinstance(word, str) else str(word)
            target = targets[key] if key in targets else self._unlisted(line, key)
            if target is not None and at_ms is not None:
                self._sample(line, mapping.value_column or "", target, at_ms, value, quality, raw)

    def _wide(self, lines: Sequence[int], times: Sequence[int | None], cells: Mapping[str, Sequence[Any]]) -> None:
        none = [None] * len(lines)
        for one in self._mapping.series:
            target = self._targets[one.source]
            qualities = cells[one.quality_column] if one.quality_column else none
            if target is None:
                continue
            for line, at_ms, value, quality in zip(lines, times, cells[one.source], qualities, strict=True):
                if at_ms is not None:
                    self._sample(line, one.source, target, at_ms, value, quality, None, graded=one.quality_column is not None)

    def _sample(
        self, line: int, column: str, target: Target, at_ms: int, cell: Any, word: Any, raw_cell: Any, *, graded: bool = True
    ) -> None:
        try:
            value = math.nan if cell is None or cell in self._missing else number_of(cell)
            code = self._code(word) if graded and self._mapping.quality is not None else _GOOD
            raw = math.nan if raw_cell is None or raw_cell in self._missing else number_of(raw_cell)
        except CellError as error:
            self._problems.add(line, column, str(error), error.message_zh)
            return
        if value != value and code >= Quality.UNCERTAIN:
            if self._mapping.missing_is == "skip":
                self.counts.missing += 1
                return
            code = _BAD_UNKNOWN
        if code < Quality.UNCERTAIN:
            self.counts.values_dropped += value == value
            self._out.append((target.number, at_ms, math.nan, code, math.nan, line))
            return
        value = value * target.scale + target.offset
        raw = raw * target.scale + target.offset if code == _RANGE else math.nan
        if not math.isfinite(value) or math.isinf(raw):
            self._problems.add(line, column, f"{shown(cell)} becomes too large", f"{shown(cell)} 换算后溢出")
            return
        if not target.low <= value <= target.high:
            self.counts.clamped += 1
            raw = value if raw != raw else raw
            value, code = min(max(value, target.low), target.high), _RANGE
        self._out.append((target.number, at_ms, value, code, raw, line))

    def _code(self, word: Any) -> int:
        key = word if isinstance(word, str) else "" if word is None else str(word)
        code = self._codes.get(key, self._other)
        if code is None:
            near = _nearest(key, self._codes)
            raise CellError(
                f"quality {shown(key)} is not in the mapping" + (f"; did you mean {near!r}?" if near else ""),
                f"质量 {shown(key)} 不在映射中" + (f"；是否为 {near!r}？" if near else ""),
            )
        return code

    def _made(self) -> LoadColumns:
        tag, at_ms, value, code, raw, line = zip(*self._out, strict=True) if self._out else ((),) * 6
        self._out = []
        return LoadColumns(
            np.array(tag, np.int32), np.array(at_ms, np.int64), np.array(value, np.float64), np.array(code, np.uint8),
            np.array(raw, np.float64), np.array(line, np.int64),
        )  # fmt: skip

    # -- series and tags --

    def _listed(self, one: HistorySeries) -> Target | None:
        target = self._target(one.tag, one.scale, one.offset)
        if target is None:
            near = _nearest(one.tag, self.names)
            meant, meant_zh = (f"; did you mean {near}?", f"；是否为 {near}？") if near else ("", "")
            self._problems.add(
                0, one.source, f"series {shown(one.source)}: the site has no tag {one.tag}{meant}",
                f"series {shown(one.source)}：站点没有测点 {one.tag}{meant_zh}",
            )  # fmt: skip
        return target

    def _unlisted(self, line: int, word: str) -> Target | None:
        """A series the mapping does not name: what it is, is found out once, and told once."""
        mode = self._mapping.unlisted
        target = self._target(word, 1.0, 0.0) if mode == "same" else None
        named = next((one.source for one in self._mapping.series if one.tag == word), None) if target is not None else None
        if named is not None:
            self._problems.add(
                line, self._mapping.tag_column or "",
                f"{named} and {word} both become {word}; if they are one point, list {word} under series with same_tag: true",
                f"{named} 和 {word} 都对应 {word}；若确为同一测点，请在 series 中列出 {word} 并写 same_tag: true",
            )  # fmt: skip
        if mode == "skip":
            self.counts.unlisted += 1
            if len(self.counts.skipped_words) < SKIPPED_WORDS_MAX:
                self.counts.skipped_words.add(word)
            return None
        if len(self._targets) < 2 * len(self.names) + 100_000:
            self._targets[word] = target
        if target is None:
            near = _nearest(word, self.names if mode == "same" else [one.source for one in self._mapping.series])
            told, told_zh = (
                ("the site has no tag", "站点没有测点") if mode == "same" else ("the mapping has no series", "映射中没有 series")
            )
            meant, meant_zh = (f"; did you mean {near}?", f"；是否为 {near}？") if near else ("", "")
            self._problems.add(
                line, self._mapping.tag_column or "", f"{told} {shown(word)}{meant}", f"{told_zh} {shown(word)}{meant_zh}"
            )
        return target

    def _target(self, tag_id: str, scale: float, offset: float) -> Target | None:
        at = self._site.tag_index.get(tag_id)
        if at is None:
            return None
        span = self._site.tags[at].span()
        return Target(self._numbers[tag_id], tag_id, span.low, span.high, scale, offset)


def missing_columns(wanted: Sequence[str], there: Sequence[str], problems: Problems, line: int) -> bool:
    """Tell which of the wanted columns the file lacks, and which it has twice; return whether there were such."""
    before = problems.count
    for name, count in Counter(there).items():
        if count > 1 and name in wanted:
            problems.add(line, name, f"{count} columns are named {shown(name)}", f"有 {count} 列名为 {shown(name)}")
    for name in wanted:
        if name not in there:
            near = _nearest(name, there)
            listed = f"; did you mean {shown(near)}?" if near else f"; there are {', '.join(map(shown, there[:20]))}"
            listed_zh = f"；是否为 {shown(near)}？" if near else f"；现有 {'、'.join(map(shown, there[:20]))}"
            problems.add(line, name, f"there is no column {shown(name)}{listed}", f"没有列 {shown(name)}{listed_zh}")
    return problems.count > before


def _nearest(word: str, candidates: Sequence[str] | Mapping[str, int]) -> str | None:
    """Return the candidate that a person most likely meant."""
    found = difflib.get_close_matches(word[:100], list(candidates)[:20_000], n=1, cutoff=0.55)
    return found[0] if found else None
