"""Import: what a foreign file says comes in as our own samples, everything wrong is told, and a cut load goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import DEMO_SITE, ConfigErrors, HistoryMapping, HistoryTime, SiteConfig, load_history_mapping, load_site
from gateway.historian.export import ExportOrder, ExportTag
from gateway.historian.export_file import write_export
from gateway.historian.load import Loaded, LoadError, LoadProgress, LoadRefusedError, load_file
from gateway.historian.load_cells import CellError, number_of, time_reader
from gateway.historian.load_sink import SegmentSink
from gateway.historian.memory import MemoryHistorian
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.segments.durable import hook_steps
from gateway.historian.segments.folder import SegmentFolder
from tests.historian.move.samples import BAD, GOOD, RANGE, SHANGHAI, T0_MS, Row, many, rows_of
from tests.patience import killed_if_it_hangs

SITE: SiteConfig = load_site(DEMO_SITE)
CHOSEN = [tag for tag in SITE.tags if not tag.discrete][:2]
A, B = sorted(tag.id for tag in CHOSEN)
SPAN = {tag.id: tag.span() for tag in CHOSEN}
NOW_MS = T0_MS + 30 * DAY_MS


class Kept:
    """A sink in memory that knows its load."""

    def __init__(self) -> None:
        self.parts: dict[int, Samples] = {}
        self.written: list[int] = []
        self.load_id = ""

    def open(self, load_id: str) -> Kept:
        self.load_id = load_id
        return self

    def has(self, part: int) -> bool:
        return part in self.parts

    def write(self, part: int, samples: Samples) -> None:
        assert part == len(self.parts), "parts come in order"
        self.written.append(part)
        self.parts[part] = samples

    def close(self) -> None:
        pass

    def rows(self) -> list[Row]:
        return rows_of(concatenated(list(self.parts.values()))) if self.parts else []


def mapping(text: str, folder: Path) -> HistoryMapping:
    path = folder / "mapping.yaml"
    path.write_text("version: 1\n" + text, "utf-8")
    return load_history_mapping(path)


def loaded(folder: Path, content: str | bytes, told: str | None, sink: Kept | None = None) -> tuple[Kept, Loaded]:
    path = folder / "foreign.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    kept = sink or Kept()
    done = load_file(path, mapping(told, folder) if told else None, SITE, folder, kept.open, NOW_MS)
    assert not [each for each in folder.iterdir() if each.name.startswith("import-")], "its staging is gone"
    return kept, done


def refused(folder: Path, content: str | bytes, told: str) -> LoadRefusedError:
    kept = Kept()
    with pytest.raises(LoadRefusedError) as caught:
        loaded(folder, content, told, kept)
    assert not kept.parts
    assert all(any("\u4e00" <= char <= "\u9fff" for char in each.message_zh) for each in caught.value.problems)
    return caught.value


LONG = f"""layout: long
time: {{column: when}}
tag_column: point
value_column: value
series:
  - {{source: TI-1, tag: {A}}}
  - {{source: 乙, tag: {B}, scale: 0.5, offset: 1}}
"""
MID = {tag: (span.low + span.high) / 2 for tag, span in SPAN.items()}


# ------------------------------------------------------------------ cells


@pytest.mark.parametrize(
    ("form", "cell", "expected"),
    [
        ("iso", "2025-10-09 08:00:00", T0_MS),
        ("iso", "2025-10-09T00:00:00.250Z", T0_MS + 250),
        ("iso", "2025-10-09T09:00:00+09:00", T0_MS),
        ("iso", "2025-10-09", T0_MS - 8 * 3_600_000),
        ("iso", "2025-10-09 08:00:00.999999", T0_MS + 999),
        ("epoch_s", str(T0_MS / 1000 + 0.125), T0_MS + 125),
        ("epoch_ms", str(T0_MS), T0_MS),
        ("epoch_us", T0_MS * 1000 + 999, T0_MS),
        ("excel", "45939.333333333336", T0_MS),
        ("%Y/%m/%d %H:%M", "2025/10/09 08:00", T0_MS),
    ],
)
def test_times_in_every_format(form: str, cell: object, expected: int) -> None:
    assert time_reader(HistoryTime(column="x", format=form), SHANGHAI, NOW_MS)(cell) == expected


@pytest.mark.parametrize(
    ("form", "cell"),
    [("iso", "yesterday"), ("iso", ""), ("iso", None), ("epoch_ms", "12.5"), ("epoch_s", str(T0_MS)), ("epoch_ms", str(T0_MS // 1000)),
     ("epoch_s", "nan"), ("epoch_s", "inf"), ("excel", "1e300"), ("iso", "2099-01-01"), ("%Y", "x")],
)  # fmt: skip
def test_what_is_no_time_or_an_absurd_one_is_refused(form: str, cell: object) -> None:
    with pytest.raises(CellError):
        time_reader(HistoryTime(column="x", format=form), SHANGHAI, NOW_MS)(cell)


def test_an_hour_that_clocks_skipped_is_no_time_and_one_shown_twice_is_the_first() -> None:
    read = time_reader(HistoryTime(column="x"), ZoneInfo("America/New_York"), NOW_MS)
    with pytest.raises(CellError, match="did not exist"):
        read("2025-03-09 02:30:00")
    assert read("2024-11-03 01:30:00") == read("2024-11-03T01:30:00-04:00")


@given(st.one_of(st.text(max_size=12), st.floats(), st.none(), st.booleans(), st.integers()))
def test_a_number_is_finite_or_none_or_refused(cell: object) -> None:
    try:
        number = number_of(cell)
    except CellError:
        return
    assert math.isfinite(number) or math.isnan(number)


# ------------------------------------------------------------------ rows


def test_long_rows_are_scaled_into_the_tags_unit(tmp_path: Path) -> None:
    text = f"when,point,value\r\n2025-10-09 08:00:00,TI-1,{MID[A]}\r\n2025-10-09 08:00:01,乙,{(MID[B] - 1) * 2}\r\n"
    kept, done = loaded(tmp_path, "\ufeff" + text, LONG)
    assert kept.rows() == [(A, T0_MS, MID[A], GOOD, None, True), (B, T0_MS + 1000, MID[B], GOOD, None, True)]
    only = concatenated(list(kept.parts.values()))
    assert (only.stream.tolist(), only.sequence.tolist()) == ([0, 0], [0, 0])
    assert (done.samples, done.good, done.counts.rows, [tag.tag for tag in done.tags]) == (2, 2, 2, [A, B])
    assert (done.tags[0].first_ms, done.tags[1].last_ms) == (T0_MS, T0_MS + 1000)
    assert done.digest == only.digest()


WIDE = f"""layout: wide
encoding: gb18030
delimiter: ";"
header_line: 3
time: {{column: 时间, format: "%Y/%m/%d %H:%M:%S", timezone: UTC}}
quality: {{words: {{好: GOOD, 坏: BAD/COMM}}, other: UNCERTAIN}}
missing: ["", "无"]
missing_is: bad
series:
  - {{source: 温度, tag: {A}, quality_column: 温度质量}}
  - {{source: 压力, tag: {B}}}
"""


def test_wide_rows_in_gbk_with_a_preamble_and_words_of_quality(tmp_path: Path) -> None:
    text = (
        "某 DCS 导出\n\n时间;温度;温度质量;压力;备注\n"
        f"2025/10/09 00:00:00;{MID[A]};好;{MID[B]};a\n"
        f"2025/10/09 00:00:01;{MID[A]};坏;无;b\n"
        f"2025/10/09 00:00:02;{MID[A]};?;{MID[B]};\"c\nd\"\n"
    )
    kept, done = loaded(tmp_path, text.encode("gb18030"), WIDE)
    assert kept.rows() == [
        (A, T0_MS, MID[A], GOOD, None, True), (A, T0_MS + 1000, None, BAD, None, True), (A, T0_MS + 2000, MID[A], 64, None, True),
        (B, T0_MS, MID[B], GOOD, None, True), (B, T0_MS + 1000, None, 11, None, True), (B, T0_MS + 2000, MID[B], GOOD, None, True),
    ]  # fmt: skip
    assert (done.good, done.uncertain, done.bad, done.counts.values_dropped) == (3, 1, 2, 1)


def test_a_value_beyond_the_range_is_clamped_and_kept_beside(tmp_path: Path) -> None:
    high = SPAN[A].high
    kept, done = loaded(tmp_path, f"when,point,value\n2025-10-09 08:00:00,TI-1,{high + 5}\n", LONG)
    assert kept.rows() == [(A, T0_MS, high, RANGE, high + 5, True)]
    assert done.counts.clamped == 1


def test_of_one_moment_the_last_row_counts_and_missing_values_are_left_out(tmp_path: Path) -> None:
    rows = "".join(f"2025-10-09 08:00:00,TI-1,{MID[A] + at}\n" for at in (0, 1, 0.5)) + "2025-10-09 08:00:01,TI-1,\n\n"
    kept, done = loaded(tmp_path, "when,point,value\n" + rows, LONG)
    assert kept.rows() == [(A, T0_MS, MID[A] + 0.5, GOOD, None, True)]
    assert (done.duplicates, done.counts.missing, done.samples) == (2, 1, 1)


def test_unlisted_series_are_skipped_only_if_the_mapping_says_so(tmp_path: Path) -> None:
    text = f"when,point,value\n2025-10-09 08:00:00,TI-1,{MID[A]}\n2025-10-09 08:00:00,TI-9,1\n2025-10-09 08:00:01,TI-9,1\n"
    error = refused(tmp_path, text, LONG)
    assert [(each.line, each.column) for each in error.problems] == [(3, "point")]
    assert "did you mean TI-1?" in error.problems[0].message
    kept, done = loaded(tmp_path, text, LONG + "unlisted: skip\n")
    assert (len(kept.rows()), done.counts.unlisted, done.counts.skipped_words) == (1, 2, {"TI-9"})


def test_everything_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        "when,point,value\n"
        "2025-10-09 08:00:00,TI-1,1.0.0\n"  # 2
        "morgen,乙,1\n"  # 3
        "2025-10-09 08:00:00,TI-1\n"  # 4
        "2025-10-09 08:00:00,nobody,1\n"  # 5
        f'2025-10-09 08:00:00,"TI-1",{MID[A]}\n'  # sound
        "2025-10-09 08:00:00,乙,1_000\n"  # 7
        "2025-10-09 08:00:00,乙,１２\n"  # 8
    )
    error = refused(tmp_path, text, LONG)
    assert sorted(each.line for each in error.problems) == [2, 3, 4, 5, 7, 8]
    assert error.count == 6


def test_only_the_first_hundred_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    error = refused(tmp_path, "when,point,value\n" + "x,TI-1,1\n" * 50_000, LONG)
    assert (len(error.problems), error.count) == (100, 50_000)


def test_tags_and_columns_that_are_not_there_are_told_with_the_nearest(tmp_path: Path) -> None:
    told = LONG.replace(f"tag: {A}", f"tag: {A}X").replace("column: when", "column: wen")
    error = refused(tmp_path, "when,point,value,value\n", told)
    messages = " / ".join(each.message for each in error.problems)
    assert f"the site has no tag {A}X; did you mean {A}?" in messages
    assert "there is no column 'wen'; did you mean 'when'?" in messages
    assert "2 columns are named 'value'" in messages


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("when,point,value\n2025-10-09 08:00:00,乙,1\n".encode("gbk"), id="another encoding"),
        pytest.param(b'when,point,value\n2025-10-09 08:00:00,"TI-1,1\n', id="a quote that never ends"),
        pytest.param(b"when,point,value\n2025-10-09 08:00:00,\"TI\"-1,1\n", id="text after a quote"),
        pytest.param(b"when,point,value\n2025-10-09 08:00:00,TI-1," + b"1" * 70_000 + b"\n", id="an endless cell"),
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"when,point,value\n\x00,\x00,\x00\n", id="zeros"),
    ],
)
def test_a_file_that_is_no_csv_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    assert refused(tmp_path, content, LONG).count >= 1


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    for content in (noise, b"when,point,value\n" + noise):
        with contextlib.suppress(LoadRefusedError):
            loaded(folder, content, LONG)
    (folder / "x.parquet").write_bytes(noise)
    with pytest.raises(LoadRefusedError):
        load_file(folder / "x.parquet", None, SITE, folder, None, NOW_MS)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"")
    with pytest.raises(LoadError, match=r"give a \.csv or a \.parquet"):
        load_file(tmp_path / "x.xlsx", None, SITE, tmp_path, None, NOW_MS)


# ------------------------------------------------------------------ mappings


@pytest.mark.parametrize(
    "told",
    [
        "layout: long\ntime: {column: a}\nvalue_column: v\nunlisted: same\n",
        "layout: long\ntime: {column: a}\ntag_column: t\nvalue_column: v\n",
        f"layout: wide\ntime: {{column: a}}\ntag_column: t\nseries: [{{source: x, tag: {A}}}]\n",
        "layout: wide\ntime: {column: a}\n",
        f"layout: wide\ntime: {{column: a}}\nseries: [{{source: x, tag: {A}}}, {{source: x, tag: {B}}}]\n",
        f"layout: wide\ntime: {{column: a}}\nseries: [{{source: x, tag: {A}}}, {{source: y, tag: {A}}}]\n",
        f"layout: wide\ntime: {{column: a}}\nseries: [{{source: x, tag: {A}, scale: 0}}]\n",
        f"layout: wide\ntime: {{column: a, format: us}}\nseries: [{{source: x, tag: {A}}}]\n",
        f"layout: wide\ntime: {{column: a, timezone: Mars/Dome}}\nseries: [{{source: x, tag: {A}}}]\n",
        f"layout: wide\ntime: {{column: a}}\nseries: [{{source: x, tag: {A}, quality_column: q}}]\n",
        f"layout: wide\ntime: {{column: a}}\nquality: {{words: {{x: FINE}}}}\nseries: [{{source: x, tag: {A}}}]\n",
        "layout: long\ntime: {column: a}\ntag_column: t\nvalue_column: v\nunlisted: same\nquality: {words: {x: GOOD}}\n",
        "layout: long\ntime: {column: a}\ntag_column: t\nvalue_column: v\nunlisted: same\nunknown: 1\n",
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused_with_its_line(tmp_path: Path, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        mapping(told, tmp_path)
    assert caught.value.problems
    assert all(problem.line for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["export-import.md", "export-import.zh-CN.md"])
def test_the_mapping_in_the_documentation_is_one(tmp_path: Path, name: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / name).read_text("utf-8")
    (told,) = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    found = mapping(told.removeprefix("version: 1\n"), tmp_path)
    assert [one.tag for one in found.series] == ["T101.TEMP", "T101.PRESSURE"]


# ------------------------------------------------------------------ our own exports come back


def export_order(days: int = 3) -> ExportOrder:
    return ExportOrder((ExportTag(A, "=甲", "-"), ExportTag(B, "乙", "")), T0_MS, T0_MS + days * DAY_MS, SHANGHAI, 10**9)


def inside(samples: Samples) -> Samples:
    """Bring values into the ranges of the tags, as every sample of the gateway is."""
    value = samples.value.copy()
    for at, name in enumerate(samples.names):
        own = samples.tag == at
        span = SPAN[name]
        value[own] = span.low + np.abs(np.mod(value[own], 1.0)) * (span.high - span.low)
    value = np.minimum(value, np.array([SPAN[name].high for name in samples.names])[samples.tag])
    return dataclasses.replace(samples, value=value)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_imports_as_what_it_was(tmp_path: Path, ending: str) -> None:
    store = MemoryHistorian()
    store.write(inside(many([A, B], 3_000, step_ms=60_000)))
    write_export(store, export_order(), tmp_path / f"x.{ending}")
    kept = Kept()
    done = load_file(tmp_path / f"x.{ending}", None, SITE, tmp_path, kept.open, NOW_MS)
    assert done.digest == concatenated([piece for day_ms in store.days() for piece in store.day(day_ms)]).digest()
    assert [(row[:5]) for row in kept.rows()] == [row[:5] for row in rows_of(store._held)]
    assert all(row[5] for row in kept.rows()), "imported history is late"
    assert done.samples == 6_000


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_samples_survive_export_and_import(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    from tests.historian.move.samples import sound_samples

    samples = inside(data.draw(sound_samples(tags=(A, B), rows_max=25)))
    folder = tmp_path_factory.mktemp("round")
    store = MemoryHistorian()
    store.write(samples)
    for ending in ("csv", "parquet"):
        write_export(store, export_order(), folder / f"x.{ending}", force=True)
        kept = Kept()
        load_file(folder / f"x.{ending}", None, SITE, folder, kept.open, NOW_MS)
        assert [row[:5] for row in kept.rows()] == [row[:5] for row in rows_of(samples)]


# ------------------------------------------------------------------ Parquet of others


@pytest.mark.parametrize(
    ("made", "told"),
    [
        pytest.param("make_timestamp({ms} * 1000)", "{column: t, timezone: UTC}", id="times without a zone"),
        pytest.param("make_timestamptz({ms} * 1000)", "{column: t}", id="moments"),
        pytest.param("{ms}", "{column: t, format: epoch_ms}", id="numbers"),
        pytest.param("make_timestamp_ns({ms} * 1000000)", "{column: t, timezone: UTC}", id="nanoseconds"),
    ],
)
def test_parquet_of_others_with_their_types_of_time(tmp_path: Path, made: str, told: str) -> None:
    path = tmp_path / "it's [a] *file?.parquet"
    expression = made.format(ms=f"({T0_MS} + i * 1000)")
    duckdb.connect().execute(
        f"COPY (SELECT {expression} AS t, CAST({MID[A]} AS DECIMAL(18,3)) AS \"a\"\"b\", CASE i WHEN 1 THEN NULL ELSE 1 END AS c"
        f" FROM range(3) r(i)) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)"
    ).fetchall()
    given = mapping(f"layout: wide\ntime: {told}\nseries:\n  - {{source: 'a\"b', tag: {A}}}\n  - {{source: c, tag: {B}}}\n", tmp_path)
    kept = Kept()
    done = load_file(path, given, SITE, tmp_path, kept.open, NOW_MS)
    times = {tag: [row[1] for row in kept.rows() if row[0] == tag] for tag in (A, B)}
    assert times[A] == [T0_MS, T0_MS + 1000, T0_MS + 2000]
    assert times[B] == [T0_MS, T0_MS + 2000]
    assert done.counts.missing == 1


# ------------------------------------------------------------------ parts and going on


def big(folder: Path, rows: int = 4_000) -> Path:
    store = MemoryHistorian()
    store.write(inside(many([A, B], rows, step_ms=40_000)))
    return _exported(store, folder / "big.csv")


def _exported(store: MemoryHistorian, path: Path) -> Path:
    write_export(store, export_order(), path)
    return path


def test_parts_are_days_then_tags_and_never_larger_than_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.historian.load_stage.Stage.parts.__defaults__", (900,))
    path, kept = big(tmp_path), Kept()
    done = load_file(path, None, SITE, tmp_path, kept.open, NOW_MS)
    sizes = [len(part) for part in kept.parts.values()]
    assert sum(sizes) == done.samples == 8_000
    assert max(sizes) <= 900
    spans = [(int(part.source_ms.min()) // DAY_MS, int(part.source_ms.max()) // DAY_MS) for part in kept.parts.values()]
    assert all(first == last for first, last in spans), "a part is of one day"
    assert spans == sorted(spans)


def test_qualities_are_told_of_samples_not_of_rows_that_others_replaced(tmp_path: Path) -> None:
    content = "when,point,value\n" + "".join(f"2025-10-09 08:00:0{at},TI-1,{MID[A] if at != 3 else ''}\n" for at in (1, 1, 1, 2, 3, 3))
    _, done = loaded(tmp_path, content, LONG + "missing_is: bad\n")
    assert (done.counts.rows, done.samples, done.duplicates) == (6, 3, 3)
    assert (done.good, done.uncertain, done.bad) == (2, 0, 1)


def test_the_same_file_is_the_same_load_and_nothing_is_written_twice(tmp_path: Path) -> None:
    path, kept = big(tmp_path), Kept()
    told: list[LoadProgress] = []
    first = load_file(path, None, SITE, tmp_path, kept.open, NOW_MS, told.append)
    again = load_file(path, None, SITE, tmp_path, kept.open, NOW_MS + 5)
    assert kept.written == list(range(first.parts))
    assert (again.load_id, again.parts_there, again.digest) == (first.load_id, first.parts, first.digest)
    assert {each.stage for each in told} == {"read", "write"}
    assert told[-1].done == 1.0
    with path.open("ab") as file:
        file.write(b"\r\n")
    assert load_file(path, None, SITE, tmp_path, None, NOW_MS).load_id != first.load_id, "other content, another load"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_our_own_export_without_the_words_of_quality_is_loaded_by_its_codes(tmp_path: Path, kind: str) -> None:
    whole, part, kept, again = big(tmp_path), tmp_path / f"part.{kind}", Kept(), Kept()
    told = "FORMAT csv, HEADER" if kind == "csv" else "FORMAT parquet"
    duckdb.sql(f"COPY (SELECT utc_ms, tag, value, code, raw FROM read_csv('{whole}')) TO '{part}' ({told})")
    load_file(whole, None, SITE, tmp_path, kept.open, NOW_MS)
    load_file(part, None, SITE, tmp_path, again.open, NOW_MS)
    assert again.rows() == kept.rows() != []


def test_another_mapping_or_range_is_another_load(tmp_path: Path) -> None:
    text = f"when,point,value\n2025-10-09 08:00:00,TI-1,{MID[A]}\n"
    one, two = Kept(), Kept()
    loaded(tmp_path, text, LONG, one)
    loaded(tmp_path, text, LONG.replace("scale: 0.5", "scale: 0.25"), two)
    assert one.load_id != two.load_id


def test_a_dry_run_tells_the_same_and_writes_nothing(tmp_path: Path) -> None:
    path, kept = big(tmp_path), Kept()
    dry = load_file(path, None, SITE, tmp_path, None, NOW_MS)
    done = load_file(path, None, SITE, tmp_path, kept.open, NOW_MS)
    assert dataclasses.replace(dry, counts=done.counts) == done


def segment_rows(folder: Path) -> list[Row]:
    taken = SegmentFolder(folder).snapshot()
    files = [str(live.samples(folder)) for live in taken.files()]
    assert not taken.unreadable
    if not files:
        return []
    found = duckdb.connect().execute("SELECT tag, source_ms, value, code, raw, late FROM read_parquet(?)", [files]).fetchall()
    return sorted(found)


def load_into(data: Path, path: Path) -> Loaded:
    data.mkdir(exist_ok=True)
    return load_file(path, None, SITE, data, lambda load_id: SegmentSink(data / "historian", load_id, lambda: NOW_MS), NOW_MS)


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run it in a child that is ended by SIGKILL at its so-manieth step on the disk; return whether it got that far."""
    child = os.fork()
    if child == 0:
        killed_if_it_hangs()
        seen = 0

        def count(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen > number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            hook_steps(count)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.timeout(900)
def test_killed_at_every_step_a_load_goes_on_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    path = big(tmp_path, rows=2_500)
    kept = Kept()
    load_file(path, None, SITE, tmp_path, kept.open, NOW_MS)
    number = 0
    while True:
        data = tmp_path / f"data-{number}"
        died = killed_at(number, lambda data=data: load_into(data, path))  # type: ignore[misc]
        done = load_into(data, path)
        rows = segment_rows(data / "historian")
        assert rows == kept.rows()
        assert (len(rows), done.samples) == (5_000, 5_000)
        if not died:
            break
        number += 1
    assert number > 10, "there were steps to die at"
    assert done.parts_there == done.parts


@pytest.mark.fault("F73")
@pytest.mark.parametrize("harm", ["gone", "flipped", "rollup gone"])
def test_a_load_whose_files_were_damaged_is_mended_by_importing_the_file_again(tmp_path: Path, harm: str) -> None:
    data, path = tmp_path / "data", big(tmp_path)
    first = load_into(data, path)
    before, rows = {each: each.read_bytes() for each in sorted(data.rglob("*.parquet"))}, segment_rows(data)
    victim = next(each for each in before if ("rollups" in each.parts) == (harm == "rollup gone"))
    if harm == "flipped":
        content = bytearray(before[victim])
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()
    again = load_into(data, path)
    assert (again.load_id, again.parts_there) == (first.load_id, first.parts - 1), "it does not say that all was there"
    assert {each: each.read_bytes() for each in sorted(data.rglob("*.parquet"))} == before
    assert segment_rows(data) == rows
    assert load_into(data, path).parts_there == first.parts


def test_two_series_that_become_one_tag_are_refused_unless_the_mapping_says_so(tmp_path: Path) -> None:
    doubled = LONG.replace(f"tag: {B}, scale: 0.5, offset: 1", f"tag: {A}")
    with pytest.raises(ConfigErrors, match=f"TI-1 and 乙 both become {A}"):
        mapping(doubled, tmp_path)
    text = f"when,point,value\n2025-10-09 08:00:00+08:00,TI-1,{MID[A]}\n2025-10-09 08:00:01+08:00,乙,{MID[A]}\n"
    kept, done = loaded(tmp_path, text, doubled.replace(f"乙, tag: {A}", f"乙, tag: {A}, same_tag: true"))
    assert [row[0] for row in kept.rows()] == [A, A]
    assert done.samples == 2


def test_a_tag_id_that_also_has_a_series_is_refused(tmp_path: Path) -> None:
    text = f"when,point,value\n2025-10-09 08:00:00+08:00,TI-1,{MID[A]}\n2025-10-09 08:00:01+08:00,{A},{MID[A]}\n"
    error = refused(tmp_path, text, LONG + "unlisted: same\n")
    assert [(each.line, each.column) for each in error.problems] == [(3, "point")]
    assert f"TI-1 and {A} both become {A}" in error.problems[0].message


@pytest.mark.parametrize("word", ["GBK", "gb2312", "GB18030", "gbk"])
def test_an_encoding_may_be_called_what_people_call_it(tmp_path: Path, word: str) -> None:
    text = f"when,point,value\n2025-10-09 08:00:00+08:00,乙,{MID[B]}\n"
    kept, done = loaded(tmp_path, text.encode("gbk"), f"encoding: {word}\n{LONG}")
    assert done.samples == 1
    assert done.load_id == loaded(tmp_path, text.encode("gbk"), f"encoding: gb18030\n{LONG}")[1].load_id
    assert len(kept.parts) == 1


def test_a_file_in_gbk_without_a_mapping_is_told_that_it_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "given.csv"
    path.write_bytes("时间,位号,数值\n2025-10-09 08:00:00,乙,1\n".encode("gbk"))
    with pytest.raises(LoadRefusedError) as caught:
        load_file(path, None, SITE, tmp_path, None, NOW_MS)
    assert "--mapping" in caught.value.problems[0].message
    assert "--mapping" in caught.value.problems[0].message_zh
