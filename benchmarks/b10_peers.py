"""B10's peers: InfluxDB 1.6, VictoriaMetrics and a plain DuckDB table, each given the same rows and asked the same.

A peer's size is taken when it has come to rest: flushed, compacted, merged, checkpointed. Servers get line protocol over
one connection; DuckDB gets columns, inserted as they arrive. None of the queries is tuned beyond what its manual names.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import duckdb
import numpy as np

from benchmarks.b10_lines import MEASUREMENT, lines
from benchmarks.harness import BenchmarkError
from benchmarks.stores import INFLUXD, VICTORIA, StoreServer, installed
from gateway.historian.samples import Samples

BODY_ROWS: Final = 10_000
REST_S_MAX: Final = 300.0
REST_S: Final = 10.0
DATABASE: Final = "b10"
ANSWER_S_MAX: Final = 60.0


class Peer(Protocol):
    """What B10 does with a store."""

    name: str
    durability: str

    def load(self, pieces: Iterable[Samples]) -> int:
        """Take the samples; returns how many."""

    def rest(self) -> int:
        """Bring it to rest and return its bytes on disk."""

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """Ask for smallest, largest, first and last value by window; returns how many windows came."""

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """Ask for the samples themselves; returns how many came."""

    def close(self) -> None:
        """End it."""


class _Server:
    """A server behind one kept connection."""

    def __init__(self, kind: str, folder: Path, extra: dict[str, str]) -> None:
        self.server = StoreServer(kind, folder, extra)
        self.server.start()
        self._connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.server.url).port, timeout=ANSWER_S_MAX)

    def send(self, method: str, path: str, body: bytes | None = None, **parameters: str) -> bytes:
        """Ask and return the body. Raises BenchmarkError for anything but success."""
        address = f"{path}?{urllib.parse.urlencode(parameters)}".replace("?match=", "?match[]=") if parameters else path
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if path == "/query" else {}
        self._connection.request(method, address, body, kind)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise BenchmarkError(f"{self.server.kind} answered {answer.status} to {path}: {said[:300]!r}")
        return said

    def close(self) -> None:
        """End the server."""
        self._connection.close()
        self.server.stop()


class Influx:
    """InfluxDB 1.6."""

    name = "InfluxDB 1.6"
    durability = "its own log synced with every answer"

    def __init__(self, folder: Path) -> None:
        """Start it; it snapshots and compacts some seconds after the last write, so that its size can be taken."""
        self._at = _Server(INFLUXD, folder, {
            "DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "5s", "DATA_COMPACT_FULL_WRITE_COLD_DURATION": "8s",
            "COORDINATOR_MAX_SELECT_POINT": "0",
        })  # fmt: skip
        self._at.send("POST", "/query", urllib.parse.urlencode({"q": f'CREATE DATABASE "{DATABASE}"'}).encode())

    def load(self, pieces: Iterable[Samples]) -> int:
        """Write over one connection."""
        count = 0
        for piece in pieces:
            for body, rows in lines(piece, BODY_ROWS):
                self._at.send("POST", "/write", body, db=DATABASE, precision="ms")
                count += rows
        return count

    def rest(self) -> int:
        """Wait until its log is empty and its files stay the same."""

        def state() -> object:
            files = sorted(path.name for path in self._at.server.data.rglob("*.tsm*"))
            waiting = sum(path.stat().st_size for path in (self._at.server.folder / "wal").rglob("*.wal"))
            return None if waiting or not files or any(name.endswith(".tmp") for name in files) else files

        _until_still(state)
        return disk_bytes(self._at.server.data)

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """One query, grouped by tag."""
        select = "SELECT min(value), max(value), first(value), last(value), min(quality)"
        return self._ask(
            f"{select} FROM {MEASUREMENT} WHERE {_where(tags, from_ms, to_ms)} "
            f"GROUP BY time({width_ms}ms, {from_ms % width_ms}ms), id fill(none)"
        )

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """One query, grouped by tag."""
        return self._ask(f"SELECT value, quality FROM {MEASUREMENT} WHERE {_where(tags, from_ms, to_ms)} GROUP BY id")

    def close(self) -> None:
        """End it."""
        self._at.close()

    def _ask(self, query: str) -> int:
        body = urllib.parse.urlencode({"q": query, "db": DATABASE, "epoch": "ms"}).encode()
        (result,) = json.loads(self._at.send("POST", "/query", body))["results"]
        if "error" in result:
            raise BenchmarkError(f"InfluxDB: {result['error']}")
        return sum(len(series["values"]) for series in result.get("series", ()))


class Victoria:
    """VictoriaMetrics."""

    name = "VictoriaMetrics 1.79"
    durability = "answers before it has synced"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._at = _Server(VICTORIA, folder, {
            "search.maxPointsPerTimeseries": "100000", "search.maxSamplesPerQuery": "2000000000", "search.disableCache": "true",
        })  # fmt: skip

    def load(self, pieces: Iterable[Samples]) -> int:
        """Write over one connection."""
        count = 0
        for piece in pieces:
            for body, rows in lines(piece, BODY_ROWS):
                self._at.send("POST", "/write", body, db=DATABASE, precision="ms")
                count += rows
        return count

    def rest(self) -> int:
        """Flush, merge by force, and wait until its files stay the same."""
        self._at.send("GET", "/internal/force_flush")
        self._at.send("GET", "/internal/force_merge")

        def state() -> object:
            said = self._at.send("GET", "/metrics").decode()
            if any(float(found) for found in re.findall(r"^vm_active_(?:force_)?merges\S* (\S+)$", said, re.MULTILINE)):
                return None
            return sorted(str(path) for path in self._at.server.data.rglob("*.bin") if "cache" not in path.parts)

        _until_still(state)
        return sum(disk_bytes(self._at.server.data / part) for part in ("data", "indexdb"))

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """Its own query for exactly this, over values; each point is the window before it."""
        return self._ask(f"rollup_candlestick({_series(tags)}[{width_ms}ms])", from_ms + width_ms, to_ms, width_ms) // 4

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """Its export, which is the only way to the samples themselves."""
        said = self._at.send(
            "GET", "/api/v1/export", match=_series(tags), start=f"{from_ms / 1e3}", end=f"{(to_ms - 1) / 1e3}"
        )
        return sum(len(json.loads(line)["values"]) for line in said.splitlines())

    def close(self) -> None:
        """End it."""
        self._at.close()

    def _ask(self, query: str, from_ms: int, to_ms: int, width_ms: int) -> int:
        said = self._at.send(
            "GET", "/api/v1/query_range", query=query, start=f"{from_ms / 1e3}", end=f"{to_ms / 1e3}", step=f"{width_ms}ms"
        )
        return sum(len(series["values"]) for series in json.loads(said)["data"]["result"])


class PlainDuckDB:
    """A DuckDB database file with one table and no index, rows in the order in which they came."""

    name = "DuckDB table"
    durability = "a transaction for each piece"

    def __init__(self, folder: Path) -> None:
        """Open it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "plain.duckdb"
        self._db = duckdb.connect(str(self._path), config={
            "threads": 2, "memory_limit": "2GB", "temp_directory": str(folder / "spill"),
            "autoinstall_known_extensions": False, "autoload_known_extensions": False,
        })  # fmt: skip
        self._db.execute("CREATE TABLE samples (tag VARCHAR, source_ms BIGINT, value DOUBLE, quality UTINYINT)").fetchall()

    def load(self, pieces: Iterable[Samples]) -> int:
        """Insert piece by piece."""
        count = 0
        for piece in pieces:
            names = np.array(piece.names, object)[piece.tag]
            value = np.ma.masked_invalid(piece.value)
            self._db.register("piece", {"tag": names, "source_ms": piece.source_ms, "value": value, "quality": piece.code})
            self._db.execute("INSERT INTO samples SELECT * FROM piece").fetchall()
            self._db.unregister("piece")
            count += len(piece)
        return count

    def rest(self) -> int:
        """Checkpoint."""
        self._db.execute("CHECKPOINT").fetchall()
        return self._path.stat().st_size

    def windows(self, tags: Sequence[str], from_ms: int, to_ms: int, width_ms: int) -> int:
        """One query, grouped by tag and window."""
        return self._ask(
            "SELECT tag, (source_ms - ?) // ?, min(value), max(value), arg_min(value, source_ms), arg_max(value, source_ms),"
            " min(quality) FROM samples WHERE tag IN (SELECT unnest(?)) AND source_ms >= ? AND source_ms < ? GROUP BY 1, 2",
            [from_ms, width_ms, list(tags), from_ms, to_ms],
        )

    def raw(self, tags: Sequence[str], from_ms: int, to_ms: int) -> int:
        """One query, in order of tag and time."""
        return self._ask(
            "SELECT * FROM samples WHERE tag IN (SELECT unnest(?)) AND source_ms >= ? AND source_ms < ? ORDER BY 1, 2",
            [list(tags), from_ms, to_ms],
        )

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def _ask(self, query: str, bound: list[Any]) -> int:
        found = self._db.execute(query, bound).fetchnumpy()
        return len(next(iter(found.values())))


def peers(folder: Path, ends: ExitStack) -> tuple[list[Peer], list[str]]:
    """Start every peer that is here; returns them and the names of those that are missing. They end with `ends`."""
    found: list[Peer] = []
    missing: list[str] = []
    for make, program in ((Influx, INFLUXD), (Victoria, VICTORIA), (PlainDuckDB, None)):
        if program is not None and not installed(program):
            missing.append(f"{make.name}: {program} is not installed here; not measured")
            continue
        peer: Peer = make(folder / make.__name__.lower())
        ends.callback(peer.close)
        found.append(peer)
    return found, missing


def disk_bytes(folder: Path) -> int:
    """Return what the files below occupy, or their length where that is less (files laid out in advance)."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(min(found.st_size, found.st_blocks * 512) for found in stats)


def _until_still(state: Any) -> None:
    """Wait until `state()` is neither None nor different for a while. Raises BenchmarkError when that never comes."""
    deadline = time.monotonic() + REST_S_MAX
    last, since = None, time.monotonic()
    while time.monotonic() < deadline:
        now = state()
        if now is None or now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > REST_S:
            return
        time.sleep(0.5)
    raise BenchmarkError(f"a peer did not come to rest in {REST_S_MAX:g} s")


def _where(tags: Sequence[str], from_ms: int, to_ms: int) -> str:
    which = " OR ".join(f"id = '{tag}'" for tag in tags)
    return f"({which}) AND time >= {from_ms}ms AND time < {to_ms}ms"


def _series(tags: Sequence[str]) -> str:
    return f'{MEASUREMENT}_value{{id=~"{"|".join(re.escape(tag) for tag in tags)}"}}'.replace("\\", "\\\\")
