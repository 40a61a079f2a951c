"""`hazardgate export`: what the gateway holds, into a file that people and other programs read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath, SitePath, loaded_site
from cli.progress import Shown, showing
from cli.running import escaped, refuse, unusable
from cli.when import typed_time

if TYPE_CHECKING:
    from config import SiteConfig
    from gateway.historian import EmbeddedHistorian, ExportProgress, ExportTag
    from gateway.serve import HistoryReader

EXIT_DAMAGED: Final = 1
DAMAGED_TOLD_MAX: Final = 10
HELP = say(
    "导出历史数据：CSV、Parquet 或 Excel（按文件名后缀）；时间按站点时区，日期包含当日",
    "Export history as CSV, Parquet or Excel, by the file's ending. Times in the site's zone; a date includes that day.",
)


def export_command(
    site: SitePath,
    out: Annotated[Path, typer.Option("--out", "-o", help=say(
        "输出文件：.csv、.parquet 或 .xlsx", "file: .csv, .parquet or .xlsx"))],
    from_: Annotated[str, typer.Option("--from", help=say(
        "起点，如 2026-03-01 或 2026-03-01T08:00", "begin, as 2026-03-01 or 2026-03-01T08:00"))],
    to: Annotated[str | None, typer.Option("--to", help=say(
        "终点，默认为现在； 仅写日期则含当日", "end, by default now; a date includes that day"))] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", "--tags", help=say(
        "测点，可多次，或以逗号分隔", "a tag; repeatable, or several with commas"))] = None,
    all_: Annotated[bool, typer.Option("--all", help=say("全部测点", "all tags"))] = False,
    data: DataPath = DEFAULT_DATA,
    bom: Annotated[bool, typer.Option("--bom/--no-bom", help=say(
        "CSV 以 BOM 开头，供 Excel 识别中文", "CSV begins with a byte order mark, for Excel"))] = True,
    force: Annotated[bool, typer.Option("--force", help=say("替换已有文件", "replace a file that is there"))] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Export history as CSV, Parquet or Excel, by the file's ending."""
    from alerting import zone_text
    from gateway.historian import (
        EXPORT_ROWS_MAX,
        ExportOrder,
        ExportTag,
        HistorianError,
        chosen,
        format_of,
        write_export,
    )

    loaded = loaded_site(site)
    wanted = [word.strip() for each in tags or () for word in each.split(",") if word.strip()]
    if bool(wanted) == all_:
        if wanted:
            raise typer.BadParameter(say("--tag 与 --all 不能同时给出", "give --tag or --all, not both"))
        raise typer.BadParameter(say("请给出 --tag 或 --all", "give --tag or --all"))
    zone = ZoneInfo(loaded.timezone)
    from_ms = typed_time(from_, zone)
    to_ms = typed_time(to, zone, end=True) if to is not None else time.time_ns() // 1_000_000
    known = [ExportTag(tag.id, tag.name.zh, tag.unit or "") for tag in loaded.tags]
    try:
        kind = format_of(out)
        with closing(_reader(loaded, data)) as reader, showing() as shown:
            known += _former(reader, set(wanted) - {tag.id for tag in known})
            order = ExportOrder(tuple(known) if all_ else chosen(known, wanted), from_ms, to_ms, zone, EXPORT_ROWS_MAX[kind])
            done = write_export(reader, order, out, bom=bom, force=force, data=data, progress=lambda how: _tell(shown, how))
    except HistorianError as error:
        raise refuse(say(error.message_zh, str(error))) from None
    except OSError as error:
        raise refuse(unusable(out, error)) from None
    told: dict[str, Any] = {
        "file": str(out), "rows": done.rows, "bytes": done.bytes, "tags": len(order.tags), "tags_empty": done.tags_empty,
        "from_ms": from_ms, "to_ms": to_ms, "tags_damaged": done.tags_damaged,
        "damaged": [{"from_ms": each.from_ms, "to_ms": each.to_ms, "file": each.file, "why": each.why} for each in done.damaged],
    }  # fmt: skip
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        raise SystemExit(EXIT_DAMAGED if done.damaged else 0)

    def shown_time(at_ms: int) -> str:
        return zone_text(datetime.fromtimestamp(at_ms // 1000, UTC), zone)

    began, ended = shown_time(from_ms), shown_time(to_ms)
    where = escaped(str(out))
    print(say(
        f"{where}：{done.rows} 行，{done.bytes} 字节，{len(order.tags)} 个测点（其中 {done.tags_empty} 个无数据），"
        f"{began} 至 {ended}（不含）",
        f"{where}: {done.rows} rows, {done.bytes} bytes, {len(order.tags)} tags ({done.tags_empty} without data), "
        f"{began} until {ended}",
    ))  # fmt: skip
    if not done.damaged:
        return
    for each in done.damaged[:DAMAGED_TOLD_MAX]:
        lo, hi = shown_time(each.from_ms), shown_time(each.to_ms)
        print(escaped(say(
            f"损坏：{lo} 至 {hi}：{each.file}：{each.why}", f"damaged: {lo} until {hi}: {each.file}: {each.why}"
        )), file=sys.stderr)  # fmt: skip
    if len(done.damaged) > DAMAGED_TOLD_MAX:
        more = len(done.damaged) - DAMAGED_TOLD_MAX
        print(say(f"……另有 {more} 段（见 --json）", f"... and {more} more (see --json)"), file=sys.stderr)
    print(say(
        f"不完整：有 {len(done.damaged)} 段已存数据无法读取，涉及 {done.tags_damaged} 个测点；文件中每段起点有一行，"
        "质量为 BAD/DAMAGED；请从备份恢复上述文件后再次导出",
        f"not whole: {len(done.damaged)} stretches are stored and cannot be read, of {done.tags_damaged} tags; where one begins the "
        "file has a row of quality BAD/DAMAGED; restore these files from a backup and export again",
    ), file=sys.stderr)  # fmt: skip
    raise SystemExit(EXIT_DAMAGED)


def _tell(shown: Shown, how: ExportProgress) -> None:
    shown.tell(how.done, say(f"{how.rows} 行", f"{how.rows} rows"))


def _former(reader: EmbeddedHistorian | HistoryReader, unknown: Iterable[str]) -> list[ExportTag]:
    """Return those of some tags that the site has no more, and the ledger has had."""
    from gateway.historian import ExportTag
    from gateway.serve import HistoryReader

    return [ExportTag(word) for word in sorted(unknown) if isinstance(reader, HistoryReader) and reader.holds(word)]


def _reader(site: SiteConfig, data: Path) -> EmbeddedHistorian | HistoryReader:
    """Return what reads all that the data folder holds: segments, and where there is a ledger, what is not sealed yet."""
    from gateway.core import LEDGER_NAME
    from gateway.historian import EmbeddedHistorian
    from gateway.serve import HistoryReader

    core, historian = data / "core", data / "historian"
    if (core / LEDGER_NAME).is_file():
        return HistoryReader(site, core)
    if not historian.is_dir():
        raise refuse(say(
            f"{data}：里面既没有 core/ 也没有 historian/；请用 --data 指定网关的数据目录",
            f"{data}: holds neither core/ nor historian/; name the gateway's data folder with --data",
        ))  # fmt: skip
    return EmbeddedHistorian(historian, zone=ZoneInfo(site.timezone))
