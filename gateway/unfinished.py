"""A data folder on which `hazardgate restore` or `upgrade` was ended before its end: neither core nor serve starts there.

Reads two names and nothing else, so that anybody may ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

RESTORING: Final = ".restoring"
RESTORE_NOTE: Final = "restore.json"
UPGRADE_NOTE: Final = "upgrade.json"


def unfinished(data: Path) -> tuple[str, str] | None:
    """Return what has to be finished first, in English and Chinese; None if nothing has."""
    if (data / RESTORING / RESTORE_NOTE).exists():
        return (
            f"{data}: a restore was begun here and is not finished; run the same `hazardgate restore` again",
            f"{data}：此处的恢复尚未完成；请再执行一次相同的 hazardgate restore",
        )
    if (data / UPGRADE_NOTE).exists():
        return (
            f"{data}: an upgrade was begun here and is not finished; run `hazardgate upgrade --data {data}` again",
            f"{data}：此处的升级尚未完成；请再执行一次 hazardgate upgrade --data {data}",
        )
    return None
