"""`hazardgate store`: sets up the time-series stores of a site and tells how they are. `store copy` joins in `store_copy`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.language import say
from cli.options import AsJson, SitePath, loaded_site
from cli.running import escaped, refuse
from cli.store_copy import EMBEDDED

if TYPE_CHECKING:
    from config import SiteConfig, TimeSeriesStoreConfig
    from gateway.historian.influx import InfluxHistorian

EXIT_FAILED: Final = 1
STATUS_BYTES_MAX: Final = 4 * 1024 * 1024
BEHIND_MS: Final = 300_000  # from here on core raises CORE.STORE-<id>.BEHIND
TOLD_MS_MAX: Final = 60_000
"""Serve writes its status every 20 s: one that is older than this, or stamped so far ahead, says nothing of now."""

store_app = typer.Typer(
    no_args_is_help=True, help=say("时序库：创建、查看状态、复制", "time-series stores: set up, status, copy"),
)  # fmt: skip

OnlyId = Annotated[str | None, typer.Option("--id", help=say("只处理这一个时序库", "only the store of this id"))]


@store_app.command("setup", help=say(
    "创建数据库或存储桶并设置保留时间；已有的不动，可重复运行",
    "Make the database or bucket and set how long it keeps. What is there stays; safe to run again.",
))  # fmt: skip
def setup(site: SitePath, only: OnlyId = None, as_json: AsJson = False) -> None:
    """Make the database or bucket and set how long it keeps. What is there stays; safe to run again."""
    from gateway.historian.influx import set_up

    loaded, results, failed = loaded_site(site), [], False
    for config in _chosen(loaded, only):
        entry: dict[str, Any] = {"id": config.id, "done": [], "error": None}
        with _opened(config, loaded.site, site, entry) as store:
            if store is not None:
                entry["done"] = [{"text": say(done.text_zh, done.text), "changed": done.changed} for done in set_up(store)]
        results.append(entry)
        failed = failed or entry["error"] is not None
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False))
    for entry in results if not as_json else ():
        for done in entry["done"]:
            typer.echo(f"{entry['id']}: {done['text']}")
        if entry["error"]:
            again = say("；解决后请再执行一次", "; run this again once that is mended")
            typer.echo(f"{entry['error']}{again}", err=True)
    raise SystemExit(EXIT_FAILED if failed else 0)


@store_app.command("status", help=say(
    "列出自带历史库的损坏，各时序库是否可用及写到了哪里",
    "What is damaged of our own historian; whether each store answers and has our database, and how far it was fed.",
))  # fmt: skip
def status(
    site: SitePath,
    data: Annotated[Path | None, typer.Option("--data", help=say(
        "数据目录，默认 hazardgate-data", "data folder; default: hazardgate-data"))] = None,
    only: OnlyId = None,
    as_json: AsJson = False,
) -> None:
    """What is damaged of our own historian; whether each store answers and has our database, and how far it was fed."""
    from gateway.historian.influx import health

    loaded = loaded_site(site)
    if data is not None and not data.is_dir():
        raise refuse(say(
            f"{data}：没有这个目录；请用 --data 指定网关的数据目录",
            f"{data}: there is no such folder; name the gateway's data folder with --data",
        ))  # fmt: skip
    told = _told(data or Path("hazardgate-data"))
    results: list[dict[str, Any]] = [_embedded(told)] if only in (None, EMBEDDED) else []
    chosen = _chosen(loaded, only) if only != EMBEDDED and (loaded.storage.stores or only is not None) else []
    for config in chosen:
        entry: dict[str, Any] = {
            "id": config.id, "kind": config.kind, "url": config.url, "error": None, "version": None, "database": None,
            "enabled": config.enabled, "fed": told.stores.get(config.id), "fed_age_ms": told.age_ms, "fed_current": told.current,
        }  # fmt: skip
        with _opened(config, loaded.site, site, entry) as store:
            if store is not None:
                found = health(store)
                entry["version"], entry["database"] = found.version, found.database
        entry["well"] = _is_well(entry)
        results.append(entry)
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False))
    zone = ZoneInfo(loaded.timezone)
    for entry in results if not as_json else ():
        typer.echo(_in_words(entry) if entry["id"] != EMBEDDED else _embedded_in_words(entry, zone))
    raise SystemExit(0 if all(entry["well"] for entry in results) else EXIT_FAILED)


def _chosen(site: SiteConfig, only: str | None) -> list[TimeSeriesStoreConfig]:
    found = [config for config in site.storage.stores if only in (None, config.id)]
    if not found:
        names = ", ".join(config.id for config in site.storage.stores) or say("没有", "none")
        raise refuse(say(
            f"站点配置 storage.stores 中没有这样的时序库（现有：{names}）", f"no such store in storage.stores (there: {names})"
        ))  # fmt: skip
    return found


@contextmanager
def _opened(
    config: TimeSeriesStoreConfig, site: str, path: Path, entry: dict[str, Any]
) -> Iterator[InfluxHistorian | None]:
    """Open a store; what goes wrong with it stands in its entry, and the other stores have their turn."""
    from config import SecretError
    from gateway.historian.influx import HistorianError, open_store

    try:
        store = open_store(config, site, path if path.is_dir() else path.parent)
    except (SecretError, HistorianError) as error:
        entry["error"] = say(error.message_zh, str(error))
        yield None
        return
    try:
        yield store
    except HistorianError as error:
        entry["error"] = say(error.message_zh, str(error))
    finally:
        store.close()


def wall_ms() -> int:
    """Return UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Told:
    """What serve wrote of itself last, `age_ms` ago; None: it has not, or it cannot be read.

    Attributes:
        stores: by id.
        damaged: files of our own that are damaged or gone, each with its range as status.json has it.
        trouble: why serve could not do its last piece of work, empty if it could.
    """

    age_ms: int | None = None
    stores: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    damaged: tuple[dict[str, Any], ...] = ()
    trouble: str = ""

    @property
    def current(self) -> bool:
        """It says what is now."""
        return self.age_ms is not None and abs(self.age_ms) <= TOLD_MS_MAX


def _told(data: Path) -> Told:
    path = data / "historian" / "status.json"
    try:
        if path.stat().st_size > STATUS_BYTES_MAX:
            return Told()
        loaded = json.loads(path.read_text(encoding="utf-8"))
        said = {"state": "?", "quarantined": 0, "lag_rows": 0, "lag_ms": 0, "detail": ""}
        return Told(
            wall_ms() - int(loaded["at_ms"]), {str(each["id"]): {**said, **each} for each in loaded["stores"]},
            tuple({**each, "file": str(each["file"])} for each in loaded.get("damaged", ())), str(loaded.get("trouble", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Told()


def _embedded(told: Told) -> dict[str, Any]:
    return {
        "id": EMBEDDED, "kind": EMBEDDED, "fed_age_ms": told.age_ms, "fed_current": told.current, "damaged": list(told.damaged),
        "trouble": told.trouble, "well": told.current and not told.damaged and not told.trouble,
    }  # fmt: skip


def _embedded_in_words(entry: dict[str, Any], zone: tzinfo) -> str:
    name = say("embedded（自带历史库）：", "embedded (our own historian): ")
    if entry["fed_age_ms"] is None:
        return name + say("网关尚未报告：请检查查询服务", "the gateway has not told of it: see that serve runs")
    count = len(entry["damaged"])
    found = say("无损坏", "nothing damaged")
    if count:
        found = say(f"有 {count} 处损坏或缺失，请从备份恢复", f"{count} files damaged or gone, restore them from a backup")
    if entry["trouble"]:
        trouble = escaped(entry["trouble"])
        found += say(f"；上一项工作未完成：{trouble}", f"; its last piece of work was not done: {trouble}")
    lines = [f"{name}{_aged(found, entry)}{say('：', ':') if count else ''}"]
    return "\n".join([*lines, *(f"  {escaped('  '.join(_range(each, zone)))}" for each in entry["damaged"])])


def _range(damaged: dict[str, Any], zone: tzinfo) -> tuple[str, str, str, str]:
    """Return the file, which samples of it are concerned, from when to when and of which tags, and why."""
    from cli.alarms import local_time

    from_ms, to_ms, tags = damaged.get("from_ms") or 0, damaged.get("to_ms") or 0, damaged.get("tags")
    times, which = say("时段不明", "times not known"), say("测点不限", "any tag")
    if from_ms or to_ms:
        first, last = local_time(from_ms, zone), local_time(to_ms + 999, zone)
        times = say(f"{first} 至 {last}", f"{first} to {last}")
    if tags:
        which = say(f"{tags[0]} 至 {tags[-1]}", f"{tags[0]} to {tags[-1]}")
    return damaged["file"], times, which, str(damaged.get("why", ""))


def _is_well(entry: dict[str, Any]) -> bool:
    """Whether nothing of a store is wrong or unknown."""
    if entry["error"] or entry["database"] is False:
        return False
    fed = entry["fed"]
    if not entry["enabled"] or fed is None:
        return not entry["enabled"]
    fine = fed["state"] in ("live", "catching up") and not fed["quarantined"] and not fed["detail"]
    return bool(entry["fed_current"] and fine and fed["lag_ms"] <= BEHIND_MS)


def _in_words(entry: dict[str, Any]) -> str:
    name = f"{entry['id']} ({entry['kind']}, {entry['url']})"
    if entry["error"]:
        return f"{name}: {entry['error']}; {_feeding(entry)}"
    version = entry["version"] or say("版本未知", "version not told")
    database = {
        True: say("数据库存在", "database is there"),
        False: say(
            "没有可读的数据库，请运行 hazardgate store setup，或授予该用户读写权限",
            "no database that we may read: run `hazardgate store setup`, or let this user read and write it",
        ),
        None: say("无需数据库", "no database to check"),
    }[entry["database"]]
    return f"{name}: {version}; {database}; {_feeding(entry)}"


def _feeding(entry: dict[str, Any]) -> str:
    fed, age_ms = entry["fed"], entry["fed_age_ms"]
    if not entry["enabled"]:
        return say("未启用，不写入", "switched off, not fed")
    if fed is None or age_ms is None:
        return say("网关尚未报告写入情况：请检查查询服务", "the gateway has not told how far it has fed it: see that serve runs")
    state = {
        "live": say("实时", "live"), "catching up": say("追补中", "catching up"), "away": say("不可用", "away"),
        "refused": say("被拒绝", "refused"),
    }.get(fed["state"], fed["state"])  # fmt: skip
    told = say(
        f"写入：{state}，未写入 {fed['lag_rows']} 条日志，隔离 {fed['quarantined']} 个采样",
        f"feeding: {state}, {fed['lag_rows']} log rows to go, {fed['quarantined']} samples quarantined",
    )
    why = say(str(fed.get("detail_zh") or ""), str(fed.get("detail") or ""))
    told = f"{told}: {why}" if why else told
    return _aged(told, entry)


def _aged(told: str, entry: dict[str, Any]) -> str:
    """Return what the gateway told with how long ago that was, first where it says nothing of now."""
    seconds = abs(entry["fed_age_ms"]) // 1000
    if not entry["fed_current"]:
        return _not_of_now(entry["fed_age_ms"]) + told
    return say(f"{told}（{seconds} 秒前报告）", f"{told} (told {seconds} s ago)")


def _not_of_now(age_ms: int) -> str:
    seconds = abs(age_ms) // 1000
    if age_ms < 0:
        return say(
            f"网关的报告比本机时间超前 {seconds} 秒，以下不是现在的：请检查查询服务和时钟；",
            f"the gateway's word is stamped {seconds} s ahead, this is not of now: see that serve runs, and to the clock; ",
        )
    return say(
        f"网关 {seconds} 秒前的报告，以下不是现在的：请检查查询服务是否运行、磁盘是否已满；",
        f"the gateway told it {seconds} s ago, this is not of now: see that serve runs and its disk has room; ",
    )
