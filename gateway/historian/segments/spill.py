"""Where DuckDB may spill: a folder for each process, which is locked while the process lives, and a share of what is free."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Final

import duckdb

from gateway.historian.segments.files import MEMORY, connect
from gateway.historian.segments.names import TEMPORARY

BYTES_MAX: Final = 8 << 30
FREE_SHARE: Final = 0.25
STALE_S: Final = 86_400.0  # of what lies there without a lock of its own
_LOCK_NAME: Final = "in-use"

_guard: Final = threading.Lock()
_mine: Final[dict[Path, tuple[Path, IO[str]]]] = {}


def open_database(folder: Path, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    """Open a database as `files.connect` does, that spills into this process's own folder, and not more than there is room for."""
    db = connect(folder, memory)
    own = own_folder(folder / TEMPORARY)
    limit = min(BYTES_MAX, int(shutil.disk_usage(own).free * FREE_SHARE))
    db.execute("SET temp_directory = $own", {"own": str(own)}).fetchall()
    db.execute("SET max_temp_directory_size = $limit", {"limit": f"{max(limit, 1)}B"}).fetchall()
    return db


def own_folder(temporary: Path) -> Path:
    """Return this process's folder below `temporary`, made and locked at the first asking."""
    with _guard:
        known = _mine.get(temporary)
        if known is not None and known[0].is_dir():
            return known[0]
        temporary.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix="process-", dir=temporary))
        lock = (own / _LOCK_NAME).open("w", encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_EX)
        _mine[temporary] = own, lock
        return own


def clear(temporary: Path) -> None:
    """Remove what processes left that are no more; of others nothing. For who holds the historian's lock: `part-` is its own."""
    for path in [*temporary.iterdir()] if temporary.is_dir() else []:
        try:
            if path.is_dir() and path.name.startswith("process-"):
                if not _in_use(path):
                    shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith("part-") or time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
        except OSError:
            continue  # gone meanwhile, or not ours to remove


def _in_use(path: Path) -> bool:
    try:
        with (path / _LOCK_NAME).open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - path.stat().st_mtime < STALE_S  # it may be about to be locked
    except BlockingIOError:
        return True
    return False
