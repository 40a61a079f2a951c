"""Import of foreign history: the whole file is read and must be sound; then its samples are written in parts.

A load's id is a hash of the file's content, the mapping and the ranges of the tags concerned: the same file loaded
again is the same load, and what of it is there already is not written twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol
from zoneinfo import ZoneInfo

from config import QUALITY_CODES, HistoryMapping, HistoryQuality, HistoryTime, SiteConfig
from gateway.historian.export_aside import folder_aside
from gateway.historian.export_columns import DAMAGED
from gateway.historian.load_files import Chunk, FileRead, read_csv, read_parquet
from gateway.historian.load_rows import Converter, LoadProblem, Problems, RowCounts
from gateway.historian.load_stage import Part, Stage
from gateway.historian.samples import Samples
from gateway.historian.store import HistorianError

FORMAT: Final = 1
LOAD_ID_DIGITS: Final = 24
QUALITY_COLUMN: Final = "quality"  # of our own exports

_CODES: Final = {str(code): word for word, code in QUALITY_CODES.items()}


def own_mapping() -> HistoryMapping:
    """Return the mapping of our own exports, CSV and Parquet alike."""
    return HistoryMapping(
        version=1, layout="long", time=HistoryTime(column="utc_ms", format="epoch_ms"), tag_column="tag", value_column="value",
        raw_column="raw", missing_is="bad", unlisted="same",
        quality=HistoryQuality.model_validate({"column": "code", "words": _CODES}),
    )  # fmt: skip


class LoadError(HistorianError):
    """Nothing was loaded, or not all of it; the message says what to do."""


class LoadRefusedError(LoadError):
    """The file or its mapping is wrong: nothing was loaded. `problems` holds the first of `count`."""

    def __init__(self, path: Path, problems: Sequence[LoadProblem], count: int) -> None:
        self.path, self.problems, self.count = path, tuple(problems), count
        super().__init__(
            f"{path}: {count} things are wrong; nothing was loaded", f"{path}：有 {count} 处错误；没有导入任何数据"
        )


class PartSink(Protocol):
    """Where the parts of one load go. What it has is there for good."""

    def has(self, part: int) -> bool:
        """Return whether the part is there, wholly."""
        ...

    def write(self, part: int, samples: Samples) -> None:
        """Make it there; in order of the parts."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is: 0 to 1 of its reading, then 0 to 1 of its writing."""

    stage: Literal["read", "write"]
    done: float
    rows: int


@dataclass(frozen=True, slots=True)
class TagLoaded:
    """What a load has of one tag."""

    tag: str
    rows: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did, or in a dry run would do.

    `samples`: after `duplicates` (rows of one tag and moment: the last counts) are left out. `parts_there` were there
    before, of `parts`. `digest` is `Samples.digest` of all.
    """

    load_id: str
    counts: RowCounts
    samples: int
    duplicates: int
    good: int
    uncertain: int
    bad: int
    tags: tuple[TagLoaded, ...]
    parts: int
    parts_there: int
    digest: int


def load_file(
    path: Path, mapping: HistoryMapping | None, site: SiteConfig, work: Path, sink_of: Callable[[str], PartSink] | None, now_ms: int,
    progress: Callable[[LoadProgress], None] = lambda _: None,
) -> Loaded:  # fmt: skip
    """Load a CSV or Parquet file.

    Args:
        mapping: None for our own exports.
        work: an existing folder on a disk with room for all samples (about 40 bytes each) while this runs.
        sink_of: opens the sink of a load by its id; None for a dry run.
        now_ms: what is stamped more than a day later is refused.

    Raises:
        LoadRefusedError: something in the file or the mapping is wrong; nothing was written.
        LoadError: neither .csv nor .parquet. OSError, HistorianError, ManifestError: writing failed; do the same again
        and it goes on.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".txt", ".parquet"):
        raise LoadError(f"{path}: give a .csv or a .parquet file", f"{path}：请给出 .csv 或 .parquet 文件")
    given = mapping or own_mapping()
    problems, read = Problems(), FileRead()
    with _disk_told(work), folder_aside(work, "import-") as folder:
        zone = ZoneInfo(given.time.timezone or site.timezone)
        converter = Converter(given, site, zone, now_ms, problems)
        optional = () if mapping is not None else (QUALITY_COLUMN,)  # who made the file smaller may have left it out
        if kind == ".parquet":
            zoned, rows = read_parquet(path, converter.columns, given.time.column, problems, read, optional)
            if zoned:
                converter.take_moments()
            chunks = rows()
        else:
            chunks = read_csv(path, given, converter.columns, problems, read, optional)
        stage = Stage(folder, converter.names)
        try:
            for chunk in chunks:
                _take(stage, converter, problems, chunk if mapping is not None else _without_damage(chunk, converter.counts))
                progress(LoadProgress("read", min(1.0, read.done / max(1, read.whole)), converter.counts.rows))
            if problems.count:
                raise LoadRefusedError(path, problems.told, problems.count)
            return _write(stage, converter, _load_id(read.sha256, given, site, zone), sink_of, progress)
        finally:
            stage.close()


@contextmanager
def _disk_told(work: Path) -> Iterator[None]:
    """Tell what DuckDB says when the disk refuses it as one sentence."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        cause = str(error).partition("\n")[0][:300]
        raise LoadError(
            f"{work}: the import was ended ({cause}); free some space or see to the disk, then do the same again: it goes on",
            f"{work}：导入中断（{cause}）；请腾出空间或检查磁盘，然后再次执行即可续做",
        ) from error


def _take(stage: Stage, converter: Converter, problems: Problems, chunk: Chunk) -> None:
    columns = converter.convert(*chunk)
    if not problems.count:  # once something is wrong nothing will be written, only told
        stage.add(columns)


def _without_damage(chunk: Chunk, counts: RowCounts) -> Chunk:
    """Leave out the rows of our own exports that are no samples but say that some could not be read."""
    lines, cells = chunk
    if QUALITY_COLUMN not in cells:
        return chunk
    kept = [at for at, word in enumerate(cells[QUALITY_COLUMN]) if not str(word).startswith(DAMAGED)]
    if len(kept) == len(lines):
        return chunk
    counts.damaged += len(lines) - len(kept)
    return [lines[at] for at in kept], {name: [column[at] for at in kept] for name, column in cells.items()}


def _write(
    stage: Stage, converter: Converter, load_id: str, sink_of: Callable[[str], PartSink] | None,
    progress: Callable[[LoadProgress], None],
) -> Loaded:  # fmt: skip
    counted, qualities, parts = stage.counted(), stage.qualities(), stage.parts()
    digest = rows = there = 0
    sink = sink_of(load_id) if sink_of is not None else None
    try:
        for part in parts:
            samples = stage.samples(part)
            rows, digest = rows + len(samples), (digest + samples.digest()) % 2**64
            if sink is not None:
                there += _put(sink, part, samples)
                progress(LoadProgress("write", (part.number + 1) / len(parts), rows))
    finally:
        if sink is not None:
            sink.close()
    return Loaded(
        load_id, converter.counts, rows, sum(count - moments for _, count, moments, _, _ in counted),
        good=sum(count for code, count in qualities.items() if code >= 192),
        uncertain=sum(count for code, count in qualities.items() if 64 <= code < 192),
        bad=sum(count for code, count in qualities.items() if code < 64),
        tags=tuple(TagLoaded(converter.names[tag], moments, first, last) for tag, _, moments, first, last in counted),
        parts=len(parts), parts_there=there, digest=digest,
    )  # fmt: skip


def _put(sink: PartSink, part: Part, samples: Samples) -> bool:
    """Write a part unless it is there; return whether it was."""
    if sink.has(part.number):
        return True
    sink.write(part.number, samples)
    return False


def _load_id(sha256: str, mapping: HistoryMapping, site: SiteConfig, zone: ZoneInfo) -> str:
    """Return 24 hex digits that follow from all that decides what samples come out."""
    tags = {one.tag for one in mapping.series} if mapping.unlisted != "same" else {tag.id for tag in site.tags}
    spans = sorted((tag.id, tag.span().low, tag.span().high) for tag in site.tags if tag.id in tags)
    told = json.dumps(
        {"format": FORMAT, "sha256": sha256, "mapping": mapping.model_dump(mode="json"), "zone": zone.key, "spans": spans},
        sort_keys=True, separators=(",", ":"),
    )  # fmt: skip
    return hashlib.sha256(told.encode()).hexdigest()[:LOAD_ID_DIGITS]
