"""`hazardgate import`: somebody else's history, by a mapping, into our own store."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath, SitePath, loaded_site
from cli.progress import Shown, showing
from cli.running import escaped, refuse, unusable

if TYPE_CHECKING:
    from config import SiteConfig
    from gateway.historian import Loaded, LoadProgress, LoadRefusedError

TAGS_TOLD_MAX: Final = 30
HELP = say(
    "导入外部历史数据（CSV 或 Parquet），按映射文件换算；有错则一条不入，中断后再次执行即可续做",
    "Import foreign history (CSV or Parquet) by a mapping. With one error nothing goes in; ended half-way, the same goes on.",
)


def import_command(
    site: SitePath,
    file: Annotated[Path, typer.Argument(help=say("要导入的 .csv 或 .parquet", "the .csv or .parquet to import"))],
    mapping: Annotated[Path | None, typer.Option("--mapping", "-m", help=say(
        "映射文件（YAML）；本网关导出的文件不需要", "mapping (YAML); our own exports need none"))] = None,
    data: DataPath = DEFAULT_DATA,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("只检查并汇总，不写入", "only check and sum up"))] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Import foreign history by a mapping."""
    from config import ConfigError, load_history_mapping
    from gateway.historian import HistorianError, LoadRefusedError, SegmentSink, load_file

    loaded = loaded_site(site)
    try:
        given = load_history_mapping(mapping) if mapping is not None else None
    except ConfigError as error:
        raise refuse(error) from None
    if not any((data / name).is_dir() for name in ("core", "serve", "historian")):
        raise refuse(say(
            f"{data}：不是网关的数据目录；请用 --data 指定", f"{data}: is no data folder of a gateway; name it with --data"
        ))  # fmt: skip
    folder = data / "historian"
    now_ms = time.time_ns() // 1_000_000
    try:
        with showing() as shown:
            done = load_file(
                file, given, loaded, data,
                None if dry_run else lambda load_id: SegmentSink(folder, load_id, lambda: time.time_ns() // 1_000_000), now_ms,
                lambda how: _tell(shown, how),
            )  # fmt: skip
    except LoadRefusedError as error:
        _refused(error, as_json=as_json)
        raise SystemExit(2) from None
    except HistorianError as error:
        raise refuse(say(error.message_zh, str(error))) from None
    except OSError as error:
        raise refuse(unusable(file, error)) from None
    if as_json:
        print(json.dumps(_as_json(done, dry_run=dry_run), ensure_ascii=False))
    else:
        _print(done, loaded, dry_run=dry_run)


def _tell(shown: Shown, how: LoadProgress) -> None:
    stage = say("读取", "reading") if how.stage == "read" else say("写入", "writing")
    shown.tell(how.done, say(f"{stage}：{how.rows} 行", f"{stage}: {how.rows} rows"))


def _refused(error: LoadRefusedError, *, as_json: bool) -> None:
    if as_json:
        problems = [asdict(each) for each in error.problems]
        print(json.dumps({"refused": True, "count": error.count, "problems": problems}, ensure_ascii=False))
    for each in error.problems:
        where = f"{error.path}:{each.line}" if each.line else str(error.path)
        column = f"[{each.column}] " if each.column else ""
        print(escaped(f"{where}: {column}{say(each.message_zh, each.message)}"), file=sys.stderr)
    if error.count > len(error.problems):
        more = error.count - len(error.problems)
        print(say(f"……另有 {more} 处", f"... and {more} more"), file=sys.stderr)
    print(escaped(say(error.message_zh, str(error))), file=sys.stderr)


def _as_json(done: Loaded, *, dry_run: bool) -> dict[str, Any]:
    counts = done.counts
    return {
        "load": done.load_id, "dry_run": dry_run, "rows": counts.rows, "samples": done.samples, "duplicates": done.duplicates,
        "good": done.good, "uncertain": done.uncertain, "bad": done.bad, "missing": counts.missing, "unlisted": counts.unlisted,
        "clamped": counts.clamped, "values_dropped": counts.values_dropped, "damaged": counts.damaged,
        "parts": done.parts, "parts_there": done.parts_there,
        "digest": f"{done.digest:016x}",
        "tags": [{"tag": tag.tag, "rows": tag.rows, "first_ms": tag.first_ms, "last_ms": tag.last_ms} for tag in done.tags],
    }  # fmt: skip


def _print(done: Loaded, site: SiteConfig, *, dry_run: bool) -> None:
    from alerting import zone_text

    counts, zone = done.counts, ZoneInfo(site.timezone)
    for tag in done.tags[:TAGS_TOLD_MAX]:
        first, last = (zone_text(datetime.fromtimestamp(at // 1000, UTC), zone) for at in (tag.first_ms, tag.last_ms))
        print(say(f"{tag.tag}  {tag.rows} 条  {first} 至 {last}", f"{tag.tag}  {tag.rows} samples  {first} to {last}"))
    if len(done.tags) > TAGS_TOLD_MAX:
        more = len(done.tags) - TAGS_TOLD_MAX
        print(say(f"……另有 {more} 个测点", f"... and {more} more tags"))
    print(say(
        f"读取 {counts.rows} 行，{done.samples} 条采样：有效 {done.good}，可疑 {done.uncertain}，坏值 {done.bad}；"
        f"同一时刻重复 {done.duplicates}（以最后一行为准），无值略去 {counts.missing}，未列出略去 {counts.unlisted}，"
        f"超量程钳位 {counts.clamped}，坏值所附数值舍弃 {counts.values_dropped}",
        f"{counts.rows} rows, {done.samples} samples: {done.good} good, {done.uncertain} uncertain, {done.bad} bad; "
        f"{done.duplicates} of a moment told twice (the last row counts), {counts.missing} left out without a value, "
        f"{counts.unlisted} left out as not listed, {counts.clamped} clamped to the range, "
        f"{counts.values_dropped} values dropped that came as bad",
    ))  # fmt: skip
    if counts.damaged:
        print(say(
            f"该导出文件并不完整：有 {counts.damaged} 段数据当时已损坏，未能导出，也就无从导入",
            f"this export was not whole: {counts.damaged} stretches were damaged then, and are not in the file",
        ))  # fmt: skip
    if dry_run:
        print(say("试运行：没有写入", "dry run: nothing was written"))
    elif done.parts_there == done.parts:
        print(say(f"此前已全部导入（{done.load_id}）", f"all of it was there already ({done.load_id})"))
    else:
        print(say(
            f"已导入 {done.parts} 部分（其中 {done.parts_there} 部分此前已有），编号 {done.load_id}",
            f"imported {done.parts} parts ({done.parts_there} were there already) as {done.load_id}",
        ))  # fmt: skip
