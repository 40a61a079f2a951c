"""B1's peers: a time-series server is given rows like ours, value and quality, as line protocol, 1 000 rows a request.

A request holds one moment of every tag. Bodies are made beforehand but for their time, two connections keep the server
busy while the other's answer is read, and afterwards the server is asked how many rows it has.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.b1_chain import TAGS
from benchmarks.b1_generator import CALM, SPREAD
from benchmarks.harness import BenchmarkError
from benchmarks.stores import INFLUXD, VICTORIA, StoreServer, running_store
from simulators import synthetic_tag

ROWS_A_REQUEST: Final = TAGS
BODIES: Final = 256
CONNECTIONS: Final = 2
DATABASE: Final = "b1"
MEASUREMENT: Final = "samples"
ANSWER_S_MAX: Final = 60.0
VISIBLE_S_MAX: Final = 60.0
DURABILITY: Final = {INFLUXD: "yes: its log is synced before it answers", VICTORIA: "no: it answers before it has synced"}
_STAMP: Final = b"1000000000000"


@dataclass(frozen=True, slots=True)
class Fed:
    """One peer's run. `cpu_s`: of the server and of the client."""

    kind: str
    rows: int
    seconds: float
    server_cpu_s: float
    client_cpu_s: float

    @property
    def per_s(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    def cpu_s_per_million(self) -> dict[str, float]:
        """CPU seconds for a million rows."""
        return {"server": 1e6 * self.server_cpu_s / self.rows, "client": 1e6 * self.client_cpu_s / self.rows}


def bodies(seed: int) -> list[bytes]:
    """Return request bodies whose time is to be filled in."""
    values = CALM + SPREAD * (2 * np.random.default_rng(seed).random((BODIES, TAGS), np.float32) - 1).astype(np.float64)
    heads = [f"{MEASUREMENT},id={synthetic_tag(at)} value=" for at in range(TAGS)]
    ending = f",quality=192i {_STAMP.decode()}"
    return ["\n".join(f"{head}{value!r}{ending}" for head, value in zip(heads, row, strict=True)).encode()
            for row in values.tolist()]  # fmt: skip


def feed(kind: str, folder: Path, rows: int, seed: int) -> Fed:
    """Start the server on an empty folder, write so many rows, and make sure that it has them.

    Raises:
        BenchmarkError: it is not installed, refused a request, or lacks rows.
    """
    made = bodies(seed)
    requests = max(1, rows // ROWS_A_REQUEST)
    with running_store(kind, folder) as server:
        links = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S_MAX) for _ in range(CONNECTIONS)]
        if kind == INFLUXD:
            _ask(links[0], "POST", "/query?" + urllib.parse.urlencode({"q": f'CREATE DATABASE "{DATABASE}"'}))
        first_ms = time.time_ns() // 1_000_000 - requests
        path = f"/write?db={DATABASE}&precision=ms"
        server_cpu_s, client_cpu_s, began_s = server.cpu_s(), time.process_time(), time.monotonic()
        for number in range(requests + CONNECTIONS):
            link = links[number % CONNECTIONS]
            if number >= CONNECTIONS:
                _answer(link)
            if number < requests:
                link.request("POST", path, made[number % BODIES].replace(_STAMP, b"%d" % (first_ms + number)))
        found = Fed(
            kind, requests * ROWS_A_REQUEST, time.monotonic() - began_s, server.cpu_s() - server_cpu_s,
            time.process_time() - client_cpu_s,
        )  # fmt: skip
        _check(server, links[0], found.rows)
        return found


def _check(server: StoreServer, link: http.client.HTTPConnection, rows: int) -> None:
    """What it answered for must be there; VictoriaMetrics shows it a little later."""
    deadline_s = time.monotonic() + VISIBLE_S_MAX
    while (has := _count(server.kind, link)) != rows:
        if time.monotonic() > deadline_s:
            raise BenchmarkError(f"{server.kind} answered for {rows} rows and has {has}")
        time.sleep(1.0)


def _count(kind: str, link: http.client.HTTPConnection) -> int:
    if kind == INFLUXD:
        query = {"db": DATABASE, "q": f"SELECT count(quality) FROM {MEASUREMENT}"}
        (result,) = json.loads(_ask(link, "GET", "/query?" + urllib.parse.urlencode(query)))["results"]
        return int(result["series"][0]["values"][0][1]) if "series" in result else 0
    query = {"query": f"sum(count_over_time({MEASUREMENT}_quality[1d]))", "time": str(time.time() + 1.0)}
    found = json.loads(_ask(link, "GET", "/api/v1/query?" + urllib.parse.urlencode(query)))["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def _ask(link: http.client.HTTPConnection, method: str, path: str) -> bytes:
    link.request(method, path)
    return _answer(link)


def _answer(link: http.client.HTTPConnection) -> bytes:
    answer = link.getresponse()
    said = answer.read()
    if answer.status >= 300:
        raise BenchmarkError(f"a peer answered {answer.status}: {said[:200]!r}")
    return said
