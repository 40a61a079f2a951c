"""`hazardgate backup`, `restore` and `upgrade`: a data folder is looked after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.language import say
from cli.options import DEFAULT_DATA, AsJson, DataPath

care_app = typer.Typer()


@care_app.command("backup", help=say(
    "备份数据目录：在 core 和 serve 运行时即可，不妨碍它们；中断后再执行一次即可续做",
    "Back up a data folder, beside a running core and serve. Ended half-way, the same command goes on.",
))  # fmt: skip
def backup_(
    data: DataPath = DEFAULT_DATA,
    to: Annotated[
        Path | None, typer.Option("--to", help=say("新目录，或新的 .tar 文件", "new folder, or new .tar file"))
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help=say("一并备份站点配置（文件或目录）", "take the site file, or its folder, too"))
    ] = None,
    rate_mb: Annotated[
        int, typer.Option("--rate-mb", min=0, max=100_000, help=say("每秒最多 MB，0 不限", "MB a second at most, 0 is no bound"))
    ] = 64,
    copies: Annotated[
        bool, typer.Option("--copy", help=say("全部复制，不用硬链接共用", "copy everything, share nothing by hard links"))
    ] = False,
    check: Annotated[
        Path | None, typer.Option("--verify", help=say("检验此备份，不作备份", "check this backup instead of making one"))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up a data folder, beside a running core and serve. Ended half-way, the same command goes on."""
    from cli.care import backup_command, verify_command

    if (to is None) == (check is None):
        raise typer.BadParameter(say("--to 与 --verify 必须且只能给出一个", "give one of --to and --verify"))
    if check is not None:
        verify_command(check, as_json=as_json)
    elif to is not None:
        backup_command(data, to, site, rate_mb, copies=copies, as_json=as_json)


@care_app.command("restore", help=say(
    "恢复备份：先停止 core 和 serve；换用新的账本编号；中断后再执行一次即可续做",
    "Put a backup back, with core and serve stopped, under a new ledger id. Ended half-way, the same command goes on.",
))  # fmt: skip
def restore_(
    source: Annotated[Path, typer.Option("--from", help=say("备份目录或 .tar 文件", "backup: folder or .tar file"))],
    data: DataPath = DEFAULT_DATA,
    replace: Annotated[
        bool, typer.Option("--replace", help=say("把已有数据移到一旁（保留）", "move what is there aside (it is kept)"))
    ] = False,
    keep_historian: Annotated[
        bool, typer.Option("--keep-historian", help=say(
            "保留现有历史库，只恢复账本和令牌", "keep the segments that are there: restore the ledger and the tokens only"
        )),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, with core and serve stopped, under a new ledger id. Ended half-way, the same command goes on."""
    from cli.care import restore_command

    restore_command(source, data, replace=replace, keep_historian=keep_historian, as_json=as_json)


@care_app.command("upgrade", help=say(
    "把旧版本的数据目录升级到本程序的版本：先停止 core 和 serve；默认先备份；中断后再执行一次即可续做",
    "Bring an older data folder to this program's versions, with core and serve stopped, after a backup.",
))  # fmt: skip
def upgrade_(
    data: DataPath = DEFAULT_DATA,
    site: Annotated[
        Path | None, typer.Option("--site", help=say("也检查站点配置的版本", "look at the site file's version too"))
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--backup", help=say("升级前备份的位置；默认在数据目录内", "where the backup goes; default: the data folder")),
    ] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help=say("不备份", "make no backup"))] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=say("只列出将做什么", "only list what would be done"))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring an older data folder to this program's versions, with core and serve stopped, after a backup."""
    from cli.care import upgrade_command
    upgrade_command(data, site, to, with_backup=not no_backup, dry_run=dry_run, as_json=as_json)
