"""`hazardgate backup`, `restore` and `upgrade`: what they did, and what is to be done next, in words or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from cli.alarms import local_time, site_zone
from cli.language import say
from cli.running import escaped, program_version, refuse, unusable
from gateway.care import (
    CareError,
    Disk,
    Listing,
    Pace,
    Part,
    Report,
    Restored,
    Upgraded,
    backup,
    backup_into_file,
    plan,
    restore,
    upgrade,
    verify,
)
from gateway.core import CoreError

EXIT_DAMAGED: Final = 1
NICENESS: Final = 19
TELL_EVERY_S: Final = 2.0
TOLD_MAX: Final = 20
MB: Final = 1_000_000


class Progress:
    """One line on a terminal that says how much is done; nothing where nobody looks."""

    def __init__(self) -> None:
        self._bytes, self._next_s, self._shown = 0, 0.0, False

    def __call__(self, _part: str, size: int) -> None:
        """So much more is done."""
        self._bytes += size
        if sys.stderr.isatty() and time.monotonic() >= self._next_s:
            self._next_s, self._shown = time.monotonic() + TELL_EVERY_S, True
            print(f"\r{self._bytes / MB:,.0f} MB", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            print(file=sys.stderr)


def backup_command(data: Path, to: Path, site: Path | None, rate_mb: int, *, copies: bool, as_json: bool) -> None:
    """Make a backup, beside a core that runs or not."""
    _give_way()
    make = backup_into_file if to.suffix == ".tar" else backup
    progress = Progress()
    with _explained(to):
        report: Report = make(
            data, to, disk=Disk(Pace(rate_mb * MB)), program=program_version(), wall_ms=_wall_ms, site=site, told=progress,
            copies=copies,
        )  # fmt: skip
    progress.end()
    assert report.listing is not None
    if as_json:
        print(json.dumps({
            "place": str(report.place), "copied": report.copied, "copied_bytes": report.copied_bytes, "linked": report.linked,
            "reused": report.reused, "kept": report.kept, "longest_read_s": report.longest_read_s, "seconds": report.seconds,
            "left_out": report.left_out, **_summary(report.listing),
        }, ensure_ascii=False))  # fmt: skip
        return
    _tell_backup(report, data)


def _tell_backup(report: Report, data: Path) -> None:
    listing = report.listing
    assert listing is not None
    ledger, size = listing.ledger, listing.bytes / MB
    print(say(
        f"备份完成：{report.place}，{len(listing.files)} 个文件，{size:,.1f} MB，用时 {report.seconds:.1f} 秒",
        f"backup finished: {report.place}, {len(listing.files)} files, {size:,.1f} MB, in {report.seconds:.1f} s",
    ))  # fmt: skip
    print(say(
        f"账本 {ledger.id}，到日志位置 {ledger.pos} 为止全部在内；事件链 {ledger.journal_rows} 条",
        f"ledger {ledger.id}: everything up to log position {ledger.pos} is in it; journal of {ledger.journal_rows} rows",
    ))  # fmt: skip
    copied = say(f"复制 {report.copied} 个（{report.copied_bytes / MB:,.1f} MB）",
                 f"{report.copied} copied ({report.copied_bytes / MB:,.1f} MB)")  # fmt: skip
    if report.linked or report.reused or report.kept:
        copied += say(
            f"，与数据目录共用 {report.linked} 个，与前一备份共用 {report.reused} 个，上次中断时已完成 {report.kept} 个",
            f", {report.linked} shared with the data folder, {report.reused} with the backup before, {report.kept} were there from a"
            " run that was ended",
        )
    longest = report.longest_read_s
    print(copied + say(f"；最长一次读账本 {longest:.2f} 秒", f"; longest read of the ledger {longest:.2f} s"))
    if report.linked:
        print(say(
            "注意：共用的文件与数据目录在同一块磁盘上，磁盘坏了两者都会失去；请再复制到另一块磁盘或另一台机器",
            "note: shared files lie on the data folder's own disk and are lost with it; copy the backup to another disk or box",
        ))  # fmt: skip
    for one in listing.damaged[:TOLD_MAX]:
        print(say(f"注意：备份时已损坏：{escaped(one)}", f"note: was damaged already when it was taken: {escaped(one)}"))
    if report.left_out:
        names = ", ".join(escaped(name) for name in report.left_out[:TOLD_MAX])
        print(say(f"站点目录中未包括：{names}", f"left out of the site's folder: {names}"))
    print(say(
        f"不含密钥：签名密钥、数据库令牌、TLS 私钥请另行保管；采集终端的缓存在各终端上，不在其中。"
        f"检验：hazardgate backup --verify {report.place}；恢复：hazardgate restore --from {report.place} --data {data}",
        f"It holds no secret: keep signing secrets, tokens of databases and TLS keys elsewhere. The edges' spools are on the edges "
        f"and not in it. Check it with: hazardgate backup --verify {report.place}; put it back with: hazardgate restore --from "
        f"{report.place} --data {data}",
    ))  # fmt: skip


def verify_command(place: Path, *, as_json: bool) -> None:
    """Read a whole backup and say what is wrong with it."""
    _give_way()
    with _explained(place):
        listing, problems = verify(place)
    if as_json:
        print(json.dumps({"place": str(place), "problems": problems, **_summary(listing)}, ensure_ascii=False))
    else:
        for problem in problems[:TOLD_MAX]:
            print(say(f"损坏：{escaped(problem)}", f"damaged: {escaped(problem)}"))
        for one in listing.damaged[:TOLD_MAX]:
            print(say(f"注意：备份时已损坏：{escaped(one)}", f"note: was damaged already when it was taken: {escaped(one)}"))
        pos, count = listing.ledger.pos, len(listing.files)
        print(say(
            f"{place}：{count} 个文件，{len(problems)} 处损坏；账本到日志位置 {pos}",
            f"{place}: {count} files, {len(problems)} damaged; ledger up to log position {pos}",
        ))  # fmt: skip
    if problems:
        raise SystemExit(EXIT_DAMAGED)


def restore_command(place: Path, data: Path, *, replace: bool, keep_historian: bool, as_json: bool) -> None:
    """Put a backup back."""
    progress = Progress()
    with _explained(data):
        done = restore(place, data, wall_ms=_wall_ms, replace=replace, keep_historian=keep_historian, told=progress)
    progress.end()
    if as_json:
        aside = None if done.aside is None else str(done.aside)
        print(json.dumps({
            "data": str(data), "old_id": done.old_id, "new_id": done.new_id, "aside": aside, "upgraded": done.upgraded,
            "seconds": done.seconds, **_summary(done.listing),
        }, ensure_ascii=False))  # fmt: skip
        return
    _tell_restored(done, place)


def _tell_restored(done: Restored, place: Path) -> None:
    data, listing = done.data, done.listing
    made = local_time(listing.made_ms, site_zone(data))
    print(say(
        f"已恢复：{data}，备份时间 {made}，账本到日志位置 {listing.ledger.pos}，用时 {done.seconds:.1f} 秒",
        f"restored: {data}, as backed up {made}, ledger up to log position {listing.ledger.pos}, in {done.seconds:.1f} s",
    ))  # fmt: skip
    print(say(
        f"账本编号 {done.old_id} 换为 {done.new_id}：接收方不会看到重复的序号；未送达的通知按新编号重发",
        f"ledger {done.old_id} goes on as {done.new_id}: no receiver sees a number twice; notices that are still due go out anew",
    ))  # fmt: skip
    if done.aside is not None:
        print(say(
            f"原来的数据在 {done.aside}，确认无误后可删除", f"what was there before is in {done.aside}; remove it once all is well"
        ))  # fmt: skip
    for line in done.upgraded:
        print(say(f"已升级：{line}", f"upgraded: {line}"))
    steps = [
        say(
            "用站点配置启动 core，不必加 --restored；再启动 serve。备份中的站点文件（若有）在 "
            f"{place} 的 site/ 下，请与现用的比较",
            f"start core with the site file, without --restored, then serve. The site's files, if they were given to the backup, are "
            f"in site/ of {place}: compare them with yours",
        ),
        say(
            "各采集终端会自动重发尚未确认的数据；备份之后已确认的数据不会再来，缺口会作为丢失记录列出",
            "the edges send again by themselves what was not acknowledged; what was acknowledged after the backup does not come "
            "again, and is listed as lost",
        ),
        say(
            "密钥不在备份中：请放回签名密钥、数据库令牌和 TLS 私钥",
            "secrets are not in a backup: put signing secrets, tokens of databases and TLS keys back",
        ),
        say(
            "备份之后吊销的访问令牌又会有效：用 hazardgate token list 查看并重新吊销",
            "tokens of the API that were revoked after the backup are valid again: look with `hazardgate token list` and revoke them",
        ),
    ]
    print(say("接下来：", "next:"))
    for number, step in enumerate(steps, 1):
        print(f"  {number}. {step}")


def upgrade_command(
    data: Path, site: Path | None, backup_to: Path | None, *, with_backup: bool, dry_run: bool, as_json: bool
) -> None:
    """Bring a data folder to this program's versions."""
    if dry_run:
        with _explained(data):
            _tell_parts(plan(data, site), as_json=as_json)
        return
    progress = Progress()
    with _explained(data):
        done = upgrade(
            data, program=program_version(), wall_ms=_wall_ms, site=site, backup_to=backup_to, with_backup=with_backup, told=progress
        )
    progress.end()
    if as_json:
        backup_at = None if done.backup is None else str(done.backup)
        print(json.dumps({"parts": [_part(part) for part in done.parts], "done": done.done, "backup": backup_at}, ensure_ascii=False))
        return
    _tell_upgraded(done, data)


def _tell_upgraded(done: Upgraded, data: Path) -> None:
    if not done.done and done.backup is None:
        print(say(f"{data}：已是本程序的版本，无需升级", f"{data}: is of this program's versions already; nothing to do"))
        return
    if done.backup is not None:
        print(say(f"升级前的备份：{done.backup}", f"backup from before: {done.backup}"))
    for line in done.done:
        print(say(f"已升级：{line}", f"upgraded: {line}"))
    print(say("升级完成，可以启动 core 和 serve", "upgrade finished; core and serve may be started"))


def _tell_parts(parts: list[Part], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_part(part) for part in parts], ensure_ascii=False))
        return
    for part in parts:
        name = say(part.told_zh, part.told)
        if part.found is None:
            print(say(f"{name}：尚无", f"{name}: none yet"))
        elif part.older:
            print(say(f"{name}：{part.found} → {part.wanted}", f"{name}: {part.found} → {part.wanted}"))
        elif part.found == 0:
            print(say(f"{name}：无法辨认，不改动", f"{name}: cannot be told, and is left alone"))
        else:
            print(say(f"{name}：{part.found}，无需升级", f"{name}: {part.found}, up to date"))


def _part(part: Part) -> dict[str, Any]:
    return {"part": part.name, "place": str(part.place), "found": part.found, "wanted": part.wanted}


def _summary(listing: Listing) -> dict[str, Any]:
    return {
        "site": listing.ledger.site, "ledger": listing.ledger.id, "pos": listing.ledger.pos, "made_ms": listing.made_ms,
        "files": len(listing.files), "bytes": listing.bytes, "versions": listing.versions, "damaged": listing.damaged,
    }  # fmt: skip


def _give_way() -> None:
    """Core must win: a backup that takes longer harms nobody."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turn what a person can do something about into one sentence."""
    try:
        yield
    except (CareError, CoreError) as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(unusable(place, error)) from None
    except apsw.Error as error:
        raise refuse(say(
            f"{place}：账本打不开（{error}）；请检查磁盘、权限和剩余空间，再执行一次",
            f"{place}: the ledger cannot be opened ({error}); check the disk, the permissions and the space left, and run it again",
        )) from None  # fmt: skip


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
