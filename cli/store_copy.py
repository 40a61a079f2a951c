"""`hazardgate store copy`: the samples of one store into another, checked day by day."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath, SitePath, base_dir_of, loaded_site
from cli.progress import Shown, showing
from cli.running import escaped, refuse
from cli.when import typed_time

if TYPE_CHECKING:
    from config import SiteConfig
    from gateway.historian import Copied, CopyProgress, CopyRules, DayCopied, Historian

EMBEDDED: Final = "embedded"
EXIT_UNVERIFIED: Final = 1
VICTORIA_TOLERANCE: Final = 1e-12
"""VictoriaMetrics keeps about 15 digits, of all values of a block by the exponent of the largest."""
VICTORIA_VISIBLE_S: Final = 3.0
REJECTED_TOLD_MAX: Final = 10
HELP = say(
    "在两个历史库之间复制采样和报警事件：逐日核对，缺什么补什么； 中断后再次执行即可续做",
    "Copy samples and alarm events between two stores: only what is missing, checked day by day. Ended half-way, run it again.",
)


def copy_command(
    site: SitePath,
    from_: Annotated[str, typer.Option("--from", help=say(
        "来源：embedded 或 storage.stores 的编号", "source: embedded, or an id of storage.stores"))],
    to: Annotated[str, typer.Option("--to", help=say(
        "目标：embedded 或 storage.stores 的编号", "target: embedded, or an id of storage.stores"))],
    data: DataPath = DEFAULT_DATA,
    since: Annotated[str | None, typer.Option("--since", help=say("自此日（UTC 日）起", "from this (UTC) day on"))] = None,
    until: Annotated[str | None, typer.Option("--until", help=say("至此日（UTC 日，含）", "up to this (UTC) day, included"))] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Copy samples and alarm events between two stores."""
    from config import SecretError
    from gateway.historian import CopyError, HistorianError, copy_store

    loaded, base_dir = loaded_site(site), base_dir_of(site)
    from_ms = typed_time(since, ZoneInfo("UTC")) if since is not None else None
    to_ms = typed_time(until, ZoneInfo("UTC"), end=True) if until is not None else None
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise typer.BadParameter(say("--since 不能晚于 --until", "--since must not be later than --until"))
    try:
        with (
            _opened(loaded, from_, data, base_dir) as (source, own),
            _opened(loaded, to, data, base_dir) as (target, rules),
            showing() as shown,
        ):
            # Where either keeps fewer digits, what is equal but for these is equal: nothing exact is replaced by it.
            rules = replace(rules, tolerance=max(own.tolerance, rules.tolerance))
            done = copy_store(source, target, rules, from_ms=from_ms, to_ms=to_ms, progress=lambda how: _tell(shown, how))
    except (CopyError, SecretError) as error:
        raise refuse(say(error.message_zh, str(error))) from None
    except HistorianError as error:
        told = say(error.message_zh, str(error))
        raise refuse(told + say("；已复制的保留，再次执行即可续做", "; what was copied stays: run it again to go on")) from None
    if as_json:
        print(json.dumps(_as_json(done), ensure_ascii=False))
    else:
        _print(done, ZoneInfo(loaded.timezone))
    raise SystemExit(0 if done.verified else EXIT_UNVERIFIED)


@contextmanager
def _opened(site: SiteConfig, name: str, data: Path, base_dir: Path) -> Iterator[tuple[Historian, CopyRules]]:
    from gateway.core import LEDGER_NAME
    from gateway.historian import CopyRules, EmbeddedHistorian
    from gateway.historian.influx import open_store

    store: Historian
    if name == EMBEDDED:
        folder = data / "historian"
        if not any((data / each).is_dir() for each in ("core", "serve", "historian")):
            raise refuse(say(
                f"{data}：不是网关的数据目录；请用 --data 指定", f"{data}: is no data folder of a gateway; name it with --data"
            ))  # fmt: skip
        store, rules = EmbeddedHistorian(folder, data / "core" / LEDGER_NAME, zone=ZoneInfo(site.timezone)), CopyRules()
    else:
        config = next((each for each in site.storage.stores if each.id == name), None)
        if config is None:
            names = ", ".join((EMBEDDED, *(each.id for each in site.storage.stores)))
            raise refuse(say(f"没有时序库 {name!r}；现有：{names}", f"there is no store {name!r}; there are {names}"))
        store = open_store(config, site.site, base_dir)
        rules = CopyRules(batch_rows=20_000)
        if config.kind == "victoriametrics":
            rules = CopyRules(20_000, VICTORIA_TOLERANCE, VICTORIA_VISIBLE_S)
    try:
        yield store, rules
    finally:
        store.close()


def _tell(shown: Shown, how: CopyProgress) -> None:
    day = _day(how.day_ms)
    shown.tell(how.day / max(1, how.days), say(f"{day}，已写 {how.written} 行", f"{day}, {how.written} rows written"))


def _day(day_ms: int) -> str:
    return f"{datetime.fromtimestamp(day_ms // 1000, UTC):%Y-%m-%d}"


def _as_json(done: Copied) -> dict[str, Any]:
    return {
        "verified": done.verified, "events": done.events, "events_missing": done.events_missing,
        "days": [
            {"day": _day(day.day_ms), "verified": day.verified, "rows": day.rows, "written": day.written, "missing": day.missing,
             "different": day.different, "extra": day.extra, "rejected": day.rejected, "by_digest": day.by_digest,
             "damaged": day.damaged}
            for day in done.days
        ],
        "holes": [{"from_ms": each.from_ms, "to_ms": each.to_ms, "why": each.why} for each in done.holes],
        "rejected": [{"tag": each.tag, "source_ms": each.source_ms, "reason": each.reason} for each in done.rejected],
    }  # fmt: skip


def _print(done: Copied, zone: ZoneInfo) -> None:
    from alerting import zone_text

    for day in done.days:
        print(escaped(_day_in_words(day)))
    for hole in done.holes:
        began, ended = (zone_text(datetime.fromtimestamp(at // 1000, UTC), zone) for at in (hole.from_ms, hole.to_ms))
        print(escaped(say(
            f"缺口：{began} 至 {ended} 之间收到的数据不在来源中（{hole.why}）",
            f"hole: of what was received from {began} until {ended} the source lacks some ({hole.why})",
        )))  # fmt: skip
    for each in done.rejected[:REJECTED_TOLD_MAX]:
        what = f"{each.tag} {each.source_ms}"
        print(escaped(say(f"被拒：{what}：{each.reason}", f"rejected: {what}: {each.reason}")))
    good, written = sum(day.verified for day in done.days), sum(day.written for day in done.days)
    print(say(
        f"{len(done.days)} 天中 {good} 天核对无误；写入 {written} 行，报警事件 {done.events} 条",
        f"{good} of {len(done.days)} days verified; {written} rows and {done.events} alarm events written",
    ))  # fmt: skip
    if not done.verified:
        print(say(
            "未全部核对无误：仍在写入的当天属正常；否则请查看损坏的文件和被拒的采样，然后再次执行",
            "not all is verified: of a day still being written that is normal; otherwise see what is damaged or was rejected, "
            "and run it again",
        ), file=sys.stderr)  # fmt: skip


def _day_in_words(day: DayCopied) -> str:
    if day.damaged:
        return say(
            f"{_day(day.day_ms)}  未复制完，写入 {day.written}：{day.damaged_zh}",
            f"{_day(day.day_ms)}  not copied as a whole, {day.written} written: {day.damaged}",
        )
    how = say("行数与校验和一致", "rows and digest agree") if day.by_digest else say("逐行一致", "row for row")
    state = how if day.verified else say(
        f"缺 {day.missing} 行，不同 {day.different} 行", f"{day.missing} missing, {day.different} different"
    )  # fmt: skip
    more = say(f"，目标另有 {day.extra} 行", f", the target has {day.extra} more") if day.extra else ""
    return say(
        f"{_day(day.day_ms)}  {day.rows} 行，写入 {day.written}：{state}{more}",
        f"{_day(day.day_ms)}  {day.rows} rows, {day.written} written: {state}{more}",
    )
