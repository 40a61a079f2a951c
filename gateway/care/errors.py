"""What can keep a backup, a restore or an upgrade from being made, as a tree. Each tells itself in both languages.

CareError
├── InUseError               core, serve or another of these commands works on the data folder
├── NotABackupError          no backup, an unfinished one, or one of another format
├── DamagedBackupError       a file of the backup is not what was written; nothing was changed
├── TargetError              the place that was named cannot take it
├── NothingToBackUpError     the data folder holds no ledger
├── SourceChangedError       the ledger was replaced, or changes faster than it can be copied
├── NewerDataError           the data was written by a newer program
└── TooOldError              this program knows no way from there
"""

from __future__ import annotations

from pathlib import Path
from typing import Final


class CareError(Exception):
    """Base: names the place, the cause and the next step."""

    def __init__(self, message: str, message_zh: str) -> None:
        self.message_zh = message_zh
        super().__init__(message)

    def describe(self, language: str) -> str:
        """Return the sentence in `zh` or `en`."""
        return self.message_zh if language == "zh" else str(self)


_OWNERS_ZH: Final = {
    "core": "核心", "serve": "查询服务", "the historian's owner": "历史库的管理进程",
    "another backup, restore or upgrade": "另一个备份、恢复或升级命令",
}  # fmt: skip


class InUseError(CareError):
    """Nothing may change under a program that runs."""

    def __init__(self, place: Path, owner: str) -> None:
        self.place, self.owner = place, owner
        owner_zh = _OWNERS_ZH.get(owner) or owner.replace("core with process id", "核心进程")
        super().__init__(
            f"{place}: in use by {owner}; stop core and serve on this data folder first, then run the command again",
            f"{place}：正被 {owner_zh} 使用；请先停止此数据目录上的 core 和 serve，再执行一次",
        )


class NotABackupError(CareError):
    """It is not a backup that this program can use."""

    def __init__(self, place: Path, cause: str, cause_zh: str) -> None:
        self.place = place
        super().__init__(
            f"{place}: not a usable backup ({cause}); name a folder or .tar that `hazardgate backup` has finished",
            f"{place}：不是可用的备份（{cause_zh}）；请指定 hazardgate backup 已完成的目录或 .tar 文件",
        )


class DamagedBackupError(CareError):
    """A backup is used whole or not at all."""

    def __init__(self, place: Path, problems: list[str]) -> None:
        self.place, self.problems = place, problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        more_zh = f"（另有 {len(problems) - 1} 处）" if len(problems) > 1 else ""
        super().__init__(
            f"{place}: damaged: {problems[0]}{more}; nothing was changed; use another backup",
            f"{place}：备份已损坏：{problems[0]}{more_zh}；未作任何改动；请改用另一个备份",
        )


class TargetError(CareError):
    """The place cannot take it."""


class NothingToBackUpError(CareError):
    """There is no ledger."""

    def __init__(self, data: Path) -> None:
        super().__init__(
            f"{data}: holds no ledger (core/ledger.sqlite3); name core's data folder with --data",
            f"{data}：没有账本（core/ledger.sqlite3）；请用 --data 指定核心的数据目录",
        )


class SourceChangedError(CareError):
    """What was being copied is no longer the same."""

    def __init__(self, place: Path, cause: str, cause_zh: str) -> None:
        super().__init__(
            f"{place}: {cause}; run the command again", f"{place}：{cause_zh}；请再执行一次"
        )


class NewerDataError(CareError):
    """A downgrade would read what it does not understand."""

    def __init__(self, place: Path, what: str, what_zh: str, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            f"{place}: {what} has version {found}, this program knows versions up to {known}: it was written by a newer "
            f"program; nothing was changed; install that version, or restore a backup made by this one",
            f"{place}：{what_zh}的版本为 {found}，本程序只认识到 {known}：由更新的程序写入；未作任何改动；"
            f"请安装那个版本，或恢复由本版本制作的备份",
        )


class TooOldError(CareError):
    """There is no way from there to here."""

    def __init__(self, place: Path, what: str, what_zh: str, found: int, wanted: int) -> None:
        super().__init__(
            f"{place}: {what} has version {found}, and this program cannot bring it to version {wanted}; nothing was "
            f"changed; upgrade with a version in between first",
            f"{place}：{what_zh}的版本为 {found}，本程序无法升级到 {wanted}；未作任何改动；请先用中间版本升级",
        )
